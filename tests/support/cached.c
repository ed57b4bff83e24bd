/* SPDX-License-Identifier: Apache-2.0 */
/* Fills a cache from the keys and values of a case of attention, and puts what it holds back. */
#include "cached.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cached_reader.h"
#include "ref/ref.h"
#include "rooms.h"

const int32_t cached_dtypes[CACHED_DTYPES] = {QKV_F32, QKV_F16, QKV_BF16, QKV_I8};

/* ---- The sequences ---- */

static int32_t *words(const struct guard *memory) {
    return (int32_t *)(void *)memory->data;
}

int32_t cached_sequence(const struct cached *x, int64_t b) {
    return words(&x->sequences)[b];
}

/* The tokens that entry b's sequence holds when the cache is filled. */
static int64_t stored_tokens(const struct cached *x, int64_t b) {
    return x->desc.lens ? x->desc.desc.kv_len : ref_keys(&x->c.params, b);
}

/* One more sequence than the batch has entries: there is always an empty one. */
static void make_sequences(struct cached *x) {
    const int64_t batch = x->desc.desc.batch;
    const int64_t turn = (int64_t)(x->desc.desc.seed % (uint64_t)(batch + 1));
    x->sequences = guard_alloc((size_t)batch * 4, 4, GUARD_END, 0);
    for (int64_t b = 0; b < batch; b++) {
        int64_t own = x->desc.mapping == MAPPED_IN_PAIRS ? b / 2 : b;
        if (x->desc.mapping != MAPPED_PLAINLY)
            own = batch - (own + turn) % (batch + 1);
        words(&x->sequences)[b] = (int32_t)own;
    }
}

/* The first entry that attends to a sequence, or -1. */
static int64_t first_entry(const struct cached *x, int64_t sequence) {
    for (int64_t b = 0; b < x->desc.desc.batch; b++)
        if (cached_sequence(x, b) == sequence)
            return b;
    return -1;
}

/* ---- The cache ---- */

static int64_t pages_for(int64_t tokens, int64_t page) {
    return (tokens + page - 1) / page;
}

static void describe_cache(struct cached *x) {
    const struct cached_desc *d = &x->desc;
    qkv_cache *cache = &x->cache;
    qkv_cache_init(cache);
    cache->kv_heads = d->desc.kv_heads;
    cache->head_dim = d->desc.head_dim;
    cache->v_dim = d->desc.v_dim;
    cache->page_tokens = d->page_tokens;
    cache->sequences = d->desc.batch + 1;
    cache->sequence_pages = 1 + pages_for(d->desc.kv_len + d->room, d->page_tokens);
    cache->pages = cache->sequences * cache->sequence_pages + (d->table ? 3 : 0);
    cache->k_dtype = d->k_dtype;
    cache->v_dtype = d->v_dtype;
}

/* Pages in random order, and no page at all where no token will stand. */
static void fill_table(struct cached *x) {
    const qkv_cache *cache = &x->cache;
    struct rng rng = rng_seeded(x->desc.desc.seed);
    int32_t *free_pages = malloc((size_t)cache->pages * sizeof *free_pages);
    int64_t left = cache->pages;
    if (!free_pages)
        abort();
    for (int64_t i = 0; i < left; i++)
        free_pages[i] = (int32_t)i;
    for (int64_t s = 0; s < cache->sequences; s++) {
        const int64_t b = first_entry(x, s);
        const int64_t tokens = b < 0 ? 0 : stored_tokens(x, b) + x->desc.room;
        for (int64_t i = 0; i < cache->sequence_pages; i++) {
            int32_t *entry = &cache->table[s * cache->sequence_pages + i];
            *entry = (i + s) % 2 ? INT32_MAX : -1;
            if (i >= pages_for(tokens, cache->page_tokens))
                continue;
            const int64_t pick = rng_below(&rng, left);
            *entry = free_pages[pick];
            free_pages[pick] = free_pages[--left];
        }
    }
    free(free_pages);
}

/* Memory needs no preparation: it is full of NaN, whichever type it is read as. */
static void make_memory(struct cached *x) {
    qkv_cache *cache = &x->cache;
    const size_t entries = (size_t)(cache->sequences * cache->sequence_pages);
    const enum guard_side side = x->desc.desc.seed & 1 ? GUARD_BEGIN : GUARD_END;
    x->memory = guard_alloc(qkv_cache_memory_size(cache), QKV_ALIGNMENT, side, 0);
    memset(x->memory.data, 0xff, x->memory.size);
    x->lengths = guard_alloc((size_t)cache->sequences * 4, 4, side, 0);
    memset(x->lengths.data, 0, x->lengths.size);
    cache->memory = x->memory.data;
    cache->lengths = words(&x->lengths);
    if (!x->desc.table)
        return;
    x->table = guard_alloc(entries * 4, 4, side, 0);
    cache->table = words(&x->table);
    x->holders = guard_alloc((size_t)cache->pages * 4, 4, side, 0);
    memset(x->holders.data, 0, x->holders.size);
    cache->holders = words(&x->holders);
    fill_table(x);
}

