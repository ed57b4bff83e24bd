/* SPDX-License-Identifier: Apache-2.0 */
/* One piece of work measured: repetitions between samples of the peak, as bench.h says. */
#include <math.h>
#include <sys/resource.h>

#include "bench.h"
#include "clock.h"

static const double repetition_seconds = 20e-3;
enum { TRIES = 5, MOST_CALLS = 1 << 20 };

/* One repetition: seconds of the work, and of the other work in turn with it; and with a cache, how
 * long a call takes at least. */
struct trial {
    double seconds, other;
    double roof;
};

/* What the repetitions that count add up to. */
struct tally {
    struct trial sum;  /* roofs: times the calls */
    double read_rates; /* of the samples, summed */
    double copy_rates;
    double together; /* peaks of all threads over that of one, summed */
    int64_t calls;
    int repetitions;
    int noisy;
    double last_peak;
    struct roof_sample last_roof;
    qkv_status status;
};

void bench_fail(gb_state *state, qkv_status status) {
    bench_room.failed = 1;
    gb_skip(state, qkv_status_string(status));
}

static double time_calls(const struct bench_work *work, int64_t calls, struct tally *tally) {
    double start = clock_seconds();
    for (int64_t i = 0; i < calls && tally->status == QKV_OK; i++)
        tally->status = work->call(work->argument);
    return clock_seconds() - start;
}

/* What the system tells of CPUs that were given and taken away. */
struct cpu_use {
    double thread; /* seconds that the calling thread ran */
    long taken;    /* times that a thread of the program had to make way */
};

static struct cpu_use cpu_use(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (struct cpu_use){clock_thread_seconds(), usage.ru_nivcsw};
}

/* One thread ran all the time; of several, which wait for each other too, none had to make way
 * more often than an idle machine's housekeeping explains. */
static int had_cpus(const struct cpu_use *before, const struct cpu_use *after, int threads,
                    double seconds) {
    if (threads == 1)
        return seconds < 1.05 * (after->thread - before->thread);
    return (double)(after->taken - before->taken) <= 1.0 + 20.0 * seconds;
}

/* The work that is measured in turn with this one, or NULL. */
static const struct bench_work *other_of(const struct bench_work *work) {
    return work->plain ? work->plain : work->alone;
}

/* The roof between its last sample and a new one. *quiet: as long as reading takes nearly the same
 * in both. */
static double roof_between(const struct roof *roof, struct roof_sample *last, int *quiet) {
    const struct roof_sample before = *last;
    *last = roof_sample(roof, &bench_room.peak);
    *quiet &= last->reading < 1.05 * before.reading && before.reading < 1.05 * last->reading;
    return (roof_seconds(&before) + roof_seconds(last)) / 2.0;
}

/* The time of the work and of the other work in turn. 1 if nothing disturbed them: the peak and
 * the roof are what they were, and the threads had their CPUs. */
static int try_repetition(gb_state *state, const struct bench_work *work, int64_t calls,
                          struct trial *trial, struct tally *tally) {
    const struct cpu_use before = cpu_use();
    gb_resume(state);
    trial->seconds = time_calls(work, calls, tally);
    gb_pause(state);
    trial->other = other_of(work) ? time_calls(other_of(work), calls, tally) : 0.0;
    const struct cpu_use after = cpu_use();
    double last_peak = tally->last_peak;
    tally->last_peak = peak_sample(&bench_room.peak);
    int quiet = peak_is_near(&bench_room.peak, last_peak) &&
                peak_is_near(&bench_room.peak, tally->last_peak) &&
                had_cpus(&before, &after, work->threads, trial->seconds + trial->other);
    if (work->roof)
        trial->roof = roof_between(work->roof, &tally->last_roof, &quiet);
    return quiet;
}

static void count_trial(struct tally *tally, const struct trial *trial, int64_t calls) {
    tally->calls += calls;
    tally->sum.seconds += trial->seconds;
    tally->sum.other += trial->other;
    tally->sum.roof += trial->roof * (double)calls;
    tally->repetitions++;
}

