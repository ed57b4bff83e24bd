/* SPDX-License-Identifier: Apache-2.0 */
/* x86-64: features from CPUID, and from XGETBV whether the operating system saves the registers
 * that they use. A processor's word alone is not enough: under a kernel or hypervisor that does not
 * save them, the first AVX instruction is a SIGILL. The tables follow Intel's Software Developer's
 * Manual, volume 1, 14.3 and 15.2 to 15.4, and volume 2, CPUID. */
#include "cpu.h"

#include <cpuid.h>
#include <string.h>

#define LEAF1_ECX_OSXSAVE (1u << 27)
#define LEAF1_ECX_AVX (1u << 28)

/* XCR0: SSE and AVX state; with it, the mask registers and both halves of the ZMM registers. */
#define XCR0_AVX 0x06u
#define XCR0_AVX512 0xe6u

enum word { LEAF1_ECX, LEAF7_EBX, LEAF7_ECX, LEAF7_EDX, LEAF7_1_EAX, WORDS };

static const struct {
    unsigned char feature, word, bit;
} places[] = {
    {QKV_CPU_AVX2, LEAF7_EBX, 5},        {QKV_CPU_FMA, LEAF1_ECX, 12},
    {QKV_CPU_F16C, LEAF1_ECX, 29},       {QKV_CPU_AVXVNNI, LEAF7_1_EAX, 4},
    {QKV_CPU_AVX512F, LEAF7_EBX, 16},    {QKV_CPU_AVX512BW, LEAF7_EBX, 30},
    {QKV_CPU_AVX512DQ, LEAF7_EBX, 17},   {QKV_CPU_AVX512VL, LEAF7_EBX, 31},
    {QKV_CPU_AVX512VNNI, LEAF7_ECX, 11}, {QKV_CPU_AVX512BF16, LEAF7_1_EAX, 5},
    {QKV_CPU_AVX512FP16, LEAF7_EDX, 23},
};

/* Inline assembly: the intrinsic would need this file compiled with -mxsave. */
static uint64_t read_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

void qkv_cpu_ask(struct qkv_cpu_words *words) {
    uint32_t eax, ebx, ecx, edx;

    *words = (struct qkv_cpu_words){0};
    __cpuid(0, words->max_leaf, ebx, ecx, edx);
    if (words->max_leaf >= 1) {
        __cpuid(1, eax, ebx, words->leaf1_ecx, edx);
        if (words->leaf1_ecx & LEAF1_ECX_OSXSAVE)
            words->xcr0 = read_xcr0();
    }
    if (words->max_leaf >= 7) {
        __cpuid_count(7, 0, words->max_subleaf7, words->leaf7_ebx, words->leaf7_ecx,
                      words->leaf7_edx);
        if (words->max_subleaf7 >= 1)
            __cpuid_count(7, 1, words->leaf7_1_eax, ebx, ecx, edx);
    }
}

enum { CACHES = 8, NO_CACHE = 0, INSTRUCTIONS = 2, SECOND_LEVEL = 2 };

/* Ways, partitions, line and sets. */
static int64_t cache_bytes(const struct qkv_cpu_cache *a) {
    return ((int64_t)(a->ebx >> 22) + 1) * ((a->ebx >> 12 & 1023) + 1) * ((a->ebx & 4095) + 1) *
           ((int64_t)a->ecx + 1);
}

void qkv_cpu_decode_caches(struct qkv_cpu_report *report, const struct qkv_cpu_cache *answers,
                           int count) {
    uint32_t last = 0;

    report->second_cache = report->last_cache = 0;
    for (int i = 0; i < count; i++) {
        const uint32_t type = answers[i].eax & 31, level = answers[i].eax >> 5 & 7;
        if (type == NO_CACHE)
            break;
        if (type == INSTRUCTIONS)
            continue;
        if (level == SECOND_LEVEL)
            report->second_cache = cache_bytes(answers + i);
        if (level < last)
            continue;
        last = level;
        report->last_cache = cache_bytes(answers + i);
    }
}

#define LEAF_AMD_FEATURES 0x80000001u
#define LEAF_AMD_CACHES 0x8000001du
#define LEAF_CACHES 4u
#define AMD_ECX_TOPOLOGY (1u << 22) /* LEAF_AMD_CACHES exists */

