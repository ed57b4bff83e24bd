/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The roof of a call that reads a cache: the larger of two times,
 *
 *   the cache's bytes over the speed of reading them
 *   the call's flops over the FMA peak
 *
 * each with as many threads as the call has. What is read is the cache's own memory: it has its
 * size, stands where it stands, and leaves the processor's caches as a call finds them.
 */
#ifndef QKV_BENCH_ROOF_H
#define QKV_BENCH_ROOF_H

#include <stddef.h>
#include <stdint.h>

#include "peak.h"
#include "pool.h"

struct roof {
    double flops; /* of a call */
    const void *memory;
    size_t bytes;
    struct pool *pool; /* of several threads; NULL for one */
    int threads;
    /* Found by roof_start: */
    int way;        /* of reading: the fastest here */
    int64_t passes; /* that make a sample long enough */
};

/* Looks for the fastest way of reading. The first five members are set. */
void roof_start(struct roof *roof, const struct peak_kernel *kernel);

/* Seconds of a call: reading alone, and arithmetic alone. */
struct roof_sample {
    double reading, arithmetic;
};

/* Takes some milliseconds. */
struct roof_sample roof_sample(const struct roof *roof, const struct peak_log *log);

/* The larger of the two. */
double roof_seconds(const struct roof_sample *sample);

#endif
