/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers as a cache stores them (kernels_cache.h), to and from this room's vector. Loads are
 * exact; stores round to nearest, ties to even, and keep infinities and NaN.
 */
#ifndef QKV_SCALAR_STORED_H
#define QKV_SCALAR_STORED_H

#include "vec.h"

static inline uint32_t stored_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static inline float stored_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* binary16: a number below 2^-14 is an integer times 2^-24, which a float holds exactly. */
static inline vf vf_load_f16(const uint16_t *p) {
    const uint32_t h = *p, sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31,
                   fraction = h & 0x3ff;
    if (exponent == 0)
        return stored_float(sign | stored_bits((float)fraction * 0x1p-24f));
    if (exponent == 31)
        return stored_float(sign | 0x7f800000u | (fraction ? 0x00400000u : 0) | fraction << 13);
    return stored_float(sign | (exponent + 112) << 23 | fraction << 13);
}

/* Below 2^-14 an addition rounds to a multiple of 2^-24; above, the carry of the rounded bits may
 * run into the exponent, up to infinity. */
static inline void vf_store_f16(uint16_t *p, vf x) {
    const uint32_t bits = stored_bits(x), sign = bits >> 16 & 0x8000u, abs = bits & 0x7fffffffu;
    uint32_t h;
    if (abs > 0x7f800000u)
        h = 0x7e00u | (abs >> 13 & 0x3ffu);
    else if (abs >= 0x477ff000u)
        h = 0x7c00u;
    else if (abs < 0x38800000u)
        h = stored_bits(stored_float(abs) + 0.5f) - stored_bits(0.5f);
    else
        h = (abs - 0x38000000u + 0xfffu + (abs >> 13 & 1u)) >> 13;
    *p = (uint16_t)(sign | h);
}

/* Element i of a unit of two bfloat16, and of four int8. */
static inline vf vf_load_bf16(const uint32_t *p, int i) {
    return stored_float(i ? *p & 0xffff0000u : *p << 16);
}

static inline vf vf_load_i8(const uint32_t *p, int i) {
    return (float)(int8_t)(uint8_t)(*p >> 8 * i);
}

static inline uint32_t stored_bf16(float x) {
    const uint32_t bits = stored_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return bits >> 16 | 0x40u;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

/* Units of two numbers, and of four integral ones in [-127, 127]. */
static inline void vf_store_bf16(uint32_t *p, vf a, vf b) {
    *p = stored_bf16(a) | stored_bf16(b) << 16;
}

static inline uint32_t stored_byte(float x) {
    return (uint32_t)(int32_t)x & 0xffu;
}

static inline void vf_store_i8(uint32_t *p, vf a, vf b, vf c, vf d) {
    *p = stored_byte(a) | stored_byte(b) << 8 | stored_byte(c) << 16 | stored_byte(d) << 24;
}

#endif
