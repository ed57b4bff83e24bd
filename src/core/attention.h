/* SPDX-License-Identifier: Apache-2.0 */
/* What the fused stage and decode share: the way of a row block through the pieces of its keys.
 * They differ in how a block of keys and values comes into the products. */
#ifndef QKV_CORE_ATTENTION_H
#define QKV_CORE_ATTENTION_H

#include "tiles.h"

/* The running sums and the accumulator of a piece. A tile's rows are written by the first block
 * that it has keys in (a product that starts from zero), and hold nothing until then. */
struct qkv_accumulator {
    struct qkv_running state;
    float *rows;
    int any;                       /* some tile has begun */
    unsigned char begun[QKV_ROWS]; /* by the tile's first row */
    /* Rows that end with block `last` go straight to the user from there, times scale (NULL until
     * then); -1: they do not. Which of them have gone, likewise by the tile's first row. */
    int64_t last;
    const float *scale;
    unsigned char gone[QKV_ROWS];
};

/* One key block into the accumulator. */
typedef void qkv_attend_fn(const struct qkv_part *part, int64_t index, struct qkv_accumulator *acc);

static inline struct qkv_running qkv_running_of(const struct qkv_part *part, int max, int sum) {
    return (struct qkv_running){qkv_numbers(part, max), qkv_numbers(part, sum)};
}

/* A piece that holds nothing yet, in these sums and rows. */
void qkv_begin_piece(struct qkv_accumulator *acc, const struct qkv_part *part,
                     struct qkv_running state, float *rows);

/* The key blocks from b on that belong to one piece; returns the first that does not. The
 * accumulator's rows hold something after that, if only zeros, but for those that have gone. */
int64_t qkv_attend_piece(const struct qkv_part *part, int64_t b, int64_t end,
                         struct qkv_accumulator *acc, qkv_attend_fn *attend);

/* All keys that the part's rows see, piece by piece, the pieces joined from left to right, and the
 * rows to the user. */
void qkv_attend_rows(const struct qkv_part *part, qkv_attend_fn *attend);

/* A block's scores from its packed keys. Returns the rows' largest if the product has left them. */
const float *qkv_score_tiles(const struct qkv_part *part, const struct qkv_tiles *tiles,
                             const struct qkv_key_block *block, const float *keys);

/* Scores to weights. max: what qkv_score_tiles has returned, or NULL; bad as below. Leaves what the
 * rows' accumulators must be multiplied by. */
const float *qkv_weigh_tiles(const struct qkv_part *part, const struct qkv_tiles *tiles,
                             const float *max, const struct qkv_accumulator *acc, int bad);

/* Before the last block's values are added: from now on what is added to is multiplied by the rows'
 * scales, and goes to the user. Not if bad. */
void qkv_end_rows(const struct qkv_part *part, int64_t index, struct qkv_accumulator *acc, int bad);

/* Its weights times values, [keys][v_pad], added to the accumulator times the factors. bad: some
 * value is not finite, and masked keys are marked. */
void qkv_mix_tiles(const struct qkv_part *part, const struct qkv_tiles *tiles,
                   const struct qkv_key_block *block, const float *values,
                   struct qkv_accumulator *acc, const float *factor, int bad);

/* The part's rows to the user: out, and LSE if it is wanted. */
void qkv_store_rows(const struct qkv_part *part, struct qkv_running total, const float *acc);

#endif
