/* SPDX-License-Identifier: Apache-2.0 */
/* The law of the bits with a cache: for the same stored values a query's row of out and LSE has the
 * same bits alone, in a chunk, in a batch, without the other heads of its group, for any threads
 * and parts, whatever the plan's kv_len and the last-level cache, before and after later tokens, on
 * any pages, and as in attention on plain rows. For every pair of types and every option. */
#include "bits_decode.h"

#include <math.h>

#include "bits.h"
#include "cached_slice.h"
#include "context.h"
#include "decode.h"
#include "options.h"
#include "ref/ref.h"
#include "stage.h"

static const struct desc_limits limits = {1200, 160, 300000};

/* ---- Descriptions of all kinds ---- */

/* A property of a case that was run. */
typedef struct verdict property(struct cached *x, const qkv_context *context, struct rng *rng);

static struct verdict run_plainly(const struct cached *x, const qkv_context *context) {
    const struct call call = cached_call(x, context);
    return run_call(&call, (struct how){WAY_PLAIN, 1, 0});
}

/* Few rows, many, and several blocks of them; up to three pieces of keys; with an option and a pair
 * of types by number. */
static struct cached_desc with_option(int number) {
    static const int64_t lengths[] = {41, 270, 90}, pages[] = {16, 48, 32, 256};
    struct desc desc = desc_plain();
    desc.seed = test_seed() + (uint64_t)number;
    desc.q_len = number % 13 ? (number / 3 % 4 ? 3 : 19) : 70;
    desc.kv_len = number % 31 ? lengths[number % 3] : 2100;
    desc.kv_heads = 1 + number % 2;
    desc.q_heads = desc.kv_heads * (1 + number / 2 % 3);
    desc.head_dim = desc.v_dim = number % 5 ? 8 : 21;
    option_set(&desc, number / CACHED_PAIRS);
    struct cached_desc d = cached_plain(&desc);
    cached_set_pair(&d, number % CACHED_PAIRS);
    d.mapping = (enum mapping)(number / 7 % MAPPED_COUNT);
    d.lens = d.mapping == MAPPED_IN_PAIRS || number % 4 < 2;
    d.page_tokens = pages[number / 3 % 4];
    d.room = 40;
    return d;
}

/* ---- Threads and parts ---- */

static struct verdict any_way_is_the_same(struct cached *x, const qkv_context *context,
                                          struct rng *rng) {
    const struct call call = cached_call(x, context);
    struct verdict verdict = verdict_ok();
    for (int w = (int)rng_below(rng, 4); w < BITS_WAYS && verdict.ok; w += 4) {
        struct how how = bits_ways[w];
        how.seed += rng_next(rng) & ~(uint64_t)15;
        verdict = cached_run_again(x, &call, how);
        verdict_add(&verdict, "%s", run_way_name(how));
    }
    return verdict;
}

/* ---- Alone, in chunks, in a batch ---- */

/* Every query of an entry, so many at a time, with its whole group or without it. */
static struct verdict in_chunks_of(struct cached *x, const qkv_context *context, struct rng *rng,
                                   int64_t size) {
    const int64_t b = rng_below(rng, x->c.desc.batch), queries = ref_queries(&x->c.params, b);
    const int64_t group = x->c.desc.q_heads / x->c.desc.kv_heads;
    struct verdict verdict = verdict_ok();
    for (int64_t i = 0; i < queries && verdict.ok; i += size) {
        struct cached_slice s = {b, i, size < queries - i ? size : queries - i, -1, 0};
        s.member = rng_below(rng, group + 1) - 1;
        s.more = rng_chance(rng, 2) ? rng_below(rng, 3000) : 0;
        verdict = cached_slice_check(x, context, &s);
    }
    return verdict;
}

static struct verdict every_query_alone(struct cached *x, const qkv_context *context,
                                        struct rng *rng) {
    return in_chunks_of(x, context, rng, 1);
}

/* Few rows and many go different ways: 12 of them are few. */
static struct verdict in_chunks(struct cached *x, const qkv_context *context, struct rng *rng) {
    static const int64_t sizes[] = {2, 3, 5, 12, 13, 24};
    return in_chunks_of(x, context, rng, rng_pick(rng, sizes, 6));
}

/* ---- The plan's kv_len ---- */

static struct verdict with_larger_kv_len(struct cached *x, const qkv_context *context,
                                         struct rng *rng) {
    static const int64_t more[] = {1, 300, 5000};
    if (!cached_kv_len_is_free(x))
        return verdict_ok();
    x->params.kv_len += rng_pick(rng, more, 3);
    const struct call call = cached_call(x, context);
    const struct verdict verdict = cached_run_again(x, &call, (struct how){WAY_PLAIN, 1, 0});
    x->params.kv_len = x->c.params.kv_len;
    return verdict;
}

