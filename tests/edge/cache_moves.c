/* SPDX-License-Identifier: Apache-2.0 */
/* Random calls on a cache: appended, rewound, shared, copied, saved and loaded, with table entries
 * that are changed in between to good pages and bad ones. */
#include "cache_moves.h"

#include <stdlib.h>
#include <string.h>

#include "cache_model.h"

enum { MOVES = 40, FILE_BYTES = 1 << 17, PAGES_MOST = MODEL_SEQUENCES * MODEL_TOKENS / 16 };

struct game {
    struct model m;
    struct rng *rng;
    const qkv_context *context; /* of this move */
    token next;
    bool odd; /* some tokens are */
    unsigned char *file;
    size_t file_size;
    int64_t file_tokens;
    token in_file[MODEL_TOKENS];
};

static int64_t below(struct game *g, int64_t n) {
    return rng_below(g->rng, n);
}

static token new_token(struct game *g) {
    const token t = g->next++;
    return t | (g->odd && rng_chance(g->rng, 4) ? TOKEN_ODD : 0);
}

/* A sequence; rarely one that is not there. */
static int64_t some_sequence(struct game *g) {
    const int64_t s = below(g, g->m.c.cache.sequences);
    return rng_chance(g->rng, 40) ? s - 5 : rng_chance(g->rng, 40) ? s + 5 : s;
}

static bool exists(const struct game *g, int64_t sequence) {
    return sequence >= 0 && sequence < g->m.c.cache.sequences;
}

/* The same, and mostly one that is empty, if any is. */
static int64_t some_receiver(struct game *g) {
    const int64_t s = some_sequence(g), n = g->m.c.cache.sequences;
    for (int64_t i = 0; i < n && exists(g, s) && !rng_chance(g->rng, 10); i++)
        if (g->m.length[(s + i) % n] == 0)
            return (s + i) % n;
    return s;
}

/* A number of tokens up to `most`; rarely beyond it, or below 0. */
static int64_t some_tokens(struct game *g, int64_t most) {
    const int64_t n = below(g, most + 1);
    return rng_chance(g->rng, 20) ? most + 1 + n : rng_chance(g->rng, 40) ? -1 - n : n;
}

/* ---- Moves ---- */

struct batch {
    int32_t sequences[MODEL_SEQUENCES], lens[MODEL_SEQUENCES];
    int64_t count;
    token tokens[MODEL_SEQUENCES][MODEL_TOKENS];
};

static void make_batch(struct game *g, struct batch *b, int64_t most) {
    b->count = 1 + below(g, g->m.c.cache.sequences);
    for (int64_t i = 0; i < b->count; i++) {
        b->sequences[i] = (int32_t)((i + g->next) % (uint64_t)g->m.c.cache.sequences);
        b->lens[i] = (int32_t)below(g, most + 1);
    }
    if (rng_chance(g->rng, 20))
        b->sequences[0] = b->sequences[b->count - 1];
}

/* A page that is half full must be the sequence's alone. */
static void foretell_append(struct faults *f, const struct game *g, const struct batch *b) {
    const struct model *m = &g->m;
    bool taken[PAGES_MOST] = {false}, full = false, twice = false, shared = false;
    for (int64_t i = 0; i < b->count; i++) {
        const int32_t s = b->sequences[i];
        const int64_t length = m->length[s], after = length + b->lens[i], pages = model_pages(m, s);
        for (int64_t k = 0; k < i; k++)
            twice |= b->sequences[k] == s;
        full |= after > m->capacity;
        if (after > m->capacity)
            continue;
        if (b->lens[i] && length % m->c.cache.page_tokens && m->c.cache.table)
            shared |=
                model_holders(m, m->c.cache.table[s * m->c.cache.sequence_pages + pages - 1]) > 1;
        faults_of_pages(f, m, s, pages, model_pages_for(m, after), taken);
    }
    faults_add(f, full, QKV_ARG_CACHE, QKV_FAULT_FULL);
    faults_add(f, twice, QKV_ARG_SEQUENCES, QKV_FAULT_CONFLICT);
    faults_add(f, shared, QKV_ARG_TABLE, QKV_FAULT_SHARED);
}

static struct verdict append(struct game *g) {
    const int64_t most = rng_chance(g->rng, 3) ? 60 : 9;
    struct batch b;
    token rows[MODEL_SEQUENCES * 60];
    struct faults f = {.count = 0};
    make_batch(g, &b, most);
    for (int64_t i = 0; i < b.count * most; i++)
        rows[i] = new_token(g);
    foretell_append(&f, g, &b);
    const qkv_status status =
        cache_append(&g->m.c, g->context, b.count, b.sequences, b.lens, most, rows);
    for (int64_t i = 0; i < b.count && status == QKV_OK; i++) {
        int64_t *length = &g->m.length[b.sequences[i]];
        memcpy(g->m.held[b.sequences[i]] + *length, rows + i * most,
               (size_t)b.lens[i] * sizeof(token));
        *length += b.lens[i];
    }
    return faults_check(&f, status, "append");
}

