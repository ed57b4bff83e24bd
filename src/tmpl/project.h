/* SPDX-License-Identifier: Apache-2.0 */
/* A row of a product, with its bias, to the user's memory. Adding +0 where there is no bias
 * turns -0 into +0, as a bias of zero would. */
#ifndef QKV_TMPL_PROJECT_H
#define QKV_TMPL_PROJECT_H

#include "row.h"

void ROOM(store)(float *out, const float *acc, const float *bias, ptrdiff_t n) {
    for (ptrdiff_t c = 0; c < n; c += VF_LANES) {
        vf b = bias ? load_upto(bias + c, n - c) : vf_set1(0.0f);
        store_upto(out + c, vf_add(load_upto(acc + c, n - c), b), n - c);
    }
}

#endif
