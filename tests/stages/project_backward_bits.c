/* SPDX-License-Identifier: Apache-2.0 */
/* The law of the bits for project_backward: stretches joined from left to right, whatever the
 * number of threads, the division into parts, the strides, the outputs that are wanted, and the way
 * that weights are stored. */
#include "project_backward_bits.h"

#include <math.h>

#include "kernels.h"
#include "stage.h"
#include "support/project_gradient_case.h"

enum { PRODUCTS = 100000, SHARE = 4 /* of the random descriptions, one in so many */ };

static const struct how plain = {WAY_PLAIN, 1, 0};

/* ---- By the law ---- */

/* A sum under way, which joins chains to the stretches before. */
struct sum {
    float whole, chain;
    int64_t terms;
    bool fused, begun;
};

static void join(struct sum *s) {
    if (s->terms == 0)
        return;
    s->whole = s->begun ? s->whole + s->chain : s->chain;
    s->begun = true;
    s->chain = 0;
    s->terms = 0;
}

static void add(struct sum *s, float x, float y) {
    s->chain = s->fused ? fmaf(x, y, s->chain) : s->chain + x * y;
    if (++s->terms == QKV_STRETCH)
        join(s);
}

static float dy_of(const struct gradient_case *c, int which, int64_t token, int64_t column) {
    const int64_t tokens = c->desc.project.tokens, dim = project_dim(&c->desc.project, which);
    return *tensor_f32(&c->tensor[GRADIENT_Y + which].view, token / tokens, column / dim,
                       token % tokens, column % dim);
}

static float law_of_x(const struct gradient_case *c, int64_t token, int64_t input, bool fused) {
    const struct project_desc *d = &c->desc.project;
    struct sum s = {.fused = fused};
    for (int which = 0; which < QKV_WHICH_COUNT; which++) {
        const int64_t width = project_heads(d, which) * project_dim(d, which);
        for (int64_t k = 0; k < width; k++)
            add(&s, dy_of(c, which, token, k),
                *tensor_f32(&c->project.tensor[PROJECT_W + which].view, 0, 0, input, k));
        join(&s);
    }
    return s.whole;
}

/* input < 0: the bias. */
static float law_of_w(const struct gradient_case *c, int64_t input, int64_t column, bool fused) {
    const int64_t tokens = c->desc.project.tokens;
    struct sum s = {.fused = fused};
    for (int64_t t = 0; t < c->desc.project.batch * tokens; t++)
        add(&s,
            input < 0 ? 1.0f : *tensor_f32(&c->project.tensors.x, t / tokens, 0, t % tokens, input),
            dy_of(c, QKV_WHICH_Q, t, column));
    join(&s);
    return s.whole;
}

static void check_the_law(const struct gradient_case *c, bool fused) {
    const struct project_desc *d = &c->desc.project;
    for (int64_t input = 0; input < d->d_model; input++) {
        for (int64_t t = 0; t < d->batch * d->tokens; t++)
            ck_assert(law_of_x(c, t, input, fused) ==
                      *tensor_f32(&c->gradients.x, t / d->tokens, 0, t % d->tokens, input));
        for (int64_t k = 0; k < d->q_heads * d->head_dim; k++)
            ck_assert(law_of_w(c, input, k, fused) ==
                      *tensor_f32(&c->gradients.wq, 0, 0, input, k));
    }
    for (int64_t k = 0; k < d->q_heads * d->head_dim; k++)
        ck_assert(law_of_w(c, -1, k, fused) == *tensor_f32(&c->gradients.bq, 0, 0, 0, k));
}

START_TEST(stretches_are_joined_from_left_to_right) {
    static const int64_t tokens[] = {
        1, QKV_STRETCH / 2 - 1, QKV_STRETCH / 2, QKV_STRETCH / 2 + 1, QKV_STRETCH + 6, 215};
    const qkv_context *context = &rooms_get(_i)->context;
    struct gradient_desc d = gradient_desc_plain();
    d.project.batch = 2;
    d.project.d_model = 18;
    d.project.head_dim = 70; /* Q is wider than a stretch, K narrower */
    for (int i = 0; i < 6; i++) {
        struct gradient_case c;
        d.project.tokens = tokens[i];
        struct verdict verdict = gradient_case_run(&c, &d, context, plain);
        stage_assert(&verdict);
        check_the_law(&c, qkv_context_isa(context) != QKV_ISA_SCALAR);
        gradient_case_free(&c);
    }
}
END_TEST

