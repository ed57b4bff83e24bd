/* SPDX-License-Identifier: Apache-2.0 */
/* What masks mean to the gradients: what sees nothing gets zeros; and the helpers and main() of the
 * suite. */
#include "semantics_backward.h"

#include <math.h>
#include <string.h>

#include "stage.h"
#include "support/compare_gradients.h"

static void make_case(struct test_case *c, const struct desc *d, backward_prepare *prepare) {
    case_make(c, d, STAGES_ONE(QKV_STAGE_ATTENTION_BACKWARD));
    if (prepare)
        prepare(c);
    case_forward(c);
    for (int role = 0; role < ROLE_COUNT; role++)
        if (c->tensor[role].before)
            tensor_freeze(&c->tensor[role]);
}

void backward_run(struct test_case *c, int room, const struct desc *d, backward_prepare *prepare) {
    make_case(c, d, prepare);
    struct verdict verdict = run_backward(c, QKV_STAGE_ATTENTION_BACKWARD,
                                          &rooms_get(room)->context, (struct how){WAY_PLAIN, 1, 0});
    if (verdict.ok)
        verdict = check_gradient_results(c, QKV_STAGE_ATTENTION_BACKWARD);
    stage_assert(&verdict);
}

void fill_row(const qkv_tensor *x, int64_t h, int64_t t, int64_t n, float value) {
    for (int64_t c = 0; c < n; c++)
        *tensor_f32(x, 0, h, t, c) = value;
}

bool is_zero_row(const qkv_tensor *x, int64_t h, int64_t t, int64_t n) {
    for (int64_t c = 0; c < n; c++)
        if (*tensor_f32(x, 0, h, t, c) != 0)
            return false;
    return true;
}

bool is_finite_row(const qkv_tensor *x, int64_t h, int64_t t, int64_t n) {
    for (int64_t c = 0; c < n; c++)
        if (!isfinite(*tensor_f32(x, 0, h, t, c)))
            return false;
    return true;
}

bool is_same_row(const qkv_tensor *x, const qkv_tensor *y, int64_t t, int64_t n) {
    return memcmp(tensor_f32(x, 0, 0, t, 0), tensor_f32(y, 0, 0, t, 0),
                  (size_t)n * sizeof(float)) == 0;
}

/* ---- Rows without keys ---- */

static float blind_value;

/* Of five queries at the end of three keys the first two see none. */
static void spoil_blind_rows(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len - c->desc.kv_len; i++) {
        fill_row(&c->tensors.q, 0, i, c->desc.head_dim, blind_value);
        fill_row(&c->gradients.out, 0, i, c->desc.v_dim, blind_value);
    }
}

static void check_blind_rows(int room, int64_t q_len, int64_t kv_len, bool sinks) {
    static const float values[] = {0.5F, NAN, INFINITY, -INFINITY};
    struct desc d = desc_plain();
    struct test_case c[4];
    d.q_len = q_len;
    d.kv_len = kv_len;
    d.causal = true;
    d.sinks = sinks;
    for (int v = 0; v < 4; v++) {
        blind_value = values[v];
        backward_run(&c[v], room, &d, spoil_blind_rows);
        for (int64_t i = 0; i < q_len; i++)
            if (i != q_len - kv_len) /* its only key has a weight of 1, which nothing moves */
                ck_assert_int_eq(i < q_len - kv_len,
                                 is_zero_row(&c[v].gradients.q, 0, i, d.head_dim));
        for (int64_t j = 0; j < kv_len; j++) {
            ck_assert(is_same_row(&c[0].gradients.k, &c[v].gradients.k, j, d.head_dim));
            ck_assert(is_same_row(&c[0].gradients.v, &c[v].gradients.v, j, d.v_dim));
        }
    }
    for (int v = 0; v < 4; v++)
        case_free(&c[v]);
}

START_TEST(rows_without_keys_get_zeros_and_may_hold_anything) {
    for (int sinks = 0; sinks < 2; sinks++) {
        check_blind_rows(_i, 5, 3, sinks);
        check_blind_rows(_i, 113, 100, sinks);
        check_blind_rows(_i, 400, 270, sinks);
    }
}
END_TEST

/* ---- Everything is masked ---- */

static void hide_by_mask(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            *tensor_bool(&c->params.mask, 0, 0, i, j) = 0;
}

static void hide_by_bias(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            *tensor_f32(&c->params.bias, 0, 0, i, j) = -INFINITY;
}

static void hide_by_length(struct test_case *c) {
    *(int32_t *)(void *)c->kv_lens.data = 0;
}

static void hide_rows_by_length(struct test_case *c) {
    *(int32_t *)(void *)c->q_lens.data = 0;
}

static void hide_by_score(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        fill_row(&c->tensors.q, 0, i, c->desc.head_dim, 1);
    for (int64_t j = 0; j < c->desc.kv_len; j++)
        *tensor_f32(&c->tensors.k, 0, 0, j, 0) = -INFINITY;
}

