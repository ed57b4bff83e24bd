/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The weights of int8 values, times the scales of their tokens (qkv_scale_weights_fn in
 * kernels_cache.h): the product with V then takes the stored integers as they are. Rows with marked
 * keys are rare, and go number by number.
 */
#ifndef QKV_TMPL_SCALE_WEIGHTS_H
#define QKV_TMPL_SCALE_WEIGHTS_H

#include "mark.h"

static inline void scale_panel(float *w, const float *scale) {
    for (int c = 0; c < QKV_PANEL; c += VF_LANES)
        vf_store(w + c, vf_mul(vf_load(w + c), vf_load(scale + c)));
}

/* A marked weight has no product: its scale may be anything. */
static inline void scale_panel_marked(float *w, const float *scale) {
    for (int c = 0; c < QKV_PANEL; c++)
        if (!is_marked(w[c]))
            w[c] *= scale[c];
}

static void scale_weights(float *w, ptrdiff_t ldw, const float *const *scale, int rows, int from,
                          int to, int marked) {
    for (int r = 0; r < rows; r++, w += ldw)
        for (int c = from; c < to; c += QKV_PANEL) {
            if (marked)
                scale_panel_marked(w + c, scale[c / QKV_PANEL]);
            else
                scale_panel(w + c, scale[c / QKV_PANEL]);
        }
}

#endif
