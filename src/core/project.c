/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of the projection: a part multiplies some tokens by a strip of columns of one
 * matrix. Sums that are not whole stand in its worker's memory; the kernel writes the whole ones
 * to the user where a head is made of whole panels, else they are stored row by row from there.
 */
#include "project.h"

#include "problem.h"

struct qkv_matrix_tensors qkv_matrix_tensors_of(const qkv_project_tensors *t, int which) {
    const struct qkv_matrix_tensors of[QKV_WHICH_COUNT] = {
        [QKV_WHICH_Q] = {&t->wq, &t->bq, &t->q},
        [QKV_WHICH_K] = {&t->wk, &t->bk, &t->k},
        [QKV_WHICH_V] = {&t->wv, &t->bv, &t->v},
    };
    return of[which];
}

int64_t qkv_project_pack_parts(const struct qkv_matrix *m) {
    return qkv_round_up(m->panels, QKV_PACK_PANELS) / QKV_PACK_PANELS;
}

static int64_t column_blocks(const struct qkv_matrix *m) {
    return qkv_round_up(m->width, QKV_PROJECT_COLUMNS) / QKV_PROJECT_COLUMNS;
}

int64_t qkv_project_parts(const struct qkv_project_state *s, const struct qkv_matrix *m) {
    return s->batch * s->token_blocks * column_blocks(m);
}

void qkv_project_pack_panels(const struct qkv_project_kernels *kernels, int64_t d_model,
                             const struct qkv_matrix *m, int layout, const qkv_tensor *w,
                             float *packed, int64_t begin, int64_t end) {
    const float *data = w->data;
    const int64_t ld = w->stride[2];
    for (int64_t g = begin; g < end; g++) {
        float *dst = packed + g * d_model * QKV_PANEL;
        int columns = (int)qkv_min(m->width - g * QKV_PANEL, QKV_PANEL);
        if (layout == QKV_W_IN_OUT)
            kernels->pack.rows(dst, data + g * QKV_PANEL, ld, d_model, columns);
        else
            kernels->pack.panel(dst, data + g * QKV_PANEL * ld, ld, 0, columns, d_model);
    }
}

/* What a part works on, and where its rows begin. */
struct piece {
    const struct qkv_matrix *m;
    const float *x, *w, *bias; /* w: the strip's panels; bias: of its first column, or NULL */
    float *out, *sum;
    int64_t x_ld, tokens, column, columns;
    int64_t head_step, row_step;
    const float *next; /* the panels of the part that follows */
};

/* A panel goes from the registers to the user if it lies in one head. */
static int ends_in_panels(const struct qkv_matrix *m) {
    return m->dim % QKV_PANEL == 0;
}

static float *element(const struct piece *p, int64_t column) {
    return p->out + column / p->m->dim * p->head_step + column % p->m->dim;
}

static void multiply(const struct qkv_project_state *s, const struct piece *p) {
    const struct qkv_project_kernels *kernels = s->table->project;
    const int64_t depth = p->tokens <= kernels->few ? s->d_model : QKV_PROJECT_DEPTH;
    const int64_t padded = qkv_round_up(p->columns, QKV_PANEL);
    struct qkv_multiply g = {
        .sum = p->sum,
        .x_ld = p->x_ld,
        .w_panel = s->d_model * QKV_PANEL,
        .sum_ld = padded,
        .tokens = p->tokens,
        .panels = (int)(padded / QKV_PANEL),
        .bias = p->bias,
        .out_ld = p->row_step,
    };
    for (int v = 0; v < g.panels && ends_in_panels(p->m); v++)
        g.out[v] = element(p, p->column + v * QKV_PANEL);
    for (int64_t k = 0; k < s->d_model; k += g.k) {
        g.k = qkv_min(s->d_model - k, depth);
        g.x = p->x + k;
        g.w = p->w + k * QKV_PANEL;
        g.add = k > 0;
        g.ends = k + g.k == s->d_model && ends_in_panels(p->m);
        g.ahead = k + g.k < s->d_model ? g.w + g.k * QKV_PANEL : p->next;
        kernels->multiply(&g);
    }
}

