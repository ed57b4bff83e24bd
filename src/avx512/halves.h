/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step of products with float16 by vectors of 256 bits, for processors that send 512 bits through
 * their units in two halves. There a Zen 4 converts 16 numbers by two instructions of 256 bits as
 * fast as its FMAs go, and by one of 512 bits at half of that speed. A half panel's sum stands in
 * the lower half of a vector of `sums`, 2 v and 2 v + 1 being panel v's, until the end.
 */
#ifndef QKV_AVX512_HALVES_H
#define QKV_AVX512_HALVES_H

static inline __m256 half_of(vf sum) {
    return _mm512_castps512_ps256(sum);
}

static inline __attribute__((always_inline)) void half_step(sums *acc, const char *const *b,
                                                            ptrdiff_t at, const float *x,
                                                            ptrdiff_t ldx, const int M,
                                                            const int G) {
    __m256 xv[TALL];
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++)
        xv[r] = _mm256_set1_ps(x[r * ldx]);
    QKV_UNROLL(8)
    for (int v = 0; v < 2 * G; v++) {
        const __m128i *p = (const __m128i *)(b[v / 2] + at) + v % 2;
        const __m256 bv = _mm256_cvtph_ps(_mm_loadu_si128(p));
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            acc[r][v] = _mm512_castps256_ps512(_mm256_fmadd_ps(xv[r], bv, half_of(acc[r][v])));
            PIN(acc[r][v]);
        }
    }
}

static inline __attribute__((always_inline)) void join_halves(sums *acc, const int M, const int G) {
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++)
            acc[r][v] = _mm512_insertf32x8(acc[r][2 * v], half_of(acc[r][2 * v + 1]), 1);
    }
}

#endif
