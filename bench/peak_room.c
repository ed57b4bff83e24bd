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

/* Ways of reading all of data, eight vectors at a time, in as many streams as the name says, far
 * floats ahead of which lines are asked for (0: nothing is). Maxima wait for no number, and cost
 * the same whatever the bits are read as. */
#define LANE(j, streams) ((j) / (8 / (streams)) * part + (j) % (8 / (streams)) * (int64_t)VF_LANES)
#define TAKE(j, streams, far)                                                               \
    if (far)                                                                                \
        __builtin_prefetch((const void *)((uintptr_t)(at + LANE(j, streams)) + 4 * (far))); \
    m##j = vf_max(vf_load(at + LANE(j, streams)), m##j);

#define READ(name, streams, far)                                                              \
    static float name(const float *data, int64_t count) {                                     \
        const int64_t step = 8 / (streams) * (int64_t)VF_LANES;                               \
        const int64_t part = count / (streams);                                               \
        vf m0 = vf_set1(0.0f), m1 = m0, m2 = m0, m3 = m0, m4 = m0, m5 = m0, m6 = m0, m7 = m0; \
        for (int64_t i = 0; i + step <= part; i += step) {                                    \
            const float *at = data + i;                                                       \
            TAKE(0, streams, far)                                                             \
            TAKE(1, streams, far)                                                             \
            TAKE(2, streams, far)                                                             \
            TAKE(3, streams, far)                                                             \
            TAKE(4, streams, far)                                                             \
            TAKE(5, streams, far)                                                             \
            TAKE(6, streams, far)                                                             \
            TAKE(7, streams, far)                                                             \
        }                                                                                     \
        const vf first = vf_max(vf_max(m0, m1), vf_max(m2, m3));                              \
        return vf_hsum(vf_max(first, vf_max(vf_max(m4, m5), vf_max(m6, m7))));                \
    }

READ(read_one, 1, 0)
READ(read_one_ahead, 1, 1024)
READ(read_two, 2, 0)
READ(read_four, 4, 0)
READ(read_four_ahead, 4, 512)
READ(read_eight_ahead, 8, 512)

/* Reads all of data and writes it back: nothing but that in the loop, and no value that another one
 * waits for. */
static void update_all(float *data, int64_t count) {
    const vf zero = vf_set1(0.0f);
    for (int64_t i = 0; i + VF_LANES <= count; i += VF_LANES)
        vf_store(data + i, vf_sub(zero, vf_load(data + i)));
}

extern const struct peak_kernel ROOM(peak);
const struct peak_kernel ROOM(peak) = {
    2.0 * CHAINS_COUNT * (double)VF_LANES,
    run,
    {read_one, read_one_ahead, read_two, read_four, read_four_ahead, read_eight_ahead},
    update_all};
