/* SPDX-License-Identifier: Apache-2.0 */
/* How a call runs: the exec of the plain call, and plan, phase, parts and workspace of a run, for
 * every stage. */
#include "arguments.h"

#include "support/stages.h"

#include <string.h>

#define EXEC exec.now
#define IN_ANY (IN_ALL | IN_PROJECTS)
/* With those that need no memory of a worker, and no memory at all. */
#define IN_WORKING (IN_ANY | IN_LOSS)
#define IN_EVERY (IN_WORKING | IN_DESCENT)
/* Those whose plans can be run as a whole. */
#define IN_PLANNED (IN_ALL | IN_PROJECT)
/* The stages whose plan asks for shared memory here. */
#define IN_SHARING (IN_SCORES | IN_MIX | IN_ATTENTION | IN_PROJECT_BACKWARD | IN_LOSS)

static const struct fault_case exec_faults[] = {
    FAULT(IN_EVERY, EXEC, MISALIGNED, MOVE(exec_arg, 1)),
    FAULT(IN_EVERY, EXEC, MISALIGNED, MOVE(exec_arg, 4)),
    FAULT(IN_EVERY, EXEC, SIZE, INT64(EXEC.size, 0)),
    FAULT(IN_EVERY, EXEC, SIZE, INT64(EXEC.size, sizeof f.EXEC - 8)),
    FAULT(IN_EVERY, EXEC, SIZE, INT64(EXEC.size, -1)),
    FAULT(IN_EVERY, EXEC, FUTURE, INT64(EXEC.size, sizeof f.exec), INT64(exec.tail[1], 1)),
    FAULT(IN_EVERY, EXEC, FUTURE, INT32(EXEC.reserved, 1)),
    FINE(IN_EVERY, INT64(EXEC.size, sizeof f.exec)),
    FAULT(IN_EVERY, THREADS, RANGE, INT32(EXEC.threads, 0)),
    FAULT(IN_EVERY, THREADS, RANGE, INT32(EXEC.threads, -1)),
    FAULT(IN_EVERY, THREADS, RANGE, INT32(EXEC.threads, INT32_MIN)),
    FINE(IN_EVERY, INT32(EXEC.threads, INT32_MAX)),              /* of which one is used */
    FAULT(IN_WORKING, WORKSPACE, NULL, POINTER(exec_arg, NULL)), /* the default has no workspace */
    FAULT(IN_WORKING, WORKSPACE, NULL, POINTER(EXEC.workspace, NULL)),
    FAULT(IN_WORKING, WORKSPACE, MISALIGNED, MOVE(EXEC.workspace, 1)),
    FAULT(IN_WORKING, WORKSPACE, MISALIGNED, MOVE(EXEC.workspace, 32)),
    FAULT(IN_WORKING, WORKSPACE, TOO_SMALL, INT64(EXEC.workspace_size, 0)),
    FAULT(IN_WORKING, WORKSPACE, TOO_SMALL, MOVE(EXEC.workspace_size, -1)),
    FINE(IN_WORKING, MOVE(EXEC.workspace_size, 0)), /* exactly what the plan says */
};

/* Of a plan that stands, as a whole. Its own context is used, and not exec's. */
static const struct fault_case execute_faults[] = {
    FAULT(IN_PLANNED, PLAN, NULL, POINTER(run_arg, NULL)),
    FAULT(IN_PLANNED, PLAN, MISALIGNED, MOVE(run_arg, 4)),
    FAULT(IN_PLANNED, PLAN, STALE, POINTER(run_arg, &f.other)),
    FAULT(IN_PLANNED, PLAN, STALE, POINTER(run_arg, &f.zero_plan)),
    FAULT(IN_PLANNED, EXEC, SIZE, INT64(EXEC.size, 0)),
    FAULT(IN_PLANNED, THREADS, RANGE, INT32(EXEC.threads, 0)),
    FAULT(IN_PLANNED, WORKSPACE, NULL, POINTER(EXEC.workspace, NULL)),
    FAULT(IN_PLANNED, WORKSPACE, TOO_SMALL, MOVE(EXEC.workspace_size, -1)),
    FAULT(IN_ALL, TENSORS, NULL, POINTER(tensors_arg, NULL)),
    FAULT(IN_PROJECT, TENSORS, NULL, POINTER(project_tensors_arg, NULL)),
    FINE(IN_PLANNED, POINTER(EXEC.context, &f.noise)),
};

