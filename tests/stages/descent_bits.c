/* SPDX-License-Identifier: Apache-2.0 */
/* The bits of descent: those of W - rate g as C has it, and of every number those that it has
 * alone, at any size and place between guard pages, by any threads and parts. */
#include <math.h>
#include <string.h>

#include "descent_case.h"
#include "slice.h"
#include "support/rng.h"
#include "support/rooms.h"

enum { CHUNK = 16384 };

static bool is_scalar(const struct room *room) {
    return strcmp(room->name, "scalar") == 0;
}

static float expression(const struct room *room, float w, float rate, float g) {
    volatile float product = rate * g;
    return is_scalar(room) ? w - product : fmaf(-rate, g, w);
}

/* Ordinary numbers, and some of each kind that is not. */
static float wild(uint64_t hash) {
    static const float odd[] = {0.0f,      -0.0f,      INFINITY, -INFINITY, NAN,
                                0x1p-149f, -0x1p-130f, 0x1p127f, -0x1p127f, 0x1p-126f};
    if (hash % 4)
        return rng_normal(hash);
    return odd[hash / 4 % (sizeof odd / sizeof *odd)];
}

START_TEST(plain_descent_has_the_bits_of_the_expression) {
    const struct room *room = rooms_get(_i);
    const float rates[] = {1e-3f, 0.1f, 1.0f, 3.0f, 1e30f, 1e-38f};
    for (int r = 0; r < 6; r++) {
        struct rule rule = rules[0];
        rule.rate = rates[r];
        struct arrays a = arrays_make(1, &rule, 2000, GUARD_END, 0);
        float before[2000];
        const qkv_descent_params p = params_of(&rule, 2000, 1 + r);
        for (int i = 0; i < 2000; i++) {
            numbers(&a, G)[i] = wild(rng_hash(test_seed(), (uint64_t)(i + 2000 * r)));
            before[i] = numbers(&a, W)[i] = wild(rng_hash(test_seed() + 1, (uint64_t)i));
        }
        require(descend(&room->context, &p, &a.view, plainly));
        for (int i = 0; i < 2000; i++) {
            const float g = numbers(&a, G)[i], want = expression(room, before[i], rule.rate, g);
            ck_assert_msg(same_bits(numbers(&a, W)[i], want), "%a - %a * %a is %a, not %a",
                          (double)before[i], (double)rule.rate, (double)g,
                          (double)numbers(&a, W)[i], (double)want);
        }
        arrays_free(&a);
    }
}
END_TEST

/* What number i of an array becomes if it is an array of its own. */
static void alone(const qkv_context *context, const struct rule *rule, uint64_t seed, int64_t i,
                  float out[ARRAYS]) {
    const qkv_descent_params p = params_of(rule, 1, 3);
    qkv_descent_arrays view;
    for (int which = 0; which < ARRAYS; which++)
        out[which] = value_of(seed, which, i);
    qkv_descent_arrays_init(&view);
    view.weights = &out[W];
    view.gradient = &out[G];
    view.mean = &out[M];
    view.square = &out[V];
    qkv_exec exec;
    qkv_exec_init(&exec);
    exec.context = context;
    if (qkv_descent(&p, &view, &exec) != QKV_OK)
        ck_abort_msg("%s alone", rule->name);
}

/* Every number of an array, or of a long one some, is what it would be alone. */
static void assert_each_as_alone(const struct room *room, const struct rule *rule, int64_t count,
                                 enum guard_side side, int offset, struct how how) {
    const uint64_t seed = test_seed() + (uint64_t)count;
    const qkv_descent_params p = params_of(rule, count, 3);
    struct arrays a = arrays_make(seed, rule, count, side, offset);
    require(descend(&room->context, &p, &a.view, how));
    assert_intact(&a, rule, seed, count);
    for (int64_t i = 0; i < count; i++) {
        float want[ARRAYS];
        if (count > 200 && i % 97 && i % CHUNK > 2 && i % CHUNK < CHUNK - 3 && count - i > 70)
            continue;
        alone(&room->context, rule, seed, i, want);
        for (int which = 0; which < ARRAYS; which++)
            if (!same_bits(numbers(&a, which)[i], want[which]))
                ck_abort_msg("%s: number %lld of %lld of array %d is %a, alone %a", rule->name,
                             (long long)i, (long long)count, which, (double)numbers(&a, which)[i],
                             (double)want[which]);
    }
    arrays_free(&a);
}

START_TEST(any_size_at_any_place) {
    const struct room *room = rooms_get(_i);
    for (int r = 0; r < RULES; r++)
        for (int64_t count = 0; count <= 70; count++) {
            assert_each_as_alone(room, &rules[r], count, GUARD_END, 0, plainly);
            assert_each_as_alone(room, &rules[r], count, GUARD_BEGIN, (int)count, plainly);
        }
}
END_TEST

START_TEST(sizes_around_chunks_by_any_threads_and_parts) {
    static const int64_t counts[] = {CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17};
    const struct room *room = rooms_get(_i);
    for (int c = 0; c < 4; c++)
        for (int way = 0; way < WAY_COUNT; way++)
            for (int r = (c + way) % 2; r < RULES; r += 2)
                assert_each_as_alone(room, &rules[r], counts[c], GUARD_END, way,
                                     (struct how){(enum way)way, 2 + way % 2, (uint64_t)way});
}
END_TEST

void descent_add_bits_tests(TCase *tcase) {
    const TTest *const tests[] = {
        plain_descent_has_the_bits_of_the_expression,
        any_size_at_any_place,
        sizes_around_chunks_by_any_threads_and_parts,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
