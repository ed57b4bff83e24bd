/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of attention: each fault is told by the plan and by the plain call alike. */
#include "arguments.h"

#define PARAMS params.now

/* More than any address space: 2^61 elements are 2^63 bytes. */
#define HUGE_LENGTH ((int64_t)1 << 61)

static const struct fault_case struct_faults[] = {
    FAULT(IN_ALL, PARAMS, NULL, POINTER(params_arg, NULL)),
    FAULT(IN_ALL, PARAMS, MISALIGNED, MOVE(params_arg, 1)),
    FAULT(IN_ALL, PARAMS, MISALIGNED, MOVE(params_arg, 4)),
    FAULT(IN_ALL, PARAMS, SIZE, INT64(PARAMS.size, 0)),
    FAULT(IN_ALL, PARAMS, SIZE, INT64(PARAMS.size, sizeof f.PARAMS - 1)),
    FAULT(IN_ALL, PARAMS, SIZE, INT64(PARAMS.size, sizeof f.PARAMS - 8)),
    FAULT(IN_ALL, PARAMS, SIZE, INT64(PARAMS.size, -1)),
    FAULT(IN_ALL, PARAMS, SIZE, INT64(PARAMS.size, INT64_MAX)),
    FAULT(IN_ALL, PARAMS, SIZE, INT64(PARAMS.size, 0xcbcbcbcb)),
    FAULT(IN_ALL, PARAMS, FUTURE, INT64(PARAMS.size, sizeof f.params),
          INT64(params.tail[TAIL - 1], INT64_MIN)),
    FAULT(IN_ALL, PARAMS, FUTURE, INT64(PARAMS.size, sizeof f.PARAMS + 8),
          INT64(params.tail[0], 1)),
    FAULT(IN_ALL, FLAGS, FLAG, INT64(PARAMS.flags, 4)),
    FAULT(IN_ALL, FLAGS, FLAG, INT64(PARAMS.flags, INT64_MIN)),
    FAULT(IN_ALL, FLAGS, FLAG, INT64(PARAMS.flags, -1)),
    FINE(IN_ALL, INT64(PARAMS.size, sizeof f.params)),
    FINE(IN_ALL, INT64(PARAMS.size, sizeof f.PARAMS + 8), INT64(params.tail[1], 1)),
    FINE(IN_ALL, INT64(PARAMS.flags, QKV_FLAG_CAUSAL)),
};

