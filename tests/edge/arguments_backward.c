/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors and gradients of the backward stages: each fault is told by the plain call and by the
 * run alike. What their parameters and their exec can have stands with those of the forward. */
#include "arguments_faults.h"

#define TENSORS tensors.now
#define GRADIENTS gradients.now
#define IN_S IN_SCORES_BACKWARD
#define IN_P IN_SOFTMAX_BACKWARD
#define IN_M IN_MIX_BACKWARD
#define IN_A IN_ATTENTION_BACKWARD

static const struct fault_case gradient_structs[] = {
    FAULT(IN_ALL_BACKWARD, TENSORS, NULL, POINTER(tensors_arg, NULL)),
    FAULT(IN_ALL_BACKWARD, TENSORS, MISALIGNED, MOVE(tensors_arg, 4)),
    FAULT(IN_ALL_BACKWARD, TENSORS, SIZE, INT64(TENSORS.size, 0)),
    FAULT(IN_ALL_BACKWARD, TENSORS, FUTURE, INT64(TENSORS.size, sizeof f.tensors),
          INT64(tensors.tail[TAIL - 1], 1)),
    FAULT(IN_ALL_BACKWARD, GRADIENTS, NULL, POINTER(gradients_arg, NULL)),
    FAULT(IN_ALL_BACKWARD, GRADIENTS, MISALIGNED, MOVE(gradients_arg, 1)),
    FAULT(IN_ALL_BACKWARD, GRADIENTS, MISALIGNED, MOVE(gradients_arg, 4)),
    FAULT(IN_ALL_BACKWARD, GRADIENTS, SIZE, INT64(GRADIENTS.size, 0)),
    FAULT(IN_ALL_BACKWARD, GRADIENTS, SIZE, INT64(GRADIENTS.size, sizeof f.GRADIENTS - 1)),
    FAULT(IN_ALL_BACKWARD, GRADIENTS, SIZE, INT64(GRADIENTS.size, -1)),
    FAULT(IN_ALL_BACKWARD, GRADIENTS, FUTURE, INT64(GRADIENTS.size, sizeof f.gradients),
          INT64(gradients.tail[TAIL - 1], 1)),
    FINE(IN_ALL_BACKWARD, INT64(GRADIENTS.size, sizeof f.gradients)),
};

static const struct fault_case backward_inputs[] = {
    ROW_FAULT(IN_S | IN_A, Q, TENSORS.q),
    ROW_FAULT(IN_S | IN_A, K, TENSORS.k),
    ROW_FAULT(IN_M | IN_A, V, TENSORS.v),
    ROW_FAULT(IN_P | IN_M, WEIGHTS, TENSORS.weights),
    ROW_FAULT(IN_A, OUT, TENSORS.out),
    ANY_FAULT(IN_A, LSE, TENSORS.lse),
    FAULT(IN_A, LSE, NULL, POINTER(TENSORS.lse.data, NULL)),
    ROW_FAULT(IN_M | IN_A, D_OUT, GRADIENTS.out),
    ROW_FAULT(IN_P, D_WEIGHTS, GRADIENTS.weights),
    ROW_FAULT(IN_S, D_SCORES, GRADIENTS.scores),
    /* only the gradient of the sinks needs softmax's LSE */
    FAULT(IN_P, LSE, NULL, POINTER(TENSORS.lse.data, NULL)),
    FINE(IN_P, POINTER(TENSORS.lse.data, NULL), POINTER(GRADIENTS.sinks.data, NULL)),
    /* broadcast */
    FINE(IN_S | IN_A, INT64(TENSORS.k.stride[0], 0), INT64(TENSORS.k.stride[1], 0)),
    FINE(IN_M | IN_A, INT64(GRADIENTS.out.stride[0], 0), INT64(GRADIENTS.out.stride[1], 0),
         INT64(GRADIENTS.out.stride[2], 0)),
    /* a tensor that the stage does not name is not looked at */
    FINE(IN_S | IN_P, MOVE(TENSORS.v.data, 1), MOVE(GRADIENTS.out.data, 1)),
    FINE(IN_P | IN_M, POINTER(TENSORS.q.data, NULL), INT64(TENSORS.k.stride[3], 9)),
    FINE(IN_A, MOVE(TENSORS.scores.data, 1), MOVE(GRADIENTS.weights.data, 1)),
    FINE(IN_M, MOVE(GRADIENTS.q.data, 1), MOVE(GRADIENTS.sinks.data, 1)),
};

