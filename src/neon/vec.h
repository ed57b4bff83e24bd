/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NEON room's vector: four floats in a Q register, masks as all-ones lanes.
 */
#ifndef QKV_NEON_VEC_H
#define QKV_NEON_VEC_H

#if !defined(__aarch64__) || !defined(__ARM_NEON)
#error "the NEON room needs AArch64 with Advanced SIMD"
#endif

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define ROOM_NAME "neon"
#define ROOM(name) qkv_neon_##name

typedef float32x4_t vf;
typedef uint32x4_t vm; /* a mask: all-ones lanes */
typedef float64x2_t vd;

#define VF_LANES 4

static inline vf vf_load(const float *p) {
    return vld1q_f32(p);
}

static inline void vf_store(float *p, vf x) {
    vst1q_f32(p, x);
}

/* The first n < VF_LANES lanes; the others are 0, and their memory is not touched. */
static inline vf vf_load_part(const float *p, int n) {
    vf x = vdupq_n_f32(0.0f);
    if (n > 0)
        x = vld1q_lane_f32(p, x, 0);
    if (n > 1)
        x = vld1q_lane_f32(p + 1, x, 1);
    if (n > 2)
        x = vld1q_lane_f32(p + 2, x, 2);
    return x;
}

static inline void vf_store_part(float *p, vf x, int n) {
    if (n > 0)
        vst1q_lane_f32(p, x, 0);
    if (n > 1)
        vst1q_lane_f32(p + 1, x, 1);
    if (n > 2)
        vst1q_lane_f32(p + 2, x, 2);
}

/* Neighbours: 2 VF_LANES numbers apart into the even and the odd ones, and together again. */
static inline vf vf_load_pairs(const float *p, vf *odd) {
    const float32x4x2_t x = vld2q_f32(p);
    *odd = x.val[1];
    return x.val[0];
}

static inline void vf_store_pairs(float *p, vf even, vf odd) {
    const float32x4x2_t x = {{even, odd}};
    vst2q_f32(p, x);
}

static inline vf vf_set1(float x) {
    return vdupq_n_f32(x);
}

/* 0, 1, 2, ... */
static inline vf vf_iota(void) {
    static const float ramp[4] = {0, 1, 2, 3};
    return vld1q_f32(ramp);
}

static inline vf vf_add(vf a, vf b) {
    return vaddq_f32(a, b);
}

static inline vf vf_sub(vf a, vf b) {
    return vsubq_f32(a, b);
}

static inline vf vf_mul(vf a, vf b) {
    return vmulq_f32(a, b);
}

static inline vf vf_div(vf a, vf b) {
    return vdivq_f32(a, b);
}

static inline vf vf_sqrt(vf x) {
    return vsqrtq_f32(x);
}

static inline vf vf_fma(vf a, vf b, vf c) {
    return vfmaq_f32(c, a, b);
}

/* The larger; acc where x is NaN. */
static inline vf vf_max(vf x, vf acc) {
    return vmaxnmq_f32(x, acc);
}

static inline vf vf_abs(vf x) {
    return vabsq_f32(x);
}

static inline vm vm_eq(vf a, vf b) {
    return vceqq_f32(a, b);
}

static inline vm vm_lt(vf a, vf b) {
    return vcltq_f32(a, b);
}

static inline vm vec_bool(uint32_t bytes) {
    uint16x8_t x = vmovl_u8(vcreate_u8(bytes));
    uint32x4_t y = vmovl_u16(vget_low_u16(x));
    return vtstq_u32(y, y);
}

/* Lanes whose byte is not zero; the first n lanes only. */
static inline vm vm_load_bool(const uint8_t *p) {
    uint32_t bytes;
    memcpy(&bytes, p, sizeof(bytes));
    return vec_bool(bytes);
}

static inline vm vm_load_bool_part(const uint8_t *p, int n) {
    uint32_t bytes = 0;
    for (int i = 0; i < n; i++)
        bytes |= (uint32_t)p[i] << (8 * i);
    return vec_bool(bytes);
}

static inline int vm_any(vm m) {
    return vmaxvq_u32(m) != 0;
}

static inline vf vf_select(vm m, vf yes, vf no) {
    return vbslq_f32(m, yes, no);
}

