/* SPDX-License-Identifier: Apache-2.0 */
/* The bound on the stack: each job runs in each room on a stack of its own that was painted
 * beforehand; how far the paint is gone is what the call used, frames of SLEEF included. */
#define _GNU_SOURCE

#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include "support/rooms.h"
#include "support/sanitized.h"
#include "work.h"

/* What docs/design.md promises: no call uses more than this. */
#define STACK_BOUND ((size_t)16 * 1024)

enum { STACK_SIZE = 1 << 20, PAINT = 0xa5, SKIPPED = 77 };

static _Alignas(64) unsigned char stack[STACK_SIZE];
static ucontext_t here, there;
static void (*body)(void);

static void on_the_stack(void) {
    body();
}

/* How many bytes of the painted stack `function` made dirty. */
static size_t used_by(void (*function)(void)) {
    size_t untouched = 0;

    memset(stack, PAINT, sizeof stack);
    ck_assert_int_eq(getcontext(&there), 0);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    there.uc_link = &here;
    body = function;
    makecontext(&there, on_the_stack, 0);
    ck_assert_int_eq(swapcontext(&here, &there), 0);
    while (untouched < sizeof stack && stack[untouched] == PAINT)
        untouched++;
    return sizeof stack - untouched;
}

static void nothing(void) {
}

static void a_known_frame(void) {
    volatile unsigned char frame[6000];
    for (size_t i = 0; i < sizeof frame; i++)
        frame[i] = 0;
}

START_TEST(the_measure_measures) {
    size_t start = used_by(nothing);

    ck_assert_uint_lt(start, 512);
    ck_assert_uint_ge(used_by(a_known_frame) - start, 6000);
    ck_assert_uint_lt(used_by(a_known_frame) - start, 6000 + 256);
}
END_TEST

static const struct job *job;
static const qkv_context *context;
static qkv_status status;

static void run_job(void) {
    status = job->run(context);
}

/* _i is the room. */
START_TEST(every_call_keeps_to_the_bound) {
    size_t start = used_by(nothing), most = 0;

    context = &rooms_get(_i)->context;
    work_fill(2.0f);
    for (job = jobs; job < jobs + jobs_count; job++) {
        size_t used = used_by(run_job) - start;
        ck_assert_msg(status == QKV_OK, "%s: %s", job->name, qkv_status_string(status));
        ck_assert_msg(used <= STACK_BOUND, "%s, %s: %zu bytes of stack", rooms_get(_i)->name,
                      job->name, used);
        most = used > most ? used : most;
    }
    printf("%s: %zu bytes of stack at most\n", rooms_get(_i)->name, most);
}
END_TEST

static void make_context(void) {
    qkv_context made;
    status = qkv_context_init(&made, NULL);
}

START_TEST(contexts_keep_to_the_bound) {
    ck_assert_uint_le(used_by(make_context), STACK_BOUND);
    ck_assert_int_eq(status, QKV_OK);
    ck_assert_uint_le(used_by(qkv_init), STACK_BOUND);
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("stack");
    TCase *test = tcase_create("stack");

    suite_add_tcase(suite, test);
    tcase_add_test(test, the_measure_measures);
    tcase_add_test(test, contexts_keep_to_the_bound);
    tcase_add_room_test(test, every_call_keeps_to_the_bound);
    return suite;
}

int main(void) {
    if (SANITIZED) {
        puts("skipped: a sanitizer's instrumentation uses the stack by itself");
        return SKIPPED;
    }
    return suite_main(make);
}
