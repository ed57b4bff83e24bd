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
    qkv_gradients gradients;
    struct tensor tensor[ROLE_COUNT]; /* those that the stages use */
    struct guard slopes, sinks, q_lens, kv_lens, cu_q, cu_kv;
};

/* stages: one backward stage, or forward ones. A tensor that one of the stages writes is an output
 * (canaries); one that is only read is an input, filled with numbers that depend on the
 * description's seed and on the element's place. What masks and lengths hide from every query is
 * NaN. */
void case_make(struct test_case *c, const struct desc *desc, unsigned stages);
void case_free(struct test_case *c);

/* Outputs back to canaries, and scores that softmax overwrote to what they were. */
void case_reset(struct test_case *c);

/* Fails if an input changed, an output was not written in full, or anything beside a tensor was
 * written. */
struct verdict case_check_memory(const struct test_case *c);

/* True if the stages of the case write this tensor; if they read and do not write it. */
bool case_is_output(const struct test_case *c, enum role role);
bool case_is_input(const struct test_case *c, enum role role);

/* True if the stage is one of the backward twins. */
bool stage_is_backward(int stage);

/* Of many descriptions or sizes a stage gets one in so many: gradients take the reference several
 * times as long as what they are gradients of. */
int stage_share(int stage);

/* The view of a tensor among the case's tensors; of a gradient among its gradients. */
qkv_tensor *case_view(qkv_tensors *tensors, enum role role);
qkv_tensor *case_gradient(qkv_gradients *gradients, enum role role);

/* The steps of case_make that spoil.c and forward.c hold: NaN and infinities where masks hide them
 * or anywhere, as the description says; and the out and LSE that a backward stage reads, from the
 * reference. */
void case_spoil(struct test_case *c);
void case_forward(struct test_case *c);

/* Adds the description to a verdict that failed, for a replay. */
void case_explain(const struct desc *desc, struct verdict *verdict);

#endif
