/* SPDX-License-Identifier: Apache-2.0 */
/* The clocks of the benchmarks: seconds that only go forward, and seconds that the calling thread
 * was given a CPU. */
#ifndef QKV_BENCH_CLOCK_H
#define QKV_BENCH_CLOCK_H

#include <time.h>

static inline double clock_read(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline double clock_seconds(void) {
    return clock_read(CLOCK_MONOTONIC);
}

static inline double clock_thread_seconds(void) {
    return clock_read(CLOCK_THREAD_CPUTIME_ID);
}

#endif