static const struct fault_case run_faults[] = {
    FAULT(IN_EVERY, PLAN, NULL, POINTER(run_arg, NULL)),
    FAULT(IN_EVERY, PLAN, MISALIGNED, MOVE(run_arg, 1)),
    FAULT(IN_EVERY, PLAN, MISALIGNED, MOVE(run_arg, 4)),
    FAULT(IN_EVERY, PLAN, STALE, POINTER(run_arg, &f.other)),
    FAULT(IN_EVERY, PLAN, STALE, POINTER(run_arg, &f.zero_plan)),
    FAULT(IN_EVERY, PLAN, STALE, POINTER(run_arg, &f.plan)), /* never made */
    FAULT(IN_EVERY, PHASE, RANGE, INT32(phase, -1)),
    FAULT(IN_EVERY, PHASE, RANGE, INT32(phase, QKV_MAX_PHASES)),
    FAULT(IN_EVERY, PHASE, RANGE, INT32(phase, INT32_MAX)),
    FAULT(IN_EVERY, PHASE, RANGE, INT32(phase, INT32_MIN)),
    FAULT(IN_EVERY, BEGIN, RANGE, INT64(begin, -1)),
    FAULT(IN_EVERY, BEGIN, RANGE, INT64(begin, INT64_MIN)),
    FAULT(IN_EVERY, BEGIN, RANGE, INT64(begin, INT64_MAX), INT64(end, INT64_MAX)),
    FAULT(IN_EVERY, END, RANGE, INT64(end, -1)),
    FAULT(IN_EVERY, END, RANGE, INT64(end, INT64_MAX)),
    FAULT(IN_EVERY, END, RANGE, MOVE(end, 1)),
    FAULT(IN_EVERY, END, RANGE, INT64(begin, 1), INT64(end, 0)),
    FAULT(IN_EVERY, WORKSPACE, NULL, POINTER(workspace_arg, NULL)),
    FAULT(IN_EVERY, WORKSPACE, MISALIGNED, MOVE(workspace_arg, 1)),
    FAULT(IN_EVERY, WORKSPACE, MISALIGNED, MOVE(workspace_arg, 4)),
    FAULT(IN_SHARING, WORKSPACE_SHARED, NULL, POINTER(workspace.shared, NULL)),
    FAULT(IN_SHARING, WORKSPACE_SHARED, MISALIGNED, MOVE(workspace.shared, 4)),
    FAULT(IN_SHARING, WORKSPACE_SHARED, MISALIGNED, MOVE(workspace.shared, 32)),
    FAULT(IN_SHARING, WORKSPACE_SHARED, TOO_SMALL, INT64(workspace.shared_size, 0)),
    FAULT(IN_SHARING, WORKSPACE_SHARED, TOO_SMALL, MOVE(workspace.shared_size, -1)),
    FAULT(IN_ANY, WORKSPACE_WORKER, NULL, POINTER(workspace.worker, NULL)),
    FAULT(IN_ANY, WORKSPACE_WORKER, MISALIGNED, MOVE(workspace.worker, 1)),
    FAULT(IN_ANY, WORKSPACE_WORKER, MISALIGNED, MOVE(workspace.worker, 32)),
    FAULT(IN_ANY, WORKSPACE_WORKER, TOO_SMALL, INT64(workspace.worker_size, 0)),
    FAULT(IN_ANY, WORKSPACE_WORKER, TOO_SMALL, MOVE(workspace.worker_size, -1)),
    FINE(IN_ANY, MOVE(workspace.worker_size, 0)),
    /* softmax and the projection of few tokens share nothing, and need no memory for it */
    FINE(IN_SOFTMAX | IN_PROJECT, POINTER(workspace.shared, NULL), INT64(workspace.shared_size, 0)),
};

