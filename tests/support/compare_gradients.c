/* SPDX-License-Identifier: Apache-2.0 */
/* Compares the results of a backward stage with the reference, gradient by gradient, and with the
 * scalar room. */
#include "compare_gradients.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ref/gradients.h"
#include "rooms.h"

/* A gradient that is not finite may be infinite in one order of the sum and NaN in another. */
static const char *compare_gradient(float got, const struct ref_value *want) {
    if (isinf(want->bound))
        return NULL;
    if (!isfinite(want->value))
        return isfinite(got) ? "should not be finite" : NULL;
    if (!isfinite(got))
        return "is not finite";
    return fabs((double)got - want->value) <= want->bound ? NULL : "is beyond the bound";
}

static const char *compare_with(float scalar, float got, const struct ref_value *want) {
    if (!isfinite(want->value) || isinf(want->bound))
        return NULL; /* compare_gradient has said all there is to say */
    bool alike = fabs((double)got - (double)scalar) <= 2 * want->bound;
    return alike ? NULL : "differs too much from the scalar room";
}

/* A finished call: the case, what it should have written, where its gradients stand, and those of
 * the scalar room, or NULL. */
struct finished {
    const struct test_case *c;
    struct ref_gradients want;
    qkv_gradients got;
    const qkv_gradients *scalar;
};

/* ---- Rows ---- */

/* The rows of a gradient: its heads, rows and elements in the dense reference, and how many rows of
 * sequence b the tensor has. */
struct rows {
    enum role role;
    const struct ref_value *want;
    int64_t heads, length, width;
    bool keyed, by_sequence;
};

static struct ref_place place_of(const struct finished *f, const struct rows *r, int64_t b,
                                 int64_t t) {
    if (r->by_sequence)
        return (struct ref_place){b, t};
    return r->keyed ? ref_key_place(&f->c->params, b, t) : ref_query_place(&f->c->params, b, t);
}

static struct verdict compare_element(const struct finished *f, const struct rows *r,
                                      const int64_t at[4], const struct ref_value *want) {
    qkv_gradients got = f->got, scalars = f->scalar ? *f->scalar : got;
    struct ref_place place = place_of(f, r, at[0], at[2]);
    float value = *tensor_f32(case_gradient(&got, r->role), place.b, at[1], place.t, at[3]);
    float beside = *tensor_f32(case_gradient(&scalars, r->role), place.b, at[1], place.t, at[3]);
    const char *fault = compare_gradient(value, want);
    if (!fault && f->scalar)
        fault = compare_with(beside, value, want);
    if (!fault)
        return verdict_ok();
    return verdict_fail("%s[b=%lld h=%lld t=%lld c=%lld] = %.9g %s: reference %.9g +- %.3g, scalar "
                        "%.9g",
                        role_names[r->role], (long long)at[0], (long long)at[1], (long long)at[2],
                        (long long)at[3], (double)value, fault, want->value, want->bound,
                        (double)beside);
}

static int64_t rows_of(const struct finished *f, const struct rows *r, int64_t b) {
    const qkv_attention_params *p = &f->c->params;
    if (r->by_sequence)
        return r->length;
    return !r->keyed ? ref_rows(p, b) : p->cu_kv ? ref_keys(p, b) : p->kv_len;
}

static struct verdict compare_rows(const struct finished *f, const struct rows *r, int64_t batch) {
    struct verdict verdict = verdict_ok();
    qkv_gradients got = f->got;
    int64_t at[4];
    if (!case_gradient(&got, r->role)->data || !r->want)
        return verdict;
    for (at[0] = 0; at[0] < batch; at[0]++)
        for (at[1] = 0; at[1] < r->heads; at[1]++)
            for (at[2] = 0; at[2] < rows_of(f, r, at[0]); at[2]++)
                for (at[3] = 0; at[3] < r->width && verdict.ok; at[3]++) {
                    int64_t row = (at[0] * r->heads + at[1]) * r->length + at[2];
                    verdict = compare_element(f, r, at, &r->want[row * r->width + at[3]]);
                }
    return verdict;
}