static const struct fault_case size_faults[] = {
    FAULT(IN_ALL, BATCH, ZERO, INT64(PARAMS.batch, 0)),
    FAULT(IN_ALL, BATCH, NEGATIVE, INT64(PARAMS.batch, -1)),
    FAULT(IN_ALL, BATCH, NEGATIVE, INT64(PARAMS.batch, INT64_MIN)),
    FAULT(IN_ALL, BATCH, OVERFLOW, INT64(PARAMS.batch, INT64_MAX)),
    FAULT(IN_ALL, BATCH, OVERFLOW, INT64(PARAMS.batch, HUGE_LENGTH)),
    FAULT(IN_ALL, Q_HEADS, ZERO, INT64(PARAMS.q_heads, 0)),
    FAULT(IN_ALL, Q_HEADS, NEGATIVE, INT64(PARAMS.q_heads, -Q_HEADS)),
    FAULT(IN_ALL, Q_HEADS, NEGATIVE, INT64(PARAMS.q_heads, INT64_MIN)),
    FAULT(IN_ALL, Q_HEADS, OVERFLOW, INT64(PARAMS.q_heads, INT64_MAX - 1)),
    FAULT(IN_ALL, Q_HEADS, MULTIPLE, INT64(PARAMS.q_heads, Q_HEADS + 1)),
    FAULT(IN_ALL, Q_HEADS, MULTIPLE, INT64(PARAMS.q_heads, 1)),
    FAULT(IN_ALL, KV_HEADS, ZERO, INT64(PARAMS.kv_heads, 0)),
    FAULT(IN_ALL, KV_HEADS, NEGATIVE, INT64(PARAMS.kv_heads, -KV_HEADS)),
    FAULT(IN_ALL, KV_HEADS, NEGATIVE, INT64(PARAMS.kv_heads, INT64_MIN)),
    FAULT(IN_ALL, Q_HEADS, MULTIPLE, INT64(PARAMS.kv_heads, 3)),
    FAULT(IN_ALL, Q_HEADS, MULTIPLE, INT64(PARAMS.kv_heads, INT64_MAX)),
    FAULT(IN_ALL, Q_LEN, NEGATIVE, INT64(PARAMS.q_len, -1)),
    FAULT(IN_ALL, Q_LEN, NEGATIVE, INT64(PARAMS.q_len, INT64_MIN)),
    FAULT(IN_ALL, Q_LEN, OVERFLOW, INT64(PARAMS.q_len, INT64_MAX)),
    FAULT(IN_ALL, Q_LEN, OVERFLOW, INT64(PARAMS.q_len, HUGE_LENGTH)),
    FAULT(IN_ALL, Q_LEN, OVERFLOW, INT64(PARAMS.q_len, (int64_t)1 << 52)),
    FAULT(IN_ALL, KV_LEN, NEGATIVE, INT64(PARAMS.kv_len, -1)),
    FAULT(IN_ALL, KV_LEN, NEGATIVE, INT64(PARAMS.kv_len, INT64_MIN)),
    FAULT(IN_ALL, KV_LEN, OVERFLOW, INT64(PARAMS.kv_len, INT64_MAX)),
    FAULT(IN_ALL, KV_LEN, OVERFLOW, INT64(PARAMS.kv_len, HUGE_LENGTH)),
    /* each fits, their product does not */
    FAULT(IN_SCORES | IN_SOFTMAX | IN_MIX, KV_LEN, OVERFLOW, INT64(PARAMS.q_len, (int64_t)1 << 34),
          INT64(PARAMS.kv_len, (int64_t)1 << 34), POINTER(PARAMS.bias.data, NULL),
          POINTER(PARAMS.mask.data, NULL)),
    FAULT(IN_SCORES | IN_ATTENTION, HEAD_DIM, ZERO, INT64(PARAMS.head_dim, 0)),
    FAULT(IN_SCORES | IN_ATTENTION, HEAD_DIM, NEGATIVE, INT64(PARAMS.head_dim, -1)),
    FAULT(IN_SCORES | IN_ATTENTION, HEAD_DIM, NEGATIVE, INT64(PARAMS.head_dim, INT64_MIN)),
    FAULT(IN_SCORES | IN_ATTENTION, HEAD_DIM, RANGE, INT64(PARAMS.head_dim, QKV_HEAD_DIM_MAX + 1)),
    FAULT(IN_SCORES | IN_ATTENTION, HEAD_DIM, RANGE, INT64(PARAMS.head_dim, INT64_MAX)),
    FAULT(IN_MIX | IN_ATTENTION, V_DIM, NEGATIVE, INT64(PARAMS.v_dim, -1)),
    FAULT(IN_MIX | IN_ATTENTION, V_DIM, NEGATIVE, INT64(PARAMS.v_dim, INT64_MIN)),
    FAULT(IN_MIX | IN_ATTENTION, V_DIM, RANGE, INT64(PARAMS.v_dim, QKV_HEAD_DIM_MAX + 1)),
    FAULT(IN_MIX | IN_ATTENTION, V_DIM, RANGE, INT64(PARAMS.v_dim, INT64_MAX)),
    /* v_dim 0 stands for head_dim, which is then looked at */
    FAULT(IN_MIX, HEAD_DIM, ZERO, INT64(PARAMS.v_dim, 0), INT64(PARAMS.head_dim, 0)),
    FAULT(IN_MIX, HEAD_DIM, RANGE, INT64(PARAMS.v_dim, 0), INT64(PARAMS.head_dim, 513)),
    /* not used, not looked at */
    FINE(IN_SOFTMAX | IN_MIX, INT64(PARAMS.head_dim, -1)),
    FINE(IN_SCORES | IN_SOFTMAX, INT64(PARAMS.v_dim, -1)),
    /* nothing to do is not an error */
    FINE(IN_ALL, INT64(PARAMS.q_len, 0)),
    FINE(IN_ALL, INT64(PARAMS.kv_len, 0)),
    FINE(IN_ALL, INT64(PARAMS.q_len, 0), INT64(PARAMS.kv_len, 0)),
};

