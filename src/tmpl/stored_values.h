/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chains of a tile of values over all tokens (stored_walk.h), in runs of panels that stand one
 * behind the other. Nothing but the panels' places decides how long a run is: the chains are the
 * same. The room defines, before the include, sums, a row of the tile's; and unit(), which adds
 * one unit.
 */
#ifndef QKV_TMPL_STORED_VALUES_H
#define QKV_TMPL_STORED_VALUES_H

#include "stored_order.h"

/* The tokens [t, end), whose panels stand one behind the other. */
static inline __attribute__((always_inline)) void
value_run(sums *acc, const struct qkv_value_product *p, int row, ptrdiff_t column, int t, int end,
          struct asked asked, const int type, const int M, const int G) {
    const int steps = unit_of(type);
    const ptrdiff_t line = p->n / QKV_PANEL * line_of(type), ldw = p->ldw;
    const char *first = (const char *)p->panel[t / QKV_PANEL] + column / QKV_PANEL * line_of(type);
    const char *b[WIDEST];
    QKV_UNROLL(8)
    for (int v = 0; v < G; v++)
        b[v] = first + v * line_of(type);
    const float *w = (const float *)p->w + row * ldw + t;
    for (ptrdiff_t at = t % QKV_PANEL / steps * line; t < end; t += steps) {
        ask(&asked, G * line_of(type), lanes_of(type));
        unit(acc, b, at, w, ldw, type, M, G);
        at += line;
        w += steps;
    }
}

/* Where the tokens end whose panels stand one behind the other from that of token t on. What
 * stands at the beginning of a run is then worked out once for all of them. In order, a panel is a
 * run, before which a few lines of a later one are asked for. */
static inline int run_end(const struct qkv_value_product *p, int t, ptrdiff_t bytes) {
    const void *const *panel = p->panel + t / QKV_PANEL;
    int end = t / QKV_PANEL * QKV_PANEL + QKV_PANEL;
    for (; !p->in_order && end < p->to &&
           (uintptr_t)panel[1] == (uintptr_t)panel[0] + (uintptr_t)bytes;
         panel++)
        end += QKV_PANEL;
    return end < p->to ? end : p->to;
}

/* Asks for a few lines of what is ahead of the `share` bytes from column on of token t's panel. */
static __attribute__((noinline)) void ask_values(const struct qkv_value_product *p, int t,
                                                 ptrdiff_t column, ptrdiff_t bytes,
                                                 ptrdiff_t share) {
    const int first = p->from / QKV_PANEL, count = (p->to - 1) / QKV_PANEL + 1 - first;
    ask_few(ahead_of(p->panel + first, count, p->next, p->nexts, t / QKV_PANEL - first) +
                (uintptr_t)(bytes * column / p->n),
            share);
}

/* A panel at a time: what is asked for ahead need not stand together where the panels do. */
static inline __attribute__((always_inline)) void
value_chains_asking(sums *acc, const struct qkv_value_product *p, int row, ptrdiff_t column,
                    const int type, const int M, const int G) {
    const int steps = unit_of(type), groups = (int)(p->n / QKV_PANEL), read = G * line_of(type);
    const ptrdiff_t size = QKV_PANEL / steps * groups * line_of(type);
    struct asking asking = asking_of(p, size, (int)(column / QKV_PANEL), groups, lanes_of(type));
    for (int t = p->from / steps * steps, end; t < p->to; t = end) {
        end = t / QKV_PANEL * QKV_PANEL + QKV_PANEL;
        end = end < p->to ? end : p->to;
        const struct asked asked =
            asked_by_values(&asking, QKV_PANEL / steps * read, lanes_of(type));
        value_run(acc, p, row, column, t, end, asked, type, M, G);
    }
}

static inline __attribute__((always_inline)) void
value_chains(sums *acc, const struct qkv_value_product *p, int row, ptrdiff_t column,
             const int type, const int M, const int G) {
    const int steps = unit_of(type);
    const ptrdiff_t bytes = QKV_PANEL / steps * (p->n / QKV_PANEL) * line_of(type);
    if (p->next && !p->in_order) {
        value_chains_asking(acc, p, row, column, type, M, G);
        return;
    }
    for (int t = p->from / steps * steps, end; t < p->to; t = end) {
        end = run_end(p, t, bytes);
        if (ORDER_ASKS > 0 && p->next)
            ask_values(p, t, column, bytes, QKV_PANEL / steps * G * line_of(type));
        value_run(acc, p, row, column, t, end, nothing(), type, M, G);
    }
}

#endif
