/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tile asks for while it reads keys or values as a cache stores them (kernels_cache.h): a
 * line for each line that it reads. It is one stream, the panels themselves and then what comes
 * next, into the second-level cache; or what comes next alone, in lanes, each a share of its
 * panels, into the first. Some processors' prefetchers follow four streams at one and a half times
 * the speed of one, and a line that comes by way of the second level needs one of the few buffers
 * for lines on their way to the first twice (docs/performance/tried-decode.md). Of the room's own,
 * defined before the include, beside what stored_walk.h wants: HIDE, which keeps a number from
 * being known.
 */
#ifndef QKV_TMPL_STORED_AHEAD_H
#define QKV_TMPL_STORED_AHEAD_H

#include <limits.h>

#include "stored_walk.h"

#define INLINED static inline __attribute__((always_inline))

enum { ASKED_LINE = 64, LANES = 4, MOST_LANES = 8 };

struct asked {
    uintptr_t lane[MOST_LANES];
    uintptr_t past, step; /* bytes that each lane is past its begin, and that an ask moves it on */
    int steps;            /* to the one that asks */
    int near;             /* into the first-level cache */
};

/* How many lanes are asked for beside steps with numbers of that type. Where they are converted,
 * more than four win nothing, and their places would be kept in memory. */
INLINED int lanes_of(const int type) {
    return type == F32 ? MOST_LANES : LANES;
}

/* Before each step, which reads so many bytes: for a line of each lane at once, one of each. */
INLINED void ask(struct asked *asked, const int bytes, const int lanes) {
    const int all = lanes * ASKED_LINE, turn = bytes < all ? all / bytes : 1;
    if (turn > 1) {
        if (--asked->steps)
            return;
        asked->steps = turn;
    } else {
        int steps = asked->steps;
        HIDE(steps); /* one loop, not one with and one without */
        if (steps != 1)
            return;
    }
    int near = asked->near;
    HIDE(near); /* likewise */
    if (near) {
        QKV_UNROLL(8)
        for (int i = 0; i < lanes; i++)
            __builtin_prefetch((const void *)(asked->lane[i] + asked->past), 0, 3);
    } else {
        QKV_UNROLL(8)
        for (int i = 0; i < lanes; i++)
            __builtin_prefetch((const void *)(asked->lane[i] + asked->past), 0, 2);
    }
    asked->past += asked->step;
}

INLINED struct asked nothing(void) {
    return (struct asked){.steps = INT_MAX};
}

/* One stream from `first` on. */
INLINED struct asked one_stream(uintptr_t first, const int lanes) {
    struct asked asked = {.step = (uintptr_t)(lanes * ASKED_LINE), .steps = 1};
    QKV_UNROLL(8)
    for (int i = 0; i < lanes; i++)
        asked.lane[i] = first + (uintptr_t)(i * ASKED_LINE);
    return asked;
}

/* Lanes of what comes next, from panel `index` of each on, `past` bytes on. */
INLINED struct asked in_lanes(const void *const *next, int nexts, int index, ptrdiff_t past,
                              const int lanes) {
    const int share = (nexts + lanes - 1) / lanes;
    struct asked asked = {.past = (uintptr_t)past, .step = ASKED_LINE, .steps = 1, .near = 1};
    QKV_UNROLL(8)
    for (int i = 0; i < lanes; i++) {
        const int at = i * share + index;
        asked.lane[i] = (uintptr_t)next[at < nexts ? at : nexts - 1];
    }
    return asked;
}

/* In how many turns a tile of keys asks, whose panels have so many bytes: what it asks for one
 * after the other need not stand together. */
INLINED int key_turns(const struct qkv_key_product *p, int panel, ptrdiff_t size, const int G) {
    if (!p->next || p->lanes)
        return 1;
    const uintptr_t first = ahead_of(p->panel, p->panels, p->next, p->nexts, panel);
    const uintptr_t last = ahead_of(p->panel, p->panels, p->next, p->nexts, panel + G - 1);
    return last - first == (uintptr_t)((G - 1) * size) ? 1 : G;
}

/* What it asks for in a turn that begins with this panel. */
INLINED struct asked asked_by_keys(const struct qkv_key_product *p, int panel, ptrdiff_t size,
                                   const int lanes) {
    if (!p->next || p->in_order)
        return nothing();
    if (p->lanes)
        return in_lanes(p->next, p->nexts, panel / lanes, panel % lanes * size / lanes, lanes);
    return one_stream(ahead_of(p->panel, p->panels, p->next, p->nexts, panel), lanes);
}

/* Where a tile of values is in what comes next: bytes of the one stream, or of each lane. */
struct asking {
    const void *const *panel; /* its own, and what comes next */
    const void *const *next;
    ptrdiff_t size; /* bytes of a panel */
    int count, nexts, lanes;
    int panels; /* that have been asked for, and bytes of another */
    ptrdiff_t past;
};

/* Before the tile of columns from panel `group` of the `groups` of a token on. The tiles before it
 * have read, and asked for, as much as their share of the tokens' panels is. */
INLINED struct asking asking_of(const struct qkv_value_product *p, ptrdiff_t size, int group,
                                int groups, const int most) {
    const int first = p->from / QKV_PANEL, count = (p->to - 1) / QKV_PANEL + 1 - first;
    const int lanes = p->lanes ? most : 1, read = count * group;
    return (struct asking){
        .panel = p->panel + first,
        .next = p->next,
        .size = size,
        .count = count,
        .nexts = p->nexts,
        .lanes = lanes,
        .panels = read / (groups * lanes),
        .past = read % (groups * lanes) * (size / groups / lanes),
    };
}

/* What it asks for while it reads so much of a panel. */
INLINED struct asked asked_by_values(struct asking *a, ptrdiff_t read, const int lanes) {
    const struct asked asked =
        a->lanes > 1 ? in_lanes(a->next, a->nexts, a->panels, a->past, lanes)
                     : one_stream(ahead_of(a->panel, a->count, a->next, a->nexts, a->panels) +
                                      (uintptr_t)a->past,
                                  lanes);
    a->past += read / a->lanes;
    a->panels += a->past >= a->size;
    a->past -= a->past >= a->size ? a->size : 0;
    return asked;
}

#endif
