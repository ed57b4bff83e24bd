/* SPDX-License-Identifier: Apache-2.0 */
/* The backward stages of scores, softmax, mix and attention: how each lays out its plan, and runs
 * the parts [begin, end) of a phase. */
#ifndef QKV_CORE_BACKWARD_H
#define QKV_CORE_BACKWARD_H

#include "plan.h"

qkv_layout_fn qkv_scores_backward_layout, qkv_softmax_backward_layout, qkv_mix_backward_layout,
    qkv_attention_backward_layout;

typedef void qkv_backward_parts_fn(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                                   const qkv_gradients *gradients, const qkv_workspace *workspace,
                                   int32_t phase, int64_t begin, int64_t end);
/* What the parts [begin, end) of attention_backward's phase 2 found out about the LSE. */
enum { QKV_BACKWARD_VERDICT_PHASE = 2 };
qkv_status qkv_backward_verdict(const struct qkv_plan_state *plan, const void *shared,
                                int64_t begin, int64_t end);

qkv_backward_parts_fn qkv_scores_backward_parts, qkv_softmax_backward_parts, qkv_mix_backward_parts,
    qkv_attention_backward_parts;

#endif
