/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts as a caller makes them, on the processor at hand: configurations only take away, and
 * what they are made of can be asked. (Their faults are in the suite of the edge.) */
#include "dispatch.h"

#include <string.h>

START_TEST(the_default_context_is_one_and_stays) {
    const qkv_context *first = qkv_default_context();
    qkv_context copy = *first;

    qkv_init();
    qkv_init();
    ck_assert_ptr_eq(qkv_default_context(), first);
    ck_assert_mem_eq(qkv_default_context(), &copy, sizeof copy);
    ck_assert_int_eq(qkv_context_isa(NULL), qkv_context_isa(first));
    for (int stage = 0; stage < QKV_STAGE_COUNT; stage++)
        ck_assert_str_eq(qkv_context_variant(NULL, stage), qkv_context_variant(first, stage));
}
END_TEST

START_TEST(no_configuration_is_the_default_one) {
    qkv_context plain, configured;
    qkv_context_config config;

    qkv_context_config_init(&config);
    ck_assert_uint_eq(config.size, sizeof config);
    ck_assert_int_eq(qkv_context_init(&plain, NULL), QKV_OK);
    ck_assert_int_eq(qkv_context_init(&configured, &config), QKV_OK);
    ck_assert_mem_eq(&plain, qkv_default_context(), sizeof plain);
    ck_assert_mem_eq(&configured, qkv_default_context(), sizeof plain);
}
END_TEST

/* _i is the cap: every room of this build, whether this processor has it or not. */
START_TEST(a_cap_is_never_passed) {
    qkv_context context;
    qkv_context_config config;

    if (!qkv_isa_built(_i))
        return;
    qkv_context_config_init(&config);
    config.isa_max = _i;
    ck_assert_int_eq(qkv_context_init(&context, &config), QKV_OK);
    ck_assert_int_le(qkv_context_isa(&context), _i);
    ck_assert_int_le(qkv_context_isa(&context), qkv_context_isa(NULL));
    if (_i <= (int)qkv_context_isa(NULL))
        ck_assert_int_eq(qkv_context_isa(&context), _i);
}
END_TEST

/* _i is the feature. */
START_TEST(a_disabled_feature_is_done_without) {
    static const uint64_t needs[QKV_ISA_COUNT] = {
        [QKV_ISA_AVX2] = AVX2_ROOM, [QKV_ISA_AVX512] = AVX512_ROOM, [QKV_ISA_NEON] = NEON_ROOM};
    qkv_context context;
    qkv_context_config config;

    qkv_context_config_init(&config);
    config.disabled = QKV_CPU_BIT(_i);
    ck_assert_int_eq(qkv_context_init(&context, &config), QKV_OK);
    ck_assert_uint_eq(needs[qkv_context_isa(&context)] & QKV_CPU_BIT(_i), 0);
    ck_assert_int_le(qkv_context_isa(&context), qkv_context_isa(NULL));
}
END_TEST

START_TEST(without_any_feature_there_is_scalar) {
    qkv_context context;
    qkv_context_config config;

    qkv_context_config_init(&config);
    config.disabled = ((uint64_t)1 << QKV_CPU_COUNT) - 1;
    ck_assert_int_eq(qkv_context_init(&context, &config), QKV_OK);
    ck_assert_int_eq(qkv_context_isa(&context), QKV_ISA_SCALAR);
}
END_TEST

/* Removed features do not come back through a configuration: it has no way to ask for one. */
START_TEST(the_sets_divide_what_was_detected) {
    uint64_t detected = qkv_cpu_detected(), withheld = qkv_cpu_withheld();
    uint64_t removed = qkv_cpu_removed(), usable = qkv_cpu_usable();

    ck_assert_uint_eq(withheld | removed | usable, detected);
    ck_assert_uint_eq(withheld & removed, 0);
    ck_assert_uint_eq(withheld & usable, 0);
    ck_assert_uint_eq(removed & usable, 0);
    ck_assert_uint_eq(detected & ~EVERY_FEATURE, 0);
}
END_TEST

