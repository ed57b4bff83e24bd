/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A room's FMA peak: independent chains of the room's own fused multiply-add (vec.h) that stay in
 * registers; and its ways of reading memory and of writing it back. Compiled once per room with the
 * room's flags, so that a new room has its peak without a line here.
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

/* Reads all of data, eight vectors at a time: sums that do not wait for each other. */
static float read_all(const float *data, int64_t count) {
    const int64_t step = 8 * (int64_t)VF_LANES;
    vf s0 = vf_set1(0.0f), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    for (int64_t i = 0; i + step <= count; i += step) {
        s0 = vf_add(s0, vf_load(data + i));
        s1 = vf_add(s1, vf_load(data + i + VF_LANES));
        s2 = vf_add(s2, vf_load(data + i + 2 * VF_LANES));
        s3 = vf_add(s3, vf_load(data + i + 3 * VF_LANES));
        s4 = vf_add(s4, vf_load(data + i + 4 * VF_LANES));
        s5 = vf_add(s5, vf_load(data + i + 5 * VF_LANES));
        s6 = vf_add(s6, vf_load(data + i + 6 * VF_LANES));
        s7 = vf_add(s7, vf_load(data + i + 7 * VF_LANES));
    }
    const vf first = vf_add(vf_add(s0, s1), vf_add(s2, s3));
    return vf_hsum(vf_add(first, vf_add(vf_add(s4, s5), vf_add(s6, s7))));
}

/* Reads all of data and writes it back: nothing but that in the loop, and no value that another one
 * waits for. */
static void update_all(float *data, int64_t count) {
    const vf zero = vf_set1(0.0f);
    for (int64_t i = 0; i + VF_LANES <= count; i += VF_LANES)
        vf_store(data + i, vf_sub(zero, vf_load(data + i)));
}

extern const struct peak_kernel ROOM(peak);
const struct peak_kernel ROOM(peak) = {2.0 * CHAINS_COUNT * (double)VF_LANES, run, read_all,
                                       update_all};
