/* SPDX-License-Identifier: Apache-2.0 */
/* Outputs that overlap an input, another output or an array of the parameters are refused; views
 * that interleave in one buffer, and inputs that share memory, are not. */
#include "arguments.h"

#include <string.h>

#define TENSORS tensors.now
#define PARAMS params.now

static const struct fault_case overlaps[] = {
    FAULT(IN_ATTENTION, OUT, OVERLAP, POINTER(TENSORS.out.data, f.q)),
    FAULT(IN_ATTENTION, OUT, OVERLAP, POINTER(TENSORS.out.data, f.k)),
    FAULT(IN_ATTENTION | IN_MIX, OUT, OVERLAP, POINTER(TENSORS.out.data, f.v)),
    FAULT(IN_MIX, OUT, OVERLAP, POINTER(TENSORS.out.data, f.weights)),
    FAULT(IN_SCORES, SCORES, OVERLAP, POINTER(TENSORS.scores.data, f.q)),
    FAULT(IN_SCORES, SCORES, OVERLAP, POINTER(TENSORS.scores.data, f.k)),
    FAULT(IN_ATTENTION, LSE, OVERLAP, POINTER(TENSORS.lse.data, f.q)),
    FAULT(IN_ATTENTION, LSE, OVERLAP, POINTER(TENSORS.lse.data, f.v)),
    FAULT(IN_SOFTMAX, LSE, OVERLAP, POINTER(TENSORS.lse.data, f.scores)),
    /* the first of two outputs that overlap each other is named */
    FAULT(IN_ATTENTION, OUT, OVERLAP, POINTER(TENSORS.lse.data, f.out)),
    FAULT(IN_SOFTMAX, WEIGHTS, OVERLAP, POINTER(TENSORS.lse.data, f.weights)),
    /* one element is enough */
    FAULT(IN_ATTENTION, OUT, OVERLAP, POINTER(TENSORS.q.data, f.out),
          MOVE(TENSORS.q.data, sizeof f.out - sizeof(float))),
    FAULT(IN_MIX, OUT, OVERLAP, POINTER(TENSORS.v.data, f.out),
          MOVE(TENSORS.v.data, sizeof f.out - sizeof(float))),
    FAULT(IN_ATTENTION, OUT, OVERLAP, POINTER(TENSORS.out.data, f.q),
          MOVE(TENSORS.out.data, sizeof f.q - sizeof(float))),
    FAULT(IN_SCORES, SCORES, OVERLAP, POINTER(TENSORS.scores.data, f.q),
          MOVE(TENSORS.scores.data, sizeof f.q - sizeof(float))),
    FAULT(IN_ATTENTION, OUT, OVERLAP, POINTER(TENSORS.lse.data, f.out),
          MOVE(TENSORS.lse.data, sizeof f.out - sizeof(float))),
    /* the arrays that the parameters point to */
    FAULT(IN_ATTENTION | IN_MIX, OUT, OVERLAP, POINTER(TENSORS.out.data, f.bias)),
    FAULT(IN_ATTENTION | IN_MIX, OUT, OVERLAP, POINTER(TENSORS.out.data, f.mask)),
    FAULT(IN_ATTENTION | IN_MIX, OUT, OVERLAP, POINTER(TENSORS.out.data, f.slopes)),
    FAULT(IN_ATTENTION | IN_MIX, OUT, OVERLAP, POINTER(TENSORS.out.data, f.sinks)),
    FAULT(IN_SCORES, SCORES, OVERLAP, POINTER(TENSORS.scores.data, f.bias)),
    FAULT(IN_SOFTMAX, WEIGHTS, OVERLAP, POINTER(TENSORS.weights.data, f.bias)),
    FAULT(IN_ATTENTION | IN_SOFTMAX, LSE, OVERLAP, POINTER(TENSORS.lse.data, f.mask)),
    FAULT(IN_ATTENTION | IN_SOFTMAX, LSE, OVERLAP, POINTER(TENSORS.lse.data, f.sinks)),
    /* inputs may share memory */
    FINE(IN_SCORES | IN_ATTENTION, POINTER(TENSORS.k.data, f.q)),
    FINE(IN_ATTENTION, POINTER(TENSORS.q.data, f.v), POINTER(TENSORS.k.data, f.v)),
    FINE(IN_MIX, POINTER(TENSORS.v.data, f.weights)),
};