/* A run of no parts is fine, and does nothing. */
static const struct fault_case empty_runs[] = {
    FINE(IN_EVERY, INT64(begin, 0), INT64(end, 0)),
    FINE(IN_EVERY, INT64(begin, 1), INT64(end, 1)),
};

/* Of the backward stages attention's stands for all: the others may need no memory. */
static struct fault_case attention_twin(const struct fault_case *c) {
    struct fault_case twin = twin_of(c);

    twin.stages &= IN_ATTENTION_BACKWARD;
    return twin;
}

static void check_exec_faults(const struct fault_case *c) {
    const struct fault_case twin = attention_twin(c);

    run_case(c, prepare_ready, "the plain call", call_plain);
    run_case(&twin, prepare_ready, "the plain call", call_plain);
}
TABLE_TEST(exec_faults, check_exec_faults)

static void check_run_faults(const struct fault_case *c) {
    const struct fault_case twin = attention_twin(c);

    run_case(c, prepare_ready, "the run", call_run);
    run_case(&twin, prepare_ready, "the run", call_run);
}
TABLE_TEST(run_faults, check_run_faults)

static void check_empty_runs(const struct fault_case *c) {
    run_case(c, prepare_ready, "the run", call_run);
    fixture_check_untouched("the empty run", QKV_STAGE_PROJECT);
}
TABLE_TEST(empty_runs, check_empty_runs)

static qkv_status call_execute(int stage) {
    if (stage == QKV_STAGE_PROJECT)
        return qkv_project_execute(f.run_arg, f.project_tensors_arg, f.exec_arg);
    return qkv_execute(f.run_arg, f.tensors_arg, f.exec_arg);
}

static void check_execute_faults(const struct fault_case *c) {
    run_case(c, prepare_ready, "the call with a plan", call_execute);
}
TABLE_TEST(execute_faults, check_execute_faults)

static int calls;

static int fails_at_once(void *pool, int threads, int64_t parts, qkv_task task, void *argument) {
    (void)threads;
    (void)parts;
    (void)task;
    (void)argument;
    calls++;
    return *(const int *)pool;
}

/* Enough work that the plan wants threads; the inputs are one row each, broadcast. */
static void describe_a_large_call(int stage) {
    qkv_tensor *inputs[] = {&f.tensors.now.q, &f.tensors.now.k, &f.tensors.now.v};

    fixture_reset();
    f.params.now.kv_len = 1 << 18;
    f.params.now.bias.data = f.params.now.mask.data = NULL;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        inputs[i]->stride[0] = inputs[i]->stride[2] = 0;
    f.tensors.now.weights.stride[0] = f.tensors.now.weights.stride[2] = 0;
    f.tensors.now.weights.stride[1] = 0;
    ck_assert_int_eq(call_plan(stage), QKV_OK);
    ck_assert_int_gt(f.plan.threads, 1);
}

static void *static_memory(size_t size) {
    static _Alignas(QKV_ALIGNMENT) unsigned char memory[96 << 20];

    ck_assert_uint_le(size, sizeof memory);
    return memory;
}

/* Whatever the callback returns that is not 0, the call reports it and has touched no output. */
START_TEST(a_failing_parallel_for_is_reported) {
    static int results[] = {1, -1, 77, INT32_MIN};

    for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        describe_a_large_call(QKV_STAGE_ATTENTION);
        f.exec.now.threads = 2;
        f.exec.now.parallel_for = fails_at_once;
        f.exec.now.pool = &results[i];
        f.exec.now.workspace_size = qkv_plan_workspace(&f.plan, 2);
        f.exec.now.workspace = static_memory(f.exec.now.workspace_size);
        fixture_remember();
        calls = 0;
        ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION),
                         (QKV_ARG_PARALLEL_FOR << 8) + QKV_FAULT_FAILED);
        ck_assert_int_eq(calls, 1);
        fixture_check_untouched("the plain call", QKV_STAGE_ATTENTION);
    }
}
END_TEST

