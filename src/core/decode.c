/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of attention over a cache. A part takes the query rows of a key/value head, the query
 * heads of its group among them, through one piece of the keys, or, where there are more rows than
 * one row block, a row block through all pieces. A few rows, or all of them in narrow arithmetic,
 * read K and V as they are stored (decode_stored.c); else a block is unpacked first. In float32 the
 * order of the arithmetic is that of attention.c in both, and so are the bits.
 */
#include "decode.h"

#include <string.h>

void qkv_scale_weights(const struct qkv_part *part, const struct qkv_stored_block *s, int r,
                       int rows) {
    if (qkv_has_scales(&part->plan->decode.cache.v))
        part->plan->table->decode->scale(part->scores + r * QKV_SCORES_LD, QKV_SCORES_LD,
                                         s->v_scale, rows, s->first * QKV_PANEL, s->end * QKV_PANEL,
                                         s->bad);
}

/* Scores of keys that have scales, after which the product's maxima are not theirs. */
static const float *scale_scores(const struct qkv_part *part, const struct qkv_stored_block *s,
                                 const float *max) {
    if (!qkv_has_scales(&part->plan->decode.cache.k))
        return max;
    part->plan->table->decode->scale(part->scores, QKV_SCORES_LD, s->k_scale, part->rows,
                                     s->first * QKV_PANEL, s->end * QKV_PANEL, 0);
    return NULL;
}

static void attend_unpacked(const struct qkv_part *part, int64_t index,
                            struct qkv_accumulator *acc) {
    const struct qkv_attention_kernels *kernels = part->plan->table->attention;
    const struct qkv_key_block block = qkv_part_key_block(part, index);
    struct qkv_stored_block s;
    struct qkv_tiles t;

    qkv_lay_tiles(&t, part, &block, kernels->mr, kernels->sees);
    if (!t.any)
        return;
    qkv_find_block(&s, part, part->kv_head, &block);
    const float *max = qkv_score_tiles(part, &t, &block, qkv_unpacked_keys(&s, part));
    max = scale_scores(part, &s, max);
    const float *factor = qkv_weigh_tiles(part, &t, max, acc, s.bad);
    qkv_scale_weights(part, &s, 0, part->rows);
    /* Integers need no marks: their scales are in the weights. */
    const int bad = s.bad && !qkv_has_scales(&part->plan->decode.cache.v);
    qkv_end_rows(part, index, acc, bad);
    qkv_mix_tiles(part, &t, &block, qkv_unpacked_values(&s, part, &block), acc, factor, bad);
}

static qkv_attend_fn *way_of(const struct qkv_part *part) {
    return qkv_reads_stored(part) ? qkv_attend_stored : attend_unpacked;
}

static void load_queries(const struct qkv_part *part) {
    if (qkv_reads_stored(part))
        qkv_load_stored_queries(part);
    else
        qkv_part_load_queries(part);
}

/* The worker's own sums, and the shared memory of one piece of a head. */
static struct qkv_running own_state(const struct qkv_part *part) {
    return qkv_running_of(part, QKV_N_MAX, QKV_N_SUM);
}

static struct qkv_running piece_state(const struct qkv_part *part, int64_t slot) {
    const struct qkv_decode_layout *d = &part->plan->decode;
    float *max = (float *)(part->shared + d->state) + slot * 2 * d->state_rows;
    return (struct qkv_running){max, max + d->state_rows};
}

static float *piece_rows(const struct qkv_part *part, int64_t slot) {
    const struct qkv_decode_layout *d = &part->plan->decode;
    return (float *)(part->shared + d->partial) + slot * d->slot;
}

/* The piece after the last that any row of the part sees. */
static int64_t end_piece(const struct qkv_part *part) {
    return qkv_round_up(part->hi, QKV_PIECE) / QKV_PIECE;
}

/* Piece `piece` of the part's rows. */
static void attend_piece(const struct qkv_part *part, int64_t piece, struct qkv_running state,
                         float *rows) {
    const int64_t blocks = QKV_PIECE / QKV_KEY_BLOCK;
    const int64_t begin = qkv_max(part->lo / QKV_KEY_BLOCK, piece * blocks);
    const int64_t all = qkv_round_up(part->hi, QKV_KEY_BLOCK) / QKV_KEY_BLOCK;
    const int64_t end = qkv_min(all, (piece + 1) * blocks);
    struct qkv_accumulator acc;
    if (begin >= end)
        return;
    qkv_begin_piece(&acc, part, state, rows);
    qkv_attend_piece(part, begin, end, &acc, way_of(part));
}

/* One piece of one head. */
static void attend_own_piece(const struct qkv_part *part, int64_t piece, int64_t slot) {
    if (part->lo == part->hi)
        return;
    load_queries(part);
    attend_piece(part, piece, piece_state(part, slot), piece_rows(part, slot));
}

