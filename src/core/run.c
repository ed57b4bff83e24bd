/* SPDX-License-Identifier: Apache-2.0 */
/* From a plan to its phases: the checks, and the caller's threads (run.h). */
#include "run.h"

#include <stdatomic.h>

#include "context.h"
#include "param_size.h"
#include "problem.h"
#include "status.h"

void qkv_exec_init(qkv_exec *exec) {
    *exec = (qkv_exec){.size = sizeof(*exec), .threads = 1};
}

size_t qkv_plan_workspace(const qkv_plan *plan, int threads) {
    size_t workers, all;
    if (!plan || threads < 1)
        return SIZE_MAX;
    if (__builtin_mul_overflow(plan->workspace_worker, (size_t)threads, &workers) ||
        __builtin_add_overflow(plan->workspace_shared, workers, &all))
        return SIZE_MAX;
    return all;
}

qkv_status qkv_check_plan(const qkv_plan *plan) {
    if (!plan)
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_NULL);
    if ((uintptr_t)plan % _Alignof(qkv_plan))
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_MISALIGNED);
    return QKV_OK;
}

/* A thread more for every 200 thousand flops, which take some three microseconds of a vector room:
 * ten times what it costs to share them with a thread that is awake. (Whether one that sleeps is
 * worth waking is for the pool to see.) Never more than there are parts. */
int32_t qkv_worth_threads(double flops, int64_t parts) {
    double threads = 1.0 + flops * (1 / 2e5);
    threads = threads < (double)parts ? threads : (double)parts;
    return threads < 1.0 ? 1 : threads > INT32_MAX ? INT32_MAX : (int32_t)threads;
}

size_t qkv_set_apart(size_t bytes) {
    return bytes ? bytes + 2 * QKV_ALIGNMENT : 0;
}

qkv_status qkv_check_context(const qkv_context *context) {
    if ((uintptr_t)context % _Alignof(qkv_context))
        return qkv_fail(QKV_ARG_CONTEXT, QKV_FAULT_MISALIGNED);
    return qkv_context_get(context) ? QKV_OK : qkv_fail(QKV_ARG_CONTEXT, QKV_FAULT_STALE);
}

static qkv_status check_memory(const void *memory, size_t size, size_t needed, qkv_arg arg) {
    if (needed == 0)
        return QKV_OK;
    if (!memory)
        return qkv_fail(arg, QKV_FAULT_NULL);
    if ((uintptr_t)memory % QKV_ALIGNMENT)
        return qkv_fail(arg, QKV_FAULT_MISALIGNED);
    return size < needed ? qkv_fail(arg, QKV_FAULT_TOO_SMALL) : QKV_OK;
}

qkv_status qkv_check_run(const qkv_plan *plan, int32_t phase, int64_t begin, int64_t end,
                         const qkv_workspace *w) {
    if (phase < 0 || phase >= plan->phases)
        return qkv_fail(QKV_ARG_PHASE, QKV_FAULT_RANGE);
    if (begin < 0 || begin > plan->parts[phase])
        return qkv_fail(QKV_ARG_BEGIN, QKV_FAULT_RANGE);
    if (end < begin || end > plan->parts[phase])
        return qkv_fail(QKV_ARG_END, QKV_FAULT_RANGE);
    if (!w)
        return qkv_fail(QKV_ARG_WORKSPACE, QKV_FAULT_NULL);
    if ((uintptr_t)w % _Alignof(qkv_workspace))
        return qkv_fail(QKV_ARG_WORKSPACE, QKV_FAULT_MISALIGNED);
    TRY(check_memory(w->shared, w->shared_size, plan->workspace_shared, QKV_ARG_WORKSPACE_SHARED));
    return check_memory(w->worker, w->worker_size, plan->workspace_worker,
                        QKV_ARG_WORKSPACE_WORKER);
}

qkv_status qkv_take_exec(qkv_exec *own, const qkv_exec *exec) {
    if (!exec) {
        qkv_exec_init(own);
        return QKV_OK;
    }
    TRY(qkv_take_struct(own, sizeof(*own), exec, sizeof(*own), QKV_ARG_EXEC));
    if (own->reserved)
        return qkv_fail(QKV_ARG_EXEC, QKV_FAULT_FUTURE);
    if (own->threads < 1)
        return qkv_fail(QKV_ARG_THREADS, QKV_FAULT_RANGE);
    return QKV_OK;
}

/* More threads than the plan has a use for are not used, and need no workspace. */
static int threads_of(const qkv_plan *plan, const qkv_exec *exec) {
    if (!exec->parallel_for)
        return 1;
    return exec->threads < plan->threads ? exec->threads : plan->threads;
}

qkv_status qkv_check_exec(const qkv_plan *plan, const qkv_exec *exec) {
    return check_memory(exec->workspace, exec->workspace_size,
                        qkv_plan_workspace(plan, threads_of(plan, exec)), QKV_ARG_WORKSPACE);
}

/* What one worker has done of a job, as a sum of its ranges (range_of), in a pair of cache lines of
 * its own: a word that all of them wrote would travel between their cores with every range, and
 * what stands beside it as well. More workers than LANES share them; they take stack. */
enum { LANES = 4, LINES = 128 };