/* Ways to be a parallel_for that are none, though each says that all is done. */
enum wrong {
    LEAVES_OUT_A_PART,
    REPEATS_A_PART,
    NAMES_ONE_WORKER_MORE,
    NAMES_NO_WORKER,
    GOES_BEFORE,
    GOES_BEYOND,
    GOES_BACK,
    WRONGS
};

static int does_it_wrong(void *pool, int threads, int64_t parts, qkv_task task, void *argument) {
    switch (*(const enum wrong *)pool) {
    case LEAVES_OUT_A_PART:
        task(argument, 0, 0, parts - 1);
        break;
    case REPEATS_A_PART: /* as many as there are */
        for (int64_t part = 0; part < parts; part++)
            task(argument, 0, 0, 1);
        break;
    case NAMES_ONE_WORKER_MORE:
        task(argument, 0, 0, parts - 1);
        task(argument, threads, parts - 1, parts);
        break;
    case NAMES_NO_WORKER:
        task(argument, 0, 0, parts - 1);
        task(argument, -1, parts - 1, parts);
        break;
    case GOES_BEFORE:
        task(argument, 0, -1, parts);
        break;
    case GOES_BEYOND:
        task(argument, 0, 0, parts + 1);
        break;
    case GOES_BACK: /* in sum the parts */
        task(argument, 0, 0, parts);
        task(argument, 0, parts - 1, parts);
        task(argument, 0, parts, parts - 1);
        break;
    case WRONGS:
        break;
    }
    return 0;
}

START_TEST(a_wrong_parallel_for_is_found) {
    for (enum wrong wrong = 0; wrong < WRONGS; wrong++) {
        describe_a_large_call(QKV_STAGE_ATTENTION);
        f.exec.now.threads = 2;
        f.exec.now.parallel_for = does_it_wrong;
        f.exec.now.pool = &wrong;
        f.exec.now.workspace_size = qkv_plan_workspace(&f.plan, 2);
        f.exec.now.workspace = static_memory(f.exec.now.workspace_size);
        ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION),
                         (QKV_ARG_PARALLEL_FOR << 8) + QKV_FAULT_FAILED);
    }
}
END_TEST

/* They say what memory is read, and may be others in every run of a plan. */
START_TEST(lengths_are_looked_at_in_every_run) {
    fixture_reset();
    f.params.now.q_lens = f.q_lens;
    f.params.now.kv_lens = f.kv_lens;
    prepare_ready(QKV_STAGE_ATTENTION);
    ck_assert_int_eq(call_execute(QKV_STAGE_ATTENTION), QKV_OK);
    f.kv_lens[1] = 1;
    ck_assert_int_eq(call_execute(QKV_STAGE_ATTENTION), QKV_OK);
    f.kv_lens[1] = KV_LEN + 1;
    ck_assert_int_eq(call_execute(QKV_STAGE_ATTENTION), (QKV_ARG_KV_LENS << 8) + QKV_FAULT_LENGTH);
    ck_assert_int_eq(call_run(QKV_STAGE_ATTENTION), (QKV_ARG_KV_LENS << 8) + QKV_FAULT_LENGTH);
    f.kv_lens[1] = 0;
    f.q_lens[0] = -1;
    ck_assert_int_eq(call_execute(QKV_STAGE_ATTENTION), (QKV_ARG_Q_LENS << 8) + QKV_FAULT_LENGTH);
}
END_TEST

/* They say what memory there is, which a plan counts on. */
START_TEST(ragged_sequences_stay_as_they_were) {
    fixture_reset();
    f.params.now.cu_q = f.cu_q;
    f.params.now.cu_kv = f.cu_kv;
    prepare_ready(QKV_STAGE_ATTENTION);
    ck_assert_int_eq(call_execute(QKV_STAGE_ATTENTION), QKV_OK);
    f.cu_kv[1]--;
    ck_assert_int_eq(call_execute(QKV_STAGE_ATTENTION), (QKV_ARG_CU_KV << 8) + QKV_FAULT_STALE);
    f.cu_q[BATCH] = INT32_MAX;
    ck_assert_int_eq(call_execute(QKV_STAGE_ATTENTION), (QKV_ARG_CU_Q << 8) + QKV_FAULT_STALE);
    ck_assert_int_eq(call_run(QKV_STAGE_ATTENTION), (QKV_ARG_CU_Q << 8) + QKV_FAULT_STALE);
}
END_TEST

