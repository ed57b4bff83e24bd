/* SPDX-License-Identifier: Apache-2.0 */
/* The publishing of the startup state, raced again and again: startup.c itself, with slow doubles
 * of what it calls, so that threads meet in the middle of making it. Meant for ThreadSanitizer. */
#define _POSIX_C_SOURCE 200809L

#include "startup.c"

#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 16, ROUNDS = 200 };

static atomic_int made_by; /* no two copies are alike: a mixture would show */

void qkv_cpu_read(struct qkv_cpu_report *report) {
    int number = atomic_fetch_add(&made_by, 1);

    report->detected = (uint64_t)number;
    sched_yield();
    report->withheld = (uint64_t)number;
    sched_yield();
    report->removed = (uint64_t)number;
    memset(report->unknown, 'a' + number % 26, sizeof report->unknown - 1);
}

void qkv_context_bind(struct qkv_context_state *state, uint64_t features, int isa_max) {
    (void)isa_max;
    state->features = features;
    sched_yield();
    state->magic = QKV_CONTEXT_MAGIC;
}

void qkv_context_tell(struct qkv_context_state *state, const struct qkv_cpu_report *cpu) {
    sched_yield();
    state->table.last_cache = (int64_t)cpu->detected;
}

static int is_whole(const struct qkv_startup *startup) {
    const struct qkv_cpu_report *cpu = &startup->cpu;
    const struct qkv_context_state *state = (const struct qkv_context_state *)&startup->context;
    char letter = (char)('a' + cpu->detected % 26);

    if (cpu->withheld != cpu->detected || cpu->removed != cpu->detected ||
        state->magic != QKV_CONTEXT_MAGIC || state->features != qkv_cpu_report_usable(cpu) ||
        state->table.last_cache != (int64_t)cpu->detected)
        return 0;
    for (size_t i = 0; i < sizeof cpu->unknown - 1; i++)
        if (cpu->unknown[i] != letter)
            return 0;
    return 1;
}

static pthread_barrier_t line;
static const struct qkv_startup *got[THREADS];
static int broken[THREADS];

static void *racer(void *argument) {
    size_t me = (size_t)((const struct qkv_startup **)argument - got);

    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&line);
        got[me] = qkv_startup();
        broken[me] += !is_whole(got[me]);
        pthread_barrier_wait(&line);
    }
    return NULL;
}

/* Races ROUNDS times with `spare` slots left, and counts the rounds that went wrong. */
static int race(unsigned spare) {
    pthread_t threads[THREADS];
    int wrong = 0;

    memset(broken, 0, sizeof broken);
    pthread_barrier_init(&line, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, racer, &got[i]), 0);
    for (int round = 0; round < ROUNDS; round++) {
        atomic_store(&published, NULL);
        atomic_store(&taken, SLOTS - spare);
        pthread_barrier_wait(&line);
        pthread_barrier_wait(&line);
        for (int i = 0; i < THREADS; i++)
            wrong += got[i] != current();
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        wrong += broken[i];
    }
    pthread_barrier_destroy(&line);
    return wrong;
}

START_TEST(all_get_the_same_whole_state) {
    ck_assert_int_eq(race(SLOTS), 0);
}
END_TEST

START_TEST(callers_without_a_slot_use_the_one_there_is) {
    ck_assert_int_eq(race(1), 0);
    ck_assert_int_eq(race(2), 0);
}
END_TEST

START_TEST(the_first_state_stands) {
    const struct qkv_startup *first = qkv_startup();
    struct qkv_startup other = {.cpu = {.detected = 12345}};

    ck_assert(is_whole(first));
    offer(&other);
    qkv_init();
    ck_assert_ptr_eq(qkv_startup(), first);
    ck_assert_ptr_eq(qkv_default_context(), &first->context);
    ck_assert_uint_ne(qkv_cpu_detected(), 12345);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("dispatch_threads_startup");
    TCase *test = tcase_create("race");
    SRunner *runner = srunner_create(suite);
    int failed;

    suite_add_tcase(suite, test);
    tcase_set_timeout(test, 120);
    tcase_add_test(test, all_get_the_same_whole_state);
    tcase_add_test(test, callers_without_a_slot_use_the_one_there_is);
    tcase_add_test(test, the_first_state_stands);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
