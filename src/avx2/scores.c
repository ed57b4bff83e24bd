/* SPDX-License-Identifier: Apache-2.0 */
/* Scores in AVX2: the product is gemm.c's, the rule and the masks tmpl/score.h's. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/scores.h"

const struct qkv_scores_kernels qkv_avx2_scores = {
    .variant = ROOM_NAME,
    .gemm = ROOM(gemm),
    .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},
    .sees = ROOM(sees),
    .store = score_store,
    .mr = MR,
    .nr = NR,
};
