/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark files share: the room under test, memory with inputs in it, and the
 * measurement of one piece of work.
 *
 * How a figure comes about: Google Benchmark says how many calls it wants; they run in
 * repetitions of about 20 ms, with a sample of the room's FMA peak right before and after each.
 * A repetition is thrown away and run again if either sample is more than 5 % off the median of
 * the last samples, or if the threads did not have their CPUs. Where the machine does not calm
 * down, the quickest of a few tries is kept and counted in `noisy`. Counters:
 *
 *   GFLOPS            the formula's flops (masked keys excluded), whatever the kernel does
 *   pct_peak          of the median of the peaks, times the number of threads
 *   bytes_per_second  inputs and outputs, each once
 *   pct_read          work whose inputs come from memory: of the speed at which the room reads
 *                     these inputs, in the best of some ways, sampled after each repetition
 *   pct_copy          work that changes more than the caches hold in place: of the speed at which
 *                     the room copies memory onto itself, bytes read and written; sampled likewise
 *   pct_roof          work on a cache: of what reading it and the arithmetic leave possible (roof.h)
 *   bytes             of the cache, which one call reads
 *   roof_speedup      several threads: the roof's time with one over that with all of them
 *   ws_shared         bytes that the plan asks for: shared by all threads,
 *   ws_worker         and for each
 *   threads_used      of those in the name, as many as the plan finds the shape worth
 *   speedup           several threads: over one thread, in turn with it in each repetition
 *   peak_speedup      the same of the FMA peak: what the machine has to give at that moment (on a
 *                     virtual machine two CPUs may be one core)
 *   pct_plain         options only: see options.c
 *   noisy             repetitions of which every try was disturbed
 */
#ifndef QKV_BENCH_BENCH_H
#define QKV_BENCH_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include <qkv/qkv.h>

#include "gbench.h"
#include "peak.h"
#include "pool.h"
#include "roof.h"

/* ---- The room under test (room.c) -------------------------------------------------------- */

struct bench_room {
    const char *name;
    qkv_context context;
    struct peak_log peak;
    double longest; /* flops; a call of more would take too long in this room */
    int left_out;   /* shapes that would */
    int all_tiers;  /* the exponential tiers that are measured on request, too */
    int failed;     /* a call of the library returned an error */
};

extern struct bench_room bench_room;

/* 0, or -1 if the library or the CPU lacks the room. */
int bench_room_open(int isa);

/* Measures the peak and, unless all shapes are wanted, how long a call may be. */
void bench_room_measure(int all_shapes);

/* ---- Memory (memory.c) ------------------------------------------------------------------- */

enum { BENCH_BLOCKS = 24, BENCH_NAME = 160 };

/* The blocks of one benchmark. After a failed allocation the others return NULL too. */
struct bench_memory {
    void *block[BENCH_BLOCKS];
    int count;
    int failed;
    size_t drawn; /* numbers drawn so far, so that inputs differ from each other */
};

/* 64 random bits (splitmix64: Steele, Lea and Flood 2014). */
uint64_t bench_random(uint64_t *state);

/* Aligned to QKV_ALIGNMENT; zeros, or normally distributed numbers from a fixed seed. */
void *bench_bytes(struct bench_memory *memory, size_t bytes);
float *bench_zeros(struct bench_memory *memory, int64_t count);
float *bench_normal(struct bench_memory *memory, int64_t count);
void bench_free(struct bench_memory *memory);

/* ---- Measuring (measure.c) --------------------------------------------------------------- */

struct bench_work {
    qkv_status (*call)(const void *argument);
    const void *argument;
    double flops;
    double bytes;
    struct peak_region inputs[3]; /* most of the inputs, if they are more than the caches hold */
    int updates_memory; /* so are the arrays that it changes in place; bytes: read and written */
    const struct roof *roof; /* of a cache that the call reads, or NULL */
    size_t ws_shared, ws_worker;
    int threads;
    struct pool *pool;              /* of several threads; NULL for one */
    int threads_used;               /* of these: what the plan finds the shape worth */
    double keys;                    /* with plain: keys of the blocks that the masks leave */
    const struct bench_work *plain; /* measured in turn with this one, or NULL */
    const struct bench_work *alone; /* the same, on one thread */
};

typedef void bench_measure_fn(gb_state *state, const struct bench_work *work);

bench_measure_fn bench_measure;

/* What the plan asks for, as counters. */
void bench_report_plan(gb_state *state, const struct bench_work *work);

