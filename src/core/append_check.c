/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Has the cache room for new tokens (append.h)? A look at each of the batch's sequences, and at
 * each page that the tokens go to; never at whole tables.
 */
#include "append.h"

/* The pages of sequence b that its new tokens go to: [first, end) of its table, of which the first
 * holds tokens already if `continues`. */
struct pages {
    int64_t sequence, first, end;
    int continues;
};

static struct pages pages_of(const struct qkv_append_state *s, int64_t b) {
    const int64_t page = s->cache.cache.page_tokens, n = qkv_tokens_of(&s->rows, b);
    const int64_t sequence = qkv_append_sequence(s, b), length = s->cache.cache.lengths[sequence];
    struct pages p = {.sequence = sequence, .first = length / page};
    p.end = n ? (length + n - 1) / page + 1 : p.first;
    p.continues = length % page != 0;
    return p;
}

static int64_t page_at(const struct qkv_append_state *s, const struct pages *p, int64_t i) {
    return qkv_page_of(&s->cache, p->sequence, i * s->cache.cache.page_tokens);
}

static qkv_status check_sequence(const struct qkv_append_state *s, int64_t b) {
    const qkv_cache *c = &s->cache.cache;
    const int64_t sequence = qkv_append_sequence(s, b), room = c->sequence_pages * c->page_tokens;
    if (sequence < 0 || sequence >= c->sequences)
        return qkv_fail(QKV_ARG_SEQUENCES, QKV_FAULT_RANGE);
    if (c->lengths[sequence] < 0 || c->lengths[sequence] > room)
        return qkv_fail(QKV_ARG_LENGTHS, QKV_FAULT_LENGTH);
    if (qkv_tokens_of(&s->rows, b) > room - c->lengths[sequence])
        return qkv_fail(QKV_ARG_CACHE, QKV_FAULT_FULL);
    return QKV_OK;
}

/* Every length is 0 or more: the complement marks a sequence that was met. */
static qkv_status check_different(const struct qkv_append_state *s) {
    int32_t *lengths = s->cache.cache.lengths;
    int64_t b = 1;
    while (b < s->rows.batch && s->sequences[b - 1] < s->sequences[b])
        b++;
    if (b >= s->rows.batch)
        return QKV_OK;
    for (b = 0; b < s->rows.batch && lengths[s->sequences[b]] >= 0; b++)
        lengths[s->sequences[b]] = ~lengths[s->sequences[b]];
    const int twice = b < s->rows.batch;
    while (--b >= 0)
        lengths[s->sequences[b]] = ~lengths[s->sequences[b]];
    return twice ? qkv_fail(QKV_ARG_SEQUENCES, QKV_FAULT_CONFLICT) : QKV_OK;
}

static qkv_status check_table(const struct qkv_append_state *s, int64_t b) {
    const struct pages p = pages_of(s, b);
    for (int64_t i = p.first; i < p.end; i++)
        if (!qkv_page_exists(&s->cache, page_at(s, &p, i)))
            return qkv_fail(QKV_ARG_TABLE, QKV_FAULT_RANGE);
    return QKV_OK;
}

/* A page that is continued is this sequence's alone; one that begins is nobody's. */
static int is_free(const struct qkv_append_state *s, const struct pages *p, int64_t i) {
    return s->cache.cache.holders[page_at(s, p, i)] == (i == p->first && p->continues);
}

/* ---- A page must not begin twice ---- */

/* Every page's holders are 0 or 1: the sign bit marks a page that was met. */
#define MARK INT32_MIN

static int is_marked(int32_t holders) {
    return holders == MARK || holders == (MARK | 1);
}

static void unmark(const struct qkv_append_state *s, int64_t b) {
    const struct pages p = pages_of(s, b);
    for (int64_t i = p.first; i < p.end; i++) {
        int32_t *holders = s->cache.cache.holders + page_at(s, &p, i);
        if (is_marked(*holders))
            *holders ^= MARK;
    }
}

static qkv_status mark(const struct qkv_append_state *s, int64_t b) {
    const struct pages p = pages_of(s, b);
    for (int64_t i = p.first; i < p.end; i++) {
        if (!is_free(s, &p, i))
            return qkv_fail(QKV_ARG_TABLE, QKV_FAULT_SHARED);
        s->cache.cache.holders[page_at(s, &p, i)] ^= MARK;
    }
    return QKV_OK;
}

static qkv_status check_holders(const struct qkv_append_state *s) {
    qkv_status status = QKV_OK;
    int64_t b = 0;
    for (; b < s->rows.batch && !status; b++)
        status = mark(s, b);
    while (--b >= 0)
        unmark(s, b);
    return status;
}

/* ---- Before a plan, and when it runs ---- */

uint64_t qkv_append_signature(const struct qkv_append_state *s) {
    uint64_t bits = 0;
    for (int64_t b = 0; b < s->rows.batch; b++) {
        bits = qkv_mix_bits(bits + (uint64_t)qkv_append_sequence(s, b));
        bits = qkv_mix_bits(bits + (uint64_t)qkv_append_length(s, b));
        bits = qkv_mix_bits(bits + (uint64_t)qkv_tokens_of(&s->rows, b));
    }
    return bits;
}

static qkv_status check_sequences(const struct qkv_append_state *s) {
    for (int64_t b = 0; b < s->rows.batch; b++)
        TRY(check_sequence(s, b));
    return QKV_OK;
}

qkv_status qkv_append_check(const struct qkv_append_state *s) {
    if (s->rows.batch > s->cache.cache.sequences)
        return qkv_fail(QKV_ARG_BATCH, QKV_FAULT_RANGE);
    TRY(check_sequences(s));
    if (s->sequences)
        TRY(check_different(s));
    for (int64_t b = 0; b < s->rows.batch && s->cache.cache.table; b++)
        TRY(check_table(s, b));
    return s->cache.cache.holders ? check_holders(s) : QKV_OK;
}

qkv_status qkv_append_check_same(const struct qkv_append_state *s) {
    TRY(qkv_check_token_rows(&s->rows));
    TRY(check_sequences(s));
    return qkv_append_signature(s) == s->signature ? QKV_OK
                                                   : qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
}

qkv_status qkv_append_check_pages(const struct qkv_append_state *s, int64_t b, int64_t from,
                                  int64_t to) {
    const int64_t page = s->cache.cache.page_tokens;
    const struct pages p = pages_of(s, b);
    for (int64_t i = from / page; i * page < to; i++) {
        if (!qkv_page_exists(&s->cache, page_at(s, &p, i)))
            return qkv_fail(QKV_ARG_TABLE, QKV_FAULT_RANGE);
        if (s->cache.cache.holders && !is_free(s, &p, i))
            return qkv_fail(QKV_ARG_TABLE, QKV_FAULT_SHARED);
    }
    return QKV_OK;
}
