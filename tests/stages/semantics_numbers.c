/* SPDX-License-Identifier: Apache-2.0 */
/* What the numbers mean: LSE, sinks, scale, the order of the score's steps, and numbers as
 * large as they come. */
#include <float.h>
#include <math.h>

#include "support/compare.h"
#include "semantics.h"
#include "stage.h"

/* ---- LSE and sinks ---- */

static void expect_log_of_count(const struct test_case *c) {
    double n = (double)c->desc.kv_len + (c->desc.sinks ? exp((double)c->params.sinks[0]) : 0);
    for (int64_t i = 0; i < c->desc.q_len; i++)
        ck_assert(near((double)lse_at(c, 0, 0, i), log(n)));
}

START_TEST(lse_of_equal_scores_is_the_log_of_their_count) {
    static const int64_t lengths[] = {1, 7, 300, 1100};
    for (int i = 0; i < 4; i++) {
        struct desc d = desc_plain();
        d.kv_len = lengths[i];
        semantics_check(rooms_get(_i), &d, make_q_zero, expect_log_of_count);
    }
}
END_TEST

START_TEST(sink_is_mass_in_the_lse) {
    struct desc d = desc_plain();
    d.sinks = true;
    semantics_check(rooms_get(_i), &d, make_q_zero, expect_log_of_count);
    d.kv_len = 1100;
    semantics_check(rooms_get(_i), &d, make_q_zero, expect_log_of_count);
}
END_TEST

static void prepare_large_sink(struct test_case *c) {
    make_q_zero(c);
    make_v_identity(c);
    *(float *)(void *)c->sinks.data = 3;
}

static void expect_weights_beside_sink(const struct test_case *c) {
    double each = 1 / ((double)c->desc.kv_len + exp(3));
    for (int64_t j = 0; j < c->desc.kv_len; j++)
        ck_assert(near((double)out_at(c, 0, 0, 0, j), each));
}

START_TEST(sink_takes_weight_and_has_no_value) {
    struct desc d = desc_plain();
    d.sinks = true;
    d.v_dim = d.kv_len;
    semantics_check(rooms_get(_i), &d, prepare_large_sink, expect_weights_beside_sink);
}
END_TEST

/* Odd sinks in front; the last head has a sink like any other. */
static void set_odd_sinks(struct test_case *c, float odd) {
    float *sinks = (float *)(void *)c->sinks.data;
    for (int64_t h = 0; h + 1 < c->desc.q_heads; h++)
        sinks[h] = odd;
    sinks[c->desc.q_heads - 1] = 0.5F;
}

static void prepare_nan_sinks(struct test_case *c) {
    set_odd_sinks(c, NAN);
}

static void prepare_infinite_sinks(struct test_case *c) {
    set_odd_sinks(c, INFINITY);
}

static void expect_odd_sinks(const struct test_case *c) {
    for (int64_t h = 0; h < c->desc.q_heads; h++)
        ck_assert_int_eq(row_is_nan(c, 0, h, 0), h + 1 < c->desc.q_heads);
}

/* Whether all rows of a vector have one or some do. */
START_TEST(sink_of_nan_or_infinity_makes_its_rows_nan) {
    for (int heads = 1; heads < 4; heads++) {
        struct desc d = desc_plain();
        d.sinks = true;
        d.q_heads = heads;
        d.kv_heads = 1;
        semantics_check(rooms_get(_i), &d, prepare_nan_sinks, expect_odd_sinks);
        semantics_check(rooms_get(_i), &d, prepare_infinite_sinks, expect_odd_sinks);
    }
}
END_TEST

/* ---- The order of the score's steps ---- */

/* One query and two keys of head_dim 1: scores are what these say. */
static void prepare_two_keys(struct test_case *c) {
    *q_at(c, 0, 0, 0) = 2;
    *k_at(c, 0, 0, 0) = 3;
    *k_at(c, 0, 1, 0) = -1;
    if (c->desc.alibi)
        *(float *)(void *)c->slopes.data = 0.25F;
    if (c->desc.bias) {
        *tensor_f32(&c->params.bias, 0, 0, 0, 0) = 0.75F;
        *tensor_f32(&c->params.bias, 0, 0, 0, 1) = -0.5F;
    }
    make_v_identity(c);
}

static void expect_order_of_steps(const struct test_case *c) {
    const struct desc *d = &c->desc;
    double s[2] = {(double)d->scale * 6, (double)d->scale * -2};
    for (int j = 0; j < 2; j++) {
        if (d->softcap > 0)
            s[j] = (double)d->softcap * tanh(s[j] / (double)d->softcap);
        if (d->alibi)
            s[j] -= 0.25 * (1 - j); /* the query stands at position 1 */
        if (d->bias)
            s[j] += j == 0 ? 0.75 : -0.5;
    }
    double sum = exp(s[0]) + exp(s[1]);
    ck_assert(near((double)out_at(c, 0, 0, 0, 0), exp(s[0]) / sum));
    ck_assert(near((double)out_at(c, 0, 0, 0, 1), exp(s[1]) / sum));
    ck_assert(near((double)lse_at(c, 0, 0, 0), log(sum)));
}

