/* SPDX-License-Identifier: Apache-2.0 */
/* The law of the bits for tokens that came into a sequence by other ways than append: shared,
 * copied, or loaded from a file. */
#include "bits_decode.h"

#include <stdlib.h>
#include <string.h>

static bool is_attended(const struct cached *x, int64_t sequence) {
    for (int64_t b = 0; b < x->c.desc.batch; b++)
        if (cached_sequence(x, b) == sequence)
            return true;
    return false;
}

/* There is always one more sequence than entries. */
static int32_t unattended(const struct cached *x) {
    int32_t sequence = 0;
    while (is_attended(x, sequence))
        sequence++;
    return sequence;
}

static bool is_entered(const qkv_cache *cache, int32_t page) {
    for (int64_t i = 0; i < cache->sequences * cache->sequence_pages; i++)
        if (cache->table[i] == page)
            return true;
    return false;
}

/* Pages that stand in no other place of the table. */
static void give_pages(const qkv_cache *cache, int32_t sequence) {
    int32_t *entries = cache->table + sequence * cache->sequence_pages;
    int32_t page = 0;
    for (int64_t i = 0; i < cache->sequence_pages; i++) {
        while (is_entered(cache, page))
            page++;
        entries[i] = page;
    }
}

/* Entries that attended to a sequence attend to another one. */
static void redirect(struct cached *x, int32_t from, int32_t to) {
    int32_t *sequences = (int32_t *)(void *)x->sequences.data;
    for (int64_t b = 0; b < x->c.desc.batch; b++)
        if (sequences[b] == from)
            sequences[b] = to;
    x->decode.sequences = sequences;
}

static struct verdict run_after(struct cached *x, const qkv_context *context, qkv_status status,
                                const char *what) {
    const struct call call = cached_call(x, context);
    if (status != QKV_OK)
        return verdict_fail("%s: %s", what, qkv_status_string(status));
    struct verdict verdict = cached_run_again(x, &call, (struct how){WAY_PLAIN, 1, 0});
    verdict_add(&verdict, "%s", what);
    return verdict;
}

static struct verdict after_load(struct cached *x, const qkv_context *context, int32_t sequence) {
    const size_t size = qkv_cache_save_size(&x->cache, sequence);
    void *file = malloc(size + 1);
    if (!file)
        abort();
    qkv_status status = qkv_cache_save(&x->cache, sequence, file, size);
    if (status == QKV_OK)
        status = qkv_cache_truncate(&x->cache, sequence, 0);
    memset(x->memory.data, 0xff, x->desc.desc.batch == 1 ? x->memory.size : 0);
    if (status == QKV_OK)
        status = qkv_cache_load(&x->cache, sequence, file, size);
    free(file);
    return run_after(x, context, status, "saved, forgotten and loaded");
}

struct verdict bits_after_moves(struct cached *x, const qkv_context *context, struct rng *rng) {
    const bool shares = x->cache.table && rng_chance(rng, 2);
    const int32_t from = cached_sequence(x, 0), to = unattended(x);
    const int32_t tokens = x->cache.lengths[from];
    if (x->cache.table)
        give_pages(&x->cache, to);
    qkv_status status = shares ? qkv_cache_share(&x->cache, to, from, tokens)
                               : qkv_cache_copy(&x->cache, to, from, tokens);
    redirect(x, from, to);
    struct verdict verdict = run_after(x, context, status, shares ? "shared" : "copied");
    if (verdict.ok)
        verdict = run_after(x, context, qkv_cache_truncate(&x->cache, from, 0),
                            shares ? "shared, and forgotten by the first" : "copied, likewise");
    return verdict.ok ? after_load(x, context, to) : verdict;
}
