/* SPDX-License-Identifier: Apache-2.0 */
/* The law of the bits for project: a token's row is the same alone and among others, in any batch,
 * by any number of threads, from packed weights or plain ones, at any strides, whatever the caches
 * hold. */
#include "bits.h"

#include "context.h"
#include "project.h"
#include "support/project_case.h"
#include "slice.h"
#include "stage.h"

enum { PRODUCTS = 200000 };

static struct verdict run(struct project_case *c, const struct project_desc *d,
                          const qkv_context *context, struct how how) {
    struct verdict verdict = project_case_make(c, d, context);
    struct call call = {context, QKV_STAGE_PROJECT, &c->params, &c->tensors};
    return verdict.ok ? run_call(&call, how) : verdict;
}

/* Token t of sequence b of x is token u of sequence a of y. */
static struct verdict same_token(const struct project_case *x, int64_t b, int64_t t,
                                 const struct project_case *y, int64_t a, int64_t u) {
    for (int which = 0; which < QKV_WHICH_COUNT; which++)
        for (int64_t h = 0; h < project_heads(&x->desc, which); h++)
            for (int64_t c = 0; c < project_dim(&x->desc, which); c++) {
                float p = *tensor_f32(&x->tensor[PROJECT_Y + which].view, b, h, t, c);
                float q = *tensor_f32(&y->tensor[PROJECT_Y + which].view, a, h, u, c);
                if (!same_bits(p, q))
                    return verdict_fail("%c[b=%lld h=%lld t=%lld c=%lld] is %a or %a", "qkv"[which],
                                        (long long)b, (long long)h, (long long)t, (long long)c,
                                        (double)p, (double)q);
            }
    return verdict_ok();
}

static struct verdict same_tokens(const struct project_case *x, const struct project_case *y) {
    struct verdict verdict = verdict_ok();
    for (int64_t b = 0; b < x->desc.batch; b++)
        for (int64_t t = 0; t < x->desc.tokens && verdict.ok; t++)
            verdict = same_token(x, b, t, y, b, t);
    return verdict;
}

/* The same numbers run in another way, from other places, packed or not. */
static struct verdict compare_with(const struct project_case *c, const struct project_desc *other,
                                   const qkv_context *context, struct how how) {
    struct project_case again;
    struct verdict verdict = run(&again, other, context, how);
    if (verdict.ok)
        verdict = same_tokens(c, &again);
    project_case_free(&again);
    verdict_add(&verdict, "%s", run_way_name(how));
    return verdict;
}

static struct verdict any_way(const struct project_case *c, const qkv_context *context,
                              struct rng *rng) {
    struct verdict verdict = verdict_ok();
    for (int w = 0; w < BITS_WAYS && verdict.ok; w++) {
        struct how how = bits_ways[w];
        how.seed += rng_next(rng) & ~(uint64_t)15;
        verdict = compare_with(c, &c->desc, context, how);
    }
    return verdict;
}

static struct verdict any_place(const struct project_case *c, const qkv_context *context,
                                struct rng *rng) {
    struct project_desc other = c->desc;
    other.packed = !other.packed;
    for (int role = PROJECT_Y; role < PROJECT_ROLES; role++)
        other.place[role] = layout_random(rng, false);
    return compare_with(c, &other, context, (struct how){WAY_PLAIN, 1, 0});
}

/* `count` tokens of sequence b from t on, each a sequence of its own: views of x, and outputs of
 * their own. */
static struct verdict tokens_apart(const struct project_case *c, const qkv_context *context,
                                   int64_t b, int64_t t, int64_t count) {
    struct project_desc apart = c->desc;
    apart.batch = count;
    apart.tokens = 1;
    struct project_case again;
    struct verdict verdict = project_case_make(&again, &apart, context);
    again.tensors.x = c->tensors.x;
    again.tensors.x.data = tensor_f32(&c->tensors.x, b, 0, t, 0);
    again.tensors.x.stride[0] = c->tensors.x.stride[2];
    qkv_project_tensors outputs = again.tensors;
    again.tensors = c->tensors;
    again.tensors.x = outputs.x;
    again.tensors.q = outputs.q;
    again.tensors.k = outputs.k;
    again.tensors.v = outputs.v;
    struct call call = {context, QKV_STAGE_PROJECT, &again.params, &again.tensors};
    if (verdict.ok)
        verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    for (int64_t i = 0; i < count && verdict.ok; i++)
        verdict = same_token(c, b, t + i, &again, i, 0);
    project_case_free(&again);
    return verdict;
}

static struct verdict token_alone(const struct project_case *c, const qkv_context *context,
                                  struct rng *rng) {
    const int64_t b = rng_below(rng, c->desc.batch), t = rng_below(rng, c->desc.tokens);
    return tokens_apart(c, context, b, t, 1);
}

