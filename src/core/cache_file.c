/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence as bytes, and back: a header of 64, then panel after panel, of each the heads in
 * order, and of each head the panel of K, that of V, and the scales of both. All numbers are
 * little-endian, as the machines are that this library runs on. What holds no token is zero, so
 * that the same tokens make the same file from any cache.
 */
#include <string.h>

#include "cache_pages.h"
#include "status.h"

struct file_header {
    char magic[8];
    uint32_t version;
    uint16_t k_dtype, v_dtype;
    uint32_t kv_heads;
    uint16_t head_dim, v_dim;
    uint32_t tokens, panel;
    uint64_t payload;     /* bytes that follow */
    uint64_t payload_sum; /* their checksum */
    uint64_t zero;
    uint64_t header_sum; /* that of all the above */
};

_Static_assert(sizeof(struct file_header) == 64, "the header is 64 bytes");

enum { FILE_VERSION = 1 };

/* ---- Checksum ---- */

/* FNV-1a (Fowler, Noll and Vo) on words of 64 bits, with a shift, since the low bits of a product
 * know nothing of the high bits of its factors. One multiplication for eight bytes, and no table.
 * Each step is a one-to-one map of the sum so far, and of the word, so that a change within one
 * word is always found; any other with a chance of 1 - 2^-64, as far as it is not made on purpose:
 * this is no signature. A payload's words go to four sums in turn, which do not wait for each
 * other, and these into one. */
#define SUM_START 0xcbf29ce484222325ULL
#define SUM_FACTOR 0x100000001b3ULL

enum { LANES = 4 };

struct lanes {
    uint64_t sum[LANES];
};

static inline uint64_t sum_with(uint64_t sum, const char *word) {
    uint64_t x;
    memcpy(&x, word, sizeof(x));
    sum = (sum ^ x) * SUM_FACTOR;
    return sum ^ sum >> 32;
}

static uint64_t sum_of(const void *data, size_t bytes) {
    uint64_t sum = SUM_START;
    for (size_t i = 0; i < bytes; i += sizeof(sum))
        sum = sum_with(sum, (const char *)data + i);
    return sum;
}

static const struct lanes no_payload = {{SUM_START, SUM_START, SUM_START, SUM_START}};

/* bytes is a multiple of 32, which every panel and its scales are. */
static struct lanes sum_payload(struct lanes lanes, const char *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i += sizeof(lanes)) {
        QKV_UNROLL(4)
        for (int k = 0; k < LANES; k++) {
            lanes.sum[k] = sum_with(lanes.sum[k], data + i + (size_t)k * sizeof(uint64_t));
        }
    }
    return lanes;
}

static uint64_t header_sum_of(const struct file_header *h) {
    return sum_of(h, offsetof(struct file_header, header_sum));
}

/* ---- Sizes ---- */

static size_t scale_bytes(const struct qkv_stored_layout *l) {
    return qkv_has_scales(l) ? QKV_PANEL * sizeof(float) : 0;
}

/* One panel of one head. */
static size_t panel_bytes(const struct qkv_cache_state *s) {
    return s->k.panel + s->v.panel + scale_bytes(&s->k) + scale_bytes(&s->v);
}

/* The size of a file. Non-zero if it does not fit in memory. */
static int file_overflows(const struct qkv_cache_state *s, int64_t tokens, size_t *size) {
    const size_t panels = (size_t)qkv_panels_for(tokens);
    return __builtin_mul_overflow(panel_bytes(s), (size_t)s->cache.kv_heads, size) ||
           __builtin_mul_overflow(*size, panels, size) ||
           __builtin_add_overflow(*size, sizeof(struct file_header), size) || *size > PTRDIFF_MAX;
}

/* ---- Arguments ---- */

static int overlaps(const void *a, size_t a_size, const void *b, size_t b_size) {
    const uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
    return a && b && (x < y ? y - x < a_size : x - y < b_size);
}

