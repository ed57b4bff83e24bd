/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters and tensors of merge. */
#include "arguments.h"

#include <string.h>

#define PARAMS merge_params.now
#define TENSORS merge_tensors.now
#define HUGE_COUNT ((int64_t)1 << 60)
#define FAR_END ((const void *)(UINTPTR_MAX - 63))

static const struct fault_case merge_params_faults[] = {
    FAULT(IN_MERGE, PARAMS, NULL, POINTER(merge_params_arg, NULL)),
    FAULT(IN_MERGE, PARAMS, MISALIGNED, MOVE(merge_params_arg, 4)),
    FAULT(IN_MERGE, PARAMS, SIZE, INT64(PARAMS.size, 0)),
    FAULT(IN_MERGE, PARAMS, SIZE, INT64(PARAMS.size, sizeof f.PARAMS - 8)),
    FAULT(IN_MERGE, PARAMS, FUTURE, INT64(PARAMS.size, sizeof f.merge_params),
          INT64(merge_params.tail[0], 1)),
    FINE(IN_MERGE, INT64(PARAMS.size, sizeof f.merge_params)),
    FAULT(IN_MERGE, FLAGS, FLAG, INT64(PARAMS.flags, 1)),
    FAULT(IN_MERGE, BATCH, NEGATIVE, INT64(PARAMS.batch, -1)),
    FAULT(IN_MERGE, BATCH, ZERO, INT64(PARAMS.batch, 0)),
    FAULT(IN_MERGE, BATCH, OVERFLOW, INT64(PARAMS.batch, HUGE_COUNT)),
    FAULT(IN_MERGE, HEADS, NEGATIVE, INT64(PARAMS.heads, -1)),
    FAULT(IN_MERGE, HEADS, ZERO, INT64(PARAMS.heads, 0)),
    FAULT(IN_MERGE, HEADS, OVERFLOW, INT64(PARAMS.heads, INT64_MAX)),
    FAULT(IN_MERGE, LENGTH, NEGATIVE, INT64(PARAMS.length, -1)),
    FAULT(IN_MERGE, LENGTH, OVERFLOW, INT64(PARAMS.length, INT64_MAX)),
    FAULT(IN_MERGE, V_DIM, NEGATIVE, INT64(PARAMS.v_dim, -1)),
    FAULT(IN_MERGE, V_DIM, ZERO, INT64(PARAMS.v_dim, 0)),
    FAULT(IN_MERGE, V_DIM, RANGE, INT64(PARAMS.v_dim, QKV_HEAD_DIM_MAX + 1)),
    FAULT(IN_MERGE, PARTS, NEGATIVE, INT64(PARAMS.parts, -1)),
    FAULT(IN_MERGE, PARTS, ZERO, INT64(PARAMS.parts, 0)),
    FAULT(IN_MERGE, PARTS, OVERFLOW, INT64(PARAMS.parts, HUGE_COUNT)),
    FINE(IN_MERGE, INT64(PARAMS.parts, 1)),
};

static const struct fault_case merge_plan_faults[] = {
    FAULT(IN_MERGE, PLAN, NULL, POINTER(plan_arg, NULL)),
    FAULT(IN_MERGE, PLAN, MISALIGNED, MOVE(plan_arg, 4)),
    FAULT(IN_MERGE, CONTEXT, MISALIGNED, POINTER(context_arg, (const char *)&f.zeros + 4)),
    FAULT(IN_MERGE, CONTEXT, STALE, POINTER(context_arg, &f.zeros)),
};

