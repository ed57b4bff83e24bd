/* SPDX-License-Identifier: Apache-2.0 */
/* The roof of a call that reads a cache: how fast its memory can be read, and the FMA peak. */
#include <math.h>

#include "clock.h"
#include "roof.h"

static const double run_seconds = 1e-3;

/* A sample is the best of a few runs, so that one interrupt does not make reading look slow. */
enum { SAMPLE_RUNS = 3, UNIT = 256 }; /* UNIT: shares are multiples of so many floats */

struct reading {
    const struct roof *roof;
    const struct peak_kernel *kernel;
    int way;
    int64_t passes;
};

/* A share of the memory for each thread, as often as the passes say. */
static void read_shares(void *argument, int worker, int64_t begin, int64_t end) {
    const struct reading *reading = argument;
    const struct roof *roof = reading->roof;
    const int64_t units = (int64_t)(roof->bytes / sizeof(float)) / UNIT;
    static volatile float sink;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const int64_t from = units * i / roof->threads, to = units * (i + 1) / roof->threads;
        const float *data = (const float *)roof->memory + from * UNIT;
        for (int64_t pass = 0; pass < reading->passes; pass++)
            sink = reading->kernel->read[reading->way](data, (to - from) * UNIT);
    }
    (void)sink;
}

/* Seconds of one pass. */
static double read_memory(const struct roof *roof, const struct peak_kernel *kernel, int way,
                          int64_t passes) {
    struct reading reading = {roof, kernel, way, passes};
    const double start = clock_seconds();
    if (roof->pool)
        pool_run(roof->pool, roof->threads, roof->threads, read_shares, &reading);
    else
        read_shares(&reading, 0, 0, roof->threads);
    return (clock_seconds() - start) / (double)passes;
}

static double best_reading(const struct roof *roof, const struct peak_kernel *kernel, int way) {
    double best = INFINITY;
    for (int i = 0; i < SAMPLE_RUNS; i++)
        best = fmin(best, read_memory(roof, kernel, way, roof->passes));
    return best;
}

void roof_start(struct roof *roof, const struct peak_kernel *kernel) {
    read_memory(roof, kernel, 0, 1);
    const double once = read_memory(roof, kernel, 0, 1);
    roof->passes = once < run_seconds ? (int64_t)(run_seconds / once) : 1;
    double best = INFINITY;
    for (int way = 0; way < PEAK_READS; way++) {
        const double seconds = best_reading(roof, kernel, way);
        if (seconds < best) {
            best = seconds;
            roof->way = way;
        }
    }
}

struct roof_sample roof_sample(const struct roof *roof, const struct peak_log *log) {
    const double gflops =
        roof->pool ? peak_sample_together(log, roof->pool, roof->threads) : peak_median(log);
    return (struct roof_sample){best_reading(roof, log->kernel, roof->way),
                                roof->flops / (gflops * 1e9)};
}

double roof_seconds(const struct roof_sample *sample) {
    return fmax(sample->reading, sample->arithmetic);
}
