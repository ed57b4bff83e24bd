/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers and arrays of descent, and of clipping. */
#include "arguments.h"

#define PARAMS descent_params.now
#define ARRAYS descent_arrays.now
#define SGD INT32(PARAMS.rule, QKV_DESCENT_SGD)
#define FAR_TOO_MANY ((int64_t)1 << 60)

/* A number that must be finite and 0 or more; one that must also be less than 1; or more than 0. */
#define AT_LEAST_0(arg, number)                                         \
    FAULT(IN_DESCENT, arg, VALUE, FLOAT(PARAMS.number, NAN)),           \
        FAULT(IN_DESCENT, arg, VALUE, FLOAT(PARAMS.number, INFINITY)),  \
        FAULT(IN_DESCENT, arg, VALUE, FLOAT(PARAMS.number, -INFINITY)), \
        FAULT(IN_DESCENT, arg, NEGATIVE, FLOAT(PARAMS.number, -1e-30f))
#define BELOW_1(arg, number)                                                            \
    AT_LEAST_0(arg, number), FAULT(IN_DESCENT, arg, RANGE, FLOAT(PARAMS.number, 1.0f)), \
        FAULT(IN_DESCENT, arg, RANGE, FLOAT(PARAMS.number, 1e30f)),                     \
        FINE(IN_DESCENT, FLOAT(PARAMS.number, 0x1.fffffep-1f)),                         \
        FINE(IN_DESCENT, FLOAT(PARAMS.number, 0.0f))
#define ABOVE_0(arg, number)                                                           \
    AT_LEAST_0(arg, number), FAULT(IN_DESCENT, arg, ZERO, FLOAT(PARAMS.number, 0.0f)), \
        FAULT(IN_DESCENT, arg, ZERO, FLOAT(PARAMS.number, -0.0f)),                     \
        FINE(IN_DESCENT, FLOAT(PARAMS.number, 0x1p-149f))

static const struct fault_case descent_params_faults[] = {
    FAULT(IN_DESCENT, PARAMS, NULL, POINTER(descent_params_arg, NULL)),
    FAULT(IN_DESCENT, PARAMS, MISALIGNED, MOVE(descent_params_arg, 4)),
    FAULT(IN_DESCENT, PARAMS, SIZE, INT64(PARAMS.size, 0)),
    FAULT(IN_DESCENT, PARAMS, SIZE, INT64(PARAMS.size, sizeof f.PARAMS - 8)),
    FAULT(IN_DESCENT, PARAMS, FUTURE, INT64(PARAMS.size, sizeof f.descent_params),
          INT64(descent_params.tail[0], 1)),
    FINE(IN_DESCENT, INT64(PARAMS.size, sizeof f.descent_params)),
    FAULT(IN_DESCENT, FLAGS, FLAG, INT64(PARAMS.flags, 1)),
    FAULT(IN_DESCENT, NUMBERS, NEGATIVE, INT64(PARAMS.count, -1)),
    FAULT(IN_DESCENT, NUMBERS, OVERFLOW, INT64(PARAMS.count, INT64_MAX)),
    FAULT(IN_DESCENT, NUMBERS, OVERFLOW, INT64(PARAMS.count, FAR_TOO_MANY)),
    FINE(IN_DESCENT, INT64(PARAMS.count, 0)),
    FAULT(IN_DESCENT, STEP, ZERO, INT64(PARAMS.step, 0)),
    FAULT(IN_DESCENT, STEP, NEGATIVE, INT64(PARAMS.step, -1)),
    FINE(IN_DESCENT, INT64(PARAMS.step, INT64_MAX)),
    FAULT(IN_DESCENT, RULE, RANGE, INT32(PARAMS.rule, -1)),
    FAULT(IN_DESCENT, RULE, RANGE, INT32(PARAMS.rule, QKV_DESCENT_COUNT)),
    AT_LEAST_0(RATE, rate),
    FINE(IN_DESCENT, FLOAT(PARAMS.rate, 0.0f)),                /* as schedules begin or end */
    FAULT(IN_DESCENT, RATE, RANGE, FLOAT(PARAMS.rate, 1e38f)), /* corrected: beyond float32 */
    FINE(IN_DESCENT, FLOAT(PARAMS.rate, 1e38f), SGD),
    AT_LEAST_0(GRADIENT_SCALE, gradient_scale),
    FINE(IN_DESCENT, FLOAT(PARAMS.gradient_scale, 0.0f)),
    AT_LEAST_0(WEIGHT_DECAY, weight_decay),
    BELOW_1(BETA1, beta1),
    BELOW_1(BETA2, beta2),
    ABOVE_0(EPSILON, epsilon),
    /* what a rule does not use */
    FINE(IN_DESCENT, FLOAT(PARAMS.momentum, NAN)),
    FINE(IN_DESCENT, SGD, FLOAT(PARAMS.beta1, NAN), FLOAT(PARAMS.beta2, 7.0f),
         FLOAT(PARAMS.epsilon, -1.0f)),
    FAULT(IN_DESCENT, MOMENTUM, VALUE, FLOAT(PARAMS.momentum, NAN), SGD),
    FAULT(IN_DESCENT, MOMENTUM, VALUE, FLOAT(PARAMS.momentum, INFINITY), SGD),
    FAULT(IN_DESCENT, MOMENTUM, NEGATIVE, FLOAT(PARAMS.momentum, -0.5f), SGD),
    FAULT(IN_DESCENT, MOMENTUM, RANGE, FLOAT(PARAMS.momentum, 1.0f), SGD),
};

