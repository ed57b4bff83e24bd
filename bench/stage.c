/* SPDX-License-Identifier: Apache-2.0 */
/* The stages that share qkv_attention_params: a call of one of them as work to be measured. */
#include "bench.h"

int bench_exec(gb_state *state, struct bench_memory *memory, qkv_exec *exec, const qkv_plan *plan,
               struct pool *pool, int threads, struct bench_work *work) {
    qkv_exec_init(exec);
    exec->context = &bench_room.context;
    exec->threads = threads;
    exec->workspace_size = qkv_plan_workspace(plan, threads);
    exec->workspace = bench_bytes(memory, exec->workspace_size);
    exec->parallel_for = pool ? pool_run : NULL;
    exec->pool = pool;
    if (memory->failed || (threads > 1 && !pool)) {
        gb_skip(state, memory->failed ? "skipped: not enough memory" : "skipped: no threads");
        return -1;
    }
    work->threads = threads;
    work->pool = pool;
    work->threads_used = plan->threads < threads ? plan->threads : threads;
    work->ws_shared = plan->workspace_shared;
    work->ws_worker = plan->workspace_worker;
    return 0;
}

void bench_run_threads(gb_state *state, struct bench_memory *memory, bench_prepare_fn *prepare,
                       const void *shape, int threads, void *call, void *call_alone) {
    struct pool *pool = threads > 1 ? pool_open(threads) : NULL;
    struct bench_work work, alone;
    if (prepare(state, memory, call, pool, threads, shape, &work) == 0 &&
        prepare(state, memory, call_alone, NULL, 1, shape, &alone) == 0) {
        work.alone = threads > 1 ? &alone : NULL;
        bench_measure(state, &work);
    }
    pool_close(pool);
    bench_free(memory);
}

static qkv_status run_call(const void *argument) {
    const struct bench_call *call = argument;
    if (call->stage->run_backward)
        return call->stage->run_backward(&call->params, &call->tensors, &call->gradients,
                                         &call->exec);
    return call->stage->run(&call->params, &call->tensors, &call->exec);
}

int bench_call_prepare(gb_state *state, struct bench_memory *memory, struct bench_call *call,
                       struct pool *pool, int threads, struct bench_work *work) {
    qkv_plan plan;
    qkv_status status = call->stage->plan(&plan, &call->params, &bench_room.context);
    if (status != QKV_OK) {
        bench_fail(state, status);
        return -1;
    }
    work->call = run_call;
    work->argument = call;
    return bench_exec(state, memory, &call->exec, &plan, pool, threads, work);
}

void bench_stage_run(gb_state *state, const struct bench_stage *stage,
                     const struct bench_shape *shape, int exp, bench_measure_fn *measure) {
    struct pool *pool = shape->threads > 1 ? pool_open(shape->threads) : NULL;
    struct bench_memory memory = {.count = 0};
    struct bench_call call = {.stage = stage};
    struct bench_work work = {.flops = stage->flops(shape), .bytes = stage->bytes(shape)};
    struct bench_work alone = work;
    bench_shape_params(&call.params, shape);
    call.params.exp = exp;
    qkv_tensors_init(&call.tensors);
    stage->fill(&call.tensors, &memory, shape);
    qkv_gradients_init(&call.gradients);
    if (stage->fill_gradients)
        stage->fill_gradients(&call.gradients, &memory, shape);
    struct bench_call call_alone = call;
    if (shape->threads > 1)
        work.alone = &alone;
    if (bench_call_prepare(state, &memory, &call, pool, shape->threads, &work) == 0 &&
        bench_call_prepare(state, &memory, &call_alone, NULL, 1, &alone) == 0)
        measure(state, &work);
    bench_free(&memory);
    pool_close(pool);
}

void bench_stage_register(const char *name, const struct bench_stage *stage,
                          const struct bench_shape *shapes, size_t count, gb_function *function) {
    for (size_t i = 0; i < count; i++) {
        char shape[BENCH_NAME];
        bench_shape_name(shape, &shapes[i]);
        bench_register(name, shape, shapes[i].threads, stage->flops(&shapes[i]), function,
                       &shapes[i]);
    }
}
