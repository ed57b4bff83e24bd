/* SPDX-License-Identifier: Apache-2.0 */
/* The processor's features: read by cpu_x86.c or cpu_arm.c, narrowed by the environment in cpu.c.
 * What decides is pure, so that tests can ask about processors, operating systems and environments
 * that are not at hand. */
#ifndef QKV_CORE_CPU_H
#define QKV_CORE_CPU_H

#include <qkv/qkv.h>

#include "config.h"

#define QKV_CPU_BIT(feature) ((uint64_t)1 << (feature))

/* Bytes kept of the override names that mean nothing, with the final zero. */
#define QKV_CPU_UNKNOWN_MAX 256

/* The answer of the qkv_cpu_ functions: see qkv.h. */
struct qkv_cpu_report {
    uint64_t detected;
    uint64_t withheld;
    uint64_t removed;
    int64_t second_cache; /* bytes of the second-level cache, or 0 */
    int64_t last_cache;   /* and of the last level's */
    int follows; /* its own prefetchers bring a stream faster than lines asked for one by one */
    int halves;  /* vectors of 512 bits go through its units in two halves */
    char unknown[QKV_CPU_UNKNOWN_MAX];
};

static inline uint64_t qkv_cpu_report_usable(const struct qkv_cpu_report *report) {
    return report->detected & ~report->withheld & ~report->removed;
}

#if QKV_X86_64
/* What CPUID and XGETBV answer, as they answer it; zero for a leaf that is not there. */
struct qkv_cpu_words {
    uint32_t max_leaf;     /* leaf 0: eax */
    uint32_t leaf1_ecx;    /* leaf 1 */
    uint32_t max_subleaf7; /* leaf 7, subleaf 0: eax */
    uint32_t leaf7_ebx;
    uint32_t leaf7_ecx;
    uint32_t leaf7_edx;
    uint32_t leaf7_1_eax; /* leaf 7, subleaf 1 */
    uint64_t xcr0;        /* the registers that the operating system saves */
};
#else
/* The auxiliary vector's words: the kernel names only what programs may use. */
struct qkv_cpu_words {
    uint64_t hwcap;
    uint64_t hwcap2;
};
#endif

#if QKV_X86_64
/* What CPUID says of one cache, in leaf 4 or, of AMD's processors, 0x8000001D. */
struct qkv_cpu_cache {
    uint32_t eax, ebx, ecx;
};

/* Sets the bytes of the second and of the last level's data or unified cache, of `count` answers.
 * Pure. */
void qkv_cpu_decode_caches(struct qkv_cpu_report *report, const struct qkv_cpu_cache *answers,
                           int count);

/* Do the processors of a vendor (the twelve letters of leaf 0) follow a stream by themselves, as far
 * as is known? Pure. */
int qkv_cpu_vendor_follows(const char *vendor);

/* What AMD's processors say of the width of their units: eax of leaf 0x8000001A, 0 if there is no
 * such leaf. Do vectors of 512 bits go through in halves? Pure. */
int qkv_cpu_word_halves(uint32_t eax);
#endif

/* Asks the processor. */
void qkv_cpu_ask(struct qkv_cpu_words *words);

/* Asks it for its caches: sets second_cache and last_cache, to 0 if it does not tell. */
void qkv_cpu_ask_caches(struct qkv_cpu_report *report);

/* Does it follow a stream by itself? 0 if that is not known. */
int qkv_cpu_ask_follows(void);

/* Do vectors of 512 bits go through its units in two halves? 0 if that is not known. */
int qkv_cpu_ask_halves(void);

/* What the words say: sets detected and withheld. Pure. */
void qkv_cpu_decode(struct qkv_cpu_report *report, const struct qkv_cpu_words *words);

/* The features whose room is `isa`, and of the rooms up to and including it. Pure. */
uint64_t qkv_cpu_features_of(int isa);
uint64_t qkv_cpu_features_up_to(int isa);

/* What the values of QKV_CPU_MAX and QKV_CPU_DISABLE (NULL: not set) take away: sets removed and
 * unknown. Pure. */
void qkv_cpu_override(struct qkv_cpu_report *report, const char *max, const char *disable);

/* All of that, with the real processor and environment. */
void qkv_cpu_read(struct qkv_cpu_report *report);

#endif
