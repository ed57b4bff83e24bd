/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a part of scores, mix or attention works on: up to QKV_ROWS query rows of one key/value
 * head (the query heads of its group one after the other), going through the key blocks that any
 * of them sees. Here are the rows, the blocks' packed keys and values, and the tiles' columns.
 */
#ifndef QKV_CORE_BLOCK_H
#define QKV_CORE_BLOCK_H

#include "plan.h"

/* One query row of a row block. */
struct qkv_row {
    struct qkv_span span;
    int64_t head, index; /* query head, row within the sequence */
};

/* A part on its way: the plan, the memory of its worker, and the place it stands at. */
struct qkv_part {
    const struct qkv_plan_state *plan;
    const qkv_tensors *tensors;
    char *shared;
    struct qkv_sequence sequence;
    int64_t kv_head;
    int heads;     /* in attention and decode: that many key/value heads from kv_head on; else 1 */
    int rows;      /* rows of this block */
    int head_rows; /* rows of each head */
    struct qkv_row *row;
    int64_t lo, hi;         /* keys that any row sees */
    int64_t all_lo, all_hi; /* keys that every row sees, if all_lo < all_hi */
    float *scores, *max, *acc, *piece, *q, *block;
    const float *queries; /* where the products find them: q, or the caller's memory */
    float *numbers;
    struct qkv_tiles *tiles; /* in the fused stage: of the block before */
};

/* Arrays of ROWS floats in the worker's memory. */
enum {
    QKV_N_MAX,
    QKV_N_SUM,
    QKV_N_PIECE_MAX,
    QKV_N_PIECE_SUM,
    QKV_N_FACTOR,
    QKV_N_SCALE,
    QKV_N_LSE,
    QKV_N_SINK,
    QKV_N_Q_SCALE, /* of rows that narrow arithmetic has rounded: queries, and a block's weights */
    QKV_N_W_SCALE,
    QKV_NUMBERS
};

static inline float *qkv_numbers(const struct qkv_part *part, int which) {
    return part->numbers + which * QKV_ROWS;
}

/* Sets up a part for key/value head `head` of the whole batch, without rows; and its rows, `rows`
 * from row `index` of query head `head` on, the next heads' after that head's last. */
void qkv_part_open(struct qkv_part *part, const struct qkv_plan_state *plan,
                   const qkv_tensors *tensors, void *shared, void *worker, int64_t head);
void qkv_part_rows(struct qkv_part *part, int64_t head, int64_t index, int64_t rows);

/* Sets up row block `index` of the plan (batch, key/value head, block of rows). Returns 0 if the
 * block has no rows, as in a short sequence of a ragged batch. */
int qkv_part_begin(struct qkv_part *part, const struct qkv_plan_state *plan,
                   const qkv_tensors *tensors, void *shared, void *worker, int64_t index);

/* The same of `heads` whole key/value heads of one sequence, from head `index` on, in a plan whose
 * heads are one row block each; or, with 1, of a row block of any plan. */
int qkv_part_begin_heads(struct qkv_part *part, const struct qkv_plan_state *plan,
                         const qkv_tensors *tensors, const qkv_workspace *workspace, int64_t index,
                         int heads);

/* A row of the bias and of the boolean mask at a key, or NULL. Computed as numbers, since rows that
 * are only prefetched may lie outside. */
static inline const float *qkv_bias_row(const struct qkv_part *part, const struct qkv_row *row,
                                        int64_t key) {
    const struct qkv_problem *p = &part->plan->problem;
    const int64_t *s = p->bias.stride;
    if (!p->bias.data)
        return NULL;
    int64_t offset = part->sequence.index * s[0] + row->head * s[1] + row->index * s[2] +
                     key * p->rule.bias_step;
    return (const float *)((uintptr_t)p->bias.data + (uintptr_t)offset * sizeof(float));
}

static inline const uint8_t *qkv_mask_row(const struct qkv_part *part, const struct qkv_row *row,
                                          int64_t key) {
    const struct qkv_problem *p = &part->plan->problem;
    const int64_t *s = p->mask.stride;
    if (!p->mask.data)
        return NULL;
    int64_t offset = part->sequence.index * s[0] + row->head * s[1] + row->index * s[2] +
                     key * p->rule.mask_step;
    return (const uint8_t *)((uintptr_t)p->mask.data + (uintptr_t)offset);
}

/* Copies the rows' queries to part->q; or does so only where they do not stand one after the other
 * in the caller's memory. */
void qkv_part_load_queries(const struct qkv_part *part);
void qkv_part_take_queries(struct qkv_part *part);

/* One key block as the products take it. */
struct qkv_key_block {
    int64_t key0;
    int keys;   /* of the sequence, in this block: 1 to KEY_BLOCK */
    int lo, hi; /* columns that any row of the part sees */
};

struct qkv_key_block qkv_part_key_block(const struct qkv_part *part, int64_t index);

/* Its packed keys, [keys / 16][head_dim][16], or values, [keys][v_pad]; from shared memory, or
 * packed into the worker's now, which overwrites the block that was there, or, for dense values,
 * the caller's own, of which only [lo, hi) may be read. *bad: some value of V is not finite.
 * Columns outside the panels that hold [lo, hi) are not there. */
const float *qkv_part_keys(const struct qkv_part *part, const struct qkv_key_block *block,
                           const struct qkv_pack_kernels *pack);
const float *qkv_part_values(const struct qkv_part *part, const struct qkv_key_block *block,
                             const struct qkv_pack_kernels *pack, int *bad);

/* Do all rows see the same columns of the block, and differ in nothing else? */
int qkv_part_is_even(const struct qkv_part *part, const struct qkv_key_block *block);

/* The score rows of a tile of `rows` rows from row0 on, over one block: all with the same [from,
 * to), which covers what any of them sees. Returns 0 if they see nothing of the block: their
 * intervals lie elsewhere, or their masks empty it. */
int qkv_part_score_rows(const struct qkv_part *part, const struct qkv_key_block *block, int row0,
                        int rows, qkv_sees_fn *sees, struct qkv_score_row *out);

/* What masks leave of the columns [key0, key0 + n) of one row, n <= KEY_BLOCK: for stages that walk
 * over a row as it stands in the caller's memory. */
struct qkv_score_row qkv_part_chunk_row(const struct qkv_part *part, const struct qkv_row *row,
                                        int64_t key0, int n);

/* Asks for the bias of the tile that will be weighed first, while its scores are computed; the
 * others are asked for a tile ahead. */
void qkv_prefetch_bias(const struct qkv_score_row *row, int rows);

/* Phase 0: packs one block of keys and values of one key/value head (what the stage needs). */
void qkv_pack_part(const struct qkv_plan_state *plan, const qkv_tensors *tensors, void *shared,
                   const struct qkv_pack_kernels *pack, int64_t index);

/* The parts [begin, end) of a phase, one function a stage. */
typedef void qkv_parts_fn(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                          const qkv_workspace *workspace, int32_t phase, int64_t begin,
                          int64_t end);
qkv_parts_fn qkv_scores_parts, qkv_softmax_parts, qkv_mix_parts, qkv_attention_parts;

#endif
