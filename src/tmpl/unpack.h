/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Panels of a cache as floats again (kernels_cache.h), for queries in such numbers that they share
 * an unpacked block, and for export. Exact; the integers of int8 come unscaled.
 */
#ifndef QKV_TMPL_UNPACK_H
#define QKV_TMPL_UNPACK_H

static void unpack_keys_f32(float *dst, const void *panel, ptrdiff_t k) {
    for (ptrdiff_t i = 0; i < k * QKV_PANEL; i += VF_LANES)
        vf_store(dst + i, vf_load((const float *)panel + i));
}

static void unpack_keys_f16(float *dst, const void *panel, ptrdiff_t k) {
    for (ptrdiff_t i = 0; i < k * QKV_PANEL; i += VF_LANES)
        vf_store(dst + i, vf_load_f16((const uint16_t *)panel + i));
}

/* Step `i` of a unit's steps, sixteen columns. */
static inline void unpack_bf16(float *dst, const uint32_t *unit, int i) {
    for (int c = 0; c < QKV_PANEL; c += VF_LANES)
        vf_store(dst + c, vf_load_bf16(unit + c, i));
}

static inline void unpack_i8(float *dst, const uint32_t *unit, int i) {
    for (int c = 0; c < QKV_PANEL; c += VF_LANES)
        vf_store(dst + c, vf_load_i8(unit + c, i));
}

static void unpack_keys_bf16(float *dst, const void *panel, ptrdiff_t k) {
    const uint32_t *word = panel;
    for (ptrdiff_t p = 0; p < k; p++)
        unpack_bf16(dst + p * QKV_PANEL, word + p / 2 * QKV_PANEL, (int)(p % 2));
}

static void unpack_keys_i8(float *dst, const void *panel, ptrdiff_t k) {
    const uint32_t *word = panel;
    for (ptrdiff_t p = 0; p < k; p++)
        unpack_i8(dst + p * QKV_PANEL, word + p / 4 * QKV_PANEL, (int)(p % 4));
}

static void unpack_values_f32(float *dst, const void *panel, int from, int to, ptrdiff_t n) {
    for (ptrdiff_t i = from * n; i < to * n; i += VF_LANES)
        vf_store(dst + i, vf_load((const float *)panel + i));
}

static void unpack_values_f16(float *dst, const void *panel, int from, int to, ptrdiff_t n) {
    for (ptrdiff_t i = from * n; i < to * n; i += VF_LANES)
        vf_store(dst + i, vf_load_f16((const uint16_t *)panel + i));
}

static void unpack_values_bf16(float *dst, const void *panel, int from, int to, ptrdiff_t n) {
    for (int t = from; t < to; t++)
        for (ptrdiff_t c = 0; c < n; c += QKV_PANEL)
            unpack_bf16(dst + t * n + c, (const uint32_t *)panel + t / 2 * n + c, t % 2);
}

static void unpack_values_i8(float *dst, const void *panel, int from, int to, ptrdiff_t n) {
    for (int t = from; t < to; t++)
        for (ptrdiff_t c = 0; c < n; c += QKV_PANEL)
            unpack_i8(dst + t * n + c, (const uint32_t *)panel + t / 4 * n + c, t % 4);
}

#endif
