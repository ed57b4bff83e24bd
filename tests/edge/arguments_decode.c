/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over a cache: its shape against the parameters', what must hold of lengths and pages
 * when it runs, its tensors, and the parameters that it shares with attention. */
#include "arguments_cache.h"

#include <string.h>

#define PARAMS params.now
#define TENSORS tensors.now

/* Both entries of the batch attend to sequence 1. */
void fixture_describe_decode(void) {
    f.decoded[0] = f.decoded[1] = 1;
    f.decoded_arg = f.decoded;
}

qkv_status plan_decode(int stage) {
    (void)stage;
    return qkv_decode_plan(f.plan_arg, f.params_arg, f.cache_arg, f.decoded_arg, f.context_arg);
}

qkv_status plain_decode(int stage) {
    (void)stage;
    return qkv_decode(f.params_arg, f.tensors_arg, f.cache_arg, f.decoded_arg, f.exec_arg);
}

static qkv_status run_decode(int stage) {
    (void)stage;
    return qkv_decode_run(f.run_arg, f.tensors_arg, f.phase, f.begin, f.end, f.workspace_arg);
}

static qkv_status execute_decode(int stage) {
    (void)stage;
    return qkv_execute(f.run_arg, f.tensors_arg, f.exec_arg);
}

static void prepare_decode(int stage) {
    f.plan_arg = &f.other;
    ck_assert_int_eq(call_plan(QKV_STAGE_ATTENTION), QKV_OK);
    f.plan_arg = &f.ready;
    ck_assert_int_eq(plan_decode(stage), QKV_OK);
    fixture_use_ready();
}

