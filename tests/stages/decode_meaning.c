/* SPDX-License-Identifier: Apache-2.0 */
/* What the options mean with a cache: tokens that nobody sees may hold anything, sequences may be
 * empty, and a draft's tree is a mask. One named test each. */
#include <math.h>
#include <string.h>

#include "decode_suite.h"
#include "stage.h"
#include "support/cached.h"

static void assert_ok(struct verdict *verdict, const struct cached_desc *d) {
    cached_explain(d, verdict);
    stage_assert(verdict);
}

/* Makes and runs a case. */
static void run(struct cached *x, const struct cached_desc *d, int room) {
    const qkv_context *context = &rooms_get(room)->context;
    struct verdict verdict = cached_make(x, d, context);
    assert_ok(&verdict, d);
    const struct call call = cached_call(x, context);
    verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    assert_ok(&verdict, d);
}

static void set_row(float *row, int64_t n, float value) {
    for (int64_t i = 0; i < n; i++)
        row[i] = value;
}

static bool row_is_zero(const struct test_case *c, int64_t b, int64_t h, int64_t i) {
    for (int64_t x = 0; x < c->desc.v_dim; x++)
        if (*tensor_f32(&c->tensors.out, b, h, i, x) != 0)
            return false;
    return true;
}

/* ---- Rows without keys ---- */

static void assert_blind(const struct test_case *c, int64_t b) {
    for (int64_t h = 0; h < c->desc.q_heads; h++)
        for (int64_t i = 0; i < c->desc.q_len; i++) {
            const float lse = *tensor_f32(&c->tensors.lse, b, h, i, 0);
            ck_assert(row_is_zero(c, b, h, i));
            ck_assert_float_eq(lse, c->desc.sinks ? c->params.sinks[h] : -INFINITY);
        }
}

static void no_keys_for_two(struct test_case *c) {
    int32_t *lens = (int32_t *)(void *)c->kv_lens.data;
    lens[0] = lens[2] = 0;
    lens[1] = (int32_t)c->desc.kv_len;
}

/* Empty sequences among others: empty in the cache, or by kv_lens. */
START_TEST(empty_sequences) {
    for (int i = 0; i < 16; i++) {
        struct desc desc = desc_plain();
        desc.batch = 3;
        desc.q_heads = 2;
        desc.q_len = i & 1 ? 1 : 9;
        desc.kv_len = i & 2 ? 40 : 1100;
        desc.kv_lengths = LENGTHS_PADDED;
        desc.sinks = i & 4;
        struct cached_desc d = cached_plain(&desc);
        d.lens = i & 8;
        cached_set_pair(&d, i);
        d.prepare = no_keys_for_two;
        struct verdict verdict = check_cached(&rooms_get(_i)->context, &d);
        stage_assert(&verdict);
        struct cached x;
        run(&x, &d, _i);
        assert_blind(&x.c, 0);
        assert_blind(&x.c, 2);
        cached_free(&x);
    }
}
END_TEST

START_TEST(a_cache_without_a_token) {
    for (int pair = 0; pair < CACHED_PAIRS; pair++) {
        struct desc desc = desc_plain();
        desc.q_len = pair % 2 ? 1 : 17;
        desc.kv_len = 0;
        desc.sinks = pair % 4 == 2;
        struct cached_desc d = cached_plain(&desc);
        cached_set_pair(&d, pair);
        struct cached x;
        run(&x, &d, _i);
        assert_blind(&x.c, 0);
        cached_free(&x);
    }
}
END_TEST

static void hide_all(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            *tensor_bool(&c->params.mask, 0, 0, i, j) = 0;
}

START_TEST(everything_masked) {
    for (int i = 0; i < 8; i++) {
        struct desc desc = desc_plain();
        desc.mask = true;
        desc.q_len = i & 1 ? 1 : 14;
        desc.kv_len = i & 2 ? 21 : 1050;
        desc.sinks = i & 4;
        struct cached_desc d = cached_plain(&desc);
        cached_set_pair(&d, 5 * (i / 2));
        d.prepare = hide_all;
        struct cached x;
        run(&x, &d, _i);
        assert_blind(&x.c, 0);
        cached_free(&x);
    }
}
END_TEST

/* ---- What a masked token holds ---- */

static int64_t hidden_key;
static float hidden_value;

static void spoil_hidden_key(struct test_case *c) {
    for (int64_t i = 0; i < c->desc.q_len; i++) {
        if (c->desc.mask)
            *tensor_bool(&c->params.mask, 0, 0, i, hidden_key) = 0;
        if (c->desc.bias)
            *tensor_f32(&c->params.bias, 0, 0, i, hidden_key) = -INFINITY;
    }
    if (c->desc.kv_lengths == LENGTHS_PADDED)
        *(int32_t *)(void *)c->kv_lens.data = (int32_t)hidden_key;
    for (int64_t j = 0; j < c->desc.kv_len; j++) {
        const float value = j == hidden_key ? hidden_value : 0.25F * (float)(j % 7);
        set_row(tensor_f32(&c->tensors.k, 0, 0, j, 0), c->desc.head_dim, value);
        set_row(tensor_f32(&c->tensors.v, 0, 0, j, 0), c->desc.v_dim, value);
    }
}

