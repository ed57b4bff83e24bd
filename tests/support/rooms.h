/* SPDX-License-Identifier: Apache-2.0 */
/* The rooms that this run of a suite tests, and the environment that steers it:
 *
 *   QKV_TEST_SEED   seed of everything random; "time" takes the clock. Printed by every suite.
 *   QKV_TEST_CASES  how many random descriptions a room gets; 2000 unless set. Sweeps over pairs
 *                   of sizes take the same share of their pairs as this is of 2000. With fewer
 *                   than 15, for slow emulators and sanitizers, sweeps over single sizes and
 *                   options are thinned too.
 *   QKV_TEST_LEAVE_OUT  names of tests to do without, separated by commas, for the same purpose.
 *   QKV_TEST_ONLY   the number of the one random description to run.
 *   QKV_TEST_SLACK  bytes between a buffer and the guard page behind it; 0 unless set. 64 for
 *                   emulators whose masked loads touch lanes that are masked out (qemu 7.2, AVX2).
 *   QKV_TEST_ROOM   the one room to test; the suite exits with 77 (skipped) if this CPU or this
 *                   build lacks it.
 *   QKV_TEST_VARIANT  a feature such as avx512vnni: decode runs in the narrow arithmetic of that
 *                   variant, over the type that it is for, and all other variants are switched off.
 *                   Skipped (77) where the room does not have it. */
#ifndef QKV_TEST_ROOMS_H
#define QKV_TEST_ROOMS_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#include <qkv/qkv.h>

struct room {
    const char *name;
    qkv_context context;
};

/* How many rooms there are to test, and the i-th, from the lowest up. */
int rooms_count(void);
const struct room *rooms_get(int i);

/* The same of all rooms that this CPU can run, tested or not. */
int rooms_runnable_count(void);
const struct room *rooms_runnable(int i);

/* The scalar room, tested or not: what the others are compared with. */
const struct room *rooms_scalar(void);

uint64_t test_seed(void);
int test_cases(void);

/* The description to run alone, or -1. */
int test_only(void);

/* Of how many pairs of a sweep one is tested: 1 on a full run. */
int test_stride(void);

/* Of how many points of a sweep over single sizes, options or shapes one is tested: 1 from 15 cases
 * up. */
int test_thinning(void);

/* Is a sweep's point number 0, 1, 2, ... tested, where one in so many is? The first is, and of the
 * others a share that keeps no step: what hangs on number % 2 or number % 5 takes all its values.
 */
bool test_takes(uint64_t number, int one_in);

/* The next such point after `number`, -1 for the first. */
int test_next(int number, int one_in);

/* The dtype that QKV_TEST_VARIANT computes with; QKV_DTYPE_NONE where no variant is asked for. */
int32_t test_narrow_dtype(void);

/* main() of a suite: reads the environment, says what it tests, runs, returns the exit status. */
int suite_main(Suite *(*make)(void));

/* Adds tests that run once a room, with the room's number in _i. */
void tcase_add_room_test(TCase *tcase, const TTest *test);
void tcase_add_room_tests(TCase *tcase, const TTest *const *tests, int count);

#endif
