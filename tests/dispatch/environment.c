/* SPDX-License-Identifier: Apache-2.0 */
/* A fresh process with QKV_CPU_MAX and QKV_CPU_DISABLE set by who runs it (meson.build lists the
 * cases): what the constructor made of them. Arguments: the highest room allowed, and the names
 * that should be reported as unknown. */
#define _POSIX_C_SOURCE 200809L

#include "dispatch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"

static const char *highest, *unknown;

static int room_number(const char *name) {
    for (int isa = QKV_ISA_SCALAR; isa < QKV_ISA_COUNT; isa++)
        if (strcmp(qkv_isa_name(isa), name) == 0)
            return isa;
    return QKV_ISA_NONE;
}

/* As far down as was asked, and no further than the processor itself asks. */
START_TEST(the_binding_steps_down) {
    struct qkv_context_state expected;
    int cap = room_number(highest);

    ck_assert_int_ne(cap, QKV_ISA_NONE);
    qkv_context_bind(&expected, qkv_cpu_detected() & ~qkv_cpu_withheld(), cap);
    ck_assert_int_eq((int)qkv_context_isa(NULL), expected.isa);
    for (int stage = 0; stage < QKV_STAGE_COUNT; stage++)
        ck_assert_str_eq(qkv_context_variant(NULL, stage), qkv_isa_name(expected.isa));
}
END_TEST

START_TEST(the_sets_follow_the_environment) {
    struct qkv_cpu_report report;

    qkv_cpu_read(&report);
    ck_assert_uint_eq(qkv_cpu_detected(), report.detected);
    ck_assert_uint_eq(qkv_cpu_withheld(), report.withheld);
    ck_assert_uint_eq(qkv_cpu_removed(), report.removed);
    ck_assert_uint_eq(qkv_cpu_usable(), qkv_cpu_report_usable(&report));
    if (getenv("QKV_CPU_MAX") == NULL && getenv("QKV_CPU_DISABLE") == NULL)
        ck_assert_uint_eq(qkv_cpu_removed(), 0);
}
END_TEST

START_TEST(unknown_names_are_reported) {
    ck_assert_str_eq(qkv_cpu_unknown_overrides(), unknown);
}
END_TEST

/* What the environment took away, no configuration gives back. */
START_TEST(a_configuration_gives_nothing_back) {
    for (int isa = QKV_ISA_SCALAR; isa < QKV_ISA_COUNT; isa++) {
        qkv_context context;
        qkv_context_config config;

        if (!qkv_isa_built(isa))
            continue;
        qkv_context_config_init(&config);
        config.isa_max = isa;
        ck_assert_int_eq(qkv_context_init(&context, &config), QKV_OK);
        ck_assert_int_le(qkv_context_isa(&context), room_number(highest));
    }
}
END_TEST

/* The environment is read once: a change afterwards changes nothing. */
START_TEST(a_later_change_of_the_environment_is_too_late) {
    uint64_t usable = qkv_cpu_usable();
    int isa = qkv_context_isa(NULL);

    ck_assert_int_eq(setenv("QKV_CPU_MAX", "scalar", 1), 0);
    ck_assert_int_eq(setenv("QKV_CPU_DISABLE", "too-late", 1), 0);
    qkv_init();
    ck_assert_uint_eq(qkv_cpu_usable(), usable);
    ck_assert_int_eq(qkv_context_isa(NULL), isa);
    ck_assert_str_eq(qkv_cpu_unknown_overrides(), unknown);
}
END_TEST

int main(int argc, char **argv) {
    Suite *suite = suite_create("environment");
    TCase *test = tcase_create("environment");
    SRunner *runner = srunner_create(suite);
    int failed;

    if (argc != 3) {
        fprintf(stderr, "usage: %s HIGHEST-ROOM UNKNOWN-NAMES\n", argv[0]);
        return 2;
    }
    highest = argv[1];
    unknown = argv[2];
    suite_add_tcase(suite, test);
    tcase_set_timeout(test, 60);
    tcase_add_test(test, the_binding_steps_down);
    tcase_add_test(test, the_sets_follow_the_environment);
    tcase_add_test(test, unknown_names_are_reported);
    tcase_add_test(test, a_configuration_gives_nothing_back);
    tcase_add_test(test, a_later_change_of_the_environment_is_too_late);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
