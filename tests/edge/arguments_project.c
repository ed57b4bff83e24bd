/* SPDX-License-Identifier: Apache-2.0 */
/* The projection's parameters and tensors. */
#include "arguments.h"

#define PARAMS project_params.now
#define TENSORS project_tensors.now
#define HUGE_COUNT ((int64_t)1 << 61)
#define HALF_COUNT ((int64_t)1 << 31)
#define FAR_END ((const void *)(UINTPTR_MAX - 63))

static const struct fault_case params_faults[] = {
    FAULT(IN_PROJECTS, PARAMS, NULL, POINTER(project_params_arg, NULL)),
    FAULT(IN_PROJECTS, PARAMS, MISALIGNED, MOVE(project_params_arg, 1)),
    FAULT(IN_PROJECTS, PARAMS, MISALIGNED, MOVE(project_params_arg, 4)),
    FAULT(IN_PROJECTS, PARAMS, SIZE, INT64(PARAMS.size, 0)),
    FAULT(IN_PROJECTS, PARAMS, SIZE, INT64(PARAMS.size, sizeof f.PARAMS - 8)),
    FAULT(IN_PROJECTS, PARAMS, SIZE, INT64(PARAMS.size, -1)),
    FAULT(IN_PROJECTS, PARAMS, FUTURE, INT64(PARAMS.size, sizeof f.project_params),
          INT64(project_params.tail[0], 1)),
    FAULT(IN_PROJECTS, PARAMS, FUTURE, INT32(PARAMS.reserved, 1)),
    FINE(IN_PROJECTS, INT64(PARAMS.size, sizeof f.project_params)),
    FAULT(IN_PROJECT, FLAGS, FLAG, INT64(PARAMS.flags, QKV_PROJECT_ACCUMULATE)),
    FAULT(IN_PROJECTS, FLAGS, FLAG, INT64(PARAMS.flags, 2)),
    FAULT(IN_PROJECTS, FLAGS, FLAG, INT64(PARAMS.flags, INT64_MIN)),
    FAULT(IN_PROJECTS, BATCH, ZERO, INT64(PARAMS.batch, 0)),
    FAULT(IN_PROJECTS, BATCH, NEGATIVE, INT64(PARAMS.batch, -1)),
    FAULT(IN_PROJECTS, BATCH, NEGATIVE, INT64(PARAMS.batch, INT64_MIN)),
    FAULT(IN_PROJECTS, BATCH, OVERFLOW, INT64(PARAMS.batch, INT64_MAX)),
    FAULT(IN_PROJECTS, TOKENS, NEGATIVE, INT64(PARAMS.tokens, -1)),
    FAULT(IN_PROJECTS, TOKENS, NEGATIVE, INT64(PARAMS.tokens, INT64_MIN)),
    FAULT(IN_PROJECTS, TOKENS, OVERFLOW, INT64(PARAMS.tokens, INT64_MAX)),
    FAULT(IN_PROJECTS, TOKENS, OVERFLOW, INT64(PARAMS.tokens, HUGE_COUNT)),
    FINE(IN_PROJECTS, INT64(PARAMS.tokens, 0)),
    FAULT(IN_PROJECTS, D_MODEL, ZERO, INT64(PARAMS.d_model, 0)),
    FAULT(IN_PROJECTS, D_MODEL, NEGATIVE, INT64(PARAMS.d_model, -1)),
    FAULT(IN_PROJECTS, D_MODEL, NEGATIVE, INT64(PARAMS.d_model, INT64_MIN)),
    FAULT(IN_PROJECTS, D_MODEL, OVERFLOW, INT64(PARAMS.d_model, INT64_MAX)),
    FAULT(IN_PROJECTS, D_MODEL, OVERFLOW, INT64(PARAMS.d_model, HUGE_COUNT)),
    FAULT(IN_PROJECTS, Q_HEADS, NEGATIVE, INT64(PARAMS.q_heads, -1)),
    FAULT(IN_PROJECTS, Q_HEADS, NEGATIVE, INT64(PARAMS.q_heads, INT64_MIN)),
    FAULT(IN_PROJECTS, Q_HEADS, OVERFLOW, INT64(PARAMS.q_heads, INT64_MAX)),
    FAULT(IN_PROJECTS, KV_HEADS, NEGATIVE, INT64(PARAMS.kv_heads, -1)),
    FAULT(IN_PROJECTS, KV_HEADS, OVERFLOW, INT64(PARAMS.kv_heads, INT64_MAX)),
    FAULT(IN_PROJECTS, Q_HEADS, ZERO, INT64(PARAMS.q_heads, 0), INT64(PARAMS.kv_heads, 0)),
    FINE(IN_PROJECTS, INT64(PARAMS.q_heads, 0)),
    FINE(IN_PROJECTS, INT64(PARAMS.kv_heads, 0)),
    FAULT(IN_PROJECTS, HEAD_DIM, ZERO, INT64(PARAMS.head_dim, 0)),
    FAULT(IN_PROJECTS, HEAD_DIM, NEGATIVE, INT64(PARAMS.head_dim, -1)),
    FAULT(IN_PROJECTS, HEAD_DIM, OVERFLOW, INT64(PARAMS.head_dim, INT64_MAX)),
    FAULT(IN_PROJECTS, V_DIM, NEGATIVE, INT64(PARAMS.v_dim, -1)),
    FAULT(IN_PROJECTS, V_DIM, NEGATIVE, INT64(PARAMS.v_dim, INT64_MIN)),
    FAULT(IN_PROJECTS, V_DIM, OVERFLOW, INT64(PARAMS.v_dim, INT64_MAX)),
    /* each fits, their product does not */
    FAULT(IN_PROJECTS, TOKENS, OVERFLOW, INT64(PARAMS.batch, HALF_COUNT),
          INT64(PARAMS.tokens, HALF_COUNT)),
    FAULT(IN_PROJECTS, D_MODEL, OVERFLOW, INT64(PARAMS.tokens, HALF_COUNT),
          INT64(PARAMS.d_model, HALF_COUNT)),
    FAULT(IN_PROJECTS, Q_HEADS, OVERFLOW, INT64(PARAMS.q_heads, HALF_COUNT),
          INT64(PARAMS.head_dim, HALF_COUNT)),
    FAULT(IN_PROJECTS, KV_HEADS, OVERFLOW, INT64(PARAMS.kv_heads, HALF_COUNT),
          INT64(PARAMS.d_model, HALF_COUNT)),
    FAULT(IN_PROJECTS, V_DIM, OVERFLOW, INT64(PARAMS.v_dim, HALF_COUNT),
          INT64(PARAMS.tokens, HALF_COUNT)),
    FAULT(IN_PROJECTS, LAYOUT, RANGE, INT32(PARAMS.layout, -1)),
    FAULT(IN_PROJECTS, LAYOUT, RANGE, INT32(PARAMS.layout, QKV_W_COUNT)),
    FAULT(IN_PROJECTS, LAYOUT, RANGE, INT32(PARAMS.layout, INT32_MIN)),
    FAULT(IN_PROJECT_BACKWARD, LAYOUT, RANGE, INT32(PARAMS.layout, QKV_W_PACKED)),
    FINE(IN_PROJECT_BACKWARD, INT64(PARAMS.flags, QKV_PROJECT_ACCUMULATE)),
};

