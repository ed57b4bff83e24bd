/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a call takes at worst: 100,000 calls of the fused stage in a row, the same with a plan
 * that was made once (_planned), and as many jobs of the pool with two parts and nothing in them,
 * each timed by itself (the clock's own twenty to thirty nanoseconds are in it), in microseconds:
 *
 *   p50, p99, p99.9, max   of the calls; what the machine does beside them is in the last ones
 *   calls                  that were timed: less than 100,000 where they would take too long
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "clock.h"

enum { CALLS = 100000 };
static const double most_seconds = 10.0;

static const struct bench_shape shapes[] = {
    {1, 1, 1, 1, 16, 0, 1, NULL},     /* the smallest call */
    {12, 12, 64, 64, 32, 0, 1, NULL}, /* a sentence in MiniLM */
    {12, 12, 64, 64, 32, 0, 2, NULL},
};

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The smallest value that the share `part` of the sorted values does not exceed. */
static double percentile(const double *sorted, int count, double part) {
    int index = (int)ceil(part * count) - 1;
    return sorted[index < 0 ? 0 : index];
}

/* Seconds of each call; returns how many calls there were, and in *status how the last one ended.
 */
static int time_each(const struct bench_work *work, double *seconds, qkv_status *status) {
    const double end = clock_seconds() + most_seconds;
    double before = clock_seconds();
    int count = 0;
    *status = work->call(work->argument);
    while (*status == QKV_OK && count < CALLS && before < end) {
        before = clock_seconds();
        *status = work->call(work->argument);
        seconds[count++] = clock_seconds() - before;
    }
    return count;
}

static void report(gb_state *state, double *seconds, int count) {
    double sum = 0.0;
    for (int i = 0; i < count; i++)
        sum += seconds[i];
    gb_time(state, sum / count);
    qsort(seconds, (size_t)count, sizeof(*seconds), compare);
    gb_counter(state, "p50", 1e6 * percentile(seconds, count, 0.5));
    gb_counter(state, "p99", 1e6 * percentile(seconds, count, 0.99));
    gb_counter(state, "p99.9", 1e6 * percentile(seconds, count, 0.999));
    gb_counter(state, "max", 1e6 * seconds[count - 1]);
    gb_counter(state, "calls", count);
}

void bench_measure_latency(gb_state *state, const struct bench_work *work) {
    static double seconds[CALLS];
    qkv_status status;
    while (gb_next(state, 1) > 0) {
        int count = time_each(work, seconds, &status);
        if (status != QKV_OK) {
            bench_fail(state, status);
            return;
        }
        report(state, seconds, count);
        bench_report_plan(state, work);
    }
}

static void run(gb_state *state, void *user) {
    bench_stage_run(state, &bench_attention, user, QKV_EXP_SLEEF_U10, bench_measure_latency);
}

/* The same with a plan that is made once. */
static qkv_plan standing;

static qkv_status make_standing(qkv_plan *plan, const qkv_attention_params *params,
                                const qkv_context *context) {
    const qkv_status status = qkv_attention_plan(plan, params, context);
    standing = *plan;
    return status;
}

static qkv_status execute(const qkv_attention_params *params, const qkv_tensors *tensors,
                          const qkv_exec *exec) {
    (void)params;
    return qkv_execute(&standing, tensors, exec);
}

static void run_planned(gb_state *state, void *user) {
    struct bench_stage planned = bench_attention;
    planned.plan = make_standing;
    planned.run = execute;
    bench_stage_run(state, &planned, user, QKV_EXP_SLEEF_U10, bench_measure_latency);
}

static void do_nothing(void *argument, int worker, int64_t begin, int64_t end) {
    (void)argument;
    (void)worker;
    (void)begin;
    (void)end;
}

static qkv_status run_nothing(const void *argument) {
    return pool_run(*(struct pool *const *)argument, 2, 2, do_nothing, NULL);
}

static void run_pool(gb_state *state, void *user) {
    (void)user;
    struct pool *pool = pool_open(2);
    const struct bench_work work = {
        .call = run_nothing, .argument = &pool, .threads = 2, .threads_used = 2};
    if (pool)
        bench_measure_latency(state, &work);
    else
        gb_skip(state, "skipped: no threads");
    pool_close(pool);
}

void latency_register(void) {
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        char shape[BENCH_NAME];
        char planned[BENCH_NAME + sizeof("_planned")];
        char name[2 * BENCH_NAME];
        bench_shape_name(shape, &shapes[i]);
        bench_name(name, "latency", "f32", shape, shapes[i].threads);
        gb_register_once(name, run, (void *)(uintptr_t)&shapes[i]);
        snprintf(planned, sizeof planned, "%s_planned", shape);
        bench_name(name, "latency", "f32", planned, shapes[i].threads);
        gb_register_once(name, run_planned, (void *)(uintptr_t)&shapes[i]);
    }
    gb_register_once("latency/pool_2parts/threads:2", run_pool, NULL);
}