START_TEST(names_of_rooms_and_stages) {
    ck_assert_str_eq(qkv_isa_name(QKV_ISA_SCALAR), "scalar");
    ck_assert_str_eq(qkv_isa_name(QKV_ISA_AVX2), "avx2");
    ck_assert_str_eq(qkv_isa_name(QKV_ISA_AVX512), "avx512");
    ck_assert_str_eq(qkv_isa_name(QKV_ISA_NEON), "neon");
    ck_assert_ptr_null(qkv_isa_name(QKV_ISA_NONE));
    ck_assert_ptr_null(qkv_isa_name(QKV_ISA_COUNT));
    ck_assert_ptr_null(qkv_isa_name(-1));
    ck_assert_str_eq(qkv_stage_name(QKV_STAGE_PROJECT), "project");
    ck_assert_str_eq(qkv_stage_name(QKV_STAGE_SCORES), "scores");
    ck_assert_str_eq(qkv_stage_name(QKV_STAGE_SOFTMAX), "softmax");
    ck_assert_str_eq(qkv_stage_name(QKV_STAGE_MIX), "mix");
    ck_assert_str_eq(qkv_stage_name(QKV_STAGE_ATTENTION), "attention");
    ck_assert_str_eq(qkv_stage_name(QKV_STAGE_ATTENTION_BACKWARD), "attention_backward");
    ck_assert_str_eq(qkv_stage_name(QKV_STAGE_DESCENT), "descent");
    ck_assert_ptr_null(qkv_stage_name(-1));
    ck_assert_ptr_null(qkv_stage_name(QKV_STAGE_COUNT));
    ck_assert_ptr_null(qkv_context_variant(NULL, -1));
    ck_assert_ptr_null(qkv_context_variant(NULL, QKV_STAGE_COUNT));
}
END_TEST

START_TEST(rooms_of_this_build) {
    ck_assert_int_eq(qkv_isa_built(QKV_ISA_NONE), 0);
    ck_assert_int_eq(qkv_isa_built(QKV_ISA_SCALAR), 1);
    ck_assert_int_eq(qkv_isa_built(QKV_ISA_AVX2), QKV_ROOM_AVX2);
    ck_assert_int_eq(qkv_isa_built(QKV_ISA_AVX512), QKV_ROOM_AVX512);
    ck_assert_int_eq(qkv_isa_built(QKV_ISA_NEON), QKV_ROOM_NEON);
    ck_assert_int_eq(qkv_isa_built(QKV_ISA_COUNT), 0);
    ck_assert_int_eq(qkv_isa_built(-1), 0);
}
END_TEST

START_TEST(memory_that_is_no_context_is_recognised) {
    qkv_context zeros = {{0}}, noise;

    memset(&noise, 0x5a, sizeof noise);
    ck_assert_int_eq(qkv_context_isa(&zeros), QKV_ISA_NONE);
    ck_assert_int_eq(qkv_context_isa(&noise), QKV_ISA_NONE);
    ck_assert_ptr_null(qkv_context_variant(&zeros, QKV_STAGE_SCORES));
    ck_assert_ptr_null(qkv_context_variant(&noise, QKV_STAGE_SCORES));
}
END_TEST

TCase *context_case(void) {
    TCase *test = tcase_create("context");

    tcase_set_timeout(test, PATIENCE);
    tcase_add_test(test, the_default_context_is_one_and_stays);
    tcase_add_test(test, no_configuration_is_the_default_one);
    tcase_add_loop_test(test, a_cap_is_never_passed, QKV_ISA_SCALAR, QKV_ISA_COUNT);
    tcase_add_loop_test(test, a_disabled_feature_is_done_without, 0, QKV_CPU_COUNT);
    tcase_add_test(test, without_any_feature_there_is_scalar);
    tcase_add_test(test, the_sets_divide_what_was_detected);
    tcase_add_test(test, names_of_rooms_and_stages);
    tcase_add_test(test, rooms_of_this_build);
    tcase_add_test(test, memory_that_is_no_context_is_recognised);
    return test;
}
