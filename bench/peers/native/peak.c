/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FMA peak of the core that runs this, in GFLOP/s: chains of fused multiply-adds that stay in
 * registers, enough of them to hide the latency. Sampled beside every measurement. Compiled with
 * -march=native -ffp-contract=fast, so that the product and sum below are one instruction.
 */
#include <time.h>

#include "native.h"

#define EACH_OF_12(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

#define START(i) c##i = c##i + (float)(i);
#define STEP(i) c##i = c##i * a + b;
#define JOIN(i) c0 += c##i;
#define DECLARE(i) , c##i = a

/* 12 chains suit 16 vector registers, and cover a latency of 4 on two ports with room to spare. */
#define DEFINE_CHAINS(name, bytes)                                   \
    typedef float name##_vector __attribute__((vector_size(bytes))); \
    static float name(long rounds, float factor, float addend) {     \
        name##_vector a = (name##_vector){0} + factor;               \
        name##_vector b = (name##_vector){0} + addend;               \
        name##_vector zero = {0} EACH_OF_12(DECLARE);                \
        EACH_OF_12(START)                                            \
        for (long i = 0; i < rounds; i++) {                          \
            EACH_OF_12(STEP)                                         \
        }                                                            \
        EACH_OF_12(JOIN)                                             \
        c0 += zero;                                                  \
        return c0[0];                                                \
    }

DEFINE_CHAINS(chains_16, 16)
DEFINE_CHAINS(chains_32, 32)
DEFINE_CHAINS(chains_64, 64)

enum { ROUNDS = 20000, RUNS = 3, CHAINS = 12 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double native_peak(int vector_bytes) {
    static volatile float sink;
    static volatile float constants[2] = {0.999f, 0.001f};
    float (*chains)(long, float, float) = vector_bytes == 64   ? chains_64
                                          : vector_bytes == 32 ? chains_32
                                                               : chains_16;
    double best = 1e30;
    for (int i = 0; i < RUNS; i++) {
        double start = now();
        sink = chains(ROUNDS, constants[0], constants[1]);
        double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    (void)sink;
    return 2.0 * CHAINS * (vector_bytes / 4) * (double)ROUNDS / best * 1e-9;
}

int native_vector_bytes(void) {
#if defined(__AVX512F__)
    return 64;
#elif defined(__AVX2__)
    return 32;
#else
    return 16;
#endif
}

void native_nothing(void *argument) {
    (void)argument;
}
