/* SPDX-License-Identifier: Apache-2.0 */
/* Weights packed ahead of time: the packing, its size, and blobs that are not what is needed. */
#include "arguments.h"

#include <string.h>

#define PARAMS project_params.now
#define TENSORS project_tensors.now

static qkv_status call_pack(int stage) {
    (void)stage;
    return qkv_project_pack(f.project_params_arg, f.which, f.w_arg, f.packed_arg, f.packed_size,
                            f.context_arg);
}

static size_t pack_size(void) {
    return qkv_project_pack_size(f.project_params_arg, f.which, f.context_arg);
}

/* What the size function can see, too: it answers 0. */
static const struct fault_case description_faults[] = {
    FAULT(IN_PROJECT, PARAMS, NULL, POINTER(project_params_arg, NULL)),
    FAULT(IN_PROJECT, PARAMS, MISALIGNED, MOVE(project_params_arg, 4)),
    FAULT(IN_PROJECT, PARAMS, SIZE, INT64(PARAMS.size, 0)),
    FAULT(IN_PROJECT, PARAMS, FUTURE, INT64(PARAMS.size, sizeof f.project_params),
          INT64(project_params.tail[0], 1)),
    FAULT(IN_PROJECT, FLAGS, FLAG, INT64(PARAMS.flags, 1)),
    FAULT(IN_PROJECT, D_MODEL, ZERO, INT64(PARAMS.d_model, 0)),
    FAULT(IN_PROJECT, D_MODEL, NEGATIVE, INT64(PARAMS.d_model, -1)),
    FAULT(IN_PROJECT, D_MODEL, OVERFLOW, INT64(PARAMS.d_model, INT64_MAX)),
    FAULT(IN_PROJECT, Q_HEADS, NEGATIVE, INT64(PARAMS.q_heads, -1)),
    FAULT(IN_PROJECT, KV_HEADS, NEGATIVE, INT64(PARAMS.kv_heads, -1)),
    FAULT(IN_PROJECT, HEAD_DIM, ZERO, INT64(PARAMS.head_dim, 0)),
    FAULT(IN_PROJECT, LAYOUT, RANGE, INT32(PARAMS.layout, QKV_W_PACKED)), /* packed already */
    FAULT(IN_PROJECT, LAYOUT, RANGE, INT32(PARAMS.layout, QKV_W_COUNT)),
    FAULT(IN_PROJECT, WHICH, RANGE, INT32(which, -1)),
    FAULT(IN_PROJECT, WHICH, RANGE, INT32(which, QKV_WHICH_COUNT)),
    FAULT(IN_PROJECT, WHICH, RANGE, INT32(which, INT32_MIN)),
    FAULT(IN_PROJECT, WHICH, RANGE, INT64(PARAMS.q_heads, 0)), /* left out */
    FAULT(IN_PROJECT, WHICH, RANGE, INT64(PARAMS.kv_heads, 0), INT32(which, QKV_WHICH_V)),
    FAULT(IN_PROJECT, CONTEXT, MISALIGNED, POINTER(context_arg, &f.made), MOVE(context_arg, 4)),
    FAULT(IN_PROJECT, CONTEXT, STALE, POINTER(context_arg, &f.zeros)),
};

static const struct fault_case memory_faults[] = {
    FAULT(IN_PROJECT, WQ, NULL, POINTER(w_arg, NULL)),
    FAULT(IN_PROJECT, WQ, MISALIGNED, MOVE(w_arg, 1)),
    FAULT(IN_PROJECT, WQ, NULL, POINTER(w.data, NULL)),
    FAULT(IN_PROJECT, WQ, MISALIGNED, MOVE(w.data, 1)),
    FAULT(IN_PROJECT, WQ, DTYPE, INT32(w.dtype, QKV_BOOL)),
    FAULT(IN_PROJECT, WQ, DTYPE, INT32(w.dtype, QKV_DTYPE_NONE)),
    FAULT(IN_PROJECT, WQ, FUTURE, INT32(w.reserved, 1)),
    FAULT(IN_PROJECT, WQ, STRIDE, INT64(w.stride[3], 2)),
    FAULT(IN_PROJECT, WQ, OVERFLOW, INT64(w.stride[2], INT64_MAX)),
    FAULT(IN_PROJECT, WK, NULL, INT32(which, QKV_WHICH_K), POINTER(w.data, NULL)),
    FAULT(IN_PROJECT, WV, DTYPE, INT32(which, QKV_WHICH_V), INT32(w.dtype, QKV_BOOL)),
    FAULT(IN_PROJECT, PACKED, NULL, POINTER(packed_arg, NULL)),
    FAULT(IN_PROJECT, PACKED, MISALIGNED, MOVE(packed_arg, 1)),
    FAULT(IN_PROJECT, PACKED, MISALIGNED, MOVE(packed_arg, 32)),
    FAULT(IN_PROJECT, PACKED, TOO_SMALL, INT64(packed_size, 0)),
    FAULT(IN_PROJECT, PACKED, TOO_SMALL, INT64(packed_size, 64)),
    FAULT(IN_PROJECT, PACKED, OVERLAP, POINTER(w.data, f.packed[0])),
    FAULT(IN_PROJECT, PACKED, OVERLAP, POINTER(w.data, f.packed[0]), MOVE(w.data, 256)),
    FINE(IN_PROJECT, INT32(which, QKV_WHICH_K)),
    FINE(IN_PROJECT, INT32(which, QKV_WHICH_V)),
    FINE(IN_PROJECT, INT32(PARAMS.layout, QKV_W_OUT_IN)),
};

