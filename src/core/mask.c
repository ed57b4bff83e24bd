/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences, and the keys that causal, window and length leave a row (problem.h). */
#include "problem.h"

struct qkv_span qkv_visible_span(const struct qkv_problem *p, const struct qkv_sequence *s) {
    struct qkv_span none = {0}, span;
    if (s->q_len == 0)
        return none;
    span = qkv_span_of(p, s, s->q_len - 1);
    span.lo = qkv_min(qkv_span_of(p, s, 0).lo, span.hi);
    return span;
}
