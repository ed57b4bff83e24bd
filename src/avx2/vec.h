/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX2 room's vector: eight floats in a YMM register, masks as all-ones lanes.
 */
#ifndef QKV_AVX2_VEC_H
#define QKV_AVX2_VEC_H

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "the AVX2 room needs -mavx2 -mfma -mf16c"
#endif

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define ROOM_NAME "avx2"
#define ROOM(name) qkv_avx2_##name

typedef __m256 vf;
typedef __m256 vm; /* a mask: a lane's sign bit */
typedef __m256d vd;

#define VF_LANES 8

static inline __m256i vec_first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf vf_load(const float *p) {
    return _mm256_loadu_ps(p);
}

static inline void vf_store(float *p, vf x) {
    _mm256_storeu_ps(p, x);
}

/* The first n < VF_LANES lanes; the others are 0, and their memory is not touched. */
static inline vf vf_load_part(const float *p, int n) {
    return _mm256_maskload_ps(p, vec_first(n));
}

static inline void vf_store_part(float *p, vf x, int n) {
    _mm256_maskstore_ps(p, vec_first(n), x);
}

/* Neighbours: 2 VF_LANES numbers apart into the even and the odd ones, and together again. */
static inline vf vf_load_pairs(const float *p, vf *odd) {
    const __m256 a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + 8);
    const __m256d even = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88));
    const __m256d rest = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xdd));
    *odd = _mm256_castpd_ps(_mm256_permute4x64_pd(rest, 0xd8));
    return _mm256_castpd_ps(_mm256_permute4x64_pd(even, 0xd8));
}

static inline void vf_store_pairs(float *p, vf even, vf odd) {
    const __m256 a = _mm256_unpacklo_ps(even, odd), b = _mm256_unpackhi_ps(even, odd);
    _mm256_storeu_ps(p, _mm256_permute2f128_ps(a, b, 0x20));
    _mm256_storeu_ps(p + 8, _mm256_permute2f128_ps(a, b, 0x31));
}

static inline vf vf_set1(float x) {
    return _mm256_set1_ps(x);
}

/* 0, 1, 2, ... */
static inline vf vf_iota(void) {
    return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
}

static inline vf vf_add(vf a, vf b) {
    return _mm256_add_ps(a, b);
}

static inline vf vf_sub(vf a, vf b) {
    return _mm256_sub_ps(a, b);
}

static inline vf vf_mul(vf a, vf b) {
    return _mm256_mul_ps(a, b);
}

static inline vf vf_div(vf a, vf b) {
    return _mm256_div_ps(a, b);
}

static inline vf vf_sqrt(vf x) {
    return _mm256_sqrt_ps(x);
}

static inline vf vf_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}

/* The larger; acc where x is NaN. */
static inline vf vf_max(vf x, vf acc) {
    return _mm256_max_ps(x, acc);
}

static inline vf vf_abs(vf x) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

static inline vm vm_eq(vf a, vf b) {
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}

static inline vm vm_lt(vf a, vf b) {
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}

static inline vm vec_bool(__m128i bytes) {
    __m256i zero = _mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_setzero_si256());
    return _mm256_castsi256_ps(_mm256_xor_si256(zero, _mm256_set1_epi32(-1)));
}

/* Lanes whose byte is not zero; the first n lanes only. */
static inline vm vm_load_bool(const uint8_t *p) {
    return vec_bool(_mm_loadl_epi64((const __m128i *)p));
}

static inline vm vm_load_bool_part(const uint8_t *p, int n) {
    uint64_t bytes = 0;
    for (int i = 0; i < n; i++)
        bytes |= (uint64_t)p[i] << (8 * i);
    return vec_bool(_mm_cvtsi64_si128((long long)bytes));
}

static inline int vm_any(vm m) {
    return _mm256_movemask_ps(m) != 0;
}

static inline vf vf_select(vm m, vf yes, vf no) {
    return _mm256_blendv_ps(no, yes, m);
}

/* The tree: lane i with i + 4, then i + 2, i + 1. */
static inline float vf_hsum(vf x) {
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}

static inline float vf_hmax(vf x) {
    __m128 z = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    z = _mm_max_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
}

/* In double precision: x's halves (lane i and lane i + VF_LANES / 2) added, and their squares,
 * which are exact before they are added. */
static inline vd vd_fold(vf x) {
    return _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x)),
                         _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)));
}

static inline vd vd_fold_squares(vf x) {
    __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
    __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
    return _mm256_fmadd_pd(high, high, _mm256_mul_pd(low, low));
}