/* The buffer is there, long enough, and none of the cache's own memory. */
static qkv_status check_buffer(const struct qkv_cache_state *s, const void *buffer,
                               size_t buffer_size, size_t size) {
    const qkv_cache *c = &s->cache;
    const size_t sequences = (size_t)c->sequences, pages = (size_t)c->pages;
    if (!buffer)
        return qkv_fail(QKV_ARG_BUFFER, QKV_FAULT_NULL);
    if (buffer_size < size)
        return qkv_fail(QKV_ARG_BUFFER, QKV_FAULT_TOO_SMALL);
    if (overlaps(buffer, size, c->memory, s->page * pages) ||
        overlaps(buffer, size, c->table, sequences * (size_t)c->sequence_pages * sizeof(int32_t)) ||
        overlaps(buffer, size, c->lengths, sequences * sizeof(int32_t)) ||
        overlaps(buffer, size, c->holders, pages * sizeof(int32_t)))
        return qkv_fail(QKV_ARG_BUFFER, QKV_FAULT_OVERLAP);
    return QKV_OK;
}

static qkv_status take_sequence(struct qkv_cache_state *s, const qkv_cache *cache,
                                int64_t sequence) {
    TRY(qkv_take_cache(s, cache));
    TRY(qkv_check_sequence(s, sequence, QKV_ARG_SEQUENCE));
    return qkv_check_held(s, sequence, 0, qkv_pages_for(s, s->cache.lengths[sequence]));
}

/* ---- Save ---- */

/* Zeros in the columns of K from `tokens` on: [steps][16][unit]. */
static void clear_columns(char *panel, const struct qkv_stored_layout *l, size_t tokens) {
    const size_t column = (size_t)l->unit * l->element, step = QKV_PANEL * column;
    for (size_t at = 0; at < l->panel; at += step)
        memset(panel + at + tokens * column, 0, step - tokens * column);
}

/* Zeros in the rows of V from `tokens` on: [16 / unit][v_pad][unit]. */
static void clear_rows(char *panel, const struct qkv_stored_layout *l, size_t tokens) {
    const size_t unit = (size_t)l->unit, whole = tokens / unit * unit, row = l->panel / QKV_PANEL;
    const size_t word = unit * l->element, held = tokens % unit * l->element;
    size_t at = whole * row;
    if (held)
        for (size_t end = at + unit * row; at < end; at += word)
            memset(panel + at + held, 0, word - held);
    memset(panel + at, 0, l->panel - at);
}

/* The scales of a panel, and zeros for what holds no token. Returns the end of what it wrote. */
static char *save_scales(char *to, const float *scales, size_t tokens) {
    const size_t bytes = tokens * sizeof(float);
    if (!scales)
        return to;
    memcpy(to, scales, bytes);
    memset(to + bytes, 0, QKV_PANEL * sizeof(float) - bytes);
    return to + QKV_PANEL * sizeof(float);
}

/* The panel of a head that begins with token t of its page, of which `tokens` are there. */
static void save_panel(const struct qkv_cache_state *s, char *to, char *page_head, int64_t t,
                       size_t tokens) {
    char *k = to, *v = to + s->k.panel;
    memcpy(k, qkv_stored_panel(&s->k, page_head, t), s->k.panel);
    memcpy(v, qkv_stored_panel(&s->v, page_head, t), s->v.panel);
    if (tokens < QKV_PANEL) {
        clear_columns(k, &s->k, tokens);
        clear_rows(v, &s->v, tokens);
    }
    to = save_scales(v + s->v.panel, qkv_stored_scales(&s->k, page_head, t), tokens);
    save_scales(to, qkv_stored_scales(&s->v, page_head, t), tokens);
}

static uint64_t save_tokens(const struct qkv_cache_state *s, int64_t sequence, int64_t tokens,
                            char *to) {
    const size_t bytes = panel_bytes(s);
    struct lanes lanes = no_payload;
    for (int64_t t = 0; t < tokens; t += QKV_PANEL)
        for (int64_t h = 0; h < s->cache.kv_heads; h++) {
            char *page_head = qkv_page_head(s, qkv_page_of(s, sequence, t), h);
            save_panel(s, to, page_head, t % s->cache.page_tokens,
                       (size_t)qkv_min(QKV_PANEL, tokens - t));
            lanes = sum_payload(lanes, to, bytes);
            to += bytes;
        }
    return sum_of(&lanes, sizeof(lanes));
}