/* ---- Later tokens ---- */

static float anything(void *argument, uint64_t hash) {
    (void)argument;
    return hash % 64 == 0 ? (hash & 64 ? INFINITY : NAN) : rng_normal(hash);
}

/* More tokens to the sequences of all entries. */
static qkv_status append_more(const struct cached *x, const qkv_context *context, struct rng *rng) {
    const struct desc *d = &x->c.desc;
    const int64_t count = 1 + rng_below(rng, x->desc.room);
    struct tensor k = tensor_make(QKV_F32, (const int64_t[]){1, d->kv_heads, count, d->head_dim},
                                  (struct layout){0});
    struct tensor v = tensor_make(QKV_F32, (const int64_t[]){1, d->kv_heads, count, d->v_dim},
                                  (struct layout){0});
    qkv_status status = QKV_OK;
    tensor_fill(&k, rng_next(rng), anything, NULL);
    tensor_fill(&v, rng_next(rng), anything, NULL);
    for (int64_t b = 0; b < d->batch && status == QKV_OK; b++)
        if (b == 0 || cached_sequence(x, b) != cached_sequence(x, b - 1))
            status = cached_append(x, context, cached_sequence(x, b), &k.view, &v.view, count);
    tensor_free(&k);
    tensor_free(&v);
    return status;
}

static qkv_status truncate_all(const struct cached *x, const int32_t *lengths) {
    qkv_status status = QKV_OK;
    for (int64_t s = 0; s < x->cache.sequences && status == QKV_OK; s++)
        status = qkv_cache_truncate(&x->cache, s, lengths[s]);
    return status;
}

enum { SEQUENCES_MAX = 16 };

/* Later tokens are there and not seen; then they are forgotten. */
static struct verdict after_later_tokens(struct cached *x, const qkv_context *context,
                                         struct rng *rng) {
    int32_t lengths[SEQUENCES_MAX], seen[SEQUENCES_MAX];
    const struct call call = cached_call(x, context);
    const int32_t *given = x->params.kv_lens;
    ck_assert_int_le(x->cache.sequences, SEQUENCES_MAX);
    for (int64_t s = 0; s < x->cache.sequences; s++)
        lengths[s] = x->cache.lengths[s];
    for (int64_t b = 0; b < x->c.desc.batch; b++)
        seen[b] = (int32_t)ref_keys(&x->c.params, b);
    qkv_status status = append_more(x, context, rng);
    x->params.kv_lens = seen;
    struct verdict verdict = verdict_ok();
    if (status == QKV_OK)
        verdict = cached_run_again(x, &call, (struct how){WAY_PLAIN, 1, 0});
    verdict_add(&verdict, "after later tokens");
    x->params.kv_lens = given;
    if (status == QKV_OK)
        status = truncate_all(x, lengths);
    if (status == QKV_OK && verdict.ok)
        verdict = cached_run_again(x, &call, (struct how){WAY_PLAIN, 1, 0});
    verdict_add(&verdict, "later tokens came, and were forgotten");
    return status ? verdict_fail("%s", qkv_status_string(status)) : verdict;
}

/* ---- Pages ---- */

/* The same tokens on pages of another size, in another order, or in one run. */
static struct verdict on_other_pages(struct cached *x, const qkv_context *context,
                                     struct rng *rng) {
    static const int64_t pages[] = {16, 32, 48, 80, 256, 0, 0};
    struct cached_desc other = x->desc;
    struct cached y;
    other.page_tokens = rng_pick(rng, pages, 7);
    other.table = rng_chance(rng, 2);
    other.chunk = 1 + rng_below(rng, 400);
    other.page_tokens = other.page_tokens ? other.page_tokens : cached_one_page(&other);
    struct verdict verdict = cached_make(&y, &other, context);
    if (verdict.ok)
        verdict = run_plainly(&y, context);
    if (verdict.ok)
        verdict = cached_same_bits(&x->c, &y.c);
    cached_free(&y);
    verdict_add(&verdict, "pages of %lld, table %d, appended by %lld", (long long)other.page_tokens,
                other.table, (long long)other.chunk);
    return verdict;
}

/* ---- Prefill ---- */

static struct verdict as_in_attention(struct cached *x, const qkv_context *context,
                                      struct rng *rng) {
    (void)rng;
    return cached_run_attention(x, context);
}

/* ---- What is known of the processor ---- */

/* Caches that hold all of a call, or nothing; prefetchers that follow by themselves, or not; units
 * of whole vectors, or of half ones. */
