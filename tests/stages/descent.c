/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient descent: a thousand steps beside double precision, kernels broken on purpose, NaN and
 * infinities, and clipping. */
#include <math.h>
#include <string.h>

#include "context.h"
#include "descent_case.h"
#include "ref/descent.h"
#include "support/compare.h"
#include "support/rng.h"
#include "support/rooms.h"

enum { STEPS = 1000, NUMBERS = 53, PATIENCE = 600 };

/* ---- Beside double precision ---- */

static float gradient_at(int64_t step, int64_t i) {
    const float size = i % 5 == 0 ? 1e-6f : i % 5 == 1 ? 100.0f : 1.0f;
    const float x = rng_normal(rng_hash(test_seed() + 31 * (uint64_t)step, (uint64_t)i));
    return size * (x + 0.5f); /* it leans to one side, so that the weights go somewhere */
}

static struct verdict compare_number(const char *what, float got, const struct ref_value *want) {
    const char *fault = compare_value(got, want);
    if (!fault)
        return verdict_ok();
    return verdict_fail("%s = %.9g %s: reference %.9g +- %.3g", what, (double)got, fault,
                        want->value, want->bound);
}

/* All numbers after one step. */
static struct verdict compare_step(const struct arrays *a, const struct rule *rule,
                                   const struct ref_descent *want) {
    struct verdict verdict = verdict_ok();
    for (int i = 0; i < NUMBERS && verdict.ok; i++) {
        verdict = compare_number("W", numbers(a, W)[i], &want[i].w);
        if (verdict.ok && has_mean(rule))
            verdict = compare_number("M", numbers(a, M)[i], &want[i].m);
        if (verdict.ok && has_square(rule))
            verdict = compare_number("V", numbers(a, V)[i], &want[i].v);
        verdict_add(&verdict, "number %d", i);
    }
    return verdict;
}

static struct verdict follow(const qkv_context *context, const struct rule *rule) {
    struct arrays a = arrays_make(test_seed(), rule, NUMBERS, GUARD_END, 0);
    struct ref_descent want[NUMBERS];
    struct verdict verdict = verdict_ok();
    memset(want, 0, sizeof want);
    for (int i = 0; i < NUMBERS; i++)
        want[i].w.value = (double)numbers(&a, W)[i];
    for (int64_t step = 1; step <= STEPS && verdict.ok; step++) {
        const qkv_descent_params p = params_of(rule, NUMBERS, step);
        for (int i = 0; i < NUMBERS; i++) {
            numbers(&a, G)[i] = gradient_at(step, i);
            ref_descend(&want[i], &p, gradient_at(step, i));
        }
        verdict = descend(context, &p, &a.view, plainly);
        if (verdict.ok)
            verdict = compare_step(&a, rule, want);
        verdict_add(&verdict, "%s, step %lld", rule->name, (long long)step);
    }
    /* A bound that has grown to the size of the weights would prove nothing. */
    for (int i = 0; i < NUMBERS && verdict.ok; i++)
        if (want[i].w.bound > 1e-3 * (1.0 + fabs(want[i].w.value)))
            verdict = verdict_fail("%s: the bound is %g", rule->name, want[i].w.bound);
    arrays_free(&a);
    return verdict;
}

START_TEST(a_thousand_steps_beside_double_precision) {
    for (int r = 0; r < RULES; r++)
        require(follow(&rooms_get(_i)->context, &rules[r]));
}
END_TEST

/* ---- Kernels broken on purpose, which the thousand steps must find ---- */

static struct qkv_descent_kernels own;

static void forgets_the_last(const struct qkv_descend *d) {
    struct qkv_descend less = *d;
    less.n--;
    own.plain(&less);
}

static void keeps_too_much(const struct qkv_descend *d) {
    struct qkv_descend wrong = *d;
    wrong.keep1 *= 1 + 0x1p-12F;
    own.momentum(&wrong);
}

static void forgets_the_correction(const struct qkv_descend *d) {
    struct qkv_descend wrong = *d;
    wrong.root = 1;
    own.adamw(&wrong);
}

static void starts_from_what_is_there(const struct qkv_descend *d) {
    struct qkv_descend wrong = *d;
    wrong.first = 0;
    own.adamw(&wrong);
}

START_TEST(broken_kernels_are_found) {
    const struct {
        int rule;
        struct qkv_descent_kernels kernels;
    } mutants[] = {
        {0, {.plain = forgets_the_last}},
        {3, {.momentum = keeps_too_much}},
        {5, {.adamw = forgets_the_correction}},
        {5, {.adamw = starts_from_what_is_there}},
    };
    for (int m = 0; m < 4; m++) {
        qkv_context context = rooms_get(_i)->context;
        struct qkv_context_state *state = (struct qkv_context_state *)context.state;
        own = *state->table.descent;
        state->table.descent = &mutants[m].kernels;
        ck_assert_msg(!follow(&context, &rules[mutants[m].rule]).ok, "mutant %d survived", m);
    }
}
END_TEST

/* ---- What the documentation says ---- */

