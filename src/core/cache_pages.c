/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences that forget tokens, or begin with those of another: truncate, share, copy, and the
 * count of each page's holders. */
#include "cache_pages.h"

#include <string.h>

#include "status.h"

/* ---- What is asked of a sequence ---- */

qkv_status qkv_check_sequence(const struct qkv_cache_state *s, int64_t sequence, qkv_arg arg) {
    const qkv_cache *c = &s->cache;
    if (sequence < 0 || sequence >= c->sequences)
        return qkv_fail(arg, QKV_FAULT_RANGE);
    if (c->lengths[sequence] < 0 || c->lengths[sequence] > c->sequence_pages * c->page_tokens)
        return qkv_fail(QKV_ARG_LENGTHS, QKV_FAULT_LENGTH);
    return QKV_OK;
}

qkv_status qkv_check_empty(const struct qkv_cache_state *s, int64_t sequence, qkv_arg arg) {
    TRY(qkv_check_sequence(s, sequence, arg));
    return s->cache.lengths[sequence] ? qkv_fail(arg, QKV_FAULT_NOT_EMPTY) : QKV_OK;
}

static int64_t page_at(const struct qkv_cache_state *s, int64_t sequence, int64_t i) {
    return qkv_page_of(s, sequence, i * s->cache.page_tokens);
}

qkv_status qkv_check_held(const struct qkv_cache_state *s, int64_t sequence, int64_t first,
                          int64_t end) {
    const qkv_cache *c = &s->cache;
    for (int64_t i = first; i < end; i++) {
        const int64_t page = page_at(s, sequence, i);
        if (!qkv_page_exists(s, page))
            return qkv_fail(QKV_ARG_TABLE, QKV_FAULT_RANGE);
        if (c->holders && (c->holders[page] < 1 || c->holders[page] > c->sequences))
            return qkv_fail(QKV_ARG_HOLDERS, QKV_FAULT_RANGE);
    }
    return QKV_OK;
}

static qkv_status claim_page(const struct qkv_cache_state *s, int64_t page) {
    if (!qkv_page_exists(s, page))
        return qkv_fail(QKV_ARG_TABLE, QKV_FAULT_RANGE);
    if (s->cache.holders && s->cache.holders[page] != 0)
        return qkv_fail(QKV_ARG_TABLE, QKV_FAULT_SHARED);
    if (s->cache.holders)
        s->cache.holders[page] = 1;
    return QKV_OK;
}

static void let_go(const struct qkv_cache_state *s, int64_t sequence, int64_t first, int64_t end) {
    for (int64_t i = first; s->cache.holders && i < end; i++)
        s->cache.holders[page_at(s, sequence, i)]--;
}

/* A page that the table names twice is found because it is held by then. */
qkv_status qkv_claim_pages(const struct qkv_cache_state *s, int64_t sequence, int64_t first,
                           int64_t end) {
    qkv_status status = QKV_OK;
    int64_t i = first;
    while (i < end && (status = claim_page(s, page_at(s, sequence, i))) == QKV_OK)
        i++;
    if (status)
        let_go(s, sequence, first, i);
    return status;
}

/* ---- Truncate ---- */

static qkv_status check_tokens(int64_t tokens, int64_t most) {
    if (tokens < 0)
        return qkv_fail(QKV_ARG_TOKENS, QKV_FAULT_NEGATIVE);
    return tokens > most ? qkv_fail(QKV_ARG_TOKENS, QKV_FAULT_RANGE) : QKV_OK;
}

qkv_status qkv_cache_truncate(const qkv_cache *cache, int64_t sequence, int64_t tokens) {
    struct qkv_cache_state s;
    TRY(qkv_take_cache(&s, cache));
    TRY(qkv_check_sequence(&s, sequence, QKV_ARG_SEQUENCE));
    int32_t *length = s.cache.lengths + sequence;
    TRY(check_tokens(tokens, *length));

    const int64_t first = qkv_pages_for(&s, tokens), end = qkv_pages_for(&s, *length);
    TRY(qkv_check_held(&s, sequence, first, end));
    let_go(&s, sequence, first, end);
    *length = (int32_t)tokens;
    return QKV_OK;
}

