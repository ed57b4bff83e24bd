/* SPDX-License-Identifier: Apache-2.0 */
/* The right side of the projection's products, from where it stands to panels (project.h). */
#include "problem.h"
#include "project.h"

void qkv_ask_for_rows(const float *data, int64_t first, int64_t ld, int64_t count, int64_t n) {
    const uintptr_t rows = (uintptr_t)data + (uintptr_t)first * sizeof(float);
    for (int64_t r = 0; r < count; r++)
        for (int64_t c = 0; c < n; c += QKV_PANEL)
            __builtin_prefetch((const void *)(rows + (uintptr_t)(r * ld + c) * sizeof(float)));
}

enum { ROWS = 8, AHEAD = 8 }; /* rows at a time, and panels */

/* Where a row's columns stand beside each other, a few rows are streams side by side: what comes
 * some panels later is asked for, here or in the rows below. */
static void pack_rows(const struct qkv_pack_kernels *kernels, float *dst,
                      const struct qkv_columns *from, int64_t first, int64_t k, int64_t n) {
    const int64_t ld = from->ld, panels = qkv_round_up(n, QKV_PANEL) / QKV_PANEL;
    const float *src = from->data + first * ld;
    for (int64_t r = 0; r < k; r += ROWS)
        for (int64_t v = 0; v < panels; v++) {
            const int64_t next = r / ROWS * panels + v + AHEAD;
            const int64_t row = next / panels * ROWS, column = next % panels * QKV_PANEL;
            qkv_ask_for_rows(src, row * ld + column, ld, ROWS, 1);
            kernels->rows(dst + (v * k + r) * QKV_PANEL, src + r * ld + v * QKV_PANEL, ld,
                          qkv_min(k - r, ROWS), (int)qkv_min(n - v * QKV_PANEL, QKV_PANEL));
        }
}

void qkv_pack_columns(const struct qkv_pack_kernels *kernels, float *dst,
                      const struct qkv_columns *from, int64_t first, int64_t k, int64_t n) {
    if (!from->turned) {
        pack_rows(kernels, dst, from, first, k, n);
        return;
    }
    for (int64_t c = 0; c < n; c += QKV_PANEL)
        kernels->panel(dst + c * k, from->data + first + c * from->ld, from->ld, 0,
                       (int)qkv_min(n - c, QKV_PANEL), k);
}

struct qkv_columns qkv_columns_of(const qkv_tensor *w, int layout, int64_t column) {
    const int turned = layout == QKV_W_OUT_IN;
    const int64_t ld = w->stride[2];
    return (struct qkv_columns){(const float *)w->data + column * (turned ? ld : 1), ld, turned};
}

void qkv_project_pack_strip(const struct qkv_project_state *s, const struct qkv_matrix *m,
                            const qkv_tensor *w, float *packed, int64_t strip) {
    const int64_t column = strip * QKV_PROJECT_COLUMNS;
    const struct qkv_columns from = qkv_columns_of(w, s->layout, column);
    qkv_pack_columns(&s->table->project->pack, packed + column * s->d_model, &from, 0, s->d_model,
                     qkv_min(m->width - column, QKV_PROJECT_COLUMNS));
}