static void check_all_masked(int room, struct desc d, backward_prepare *hide) {
    static const int64_t keys[] = {21, 300};
    for (int n = 0; n < 4; n++) {
        struct test_case c;
        d.sinks = n / 2;
        d.kv_len = keys[n % 2];
        backward_run(&c, room, &d, hide);
        for (int64_t i = 0; i < d.q_len; i++)
            ck_assert(is_zero_row(&c.gradients.q, 0, i, d.head_dim));
        for (int64_t j = 0; j < d.kv_len; j++)
            ck_assert(is_zero_row(&c.gradients.k, 0, j, d.head_dim) &&
                      is_zero_row(&c.gradients.v, 0, j, d.v_dim));
        ck_assert(!d.sinks || is_zero_row(&c.gradients.sinks, 0, 0, 1));
        ck_assert(!d.bias || is_zero_row(&c.gradients.bias, 0, 0, d.kv_len));
        case_free(&c);
    }
}

START_TEST(everything_masked_gives_zeros) {
    struct desc mask = desc_plain(), bias = mask, length = mask, rows = mask;
    mask.mask = bias.bias = true;
    length.kv_lengths = rows.q_lengths = LENGTHS_PADDED;
    check_all_masked(_i, mask, hide_by_mask);
    check_all_masked(_i, bias, hide_by_bias);
    check_all_masked(_i, length, hide_by_length);
    check_all_masked(_i, rows, hide_rows_by_length);
}
END_TEST

START_TEST(everything_masked_by_computed_scores_gives_zeros) {
    check_all_masked(_i, desc_plain(), hide_by_score);
}
END_TEST

/* Without rows or without keys there is nothing to add up, and all of it is written. */
START_TEST(no_rows_or_no_keys_give_zeros) {
    for (int n = 0; n < 4; n++) {
        struct desc d = desc_plain();
        struct test_case c;
        d.q_heads = 4;
        d.kv_heads = 2;
        d.batch = 2;
        d.sinks = d.bias = true;
        *(n % 2 ? &d.q_len : &d.kv_len) = 0;
        d.mask = n / 2;
        backward_run(&c, _i, &d, NULL);
        case_free(&c);
    }
}
END_TEST

/* ---- Numbers ---- */

/* Scores of +-1e4: weights of 0 and 1, and gradients that are numbers. */
START_TEST(large_scores_do_not_overflow) {
    for (int n = 0; n < 6; n++) {
        struct desc d = desc_plain();
        struct test_case c;
        d.seed = test_seed() + (uint64_t)n;
        d.q_len = 20;
        d.kv_len = n % 2 ? 300 : 20;
        d.spread = 1e4F;
        d.softcap = n / 2 == 1 ? 30 : 0;
        d.sinks = n / 2 == 2;
        backward_run(&c, _i, &d, NULL);
        for (int64_t i = 0; i < d.q_len; i++)
            ck_assert(is_finite_row(&c.gradients.q, 0, i, d.head_dim));
        case_free(&c);
    }
}
END_TEST

/* What the sink of every head is. */
static float the_sink;

static void set_sinks(struct test_case *c) {
    for (int64_t h = 0; h < c->desc.q_heads; h++)
        ((float *)(void *)c->sinks.data)[h] = the_sink;
}

/* Far above the scores the sink takes all mass but a little: LSE is the sink's own number, as it is
 * where nothing is seen, and yet the keys have weights and gradients. Far below it is nothing. */
START_TEST(sinks_far_from_the_scores) {
    static const float sinks[] = {12, 20, 40, 80, -20, -100, -1e4F, -INFINITY};
    for (int n = 0; n < 16; n++) {
        struct desc d = desc_plain();
        struct test_case c;
        d.seed = test_seed() + (uint64_t)n;
        d.q_heads = 2;
        d.q_len = 20;
        d.kv_len = n % 2 ? 300 : 20;
        d.causal = n % 2;
        d.sinks = true;
        the_sink = sinks[n / 2];
        backward_run(&c, _i, &d, set_sinks);
        for (int64_t i = 0; i < d.q_len; i++)
            ck_assert(is_finite_row(&c.gradients.q, 0, i, d.head_dim) &&
                      !is_zero_row(&c.gradients.q, 0, i, d.head_dim));
        case_free(&c);
    }
}
END_TEST

/* One key: its weight is 1 whatever the score, so only V learns. */
static void check_one_key(const struct test_case *c) {
    for (int64_t x = 0; x < c->desc.v_dim; x++) {
        double sum = 0;
        for (int64_t i = 0; i < c->desc.q_len; i++)
            sum += (double)*tensor_f32(&c->gradients.out, 0, 0, i, x);
        float got = *tensor_f32(&c->gradients.v, 0, 0, 0, x);
        ck_assert_double_le(fabs((double)got - sum), 1e-4);
    }
}

START_TEST(of_a_single_key_only_v_learns) {
    struct desc d = desc_plain();
    struct test_case c;
    d.kv_len = 1;
    backward_run(&c, _i, &d, NULL);
    check_one_key(&c);
    for (int64_t x = 0; x < d.head_dim; x++)
        ck_assert_float_le(fabsf(*tensor_f32(&c.gradients.k, 0, 0, 0, x)), 1e-4F);
    case_free(&c);
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("semantics_backward");
    TCase *tcase = tcase_create("rooms");
    const TTest *const tests[] = {
        rows_without_keys_get_zeros_and_may_hold_anything,
        everything_masked_gives_zeros,
        everything_masked_by_computed_scores_gives_zeros,
        no_rows_or_no_keys_give_zeros,
        large_scores_do_not_overflow,
        sinks_far_from_the_scores,
        of_a_single_key_only_v_learns,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
    add_nan_tests(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