static const struct fault_case struct_faults[] = {
    FAULT(IN_PROJECTS, TENSORS, NULL, POINTER(project_tensors_arg, NULL)),
    FAULT(IN_PROJECTS, TENSORS, MISALIGNED, MOVE(project_tensors_arg, 1)),
    FAULT(IN_PROJECTS, TENSORS, MISALIGNED, MOVE(project_tensors_arg, 4)),
    FAULT(IN_PROJECTS, TENSORS, SIZE, INT64(TENSORS.size, 0)),
    FAULT(IN_PROJECTS, TENSORS, SIZE, INT64(TENSORS.size, sizeof f.TENSORS - 8)),
    FAULT(IN_PROJECTS, TENSORS, SIZE, INT64(TENSORS.size, -1)),
    FAULT(IN_PROJECTS, TENSORS, FUTURE, INT64(TENSORS.size, sizeof f.project_tensors),
          INT64(project_tensors.tail[2], 1)),
    FINE(IN_PROJECTS, INT64(TENSORS.size, sizeof f.project_tensors)),
};

/* What can be wrong with a tensor when it is there. */
#define ANY_FAULT(arg, tensor)                                                       \
    FAULT(IN_PROJECT, arg, MISALIGNED, MOVE(TENSORS.tensor.data, 1)),                \
        FAULT(IN_PROJECT, arg, MISALIGNED, MOVE(TENSORS.tensor.data, 2)),            \
        FAULT(IN_PROJECT, arg, DTYPE, INT32(TENSORS.tensor.dtype, QKV_DTYPE_NONE)),  \
        FAULT(IN_PROJECT, arg, DTYPE, INT32(TENSORS.tensor.dtype, QKV_BOOL)),        \
        FAULT(IN_PROJECT, arg, DTYPE, INT32(TENSORS.tensor.dtype, QKV_DTYPE_COUNT)), \
        FAULT(IN_PROJECT, arg, FUTURE, INT32(TENSORS.tensor.reserved, 1)),           \
        FAULT(IN_PROJECT, arg, STRIDE, INT64(TENSORS.tensor.stride[3], 0)),          \
        FAULT(IN_PROJECT, arg, STRIDE, INT64(TENSORS.tensor.stride[3], 2)),          \
        FAULT(IN_PROJECT, arg, STRIDE, INT64(TENSORS.tensor.stride[3], -1)),         \
        FAULT(IN_PROJECT, arg, OVERFLOW, POINTER(TENSORS.tensor.data, FAR_END))