static struct verdict on_any_processor(struct cached *x, const qkv_context *context,
                                       struct rng *rng) {
    static const int64_t sizes[] = {1, INT64_MAX, 0, 1 << 14};
    qkv_context other = *context;
    struct qkv_context_state *state = (struct qkv_context_state *)&other;
    state->table.last_cache = rng_pick(rng, sizes, rng_chance(rng, 2) ? 1 : 4);
    state->table.follows = !rng_chance(rng, 4);
    state->table.halves = !state->table.halves;
    const struct call call = cached_call(x, &other);
    struct verdict verdict = cached_run_again(x, &call, (struct how){WAY_PLAIN, 1, 0});
    verdict_add(&verdict, "%lld bytes, %s, %s vectors", (long long)state->table.last_cache,
                state->table.follows ? "followed" : "not followed",
                state->table.halves ? "half" : "whole");
    return verdict;
}

/* ---- All of them ---- */

static const struct {
    const char *name;
    property *holds;
} properties[] = {
    {"any number of threads and any division into parts", any_way_is_the_same},
    {"one query alone or among others", every_query_alone},
    {"in one call or in chunks", in_chunks},
    {"planned for more keys", with_larger_kv_len},
    {"whatever is known of the processor", on_any_processor},
    {"as in attention on plain rows", as_in_attention},
    {"on any pages", on_other_pages},
    {"before and after later tokens", after_later_tokens},
    {"after moves", bits_after_moves},
};

static void check_properties(const struct cached_desc *d, int room) {
    const qkv_context *context = &rooms_get(room)->context;
    struct rng rng = rng_seeded(d->desc.seed);
    struct cached x;
    struct verdict verdict = cached_make(&x, d, context);
    if (verdict.ok)
        verdict = run_plainly(&x, context);
    for (size_t i = 0; i < sizeof properties / sizeof *properties && verdict.ok; i++) {
        verdict = properties[i].holds(&x, context, &rng);
        verdict_add(&verdict, "%s", properties[i].name);
    }
    cached_free(&x);
    verdict_add(&verdict, "decode, %s", qkv_context_variant(context, QKV_STAGE_DECODE));
    cached_explain(d, &verdict);
    stage_assert(&verdict);
}

START_TEST(every_option_with_every_pair_of_types) {
    const int one_in = test_stride();
    for (int i = test_next(-1, one_in); i < option_count() * CACHED_PAIRS;
         i = test_next(i, one_in)) {
        const struct cached_desc d = with_option(i);
        check_properties(&d, _i);
    }
}
END_TEST

START_TEST(random_descriptions) {
    for (int i = 0; i < test_cases(); i += 2 * BITS_SHARE) {
        struct cached_desc d = cached_numbered(test_seed() + 1, i, &limits);
        d.room = 40;
        check_properties(&d, _i);
    }
}
END_TEST

static int64_t width_of(int32_t dtype) {
    return dtype == QKV_F32 ? 4 : dtype == QKV_I8 ? 1 : 2;
}

/* A little more than a MiB and 12 rows a key/value head, so that in every room the whole call asks
 * for its panels ahead, across blocks, heads and pages. A row alone does not where vectors are wide. */
static struct cached_desc asked_for_ahead(int number) {
    static const int64_t pages[] = {16, 48, 256};
    struct desc desc = desc_plain();
    desc.seed = test_seed() + (uint64_t)number;
    desc.q_len = 3;
    desc.kv_heads = 2;
    desc.q_heads = 8;
    desc.head_dim = desc.v_dim = 96;
    desc.causal = number % 3 > 0;
    struct cached_desc d = cached_plain(&desc);
    cached_set_pair(&d, number);
    d.desc.kv_len = (1 << 20) / (2 * 96 * (width_of(d.k_dtype) + width_of(d.v_dtype))) + 100;
    d.desc.window_left = number % 3 > 1 ? d.desc.kv_len - 60 : -1;
    d.mapping = (enum mapping)(number % MAPPED_COUNT);
    d.page_tokens = pages[number % 4 % 3];
    d.room = 40;
    return d;
}

static void assert_streamed(const struct cached_desc *d, const qkv_context *context) {
    struct cached x;
    qkv_plan plan;
    const struct verdict verdict = cached_make(&x, d, context);
    stage_assert(&verdict);
    ck_assert_int_eq(
        qkv_decode_plan(&plan, &x.params, &x.cache, x.decode.sequences, context), QKV_OK);
    const struct qkv_sequence sequence = {.rows = d->desc.q_len, .kv_len = d->desc.kv_len};
    ck_assert(qkv_is_streamed(qkv_plan_get(&plan), &sequence));
    cached_free(&x);
}

