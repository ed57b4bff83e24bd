/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Positions and angles of rotary embedding (rope.h), and the tables of their cosines and sines: in
 * double precision, rounded once to float32.
 */
#include "rope.h"

#include <math.h>

/* Positions are numbers of 32 bits; so tables need no more rows. */
enum { MOST_POSITION = INT32_MAX };

/* ---- The checks ---- */

static qkv_status check_theta(double theta) {
    if (!isfinite(theta))
        return qkv_fail(QKV_ARG_ROPE_THETA, QKV_FAULT_VALUE);
    return theta < 1.0 ? qkv_fail(QKV_ARG_ROPE_THETA, QKV_FAULT_RANGE) : QKV_OK;
}

static qkv_status check_tables(const qkv_rope *r) {
    if (!r->cos)
        return qkv_fail(QKV_ARG_ROPE_COS, QKV_FAULT_NULL);
    if (!r->sin)
        return qkv_fail(QKV_ARG_ROPE_SIN, QKV_FAULT_NULL);
    if ((uintptr_t)r->cos % sizeof(float))
        return qkv_fail(QKV_ARG_ROPE_COS, QKV_FAULT_MISALIGNED);
    if ((uintptr_t)r->sin % sizeof(float))
        return qkv_fail(QKV_ARG_ROPE_SIN, QKV_FAULT_MISALIGNED);
    if (r->table_rows < 0)
        return qkv_fail(QKV_ARG_ROPE_ROWS, QKV_FAULT_NEGATIVE);
    if (r->table_rows > PTRDIFF_MAX / (QKV_HEAD_DIM_MAX * (int64_t)sizeof(float)))
        return qkv_fail(QKV_ARG_ROPE_ROWS, QKV_FAULT_OVERFLOW);
    return QKV_OK;
}

static qkv_status check_dims(int64_t dims, int64_t most) {
    if (dims < 0)
        return qkv_fail(QKV_ARG_ROPE_DIMS, QKV_FAULT_NEGATIVE);
    if (dims > most || dims % 2)
        return qkv_fail(QKV_ARG_ROPE_DIMS, QKV_FAULT_RANGE);
    return QKV_OK;
}

qkv_status qkv_take_rope(struct qkv_rope_state *s, const qkv_rope *rope, int64_t head_dim) {
    s->rope = *rope;
    s->computes = 0;
    if (rope->pairs < 0 || rope->pairs >= QKV_ROPE_COUNT)
        return qkv_fail(QKV_ARG_ROPE_PAIRS, QKV_FAULT_RANGE);
    if (rope->reserved)
        return qkv_fail(QKV_ARG_ROPE_PAIRS, QKV_FAULT_FUTURE);
    if (rope->pairs == QKV_ROPE_NONE) {
        s->rope = (qkv_rope){0};
        return QKV_OK;
    }
    if (rope->dims == 0)
        s->rope.dims = head_dim;
    TRY(check_dims(s->rope.dims, head_dim));
    if ((uintptr_t)rope->positions % sizeof(int32_t))
        return qkv_fail(QKV_ARG_ROPE_POSITIONS, QKV_FAULT_MISALIGNED);
    s->computes = !rope->cos && !rope->sin;
    if (!s->computes)
        return check_tables(rope);
    s->rope.table_rows = 0;
    return check_theta(rope->theta);
}

static int64_t position_of(const struct qkv_rope_state *s, const struct qkv_token_rows *rows,
                           int64_t b, int64_t first, int64_t i) {
    const int64_t row = rows->cu ? rows->cu[b] : b * rows->tokens;
    return s->rope.positions ? s->rope.positions[row + i] : first + i;
}

qkv_status qkv_check_positions(const struct qkv_rope_state *s, const struct qkv_token_rows *rows,
                               int64_t b, int64_t first, int64_t from, int64_t to) {
    if (s->rope.dims == 0 || from >= to)
        return QKV_OK;
    if (!s->rope.positions)
        return s->computes || first + to <= s->rope.table_rows
                   ? QKV_OK
                   : qkv_fail(QKV_ARG_ROPE_ROWS, QKV_FAULT_TOO_SMALL);
    for (int64_t i = from; i < to; i++) {
        const int64_t position = position_of(s, rows, b, first, i);
        if (position < 0)
            return qkv_fail(QKV_ARG_ROPE_POSITIONS, QKV_FAULT_NEGATIVE);
        if (!s->computes && position >= s->rope.table_rows)
            return qkv_fail(QKV_ARG_ROPE_POSITIONS, QKV_FAULT_RANGE);
    }
    return QKV_OK;
}

int qkv_overlaps_rope(const struct qkv_footprint *out, const struct qkv_rope_state *s,
                      const struct qkv_token_rows *rows) {
    const int64_t positions = rows->cu ? rows->cu[rows->batch] : rows->batch * rows->tokens;
    const int64_t numbers = s->rope.table_rows * (s->rope.dims / 2);
    return qkv_overlaps_array(out, s->rope.positions, positions) ||
           qkv_overlaps_array(out, s->rope.cos, numbers) ||
           qkv_overlaps_array(out, s->rope.sin, numbers);
}

