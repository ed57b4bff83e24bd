/* SPDX-License-Identifier: Apache-2.0 */
/* The law of the bits: a row of an output has the same bits whatever the number of threads, the
 * division into parts, the batch around it, the chunk it comes in, and the strides. */
#include "bits.h"

#include "context.h"
#include "support/compare.h"
#include "slice.h"
#include "stage.h"

static const struct desc_limits limits = {1200, 160, 200000};
static const int stages[] = {QKV_STAGE_SCORES, QKV_STAGE_SOFTMAX, QKV_STAGE_MIX,
                             QKV_STAGE_ATTENTION};

/* ---- A harness: many descriptions, all stages, one property ---- */

/* A property of a finished case. */
typedef struct verdict property(struct test_case *c, int stage, const qkv_context *context,
                                struct rng *rng);

static struct verdict check_property(const qkv_context *context, int stage, const struct desc *d,
                                     property *holds, struct rng *rng) {
    struct test_case c;
    case_make(&c, d, STAGES_ONE(stage));
    struct call call = {context, stage, &c.params, &c.tensors};
    struct verdict verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    if (verdict.ok)
        verdict = holds(&c, stage, context, rng);
    case_free(&c);
    verdict_add(&verdict, "%s, %s", qkv_stage_name(stage), qkv_context_variant(context, stage));
    case_explain(d, &verdict);
    return verdict;
}

/* adjust: makes the property worth asking (NULL: every description is). */
static void check_all(int room, void (*adjust)(struct desc *d), property *holds) {
    for (int i = 0; i < test_cases(); i += BITS_SHARE) {
        struct rng rng = rng_seeded(test_seed() + (uint64_t)i);
        struct desc d = desc_numbered(test_seed() + 1, i, &limits);
        d.in_place = false; /* an input must still be there for the next run */
        if (adjust)
            adjust(&d);
        for (int s = 0; s < 4; s++) {
            struct verdict verdict =
                check_property(&rooms_get(room)->context, stages[s], &d, holds, &rng);
            stage_assert(&verdict);
        }
    }
}

/* ---- Threads and parts ---- */

static const enum role outputs[] = {ROLE_SCORES, ROLE_WEIGHTS, ROLE_OUT, ROLE_LSE};

static struct verdict same_memory(const struct test_case *x, const struct test_case *y) {
    for (int i = 0; i < 4; i++) {
        const struct guard *a = &x->tensor[outputs[i]].memory, *b = &y->tensor[outputs[i]].memory;
        const float *fa = (const float *)(const void *)a->data;
        const float *fb = (const float *)(const void *)b->data;
        for (size_t e = 0; e < a->size / sizeof(float); e++)
            if (!same_bits(fa[e], fb[e]))
                return verdict_fail("%s: element %zu is %a in one call and %a",
                                    role_names[outputs[i]], e, (double)fa[e], (double)fb[e]);
    }
    return verdict_ok();
}

static struct verdict any_way_is_the_same(struct test_case *c, int stage,
                                          const qkv_context *context, struct rng *rng) {
    struct test_case again;
    struct verdict verdict = verdict_ok();
    case_make(&again, &c->desc, c->stages);
    for (int w = 0; w < BITS_WAYS && verdict.ok; w++) {
        struct how how = bits_ways[w];
        how.seed += rng_next(rng) & ~(uint64_t)15;
        case_reset(&again);
        struct call call = {context, stage, &again.params, &again.tensors};
        verdict = run_call(&call, how);
        if (verdict.ok)
            verdict = same_memory(c, &again);
        verdict_add(&verdict, "%s", run_way_name(how));
    }
    case_free(&again);
    return verdict;
}

START_TEST(any_number_of_threads_and_any_division_into_parts) {
    check_all(_i, NULL, any_way_is_the_same);
}
END_TEST

/* ---- Processors ---- */

