/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of the losses: blocks of rows and columns, whose sums are joined in order. */
#include "loss.h"

#include <string.h>

#include "problem.h"

static float *row_of(const qkv_tensor *t, int64_t row, int64_t column) {
    return t->data ? (float *)t->data + row * t->stride[2] + column : NULL;
}

/* What a block covers. */
struct block {
    int64_t row, rows, column, columns;
};

static struct block block_of(const struct qkv_loss_state *s, int64_t index) {
    struct block b = {
        .row = index / s->column_blocks * s->block_rows,
        .column = index % s->column_blocks * s->block_columns,
    };
    b.rows = qkv_min(s->rows - b.row, s->block_rows);
    b.columns = qkv_min(s->columns - b.column, s->block_columns);
    return b;
}

static double square_block(const struct qkv_loss_state *s, const qkv_loss_tensors *t,
                           const struct block *b) {
    const float factor = (float)(2.0 / ((double)s->rows * (double)s->columns));
    double sum = 0.0;
    for (int64_t row = b->row; row < b->row + b->rows; row++)
        sum += s->table->loss->square(row_of(&t->gradient, row, b->column),
                                      row_of(&t->prediction, row, b->column),
                                      row_of(&t->target, row, b->column), b->columns, factor);
    return sum;
}

/* Rows that are left out are not read. */
static double cross_entropy_block(const struct qkv_loss_state *s, const qkv_loss_tensors *t,
                                  const struct block *b, int64_t counted) {
    double sum = 0.0;
    for (int64_t row = b->row; row < b->row + b->rows; row++) {
        const int32_t label = t->labels[row];
        float *gradient = row_of(&t->gradient, row, 0);
        if (label >= 0)
            sum += s->table->loss->cross_entropy(gradient, row_of(&t->prediction, row, 0),
                                                 s->columns, label, (double)counted);
        else if (gradient)
            memset(gradient, 0, (size_t)s->columns * sizeof(*gradient));
    }
    return sum;
}

static void do_blocks(const struct qkv_loss_state *s, const qkv_loss_tensors *t,
                      struct qkv_loss_shared *shared, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        const struct block b = block_of(s, i);
        shared->sum[i] = s->kind == QKV_LOSS_SQUARED
                             ? square_block(s, t, &b)
                             : cross_entropy_block(s, t, &b, shared->counted);
    }
}

static int64_t counted_rows(const struct qkv_loss_state *s, const int32_t *labels) {
    int64_t counted = 0;
    for (int64_t row = 0; row < s->rows; row++)
        counted += labels[row] >= 0;
    return counted;
}

static float joined(const struct qkv_loss_state *s, const struct qkv_loss_shared *shared) {
    const double count = s->kind == QKV_LOSS_SQUARED ? (double)s->rows * (double)s->columns
                                                     : (double)shared->counted;
    double sum = 0.0;
    for (int64_t i = 0; i < s->blocks; i++)
        sum += shared->sum[i];
    return count > 0.0 ? (float)(sum / count) : 0.0f;
}

void qkv_loss_do(const struct qkv_loss_state *s, const qkv_loss_tensors *tensors,
                 const qkv_workspace *workspace, int32_t phase, int64_t begin, int64_t end) {
    struct qkv_loss_shared *shared = workspace->shared;
    const int step = s->first + phase;
    if (step == QKV_LOSS_BLOCKS)
        do_blocks(s, tensors, shared, begin, end);
    else if (begin < end && step == QKV_LOSS_COUNT_ROWS)
        shared->counted = counted_rows(s, tensors->labels);
    else if (begin < end)
        *tensors->loss = joined(s, shared);
}
