/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors of attention's stages: each fault is told by the plain call and by the run alike. */
#include "arguments_faults.h"

#include "support/stages.h"

#define TENSORS tensors.now

static const struct fault_case struct_faults[] = {
    FAULT(IN_ALL, TENSORS, NULL, POINTER(tensors_arg, NULL)),
    FAULT(IN_ALL, TENSORS, MISALIGNED, MOVE(tensors_arg, 1)),
    FAULT(IN_ALL, TENSORS, MISALIGNED, MOVE(tensors_arg, 4)),
    FAULT(IN_ALL, TENSORS, SIZE, INT64(TENSORS.size, 0)),
    FAULT(IN_ALL, TENSORS, SIZE, INT64(TENSORS.size, sizeof f.TENSORS - 1)),
    FAULT(IN_ALL, TENSORS, SIZE, INT64(TENSORS.size, -1)),
    FAULT(IN_ALL, TENSORS, FUTURE, INT64(TENSORS.size, sizeof f.tensors),
          INT64(tensors.tail[TAIL - 1], 1)),
    FINE(IN_ALL, INT64(TENSORS.size, sizeof f.tensors)),
};

static const struct fault_case input_faults[] = {
    ROW_FAULT(IN_SCORES | IN_ATTENTION, Q, TENSORS.q),
    ROW_FAULT(IN_SCORES | IN_ATTENTION, K, TENSORS.k),
    ROW_FAULT(IN_MIX | IN_ATTENTION, V, TENSORS.v),
    ROW_FAULT(IN_SOFTMAX, SCORES, TENSORS.scores),
    ROW_FAULT(IN_MIX, WEIGHTS, TENSORS.weights),
    /* broadcast */
    FINE(IN_SCORES | IN_ATTENTION, INT64(TENSORS.q.stride[0], 0), INT64(TENSORS.q.stride[1], 0),
         INT64(TENSORS.q.stride[2], 0)),
    FINE(IN_SCORES | IN_ATTENTION, INT64(TENSORS.k.stride[0], 0), INT64(TENSORS.k.stride[1], 0),
         INT64(TENSORS.k.stride[2], 0)),
    FINE(IN_MIX | IN_ATTENTION, INT64(TENSORS.v.stride[0], 0), INT64(TENSORS.v.stride[2], 0)),
    /* a tensor that the stage does not name is not looked at */
    FINE(IN_SCORES | IN_SOFTMAX, MOVE(TENSORS.v.data, 1), INT32(TENSORS.out.dtype, 77)),
    FINE(IN_ATTENTION, MOVE(TENSORS.scores.data, 1), INT32(TENSORS.weights.dtype, 77)),
    FINE(IN_SOFTMAX | IN_MIX, POINTER(TENSORS.q.data, NULL), INT64(TENSORS.k.stride[3], 9)),
    FINE(IN_SCORES | IN_MIX, MOVE(TENSORS.lse.data, 1)),
};

static const struct fault_case output_faults[] = {
    ROW_FAULT(IN_SCORES, SCORES, TENSORS.scores),
    OUTPUT_FAULT(IN_SCORES, SCORES, TENSORS.scores, Q_HEADS, Q_LEN, KV_LEN),
    ROW_FAULT(IN_SOFTMAX, WEIGHTS, TENSORS.weights),
    OUTPUT_FAULT(IN_SOFTMAX, WEIGHTS, TENSORS.weights, Q_HEADS, Q_LEN, KV_LEN),
    ROW_FAULT(IN_MIX | IN_ATTENTION, OUT, TENSORS.out),
    OUTPUT_FAULT(IN_MIX | IN_ATTENTION, OUT, TENSORS.out, Q_HEADS, Q_LEN, V_DIM),
    ANY_FAULT(IN_SOFTMAX | IN_ATTENTION, LSE, TENSORS.lse),
    OUTPUT_FAULT(IN_SOFTMAX | IN_ATTENTION, LSE, TENSORS.lse, Q_HEADS, Q_LEN, 1),
    FINE(IN_SOFTMAX | IN_ATTENTION, INT64(TENSORS.lse.stride[3], 99)),
    /* LSE is optional, and an absent tensor is not looked at */
    FINE(IN_SOFTMAX | IN_ATTENTION, POINTER(TENSORS.lse.data, NULL)),
    FINE(IN_SOFTMAX | IN_ATTENTION, POINTER(TENSORS.lse.data, NULL), INT32(TENSORS.lse.dtype, 0),
         INT64(TENSORS.lse.stride[2], 0)),
};