/* ---- Share and copy ---- */

static void copy_stored(const struct qkv_stored_layout *l, char *to, const char *from,
                        int64_t panels) {
    memcpy(to + l->data, from + l->data, (size_t)panels * l->panel);
    if (qkv_has_scales(l))
        memcpy(to + l->scales, from + l->scales, (size_t)(panels * QKV_PANEL) * sizeof(float));
}

/* Pages [first, end) of what `tokens` tokens take; of the last one no more than they do. */
static void copy_pages(const struct qkv_cache_state *s, int64_t to, int64_t from, int64_t first,
                       int64_t tokens) {
    for (int64_t t = first * s->cache.page_tokens; t < tokens; t += s->cache.page_tokens) {
        const int64_t panels = qkv_panels_for(qkv_min(s->cache.page_tokens, tokens - t));
        for (int64_t h = 0; h < s->cache.kv_heads; h++) {
            char *target = qkv_page_head(s, qkv_page_of(s, to, t), h);
            char *source = qkv_page_head(s, qkv_page_of(s, from, t), h);
            copy_stored(&s->k, target, source, panels);
            copy_stored(&s->v, target, source, panels);
            memcpy(target + s->flags, source + s->flags, (size_t)panels);
        }
    }
}

/* What share and copy ask alike. */
static qkv_status check_pair(const struct qkv_cache_state *s, int64_t to, int64_t from,
                             int64_t tokens) {
    TRY(qkv_check_sequence(s, to, QKV_ARG_TO));
    TRY(qkv_check_sequence(s, from, QKV_ARG_FROM));
    if (to == from)
        return qkv_fail(QKV_ARG_TO, QKV_FAULT_CONFLICT);
    TRY(qkv_check_empty(s, to, QKV_ARG_TO));
    TRY(check_tokens(tokens, s->cache.lengths[from]));
    return qkv_check_held(s, from, 0, qkv_pages_for(s, tokens));
}

/* One holder more for each of the first `full` pages of a sequence: there is one that has none of
 * them, so no count can be that of all sequences. */
static qkv_status check_one_more(const struct qkv_cache_state *s, int64_t sequence, int64_t full) {
    for (int64_t i = 0; i < full; i++)
        if (s->cache.holders[page_at(s, sequence, i)] >= s->cache.sequences)
            return qkv_fail(QKV_ARG_HOLDERS, QKV_FAULT_RANGE);
    return QKV_OK;
}

qkv_status qkv_cache_share(const qkv_cache *cache, int64_t to, int64_t from, int64_t tokens) {
    struct qkv_cache_state s;
    TRY(qkv_take_cache(&s, cache));
    const qkv_cache *c = &s.cache;
    if (!c->table)
        return qkv_fail(QKV_ARG_TABLE, QKV_FAULT_CONFLICT);
    TRY(check_pair(&s, to, from, tokens));
    const int64_t full = tokens / c->page_tokens;
    TRY(check_one_more(&s, from, full));
    TRY(qkv_claim_pages(&s, to, full, qkv_pages_for(&s, tokens)));

    for (int64_t i = 0; i < full; i++) {
        const int32_t page = (int32_t)page_at(&s, from, i);
        c->table[to * c->sequence_pages + i] = page;
        c->holders[page]++;
    }
    copy_pages(&s, to, from, full, tokens);
    c->lengths[to] = (int32_t)tokens;
    return QKV_OK;
}

qkv_status qkv_cache_copy(const qkv_cache *cache, int64_t to, int64_t from, int64_t tokens) {
    struct qkv_cache_state s;
    TRY(qkv_take_cache(&s, cache));
    TRY(check_pair(&s, to, from, tokens));
    TRY(qkv_claim_pages(&s, to, 0, qkv_pages_for(&s, tokens)));
    copy_pages(&s, to, from, 0, tokens);
    s.cache.lengths[to] = (int32_t)tokens;
    return QKV_OK;
}
