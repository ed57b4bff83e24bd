/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters, tensors and labels of the losses. */
#include "arguments.h"

#define PARAMS loss_params.now
#define TENSORS loss_tensors.now
#define HALF_COUNT ((int64_t)1 << 31)
#define FAR_END ((const void *)(UINTPTR_MAX - 63))
#define SQUARED INT32(PARAMS.kind, QKV_LOSS_SQUARED)

static const struct fault_case loss_params_faults[] = {
    FAULT(IN_LOSS, PARAMS, NULL, POINTER(loss_params_arg, NULL)),
    FAULT(IN_LOSS, PARAMS, MISALIGNED, MOVE(loss_params_arg, 4)),
    FAULT(IN_LOSS, PARAMS, SIZE, INT64(PARAMS.size, 0)),
    FAULT(IN_LOSS, PARAMS, SIZE, INT64(PARAMS.size, sizeof f.PARAMS - 8)),
    FAULT(IN_LOSS, PARAMS, FUTURE, INT64(PARAMS.size, sizeof f.loss_params),
          INT64(loss_params.tail[0], 1)),
    FAULT(IN_LOSS, PARAMS, FUTURE, INT32(PARAMS.reserved, 1)),
    FINE(IN_LOSS, INT64(PARAMS.size, sizeof f.loss_params)),
    FAULT(IN_LOSS, FLAGS, FLAG, INT64(PARAMS.flags, 1)),
    FAULT(IN_LOSS, KIND, RANGE, INT32(PARAMS.kind, -1)),
    FAULT(IN_LOSS, KIND, RANGE, INT32(PARAMS.kind, QKV_LOSS_COUNT)),
    FAULT(IN_LOSS, ROWS, NEGATIVE, INT64(PARAMS.rows, -1)),
    FAULT(IN_LOSS, ROWS, NEGATIVE, INT64(PARAMS.rows, INT64_MIN)),
    FAULT(IN_LOSS, ROWS, OVERFLOW, INT64(PARAMS.rows, INT64_MAX)),
    FAULT(IN_LOSS, COLUMNS, ZERO, INT64(PARAMS.columns, 0)),
    FAULT(IN_LOSS, COLUMNS, NEGATIVE, INT64(PARAMS.columns, -1)),
    FAULT(IN_LOSS, COLUMNS, OVERFLOW, INT64(PARAMS.columns, INT64_MAX)),
    FAULT(IN_LOSS, COLUMNS, OVERFLOW, INT64(PARAMS.columns, INT64_MAX), INT64(PARAMS.rows, 0)),
    FAULT(IN_LOSS, ROWS, OVERFLOW, INT64(PARAMS.rows, HALF_COUNT),
          INT64(PARAMS.columns, HALF_COUNT)),
    FINE(IN_LOSS, INT64(PARAMS.rows, 0)),
    FINE(IN_LOSS, SQUARED),
};

/* What can be wrong with a tensor when it is there. */
#define ANY_FAULT(arg, tensor, ...)                                                           \
    FAULT(IN_LOSS, arg, MISALIGNED, MOVE(TENSORS.tensor.data, 2), __VA_ARGS__),               \
        FAULT(IN_LOSS, arg, DTYPE, INT32(TENSORS.tensor.dtype, QKV_DTYPE_NONE), __VA_ARGS__), \
        FAULT(IN_LOSS, arg, DTYPE, INT32(TENSORS.tensor.dtype, QKV_BOOL), __VA_ARGS__),       \
        FAULT(IN_LOSS, arg, FUTURE, INT32(TENSORS.tensor.reserved, 1), __VA_ARGS__),          \
        FAULT(IN_LOSS, arg, STRIDE, INT64(TENSORS.tensor.stride[3], 0), __VA_ARGS__),         \
        FAULT(IN_LOSS, arg, STRIDE, INT64(TENSORS.tensor.stride[3], 2), __VA_ARGS__),         \
        FAULT(IN_LOSS, arg, OVERFLOW, POINTER(TENSORS.tensor.data, FAR_END), __VA_ARGS__),    \
        FAULT(IN_LOSS, arg, OVERFLOW, INT64(TENSORS.tensor.stride[2], INT64_MAX), __VA_ARGS__)
#define NOTHING MOVE(TENSORS.loss, 0)

