/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scalar room's vector: one float. Plain C, built with the compiler's vectorizer off, and
 * with a multiplication and an addition where the other rooms fuse them: the ABI's baseline has
 * no fused multiply-add on x86-64, and a room has one arithmetic everywhere.
 */
#ifndef QKV_SCALAR_VEC_H
#define QKV_SCALAR_VEC_H

#ifdef __FAST_MATH__
#error "the order of the scalar room's arithmetic is a promise: no -ffast-math"
#endif

#include <math.h>
#include <stdint.h>
#include <string.h>

#define ROOM_NAME "scalar"
#define ROOM(name) qkv_scalar_##name

typedef float vf;
typedef int vm; /* a mask: 0 or 1 a lane */
typedef double vd;

#define VF_LANES 1

static inline vf vf_load(const float *p) {
    return *p;
}

static inline void vf_store(float *p, vf x) {
    *p = x;
}

/* The first n < VF_LANES lanes; the others are 0, and their memory is not touched. */
static inline vf vf_load_part(const float *p, int n) {
    return n > 0 ? *p : 0.0f;
}

static inline void vf_store_part(float *p, vf x, int n) {
    if (n > 0)
        *p = x;
}

/* Neighbours: 2 VF_LANES numbers apart into the even and the odd ones, and together again. */
static inline vf vf_load_pairs(const float *p, vf *odd) {
    *odd = p[1];
    return p[0];
}

static inline void vf_store_pairs(float *p, vf even, vf odd) {
    p[0] = even;
    p[1] = odd;
}

static inline vf vf_set1(float x) {
    return x;
}

/* 0, 1, 2, ... */
static inline vf vf_iota(void) {
    return 0.0f;
}

static inline vf vf_add(vf a, vf b) {
    return a + b;
}

static inline vf vf_sub(vf a, vf b) {
    return a - b;
}

static inline vf vf_mul(vf a, vf b) {
    return a * b;
}

static inline vf vf_div(vf a, vf b) {
    return a / b;
}

static inline vf vf_sqrt(vf x) {
    return sqrtf(x);
}

static inline vf vf_fma(vf a, vf b, vf c) {
    return a * b + c;
}

/* The larger; acc where x is NaN. */
static inline vf vf_max(vf x, vf acc) {
    return x > acc ? x : acc;
}

static inline vf vf_abs(vf x) {
    return fabsf(x);
}

static inline vm vm_eq(vf a, vf b) {
    return a == b;
}

static inline vm vm_lt(vf a, vf b) {
    return a < b;
}

/* Lanes whose byte is not zero; the first n lanes only. */
static inline vm vm_load_bool(const uint8_t *p) {
    return *p != 0;
}

static inline vm vm_load_bool_part(const uint8_t *p, int n) {
    return n > 0 && *p != 0;
}

static inline int vm_any(vm m) {
    return m;
}

static inline vf vf_select(vm m, vf yes, vf no) {
    return m ? yes : no;
}

static inline float vf_hsum(vf x) {
    return x;
}

static inline float vf_hmax(vf x) {
    return x;
}

/* In double precision: the lane, and its square, which is exact. */
static inline vd vd_fold(vf x) {
    return x;
}

static inline vd vd_fold_squares(vf x) {
    return (double)x * x;
}

static inline vd vd_zero(void) {
    return 0.0;
}

static inline vd vd_add(vd a, vd b) {
    return a + b;
}

static inline double vd_hsum(vd x) {
    return x;
}

/* The sums, or the largest, of VF_LANES vectors in memory, one a lane. */
static inline vf vf_hsum_rows(const float *rows) {
    return rows[0];
}

static inline vf vf_hmax_rows(const float *rows) {
    return rows[0];
}

/* The same of one vector. */
static inline vf vf_hsum_row(vf x) {
    return x;
}

static inline vf vf_hmax_row(vf x) {
    return x;
}

/* For the polynomials of a build without SLEEF: the nearest integer, 2^x for an integral x in
 * [-126, 127], and x = m * 2^e with m in [0.5, 1) for a normal positive x. */
static inline vf vf_round(vf x) {
    const float big = 0x1.8p23f;
    return (x + big) - big;
}

static inline vf vf_pow2(vf x) {
    int32_t bits = ((int32_t)x + 127) * (1 << 23);
    float y;
    memcpy(&y, &bits, sizeof(y));
    return y;
}

static inline vf vf_mantissa(vf x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    bits = (bits & 0x007fffffu) | 0x3f000000u;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static inline vf vf_exponent(vf x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return (float)(int32_t)(bits >> 23) - 126.0f;
}

/* 2^x = p(r) 2^n for the inlined polynomials: x taken apart, and put together again. 0 below 2^-126
 * and for -inf, where r is of no use. x < 128. */
static inline vf vf_exp2_split(vf x, vf *n) {
    *n = vf_round(x);
    return x - *n;
}

static inline vf vf_exp2_join(vf p, vf n, vf x) {
    return x < -126.0f ? 0.0f : p * vf_pow2(n == n ? n : 0.0f);
}

#if QKV_SLEEF
#include <sleef.h>

/* 2^x: 0 for -inf, 1 for 0; within 1 ULP, and within 3.5. */
static inline vf vf_exp2(vf x) {
    return Sleef_exp2f1_u10purec(x);
}

static inline vf vf_exp2_u35(vf x) {
    return Sleef_exp2f1_u35purec(x);
}

static inline vf vf_log(vf x) {
    return Sleef_logf1_u10purec(x);
}

static inline vf vf_tanh(vf x) {
    return Sleef_tanhf1_u35purec(x);
}
#else
#include "tmpl/elementary.h"
#endif

#endif