/* What can be wrong with a tensor, at `field` of the fixture. */
#define ANY_FAULT(arg, field)                                              \
    FAULT(IN_MERGE, arg, MISALIGNED, MOVE(field.data, 2)),                 \
        FAULT(IN_MERGE, arg, DTYPE, INT32(field.dtype, QKV_DTYPE_NONE)),   \
        FAULT(IN_MERGE, arg, DTYPE, INT32(field.dtype, QKV_F16)),          \
        FAULT(IN_MERGE, arg, FUTURE, INT32(field.reserved, 1)),            \
        FAULT(IN_MERGE, arg, OVERFLOW, POINTER(field.data, FAR_END)),      \
        FAULT(IN_MERGE, arg, OVERFLOW, INT64(field.stride[0], INT64_MAX)), \
        FAULT(IN_MERGE, arg, OVERFLOW, INT64(field.stride[1], INT64_MIN)), \
        FAULT(IN_MERGE, arg, OVERFLOW, INT64(field.stride[2], INT64_MAX / 8))
#define MUST_BE_THERE(arg, field) FAULT(IN_MERGE, arg, NULL, POINTER(field.data, NULL))
#define HAS_COLUMNS(arg, field)                              \
    FAULT(IN_MERGE, arg, STRIDE, INT64(field.stride[3], 0)), \
        FAULT(IN_MERGE, arg, STRIDE, INT64(field.stride[3], -1))
#define LAST (MERGED_PARTS - 1)

static const struct fault_case merge_tensors_faults[] = {
    FAULT(IN_MERGE, TENSORS, NULL, POINTER(merge_tensors_arg, NULL)),
    FAULT(IN_MERGE, TENSORS, MISALIGNED, MOVE(merge_tensors_arg, 4)),
    FAULT(IN_MERGE, TENSORS, SIZE, INT64(TENSORS.size, 0)),
    FAULT(IN_MERGE, TENSORS, SIZE, INT64(TENSORS.size, sizeof f.TENSORS - 8)),
    FAULT(IN_MERGE, TENSORS, FUTURE, INT64(TENSORS.size, sizeof f.merge_tensors),
          INT64(merge_tensors.tail[2], 1)),
    FINE(IN_MERGE, INT64(TENSORS.size, sizeof f.merge_tensors)),
    FAULT(IN_MERGE, PART_OUT, NULL, POINTER(TENSORS.part_out, NULL)),
    FAULT(IN_MERGE, PART_OUT, MISALIGNED, MOVE(TENSORS.part_out, 4)),
    FAULT(IN_MERGE, PART_LSE, NULL, POINTER(TENSORS.part_lse, NULL)),
    FAULT(IN_MERGE, PART_LSE, MISALIGNED, MOVE(TENSORS.part_lse, 4)),
    ANY_FAULT(PART_OUT, merge_outs[0]),
    ANY_FAULT(PART_OUT, merge_outs[LAST]),
    MUST_BE_THERE(PART_OUT, merge_outs[1]),
    HAS_COLUMNS(PART_OUT, merge_outs[1]),
    ANY_FAULT(PART_LSE, merge_lses[0]),
    ANY_FAULT(PART_LSE, merge_lses[LAST]),
    MUST_BE_THERE(PART_LSE, merge_lses[1]),
    ANY_FAULT(OUT, TENSORS.out),
    MUST_BE_THERE(OUT, TENSORS.out),
    HAS_COLUMNS(OUT, TENSORS.out),
    ANY_FAULT(LSE, TENSORS.lse),
    FINE(IN_MERGE, POINTER(TENSORS.lse.data, NULL)),
    FAULT(IN_MERGE, OUT, SELF_OVERLAP, INT64(TENSORS.out.stride[1], 0)),
    FAULT(IN_MERGE, OUT, SELF_OVERLAP, INT64(TENSORS.out.stride[2], V_DIM - 1)),
    FAULT(IN_MERGE, LSE, SELF_OVERLAP, INT64(TENSORS.lse.stride[2], 0)),
    /* inputs may be broadcast, and parts may be each other */
    FINE(IN_MERGE, INT64(merge_outs[1].stride[0], 0), INT64(merge_lses[1].stride[1], 0)),
    FINE(IN_MERGE, POINTER(merge_outs[1].data, f.merge_rows[0]),
         POINTER(merge_lses[1].data, f.merge_numbers[0])),
};