/* Where a row's weights are added up depends on how wide the processor's units are. */
static struct verdict other_units_are_the_same(struct test_case *c, int stage,
                                               const qkv_context *context, struct rng *rng) {
    qkv_context other = *context;
    struct qkv_table *table = &((struct qkv_context_state *)&other)->table;
    struct test_case again;
    (void)rng;
    table->halves = !table->halves;
    case_make(&again, &c->desc, c->stages);
    struct call call = {&other, stage, &again.params, &again.tensors};
    struct verdict verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    if (verdict.ok)
        verdict = same_memory(c, &again);
    case_free(&again);
    return verdict;
}

START_TEST(whatever_the_processors_units) {
    check_all(_i, NULL, other_units_are_the_same);
}
END_TEST

/* ---- Batches, heads, queries ---- */

static struct verdict every_head_alone(struct test_case *c, int stage, const qkv_context *context,
                                       struct rng *rng) {
    struct verdict verdict = verdict_ok();
    (void)rng;
    for (int64_t b = 0; b < c->desc.batch; b++)
        for (int64_t h = 0; h < c->desc.q_heads && verdict.ok; h++) {
            struct slice s = {b, h, 0, ref_queries(&c->params, b)};
            verdict = slice_check(c, stage, context, &s);
        }
    return verdict;
}

START_TEST(alone_or_in_a_batch) {
    check_all(_i, NULL, every_head_alone);
}
END_TEST

static void make_padded(struct desc *d) {
    d->batch = 3;
    d->q_lengths = d->kv_lengths = LENGTHS_PADDED;
}

START_TEST(alone_or_padded) {
    check_all(_i, make_padded, every_head_alone);
}
END_TEST

static void make_ragged(struct desc *d) {
    d->batch = 3;
    d->q_lengths = d->kv_lengths = LENGTHS_RAGGED;
}

START_TEST(alone_or_ragged) {
    check_all(_i, make_ragged, every_head_alone);
}
END_TEST

static struct verdict some_queries_alone(struct test_case *c, int stage, const qkv_context *context,
                                         struct rng *rng) {
    struct verdict verdict = verdict_ok();
    for (int k = 0; k < 8 && verdict.ok; k++) {
        struct slice s = {.b = rng_below(rng, c->desc.batch), .h = rng_below(rng, c->desc.q_heads)};
        int64_t queries = ref_queries(&c->params, s.b);
        s.rows = queries > 0;
        s.first = queries ? rng_below(rng, queries) : 0;
        verdict = slice_check(c, stage, context, &s);
    }
    return verdict;
}

START_TEST(one_query_alone_or_among_others) {
    check_all(_i, NULL, some_queries_alone);
}
END_TEST

/* Without anything that depends on positions, every single query can be asked alone. */
static void make_positionless(struct desc *d) {
    d->causal = d->alibi = false;
    d->window_left = d->window_right = -1;
}

START_TEST(one_query_alone_or_among_others_without_positions) {
    check_all(_i, make_positionless, some_queries_alone);
}
END_TEST

/* Keys and values that are asked for ahead where many rows pass them, and not where one does. */
START_TEST(one_query_alone_or_among_others_of_large_heads) {
    for (int i = 0; i < 2; i++) {
        struct rng rng = rng_seeded(test_seed() + (uint64_t)i);
        struct desc d = desc_plain();
        d.q_len = 97 + 40 * i;
        d.kv_len = 1025 + 100 * i;
        d.head_dim = d.v_dim = 128;
        d.causal = i > 0;
        d.align = QKV_ALIGN_BOTTOM_RIGHT;
        const struct verdict verdict = check_property(&rooms_get(_i)->context, QKV_STAGE_ATTENTION,
                                                      &d, some_queries_alone, &rng);
        stage_assert(&verdict);
    }
}
END_TEST

/* ---- Chunks ---- */

static void make_causal(struct desc *d) {
    d->causal = true;
    d->align = QKV_ALIGN_BOTTOM_RIGHT;
    if (d->kv_len < d->q_len)
        d->kv_len = d->q_len;
}

