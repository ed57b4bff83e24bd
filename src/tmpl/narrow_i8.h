/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What int8 products by instructions for unsigned times signed bytes have in common (over
 * narrow_tile.h, with what that wants of the room; and words_upto, sign_bits). Weights are unsigned
 * as they are. Keys become so when their sign bits are turned over, which adds 128: a row's sums
 * then have 128 times the sum of its numbers too much. Integer sums are exact, so their order is
 * free; as floats they are exact as well, since no more than 512 steps of 255 * 127 are below 2^24.
 */
#ifndef QKV_TMPL_NARROW_I8_H
#define QKV_TMPL_NARROW_I8_H

#include "narrow_rows.h"

enum { STEPS = 4, ORDERED = 0 };

/* Two sums for each of a small tile, whose few chains would wait for the instruction. */
static inline int parts_of(const int M, const int G) {
    return M * G * PARTS > 6 ? 1 : 2;
}

/* A product with keys, and what its rows' sums have too much. */
struct shifted_keys {
    struct qkv_key_product p;
    float shift[QKV_FEW];
};

static inline vf key_sum(const struct qkv_key_product *p, int row, vsum sum) {
    const struct shifted_keys *keys = (const struct shifted_keys *)p;
    return vf_sub(value_sum(sum), vf_set1(keys->shift[row]));
}

#include "narrow_tile.h"

static inline float shift_of(const char *row, ptrdiff_t units) {
    vsum sum = sum_zero();
    for (ptrdiff_t u = 0; u < units; u += VF_LANES)
        sum = add_key(sum, words_upto(row + u * WORD, units - u), sign_bits());
    return vf_hsum(value_sum(sum));
}

/* Once a call, whatever the number of panels: a tile would do it again for each of its rows. */
static inline void multiply_keys(const struct qkv_key_product *p,
                                 key_tile_fn *const tiles[][WIDTHS]) {
    struct shifted_keys keys;
    keys.p = *p;
    for (int r = 0; r < p->rows; r++)
        keys.shift[r] =
            shift_of((const char *)p->q + r * p->ldq * WORD, (p->k + STEPS - 1) / STEPS);
    walk_keys(&keys.p, tiles);
}

static void round_queries(float *rows, ptrdiff_t ld, int count, int from, int to, float *scale) {
    round_rows_i8(rows, ld, count, from, to, scale, 127.0f);
}

static void round_weights(float *rows, ptrdiff_t ld, int count, int from, int to, float *scale) {
    round_rows_i8(rows, ld, count, from, to, scale, 255.0f);
}

#endif