/* Rows of whole sums, to one head after the other. */
static void store(const struct qkv_project_kernels *kernels, const struct piece *p) {
    const int64_t ld = qkv_round_up(p->columns, QKV_PANEL);
    for (int64_t i = 0; i < p->tokens; i++)
        for (int64_t c = 0, n; c < p->columns; c += n) {
            const int64_t column = p->column + c;
            n = qkv_min(p->columns - c, p->m->dim - column % p->m->dim);
            kernels->store(element(p, column) + i * p->row_step, p->sum + i * ld + c,
                           p->bias ? p->bias + c : NULL, n);
        }
}

static void project_part(const struct qkv_project_state *s, const qkv_project_tensors *tensors,
                         const qkv_workspace *workspace, int which, int64_t index) {
    const struct qkv_matrix *m = s->matrix + which;
    const struct qkv_matrix_tensors t = qkv_matrix_tensors_of(tensors, which);
    const int64_t rows = s->batch * s->token_blocks, row = index % rows;
    const int64_t entry = row / s->token_blocks, token = row % s->token_blocks * s->block;
    const int64_t column = index / rows * QKV_PROJECT_COLUMNS;
    const int64_t after = row + 1 < rows ? column : column + QKV_PROJECT_COLUMNS;
    const float *bias = t.bias->data;
    const float *packed =
        s->packs ? (const float *)((const char *)workspace->shared + m->packed)
                 : (const float *)((const char *)t.w->data + sizeof(struct qkv_packed_header));
    const struct piece p = {
        .m = m,
        .x = (const float *)tensors->x.data + entry * tensors->x.stride[0] +
             token * tensors->x.stride[2],
        .w = packed + column * s->d_model,
        .bias = bias ? bias + column : NULL,
        .out = (float *)t.out->data + entry * t.out->stride[0] + token * t.out->stride[2],
        .sum = workspace->worker,
        .x_ld = tensors->x.stride[2],
        .tokens = qkv_min(s->tokens - token, s->block),
        .column = column,
        .columns = qkv_min(m->width - column, QKV_PROJECT_COLUMNS),
        .head_step = t.out->stride[1],
        .row_step = t.out->stride[2],
        .next = packed + (after < m->width ? after : column) * s->d_model,
    };
    multiply(s, &p);
    if (!ends_in_panels(m))
        store(s->table->project, &p);
}

/* The matrix that part *index of a phase belongs to; *index becomes the part within it. */
static int matrix_of(const struct qkv_project_state *s, int packing, int64_t *index) {
    int which = 0;
    for (;; which++) {
        const struct qkv_matrix *m = s->matrix + which;
        int64_t parts = packing ? qkv_project_pack_parts(m) : qkv_project_parts(s, m);
        if (*index < parts)
            return which;
        *index -= parts;
    }
}

void qkv_project_do(const struct qkv_project_state *s, const qkv_project_tensors *tensors,
                    const qkv_workspace *workspace, int32_t phase, int64_t begin, int64_t end) {
    const int packing = s->packs && phase == 0;
    for (int64_t i = begin; i < end; i++) {
        int64_t index = i;
        int which = matrix_of(s, packing, &index);
        if (packing) {
            const struct qkv_matrix *m = s->matrix + which;
            int64_t panel = index * QKV_PACK_PANELS;
            qkv_project_pack_panels(s->table->project, s->d_model, m, s->layout,
                                    qkv_matrix_tensors_of(tensors, which).w,
                                    (float *)((char *)workspace->shared + m->packed), panel,
                                    qkv_min(panel + QKV_PACK_PANELS, m->panels));
        } else {
            project_part(s, tensors, workspace, which, index);
        }
    }
}
