/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of the projection's gradients. dX = dQ W^Q^T + dK W^K^T + dV W^V^T and dW = X^T dY are
 * both sums of products of rows with columns, and run in the projection's own tiles: the rows on
 * the left as they stand or as phase 0 left them, the columns on the right packed into panels by
 * the part that needs them (project_columns.c), DEPTH steps at a time. Where weights are stored
 * [out, in], so is dW: dW^T = dY^T X, the same sums with the sides exchanged.
 */
#include "project_backward.h"

#include <string.h>

#include "problem.h"

/* One product of a part: rows[m x k], at equal distances, times columns[k x n]. */
struct product {
    struct qkv_flat rows;
    struct qkv_columns columns;
    int64_t k;
};

/* Where a part's sums go: row r of the output, by number. */
struct target {
    const qkv_tensor *tensor;
    int64_t tokens; /* rows of one batch entry */
    int64_t row, rows, column, columns;
};

/* ---- A part's products ---- */

static float *row_of(const struct target *t, int64_t row) {
    const qkv_tensor *out = t->tensor;
    return (float *)out->data + row / t->tokens * out->stride[0] +
           row % t->tokens * out->stride[2] + t->column;
}

enum { AHEAD = 16 }; /* rows */

/* Rows of whole sums, to what stands there if that is to be added to: it is asked for before. */
static void store(const struct qkv_project_backward_state *s, const struct target *t,
                  const float *sum) {
    const int64_t ld = qkv_round_up(t->columns, QKV_PANEL);
    for (int64_t i = 0; i < t->rows; i++) {
        float *out = row_of(t, t->row + i);
        if (s->accumulate)
            qkv_ask_for_rows(row_of(t, t->row + qkv_min(i + AHEAD, t->rows - 1)), 0, 0, 1,
                             t->columns);
        s->table->project_backward->store(out, sum + i * ld, s->accumulate ? out : NULL,
                                          t->columns);
    }
}

/* Can the kernel write whole panels to the user itself? */
static int ends_in_panels(const struct qkv_project_backward_state *s, const struct target *t,
                          int64_t *ld) {
    *ld = t->tensor->stride[2];
    return !s->accumulate && t->columns % QKV_PANEL == 0 &&
           (t->row % t->tokens + t->rows <= t->tokens);
}

/* The part's rows through a block of steps, which is packed. */
static void multiply_rows(const struct qkv_project_backward_state *s, struct qkv_multiply *g,
                          const struct target *t, struct qkv_flat rows) {
    const int64_t share =
        qkv_even_share(t->rows, QKV_PROJECT_TOKENS, s->table->project_backward->mr);
    float *sum = g->sum;
    for (int64_t r = 0; r < t->rows; r += share) {
        g->tokens = qkv_min(t->rows - r, share);
        g->x = rows.data + r * rows.ld;
        g->sum = sum + r * g->sum_ld;
        for (int v = 0; v < g->panels && g->ends; v++)
            g->out[v] = row_of(t, t->row + r) + v * QKV_PANEL;
        s->table->project_backward->multiply(g);
    }
    g->sum = sum;
}

static void multiply(const struct qkv_project_backward_state *s, const struct product *products,
                     int count, const struct target *t, void *worker) {
    float *packed = (float *)((char *)worker + s->packed);
    const int64_t padded = qkv_round_up(t->columns, QKV_PANEL);
    struct qkv_multiply g = {.panels = (int)(padded / QKV_PANEL),
                             .w = packed,
                             .ahead = packed,
                             .sum = (float *)((char *)worker + s->sum),
                             .sum_ld = padded,
                             .follows = s->table->follows};
    const int direct = ends_in_panels(s, t, &g.out_ld);
    for (int i = 0; i < count; i++) {
        const struct product *p = products + i;
        const int64_t depth = qkv_even_share(p->k, QKV_PROJECT_DEPTH, QKV_STRETCH);
        g.x_ld = p->rows.ld;
        for (int64_t first = 0; first < p->k; first += g.k) {
            g.k = qkv_min(p->k - first, depth);
            g.w_panel = g.k * QKV_PANEL;
            g.ends = direct && i == count - 1 && first + g.k == p->k;
            qkv_pack_columns(&s->table->project_backward->pack, packed, &p->columns, first, g.k,
                             t->columns);
            multiply_rows(s, &g, t, (struct qkv_flat){p->rows.data + first, p->rows.ld});
            g.add = 1;
        }
    }
    if (!g.add)
        memset(g.sum, 0, (size_t)(t->rows * padded) * sizeof(float));
    if (!g.ends)
        store(s, t, g.sum);
}

/* ---- Phase 1 ---- */

/* The parts of an output of so many rows and columns: blocks of rows within strips. */
struct grid {
    int64_t strips, blocks, block;
};

static struct grid grid_of(const struct qkv_project_backward_state *s, int64_t rows,
                           int64_t columns) {
    struct grid g = {.strips = qkv_round_up(columns, QKV_PROJECT_COLUMNS) / QKV_PROJECT_COLUMNS};
    g.blocks = qkv_round_up(rows, QKV_GRADIENT_ROWS) / QKV_GRADIENT_ROWS;
    g.block = qkv_even_share(rows, QKV_GRADIENT_ROWS, s->table->project_backward->mr);
    return g;
}

static struct target target_of(const qkv_tensor *tensor, const struct grid *g, int64_t index,
                               int64_t rows, int64_t columns) {
    const int64_t row = index % g->blocks * g->block;
    const int64_t column = index / g->blocks * QKV_PROJECT_COLUMNS;
    return (struct target){
        .tensor = tensor,
        .tokens = rows,
        .row = row,
        .rows = qkv_min(rows - row, g->block),
        .column = column,
        .columns = qkv_min(columns - column, QKV_PROJECT_COLUMNS),
    };
}