static const struct fault_case number_faults[] = {
    FAULT(IN_ALL, SCALE, VALUE, INT64(PARAMS.flags, QKV_FLAG_SCALE), FLOAT(PARAMS.scale, NAN)),
    FAULT(IN_ALL, SCALE, VALUE, INT64(PARAMS.flags, QKV_FLAG_SCALE), FLOAT(PARAMS.scale, INFINITY)),
    FAULT(IN_ALL, SCALE, VALUE, INT64(PARAMS.flags, QKV_FLAG_SCALE),
          FLOAT(PARAMS.scale, -INFINITY)),
    FAULT(IN_ALL, SCALE, CONFLICT, FLOAT(PARAMS.scale, 1.0f)), /* and no flag that says so */
    FINE(IN_ALL, INT64(PARAMS.flags, QKV_FLAG_SCALE), FLOAT(PARAMS.scale, 0.0f)),
    FINE(IN_ALL, INT64(PARAMS.flags, QKV_FLAG_SCALE), FLOAT(PARAMS.scale, -1.0f)),
    FAULT(IN_ALL, SOFTCAP, VALUE, FLOAT(PARAMS.softcap, NAN)),
    FAULT(IN_ALL, SOFTCAP, VALUE, FLOAT(PARAMS.softcap, INFINITY)),
    FAULT(IN_ALL, SOFTCAP, NEGATIVE, FLOAT(PARAMS.softcap, -1.0f)),
    FAULT(IN_ALL, SOFTCAP, RANGE, FLOAT(PARAMS.softcap, 0x1p-127f)),
    FINE(IN_ALL, FLOAT(PARAMS.softcap, 30.0f)),
    FAULT(IN_ALL, ALIGN, RANGE, INT32(PARAMS.align, QKV_ALIGN_COUNT)),
    FAULT(IN_ALL, ALIGN, RANGE, INT32(PARAMS.align, -1)),
    FAULT(IN_ALL, ALIGN, RANGE, INT32(PARAMS.align, INT32_MIN)),
    FINE(IN_ALL, INT32(PARAMS.align, QKV_ALIGN_TOP_LEFT)),
    FAULT(IN_ALL, EXP, RANGE, INT32(PARAMS.exp, QKV_EXP_COUNT)),
    FAULT(IN_ALL, EXP, RANGE, INT32(PARAMS.exp, -1)),
    FAULT(IN_ALL, EXP, RANGE, INT32(PARAMS.exp, INT32_MIN)),
    FINE(IN_ALL, INT32(PARAMS.exp, QKV_EXP_COUNT - 1)),
    FAULT(IN_ALL, ARITHMETIC, RANGE, INT32(PARAMS.arithmetic, QKV_ARITHMETIC_COUNT)),
    FAULT(IN_ALL, ARITHMETIC, RANGE, INT32(PARAMS.arithmetic, -1)),
    FAULT(IN_ALL, ARITHMETIC, RANGE, INT32(PARAMS.arithmetic, QKV_ARITHMETIC_NARROW)),
    FAULT(IN_ALL, PARAMS, FUTURE, INT32(PARAMS.reserved, 1)),
    FAULT(IN_ALL, WINDOW_LEFT, RANGE, INT64(PARAMS.window_left, -2)),
    FAULT(IN_ALL, WINDOW_LEFT, RANGE, INT64(PARAMS.window_left, INT64_MIN)),
    FINE(IN_ALL, INT64(PARAMS.window_left, 0)),
    FINE(IN_ALL, INT64(PARAMS.window_left, INT64_MAX)),
    FAULT(IN_ALL, WINDOW_RIGHT, RANGE, INT64(PARAMS.window_right, -2)),
    FAULT(IN_ALL, WINDOW_RIGHT, RANGE, INT64(PARAMS.window_right, INT64_MIN)),
    FINE(IN_ALL, INT64(PARAMS.window_right, 0)),
    FINE(IN_ALL, INT64(PARAMS.window_right, INT64_MAX)),
    FINE(IN_ALL, INT64(PARAMS.window_left, INT64_MAX), INT64(PARAMS.window_right, INT64_MAX),
         INT64(PARAMS.flags, QKV_FLAG_CAUSAL)),
};

