/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers by seed, stream and member. See noise.h. */
#include "noise.h"

/* sqrt(3): what is spread evenly over [-a, a] has the deviation a / sqrt(3). */
#define SPREAD 1.7320508f

uint64_t noise_bits(struct noise *noise) {
    uint64_t z = noise->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

struct noise noise_open(uint64_t seed, uint64_t stream, uint64_t member) {
    struct noise noise = {seed};
    noise.state = noise_bits(&noise) ^ stream;
    noise.state = noise_bits(&noise) ^ member;
    noise.state = noise_bits(&noise);
    return noise;
}

int64_t noise_below(struct noise *noise, int64_t count) {
    return (int64_t)((noise_bits(noise) >> 32) * (uint64_t)count >> 32);
}

void noise_fill(struct noise *noise, float *out, int64_t count, float deviation) {
    for (int64_t i = 0; i < count; i++) {
        int64_t centred = (int64_t)(noise_bits(noise) >> 40) - (1 << 23);
        out[i] = (float)centred / (1 << 23) * (SPREAD * deviation);
    }
}

void noise_choose(struct noise *noise, int32_t *out, int32_t count, int32_t wanted) {
    for (int32_t i = 0; i < count; i++) {
        out[i] = i;
    }
    for (int32_t i = 0; i < wanted; i++) {
        int32_t other = i + (int32_t)noise_below(noise, count - i), kept = out[i];
        out[i] = out[other];
        out[other] = kept;
    }
}
