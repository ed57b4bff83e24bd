/* SPDX-License-Identifier: Apache-2.0 */
/* Fused against unfused. How far apart they may be follows from the bounds of the reference: the
 * unfused scores are off by at most s, which moves a weight by a factor of at most exp(2 s); the
 * softmax and the mix add their own. */
#include "fused_unfused.h"

#include <math.h>
#include <stdlib.h>

#include "support/case.h"
#include "support/compare.h"
#include "ref/ref.h"
#include "support/run.h"
#include "support/stages.h"

#define UNFUSED \
    (STAGES_ONE(QKV_STAGE_SCORES) | STAGES_ONE(QKV_STAGE_SOFTMAX) | STAGES_ONE(QKV_STAGE_MIX))

/* The reference's rows of both ways. */
struct rows {
    struct ref_value *scores, *weights, *fused_weights; /* kv_len of each */
    struct ref_value *fused, *mixed;                    /* v_dim of each */
    struct ref_value lse, fused_lse;
};

static struct ref_value *values(int64_t count) {
    struct ref_value *memory = calloc((size_t)count + 1, sizeof *memory);
    if (memory == NULL)
        abort();
    return memory;
}

static struct rows rows_make(const qkv_attention_params *params) {
    return (struct rows){
        .scores = values(params->kv_len),
        .weights = values(params->kv_len),
        .fused_weights = values(params->kv_len),
        .fused = values(ref_v_dim(params)),
        .mixed = values(ref_v_dim(params)),
    };
}

static void rows_free(struct rows *rows) {
    free(rows->scores);
    free(rows->weights);
    free(rows->fused_weights);
    free(rows->fused);
    free(rows->mixed);
}

/* A query row: of which sequence, head and place. */
struct row {
    int64_t b, h, i;
};

static void rows_fill(struct rows *rows, const struct test_case *fused,
                      const struct test_case *unfused, struct row r) {
    const qkv_attention_params *params = &unfused->params;
    const qkv_tensors *tensors = &unfused->tensors;

    ref_attention(&fused->params, &fused->tensors, r.b, r.h, r.i, rows->fused_weights, rows->fused,
                  &rows->fused_lse);
    ref_scores(params, tensors, r.b, r.h, r.i, rows->scores);
    ref_softmax(params, tensors, r.b, r.h, r.i, rows->weights, &rows->lse);
    ref_mix(params, tensors, r.b, r.h, r.i, rows->mixed);
}

/* The largest error of a score that counts, or infinity if one of them is not finite. */
static double score_error(const struct rows *rows, const qkv_attention_params *params,
                          struct row r) {
    double most = 0;
    for (int64_t j = 0; j < ref_keys(params, r.b); j++) {
        if (!ref_keeps(params, r.b, r.h, r.i, j))
            continue;
        if (!isfinite(rows->scores[j].value))
            return INFINITY;
        most = fmax(most, rows->scores[j].bound);
    }
    return most;
}

/* How far the unfused output's column c may be from what exact arithmetic makes of Q, K and V. */
static double unfused_error(const struct rows *rows, const struct test_case *unfused, struct row r,
                            int64_t c, double s) {
    const qkv_attention_params *params = &unfused->params;
    double error = rows->mixed[c].bound;

    for (int64_t j = 0; j < ref_keys(params, r.b); j++) {
        struct ref_place place = ref_key_place(params, r.b, j);
        int64_t head = r.h / (params->q_heads / params->kv_heads);
        if (!ref_keeps(params, r.b, r.h, r.i, j))
            continue;
        error += (rows->weights[j].bound + rows->weights[j].value * expm1(2 * s)) *
                 fabs((double)*tensor_f32(&unfused->tensors.v, place.b, head, place.t, c));
    }
    return error;
}

