/* SPDX-License-Identifier: Apache-2.0 */
/* The reference pool: every part runs once, workers have numbers and shares of their own, jobs
 * follow each other whether the workers sleep or not, and what goes wrong leaves nothing behind.
 * Meant to be run under ThreadSanitizer too. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pool.h"

enum { MOST_PARTS = 10007, MOST_THREADS = 5 };

/* A pool wakes its threads at once while its jobs take longer than waking does, so that tasks of at
 * least this length can count on each other. */
enum { LONG_US = 200 };

struct record {
    int threads;          /* that the job may use */
    int runs[MOST_PARTS]; /* of each part; only its own task writes it */
    atomic_int inside[MOST_THREADS];
    atomic_int faults;
    int sleep_us;
};

static void nap(long microseconds) {
    nanosleep(&(struct timespec){.tv_nsec = microseconds * 1000}, NULL);
}

static void note(void *argument, int worker, int64_t begin, int64_t end) {
    struct record *record = argument;
    if (worker < 0 || worker >= record->threads || begin < 0 || begin > end || end > MOST_PARTS) {
        atomic_fetch_add(&record->faults, 1);
        return;
    }
    if (atomic_fetch_add(&record->inside[worker], 1) != 0)
        atomic_fetch_add(&record->faults, 1);
    for (int64_t i = begin; i < end; i++)
        record->runs[i]++;
    if (record->sleep_us)
        nap(record->sleep_us);
    atomic_fetch_sub(&record->inside[worker], 1);
}

static void run_record(struct pool *pool, struct record *record, int parts) {
    ck_assert_int_eq(pool_run(pool, record->threads, parts, note, record), 0);
    /* Plain reads: the pool must have made the tasks' writes visible. */
    int wrong = 0;
    for (int i = 0; i < MOST_PARTS; i++)
        wrong += record->runs[i] != (i < parts);
    ck_assert_int_eq(wrong, 0);
    ck_assert_int_eq(atomic_load(&record->faults), 0);
}

static void run_job(struct pool *pool, int threads, int parts, int sleep_us) {
    static struct record record;
    memset(&record, 0, sizeof(record));
    record.threads = threads;
    record.sleep_us = sleep_us;
    run_record(pool, &record, parts);
}

static struct pool *open_pool(int threads) {
    struct pool *pool = pool_open(threads);
    ck_assert_ptr_nonnull(pool);
    return pool;
}

/* More threads than parts, more than the pool has, and more parts than it counts one by one. */
START_TEST(every_part_once) {
    static const int parts[] = {0, 1, 2, 3, 7, 8, 63, 64, 65, 1000, 4095, 4096, MOST_PARTS};
    for (int size = 1; size <= MOST_THREADS; size++) {
        struct pool *pool = open_pool(size);
        for (int threads = 1; threads <= MOST_THREADS; threads++) {
            for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
                run_job(pool, threads, parts[i], 0);
        }
        pool_close(pool);
    }
}
END_TEST

/* Jobs in quick succession, as phases are. */
START_TEST(many_phases) {
    struct pool *pool = open_pool(4);
    for (int i = 0; i < 5000; i++)
        run_job(pool, 1 + i % 4, 1 + i % 13, 0);
    pool_close(pool);
}
END_TEST

/* Pauses long enough for the workers to fall asleep, and tasks long enough for the caller to. */
START_TEST(after_sleep) {
    struct pool *pool = open_pool(3);
    for (int i = 0; i < 20; i++) {
        nap(3000);
        run_job(pool, 3, 12, i % 4 ? LONG_US : 0);
    }
    pool_close(pool);
}
END_TEST

struct meeting {
    atomic_int present;
    atomic_int elsewhere; /* parts that ran on another worker than the one whose share they are */
};

/* Ends only when all three threads of the job are in one, so that nobody takes a second part. */
static void meet(void *argument, int worker, int64_t begin, int64_t end) {
    struct meeting *meeting = argument;
    if (begin != worker || end != worker + 1)
        atomic_fetch_add(&meeting->elsewhere, 1);
    atomic_fetch_add(&meeting->present, 1);
    nap(LONG_US);
    while (atomic_load(&meeting->present) < 3)
        nap(100);
}

/* The threads work side by side, each on its own share: otherwise this would never end. */
START_TEST(side_by_side) {
    struct pool *pool = open_pool(3);
    for (int i = 0; i < 20; i++) {
        struct meeting meeting = {0};
        pool_run(pool, 3, 3, meet, &meeting);
        ck_assert_int_eq(atomic_load(&meeting.present), 3);
        ck_assert_int_eq(atomic_load(&meeting.elsewhere), 0);
    }
    pool_close(pool);
}
END_TEST

enum { UNEVEN_PARTS = 9 };

/* The first parts end only when all others are done, those of their own worker's share too. */
static void wait_for_others(void *argument, int worker, int64_t begin, int64_t end) {
    atomic_int *finished = argument;
    (void)worker;
    nap(LONG_US);
    while (begin == 0 && atomic_load(finished) < UNEVEN_PARTS - (int)end)
        nap(100);
    atomic_fetch_add(finished, (int)(end - begin));
}