#define NEEDED_FAULT(arg, tensor)                                                             \
    ANY_FAULT(arg, tensor), FAULT(IN_PROJECT, arg, NULL, POINTER(TENSORS.tensor.data, NULL)), \
        FAULT(IN_PROJECT, arg, OVERFLOW, INT64(TENSORS.tensor.stride[2], INT64_MAX)),         \
        FAULT(IN_PROJECT, arg, OVERFLOW, INT64(TENSORS.tensor.stride[2], INT64_MIN / 4))

static const struct fault_case input_faults[] = {
    NEEDED_FAULT(X, x),
    NEEDED_FAULT(WQ, wq),
    NEEDED_FAULT(WK, wk),
    NEEDED_FAULT(WV, wv),
    ANY_FAULT(BQ, bq),
    ANY_FAULT(BK, bk),
    ANY_FAULT(BV, bv),
    FAULT(IN_PROJECT, X, OVERFLOW, INT64(TENSORS.x.stride[0], INT64_MAX)),
    FINE(IN_PROJECT, INT64(TENSORS.x.stride[0], 0), INT64(TENSORS.x.stride[2], 0)),
    FINE(IN_PROJECT, INT64(TENSORS.x.stride[1], INT64_MIN)), /* not used */
    FINE(IN_PROJECT, INT64(TENSORS.wq.stride[0], INT64_MIN), INT64(TENSORS.wq.stride[1], 0)),
    FINE(IN_PROJECT, INT64(TENSORS.wk.stride[2], 0)),
    FINE(IN_PROJECT, POINTER(TENSORS.bq.data, NULL), POINTER(TENSORS.bk.data, NULL),
         POINTER(TENSORS.bv.data, NULL)),
};

/* Cases whose parameters are not those that a run was planned with. */
static const struct fault_case left_out[] = {
    /* a matrix that is left out is not looked at */
    FINE(IN_PROJECT, INT64(PARAMS.q_heads, 0), POINTER(TENSORS.wq.data, NULL),
         MOVE(TENSORS.bq.data, 1), POINTER(TENSORS.q.data, f.x)),
    FINE(IN_PROJECT, INT64(PARAMS.kv_heads, 0), POINTER(TENSORS.wk.data, NULL),
         POINTER(TENSORS.wv.data, NULL), POINTER(TENSORS.k.data, NULL),
         INT32(TENSORS.v.dtype, QKV_BOOL)),
    /* nor is any tensor of no tokens */
    FINE(IN_PROJECT, INT64(PARAMS.tokens, 0), POINTER(TENSORS.x.data, NULL),
         POINTER(TENSORS.q.data, NULL), POINTER(TENSORS.k.data, NULL),
         POINTER(TENSORS.v.data, NULL)),
};

#define OUTPUT_FAULT(arg, tensor, dim)                                                          \
    NEEDED_FAULT(arg, tensor),                                                                  \
        FAULT(IN_PROJECT, arg, OVERFLOW, INT64(TENSORS.tensor.stride[1], INT64_MAX)),           \
        FAULT(IN_PROJECT, arg, SELF_OVERLAP, INT64(TENSORS.tensor.stride[0], 0)),               \
        FAULT(IN_PROJECT, arg, SELF_OVERLAP, INT64(TENSORS.tensor.stride[1], 0)),               \
        FAULT(IN_PROJECT, arg, SELF_OVERLAP, INT64(TENSORS.tensor.stride[2], 0)),               \
        FAULT(IN_PROJECT, arg, SELF_OVERLAP, INT64(TENSORS.tensor.stride[2], (dim)-1)),         \
        FAULT(IN_PROJECT, arg, SELF_OVERLAP, INT64(TENSORS.tensor.stride[2], 1 - (dim)),        \
              MOVE(TENSORS.tensor.data, 4 * (dim)*TOKENS)),                                     \
        FAULT(IN_PROJECT, arg, SELF_OVERLAP, INT64(TENSORS.tensor.stride[1], TOKENS *(dim)-1)), \
        FINE(IN_PROJECT, INT64(TENSORS.tensor.stride[2], -(dim)),                               \
             MOVE(TENSORS.tensor.data, 4 * (dim) * (TOKENS - 1)))