struct lane {
    _Alignas(LINES) _Atomic uint64_t done;
};

struct whole_run;
typedef void range_fn(const struct whole_run *w, int worker, int64_t begin, int64_t end);

/* A plan's run as the caller's threads see it. */
struct whole_run {
    const qkv_plan *plan;
    const qkv_exec *exec;
    qkv_run_fn *run;
    const void *job;
    int64_t groups;
    int32_t grouped;
    int32_t phase; /* the one under way, where phases follow each other */
    int threads;
    int64_t parts;      /* of the job that the caller's threads have */
    range_fn *range;    /* runs some of them */
    struct lane *lanes; /* where that is counted */
};

static qkv_workspace workspace_of(const struct whole_run *w, int worker) {
    const qkv_plan *plan = w->plan;
    char *memory = w->exec->workspace; /* NULL if the plan needs none */
    char *workers = memory ? memory + plan->workspace_shared : NULL;
    return (qkv_workspace){
        .shared = memory,
        .shared_size = plan->workspace_shared,
        .worker = workers ? workers + (size_t)worker * plan->workspace_worker : NULL,
        .worker_size = plan->workspace_worker,
    };
}

/* Parts of the phase under way. */
static void run_parts(const struct whole_run *w, int worker, int64_t begin, int64_t end) {
    const qkv_workspace workspace = workspace_of(w, worker);
    w->run(w->job, &workspace, w->phase, begin, end);
}

/* Groups of parts, each through all phases: what one phase leaves is still in the cache when the
 * next one wants it. */
static void run_groups(const struct whole_run *w, int worker, int64_t begin, int64_t end) {
    const qkv_workspace workspace = workspace_of(w, worker);
    for (int64_t g = begin; g < end; g++)
        for (int32_t phase = 0; phase < w->grouped; phase++) {
            const int64_t parts = w->plan->parts[phase] / w->groups;
            w->run(w->job, &workspace, phase, g * parts, (g + 1) * parts);
        }
}

/* A range stands for the difference of its ends, mixed. Ranges that follow each other then add up
 * to the one that they make together, in any order; others do so by a chance of 2^-64. */
static uint64_t range_of(int64_t begin, int64_t end) {
    return qkv_mix_bits((uint64_t)end) - qkv_mix_bits((uint64_t)begin);
}

/* A lane that nobody shares needs no locked instruction, which would wait until the line has come
 * from the caller's core. */
static void count_done(const struct whole_run *w, int worker, uint64_t range) {
    _Atomic uint64_t *done = &w->lanes[worker % LANES].done;
    if (w->threads > LANES)
        atomic_fetch_add_explicit(done, range, memory_order_relaxed);
    else
        atomic_store_explicit(done, atomic_load_explicit(done, memory_order_relaxed) + range,
                              memory_order_relaxed);
}

/* A task of the caller's threads, if it is one of the job's: workers and parts that are not there
 * have no memory. */
static void take_task(void *argument, int worker, int64_t begin, int64_t end) {
    const struct whole_run *w = argument;
    if (worker < 0 || worker >= w->threads || begin < 0 || end < begin || end > w->parts)
        return;
    count_done(w, worker, range_of(begin, end));
    w->range(w, worker, begin, end);
}

/* A parallel_for that says it is done has done all parts, each once. */
static qkv_status run_on_threads(struct whole_run *w) {
    struct lane lanes[LANES];
    uint64_t left = range_of(0, w->parts);

    w->lanes = lanes;
    for (int i = 0; i < LANES; i++)
        atomic_init(&lanes[i].done, 0);
    const int failed = w->exec->parallel_for(w->exec->pool, w->threads, w->parts, take_task, w);
    for (int i = 0; i < LANES; i++)
        left -= atomic_load_explicit(&lanes[i].done, memory_order_relaxed);
    return failed || left ? qkv_fail(QKV_ARG_PARALLEL_FOR, QKV_FAULT_FAILED) : QKV_OK;
}

static qkv_status run_on(struct whole_run *w, int64_t parts, range_fn *range) {
    w->parts = parts;
    w->range = range;
    if (w->threads > 1 && parts > 1)
        return run_on_threads(w);
    range(w, 0, 0, parts);
    return QKV_OK;
}

/* Threads that get as many groups each, or so many that one more or less does not matter, need not
 * wait for each other between the phases. */
static int groups_come_out_even(int64_t groups, int threads) {
    return groups % threads == 0 || groups >= (int64_t)16 * threads;
}

qkv_status qkv_run_all(const qkv_plan *plan, const qkv_exec *exec, int64_t groups, int32_t grouped,
                       qkv_run_fn *run, const void *job) {
    struct whole_run w = {
        .plan = plan,
        .exec = exec,
        .run = run,
        .job = job,
        .groups = groups,
        .grouped = grouped,
        .threads = threads_of(plan, exec),
    };
    if (grouped > 1 && groups_come_out_even(groups, w.threads)) {
        TRY(run_on(&w, groups, run_groups));
        w.phase = grouped;
    }
    for (; w.phase < plan->phases; w.phase++)
        TRY(run_on(&w, plan->parts[w.phase], run_parts));
    return QKV_OK;
}