/* With two workers the workspace must hold two. */
START_TEST(a_workspace_for_one_is_too_small_for_two) {
    static int fine;

    describe_a_large_call(QKV_STAGE_ATTENTION);
    f.exec.now.threads = 2;
    f.exec.now.parallel_for = fails_at_once;
    f.exec.now.pool = &fine;
    f.exec.now.workspace = static_memory(qkv_plan_workspace(&f.plan, 2));
    f.exec.now.workspace_size = qkv_plan_workspace(&f.plan, 2) - 1;
    fixture_remember();
    calls = 0;
    ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION),
                     (QKV_ARG_WORKSPACE << 8) + QKV_FAULT_TOO_SMALL);
    ck_assert_int_eq(calls, 0);
    fixture_check_untouched("the plain call", QKV_STAGE_ATTENTION);
}
END_TEST

START_TEST(the_workspace_of_a_plan) {
    qkv_plan plan = {.workspace_shared = 1000, .workspace_worker = 64};

    ck_assert_uint_eq(qkv_plan_workspace(&plan, 1), 1064);
    ck_assert_uint_eq(qkv_plan_workspace(&plan, 3), 1192);
    ck_assert_uint_eq(qkv_plan_workspace(NULL, 1), SIZE_MAX);
    ck_assert_uint_eq(qkv_plan_workspace(&plan, 0), SIZE_MAX);
    ck_assert_uint_eq(qkv_plan_workspace(&plan, -1), SIZE_MAX);
    plan.workspace_worker = SIZE_MAX / 2;
    ck_assert_uint_eq(qkv_plan_workspace(&plan, 3), SIZE_MAX);
    plan.workspace_shared = SIZE_MAX - 5;
    plan.workspace_worker = 6;
    ck_assert_uint_eq(qkv_plan_workspace(&plan, 1), SIZE_MAX);
}
END_TEST

/* Plans of nothing have no phase to run. Without queries the gradients of keys and
 * sinks are zeros still. */
START_TEST(a_plan_of_nothing_has_no_phases) {
    for (int stage = QKV_STAGE_SCORES; stage <= QKV_STAGE_ATTENTION_BACKWARD; stage++) {
        if (stage == QKV_STAGE_PROJECT_BACKWARD)
            continue;
        fixture_reset();
        f.params.now.q_len = 0;
        if (stage >= FORWARD_STAGES) {
            f.params.now.kv_len = 0;
            f.params.now.sinks = NULL;
            f.gradients.now.sinks = (qkv_tensor){0};
        }
        ck_assert_int_eq(call_plan(stage), QKV_OK);
        ck_assert_int_eq(f.plan.phases, 0);
        ck_assert_int_ge(f.plan.threads, 1);
        f.run_arg = &f.plan;
        f.phase = 0;
        f.begin = f.end = 0;
        ck_assert_int_eq(call_run(stage), (QKV_ARG_PHASE << 8) + QKV_FAULT_RANGE);
        f.exec_arg = NULL;
        if (stage == QKV_STAGE_ATTENTION_BACKWARD) /* the others ask for memory still */
            ck_assert_int_eq(call_plain(stage), QKV_OK);
    }
}
END_TEST

TCase *run_case_suite(void) {
    TCase *test = tcase_create("run");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, exec_faults);
    ADD_TABLE(test, execute_faults);
    ADD_TABLE(test, run_faults);
    ADD_TABLE(test, empty_runs);
    tcase_add_test(test, a_failing_parallel_for_is_reported);
    tcase_add_test(test, a_wrong_parallel_for_is_found);
    tcase_add_test(test, lengths_are_looked_at_in_every_run);
    tcase_add_test(test, ragged_sequences_stay_as_they_were);
    tcase_add_test(test, a_workspace_for_one_is_too_small_for_two);
    tcase_add_test(test, the_workspace_of_a_plan);
    tcase_add_test(test, a_plan_of_nothing_has_no_phases);
    return test;
}
