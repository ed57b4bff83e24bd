/* SPDX-License-Identifier: Apache-2.0 */
/* One description through attention, and through scores, softmax and mix: each stage against the
 * reference, and the two ways against each other. */
#ifndef QKV_TESTS_FUSED_UNFUSED_H
#define QKV_TESTS_FUSED_UNFUSED_H

#include <qkv/qkv.h>

#include "support/desc.h"
#include "support/verdict.h"

struct verdict check_fused_unfused(const qkv_context *context, const struct desc *desc);

#endif
