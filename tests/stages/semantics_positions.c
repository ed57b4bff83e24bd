/* SPDX-License-Identifier: Apache-2.0 */
/* Where queries stand and which keys they see: alignment, windows, ALiBi, lengths, heads. */
#include <math.h>

#include "semantics.h"

/* V is the identity in most of these, so that out holds the weights: key j is seen if out[j] is
 * not zero. */
static bool sees(const struct test_case *c, int64_t b, int64_t h, int64_t i, int64_t j) {
    return out_at(c, b, h, i, j) != 0;
}

static struct desc weights_visible(int64_t q_len, int64_t kv_len) {
    struct desc d = desc_plain();
    d.q_len = q_len;
    d.kv_len = d.v_dim = kv_len;
    return d;
}

static void prepare_plain(struct test_case *c) {
    make_q_zero(c);
    make_v_identity(c);
}

static void expect_causal(const struct test_case *c) {
    int64_t shift = c->desc.align == QKV_ALIGN_TOP_LEFT ? 0 : c->desc.kv_len - c->desc.q_len;
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            ck_assert(sees(c, 0, 0, i, j) == (j <= i + shift));
}

static void check_causal(int room, int32_t align) {
    static const int64_t shapes[][2] = {{5, 5}, {5, 9}, {9, 5}, {1, 9}, {60, 300}};
    for (int i = 0; i < 5; i++) {
        struct desc d = weights_visible(shapes[i][0], shapes[i][1]);
        d.causal = true;
        d.align = align;
        semantics_check(rooms_get(room), &d, prepare_plain, expect_causal);
    }
}

START_TEST(bottom_right_lets_the_last_query_see_the_last_key) {
    check_causal(_i, QKV_ALIGN_BOTTOM_RIGHT);
}
END_TEST

START_TEST(top_left_lets_the_first_query_see_the_first_key) {
    check_causal(_i, QKV_ALIGN_TOP_LEFT);
}
END_TEST

static void expect_window(const struct test_case *c) {
    const struct desc *d = &c->desc;
    for (int64_t i = 0; i < d->q_len; i++)
        for (int64_t j = 0; j < d->kv_len; j++) {
            int64_t position = i + d->kv_len - d->q_len;
            bool left = d->window_left < 0 || j >= position - d->window_left;
            bool right = d->window_right < 0 || j <= position + d->window_right;
            ck_assert(sees(c, 0, 0, i, j) == (left && right));
        }
}

START_TEST(window_includes_both_ends) {
    static const int64_t windows[][2] = {{2, 1},  {0, 0},  {-1, 0}, {0, -1},
                                         {3, -1}, {-1, 2}, {17, 16}};
    const int one_in = test_thinning();
    for (int i = test_next(-1, one_in); i < 14; i = test_next(i, one_in)) {
        struct desc d = i % 2 ? weights_visible(50, 290) : weights_visible(6, 12);
        d.window_left = windows[i / 2][0];
        d.window_right = windows[i / 2][1];
        semantics_check(rooms_get(_i), &d, prepare_plain, expect_window);
    }
}
END_TEST

static void expect_everything(const struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            ck_assert(sees(c, 0, 0, i, j));
}

START_TEST(window_may_be_as_large_as_int64) {
    struct desc d = weights_visible(6, 12);
    d.window_left = INT64_MAX;
    d.window_right = INT64_MAX;
    semantics_check(rooms_get(_i), &d, prepare_plain, expect_everything);
}
END_TEST

static void prepare_alibi(struct test_case *c) {
    prepare_plain(c);
    for (int64_t h = 0; h < c->desc.q_heads; h++)
        ((float *)(void *)c->slopes.data)[h] = 0.125F * (float)(h + 1);
}

static void expect_alibi(const struct test_case *c) {
    const struct desc *d = &c->desc;
    int64_t shift = d->align == QKV_ALIGN_TOP_LEFT ? 0 : d->kv_len - d->q_len;
    for (int64_t h = 0; h < d->q_heads; h++)
        for (int64_t i = 0; i < d->q_len; i++) {
            double slope = 0.125 * (double)(h + 1), sum = 0;
            for (int64_t j = 0; j < d->kv_len; j++)
                sum += exp(-slope * fabs((double)(i + shift - j)));
            for (int64_t j = 0; j < d->kv_len; j++)
                ck_assert(near((double)out_at(c, 0, h, i, j),
                               exp(-slope * fabs((double)(i + shift - j))) / sum));
            ck_assert(near((double)lse_at(c, 0, h, i), log(sum)));
        }
}

