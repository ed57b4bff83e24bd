/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of keys and values into the panels of a cache and out of them again (signatures and orders
 * in kernels_cache.h), over a room's stored.h. Every number is rounded once, by operations that
 * IEEE 754 fixes, so that all rooms leave the same bytes. A whole panel of keys is turned sixteen
 * rows at a time; fewer are scattered into their columns one by one, since a token that is decoded
 * comes alone. Any alignment of the rows.
 */
#ifndef QKV_TMPL_CACHE_H
#define QKV_TMPL_CACHE_H

#include "quantise.h"

enum {
    ROW_MOST = 512, /* numbers of a row */
    TURNED = 32,    /* steps of a panel that are turned at a time; a multiple of every unit */
};

static inline ptrdiff_t round_to(ptrdiff_t n, ptrdiff_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* The row a panel further on is asked for while this one is read: rows that are taken two at a time
 * are too much for a hardware prefetcher. The address may lie outside the matrix; nothing is read
 * there. */
static inline void ask_ahead(const float *row, ptrdiff_t ld, ptrdiff_t c) {
    const uintptr_t ahead = QKV_PANEL * (uintptr_t)ld + (uintptr_t)c;
    __builtin_prefetch((const void *)((uintptr_t)row + ahead * sizeof(float)));
}

/* ---- A few rows of keys, into columns of their panel ---- */

static void scatter_f32(void *panel, int column, const float *row, ptrdiff_t k) {
    float *dst = (float *)panel + column;
    for (ptrdiff_t p = 0; p < k; p++)
        dst[p * QKV_PANEL] = row[p];
}

static void scatter_f16(void *panel, int column, const float *row, ptrdiff_t k) {
    uint16_t *dst = (uint16_t *)panel + column, half[ROW_MOST];
    for (ptrdiff_t p = 0; p < k; p += VF_LANES)
        vf_store_f16(half + p, row_at(row, p, k));
    for (ptrdiff_t p = 0; p < k; p++)
        dst[p * QKV_PANEL] = half[p];
}

static void scatter_bf16(void *panel, int column, const float *row, ptrdiff_t k) {
    uint32_t *dst = (uint32_t *)panel + column, word[ROW_MOST];
    for (ptrdiff_t p = 0; p < round_to(k, 2); p += VF_LANES)
        vf_store_bf16(word + p, row_at(row, p, k), vf_set1(0.0f));
    for (ptrdiff_t p = 0; p < k; p += 2)
        dst[p / 2 * QKV_PANEL] = word[p] | word[p + 1] << 16;
}

static void scatter_i8(void *panel, int column, const float *row, float factor, ptrdiff_t k) {
    const vf zero = vf_set1(0.0f), f = vf_set1(factor);
    uint32_t *dst = (uint32_t *)panel + column, word[ROW_MOST];
    for (ptrdiff_t p = 0; p < round_to(k, 4); p += VF_LANES)
        vf_store_i8(word + p, quantised(row_at(row, p, k), f), zero, zero, zero);
    for (ptrdiff_t p = 0; p < k; p += 4)
        dst[p / 4 * QKV_PANEL] = word[p] | word[p + 1] << 8 | word[p + 2] << 16 | word[p + 3] << 24;
}

/* ---- Sixteen rows of keys ---- */

/* Steps [p, p + TURNED) of sixteen rows, turned; zeros beyond the k that there are. Returns the
 * number of steps, rounded up to the unit. */
static inline ptrdiff_t turn_steps(float *turned, const float *rows, ptrdiff_t ld, ptrdiff_t p,
                                   ptrdiff_t k, ptrdiff_t unit) {
    const ptrdiff_t steps = k - p < TURNED ? k - p : TURNED, padded = round_to(steps, unit);
    ROOM(pack_panel)(turned, rows + p, ld, 0, QKV_PANEL, steps);
    for (ptrdiff_t i = steps * QKV_PANEL; i < padded * QKV_PANEL; i++)
        turned[i] = 0.0f;
    return padded;
}

static void turn_f32(void *panel, const float *rows, ptrdiff_t ld, ptrdiff_t k) {
    ROOM(pack_panel)(panel, rows, ld, 0, QKV_PANEL, k);
}

static void turn_f16(void *panel, const float *rows, ptrdiff_t ld, ptrdiff_t k) {
    uint16_t *dst = panel;
    float turned[TURNED * QKV_PANEL];
    for (ptrdiff_t p = 0; p < k; p += TURNED) {
        const ptrdiff_t n = turn_steps(turned, rows, ld, p, k, 1) * QKV_PANEL;
        for (ptrdiff_t i = 0; i < n; i += VF_LANES)
            vf_store_f16(dst + p * QKV_PANEL + i, vf_load(turned + i));
    }
}

static void turn_bf16(void *panel, const float *rows, ptrdiff_t ld, ptrdiff_t k) {
    uint32_t *dst = panel;
    float turned[TURNED * QKV_PANEL];
    for (ptrdiff_t p = 0; p < k; p += TURNED) {
        const ptrdiff_t steps = turn_steps(turned, rows, ld, p, k, 2);
        for (ptrdiff_t u = 0; u < steps; u += 2, dst += QKV_PANEL)
            for (int c = 0; c < QKV_PANEL; c += VF_LANES) {
                const float *x = turned + u * QKV_PANEL + c;
                vf_store_bf16(dst + c, vf_load(x), vf_load(x + QKV_PANEL));
            }
    }
}

static void turn_i8(void *panel, const float *rows, ptrdiff_t ld, const float *factor,
                    ptrdiff_t k) {
    uint32_t *dst = panel;
    float turned[TURNED * QKV_PANEL];
    for (ptrdiff_t p = 0; p < k; p += TURNED) {
        const ptrdiff_t steps = turn_steps(turned, rows, ld, p, k, 4);
        for (ptrdiff_t u = 0; u < steps; u += 4, dst += QKV_PANEL)
            for (int c = 0; c < QKV_PANEL; c += VF_LANES) {
                const float *x = turned + u * QKV_PANEL + c;
                const vf f = vf_load(factor + c);
                vf_store_i8(dst + c, quantised(vf_load(x), f), quantised(vf_load(x + QKV_PANEL), f),
                            quantised(vf_load(x + 2 * QKV_PANEL), f),
                            quantised(vf_load(x + 3 * QKV_PANEL), f));
            }
    }
}

#define APPEND_KEYS(type)                                                                    \
    static void append_keys_##type(void *panel, float *scale, int column, const float *rows, \
                                   ptrdiff_t ld, int count, ptrdiff_t k) {                   \
        (void)scale;                                                                         \
        if (count == QKV_PANEL)                                                              \
            turn_##type(panel, rows, ld, k);                                                 \
        else                                                                                 \
            for (int r = 0; r < count; r++)                                                  \
                scatter_##type(panel, column + r, rows + r * ld, k);                         \
    }
