/* SPDX-License-Identifier: Apache-2.0 */
/* NaN and infinities in the inputs of the backward attention: what nobody sees may hold anything,
 * and what is seen reaches what it must and nothing else. The reference decides which gradients are
 * numbers; the bits decide whether the others were touched. */
#include <math.h>
#include <string.h>

#include "semantics_backward.h"

/* ---- Keys that nobody sees ---- */

/* The key that a mask hides from every query, and what it holds. */
static int64_t hidden_key;
static float hidden_value;

static void cut_length(struct test_case *c) {
    *(int32_t *)(void *)c->kv_lens.data = (int32_t)hidden_key;
    for (int64_t j = 0; j < hidden_key; j++) {
        fill_row(&c->tensors.k, 0, j, c->desc.head_dim, 0.25F * (float)(j % 7));
        fill_row(&c->tensors.v, 0, j, c->desc.v_dim, 0.5F * (float)(j % 5));
    }
}

static void spoil_hidden_key(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++) {
        if (c->desc.mask)
            *tensor_bool(&c->params.mask, 0, 0, i, hidden_key) = 0;
        if (c->desc.bias)
            *tensor_f32(&c->params.bias, 0, 0, i, hidden_key) = -INFINITY;
    }
    if (c->desc.kv_lengths == LENGTHS_PADDED)
        cut_length(c);
    fill_row(&c->tensors.k, 0, hidden_key, c->desc.head_dim, hidden_value);
    fill_row(&c->tensors.v, 0, hidden_key, c->desc.v_dim, hidden_value);
}