START_TEST(scale_then_softcap_then_alibi_then_bias) {
    static const float scales[] = {1, 0.5F, -0.5F, 0, 3};
    for (int bits = 0; bits < 8; bits++)
        for (int s = 0; s < 5; s++) {
            struct desc d = desc_plain();
            d.q_len = 1;
            d.kv_len = d.v_dim = 2;
            d.head_dim = 1;
            d.has_scale = true;
            d.scale = scales[s];
            d.softcap = bits & 1 ? 1.5F : 0;
            d.alibi = bits & 2;
            d.bias = bits & 4;
            semantics_check(rooms_get(_i), &d, prepare_two_keys, expect_order_of_steps);
        }
}
END_TEST

static void prepare_default_scale(struct test_case *c) {
    set_row(q_at(c, 0, 0, 0), 16, 1);
    set_row(k_at(c, 0, 0, 0), 16, 1);
    set_row(k_at(c, 0, 1, 0), 16, 0);
    c->params.v_dim = 0;
}

static void expect_default_scale(const struct test_case *c) {
    /* 16 products of 1, over the root of 16, against 0. */
    ck_assert(near((double)lse_at(c, 0, 0, 0), log(exp(4) + 1)));
}

START_TEST(scale_is_one_over_the_root_of_head_dim_unless_set) {
    struct desc d = desc_plain();
    d.q_len = 1;
    d.kv_len = 2;
    d.head_dim = d.v_dim = 16;
    semantics_check(rooms_get(_i), &d, prepare_default_scale, expect_default_scale);
}
END_TEST

/* ---- The ends of the range ---- */

static float extreme; /* of a score */

static void prepare_extreme(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        *q_at(c, 0, i, 0) = i % 2 ? -100 : 100;
    for (int64_t j = 0; j < c->desc.kv_len; j++) {
        *k_at(c, 0, j, 0) = -extreme / 100;
        set_row(v_at(c, 0, j, 0), c->desc.v_dim, (float)j);
    }
    *k_at(c, 0, c->desc.kv_len - 2, 0) = extreme / 100;
}

/* The even rows have one key at +extreme, the odd rows all but one. */
static void expect_extreme(const struct test_case *c) {
    double n = (double)c->desc.kv_len;
    double mean = (n * (n - 1) / 2 - (n - 2)) / (n - 1);
    for (int64_t i = 0; i < c->desc.q_len; i++) {
        double lse = (double)extreme + (i % 2 ? log(n - 1) : 0);
        ck_assert(near((double)lse_at(c, 0, 0, i), lse));
        ck_assert(near((double)out_at(c, 0, 0, i, 0), i % 2 ? mean : n - 2));
    }
}

START_TEST(scores_of_ten_thousand_do_not_overflow) {
    static const int64_t lengths[] = {7, 300, 1100};
    for (int i = 0; i < 3; i++) {
        struct desc d = desc_plain();
        d.head_dim = 1;
        d.has_scale = true;
        d.scale = 1;
        d.kv_len = lengths[i];
        for (extreme = 1e4F; extreme < 2e6F; extreme *= 10)
            semantics_check(rooms_get(_i), &d, prepare_extreme, expect_extreme);
    }
}
END_TEST

/* Beyond what the reference has a bound for: one key takes all, whatever the products round to. */
START_TEST(scores_as_large_as_they_come) {
    static const int64_t lengths[] = {7, 300, 1100};
    for (int i = 0; i < 3 * QKV_EXP_COUNT; i++) {
        struct desc d = desc_plain();
        d.head_dim = 1;
        d.has_scale = true;
        d.scale = 1;
        d.kv_len = lengths[i % 3];
        d.exp = i / 3;
        for (extreme = 2e6F; extreme < 1.7e38F; extreme *= 3.7F) {
            struct test_case c;
            semantics_run(&c, rooms_get(_i), &d, prepare_extreme);
            expect_extreme(&c);
            case_free(&c);
        }
    }
}
END_TEST

/* One query and one key, whose score is `extreme`. */
static struct desc one_score(void) {
    struct desc d = desc_plain();
    d.q_len = d.kv_len = d.head_dim = d.v_dim = 1;
    d.has_scale = true;
    d.scale = 1;
    return d;
}

static void prepare_score(struct test_case *c) {
    *q_at(c, 0, 0, 0) = 1;
    *k_at(c, 0, 0, 0) = extreme;
    *v_at(c, 0, 0, 0) = 1e38F; /* weights are not far from 1, whatever the score is */
    if (c->desc.sinks)
        *(float *)(void *)c->sinks.data = extreme;
}

/* Alone the key takes all; beside a sink of its size, half. */
START_TEST(score_of_any_size_alone_or_beside_its_equal) {
    for (int i = 0; i < 132; i++) {
        struct desc d = one_score();
        struct test_case c;
        d.sinks = i % 2;
        extreme = powf(10, (float)(i / 4 + 1)) * (i % 4 > 1 ? -1.7F : 1.3F);
        semantics_run(&c, rooms_get(_i), &d, prepare_score);
        ck_assert(near((double)out_at(&c, 0, 0, 0, 0) / 1e38, d.sinks ? 0.5 : 1));
        case_free(&c);
    }
}
END_TEST