APPEND_KEYS(f32)
APPEND_KEYS(f16)
APPEND_KEYS(bf16)

static void append_keys_i8(void *panel, float *scale, int column, const float *rows, ptrdiff_t ld,
                           int count, ptrdiff_t k) {
    float factor[QKV_PANEL];
    for (int r = 0; r < count; r++)
        factor[r] = scale_row(scale + column + r, rows + r * ld, k, 127);
    if (count == QKV_PANEL)
        turn_i8(panel, rows, ld, factor, k);
    else
        for (int r = 0; r < count; r++)
            scatter_i8(panel, column + r, rows + r * ld, factor[r], k);
}

/* ---- Rows of values ---- */

/* What was stored is looked at again: it may have become infinite. Two sums take turns, so that
 * additions need not wait for each other. */

static int append_values_f32(void *panel, float *scale, int row, const float *rows, ptrdiff_t ld,
                             int count, ptrdiff_t v_dim) {
    const ptrdiff_t n = round_to(v_dim, QKV_PANEL);
    float *dst = (float *)panel + row * n;
    vf sum = vf_set1(0.0f), other = sum;
    (void)scale;
    for (int r = 0; r < count; r++, rows += ld, dst += n)
        for (ptrdiff_t c = 0; c < n; c += VF_LANES) {
            const vf x = row_at(rows, c, v_dim);
            ask_ahead(rows, ld, c);
            vf_store(dst + c, x);
            const vf next = look_at(x, other);
            other = sum;
            sum = next;
        }
    return any_nan(vf_add(sum, other));
}

static int append_values_f16(void *panel, float *scale, int row, const float *rows, ptrdiff_t ld,
                             int count, ptrdiff_t v_dim) {
    const ptrdiff_t n = round_to(v_dim, QKV_PANEL);
    uint16_t *dst = (uint16_t *)panel + row * n;
    vf sum = vf_set1(0.0f), other = sum;
    (void)scale;
    for (int r = 0; r < count; r++, rows += ld, dst += n)
        for (ptrdiff_t c = 0; c < n; c += VF_LANES) {
            ask_ahead(rows, ld, c);
            vf_store_f16(dst + c, row_at(rows, c, v_dim));
            const vf next = look_at(vf_load_f16(dst + c), other);
            other = sum;
            sum = next;
        }
    return any_nan(vf_add(sum, other));
}

