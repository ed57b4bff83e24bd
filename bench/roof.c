/* SPDX-License-Identifier: Apache-2.0 */
/* The roof of a call that reads a cache: how fast its memory can be read, and the FMA peak. */
#include <math.h>

#include "clock.h"
#include "roof.h"

static const double sample_seconds = 3e-3;
enum { TRIES = 2, VECTORS = 256 }; /* floats of the smallest share, so that streams are whole */

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
    const int64_t units = (int64_t)(roof->bytes / sizeof(float)) / VECTORS;
    static volatile float sink;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const int64_t from = units * i / roof->threads, to = units * (i + 1) / roof->threads;
        const float *data = (const float *)roof->memory + from * VECTORS;
        for (int64_t pass = 0; pass < reading->passes; pass++)
            sink = reading->kernel->read[reading->way](data, (to - from) * VECTORS);
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

void roof_start(struct roof *roof, const struct peak_kernel *kernel) {
    read_memory(roof, kernel, 0, 1);
    const double once = read_memory(roof, kernel, 0, 1);
    roof->passes = once < sample_seconds ? (int64_t)(sample_seconds / once) : 1;
    double best = INFINITY;
    for (int i = 0; i < TRIES * PEAK_READS; i++) {
        const double seconds = read_memory(roof, kernel, i % PEAK_READS, roof->passes);
        if (seconds < best) {
            best = seconds;
            roof->way = i % PEAK_READS;
        }
    }
}

static double reading_seconds(const struct roof *roof, const struct peak_log *log) {
    return read_memory(roof, log->kernel, roof->way, roof->passes);
}

static double arithmetic_seconds(const struct roof *roof, const struct peak_log *log) {
    const double gflops =
        roof->pool ? peak_sample_together(log, roof->pool, roof->threads) : peak_median(log);
    return roof->flops / (gflops * 1e9);
}

double roof_seconds(const struct roof *roof, const struct peak_log *log) {
    return fmax(reading_seconds(roof, log), arithmetic_seconds(roof, log));
}

int roof_is_memory(const struct roof *roof, const struct peak_log *log) {
    return reading_seconds(roof, log) > arithmetic_seconds(roof, log);
}