#define ARRAY_FAULTS(arg, array)                                   \
    FAULT(IN_DESCENT, arg, NULL, POINTER(ARRAYS.array, NULL)),     \
        FAULT(IN_DESCENT, arg, MISALIGNED, MOVE(ARRAYS.array, 1)), \
        FAULT(IN_DESCENT, arg, MISALIGNED, MOVE(ARRAYS.array, 2))

static const struct fault_case descent_arrays_faults[] = {
    FAULT(IN_DESCENT, ARRAYS, NULL, POINTER(descent_arrays_arg, NULL)),
    FAULT(IN_DESCENT, ARRAYS, MISALIGNED, MOVE(descent_arrays_arg, 4)),
    FAULT(IN_DESCENT, ARRAYS, SIZE, INT64(ARRAYS.size, 0)),
    FAULT(IN_DESCENT, ARRAYS, SIZE, INT64(ARRAYS.size, sizeof f.ARRAYS - 8)),
    FAULT(IN_DESCENT, ARRAYS, FUTURE, INT64(ARRAYS.size, sizeof f.descent_arrays),
          INT64(descent_arrays.tail[3], 1)),
    FINE(IN_DESCENT, INT64(ARRAYS.size, sizeof f.descent_arrays)),
    ARRAY_FAULTS(WEIGHTS, weights),
    ARRAY_FAULTS(GRADIENT, gradient),
    ARRAY_FAULTS(MEAN, mean),
    ARRAY_FAULTS(SQUARE, square),
    /* any two of them; the later one is named */
    FAULT(IN_DESCENT, GRADIENT, OVERLAP, POINTER(ARRAYS.gradient, f.descending)),
    FAULT(IN_DESCENT, GRADIENT, OVERLAP, POINTER(ARRAYS.gradient, &f.descending[NUMBERS - 1])),
    FAULT(IN_DESCENT, MEAN, OVERLAP, POINTER(ARRAYS.mean, f.descending)),
    FAULT(IN_DESCENT, MEAN, OVERLAP, POINTER(ARRAYS.mean, f.gradient)),
    FAULT(IN_DESCENT, SQUARE, OVERLAP, POINTER(ARRAYS.square, f.descending)),
    FAULT(IN_DESCENT, SQUARE, OVERLAP, POINTER(ARRAYS.square, f.gradient)),
    FAULT(IN_DESCENT, SQUARE, OVERLAP, POINTER(ARRAYS.square, f.mean)),
};

/* Cases whose parameters are not those that a run was planned with. */
static const struct fault_case left_out_arrays[] = {
    FINE(IN_DESCENT, SGD, POINTER(ARRAYS.mean, NULL), POINTER(ARRAYS.square, NULL)),
    FINE(IN_DESCENT, SGD, POINTER(ARRAYS.mean, f.descending), MOVE(ARRAYS.square, 1)),
    FINE(IN_DESCENT, SGD, FLOAT(PARAMS.momentum, 0.5f), POINTER(ARRAYS.square, NULL)),
    FAULT(IN_DESCENT, MEAN, NULL, SGD, FLOAT(PARAMS.momentum, 0.5f), POINTER(ARRAYS.mean, NULL)),
    FINE(IN_DESCENT, INT64(PARAMS.count, 0), POINTER(ARRAYS.weights, NULL),
         POINTER(ARRAYS.gradient, NULL), POINTER(ARRAYS.mean, NULL), POINTER(ARRAYS.square, NULL)),
    FINE(IN_DESCENT, POINTER(exec_arg, NULL)), /* it needs no workspace */
};

static const struct fault_case sum_faults[] = {
    FAULT(IN_DESCENT, SUM, NULL, POINTER(sum_arg, NULL)),
    FAULT(IN_DESCENT, SUM, MISALIGNED, MOVE(sum_arg, 4)),
    FAULT(IN_DESCENT, X, NULL, POINTER(summed_arg, NULL)),
    FAULT(IN_DESCENT, X, MISALIGNED, MOVE(summed_arg, 2)),
    FAULT(IN_DESCENT, NUMBERS, NEGATIVE, INT64(summed, -1)),
    FAULT(IN_DESCENT, NUMBERS, OVERFLOW, INT64(summed, INT64_MAX)),
    FAULT(IN_DESCENT, SUM, OVERLAP, POINTER(summed_arg, &f.sum), INT64(summed, 2)),
    FAULT(IN_DESCENT, CONTEXT, MISALIGNED, POINTER(context_arg, (const char *)&f.zeros + 4)),
    FAULT(IN_DESCENT, CONTEXT, STALE, POINTER(context_arg, &f.zeros)),
    FINE(IN_DESCENT, POINTER(summed_arg, NULL), INT64(summed, 0)),
};

static void check_descent_params_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plan", call_plan);
    run_case(c, NULL, "the plain call", call_plain);
}
TABLE_TEST(descent_params_faults, check_descent_params_faults)

static void check_descent_arrays_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", call_plain);
    run_case(c, prepare_ready, "the run", call_run);
}
TABLE_TEST(descent_arrays_faults, check_descent_arrays_faults)

static void check_left_out_arrays(const struct fault_case *c) {
    run_case(c, NULL, "the plain call", call_plain);
}
TABLE_TEST(left_out_arrays, check_left_out_arrays)

static qkv_status call_sum(int stage) {
    (void)stage;
    return qkv_sum_squares(f.sum_arg, f.summed_arg, f.summed, f.context_arg);
}

static void check_sum_faults(const struct fault_case *c) {
    run_case(c, NULL, "qkv_sum_squares", call_sum);
}
TABLE_TEST(sum_faults, check_sum_faults)

TCase *descent_faults_case(void) {
    TCase *test = tcase_create("descent");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, descent_params_faults);
    ADD_TABLE(test, descent_arrays_faults);
    ADD_TABLE(test, left_out_arrays);
    ADD_TABLE(test, sum_faults);
    return test;
}
