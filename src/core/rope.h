/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotary embedding as append and rotate share it: the caller's qkv_rope after its checks, the
 * position of a token, and the cosines and sines of its angles, which come from the caller's tables
 * or are computed into a worker's memory for a run of tokens, once for all heads that follow each
 * other.
 */
#ifndef QKV_CORE_ROPE_H
#define QKV_CORE_ROPE_H

#include <qkv/cache.h>

#include "token_rows.h"

struct qkv_rope_state {
    qkv_rope rope; /* dims filled in; 0 without embedding */
    int computes;  /* there are no tables */
};

/* Takes the caller's struct, and checks all but the positions. */
qkv_status qkv_take_rope(struct qkv_rope_state *s, const qkv_rope *rope, int64_t head_dim);

/* The positions of tokens [from, to) of sequence b of the batch, whose first row stands at place
 * `first`. */
qkv_status qkv_check_positions(const struct qkv_rope_state *s, const struct qkv_token_rows *rows,
                               int64_t b, int64_t first, int64_t from, int64_t to);

/* Does an output share a byte with positions or tables? */
int qkv_overlaps_rope(const struct qkv_footprint *out, const struct qkv_rope_state *s,
                      const struct qkv_token_rows *rows);

/* The bytes that a worker needs for a run of tokens. */
int64_t qkv_angles_size(const struct qkv_rope_state *s, int64_t tokens);

/* A worker's angles: of some tokens of sequence b from `from` on. */
struct qkv_angles {
    const struct qkv_rope_state *state;
    const struct qkv_token_rows *rows;
    double *frequency;
    float *cos, *sin;
    int64_t b, first, from;
};

/* memory: qkv_angles_size() bytes for `most` tokens. */
void qkv_angles_begin(struct qkv_angles *a, const struct qkv_rope_state *s,
                      const struct qkv_token_rows *rows, void *memory, int64_t most);

/* Moves to the new tokens [from, to) of sequence b, the first of whose stands at place `first`. */
void qkv_angles_move(struct qkv_angles *a, int64_t b, int64_t first, int64_t from, int64_t to);

/* Turns the row of token i of those: n numbers. Without embedding it is copied. */
void qkv_angles_turn(const struct qkv_angles *a, qkv_turn_fn *turn, float *out, const float *x,
                     int64_t i, int64_t n);

#endif
