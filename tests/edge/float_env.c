/* SPDX-License-Identifier: Apache-2.0 */
/* The floating-point environment: left as it was found, and right under the default rounding
 * whether denormals are flushed (FTZ and DAZ; FZ on Arm) or not. */
#include <fenv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/rooms.h"
#include "work.h"

/* The control bits, without the exceptions that have been seen: computing raises those. */
#if defined(__x86_64__)
#include <xmmintrin.h>

#define FLUSH 0x8040u /* FTZ and DAZ */

static unsigned long long control_word(void) {
    unsigned short x87;
    __asm__ volatile("fnstcw %0" : "=m"(x87));
    return (unsigned long long)x87 << 32 | (_mm_getcsr() & ~0x3fu);
}

static void set_flushing(int on) {
    _mm_setcsr((_mm_getcsr() & ~FLUSH) | (on ? FLUSH : 0));
}
#elif defined(__aarch64__)
#define FLUSH (1ull << 24) /* FZ */

static unsigned long long control_word(void) {
    unsigned long long fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
}

static void set_flushing(int on) {
    unsigned long long fpcr = (control_word() & ~FLUSH) | (on ? FLUSH : 0);
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
}
#endif

/* Whatever the controls are, a call leaves them alone. */
static void run(const struct job *job, const qkv_context *context) {
    const unsigned long long before = control_word();
    const qkv_status status = job->run(context);
    ck_assert_msg(status == QKV_OK, "%s: %s", job->name, qkv_status_string(status));
    ck_assert_msg(control_word() == before, "%s: %llx became %llx", job->name, before,
                  control_word());
}

/* A rounding that a caller has chosen is still there afterwards, whatever it made of the results.
 * _i is the room in all of these. */
START_TEST(calls_leave_a_chosen_rounding_alone) {
    work_fill(2.0f);
    ck_assert_int_eq(fesetround(FE_UPWARD), 0);
    for (int i = 0; i < jobs_count; i++) {
        run(&jobs[i], &rooms_get(_i)->context);
        ck_assert_int_eq(fegetround(), FE_UPWARD);
    }
    ck_assert_int_eq(fesetround(FE_TONEAREST), 0);
}
END_TEST

/* Flushing may only lose what is below the smallest normal number: a weight, or a product of a
 * thousand of them with a value. That is 2^-126 each, so 2^-110 is generous, and the rest of the
 * difference is a rounding of the sums that then lack it. */
static int close_enough(float flushed, float kept) {
    double difference = fabs((double)flushed - (double)kept);

    if (isnan(flushed) || isnan(kept))
        return isnan(flushed) && isnan(kept);
    if (isinf(flushed) || isinf(kept))
        return flushed == kept;
    return difference <= ldexp(1, -110) + ldexp(1, -20) * fabs((double)kept);
}

static void compare(const struct job *job, const qkv_context *context) {
    float *kept = malloc(job->count * sizeof *kept);

    ck_assert_ptr_nonnull(kept);
    memset(job->out, 0xff, job->count * sizeof *kept);
    set_flushing(0);
    run(job, context);
    memcpy(kept, job->out, job->count * sizeof *kept);
    memset(job->out, 0xff, job->count * sizeof *kept);
    set_flushing(1);
    run(job, context);
    set_flushing(0);
    for (size_t e = 0; e < job->count; e++)
        if (!close_enough(job->out[e], kept[e]))
            ck_abort_msg("%s, element %zu: %g flushed, %g kept", job->name, e, (double)job->out[e],
                         (double)kept[e]);
    free(kept);
}

/* Scores so far apart that many weights are denormal or nothing. */
START_TEST(flushing_denormals_changes_nothing_else) {
    work_fill(60.0f);
    for (int i = 0; i < jobs_count; i++)
        compare(&jobs[i], &rooms_get(_i)->context);
}
END_TEST

/* That the test above is about something: without flushing, softmax of such scores has denormal
 * weights. */
START_TEST(there_are_denormals_to_flush) {
    size_t denormal = 0;

    work_fill(60.0f);
    for (int i = 0; i < jobs_count; i++) {
        if (strcmp(jobs[i].name, "softmax") != 0)
            continue;
        run(&jobs[i], &rooms_get(_i)->context);
        for (size_t e = 0; e < jobs[i].count; e++)
            denormal += fpclassify(jobs[i].out[e]) == FP_SUBNORMAL;
    }
    ck_assert_uint_gt(denormal, 100);
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("float_env");
    TCase *test = tcase_create("floating-point environment");

    suite_add_tcase(suite, test);
    tcase_add_room_test(test, calls_leave_a_chosen_rounding_alone);
    tcase_add_room_test(test, flushing_denormals_changes_nothing_else);
    tcase_add_room_test(test, there_are_denormals_to_flush);
    return suite;
}

int main(void) {
    return suite_main(make);
}
