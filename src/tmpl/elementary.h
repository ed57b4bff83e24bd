/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp2, log and tanh over a room's vector, for builds without SLEEF; included at the end of
 * vec.h. Argument reduction and coefficients after Cephes (Moshier, exp2f.c, logf.c, tanhf.c). A
 * few units in the last place; NaN goes in and comes out.
 */
#ifndef QKV_TMPL_ELEMENTARY_H
#define QKV_TMPL_ELEMENTARY_H

#include <math.h>

/* 2^x = 2^n 2^r with |r| <= 1/2. 2^n is applied in two halves, so that results below the smallest
 * normal number are rounded once more instead of being lost. */
static inline vf vf_exp2(vf x) {
    const vf low = vf_set1(-151.0f), high = vf_set1(129.0f);
    vf y = vf_select(vm_eq(x, x), x, vf_set1(0.0f));
    y = vf_select(vm_lt(y, low), low, y);
    y = vf_select(vm_lt(high, y), high, y);
    vf n = vf_round(y), r = vf_sub(y, n);
    vf p = vf_set1(1.535336188319500e-4f);
    p = vf_fma(p, r, vf_set1(1.339887440266574e-3f));
    p = vf_fma(p, r, vf_set1(9.618437357674640e-3f));
    p = vf_fma(p, r, vf_set1(5.550332471162809e-2f));
    p = vf_fma(p, r, vf_set1(2.402264791363012e-1f));
    p = vf_fma(p, r, vf_set1(6.931472028550421e-1f));
    p = vf_fma(p, r, vf_set1(1.0f));
    vf half = vf_round(vf_mul(n, vf_set1(0.5f)));
    p = vf_mul(vf_mul(p, vf_pow2(half)), vf_pow2(vf_sub(n, half)));
    p = vf_select(vm_lt(x, vf_set1(-150.0f)), vf_set1(0.0f), p);
    p = vf_select(vm_lt(x, vf_set1(128.0f)), p, vf_set1(INFINITY));
    return vf_select(vm_eq(x, x), p, x);
}

/* One accuracy serves both. */
static inline vf vf_exp2_u35(vf x) {
    return vf_exp2(x);
}

/* Natural logarithm of a positive normal number, which is all that softmax asks for. */
static inline vf vf_log(vf x) {
    vf e = vf_exponent(x), m = vf_mantissa(x);
    vm small = vm_lt(m, vf_set1(0.707106781186547524f));
    e = vf_select(small, vf_sub(e, vf_set1(1.0f)), e);
    m = vf_sub(vf_select(small, vf_add(m, m), m), vf_set1(1.0f));
    vf z = vf_mul(m, m);
    vf p = vf_set1(7.0376836292e-2f);
    p = vf_fma(p, m, vf_set1(-1.1514610310e-1f));
    p = vf_fma(p, m, vf_set1(1.1676998740e-1f));
    p = vf_fma(p, m, vf_set1(-1.2420140846e-1f));
    p = vf_fma(p, m, vf_set1(1.4249322787e-1f));
    p = vf_fma(p, m, vf_set1(-1.6668057665e-1f));
    p = vf_fma(p, m, vf_set1(2.0000714765e-1f));
    p = vf_fma(p, m, vf_set1(-2.4999993993e-1f));
    p = vf_fma(p, m, vf_set1(3.3333331174e-1f));
    vf y = vf_mul(vf_mul(p, m), z);
    y = vf_fma(e, vf_set1(-2.12194440e-4f), y);
    y = vf_fma(z, vf_set1(-0.5f), y);
    y = vf_fma(e, vf_set1(0.693359375f), vf_add(m, y));
    return vf_select(vm_eq(x, x), y, x);
}

/* A polynomial near zero, 1 - 2 / (e^2|x| + 1) elsewhere. */
static inline vf vf_tanh(vf x) {
    vf z = vf_mul(x, x);
    vf p = vf_set1(-5.70498872745e-3f);
    p = vf_fma(p, z, vf_set1(2.06390887954e-2f));
    p = vf_fma(p, z, vf_set1(-5.37397155531e-2f));
    p = vf_fma(p, z, vf_set1(1.33314422036e-1f));
    p = vf_fma(p, z, vf_set1(-3.33332819422e-1f));
    vf near = vf_fma(vf_mul(p, z), x, x);
    vf a = vf_abs(x), one = vf_set1(1.0f);
    vf e = vf_exp2(vf_mul(a, vf_set1(0x1.715476p+1f))); /* e^2|x| */
    vf far = vf_sub(one, vf_div(vf_set1(2.0f), vf_add(e, one)));
    far = vf_select(vm_lt(x, vf_set1(0.0f)), vf_sub(vf_set1(0.0f), far), far);
    return vf_select(vm_lt(a, vf_set1(0.625f)), near, far);
}

#endif
