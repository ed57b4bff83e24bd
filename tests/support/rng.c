/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers for tests: splitmix64 (Steele, Lea and Flood 2014), or a fuzzer's bytes. */
#include "rng.h"

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

struct rng rng_seeded(uint64_t seed) {
    return (struct rng){.state = seed};
}

struct rng rng_from_bytes(const void *bytes, size_t size) {
    static const uint8_t none;
    return (struct rng){.bytes = size ? bytes : &none, .left = size};
}

static uint64_t take_bytes(struct rng *rng, int count) {
    uint64_t word = 0;
    for (int i = 0; i < count; i++) {
        if (rng->left == 0)
            return 0;
        word = word << 8 | *rng->bytes++;
        rng->left--;
    }
    return word;
}

static uint64_t draw(struct rng *rng, int bytes) {
    if (rng->bytes)
        return take_bytes(rng, bytes);
    rng->state += 0x9e3779b97f4a7c15U;
    return mix(rng->state);
}

uint64_t rng_next(struct rng *rng) {
    return draw(rng, 8);
}

int64_t rng_below(struct rng *rng, int64_t n) {
    int bytes = n <= 0x100 ? 1 : n <= 0x10000 ? 2 : 8;
    return (int64_t)(draw(rng, bytes) % (uint64_t)n);
}

bool rng_chance(struct rng *rng, int n) {
    return rng_below(rng, n) == n - 1;
}

int64_t rng_pick(struct rng *rng, const int64_t *from, int count) {
    return from[rng_below(rng, count)];
}

uint64_t rng_hash(uint64_t a, uint64_t b) {
    return mix(mix(a + 0x9e3779b97f4a7c15U) ^ (b + 0x632be59bd9b4e019U));
}

float rng_normal(uint64_t hash) {
    double sum = -2.0;
    for (int i = 0; i < 4; i++)
        sum += ((double)(hash >> (16 * i) & 0xffff) + 0.5) / 65536.0;
    return (float)(sum * 1.7320508075688772); /* four twelfths of variance, to 1 */
}
