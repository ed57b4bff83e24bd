/* SPDX-License-Identifier: Apache-2.0 */
/* qkv_context_init, the struct-size rule by itself, and what the initialisers leave. */
#include "arguments.h"

#include <string.h>

#include "config.h"
#include "param_size.h"

#define CONFIG config.now
/* A room of another architecture, and one of this, if the build has any but scalar. */
#define FOREIGN_ROOM (QKV_X86_64 ? QKV_ISA_NEON : QKV_ISA_AVX512)
#define NATIVE_ROOM (QKV_ROOM_AVX2 ? QKV_ISA_AVX2 : QKV_ROOM_NEON ? QKV_ISA_NEON : QKV_ISA_SCALAR)

/* The stage means nothing here; it is the one that run_case goes through. */
static const struct fault_case faults[] = {
    FAULT(IN_PROJECT, CONTEXT, NULL, POINTER(made_arg, NULL)),
    FAULT(IN_PROJECT, CONTEXT, MISALIGNED, MOVE(made_arg, 1)),
    FAULT(IN_PROJECT, CONTEXT, MISALIGNED, MOVE(made_arg, 4)),
    FAULT(IN_PROJECT, CONFIG, MISALIGNED, MOVE(config_arg, 4)),
    FAULT(IN_PROJECT, CONFIG, SIZE, INT64(CONFIG.size, 0)),
    FAULT(IN_PROJECT, CONFIG, SIZE, INT64(CONFIG.size, sizeof f.CONFIG - 8)),
    FAULT(IN_PROJECT, CONFIG, SIZE, INT64(CONFIG.size, -1)),
    FAULT(IN_PROJECT, CONFIG, FUTURE, INT64(CONFIG.size, sizeof f.config),
          INT64(config.tail[3], 1)),
    FAULT(IN_PROJECT, CONFIG, FUTURE, INT32(CONFIG.reserved, 1)),
    FAULT(IN_PROJECT, FLAGS, FLAG, INT64(CONFIG.flags, 1)),
    FAULT(IN_PROJECT, FLAGS, FLAG, INT64(CONFIG.flags, INT64_MIN)),
    FAULT(IN_PROJECT, CONFIG, FLAG, INT64(CONFIG.disabled, 1 << QKV_CPU_COUNT)),
    FAULT(IN_PROJECT, CONFIG, FLAG, INT64(CONFIG.disabled, INT64_MIN)),
    FAULT(IN_PROJECT, ISA, RANGE, INT32(CONFIG.isa_max, -1)),
    FAULT(IN_PROJECT, ISA, RANGE, INT32(CONFIG.isa_max, QKV_ISA_COUNT)),
    FAULT(IN_PROJECT, ISA, RANGE, INT32(CONFIG.isa_max, FOREIGN_ROOM)),
    FAULT(IN_PROJECT, ISA, RANGE, INT32(CONFIG.isa_max, INT32_MIN)),
    FAULT(IN_PROJECT, CONFIG, RANGE, INT64(CONFIG.last_cache, -1)),
    FAULT(IN_PROJECT, CONFIG, RANGE, INT64(CONFIG.last_cache, INT64_MIN)),
    FINE(IN_PROJECT, POINTER(config_arg, NULL)),
    FINE(IN_PROJECT, INT64(CONFIG.last_cache, 1)),
    FINE(IN_PROJECT, INT64(CONFIG.last_cache, INT64_MAX)),
    FINE(IN_PROJECT, INT64(CONFIG.size, sizeof f.config)),
    FINE(IN_PROJECT, INT32(CONFIG.isa_max, QKV_ISA_SCALAR)),
    FINE(IN_PROJECT, INT32(CONFIG.isa_max, NATIVE_ROOM)),
    FINE(IN_PROJECT, INT64(CONFIG.disabled, (1 << QKV_CPU_COUNT) - 1)),
};

static qkv_status call_context_init(int stage) {
    (void)stage;
    return qkv_context_init(f.made_arg, f.config_arg);
}

static void check_faults(const struct fault_case *c) {
    run_case(c, NULL, "qkv_context_init", call_context_init);
}
TABLE_TEST(faults, check_faults)

/* ---- The struct-size rule ---- */

struct first { /* as the first header had it */
    size_t size;
    int64_t a;
};

struct second { /* as this library knows it */
    size_t size;
    int64_t a, b;
};

struct third { /* as a newer header has it */
    size_t size;
    int64_t a, b, c, d;
};

static qkv_status take(struct second *own, const void *theirs) {
    return qkv_take_struct(own, sizeof *own, theirs, sizeof(struct first), QKV_ARG_CONFIG);
}

START_TEST(an_older_struct_is_filled_up_with_zeros) {
    struct first theirs = {sizeof theirs, 5};
    struct second own;

    memset(&own, 0xcb, sizeof own);
    ck_assert_int_eq(take(&own, &theirs), QKV_OK);
    ck_assert_int_eq(own.a, 5);
    ck_assert_int_eq(own.b, 0);
}
END_TEST

