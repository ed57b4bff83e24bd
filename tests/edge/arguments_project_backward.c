/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors of the projection's gradients. Its parameters stand with project's. */
#include "arguments.h"

#define PARAMS project_params.now
#define TENSORS project_tensors.now
#define GRADIENTS project_gradients.now
#define FAR_END ((const void *)(UINTPTR_MAX - 63))
#define HERE IN_PROJECT_BACKWARD

static const struct fault_case struct_faults[] = {
    FAULT(HERE, GRADIENTS, NULL, POINTER(project_gradients_arg, NULL)),
    FAULT(HERE, GRADIENTS, MISALIGNED, MOVE(project_gradients_arg, 1)),
    FAULT(HERE, GRADIENTS, MISALIGNED, MOVE(project_gradients_arg, 4)),
    FAULT(HERE, GRADIENTS, SIZE, INT64(GRADIENTS.size, 0)),
    FAULT(HERE, GRADIENTS, SIZE, INT64(GRADIENTS.size, sizeof f.GRADIENTS - 8)),
    FAULT(HERE, GRADIENTS, SIZE, INT64(GRADIENTS.size, -1)),
    FAULT(HERE, GRADIENTS, FUTURE, INT64(GRADIENTS.size, sizeof f.project_gradients),
          INT64(project_gradients.tail[2], 1)),
    FINE(HERE, INT64(GRADIENTS.size, sizeof f.project_gradients)),
};

/* What can be wrong with a tensor when it is there. `of` is TENSORS or GRADIENTS. */
#define ANY_FAULT(arg, of, tensor)                                        \
    FAULT(HERE, arg, MISALIGNED, MOVE(of.tensor.data, 1)),                \
        FAULT(HERE, arg, MISALIGNED, MOVE(of.tensor.data, 2)),            \
        FAULT(HERE, arg, DTYPE, INT32(of.tensor.dtype, QKV_DTYPE_NONE)),  \
        FAULT(HERE, arg, DTYPE, INT32(of.tensor.dtype, QKV_BOOL)),        \
        FAULT(HERE, arg, DTYPE, INT32(of.tensor.dtype, QKV_DTYPE_COUNT)), \
        FAULT(HERE, arg, FUTURE, INT32(of.tensor.reserved, 1)),           \
        FAULT(HERE, arg, STRIDE, INT64(of.tensor.stride[3], 0)),          \
        FAULT(HERE, arg, STRIDE, INT64(of.tensor.stride[3], 2)),          \
        FAULT(HERE, arg, STRIDE, INT64(of.tensor.stride[3], -1)),         \
        FAULT(HERE, arg, OVERFLOW, POINTER(of.tensor.data, FAR_END))

#define INPUT_FAULT(arg, of, tensor)                                                   \
    ANY_FAULT(arg, of, tensor), FAULT(HERE, arg, NULL, POINTER(of.tensor.data, NULL)), \
        FAULT(HERE, arg, OVERFLOW, INT64(of.tensor.stride[2], INT64_MAX)),             \
        FAULT(HERE, arg, OVERFLOW, INT64(of.tensor.stride[2], INT64_MIN / 4)),         \
        FINE(HERE, INT64(of.tensor.stride[2], 0))

static const struct fault_case input_faults[] = {
    INPUT_FAULT(X, TENSORS, x),
    INPUT_FAULT(WQ, TENSORS, wq),
    INPUT_FAULT(WK, TENSORS, wk),
    INPUT_FAULT(WV, TENSORS, wv),
    INPUT_FAULT(D_Q, GRADIENTS, q),
    INPUT_FAULT(D_K, GRADIENTS, k),
    INPUT_FAULT(D_V, GRADIENTS, v),
    FAULT(HERE, X, OVERFLOW, INT64(TENSORS.x.stride[0], INT64_MAX)),
    FAULT(HERE, D_Q, OVERFLOW, INT64(GRADIENTS.q.stride[1], INT64_MAX)),
    FINE(HERE, INT64(TENSORS.x.stride[0], 0), INT64(TENSORS.x.stride[2], 0)),
    FINE(HERE, INT64(TENSORS.x.stride[1], INT64_MIN)), /* not used */
    FINE(HERE, INT64(GRADIENTS.q.stride[0], 0), INT64(GRADIENTS.q.stride[1], 0)),
};

