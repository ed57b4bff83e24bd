/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache as the library sees it once it has been checked: where a page keeps what. Within a page,
 * head after head: panels of K, panels of V, the scales of each, and one byte a panel that says
 * whether its V holds infinities or NaN (kept by append: attention need not look).
 */
#ifndef QKV_CORE_CACHE_H
#define QKV_CORE_CACHE_H

#include <qkv/cache.h>

#include "kernels.h"

/* How one of K and V is stored. */
struct qkv_stored_layout {
    int type;            /* a qkv_stored */
    int unit;            /* steps in a unit */
    size_t element;      /* bytes */
    size_t panel;        /* bytes of a panel */
    size_t data, scales; /* offsets within a head's share of a page; scales of I8 alone */
};

struct qkv_cache_state {
    qkv_cache cache; /* v_dim filled in */
    struct qkv_stored_layout k, v;
    size_t flags; /* offset within a head's share */
    size_t head;  /* bytes of a head's share of a page */
    size_t page;  /* bytes of a page */
    int64_t v_pad;
};

/* Takes the caller's struct and checks its numbers and pointers. */
qkv_status qkv_take_cache(struct qkv_cache_state *state, const qkv_cache *cache);

static inline int qkv_has_scales(const struct qkv_stored_layout *s) {
    return s->type == QKV_STORED_I8;
}

/* The page that holds a token, as the table has it: not checked. */
static inline int64_t qkv_page_of(const struct qkv_cache_state *s, int64_t sequence,
                                  int64_t token) {
    const int64_t entry = sequence * s->cache.sequence_pages + token / s->cache.page_tokens;
    return s->cache.table ? s->cache.table[entry] : entry;
}

static inline int qkv_page_exists(const struct qkv_cache_state *s, int64_t page) {
    return page >= 0 && page < s->cache.pages;
}

/* A head's share of a page, and in it the panel that holds token `t` of the page. */
static inline char *qkv_page_head(const struct qkv_cache_state *s, int64_t page, int64_t head) {
    return (char *)s->cache.memory + (size_t)page * s->page + (size_t)head * s->head;
}

static inline char *qkv_stored_panel(const struct qkv_stored_layout *l, char *page_head,
                                     int64_t t) {
    return page_head + l->data + (size_t)(t / QKV_PANEL) * l->panel;
}

/* The scales of that panel's 16 tokens; NULL for a type without. */
static inline float *qkv_stored_scales(const struct qkv_stored_layout *l, char *page_head,
                                       int64_t t) {
    if (!qkv_has_scales(l))
        return NULL;
    return (float *)(page_head + l->scales) + t / QKV_PANEL * QKV_PANEL;
}

static inline unsigned char *qkv_stored_flag(const struct qkv_cache_state *s, char *page_head,
                                             int64_t t) {
    return (unsigned char *)page_head + s->flags + t / QKV_PANEL;
}

#endif
