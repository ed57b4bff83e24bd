/* SPDX-License-Identifier: Apache-2.0 */
/* Random caches and appends (append_case.h). */
#include "append_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "problem.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

static const int64_t dims[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 20, 31, 32, 33, 36, 63, 64, 66, 80};
static const int64_t types[] = {QKV_F32, QKV_F16, QKV_BF16, QKV_I8};

/* ---- Numbers ---- */

/* Halfway between two numbers of binary16, of bfloat16, or of neither. */
static float tie(uint64_t hash) {
    const int digits = hash >> 20 & 1 ? 12 : 9;
    const double odd = (double)(2 * (hash & 0xff) + 1);
    return (float)((1 + odd * ldexp(1, -digits)) * (hash >> 21 & 1 ? -1 : 1));
}

float append_value(void *flavour, uint64_t hash) {
    static const float special[] = {NAN,      INFINITY, -INFINITY, 3.4e38f, -0.0f,    65519.996f,
                                    65520.0f, 1e-45f,   -3.3e38f,  6e-8f,   3.39e38f, 2.9e-8f};
    const float x = rng_normal(rng_hash(hash, 1));
    switch (*(enum flavour *)flavour) {
    case HEAVY:
        return ldexpf(x, (int)(hash % 41) - 20);
    case TINY:
        return ldexpf(x, -(int)(hash % 34) - 116);
    case SPECIAL:
        return hash % 37 ? x : special[hash / 37 % COUNT(special)];
    case TIES:
        return tie(hash);
    default:
        return x;
    }
}

/* ---- The cache ---- */

static void describe(struct append_case *c, const qkv_cache *q) {
    snprintf(c->text, sizeof c->text,
             "%lld heads of %lld and %lld, pages of %lld (%lld of %lld sequences), types %d and %d,"
             " %s, flavour %d",
             (long long)q->kv_heads, (long long)q->head_dim, (long long)q->v_dim,
             (long long)q->page_tokens, (long long)q->pages, (long long)q->sequences, q->k_dtype,
             q->v_dtype, q->table ? "table" : "runs", (int)c->flavour);
}

static struct guard integers(int64_t count) {
    struct guard g = guard_alloc((size_t)count * sizeof(int32_t), sizeof(int32_t), GUARD_END, 0);
    memset(g.data, 0, g.size);
    return g;
}

/* The pages in random order, and some that nobody has. */
static void shuffle_table(struct append_case *c, qkv_cache *q) {
    const int64_t entries = q->sequences * q->sequence_pages;
    q->pages = entries + rng_below(&c->rng, 3);
    c->table = integers(entries);
    q->table = (int32_t *)c->table.data;
    for (int64_t i = 0; i < entries; i++) {
        const int64_t k = rng_below(&c->rng, i + 1);
        q->table[i] = q->table[k];
        q->table[k] = (int32_t)(q->pages - 1 - i);
    }
}

struct append_case append_case_make(uint64_t seed) {
    struct append_case c = {.rng = rng_seeded(seed)};
    qkv_cache q;
    qkv_cache_init(&q);
    c.flavour = (enum flavour)rng_below(&c.rng, FLAVOURS);
    q.kv_heads = 1 + rng_below(&c.rng, 3);
    q.head_dim = rng_pick(&c.rng, dims, COUNT(dims));
    q.v_dim = rng_chance(&c.rng, 3) ? q.head_dim : rng_pick(&c.rng, dims, COUNT(dims));
    if (rng_chance(&c.rng, 40))
        q.kv_heads = 1, q.head_dim = 512, q.v_dim = 512;
    q.k_dtype = (int32_t)rng_pick(&c.rng, types, 4);
    q.v_dtype = (int32_t)rng_pick(&c.rng, types, 4);
    q.page_tokens = rng_pick(&c.rng, (const int64_t[]){16, 16, 32, 48, 256}, 5);
    q.sequences = 1 + rng_below(&c.rng, CASE_SEQUENCES);
    q.sequence_pages = 1 + rng_below(&c.rng, q.page_tokens > 48 ? 1 : 128 / q.page_tokens);
    q.pages = q.sequences * q.sequence_pages;
    if (!rng_chance(&c.rng, 4))
        shuffle_table(&c, &q);
    c.lengths = integers(q.sequences);
    c.holders = integers(q.pages);
    q.lengths = (int32_t *)c.lengths.data;
    q.holders = q.table || rng_chance(&c.rng, 2) ? (int32_t *)c.holders.data : NULL;
    c.memory = guard_alloc(qkv_cache_memory_size(&q), QKV_ALIGNMENT, GUARD_END, 0);
    q.memory = c.memory.data;
    if (qkv_take_cache(&c.state, &q) != QKV_OK)
        abort();
    c.want = malloc(c.memory.size);
    memcpy(c.want, c.memory.data, c.memory.size);
    c.want_holders = calloc((size_t)q.pages, sizeof *c.want_holders);
    describe(&c, &q);
    return c;
}

