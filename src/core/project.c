/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of the projection: a part multiplies some tokens by some columns of one matrix, a
 * stretch of d_model at a time, in its worker's memory, and stores the rows head by head.
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

/* What a part works on. */
struct piece {
    const struct qkv_matrix *m;
    struct qkv_matrix_tensors t;
    const float *packed;
    int64_t entry;                   /* of the batch */
    int64_t token, tokens;           /* first and count */
    int64_t column, columns, padded; /* first, count, and count rounded up to panels */
};

static void multiply(const struct qkv_project_state *s, const qkv_tensor *x, const struct piece *p,
                     float *acc) {
    const float *rows = (const float *)x->data + p->entry * x->stride[0] + p->token * x->stride[2];
    for (int64_t k = 0; k < s->d_model; k += QKV_PROJECT_DEPTH) {
        const struct qkv_gemm g = {
            .a = rows + k,
            .lda = x->stride[2],
            .b = p->packed + p->column * s->d_model + k * QKV_PANEL,
            .b_k = QKV_PANEL,
            .b_g = s->d_model * QKV_PANEL,
            .c = acc,
            .ldc = p->padded,
            .m = p->tokens,
            .n = p->padded,
            .k = qkv_min(s->d_model - k, QKV_PROJECT_DEPTH),
            .add = k > 0,
        };
        s->table->project->gemm(&g);
    }
}

/* Columns [column, column + columns) of a row belong to one head after the other. */
static void store(const struct qkv_project_state *s, const struct piece *p, const float *acc) {
    const int64_t *stride = p->t.out->stride, dim = p->m->dim;
    const float *bias = p->t.bias->data;
    for (int64_t i = 0; i < p->tokens; i++, acc += p->padded) {
        float *row = (float *)p->t.out->data + p->entry * stride[0] + (p->token + i) * stride[2];
        for (int64_t c = 0, n; c < p->columns; c += n) {
            int64_t at = p->column + c, head = at / dim;
            n = qkv_min(p->columns - c, (head + 1) * dim - at);
            s->table->project->store(row + head * stride[1] + at % dim, acc + c,
                                     bias ? bias + at : NULL, n);
        }
    }
}

static void project_part(const struct qkv_project_state *s, const qkv_project_tensors *tensors,
                         const qkv_workspace *workspace, int which, int64_t index) {
    const struct qkv_matrix *m = s->matrix + which;
    const int64_t rows = s->batch * s->token_blocks, row = index % rows;
    struct piece p = {
        .m = m,
        .t = qkv_matrix_tensors_of(tensors, which),
        .entry = row / s->token_blocks,
        .token = row % s->token_blocks * QKV_PROJECT_TOKENS,
        .column = index / rows * QKV_PROJECT_COLUMNS,
    };
    p.tokens = qkv_min(s->tokens - p.token, QKV_PROJECT_TOKENS);
    p.columns = qkv_min(m->width - p.column, QKV_PROJECT_COLUMNS);
    p.padded = qkv_round_up(p.columns, QKV_PANEL);
    p.packed = s->packs
                   ? (const float *)((const char *)workspace->shared + m->packed)
                   : (const float *)((const char *)p.t.w->data + sizeof(struct qkv_packed_header));
    multiply(s, &tensors->x, &p, workspace->worker);
    store(s, &p, workspace->worker);
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
