/* SPDX-License-Identifier: Apache-2.0 */
/* What QKV_CPU_MAX and QKV_CPU_DISABLE take away, from every set of features a processor can
 * have: never more than was asked, never anything given. */
#include "dispatch.h"

#include <stdio.h>
#include <string.h>

#if QKV_X86_64
#define LOW_ROOM "avx2"
#define LOW_LEFT AVX2_FAMILY
#define TOP_ROOM "avx512"
#define ONE_NAME "avx512bf16"
#define ONE_BIT BIT(AVX512BF16)
#define TWO_NAME "f16c"
#define TWO_BIT BIT(F16C)
#define FOREIGN_ROOM "neon"
#define FOREIGN_NAME "dotprod"
#else
#define LOW_ROOM "scalar"
#define LOW_LEFT ((uint64_t)0)
#define TOP_ROOM "neon"
#define ONE_NAME "i8mm"
#define ONE_BIT BIT(I8MM)
#define TWO_NAME "dotprod"
#define TWO_BIT BIT(DOTPROD)
#define FOREIGN_ROOM "avx2"
#define FOREIGN_NAME "avx512f"
#endif

static const struct {
    const char *max, *disable;
    uint64_t left; /* of EVERY_FEATURE */
    const char *unknown;
} cases[] = {
    {NULL, NULL, EVERY_FEATURE, ""},
    {"", "", EVERY_FEATURE, ""},
    {"scalar", NULL, 0, ""},
    {LOW_ROOM, NULL, LOW_LEFT, ""},
    {TOP_ROOM, NULL, EVERY_FEATURE, ""},
    {NULL, ONE_NAME, EVERY_FEATURE & ~ONE_BIT, ""},
    {NULL, ONE_NAME "," TWO_NAME, EVERY_FEATURE & ~(ONE_BIT | TWO_BIT), ""},
    {NULL, " " ONE_NAME "\t, " TWO_NAME " ", EVERY_FEATURE & ~(ONE_BIT | TWO_BIT), ""},
    {NULL, ",," TWO_NAME ",,", EVERY_FEATURE & ~TWO_BIT, ""},
    {NULL, ONE_NAME "," ONE_NAME, EVERY_FEATURE & ~ONE_BIT, ""},
    {TOP_ROOM, TWO_NAME, EVERY_FEATURE & ~TWO_BIT, ""},
    {LOW_ROOM, TWO_NAME, LOW_LEFT & ~TWO_BIT, ""},
    /* names that mean nothing: reported, in order, and otherwise ignored */
    {"pentium", NULL, EVERY_FEATURE, "pentium"},
    {FOREIGN_ROOM, NULL, EVERY_FEATURE, FOREIGN_ROOM},
    {"AVX2", NULL, EVERY_FEATURE, "AVX2"},
    {"none", NULL, EVERY_FEATURE, "none"},
    {LOW_ROOM "x", NULL, EVERY_FEATURE, LOW_ROOM "x"},
    {NULL, FOREIGN_NAME, EVERY_FEATURE, FOREIGN_NAME},
    {NULL, "scalar", EVERY_FEATURE, "scalar"},
    {NULL, "mmx," TWO_NAME ",3dnow", EVERY_FEATURE & ~TWO_BIT, "mmx,3dnow"},
    {"mmx", "sse,mmx", EVERY_FEATURE, "mmx,sse,mmx"},
    {NULL, "f", EVERY_FEATURE, "f"},
    {"x87", ONE_NAME, EVERY_FEATURE & ~ONE_BIT, "x87"},
};

START_TEST(names_take_away_what_they_name) {
    struct qkv_cpu_report report = {.detected = EVERY_FEATURE};

    qkv_cpu_override(&report, cases[_i].max, cases[_i].disable);
    ck_assert_uint_eq(qkv_cpu_report_usable(&report), cases[_i].left);
    ck_assert_uint_eq(report.removed, EVERY_FEATURE & ~cases[_i].left);
    ck_assert_str_eq(report.unknown, cases[_i].unknown);
}
END_TEST