/* Tokens [from, to) of a unit, from rows that begin with token `from`; what stood in the unit is
 * nothing (zeros) when its first token comes. */
struct unit {
    const float *rows;
    ptrdiff_t ld, v_dim;
    int from, to;
};

static inline struct unit unit_at(int size, int row, int token, const float *rows, ptrdiff_t ld,
                                  int count, ptrdiff_t v_dim) {
    const int from = token % size, left = row + count - token;
    return (struct unit){.rows = rows + (token - row) * ld,
                         .ld = ld,
                         .v_dim = v_dim,
                         .from = from,
                         .to = from + left < size ? from + left : size};
}

static inline int is_new(const struct unit *u, int i) {
    return i >= u->from && i < u->to;
}

static inline vf bf16_of(const struct unit *u, int i, const uint32_t *word, ptrdiff_t c) {
    if (is_new(u, i))
        return row_at(u->rows + (i - u->from) * u->ld, c, u->v_dim);
    return u->from == 0 ? vf_set1(0.0f) : vf_load_bf16(word + c, i);
}

static int append_values_bf16(void *panel, float *scale, int row, const float *rows, ptrdiff_t ld,
                              int count, ptrdiff_t v_dim) {
    const ptrdiff_t n = round_to(v_dim, QKV_PANEL);
    vf sum = vf_set1(0.0f), other = sum;
    struct unit u;
    (void)scale;
    for (int t = row; t < row + count; t += u.to - u.from) {
        uint32_t *word = (uint32_t *)panel + t / 2 * n;
        u = unit_at(2, row, t, rows, ld, count, v_dim);
        for (ptrdiff_t c = 0; c < n; c += VF_LANES) {
            ask_ahead(u.rows, ld, c);
            ask_ahead(u.rows, ld, ld + c);
            vf_store_bf16(word + c, bf16_of(&u, 0, word, c), bf16_of(&u, 1, word, c));
            sum = look_at(vf_load_bf16(word + c, 0), sum);
            other = look_at(vf_load_bf16(word + c, 1), other);
        }
    }
    return any_nan(vf_add(sum, other));
}

static inline vf i8_of(const struct unit *u, int i, const uint32_t *word, const float *factor,
                       ptrdiff_t c) {
    if (is_new(u, i))
        return quantised(row_at(u->rows + (i - u->from) * u->ld, c, u->v_dim), vf_set1(factor[i]));
    return u->from == 0 ? vf_set1(0.0f) : vf_load_i8(word + c, i);
}

static int append_values_i8(void *panel, float *scale, int row, const float *rows, ptrdiff_t ld,
                            int count, ptrdiff_t v_dim) {
    const ptrdiff_t n = round_to(v_dim, QKV_PANEL);
    struct unit u;
    int bad = 0;
    for (int t = row; t < row + count; t += u.to - u.from) {
        uint32_t *word = (uint32_t *)panel + t / 4 * n;
        float factor[4] = {0};
        u = unit_at(4, row, t, rows, ld, count, v_dim);
        for (int i = u.from; i < u.to; i++) {
            float *s = scale + t - u.from + i;
            factor[i] = scale_row(s, u.rows + (i - u.from) * ld, v_dim, 127);
            bad |= *s != *s;
        }
        for (int i = u.to; u.from == 0 && i < 4; i++)
            scale[t + i] = 0.0f;
        for (ptrdiff_t c = 0; c < n; c += VF_LANES)
            vf_store_i8(word + c, i8_of(&u, 0, word, factor, c), i8_of(&u, 1, word, factor, c),
                        i8_of(&u, 2, word, factor, c), i8_of(&u, 3, word, factor, c));
    }
    return bad;
}

#include "unpack.h"

#define CACHE_TYPES                                                                                \
    .append_keys = {append_keys_f32, append_keys_f16, append_keys_bf16, append_keys_i8},           \
    .append_values = {append_values_f32, append_values_f16, append_values_bf16, append_values_i8}, \
    .unpack_keys = {unpack_keys_f32, unpack_keys_f16, unpack_keys_bf16, unpack_keys_i8},           \
    .unpack_values = {unpack_values_f32, unpack_values_f16, unpack_values_bf16, unpack_values_i8}

#endif
