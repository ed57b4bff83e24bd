/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions of calls of decode, and their check against the reference and against attention. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cached.h"
#include "compare.h"
#include "rooms.h"

/* ---- Descriptions ---- */

void cached_set_pair(struct cached_desc *desc, int pair) {
    const int32_t narrow = test_narrow_dtype();
    desc->k_dtype = cached_dtypes[pair / CACHED_DTYPES];
    desc->v_dtype = cached_dtypes[pair % CACHED_DTYPES];
    if (narrow == QKV_DTYPE_NONE)
        return;
    desc->k_dtype = pair % 4 == 1 ? QKV_F32 : narrow;
    desc->v_dtype = pair % 4 == 2 ? QKV_F32 : narrow;
}

int64_t cached_one_page(const struct cached_desc *desc) {
    return (desc->desc.kv_len + desc->room) / 16 * 16 + 16;
}

/* Keys lie in no tensor of the call: neither end to end nor broadcast. */
static void suit_cache(struct desc *d) {
    if (d->kv_lengths == LENGTHS_RAGGED)
        d->kv_lengths = LENGTHS_PADDED;
    d->layout[ROLE_K].zero = d->layout[ROLE_V].zero = 0;
}

struct cached_desc cached_plain(const struct desc *desc) {
    struct cached_desc d = {
        .desc = *desc,
        .k_dtype = QKV_F32,
        .v_dtype = QKV_F32,
        .page_tokens = 32,
        .chunk = 1 << 20,
        .table = true,
        .lens = true,
    };
    suit_cache(&d.desc);
    return d;
}

/* One token, a draft, or whatever the description had; one key, or as many as a few blocks. */
static void random_steps(struct desc *d, struct rng *rng, const struct desc_limits *limits) {
    static const int64_t few[] = {1, 1, 1, 2, 5, 13};
    static const int64_t edges[] = {16, 256, 512, 1024, 1280, 2048};
    if (!rng_chance(rng, 3))
        d->q_len = rng_pick(rng, few, 6);
    if (!rng_chance(rng, 3))
        return;
    int64_t most = limits->products / (d->batch * d->q_heads * (d->q_len + 1));
    d->kv_len = rng_pick(rng, edges, 6) - 1 + rng_below(rng, 3);
    most = most / (d->head_dim + d->v_dim);
    d->kv_len = d->kv_len < most ? d->kv_len : most;
}

struct cached_desc cached_numbered(uint64_t seed, int number, const struct desc_limits *limits) {
    static const int64_t pages[] = {16, 16, 32, 48, 80, 256, 0};
    static const int64_t chunks[] = {1 << 20, 1 << 20, 100, 7};
    struct rng rng = rng_seeded(rng_hash(seed + 77, (uint64_t)number));
    struct desc desc = desc_random(&rng, limits);
    random_steps(&desc, &rng, limits);
    struct cached_desc d = cached_plain(&desc);
    cached_set_pair(&d, (int)rng_below(&rng, CACHED_PAIRS));
    d.page_tokens = rng_pick(&rng, pages, 7);
    d.chunk = rng_pick(&rng, chunks, 4);
    d.table = !rng_chance(&rng, 3);
    d.mapping = (enum mapping)rng_below(&rng, MAPPED_COUNT);
    d.lens = d.mapping == MAPPED_IN_PAIRS || rng_chance(&rng, 2);
    d.page_tokens = d.page_tokens ? d.page_tokens : cached_one_page(&d);
    return d;
}

bool cached_is_plain(const struct cached *x) {
    return !x->narrow && x->desc.k_dtype != QKV_I8 && x->desc.v_dtype != QKV_I8;
}

void cached_explain(const struct cached_desc *d, struct verdict *verdict) {
    verdict_add(verdict,
                "cache: k_dtype %d, v_dtype %d, pages of %lld, appended by %lld, room %lld, "
                "table %d, lens %d, mapping %d",
                d->k_dtype, d->v_dtype, (long long)d->page_tokens, (long long)d->chunk,
                (long long)d->room, d->table, d->lens, (int)d->mapping);
    case_explain(&d->desc, verdict);
}

/* ---- Bits ---- */