static const struct fault_case merge_overlap_faults[] = {
    /* an output in the place of part 0, and nearly so */
    FINE(IN_MERGE, POINTER(TENSORS.out.data, f.merge_rows[0])),
    FINE(IN_MERGE, POINTER(TENSORS.lse.data, f.merge_numbers[0])),
    FINE(IN_MERGE, POINTER(TENSORS.out.data, f.merge_rows[0]),
         POINTER(TENSORS.lse.data, f.merge_numbers[0])),
    FAULT(IN_MERGE, OUT, OVERLAP, POINTER(TENSORS.out.data, &f.merge_rows[0][0][0][0][1])),
    FAULT(IN_MERGE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.merge_rows[0]),
          INT64(TENSORS.out.stride[2], V_DIM *MERGED_HEADS), INT64(TENSORS.out.stride[1], V_DIM)),
    FAULT(IN_MERGE, LSE, OVERLAP, POINTER(TENSORS.lse.data, &f.merge_numbers[0][0][0][1])),
    FAULT(IN_MERGE, LSE, OVERLAP, POINTER(TENSORS.lse.data, f.merge_numbers[0]),
          INT64(TENSORS.lse.stride[2], MERGED_HEADS), INT64(TENSORS.lse.stride[1], 1)),
    /* the other parts */
    FAULT(IN_MERGE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.merge_rows[1])),
    FAULT(IN_MERGE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.merge_rows[LAST])),
    FAULT(IN_MERGE, LSE, OVERLAP, POINTER(TENSORS.lse.data, f.merge_numbers[LAST])),
    FAULT(IN_MERGE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.merge_rows[0]),
          POINTER(merge_outs[LAST].data, f.merge_rows[0])),
    /* crosswise, and among themselves */
    FAULT(IN_MERGE, OUT, OVERLAP, POINTER(merge_lses[1].data, f.merge_out)),
    FAULT(IN_MERGE, LSE, OVERLAP, POINTER(merge_outs[1].data, f.merge_lse)),
    FAULT(IN_MERGE, LSE, OVERLAP, POINTER(TENSORS.lse.data, f.merge_out)),
    /* what describes the parts */
    FAULT(IN_MERGE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.merge_outs)),
    FAULT(IN_MERGE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.merge_lses)),
    FAULT(IN_MERGE, LSE, OVERLAP, POINTER(TENSORS.lse.data, f.merge_outs)),
};

static const struct fault_case merge_run_faults[] = {
    FAULT(IN_MERGE, PLAN, NULL, POINTER(run_arg, NULL)),
    FAULT(IN_MERGE, PLAN, MISALIGNED, MOVE(run_arg, 4)),
    FAULT(IN_MERGE, PLAN, STALE, POINTER(run_arg, &f.zero_plan)),
    FAULT(IN_MERGE, PLAN, STALE, POINTER(run_arg, &f.other)),
    FAULT(IN_MERGE, PHASE, RANGE, INT32(phase, 1)),
    FAULT(IN_MERGE, PHASE, RANGE, INT32(phase, -1)),
    FAULT(IN_MERGE, BEGIN, RANGE, INT64(begin, -1)),
    FAULT(IN_MERGE, BEGIN, RANGE, INT64(begin, 99)),
    FAULT(IN_MERGE, END, RANGE, INT64(end, 99)),
    FAULT(IN_MERGE, END, RANGE, INT64(begin, 1), INT64(end, 0)),
    FAULT(IN_MERGE, WORKSPACE, NULL, POINTER(workspace_arg, NULL)),
    FINE(IN_MERGE, INT64(end, 0)),
};

/* Cases whose parameters are not those that a run was planned with. */
static const struct fault_case merge_other_shapes[] = {
    FINE(IN_MERGE, POINTER(exec_arg, NULL)), /* it needs no workspace */
    FINE(IN_MERGE, INT64(PARAMS.length, 0), POINTER(TENSORS.out.data, NULL),
         POINTER(TENSORS.lse.data, NULL), POINTER(merge_outs[1].data, NULL),
         POINTER(merge_lses[1].data, NULL)),
    FAULT(IN_MERGE, EXEC, SIZE, INT64(exec.now.size, 0)),
    FAULT(IN_MERGE, THREADS, RANGE, INT32(exec.now.threads, 0)),
};