/* The header of a file that this cache can hold, without its sums. */
static struct file_header header_of(const struct qkv_cache_state *s, int64_t tokens,
                                    size_t payload) {
    return (struct file_header){
        .magic = {'q', 'k', 'v', 'c', 'a', 'c', 'h', 'e'},
        .version = FILE_VERSION,
        .k_dtype = (uint16_t)s->cache.k_dtype,
        .v_dtype = (uint16_t)s->cache.v_dtype,
        .kv_heads = (uint32_t)s->cache.kv_heads,
        .head_dim = (uint16_t)s->cache.head_dim,
        .v_dim = (uint16_t)s->cache.v_dim,
        .tokens = (uint32_t)tokens,
        .panel = QKV_PANEL,
        .payload = payload,
    };
}

size_t qkv_cache_save_size(const qkv_cache *cache, int64_t sequence) {
    struct qkv_cache_state s;
    size_t size;
    if (take_sequence(&s, cache, sequence) != QKV_OK ||
        file_overflows(&s, s.cache.lengths[sequence], &size))
        return 0;
    return size;
}

qkv_status qkv_cache_save(const qkv_cache *cache, int64_t sequence, void *buffer,
                          size_t buffer_size) {
    struct qkv_cache_state s;
    size_t size;
    TRY(take_sequence(&s, cache, sequence));
    const int64_t tokens = s.cache.lengths[sequence];
    if (file_overflows(&s, tokens, &size))
        return qkv_fail(QKV_ARG_BUFFER, QKV_FAULT_OVERFLOW);
    TRY(check_buffer(&s, buffer, buffer_size, size));

    struct file_header header = header_of(&s, tokens, size - sizeof(header));
    header.payload_sum = save_tokens(&s, sequence, tokens, (char *)buffer + sizeof(header));
    header.header_sum = header_sum_of(&header);
    memcpy(buffer, &header, sizeof(header));
    return QKV_OK;
}

/* ---- Load ---- */

/* A header of this format, of a cache like this one. What tells one from other bytes comes first:
 * only then is an altered header one that was altered. */
static qkv_status check_header(const struct qkv_cache_state *s, const struct file_header *h) {
    struct file_header want = header_of(s, h->tokens, h->payload);
    size_t size;
    if (memcmp(h, &want, offsetof(struct file_header, k_dtype)) != 0)
        return qkv_fail(QKV_ARG_BUFFER, QKV_FAULT_LAYOUT);
    if (h->header_sum != header_sum_of(h))
        return qkv_fail(QKV_ARG_BUFFER, QKV_FAULT_CHECKSUM);
    want.payload_sum = h->payload_sum;
    want.header_sum = h->header_sum;
    if (memcmp(h, &want, sizeof(want)) != 0)
        return qkv_fail(QKV_ARG_BUFFER, QKV_FAULT_LAYOUT);
    if (h->tokens > s->cache.sequence_pages * s->cache.page_tokens)
        return qkv_fail(QKV_ARG_CACHE, QKV_FAULT_FULL);
    if (file_overflows(s, h->tokens, &size) || h->payload != size - sizeof(*h))
        return qkv_fail(QKV_ARG_BUFFER, QKV_FAULT_LAYOUT);
    return QKV_OK;
}

/* A scale is zero, a positive number or NaN. */
static int scales_are_bad(const char *scales, size_t bytes) {
    const uint32_t infinite = 0x7f800000u, sign = 0x80000000u;
    int bad = 0;
    for (size_t i = 0; i < bytes; i += sizeof(uint32_t)) {
        uint32_t x;
        memcpy(&x, scales + i, sizeof(x));
        bad |= x == infinite || (x >= sign && x <= (sign | infinite));
    }
    return bad;
}