static const enum role outputs[] = {ROLE_OUT, ROLE_LSE};

static struct verdict compare_bits(enum role role, const unsigned char *x, const unsigned char *y,
                                   size_t size) {
    for (size_t e = 0; e < size / sizeof(float); e++) {
        float p, q;
        memcpy(&p, x + e * sizeof p, sizeof p);
        memcpy(&q, y + e * sizeof q, sizeof q);
        if (memcmp(&p, &q, sizeof p) != 0 && !(isnan(p) && isnan(q)))
            return verdict_fail("%s: element %zu of the memory is %a, then %a", role_names[role], e,
                                (double)p, (double)q);
    }
    return verdict_ok();
}

struct verdict cached_same_bits(const struct test_case *x, const struct test_case *y) {
    struct verdict verdict = verdict_ok();
    for (int i = 0; i < 2 && verdict.ok; i++) {
        const struct guard *a = &x->tensor[outputs[i]].memory, *b = &y->tensor[outputs[i]].memory;
        verdict = compare_bits(outputs[i], a->data, b->data, a->size);
    }
    return verdict;
}

static unsigned char *copy_of(const struct guard *memory) {
    unsigned char *copy = malloc(memory->size + 1);
    if (!copy)
        abort();
    if (memory->size)
        memcpy(copy, memory->data, memory->size);
    return copy;
}

struct verdict cached_run_again(struct cached *x, const struct call *call, struct how how) {
    unsigned char *before[2];
    for (int i = 0; i < 2; i++)
        before[i] = copy_of(&x->c.tensor[outputs[i]].memory);
    case_reset(&x->c);
    struct verdict verdict = run_call(call, how);
    for (int i = 0; i < 2; i++) {
        const struct guard *now = &x->c.tensor[outputs[i]].memory;
        if (verdict.ok)
            verdict = compare_bits(outputs[i], before[i], now->data, now->size);
        free(before[i]);
    }
    return verdict;
}

struct verdict cached_run_attention(struct cached *x, const qkv_context *context) {
    const struct call call = {context, QKV_STAGE_ATTENTION, &x->c.params, &x->c.tensors};
    if (!cached_is_plain(x))
        return verdict_ok();
    struct verdict verdict = cached_run_again(x, &call, (struct how){WAY_PLAIN, 1, 0});
    verdict_add(&verdict, "decode, then attention on the stored values");
    return verdict;
}

/* ---- The check ---- */

static struct verdict run_cached(struct cached *x, const qkv_context *context) {
    const uint64_t seed = x->desc.desc.seed;
    const struct how how = {(enum way)(seed % WAY_COUNT), 2, seed};
    struct call call = cached_call(x, context);
    struct verdict verdict = run_call(&call, how);
    if (verdict.ok)
        verdict = cached_check_memory(x);
    if (verdict.ok)
        verdict = check_values(&x->c, QKV_STAGE_ATTENTION);
    verdict_add(&verdict, "%s", run_way_name(how));
    return verdict.ok ? cached_run_attention(x, context) : verdict;
}

/* Of the reference's work, which is most of what the check takes. */
static const struct desc_limits limits = {1200, 200, 150000};

struct verdict check_cached_random(const qkv_context *context, int cases) {
    const int step = test_only() < 0 ? 4 : 1; /* one that is asked for is run */
    struct verdict verdict = verdict_ok();
    for (int i = 0; i < cases && verdict.ok; i += step) {
        if (test_only() >= 0 && i != test_only())
            continue;
        const struct cached_desc d = cached_numbered(test_seed(), i, &limits);
        verdict = check_cached(context, &d);
        verdict_add(&verdict, "replay: QKV_TEST_SEED=%llu QKV_TEST_ONLY=%d",
                    (unsigned long long)test_seed(), i);
    }
    return verdict;
}

struct verdict check_cached(const qkv_context *context, const struct cached_desc *desc) {
    struct cached x;
    struct verdict verdict = cached_make(&x, desc, context);
    if (verdict.ok)
        verdict = run_cached(&x, context);
    cached_free(&x);
    verdict_add(&verdict, "decode, %s", qkv_context_variant(context, QKV_STAGE_DECODE));
    cached_explain(desc, &verdict);
    return verdict;
}