/* dX: all matrices that there are, in the order Q, K, V. */
static void part_of_x(const struct qkv_gradient_call *call, const qkv_workspace *workspace,
                      const struct grid *grid, int64_t index) {
    const struct qkv_project_backward_state *s = call->state;
    struct target t = target_of(&call->gradients.x, grid, index, s->rows, s->shape.d_model);
    struct product products[QKV_WHICH_COUNT];
    int count = 0;
    if (!call->gradients.x.data)
        return;
    t.tokens = s->shape.tokens;
    for (int which = 0; which < QKV_WHICH_COUNT; which++) {
        const qkv_tensor *w = qkv_matrix_gradients_of(call, which).w;
        const int in_out = s->shape.layout == QKV_W_IN_OUT;
        const int64_t ld = w->stride[2];
        if (s->shape.matrix[which].width == 0)
            continue;
        struct product *p = products + count++;
        p->rows = qkv_flat_dy(call, which, workspace->shared);
        p->rows.data += t.row * p->rows.ld;
        p->columns =
            (struct qkv_columns){(const float *)w->data + t.column * (in_out ? ld : 1), ld, in_out};
        p->k = s->shape.matrix[which].width;
    }
    multiply(s, products, count, &t, workspace->worker);
}

/* dW as it is stored: X^T dY, or dY^T X. */
static void part_of_w(const struct qkv_gradient_call *call, const qkv_workspace *workspace,
                      int which, const struct grid *grid, int64_t index) {
    const struct qkv_project_backward_state *s = call->state;
    const int64_t width = s->shape.matrix[which].width, d_model = s->shape.d_model;
    const int in_out = s->shape.layout == QKV_W_IN_OUT;
    const qkv_tensor *dw = qkv_matrix_gradients_of(call, which).dw;
    const struct target t =
        target_of(dw, grid, index, in_out ? d_model : width, in_out ? width : d_model);
    if (!dw->data)
        return;
    float *turned = qkv_turned_of(in_out ? &s->x : s->dy + which, workspace->shared);
    const struct qkv_flat columns =
        in_out ? qkv_flat_dy(call, which, workspace->shared) : qkv_flat_x(call, workspace->shared);
    const struct product p = {
        .rows = {turned + t.row * s->turned_ld, s->turned_ld},
        .columns = {columns.data + (s->rows ? t.column : 0), columns.ld, 0},
        .k = s->rows,
    };
    multiply(s, &p, 1, &t, workspace->worker);
}

/* db: the stretches that phase 0 summed, joined from left to right. */
static void part_of_b(const struct qkv_gradient_call *call, const qkv_workspace *workspace,
                      int which) {
    const struct qkv_project_backward_state *s = call->state;
    const struct qkv_project_backward_kernels *kernels = s->table->project_backward;
    const int64_t width = s->shape.matrix[which].width;
    const float *sums = qkv_sums_of(s->dy + which, workspace->shared);
    float *out = qkv_matrix_gradients_of(call, which).db->data;
    float *sum = (float *)((char *)workspace->worker + s->sum);
    for (int64_t c = 0; out && c < width; c += QKV_PROJECT_COLUMNS) {
        const int64_t n = qkv_min(width - c, QKV_PROJECT_COLUMNS);
        kernels->sum_rows(sum, sums + c, width, s->groups, n);
        kernels->store(out + c, sum, s->accumulate ? out + c : NULL, n);
    }
}

static struct grid grid_of_x(const struct qkv_project_backward_state *s) {
    return grid_of(s, s->rows, s->shape.d_model);
}

static struct grid grid_of_w(const struct qkv_project_backward_state *s, int which) {
    const int64_t width = s->shape.matrix[which].width, d_model = s->shape.d_model;
    return s->shape.layout == QKV_W_IN_OUT ? grid_of(s, d_model, width)
                                           : grid_of(s, width, d_model);
}

static int64_t parts_of(struct grid g) {
    return g.strips * g.blocks;
}

int64_t qkv_project_backward_parts(const struct qkv_project_backward_state *s) {
    int64_t parts = parts_of(grid_of_x(s));
    for (int which = 0; which < QKV_WHICH_COUNT; which++)
        if (s->shape.matrix[which].width)
            parts += parts_of(grid_of_w(s, which)) + 1;
    return parts;
}

/* dX's parts, which are the largest, come first; then each matrix's, then the bias's. */
static void run_part(const struct qkv_gradient_call *call, const qkv_workspace *workspace,
                     int64_t index) {
    const struct qkv_project_backward_state *s = call->state;
    struct grid grid = grid_of_x(s);
    if (index < parts_of(grid)) {
        part_of_x(call, workspace, &grid, index);
        return;
    }
    index -= parts_of(grid);
    for (int which = 0; which < QKV_WHICH_COUNT; which++) {
        if (s->shape.matrix[which].width == 0)
            continue;
        grid = grid_of_w(s, which);
        if (index < parts_of(grid))
            part_of_w(call, workspace, which, &grid, index);
        else if (index == parts_of(grid))
            part_of_b(call, workspace, which);
        index -= parts_of(grid) + 1;
        if (index < 0)
            return;
    }
}

void qkv_project_backward_do(const struct qkv_gradient_call *call, const qkv_workspace *workspace,
                             int32_t phase, int64_t begin, int64_t end) {
    const int preparing = call->state->groups > 0 && phase == 0;
    for (int64_t i = begin; i < end; i++) {
        if (preparing)
            qkv_gradient_prepare(call, workspace->shared, i);
        else
            run_part(call, workspace, i);
    }
}