static qkv_status check_payload(const struct qkv_cache_state *s, const struct file_header *h,
                                const char *payload) {
    const size_t bytes = panel_bytes(s), numbers = s->k.panel + s->v.panel;
    struct lanes lanes = no_payload;
    int bad = 0;
    for (size_t at = 0; at < h->payload; at += bytes) {
        lanes = sum_payload(lanes, payload + at, bytes);
        bad |= scales_are_bad(payload + at + numbers, bytes - numbers);
    }
    if (sum_of(&lanes, sizeof(lanes)) != h->payload_sum)
        return qkv_fail(QKV_ARG_BUFFER, QKV_FAULT_CHECKSUM);
    return bad ? qkv_fail(QKV_ARG_BUFFER, QKV_FAULT_VALUE) : QKV_OK;
}

static int float_is_not_finite(const char *p) {
    uint32_t x;
    memcpy(&x, p, sizeof(x));
    return (x & 0x7f800000u) == 0x7f800000u;
}

static int half_is_not_finite(const char *p, unsigned exponent) {
    uint16_t x;
    memcpy(&x, p, sizeof(x));
    return (x & exponent) == exponent;
}

/* Does a panel of V, with its scales, hold infinities or NaN? */
static int panel_is_not_finite(const struct qkv_stored_layout *l, const char *panel,
                               const float *scales) {
    static const unsigned exponent[QKV_STORED_COUNT] = {
        [QKV_STORED_F16] = 0x7c00, [QKV_STORED_BF16] = 0x7f80};
    int found = 0;
    if (l->type == QKV_STORED_I8)
        for (int i = 0; i < QKV_PANEL; i++)
            found |= float_is_not_finite((const char *)(scales + i));
    else if (l->type == QKV_STORED_F32)
        for (size_t at = 0; at < l->panel; at += l->element)
            found |= float_is_not_finite(panel + at);
    else
        for (size_t at = 0; at < l->panel; at += l->element)
            found |= half_is_not_finite(panel + at, exponent[l->type]);
    return found;
}

static const char *load_stored(const struct qkv_stored_layout *l, char *page_head, int64_t t,
                               const char *from) {
    memcpy(qkv_stored_panel(l, page_head, t), from, l->panel);
    return from + l->panel;
}

static const char *load_scales(const struct qkv_stored_layout *l, char *page_head, int64_t t,
                               const char *from) {
    if (qkv_has_scales(l))
        memcpy(qkv_stored_scales(l, page_head, t), from, scale_bytes(l));
    return from + scale_bytes(l);
}

static void load_tokens(const struct qkv_cache_state *s, int64_t sequence, int64_t tokens,
                        const char *from) {
    for (int64_t first = 0; first < tokens; first += QKV_PANEL)
        for (int64_t h = 0; h < s->cache.kv_heads; h++) {
            char *page_head = qkv_page_head(s, qkv_page_of(s, sequence, first), h);
            const int64_t t = first % s->cache.page_tokens;
            from = load_stored(&s->k, page_head, t, from);
            from = load_stored(&s->v, page_head, t, from);
            from = load_scales(&s->k, page_head, t, from);
            from = load_scales(&s->v, page_head, t, from);
            *qkv_stored_flag(s, page_head, t) =
                (unsigned char)panel_is_not_finite(&s->v, qkv_stored_panel(&s->v, page_head, t),
                                                   qkv_stored_scales(&s->v, page_head, t));
        }
}

qkv_status qkv_cache_load(const qkv_cache *cache, int64_t sequence, const void *buffer,
                          size_t buffer_size) {
    struct qkv_cache_state s;
    struct file_header header;
    TRY(qkv_take_cache(&s, cache));
    TRY(qkv_check_empty(&s, sequence, QKV_ARG_SEQUENCE));
    TRY(check_buffer(&s, buffer, buffer_size, sizeof(header)));
    memcpy(&header, buffer, sizeof(header));
    TRY(check_header(&s, &header));
    TRY(check_buffer(&s, buffer, buffer_size, sizeof(header) + header.payload));
    TRY(check_payload(&s, &header, (const char *)buffer + sizeof(header)));
    TRY(qkv_claim_pages(&s, sequence, 0, qkv_pages_for(&s, header.tokens)));

    load_tokens(&s, sequence, header.tokens, (const char *)buffer + sizeof(header));
    s.cache.lengths[sequence] = (int32_t)header.tokens;
    return QKV_OK;
}