START_TEST(caches_that_are_asked_for_ahead) {
    const int one_in = test_stride() < 5 ? 1 : 5;
    for (int i = test_next(-1, one_in); i < CACHED_PAIRS; i = test_next(i, one_in)) {
        const struct cached_desc d = asked_for_ahead(i);
        assert_streamed(&d, &rooms_get(_i)->context);
        check_properties(&d, _i);
    }
}
END_TEST

/* ---- In order ---- */

/* One query of one head over 40 keys of a pair of types. */
static struct cached_desc short_work(int pair) {
    struct desc desc = desc_plain();
    desc.seed = test_seed();
    desc.q_heads = desc.kv_heads = desc.q_len = 1;
    desc.kv_len = 40;
    desc.head_dim = desc.v_dim = 64;
    struct cached_desc d = cached_plain(&desc);
    cached_set_pair(&d, pair);
    return d;
}

static int stored_of(int32_t dtype) {
    return dtype == QKV_F32   ? QKV_STORED_F32
           : dtype == QKV_F16 ? QKV_STORED_F16
           : dtype == QKV_I8  ? QKV_STORED_I8
                              : QKV_STORED_BF16;
}

typedef int reads_fn(const struct qkv_plan_state *plan, const struct qkv_sequence *sequence);

/* Is the case read so with so large a last-level cache, and prefetchers that follow or not? */
static int is_read(reads_fn *so, const struct cached *x, const qkv_context *context, int64_t bytes,
                   int follows) {
    qkv_context other = *context;
    qkv_plan plan;
    struct qkv_table *table = &((struct qkv_context_state *)&other)->table;
    table->last_cache = bytes;
    table->follows = follows;
    ck_assert_int_eq(qkv_decode_plan(&plan, &x->params, &x->cache, x->decode.sequences, &other),
                     QKV_OK);
    const struct qkv_sequence sequence = {.rows = x->c.desc.q_len, .kv_len = x->c.desc.kv_len};
    return so(qkv_plan_get(&plan), &sequence);
}

/* What the last-level cache does not hold, of types that are worth it to the room, if followed. */
START_TEST(what_is_read_in_order) {
    const qkv_context *context = &rooms_get(_i)->context;
    const int *widest = qkv_context_get(context)->table.decode->in_order;
    for (int pair = 0; pair < CACHED_PAIRS; pair++) {
        const struct cached_desc d = short_work(pair);
        struct cached x;
        const struct verdict verdict = cached_make(&x, &d, context);
        stage_assert(&verdict);
        const int worth = x.params.arithmetic == QKV_ARITHMETIC_F32 &&
                          widest[stored_of(d.k_dtype)] >= 64 && widest[stored_of(d.v_dtype)] >= 64;
        ck_assert_int_eq(is_read(qkv_is_read_in_order, &x, context, 1, 1), worth);
        ck_assert_int_eq(is_read(qkv_is_read_in_order, &x, context, 1, 0), 0);
        ck_assert_int_eq(is_read(qkv_is_read_in_order, &x, context, 1 << 20, 1), 0);
        ck_assert_int_eq(is_read(qkv_is_read_in_order, &x, context, 0, 1), 0);
        cached_free(&x);
    }
}
END_TEST

/* What the last-level cache does not hold where prefetchers do not follow, unless so many rows
 * share it that their work takes longer. Pair 0 has the least work. */
START_TEST(what_is_read_in_lanes) {
    const qkv_context *context = &rooms_get(_i)->context;
    for (int rows = 1; rows <= 1024; rows *= 1024) {
        struct cached_desc d = short_work(0);
        d.desc.q_len = rows;
        struct cached x;
        const struct verdict verdict = cached_make(&x, &d, context);
        stage_assert(&verdict);
        ck_assert_int_eq(is_read(qkv_is_read_in_lanes, &x, context, 1, 0), rows == 1);
        ck_assert_int_eq(is_read(qkv_is_read_in_lanes, &x, context, 1, 1), 0);
        ck_assert_int_eq(is_read(qkv_is_read_in_lanes, &x, context, 1 << 20, 0), 0);
        ck_assert_int_eq(is_read(qkv_is_read_in_lanes, &x, context, 0, 0), 0);
        cached_free(&x);
    }
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("bits_decode");
    TCase *tcase = tcase_create("rooms");
    const TTest *const tests[] = {
        every_option_with_every_pair_of_types,
        random_descriptions,
        caches_that_are_asked_for_ahead,
        what_is_read_in_order,
        what_is_read_in_lanes,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
    bits_add_step_tests(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