static const struct fault_case backward_outputs[] = {
    ANY_FAULT(IN_S | IN_A, D_Q, GRADIENTS.q),
    OUTPUT_FAULT(IN_S | IN_A, D_Q, GRADIENTS.q, Q_HEADS, Q_LEN, DIM),
    ANY_FAULT(IN_S | IN_A, D_K, GRADIENTS.k),
    OUTPUT_FAULT(IN_S | IN_A, D_K, GRADIENTS.k, KV_HEADS, KV_LEN, DIM),
    ANY_FAULT(IN_M | IN_A, D_V, GRADIENTS.v),
    OUTPUT_FAULT(IN_M | IN_A, D_V, GRADIENTS.v, KV_HEADS, KV_LEN, V_DIM),
    ANY_FAULT(IN_P, D_SCORES, GRADIENTS.scores),
    OUTPUT_FAULT(IN_P, D_SCORES, GRADIENTS.scores, Q_HEADS, Q_LEN, KV_LEN),
    ANY_FAULT(IN_M, D_WEIGHTS, GRADIENTS.weights),
    OUTPUT_FAULT(IN_M, D_WEIGHTS, GRADIENTS.weights, Q_HEADS, Q_LEN, KV_LEN),
    ANY_FAULT(IN_S | IN_A, D_BIAS, GRADIENTS.bias),
    OUTPUT_FAULT(IN_S | IN_A, D_BIAS, GRADIENTS.bias, Q_HEADS, Q_LEN, KV_LEN),
    FAULT(IN_P | IN_A, D_SINKS, MISALIGNED, MOVE(GRADIENTS.sinks.data, 2)),
    FAULT(IN_P | IN_A, D_SINKS, DTYPE, INT32(GRADIENTS.sinks.dtype, QKV_BOOL)),
    FAULT(IN_P | IN_A, D_SINKS, FUTURE, INT32(GRADIENTS.sinks.reserved, 1)),
    FAULT(IN_P | IN_A, D_SINKS, STRIDE, INT64(GRADIENTS.sinks.stride[3], 2)),
    FAULT(IN_P | IN_A, D_SINKS, OVERFLOW, POINTER(GRADIENTS.sinks.data, FAR_END)),
    /* what is not there is not wanted, and not looked at */
    FINE(IN_S | IN_A, POINTER(GRADIENTS.q.data, NULL), INT32(GRADIENTS.q.dtype, 77)),
    FINE(IN_S | IN_A, POINTER(GRADIENTS.k.data, NULL), INT64(GRADIENTS.k.stride[2], 0)),
    FINE(IN_M | IN_A, POINTER(GRADIENTS.v.data, NULL)),
    FINE(IN_M, POINTER(GRADIENTS.weights.data, NULL)),
    FINE(IN_S | IN_A, POINTER(GRADIENTS.bias.data, NULL)),
    FINE(IN_P | IN_A, POINTER(GRADIENTS.sinks.data, NULL)),
};

/* An output over something that the call reads. */
#define OVER(stages, arg, view, array) \
    FAULT(stages, arg, OVERLAP, POINTER(GRADIENTS.view.data, f.array))

static const struct fault_case backward_overlaps[] = {
    OVER(IN_S | IN_A, D_Q, q, q),
    OVER(IN_S | IN_A, D_Q, q, k),
    OVER(IN_A, D_Q, q, v),
    OVER(IN_A, D_Q, q, out),
    OVER(IN_A, D_Q, q, d_out),
    OVER(IN_S, D_Q, q, d_scores),
    OVER(IN_S | IN_A, D_Q, q, bias),
    OVER(IN_S | IN_A, D_Q, q, mask),
    OVER(IN_S | IN_A, D_Q, q, slopes),
    OVER(IN_S | IN_A, D_K, k, q),
    OVER(IN_S | IN_A, D_K, k, k),
    OVER(IN_A, D_K, k, lse),
    OVER(IN_M | IN_A, D_V, v, v),
    OVER(IN_M | IN_A, D_V, v, d_out),
    OVER(IN_M, D_V, v, weights),
    OVER(IN_P, D_SCORES, scores, weights),
    OVER(IN_M, D_WEIGHTS, weights, weights),
    OVER(IN_M, D_WEIGHTS, weights, d_out),
    OVER(IN_S | IN_A, D_BIAS, bias, bias),
    OVER(IN_A, D_BIAS, bias, d_out),
    OVER(IN_P | IN_A, D_SINKS, sinks, sinks),
    OVER(IN_P | IN_A, D_SINKS, sinks, lse),
    /* one element is enough */
    FAULT(IN_A, D_Q, OVERLAP, POINTER(GRADIENTS.q.data, f.q),
          MOVE(GRADIENTS.q.data, sizeof f.q - sizeof(float))),
    FAULT(IN_A, D_V, OVERLAP, POINTER(GRADIENTS.v.data, f.v),
          MOVE(GRADIENTS.v.data, -(int64_t)(sizeof f.v - sizeof(float)))),
    /* the first of two outputs that overlap each other is named */
    FAULT(IN_S | IN_A, D_Q, OVERLAP, POINTER(GRADIENTS.k.data, f.d_q)),
    FAULT(IN_A, D_K, OVERLAP, POINTER(GRADIENTS.v.data, f.d_k)),
    FAULT(IN_A, D_V, OVERLAP, POINTER(GRADIENTS.sinks.data, f.d_v)),
    FAULT(IN_A, D_BIAS, OVERLAP, POINTER(GRADIENTS.sinks.data, f.d_bias)),
    /* an output that is not wanted overlaps nothing, and inputs may share memory */
    FINE(IN_A, POINTER(GRADIENTS.q.data, NULL), POINTER(GRADIENTS.k.data, f.d_q)),
    FINE(IN_A, POINTER(TENSORS.q.data, f.v), POINTER(GRADIENTS.out.data, f.out)),
    /* softmax's gradient may take the place of the weights', as a whole */
    FINE(IN_P, POINTER(GRADIENTS.scores.data, f.d_weights)),
    FAULT(IN_P, D_SCORES, OVERLAP, POINTER(GRADIENTS.scores.data, f.d_weights),
          MOVE(GRADIENTS.scores.data, sizeof(float))),
    FAULT(IN_P, D_SCORES, OVERLAP, POINTER(GRADIENTS.scores.data, f.d_weights),
          INT64(GRADIENTS.weights.stride[1], 0)),
};

