/* SPDX-License-Identifier: Apache-2.0 */
/* Auxiliary vectors of processors that are not at hand. */
#include "dispatch.h"

#define FP ((uint64_t)1 << 0)
#define ASIMD ((uint64_t)1 << 1)
#define FPHP ((uint64_t)1 << 9)
#define ASIMDHP ((uint64_t)1 << 10)
#define ASIMDDP ((uint64_t)1 << 20)
#define I8MM2 ((uint64_t)1 << 13)
#define BF162 ((uint64_t)1 << 14)

static const struct {
    const char *name;
    struct qkv_cpu_words words;
    uint64_t detected;
} machines[] = {
    {"Armv8.0: cortex-a53 and cortex-a72", {FP | ASIMD, 0}, BIT(NEON)},
    {"Armv8.2: cortex-a76 and neoverse-n1",
     {FP | ASIMD | FPHP | ASIMDHP | ASIMDDP, 0},
     BIT(NEON) | BIT(FP16) | BIT(DOTPROD)},
    {"Armv8.6", {FP | ASIMD | FPHP | ASIMDHP | ASIMDDP, I8MM2 | BF162}, NEON_FAMILY},
    {"half precision for scalars only", {FP | ASIMD | FPHP, 0}, BIT(NEON)},
    {"half precision for vectors only", {FP | ASIMD | ASIMDHP, 0}, BIT(NEON)},
    {"bfloat16 without the integer products", {FP | ASIMD, BF162}, BIT(NEON) | BIT(BF16)},
    {"integer products without bfloat16", {FP | ASIMD, I8MM2}, BIT(NEON) | BIT(I8MM)},
    {"a kernel without vectors names only what needs none",
     {FP | FPHP | ASIMDHP | ASIMDDP, I8MM2 | BF162},
     0},
    {"an auxiliary vector without the entries", {0, 0}, 0},
};

START_TEST(machines_are_read) {
    struct qkv_cpu_report report;

    qkv_cpu_decode(&report, &machines[_i].words);
    ck_assert_msg(report.detected == machines[_i].detected, "%s: detected %#llx, not %#llx",
                  machines[_i].name, (unsigned long long)report.detected,
                  (unsigned long long)machines[_i].detected);
    ck_assert_uint_eq(report.withheld, 0);
}
END_TEST

START_TEST(this_machine_is_consistent) {
    struct qkv_cpu_words words;
    struct qkv_cpu_report report;

    qkv_cpu_ask(&words);
    qkv_cpu_decode(&report, &words);
    ck_assert_uint_eq(report.detected, qkv_cpu_detected());
    ck_assert_uint_eq(qkv_cpu_withheld(), 0);
    ck_assert_uint_ne(report.detected & BIT(NEON), 0); /* part of the ABI */
}
END_TEST

TCase *features_case(void) {
    TCase *test = tcase_create("features");

    tcase_set_timeout(test, PATIENCE);
    tcase_add_loop_test(test, machines_are_read, 0, sizeof machines / sizeof *machines);
    tcase_add_test(test, this_machine_is_consistent);
    return test;
}