/* One repetition that counts: the first that nothing disturbed, or else the quickest. */
static double repetition(gb_state *state, const struct bench_work *work, int64_t calls,
                         struct tally *tally) {
    struct trial best = {.seconds = INFINITY};
    int quiet = 0;
    for (int i = 0; i < TRIES && !quiet; i++) {
        struct trial trial = {.seconds = 0.0};
        quiet = try_repetition(state, work, calls, &trial, tally);
        if (quiet || trial.seconds + trial.other < best.seconds + best.other)
            best = trial;
    }
    tally->noisy += !quiet;
    count_trial(tally, &best, calls);
    if (work->inputs[0].data)
        tally->read_rates += peak_read_sample(bench_room.peak.kernel, work->inputs, 3);
    if (work->updates_memory)
        tally->copy_rates += peak_copy_sample(bench_room.peak.kernel);
    if (work->pool)
        tally->together += peak_sample_together(&bench_room.peak, work->pool, work->threads) /
                           peak_median(&bench_room.peak);
    return best.seconds;
}

/* The first call warms caches and the clock; the second says how many make a repetition. */
static int64_t calls_in_repetition(const struct bench_work *work, struct tally *tally) {
    time_calls(work, 1, tally);
    if (other_of(work))
        time_calls(other_of(work), 1, tally);
    double seconds = time_calls(work, 1, tally);
    double calls = repetition_seconds / (seconds + 1e-9);
    return calls < 1.0 ? 1 : calls > MOST_CALLS ? MOST_CALLS : (int64_t)calls;
}

void bench_report_plan(gb_state *state, const struct bench_work *work) {
    gb_counter(state, "ws_shared", (double)work->ws_shared);
    gb_counter(state, "ws_worker", (double)work->ws_worker);
    gb_counter(state, "threads_used", work->threads_used);
}

static void report_roof(gb_state *state, const struct bench_work *work, const struct tally *tally) {
    gb_counter(state, "bytes", work->bytes);
    gb_counter(state, "pct_roof", 100.0 * tally->sum.roof / tally->sum.seconds);
    if (work->alone) {
        const struct roof_sample alone = roof_sample(work->alone->roof, &bench_room.peak);
        gb_counter(state, "roof_speedup",
                   roof_seconds(&alone) * (double)tally->calls / tally->sum.roof);
    }
    const int is_memory = tally->last_roof.reading > tally->last_roof.arithmetic;
    gb_label(state, is_memory ? "roof: memory" : "roof: arithmetic");
}

static void report(gb_state *state, const struct bench_work *work, const struct tally *tally) {
    double rate = (double)tally->calls / tally->sum.seconds;
    double gflops = work->flops * rate * 1e-9;
    if (work->flops > 0.0) {
        gb_counter(state, "GFLOPS", gflops);
        gb_counter(state, "pct_peak",
                   100.0 * gflops / (peak_median(&bench_room.peak) * work->threads));
    }
    gb_counter(state, "bytes_per_second", work->bytes * rate);
    if (work->inputs[0].data && tally->read_rates > 0.0)
        gb_counter(state, "pct_read",
                   100.0 * work->bytes * rate * tally->repetitions / tally->read_rates);
    if (work->updates_memory && tally->copy_rates > 0.0)
        gb_counter(state, "pct_copy",
                   100.0 * work->bytes * rate * tally->repetitions / tally->copy_rates);
    if (work->roof)
        report_roof(state, work, tally);
    bench_report_plan(state, work);
    gb_counter(state, "noisy", tally->noisy);
    const double other_rate = (double)tally->calls / tally->sum.other;
    if (work->plain)
        gb_counter(state, "pct_plain",
                   100.0 * work->keys * rate / (work->plain->keys * other_rate));
    else if (work->alone)
        gb_counter(state, "speedup", rate / other_rate);
    if (work->pool)
        gb_counter(state, "peak_speedup", tally->together / tally->repetitions);
}

void bench_measure(gb_state *state, const struct bench_work *work) {
    struct tally tally = {.status = QKV_OK};
    int64_t most = calls_in_repetition(work, &tally);
    tally.last_peak = peak_sample(&bench_room.peak);
    if (work->roof)
        tally.last_roof = roof_sample(work->roof, &bench_room.peak);
    int64_t calls;
    while (tally.status == QKV_OK && (calls = gb_next(state, most)) > 0)
        gb_time(state, repetition(state, work, calls, &tally));
    if (tally.status == QKV_OK)
        report(state, work, &tally);
    else
        bench_fail(state, tally.status);
}