void append_case_free(struct append_case *c) {
    guard_free(&c->memory);
    guard_free(&c->lengths);
    guard_free(&c->holders);
    guard_free(&c->table);
    free(c->want);
    free(c->want_holders);
}

/* ---- A call ---- */

/* Some sequences in some order, with some tokens each; rows padded or ragged. */
struct batch {
    qkv_append_params params;
    int32_t sequences[CASE_SEQUENCES], lens[CASE_SEQUENCES], cu[CASE_SEQUENCES + 1];
    int32_t first[CASE_SEQUENCES], positions[2048];
    int64_t rows; /* of a ragged tensor */
};

static int64_t tokens_for(struct append_case *c, int32_t sequence) {
    const qkv_cache *q = &c->state.cache;
    const int64_t room = q->sequence_pages * q->page_tokens - q->lengths[sequence];
    const int64_t n =
        rng_pick(&c->rng, (const int64_t[]){0, 1, 1, 1, 2, 3, 15, 16, 17, 40, 150}, 11);
    return n < room ? n : room;
}

static void choose_tokens(struct append_case *c, struct batch *b) {
    const int64_t sequences = c->state.cache.sequences;
    qkv_append_params *p = &b->params;
    p->batch = 1 + rng_below(&c->rng, sequences);
    const int shape = (int)rng_below(&c->rng, 3);
    const int64_t from = rng_below(&c->rng, sequences), step = rng_chance(&c->rng, 2) ? 1 : -1;
    b->cu[0] = (int32_t)rng_below(&c->rng, 3);
    for (int64_t i = 0; i < p->batch; i++) {
        b->sequences[i] = (int32_t)((from + step * i + sequences) % sequences);
        b->lens[i] = (int32_t)tokens_for(c, b->sequences[i]);
        if (shape == 0)
            b->lens[i] = i && b->lens[i] > b->lens[i - 1] ? b->lens[i - 1] : b->lens[i];
        p->tokens = b->lens[i] > p->tokens ? b->lens[i] : p->tokens;
        b->first[i] = c->state.cache.lengths[b->sequences[i]];
    }
    if (shape == 0) /* all the same: what the last, which is the shortest, can take */
        p->tokens = b->lens[p->batch - 1];
    for (int64_t i = 0; i < p->batch; i++) {
        b->lens[i] = shape == 0 ? (int32_t)p->tokens : b->lens[i];
        b->cu[i + 1] = b->cu[i] + b->lens[i];
    }
    p->sequences = b->sequences;
    p->lens = shape == 1 ? b->lens : NULL;
    p->cu = shape == 2 ? b->cu : NULL;
    b->rows = b->cu[p->batch];
}

enum { POSITIONS = 256, MOST_PAIRS = 40 };

/* Any numbers will do for cosines and sines. */
static const float *some_table(uint64_t seed) {
    static float table[2][POSITIONS * MOST_PAIRS];
    for (int i = 0; i < POSITIONS * MOST_PAIRS && table[seed][0] == 0.0f; i++)
        table[seed][POSITIONS * MOST_PAIRS - 1 - i] = rng_normal(rng_hash(seed, (uint64_t)i));
    return table[seed];
}

static void choose_rope(struct append_case *c, struct batch *b) {
    qkv_rope *r = &b->params.rope;
    const int64_t dim = c->state.cache.head_dim,
                  most = b->params.batch * b->params.tokens + b->rows;
    if (dim < 2 || dim > 2 * MOST_PAIRS || rng_chance(&c->rng, 2))
        return;
    r->pairs = 1 + (int32_t)rng_below(&c->rng, 2);
    r->dims = 2 * (1 + rng_below(&c->rng, dim / 2));
    if (rng_chance(&c->rng, 2) && most <= COUNT(b->positions)) {
        for (int64_t i = 0; i < most; i++)
            b->positions[i] = (int32_t)rng_below(&c->rng, POSITIONS);
        r->positions = b->positions;
    }
    if (rng_chance(&c->rng, 2)) {
        r->cos = some_table(0);
        r->sin = some_table(1);
        r->table_rows = POSITIONS;
    }
}