static void foretell_tokens(struct faults *f, int64_t tokens, int64_t most) {
    faults_add(f, tokens < 0, QKV_ARG_TOKENS, QKV_FAULT_NEGATIVE);
    faults_add(f, tokens > most, QKV_ARG_TOKENS, QKV_FAULT_RANGE);
}

static struct verdict truncate_one(struct game *g) {
    const int64_t s = some_sequence(g), length = exists(g, s) ? g->m.length[s] : 0;
    const int64_t tokens = rng_chance(g->rng, 3) ? 0 : some_tokens(g, length);
    struct faults f = {.count = 0};
    faults_add(&f, !exists(g, s), QKV_ARG_SEQUENCE, QKV_FAULT_RANGE);
    foretell_tokens(&f, tokens, length);
    const qkv_status status = qkv_cache_truncate(&g->m.c.cache, s, tokens);
    if (status == QKV_OK && exists(g, s))
        g->m.length[s] = tokens;
    return faults_check(&f, status, "truncate");
}

static struct verdict inherit(struct game *g, bool share) {
    struct model *m = &g->m;
    const int64_t from = some_sequence(g), to = some_receiver(g);
    const bool known = exists(g, to) && exists(g, from);
    const int64_t length = known ? m->length[from] : 0, tokens = some_tokens(g, length);
    const int64_t first = share ? tokens / m->c.cache.page_tokens : 0;
    bool taken[PAGES_MOST] = {false};
    struct faults f = {.count = 0};
    faults_add(&f, !exists(g, to), QKV_ARG_TO, QKV_FAULT_RANGE);
    faults_add(&f, !exists(g, from), QKV_ARG_FROM, QKV_FAULT_RANGE);
    faults_add(&f, to == from, QKV_ARG_TO, QKV_FAULT_CONFLICT);
    faults_add(&f, known && m->length[to] > 0, QKV_ARG_TO, QKV_FAULT_NOT_EMPTY);
    faults_add(&f, share && !m->c.cache.table, QKV_ARG_TABLE, QKV_FAULT_CONFLICT);
    foretell_tokens(&f, tokens, length);
    if (f.count == 0)
        faults_of_pages(&f, m, to, first, model_pages_for(m, tokens), taken);
    const qkv_status status =
        (share ? qkv_cache_share : qkv_cache_copy)(&m->c.cache, to, from, tokens);
    if (status == QKV_OK && known) {
        memcpy(m->held[to], m->held[from], sizeof m->held[to]);
        m->length[to] = tokens;
    }
    return faults_check(&f, status, share ? "share" : "copy");
}

static struct verdict share_one(struct game *g) {
    return inherit(g, true);
}

static struct verdict copy_one(struct game *g) {
    return inherit(g, false);
}

static struct verdict save_one(struct game *g) {
    const int64_t s = below(g, g->m.c.cache.sequences);
    const size_t size = qkv_cache_save_size(&g->m.c.cache, s);
    const size_t less = rng_chance(g->rng, 10) ? 1 + (size_t)below(g, (int64_t)size) : 0;
    struct faults f = {.count = 0};
    if (size < 64 || size > FILE_BYTES)
        return verdict_fail("save: %zu bytes", size);
    faults_add(&f, less > 0, QKV_ARG_BUFFER, QKV_FAULT_TOO_SMALL);
    const qkv_status status = qkv_cache_save(&g->m.c.cache, s, g->file, size - less);
    if (status == QKV_OK) {
        g->file_size = size;
        g->file_tokens = g->m.length[s];
        memcpy(g->in_file, g->m.held[s], sizeof g->in_file);
    }
    return faults_check(&f, status, "save");
}

/* The last file that was saved, whole; or cut short, or with a bit altered. */
static struct verdict load_one(struct game *g) {
    struct model *m = &g->m;
    const int64_t s = some_receiver(g);
    if (g->file_size == 0)
        return verdict_ok();
    const size_t at = (size_t)below(g, (int64_t)g->file_size);
    const bool cut = rng_chance(g->rng, 10), altered = rng_chance(g->rng, 6);
    const unsigned char bit = (unsigned char)(altered ? 1 << below(g, 8) : 0);
    bool taken[PAGES_MOST] = {false};
    struct faults f = {.count = 0};
    faults_add(&f, !exists(g, s), QKV_ARG_SEQUENCE, QKV_FAULT_RANGE);
    faults_add(&f, exists(g, s) && m->length[s] > 0, QKV_ARG_SEQUENCE, QKV_FAULT_NOT_EMPTY);
    faults_add(&f, cut, QKV_ARG_BUFFER, QKV_FAULT_TOO_SMALL);
    faults_add(&f, altered, QKV_ARG_BUFFER, at < 12 ? QKV_FAULT_LAYOUT : QKV_FAULT_CHECKSUM);
    if (f.count == 0)
        faults_of_pages(&f, m, s, 0, model_pages_for(m, g->file_tokens), taken);
    g->file[at] ^= bit;
    const qkv_status status =
        qkv_cache_load(&m->c.cache, s, g->file, cut ? at : g->file_size + (size_t)below(g, 3));
    g->file[at] ^= bit;
    if (status == QKV_OK && exists(g, s)) {
        memcpy(m->held[s], g->in_file, sizeof g->in_file);
        m->length[s] = g->file_tokens;
    }
    return faults_check(&f, status, "load");
}

