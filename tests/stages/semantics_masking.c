/* SPDX-License-Identifier: Apache-2.0 */
/* What masks mean: rows without keys, and keys that may hold anything because nobody sees them. */
#include <math.h>

#include "options.h"
#include "semantics.h"

/* ---- Rows without keys ---- */

/* Five queries, three keys, the last query at the last key: the first two see none. */
static struct desc two_blind_rows(void) {
    struct desc d = desc_plain();
    d.q_len = 5;
    d.kv_len = 3;
    d.causal = true;
    return d;
}

static void expect_blind_rows(const struct test_case *c) {
    for (int64_t i = 0; i < 2; i++) {
        ck_assert(row_is(c, 0, 0, i, 0));
        ck_assert_float_eq(lse_at(c, 0, 0, i), c->desc.sinks ? c->params.sinks[0] : -INFINITY);
    }
    for (int64_t i = 2; i < 5; i++)
        ck_assert(isfinite(lse_at(c, 0, 0, i)) && !row_is(c, 0, 0, i, 0));
}

START_TEST(fully_masked_row_is_zero_and_lse_minus_infinity) {
    struct desc d = two_blind_rows();
    semantics_check(rooms_get(_i), &d, NULL, expect_blind_rows);
}
END_TEST

START_TEST(fully_masked_row_with_sink_is_zero_and_lse_the_sink) {
    struct desc d = two_blind_rows();
    d.sinks = true;
    semantics_check(rooms_get(_i), &d, NULL, expect_blind_rows);
}
END_TEST

static void expect_all_zero(const struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++) {
        ck_assert(row_is(c, 0, 0, i, 0));
        ck_assert_float_eq(lse_at(c, 0, 0, i), c->desc.sinks ? c->params.sinks[0] : -INFINITY);
    }
}

static void hide_by_mask(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            *tensor_bool(&c->params.mask, 0, 0, i, j) = 0;
}

static void fill_bias(struct test_case *c, float bias) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            *tensor_f32(&c->params.bias, 0, 0, i, j) = bias;
}

static void hide_by_bias(struct test_case *c) {
    fill_bias(c, -INFINITY);
}

/* The first number below -2^127; case.c has the most negative one. */
static void hide_by_least_bias(struct test_case *c) {
    fill_bias(c, -0x1.000002p127F);
}

static void hide_by_length(struct test_case *c) {
    *(int32_t *)(void *)c->kv_lens.data = 0;
}

static void hide_by_score(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        set_row(q_at(c, 0, i, 0), c->desc.head_dim, 1);
    for (int64_t j = 0; j < c->desc.kv_len; j++)
        *k_at(c, 0, j, 0) = -INFINITY;
}

static void check_all_masked(int room, struct desc d, semantics_prepare *hide) {
    for (int sinks = 0; sinks < 2; sinks++) {
        d.sinks = sinks;
        d.kv_len = 21;
        semantics_check(rooms_get(room), &d, hide, expect_all_zero);
        d.kv_len = 300;
        semantics_check(rooms_get(room), &d, hide, expect_all_zero);
    }
}

START_TEST(everything_masked_by_the_boolean_mask) {
    struct desc d = desc_plain();
    d.mask = true;
    check_all_masked(_i, d, hide_by_mask);
}
END_TEST

START_TEST(everything_masked_by_the_bias) {
    struct desc d = desc_plain();
    d.bias = true;
    check_all_masked(_i, d, hide_by_bias);
    check_all_masked(_i, d, hide_by_least_bias);
}
END_TEST

static void lower_by_bias(struct test_case *c) {
    fill_bias(c, -0x1p127F);
    make_q_zero(c);
    make_v_identity(c);
}

static void expect_even_weights(const struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++) {
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            ck_assert(near(out_at(c, 0, 0, i, j), 1.0 / (double)c->desc.kv_len));
        ck_assert(near(lse_at(c, 0, 0, i), -0x1p127));
    }
}

START_TEST(nothing_masked_by_the_next_bias) {
    struct desc d = desc_plain();
    d.bias = true;
    d.kv_len = d.v_dim = 21;
    semantics_check(rooms_get(_i), &d, lower_by_bias, expect_even_weights);
}
END_TEST

START_TEST(everything_masked_by_the_length) {
    struct desc d = desc_plain();
    d.kv_lengths = LENGTHS_PADDED;
    check_all_masked(_i, d, hide_by_length);
}
END_TEST

START_TEST(everything_masked_by_computed_scores) {
    struct desc d = desc_plain();
    check_all_masked(_i, d, hide_by_score);
}
END_TEST

START_TEST(everything_masked_by_a_window_beyond_the_keys) {
    struct desc d = desc_plain();
    d.align = QKV_ALIGN_TOP_LEFT;
    d.window_left = 0;
    d.window_right = 0;
    d.q_len = 40;
    d.kv_len = 2;
    struct test_case c;
    semantics_run(&c, rooms_get(_i), &d, NULL);
    for (int64_t i = 0; i < d.q_len; i++)
        ck_assert_int_eq(i >= 2, lse_at(&c, 0, 0, i) == -INFINITY && row_is(&c, 0, 0, i, 0));
    case_free(&c);
}
END_TEST

