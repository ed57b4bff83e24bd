/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX-512 room's vector: sixteen floats in a ZMM register, masks in k registers.
 */
#ifndef QKV_AVX512_VEC_H
#define QKV_AVX512_VEC_H

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || \
    !defined(__AVX512VL__)
#error "the AVX-512 room needs -mavx512f -mavx512bw -mavx512dq -mavx512vl"
#endif

#include <immintrin.h>
#include <stdint.h>

#define ROOM_NAME "avx512"
#define ROOM(name) qkv_avx512_##name

typedef __m512 vf;
typedef __mmask16 vm; /* a mask: one bit a lane */
typedef __m512d vd;

#define VF_LANES 16

static inline __mmask16 vec_first(int n) {
    return (__mmask16)((1u << n) - 1u);
}

static inline vf vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}

static inline void vf_store(float *p, vf x) {
    _mm512_storeu_ps(p, x);
}

/* The first n < VF_LANES lanes; the others are 0, and their memory is not touched. */
static inline vf vf_load_part(const float *p, int n) {
    return _mm512_maskz_loadu_ps(vec_first(n), p);
}

static inline void vf_store_part(float *p, vf x, int n) {
    _mm512_mask_storeu_ps(p, vec_first(n), x);
}

/* Neighbours: 2 VF_LANES numbers apart into the even and the odd ones, and together again. */
static inline vf vf_load_pairs(const float *p, vf *odd) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16);
    *odd = _mm512_permutex2var_ps(a, _mm512_or_epi32(even, _mm512_set1_epi32(1)), b);
    return _mm512_permutex2var_ps(a, even, b);
}

static inline void vf_store_pairs(float *p, vf even, vf odd) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    _mm512_storeu_ps(p, _mm512_permutex2var_ps(even, low, odd));
    _mm512_storeu_ps(p + 16, _mm512_permutex2var_ps(even, high, odd));
}

static inline vf vf_set1(float x) {
    return _mm512_set1_ps(x);
}

/* 0, 1, 2, ... */
static inline vf vf_iota(void) {
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

static inline vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}

static inline vf vf_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}

static inline vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}

static inline vf vf_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}

static inline vf vf_sqrt(vf x) {
    return _mm512_sqrt_ps(x);
}

static inline vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}

/* The larger; acc where x is NaN. */
static inline vf vf_max(vf x, vf acc) {
    return _mm512_max_ps(x, acc);
}

static inline vf vf_abs(vf x) {
    return _mm512_abs_ps(x);
}

static inline vm vm_eq(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}

static inline vm vm_lt(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

/* Lanes whose byte is not zero; the first n lanes only. */
static inline vm vm_load_bool(const uint8_t *p) {
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    return _mm_test_epi8_mask(x, x);
}

static inline vm vm_load_bool_part(const uint8_t *p, int n) {
    __m128i x = _mm_maskz_loadu_epi8(vec_first(n), p);
    return _mm_test_epi8_mask(x, x);
}

static inline int vm_any(vm m) {
    return m != 0;
}

static inline vf vf_select(vm m, vf yes, vf no) {
    return _mm512_mask_blend_ps(m, no, yes);
}

/* The tree: lane i with i + 8, then i + 4, i + 2, i + 1. */
static inline float vf_hsum(vf x) {
    __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}

static inline float vf_hmax(vf x) {
    __m256 y = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_max_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
}

/* In double precision: x's halves (lane i and lane i + VF_LANES / 2) added, and their squares,
 * which are exact before they are added. */
static inline vd vd_fold(vf x) {
    return _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
                         _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)));
}

static inline vd vd_fold_squares(vf x) {
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
    __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
    return _mm512_fmadd_pd(high, high, _mm512_mul_pd(low, low));
}

static inline vd vd_zero(void) {
    return _mm512_setzero_pd();
}

static inline vd vd_add(vd a, vd b) {
    return _mm512_add_pd(a, b);
}

static inline double vd_hsum(vd x) {
    __m256d y = _mm256_add_pd(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd(x, 1));
    __m128d z = _mm_add_pd(_mm256_castpd256_pd128(y), _mm256_extractf128_pd(y, 1));
    return _mm_cvtsd_f64(_mm_add_sd(z, _mm_unpackhi_pd(z, z)));
}

