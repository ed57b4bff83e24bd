/* SPDX-License-Identifier: Apache-2.0 */
/* Samples of the FMA peak, their median, and the bandwidths of reading and copying. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qkv/qkv.h>

#include "clock.h"
#include "config.h"
#include "peak.h"
#include "pool.h"

/* The rooms of this build, as src/core/isa.def lists them. */
#define ROOM(folder, name, native, built, needs) \
    extern const struct peak_kernel qkv_##folder##_peak;
#include "isa.def"
#undef ROOM

const struct peak_kernel *peak_kernel_of(int isa) {
    static const struct peak_kernel *const kernels[QKV_ISA_COUNT] = {
#define ROOM(folder, name, native, built, needs) \
    [QKV_ISA_##name] = (built) ? &qkv_##folder##_peak : NULL,
#include "isa.def"
#undef ROOM
    };
    return isa > QKV_ISA_NONE && isa < QKV_ISA_COUNT ? kernels[isa] : NULL;
}

/* A sample is the best of a few runs, so that one interrupt does not make it look slow; together
 * they are short beside what they judge. */
enum { SAMPLE_RUNS = 3, START_SAMPLES = 15 };

/* More of them where sleeping threads have to wake first. */
enum { TOGETHER_RUNS = 8 };

static const double run_seconds = 0.3e-3;
static const double settle_seconds = 0.1;

static double timed_run(const struct peak_kernel *kernel, int64_t rounds) {
    static volatile float sink;
    double start = clock_seconds();
    sink = kernel->run(rounds);
    (void)sink;
    return clock_seconds() - start;
}

double peak_sample(struct peak_log *log) {
    double best = timed_run(log->kernel, log->rounds);
    for (int i = 1; i < SAMPLE_RUNS; i++) {
        double seconds = timed_run(log->kernel, log->rounds);
        if (seconds < best)
            best = seconds;
    }
    double sample = log->kernel->flops * (double)log->rounds / best * 1e-9;
    log->sample[log->count++ % PEAK_WINDOW] = sample;
    return sample;
}

static void run_parts(void *argument, int worker, int64_t begin, int64_t end) {
    const struct peak_log *log = argument;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        volatile float sink = log->kernel->run(log->rounds);
        (void)sink;
    }
}

double peak_sample_together(const struct peak_log *log, struct pool *pool, int threads) {
    double best = 0.0;
    for (int i = 0; i < TOGETHER_RUNS; i++) {
        double start = clock_seconds();
        pool_run(pool, threads, threads, run_parts, (void *)(uintptr_t)log);
        double seconds = clock_seconds() - start;
        best = best == 0.0 || seconds < best ? seconds : best;
    }
    return threads * log->kernel->flops * (double)log->rounds / best * 1e-9;
}

void peak_start(struct peak_log *log, const struct peak_kernel *kernel) {
    memset(log, 0, sizeof(*log));
    log->kernel = kernel;
    log->rounds = 1024;
    double end = clock_seconds() + settle_seconds;
    while (clock_seconds() < end) {
        if (timed_run(kernel, log->rounds) < run_seconds)
            log->rounds += log->rounds / 4;
    }
    for (int i = 0; i < START_SAMPLES; i++)
        peak_sample(log);
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

double peak_median(const struct peak_log *log) {
    double sorted[PEAK_WINDOW];
    int count = log->count < PEAK_WINDOW ? log->count : PEAK_WINDOW;
    memcpy(sorted, log->sample, sizeof(sorted));
    qsort(sorted, (size_t)count, sizeof(sorted[0]), compare_doubles);
    return sorted[count / 2];
}

int peak_is_near(const struct peak_log *log, double sample) {
    double ratio = sample / peak_median(log);
    return ratio > 0.95 && ratio < 1.05;
}

/* As the kernel tells it; the C library counts the caches of other cores in on some. */
size_t peak_last_cache(void) {
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r");
    long kib = 0;
    if (file) {
        if (fscanf(file, "%ldK", &kib) != 1)
            kib = 0;
        fclose(file);
    }
    return kib > 0 ? (size_t)kib << 10 : 0;
}

/* Eight times the last-level cache, in reason. */
size_t peak_beyond_caches(void) {
    const size_t least = (size_t)64 << 20;
    const size_t most = (size_t)512 << 20;
    const size_t bytes = 8 * peak_last_cache();
    return bytes < least ? least : bytes > most ? most : bytes;
}

/* Kept for the next sample; NULL after a failure. */
static float *memory_to_read(size_t bytes) {
    static float *data;
    if (!data && (data = aligned_alloc(QKV_ALIGNMENT, bytes)))
        memset(data, 0, bytes);
    return data;
}

static size_t memory_bytes(void) {
    return peak_beyond_caches() / QKV_ALIGNMENT * QKV_ALIGNMENT;
}

/* Bytes per second of one way of reading. */
static double read_rate(const struct peak_kernel *kernel, int way,
                        const struct peak_region *regions, int count) {
    static volatile float sink;
    double bytes = 0.0;
    const double start = clock_seconds();
    for (int i = 0; i < count; i++) {
        sink = kernel->read[way](regions[i].data, (int64_t)(regions[i].bytes / sizeof(float)));
        bytes += (double)regions[i].bytes;
    }
    (void)sink;
    return bytes / (clock_seconds() - start);
}

double peak_read_sample(const struct peak_kernel *kernel, const struct peak_region *regions,
                        int count) {
    double best = 0.0;
    for (int way = 0; way < PEAK_READS; way++) {
        const double rate = read_rate(kernel, way, regions, count);
        best = rate > best ? rate : best;
    }
    return best;
}

double peak_memory_sample(const struct peak_kernel *kernel) {
    const struct peak_region memory = {memory_to_read(memory_bytes()), memory_bytes()};
    return memory.data ? peak_read_sample(kernel, &memory, 1) : 0.0;
}

double peak_copy_sample(const struct peak_kernel *kernel) {
    const size_t bytes = memory_bytes();
    float *data = memory_to_read(bytes);
    if (!data)
        return 0.0;
    double start = clock_seconds();
    kernel->update(data, (int64_t)(bytes / sizeof(*data)));
    return 2.0 * (double)bytes / (clock_seconds() - start);
}