static void check_description_faults(const struct fault_case *c) {
    run_case(c, NULL, "pack", call_pack);
    fixture_edit(c, NULL, QKV_STAGE_PROJECT);
    ck_assert_uint_eq(pack_size(), 0);
    fixture_check_untouched("pack_size", QKV_STAGE_PROJECT);
}
TABLE_TEST(description_faults, check_description_faults)

static void check_memory_faults(const struct fault_case *c) {
    run_case(c, NULL, "pack", call_pack);
}
TABLE_TEST(memory_faults, check_memory_faults)

START_TEST(a_byte_less_than_the_size_is_too_small) {
    fixture_reset();
    f.packed_size = pack_size() - 1;
    ck_assert_uint_eq(f.packed_size + 1, 64 + sizeof f.wq); /* whose width is whole panels */
    fixture_remember();
    ck_assert_int_eq(call_pack(0), (QKV_ARG_PACKED << 8) + QKV_FAULT_TOO_SMALL);
    fixture_check_untouched("pack", QKV_STAGE_PROJECT);
    f.packed_size++;
    ck_assert_int_eq(call_pack(0), QKV_OK);
}
END_TEST

/* Nothing is written beyond the size, nor beside what is to be written. */
START_TEST(packing_writes_its_bytes_alone) {
    size_t size;

    fixture_reset();
    size = pack_size();
    fixture_remember();
    ck_assert_int_eq(call_pack(0), QKV_OK);
    for (size_t i = size; i < sizeof f.packed[0]; i++)
        ck_assert_uint_eq(f.packed[0][i], 0xcb);
    memset(f.packed[0], 0xcb, size);
    fixture_check_untouched("pack", QKV_STAGE_PROJECT);
}
END_TEST

/* All three matrices packed, and the tensors set to them. */
static void prepare_packed(int stage) {
    qkv_tensor *w[QKV_WHICH_COUNT] = {&f.TENSORS.wq, &f.TENSORS.wk, &f.TENSORS.wv};

    for (int which = 0; which < QKV_WHICH_COUNT; which++) {
        f.which = which;
        f.w_arg = w[which];
        f.packed_arg = f.packed[which];
        ck_assert_int_eq(call_pack(stage), QKV_OK);
        w[which]->data = f.packed[which];
    }
    f.PARAMS.layout = QKV_W_PACKED;
}

static void prepare_packed_run(int stage) {
    prepare_packed(stage);
    prepare_ready(stage);
}

static const struct fault_case packed_faults[] = {
    FINE(IN_PROJECT, BYTE(packed[0][64], 1)), /* a weight may be any number */
    FAULT(IN_PROJECT, WQ, NULL, POINTER(TENSORS.wq.data, NULL)),
    FAULT(IN_PROJECT, WQ, MISALIGNED, MOVE(TENSORS.wq.data, 4)),
    FAULT(IN_PROJECT, WQ, MISALIGNED, MOVE(TENSORS.wq.data, 32)),
    FAULT(IN_PROJECT, WQ, DTYPE, INT32(TENSORS.wq.dtype, QKV_BOOL)),
    FAULT(IN_PROJECT, WQ, FUTURE, INT32(TENSORS.wq.reserved, 1)),
    FAULT(IN_PROJECT, WK, NULL, POINTER(TENSORS.wk.data, NULL)),
    FAULT(IN_PROJECT, WK, MISALIGNED, MOVE(TENSORS.wk.data, 1)),
    FAULT(IN_PROJECT, WV, NULL, POINTER(TENSORS.wv.data, NULL)),
    FAULT(IN_PROJECT, WV, DTYPE, INT32(TENSORS.wv.dtype, QKV_DTYPE_COUNT)),
    /* another matrix's blob, and what was never packed */
    FAULT(IN_PROJECT, WQ, LAYOUT, POINTER(TENSORS.wq.data, f.packed[QKV_WHICH_K])),
    FAULT(IN_PROJECT, WV, LAYOUT, POINTER(TENSORS.wv.data, f.packed[QKV_WHICH_K])),
    FAULT(IN_PROJECT, WQ, LAYOUT, POINTER(TENSORS.wq.data, f.shared)),
    FAULT(IN_PROJECT, Q, OVERLAP, POINTER(TENSORS.q.data, f.packed[QKV_WHICH_V]),
          MOVE(TENSORS.q.data, 64)),
};

