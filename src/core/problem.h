/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parameters of attention after validation, in the form that the drivers of scores, softmax,
 * mix and attention work with, and what follows from them: a sequence's place and lengths, the
 * keys that a row sees.
 */
#ifndef QKV_CORE_PROBLEM_H
#define QKV_CORE_PROBLEM_H

#include <qkv/qkv.h>

#include "kernels.h"

static inline int64_t qkv_round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

static inline int64_t qkv_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t qkv_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* A share of n in multiples of `unit`, when equal shares of no more than `most` make it up. */
static inline int64_t qkv_even_share(int64_t n, int64_t most, int64_t unit) {
    const int64_t shares = qkv_max(qkv_round_up(n, most) / most, 1);
    return qkv_min(qkv_round_up(qkv_round_up(n, shares) / shares, unit), most);
}

/* A number whose bits depend on all of x's (the last steps of SplitMix: Steele, Lea and Flood 2014,
 * section 4). */
static inline uint64_t qkv_mix_bits(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

struct qkv_problem {
    int64_t batch, q_heads, kv_heads, group; /* group = q_heads / kv_heads */
    int64_t q_len, kv_len, head_dim, v_dim;
    int64_t window_left, window_right; /* -1: no limit */
    const float *slopes, *sinks;
    qkv_tensor bias, mask;
    const int32_t *q_lens, *kv_lens, *cu_q, *cu_kv;
    uint64_t cu_q_bits, cu_kv_bits; /* qkv_cumulative_bits of these when a plan is made */
    /* Of decode: which sequence of the cache each one is (NULL: of the same number), and the
     * lengths of those. */
    const int32_t *stored, *stored_lens;
    struct qkv_score_rule rule;
    int causal, align;
    int narrow; /* of decode: QKV_ARITHMETIC_NARROW */
};

/* Validates the parameters for a stage (a qkv_stage, not PROJECT). */
qkv_status qkv_problem_make(struct qkv_problem *problem, int stage,
                            const qkv_attention_params *params);

/* Lengths of a batch's sequences, each at most `most`; and where they begin in ragged tensors, with
 * the end of the last. NULL passes. */
qkv_status qkv_check_lengths(const int32_t *lens, int64_t batch, int64_t most, qkv_arg arg);
qkv_status qkv_check_cumulative(const int32_t *cu, int64_t batch, int64_t most, qkv_arg arg);

/* What tells the latter from others. */
uint64_t qkv_cumulative_bits(const int32_t *cu, int64_t batch);

/* One sequence of the batch. q0 and kv0: its first row in ragged tensors, 0 in padded ones. rows:
 * the output rows that it has in memory, of which the first q_len are real. */
struct qkv_sequence {
    int64_t index;
    int64_t stored; /* the cache's sequence, in decode */
    int64_t q0, q_len, rows;
    int64_t kv0, kv_len;
};

static inline struct qkv_sequence qkv_sequence_at(const struct qkv_problem *p, int64_t index) {
    struct qkv_sequence s = {.index = index, .q_len = p->q_len, .kv_len = p->kv_len};
    s.stored = p->stored ? p->stored[index] : index;
    if (p->cu_q) {
        s.q0 = p->cu_q[index];
        s.q_len = p->cu_q[index + 1] - s.q0;
    }
    s.rows = s.q_len;
    if (p->q_lens)
        s.q_len = p->q_lens[index];
    if (p->cu_kv) {
        s.kv0 = p->cu_kv[index];
        s.kv_len = p->cu_kv[index + 1] - s.kv0;
    }
    if (p->stored_lens)
        s.kv_len = p->stored_lens[s.stored];
    if (p->kv_lens)
        s.kv_len = p->kv_lens[index];
    return s;
}

/* Where query i stands among the keys. */
static inline int64_t qkv_position_of(const struct qkv_problem *p, const struct qkv_sequence *s,
                                      int64_t i) {
    return p->align == QKV_ALIGN_BOTTOM_RIGHT ? i + s->kv_len - s->q_len : i;
}

/* The keys [lo, hi) that causal, window and length leave a query; lo = hi for a row that sees none.
 * Both ends grow with the query. */
struct qkv_span {
    int64_t lo, hi;
};

static inline struct qkv_span qkv_span_of(const struct qkv_problem *p, const struct qkv_sequence *s,
                                          int64_t i) {
    const int64_t position = qkv_position_of(p, s, i);
    struct qkv_span span = {.lo = 0, .hi = s->kv_len};
    if (p->causal)
        span.hi = qkv_min(span.hi, position + 1);
    /* The limits may be as large as the caller likes: compared without adding to them. */
    if (p->window_right >= 0 && p->window_right < s->kv_len - position)
        span.hi = qkv_min(span.hi, position + p->window_right + 1);
    if (p->window_left >= 0 && p->window_left < position)
        span.lo = position - p->window_left;
    span.hi = i < s->q_len ? qkv_max(span.hi, 0) : 0;
    span.lo = qkv_min(span.lo, span.hi);
    return span;
}

/* The keys that any row of the sequence sees. */
struct qkv_span qkv_visible_span(const struct qkv_problem *problem,
                                 const struct qkv_sequence *sequence);

/* Row i of head h of a tensor that comes with Q, or with K and V. */
static inline float *qkv_q_row(const qkv_tensor *t, const struct qkv_problem *problem,
                               const struct qkv_sequence *s, int64_t h, int64_t i) {
    int64_t first = problem->cu_q ? s->q0 * t->stride[2] : s->index * t->stride[0];
    return (float *)t->data + first + h * t->stride[1] + i * t->stride[2];
}

static inline float *qkv_kv_row(const qkv_tensor *t, const struct qkv_problem *problem,
                                const struct qkv_sequence *s, int64_t h, int64_t j) {
    int64_t first = problem->cu_kv ? s->kv0 * t->stride[2] : s->index * t->stride[0];
    return (float *)t->data + first + h * t->stride[1] + j * t->stride[2];
}

#endif
