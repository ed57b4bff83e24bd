/* SPDX-License-Identifier: Apache-2.0 */
/* The reference of project: x . w + bias, element by element. */
#include "ref.h"

#include <math.h>

#include "bound.h"

struct ref_value ref_project(const qkv_project_params *params, const qkv_project_tensors *tensors,
                             int which, int64_t b, int64_t h, int64_t t, int64_t c) {
    const qkv_tensor *w = &tensors->wq + which;
    const qkv_tensor *bias = &tensors->bq + which;
    int64_t v_dim = params->v_dim ? params->v_dim : params->head_dim;
    int64_t column = h * (which == QKV_WHICH_V ? v_dim : params->head_dim) + c;
    const float *x =
        (const float *)tensors->x.data + b * tensors->x.stride[0] + t * tensors->x.stride[2];
    int64_t row = w->stride[2];
    bool in_out = params->layout == QKV_W_IN_OUT;
    const float *w_first = (const float *)w->data + column * (in_out ? 1 : row);
    struct ref_value y = ref_stretches(x, w_first, in_out ? row : 1, params->d_model);
    if (bias->data) {
        y.value += (double)((const float *)bias->data)[column];
        y.bound += REF_U * fabs(y.value);
    }
    if (!isfinite(y.value))
        y.bound = 0;
    return y;
}
