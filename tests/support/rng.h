/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers for tests, from a seed or from a fuzzer's bytes, and values that depend on
 * their logical place alone, so that a tensor holds the same numbers in every layout. */
#ifndef QKV_TEST_RNG_H
#define QKV_TEST_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A source of decisions. From bytes, every decision eats as few of them as it needs, and when
 * they are used up every decision is 0, which is always the plainest choice. */
struct rng {
    uint64_t state;
    const uint8_t *bytes; /* NULL: seeded */
    size_t left;
};

struct rng rng_seeded(uint64_t seed);
struct rng rng_from_bytes(const void *bytes, size_t size);

/* 64 random bits. */
uint64_t rng_next(struct rng *rng);

/* 0 to n - 1; n is 1 or more. */
int64_t rng_below(struct rng *rng, int64_t n);

/* True once in n times. */
bool rng_chance(struct rng *rng, int n);

/* One of `count` numbers. */
int64_t rng_pick(struct rng *rng, const int64_t *from, int count);

/* One well-mixed word from two. */
uint64_t rng_hash(uint64_t a, uint64_t b);

/* A number with mean 0, variance 1 and absolute value below 3.5 from a hash: the sum of four
 * uniform ones. */
float rng_normal(uint64_t hash);

#endif
