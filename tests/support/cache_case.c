/* SPDX-License-Identifier: Apache-2.0 */
/* Caches in guarded memory, tokens put into them, and the numbers that must come out. */
#include "cache_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"

const int32_t cache_types[CACHE_TYPES] = {QKV_F32, QKV_F16, QKV_BF16, QKV_I8};

/* ---- Memory ---- */

static int32_t *words(const struct guard *memory) {
    return (int32_t *)(void *)memory->data;
}

static struct guard make_words(int64_t count, enum guard_side side) {
    struct guard memory = guard_alloc((size_t)count * sizeof(int32_t), 4, side, 0);
    memset(memory.data, 0, memory.size);
    return memory;
}

static void shuffle_pages(int32_t *table, int64_t pages, uint64_t seed) {
    struct rng rng = rng_seeded(seed);
    for (int64_t i = 0; i < pages; i++) {
        const int64_t j = rng_below(&rng, i + 1);
        table[i] = table[j];
        table[j] = (int32_t)i;
    }
}

struct cache_case cache_make(const struct cache_shape *shape, uint64_t seed) {
    struct cache_case c = {0};
    const enum guard_side side = seed & 1 ? GUARD_BEGIN : GUARD_END;
    qkv_cache_init(&c.cache);
    c.cache.kv_heads = shape->kv_heads;
    c.cache.head_dim = shape->head_dim;
    c.cache.v_dim = shape->v_dim;
    c.cache.page_tokens = shape->page_tokens;
    c.cache.sequences = shape->sequences;
    c.cache.sequence_pages = shape->sequence_pages;
    c.cache.pages = shape->sequences * shape->sequence_pages;
    c.cache.k_dtype = shape->k_dtype;
    c.cache.v_dtype = shape->v_dtype;
    c.memory = guard_alloc(qkv_cache_memory_size(&c.cache), QKV_ALIGNMENT, side, 0);
    memset(c.memory.data, 0xff, c.memory.size); /* NaN, whatever it is read as */
    c.lengths = make_words(shape->sequences, side);
    c.holders = make_words(c.cache.pages, side);
    c.cache.memory = c.memory.data;
    c.cache.lengths = words(&c.lengths);
    c.cache.holders = words(&c.holders);
    if (shape->table) {
        c.table = make_words(c.cache.pages, side);
        c.cache.table = words(&c.table);
        shuffle_pages(c.cache.table, c.cache.pages, seed);
    }
    return c;
}

static void memories(const struct cache_case *c, const struct guard *m[4]) {
    m[0] = &c->memory;
    m[1] = &c->table;
    m[2] = &c->lengths;
    m[3] = &c->holders;
}

void cache_free(struct cache_case *c) {
    guard_free(&c->memory);
    guard_free(&c->table);
    guard_free(&c->lengths);
    guard_free(&c->holders);
    for (int i = 0; i < 4; i++)
        free(c->before[i]);
}

void cache_remember(struct cache_case *c) {
    const struct guard *m[4];
    memories(c, m);
    for (int i = 0; i < 4; i++) {
        if (!c->before[i])
            c->before[i] = malloc(m[i]->size + 1);
        if (!c->before[i])
            abort();
        if (m[i]->pages)
            memcpy(c->before[i], m[i]->data, m[i]->size);
    }
}

struct verdict cache_check_unchanged(const struct cache_case *c) {
    static const char *const names[4] = {"memory", "table", "lengths", "holders"};
    const struct guard *m[4];
    memories(c, m);
    for (int i = 0; i < 4; i++) {
        if (m[i]->pages && memcmp(c->before[i], m[i]->data, m[i]->size) != 0)
            return verdict_fail("%s changed", names[i]);
        if (m[i]->pages && !guard_intact(m[i]))
            return verdict_fail("bytes beside %s were written", names[i]);
    }
    return verdict_ok();
}

static int64_t page_of(const qkv_cache *c, int64_t sequence, int64_t i) {
    const int64_t entry = sequence * c->sequence_pages + i;
    return c->table ? c->table[entry] : entry;
}