/* Who is done takes what is left of the others' shares: otherwise this would never end. */
START_TEST(takes_from_others) {
    for (int threads = 2; threads <= 4; threads++) {
        struct pool *pool = open_pool(threads);
        for (int i = 0; i < 20; i++) {
            atomic_int finished = 0;
            pool_run(pool, threads, UNEVEN_PARTS, wait_for_others, &finished);
            ck_assert_int_eq(atomic_load(&finished), UNEVEN_PARTS);
        }
        pool_close(pool);
    }
}
END_TEST

struct direct {
    pthread_t caller;
    int64_t parts;
    int calls, faults;
};

static void all_at_once(void *argument, int worker, int64_t begin, int64_t end) {
    struct direct *direct = argument;
    direct->calls++;
    direct->faults += worker != 0 || begin != 0 || end != direct->parts ||
                      !pthread_equal(direct->caller, pthread_self());
}

/* Where there is nothing to share, the caller makes one plain call. */
START_TEST(one_thread_is_a_direct_call) {
    static const struct {
        int size, threads, parts;
    } cases[] = {{1, 1, 100}, {1, 4, 100}, {4, 1, 100}, {4, 4, 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pool *pool = open_pool(cases[i].size);
        struct direct direct = {.caller = pthread_self(), .parts = cases[i].parts};
        pool_run(pool, cases[i].threads, cases[i].parts, all_at_once, &direct);
        ck_assert_int_eq(direct.calls, 1);
        ck_assert_int_eq(direct.faults, 0);
        pool_close(pool);
    }
}
END_TEST

struct nested {
    struct pool *pool;
    atomic_int parts;
};

static void count_parts(void *argument, int worker, int64_t begin, int64_t end) {
    (void)worker;
    atomic_fetch_add((atomic_int *)argument, (int)(end - begin));
}

/* A job for the same pool, and a pool of its own that ends before the task does. */
static void start_more(void *argument, int worker, int64_t begin, int64_t end) {
    struct nested *nested = argument;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        pool_run(nested->pool, 3, 5, count_parts, &nested->parts);
        struct pool *inner = pool_open(2);
        if (inner)
            pool_run(inner, 2, 7, count_parts, &nested->parts);
        pool_close(inner);
    }
}

START_TEST(pools_and_jobs_within_a_task) {
    struct nested nested = {.pool = open_pool(3)};
    pool_run(nested.pool, 3, 20, start_more, &nested);
    ck_assert_int_eq(atomic_load(&nested.parts), 20 * (5 + 7));
    pool_close(nested.pool);
}
END_TEST

static void *run_many(void *argument) {
    struct record *record = malloc(sizeof(*record));
    ck_assert_ptr_nonnull(record);
    for (int i = 0; i < 200; i++) {
        memset(record, 0, sizeof(*record));
        record->threads = 3;
        run_record(argument, record, 1 + i % 50);
    }
    free(record);
    return NULL;
}

/* Two threads ask the same pool at the same time. */
START_TEST(two_callers) {
    struct pool *pool = open_pool(3);
    pthread_t other;
    ck_assert_int_eq(pthread_create(&other, NULL, run_many, pool), 0);
    run_many(pool);
    pthread_join(other, NULL);
    pool_close(pool);
}
END_TEST

START_TEST(opens_and_closes) {
    pool_close(NULL);
    for (int i = 0; i < 50; i++) {
        struct pool *pool = open_pool(1 + i % 5);
        if (i % 2)
            run_job(pool, 5, 5, 0);
        pool_close(pool);
    }
}
END_TEST

typedef void *thread_main(void *argument);
int __real_pthread_create(pthread_t *id, const pthread_attr_t *attributes, thread_main *start,
                          void *argument);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attributes, thread_main *start,
                          void *argument);

static atomic_int threads_left = -1; /* that may still be started; -1: any number */

int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attributes, thread_main *start,
                          void *argument) {
    int left = atomic_load(&threads_left);
    if (left == 0)
        return EAGAIN;
    if (left > 0)
        atomic_store(&threads_left, left - 1);
    return __real_pthread_create(id, attributes, start, argument);
}

/* Whichever thread it is that cannot be started: there is no pool, and the others have ended. */
START_TEST(threads_cannot_be_started) {
    for (int fine = 0; fine < 4; fine++) {
        atomic_store(&threads_left, fine);
        ck_assert_ptr_null(pool_open(5));
        ck_assert_int_eq(atomic_load(&threads_left), 0);
    }
    atomic_store(&threads_left, 4);
    struct pool *pool = open_pool(5);
    run_job(pool, 5, 100, 0);
    pool_close(pool);
    atomic_store(&threads_left, -1);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pool");
    TCase *tcase = tcase_create("pool");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, every_part_once);
    tcase_add_test(tcase, many_phases);
    tcase_add_test(tcase, after_sleep);
    tcase_add_test(tcase, side_by_side);
    tcase_add_test(tcase, takes_from_others);
    tcase_add_test(tcase, one_thread_is_a_direct_call);
    tcase_add_test(tcase, pools_and_jobs_within_a_task);
    tcase_add_test(tcase, two_callers);
    tcase_add_test(tcase, opens_and_closes);
    tcase_add_test(tcase, threads_cannot_be_started);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
