/* SPDX-License-Identifier: Apache-2.0 */
/* The law of the bits for the backward stages: the same gradients for any number of threads and any
 * division into parts, for a sequence alone or in any batch, and in any strides. */
#include <math.h>

#include "bits.h"
#include "ref/ref.h"
#include "slice.h"
#include "stage.h"
#include "support/compare_gradients.h"

static const struct desc_limits limits = {700, 130, 200000};

/* ---- A harness: many descriptions, the four stages, one property ---- */

/* A property of a finished case. */
typedef struct verdict property(struct test_case *c, int stage, const qkv_context *context,
                                struct rng *rng);

static struct verdict check_property(const qkv_context *context, int stage, const struct desc *d,
                                     property *holds, struct rng *rng) {
    struct test_case c;
    case_make(&c, d, STAGES_ONE(stage));
    struct verdict verdict = run_backward(&c, stage, context, (struct how){WAY_PLAIN, 1, 0});
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
        struct desc d = desc_numbered(test_seed() + 2, i, &limits);
        d.in_place = false; /* an input must still be there for the next run */
        if (adjust)
            adjust(&d);
        for (int s = QKV_STAGE_SCORES_BACKWARD; s <= QKV_STAGE_ATTENTION_BACKWARD; s++) {
            struct verdict verdict = check_property(&rooms_get(room)->context, s, &d, holds, &rng);
            stage_assert(&verdict);
        }
    }
}

static bool written(const struct test_case *c, int role) {
    return c->tensor[role].memory.pages && case_is_output(c, (enum role)role);
}

/* ---- Threads and parts ---- */