static struct verdict all_apart(const struct project_case *c, const qkv_context *context,
                                struct rng *rng) {
    return tokens_apart(c, context, rng_below(rng, c->desc.batch), 0, c->desc.tokens);
}

/* What is taken together depends on the size of the second-level cache and, of few tokens, on what
 * the last one seldom holds; what is asked for of their weights on the processor's prefetchers. */
static struct verdict with_caches(const struct project_case *c, const qkv_context *context,
                                  struct how how) {
    static const struct {
        int64_t second, last;
        int follows;
    } caches[] = {{0, 1, 0}, {INT64_MAX, 1, 0}, {0, 1, 1}, {INT64_MAX, 0, 1}};
    struct verdict verdict = verdict_ok();
    for (size_t i = 0; i < sizeof caches / sizeof *caches && verdict.ok; i++) {
        qkv_context other = *context;
        struct qkv_table *table = &((struct qkv_context_state *)&other)->table;
        table->second_cache = caches[i].second;
        table->last_cache = caches[i].last;
        table->follows = caches[i].follows;
        verdict = compare_with(c, &c->desc, &other, how);
        verdict_add(&verdict, "caches of %lld and %lld bytes, prefetchers that %s",
                    (long long)caches[i].second, (long long)caches[i].last,
                    caches[i].follows ? "follow" : "do not follow");
    }
    return verdict;
}

static struct verdict any_caches(const struct project_case *c, const qkv_context *context,
                                 struct rng *rng) {
    return with_caches(c, context, bits_ways[rng_below(rng, BITS_WAYS)]);
}

typedef struct verdict property(const struct project_case *c, const qkv_context *context,
                                struct rng *rng);

static void check_all(int room, property *holds) {
    const qkv_context *context = &rooms_get(room)->context;
    for (int i = 0; i < test_cases(); i += BITS_SHARE) {
        struct rng rng = rng_seeded(rng_hash(test_seed() + 2, (uint64_t)i));
        struct project_desc d = project_desc_random(&rng, PRODUCTS);
        struct project_case c;
        struct verdict verdict = run(&c, &d, context, (struct how){WAY_PLAIN, 1, 0});
        if (verdict.ok)
            verdict = holds(&c, context, &rng);
        project_case_free(&c);
        project_case_explain(&d, &verdict);
        stage_assert(&verdict);
    }
}

START_TEST(project_by_any_threads_and_parts) {
    check_all(_i, any_way);
}
END_TEST

START_TEST(project_at_any_strides_packed_or_not) {
    check_all(_i, any_place);
}
END_TEST

START_TEST(project_a_token_alone_or_among_others) {
    check_all(_i, token_alone);
}
END_TEST

START_TEST(project_a_batch_of_single_tokens) {
    check_all(_i, all_apart);
}
END_TEST

START_TEST(project_whatever_the_caches_hold) {
    check_all(_i, any_caches);
}
END_TEST

/* In one piece, and in some other way. */
static void check_caches(const struct project_desc *d, const qkv_context *context,
                         struct rng *rng) {
    const struct how plain = {WAY_PLAIN, 1, 0};
    struct project_case c;
    struct verdict verdict = run(&c, d, context, plain);
    if (verdict.ok)
        verdict = with_caches(&c, context, plain);
    if (verdict.ok)
        verdict = any_caches(&c, context, rng);
    project_case_free(&c);
    project_case_explain(d, &verdict);
    stage_assert(&verdict);
}

/* More than a block of tokens, as each sequence has one, more inputs than are taken at a time, and
 * more strips than are taken together; heads of whole panels, and others. */
START_TEST(project_of_many_blocks_whatever_the_caches_hold) {
    const qkv_context *context = &rooms_get(_i)->context;
    for (int odd = 0; odd < 2; odd++) {
        struct rng rng = rng_seeded(test_seed() + (uint64_t)odd);
        struct project_desc d = project_desc_plain();
        d.batch = 2;
        d.tokens = QKV_PROJECT_TOKENS + 1 + odd;
        d.d_model = QKV_PROJECT_WIDE_DEPTH + QKV_STRETCH + 3;
        d.q_heads = 1;
        d.kv_heads = 0;
        d.head_dim = QKV_PROJECT_COLUMNS * QKV_PROJECT_TOGETHER + QKV_PANEL - odd;
        d.packed = odd;
        d.biases = 1;
        check_caches(&d, context, &rng);
    }
}
END_TEST

/* Windows that are not all as long as the others, several strips of panels that do and do not come
 * out even, and any number of tiles; heads of whole panels, and others. */