static const struct fault_case decode_params_faults[] = {
    FAULT(IN_DECODE, PARAMS, NULL, POINTER(params_arg, NULL)),
    FAULT(IN_DECODE, PARAMS, MISALIGNED, MOVE(params_arg, 4)),
    FAULT(IN_DECODE, PARAMS, SIZE, INT64(PARAMS.size, 0)),
    FAULT(IN_DECODE, PARAMS, FUTURE, INT64(PARAMS.size, sizeof f.params), INT64(params.tail[0], 1)),
    FAULT(IN_DECODE, FLAGS, FLAG, INT64(PARAMS.flags, 4)),
    FAULT(IN_DECODE, BATCH, NEGATIVE, INT64(PARAMS.batch, -1)),
    FAULT(IN_DECODE, Q_HEADS, ZERO, INT64(PARAMS.q_heads, 0)),
    FAULT(IN_DECODE, Q_HEADS, MULTIPLE, INT64(PARAMS.q_heads, 3)),
    FAULT(IN_DECODE, Q_LEN, NEGATIVE, INT64(PARAMS.q_len, -1)),
    FAULT(IN_DECODE, KV_LEN, NEGATIVE, INT64(PARAMS.kv_len, -1)),
    FAULT(IN_DECODE, SCALE, VALUE, INT64(PARAMS.flags, QKV_FLAG_SCALE), FLOAT(PARAMS.scale, NAN)),
    FAULT(IN_DECODE, SOFTCAP, NEGATIVE, FLOAT(PARAMS.softcap, -1.0f)),
    FAULT(IN_DECODE, EXP, RANGE, INT32(PARAMS.exp, QKV_EXP_COUNT)),
    FAULT(IN_DECODE, ARITHMETIC, RANGE, INT32(PARAMS.arithmetic, QKV_ARITHMETIC_COUNT)),
    FAULT(IN_DECODE, ARITHMETIC, UNAVAILABLE, INT32(PARAMS.arithmetic, QKV_ARITHMETIC_NARROW),
          INT32(cache.now.v_dtype, QKV_F32)),
    FAULT(IN_DECODE, PARAMS, FUTURE, INT32(PARAMS.reserved, 1)),
    FAULT(IN_DECODE, ALIGN, RANGE, INT32(PARAMS.align, QKV_ALIGN_COUNT)),
    FAULT(IN_DECODE, WINDOW_LEFT, RANGE, INT64(PARAMS.window_left, -2)),
    FAULT(IN_DECODE, WINDOW_RIGHT, RANGE, INT64(PARAMS.window_right, -2)),
    FAULT(IN_DECODE, ALIBI, MISALIGNED, MOVE(PARAMS.alibi_slopes, 1)),
    FAULT(IN_DECODE, SINKS, MISALIGNED, MOVE(PARAMS.sinks, 2)),
    FAULT(IN_DECODE, BIAS, DTYPE, INT32(PARAMS.bias.dtype, QKV_BOOL)),
    FAULT(IN_DECODE, BIAS, STRIDE, INT64(PARAMS.bias.stride[3], 2)),
    FAULT(IN_DECODE, MASK, DTYPE, INT32(PARAMS.mask.dtype, QKV_F32)),
    FAULT(IN_DECODE, MASK, STRIDE, INT64(PARAMS.mask.stride[3], -1)),
    FAULT(IN_DECODE, Q_LENS, LENGTH, POINTER(PARAMS.q_lens, f.q_lens), INT32(q_lens[1], Q_LEN + 1)),
    FAULT(IN_DECODE, KV_LENS, MISALIGNED, POINTER(PARAMS.kv_lens, f.kv_lens),
          MOVE(PARAMS.kv_lens, 1)),
    FAULT(IN_DECODE, KV_LENS, LENGTH, POINTER(PARAMS.kv_lens, f.kv_lens), INT32(kv_lens[0], -1)),
    FAULT(IN_DECODE, KV_LENS, LENGTH, POINTER(PARAMS.kv_lens, f.kv_lens),
          INT32(kv_lens[0], KV_LEN + 1)),
    FAULT(IN_DECODE, CU_Q, ORDER, POINTER(PARAMS.cu_q, f.cu_q), INT32(cu_q[2], Q_LEN - 2)),
    FINE(IN_DECODE, POINTER(PARAMS.cu_q, f.cu_q)),
    /* keys come from the cache alone, and its shape is the parameters' */
    FAULT(IN_DECODE, CU_KV, CONFLICT, POINTER(PARAMS.cu_kv, f.cu_kv)),
    FAULT(IN_DECODE, KV_HEADS, MISMATCH, INT64(PARAMS.kv_heads, Q_HEADS)),
    FAULT(IN_DECODE, KV_HEADS, MISMATCH, INT64(cache.now.kv_heads, 1)),
    FAULT(IN_DECODE, HEAD_DIM, MISMATCH, INT64(PARAMS.head_dim, DIM - 1)),
    FAULT(IN_DECODE, HEAD_DIM, MISMATCH, INT64(cache.now.head_dim, DIM + 1)),
    FAULT(IN_DECODE, V_DIM, MISMATCH, INT64(PARAMS.v_dim, V_DIM - 1)),
    FAULT(IN_DECODE, V_DIM, MISMATCH, INT64(PARAMS.v_dim, 0)),
    FAULT(IN_DECODE, SEQUENCES, MISALIGNED, MOVE(decoded_arg, 2)),
    FAULT(IN_DECODE, SEQUENCES, RANGE, INT32(decoded[1], -1)),
    FAULT(IN_DECODE, SEQUENCES, RANGE, INT32(decoded[0], CACHE_SEQUENCES)),
    FAULT(IN_DECODE, SEQUENCES, RANGE, INT32(decoded[0], INT32_MAX)),
    FINE(IN_DECODE, INT32(decoded[1], 2)), /* which is empty */
};

static const struct fault_case decode_plan_faults[] = {
    FAULT(IN_DECODE, PLAN, NULL, POINTER(plan_arg, NULL)),
    FAULT(IN_DECODE, PLAN, MISALIGNED, MOVE(plan_arg, 4)),
    FAULT(IN_DECODE, CONTEXT, MISALIGNED, POINTER(context_arg, (const char *)&f.zeros + 4)),
    FAULT(IN_DECODE, CONTEXT, STALE, POINTER(context_arg, &f.zeros)),
    FAULT(IN_DECODE, BATCH, RANGE, POINTER(decoded_arg, NULL),
          INT64(PARAMS.batch, CACHE_SEQUENCES + 1)),
    /* a plan serves every length: what the cache holds now is not looked at */
    FINE(IN_DECODE, INT32(lengths[1], 33), INT32(table[1][0], -1)),
};