/* Parameters of other shapes than the blobs, for which a run was not planned. */
static const struct fault_case shape_faults[] = {
    FAULT(IN_PROJECT, WQ, LAYOUT, INT64(PARAMS.d_model, D_MODEL - 1)),
    FAULT(IN_PROJECT, WQ, LAYOUT, INT64(PARAMS.q_heads, Q_HEADS - 1)),
    FAULT(IN_PROJECT, WK, LAYOUT, INT64(PARAMS.kv_heads, KV_HEADS - 1)),
    FAULT(IN_PROJECT, WV, LAYOUT, INT64(PARAMS.v_dim, V_DIM - 1)),
    /* how many tokens come is no part of it */
    FINE(IN_PROJECT, INT64(PARAMS.tokens, TOKENS - 1)),
};

static void check_shape_faults(const struct fault_case *c) {
    run_case(c, prepare_packed, "the plain call", call_plain);
}
TABLE_TEST(shape_faults, check_shape_faults)

static void check_packed_faults(const struct fault_case *c) {
    run_case(c, prepare_packed, "the plain call", call_plain);
    run_case(c, prepare_packed_run, "the run", call_run);
}
TABLE_TEST(packed_faults, check_packed_faults)

/* _i is the byte of the header that one bit of is flipped. */
START_TEST(an_altered_header_is_refused) {
    for (int bit = 0; bit < 8; bit++) {
        fixture_reset();
        prepare_packed_run(QKV_STAGE_PROJECT);
        f.packed[QKV_WHICH_V][_i] ^= (unsigned char)(1 << bit);
        fixture_remember();
        ck_assert_int_eq(call_plain(QKV_STAGE_PROJECT), (QKV_ARG_WV << 8) + QKV_FAULT_LAYOUT);
        ck_assert_int_eq(call_run(QKV_STAGE_PROJECT), (QKV_ARG_WV << 8) + QKV_FAULT_LAYOUT);
        fixture_check_untouched("the calls", QKV_STAGE_PROJECT);
    }
}
END_TEST

/* A plan's parameters may have changed between packing and running: a matrix left out of them is
 * not looked at, and its blob may be anything. */
START_TEST(a_matrix_left_out_needs_no_blob) {
    fixture_reset();
    prepare_packed(QKV_STAGE_PROJECT);
    f.PARAMS.kv_heads = 0;
    f.TENSORS.wk.data = f.TENSORS.wv.data = NULL;
    ck_assert_int_eq(call_plain(QKV_STAGE_PROJECT), QKV_OK);
}
END_TEST

/* Weights are packed before anybody knows how many tokens will come. */
START_TEST(weights_know_no_tokens) {
    fixture_reset();
    prepare_packed(QKV_STAGE_PROJECT);
    const size_t size = qkv_project_pack_size(&f.PARAMS, QKV_WHICH_Q, NULL);
    f.PARAMS.layout = QKV_W_IN_OUT;
    const size_t whole = qkv_project_pack_size(&f.PARAMS, QKV_WHICH_Q, NULL);
    f.PARAMS.batch = f.PARAMS.tokens = 0;
    ck_assert_uint_eq(size, 0); /* packed weights are not packed again */
    ck_assert_uint_gt(whole, 0);
    ck_assert_uint_eq(qkv_project_pack_size(&f.PARAMS, QKV_WHICH_Q, NULL), whole);
}
END_TEST

START_TEST(packed_weights_and_masks_as_tensors) {
    static unsigned char mask[2][3];
    fixture_reset();
    prepare_packed(QKV_STAGE_PROJECT);
    f.TENSORS.wq = qkv_tensor_packed(f.TENSORS.wq.data);
    ck_assert_int_eq(call_plain(QKV_STAGE_PROJECT), QKV_OK);
    const qkv_tensor t = qkv_tensor_mask(mask, 3);
    ck_assert(t.data == mask && t.dtype == QKV_BOOL && !t.reserved);
    ck_assert(!t.stride[0] && !t.stride[1] && t.stride[2] == 3 && t.stride[3] == 1);
}
END_TEST

TCase *pack_case(void) {
    TCase *test = tcase_create("pack");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, description_faults);
    ADD_TABLE(test, memory_faults);
    ADD_TABLE(test, packed_faults);
    ADD_TABLE(test, shape_faults);
    tcase_add_loop_test(test, an_altered_header_is_refused, 0, 64);
    tcase_add_test(test, a_byte_less_than_the_size_is_too_small);
    tcase_add_test(test, packing_writes_its_bytes_alone);
    tcase_add_test(test, a_matrix_left_out_needs_no_blob);
    tcase_add_test(test, weights_know_no_tokens);
    tcase_add_test(test, packed_weights_and_masks_as_tensors);
    return test;
}