static const struct fault_case output_faults[] = {
    OUTPUT_FAULT(Q, q, DIM),
    OUTPUT_FAULT(K, k, DIM),
    OUTPUT_FAULT(V, v, V_DIM),
    FAULT(IN_PROJECT, Q, OVERLAP, POINTER(TENSORS.q.data, f.x)),
    FAULT(IN_PROJECT, K, OVERLAP, POINTER(TENSORS.k.data, f.x)),
    FAULT(IN_PROJECT, V, OVERLAP, POINTER(TENSORS.v.data, f.x)),
    FAULT(IN_PROJECT, Q, OVERLAP, POINTER(TENSORS.q.data, f.wk)),
    FAULT(IN_PROJECT, K, OVERLAP, POINTER(TENSORS.k.data, f.wq)),
    FAULT(IN_PROJECT, V, OVERLAP, POINTER(TENSORS.wv.data, f.pv)),
    FAULT(IN_PROJECT, Q, OVERLAP, POINTER(TENSORS.q.data, f.bq)),
    FAULT(IN_PROJECT, V, OVERLAP, POINTER(TENSORS.bk.data, f.pv)),
    /* the first of two outputs is named */
    FAULT(IN_PROJECT, Q, OVERLAP, POINTER(TENSORS.k.data, f.pq)),
    FAULT(IN_PROJECT, K, OVERLAP, POINTER(TENSORS.v.data, f.pk)),
    FAULT(IN_PROJECT, Q, OVERLAP, POINTER(TENSORS.x.data, f.pq),
          MOVE(TENSORS.x.data, sizeof f.pq - sizeof(float))),
    /* inputs may share memory */
    FINE(IN_PROJECT, POINTER(TENSORS.wk.data, f.wq), POINTER(TENSORS.bk.data, f.bq)),
};

static void check_params_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plan", call_plan);
    run_case(c, NULL, "the plain call", call_plain);
}
TABLE_TEST(params_faults, check_params_faults)

static void check_left_out(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", call_plain);
}
TABLE_TEST(left_out, check_left_out)

static void check_both(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", call_plain);
    run_case(c, prepare_ready, "the run", call_run);
}
TABLE_TEST(struct_faults, check_both)
TABLE_TEST(input_faults, check_both)
TABLE_TEST(output_faults, check_both)

/* Q, K and V as slices of one row of a token: what a packed QKV buffer is. */
START_TEST(interleaved_outputs_are_no_overlap) {
    enum { QKV_ROW = Q_WIDTH + K_WIDTH + V_WIDTH };
    float *rows = (float *)f.rows;

    fixture_reset();
    f.TENSORS.q = qkv_tensor_bshd(rows, Q_HEADS, TOKENS, DIM);
    f.TENSORS.k = qkv_tensor_bshd(rows + Q_WIDTH, KV_HEADS, TOKENS, DIM);
    f.TENSORS.v = qkv_tensor_bshd(rows + Q_WIDTH + K_WIDTH, KV_HEADS, TOKENS, V_DIM);
    f.TENSORS.q.stride[0] = f.TENSORS.k.stride[0] = f.TENSORS.v.stride[0] = TOKENS * QKV_ROW;
    f.TENSORS.q.stride[2] = f.TENSORS.k.stride[2] = f.TENSORS.v.stride[2] = QKV_ROW;
    ck_assert_int_eq(call_plain(QKV_STAGE_PROJECT), QKV_OK);
    f.TENSORS.v.data = rows + Q_WIDTH + K_WIDTH - 1;
    fixture_remember();
    ck_assert_int_eq(call_plain(QKV_STAGE_PROJECT), (QKV_ARG_K << 8) + QKV_FAULT_OVERLAP);
    fixture_check_untouched("the plain call", QKV_STAGE_PROJECT);
}
END_TEST

TCase *project_case(void) {
    TCase *test = tcase_create("project");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, params_faults);
    ADD_TABLE(test, struct_faults);
    ADD_TABLE(test, input_faults);
    ADD_TABLE(test, left_out);
    ADD_TABLE(test, output_faults);
    tcase_add_test(test, interleaved_outputs_are_no_overlap);
    return test;
}