static const struct fault_case array_faults[] = {
    FAULT(IN_ALL, ALIBI, MISALIGNED, MOVE(PARAMS.alibi_slopes, 1)),
    FAULT(IN_ALL, ALIBI, MISALIGNED, MOVE(PARAMS.alibi_slopes, 2)),
    FINE(IN_ALL, POINTER(PARAMS.alibi_slopes, NULL)),
    FAULT(IN_ALL, SINKS, MISALIGNED, MOVE(PARAMS.sinks, 1)),
    FAULT(IN_ALL, SINKS, MISALIGNED, MOVE(PARAMS.sinks, 2)),
    FINE(IN_ALL, POINTER(PARAMS.sinks, NULL)),

    FAULT(IN_ALL, BIAS, DTYPE, INT32(PARAMS.bias.dtype, QKV_BOOL)),
    FAULT(IN_ALL, BIAS, DTYPE, INT32(PARAMS.bias.dtype, QKV_DTYPE_NONE)),
    FAULT(IN_ALL, BIAS, DTYPE, INT32(PARAMS.bias.dtype, QKV_DTYPE_COUNT)),
    FAULT(IN_ALL, BIAS, DTYPE, INT32(PARAMS.bias.dtype, -1)),
    FAULT(IN_ALL, BIAS, FUTURE, INT32(PARAMS.bias.reserved, 1)),
    FAULT(IN_ALL, BIAS, MISALIGNED, MOVE(PARAMS.bias.data, 1)),
    FAULT(IN_ALL, BIAS, MISALIGNED, MOVE(PARAMS.bias.data, 2)),
    FAULT(IN_ALL, BIAS, STRIDE, INT64(PARAMS.bias.stride[3], 2)),
    FAULT(IN_ALL, BIAS, STRIDE, INT64(PARAMS.bias.stride[3], -1)),
    FAULT(IN_ALL, BIAS, OVERFLOW, INT64(PARAMS.bias.stride[0], INT64_MAX)),
    FAULT(IN_ALL, BIAS, OVERFLOW, INT64(PARAMS.bias.stride[1], INT64_MIN)),
    FAULT(IN_ALL, BIAS, OVERFLOW, INT64(PARAMS.bias.stride[2], INT64_MAX / 8)),
    FINE(IN_ALL, INT64(PARAMS.bias.stride[0], 0), INT64(PARAMS.bias.stride[1], 0),
         INT64(PARAMS.bias.stride[2], 0), INT64(PARAMS.bias.stride[3], 0)),
    FINE(IN_ALL, POINTER(PARAMS.bias.data, NULL)),

    FAULT(IN_ALL, MASK, DTYPE, INT32(PARAMS.mask.dtype, QKV_F32)),
    FAULT(IN_ALL, MASK, DTYPE, INT32(PARAMS.mask.dtype, QKV_DTYPE_NONE)),
    FAULT(IN_ALL, MASK, DTYPE, INT32(PARAMS.mask.dtype, QKV_DTYPE_COUNT)),
    FAULT(IN_ALL, MASK, FUTURE, INT32(PARAMS.mask.reserved, -1)),
    FAULT(IN_ALL, MASK, STRIDE, INT64(PARAMS.mask.stride[3], 2)),
    FAULT(IN_ALL, MASK, STRIDE, INT64(PARAMS.mask.stride[3], -1)),
    FAULT(IN_ALL, MASK, OVERFLOW, INT64(PARAMS.mask.stride[0], INT64_MAX)),
    FAULT(IN_ALL, MASK, OVERFLOW, INT64(PARAMS.mask.stride[1], INT64_MIN)),
    FAULT(IN_ALL, MASK, OVERFLOW, INT64(PARAMS.mask.stride[2], INT64_MAX / 8)),
    FINE(IN_ALL, INT64(PARAMS.mask.stride[0], 0), INT64(PARAMS.mask.stride[1], 0),
         INT64(PARAMS.mask.stride[2], 0), INT64(PARAMS.mask.stride[3], 0)),
    FINE(IN_ALL, POINTER(PARAMS.mask.data, NULL)),
};

