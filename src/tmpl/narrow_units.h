/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sums of a tile in narrow arithmetic: words of a few rows, each of a unit's steps, times the
 * lines of a few panels, one unit after the other. Reads exactly what the sizes say. What comes
 * next is asked for as by the room's products in float32 (stored_ahead.h).
 *
 * Of the room's own, defined before the include, beside what stored_ahead.h wants: STEPS of a unit;
 * PARTS, the vectors of a line; parts_of, into how many sums the units of one are shared out in
 * turn, 1 or 2; ORDERED, is it the same one on all paths; the types of sums and of what is
 * multiplied, vsum and vword; struct sums, those of a tile, and struct held, what it keeps of words
 * or lines; the operations on them; PIN, which keeps a sum in its register.
 */
#ifndef QKV_TMPL_NARROW_UNITS_H
#define QKV_TMPL_NARROW_UNITS_H

#include "stored_ahead.h"

enum {
    WORD = 4,                  /* bytes of a row's unit */
    LINE = 64,                 /* bytes of a panel's, 16 columns */
    UNITS = QKV_PANEL / STEPS, /* of a panel of values */
};

enum operand { KEYS, VALUES };

/* Units [from, to) of some panels on their way through a tile. Where sums are ORDERED, the number
 * of a unit decides which of two it goes to. */
struct stretch {
    const char *line[WIDEST];   /* unit 0, of keys by panel */
    const char *word;           /* unit 0 of the tile's first row */
    ptrdiff_t to_line, to_word; /* bytes to the next unit's line, and to the next row's word */
    struct asked asked;         /* what is asked for meanwhile */
    int from, to;
};

/* Where a stretch has come to: bytes from its unit 0, and what is asked for. */
struct place {
    ptrdiff_t line, word;
    struct asked asked;
};

INLINED vword word_at(const struct stretch *s, const struct place *at, const int r) {
    return words_of(s->word + at->word + r * s->to_word);
}

/* Vector v of the tile's lines: each panel's keys stand for themselves, values side by side. */
INLINED vword line_at(const struct stretch *s, const struct place *at, const enum operand of,
                      const int v) {
    if (of == KEYS)
        return key_line(s->line[v / PARTS] + at->line + v % PARTS * (LINE / PARTS));
    return value_line(s->line[0] + at->line + v * (LINE / PARTS));
}

INLINED void add(vsum *sum, vword words, vword line, const enum operand of) {
    *sum = of == KEYS ? add_key(*sum, words, line) : add_value(*sum, words, line);
    PIN(*sum);
}

/* A unit, with the fewer of words and lines in registers. M, G and `of` are constants where this is
 * inlined, so that the sums live in registers, too. */
INLINED void by_words(struct sums *sums, const int part, const struct stretch *s,
                      const struct place *at, const enum operand of, const int M, const int G) {
    struct held words;
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++)
        *held_at(&words, r) = word_at(s, at, r);
    QKV_UNROLL(8)
    for (int v = 0; v < G * PARTS; v++) {
        const vword line = line_at(s, at, of, v);
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++)
            add(sum_at(sums, part, r, v), *held_at(&words, r), line, of);
    }
}

INLINED void by_lines(struct sums *sums, const int part, const struct stretch *s,
                      const struct place *at, const enum operand of, const int M, const int G) {
    struct held lines;
    QKV_UNROLL(8)
    for (int v = 0; v < G * PARTS; v++)
        *held_at(&lines, v) = line_at(s, at, of, v);
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        const vword words = word_at(s, at, r);
        QKV_UNROLL(8)
        for (int v = 0; v < G * PARTS; v++)
            add(sum_at(sums, part, r, v), words, *held_at(&lines, v), of);
    }
}

/* The next unit, to one of the sums that take turns. */
INLINED void step(struct sums *sums, const int part, const struct stretch *s, struct place *at,
                  const enum operand of, const int M, const int G) {
    ask(&at->asked, G * LINE, LANES);
    if (M < G * PARTS)
        by_words(sums, part, s, at, of, M, G);
    else
        by_lines(sums, part, s, at, of, M, G);
    at->line += s->to_line;
    at->word += WORD;
}

INLINED void add_stretch(struct sums *sums, const struct stretch *s, const enum operand of,
                         const int M, const int G) {
    struct place at = {s->from * s->to_line, s->from * WORD, s->asked};
    int unit = s->from, to = s->to;
    HIDE(to); /* no copies of the loop for each small number of units */
    if (parts_of(M, G) == 1) {
        for (; unit < to; unit++)
            step(sums, 0, s, &at, of, M, G);
        return;
    }
    if (ORDERED && unit % 2 && unit < to) {
        step(sums, 1, s, &at, of, M, G);
        unit++;
    }
    for (; unit + 2 <= to; unit += 2) {
        step(sums, 0, s, &at, of, M, G);
        step(sums, 1, s, &at, of, M, G);
    }
    if (unit < to)
        step(sums, 0, s, &at, of, M, G);
}

INLINED void zero(struct sums *sums, const int part, const int M, const int G) {
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(8)
        for (int v = 0; v < G * PARTS; v++) {
            vsum *sum = sum_at(sums, part, r, v);
            *sum = sum_zero();
            PIN(*sum); /* clang would clear all at once, in memory */
        }
    }
}

INLINED void from_zero(struct sums *sums, const int M, const int G) {
    zero(sums, 0, M, G);
    if (parts_of(M, G) == 2)
        zero(sums, 1, M, G);
}

/* A sum of both parts. */
INLINED vsum whole(struct sums *sums, const int r, const int v, const int M, const int G) {
    const vsum sum = *sum_at(sums, 0, r, v);
    return parts_of(M, G) == 1 ? sum : sum_join(sum, *sum_at(sums, 1, r, v));
}

#endif