START_TEST(project_of_few_tokens_whatever_the_caches_hold) {
    const qkv_context *context = &rooms_get(_i)->context;
    for (int tokens = 1; tokens <= 26; tokens += tokens < 14 ? 1 : 3) {
        struct rng rng = rng_seeded(test_seed() + (uint64_t)tokens);
        struct project_desc d = project_desc_plain();
        d.tokens = tokens;
        d.d_model = (tokens % 4 > 1 ? 1 : tokens % 4 ? 7 : 15) * QKV_STRETCH + 3 + tokens;
        d.q_heads = 1;
        d.kv_heads = 1;
        d.head_dim = (QKV_STRIP + 1 + tokens / 2 % 3) * QKV_PANEL - tokens % 2;
        d.packed = 1;
        d.biases = tokens % 3 > 0;
        check_caches(&d, context, &rng);
    }
}
END_TEST

/* Entries that share blocks of rows, a last one alone or none: their heads of whole panels, or not,
 * stand apart in memory, or their tokens do. */
START_TEST(project_of_short_entries) {
    const qkv_context *context = &rooms_get(_i)->context;
    for (int i = 0; i < 20; i++) {
        struct rng rng = rng_seeded(rng_hash(test_seed(), (uint64_t)i));
        struct project_desc d = project_desc_plain();
        d.batch = 2 + rng_below(&rng, 6);
        d.tokens = 1 + rng_below(&rng, QKV_PROJECT_TOKENS / 2);
        d.d_model = QKV_STRETCH + 5;
        d.q_heads = 2;
        d.kv_heads = 1;
        d.head_dim = i % 2 ? QKV_PANEL : QKV_PANEL + 4;
        d.biases = 1;
        for (int role = PROJECT_Y; role < PROJECT_ROLES && i % 4 > 1; role++)
            d.place[role] = layout_random(&rng, false);
        struct project_case c;
        struct verdict verdict = run(&c, &d, context, (struct how){WAY_PLAIN, 1, 0});
        for (int64_t b = 0; b < d.batch && verdict.ok; b++)
            verdict = tokens_apart(&c, context, b, 0, d.tokens);
        project_case_free(&c);
        project_case_explain(&d, &verdict);
        stage_assert(&verdict);
    }
}
END_TEST

/* As many rows as parts pack for in each way, and more; of one entry, or of some; both ways that
 * weights are stored. */
START_TEST(project_of_plain_weights) {
    const qkv_context *context = &rooms_get(_i)->context;
    static const struct {
        int batch, tokens;
    } rows[] = {{1, 1},
                {1, QKV_PROJECT_TOKENS / 2},
                {1, QKV_PLAIN_FEW},
                {QKV_PLAIN_FEW / 2 + 1, 2},
                {1, QKV_PLAIN_ROWS},
                {QKV_PLAIN_ROWS + 1, 1}};
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        struct rng rng = rng_seeded(rng_hash(test_seed(), (uint64_t)i));
        struct project_desc d = project_desc_plain();
        d.batch = rows[i / 2].batch;
        d.tokens = rows[i / 2].tokens;
        d.d_model = (d.batch * d.tokens > 200 ? 3 : 7) * QKV_STRETCH + 9;
        d.q_heads = 1;
        d.kv_heads = 0;
        d.head_dim = QKV_PROJECT_COLUMNS + QKV_PANEL + (int)(i / 4 % 2);
        if (i < 4) /* more strips than are taken together */
            d.head_dim = QKV_PROJECT_COLUMNS * QKV_PLAIN_TOGETHER + 2 * QKV_PANEL - (int)(i / 2);
        d.layout = i % 2 ? QKV_W_IN_OUT : QKV_W_OUT_IN;
        struct project_case c;
        struct verdict verdict = run(&c, &d, context, (struct how){WAY_PLAIN, 1, 0});
        if (verdict.ok)
            verdict = any_place(&c, context, &rng);
        if (verdict.ok)
            verdict = compare_with(&c, &d, context, bits_ways[rng_below(&rng, BITS_WAYS)]);
        project_case_free(&c);
        project_case_explain(&d, &verdict);
        stage_assert(&verdict);
    }
}
END_TEST

void bits_add_project_tests(TCase *tcase) {
    const TTest *const tests[] = {
        project_by_any_threads_and_parts,
        project_at_any_strides_packed_or_not,
        project_a_token_alone_or_among_others,
        project_a_batch_of_single_tokens,
        project_whatever_the_caches_hold,
        project_of_many_blocks_whatever_the_caches_hold,
        project_of_few_tokens_whatever_the_caches_hold,
        project_of_short_entries,
        project_of_plain_weights,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
