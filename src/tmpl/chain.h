/* SPDX-License-Identifier: Apache-2.0 */
/* What the backward stages of mix and of scores share: their way out to a gradient that the masks
 * cut, and the kernels that both take from the room. */
#ifndef QKV_TMPL_CHAIN_H
#define QKV_TMPL_CHAIN_H

#include "mask.h"
#include "row.h"
#include "store.h"

static void keep(float *out, const float *in, const struct qkv_score_row *row,
                 const struct qkv_score_rule *rule, int n) {
    const vf zero = vf_set1(0.0f);
    for (int c = 0; c < n; c += VF_LANES) {
        vf x = zero;
        if (c < row->hi && c + VF_LANES > row->lo)
            x = keep_unmasked(load_upto(in + c, n - c), zero, row, rule, c, n);
        store_upto(out + c, x, n - c);
    }
}

#define CHAIN_KERNELS                                                                         \
    {                                                                                         \
        .gemm = ROOM(gemm), .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},        \
        .sees = ROOM(sees), .load = ROOM(mix_load), .marked = ROOM(mix_marked), .keep = keep, \
        .store = store_scaled, .mr = MR, .nr = NR,                                            \
    }

#endif