/* The leaf that tells of caches, 0 for none. */
static uint32_t cache_leaf(void) {
    uint32_t eax, ebx, ecx, edx;

    if (__get_cpuid(LEAF_AMD_FEATURES, &eax, &ebx, &ecx, &edx) && ecx & AMD_ECX_TOPOLOGY)
        return LEAF_AMD_CACHES;
    return (uint32_t)__get_cpuid_max(0, NULL) >= LEAF_CACHES ? LEAF_CACHES : 0;
}

void qkv_cpu_ask_caches(struct qkv_cpu_report *report) {
    struct qkv_cpu_cache answers[CACHES];
    const uint32_t leaf = cache_leaf(), count = leaf ? CACHES : 0;
    uint32_t edx;

    for (uint32_t i = 0; i < count; i++)
        __cpuid_count(leaf, i, answers[i].eax, answers[i].ebx, answers[i].ecx, edx);
    (void)edx;
    qkv_cpu_decode_caches(report, answers, (int)count);
}

enum { VENDOR = 12 };

int qkv_cpu_vendor_follows(const char *vendor) {
    return memcmp(vendor, "AuthenticAMD", VENDOR) == 0;
}

int qkv_cpu_ask_follows(void) {
    uint32_t most, words[3];

    __cpuid(0, most, words[0], words[2], words[1]);
    (void)most;
    return qkv_cpu_vendor_follows((const char *)words);
}

/* AMD's Architecture Programmer's Manual, volume 3, appendix E: FP256 and FP512. */
#define LEAF_AMD_UNITS 0x8000001au
#define UNITS_256 (1u << 2)
#define UNITS_512 (1u << 3)

int qkv_cpu_word_halves(uint32_t eax) {
    return (eax & (UNITS_256 | UNITS_512)) == UNITS_256;
}

int qkv_cpu_ask_halves(void) {
    uint32_t eax, ebx, ecx, edx;

    return __get_cpuid(LEAF_AMD_UNITS, &eax, &ebx, &ecx, &edx) && qkv_cpu_word_halves(eax);
}

/* Some processors answer a leaf beyond their last with the last one's words: only leaves that
 * exist count. */
static void valid_words(uint32_t valid[WORDS], const struct qkv_cpu_words *words) {
    int leaf7 = words->max_leaf >= 7;
    int leaf7_1 = leaf7 && words->max_subleaf7 >= 1;

    valid[LEAF1_ECX] = words->max_leaf >= 1 ? words->leaf1_ecx : 0;
    valid[LEAF7_EBX] = leaf7 ? words->leaf7_ebx : 0;
    valid[LEAF7_ECX] = leaf7 ? words->leaf7_ecx : 0;
    valid[LEAF7_EDX] = leaf7 ? words->leaf7_edx : 0;
    valid[LEAF7_1_EAX] = leaf7_1 ? words->leaf7_1_eax : 0;
}

static uint64_t saved_features(uint32_t leaf1_ecx, uint64_t xcr0) {
    uint64_t saved = 0;

    if ((leaf1_ecx & LEAF1_ECX_OSXSAVE) == 0)
        return 0; /* XGETBV does not exist, so xcr0 means nothing */
    if ((xcr0 & XCR0_AVX) == XCR0_AVX)
        saved |= qkv_cpu_features_of(QKV_ISA_AVX2);
    if ((xcr0 & XCR0_AVX512) == XCR0_AVX512)
        saved |= qkv_cpu_features_of(QKV_ISA_AVX512);
    return saved;
}

void qkv_cpu_decode(struct qkv_cpu_report *report, const struct qkv_cpu_words *words) {
    uint32_t valid[WORDS];

    valid_words(valid, words);
    report->detected = 0;
    /* Everything here is encoded with a VEX or EVEX prefix, which is what the AVX bit is about;
     * hypervisors have been seen to clear it alone. */
    if (valid[LEAF1_ECX] & LEAF1_ECX_AVX)
        for (size_t i = 0; i < sizeof places / sizeof *places; i++)
            if (valid[places[i].word] >> places[i].bit & 1)
                report->detected |= QKV_CPU_BIT(places[i].feature);
    report->withheld = report->detected & ~saved_features(valid[LEAF1_ECX], words->xcr0);
}
