/* SPDX-License-Identifier: Apache-2.0 */
/* A description made real: parameters and tensors in guarded memory, ready for one call of a
 * stage (or of several that feed each other). */
#ifndef QKV_TEST_CASE_H
#define QKV_TEST_CASE_H

#include "desc.h"
#include "guard.h"
#include "tensor.h"
#include "verdict.h"

/* Sets of stages: STAGES_ONE(QKV_STAGE_SCORES) | ... */
#define STAGES_ONE(stage) (1U << (stage))

struct test_case {
    struct desc desc;
    unsigned stages;
    qkv_attention_params params;
    qkv_tensors tensors;
    struct tensor tensor[ROLE_COUNT]; /* those that the stages use */
    struct guard slopes, sinks, q_lens, kv_lens, cu_q, cu_kv;
};

/* A tensor that one of the stages writes is an output (canaries); one that is only read is an
 * input, filled with numbers that depend on the description's seed and on the element's place.
 * What masks and lengths hide from every query is NaN. */
void case_make(struct test_case *c, const struct desc *desc, unsigned stages);
void case_free(struct test_case *c);

/* Outputs back to canaries, and scores that softmax overwrote to what they were. */
void case_reset(struct test_case *c);

/* Fails if an input changed, an output was not written in full, or anything beside a tensor was
 * written. */
struct verdict case_check_memory(const struct test_case *c);

/* True if the stages of the case write this tensor. */
bool case_is_output(const struct test_case *c, enum role role);

/* The view of a tensor among the case's tensors. */
qkv_tensor *case_view(qkv_tensors *tensors, enum role role);

/* Adds the description to a verdict that failed, for a replay. */
void case_explain(const struct desc *desc, struct verdict *verdict);

#endif
