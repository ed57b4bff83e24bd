/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose pages are whose: what truncate, share, copy, save and load ask of a sequence before they
 * write anything. holders[page] counts the sequences that have at least one token in a page.
 */
#ifndef QKV_CORE_CACHE_PAGES_H
#define QKV_CORE_CACHE_PAGES_H

#include "cache.h"
#include "problem.h"

/* The panels, and the pages, that so many tokens take. */
static inline int64_t qkv_panels_for(int64_t tokens) {
    return qkv_round_up(tokens, QKV_PANEL) / QKV_PANEL;
}

static inline int64_t qkv_pages_for(const struct qkv_cache_state *s, int64_t tokens) {
    return qkv_round_up(tokens, s->cache.page_tokens) / s->cache.page_tokens;
}

/* That there is such a sequence, and that its length is one. */
qkv_status qkv_check_sequence(const struct qkv_cache_state *s, int64_t sequence, qkv_arg arg);

/* The same, and that it has no tokens. */
qkv_status qkv_check_empty(const struct qkv_cache_state *s, int64_t sequence, qkv_arg arg);

/* That pages [first, end) of a sequence, which has tokens in them, exist and are held. */
qkv_status qkv_check_held(const struct qkv_cache_state *s, int64_t sequence, int64_t first,
                          int64_t end);

/* Pages [first, end) of a sequence, where its first tokens are to go, become held by it alone. They
 * must exist, be held by nobody, and be different ones; after a fault the counts are as they were.
 * The last of all checks: from here on a call may write. */
qkv_status qkv_claim_pages(const struct qkv_cache_state *s, int64_t sequence, int64_t first,
                           int64_t end);

#endif
