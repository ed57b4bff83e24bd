/* SPDX-License-Identifier: Apache-2.0 */
/* Caches, their files, and files that are given the checksums of what they hold. */
#include "cache_file_case.h"

#include "support/rng.h"
#include "support/rooms.h"

static const struct {
    int64_t tokens, count;
    bool table;
} pagings[PAGINGS] = {{16, 7, true}, {48, 3, true}, {256, 1, true}, {112, 1, false}};
token tokens[MOST];

void make_tokens(int odd) {
    for (int i = 0; i < MOST; i++)
        tokens[i] = (test_seed() << 20) + (uint64_t)i + (i >= odd ? TOKEN_ODD : 0);
}

struct cache_case make_cache(int pair, int paging) {
    const struct cache_shape shape = {
        .k_dtype = cache_types[pair / CACHE_TYPES],
        .v_dtype = cache_types[pair % CACHE_TYPES],
        .kv_heads = 2,
        .head_dim = 5,
        .v_dim = 18,
        .page_tokens = pagings[paging].tokens,
        .sequences = SEQUENCES,
        .sequence_pages = pagings[paging].count,
        .table = pagings[paging].table,
    };
    return cache_make(&shape, test_seed() + (uint64_t)(pair + paging));
}

void require(struct verdict verdict) {
    if (!verdict.ok)
        ck_abort_msg("%s", verdict.message);
}

void require_ok(qkv_status status) {
    ck_assert_msg(status == QKV_OK, "%s", qkv_status_string(status));
}

void fill(const struct cache_case *c, const qkv_context *context, int64_t count) {
    const int32_t sequence = 0, lens = (int32_t)count;
    require_ok(cache_append(c, context, 1, &sequence, &lens, count, tokens));
}

struct guard save(const struct cache_case *c, size_t offset) {
    const size_t size = qkv_cache_save_size(&c->cache, 0);
    ck_assert_uint_ge(size, HEADER);
    struct guard file = guard_alloc(size, 1, offset & 1 ? GUARD_BEGIN : GUARD_END, offset);
    require_ok(qkv_cache_save(&c->cache, 0, file.data, file.size));
    ck_assert(guard_intact(&file));
    return file;
}

struct saved save_new(const qkv_context *context, int pair, int paging, int64_t count,
                      size_t offset) {
    struct saved s = {.c = make_cache(pair, paging)};
    fill(&s.c, context, count);
    s.file = save(&s.c, offset);
    return s;
}

void saved_free(struct saved *s) {
    cache_free(&s->c);
    guard_free(&s->file);
}

/* ---- Checksums ---- */

static uint64_t word_at(const unsigned char *p) {
    uint64_t word = 0;
    for (int i = 7; i >= 0; i--)
        word = word << 8 | p[i];
    return word;
}

void put_word(unsigned char *p, uint64_t word) {
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(word >> 8 * i);
}

/* Of every `step`-th word. */
static uint64_t sum_of(const unsigned char *p, size_t bytes, size_t step) {
    uint64_t sum = 14695981039346656037U;
    for (size_t i = 0; i < bytes; i += 8 * step) {
        sum = (sum ^ word_at(p + i)) * 1099511628211U;
        sum ^= sum >> 32;
    }
    return sum;
}

static uint64_t payload_sum_of(const struct guard *file) {
    unsigned char lanes[32];
    for (size_t i = 0; i < 4; i++)
        put_word(lanes + 8 * i,
                 sum_of(file->data + HEADER + 8 * i, file->size - HEADER - 8 * i, 4));
    return sum_of(lanes, sizeof lanes, 1);
}

void sign(struct guard *file) {
    put_word(file->data + 40, payload_sum_of(file));
    put_word(file->data + 56, sum_of(file->data, 56, 1));
}
