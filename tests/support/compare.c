/* SPDX-License-Identifier: Apache-2.0 */
/* Compares the results of a stage with the reference, row by row, and with the scalar room. */
#include "compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare_gradients.h"

const char *compare_value(float got, const struct ref_value *want) {
    if (isinf(want->bound))
        return NULL;
    if (isnan(want->value))
        return isnan(got) ? NULL : "should be NaN";
    if (isnan(got))
        return "is NaN";
    if (isinf(want->value))
        return (double)got == want->value ? NULL : "should be infinite";
    return fabs((double)got - want->value) <= want->bound ? NULL : "is beyond the bound";
}

const char *compare_rooms(float got, float scalar, const struct ref_value *want) {
    if (!isfinite(want->value) || isinf(want->bound))
        return NULL; /* compare_value has said all there is to say */
    bool alike = fabs((double)got - (double)scalar) <= 2 * want->bound;
    return alike ? NULL : "differs too much from the scalar room";
}

/* The reference's rows of the three outputs that a stage can have. */
struct expected {
    struct ref_value *pairs; /* scores or weights */
    struct ref_value *out;
    struct ref_value lse;
};

static struct ref_value *values(int64_t n) {
    struct ref_value *memory = calloc((size_t)n + 1, sizeof *memory);
    if (!memory)
        abort();
    return memory;
}

static void expect_row(const struct test_case *c, const qkv_tensors *inputs, int stage, int64_t b,
                       int64_t h, int64_t i, struct expected *e) {
    switch (stage) {
    case QKV_STAGE_SCORES:
        ref_scores(&c->params, inputs, b, h, i, e->pairs);
        break;
    case QKV_STAGE_SOFTMAX:
        ref_softmax(&c->params, inputs, b, h, i, e->pairs, &e->lse);
        break;
    case QKV_STAGE_MIX:
        ref_mix(&c->params, inputs, b, h, i, e->out);
        break;
    default:
        ref_attention(&c->params, inputs, b, h, i, e->pairs, e->out, &e->lse);
    }
}

/* A finished call: the case, where to read its inputs (in place, the outputs overwrote them), its
 * outputs, and what the scalar room made of it, or NULL. */
struct finished {
    const struct test_case *c;
    qkv_tensors inputs;
    const qkv_tensors *outputs, *scalar;
};

static struct verdict compare_row(const struct finished *f, enum role role, int64_t b, int64_t h,
                                  int64_t i, const struct ref_value *want, int64_t n) {
    qkv_tensors tensors = *f->outputs, scalars = f->scalar ? *f->scalar : tensors;
    const qkv_tensor *got = case_view(&tensors, role), *other = case_view(&scalars, role);
    struct ref_place place = ref_query_place(&f->c->params, b, i);
    for (int64_t x = 0; x < n && got->data; x++) {
        float value = *tensor_f32(got, place.b, h, place.t, x);
        float beside = *tensor_f32(other, place.b, h, place.t, x);
        const char *fault = compare_value(value, &want[x]);
        if (!fault && f->scalar)
            fault = compare_rooms(value, beside, &want[x]);
        if (fault)
            return verdict_fail("%s[b=%lld h=%lld i=%lld c=%lld] = %.9g %s: reference %.9g +- %.3g "
                                ", scalar %.9g",
                                role_names[role], (long long)b, (long long)h, (long long)i,
                                (long long)x, (double)value, fault, want[x].value, want[x].bound,
                                (double)beside);
    }
    return verdict_ok();
}

static struct verdict compare_outputs(const struct finished *f, int stage, int64_t b, int64_t h,
                                      int64_t i, const struct expected *e) {
    const qkv_attention_params *p = &f->c->params;
    if (stage == QKV_STAGE_SCORES)
        return compare_row(f, ROLE_SCORES, b, h, i, e->pairs, p->kv_len);
    if (stage == QKV_STAGE_MIX)
        return compare_row(f, ROLE_OUT, b, h, i, e->out, ref_v_dim(p));
    struct verdict verdict = stage == QKV_STAGE_SOFTMAX
                                 ? compare_row(f, ROLE_WEIGHTS, b, h, i, e->pairs, p->kv_len)
                                 : compare_row(f, ROLE_OUT, b, h, i, e->out, ref_v_dim(p));
    return verdict.ok ? compare_row(f, ROLE_LSE, b, h, i, &e->lse, 1) : verdict;
}

