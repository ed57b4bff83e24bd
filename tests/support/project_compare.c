/* SPDX-License-Identifier: Apache-2.0 */
/* Compares the results of project with the reference and with the scalar room. */
#include "compare.h"
#include "project_case.h"

enum { PRODUCTS = 1000000 }; /* of a random case, at most */

/* The parameters and tensors before any packing: what the reference reads. */
static void unpacked(const struct project_case *c, qkv_project_params *params,
                     qkv_project_tensors *tensors) {
    *params = c->params;
    params->layout = c->desc.layout;
    *tensors = c->tensors;
    tensors->wq = c->tensor[PROJECT_W + QKV_WHICH_Q].view;
    tensors->wk = c->tensor[PROJECT_W + QKV_WHICH_K].view;
    tensors->wv = c->tensor[PROJECT_W + QKV_WHICH_V].view;
}

static struct verdict compare_row(const struct project_case *c, const struct project_case *scalar,
                                  int which, int64_t b, int64_t h, int64_t t) {
    qkv_project_params params;
    qkv_project_tensors tensors;
    unpacked(c, &params, &tensors);
    for (int64_t x = 0; x < project_dim(&c->desc, which); x++) {
        struct ref_value want = ref_project(&params, &tensors, which, b, h, t, x);
        float got = *tensor_f32(&c->tensor[PROJECT_Y + which].view, b, h, t, x);
        float other = *tensor_f32(&scalar->tensor[PROJECT_Y + which].view, b, h, t, x);
        const char *fault = compare_value(got, &want);
        if (!fault)
            fault = compare_rooms(got, other, &want);
        if (fault)
            return verdict_fail("%c[b=%lld h=%lld t=%lld c=%lld] = %.9g %s: reference %.9g +- "
                                "%.3g, scalar %.9g",
                                "qkv"[which], (long long)b, (long long)h, (long long)t,
                                (long long)x, (double)got, fault, want.value, want.bound,
                                (double)other);
    }
    return verdict_ok();
}

static struct verdict compare_all(const struct project_case *c, const struct project_case *scalar) {
    struct verdict verdict = verdict_ok();
    for (int which = 0; which < QKV_WHICH_COUNT; which++)
        for (int64_t b = 0; b < c->desc.batch; b++)
            for (int64_t h = 0; h < project_heads(&c->desc, which); h++)
                for (int64_t t = 0; t < c->desc.tokens && verdict.ok; t++)
                    verdict = compare_row(c, scalar, which, b, h, t);
    return verdict;
}

static struct verdict run_case(struct project_case *c, const struct project_desc *desc,
                               const qkv_context *context, struct how how) {
    struct verdict verdict = project_case_make(c, desc, context);
    if (!verdict.ok)
        return verdict;
    struct call call = {context, QKV_STAGE_PROJECT, &c->params, &c->tensors};
    verdict = run_call(&call, how);
    return verdict.ok ? project_case_check_memory(c) : verdict;
}

struct verdict check_project(const qkv_context *context, const struct project_desc *desc) {
    struct project_case c, scalar;
    struct how how = {(enum way)(desc->seed % WAY_COUNT), 2, desc->seed};
    struct verdict verdict = run_case(&c, desc, context, how);
    struct verdict other = run_case(&scalar, desc, &rooms_scalar()->context, how);
    verdict_add(&other, "in the scalar room");
    if (verdict.ok)
        verdict = other.ok ? compare_all(&c, &scalar) : other;
    project_case_free(&c);
    project_case_free(&scalar);
    verdict_add(&verdict, "project, %s, %s", qkv_context_variant(context, QKV_STAGE_PROJECT),
                run_way_name(how));
    project_case_explain(desc, &verdict);
    return verdict;
}

struct verdict check_project_random(const qkv_context *context) {
    struct verdict verdict = verdict_ok();
    for (int i = 0; i < test_cases() && verdict.ok; i++) {
        if (test_only() >= 0 && i != test_only())
            continue;
        struct rng rng = rng_seeded(rng_hash(test_seed(), (uint64_t)i));
        struct project_desc desc = project_desc_random(&rng, PRODUCTS);
        verdict = check_project(context, &desc);
        verdict_add(&verdict, "replay: QKV_TEST_SEED=%llu QKV_TEST_ONLY=%d",
                    (unsigned long long)test_seed(), i);
    }
    return verdict;
}