/* ---- Angles ---- */

static double frequency_of(int64_t pair, int64_t dims, double theta) {
    return pow(theta, -2.0 * (double)pair / (double)dims);
}

static void fill_row(float *cosines, float *sines, const double *frequency, int64_t pairs,
                     int64_t position) {
    for (int64_t i = 0; i < pairs; i++) {
        const double angle = (double)position * frequency[i];
        cosines[i] = (float)cos(angle);
        sines[i] = (float)sin(angle);
    }
}

int64_t qkv_angles_size(const struct qkv_rope_state *s, int64_t tokens) {
    const int64_t pairs = s->rope.dims / 2;
    if (!s->computes)
        return 0;
    return pairs * (int64_t)sizeof(double) + 2 * tokens * pairs * (int64_t)sizeof(float);
}

void qkv_angles_begin(struct qkv_angles *a, const struct qkv_rope_state *s,
                      const struct qkv_token_rows *rows, void *memory, int64_t most) {
    const int64_t pairs = s->rope.dims / 2;
    *a = (struct qkv_angles){.state = s, .rows = rows, .b = -1};
    if (!s->computes)
        return;
    a->frequency = memory;
    a->cos = (float *)(a->frequency + pairs);
    a->sin = a->cos + most * pairs;
    for (int64_t i = 0; i < pairs; i++)
        a->frequency[i] = frequency_of(i, s->rope.dims, s->rope.theta);
}

void qkv_angles_move(struct qkv_angles *a, int64_t b, int64_t first, int64_t from, int64_t to) {
    const int64_t pairs = a->state->rope.dims / 2;
    if (a->b == b && a->from == from)
        return;
    a->b = b;
    a->first = first;
    a->from = from;
    for (int64_t i = from; i < to && a->state->computes; i++)
        fill_row(a->cos + (i - from) * pairs, a->sin + (i - from) * pairs, a->frequency, pairs,
                 position_of(a->state, a->rows, b, first, i));
}

void qkv_angles_turn(const struct qkv_angles *a, qkv_turn_fn *turn, float *out, const float *x,
                     int64_t i, int64_t n) {
    const qkv_rope *r = &a->state->rope;
    const float *cosines = a->cos, *sines = a->sin;
    int64_t row = i - a->from;
    if (r->cos) {
        cosines = r->cos;
        sines = r->sin;
        row = position_of(a->state, a->rows, a->b, a->first, i);
    }
    if (cosines) { /* else nothing is turned */
        cosines += row * (r->dims / 2);
        sines += row * (r->dims / 2);
    }
    turn(out, x, cosines, sines, r->dims, r->pairs == QKV_ROPE_HALF, n);
}

/* ---- The tables ---- */

static qkv_status check_table(struct qkv_footprint *f, const float *table, int64_t numbers,
                              qkv_arg arg) {
    if (!table && numbers > 0)
        return qkv_fail(arg, QKV_FAULT_NULL);
    if ((uintptr_t)table % sizeof(float))
        return qkv_fail(arg, QKV_FAULT_MISALIGNED);
    *f = qkv_footprint_array(table, numbers, sizeof(float));
    return QKV_OK;
}

qkv_status qkv_rope_tables(float *cosines, float *sines, int64_t first, int64_t count, int64_t dims,
                           double theta) {
    struct qkv_footprint c, s;
    double frequency[QKV_HEAD_DIM_MAX / 2];
    if (first < 0)
        return qkv_fail(QKV_ARG_FIRST, QKV_FAULT_NEGATIVE);
    if (count < 0)
        return qkv_fail(QKV_ARG_NUMBERS, QKV_FAULT_NEGATIVE);
    if (first > MOST_POSITION || count > (int64_t)MOST_POSITION + 1 - first)
        return qkv_fail(QKV_ARG_NUMBERS, QKV_FAULT_RANGE);
    if (dims == 0)
        return qkv_fail(QKV_ARG_ROPE_DIMS, QKV_FAULT_ZERO);
    TRY(check_dims(dims, QKV_HEAD_DIM_MAX));
    TRY(check_theta(theta));
    TRY(check_table(&c, cosines, count * dims / 2, QKV_ARG_ROPE_COS));
    TRY(check_table(&s, sines, count * dims / 2, QKV_ARG_ROPE_SIN));
    if (qkv_overlap(&c, &s))
        return qkv_fail(QKV_ARG_ROPE_SIN, QKV_FAULT_OVERLAP);

    for (int64_t i = 0; i < dims / 2; i++)
        frequency[i] = frequency_of(i, dims, theta);
    for (int64_t row = 0; row < count; row++)
        fill_row(cosines + row * dims / 2, sines + row * dims / 2, frequency, dims / 2,
                 first + row);
    return QKV_OK;
}
