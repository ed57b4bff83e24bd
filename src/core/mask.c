/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences, and the keys that causal, window and length leave a row (problem.h). */
#include "problem.h"

struct qkv_sequence qkv_sequence_at(const struct qkv_problem *p, int64_t index) {
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

struct qkv_span qkv_visible_span(const struct qkv_problem *p, const struct qkv_sequence *s) {
    struct qkv_span none = {0}, span;
    if (s->q_len == 0)
        return none;
    span = qkv_span_of(p, s, s->q_len - 1);
    span.lo = qkv_min(qkv_span_of(p, s, 0).lo, span.hi);
    return span;
}
