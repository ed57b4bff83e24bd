/* SPDX-License-Identifier: Apache-2.0 */
/* AArch64: features from the auxiliary vector. The kernel leaves out of it what it does not
 * support, so that nothing is ever withheld. The bits are Linux's ABI (arch/arm64/include/uapi/asm/
 * hwcap.h), written out because an older libc's header may not name them yet. */
#include "cpu.h"

#include <sys/auxv.h>

#define HWCAP_BIT_ASIMD ((uint64_t)1 << 1)
#define HWCAP_BIT_FPHP ((uint64_t)1 << 9)
#define HWCAP_BIT_ASIMDHP ((uint64_t)1 << 10)
#define HWCAP_BIT_ASIMDDP ((uint64_t)1 << 20)
#define HWCAP2_BIT_I8MM ((uint64_t)1 << 13)
#define HWCAP2_BIT_BF16 ((uint64_t)1 << 14)

static const struct {
    uint64_t hwcap, hwcap2; /* all of these */
    int feature;
} needs[] = {
    {HWCAP_BIT_ASIMD, 0, QKV_CPU_NEON},
    {HWCAP_BIT_ASIMD | HWCAP_BIT_FPHP | HWCAP_BIT_ASIMDHP, 0, QKV_CPU_FP16},
    {HWCAP_BIT_ASIMD | HWCAP_BIT_ASIMDDP, 0, QKV_CPU_DOTPROD},
    {HWCAP_BIT_ASIMD, HWCAP2_BIT_BF16, QKV_CPU_BF16},
    {HWCAP_BIT_ASIMD, HWCAP2_BIT_I8MM, QKV_CPU_I8MM},
};

void qkv_cpu_ask(struct qkv_cpu_words *words) {
    words->hwcap = getauxval(AT_HWCAP);
    words->hwcap2 = getauxval(AT_HWCAP2);
}

/* Which cache registers there are to read, only the kernel may read. */
void qkv_cpu_ask_caches(struct qkv_cpu_report *report) {
    report->second_cache = report->last_cache = 0;
}

int qkv_cpu_ask_follows(void) {
    return 0;
}

int qkv_cpu_ask_halves(void) {
    return 0;
}

void qkv_cpu_decode(struct qkv_cpu_report *report, const struct qkv_cpu_words *words) {
    report->detected = 0;
    report->withheld = 0;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        if ((words->hwcap & needs[i].hwcap) == needs[i].hwcap &&
            (words->hwcap2 & needs[i].hwcap2) == needs[i].hwcap2)
            report->detected |= QKV_CPU_BIT(needs[i].feature);
}