START_TEST(a_newer_struct_may_say_nothing_new) {
    struct third theirs = {sizeof theirs, 5, 6, 0, 0};
    struct second own;

    ck_assert_int_eq(take(&own, &theirs), QKV_OK);
    ck_assert_int_eq(own.a, 5);
    ck_assert_int_eq(own.b, 6);
    theirs.d = (int64_t)1 << 56;
    ck_assert_int_eq(take(&own, &theirs), (QKV_ARG_CONFIG << 8) + QKV_FAULT_FUTURE);
    theirs.size = offsetof(struct third, d); /* which it says it does not have */
    ck_assert_int_eq(take(&own, &theirs), QKV_OK);
}
END_TEST

START_TEST(a_size_that_no_header_had_is_refused) {
    struct third theirs = {0};
    struct second own;
    static const size_t sizes[] = {
        0, 1, 8, sizeof(struct first) - 1, QKV_STRUCT_SIZE_MAX + 1, SIZE_MAX, SIZE_MAX / 2};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        theirs.size = sizes[i];
        ck_assert_int_eq(take(&own, &theirs), (QKV_ARG_CONFIG << 8) + QKV_FAULT_SIZE);
    }
    ck_assert_int_eq(take(&own, NULL), (QKV_ARG_CONFIG << 8) + QKV_FAULT_NULL);
    ck_assert_int_eq(take(&own, (const char *)&theirs + 4),
                     (QKV_ARG_CONFIG << 8) + QKV_FAULT_MISALIGNED);
}
END_TEST

/* ---- Initialisers ---- */

START_TEST(initialisers_set_the_size_and_no_option) {
    qkv_attention_params params;
    qkv_tensors tensors, no_tensors = {.size = sizeof tensors};
    qkv_exec exec;
    qkv_project_params project;
    qkv_project_tensors project_tensors, no_project_tensors = {.size = sizeof project_tensors};

    qkv_attention_params_init(&params);
    ck_assert_uint_eq(params.size, sizeof params);
    ck_assert_uint_eq(params.flags, 0);
    ck_assert_int_eq(params.window_left, -1);
    ck_assert_int_eq(params.window_right, -1);
    ck_assert_int_eq(params.align, QKV_ALIGN_BOTTOM_RIGHT);
    ck_assert_ptr_null(params.bias.data);
    ck_assert_ptr_null(params.mask.data);
    ck_assert_ptr_null(params.alibi_slopes);
    ck_assert_ptr_null(params.sinks);
    qkv_tensors_init(&tensors);
    ck_assert_mem_eq(&tensors, &no_tensors, sizeof tensors);
    qkv_exec_init(&exec);
    ck_assert_uint_eq(exec.size, sizeof exec);
    ck_assert_int_eq(exec.threads, 1);
    ck_assert_ptr_null(exec.context);
    ck_assert(exec.parallel_for == NULL);
    qkv_project_params_init(&project);
    ck_assert_uint_eq(project.size, sizeof project);
    ck_assert_int_eq(project.layout, QKV_W_IN_OUT);
    qkv_project_tensors_init(&project_tensors);
    ck_assert_mem_eq(&project_tensors, &no_project_tensors, sizeof project_tensors);
}
END_TEST

START_TEST(contiguous_tensors) {
    static float memory[2 * 3 * 5 * 7];
    qkv_tensor bhsd = qkv_tensor_bhsd(memory, 3, 5, 7), bshd = qkv_tensor_bshd(memory, 3, 5, 7);

    ck_assert_ptr_eq(bhsd.data, memory);
    ck_assert_int_eq(bhsd.dtype, QKV_F32);
    ck_assert_int_eq(bhsd.reserved, 0);
    ck_assert_int_eq(bhsd.stride[0], 3 * 5 * 7);
    ck_assert_int_eq(bhsd.stride[1], 5 * 7);
    ck_assert_int_eq(bhsd.stride[2], 7);
    ck_assert_int_eq(bhsd.stride[3], 1);
    ck_assert_ptr_eq(bshd.data, memory);
    ck_assert_int_eq(bshd.stride[0], 5 * 3 * 7);
    ck_assert_int_eq(bshd.stride[1], 7);
    ck_assert_int_eq(bshd.stride[2], 3 * 7);
    ck_assert_int_eq(bshd.stride[3], 1);
}
END_TEST

TCase *context_faults_case(void) {
    TCase *test = tcase_create("context");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, faults);
    tcase_add_test(test, an_older_struct_is_filled_up_with_zeros);
    tcase_add_test(test, a_newer_struct_may_say_nothing_new);
    tcase_add_test(test, a_size_that_no_header_had_is_refused);
    tcase_add_test(test, initialisers_set_the_size_and_no_option);
    tcase_add_test(test, contiguous_tensors);
    return test;
}