/* The rows must have the bits that they have when the token holds ordinary numbers. */
static void check_hidden(int room, const struct desc *desc, int dtype) {
    static const float values[] = {NAN, INFINITY, -INFINITY};
    struct cached plain, spoiled;
    struct cached_desc d = cached_plain(desc);
    cached_set_pair(&d, (CACHED_DTYPES + 1) * dtype);
    d.prepare = spoil_hidden_key;
    hidden_value = 0.5F;
    run(&plain, &d, room);
    for (int v = 0; v < 3; v++) {
        hidden_value = values[v];
        run(&spoiled, &d, room);
        struct verdict verdict = cached_same_bits(&plain.c, &spoiled.c);
        verdict_add(&verdict, "key %d of %d holds %f", (int)hidden_key, (int)desc->kv_len,
                    (double)hidden_value);
        assert_ok(&verdict, &d);
        cached_free(&spoiled);
    }
    cached_free(&plain);
}

static void by_mask(struct desc *d) {
    d->mask = true;
    d->layout[ROLE_MASK].zero = 2; /* the same for both heads */
}

static void by_bias(struct desc *d) {
    d->bias = true;
    d->layout[ROLE_BIAS].zero = 2;
}

static void by_length(struct desc *d) {
    d->kv_lengths = LENGTHS_PADDED;
}

static void by_causal(struct desc *d) {
    d->causal = true;
    d->align = QKV_ALIGN_TOP_LEFT;
    hidden_key = d->q_len + 2;
}

static void by_window(struct desc *d) {
    d->window_left = 1;
    hidden_key = d->kv_len - d->q_len - 3;
}

/* Of float32 and half-width types the mark on the weight keeps it out, of int8 that on the scaled
 * weight. */
START_TEST(a_masked_token_may_hold_anything) {
    static void (*const means[])(struct desc *) = {by_mask, by_bias, by_length, by_causal,
                                                   by_window};
    static const int64_t keys[][2] = {{20, 21}, {3, 40}, {260, 300}, {1090, 1100}};
    const int one_in = test_stride() < 5 ? 1 : 7;
    for (int i = test_next(-1, one_in); i < 5 * 4 * CACHED_DTYPES; i = test_next(i, one_in)) {
        struct desc desc = desc_plain();
        desc.q_heads = 2;
        desc.q_len = i / 4 % 2 ? 1 : 11;
        desc.kv_len = keys[i % 4][1];
        hidden_key = keys[i % 4][0];
        means[i / 4 % 5](&desc);
        check_hidden(_i, &desc, i / 20);
    }
}
END_TEST

/* ---- A draft ---- */

enum { DRAFT = 7, SPOILED_NODE = 1 };

static bool descends(int64_t node, int64_t from) {
    while (node > from)
        node = (node - 1) / 2;
    return node == from;
}

/* The last tokens are a binary tree of guesses, of which each sees the prompt, its ancestors and
 * itself. */
static void plant_tree(struct test_case *c) {
    const int64_t prompt = c->desc.kv_len - DRAFT;
    for (int64_t i = 0; i < DRAFT; i++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            *tensor_bool(&c->params.mask, 0, 0, i, j) = j < prompt || descends(i, j - prompt);
}

static void plant_spoiled_tree(struct test_case *c) {
    const int64_t at = c->desc.kv_len - DRAFT + SPOILED_NODE;
    plant_tree(c);
    set_row(tensor_f32(&c->tensors.k, 0, 0, at, 0), c->desc.head_dim, NAN);
    set_row(tensor_f32(&c->tensors.v, 0, 0, at, 0), c->desc.v_dim, NAN);
}

/* A guess that is NaN spoils those that build on it, and leaves the bits of the others. */
static void check_tree(const struct cached *tree, const struct cached *spoiled) {
    const size_t size = (size_t)tree->c.desc.v_dim * sizeof(float);
    for (int64_t h = 0; h < tree->c.desc.q_heads; h++)
        for (int64_t i = 0; i < DRAFT; i++) {
            const float *a = tensor_f32(&tree->c.tensors.out, 0, h, i, 0);
            const float *b = tensor_f32(&spoiled->c.tensors.out, 0, h, i, 0);
            if (descends(i, SPOILED_NODE))
                ck_assert_float_nan(b[0]);
            else
                ck_assert_mem_eq(a, b, size);
        }
}

START_TEST(a_tree_of_guesses) {
    static const int64_t prompts[] = {0, 9, 250, 1020};
    for (int i = 0; i < 4 * CACHED_DTYPES; i++) {
        struct desc desc = desc_plain();
        desc.q_heads = i % 2 ? 4 : 1;
        desc.q_len = DRAFT;
        desc.kv_len = prompts[i % 4] + DRAFT;
        desc.mask = true;
        desc.layout[ROLE_MASK].zero = 3;
        struct cached_desc d = cached_plain(&desc);
        cached_set_pair(&d, (CACHED_DTYPES + 1) * (i / 4));
        d.prepare = plant_tree;
        struct verdict verdict = check_cached(&rooms_get(_i)->context, &d);
        stage_assert(&verdict);
        struct cached tree, spoiled;
        run(&tree, &d, _i);
        d.prepare = plant_spoiled_tree;
        run(&spoiled, &d, _i);
        check_tree(&tree, &spoiled);
        cached_free(&tree);
        cached_free(&spoiled);
    }
}
END_TEST

void decode_add_meaning_tests(TCase *tcase) {
    const TTest *const tests[] = {
        empty_sequences,   a_cache_without_a_token,
        everything_masked, a_masked_token_may_hold_anything,
        a_tree_of_guesses,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
