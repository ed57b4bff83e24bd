/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradient descent of one weight in double precision, straight from the formulas in qkv.h, step by
 * step, with a bound on how far a correct float32 kernel can be from it by then.
 *
 * u = 2^-24 is the unit roundoff. Every step carries the errors of W, M and V on through the
 * formulas (to first order; REF_SLACK for the rest) and adds the roundings of its own: one for each
 * product and each sum, also where a room fuses the two, and one for each number that is made ready
 * once a step (the corrected rate, the root of the correction). So the bound grows by about u |W| a
 * step, and by rate times the bound of the direction.
 */
#ifndef QKV_TEST_REF_DESCENT_H
#define QKV_TEST_REF_DESCENT_H

#include "ref.h"

struct ref_descent {
    struct ref_value w, m, v;
};

/* One step; params->step says which. */
void ref_descend(struct ref_descent *d, const qkv_descent_params *params, float gradient);

#endif
