/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Powers of two for softmax, inlined: 2^x = 2^n p(r), r = x - n in [-1/2, 1/2], where p is the
 * polynomial of the smallest relative error among those with p(0) = 1 (Lawson's algorithm), so
 * that 2^0 is exactly 1. Results below the smallest normal number are 0 (in AVX-512, whose scaling
 * instruction rounds, denormal). The errors that tests/stages/exp2.c finds stand in
 * docs/performance/accuracy.md.
 */
#ifndef QKV_TMPL_EXP2_H
#define QKV_TMPL_EXP2_H

#define INLINE static inline __attribute__((always_inline))

/* How exponentials are made: one inline function a tier. */
typedef vf exp2_step(vf x);

static inline vf exp2_poly5(vf x) {
    vf n, r = vf_exp2_split(x, &n);
    vf p = vf_set1(0x1.5bba14p-10f);
    p = vf_fma(p, r, vf_set1(0x1.3cea88p-7f));
    p = vf_fma(p, r, vf_set1(0x1.c6b752p-5f));
    p = vf_fma(p, r, vf_set1(0x1.ebf9bcp-3f));
    p = vf_fma(p, r, vf_set1(0x1.62e42ap-1f));
    return vf_exp2_join(vf_fma(p, r, vf_set1(1.0f)), n, x);
}

static inline vf exp2_poly4(vf x) {
    vf n, r = vf_exp2_split(x, &n);
    vf p = vf_set1(0x1.3a02ccp-7f);
    p = vf_fma(p, r, vf_set1(0x1.c9fc46p-5f));
    p = vf_fma(p, r, vf_set1(0x1.ec0378p-3f));
    p = vf_fma(p, r, vf_set1(0x1.62e12cp-1f));
    return vf_exp2_join(vf_fma(p, r, vf_set1(1.0f)), n, x);
}

#endif