static inline vd vd_zero(void) {
    return _mm256_setzero_pd();
}

static inline vd vd_add(vd a, vd b) {
    return _mm256_add_pd(a, b);
}

static inline double vd_hsum(vd x) {
    __m128d y = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(y, _mm_unpackhi_pd(y, y)));
}

/* The sums, or the largest, of eight vectors in memory, each by the same tree: lane i with i + 2
 * and i + 1 within its 128 bits, then the two halves. Vector r's stands in lane r. */
#define VEC_ROWS(op, rows)                                                                         \
    do {                                                                                           \
        __m256 y[4], z[2];                                                                         \
        for (int i = 0; i < 4; i++)                                                                \
            y[i] = op(_mm256_unpacklo_ps(vf_load((rows) + 16 * i), vf_load((rows) + 16 * i + 8)),  \
                      _mm256_unpackhi_ps(vf_load((rows) + 16 * i), vf_load((rows) + 16 * i + 8))); \
        for (int i = 0; i < 2; i++)                                                                \
            z[i] = op(_mm256_shuffle_ps(y[2 * i], y[2 * i + 1], 0x44),                             \
                      _mm256_shuffle_ps(y[2 * i], y[2 * i + 1], 0xee));                            \
        return op(_mm256_permute2f128_ps(z[0], z[1], 0x20),                                        \
                  _mm256_permute2f128_ps(z[0], z[1], 0x31));                                       \
    } while (0)

static inline vf vf_hsum_rows(const float *rows) {
    VEC_ROWS(_mm256_add_ps, rows);
}

static inline vf vf_hmax_rows(const float *rows) {
    VEC_ROWS(_mm256_max_ps, rows);
}

/* The same of one vector, in lane 0; the other lanes may hold anything. */
#define VEC_ROW(op, x)                                   \
    do {                                                 \
        x = op(x, _mm256_permute_ps(x, 0x4e));           \
        x = op(x, _mm256_permute_ps(x, 0xb1));           \
        return op(x, _mm256_permute2f128_ps(x, x, 0x1)); \
    } while (0)

static inline vf vf_hsum_row(vf x) {
    VEC_ROW(_mm256_add_ps, x);
}

static inline vf vf_hmax_row(vf x) {
    VEC_ROW(_mm256_max_ps, x);
}

/* For the polynomials of a build without SLEEF: the nearest integer, 2^x for an integral x in
 * [-126, 127], and x = m * 2^e with m in [0.5, 1) for a normal positive x. */
static inline vf vf_round(vf x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vf vf_pow2(vf x) {
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}

static inline vf vf_mantissa(vf x) {
    __m256i m = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x007fffff));
    return _mm256_castsi256_ps(_mm256_or_si256(m, _mm256_set1_epi32(0x3f000000)));
}

static inline vf vf_exponent(vf x) {
    __m256i e = _mm256_srli_epi32(_mm256_castps_si256(x), 23);
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(e, _mm256_set1_epi32(126)));
}

/* 2^x = p(r) 2^n for the inlined polynomials: x taken apart, and put together again. n stays in the
 * low bits of a large number, with the exponent's bias. 0 below 2^-126 and for -inf, where r is of
 * no use. x < 128. */
#define VEC_MAGIC (0x1.8p23f + 127.0f)

static inline vf vf_exp2_split(vf x, vf *n) {
    *n = _mm256_add_ps(x, _mm256_set1_ps(VEC_MAGIC));
    return _mm256_sub_ps(x, _mm256_sub_ps(*n, _mm256_set1_ps(VEC_MAGIC)));
}

static inline vf vf_exp2_join(vf p, vf n, vf x) {
    __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(n), 23));
    __m256 in_range = _mm256_cmp_ps(x, _mm256_set1_ps(-126.0f), _CMP_NLT_UQ);
    return _mm256_and_ps(_mm256_mul_ps(p, power), in_range);
}

#if QKV_SLEEF
#include <sleef.h>

/* 2^x: 0 for -inf, 1 for 0; within 1 ULP, and within 3.5. */
static inline vf vf_exp2(vf x) {
    return Sleef_exp2f8_u10avx2(x);
}

static inline vf vf_exp2_u35(vf x) {
    return Sleef_exp2f8_u35avx2(x);
}

static inline vf vf_log(vf x) {
    return Sleef_logf8_u10avx2(x);
}

static inline vf vf_tanh(vf x) {
    return Sleef_tanhf8_u35avx2(x);
}
#else
#include "tmpl/elementary.h"
#endif

#endif
