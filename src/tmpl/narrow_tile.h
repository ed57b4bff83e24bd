/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tiles of a product in narrow arithmetic with keys or values as a cache stores them
 * (kernels_cache.h), for the walk of stored_walk.h, over narrow_units.h and what that wants of the
 * room; and key_sum and value_sum, a sum as floats. Reads and writes exactly what the sizes say.
 */
#ifndef QKV_TMPL_NARROW_TILE_H
#define QKV_TMPL_NARROW_TILE_H

#include "narrow_units.h"

/* ---- Keys ---- */

INLINED void leave_scores(const struct qkv_key_product *p, struct sums *sums, int row, int panel,
                          const int M, const int G) {
    float *s = p->s + row * p->lds + panel * QKV_PANEL;
    QKV_UNROLL(8)
    for (int v = 0; v < G * PARTS; v++) {
        const vf scale =
            p->scale ? vf_load(p->scale[panel + v / PARTS] + v % PARTS * VF_LANES) : vf_set1(1.0f);
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            const vf sum = key_sum(p, row + r, whole(sums, r, v, M, G));
            vf_store(s + r * p->lds + v * VF_LANES,
                     vf_mul(vf_mul(sum, vf_set1(p->row_scale[row + r])), scale));
        }
    }
}

INLINED void key_tile(const struct qkv_key_product *p, int row, int panel, const int M,
                      const int G) {
    const int units = (int)((p->k + STEPS - 1) / STEPS);
    struct sums sums;
    struct stretch s = {.word = (const char *)p->q + row * p->ldq * WORD,
                        .to_line = LINE,
                        .to_word = p->ldq * WORD};
    from_zero(&sums, M, G);
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++)
        s.line[v] = p->panel[panel + v];

    const int turns = key_turns(p, panel, units * LINE, G);
    for (int i = 0; i < turns; i++) {
        s.from = units * i / turns;
        s.to = units * (i + 1) / turns;
        s.asked = asked_by_keys(p, panel + i, units * LINE, LANES);
        add_stretch(&sums, &s, KEYS, M, G);
    }
    leave_scores(p, &sums, row, panel, M, G);
}

/* ---- Values ---- */

INLINED void leave_values(const struct qkv_value_product *p, struct sums *sums, int row,
                          ptrdiff_t column, const int M, const int G) {
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        float *to = p->acc + (row + r) * p->ld_acc + column;
        const vf scale = vf_set1(p->row_scale[row + r]);
        const vf factor = vf_set1(p->factor ? p->factor[row + r] : 0.0f);
        QKV_UNROLL(8)
        for (int v = 0; v < G * PARTS; v++) {
            vf x = vf_mul(value_sum(whole(sums, r, v, M, G)), scale);
            if (p->factor)
                x = vf_fma(vf_load(to + v * VF_LANES), factor, x);
            vf_store(to + v * VF_LANES, x);
        }
    }
}

/* Unit 0 is the first of each panel: there are as many in a panel as share out evenly. */
INLINED void value_tile(const struct qkv_value_product *p, int row, ptrdiff_t column, const int M,
                        const int G) {
    const int groups = (int)(p->n / QKV_PANEL), group = (int)(column / QKV_PANEL);
    const int begin = p->from / QKV_PANEL, count = (p->to - 1) / QKV_PANEL + 1 - begin;
    const int end = (p->to + STEPS - 1) / STEPS; /* of the units */
    struct sums sums;
    struct stretch s = {.to_line = groups * LINE,
                        .to_word = p->ldw * WORD,
                        .asked = nothing(),
                        .from = p->from % QKV_PANEL / STEPS};
    from_zero(&sums, M, G);
    struct asking asking = asking_of(p, UNITS * groups * LINE, group, groups, LANES);
    for (int i = begin; i < begin + count; i++) {
        s.line[0] = (const char *)p->panel[i] + group * LINE;
        s.word = (const char *)p->w + row * s.to_word + i * UNITS * WORD;
        s.to = end - i * UNITS < UNITS ? end - i * UNITS : UNITS;
        if (p->next)
            s.asked = asked_by_values(&asking, UNITS * G * LINE, LANES);
        add_stretch(&sums, &s, VALUES, M, G);
        s.from = 0;
    }
    leave_values(p, &sums, row, column, M, G);
}

/* The tiles of so many rows and panels, and their places in tables by rows and by the logarithm of
 * the width. */
#define TILE(rows, groups)                                                                    \
    static void keys_##rows##x##groups(const struct qkv_key_product *p, int row, int panel) { \
        key_tile(p, row, panel, rows, groups);                                                \
    }                                                                                         \
    static void values_##rows##x##groups(const struct qkv_value_product *p, int row,          \
                                         ptrdiff_t column) {                                  \
        value_tile(p, row, column, rows, groups);                                             \
    }
#define KEY_TILE(rows, groups) keys_##rows##x##groups,
#define VALUE_TILE(rows, groups) values_##rows##x##groups,

#endif
