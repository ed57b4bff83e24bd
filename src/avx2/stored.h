/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers as a cache stores them (kernels_cache.h), to and from this room's vector. Loads are
 * exact; stores round to nearest, ties to even, and keep infinities and NaN.
 */
#ifndef QKV_AVX2_STORED_H
#define QKV_AVX2_STORED_H

#include "vec.h"

static inline vf vf_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

static inline void vf_store_f16(uint16_t *p, vf x) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

/* Element i of units of two bfloat16, and of four int8. */
static inline vf vf_load_bf16(const uint32_t *p, int i) {
    const __m256i x = _mm256_loadu_si256((const __m256i *)p);
    return _mm256_castsi256_ps(i ? _mm256_and_si256(x, _mm256_set1_epi32((int)0xffff0000u))
                                 : _mm256_slli_epi32(x, 16));
}

/* A byte with its sign turned over, x + 128, becomes the last digits of a float, of 2^23 or, from
 * the word's second byte, of 2^15; the others take shifts and a conversion, so that both kinds of
 * pipes have their share (docs/performance/tried-decode.md). */
static inline vf vf_load_i8(const uint32_t *p, int i) {
    const __m256i x = _mm256_loadu_si256((const __m256i *)p);
    if (i >= 2) {
        const __m256i top = i == 3 ? x : _mm256_slli_epi32(x, 8);
        return _mm256_cvtepi32_ps(_mm256_srai_epi32(top, 24));
    }
    const __m256i byte = _mm256_set1_epi32(i ? 0xff00 : 0xff);
    const __m256i magic = _mm256_set1_epi32(i ? 0x47008000 : 0x4b000080);
    const __m256i sum = _mm256_xor_si256(_mm256_and_si256(x, byte), magic);
    return _mm256_sub_ps(_mm256_castsi256_ps(sum),
                         _mm256_set1_ps(i ? 0x1p15f + 128 : 0x1p23f + 128));
}

/* The rounded number in the upper halves of the lanes; the lower halves are anything. */
static inline __m256i stored_bf16(vf x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
    const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return _mm256_blendv_epi8(_mm256_add_epi32(bits, half), quiet, _mm256_castps_si256(nan));
}

/* Units of two numbers, and of four integral ones in [-127, 127]. */
static inline void vf_store_bf16(uint32_t *p, vf a, vf b) {
    const __m256i low = _mm256_srli_epi32(stored_bf16(a), 16);
    _mm256_storeu_si256((__m256i *)p, _mm256_blend_epi16(low, stored_bf16(b), 0xaa));
}

static inline __m256i stored_i8(vf x, int i) {
    const __m256i byte = _mm256_and_si256(_mm256_cvtps_epi32(x), _mm256_set1_epi32(0xff));
    return _mm256_slli_epi32(byte, 8 * i);
}

static inline void vf_store_i8(uint32_t *p, vf a, vf b, vf c, vf d) {
    const __m256i low = _mm256_or_si256(stored_i8(a, 0), stored_i8(b, 1));
    const __m256i high = _mm256_or_si256(stored_i8(c, 2), stored_i8(d, 3));
    _mm256_storeu_si256((__m256i *)p, _mm256_or_si256(low, high));
}

/* Sixteen floats, times a factor, to the nearest integers: bytes, signed or not, which they fit. */
static inline void vf_pack_i8(unsigned char *p, const float *x, vf factor) {
    const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), factor));
    const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), factor));
    const __m256i pairs = _mm256_and_si256(_mm256_packs_epi32(a, b), _mm256_set1_epi16(0xff));
    const __m256i bytes = _mm256_packus_epi16(pairs, pairs);
    const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
    _mm_storeu_si128((__m128i *)p, _mm_unpacklo_epi32(low, high));
}

/* Sixteen floats to bfloat16. */
static inline void vf_pack_bf16(unsigned char *p, const float *x) {
    const __m256i low = _mm256_srli_epi32(stored_bf16(_mm256_loadu_ps(x)), 16);
    const __m256i high = _mm256_srli_epi32(stored_bf16(_mm256_loadu_ps(x + 8)), 16);
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
    _mm256_storeu_si256((__m256i *)p, halves);
}

#endif