static qkv_status plan_merge(int stage) {
    (void)stage;
    return qkv_merge_plan(f.plan_arg, f.merge_params_arg, f.context_arg);
}

static qkv_status plain_merge(int stage) {
    (void)stage;
    return qkv_merge(f.merge_params_arg, f.merge_tensors_arg, f.exec_arg);
}

static qkv_status run_merge(int stage) {
    (void)stage;
    return qkv_merge_run(f.run_arg, f.merge_tensors_arg, f.phase, f.begin, f.end, f.workspace_arg);
}

static void prepare_merge(int stage) {
    (void)stage;
    f.plan_arg = &f.other;
    ck_assert_int_eq(call_plan(QKV_STAGE_PROJECT), QKV_OK);
    ck_assert_int_eq(qkv_merge_plan(&f.ready, f.merge_params_arg, NULL), QKV_OK);
    f.plan_arg = &f.plan;
    f.phase = 0;
    f.begin = 0;
    f.end = f.ready.parts[0];
}

void fixture_describe_merge(void) {
    qkv_merge_params *params = &f.merge_params.now;
    qkv_merge_tensors *tensors = &f.merge_tensors.now;

    memset(&f.merge_params, 0, sizeof f.merge_params);
    qkv_merge_params_init(params);
    params->batch = BATCH;
    params->heads = MERGED_HEADS;
    params->length = MERGED_ROWS;
    params->v_dim = V_DIM;
    params->parts = MERGED_PARTS;
    memset(&f.merge_tensors, 0, sizeof f.merge_tensors);
    qkv_merge_tensors_init(tensors);
    for (int p = 0; p < MERGED_PARTS; p++) {
        f.merge_outs[p] = qkv_tensor_bhsd(f.merge_rows[p], MERGED_HEADS, MERGED_ROWS, V_DIM);
        f.merge_lses[p] = qkv_tensor_bhsd(f.merge_numbers[p], MERGED_HEADS, MERGED_ROWS, 1);
    }
    memset(f.merge_rows, 0, sizeof f.merge_rows);
    memset(f.merge_numbers, 0, sizeof f.merge_numbers);
    tensors->part_out = f.merge_outs;
    tensors->part_lse = f.merge_lses;
    tensors->out = qkv_tensor_bhsd(f.merge_out, MERGED_HEADS, MERGED_ROWS, V_DIM);
    tensors->lse = qkv_tensor_bhsd(f.merge_lse, MERGED_HEADS, MERGED_ROWS, 1);
    f.merge_params_arg = params;
    f.merge_tensors_arg = tensors;
}

static void check_merge_params_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plan", plan_merge);
    run_case(c, NULL, "the plain call", plain_merge);
}
TABLE_TEST(merge_params_faults, check_merge_params_faults)

static void check_merge_plan_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plan", plan_merge);
}
TABLE_TEST(merge_plan_faults, check_merge_plan_faults)

static void check_merge_tensors_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", plain_merge);
    run_case(c, prepare_merge, "the run", run_merge);
}
TABLE_TEST(merge_tensors_faults, check_merge_tensors_faults)
TABLE_TEST(merge_overlap_faults, check_merge_tensors_faults)

static void check_merge_run_faults(const struct fault_case *c) {
    run_case(c, prepare_merge, "the run", run_merge);
}
TABLE_TEST(merge_run_faults, check_merge_run_faults)

static void check_merge_other_shapes(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", plain_merge);
}
TABLE_TEST(merge_other_shapes, check_merge_other_shapes)

TCase *merge_faults_case(void) {
    TCase *test = tcase_create("merge");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, merge_params_faults);
    ADD_TABLE(test, merge_plan_faults);
    ADD_TABLE(test, merge_tensors_faults);
    ADD_TABLE(test, merge_overlap_faults);
    ADD_TABLE(test, merge_run_faults);
    ADD_TABLE(test, merge_other_shapes);
    return test;
}