static void check_both(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", call_plain);
    run_case(c, prepare_ready, "the run", call_run);
}

TABLE_TEST(struct_faults, check_both)
TABLE_TEST(input_faults, check_both)
TABLE_TEST(output_faults, check_both)

/* A dimension of one element ignores its stride, whatever that is. */
START_TEST(a_single_element_has_no_stride) {
    qkv_tensor *all[] = {&f.TENSORS.q,       &f.TENSORS.k,   &f.TENSORS.v,  &f.TENSORS.scores,
                         &f.TENSORS.weights, &f.TENSORS.out, &f.TENSORS.lse};

    fixture_reset();
    f.params.now.batch = 1;
    f.params.now.q_heads = f.params.now.kv_heads = 1;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        all[i]->stride[0] = i % 2 == 0 ? 0 : INT64_MIN;
        all[i]->stride[1] = i % 2 == 0 ? INT64_MAX : -3;
    }
    for (int stage = QKV_STAGE_SCORES; stage < FORWARD_STAGES; stage++)
        ck_assert_msg(call_plain(stage) == QKV_OK, "%s: %s", qkv_stage_name(stage),
                      qkv_status_string(call_plain(stage)));
}
END_TEST

/* Tensors of no elements may be absent altogether. */
START_TEST(empty_tensors_need_no_memory) {
    fixture_reset();
    f.params.now.q_len = 0;
    for (int stage = QKV_STAGE_SCORES; stage < FORWARD_STAGES; stage++) {
        qkv_tensors_init(&f.TENSORS);
        f.TENSORS.k = qkv_tensor_bshd(f.k, KV_HEADS, KV_LEN, DIM);
        f.TENSORS.v = qkv_tensor_bshd(f.v, KV_HEADS, KV_LEN, V_DIM);
        ck_assert_int_eq(call_plain(stage), QKV_OK);
    }
    fixture_reset();
    f.params.now.kv_len = 0;
    f.TENSORS.k.data = f.TENSORS.v.data = NULL;
    f.TENSORS.scores.data = f.TENSORS.weights.data = NULL;
    for (int stage = QKV_STAGE_SCORES; stage < FORWARD_STAGES; stage++)
        ck_assert_int_eq(call_plain(stage), QKV_OK);
}
END_TEST

/* A ragged tensor's batch stride is not used. */
START_TEST(ragged_tensors_have_no_batch_stride) {
    fixture_reset();
    f.params.now.cu_q = f.cu_q;
    f.params.now.cu_kv = f.cu_kv;
    f.TENSORS.q.stride[0] = f.TENSORS.k.stride[0] = f.TENSORS.v.stride[0] = INT64_MIN;
    f.TENSORS.scores.stride[0] = f.TENSORS.weights.stride[0] = INT64_MAX;
    f.TENSORS.out.stride[0] = f.TENSORS.lse.stride[0] = 0;
    for (int stage = QKV_STAGE_SCORES; stage < FORWARD_STAGES; stage++)
        ck_assert_int_eq(call_plain(stage), QKV_OK);
}
END_TEST

TCase *tensors_case(void) {
    TCase *test = tcase_create("tensors");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, struct_faults);
    ADD_TABLE(test, input_faults);
    ADD_TABLE(test, output_faults);
    tcase_add_test(test, a_single_element_has_no_stride);
    tcase_add_test(test, empty_tensors_need_no_memory);
    tcase_add_test(test, ragged_tensors_have_no_batch_stride);
    return test;
}