struct verdict cache_check_holders(const struct cache_case *c) {
    const qkv_cache *x = &c->cache;
    struct verdict verdict = verdict_ok();
    int32_t *count = calloc((size_t)x->pages, sizeof *count);
    if (!count)
        abort();
    for (int64_t s = 0; s < x->sequences; s++)
        for (int64_t i = 0; i * x->page_tokens < x->lengths[s]; i++)
            count[page_of(x, s, i)]++;
    for (int64_t page = 0; page < x->pages && verdict.ok; page++)
        if (count[page] != x->holders[page])
            verdict = verdict_fail("page %lld has %d holders, not %d", (long long)page, count[page],
                                   x->holders[page]);
    free(count);
    return verdict;
}

/* ---- Tokens ---- */

static uint64_t place(enum row_kind kind, int64_t head, int64_t i) {
    return (uint64_t)(kind * 1000 + head) * 1000 + (uint64_t)i;
}

float token_number(token t, enum row_kind kind, int64_t head, int64_t i) {
    enum { PLAIN, ZERO, TINY, HUGE_ROW, HAS_NAN, HAS_INFINITY, ODD_KINDS };
    const uint64_t row = rng_hash(t, place(kind, head, 999));
    const int odd = t & TOKEN_ODD ? (int)(row % ODD_KINDS) : PLAIN;
    const float x = rng_normal(rng_hash(t, place(kind, head, i)));
    if (odd == ZERO)
        return 0.0f;
    if (odd == TINY)
        return x * 1e-39f;
    if (odd == HUGE_ROW)
        return x * 1e38f;
    if (odd == HAS_NAN && i == (int64_t)(row / ODD_KINDS % 2))
        return NAN;
    if (odd == HAS_INFINITY && i == 0)
        return row & 64 ? INFINITY : -INFINITY;
    return x;
}

/* To `bits` bits after the leading one, ties to even; exponents from `least` up. */
static double rounded(double x, int bits, int least, double most) {
    if (!isfinite(x) || x == 0)
        return x;
    const int exponent = ilogb(x) > least ? ilogb(x) : least;
    const double unit = ldexp(1.0, exponent - bits), y = nearbyint(x / unit) * unit;
    return fabs(y) > most ? copysign(INFINITY, y) : y;
}

/* The scale is the largest number divided by 127, and a number is multiplied by the reciprocal's
 * float, which subnormal rows need to be a normal one. */
static void store_i8(double *row, int64_t n) {
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        most = isfinite(row[i]) ? fmaxf(most, fabsf((float)row[i])) : NAN;
    for (int64_t i = 0; i < n && !isnan(most); i++)
        if (!isfinite(row[i]))
            most = NAN;
    const float m = fmaxf(most, 127.0f * 0x1p-126f), factor = 127.0f / m;
    const float scale = most > 0 ? m / 127.0f : most;
    for (int64_t i = 0; i < n; i++)
        row[i] = isnan(scale) ? NAN : (double)(nearbyintf((float)row[i] * factor) * scale);
}

void token_stored(double *row, token t, enum row_kind kind, int64_t head, int64_t n, int dtype) {
    for (int64_t i = 0; i < n; i++) {
        const double x = (double)token_number(t, kind, head, i);
        row[i] = dtype == QKV_F16    ? rounded(x, 10, -14, 65504.0)
                 : dtype == QKV_BF16 ? rounded(x, 7, -126, 0x1.fep127)
                                     : x;
    }
    if (dtype == QKV_I8)
        store_i8(row, n);
}

/* ---- In and out ---- */

static float *make_rows(const qkv_cache *c, enum row_kind kind, int64_t n, int64_t batch,
                        const int32_t *lens, int64_t most, const token *tokens) {
    float *rows = calloc((size_t)(batch * c->kv_heads * most * n) + 1, sizeof *rows), *x = rows;
    if (!rows)
        abort();
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < c->kv_heads; h++)
            for (int64_t t = 0; t < most; t++, x += n)
                for (int64_t i = 0; i < n && t < lens[b]; i++)
                    x[i] = token_number(tokens[b * most + t], kind, h, i);
    return rows;
}