/* Cases whose parameters are not those that a run was planned with. */
static const struct fault_case plain_gradients[] = {
    FAULT(IN_P | IN_A, SINKS, NULL, POINTER(params.now.sinks, NULL)),
    FINE(IN_P | IN_A, POINTER(params.now.sinks, NULL), POINTER(GRADIENTS.sinks.data, NULL)),
    /* the gradient of a bias that is not there is that of the scores */
    FINE(IN_S | IN_A, POINTER(params.now.bias.data, NULL)),
};

static void check_both(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", call_plain);
    run_case(c, prepare_ready, "the run", call_run);
}

TABLE_TEST(gradient_structs, check_both)
TABLE_TEST(backward_inputs, check_both)
TABLE_TEST(backward_outputs, check_both)
TABLE_TEST(backward_overlaps, check_both)

static void check_plain(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", call_plain);
}
TABLE_TEST(plain_gradients, check_plain)

/* A plan of a forward stage is none of its backward twin's, and the other way round. */
START_TEST(plans_do_not_go_from_forward_to_backward) {
    fixture_reset();
    prepare_ready(QKV_STAGE_ATTENTION);
    ck_assert_int_eq(call_run(QKV_STAGE_ATTENTION_BACKWARD), (QKV_ARG_PLAN << 8) + QKV_FAULT_STALE);
    fixture_reset();
    prepare_ready(QKV_STAGE_ATTENTION_BACKWARD);
    ck_assert_int_eq(call_run(QKV_STAGE_ATTENTION), (QKV_ARG_PLAN << 8) + QKV_FAULT_STALE);
}
END_TEST

/* Without rows dK and dV are zeros, and without keys dQ is: they are written all the same. */
START_TEST(empty_sums_are_zeros) {
    fixture_reset();
    f.params.now.q_len = 0;
    ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION_BACKWARD), QKV_OK);
    for (int j = 0; j < BATCH * KV_HEADS * KV_LEN * DIM; j++)
        ck_assert_float_eq(((const float *)f.d_k)[j], 0);
    for (int j = 0; j < BATCH * KV_HEADS * KV_LEN * V_DIM; j++)
        ck_assert_float_eq(((const float *)f.d_v)[j], 0);
    fixture_reset();
    f.params.now.kv_len = 0;
    f.TENSORS.k.data = f.TENSORS.v.data = NULL;
    f.GRADIENTS.k.data = f.GRADIENTS.v.data = f.GRADIENTS.bias.data = NULL;
    ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION_BACKWARD), QKV_OK);
    for (int j = 0; j < BATCH * Q_HEADS * Q_LEN * DIM; j++)
        ck_assert_float_eq(((const float *)f.d_q)[j], 0);
}
END_TEST

TCase *backward_case(void) {
    TCase *test = tcase_create("backward");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, gradient_structs);
    ADD_TABLE(test, backward_inputs);
    ADD_TABLE(test, backward_outputs);
    ADD_TABLE(test, backward_overlaps);
    ADD_TABLE(test, plain_gradients);
    tcase_add_test(test, plans_do_not_go_from_forward_to_backward);
    tcase_add_test(test, empty_sums_are_zeros);
    return test;
}
