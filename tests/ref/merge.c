/* SPDX-License-Identifier: Apache-2.0 */
/* Partial results joined in double precision (merge.h). */
#include "merge.h"

#include <math.h>
#include <stdlib.h>

#include "bound.h"

static const double exp_error[] = REF_EXP_ERRORS;

static const float *row_of(const qkv_tensor *t, int64_t b, int64_t h, int64_t i) {
    return (const float *)t->data + b * t->stride[0] + h * t->stride[1] + i * t->stride[2];
}

/* The parts of a row: logsumexp, and the relative error of the weight. */
struct part {
    double lse, relative;
};

/* One more part joined to those before it, of which `all` is the exact logsumexp. */
static void join(struct part *parts, int64_t p, struct ref_value *all) {
    const double before = all->value, here = parts[p].lse;
    if (here == -INFINITY)
        return;
    if (before == -INFINITY) {
        all->value = here;
        return;
    }
    const double d = fabs(before - here), f = exp(-d), lower = f / (1.0 + f);
    const double step = 3.0 * REF_U * d + exp_error[QKV_EXP_SLEEF_U10];
    const double r = step + all->bound;
    const double share = here > before ? 1.0 / (1.0 + f) : lower; /* of this part */
    for (int64_t q = 0; q < p; q++)
        parts[q].relative += share * r + 4.0 * REF_U;
    parts[p].relative = (1.0 - share) * r + 4.0 * REF_U;
    all->value = fmax(before, here) + log1p(f);
    all->bound += lower * step + REF_U * (1.0 + 4.0 * log1p(f) + fabs(all->value));
}

void ref_merge(const qkv_merge_params *params, const qkv_merge_tensors *tensors, int64_t b,
               int64_t h, int64_t i, struct ref_value *out, struct ref_value *lse) {
    struct part *parts = calloc((size_t)params->parts, sizeof *parts);
    if (!parts)
        abort();
    *lse = (struct ref_value){-INFINITY, 0.0};
    for (int64_t p = 0; p < params->parts; p++) {
        parts[p].lse = (double)*row_of(tensors->part_lse + p, b, h, i);
        join(parts, p, lse);
    }
    for (int64_t c = 0; c < params->v_dim; c++) {
        out[c] = (struct ref_value){0.0, 0.0};
        for (int64_t p = 0; p < params->parts; p++) {
            if (parts[p].lse == -INFINITY)
                continue;
            const double x = (double)row_of(tensors->part_out + p, b, h, i)[c];
            const double share = exp(parts[p].lse - lse->value);
            out[c].value += share * x;
            out[c].bound +=
                REF_SLACK * share * parts[p].relative * fabs(x) + REF_FLOOR * (fabs(x) + 1.0);
        }
    }
    lse->bound *= REF_SLACK;
    free(parts);
}