/* An entry of the table that nobody needs now: mostly to a page that nobody holds. */
static struct verdict change_table(struct game *g) {
    const qkv_cache *c = &g->m.c.cache;
    const int64_t s = below(g, c->sequences), pages = model_pages(&g->m, s);
    if (!c->table || pages == c->sequence_pages)
        return verdict_ok();
    int32_t *entry = c->table + s * c->sequence_pages + pages + below(g, c->sequence_pages - pages);
    *entry = (int32_t)below(g, c->pages);
    for (int64_t i = 0; i < c->pages && model_holders(&g->m, *entry) > 0; i++)
        *entry = (int32_t)((*entry + 1) % c->pages);
    if (rng_chance(g->rng, 10))
        *entry = (int32_t)(rng_chance(g->rng, 2) ? below(g, c->pages) : below(g, 256) - 128);
    if (rng_chance(g->rng, 6))
        *entry = c->table[s * c->sequence_pages + below(g, c->sequence_pages)];
    return verdict_ok();
}

static struct verdict decode_one(struct game *g) {
    return model_check_decode(&g->m, g->context, below(g, g->m.c.cache.sequences), g->rng);
}

/* ---- The game ---- */

static const struct {
    const char *name;
    struct verdict (*move)(struct game *g);
} moves[] = {
    {"append", append},     {"append", append},      {"truncate", truncate_one},
    {"decode", decode_one}, {"share", share_one},    {"copy", copy_one},
    {"save", save_one},     {"load", load_one},      {"table", change_table},
    {"append", append},     {"table", change_table}, {"truncate", truncate_one},
};

static int64_t total(const struct model *m) {
    int64_t sum = 0;
    for (int64_t s = 0; s < m->c.cache.sequences; s++)
        sum += m->length[s];
    return sum;
}

static struct verdict play(struct game *g, int move, bool all) {
    struct model *m = &g->m;
    const int64_t before = total(m);
    cache_remember(&m->c);
    struct verdict verdict = moves[move].move(g);
    if (verdict.ok)
        verdict = model_check(m, g->context, all);
    /* What changed no length wrote nothing, but for the test's own hand in the table. */
    if (verdict.ok && total(m) == before && moves[move].move != change_table)
        verdict = cache_check_unchanged(&m->c);
    verdict_add(&verdict, "after %s", moves[move].name);
    return verdict;
}

static struct cache_shape some_shape(struct rng *rng) {
    static const int64_t page_tokens[] = {16, 48, 32, 144};
    struct cache_shape shape = {
        .k_dtype = cache_types[rng_below(rng, CACHE_TYPES)],
        .v_dtype = cache_types[rng_below(rng, CACHE_TYPES)],
        .kv_heads = 1 + rng_below(rng, 2),
        .head_dim = 1 + rng_below(rng, 20),
        .v_dim = 1 + rng_below(rng, 20),
        .page_tokens = rng_pick(rng, page_tokens, 4),
        .sequences = 1 + rng_below(rng, MODEL_SEQUENCES),
        .table = !rng_chance(rng, 4),
    };
    shape.sequence_pages = 1 + rng_below(rng, MODEL_TOKENS / shape.page_tokens);
    return shape;
}

struct verdict check_cache_moves(struct rng *rng, const qkv_context *contexts, int count) {
    static struct game game; /* larger than a stack likes */
    struct verdict verdict = verdict_ok();
    struct game *g = &game;
    const struct cache_shape shape = some_shape(rng);
    memset(g, 0, sizeof *g);
    g->rng = rng;
    g->odd = rng_chance(rng, 4);
    g->next = 1;
    g->m.c = cache_make(&shape, (uint64_t)rng_below(rng, 256));
    g->m.capacity = shape.page_tokens * shape.sequence_pages;
    g->file = malloc(FILE_BYTES);
    if (!g->file)
        abort();
    const int64_t calls = 1 + rng_below(rng, MOVES);
    for (int64_t i = 0; i < calls && verdict.ok; i++) {
        g->context = &contexts[rng_below(rng, count)];
        const int move = (int)rng_below(rng, sizeof moves / sizeof *moves);
        verdict = play(g, move, i % 4 == 3 || i == calls - 1);
        verdict_add(&verdict, "call %lld", (long long)i);
    }
    verdict_add(
        &verdict, "types %d %d, %lld heads of %lld and %lld, %lld pages of %lld tokens for %lld%s",
        shape.k_dtype, shape.v_dtype, (long long)shape.kv_heads, (long long)shape.head_dim,
        (long long)shape.v_dim, (long long)shape.sequence_pages, (long long)shape.page_tokens,
        (long long)shape.sequences, shape.table ? ", table" : "");
    free(g->file);
    cache_free(&g->m.c);
    return verdict;
}