static struct verdict compare_all(const struct finished *f) {
    const qkv_attention_params *p = &f->c->params;
    const struct ref_gradients *w = &f->want;
    const int64_t v_dim = ref_v_dim(p);
    const struct rows all[] = {
        {ROLE_D_Q, w->q, p->q_heads, p->q_len, p->head_dim, false, false},
        {ROLE_D_K, w->k, p->kv_heads, p->kv_len, p->head_dim, true, false},
        {ROLE_D_V, w->v, p->kv_heads, p->kv_len, v_dim, true, false},
        {ROLE_D_SCORES, w->scores, p->q_heads, p->q_len, p->kv_len, false, false},
        {ROLE_D_WEIGHTS, w->weights, p->q_heads, p->q_len, p->kv_len, false, false},
        {ROLE_D_BIAS, w->bias, p->q_heads, p->q_len, p->kv_len, false, true},
    };
    const struct rows sinks = {ROLE_D_SINKS, w->sinks, 1, 1, p->q_heads, false, true};
    struct verdict verdict = compare_rows(f, &sinks, 1);
    for (size_t i = 0; i < sizeof all / sizeof *all && verdict.ok; i++)
        verdict = compare_rows(f, &all[i], p->batch);
    return verdict;
}

/* ---- Calls ---- */

/* The gradients that the stage read: what was in those of the weights before softmax in place. */
static qkv_gradients inputs_of(const struct test_case *c) {
    qkv_gradients inputs = c->gradients;
    const struct tensor *weights = &c->tensor[ROLE_D_WEIGHTS];
    if (weights->before) {
        ptrdiff_t origin = (unsigned char *)weights->view.data - weights->memory.data;
        inputs.weights.data = weights->before + origin;
    }
    return inputs;
}

static struct finished finish(const struct test_case *c, int stage) {
    qkv_gradients inputs = inputs_of(c);
    return (struct finished){
        .c = c,
        .want = ref_backward(stage, &c->params, &c->tensors, &inputs),
        .got = c->gradients,
    };
}

struct verdict check_gradient_results(const struct test_case *c, int stage) {
    struct verdict verdict = case_check_memory(c);
    if (!verdict.ok)
        return verdict;
    struct finished f = finish(c, stage);
    verdict = compare_all(&f);
    ref_gradients_free(&f.want);
    case_explain(&c->desc, &verdict);
    return verdict;
}

struct verdict run_backward(const struct test_case *c, int stage, const qkv_context *context,
                            struct how how) {
    struct backward_tensors tensors = {&c->tensors, &c->gradients};
    struct call call = {context, stage, &c->params, &tensors};
    return run_call(&call, how);
}

/* What a call left in the gradients, as a copy with views into it. */
struct snapshot {
    qkv_gradients gradients;
    unsigned char *memory[ROLE_COUNT];
};

static struct snapshot take_snapshot(const struct test_case *c) {
    struct snapshot snapshot = {.gradients = c->gradients};
    for (int role = ROLE_FIRST_GRADIENT; role < ROLE_COUNT; role++) {
        const struct tensor *t = &c->tensor[role];
        if (!t->memory.pages || !case_is_output(c, (enum role)role))
            continue;
        unsigned char *copy = malloc(t->memory.size + 1);
        if (!copy)
            abort();
        memcpy(copy, t->memory.data, t->memory.size);
        case_gradient(&snapshot.gradients, (enum role)role)->data =
            copy + ((unsigned char *)t->view.data - t->memory.data);
        snapshot.memory[role] = copy;
    }
    if (c->gradients.scores.data == c->gradients.weights.data) /* in place */
        snapshot.gradients.scores = snapshot.gradients.weights;
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
    struct verdict verdict =
        run_backward(c, stage, &rooms_scalar()->context, (struct how){WAY_PLAIN, 1, 0});
    verdict_add(&verdict, "in the scalar room");
    if (verdict.ok) {
        struct finished f = finish(c, stage);
        f.got = room.gradients;
        f.scalar = &c->gradients;
        verdict = compare_all(&f);
        ref_gradients_free(&f.want);
    }
    free_snapshot(&room);
    return verdict;
}

struct verdict check_gradients(const qkv_context *context, int stage, const struct desc *desc) {
    struct test_case c;
    case_make(&c, desc, STAGES_ONE(stage));
    struct how how = {(enum way)(desc->seed % WAY_COUNT), 2, desc->seed};
    struct verdict verdict = run_backward(&c, stage, context, how);
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
