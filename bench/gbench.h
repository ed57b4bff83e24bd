/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Google Benchmark for C: benchmarks with a name and a user pointer, the loop, the time, counters,
 * and a reason to skip. gbench.cc is the only C++ of the project.
 *
 * Time is measured by the benchmark itself and handed over with gb_time, because a benchmark may
 * throw a measurement away and repeat it. A benchmark that uses several threads starts them
 * itself and ends its name in /threads:N, as Google Benchmark's own do.
 *
 *   static void run(gb_state *state, void *user)
 *   {
 *       int64_t calls;
 *       while ((calls = gb_next(state, 1000)) > 0)
 *           gb_time(state, seconds_of(user, calls));
 *       gb_counter(state, "GFLOPS", ...);
 *   }
 */
#ifndef QKV_BENCH_GBENCH_H
#define QKV_BENCH_GBENCH_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gb_state gb_state;
typedef void gb_function(gb_state *state, void *user);

/* The name is copied; user must live until gb_run returns. */
void gb_register(const char *name, gb_function *function, void *user);

/* The same for a benchmark whose one iteration is all that is wanted. */
void gb_register_once(const char *name, gb_function *function, void *user);

/* How many iterations to run next, as one batch of at most `most` (1 or more); 0 ends the loop. */
int64_t gb_next(gb_state *state, int64_t most);

/* Around the work itself: what Google Benchmark reports as CPU time of the calling thread. What
 * is thrown away is in it. */
void gb_resume(gb_state *state);
void gb_pause(gb_state *state);

/* The seconds that the last batch took. Once for each gb_next that was not 0. */
void gb_time(gb_state *state, double seconds);

/* A figure beside the time, and a few words at the end of the line. */
void gb_counter(gb_state *state, const char *name, double value);
void gb_label(gb_state *state, const char *label);

/* Ends the benchmark without a result; the next gb_next is 0. */
void gb_skip(gb_state *state, const char *reason);

/* A line of the report's head. */
void gb_context(const char *key, const char *value);

enum { GB_DONE = 0, GB_FAILED = 1, GB_NONE = 2 };

/* Runs the registered benchmarks that --benchmark_filter leaves, with Google Benchmark's own
 * options in argv. GB_FAILED: an argument that it does not know; GB_NONE: nothing matches. */
int gb_run(int argc, char **argv);

#ifdef __cplusplus
}
#endif

#endif
