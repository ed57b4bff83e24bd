/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of merge made real, run and compared (merge_case.h). */
#include "merge_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ref/merge.h"
#include "support/compare.h"
#include "support/rng.h"

static float normal(void *argument, uint64_t hash) {
    return *(const float *)argument * rng_normal(hash);
}

/* Rows without mass: nothing may come of what stands in their out. */
static void empty_rows(struct merge_case *c, int64_t p) {
    const struct merge_desc *d = &c->desc;
    for (int64_t row = 0; d->empty && row < d->batch * d->heads * d->length; row++) {
        const int64_t i = row % d->length, h = row / d->length % d->heads;
        const int64_t b = row / d->length / d->heads;
        const uint64_t hash = rng_hash(d->seed + 77 + (uint64_t)p, (uint64_t)row);
        if (hash % (uint64_t)d->empty)
            continue;
        *tensor_f32(&c->part_lse[p].view, b, h, i, 0) = -INFINITY;
        for (int64_t x = 0; x < d->v_dim; x++)
            *tensor_f32(&c->part_out[p].view, b, h, i, x) = NAN;
    }
}

static void make_part(struct merge_case *c, int64_t p) {
    const struct merge_desc *d = &c->desc;
    const int64_t dim[4] = {d->batch, d->heads, d->length, d->v_dim};
    const int64_t one[4] = {d->batch, d->heads, d->length, 1};
    float unit = 1.0f, spread = d->spread;
    c->part_out[p] = tensor_make(QKV_F32, dim, d->part_out[p]);
    c->part_lse[p] = tensor_make(QKV_F32, one, d->part_lse[p]);
    tensor_fill(&c->part_out[p], d->seed + (uint64_t)p, normal, &unit);
    tensor_fill(&c->part_lse[p], d->seed + 100 + (uint64_t)p, normal, &spread);
    empty_rows(c, p);
    c->out_views[p] = c->part_out[p].view;
    c->lse_views[p] = c->part_lse[p].view;
    if (p > 0 || !d->in_place)
        tensor_freeze(&c->part_out[p]);
    if (p > 0 || !d->lse_in_place)
        tensor_freeze(&c->part_lse[p]);
}

void merge_case_make(struct merge_case *c, const struct merge_desc *d) {
    const int64_t dim[4] = {d->batch, d->heads, d->length, d->v_dim};
    const int64_t one[4] = {d->batch, d->heads, d->length, 1};
    memset(c, 0, sizeof *c);
    c->desc = *d;
    qkv_merge_params_init(&c->params);
    c->params.batch = d->batch;
    c->params.heads = d->heads;
    c->params.length = d->length;
    c->params.v_dim = d->v_dim;
    c->params.parts = d->parts;
    for (int64_t p = 0; p < d->parts; p++)
        make_part(c, p);
    qkv_merge_tensors_init(&c->tensors);
    c->tensors.part_out = c->out_views;
    c->tensors.part_lse = c->lse_views;
    if (!d->in_place)
        c->out = tensor_make(QKV_F32, dim, d->out);
    c->tensors.out = d->in_place ? c->out_views[0] : c->out.view;
    if (d->lse && !d->lse_in_place)
        c->lse = tensor_make(QKV_F32, one, d->lse_layout);
    if (d->lse)
        c->tensors.lse = d->lse_in_place ? c->lse_views[0] : c->lse.view;
}

void merge_case_free(struct merge_case *c) {
    tensor_free(&c->out);
    tensor_free(&c->lse);
    for (int p = 0; p < MERGE_PARTS; p++) {
        tensor_free(&c->part_out[p]);
        tensor_free(&c->part_lse[p]);
    }
}

const struct how merge_plainly = {WAY_PLAIN, 1, 0};

struct verdict merge_case_run(const struct merge_case *c, const qkv_context *context,
                              struct how how) {
    const struct call call = {context, QKV_STAGE_MERGE, &c->params, &c->tensors};
    return run_call(&call, how);
}

static struct verdict check_memory(const struct merge_case *c) {
    struct verdict verdict = tensor_check_output(&c->out, "out");
    if (verdict.ok)
        verdict = tensor_check_output(&c->lse, "lse");
    for (int64_t p = 0; p < c->desc.parts && verdict.ok; p++) {
        verdict = tensor_check_input(&c->part_out[p], "part_out");
        if (verdict.ok)
            verdict = tensor_check_input(&c->part_lse[p], "part_lse");
    }
    return verdict;
}

static struct verdict compare_one(const char *what, const int64_t at[4], float got,
                                  const struct ref_value *want) {
    const char *fault = compare_value(got, want);
    if (!fault)
        return verdict_ok();
    return verdict_fail("%s[%lld %lld %lld %lld] = %.9g %s: reference %.17g +- %.3g", what,
                        (long long)at[0], (long long)at[1], (long long)at[2], (long long)at[3],
                        (double)got, fault, want->value, want->bound);
}

static struct verdict compare_row(const struct merge_case *c, const qkv_merge_tensors *inputs,
                                  int64_t b, int64_t h, int64_t i) {
    struct ref_value out[QKV_HEAD_DIM_MAX], lse;
    struct verdict verdict = verdict_ok();
    ref_merge(&c->params, inputs, b, h, i, out, &lse);
    for (int64_t x = 0; x < c->params.v_dim && verdict.ok; x++)
        verdict = compare_one("out", (const int64_t[4]){b, h, i, x},
                              *tensor_f32(&c->tensors.out, b, h, i, x), out + x);
    if (verdict.ok && c->desc.lse)
        verdict = compare_one("lse", (const int64_t[4]){b, h, i, 0},
                              *tensor_f32(&c->tensors.lse, b, h, i, 0), &lse);
    return verdict;
}

static struct verdict compare(const struct merge_case *c, const qkv_merge_tensors *inputs) {
    const struct merge_desc *d = &c->desc;
    struct verdict verdict = verdict_ok();
    for (int64_t b = 0; b < d->batch; b++)
        for (int64_t h = 0; h < d->heads; h++)
            for (int64_t i = 0; i < d->length && verdict.ok; i++)
                verdict = compare_row(c, inputs, b, h, i);
    return verdict;
}

struct verdict merge_check(const qkv_context *context, const struct merge_desc *d, struct how how) {
    struct merge_desc aside = *d;
    struct merge_case c, inputs; /* as they were before a call in place */
    aside.in_place = aside.lse_in_place = false;
    merge_case_make(&c, d);
    merge_case_make(&inputs, &aside);
    struct verdict verdict = merge_case_run(&c, context, how);
    if (verdict.ok)
        verdict = check_memory(&c);
    if (verdict.ok)
        verdict = compare(&c, &inputs.tensors);
    merge_case_free(&c);
    merge_case_free(&inputs);
    verdict_add(&verdict,
                "[%lld %lld %lld %lld], %lld parts, seed %llu, spread %g, 1/%d empty, lse %d, in "
                "place %d %d, %s",
                (long long)d->batch, (long long)d->heads, (long long)d->length, (long long)d->v_dim,
                (long long)d->parts, (unsigned long long)d->seed, (double)d->spread, d->empty,
                d->lse, d->in_place, d->lse_in_place, run_way_name(how));
    return verdict;
}

void merge_require(struct verdict verdict) {
    if (!verdict.ok)
        ck_abort_msg("%s", verdict.message);
}