/* ---- Tokens in ---- */

qkv_status cached_append(const struct cached *x, const qkv_context *context, int32_t sequence,
                         const qkv_tensor *k, const qkv_tensor *v, int64_t tokens) {
    qkv_append_params params;
    qkv_tensors tensors;
    qkv_plan plan;
    qkv_exec exec;
    qkv_append_params_init(&params);
    params.batch = 1;
    params.tokens = tokens;
    params.sequences = &sequence;
    qkv_tensors_init(&tensors);
    tensors.k = *k;
    tensors.v = *v;
    qkv_status status = qkv_append_plan(&plan, &params, &x->cache, context);
    if (status != QKV_OK)
        return status;
    struct guard workspace = guard_alloc(qkv_plan_workspace(&plan, 1), QKV_ALIGNMENT, GUARD_END, 0);
    qkv_exec_init(&exec);
    exec.context = context;
    exec.workspace = workspace.data;
    exec.workspace_size = workspace.size;
    status = qkv_append(&params, &x->cache, &tensors, &exec);
    guard_free(&workspace);
    return status;
}

/* Rows from token t of entry b on. */
static qkv_tensor rows_of(const struct test_case *c, enum role role, int64_t b, int64_t t) {
    qkv_tensor view = c->tensor[role].view;
    view.data = tensor_f32(&view, b, 0, t, 0);
    return view;
}

static struct verdict fill_sequence(struct cached *x, int64_t b, const qkv_context *context) {
    const int64_t tokens = stored_tokens(x, b);
    qkv_status status = QKV_OK;
    for (int64_t t = 0; t < tokens && status == QKV_OK; t += x->desc.chunk) {
        const qkv_tensor k = rows_of(&x->c, ROLE_K, b, t), v = rows_of(&x->c, ROLE_V, b, t);
        const int64_t count = tokens - t < x->desc.chunk ? tokens - t : x->desc.chunk;
        status = cached_append(x, context, cached_sequence(x, b), &k, &v, count);
    }
    if (status != QKV_OK)
        return verdict_fail("append: %s", qkv_status_string(status));
    return verdict_ok();
}

/* ---- Values back ---- */

/* How far the number nearest to x may be from it, in a row whose largest is `largest`. */
static double rounding(int dtype, double x, double largest) {
    switch (dtype) {
    case QKV_F16:
        return fmax(0x1p-11 * fabs(x), 0x1p-25);
    case QKV_BF16:
        return 0x1p-8 * fabs(x);
    case QKV_I8:
        return largest / 254 * (1 + 0x1p-12);
    default:
        return 0;
    }
}

/* Of an int8 row with a NaN or an infinity, NaN is all that is left. */
static double largest_of(const float *row, int64_t n) {
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(row[i]))
            return NAN;
        largest = fmax(largest, fabs((double)row[i]));
    }
    return largest;
}

static bool nearest(int dtype, float stored, float x, double largest) {
    if (isnan(x) || (dtype == QKV_I8 && isnan(largest)))
        return isnan(stored);
    if (isinf(x))
        return stored == x;
    return fabs((double)stored - (double)x) <= rounding(dtype, (double)x, largest);
}

/* One row of the case becomes what the cache holds of it. */
static struct verdict take_row(float *row, const float *stored, int dtype, int64_t n) {
    const double largest = largest_of(row, n);
    for (int64_t i = 0; i < n; i++) {
        if (!nearest(dtype, stored[i], row[i], largest))
            return verdict_fail("number %lld of a row is %.9g, and %.9g in the cache (dtype %d)",
                                (long long)i, (double)row[i], (double)stored[i], dtype);
        row[i] = stored[i];
    }
    return verdict_ok();
}