static const struct fault_case in_place[] = {
    FINE(IN_SOFTMAX, POINTER(TENSORS.weights.data, f.scores)),
    FAULT(IN_SOFTMAX, WEIGHTS, OVERLAP, POINTER(TENSORS.weights.data, f.scores),
          MOVE(TENSORS.weights.data, sizeof(float))),
    FAULT(IN_SOFTMAX, WEIGHTS, OVERLAP, POINTER(TENSORS.weights.data, f.scores),
          INT64(TENSORS.scores.stride[1], 0)),
    FAULT(IN_SOFTMAX, WEIGHTS, OVERLAP, POINTER(TENSORS.weights.data, f.scores),
          INT64(TENSORS.scores.stride[0], 0)),
};

/* Cases whose parameters are not those that a run was planned with. */
static const struct fault_case plain_overlaps[] = {
    FAULT(IN_ATTENTION | IN_MIX, OUT, OVERLAP, POINTER(PARAMS.q_lens, f.q_lens),
          POINTER(TENSORS.out.data, f.q_lens)),
    FAULT(IN_ATTENTION | IN_MIX, OUT, OVERLAP, POINTER(PARAMS.kv_lens, f.kv_lens),
          POINTER(TENSORS.out.data, f.kv_lens)),
    FAULT(IN_ATTENTION | IN_MIX, OUT, OVERLAP, POINTER(PARAMS.cu_q, f.cu_q),
          POINTER(TENSORS.out.data, f.cu_q)),
    FAULT(IN_ATTENTION | IN_MIX, OUT, OVERLAP, POINTER(PARAMS.cu_kv, f.cu_kv),
          POINTER(TENSORS.out.data, f.cu_kv)),
    /* an absent array cannot be overlapped */
    FINE(IN_ATTENTION | IN_MIX, POINTER(PARAMS.bias.data, NULL), POINTER(PARAMS.mask.data, NULL),
         POINTER(TENSORS.out.data, f.bias)),
    /* the stride of a single sequence is not used */
    FINE(IN_SOFTMAX, POINTER(TENSORS.weights.data, f.scores), INT64(PARAMS.batch, 1),
         INT64(TENSORS.weights.stride[0], 3)),
    /* in place is softmax's alone */
    FAULT(IN_MIX, OUT, OVERLAP, POINTER(TENSORS.out.data, f.weights), INT64(PARAMS.v_dim, KV_LEN),
          INT64(TENSORS.out.stride[0], Q_LEN *Q_HEADS *KV_LEN),
          INT64(TENSORS.out.stride[1], KV_LEN), INT64(TENSORS.out.stride[2], Q_HEADS *KV_LEN)),
};

static void check_both(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", call_plain);
    run_case(c, prepare_ready, "the run", call_run);
}
TABLE_TEST(overlaps, check_both)
TABLE_TEST(in_place, check_both)

static void check_plain_overlaps(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", call_plain);
}
TABLE_TEST(plain_overlaps, check_plain_overlaps)

/* [batch, token, (Q heads | K heads | V heads | output heads)] */
static qkv_tensor slice(int column, int heads, int dim) {
    qkv_tensor view = qkv_tensor_bshd(&f.rows[0][0][column], heads, Q_LEN, dim);
    view.stride[0] = (int64_t)Q_LEN * ROW;
    view.stride[2] = ROW;
    return view;
}

static void copy_row(float *rows, const float *from, int heads, int dim) {
    memcpy(rows, from, sizeof(float) * (size_t)(heads * dim));
}

