/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers as a cache stores them (kernels_cache.h), to and from this room's vector. Loads are
 * exact; stores round to nearest, ties to even, and keep infinities and NaN.
 */
#ifndef QKV_AVX512_STORED_H
#define QKV_AVX512_STORED_H

#include "vec.h"

static inline vf vf_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

static inline void vf_store_f16(uint16_t *p, vf x) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

/* Element i of units of two bfloat16, and of four int8. */
static inline vf vf_of_bf16(__m512i x, int i) {
    return _mm512_castsi512_ps(i ? _mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000u))
                                 : _mm512_slli_epi32(x, 16));
}

static inline vf vf_load_bf16(const uint32_t *p, int i) {
    return vf_of_bf16(_mm512_loadu_si512(p), i);
}

/* A byte with its sign turned over, x + 128, becomes the last digits of a float, of 2^23 or, from
 * the word's second byte, of 2^15. Two shifts and a conversion would take longer
 * (docs/performance/tried-decode.md): only one of two pipes shifts 512 bits. */
static inline vf vf_of_i8(__m512i x, int i) {
    const __m512i pair = i < 2 ? x : _mm512_srli_epi32(x, 16);
    const __m512i byte = _mm512_set1_epi32(i % 2 ? 0xff00 : 0xff);
    const __m512i magic = _mm512_set1_epi32(i % 2 ? 0x47008000 : 0x4b000080);
    const __m512i sum =
        _mm512_ternarylogic_epi32(pair, byte, magic, 0x6a); /* (pair & byte) ^ magic */
    return _mm512_sub_ps(_mm512_castsi512_ps(sum),
                         _mm512_set1_ps(i % 2 ? 0x1p15f + 128 : 0x1p23f + 128));
}

static inline vf vf_load_i8(const uint32_t *p, int i) {
    return vf_of_i8(_mm512_loadu_si512(p), i);
}

/* The rounded number in the upper halves of the lanes; the lower halves are anything. */
static inline __m512i stored_bf16(vf x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x00400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_mask_mov_epi32(_mm512_add_epi32(bits, half), nan, quiet);
}

/* Units of two numbers, and of four integral ones in [-127, 127]. */
static inline void vf_store_bf16(uint32_t *p, vf a, vf b) {
    const __m512i low = _mm512_srli_epi32(stored_bf16(a), 16);
    _mm512_storeu_si512(p, _mm512_mask_mov_epi16(low, 0xaaaaaaaau, stored_bf16(b)));
}

static inline __m512i stored_i8(vf x, int i) {
    const __m512i byte = _mm512_and_si512(_mm512_cvtps_epi32(x), _mm512_set1_epi32(0xff));
    return _mm512_slli_epi32(byte, (unsigned)(8 * i));
}

static inline void vf_store_i8(uint32_t *p, vf a, vf b, vf c, vf d) {
    const __m512i low = _mm512_or_si512(stored_i8(a, 0), stored_i8(b, 1));
    const __m512i high = _mm512_or_si512(stored_i8(c, 2), stored_i8(d, 3));
    _mm512_storeu_si512(p, _mm512_or_si512(low, high));
}

/* Sixteen floats, times a factor, to the nearest integers: bytes, signed or not, which they fit. */
static inline void vf_pack_i8(unsigned char *p, const float *x, vf factor) {
    const __m512i integers = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), factor));
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(integers));
}

/* Sixteen floats to bfloat16. */
static inline void vf_pack_bf16(unsigned char *p, const float *x) {
    const __m512i halves = _mm512_srli_epi32(stored_bf16(_mm512_loadu_ps(x)), 16);
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(halves));
}

#endif
