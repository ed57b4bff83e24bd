/* SPDX-License-Identifier: Apache-2.0 */
/* Zeros and what is next to nothing: denormals, signs, no keys, no queries, weights of zero. */
#include <float.h>
#include <math.h>

#include "support/compare.h"
#include "semantics.h"
#include "stage.h"

static void prepare_denormals(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        set_row(q_at(c, 0, i, 0), c->desc.head_dim, FLT_MIN / 8);
    for (int64_t j = 0; j < c->desc.kv_len; j++) {
        set_row(k_at(c, 0, j, 0), c->desc.head_dim, j % 2 ? FLT_MIN / 4 : -FLT_TRUE_MIN);
        set_row(v_at(c, 0, j, 0), c->desc.v_dim, FLT_MIN / 2);
    }
}

static void expect_denormals(const struct test_case *c) {
    double n = (double)c->desc.kv_len;
    for (int64_t i = 0; i < c->desc.q_len; i++) {
        ck_assert(near((double)lse_at(c, 0, 0, i), log(n)));
        double off = (double)out_at(c, 0, 0, i, 0) - (double)FLT_MIN / 2;
        ck_assert(fabs(off) <= n * (double)FLT_TRUE_MIN);
    }
}

START_TEST(denormals_are_numbers) {
    struct desc d = desc_plain();
    semantics_check(rooms_get(_i), &d, prepare_denormals, expect_denormals);
}
END_TEST

static void prepare_negative_zero(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++) {
        set_row(q_at(c, 0, i, 0), c->desc.head_dim, -0.0F);
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            *tensor_f32(&c->params.bias, 0, 0, i, j) = -0.0F;
    }
    make_v_identity(c);
}

static void expect_even(const struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            ck_assert(near((double)out_at(c, 0, 0, i, j), 1 / (double)c->desc.kv_len));
}

START_TEST(negative_zero_is_zero) {
    struct desc d = desc_plain();
    d.bias = true;
    d.v_dim = d.kv_len;
    semantics_check(rooms_get(_i), &d, prepare_negative_zero, expect_even);
}
END_TEST

/* The first key's weight times its value is too small for any float and negative, and the second
 * key adds a zero that is negative, too. */
static void prepare_negative_zeros(struct test_case *c) {
    *q_at(c, 0, 0, 0) = 1;
    *k_at(c, 0, 0, 0) = -69;
    *k_at(c, 0, 1, 0) = 0;
    for (int column = 0; column < c->desc.v_dim; column++) {
        *v_at(c, 0, 0, column) = -1e-30F;
        *v_at(c, 0, 1, column) = -0.0F;
    }
}

static void expect_positive_zeros(const struct test_case *c) {
    for (int column = 0; column < c->desc.v_dim; column++) {
        const float x = out_at(c, 0, 0, 0, column);
        ck_assert_msg(x == 0 && !signbit(x), "column %d is %a", column, (double)x);
    }
}

/* Rows that the last product takes to the user, and (5 columns) those that are stored after it: a
 * key of nothing that was skipped may not show. */
START_TEST(sums_of_zero_are_positive) {
    struct desc d = desc_plain();
    d.q_len = d.head_dim = 1;
    d.kv_len = 2;
    d.has_scale = true;
    d.scale = 1;
    for (d.v_dim = 5; d.v_dim <= 16; d.v_dim += 11)
        semantics_check(rooms_get(_i), &d, prepare_negative_zeros, expect_positive_zeros);
}
END_TEST

/* ---- Nothing to do ---- */

START_TEST(no_keys) {
    static const int stages[] = {QKV_STAGE_SCORES, QKV_STAGE_SOFTMAX, QKV_STAGE_MIX,
                                 QKV_STAGE_ATTENTION};
    for (int i = 0; i < 8; i++) {
        struct desc d = desc_plain();
        d.kv_len = 0;
        d.sinks = i % 2;
        struct verdict verdict = check_desc(&rooms_get(_i)->context, stages[i / 2], &d);
        stage_assert(&verdict);
    }
}
END_TEST

START_TEST(no_queries) {
    static const int stages[] = {QKV_STAGE_SCORES, QKV_STAGE_SOFTMAX, QKV_STAGE_MIX,
                                 QKV_STAGE_ATTENTION};
    for (int i = 0; i < 8; i++) {
        struct desc d = desc_plain();
        d.q_len = 0;
        d.kv_len = i % 2 ? 0 : 7;
        struct verdict verdict = check_desc(&rooms_get(_i)->context, stages[i / 2], &d);
        stage_assert(&verdict);
    }
}
END_TEST

/* ---- Mix by itself ---- */

static struct verdict mix_with_zero_weight(const qkv_context *context, float zero, int64_t kv_len) {
    struct desc d = desc_plain();
    d.kv_len = kv_len;
    struct test_case c;
    case_make(&c, &d, STAGES_ONE(QKV_STAGE_MIX));
    for (int64_t i = 0; i < d.q_len; i++)
        *tensor_f32(&c.tensors.weights, 0, 0, i, 2) = zero;
    set_row(v_at(&c, 0, 2, 0), d.v_dim, NAN);
    tensor_freeze(&c.tensor[ROLE_WEIGHTS]);
    tensor_freeze(&c.tensor[ROLE_V]);
    struct call call = {context, QKV_STAGE_MIX, &c.params, &c.tensors};
    struct verdict verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    if (verdict.ok)
        verdict = check_results(&c, QKV_STAGE_MIX);
    ck_assert(isfinite(out_at(&c, 0, 0, 0, 0)) == (zero == 0));
    case_free(&c);
    return verdict;
}

START_TEST(weight_of_zero_hides_its_value) {
    static const float weights[] = {0.0F, -0.0F, 0.5F};
    for (int i = 0; i < 6; i++) {
        struct verdict verdict =
            mix_with_zero_weight(&rooms_get(_i)->context, weights[i % 3], i < 3 ? 7 : 300);
        stage_assert(&verdict);
    }
}
END_TEST

void add_zero_tests(TCase *tcase) {
    const TTest *const tests[] = {
        denormals_are_numbers,
        negative_zero_is_zero,
        sums_of_zero_are_positive,
        no_keys,
        no_queries,
        weight_of_zero_hides_its_value,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