/* The rows of head `i` of several, from the worker's memory to a piece's. */
static void keep_piece(const struct qkv_part *part, int i, int64_t slot) {
    const int rows = part->head_rows;
    const struct qkv_running from = own_state(part), to = piece_state(part, slot);
    const size_t n = (size_t)rows * sizeof(float);
    memcpy(to.max, from.max + i * rows, n);
    memcpy(to.sum, from.sum + i * rows, n);
    memcpy(piece_rows(part, slot), part->acc + i * rows * part->plan->v_pad,
           n * (size_t)part->plan->v_pad);
}

/* All pieces of several heads, of which the first one's first piece has the slot. */
static void attend_pieces(const struct qkv_part *part, int64_t slot) {
    const int64_t pieces = part->plan->decode.pieces;
    load_queries(part);
    for (int64_t piece = part->lo / QKV_PIECE; piece < end_piece(part); piece++) {
        attend_piece(part, piece, own_state(part), part->acc);
        for (int i = 0; i < part->heads; i++)
            keep_piece(part, i, slot + i * pieces + piece);
    }
}

/* The pieces from left to right into the first one's memory; slot is that of the head's first. */
static void join_pieces(const struct qkv_part *part, int64_t slot) {
    const struct qkv_attention_kernels *kernels = part->plan->table->attention;
    const int64_t v_pad = part->plan->v_pad;
    const int64_t first = part->lo / QKV_PIECE;
    const int64_t end = end_piece(part);
    const struct qkv_running total = piece_state(part, slot + first);
    float *acc = piece_rows(part, slot + first);
    for (int64_t i = first + 1; i < end; i++)
        kernels->merge(acc, total, piece_rows(part, slot + i), piece_state(part, slot + i), v_pad,
                       part->rows, v_pad);
    qkv_store_rows(part, total, acc);
}

/* A row block through all its keys, of which there may be none. */
static void attend_rows(const struct qkv_part *part) {
    load_queries(part);
    qkv_attend_rows(part, way_of(part));
}

/* Rows of heads that are taken together, at most. */
enum { TOGETHER_ROWS = 12 };

/* How many of the `most` key/value heads from number `head` of the batch on are taken through their
 * keys together: those of one sequence, with a few rows in all, whose cache is not a stream. What
 * is done once for a part is done once for all of them. */
static int heads_together(const struct qkv_plan_state *plan, int64_t head, int64_t most) {
    const struct qkv_problem *p = &plan->problem;
    const struct qkv_sequence s = qkv_sequence_at(p, head / p->kv_heads);
    const int64_t rows = s.rows * p->group;
    if (plan->row_blocks > 1 || rows == 0 || 2 * rows > TOGETHER_ROWS || qkv_is_streamed(plan, &s))
        return 1;
    most = qkv_min(most, p->kv_heads - head % p->kv_heads);
    return (int)qkv_max(1, qkv_min(qkv_min(most, QKV_TOGETHER), TOGETHER_ROWS / rows));
}

/* Pieces are parts [begin, end): whole heads as far as they go together, and what is before and
 * behind them piece by piece. */
static void decode_pieces(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                          const qkv_workspace *workspace, int64_t begin, int64_t end) {
    const int64_t pieces = plan->decode.pieces;
    struct qkv_part part;
    for (int64_t i = begin, n; i < end; i += n) {
        const int64_t head = i / pieces, whole = i % pieces ? 0 : (end - i) / pieces;
        const int heads = whole ? heads_together(plan, head, whole) : 1;
        n = heads > 1 ? heads * pieces : 1;
        if (!qkv_part_begin_heads(&part, plan, tensors, workspace, head, heads))
            continue;
        if (heads > 1)
            attend_pieces(&part, i);
        else
            attend_own_piece(&part, i % pieces, i);
    }
}

static void join_parts(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                       const qkv_workspace *workspace, int64_t begin, int64_t end) {
    struct qkv_part part;
    for (int64_t i = begin; i < end; i++) {
        if (!qkv_part_begin_heads(&part, plan, tensors, workspace, i, 1))
            continue;
        if (part.lo < part.hi)
            join_pieces(&part, i * plan->decode.pieces);
        else
            attend_rows(&part);
    }
}

static void decode_rows(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                        const qkv_workspace *workspace, int64_t begin, int64_t end) {
    struct qkv_part part;
    for (int64_t i = begin, n; i < end; i += n) {
        n = heads_together(plan, i / plan->row_blocks, end - i);
        if (qkv_part_begin_heads(&part, plan, tensors, workspace, i, (int)n))
            attend_rows(&part);
    }
}

void qkv_decode_parts(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                      const qkv_workspace *workspace, int32_t phase, int64_t begin, int64_t end) {
    if (plan->decode.pieces == 1)
        decode_rows(plan, tensors, workspace, begin, end);
    else
        (phase == 0 ? decode_pieces : join_parts)(plan, tensors, workspace, begin, end);
}
