/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine can do at most: the FMA peak of a room and the speed of reading memory.
 *
 * A peak holds for a moment only (frequency, neighbours on a shared machine), so it is sampled
 * again and again beside the benchmarks, and a sample is judged by the median of the last ones.
 */
#ifndef QKV_BENCH_PEAK_H
#define QKV_BENCH_PEAK_H

#include <stddef.h>
#include <stdint.h>

/* Ways of reading: which is the fastest depends on where the numbers are. */
enum { PEAK_READS = 6 };

/* A room's chains and its ways through memory, from peak_room.c. */
struct peak_kernel {
    double flops; /* of one round */
    float (*run)(int64_t rounds);
    float (*read[PEAK_READS])(const float *data, int64_t count);
    void (*update)(float *data, int64_t count);
};

enum { PEAK_WINDOW = 63 };

/* The last samples, GFLOPS. */
struct peak_log {
    const struct peak_kernel *kernel;
    int64_t rounds; /* that make one sample long enough */
    double sample[PEAK_WINDOW];
    int count; /* of samples ever taken */
};

/* The chains of a qkv_isa; NULL for a room that this build lacks. */
const struct peak_kernel *peak_kernel_of(int isa);

/* Finds the sample's length, lets the clock settle, and fills part of the window. */
void peak_start(struct peak_log *log, const struct peak_kernel *kernel);

/* One more sample, about a millisecond. */
double peak_sample(struct peak_log *log);

/* GFLOPS of several threads of a pool together, at the same time. */
struct pool;
double peak_sample_together(const struct peak_log *log, struct pool *pool, int threads);

double peak_median(const struct peak_log *log);

/* Within 5 % of the median. */
int peak_is_near(const struct peak_log *log, double sample);

/* Bytes of the last-level cache; 0 if nobody knows. */
size_t peak_last_cache(void);

/* So many bytes that they cannot come from any cache. */
size_t peak_beyond_caches(void);

/* Bytes per second at which one thread reads regions once, one behind the other, in the best way
 * that the kernel has; and the same of memory beyond all caches, in some ten milliseconds a way; 0
 * if there is no memory to try it with. */
struct peak_region {
    const void *data;
    size_t bytes;
};
double peak_read_sample(const struct peak_kernel *kernel, const struct peak_region *regions,
                        int count);
double peak_memory_sample(const struct peak_kernel *kernel);

/* The same of reading and writing back in place, where each byte counts twice: the fastest copy
 * there is, since one to another place fetches that place as well. */
double peak_copy_sample(const struct peak_kernel *kernel);

#endif