static const struct fault_case length_faults[] = {
    FAULT(IN_ALL, Q_LENS, MISALIGNED, POINTER(PARAMS.q_lens, f.q_lens), MOVE(PARAMS.q_lens, 2)),
    FAULT(IN_ALL, Q_LENS, LENGTH, POINTER(PARAMS.q_lens, f.q_lens), INT32(q_lens[0], -1)),
    FAULT(IN_ALL, Q_LENS, LENGTH, POINTER(PARAMS.q_lens, f.q_lens), INT32(q_lens[1], Q_LEN + 1)),
    FAULT(IN_ALL, Q_LENS, LENGTH, POINTER(PARAMS.q_lens, f.q_lens), INT32(q_lens[1], INT32_MIN)),
    FINE(IN_ALL, POINTER(PARAMS.q_lens, f.q_lens)),
    FINE(IN_ALL, POINTER(PARAMS.q_lens, f.q_lens), INT32(q_lens[0], 0), INT32(q_lens[1], 0)),

    FAULT(IN_ALL, KV_LENS, MISALIGNED, POINTER(PARAMS.kv_lens, f.kv_lens), MOVE(PARAMS.kv_lens, 1)),
    FAULT(IN_ALL, KV_LENS, LENGTH, POINTER(PARAMS.kv_lens, f.kv_lens), INT32(kv_lens[1], -1)),
    FAULT(IN_ALL, KV_LENS, LENGTH, POINTER(PARAMS.kv_lens, f.kv_lens),
          INT32(kv_lens[0], KV_LEN + 1)),
    FAULT(IN_ALL, KV_LENS, LENGTH, POINTER(PARAMS.kv_lens, f.kv_lens),
          INT32(kv_lens[0], INT32_MAX)),
    FINE(IN_ALL, POINTER(PARAMS.kv_lens, f.kv_lens)),
    FINE(IN_ALL, POINTER(PARAMS.kv_lens, f.kv_lens), INT32(kv_lens[0], 0), INT32(kv_lens[1], 0)),

    FAULT(IN_ALL, CU_Q, MISALIGNED, POINTER(PARAMS.cu_q, f.cu_q), MOVE(PARAMS.cu_q, 3)),
    FAULT(IN_ALL, CU_Q, NEGATIVE, POINTER(PARAMS.cu_q, f.cu_q), INT32(cu_q[0], -1)),
    FAULT(IN_ALL, CU_Q, ORDER, POINTER(PARAMS.cu_q, f.cu_q), INT32(cu_q[1], 3), INT32(cu_q[2], 2)),
    FAULT(IN_ALL, CU_Q, ORDER, POINTER(PARAMS.cu_q, f.cu_q), INT32(cu_q[1], -1)),
    FAULT(IN_ALL, CU_Q, ORDER, POINTER(PARAMS.cu_q, f.cu_q), INT32(cu_q[2], INT32_MIN)),
    FAULT(IN_ALL, CU_Q, LENGTH, POINTER(PARAMS.cu_q, f.cu_q), INT32(cu_q[1], Q_LEN + 1),
          INT32(cu_q[2], Q_LEN + 1)),
    FAULT(IN_ALL, CU_Q, LENGTH, POINTER(PARAMS.cu_q, f.cu_q), INT32(cu_q[2], INT32_MAX)),
    FINE(IN_ALL, POINTER(PARAMS.cu_q, f.cu_q)),
    FINE(IN_ALL, POINTER(PARAMS.cu_q, f.cu_q), INT32(cu_q[1], 0), INT32(cu_q[2], 0)),

    FAULT(IN_ALL, CU_KV, MISALIGNED, POINTER(PARAMS.cu_kv, f.cu_kv), MOVE(PARAMS.cu_kv, 2)),
    FAULT(IN_ALL, CU_KV, NEGATIVE, POINTER(PARAMS.cu_kv, f.cu_kv), INT32(cu_kv[0], -1)),
    FAULT(IN_ALL, CU_KV, ORDER, POINTER(PARAMS.cu_kv, f.cu_kv), INT32(cu_kv[1], 3),
          INT32(cu_kv[2], 2)),
    FAULT(IN_ALL, CU_KV, LENGTH, POINTER(PARAMS.cu_kv, f.cu_kv), INT32(cu_kv[1], KV_LEN + 1),
          INT32(cu_kv[2], KV_LEN + 1)),
    FINE(IN_ALL, POINTER(PARAMS.cu_kv, f.cu_kv)),
    FINE(IN_ALL, POINTER(PARAMS.cu_kv, f.cu_kv), INT32(cu_kv[1], 0), INT32(cu_kv[2], 0)),
    FINE(IN_ALL, POINTER(PARAMS.cu_q, f.cu_q), POINTER(PARAMS.kv_lens, f.kv_lens)),
    FINE(IN_ALL, POINTER(PARAMS.q_lens, f.q_lens), POINTER(PARAMS.cu_kv, f.cu_kv)),

    FAULT(IN_ALL, Q_LENS, CONFLICT, POINTER(PARAMS.q_lens, f.q_lens), POINTER(PARAMS.cu_q, f.cu_q)),
    FAULT(IN_ALL, KV_LENS, CONFLICT, POINTER(PARAMS.kv_lens, f.kv_lens),
          POINTER(PARAMS.cu_kv, f.cu_kv)),
};

