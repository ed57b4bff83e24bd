/* SPDX-License-Identifier: Apache-2.0 */
/* Compares the results of project_backward with the reference, with the scalar room, and with each
 * other. */
#include <math.h>
#include <string.h>

#include "compare.h"
#include "project_gradient_case.h"

enum { PRODUCTS = 200000 }; /* of a random case, at most */

static const char *const outputs[GRADIENT_ROLES] = {
    [GRADIENT_X] = "dX",      [GRADIENT_W] = "dWq", [GRADIENT_W + 1] = "dWk",
    [GRADIENT_W + 2] = "dWv", [GRADIENT_B] = "dbq", [GRADIENT_B + 1] = "dbk",
    [GRADIENT_B + 2] = "dbv"};

/* The rows and columns of an output as the formulas have them: tokens by inputs, inputs by columns
 * of the matrix, one row. */
struct extent {
    int64_t rows, columns;
};

static struct extent extent_of(const struct gradient_desc *d, int role) {
    const struct project_desc *p = &d->project;
    const int which = role >= GRADIENT_B ? role - GRADIENT_B : role - GRADIENT_W;
    if (role == GRADIENT_X)
        return (struct extent){p->batch * p->tokens, p->d_model};
    const int64_t width = project_heads(p, which) * project_dim(p, which);
    return (struct extent){role >= GRADIENT_B ? 1 : p->d_model, width};
}

/* Element (row, column) of an output, in one of the case's two sets of tensors. */
static float *element(const struct gradient_case *c, const struct tensor *set, int role,
                      int64_t row, int64_t column) {
    const qkv_tensor *view = &set[role].view;
    const int64_t tokens = c->desc.project.tokens;
    if (role == GRADIENT_X)
        return tensor_f32(view, row / tokens, 0, row % tokens, column);
    if (role < GRADIENT_B && c->desc.project.layout == QKV_W_OUT_IN)
        return tensor_f32(view, 0, 0, column, row);
    return tensor_f32(view, 0, 0, row, column);
}

static struct ref_value want(const struct gradient_case *c, int role, int64_t row, int64_t column) {
    const struct ref_projection call = {&c->project.params, &c->project.tensors, &c->gradients};
    const float before = c->desc.accumulate ? *element(c, c->before, role, row, column) : 0.0f;
    if (role == GRADIENT_X)
        return ref_gradient_x(&call, row, column, before);
    if (role < GRADIENT_B)
        return ref_gradient_w(&call, role - GRADIENT_W, row, column, before);
    return ref_gradient_b(&call, role - GRADIENT_B, column, before);
}

static struct verdict compare_element(const struct gradient_case *c,
                                      const struct gradient_case *scalar, int role, int64_t row,
                                      int64_t column) {
    const struct ref_value value = want(c, role, row, column);
    const float got = *element(c, c->tensor, role, row, column);
    const float other = *element(scalar, scalar->tensor, role, row, column);
    const char *fault = compare_value(got, &value);
    if (!fault)
        fault = compare_rooms(got, other, &value);
    if (!fault && got == 0 && signbit(got))
        fault = "is a negative zero";
    if (!fault)
        return verdict_ok();
    return verdict_fail("%s[%lld, %lld] = %.9g %s: reference %.9g +- %.3g, scalar %.9g",
                        outputs[role], (long long)row, (long long)column, (double)got, fault,
                        value.value, value.bound, (double)other);
}

static struct verdict compare_all(const struct gradient_case *c,
                                  const struct gradient_case *scalar) {
    struct verdict verdict = verdict_ok();
    for (int role = GRADIENT_X; role < GRADIENT_ROLES; role++) {
        const struct extent e = extent_of(&c->desc, role);
        if (!gradient_case_has(c, role))
            continue;
        for (int64_t row = 0; row < e.rows; row++)
            for (int64_t column = 0; column < e.columns && verdict.ok; column++)
                verdict = compare_element(c, scalar, role, row, column);
    }
    return verdict;
}

/* Which NaN it is does not count. */
static bool same_bits(float a, float b) {
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

struct verdict gradient_case_same(const struct gradient_case *a, const struct gradient_case *b) {
    for (int role = GRADIENT_X; role < GRADIENT_ROLES; role++) {
        const struct extent e = extent_of(&a->desc, role);
        if (!gradient_case_has(a, role) || !gradient_case_has(b, role))
            continue;
        for (int64_t row = 0; row < e.rows; row++)
            for (int64_t column = 0; column < e.columns; column++) {
                const float x = *element(a, a->tensor, role, row, column);
                const float y = *element(b, b->tensor, role, row, column);
                if (!same_bits(x, y))
                    return verdict_fail("%s[%lld, %lld] is %a or %a", outputs[role], (long long)row,
                                        (long long)column, (double)x, (double)y);
            }
    }
    return verdict_ok();
}

struct verdict check_project_gradients(const qkv_context *context,
                                       const struct gradient_desc *desc) {
    struct gradient_case c, scalar;
    const uint64_t seed = desc->project.seed;
    const struct how how = {(enum way)(seed % WAY_COUNT), 2, seed};
    struct verdict verdict = gradient_case_run(&c, desc, context, how);
    struct verdict other = gradient_case_run(&scalar, desc, &rooms_scalar()->context, how);
    verdict_add(&other, "in the scalar room");
    if (verdict.ok)
        verdict = other.ok ? compare_all(&c, &scalar) : other;
    gradient_case_free(&c);
    gradient_case_free(&scalar);
    verdict_add(&verdict, "project_backward, %s, %s",
                qkv_context_variant(context, QKV_STAGE_PROJECT_BACKWARD), run_way_name(how));
    gradient_case_explain(desc, &verdict);
    return verdict;
}

struct verdict check_project_gradients_random(const qkv_context *context) {
    struct verdict verdict = verdict_ok();
    for (int i = 0; i < test_cases() && verdict.ok; i++) {
        if (test_only() >= 0 && i != test_only())
            continue;
        struct rng rng = rng_seeded(rng_hash(test_seed() + 3, (uint64_t)i));
        const struct gradient_desc desc = gradient_desc_random(&rng, PRODUCTS);
        verdict = check_project_gradients(context, &desc);
        verdict_add(&verdict, "replay: QKV_TEST_SEED=%llu QKV_TEST_ONLY=%d",
                    (unsigned long long)test_seed(), i);
    }
    return verdict;
}
