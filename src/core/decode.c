/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of attention over a cache. A part takes the query rows of a key/value head, the query
 * heads of its group among them, through one piece of the keys, or, where there are more rows than
 * one row block, a row block through all pieces. A few rows read K and V as they are stored; for
 * more of them a block is unpacked first. The order of the arithmetic is that of attention.c in
 * both, and so are the bits.
 */
#include "decode.h"

#include <string.h>

#include "attention.h"
#include "stored_block.h"

static int is_few(const struct qkv_part *part) {
    return part->rows <= QKV_FEW;
}

/* What the products with a few rows read: rows of a multiple of 4 numbers. */
static int64_t q_stride(const struct qkv_part *part) {
    return qkv_round_up(part->plan->problem.head_dim, 4);
}

static void load_queries(const struct qkv_part *part) {
    const struct qkv_problem *p = &part->plan->problem;
    const int64_t ld = q_stride(part), dim = p->head_dim;
    if (!is_few(part) || ld == dim) {
        qkv_part_load_queries(part);
        return;
    }
    for (int r = 0; r < part->rows; r++) {
        const float *q =
            qkv_q_row(&part->tensors->q, p, &part->sequence, part->row[r].head, part->row[r].index);
        memcpy(part->q + r * ld, q, (size_t)dim * sizeof(float));
        memset(part->q + r * ld + dim, 0, (size_t)(ld - dim) * sizeof(float));
    }
}

/* A call that reads more than this finds little of it in the processor's caches, and asks for what
 * it will read; one that reads less finds most of it there, and asking takes time (docs/
 * performance.md). No bit depends on it. */
enum { STREAMED = 8 << 20 };

static int is_streamed(const struct qkv_part *part) {
    const struct qkv_problem *p = &part->plan->problem;
    const struct qkv_cache_state *c = &part->plan->decode.cache;
    const int64_t panels = p->batch * p->kv_heads * (part->sequence.kv_len / QKV_PANEL);
    return panels > STREAMED / (int64_t)(c->k.panel + c->v.panel);
}

/* The columns [from, to), whole panels. */
static void score_few(const struct qkv_part *part, const struct qkv_stored_block *s, int from,
                      int to) {
    const struct qkv_plan_state *plan = part->plan;
    const struct qkv_stored_layout *l = &plan->decode.cache.k;
    const struct qkv_key_product keys = {
        .q = part->q,
        .panel = s->k + from / QKV_PANEL,
        .scale = qkv_has_scales(l) ? s->k_scale + from / QKV_PANEL : NULL,
        .s = part->scores + from,
        .ldq = q_stride(part),
        .lds = QKV_SCORES_LD,
        .k = plan->problem.head_dim,
        .rows = part->rows,
        .panels = (to - from) / QKV_PANEL,
        .next = is_streamed(part) ? s->v + s->first : NULL,
        .nexts = s->end - s->first,
    };
    plan->table->decode->keys[l->type](&keys);
}

/* A block that a few rows have weighed: its columns [from, to) of weights. */
struct weighed {
    struct qkv_key_block block;
    struct qkv_stored_block stored;
    const void *next[QKV_BLOCK_PANELS]; /* the keys that come after it */
    int nexts;
    int from, to;
};

/* Their product with V. */
static struct qkv_value_product product_of(const struct qkv_part *part, const struct weighed *w,
                                           const struct qkv_accumulator *acc) {
    const int64_t v_pad = part->plan->v_pad;
    return (struct qkv_value_product){
        .w = part->scores,
        .panel = w->stored.v,
        .acc = acc->rows,
        .factor = acc->any ? qkv_numbers(part, QKV_N_FACTOR) : NULL,
        .ldw = QKV_SCORES_LD,
        .ld_acc = v_pad,
        .n = v_pad,
        .rows = part->rows,
        .from = w->from > w->block.lo ? w->from : w->block.lo,
        .to = w->to < w->block.hi ? w->to : w->block.hi,
        .next = w->nexts < 0   ? NULL
                : w->nexts > 0 ? w->next
                               : w->stored.k + w->stored.first,
        .nexts = w->nexts > 0 ? w->nexts : 1,
    };
}

static void has_begun(const struct qkv_part *part, struct qkv_accumulator *acc) {
    acc->any = 1;
    for (int r = 0; r < part->rows; r++)
        acc->begun[r] = 1;
}

/* Weights of values that have scales. */
static void scale_weights(const struct qkv_part *part, const struct qkv_stored_block *s) {
    if (qkv_has_scales(&part->plan->decode.cache.v))
        part->plan->table->decode->scale(part->scores, QKV_SCORES_LD, s->v_scale, part->rows,
                                         s->first * QKV_PANEL, s->end * QKV_PANEL, s->bad);
}

/* Must values be kept out by their marks? Not integers, whose scales are in the weights. */
static int needs_marks(const struct qkv_part *part, const struct qkv_stored_block *s) {
    return s->bad && !qkv_has_scales(&part->plan->decode.cache.v);
}

/* Up to the product with V, which is due if this returns 1. Values that must be kept out are no
 * matter of that product: then all is done. */