/* ---- What a masked key holds ---- */

/* The key that a mask hides from every query, and what it holds. */
static int64_t hidden_key;
static float hidden_value;

/* The keys up to the hidden one count, so they hold numbers, whatever their length was before. */
static void cut_length(struct test_case *c) {
    *(int32_t *)(void *)c->kv_lens.data = (int32_t)hidden_key;
    for (int64_t j = 0; j < hidden_key; j++) {
        set_row(k_at(c, 0, j, 0), c->desc.head_dim, 0.25F * (float)(j % 7));
        set_row(v_at(c, 0, j, 0), c->desc.v_dim, 0.5F * (float)(j % 5));
    }
}

static void spoil_hidden_key(struct test_case *c) {
    if (c->desc.mask)
        for (int64_t i = 0; i < c->desc.q_len; i++)
            *tensor_bool(&c->params.mask, 0, 0, i, hidden_key) = 0;
    if (c->desc.bias)
        for (int64_t i = 0; i < c->desc.q_len; i++)
            *tensor_f32(&c->params.bias, 0, 0, i, hidden_key) = -INFINITY;
    if (c->desc.kv_lengths == LENGTHS_PADDED)
        cut_length(c);
    set_row(k_at(c, 0, hidden_key, 0), c->desc.head_dim, hidden_value);
    set_row(v_at(c, 0, hidden_key, 0), c->desc.v_dim, hidden_value);
}

/* The rows must have the bits that they have when the key holds an ordinary number. */
static void check_hidden(int room, const struct desc *d) {
    static const float values[] = {NAN, INFINITY, -INFINITY};
    struct test_case plain, spoiled;
    hidden_value = 0.5F;
    semantics_run(&plain, rooms_get(room), d, spoil_hidden_key);
    for (int v = 0; v < 3; v++) {
        hidden_value = values[v];
        semantics_check(rooms_get(room), d, spoil_hidden_key, NULL);
        semantics_run(&spoiled, rooms_get(room), d, spoil_hidden_key);
        for (int64_t i = 0; i < d->q_len; i++)
            ck_assert_msg(semantics_same_row(&plain, &spoiled, 0, 0, i), "row %d, key %d of %d, %f",
                          (int)i, (int)hidden_key, (int)d->kv_len, (double)hidden_value);
        case_free(&spoiled);
    }
    case_free(&plain);
}

static void check_hidden_by(int room, void (*mean)(struct desc *d)) {
    static const int64_t keys[][2] = {{20, 21}, {3, 21}, {299, 300}, {260, 300}, {1090, 1100}};
    for (int i = 0; i < 5; i++) {
        struct desc d = desc_plain();
        d.kv_len = keys[i][1];
        hidden_key = keys[i][0];
        mean(&d);
        check_hidden(room, &d);
    }
}

static void by_mask(struct desc *d) {
    d->mask = true;
}

static void by_bias(struct desc *d) {
    d->bias = true;
}

static void by_length(struct desc *d) {
    d->kv_lengths = LENGTHS_PADDED;
}

static void by_causal(struct desc *d) {
    d->causal = true;
    d->align = QKV_ALIGN_TOP_LEFT;
    d->q_len = hidden_key < 20 ? 3 : 11;
}

static void by_window_left(struct desc *d) {
    d->window_left = 1;
    d->q_len = 3;
    hidden_key = d->kv_len - 6;
}

static void by_window_right(struct desc *d) {
    d->align = QKV_ALIGN_TOP_LEFT;
    d->window_right = 1;
    d->q_len = 2;
    hidden_key = 3;
}

START_TEST(key_masked_by_the_boolean_mask_may_hold_anything) {
    check_hidden_by(_i, by_mask);
}
END_TEST

START_TEST(key_masked_by_the_bias_may_hold_anything) {
    check_hidden_by(_i, by_bias);
}
END_TEST

START_TEST(key_beyond_the_length_may_hold_anything) {
    check_hidden_by(_i, by_length);
}
END_TEST

START_TEST(key_masked_by_causal_may_hold_anything) {
    check_hidden_by(_i, by_causal);
}
END_TEST

START_TEST(key_left_of_the_window_may_hold_anything) {
    check_hidden_by(_i, by_window_left);
}
END_TEST

START_TEST(key_right_of_the_window_may_hold_anything) {
    check_hidden_by(_i, by_window_right);
}
END_TEST

static void spoil_value_of_computed(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        set_row(q_at(c, 0, i, 0), c->desc.head_dim, 0.25F);
    *k_at(c, 0, 2, 1) = -INFINITY;
    set_row(v_at(c, 0, 2, 0), c->desc.v_dim, NAN);
}

static void expect_no_nan(const struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t x = 0; x < c->desc.v_dim; x++)
            ck_assert(isfinite(out_at(c, 0, 0, i, x)));
}