/* The tree: lane i with i + 2, then i + 1. */
static inline float vf_hsum(vf x) {
    float32x2_t y = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return vget_lane_f32(y, 0) + vget_lane_f32(y, 1);
}

static inline float vf_hmax(vf x) {
    return vmaxnmvq_f32(x);
}

/* In double precision: x's halves (lane i and lane i + VF_LANES / 2) added, and their squares,
 * which are exact before they are added. */
static inline vd vd_fold(vf x) {
    return vaddq_f64(vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x));
}

static inline vd vd_fold_squares(vf x) {
    float64x2_t low = vcvt_f64_f32(vget_low_f32(x)), high = vcvt_high_f64_f32(x);
    return vfmaq_f64(vmulq_f64(low, low), high, high);
}

static inline vd vd_zero(void) {
    return vdupq_n_f64(0.0);
}

static inline vd vd_add(vd a, vd b) {
    return vaddq_f64(a, b);
}

static inline double vd_hsum(vd x) {
    return vgetq_lane_f64(x, 0) + vgetq_lane_f64(x, 1);
}

/* The sums, or the largest, of four vectors in memory, each by the same tree: neighbours, then
 * these. Vector r's stands in lane r. */
static inline vf vf_hsum_rows(const float *rows) {
    return vpaddq_f32(vpaddq_f32(vf_load(rows), vf_load(rows + 4)),
                      vpaddq_f32(vf_load(rows + 8), vf_load(rows + 12)));
}

static inline vf vf_hmax_rows(const float *rows) {
    return vpmaxnmq_f32(vpmaxnmq_f32(vf_load(rows), vf_load(rows + 4)),
                        vpmaxnmq_f32(vf_load(rows + 8), vf_load(rows + 12)));
}

/* The same of one vector, in lane 0; the other lanes may hold anything. */
static inline vf vf_hsum_row(vf x) {
    x = vpaddq_f32(x, x);
    return vpaddq_f32(x, x);
}

static inline vf vf_hmax_row(vf x) {
    x = vpmaxnmq_f32(x, x);
    return vpmaxnmq_f32(x, x);
}

/* For the polynomials of a build without SLEEF: the nearest integer, 2^x for an integral x in
 * [-126, 127], and x = m * 2^e with m in [0.5, 1) for a normal positive x. */
static inline vf vf_round(vf x) {
    return vrndnq_f32(x);
}

static inline vf vf_pow2(vf x) {
    int32x4_t e = vaddq_s32(vcvtq_s32_f32(x), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(e, 23));
}

static inline vf vf_mantissa(vf x) {
    uint32x4_t m = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x007fffff));
    return vreinterpretq_f32_u32(vorrq_u32(m, vdupq_n_u32(0x3f000000)));
}

static inline vf vf_exponent(vf x) {
    uint32x4_t e = vshrq_n_u32(vreinterpretq_u32_f32(x), 23);
    return vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(e), vdupq_n_s32(126)));
}

/* 2^x = p(r) 2^n for the inlined polynomials: x taken apart, and put together again. 0 below 2^-126
 * and for -inf, where r is of no use. x < 128. */
static inline vf vf_exp2_split(vf x, vf *n) {
    *n = vrndnq_f32(x);
    return vsubq_f32(x, *n);
}

static inline vf vf_exp2_join(vf p, vf n, vf x) {
    uint32x4_t y = vreinterpretq_u32_f32(vmulq_f32(p, vf_pow2(n)));
    return vreinterpretq_f32_u32(vbicq_u32(y, vcltq_f32(x, vdupq_n_f32(-126.0f))));
}

#if QKV_SLEEF
#include <sleef.h>

/* 2^x: 0 for -inf, 1 for 0; within 1 ULP, and within 3.5. */
static inline vf vf_exp2(vf x) {
    return Sleef_exp2f4_u10advsimd(x);
}

static inline vf vf_exp2_u35(vf x) {
    return Sleef_exp2f4_u35advsimd(x);
}

static inline vf vf_log(vf x) {
    return Sleef_logf4_u10advsimd(x);
}

static inline vf vf_tanh(vf x) {
    return Sleef_tanhf4_u35advsimd(x);
}
#else
#include "tmpl/elementary.h"
#endif

#endif