/* Slices of one buffer: accepted, and with the bits of separate tensors. */
START_TEST(interleaved_views_are_no_overlap) {
    enum { K_AT = Q_WIDTH, V_AT = K_AT + K_WIDTH, OUT_AT = V_AT + V_WIDTH };

    fixture_reset();
    ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION), QKV_OK);
    for (int b = 0; b < BATCH; b++)
        for (int t = 0; t < Q_LEN; t++) {
            const float *q = (const float *)f.q + (b * Q_LEN + t) * Q_WIDTH;
            copy_row(&f.rows[b][t][0], q, Q_HEADS, DIM);
            if (t >= KV_LEN)
                continue;
            copy_row(&f.rows[b][t][K_AT], (const float *)f.k + (b * KV_LEN + t) * K_WIDTH, KV_HEADS,
                     DIM);
            copy_row(&f.rows[b][t][V_AT], (const float *)f.v + (b * KV_LEN + t) * V_WIDTH, KV_HEADS,
                     V_DIM);
        }
    f.TENSORS.q = slice(0, Q_HEADS, DIM);
    f.TENSORS.k = slice(K_AT, KV_HEADS, DIM);
    f.TENSORS.v = slice(V_AT, KV_HEADS, V_DIM);
    f.TENSORS.out = slice(OUT_AT, Q_HEADS, V_DIM);
    ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION), QKV_OK);
    for (int b = 0; b < BATCH; b++)
        for (int t = 0; t < Q_LEN; t++)
            ck_assert_mem_eq(&f.rows[b][t][OUT_AT],
                             (const float *)f.out + (b * Q_LEN + t) * Q_HEADS * V_DIM,
                             sizeof(float) * Q_HEADS * V_DIM);
}
END_TEST

/* One column further left, the output takes the last element of V's rows. */
START_TEST(slices_that_share_a_column_overlap) {
    fixture_reset();
    f.TENSORS.q = slice(0, Q_HEADS, DIM);
    f.TENSORS.k = slice(Q_WIDTH, KV_HEADS, DIM);
    f.TENSORS.v = slice(Q_WIDTH + K_WIDTH, KV_HEADS, V_DIM);
    f.TENSORS.out = slice(Q_WIDTH + K_WIDTH + V_WIDTH - 1, Q_HEADS, V_DIM);
    fixture_remember();
    ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION),
                     QKV_OK + (QKV_ARG_OUT << 8) + QKV_FAULT_OVERLAP);
    fixture_check_untouched("the plain call", QKV_STAGE_ATTENTION);
    /* with fewer keys than the rows where they meet... they still meet in row 0 */
    f.params.now.kv_len = 1;
    ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION), (QKV_ARG_OUT << 8) + QKV_FAULT_OVERLAP);
    /* one sequence's output over the other's keys is as bad */
    f.TENSORS.out = slice(Q_WIDTH + K_WIDTH + V_WIDTH, Q_HEADS, V_DIM);
    f.TENSORS.out.data = &f.rows[0][1][Q_WIDTH];
    f.params.now.batch = 1;
    f.params.now.q_len = 1;
    f.params.now.kv_len = KV_LEN;
    ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION), (QKV_ARG_OUT << 8) + QKV_FAULT_OVERLAP);
    f.params.now.kv_len = 1;
    ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION), QKV_OK);
}
END_TEST

/* Rows of LSE between the rows of the output, and heads in the gaps of other heads. */
START_TEST(outputs_may_interleave_with_each_other) {
    fixture_reset();
    f.TENSORS.out = slice(0, Q_HEADS, V_DIM);
    f.TENSORS.lse = slice(Q_HEADS * V_DIM, Q_HEADS, 1);
    f.TENSORS.lse.stride[1] = 2;
    ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION), QKV_OK);
    f.TENSORS.lse.data = &f.rows[0][0][Q_HEADS * V_DIM - 1];
    ck_assert_int_eq(call_plain(QKV_STAGE_ATTENTION), (QKV_ARG_OUT << 8) + QKV_FAULT_OVERLAP);
}
END_TEST

TCase *overlap_case(void) {
    TCase *test = tcase_create("overlap");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, overlaps);
    ADD_TABLE(test, in_place);
    ADD_TABLE(test, plain_overlaps);
    tcase_add_test(test, interleaved_views_are_no_overlap);
    tcase_add_test(test, slices_that_share_a_column_overlap);
    tcase_add_test(test, outputs_may_interleave_with_each_other);
    return test;
}
