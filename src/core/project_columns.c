/* SPDX-License-Identifier: Apache-2.0 */
/* The right side of the projection's products, from where it stands to panels (project.h). */
#include "problem.h"
#include "project.h"

void qkv_ask_for_rows(const float *rows, int64_t ld, int64_t count, int64_t n) {
    for (int64_t r = 0; r < count; r++)
        for (int64_t c = 0; c < n; c += QKV_PANEL)
            __builtin_prefetch((const void *)((uintptr_t)rows +
                                              ((uintptr_t)r * (uintptr_t)ld + (uintptr_t)c) * 4));
}

/* Rows that lie beside each other are taken together, a few at a time, while those that come next
 * are asked for: they are too far apart for a hardware prefetcher. */
void qkv_pack_columns(const struct qkv_pack_kernels *kernels, float *dst,
                      const struct qkv_columns *from, int64_t first, int64_t k, int64_t n) {
    const int64_t ld = from->ld, few = from->turned ? k : QKV_PANEL;
    const float *src = from->data + (from->turned ? first : first * ld);
    for (int64_t r = 0; r < k; r += few, src += few * ld) {
        if (!from->turned)
            qkv_ask_for_rows(src + few * ld, ld, few, n);
        for (int64_t c = 0; c < n; c += QKV_PANEL) {
            const int columns = (int)qkv_min(n - c, QKV_PANEL);
            float *panel = dst + c * k + r * QKV_PANEL;
            if (from->turned)
                kernels->panel(panel, src + c * ld, ld, 0, columns, k);
            else
                kernels->rows(panel, src + c, ld, qkv_min(k - r, few), columns);
        }
    }
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