static int weigh_few(const struct qkv_part *part, int64_t index, struct qkv_accumulator *acc,
                     struct weighed *w) {
    const struct qkv_attention_kernels *kernels = part->plan->table->attention;
    const struct qkv_score_rule *rule = &part->plan->problem.rule;
    float *factor = qkv_numbers(part, QKV_N_FACTOR);
    struct qkv_tiles t;

    w->block = qkv_part_key_block(part, index);
    qkv_lay_tiles(&t, part, &w->block, QKV_FEW, kernels->sees);
    if (!t.any)
        return 0;
    w->from = t.row->from;
    w->to = t.row->to;
    qkv_find_block(&w->stored, part, &w->block);
    score_few(part, &w->stored, w->from, w->to);
    kernels->weigh[rule->exp](t.row, NULL, part->rows, rule, acc->state, factor, w->stored.bad);
    scale_weights(part, &w->stored);
    w->nexts = is_streamed(part) ? qkv_find_next(w->next, part, &w->block) : -1;
    if (!needs_marks(part, &w->stored))
        return 1;
    qkv_mix_tiles(part, &t, &w->block, qkv_unpacked_values(&w->stored, part, &w->block), acc,
                  factor, 1);
    return 0;
}

static void attend_few(const struct qkv_part *part, int64_t index, struct qkv_accumulator *acc) {
    const struct qkv_plan_state *plan = part->plan;
    struct weighed w;
    if (!weigh_few(part, index, acc, &w))
        return;
    const struct qkv_value_product product = product_of(part, &w, acc);
    plan->table->decode->values[plan->decode.cache.v.type](&product);
    has_begun(part, acc);
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

static void attend_many(const struct qkv_part *part, int64_t index, struct qkv_accumulator *acc) {
    const struct qkv_attention_kernels *kernels = part->plan->table->attention;
    const struct qkv_key_block block = qkv_part_key_block(part, index);
    const struct qkv_score_rule *rule = &part->plan->problem.rule;
    float *factor = qkv_numbers(part, QKV_N_FACTOR);
    struct qkv_stored_block s;
    struct qkv_tiles t;

    qkv_lay_tiles(&t, part, &block, kernels->mr, kernels->sees);
    if (!t.any)
        return;
    qkv_find_block(&s, part, &block);
    const float *max = qkv_score_tiles(part, &t, qkv_unpacked_keys(&s, part));
    max = scale_scores(part, &s, max);
    kernels->weigh[rule->exp](t.row, max, part->rows, rule, acc->state, factor, s.bad);
    scale_weights(part, &s);
    qkv_mix_tiles(part, &t, &block, qkv_unpacked_values(&s, part, &block), acc, factor,
                  needs_marks(part, &s));
}

static qkv_attend_fn *way_of(const struct qkv_part *part) {
    return is_few(part) ? attend_few : attend_many;
}

/* The shared memory of one piece of a head. */
static struct qkv_running piece_state(const struct qkv_part *part, int64_t slot) {
    const struct qkv_decode_layout *d = &part->plan->decode;
    float *max = (float *)(part->shared + d->state) + slot * 2 * d->state_rows;
    return (struct qkv_running){max, max + d->state_rows};
}

static float *piece_rows(const struct qkv_part *part, int64_t slot) {
    const struct qkv_decode_layout *d = &part->plan->decode;
    return (float *)(part->shared + d->partial) + slot * d->slot;
}

/* Piece `piece` of a head whose rows are one row block. */
static void attend_piece(const struct qkv_part *part, int64_t piece, int64_t slot) {
    const int64_t blocks = QKV_PIECE / QKV_KEY_BLOCK;
    const int64_t begin = qkv_max(part->lo / QKV_KEY_BLOCK, piece * blocks);
    const int64_t all = qkv_round_up(part->hi, QKV_KEY_BLOCK) / QKV_KEY_BLOCK;
    const int64_t end = qkv_min(all, (piece + 1) * blocks);
    struct qkv_accumulator acc;
    if (begin >= end)
        return;
    load_queries(part);
    qkv_begin_piece(&acc, part, piece_state(part, slot), piece_rows(part, slot));
    qkv_attend_piece(part, begin, end, &acc, way_of(part));
}

/* The pieces from left to right into the first one's memory; slot is that of the head's first. */
static void join_pieces(const struct qkv_part *part, int64_t slot) {
    const struct qkv_attention_kernels *kernels = part->plan->table->attention;
    const int64_t v_pad = part->plan->v_pad;
    const int64_t first = part->lo / QKV_PIECE;
    const int64_t end = qkv_round_up(part->hi, QKV_PIECE) / QKV_PIECE;
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
    qkv_attend_keys(part, way_of(part));
    qkv_store_rows(part, qkv_running_of(part, QKV_N_MAX, QKV_N_SUM), part->acc);
}

void qkv_decode_parts(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                      const qkv_workspace *workspace, int32_t phase, int64_t begin, int64_t end) {
    const int64_t pieces = plan->decode.pieces;
    struct qkv_part part;
    for (int64_t i = begin; i < end; i++) {
        const int64_t block = pieces > 1 && phase == 0 ? i / pieces : i;
        if (!qkv_part_begin(&part, plan, tensors, workspace->shared, workspace->worker, block))
            continue;
        if (pieces == 1 || (phase == 1 && part.lo == part.hi))
            attend_rows(&part);
        else if (phase == 0)
            attend_piece(&part, i % pieces, i);
        else
            join_pieces(&part, i * pieces);
    }
}