static const struct fault_case loss_tensors_faults[] = {
    FAULT(IN_LOSS, TENSORS, NULL, POINTER(loss_tensors_arg, NULL)),
    FAULT(IN_LOSS, TENSORS, MISALIGNED, MOVE(loss_tensors_arg, 4)),
    FAULT(IN_LOSS, TENSORS, SIZE, INT64(TENSORS.size, 0)),
    FAULT(IN_LOSS, TENSORS, SIZE, INT64(TENSORS.size, sizeof f.TENSORS - 8)),
    FAULT(IN_LOSS, TENSORS, FUTURE, INT64(TENSORS.size, sizeof f.loss_tensors),
          INT64(loss_tensors.tail[1], 1)),
    FINE(IN_LOSS, INT64(TENSORS.size, sizeof f.loss_tensors)),
    ANY_FAULT(PREDICTION, prediction, NOTHING),
    FAULT(IN_LOSS, PREDICTION, NULL, POINTER(TENSORS.prediction.data, NULL)),
    ANY_FAULT(GRADIENT, gradient, NOTHING),
    FINE(IN_LOSS, POINTER(TENSORS.gradient.data, NULL)),
    FAULT(IN_LOSS, LABELS, NULL, POINTER(TENSORS.labels, NULL)),
    FAULT(IN_LOSS, LABELS, MISALIGNED, MOVE(TENSORS.labels, 1)),
    FAULT(IN_LOSS, LOSS, NULL, POINTER(TENSORS.loss, NULL)),
    FAULT(IN_LOSS, LOSS, MISALIGNED, MOVE(TENSORS.loss, 2)),
    /* a label is -1 or a column, wherever it stands */
    FAULT(IN_LOSS, LABELS, RANGE, INT32(labels[0], -2)),
    FAULT(IN_LOSS, LABELS, RANGE, INT32(labels[LOSS_ROWS - 1], LOSS_COLUMNS)),
    FAULT(IN_LOSS, LABELS, RANGE, INT32(labels[2], INT32_MIN)),
    FAULT(IN_LOSS, LABELS, RANGE, INT32(labels[2], INT32_MAX)),
    FINE(IN_LOSS, INT32(labels[2], LOSS_COLUMNS - 1), INT32(labels[3], -1)),
    /* inputs may be broadcast, and walked backwards */
    FINE(IN_LOSS, INT64(TENSORS.prediction.stride[2], 0)),
    FINE(IN_LOSS, INT64(TENSORS.prediction.stride[2], -LOSS_COLUMNS),
         MOVE(TENSORS.prediction.data, 4 * LOSS_COLUMNS * (LOSS_ROWS - 1))),
    FAULT(IN_LOSS, GRADIENT, SELF_OVERLAP, INT64(TENSORS.gradient.stride[2], 0)),
    FAULT(IN_LOSS, GRADIENT, SELF_OVERLAP, INT64(TENSORS.gradient.stride[2], LOSS_COLUMNS - 1)),
    /* in place, and nearly so */
    FINE(IN_LOSS, POINTER(TENSORS.gradient.data, f.prediction)),
    FAULT(IN_LOSS, GRADIENT, OVERLAP, POINTER(TENSORS.gradient.data, &f.prediction[0][1])),
    FAULT(IN_LOSS, GRADIENT, OVERLAP, POINTER(TENSORS.gradient.data, f.prediction),
          INT64(TENSORS.gradient.stride[2], LOSS_COLUMNS + 1)),
    FAULT(IN_LOSS, GRADIENT, OVERLAP, POINTER(TENSORS.labels, &f.slope[1][1])),
    FAULT(IN_LOSS, LOSS, OVERLAP, POINTER(TENSORS.loss, &f.prediction[1][1])),
    FAULT(IN_LOSS, LOSS, OVERLAP, POINTER(TENSORS.loss, &f.slope[1][1])),
    FAULT(IN_LOSS, LOSS, OVERLAP, POINTER(TENSORS.loss, &f.labels[4])),
    /* the target is the squared loss's */
    FINE(IN_LOSS, POINTER(TENSORS.target.data, NULL)),
    FINE(IN_LOSS, POINTER(TENSORS.loss, &f.target[1][1])),
};

/* Cases whose parameters are not those that a run was planned with. */
static const struct fault_case squared_faults[] = {
    ANY_FAULT(TARGET, target, SQUARED),
    FAULT(IN_LOSS, TARGET, NULL, POINTER(TENSORS.target.data, NULL), SQUARED),
    FAULT(IN_LOSS, GRADIENT, OVERLAP, POINTER(TENSORS.gradient.data, f.target), SQUARED),
    FAULT(IN_LOSS, LOSS, OVERLAP, POINTER(TENSORS.loss, &f.target[1][1]), SQUARED),
    FINE(IN_LOSS, POINTER(TENSORS.target.data, f.prediction), SQUARED),
    FINE(IN_LOSS, POINTER(TENSORS.labels, NULL), SQUARED),
    FINE(IN_LOSS, INT32(labels[0], -2), SQUARED),
    /* no rows need no memory but the loss */
    FINE(IN_LOSS, INT64(PARAMS.rows, 0), POINTER(TENSORS.prediction.data, NULL),
         POINTER(TENSORS.labels, NULL), POINTER(TENSORS.gradient.data, NULL)),
    FAULT(IN_LOSS, LOSS, NULL, INT64(PARAMS.rows, 0), POINTER(TENSORS.loss, NULL)),
};

static void check_loss_params_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plan", call_plan);
    run_case(c, NULL, "the plain call", call_plain);
}
TABLE_TEST(loss_params_faults, check_loss_params_faults)

static void check_squared_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", call_plain);
}
TABLE_TEST(squared_faults, check_squared_faults)

static void check_loss_tensors_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", call_plain);
    run_case(c, prepare_ready, "the run", call_run);
}
TABLE_TEST(loss_tensors_faults, check_loss_tensors_faults)

/* A later phase looks at the labels of its own rows. */
START_TEST(a_label_that_went_bad_after_the_first_phase) {
    fixture_reset();
    prepare_ready(QKV_STAGE_LOSS);
    ck_assert_int_eq(call_run(QKV_STAGE_LOSS), QKV_OK);
    f.labels[3] = LOSS_COLUMNS;
    f.phase = 1;
    f.end = f.ready.parts[1];
    fixture_remember();
    ck_assert_int_eq(call_run(QKV_STAGE_LOSS), (QKV_ARG_LABELS << 8) + QKV_FAULT_RANGE);
    fixture_check_untouched("the run", QKV_STAGE_LOSS);
}
END_TEST

TCase *loss_faults_case(void) {
    TCase *test = tcase_create("loss");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, loss_params_faults);
    ADD_TABLE(test, loss_tensors_faults);
    ADD_TABLE(test, squared_faults);
    tcase_add_test(test, a_label_that_went_bad_after_the_first_phase);
    return test;
}