/* All gradients must have the bits that they have when the key holds an ordinary number. */
static void check_hidden(int room, const struct desc *d) {
    static const float values[] = {NAN, INFINITY, -INFINITY};
    struct test_case plain, spoiled;
    hidden_value = 0.5F;
    backward_run(&plain, room, d, spoil_hidden_key);
    ck_assert(is_zero_row(&plain.gradients.k, 0, hidden_key, d->head_dim));
    ck_assert(is_zero_row(&plain.gradients.v, 0, hidden_key, d->v_dim));
    for (int v = 0; v < 3; v++) {
        hidden_value = values[v];
        backward_run(&spoiled, room, d, spoil_hidden_key);
        for (int role = ROLE_D_Q; role <= ROLE_D_V; role++)
            ck_assert_msg(memcmp(plain.tensor[role].memory.data, spoiled.tensor[role].memory.data,
                                 plain.tensor[role].memory.size) == 0,
                          "%s, key %d of %d, %f", role_names[role], (int)hidden_key, (int)d->kv_len,
                          (double)hidden_value);
        case_free(&spoiled);
    }
    case_free(&plain);
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

START_TEST(keys_that_nobody_sees_get_zeros_and_may_hold_anything) {
    static void (*const means[])(struct desc *) = {by_mask,   by_bias,        by_length,
                                                   by_causal, by_window_left, by_window_right};
    static const int64_t keys[][2] = {{20, 21}, {3, 21}, {299, 300}, {260, 300}, {1090, 1100}};
    for (int m = 0; m < 6; m++)
        for (int i = 0; i < 5; i++) {
            struct desc d = desc_plain();
            d.kv_len = keys[i][1];
            d.head_dim = d.v_dim = i % 2 ? 16 : 8; /* V in whole panels may be used in place */
            hidden_key = keys[i][0];
            means[m](&d);
            check_hidden(_i, &d);
        }
}
END_TEST

/* ---- A NaN that somebody sees ---- */

/* Row `spoiled_row` of one input holds a value, in one column or in all. */
static enum role spoiled_role;
static int64_t spoiled_row;
static float spoiled_value;
static bool whole_row;

static void spoil_one_row(struct test_case *c) {
    const qkv_tensor *x =
        spoiled_role == ROLE_D_OUT ? &c->gradients.out : case_view(&c->tensors, spoiled_role);
    int64_t n = spoiled_role == ROLE_Q || spoiled_role == ROLE_K ? c->desc.head_dim : c->desc.v_dim;
    fill_row(x, 0, spoiled_row, whole_row ? n : 1, spoiled_value);
}

/* Causal from the top left: query i sees the keys up to i. The reference says which gradients of
 * the rest are numbers, and rows that have nothing to do with the spoiled one keep their bits. */
static void check_seen(int room, const struct desc *d, enum role role, int64_t row) {
    static const float values[] = {NAN, INFINITY, -INFINITY};
    struct test_case plain, c;
    spoiled_role = role;
    spoiled_row = row;
    backward_run(&plain, room, d, NULL);
    for (int n = 0; n < 6; n += test_thinning()) {
        spoiled_value = values[n % 3];
        whole_row = n / 3;
        backward_run(&c, room, d, spoil_one_row);
        bool of_query = role == ROLE_Q || role == ROLE_D_OUT;
        for (int64_t i = 0; i < d->q_len; i++)
            if (of_query ? i != row : i < row)
                ck_assert_msg(is_same_row(&plain.gradients.q, &c.gradients.q, i, d->head_dim),
                              "dq row %d changed: %s row %d holds %f", (int)i, role_names[role],
                              (int)row, (double)spoiled_value);
        for (int64_t j = of_query ? row + 1 : d->kv_len; j < d->kv_len; j++)
            ck_assert_msg(is_same_row(&plain.gradients.k, &c.gradients.k, j, d->head_dim) &&
                              is_same_row(&plain.gradients.v, &c.gradients.v, j, d->v_dim),
                          "dk or dv of key %d changed: %s row %d holds %f", (int)j,
                          role_names[role], (int)row, (double)spoiled_value);
        ck_assert(!isnan(spoiled_value) ||
                  !is_finite_row(of_query ? &c.gradients.q : &c.gradients.k, 0, row, d->head_dim));
        case_free(&c);
    }
    case_free(&plain);
}

START_TEST(a_nan_reaches_what_sees_it_and_no_other) {
    static const enum role roles[] = {ROLE_Q, ROLE_K, ROLE_V, ROLE_D_OUT};
    static const int64_t lengths[] = {7, 21, 130, 300};
    const int step = test_stride() > 1 ? 3 : 1; /* a short run: the shortest and the longest */
    for (int n = 0; n < 4; n += step)
        for (int r = 0; r < 4; r++) {
            struct desc d = desc_plain();
            d.q_len = d.kv_len = lengths[n];
            d.head_dim = d.v_dim = n % 2 ? 16 : 11;
            d.causal = true;
            d.align = QKV_ALIGN_TOP_LEFT;
            check_seen(_i, &d, roles[r], 4);
            check_seen(_i, &d, roles[r], lengths[n] - 2);
        }
}
END_TEST

/* With a boolean mask the pairs that count lie anywhere; the reference alone judges. */
START_TEST(a_nan_among_masked_pairs) {
    static const enum role roles[] = {ROLE_Q, ROLE_K, ROLE_V, ROLE_D_OUT};
    const int one_in = test_stride() > 1 ? 2 + test_thinning() : 1;
    for (int n = test_next(-1, one_in); n < 32; n = test_next(n, one_in)) {
        struct desc d = desc_plain();
        struct test_case c;
        d.seed = test_seed() + (uint64_t)n;
        d.q_len = d.kv_len = n % 2 ? 40 : 300;
        d.mask = n % 4 < 3;
        d.bias = d.bias_cuts = n % 4 > 1;
        spoiled_role = roles[n / 4 % 4];
        spoiled_row = 17 + n % 20;
        spoiled_value = n % 3 ? NAN : INFINITY;
        whole_row = n / 16;
        backward_run(&c, _i, &d, spoil_one_row);
        case_free(&c);
    }
}
END_TEST

void add_nan_tests(TCase *tcase) {
    const TTest *const tests[] = {
        keys_that_nobody_sees_get_zeros_and_may_hold_anything,
        a_nan_reaches_what_sees_it_and_no_other,
        a_nan_among_masked_pairs,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
