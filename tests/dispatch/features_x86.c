/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID and XGETBV words of processors and operating systems that are not at hand. */
#include "dispatch.h"

#include "context.h"

#define OSXSAVE (1u << 27)
#define AVX (1u << 28)
#define LEAF1_AVX (AVX | 1u << 12 | 1u << 29)
#define LEAF1_ALL (OSXSAVE | LEAF1_AVX)
#define LEAF7_EBX_AVX2 (1u << 5)
#define LEAF7_EBX_ALL (LEAF7_EBX_AVX2 | 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31)
#define LEAF7_ECX_ALL (1u << 11)
#define LEAF7_EDX_ALL (1u << 23)
#define LEAF7_1_EAX_ALL (1u << 4 | 1u << 5)

static const struct {
    const char *name;
    struct qkv_cpu_words words;
    uint64_t detected, withheld;
} machines[] = {
    {"every feature, every register saved",
     {32, LEAF1_ALL, 2, LEAF7_EBX_ALL, LEAF7_ECX_ALL, LEAF7_EDX_ALL, LEAF7_1_EAX_ALL, 0xe7},
     X86_FAMILY,
     0},
    {"the operating system knows AVX but not AVX-512",
     {32, LEAF1_ALL, 2, LEAF7_EBX_ALL, LEAF7_ECX_ALL, LEAF7_EDX_ALL, LEAF7_1_EAX_ALL, 0x07},
     X86_FAMILY,
     AVX512_FAMILY},
    {"the operating system has enabled XSAVE for SSE alone",
     {32, LEAF1_ALL, 2, LEAF7_EBX_ALL, LEAF7_ECX_ALL, LEAF7_EDX_ALL, LEAF7_1_EAX_ALL, 0x03},
     X86_FAMILY,
     X86_FAMILY},
    {"XSAVE is not enabled: whatever stands in xcr0 means nothing",
     {32, LEAF1_AVX, 2, LEAF7_EBX_ALL, LEAF7_ECX_ALL, LEAF7_EDX_ALL, LEAF7_1_EAX_ALL, 0xe7},
     X86_FAMILY,
     X86_FAMILY},
    {"the ZMM registers are saved but not the YMM ones",
     {32, LEAF1_ALL, 2, LEAF7_EBX_ALL, LEAF7_ECX_ALL, LEAF7_EDX_ALL, LEAF7_1_EAX_ALL, 0xe3},
     X86_FAMILY,
     X86_FAMILY},
    {"the YMM registers are saved without the XMM ones inside them",
     {32, LEAF1_ALL, 2, LEAF7_EBX_ALL, LEAF7_ECX_ALL, LEAF7_EDX_ALL, LEAF7_1_EAX_ALL, 0xe5},
     X86_FAMILY,
     X86_FAMILY},
    {"the mask registers are not saved",
     {32, LEAF1_ALL, 2, LEAF7_EBX_ALL, LEAF7_ECX_ALL, LEAF7_EDX_ALL, LEAF7_1_EAX_ALL, 0xc7},
     X86_FAMILY,
     AVX512_FAMILY},
    {"ZMM16 to ZMM31 are not saved",
     {32, LEAF1_ALL, 2, LEAF7_EBX_ALL, LEAF7_ECX_ALL, LEAF7_EDX_ALL, LEAF7_1_EAX_ALL, 0x67},
     X86_FAMILY,
     AVX512_FAMILY},
    {"AVX2 and no more", {13, LEAF1_ALL, 0, LEAF7_EBX_AVX2, 0, 0, 0, 0x07}, AVX2_ROOM, 0},
    {"AVX with F16C, before AVX2",
     {13, OSXSAVE | AVX | 1u << 29, 0, 0, 0, 0, 0, 0x07},
     BIT(F16C),
     0},
    {"no AVX at all", {11, 0, 0, 0, 0, 0, 0, 0}, 0, 0},
    {"a hypervisor clears the AVX bit and forgets the others",
     {32, LEAF1_ALL & ~AVX, 2, LEAF7_EBX_ALL, LEAF7_ECX_ALL, LEAF7_EDX_ALL, LEAF7_1_EAX_ALL, 0xe7},
     0,
     0},
    {"leaf 7 does not exist and answers as the last one does",
     {6, LEAF1_ALL, 2, LEAF7_EBX_ALL, LEAF7_ECX_ALL, LEAF7_EDX_ALL, LEAF7_1_EAX_ALL, 0xe7},
     BIT(FMA) | BIT(F16C),
     0},
    {"leaf 7 has no subleaf 1",
     {32, LEAF1_ALL, 0, LEAF7_EBX_ALL, LEAF7_ECX_ALL, LEAF7_EDX_ALL, LEAF7_1_EAX_ALL, 0xe7},
     X86_FAMILY & ~(BIT(AVXVNNI) | BIT(AVX512BF16)),
     0},
    {"a processor with no leaf 1", {0, LEAF1_ALL, 0, 0, 0, 0, 0, 0xe7}, 0, 0},
};

