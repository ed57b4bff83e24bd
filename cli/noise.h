/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers for the training run: a stream is named by a seed and two numbers (which stream,
 * and which member of it), so that step 700 draws the same whether the steps before it ran in this
 * process or in another. Integer arithmetic and exact conversions alone: the same on every machine.
 */
#ifndef QKV_CLI_NOISE_H
#define QKV_CLI_NOISE_H

#include <stdint.h>

struct noise {
    uint64_t state;
};

struct noise noise_open(uint64_t seed, uint64_t stream, uint64_t member);

/* 64 random bits; SplitMix64 (Steele, Lea and Flood 2014). */
uint64_t noise_bits(struct noise *noise);

/* From 0 to count - 1; count at most 2^31. */
int64_t noise_below(struct noise *noise, int64_t count);

/* Evenly from a range around 0, with this standard deviation. */
void noise_fill(struct noise *noise, float *out, int64_t count, float deviation);

/* The first `wanted` of the numbers 0 to count - 1 in random order; out has room for count. */
void noise_choose(struct noise *noise, int32_t *out, int32_t count, int32_t wanted);

#endif
