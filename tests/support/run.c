/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one call of any stage in every way the API offers. */
#include "run.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include <qkv/cache.h>

#include "case.h"
#include "guard.h"
#include "rng.h"

enum { WORKERS_MAX = 16 };

/* ---- The backward stages, by their number ---- */

static const struct {
    qkv_status (*plan)(qkv_plan *, const qkv_attention_params *, const qkv_context *);
    qkv_status (*call)(const qkv_attention_params *, const qkv_tensors *, const qkv_gradients *,
                       const qkv_exec *);
} backward[QKV_STAGE_COUNT] = {
    [QKV_STAGE_SCORES_BACKWARD] = {qkv_scores_backward_plan, qkv_scores_backward},
    [QKV_STAGE_SOFTMAX_BACKWARD] = {qkv_softmax_backward_plan, qkv_softmax_backward},
    [QKV_STAGE_MIX_BACKWARD] = {qkv_mix_backward_plan, qkv_mix_backward},
    [QKV_STAGE_ATTENTION_BACKWARD] = {qkv_attention_backward_plan, qkv_attention_backward},
};

/* ---- One set of functions for all stages ---- */

static qkv_status make_append_plan(const struct call *call, qkv_plan *plan) {
    const struct append_call *a = call->params;
    return qkv_append_plan(plan, a->params, a->cache, call->context);
}

static qkv_status call_append(const struct call *call, const qkv_exec *exec) {
    const struct append_call *a = call->params;
    return qkv_append(a->params, a->cache, call->tensors, exec);
}

static qkv_status make_decode_plan(qkv_plan *plan, const struct decode_params *p,
                                   const qkv_context *context) {
    return qkv_decode_plan(plan, p->params, p->cache, p->sequences, context);
}

static qkv_status call_decode(const struct decode_params *p, const qkv_tensors *tensors,
                              const qkv_exec *exec) {
    return qkv_decode(p->params, tensors, p->cache, p->sequences, exec);
}

static qkv_status make_plan(const struct call *call, qkv_plan *plan) {
    if (stage_is_backward(call->stage))
        return backward[call->stage].plan(plan, call->params, call->context);
    switch (call->stage) {
    case QKV_STAGE_APPEND:
        return make_append_plan(call, plan);
    case QKV_STAGE_ROTATE:
        return qkv_rotate_plan(plan, call->params, call->context);
    case QKV_STAGE_PROJECT:
        return qkv_project_plan(plan, call->params, call->context);
    case QKV_STAGE_PROJECT_BACKWARD:
        return qkv_project_backward_plan(plan, call->params, call->context);
    case QKV_STAGE_SCORES:
        return qkv_scores_plan(plan, call->params, call->context);
    case QKV_STAGE_SOFTMAX:
        return qkv_softmax_plan(plan, call->params, call->context);
    case QKV_STAGE_MIX:
        return qkv_mix_plan(plan, call->params, call->context);
    case QKV_STAGE_LOSS:
        return qkv_loss_plan(plan, call->params, call->context);
    case QKV_STAGE_DESCENT:
        return qkv_descent_plan(plan, call->params, call->context);
    case QKV_STAGE_MERGE:
        return qkv_merge_plan(plan, call->params, call->context);
    case QKV_STAGE_DECODE:
        return make_decode_plan(plan, call->params, call->context);
    default:
        return qkv_attention_plan(plan, call->params, call->context);
    }
}

static qkv_status call_gradients(const struct call *call, const qkv_exec *exec) {
    const struct project_backward_tensors *t = call->tensors;
    return qkv_project_backward(call->params, t->tensors, t->gradients, exec);
}

static qkv_status call_plain(const struct call *call, const qkv_exec *exec) {
    if (stage_is_backward(call->stage)) {
        const struct backward_tensors *t = call->tensors;
        return backward[call->stage].call(call->params, t->tensors, t->gradients, exec);
    }
    switch (call->stage) {
    case QKV_STAGE_APPEND:
        return call_append(call, exec);
    case QKV_STAGE_ROTATE:
        return qkv_rotate(call->params, call->tensors, exec);
    case QKV_STAGE_PROJECT:
        return qkv_project(call->params, call->tensors, exec);
    case QKV_STAGE_PROJECT_BACKWARD:
        return call_gradients(call, exec);
    case QKV_STAGE_SCORES:
        return qkv_scores(call->params, call->tensors, exec);
    case QKV_STAGE_SOFTMAX:
        return qkv_softmax(call->params, call->tensors, exec);
    case QKV_STAGE_MIX:
        return qkv_mix(call->params, call->tensors, exec);
    case QKV_STAGE_LOSS:
        return qkv_loss(call->params, call->tensors, exec);
    case QKV_STAGE_DESCENT:
        return qkv_descent(call->params, call->tensors, exec);
    case QKV_STAGE_MERGE:
        return qkv_merge(call->params, call->tensors, exec);
    case QKV_STAGE_DECODE:
        return call_decode(call->params, call->tensors, exec);
    default:
        return qkv_attention(call->params, call->tensors, exec);
    }
}