START_TEST(machines_are_read) {
    struct qkv_cpu_report report;

    qkv_cpu_decode(&report, &machines[_i].words);
    ck_assert_msg(report.detected == machines[_i].detected, "%s: detected %#llx, not %#llx",
                  machines[_i].name, (unsigned long long)report.detected,
                  (unsigned long long)machines[_i].detected);
    ck_assert_msg(report.withheld == machines[_i].withheld, "%s: withheld %#llx, not %#llx",
                  machines[_i].name, (unsigned long long)report.withheld,
                  (unsigned long long)machines[_i].withheld);
}
END_TEST

/* The bit of each feature, and no other, decides that feature. */
START_TEST(one_bit_decides_one_feature) {
    static const struct {
        int feature;
        struct qkv_cpu_words bit;
    } single[] = {
        {QKV_CPU_FMA, {.leaf1_ecx = 1u << 12}},
        {QKV_CPU_F16C, {.leaf1_ecx = 1u << 29}},
        {QKV_CPU_AVX2, {.leaf7_ebx = 1u << 5}},
        {QKV_CPU_AVX512F, {.leaf7_ebx = 1u << 16}},
        {QKV_CPU_AVX512DQ, {.leaf7_ebx = 1u << 17}},
        {QKV_CPU_AVX512BW, {.leaf7_ebx = 1u << 30}},
        {QKV_CPU_AVX512VL, {.leaf7_ebx = 1u << 31}},
        {QKV_CPU_AVX512VNNI, {.leaf7_ecx = 1u << 11}},
        {QKV_CPU_AVX512FP16, {.leaf7_edx = 1u << 23}},
        {QKV_CPU_AVXVNNI, {.leaf7_1_eax = 1u << 4}},
        {QKV_CPU_AVX512BF16, {.leaf7_1_eax = 1u << 5}},
    };
    uint64_t seen = 0;

    for (size_t i = 0; i < sizeof single / sizeof *single; i++) {
        struct qkv_cpu_words words = single[i].bit;
        struct qkv_cpu_report report;
        words.max_leaf = 7;
        words.max_subleaf7 = 1;
        words.leaf1_ecx |= OSXSAVE | AVX;
        words.xcr0 = 0xe7;
        qkv_cpu_decode(&report, &words);
        ck_assert_uint_eq(report.detected, QKV_CPU_BIT(single[i].feature));
        seen |= report.detected;
    }
    ck_assert_uint_eq(seen, X86_FAMILY);
}
END_TEST

START_TEST(this_machine_is_consistent) {
    const struct qkv_table *table = &qkv_context_get(NULL)->table;
    struct qkv_cpu_words words;
    struct qkv_cpu_report report;

    qkv_cpu_ask(&words);
    qkv_cpu_decode(&report, &words);
    ck_assert_uint_eq(report.detected, qkv_cpu_detected());
    ck_assert_uint_eq(report.withheld, qkv_cpu_withheld());
    qkv_cpu_ask_caches(&report);
    ck_assert_int_eq(report.last_cache, qkv_cpu_last_cache());
    ck_assert_int_eq(report.last_cache, table->last_cache);
    ck_assert_int_eq(report.second_cache, table->second_cache);
    ck_assert_int_eq(qkv_cpu_ask_follows(), table->follows);
    ck_assert_int_eq(qkv_cpu_ask_halves(), table->halves);
    ck_assert_uint_eq(report.withheld & ~report.detected, 0);
    ck_assert_int_eq((report.detected & BIT(AVX2)) != 0,
                     __builtin_cpu_supports("avx2") != 0 || (report.withheld & BIT(AVX2)) != 0);
}
END_TEST