/* The sums, or the largest, of sixteen vectors in memory, each by the same tree: lane i with i + 2
 * and i + 1 within its 128 bits, then these with i + 8 and i + 4. Vector r's stands in lane r. */
#define VEC_ROWS(op, rows)                                                                         \
    do {                                                                                           \
        __m512 y[8], z[4];                                                                         \
        for (int i = 0; i < 8; i++)                                                                \
            y[i] =                                                                                 \
                op(_mm512_unpacklo_ps(vf_load((rows) + 32 * i), vf_load((rows) + 32 * i + 16)),    \
                   _mm512_unpackhi_ps(vf_load((rows) + 32 * i), vf_load((rows) + 32 * i + 16)));   \
        for (int i = 0; i < 4; i++)                                                                \
            z[i] = op(_mm512_shuffle_ps(y[2 * i], y[2 * i + 1], 0x44),                             \
                      _mm512_shuffle_ps(y[2 * i], y[2 * i + 1], 0xee));                            \
        for (int i = 0; i < 2; i++)                                                                \
            y[i] = op(_mm512_shuffle_f32x4(z[2 * i], z[2 * i + 1], 0x88),                          \
                      _mm512_shuffle_f32x4(z[2 * i], z[2 * i + 1], 0xdd));                         \
        return op(_mm512_shuffle_f32x4(y[0], y[1], 0x88), _mm512_shuffle_f32x4(y[0], y[1], 0xdd)); \
    } while (0)

static inline vf vf_hsum_rows(const float *rows) {
    VEC_ROWS(_mm512_add_ps, rows);
}

static inline vf vf_hmax_rows(const float *rows) {
    VEC_ROWS(_mm512_max_ps, rows);
}

/* The same of one vector, in lane 0; the other lanes may hold anything. */
#define VEC_ROW(op, x)                                  \
    do {                                                \
        x = op(x, _mm512_permute_ps(x, 0x4e));          \
        x = op(x, _mm512_permute_ps(x, 0xb1));          \
        x = op(x, _mm512_shuffle_f32x4(x, x, 0xb1));    \
        return op(x, _mm512_shuffle_f32x4(x, x, 0x4e)); \
    } while (0)

static inline vf vf_hsum_row(vf x) {
    VEC_ROW(_mm512_add_ps, x);
}

static inline vf vf_hmax_row(vf x) {
    VEC_ROW(_mm512_max_ps, x);
}

/* For the polynomials of a build without SLEEF: the nearest integer, 2^x for an integral x in
 * [-126, 127], and x = m * 2^e with m in [0.5, 1) for a normal positive x. */
static inline vf vf_round(vf x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vf vf_pow2(vf x) {
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}

static inline vf vf_mantissa(vf x) {
    __m512i m = _mm512_and_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x007fffff));
    return _mm512_castsi512_ps(_mm512_or_epi32(m, _mm512_set1_epi32(0x3f000000)));
}

static inline vf vf_exponent(vf x) {
    __m512i e = _mm512_srli_epi32(_mm512_castps_si512(x), 23);
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(e, _mm512_set1_epi32(126)));
}

/* 2^x = p(r) 2^n for the inlined polynomials: x taken apart, and put together again. For -inf, r
 * is 0 and the result 0. */
static inline vf vf_exp2_split(vf x, vf *n) {
    *n = vf_round(x);
    return _mm512_reduce_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vf vf_exp2_join(vf p, vf n, vf x) {
    (void)x;
    return _mm512_scalef_ps(p, n);
}

#if QKV_SLEEF
#include <sleef.h>

/* 2^x: 0 for -inf, 1 for 0; within 1 ULP, and within 3.5. */
static inline vf vf_exp2(vf x) {
    return Sleef_exp2f16_u10avx512f(x);
}

static inline vf vf_exp2_u35(vf x) {
    return Sleef_exp2f16_u35avx512f(x);
}

static inline vf vf_log(vf x) {
    return Sleef_logf16_u10avx512f(x);
}

static inline vf vf_tanh(vf x) {
    return Sleef_tanhf16_u35avx512f(x);
}
#else
#include "tmpl/elementary.h"
#endif

#endif