START_TEST(alibi_takes_slope_times_distance) {
    for (int i = 0; i < 4; i++) {
        struct desc d = i < 2 ? weights_visible(5, 9) : weights_visible(9, 290);
        d.q_heads = 2;
        d.alibi = true;
        d.align = i % 2 ? QKV_ALIGN_TOP_LEFT : QKV_ALIGN_BOTTOM_RIGHT;
        semantics_check(rooms_get(_i), &d, prepare_alibi, expect_alibi);
    }
}
END_TEST

static void prepare_bytes(struct test_case *c) {
    prepare_plain(c);
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            *tensor_bool(&c->params.mask, 0, 0, i, j) =
                (uint8_t)(j % 3 == 0 ? 0 : 0x80 >> (i + j) % 8);
}

static void expect_bytes(const struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            ck_assert(sees(c, 0, 0, i, j) == (j % 3 != 0));
}

START_TEST(boolean_mask_keeps_where_it_is_not_zero) {
    struct desc d = weights_visible(5, 40);
    d.mask = true;
    semantics_check(rooms_get(_i), &d, prepare_bytes, expect_bytes);
}
END_TEST

/* Three sequences with 2, 0 and 5 of 5 queries and 4, 7 and 1 of 7 keys. */
static const int32_t some_queries[] = {2, 0, 5}, some_keys[] = {4, 7, 1};

static void prepare_lengths(struct test_case *c) {
    int32_t *q_lens = (int32_t *)(void *)c->q_lens.data;
    int32_t *kv_lens = (int32_t *)(void *)c->kv_lens.data;
    for (int b = 0; b < 3; b++) {
        q_lens[b] = some_queries[b];
        kv_lens[b] = some_keys[b];
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            set_row(tensor_f32(&c->tensors.k, b, 0, j, 0), c->desc.head_dim, 1);
    }
    prepare_plain(c);
}

static void expect_lengths(const struct test_case *c) {
    for (int64_t b = 0; b < 3; b++)
        for (int64_t i = 0; i < c->desc.q_len; i++) {
            int64_t last = i + some_keys[b] - some_queries[b];
            for (int64_t j = 0; j < c->desc.kv_len; j++)
                ck_assert(sees(c, b, 0, i, j) ==
                          (i < some_queries[b] && j < some_keys[b] && j <= last));
            if (i >= some_queries[b])
                ck_assert_float_eq(lse_at(c, b, 0, i), -INFINITY);
        }
}

START_TEST(positions_use_the_lengths_of_the_sequence) {
    struct desc d = weights_visible(5, 7);
    d.batch = 3;
    d.causal = true;
    d.q_lengths = d.kv_lengths = LENGTHS_PADDED;
    semantics_check(rooms_get(_i), &d, prepare_lengths, expect_lengths);
}
END_TEST

START_TEST(rows_beyond_the_length_are_masked_without_sink) {
    struct desc d = weights_visible(5, 7);
    d.batch = 3;
    d.sinks = true;
    d.causal = true;
    d.q_lengths = d.kv_lengths = LENGTHS_PADDED;
    semantics_check(rooms_get(_i), &d, prepare_lengths, expect_lengths);
}
END_TEST

static void prepare_heads(struct test_case *c) {
    make_q_zero(c);
    for (int64_t h = 0; h < c->desc.kv_heads; h++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            set_row(v_at(c, h, j, 0), c->desc.v_dim, (float)h);
}

static void expect_heads(const struct test_case *c) {
    for (int64_t h = 0; h < c->desc.q_heads; h++)
        ck_assert(near((double)out_at(c, 0, h, 0, 0), (double)(h / 3)));
}

START_TEST(query_heads_share_a_key_head_in_groups) {
    struct desc d = desc_plain();
    d.q_heads = 12;
    d.kv_heads = 4;
    semantics_check(rooms_get(_i), &d, prepare_heads, expect_heads);
}
END_TEST

void add_position_tests(TCase *tcase) {
    const TTest *const tests[] = {
        bottom_right_lets_the_last_query_see_the_last_key,
        top_left_lets_the_first_query_see_the_first_key,
        window_includes_both_ends,
        window_may_be_as_large_as_int64,
        alibi_takes_slope_times_distance,
        boolean_mask_keeps_where_it_is_not_zero,
        positions_use_the_lengths_of_the_sequence,
        rows_beyond_the_length_are_masked_without_sink,
        query_heads_share_a_key_head_in_groups,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
