/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the gradients of the fused stage are computed.
 *
 * Phase 0 packs K and V and takes the numbers of every query row: D, the LSE in the exponent's
 * units, whether Q and dO are finite. Phase 1 goes through the keys in pieces: a part holds the dK
 * and dV of one key block while all query rows that see it pass, row block by row block, head by
 * head of its group, and leaves its piece's part of dQ in shared memory. Phase 2 adds the pieces'
 * parts of dQ up. Phase 3, if the call has sinks, adds up theirs.
 *
 * The law of the bits: dQ of a row is a chain over the keys of a block from zero, joined to the
 * blocks before it within the piece, and pieces are added from left to right. dK and dV of a key
 * are chains over the rows of a row block, joined in the order of rows and heads. Row blocks begin
 * at row 0 of each head; the number of pieces depends on the sequence's keys and on kv_heads.
 */
#ifndef QKV_CORE_ATTENTION_BACKWARD_H
#define QKV_CORE_ATTENTION_BACKWARD_H

#include "backward.h"
#include "pack.h"

/* The key blocks [begin, end) of one piece of a sequence; none for the pieces that it lacks. */
struct qkv_piece {
    int64_t begin, end;
};

static inline int64_t qkv_key_blocks(const struct qkv_sequence *s) {
    return qkv_round_up(s->kv_len, QKV_KEY_BLOCK) / QKV_KEY_BLOCK;
}

static inline struct qkv_piece qkv_piece_at(const struct qkv_plan_state *plan,
                                            const struct qkv_sequence *s, int64_t index) {
    const int64_t blocks = qkv_key_blocks(s), pieces = plan->backward.pieces;
    const int64_t each = qkv_max((blocks + pieces - 1) / pieces, 1);
    const struct qkv_piece piece = {qkv_min(index * each, blocks),
                                    qkv_min((index + 1) * each, blocks)};
    return piece;
}

/* The place of a query row, and of a row block, among those of the whole batch. */
static inline int64_t qkv_query_slot(const struct qkv_problem *p, const struct qkv_sequence *s,
                                     int64_t head, int64_t index) {
    if (p->cu_q)
        return (s->q0 - p->cu_q[0]) * p->q_heads + head * s->q_len + index;
    return (s->index * p->q_heads + head) * p->q_len + index;
}

static inline int64_t qkv_block_slot(const struct qkv_plan_state *plan,
                                     const struct qkv_sequence *s, int64_t head, int64_t index) {
    return (s->index * plan->problem.q_heads + head) * plan->backward.head_blocks +
           index / plan->rows;
}

/* Phases 0, 2 and 3: what is done beside the products. */
void qkv_backward_prepare(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                          const qkv_gradients *gradients, char *shared, int64_t index);
void qkv_backward_sum(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                      const qkv_gradients *gradients, const qkv_workspace *workspace,
                      int64_t index);
void qkv_backward_sinks(const struct qkv_plan_state *plan, const qkv_gradients *gradients,
                        const char *shared);

/* Parts of phase 0 for each key/value head: its key blocks, and the row blocks of its group. */
static inline int64_t qkv_prepare_parts(const struct qkv_plan_state *plan) {
    return plan->blocks + plan->problem.group * plan->backward.head_blocks;
}

#endif