static struct tensor random_rows(struct append_case *c, const struct batch *b, int64_t dim) {
    const qkv_append_params *p = &b->params;
    const int64_t shape[4] = {p->cu ? 1 : p->batch, c->state.cache.kv_heads,
                              p->cu ? b->rows : p->tokens, dim};
    const struct layout layout = {
        .order = (uint8_t)rng_below(&c->rng, LAYOUT_ORDERS),
        .gap = {(uint8_t)rng_below(&c->rng, 3), 0, (uint8_t)rng_below(&c->rng, 3)},
        .reverse = (uint8_t)rng_below(&c->rng, 8),
        .side = (uint8_t)rng_below(&c->rng, 2),
        .offset = (uint8_t)rng_below(&c->rng, 3)};
    struct tensor t = tensor_make(QKV_F32, shape, layout);
    tensor_fill(&t, rng_next(&c->rng), append_value, &c->flavour);
    if (rng_chance(&c->rng, 4) && shape[2] > 0) /* a token of zeros */
        for (int64_t i = 0; i < dim; i++)
            *tensor_f32(&t.view, 0, 0, 0, i) = 0.0f;
    tensor_freeze(&t);
    return t;
}

/* The keys as they are stored: turned by the stage that does nothing else. */
static struct verdict turn_keys(const struct append_case *c, const struct batch *b,
                                const struct tensor *k, struct tensor *turned,
                                const qkv_context *context) {
    const qkv_append_params *p = &b->params;
    qkv_rotate_params r;
    qkv_tensors tensors;
    qkv_rotate_params_init(&r);
    r.batch = p->batch;
    r.heads = c->state.cache.kv_heads;
    r.tokens = p->tokens;
    r.head_dim = c->state.cache.head_dim;
    r.lens = p->lens;
    r.cu = p->cu;
    r.first = b->first;
    r.rope = p->rope;
    qkv_tensors_init(&tensors);
    *turned = tensor_make(QKV_F32, k->dim, (struct layout){0});
    tensors.q = k->view;
    tensors.out = turned->view;
    const struct call call = {context, QKV_STAGE_ROTATE, &r, &tensors};
    return run_call(&call, (struct how){WAY_PLAIN, 1, 0});
}

/* What the call should do. */
static void follow(struct append_case *c, const struct batch *b, const struct tensor *k,
                   const struct tensor *v) {
    const qkv_append_params *p = &b->params;
    const qkv_cache *q = &c->state.cache;
    for (int64_t i = 0; i < p->batch; i++) {
        const int32_t s = b->sequences[i];
        for (int64_t t = 0; t < b->lens[i]; t++, c->want_lengths[s]++) {
            const int64_t at = c->want_lengths[s], e = p->cu ? 0 : i,
                          row = p->cu ? b->cu[i] + t : t;
            for (int64_t h = 0; h < q->kv_heads; h++)
                model_append(&c->state, c->want, s, at, h, tensor_f32(&k->view, e, h, row, 0),
                             tensor_f32(&v->view, e, h, row, 0));
            if (at % q->page_tokens == 0 && q->holders)
                c->want_holders[qkv_page_of(&c->state, s, at)] = 1;
        }
    }
}

static struct verdict append_some(struct append_case *c, const qkv_context *context) {
    static struct batch b;
    memset(&b.params, 0, sizeof b.params);
    qkv_append_params_init(&b.params);
    choose_tokens(c, &b);
    choose_rope(c, &b);
    struct tensor k = random_rows(c, &b, c->state.cache.head_dim), turned;
    struct tensor v = random_rows(c, &b, c->state.cache.v_dim);
    struct verdict verdict = turn_keys(c, &b, &k, &turned, context);
    qkv_tensors tensors;
    qkv_tensors_init(&tensors);
    tensors.k = k.view;
    tensors.v = v.view;
    const struct append_call both = {&b.params, &c->state.cache};
    const struct call call = {context, QKV_STAGE_APPEND, &both, &tensors};
    const struct how how = {(enum way)rng_below(&c->rng, WAY_COUNT), 3, rng_next(&c->rng)};
    follow(c, &b, &turned, &v);
    if (verdict.ok)
        verdict = run_call(&call, how);
    if (verdict.ok)
        verdict = tensor_check_input(&k, "K");
    if (verdict.ok)
        verdict = tensor_check_input(&v, "V");
    snprintf(c->call, sizeof c->call,
             "%s: %lld sequences, at most %lld tokens, %s, rope %d of %lld, %s, %s",
             run_way_name(how), (long long)b.params.batch, (long long)b.params.tokens,
             b.params.cu     ? "ragged"
             : b.params.lens ? "padded"
                             : "even",
             b.params.rope.pairs, (long long)b.params.rope.dims,
             b.params.rope.positions ? "positions" : "places",
             b.params.rope.cos ? "tables" : "theta");
    tensor_free(&k);
    tensor_free(&turned);
    tensor_free(&v);
    return verdict;
}