static struct verdict compare_all(const struct finished *f, int stage) {
    const qkv_attention_params *p = &f->c->params;
    struct expected e = {.pairs = values(p->kv_len), .out = values(ref_v_dim(p))};
    struct verdict verdict = verdict_ok();
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->q_heads; h++)
            for (int64_t i = 0; i < ref_rows(p, b) && verdict.ok; i++) {
                expect_row(f->c, &f->inputs, stage, b, h, i, &e);
                verdict = compare_outputs(f, stage, b, h, i, &e);
            }
    free(e.pairs);
    free(e.out);
    return verdict;
}

/* The views of the case with what was in scores before a softmax in place. */
static qkv_tensors inputs_of(const struct test_case *c) {
    qkv_tensors inputs = c->tensors;
    const struct tensor *scores = &c->tensor[ROLE_SCORES];
    if (scores->before) {
        ptrdiff_t origin = (unsigned char *)scores->view.data - scores->memory.data;
        inputs.scores.data = scores->before + origin;
    }
    return inputs;
}

struct verdict check_values(const struct test_case *c, int stage) {
    struct finished f = {.c = c, .inputs = inputs_of(c), .outputs = &c->tensors};
    struct verdict verdict = compare_all(&f, stage);
    case_explain(&c->desc, &verdict);
    return verdict;
}

struct verdict check_results(const struct test_case *c, int stage) {
    struct verdict verdict = case_check_memory(c);
    return verdict.ok ? check_values(c, stage) : verdict;
}

/* A copy of what a call left in the outputs, with views into the copy. */
struct snapshot {
    qkv_tensors tensors;
    unsigned char *memory[ROLE_COUNT];
};

static struct snapshot take_snapshot(const struct test_case *c) {
    struct snapshot snapshot = {.tensors = c->tensors};
    for (int role = 0; role <= ROLE_LSE; role++) {
        const struct tensor *t = &c->tensor[role];
        qkv_tensor *view = case_view(&snapshot.tensors, (enum role)role);
        if (!t->memory.pages || !case_is_output(c, (enum role)role))
            continue;
        unsigned char *copy = malloc(t->memory.size + 1);
        if (!copy)
            abort();
        memcpy(copy, t->memory.data, t->memory.size);
        view->data = copy + ((unsigned char *)t->view.data - t->memory.data);
        snapshot.memory[role] = copy;
    }
    if (c->tensors.weights.data == c->tensors.scores.data) /* in place */
        snapshot.tensors.weights = snapshot.tensors.scores;
    return snapshot;
}

static void free_snapshot(struct snapshot *snapshot) {
    for (int role = 0; role < ROLE_COUNT; role++)
        free(snapshot->memory[role]);
}

/* Runs the case again in the scalar room, and compares both results. */
static struct verdict compare_with_scalar(struct test_case *c, int stage) {
    struct snapshot room = take_snapshot(c);
    case_reset(c);
    struct call call = {&rooms_scalar()->context, stage, &c->params, &c->tensors};
    struct verdict verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    verdict_add(&verdict, "in the scalar room");
    struct finished f = {
        .c = c, .inputs = inputs_of(c), .outputs = &room.tensors, .scalar = &c->tensors};
    if (verdict.ok)
        verdict = compare_all(&f, stage);
    free_snapshot(&room);
    return verdict;
}

struct verdict check_desc(const qkv_context *context, int stage, const struct desc *desc) {
    if (stage_is_backward(stage))
        return check_gradients(context, stage, desc);
    struct test_case c;
    case_make(&c, desc, STAGES_ONE(stage));
    struct call call = {context, stage, &c.params, &c.tensors};
    struct how how = {(enum way)(desc->seed % WAY_COUNT), 2, desc->seed};
    struct verdict verdict = run_call(&call, how);
    if (verdict.ok)
        verdict = case_check_memory(&c);
    if (verdict.ok)
        verdict = compare_with_scalar(&c, stage);
    case_free(&c);
    verdict_add(&verdict, "%s, %s, %s", qkv_stage_name(stage), qkv_context_variant(context, stage),
                run_way_name(how));
    case_explain(desc, &verdict);
    return verdict;
}

struct verdict check_random(const qkv_context *context, int stage) {
    const int step = test_only() < 0 ? stage_share(stage) : 1; /* one that is asked for is run */
    struct verdict verdict = verdict_ok();
    for (int i = 0; i < test_cases() && verdict.ok; i += step) {
        if (test_only() >= 0 && i != test_only())
            continue;
        struct desc desc = desc_numbered(test_seed(), i, &desc_limits_suite);
        verdict = check_desc(context, stage, &desc);
        verdict_add(&verdict, "replay: QKV_TEST_SEED=%llu QKV_TEST_ONLY=%d",
                    (unsigned long long)test_seed(), i);
    }
    return verdict;
}
