/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers as a cache stores them (kernels_cache.h), to and from this room's vector. Loads are
 * exact; stores round to nearest, ties to even, and keep infinities and NaN.
 */
#ifndef QKV_NEON_STORED_H
#define QKV_NEON_STORED_H

#include "vec.h"

static inline vf vf_load_f16(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static inline void vf_store_f16(uint16_t *p, vf x) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x)));
}

/* Element i of units of two bfloat16, and of four int8. */
static inline vf vf_load_bf16(const uint32_t *p, int i) {
    const uint32x4_t x = vld1q_u32(p);
    return vreinterpretq_f32_u32(i ? vandq_u32(x, vdupq_n_u32(0xffff0000u)) : vshlq_n_u32(x, 16));
}

static inline vf vf_load_i8(const uint32_t *p, int i) {
    const uint32x4_t top = vshlq_u32(vld1q_u32(p), vdupq_n_s32(24 - 8 * i));
    return vcvtq_f32_s32(vshrq_n_s32(vreinterpretq_s32_u32(top), 24));
}

/* The rounded number in the upper halves of the lanes; the lower halves are anything. */
static inline uint32x4_t stored_bf16(vf x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t half = vaddq_u32(odd, vdupq_n_u32(0x7fff));
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x00400000));
    return vbslq_u32(vceqq_f32(x, x), vaddq_u32(bits, half), quiet);
}

/* Units of two numbers, and of four integral ones in [-127, 127]. */
static inline void vf_store_bf16(uint32_t *p, vf a, vf b) {
    const uint32x4_t low = vshrq_n_u32(stored_bf16(a), 16);
    vst1q_u32(p, vbslq_u32(vdupq_n_u32(0xffff), low, stored_bf16(b)));
}

static inline uint32x4_t stored_i8(vf x, int i) {
    const uint32x4_t byte = vandq_u32(vreinterpretq_u32_s32(vcvtq_s32_f32(x)), vdupq_n_u32(0xff));
    return vshlq_u32(byte, vdupq_n_s32(8 * i));
}

static inline void vf_store_i8(uint32_t *p, vf a, vf b, vf c, vf d) {
    vst1q_u32(p, vorrq_u32(vorrq_u32(stored_i8(a, 0), stored_i8(b, 1)),
                           vorrq_u32(stored_i8(c, 2), stored_i8(d, 3))));
}

/* Sixteen floats, times a factor, to the nearest integers: bytes, signed or not, which they fit. In
 * place, so the stores must be seen to reach floats. */
static inline void vf_pack_i8(unsigned char *p, const float *x, vf factor) {
    const int32x4_t a = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x), factor));
    const int32x4_t b = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + 4), factor));
    const int32x4_t c = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + 8), factor));
    const int32x4_t d = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + 12), factor));
    const int16x8_t low = vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
    const int16x8_t high = vuzp1q_s16(vreinterpretq_s16_s32(c), vreinterpretq_s16_s32(d));
    const int8x16_t bytes = vuzp1q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high));
    memcpy(p, &bytes, sizeof bytes);
}

/* Eight floats to bfloat16: in the variant that has it, by the conversion that rounds the same way.
 */
static inline uint16x8_t eight_bf16(const float *x) {
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    const bfloat16x8_t low = vcvtq_low_bf16_f32(vld1q_f32(x));
    return vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(low, vld1q_f32(x + 4)));
#else
    return vuzp2q_u16(vreinterpretq_u16_u32(stored_bf16(vld1q_f32(x))),
                      vreinterpretq_u16_u32(stored_bf16(vld1q_f32(x + 4))));
#endif
}

/* Sixteen floats to bfloat16. */
static inline void vf_pack_bf16(unsigned char *p, const float *x) {
    const uint16x8_t low = eight_bf16(x), high = eight_bf16(x + 8);
    memcpy(p, &low, sizeof low);
    memcpy(p + sizeof low, &high, sizeof high);
}

/* Sixteen floats, times a factor, to float16. */
static inline void vf_pack_f16(unsigned char *p, const float *x, vf factor) {
    for (int i = 0; i < 16; i += 8) {
        const float16x4_t low = vcvt_f16_f32(vmulq_f32(vld1q_f32(x + i), factor));
        const float16x8_t half = vcvt_high_f16_f32(low, vmulq_f32(vld1q_f32(x + i + 4), factor));
        memcpy(p + 2 * i, &half, sizeof half);
    }
}

#endif