qkv_status cache_append(const struct cache_case *c, const qkv_context *context, int64_t batch,
                        const int32_t *sequences, const int32_t *lens, int64_t most,
                        const token *tokens) {
    const qkv_cache *x = &c->cache;
    float *k = make_rows(x, ROW_K, x->head_dim, batch, lens, most, tokens);
    float *v = make_rows(x, ROW_V, x->v_dim, batch, lens, most, tokens);
    qkv_append_params params;
    qkv_tensors tensors;
    qkv_exec exec;
    qkv_append_params_init(&params);
    params.batch = batch;
    params.tokens = most;
    params.sequences = sequences;
    params.lens = lens;
    qkv_tensors_init(&tensors);
    tensors.k = qkv_tensor_bhsd(k, x->kv_heads, most, x->head_dim);
    tensors.v = qkv_tensor_bhsd(v, x->kv_heads, most, x->v_dim);
    qkv_exec_init(&exec);
    exec.context = context;
    const qkv_status status = qkv_append(&params, x, &tensors, &exec);
    free(k);
    free(v);
    return status;
}

static struct verdict check_rows(const qkv_cache *c, enum row_kind kind, const float *rows,
                                 const token *tokens, int64_t count) {
    const int64_t n = kind == ROW_K ? c->head_dim : c->v_dim;
    const int dtype = kind == ROW_K ? c->k_dtype : c->v_dtype;
    double want[512];
    for (int64_t h = 0; h < c->kv_heads; h++)
        for (int64_t t = 0; t < count; t++, rows += n) {
            token_stored(want, tokens[t], kind, h, n, dtype);
            for (int64_t i = 0; i < n; i++)
                if (isnan(want[i]) ? !isnan(rows[i]) : (double)rows[i] != want[i])
                    return verdict_fail("%c of token %lld, head %lld, number %lld: %.9g, not %.9g",
                                        kind == ROW_K ? 'K' : 'V', (long long)t, (long long)h,
                                        (long long)i, (double)rows[i], want[i]);
        }
    return verdict_ok();
}

struct verdict cache_check_tokens(const struct cache_case *c, const qkv_context *context,
                                  int64_t sequence, const token *tokens, int64_t count) {
    const qkv_cache *x = &c->cache;
    const size_t rows = (size_t)(x->kv_heads * count) * sizeof(float);
    struct verdict verdict = verdict_ok();
    qkv_tensors tensors;
    if (x->lengths[sequence] != count)
        return verdict_fail("the length is %d, not %lld", x->lengths[sequence], (long long)count);
    struct guard k = guard_alloc(rows * (size_t)x->head_dim, sizeof(float), GUARD_END, 0);
    struct guard v = guard_alloc(rows * (size_t)x->v_dim, sizeof(float), GUARD_END, 0);
    qkv_tensors_init(&tensors);
    tensors.k = qkv_tensor_bhsd(k.data, x->kv_heads, count, x->head_dim);
    tensors.v = qkv_tensor_bhsd(v.data, x->kv_heads, count, x->v_dim);
    const qkv_status status = qkv_cache_export(x, sequence, 0, count, &tensors, context);
    if (status != QKV_OK)
        verdict = verdict_fail("export: %s", qkv_status_string(status));
    if (verdict.ok)
        verdict = check_rows(x, ROW_K, (const float *)(const void *)k.data, tokens, count);
    if (verdict.ok)
        verdict = check_rows(x, ROW_V, (const float *)(const void *)v.data, tokens, count);
    verdict_add(&verdict, "in sequence %lld of %lld tokens", (long long)sequence, (long long)count);
    guard_free(&k);
    guard_free(&v);
    return verdict;
}