/* What only the forward call reads or writes is not looked at, and neither is an input that no
 * wanted output needs. */
static const struct fault_case unused[] = {
    FINE(HERE, MOVE(TENSORS.bq.data, 1), POINTER(TENSORS.bk.data, f.dbk),
         POINTER(TENSORS.q.data, f.dx), POINTER(TENSORS.k.data, NULL),
         INT32(TENSORS.v.dtype, QKV_BOOL)),
    FINE(HERE, POINTER(GRADIENTS.x.data, NULL), POINTER(TENSORS.wq.data, NULL),
         MOVE(TENSORS.wk.data, 1), INT32(TENSORS.wv.dtype, QKV_BOOL)),
    FINE(HERE, POINTER(GRADIENTS.wq.data, NULL), POINTER(GRADIENTS.wk.data, NULL),
         POINTER(GRADIENTS.wv.data, NULL), POINTER(TENSORS.x.data, NULL)),
    FINE(HERE, POINTER(GRADIENTS.x.data, NULL), POINTER(GRADIENTS.wv.data, NULL),
         POINTER(GRADIENTS.bv.data, NULL), POINTER(GRADIENTS.v.data, NULL)),
    /* not wanted: whatever else its view says */
    FINE(HERE, POINTER(GRADIENTS.x.data, NULL), INT32(GRADIENTS.x.dtype, QKV_BOOL)),
    FINE(HERE, POINTER(GRADIENTS.bq.data, NULL), INT64(GRADIENTS.bq.stride[3], 7)),
};

/* Cases whose parameters are not those that a run was planned with. */
static const struct fault_case left_out[] = {
    FINE(HERE, INT64(PARAMS.q_heads, 0), POINTER(TENSORS.wq.data, NULL),
         POINTER(GRADIENTS.q.data, NULL), MOVE(GRADIENTS.wq.data, 1),
         POINTER(GRADIENTS.bq.data, f.x)),
    FINE(HERE, INT64(PARAMS.kv_heads, 0), POINTER(TENSORS.wk.data, NULL),
         POINTER(GRADIENTS.k.data, NULL), POINTER(GRADIENTS.wk.data, f.x),
         INT32(GRADIENTS.wv.dtype, QKV_BOOL)),
    FINE(HERE, INT64(PARAMS.tokens, 0), POINTER(TENSORS.x.data, NULL),
         POINTER(GRADIENTS.q.data, NULL), POINTER(GRADIENTS.k.data, NULL),
         POINTER(GRADIENTS.v.data, NULL)),
};

#define MATRIX_FAULT(arg, tensor, width)                                              \
    ANY_FAULT(arg, GRADIENTS, tensor),                                                \
        FAULT(HERE, arg, OVERFLOW, INT64(GRADIENTS.tensor.stride[2], INT64_MAX)),     \
        FAULT(HERE, arg, SELF_OVERLAP, INT64(GRADIENTS.tensor.stride[2], 0)),         \
        FAULT(HERE, arg, SELF_OVERLAP, INT64(GRADIENTS.tensor.stride[2], (width)-1)), \
        FINE(HERE, INT64(GRADIENTS.tensor.stride[0], INT64_MIN)),                     \
        FINE(HERE, INT64(GRADIENTS.tensor.stride[2], -(width)),                       \
             MOVE(GRADIENTS.tensor.data, 4 * (width) * (D_MODEL - 1)))