/* Measures how long single calls take (latency.c). */
bench_measure_fn bench_measure_latency;

/* Skips the benchmark because of a failed call; the program will exit with a failure. */
void bench_fail(gb_state *state, qkv_status status);

/* ---- Names and shapes (shape.c) ---------------------------------------------------------- */

struct bench_shape {
    int heads;
    int kv_heads;
    int q_len;
    int kv_len;
    int head_dim; /* 0: none in the name */
    int causal;
    int threads;
    const char *variant; /* appended to the name, or NULL */
};

/* Registers stage/f32/<room>/<shape>[/threads:N], or counts it as left out if one call has too
 * many flops for this room. typed: another type than f32. */
void bench_register(const char *stage, const char *shape, int threads, double flops,
                    gb_function *function, const void *user);
void bench_register_typed(const char *stage, const char *type, const char *shape, int threads,
                          double flops, gb_function *function, const void *user);
/* The name that they give. */
void bench_name(char name[2 * BENCH_NAME], const char *stage, const char *type, const char *shape,
                int threads);
void bench_shape_name(char name[BENCH_NAME], const struct bench_shape *shape);

/* q * kv * head_dim over all heads, half of it for causal. */
double bench_shape_products(const struct bench_shape *shape);

void bench_shape_params(qkv_attention_params *params, const struct bench_shape *shape);

/* ---- The stages of attention and their gradients (stage.c) ------------------------------- */

struct bench_stage {
    qkv_status (*plan)(qkv_plan *plan, const qkv_attention_params *params,
                       const qkv_context *context);
    qkv_status (*run)(const qkv_attention_params *params, const qkv_tensors *tensors,
                      const qkv_exec *exec);
    double (*flops)(const struct bench_shape *shape);
    double (*bytes)(const struct bench_shape *shape);
    void (*fill)(qkv_tensors *tensors, struct bench_memory *memory,
                 const struct bench_shape *shape);
    /* Instead of run, and beside fill, for a backward stage: */
    qkv_status (*run_backward)(const qkv_attention_params *params, const qkv_tensors *tensors,
                               const qkv_gradients *gradients, const qkv_exec *exec);
    void (*fill_gradients)(qkv_gradients *gradients, struct bench_memory *memory,
                           const struct bench_shape *shape);
};

/* Registers one benchmark a shape, name first. function hands its shape on to bench_stage_run. */
void bench_stage_register(const char *name, const struct bench_stage *stage,
                          const struct bench_shape *shapes, size_t count, gb_function *function);
void bench_stage_run(gb_state *state, const struct bench_stage *stage,
                     const struct bench_shape *shape, int exp, bench_measure_fn *measure);

/* A call ready to run; the workspace is in `memory`. */
struct bench_call {
    const struct bench_stage *stage;
    qkv_attention_params params;
    qkv_tensors tensors;
    qkv_gradients gradients;
    qkv_exec exec;
};

extern const struct bench_stage bench_attention;

/* Plans the call whose stage, params and tensors are set, for one thread or with the pool; says
 * in work how to run it. 0, or -1 with the benchmark skipped. */
int bench_call_prepare(gb_state *state, struct bench_memory *memory, struct bench_call *call,
                       struct pool *pool, int threads, struct bench_work *work);

/* Workspace and threads for a plan, which work is told of. 0, or -1 with the benchmark skipped. */
int bench_exec(gb_state *state, struct bench_memory *memory, qkv_exec *exec, const qkv_plan *plan,
               struct pool *pool, int threads, struct bench_work *work);

/* Says in work how `call`, a copy of its own, is run for one thread or with the pool. 0, or -1 with
 * the benchmark skipped. */
typedef int bench_prepare_fn(gb_state *state, struct bench_memory *memory, void *call,
                             struct pool *pool, int threads, const void *shape,
                             struct bench_work *work);

/* Measures a call; several threads in turn with one, for which there is a second copy of it. Frees
 * the memory. */
void bench_run_threads(gb_state *state, struct bench_memory *memory, bench_prepare_fn *prepare,
                       const void *shape, int threads, void *call, void *call_alone);

/* ---- The files of the stages ------------------------------------------------------------- */

void project_register(void);
void project_backward_register(void);
void scores_register(void);
void softmax_register(void);
void mix_register(void);
void attention_register(void);
void chain_register(void);
void learning_register(void);
void latency_register(void);
void options_register(void);
void loss_register(void);
void descent_register(void);
void merge_register(void);
void decode_register(void);
void decode_step_register(void);
void append_register(void);

#endif