static struct verdict take_rows(struct cached *x, const struct cached_reader *reader,
                                enum role role, int64_t b) {
    const struct desc *d = &x->desc.desc;
    const int64_t n = role == ROLE_K ? d->head_dim : d->v_dim;
    const int dtype = role == ROLE_K ? x->desc.k_dtype : x->desc.v_dtype;
    const int32_t sequence = cached_sequence(x, b);
    struct verdict verdict = verdict_ok();
    float stored[QKV_HEAD_DIM_MAX];
    for (int64_t h = 0; h < d->kv_heads; h++)
        for (int64_t t = 0; t < stored_tokens(x, b) && verdict.ok; t++) {
            float *row = tensor_f32(&x->c.tensor[role].view, b, h, t, 0);
            cached_read(reader, role == ROLE_V, sequence, h, t, stored);
            if (first_entry(x, sequence) == b)
                verdict = take_row(row, stored, dtype, n);
            else
                memcpy(row, stored, (size_t)n * sizeof *row);
        }
    verdict_add(&verdict, "%s of entry %lld", role_names[role], (long long)b);
    return verdict;
}

static struct verdict take_stored(struct cached *x) {
    struct cached_reader reader;
    struct verdict verdict = cached_open(&reader, &x->cache);
    for (int64_t b = 0; b < x->desc.desc.batch && verdict.ok; b++) {
        verdict = take_rows(x, &reader, ROLE_K, b);
        if (verdict.ok)
            verdict = take_rows(x, &reader, ROLE_V, b);
    }
    return verdict;
}

static struct verdict fill_cache(struct cached *x, const qkv_context *context) {
    struct verdict verdict = verdict_ok();
    for (int64_t b = 0; b < x->desc.desc.batch && verdict.ok; b++)
        if (first_entry(x, cached_sequence(x, b)) == b)
            verdict = fill_sequence(x, b, context);
    return verdict.ok ? take_stored(x) : verdict;
}

/* ---- Making ---- */

/* Is a variant tested, and of use here? */
static bool is_narrow(const struct cached_desc *d) {
    const int32_t narrow = test_narrow_dtype();
    return narrow != QKV_DTYPE_NONE && (d->k_dtype == narrow || d->v_dtype == narrow) &&
           (d->k_dtype == narrow || d->k_dtype == QKV_F32) &&
           (d->v_dtype == narrow || d->v_dtype == QKV_F32);
}

/* The dtypes tell the reference that scales are applied apart, and what narrow arithmetic rounds
 * to. */
static void finish_case(struct cached *x) {
    struct test_case *c = &x->c;
    for (int role = 0; role < ROLE_COUNT; role++)
        if (c->tensor[role].before)
            tensor_freeze(&c->tensor[role]);
    x->narrow = is_narrow(&x->desc);
    if (x->narrow)
        c->params.arithmetic = QKV_ARITHMETIC_NARROW;
    if (x->narrow || x->desc.k_dtype == QKV_I8)
        c->tensors.k.dtype = x->desc.k_dtype;
    if (x->narrow || x->desc.v_dtype == QKV_I8)
        c->tensors.v.dtype = x->desc.v_dtype;
    x->before = malloc(x->memory.size);
    if (!x->before)
        abort();
    memcpy(x->before, x->memory.data, x->memory.size);
}

static void describe_decode(struct cached *x) {
    x->params = x->c.params;
    if (!x->desc.lens)
        x->params.kv_lens = NULL;
    x->decode = (struct decode_params){&x->params, &x->cache, NULL};
    if (x->desc.mapping != MAPPED_PLAINLY)
        x->decode.sequences = words(&x->sequences);
    x->tensors = x->c.tensors;
    x->tensors.k = x->tensors.v = (qkv_tensor){0};
}

struct verdict cached_make(struct cached *x, const struct cached_desc *desc,
                           const qkv_context *context) {
    memset(x, 0, sizeof *x);
    x->desc = *desc;
    case_make(&x->c, &desc->desc, STAGES_ONE(QKV_STAGE_ATTENTION));
    if (desc->prepare)
        desc->prepare(&x->c);
    make_sequences(x);
    describe_cache(x);
    make_memory(x);
    struct verdict verdict = fill_cache(x, context);
    finish_case(x);
    describe_decode(x);
    return verdict;
}

void cached_free(struct cached *x) {
    case_free(&x->c);
    guard_free(&x->memory);
    guard_free(&x->table);
    guard_free(&x->lengths);
    guard_free(&x->holders);
    guard_free(&x->sequences);
    free(x->before);
}

struct call cached_call(const struct cached *x, const qkv_context *context) {
    return (struct call){context, QKV_STAGE_DECODE, &x->decode, &x->tensors};
}

struct verdict cached_check_memory(const struct cached *x) {
    const struct guard *const around[] = {&x->memory, &x->lengths, &x->table, &x->holders};
    for (int i = 0; i < 4; i++)
        if (around[i]->pages && !guard_intact(around[i]))
            return verdict_fail("bytes beside the cache were written");
    if (memcmp(x->before, x->memory.data, x->memory.size) != 0)
        return verdict_fail("the cache was written");
    return case_check_memory(&x->c);
}
