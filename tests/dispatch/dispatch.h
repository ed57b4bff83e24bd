/* SPDX-License-Identifier: Apache-2.0 */
/* What the dispatch suites share: feature sets written short, and the suites themselves. */
#ifndef QKV_TESTS_DISPATCH_H
#define QKV_TESTS_DISPATCH_H

#include <check.h>

#include "cpu.h"

#define BIT(feature) QKV_CPU_BIT(QKV_CPU_##feature)

/* The features of each room, written out again: the library derives them from tables, and a test
 * that used the same tables would agree with any mistake in them. */
#define AVX2_ROOM (BIT(AVX2) | BIT(FMA) | BIT(F16C))
#define AVX2_FAMILY (AVX2_ROOM | BIT(AVXVNNI))
#define AVX512_ROOM (AVX2_ROOM | BIT(AVX512F) | BIT(AVX512BW) | BIT(AVX512DQ) | BIT(AVX512VL))
#define AVX512_FAMILY                                                                 \
    (BIT(AVX512F) | BIT(AVX512BW) | BIT(AVX512DQ) | BIT(AVX512VL) | BIT(AVX512VNNI) | \
     BIT(AVX512BF16) | BIT(AVX512FP16))
#define NEON_ROOM BIT(NEON)
#define NEON_FAMILY (BIT(NEON) | BIT(FP16) | BIT(DOTPROD) | BIT(BF16) | BIT(I8MM))
#define X86_FAMILY (AVX2_FAMILY | AVX512_FAMILY)

/* The most that a processor of this build's architecture can have. */
#if QKV_X86_64
#define EVERY_FEATURE X86_FAMILY
#else
#define EVERY_FEATURE NEON_FAMILY
#endif

/* Seconds: a test takes milliseconds, but not under an emulator. */
enum { PATIENCE = 60 };

TCase *features_case(void);
TCase *override_case(void);
TCase *bind_case(void);
TCase *context_case(void);

#endif