static void make_one_row_large(struct test_case *c) {
    for (int64_t x = 0; x < c->desc.head_dim; x++)
        *q_at(c, 0, 3, x) *= 1e15F;
}

/* It is weighed in another way, and the rows beside it are not. */
START_TEST(large_scores_of_one_row_leave_the_others) {
    struct desc d = desc_plain();
    struct test_case plain, large;
    d.q_len = 21;
    d.kv_len = 300;
    semantics_run(&plain, rooms_get(_i), &d, NULL);
    semantics_run(&large, rooms_get(_i), &d, make_one_row_large);
    for (int64_t i = 0; i < d.q_len; i++)
        ck_assert_int_eq(semantics_same_row(&plain, &large, 0, 0, i), i != 3);
    ck_assert(isfinite(lse_at(&large, 0, 0, 3)));
    case_free(&plain);
    case_free(&large);
}
END_TEST

static void prepare_huge(struct test_case *c) {
    set_row(q_at(c, 0, 0, 0), 1, 1e19F);
    set_row(q_at(c, 0, 1, 0), 1, -1e19F);
    for (int64_t j = 0; j < c->desc.kv_len; j++)
        *k_at(c, 0, j, 0) = 2e19F;
}

static void expect_huge(const struct test_case *c) {
    /* 2e38 fits; times 4 it is an infinite score, or one that counts as masked. */
    ck_assert(row_is_nan(c, 0, 0, 0));
    ck_assert(row_is(c, 0, 0, 1, 0));
    ck_assert_float_eq(lse_at(c, 0, 0, 1), -INFINITY);
}

START_TEST(score_that_overflows_by_its_scale) {
    struct desc d = desc_plain();
    d.q_len = 2;
    d.head_dim = 1;
    d.has_scale = true;
    d.scale = 4;
    semantics_check(rooms_get(_i), &d, prepare_huge, expect_huge);
}
END_TEST

/* log2(e) times such a scale is infinite. */
START_TEST(largest_scale_of_zeros_is_zero) {
    struct desc d = desc_plain();
    d.has_scale = true;
    for (int i = 0; i < 2; i++) {
        d.scale = i ? FLT_MAX : -FLT_MAX;
        semantics_check(rooms_get(_i), &d, make_q_zero, expect_log_of_count);
    }
}
END_TEST

START_TEST(least_softcap) {
    struct desc d = desc_plain();
    d.softcap = FLT_MIN;
    semantics_check(rooms_get(_i), &d, NULL, expect_log_of_count);
}
END_TEST

/* ---- Heads beside each other ---- */

/* The second head's values: all kinds, for keys that every row sees. */
static void prepare_odd_values(struct test_case *c) {
    *v_at(c, 1, 0, 0) = INFINITY;
    *v_at(c, 1, 2, 1) = -INFINITY;
    *v_at(c, 1, 3, 2) = NAN;
}

static void compare_other_heads(const struct room *room, const struct desc *d) {
    struct test_case plain, odd;
    semantics_run(&plain, room, d, NULL);
    semantics_run(&odd, room, d, prepare_odd_values);
    for (int64_t h = 0; h < d->q_heads; h++)
        for (int64_t i = 0; i < d->q_len; i++)
            ck_assert_int_eq(semantics_same_row(&plain, &odd, 0, h, i), h != 1);
    case_free(&plain);
    case_free(&odd);
}

/* Few rows of several heads are taken together: in whole panels of keys or not, with values that
 * are multiplied where they are or copied. */
START_TEST(values_of_one_head_leave_the_others) {
    struct desc d = desc_plain();
    d.q_heads = d.kv_heads = 5;
    for (d.kv_len = 7; d.kv_len <= 16; d.kv_len += 9)
        for (d.v_dim = 8; d.v_dim <= 16; d.v_dim += 8)
            for (d.q_len = 1; d.q_len <= 33; d.q_len += 8)
                compare_other_heads(rooms_get(_i), &d);
}
END_TEST

void add_number_tests(TCase *tcase) {
    const TTest *const tests[] = {
        lse_of_equal_scores_is_the_log_of_their_count,
        sink_is_mass_in_the_lse,
        sink_takes_weight_and_has_no_value,
        sink_of_nan_or_infinity_makes_its_rows_nan,
        scale_then_softcap_then_alibi_then_bias,
        scale_is_one_over_the_root_of_head_dim_unless_set,
        scores_of_ten_thousand_do_not_overflow,
        scores_as_large_as_they_come,
        score_of_any_size_alone_or_beside_its_equal,
        large_scores_of_one_row_leave_the_others,
        score_that_overflows_by_its_scale,
        largest_scale_of_zeros_is_zero,
        least_softcap,
        values_of_one_head_leave_the_others,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