/* As truncate does it: the pages that hold nothing more are nobody's. */
static void forget_some(struct append_case *c) {
    const qkv_cache *q = &c->state.cache;
    const int32_t s = (int32_t)rng_below(&c->rng, q->sequences);
    const int32_t left = (int32_t)rng_below(&c->rng, q->lengths[s] + 1);
    for (int64_t t = qkv_round_up(left, q->page_tokens); t < q->lengths[s] && q->holders;
         t += q->page_tokens)
        q->holders[qkv_page_of(&c->state, s, t)] = c->want_holders[qkv_page_of(&c->state, s, t)] =
            0;
    q->lengths[s] = c->want_lengths[s] = left;
}

struct verdict append_case_step(struct append_case *c, const qkv_context *context) {
    if (rng_chance(&c->rng, 4))
        forget_some(c);
    return append_some(c, context);
}

/* ---- What came of it ---- */

struct verdict append_case_check(const struct append_case *c) {
    const qkv_cache *q = &c->state.cache;
    if (memcmp(q->lengths, c->want_lengths, c->lengths.size) != 0)
        return verdict_fail("lengths differ");
    if (q->holders && memcmp(q->holders, c->want_holders, c->holders.size) != 0)
        return verdict_fail("holders differ");
    const bool same = memcmp(c->want, c->memory.data, c->memory.size) == 0;
    for (size_t i = 0; i < c->memory.size && !same; i++)
        if (c->want[i] != (char)c->memory.data[i])
            return verdict_fail("byte %zu (%zu of a page, %zu of a head) is %02x, not %02x", i,
                                i % c->state.page, i % c->state.page % c->state.head,
                                c->memory.data[i], (unsigned char)c->want[i]);
    return guard_intact(&c->memory) && guard_intact(&c->lengths) && guard_intact(&c->holders)
               ? verdict_ok()
               : verdict_fail("bytes beside the cache were written");
}

static struct verdict compare_rows(const struct append_case *c, const struct tensor *t, int which,
                                   int64_t sequence, int64_t first) {
    for (int64_t h = 0; h < t->dim[1]; h++)
        for (int64_t i = 0; i < t->dim[2]; i++)
            for (int64_t x = 0; x < t->dim[3]; x++) {
                const float want =
                    model_stored(&c->state, c->want, sequence, first + i, h, which, x);
                const float got = *tensor_f32(&t->view, 0, h, i, x);
                if (memcmp(&want, &got, sizeof got) != 0 && !(isnan(want) && isnan(got)))
                    return verdict_fail("%s of token %lld, head %lld, number %lld is %a, not %a",
                                        which ? "V" : "K", (long long)(first + i), (long long)h,
                                        (long long)x, (double)got, (double)want);
            }
    return verdict_ok();
}

struct verdict append_case_export(struct append_case *c, const qkv_context *context) {
    const qkv_cache *q = &c->state.cache;
    const int64_t s = rng_below(&c->rng, q->sequences),
                  first = rng_below(&c->rng, q->lengths[s] + 1);
    const int64_t n = rng_below(&c->rng, q->lengths[s] - first + 1);
    const struct layout layout = {.order = (uint8_t)rng_below(&c->rng, LAYOUT_ORDERS),
                                  .gap = {1, 2, 3}};
    const int64_t k_shape[4] = {1, q->kv_heads, n, q->head_dim};
    const int64_t v_shape[4] = {1, q->kv_heads, n, q->v_dim};
    struct tensor k = tensor_make(QKV_F32, k_shape, layout);
    struct tensor v = tensor_make(QKV_F32, v_shape, layout);
    struct verdict verdict = verdict_ok();
    qkv_tensors tensors;
    qkv_tensors_init(&tensors);
    tensors.k = k.view;
    tensors.v = v.view;
    const qkv_status status = qkv_cache_export(q, s, first, n, &tensors, context);
    if (status != QKV_OK)
        verdict = verdict_fail("export: %s", qkv_status_string(status));
    if (verdict.ok)
        verdict = compare_rows(c, &k, 0, s, first);
    if (verdict.ok)
        verdict = compare_rows(c, &v, 1, s, first);
    if (verdict.ok)
        verdict = tensor_check_output(&k, "K");
    if (verdict.ok)
        verdict = tensor_check_output(&v, "V");
    tensor_free(&k);
    tensor_free(&v);
    return verdict;
}