/* At the first step the means are taken for zero, whatever is there. */
START_TEST(the_first_step_reads_no_mean) {
    for (int r = 0; r < RULES; r++) {
        const qkv_descent_params p = params_of(&rules[r], NUMBERS, 1);
        struct arrays zero = arrays_make(7, &rules[r], NUMBERS, GUARD_END, 0);
        struct arrays junk = arrays_make(7, &rules[r], NUMBERS, GUARD_END, 0);
        for (int i = 0; i < NUMBERS; i++) {
            numbers(&zero, M)[i] = numbers(&zero, V)[i] = 0.0f;
            numbers(&junk, M)[i] = numbers(&junk, V)[i] = NAN;
        }
        require(descend(&rooms_get(_i)->context, &p, &zero.view, plainly));
        require(descend(&rooms_get(_i)->context, &p, &junk.view, plainly));
        ck_assert_mem_eq(numbers(&zero, W), numbers(&junk, W), NUMBERS * sizeof(float));
        arrays_free(&zero);
        arrays_free(&junk);
    }
}
END_TEST

/* A NaN or an infinity goes to its own weight and to no other; a zero gradient of AdamW is no 0 /
 * 0. */
START_TEST(what_is_not_finite_stays_where_it_is) {
    for (int r = 0; r < RULES; r++) {
        const qkv_descent_params p = params_of(&rules[r], NUMBERS, 1);
        struct arrays a = arrays_make(9, &rules[r], NUMBERS, GUARD_END, 0);
        for (int i = 0; i < NUMBERS; i++)
            numbers(&a, G)[i] = i % 7 == 3 ? NAN : i % 7 == 5 ? INFINITY : 0.0f;
        require(descend(&rooms_get(_i)->context, &p, &a.view, plainly));
        for (int i = 0; i < NUMBERS; i++)
            ck_assert_msg(isfinite(numbers(&a, W)[i]) == (i % 7 != 3 && i % 7 != 5),
                          "%s: W[%d] is %g", rules[r].name, i, (double)numbers(&a, W)[i]);
        arrays_free(&a);
    }
}
END_TEST

/* ---- Clipping ---- */

START_TEST(the_sum_of_squares_in_double_precision) {
    static const int64_t counts[] = {0, 1, 7, 8, 15, 16, 17, 31, 33, 63, 65, 100, 1000, 50001};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        const int64_t n = counts[c];
        struct guard memory = guard_alloc((size_t)n * sizeof(float), sizeof(float), GUARD_END, 0);
        float *x = (float *)memory.data;
        long double want = 3.5L;
        double sum = 3.5;
        for (int64_t i = 0; i < n; i++) {
            x[i] = value_of(test_seed(), W, i) * (i % 3 ? 1.0f : 1e15f);
            want += (long double)x[i] * (long double)x[i];
        }
        ck_assert_int_eq(qkv_sum_squares(&sum, x, n, &rooms_get(_i)->context), QKV_OK);
        ck_assert_msg(fabsl((long double)sum - want) <= (long double)n * 0x1p-53L * want,
                      "%lld numbers: %.17g, not %.17Lg", (long long)n, sum, want);
        guard_free(&memory);
    }
}
END_TEST

START_TEST(a_sum_tells_what_is_not_finite) {
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 3; k++)
        for (int at = 0; at < 70; at++) {
            float x[70] = {0};
            double sum = 0.0;
            x[at] = odd[k];
            ck_assert_int_eq(qkv_sum_squares(&sum, x, 70, &rooms_get(_i)->context), QKV_OK);
            ck_assert(!isfinite(sum));
            ck_assert(isnan(qkv_clip_scale(sum, 1.0f)));
        }
}
END_TEST

START_TEST(the_scale_that_clips) {
    struct rng rng = rng_seeded(test_seed());
    ck_assert(qkv_clip_scale(0.0, 1.0f) == 1.0f);
    ck_assert(qkv_clip_scale(0.0, 0.0f) == 1.0f);
    ck_assert(qkv_clip_scale(4.0, 2.0f) == 1.0f);
    ck_assert(qkv_clip_scale(16.0, 2.0f) == 0.5f);
    ck_assert(qkv_clip_scale(16.0, INFINITY) == 1.0f);
    ck_assert(qkv_clip_scale(16.0, 0.0f) == 0.0f);
    ck_assert(isnan(qkv_clip_scale(16.0, NAN)));
    ck_assert(isnan(qkv_clip_scale(16.0, -1.0f)));
    ck_assert(isnan(qkv_clip_scale(-1.0, 1.0f)));
    ck_assert(isnan(qkv_clip_scale(NAN, 1.0f)));
    ck_assert(isnan(qkv_clip_scale(INFINITY, 1.0f)));
    for (int i = 0; i < 10000; i++) {
        const double norm = 1.0 + (double)rng_below(&rng, 1 << 30) / 1e4;
        const float most = (float)(1 + rng_below(&rng, 1000)) / 1e3f;
        const double clipped = (double)qkv_clip_scale(norm * norm, most) * norm;
        ck_assert_msg(clipped <= (double)most * (1 + 0x1p-50) &&
                          clipped >= (double)most * (1.0 - 0x1p-22),
                      "%g clipped to %g is %.17g", norm, (double)most, clipped);
    }
}
END_TEST

static Suite *make(void) {
    const TTest *const room_tests[] = {
        a_thousand_steps_beside_double_precision,
        broken_kernels_are_found,
        the_first_step_reads_no_mean,
        what_is_not_finite_stays_where_it_is,
        the_sum_of_squares_in_double_precision,
        a_sum_tells_what_is_not_finite,
    };
    Suite *suite = suite_create("descent");
    TCase *tcase = tcase_create("rooms");
    tcase_set_timeout(tcase, PATIENCE);
    tcase_add_room_tests(tcase, room_tests, sizeof room_tests / sizeof *room_tests);
    descent_add_bits_tests(tcase);
    tcase_add_test(tcase, the_scale_that_clips);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