static struct verdict compare(const char *name, struct row r, int64_t c, float fused, float unfused,
                              double bound) {
    double difference = fabs((double)fused - (double)unfused);
    if (!isfinite(bound) || (isinf(fused) && fused == unfused) || difference <= bound)
        return verdict_ok();
    return verdict_fail("%s[b=%lld h=%lld i=%lld c=%lld]: %.9g fused, %.9g unfused, %.3g allowed",
                        name, (long long)r.b, (long long)r.h, (long long)r.i, (long long)c,
                        (double)fused, (double)unfused, bound);
}

static struct verdict compare_row(struct rows *rows, const struct test_case *fused,
                                  const struct test_case *unfused, struct row r) {
    struct ref_place place = ref_query_place(&fused->params, r.b, r.i);
    struct verdict verdict = verdict_ok();
    double s;

    rows_fill(rows, fused, unfused, r);
    s = score_error(rows, &unfused->params, r);
    for (int64_t c = 0; c < ref_v_dim(&fused->params) && verdict.ok; c++) {
        double error = rows->fused[c].bound + unfused_error(rows, unfused, r, c, s);
        if (isfinite(rows->fused[c].value))
            verdict =
                compare("out", r, c, *tensor_f32(&fused->tensors.out, place.b, r.h, place.t, c),
                        *tensor_f32(&unfused->tensors.out, place.b, r.h, place.t, c), error);
    }
    if (verdict.ok && fused->tensors.lse.data != NULL && !isnan(rows->fused_lse.value))
        verdict = compare("lse", r, 0, *tensor_f32(&fused->tensors.lse, place.b, r.h, place.t, 0),
                          *tensor_f32(&unfused->tensors.lse, place.b, r.h, place.t, 0),
                          rows->fused_lse.bound + rows->lse.bound + s);
    return verdict;
}

static struct verdict compare_ways(const struct test_case *fused, const struct test_case *unfused) {
    const qkv_attention_params *params = &fused->params;
    struct rows rows = rows_make(params);
    struct verdict verdict = verdict_ok();

    for (int64_t b = 0; b < params->batch; b++)
        for (int64_t h = 0; h < params->q_heads; h++)
            for (int64_t i = 0; i < ref_rows(params, b) && verdict.ok; i++)
                verdict = compare_row(&rows, fused, unfused, (struct row){b, h, i});
    rows_free(&rows);
    return verdict;
}

static struct verdict run(const struct test_case *c, const qkv_context *context, int stage) {
    struct call call = {context, stage, &c->params, &c->tensors};
    struct how how = {c->desc.seed % 2 ? WAY_PLAIN : WAY_RANDOM, 1, c->desc.seed};
    return run_call(&call, how);
}

/* Every stage of a case, one after the other, then each against the reference. */
static struct verdict run_and_check(const struct test_case *c, const qkv_context *context) {
    struct verdict verdict = verdict_ok();

    for (int stage = 0; stage < FORWARD_STAGES && verdict.ok; stage++)
        if (c->stages & STAGES_ONE(stage))
            verdict = run(c, context, stage);
    for (int stage = 0; stage < FORWARD_STAGES && verdict.ok; stage++)
        if (c->stages & STAGES_ONE(stage)) {
            verdict = check_results(c, stage);
            verdict_add(&verdict, "%s", qkv_stage_name(stage));
        }
    return verdict;
}

struct verdict check_fused_unfused(const qkv_context *context, const struct desc *desc) {
    struct test_case fused, unfused;
    struct verdict verdict;

    case_make(&fused, desc, STAGES_ONE(QKV_STAGE_ATTENTION));
    case_make(&unfused, desc, UNFUSED);
    verdict = run_and_check(&fused, context);
    if (verdict.ok)
        verdict = run_and_check(&unfused, context);
    if (verdict.ok) {
        verdict = compare_ways(&fused, &unfused);
        case_explain(desc, &verdict);
    }
    verdict_add(&verdict, "room %s", qkv_isa_name(qkv_context_isa(context)));
    case_free(&fused);
    case_free(&unfused);
    return verdict;
}