static struct verdict in_chunks(struct test_case *c, int stage, const qkv_context *context,
                                struct rng *rng) {
    static const int64_t sizes[] = {1, 7, 16, 48, 100};
    struct verdict verdict = verdict_ok();
    int64_t b = rng_below(rng, c->desc.batch), h = rng_below(rng, c->desc.q_heads);
    int64_t size = rng_pick(rng, sizes, 5), queries = ref_queries(&c->params, b);
    for (int64_t i = 0; i < queries && verdict.ok; i += size) {
        struct slice s = {b, h, i, size < queries - i ? size : queries - i};
        verdict = slice_check(c, stage, context, &s);
    }
    return verdict;
}

START_TEST(causal_prefill_in_one_call_or_in_chunks) {
    check_all(_i, make_causal, in_chunks);
}
END_TEST

/* ---- Strides ---- */

static struct verdict same_elements(const struct test_case *x, const struct test_case *y) {
    for (int i = 0; i < 4; i++) {
        const struct tensor *a = &x->tensor[outputs[i]], *b = &y->tensor[outputs[i]];
        int64_t rows = a->dim[0] * a->dim[1] * a->dim[2];
        for (int64_t e = 0; a->memory.pages && e < rows * a->dim[3]; e++) {
            int64_t r = e / a->dim[3], t = r % a->dim[2], h = r / a->dim[2] % a->dim[1];
            int64_t batch = r / a->dim[2] / a->dim[1];
            float u = *tensor_f32(&a->view, batch, h, t, e % a->dim[3]);
            float v = *tensor_f32(&b->view, batch, h, t, e % a->dim[3]);
            if (!same_bits(u, v))
                return verdict_fail("%s[%lld %lld %lld %lld] is %a or %a", role_names[outputs[i]],
                                    (long long)batch, (long long)h, (long long)t,
                                    (long long)(e % a->dim[3]), (double)u, (double)v);
        }
    }
    return verdict_ok();
}

/* The same numbers in other places; broadcast dimensions stay broadcast. */
static struct verdict in_another_layout(struct test_case *c, int stage, const qkv_context *context,
                                        struct rng *rng) {
    struct desc other = c->desc;
    struct test_case again;
    for (int role = 0; role < ROLE_COUNT; role++) {
        uint8_t zero = other.layout[role].zero;
        other.layout[role] = layout_random(rng, false);
        other.layout[role].zero = zero;
    }
    case_make(&again, &other, c->stages);
    struct call call = {context, stage, &again.params, &again.tensors};
    struct verdict verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    if (verdict.ok)
        verdict = same_elements(c, &again);
    case_free(&again);
    return verdict;
}

START_TEST(any_strides) {
    check_all(_i, NULL, in_another_layout);
}
END_TEST

static void make_bshd(struct desc *d) {
    for (int role = 0; role < ROLE_COUNT; role++)
        d->layout[role] = (struct layout){.order = LAYOUT_BSHD, .zero = d->layout[role].zero};
}

static struct verdict in_bhsd(struct test_case *c, int stage, const qkv_context *context,
                              struct rng *rng) {
    struct desc other = c->desc;
    struct test_case again;
    (void)rng;
    for (int role = 0; role < ROLE_COUNT; role++)
        other.layout[role].order = LAYOUT_BHSD;
    case_make(&again, &other, c->stages);
    struct call call = {context, stage, &again.params, &again.tensors};
    struct verdict verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    if (verdict.ok)
        verdict = same_elements(c, &again);
    case_free(&again);
    return verdict;
}

START_TEST(bhsd_or_bshd) {
    check_all(_i, make_bshd, in_bhsd);
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("bits");
    TCase *tcase = tcase_create("rooms");
    const TTest *const tests[] = {
        any_number_of_threads_and_any_division_into_parts,
        whatever_the_processors_units,
        alone_or_in_a_batch,
        alone_or_padded,
        alone_or_ragged,
        one_query_alone_or_among_others,
        one_query_alone_or_among_others_without_positions,
        one_query_alone_or_among_others_of_large_heads,
        causal_prefill_in_one_call_or_in_chunks,
        any_strides,
        bhsd_or_bshd,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
    bits_add_project_tests(tcase);
    bits_add_backward_tests(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