/* The context of a plan, and that of a plain call. */
static const struct fault_case context_faults[] = {
    FAULT(IN_ALL | IN_PROJECT | IN_LOSS | IN_DESCENT, CONTEXT, MISALIGNED,
          POINTER(context_arg, &f.made), MOVE(context_arg, 4), POINTER(exec.now.context, &f.made),
          MOVE(exec.now.context, 4)),
    FAULT(IN_ALL | IN_PROJECT | IN_LOSS | IN_DESCENT, CONTEXT, STALE,
          POINTER(context_arg, &f.zeros), POINTER(exec.now.context, &f.zeros)),
    FAULT(IN_ALL | IN_PROJECT | IN_LOSS | IN_DESCENT, CONTEXT, STALE,
          POINTER(context_arg, &f.noise), POINTER(exec.now.context, &f.noise)),
};

static const struct fault_case plan_faults[] = {
    FAULT(IN_ALL | IN_PROJECT, PLAN, NULL, POINTER(plan_arg, NULL)),
    FAULT(IN_ALL | IN_PROJECT, PLAN, MISALIGNED, MOVE(plan_arg, 1)),
    FAULT(IN_ALL | IN_PROJECT, PLAN, MISALIGNED, MOVE(plan_arg, 4)),
};

/* The gradient of sinks that are not there is a fault of its own (arguments_backward.c). */
static void want_no_sinks(int stage) {
    (void)stage;
    f.gradients.now.sinks.data = NULL;
}

static void check_both(const struct fault_case *c) {
    const struct fault_case twin = twin_of(c);

    run_case(c, NULL, "the plan", call_plan);
    run_case(c, NULL, "the plain call", call_plain);
    run_case(&twin, NULL, "the plan", call_plan);
    run_case(&twin, want_no_sinks, "the plain call", call_plain);
}

TABLE_TEST(struct_faults, check_both)
TABLE_TEST(size_faults, check_both)
TABLE_TEST(number_faults, check_both)
TABLE_TEST(array_faults, check_both)
TABLE_TEST(length_faults, check_both)
TABLE_TEST(context_faults, check_both)

static void check_plan_faults(const struct fault_case *c) {
    const struct fault_case twin = twin_of(c);

    run_case(c, NULL, "the plan", call_plan);
    run_case(&twin, NULL, "the plan", call_plan);
}
TABLE_TEST(plan_faults, check_plan_faults)

/* q_len = 2^34 and kv_len = 2^34: too much to hold scores, but attention never holds them. */
START_TEST(attention_does_not_multiply_the_lengths) {
    fixture_reset();
    f.params.now.q_len = f.params.now.kv_len = (int64_t)1 << 34;
    f.params.now.bias.data = f.params.now.mask.data = NULL;
    ck_assert_int_eq(call_plan(QKV_STAGE_ATTENTION), QKV_OK);
}
END_TEST

TCase *params_case(void) {
    TCase *test = tcase_create("params");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, struct_faults);
    ADD_TABLE(test, size_faults);
    ADD_TABLE(test, number_faults);
    ADD_TABLE(test, array_faults);
    ADD_TABLE(test, length_faults);
    ADD_TABLE(test, context_faults);
    ADD_TABLE(test, plan_faults);
    tcase_add_test(test, attention_does_not_multiply_the_lengths);
    return test;
}