static qkv_status run_gradients(const qkv_plan *plan, const struct project_backward_tensors *t,
                                int32_t phase, int64_t begin, int64_t end,
                                const qkv_workspace *workspace) {
    return qkv_project_backward_run(plan, t->tensors, t->gradients, phase, begin, end, workspace);
}

static qkv_status run_parts(const struct call *call, const qkv_plan *plan, int32_t phase,
                            int64_t begin, int64_t end, const qkv_workspace *workspace) {
    if (stage_is_backward(call->stage)) {
        const struct backward_tensors *t = call->tensors;
        return qkv_backward_run(plan, t->tensors, t->gradients, phase, begin, end, workspace);
    }
    switch (call->stage) {
    case QKV_STAGE_APPEND:
        return qkv_append_run(plan, call->tensors, phase, begin, end, workspace);
    case QKV_STAGE_ROTATE:
        return qkv_rotate_run(plan, call->tensors, phase, begin, end, workspace);
    case QKV_STAGE_PROJECT:
        return qkv_project_run(plan, call->tensors, phase, begin, end, workspace);
    case QKV_STAGE_PROJECT_BACKWARD:
        return run_gradients(plan, call->tensors, phase, begin, end, workspace);
    case QKV_STAGE_LOSS:
        return qkv_loss_run(plan, call->tensors, phase, begin, end, workspace);
    case QKV_STAGE_DESCENT:
        return qkv_descent_run(plan, call->tensors, phase, begin, end, workspace);
    case QKV_STAGE_MERGE:
        return qkv_merge_run(plan, call->tensors, phase, begin, end, workspace);
    case QKV_STAGE_DECODE:
        return qkv_decode_run(plan, call->tensors, phase, begin, end, workspace);
    default:
        return qkv_run(plan, call->tensors, phase, begin, end, workspace);
    }
}

static struct verdict judge(qkv_status status, const char *what) {
    if (status == QKV_OK)
        return verdict_ok();
    return verdict_fail("%s: %s", what, qkv_status_string(status));
}

/* ---- The plain call ---- */

struct pool_job {
    qkv_task task;
    void *argument;
    atomic_llong next;
    int64_t parts;
};

struct pool_thread {
    struct pool_job *job;
    pthread_t thread;
    int worker;
};

static void *work(void *argument) {
    struct pool_thread *self = argument;
    for (;;) {
        int64_t part = atomic_fetch_add(&self->job->next, 1);
        if (part >= self->job->parts)
            return NULL;
        self->job->task(self->job->argument, self->worker, part, part + 1);
    }
}

int run_parallel_for(void *pool, int threads, int64_t parts, qkv_task task, void *argument) {
    (void)pool;
    struct pool_job job = {.task = task, .argument = argument, .parts = parts};
    struct pool_thread all[WORKERS_MAX];
    int started = 0;
    for (; started < threads && started < WORKERS_MAX; started++) {
        all[started] = (struct pool_thread){.job = &job, .worker = started};
        if (pthread_create(&all[started].thread, NULL, work, &all[started]) != 0)
            break;
    }
    for (int i = 0; i < started; i++)
        pthread_join(all[i].thread, NULL);
    return started == 0;
}

/* A call that makes a plan of its own; or with the one that stands, where the stage takes it. */
static qkv_status call_whole(const struct call *call, const qkv_plan *plan, uint64_t seed,
                             const qkv_exec *exec) {
    const int stage = call->stage;
    const bool stands = seed / WAY_COUNT & 1; /* in every way, which is seed % WAY_COUNT */
    if (stands && stage == QKV_STAGE_PROJECT)
        return qkv_project_execute(plan, call->tensors, exec);
    if (stands &&
        ((stage >= QKV_STAGE_SCORES && stage <= QKV_STAGE_ATTENTION) || stage == QKV_STAGE_DECODE))
        return qkv_execute(plan, call->tensors, exec);
    return call_plain(call, exec);
}

