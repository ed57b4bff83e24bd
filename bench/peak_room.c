/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A room's FMA peak: independent chains of the room's own fused multiply-add (vec.h) that stay in
 * registers. Compiled once per room with the room's flags, so that a new room has its peak
 * without a line here.
 *
 * The chains must outnumber latency x ports of every core in sight (5 x 2 for x86-64's fused
 * ones, 6 x 2 for Zen 5's pairs, 4 x 4 on the widest Arm cores) and leave registers for the two
 * constants: 24 where the instruction set has 32 vector registers, 14 where it has 16.
 *
 * The scalar room multiplies and adds separately (see its vec.h), and its peak is that of such
 * pairs. There the chain runs through the product, which the compiler would otherwise compute
 * once; in the other rooms it runs through the addend, as it does in the kernels.
 */
#include "vec.h"

#include "peak.h"

/* clang-format off */
#define FOURTEEN(DO) \
    DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13)
#define TEN_MORE(DO) \
    DO(14) DO(15) DO(16) DO(17) DO(18) DO(19) DO(20) DO(21) DO(22) DO(23)

#if defined(__x86_64__) && !defined(__AVX512F__)
#define CHAINS(DO) FOURTEEN(DO)
enum { CHAINS_COUNT = 14 };
#else
#define CHAINS(DO) FOURTEEN(DO) TEN_MORE(DO)
enum { CHAINS_COUNT = 24 };
#endif
/* clang-format on */

#if VF_LANES == 1
#define FMA(c) vf_fma(c, a, b)
#else
#define FMA(c) vf_fma(a, b, c)
#endif

#define START(i) vf c##i = vf_set1((float)(i) + constant[0]);
#define STEP(i) c##i = FMA(c##i);
#define JOIN(i) sum = vf_add(sum, c##i);

/* Read at run time, so that nothing can be computed ahead. Every value stays a normal number. */
static volatile float constant[2] = {0.999f, 0.001f};

static float run(int64_t rounds) {
    const vf a = vf_set1(constant[0]);
    const vf b = vf_set1(constant[1]);
    CHAINS(START)
    for (int64_t i = 0; i < rounds; i++) {
        CHAINS(STEP)
    }
    vf sum = vf_set1(0.0f);
    CHAINS(JOIN)
    return vf_hsum(sum);
}

extern const struct peak_kernel ROOM(peak);
const struct peak_kernel ROOM(peak) = {2.0 * CHAINS_COUNT * (double)VF_LANES, run};