/* Every subset of the features detected, and of these a rotating subset withheld. */
START_TEST(overrides_only_take_away) {
    for (uint64_t detected = 0; detected >> QKV_CPU_COUNT == 0; detected++) {
        uint64_t withheld = detected & (detected * 0x9e37u >> 5);
        struct qkv_cpu_report report = {.detected = detected, .withheld = withheld};
        uint64_t left = cases[_i].left | ~EVERY_FEATURE;

        if (detected & ~EVERY_FEATURE)
            continue;
        qkv_cpu_override(&report, cases[_i].max, cases[_i].disable);
        if (report.detected != detected || report.withheld != withheld ||
            report.removed != (detected & ~withheld & ~left) ||
            qkv_cpu_report_usable(&report) != (detected & ~withheld & left))
            ck_abort_msg("case %d, detected %#llx, withheld %#llx: removed %#llx", _i,
                         (unsigned long long)detected, (unsigned long long)withheld,
                         (unsigned long long)report.removed);
    }
}
END_TEST

/* Names of six letters; of the value of QKV_CPU_MAX they are one name, commas and all. Whatever
 * their length, the report is their beginning. */
START_TEST(unknown_names_never_leave_their_buffer) {
    struct {
        struct qkv_cpu_report report;
        char canary[64];
    } box = {.report = {.detected = EVERY_FEATURE}};
    char list[3 * QKV_CPU_UNKNOWN_MAX], joined[2 * sizeof list];

    memset(box.canary, 0x5a, sizeof box.canary);
    for (size_t length = 1; length < sizeof list; length++) {
        for (size_t i = 0; i < length; i++)
            list[i] = i % 7 == 6 ? ',' : 'z';
        list[length] = '\0';
        snprintf(joined, sizeof joined, "%s,%.*s", list, (int)(length - (length % 7 == 0)), list);
        joined[QKV_CPU_UNKNOWN_MAX - 1] = '\0';
        qkv_cpu_override(&box.report, list, list);
        ck_assert_str_eq(box.report.unknown, joined);
        ck_assert_uint_eq(qkv_cpu_report_usable(&box.report), EVERY_FEATURE);
        for (size_t i = 0; i < sizeof box.canary; i++)
            ck_assert_int_eq(box.canary[i], 0x5a);
    }
}
END_TEST

/* A feature without a room would survive every cap, or be taken away by each. */
START_TEST(every_feature_has_a_room_and_a_name) {
    ck_assert_uint_eq(qkv_cpu_features_of(QKV_ISA_SCALAR), 0);
    ck_assert_uint_eq(qkv_cpu_features_of(QKV_ISA_AVX2), AVX2_FAMILY);
    ck_assert_uint_eq(qkv_cpu_features_of(QKV_ISA_AVX512), AVX512_FAMILY);
    ck_assert_uint_eq(qkv_cpu_features_of(QKV_ISA_NEON), NEON_FAMILY);
    ck_assert_uint_eq(X86_FAMILY | NEON_FAMILY, ((uint64_t)1 << QKV_CPU_COUNT) - 1);
    for (int i = 0; i < QKV_CPU_COUNT; i++) {
        const char *name = qkv_cpu_feature_name(i);
        ck_assert_ptr_nonnull(name);
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(name, qkv_cpu_feature_name(j));
    }
    ck_assert_str_eq(qkv_cpu_feature_name(QKV_CPU_AVX512BF16), "avx512bf16");
    ck_assert_ptr_null(qkv_cpu_feature_name(-1));
    ck_assert_ptr_null(qkv_cpu_feature_name(QKV_CPU_COUNT));
}
END_TEST

TCase *override_case(void) {
    TCase *test = tcase_create("override");
    int count = (int)(sizeof cases / sizeof *cases);

    tcase_set_timeout(test, PATIENCE);
    tcase_add_loop_test(test, names_take_away_what_they_name, 0, count);
    tcase_add_loop_test(test, overrides_only_take_away, 0, count);
    tcase_add_test(test, unknown_names_never_leave_their_buffer);
    tcase_add_test(test, every_feature_has_a_room_and_a_name);
    return test;
}
