/* SPDX-License-Identifier: Apache-2.0 */
/* Sweeps over sizes: 1 to 17, and one below, at and one above every tile, panel, block and piece;
 * each dimension alone, and each pair of dimensions with the others small. */
#ifndef QKV_TEST_SIZES_H
#define QKV_TEST_SIZES_H

#include <qkv/qkv.h>

#include "support/verdict.h"

/* stage: project, scores, softmax, mix, attention, or the backward twin of one of the last four. */
struct verdict check_sizes_alone(const qkv_context *context, int stage);

/* Every pair, or on a run with fewer random cases the same share of them. */
struct verdict check_sizes_pairwise(const qkv_context *context, int stage);

#endif