START_TEST(computed_minus_infinity_counts_as_masked) {
    struct desc d = desc_plain();
    semantics_check(rooms_get(_i), &d, spoil_value_of_computed, expect_no_nan);
    d.has_scale = true; /* not the default scale, and not part of the exponential */
    d.scale = 0.5F;
    d.alibi = true;
    semantics_check(rooms_get(_i), &d, spoil_value_of_computed, expect_no_nan);
}
END_TEST

/* ---- What is not masked ---- */

static void spoil_query(struct test_case *c) {
    *q_at(c, 0, 2, 3) = NAN;
}

static void expect_nan_in_row_2(const struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++) {
        ck_assert(row_is_nan(c, 0, 0, i) == (i == 2));
        ck_assert(isfinite(lse_at(c, 0, 0, i)) == (i != 2));
    }
}

START_TEST(unmasked_nan_of_a_query_stays_in_its_row) {
    struct desc d = desc_plain();
    semantics_check(rooms_get(_i), &d, spoil_query, expect_nan_in_row_2);
    d.kv_len = 300;
    semantics_check(rooms_get(_i), &d, spoil_query, expect_nan_in_row_2);
}
END_TEST

static void spoil_last_key(struct test_case *c) {
    set_row(k_at(c, 0, c->desc.kv_len - 2, 0), c->desc.head_dim, NAN);
}

static void spoil_last_value(struct test_case *c) {
    set_row(v_at(c, 0, c->desc.kv_len - 2, 0), c->desc.v_dim, NAN);
}

static void expect_nan_in_last_two(const struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        ck_assert(row_is_nan(c, 0, 0, i) == (i >= c->desc.q_len - 2));
}

START_TEST(unmasked_nan_of_a_key_stays_in_the_rows_that_see_it) {
    static const int64_t lengths[] = {21, 258, 1026};
    for (int i = 0; i < 3; i++) {
        struct desc d = desc_plain(), free_of_nan;
        d.causal = true;
        d.kv_len = lengths[i];
        free_of_nan = d;
        semantics_check(rooms_get(_i), &d, spoil_last_key, expect_nan_in_last_two);
        semantics_check(rooms_get(_i), &d, spoil_last_value, expect_nan_in_last_two);
        struct test_case x, y;
        semantics_run(&x, rooms_get(_i), &d, spoil_last_value);
        semantics_run(&y, rooms_get(_i), &free_of_nan, NULL);
        for (int64_t r = 0; r < d.q_len - 2; r++)
            ck_assert(semantics_same_row(&x, &y, 0, 0, r));
        case_free(&x);
        case_free(&y);
    }
}
END_TEST

static void leave_only_a_nan(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            *tensor_bool(&c->params.mask, 0, 0, i, j) = j == 4;
    *k_at(c, 0, 4, 0) = NAN;
}

static void expect_only_nan(const struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        ck_assert(row_is_nan(c, 0, 0, i));
}

START_TEST(unmasked_nan_with_all_other_keys_masked) {
    struct desc d = desc_plain();
    d.mask = true;
    semantics_check(rooms_get(_i), &d, leave_only_a_nan, expect_only_nan);
    d.kv_len = 600;
    semantics_check(rooms_get(_i), &d, leave_only_a_nan, expect_only_nan);
}
END_TEST

static void make_infinite_score(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        *q_at(c, 0, i, 0) = i == 3 ? 1.0F : -1.0F;
    *k_at(c, 0, 5, 0) = INFINITY;
}

static void expect_nan_in_row_3(const struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        ck_assert(row_is_nan(c, 0, 0, i) == (i == 3));
}

START_TEST(score_of_plus_infinity_makes_its_row_nan) {
    struct desc d = desc_plain();
    semantics_check(rooms_get(_i), &d, make_infinite_score, expect_nan_in_row_3);
    d.kv_len = 600;
    semantics_check(rooms_get(_i), &d, make_infinite_score, expect_nan_in_row_3);
}
END_TEST

void add_masking_tests(TCase *tcase) {
    const TTest *const tests[] = {
        fully_masked_row_is_zero_and_lse_minus_infinity,
        fully_masked_row_with_sink_is_zero_and_lse_the_sink,
        everything_masked_by_the_boolean_mask,
        everything_masked_by_the_bias,
        nothing_masked_by_the_next_bias,
        everything_masked_by_the_length,
        everything_masked_by_computed_scores,
        everything_masked_by_a_window_beyond_the_keys,
        key_masked_by_the_boolean_mask_may_hold_anything,
        key_masked_by_the_bias_may_hold_anything,
        key_beyond_the_length_may_hold_anything,
        key_masked_by_causal_may_hold_anything,
        key_left_of_the_window_may_hold_anything,
        key_right_of_the_window_may_hold_anything,
        computed_minus_infinity_counts_as_masked,
        unmasked_nan_of_a_query_stays_in_its_row,
        unmasked_nan_of_a_key_stays_in_the_rows_that_see_it,
        unmasked_nan_with_all_other_keys_masked,
        score_of_plus_infinity_makes_its_row_nan,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