/* CPUID's words for one cache. */
#define CACHE(type, level, ways, partitions, line, sets) \
    { (type) | (level) << 5, ((ways)-1u) << 22 | ((partitions)-1u) << 12 | ((line)-1u), (sets)-1u }

static const struct {
    const char *name;
    struct qkv_cpu_cache answers[5];
    int64_t second, last;
} caches[] = {
    {"32 MiB on the third level, whichever way it is divided",
     {CACHE(1, 1, 8, 1, 64, 64), CACHE(2, 1, 8, 1, 64, 64), CACHE(3, 2, 8, 1, 64, 2048),
      CACHE(3, 3, 16, 1, 64, 32768)},
     1 << 20,
     32 << 20},
    {"the first level is the last, and is told of after its instructions'",
     {CACHE(2, 1, 4, 1, 64, 256), CACHE(1, 1, 4, 2, 32, 128)},
     0,
     32 << 10},
    {"a third level of instructions alone is none",
     {CACHE(3, 2, 8, 1, 64, 1024), CACHE(2, 3, 16, 1, 64, 65536)},
     512 << 10,
     512 << 10},
    {"a second level of instructions is not it",
     {CACHE(1, 1, 8, 1, 64, 64), CACHE(2, 2, 8, 1, 64, 4096), CACHE(1, 2, 16, 1, 64, 2048)},
     2 << 20,
     2 << 20},
    {"more than four GiB", {CACHE(3, 4, 1024, 2, 64, 1 << 16)}, 0, (int64_t)8 << 30},
    {"no cache", {{0, 0, 0}, CACHE(3, 2, 16, 1, 64, 32768)}, 0, 0},
};

START_TEST(caches_are_read) {
    struct qkv_cpu_report report;

    qkv_cpu_decode_caches(&report, caches[_i].answers, 5);
    ck_assert_msg(report.second_cache == caches[_i].second && report.last_cache == caches[_i].last,
                  "%s: %lld and %lld, not %lld and %lld", caches[_i].name,
                  (long long)report.second_cache, (long long)report.last_cache,
                  (long long)caches[_i].second, (long long)caches[_i].last);
}
END_TEST

START_TEST(who_follows_a_stream) {
    ck_assert_int_eq(qkv_cpu_vendor_follows("AuthenticAMD"), 1);
    ck_assert_int_eq(qkv_cpu_vendor_follows("GenuineIntel"), 0);
    ck_assert_int_eq(qkv_cpu_vendor_follows("HygonGenuine"), 0);
}
END_TEST

/* What a Zen 4 says, a Zen 5 and a Zen 1; and whoever has no such leaf. */
START_TEST(who_has_half_vectors) {
    ck_assert_int_eq(qkv_cpu_word_halves(0x6), 1);
    ck_assert_int_eq(qkv_cpu_word_halves(0xa), 0);
    ck_assert_int_eq(qkv_cpu_word_halves(0xe), 0);
    ck_assert_int_eq(qkv_cpu_word_halves(0x3), 0);
    ck_assert_int_eq(qkv_cpu_word_halves(0), 0);
}
END_TEST

TCase *features_case(void) {
    TCase *test = tcase_create("features");

    tcase_set_timeout(test, PATIENCE);
    tcase_add_loop_test(test, machines_are_read, 0, sizeof machines / sizeof *machines);
    tcase_add_loop_test(test, caches_are_read, 0, sizeof caches / sizeof *caches);
    tcase_add_test(test, one_bit_decides_one_feature);
    tcase_add_test(test, this_machine_is_consistent);
    tcase_add_test(test, who_follows_a_stream);
    tcase_add_test(test, who_has_half_vectors);
    return test;
}