static struct verdict run_plain(const struct call *call, const qkv_plan *plan, struct how how) {
    const int threads = how.way == WAY_POOL ? how.threads : 1;
    size_t size = qkv_plan_workspace(plan, threads);
    struct guard workspace = guard_alloc(size, QKV_ALIGNMENT, GUARD_END, 0);
    qkv_exec exec;
    qkv_exec_init(&exec);
    exec.context = call->context;
    exec.workspace = workspace.data;
    exec.workspace_size = size;
    exec.parallel_for = threads > 1 ? run_parallel_for : NULL;
    exec.threads = threads;
    struct verdict verdict = judge(call_whole(call, plan, how.seed, &exec), "the call");
    if (verdict.ok && !guard_intact(&workspace))
        verdict = verdict_fail("bytes beside the workspace were written");
    guard_free(&workspace);
    return verdict;
}

/* ---- Plan and run ---- */

struct runner {
    const struct call *call;
    const qkv_plan *plan;
    int32_t phase;
    atomic_int status;
    struct guard shared, worker[WORKERS_MAX];
};

static void run_range(void *argument, int worker, int64_t begin, int64_t end) {
    struct runner *r = argument;
    qkv_workspace workspace = {r->shared.data, r->shared.size, r->worker[worker].data,
                               r->worker[worker].size};
    qkv_status status = run_parts(r->call, r->plan, r->phase, begin, end, &workspace);
    if (status != QKV_OK)
        atomic_store(&r->status, status);
}

/* Cuts [begin, end) at random and runs the two sides in random order. */
static void run_random(struct runner *r, struct rng *rng, int64_t begin, int64_t end) {
    if (end - begin < 2 || rng_chance(rng, 4)) {
        run_range(r, (int)rng_below(rng, 2), begin, end);
        return;
    }
    int64_t cut = begin + 1 + rng_below(rng, end - begin - 1);
    bool left_first = rng_chance(rng, 2);
    if (left_first)
        run_random(r, rng, begin, cut);
    run_random(r, rng, cut, end);
    if (!left_first)
        run_random(r, rng, begin, cut);
}

static void run_phase(struct runner *r, struct how how, struct rng *rng) {
    int64_t parts = r->plan->parts[r->phase];
    switch (how.way) {
    case WAY_THREADS:
        if (run_parallel_for(NULL, how.threads, parts, run_range, r) != 0)
            atomic_store(&r->status, 1);
        break;
    case WAY_RANDOM:
        run_random(r, rng, 0, parts);
        break;
    default:
        for (int64_t i = 0; i < parts; i++) {
            int64_t part = how.way == WAY_REVERSED ? parts - 1 - i : i;
            run_range(r, 0, part, part + 1);
        }
    }
}

static void make_workspaces(struct runner *r, int workers, uint64_t seed) {
    enum guard_side side = seed & 1 ? GUARD_BEGIN : GUARD_END;
    r->shared = guard_alloc(r->plan->workspace_shared, QKV_ALIGNMENT, side, 0);
    for (int i = 0; i < workers; i++)
        r->worker[i] = guard_alloc(r->plan->workspace_worker, QKV_ALIGNMENT, side, 0);
}

static bool free_workspaces(struct runner *r) {
    bool intact = guard_intact(&r->shared);
    guard_free(&r->shared);
    for (int i = 0; i < WORKERS_MAX && r->worker[i].pages; i++) {
        intact = intact && guard_intact(&r->worker[i]);
        guard_free(&r->worker[i]);
    }
    return intact;
}

static struct verdict run_planned(const struct call *call, const qkv_plan *plan, struct how how) {
    struct rng rng = rng_seeded(how.seed);
    struct runner r = {.call = call, .plan = plan};
    make_workspaces(&r, how.way == WAY_THREADS ? how.threads : 2, how.seed);
    for (r.phase = 0; r.phase < plan->phases; r.phase++)
        run_phase(&r, how, &rng);
    bool intact = free_workspaces(&r);
    struct verdict verdict = judge(atomic_load(&r.status), "a run");
    if (verdict.ok && !intact)
        return verdict_fail("bytes beside a workspace were written");
    return verdict;
}

struct verdict run_call(const struct call *call, struct how how) {
    qkv_plan plan;
    struct verdict verdict = judge(make_plan(call, &plan), "the plan");
    if (!verdict.ok)
        return verdict;
    if (how.way == WAY_PLAIN || how.way == WAY_POOL)
        return run_plain(call, &plan, how);
    return run_planned(call, &plan, how);
}

const char *run_way_name(struct how how) {
    static const char *const names[WAY_COUNT] = {
        [WAY_PLAIN] = "in one call",   [WAY_POOL] = "by a pool of threads",
        [WAY_THREADS] = "by threads",  [WAY_ONE_BY_ONE] = "part by part",
        [WAY_REVERSED] = "in reverse", [WAY_RANDOM] = "in random ranges",
    };
    static _Thread_local char text[64];
    snprintf(text, sizeof text, "%s (%d threads)", names[how.way], how.threads);
    return text;
}