static struct verdict same_memory(const struct test_case *x, const struct test_case *y) {
    for (int role = ROLE_FIRST_GRADIENT; role < ROLE_COUNT; role++) {
        if (!written(x, role))
            continue;
        const struct guard *a = &x->tensor[role].memory, *b = &y->tensor[role].memory;
        const float *fa = (const float *)(const void *)a->data;
        const float *fb = (const float *)(const void *)b->data;
        for (size_t e = 0; e < a->size / sizeof(float); e++)
            if (!same_bits(fa[e], fb[e]))
                return verdict_fail("%s: element %zu is %a in one call and %a", role_names[role], e,
                                    (double)fa[e], (double)fb[e]);
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
        verdict = run_backward(&again, stage, context, how);
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

/* ---- A sequence alone ---- */

static void move_to(qkv_tensor *view, int64_t b, int64_t t) {
    size_t element = view->dtype == QKV_BOOL ? 1 : sizeof(float);
    if (view->data)
        view->data =
            (char *)view->data + (b * view->stride[0] + t * view->stride[2]) * (int64_t)element;
}

static bool is_keyed(int role) {
    return role == ROLE_K || role == ROLE_V || role == ROLE_D_K || role == ROLE_D_V;
}

/* Where sequence b begins in a tensor of the batch; bias and its gradient count by sequence. */
static struct ref_place begin_of(const struct test_case *c, int role, int64_t b) {
    if (role == ROLE_D_BIAS)
        return (struct ref_place){b, 0};
    return is_keyed(role) ? ref_key_place(&c->params, b, 0) : ref_query_place(&c->params, b, 0);
}

static struct tensor make_own(const struct test_case *c, int role, int64_t b) {
    const struct tensor *whole = &c->tensor[role];
    const bool pairs = role == ROLE_D_SCORES || role == ROLE_D_WEIGHTS || role == ROLE_D_BIAS;
    const int64_t rows = is_keyed(role) ? ref_keys(&c->params, b) : ref_queries(&c->params, b);
    const int64_t dim[4] = {1, whole->dim[1], role == ROLE_D_SINKS ? 1 : rows,
                            pairs ? ref_keys(&c->params, b) : whole->dim[3]};
    return tensor_make(QKV_F32, dim, (struct layout){0});
}

static struct verdict compare_own(const struct test_case *c, int role, int64_t b,
                                  const struct tensor *own) {
    qkv_gradients gradients = c->gradients;
    qkv_tensor *whole = case_gradient(&gradients, (enum role)role);
    struct ref_place place = begin_of(c, role, b);
    move_to(whole, place.b, place.t);
    for (int64_t h = 0; h < own->dim[1]; h++)
        for (int64_t t = 0; t < own->dim[2]; t++)
            for (int64_t x = 0; x < own->dim[3]; x++) {
                float alone = *tensor_f32(&own->view, 0, h, t, x);
                float among = *tensor_f32(whole, 0, h, t, x);
                if (!same_bits(alone, among))
                    return verdict_fail("%s[b=%lld h=%lld t=%lld c=%lld] is %a alone and %a among "
                                        "others",
                                        role_names[role], (long long)b, (long long)h, (long long)t,
                                        (long long)x, (double)alone, (double)among);
            }
    return verdict_ok();
}

static qkv_attention_params params_alone(const struct test_case *c, int64_t b) {
    qkv_attention_params p = c->params;
    move_to(&p.bias, b, 0);
    move_to(&p.mask, b, 0);
    p.batch = 1;
    p.q_len = ref_queries(&c->params, b);
    p.kv_len = ref_keys(&c->params, b);
    p.q_lens = p.kv_lens = p.cu_q = p.cu_kv = NULL;
    return p;
}

/* A sequence as a call of its own, into outputs of its own. The sinks' gradients are sums over the
 * batch, and not compared. */
static struct verdict run_alone(const struct test_case *c, int stage, const qkv_context *context,
                                int64_t b) {
    qkv_attention_params params = params_alone(c, b);
    qkv_tensors tensors = c->tensors;
    qkv_gradients gradients = c->gradients;
    struct backward_tensors both = {&tensors, &gradients};
    struct tensor own[ROLE_COUNT] = {0};
    for (int role = 0; role < ROLE_COUNT; role++) {
        qkv_tensor *view = role < ROLE_FIRST_GRADIENT ? case_view(&tensors, (enum role)role)
                                                      : case_gradient(&gradients, (enum role)role);
        struct ref_place place = begin_of(c, role, b);
        if (written(c, role)) {
            own[role] = make_own(c, role, b);
            *view = own[role].view;
        } else if (view) {
            move_to(view, place.b, place.t);
        }
    }
    struct call call = {context, stage, &params, &both};
    struct verdict verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (verdict.ok && own[role].memory.pages && role != ROLE_D_SINKS)
            verdict = compare_own(c, role, b, &own[role]);
        tensor_free(&own[role]);
    }
    return verdict;
}

static struct verdict every_sequence_alone(struct test_case *c, int stage,
                                           const qkv_context *context, struct rng *rng) {
    struct verdict verdict = verdict_ok();
    (void)rng;
    for (int64_t b = 0; b < c->desc.batch && verdict.ok; b++)
        verdict = run_alone(c, stage, context, b);
    return verdict;
}

START_TEST(alone_or_in_a_batch) {
    check_all(_i, NULL, every_sequence_alone);
}
END_TEST

static void make_padded(struct desc *d) {
    d->batch = 3;
    d->q_lengths = d->kv_lengths = LENGTHS_PADDED;
}

START_TEST(alone_or_padded) {
    check_all(_i, make_padded, every_sequence_alone);
}
END_TEST

static void make_ragged(struct desc *d) {
    d->batch = 3;
    d->q_lengths = d->kv_lengths = LENGTHS_RAGGED;
}

START_TEST(alone_or_ragged) {
    check_all(_i, make_ragged, every_sequence_alone);
}
END_TEST

/* ---- Strides ---- */

static struct verdict same_elements(const struct test_case *x, const struct test_case *y) {
    for (int role = ROLE_FIRST_GRADIENT; role < ROLE_COUNT; role++) {
        const struct tensor *a = &x->tensor[role], *b = &y->tensor[role];
        int64_t rows = a->dim[0] * a->dim[1] * a->dim[2];
        for (int64_t e = 0; written(x, role) && e < rows * a->dim[3]; e++) {
            int64_t r = e / a->dim[3], t = r % a->dim[2], h = r / a->dim[2] % a->dim[1];
            int64_t batch = r / a->dim[2] / a->dim[1];
            float u = *tensor_f32(&a->view, batch, h, t, e % a->dim[3]);
            float v = *tensor_f32(&b->view, batch, h, t, e % a->dim[3]);
            if (!same_bits(u, v))
                return verdict_fail("%s[%lld %lld %lld %lld] is %a or %a", role_names[role],
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
    struct verdict verdict = run_backward(&again, stage, context, (struct how){WAY_PLAIN, 1, 0});
    if (verdict.ok)
        verdict = same_elements(c, &again);
    case_free(&again);
    return verdict;
}

START_TEST(any_strides) {
    check_all(_i, NULL, in_another_layout);
}
END_TEST

/* ---- In place ---- */

/* softmax's gradients over those of the weights. */
static struct verdict in_place(struct test_case *c, int stage, const qkv_context *context,
                               struct rng *rng) {
    struct desc other = c->desc;
    struct test_case again;
    (void)rng;
    if (stage != QKV_STAGE_SOFTMAX_BACKWARD)
        return verdict_ok();
    other.in_place = true;
    case_make(&again, &other, c->stages);
    struct verdict verdict = run_backward(&again, stage, context, (struct how){WAY_PLAIN, 1, 0});
    const struct tensor *x = &c->tensor[ROLE_D_SCORES], *y = &again.tensor[ROLE_D_WEIGHTS];
    for (int64_t i = 0; verdict.ok && i < x->dim[0] * x->dim[1] * x->dim[2]; i++) {
        int64_t t = i % x->dim[2], h = i / x->dim[2] % x->dim[1], b = i / x->dim[2] / x->dim[1];
        for (int64_t j = 0; j < x->dim[3]; j++)
            if (!same_bits(*tensor_f32(&x->view, b, h, t, j), *tensor_f32(&y->view, b, h, t, j)))
                verdict = verdict_fail("dscores[%lld %lld %lld %lld] differs in place",
                                       (long long)b, (long long)h, (long long)t, (long long)j);
    }
    case_free(&again);
    return verdict;
}

START_TEST(softmax_in_place_or_not) {
    check_all(_i, NULL, in_place);
}
END_TEST

void bits_add_backward_tests(TCase *tcase) {
    const TTest *const tests[] = {
        any_number_of_threads_and_any_division_into_parts,
        alone_or_in_a_batch,
        alone_or_padded,
        alone_or_ragged,
        any_strides,
        softmax_in_place_or_not,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