/* What may have changed since the plan was made. */
static const struct fault_case decode_contents_faults[] = {
    FAULT(IN_DECODE, SEQUENCES, RANGE, INT32(decoded[0], -1)),
    FAULT(IN_DECODE, LENGTHS, LENGTH, INT32(decoded[0], 0)), /* 20 tokens, for a kv_len of 5 */
    FAULT(IN_DECODE, LENGTHS, LENGTH, INT32(lengths[1], KV_LEN + 1)),
    FAULT(IN_DECODE, LENGTHS, LENGTH, INT32(lengths[1], -1)),
    FAULT(IN_DECODE, LENGTHS, LENGTH, INT32(lengths[1], INT32_MAX)),
    FAULT(IN_DECODE, LENGTHS, LENGTH, INT32(lengths[1], INT32_MIN)),
    FAULT(IN_DECODE, TABLE, RANGE, INT32(table[1][0], -1)),
    FAULT(IN_DECODE, TABLE, RANGE, INT32(table[1][0], CACHE_PAGES)),
    FAULT(IN_DECODE, TABLE, RANGE, INT32(table[1][0], INT32_MIN)),
    FINE(IN_DECODE, INT32(table[1][1], -1), INT32(table[2][0], -1)),
    FINE(IN_DECODE, INT32(lengths[1], 0), INT32(table[1][0], -1)),
};

static const struct fault_case decode_lens_faults[] = {
    FAULT(IN_DECODE, KV_LENS, LENGTH, POINTER(PARAMS.kv_lens, f.kv_lens), INT32(lengths[1], 4)),
    FINE(IN_DECODE, POINTER(PARAMS.kv_lens, f.kv_lens), INT32(decoded[0], 0)), /* of 20, five */
    FINE(IN_DECODE, POINTER(exec.now.workspace, f.shared)),
    FAULT(IN_DECODE, EXEC, SIZE, INT64(exec.now.size, 0)),
    FAULT(IN_DECODE, THREADS, RANGE, INT32(exec.now.threads, 0)),
    FAULT(IN_DECODE, WORKSPACE, NULL, POINTER(exec_arg, NULL)),
    FAULT(IN_DECODE, WORKSPACE, MISALIGNED, MOVE(exec.now.workspace, 32)),
    FAULT(IN_DECODE, WORKSPACE, TOO_SMALL, INT64(exec.now.workspace_size, 1)),
};

static const struct fault_case decode_tensors_faults[] = {
    FAULT(IN_DECODE, TENSORS, NULL, POINTER(tensors_arg, NULL)),
    FAULT(IN_DECODE, TENSORS, MISALIGNED, MOVE(tensors_arg, 4)),
    FAULT(IN_DECODE, TENSORS, SIZE, INT64(TENSORS.size, 0)),
    FAULT(IN_DECODE, TENSORS, FUTURE, INT64(TENSORS.size, sizeof f.tensors),
          INT64(tensors.tail[1], 1)),
    ROW_FAULT(IN_DECODE, Q, TENSORS.q),
    ROW_FAULT(IN_DECODE, OUT, TENSORS.out),
    OUTPUT_FAULT(IN_DECODE, OUT, TENSORS.out, Q_HEADS, Q_LEN, V_DIM),
    ANY_FAULT(IN_DECODE, LSE, TENSORS.lse),
    FAULT(IN_DECODE, LSE, SELF_OVERLAP, INT64(TENSORS.lse.stride[2], 0)),
    FINE(IN_DECODE, POINTER(TENSORS.lse.data, NULL)),
    FINE(IN_DECODE, POINTER(TENSORS.k.data, NULL), INT32(TENSORS.v.dtype, QKV_BOOL)),
    /* an output in an input, and in what the cache is made of */
    FAULT(IN_DECODE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.q)),
    FAULT(IN_DECODE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.bias)),
    FAULT(IN_DECODE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.cache_memory)),
    FAULT(IN_DECODE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.table)),
    FAULT(IN_DECODE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.lengths)),
    FAULT(IN_DECODE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.holders)),
    FAULT(IN_DECODE, OUT, OVERLAP, POINTER(TENSORS.out.data, f.decoded)),
    FAULT(IN_DECODE, LSE, OVERLAP, POINTER(TENSORS.lse.data, f.cache_memory)),
    FAULT(IN_DECODE, LSE, OVERLAP, POINTER(TENSORS.lse.data, f.holders)),
};

