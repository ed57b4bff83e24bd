/* SPDX-License-Identifier: Apache-2.0 */
/* The stages that share qkv_attention_params: a call of one of them as work to be measured. */
#include "bench.h"

int bench_exec(gb_state *state, struct bench_memory *memory, qkv_exec *exec, const qkv_plan *plan,
               struct pool *pool, int threads) {
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
    return 0;
}

static qkv_status run_call(const void *argument) {
    const struct bench_call *call = argument;
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
    work->threads = threads;
    work->workspace = qkv_plan_workspace(&plan, threads);
    return bench_exec(state, memory, &call->exec, &plan, pool, threads);
}

void bench_stage_run(gb_state *state, const struct bench_stage *stage,
                     const struct bench_shape *shape) {
    struct pool *pool = shape->threads > 1 ? pool_open(shape->threads) : NULL;
    struct bench_memory memory = {.count = 0};
    struct bench_call call = {.stage = stage};
    struct bench_work work = {.flops = stage->flops(shape), .bytes = stage->bytes(shape)};
    bench_shape_params(&call.params, shape);
    qkv_tensors_init(&call.tensors);
    stage->fill(&call.tensors, &memory, shape);
    if (bench_call_prepare(state, &memory, &call, pool, shape->threads, &work) == 0)
        bench_measure(state, &work);
    bench_free(&memory);
    pool_close(pool);
}

void bench_stage_register(const struct bench_stage *stage, const struct bench_shape *shapes,
                          size_t count, gb_function *function) {
    for (size_t i = 0; i < count; i++) {
        char name[BENCH_NAME];
        bench_shape_name(name, &shapes[i]);
        bench_register(stage->name, name, shapes[i].threads, stage->flops(&shapes[i]), function,
                       &shapes[i]);
    }
}