/* What is added is the whole sum, in one addition. */
START_TEST(accumulating_is_one_addition) {
    struct gradient_desc d = gradient_desc_plain();
    d.project.tokens = 150;
    d.project.head_dim = 37;
    for (d.project.layout = QKV_W_IN_OUT; d.project.layout <= QKV_W_OUT_IN; d.project.layout++) {
        struct gradient_case written, added;
        d.accumulate = false;
        struct verdict verdict = gradient_case_run(&written, &d, &rooms_get(_i)->context, plain);
        stage_assert(&verdict);
        d.accumulate = true;
        verdict = gradient_case_run(&added, &d, &rooms_get(_i)->context, plain);
        stage_assert(&verdict);
        for (int role = GRADIENT_X; role < GRADIENT_ROLES; role++) {
            const struct tensor *t = &written.tensor[role];
            for (int64_t r = 0; r < t->dim[2]; r++)
                for (int64_t c = 0; c < t->dim[3]; c++)
                    ck_assert(*tensor_f32(&t->view, 0, 0, r, c) +
                                  *tensor_f32(&added.before[role].view, 0, 0, r, c) ==
                              *tensor_f32(&added.tensor[role].view, 0, 0, r, c));
        }
        gradient_case_free(&written);
        gradient_case_free(&added);
    }
}
END_TEST

/* ---- The same numbers, another way ---- */

/* Changes what may not change the bits. */
typedef struct how change(struct gradient_desc *d, struct rng *rng);

static struct how other_way(struct gradient_desc *d, struct rng *rng) {
    (void)d;
    const enum way way = (enum way)rng_below(rng, WAY_COUNT);
    return (struct how){way, 1 + (int)rng_below(rng, 7), rng_next(rng)};
}

static struct how other_place(struct gradient_desc *d, struct rng *rng) {
    for (int role = 0; role < GRADIENT_ROLES; role++) {
        const uint8_t zero = d->place[role].zero;
        d->place[role] = layout_random(rng, false);
        d->place[role].zero = zero; /* that would be other numbers */
        if (role >= GRADIENT_W)
            d->place[role].order = LAYOUT_BHSD;
    }
    return plain;
}

static struct how other_outputs(struct gradient_desc *d, struct rng *rng) {
    d->wanted = (uint16_t)rng_below(rng, GRADIENT_ALL + 1);
    return plain;
}

/* The matrices hold other numbers then, on which dX depends, and nothing else. */
static struct how other_layout(struct gradient_desc *d, struct rng *rng) {
    (void)rng;
    d->project.layout = QKV_W_OUT_IN - d->project.layout;
    d->wanted &= (uint16_t) ~(1 << GRADIENT_X);
    return plain;
}

static void check_change(int room, change *alter) {
    const qkv_context *context = &rooms_get(room)->context;
    for (int i = 0; i < test_cases(); i += SHARE) {
        struct rng rng = rng_seeded(rng_hash(test_seed() + 4, (uint64_t)i));
        struct gradient_desc d = gradient_desc_random(&rng, PRODUCTS);
        struct gradient_case one, other;
        d.accumulate = false;
        d.wild = false;
        struct verdict verdict = gradient_case_run(&one, &d, context, plain);
        stage_assert(&verdict);
        const struct how how = alter(&d, &rng);
        verdict = gradient_case_run(&other, &d, context, how);
        if (verdict.ok)
            verdict = gradient_case_same(&one, &other);
        verdict_add(&verdict, "%s", run_way_name(how));
        gradient_case_explain(&d, &verdict);
        stage_assert(&verdict);
        gradient_case_free(&one);
        gradient_case_free(&other);
    }
}

START_TEST(any_threads_and_parts) {
    check_change(_i, other_way);
}
END_TEST

START_TEST(any_strides) {
    check_change(_i, other_place);
}
END_TEST

START_TEST(any_outputs) {
    check_change(_i, other_outputs);
}
END_TEST

START_TEST(either_way_to_store_weights) {
    check_change(_i, other_layout);
}
END_TEST

void project_backward_add_bits(TCase *tcase) {
    const TTest *const tests[] = {
        stretches_are_joined_from_left_to_right,
        accumulating_is_one_addition,
        any_threads_and_parts,
        any_strides,
        any_outputs,
        either_way_to_store_weights,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