static const struct fault_case decode_run_faults[] = {
    FAULT(IN_DECODE, PLAN, NULL, POINTER(run_arg, NULL)),
    FAULT(IN_DECODE, PLAN, MISALIGNED, MOVE(run_arg, 4)),
    FAULT(IN_DECODE, PLAN, STALE, POINTER(run_arg, &f.zero_plan)),
    FAULT(IN_DECODE, PLAN, STALE, POINTER(run_arg, &f.other)),
    FAULT(IN_DECODE, PHASE, RANGE, INT32(phase, -1)),
    FAULT(IN_DECODE, PHASE, RANGE, INT32(phase, QKV_MAX_PHASES)),
    FAULT(IN_DECODE, BEGIN, RANGE, INT64(begin, -1)),
    FAULT(IN_DECODE, BEGIN, RANGE, INT64(begin, INT64_MAX)),
    FAULT(IN_DECODE, END, RANGE, MOVE(end, 1)),
    FAULT(IN_DECODE, END, RANGE, INT64(begin, 1), INT64(end, 0)),
    FAULT(IN_DECODE, WORKSPACE, NULL, POINTER(workspace_arg, NULL)),
    FAULT(IN_DECODE, WORKSPACE, MISALIGNED, MOVE(workspace_arg, 4)),
    FAULT(IN_DECODE, WORKSPACE_WORKER, NULL, POINTER(workspace.worker, NULL)),
    FAULT(IN_DECODE, WORKSPACE_WORKER, MISALIGNED, MOVE(workspace.worker, 32)),
    FAULT(IN_DECODE, WORKSPACE_WORKER, TOO_SMALL, MOVE(workspace.worker_size, -1)),
    FINE(IN_DECODE, INT64(end, 0)),
};

static const struct fault_case decode_execute_faults[] = {
    FAULT(IN_DECODE, PLAN, NULL, POINTER(run_arg, NULL)),
    FAULT(IN_DECODE, PLAN, STALE, POINTER(run_arg, &f.zero_plan)),
    FAULT(IN_DECODE, EXEC, SIZE, INT64(exec.now.size, 0)),
    FAULT(IN_DECODE, THREADS, RANGE, INT32(exec.now.threads, 0)),
    FAULT(IN_DECODE, WORKSPACE, NULL, POINTER(exec_arg, NULL)),
    FAULT(IN_DECODE, WORKSPACE, TOO_SMALL, INT64(exec.now.workspace_size, 1)),
    FINE(IN_DECODE, POINTER(exec.now.context, &f.noise)),
};

static void check_decode_params_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plan", plan_decode);
    run_case(c, NULL, "the plain call", plain_decode);
}
TABLE_TEST(decode_params_faults, check_decode_params_faults)

static void check_decode_plan_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plan", plan_decode);
}
TABLE_TEST(decode_plan_faults, check_decode_plan_faults)

static void check_decode_tensors_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", plain_decode);
    run_case(c, prepare_decode, "the run", run_decode);
    run_case(c, prepare_decode, "the call with a plan", execute_decode);
}
TABLE_TEST(decode_contents_faults, check_decode_tensors_faults)
TABLE_TEST(decode_tensors_faults, check_decode_tensors_faults)

static void check_decode_lens_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", plain_decode);
}
TABLE_TEST(decode_lens_faults, check_decode_lens_faults)

static void check_decode_run_faults(const struct fault_case *c) {
    run_case(c, prepare_decode, "the run", run_decode);
}
TABLE_TEST(decode_run_faults, check_decode_run_faults)

static void check_decode_execute_faults(const struct fault_case *c) {
    run_case(c, prepare_decode, "the call with a plan", execute_decode);
}
TABLE_TEST(decode_execute_faults, check_decode_execute_faults)

TCase *decode_faults_case(void) {
    TCase *test = tcase_create("decode");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, decode_params_faults);
    ADD_TABLE(test, decode_plan_faults);
    ADD_TABLE(test, decode_contents_faults);
    ADD_TABLE(test, decode_lens_faults);
    ADD_TABLE(test, decode_tensors_faults);
    ADD_TABLE(test, decode_run_faults);
    ADD_TABLE(test, decode_execute_faults);
    return test;
}