static const struct fault_case output_faults[] = {
    ANY_FAULT(D_X, GRADIENTS, x),
    FAULT(HERE, D_X, SELF_OVERLAP, INT64(GRADIENTS.x.stride[0], 0)),
    FAULT(HERE, D_X, SELF_OVERLAP, INT64(GRADIENTS.x.stride[2], 0)),
    FAULT(HERE, D_X, SELF_OVERLAP, INT64(GRADIENTS.x.stride[2], D_MODEL - 1)),
    MATRIX_FAULT(D_WQ, wq, Q_WIDTH),
    MATRIX_FAULT(D_WK, wk, K_WIDTH),
    MATRIX_FAULT(D_WV, wv, V_WIDTH),
    ANY_FAULT(D_BQ, GRADIENTS, bq),
    ANY_FAULT(D_BK, GRADIENTS, bk),
    ANY_FAULT(D_BV, GRADIENTS, bv),
    /* over an input */
    FAULT(HERE, D_X, OVERLAP, POINTER(GRADIENTS.x.data, f.x)),
    FAULT(HERE, D_X, OVERLAP, POINTER(GRADIENTS.x.data, f.wk)),
    FAULT(HERE, D_X, OVERLAP, POINTER(GRADIENTS.x.data, f.pq)),
    FAULT(HERE, D_WQ, OVERLAP, POINTER(GRADIENTS.wq.data, f.wq)),
    FAULT(HERE, D_WK, OVERLAP, POINTER(GRADIENTS.wk.data, f.x)),
    FAULT(HERE, D_WV, OVERLAP, POINTER(GRADIENTS.v.data, f.dwv)),
    FAULT(HERE, D_BQ, OVERLAP, POINTER(GRADIENTS.bq.data, f.wv)),
    FAULT(HERE, D_BV, OVERLAP, POINTER(GRADIENTS.bv.data, f.pk)),
    /* the first of two outputs is named */
    FAULT(HERE, D_X, OVERLAP, POINTER(GRADIENTS.wq.data, f.dx)),
    FAULT(HERE, D_WQ, OVERLAP, POINTER(GRADIENTS.wk.data, f.dwq)),
    FAULT(HERE, D_WK, OVERLAP, POINTER(GRADIENTS.bv.data, f.dwk)),
    FAULT(HERE, D_BQ, OVERLAP, POINTER(GRADIENTS.bk.data, f.dbq)),
    /* over an input that nobody reads then */
    FINE(HERE, POINTER(GRADIENTS.x.data, NULL), POINTER(GRADIENTS.wq.data, f.wq)),
    /* inputs may share memory */
    FINE(HERE, POINTER(TENSORS.wk.data, f.wq), POINTER(GRADIENTS.k.data, f.pq)),
};

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
TABLE_TEST(unused, check_both)
TABLE_TEST(output_faults, check_both)

/* The matrices' gradients as columns of one buffer: [d_model, width of Q, K and V]. */
START_TEST(interleaved_gradients_are_no_overlap) {
    enum { ALL = Q_WIDTH + K_WIDTH + V_WIDTH };
    float *rows = (float *)f.rows;

    fixture_reset();
    f.GRADIENTS.wq.data = rows;
    f.GRADIENTS.wk.data = rows + Q_WIDTH;
    f.GRADIENTS.wv.data = rows + Q_WIDTH + K_WIDTH;
    f.GRADIENTS.wq.stride[2] = f.GRADIENTS.wk.stride[2] = f.GRADIENTS.wv.stride[2] = ALL;
    ck_assert_int_eq(call_plain(QKV_STAGE_PROJECT_BACKWARD), QKV_OK);
    f.GRADIENTS.wv.data = rows + Q_WIDTH + K_WIDTH - 1;
    fixture_remember();
    ck_assert_int_eq(call_plain(QKV_STAGE_PROJECT_BACKWARD),
                     (QKV_ARG_D_WK << 8) + QKV_FAULT_OVERLAP);
    fixture_check_untouched("the plain call", QKV_STAGE_PROJECT_BACKWARD);
}
END_TEST

TCase *project_backward_case(void) {
    TCase *test = tcase_create("project_backward");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, struct_faults);
    ADD_TABLE(test, input_faults);
    ADD_TABLE(test, unused);
    ADD_TABLE(test, left_out);
    ADD_TABLE(test, output_faults);
    tcase_add_test(test, interleaved_gradients_are_no_overlap);
    return test;
}
