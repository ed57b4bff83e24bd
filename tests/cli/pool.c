/* SPDX-License-Identifier: Apache-2.0 */
/* The command's thread pool: every part runs once, workers have numbers of their own, jobs follow
 * each other without waiting for those who sleep; meant to be run under ThreadSanitizer too. */
#include <check.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pool.h"

enum { MOST_PARTS = 1000, MOST_THREADS = 5 };

struct record {
    int threads;          /* that the job may use */
    int runs[MOST_PARTS]; /* of each part; only its own task writes it */
    atomic_int inside[MOST_THREADS];
    atomic_int faults;
    int sleep_us;
};

static void note(void *argument, int worker, int64_t begin, int64_t end) {
    struct record *record = argument;
    if (worker < 0 || worker >= record->threads || begin < 0 || begin > end || end > MOST_PARTS) {
        atomic_fetch_add(&record->faults, 1);
        return;
    }
    if (atomic_fetch_add(&record->inside[worker], 1) != 0) {
        atomic_fetch_add(&record->faults, 1);
    }
    for (int64_t i = begin; i < end; i++) {
        record->runs[i]++;
    }
    if (record->sleep_us) {
        nanosleep(&(struct timespec){.tv_nsec = record->sleep_us * 1000L}, NULL);
    }
    atomic_fetch_sub(&record->inside[worker], 1);
}

static void run_job(struct pool *pool, int threads, int parts, int sleep_us) {
    static struct record record;
    memset(&record, 0, sizeof record);
    record.threads = threads;
    record.sleep_us = sleep_us;
    ck_assert_int_eq(pool_run(pool, threads, parts, note, &record), 0);
    /* Plain reads: the pool must have made the tasks' writes visible. */
    int wrong = 0;
    for (int i = 0; i < MOST_PARTS; i++) {
        wrong += record.runs[i] != (i < parts);
    }
    ck_assert_int_eq(wrong, 0);
    ck_assert_int_eq(atomic_load(&record.faults), 0);
}

START_TEST(every_part_once) {
    static const int parts[] = {0, 1, 2, 3, 7, 8, 63, 64, 65, MOST_PARTS};
    for (int size = 1; size <= MOST_THREADS; size++) {
        struct pool *pool = pool_open(size);
        ck_assert_ptr_nonnull(pool);
        for (int threads = 1; threads <= MOST_THREADS; threads++) {
            for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
                run_job(pool, threads, parts[i], 0);
            }
        }
        pool_close(pool);
    }
}
END_TEST

/* Jobs in quick succession, as phases are. */
START_TEST(many_small_jobs) {
    struct pool *pool = pool_open(4);
    ck_assert_ptr_nonnull(pool);
    for (int i = 0; i < 2000; i++) {
        run_job(pool, 1 + i % 4, 1 + i % 13, 0);
    }
    pool_close(pool);
}
END_TEST

/* Pauses long enough for the workers to fall asleep, and tasks in which they meet. */
START_TEST(after_sleep) {
    struct pool *pool = pool_open(3);
    ck_assert_ptr_nonnull(pool);
    for (int i = 0; i < 20; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
        run_job(pool, 3, 12, 200);
    }
    pool_close(pool);
}
END_TEST

/* A task that ends only when all threads of the job are in one. */
static void meet(void *argument, int worker, int64_t begin, int64_t end) {
    atomic_int *present = argument;
    (void)worker;
    (void)begin;
    (void)end;
    atomic_fetch_add(present, 1);
    while (atomic_load(present) % 3 != 0) {
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
}

/* The threads work side by side: otherwise this would never end. */
START_TEST(side_by_side) {
    struct pool *pool = pool_open(3);
    ck_assert_ptr_nonnull(pool);
    for (int i = 0; i < 20; i++) {
        atomic_int present = 0;
        pool_run(pool, 3, 3, meet, &present);
        ck_assert_int_eq(atomic_load(&present), 3);
    }
    pool_close(pool);
}
END_TEST

START_TEST(opens_and_closes) {
    pool_close(NULL);
    for (int i = 0; i < 50; i++) {
        struct pool *pool = pool_open(1 + i % 5);
        ck_assert_ptr_nonnull(pool);
        if (i % 2) {
            run_job(pool, 5, 5, 0);
        }
        pool_close(pool);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pool");
    TCase *tcase = tcase_create("pool");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, every_part_once);
    tcase_add_test(tcase, many_small_jobs);
    tcase_add_test(tcase, after_sleep);
    tcase_add_test(tcase, side_by_side);
    tcase_add_test(tcase, opens_and_closes);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
