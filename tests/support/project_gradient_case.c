/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions of calls of project_backward, and the tensors that they stand for. */
#include "project_gradient_case.h"

#include <math.h>
#include <string.h>

static const char *const names[GRADIENT_ROLES] = {
    "gradients->q",  "gradients->k",  "gradients->v",  "gradients->x",  "gradients->wq",
    "gradients->wk", "gradients->wv", "gradients->bq", "gradients->bk", "gradients->bv"};

struct gradient_desc gradient_desc_plain(void) {
    return (struct gradient_desc){.project = project_desc_plain(), .wanted = GRADIENT_ALL};
}

struct gradient_desc gradient_desc_random(struct rng *rng, int64_t products) {
    struct gradient_desc d = {.project = project_desc_random(rng, products)};
    d.project.packed = false;
    d.accumulate = rng_chance(rng, 2);
    d.wild = rng_chance(rng, 4);
    d.wanted = (uint16_t)(rng_chance(rng, 2) ? rng_below(rng, GRADIENT_ALL + 1) : GRADIENT_ALL);
    if (rng_chance(rng, 20))
        d.project.tokens = 0;
    for (int role = 0; role < GRADIENT_ROLES; role++) {
        d.place[role] = layout_random(rng, false);
        if (role >= GRADIENT_W)
            d.place[role].order = LAYOUT_BHSD;
        if (role < GRADIENT_X && rng_chance(rng, 8))
            d.place[role].zero = (uint8_t)rng_below(rng, 8);
    }
    return d;
}

static float normal(void *argument, uint64_t hash) {
    (void)argument;
    return rng_normal(hash);
}

/* One number in so many is NaN or infinite. */
static float wild(void *argument, uint64_t hash) {
    static const float strange[] = {NAN, INFINITY, -INFINITY, -0.0f};
    const uint64_t rarely = *(const uint64_t *)argument;
    return hash % rarely ? rng_normal(hash) : strange[hash / rarely % 4];
}

static void fill(const struct gradient_desc *d, struct tensor *t, uint64_t salt, bool may_be_wild) {
    uint64_t rarely = 1;
    for (int i = 0; i < 4; i++)
        rarely *= (uint64_t)(t->dim[i] ? t->dim[i] : 1);
    tensor_fill(t, rng_hash(d->project.seed + 7, salt), d->wild && may_be_wild ? wild : normal,
                &rarely);
}

static void make_tensor(struct gradient_case *c, int role, int64_t batch, int64_t heads,
                        int64_t rows, int64_t columns) {
    const int64_t dim[4] = {batch, heads, rows, columns};
    const struct gradient_desc *d = &c->desc;
    struct tensor *t = &c->tensor[role];
    if (role >= GRADIENT_X && !(d->wanted >> role & 1))
        return;
    *t = tensor_make(QKV_F32, dim, d->place[role]);
    if (role < GRADIENT_X) {
        fill(d, t, (uint64_t)role, true);
        tensor_freeze(t);
    } else if (d->accumulate) {
        fill(d, t, (uint64_t)role, false);
        c->before[role] = tensor_make(QKV_F32, dim, (struct layout){0});
        fill(d, &c->before[role], (uint64_t)role, false);
    }
}

static void make_tensors(struct gradient_case *c) {
    const struct project_desc *d = &c->desc.project;
    make_tensor(c, GRADIENT_X, d->batch, 1, d->tokens, d->d_model);
    for (int w = 0; w < QKV_WHICH_COUNT; w++) {
        const int64_t heads = project_heads(d, w), dim = project_dim(d, w), width = heads * dim;
        const bool in_out = d->layout == QKV_W_IN_OUT;
        if (heads == 0)
            continue;
        make_tensor(c, GRADIENT_Y + w, d->batch, heads, d->tokens, dim);
        make_tensor(c, GRADIENT_W + w, 1, 1, in_out ? d->d_model : width,
                    in_out ? width : d->d_model);
        make_tensor(c, GRADIENT_B + w, 1, 1, 1, width);
    }
}

static void show_views(struct gradient_case *c) {
    qkv_project_gradients *g = &c->gradients;
    qkv_tensor *views[GRADIENT_ROLES] = {&g->q,  &g->k,  &g->v,  &g->x,  &g->wq,
                                         &g->wk, &g->wv, &g->bq, &g->bk, &g->bv};
    qkv_project_gradients_init(g);
    for (int role = 0; role < GRADIENT_ROLES; role++)
        *views[role] = c->tensor[role].view;
}

/* project_case_make draws plain numbers; a wild case needs others in x and the matrices. */
static void make_wild(struct gradient_case *c) {
    for (int role = PROJECT_X; role < PROJECT_B && c->desc.wild; role++) {
        struct tensor *t = &c->project.tensor[role];
        if (!t->memory.pages)
            continue;
        fill(&c->desc, t, (uint64_t)(GRADIENT_ROLES + role), true);
        tensor_freeze(t);
    }
}

/* What the call has no business with is not there: what project wrote, and its biases. */
static void hide_the_rest(qkv_project_tensors *t) {
    qkv_tensor *views[] = {&t->bq, &t->bk, &t->bv, &t->q, &t->k, &t->v};
    for (int i = 0; i < 6; i++)
        *views[i] = (qkv_tensor){0};
}

void gradient_case_make(struct gradient_case *c, const struct gradient_desc *desc) {
    *c = (struct gradient_case){.desc = *desc};
    project_case_make(&c->project, &desc->project, NULL);
    if (desc->accumulate)
        c->project.params.flags = QKV_PROJECT_ACCUMULATE;
    make_wild(c);
    make_tensors(c);
    show_views(c);
    hide_the_rest(&c->project.tensors);
}

void gradient_case_free(struct gradient_case *c) {
    project_case_free(&c->project);
    for (int role = 0; role < GRADIENT_ROLES; role++) {
        tensor_free(&c->tensor[role]);
        tensor_free(&c->before[role]);
    }
}

bool gradient_case_has(const struct gradient_case *c, int role) {
    return c->tensor[role].memory.pages != NULL;
}

static struct verdict check_memory(const struct gradient_case *c) {
    struct verdict verdict = verdict_ok();
    for (int role = PROJECT_X; role < PROJECT_B && verdict.ok; role++)
        verdict = tensor_check_input(&c->project.tensor[role], "x or a matrix");
    for (int role = 0; role < GRADIENT_ROLES && verdict.ok; role++)
        verdict = role >= GRADIENT_X ? tensor_check_output(&c->tensor[role], names[role])
                                     : tensor_check_input(&c->tensor[role], names[role]);
    return verdict;
}

struct verdict gradient_case_run(struct gradient_case *c, const struct gradient_desc *desc,
                                 const qkv_context *context, struct how how) {
    gradient_case_make(c, desc);
    c->both = (struct project_backward_tensors){&c->project.tensors, &c->gradients};
    const struct call call = {context, QKV_STAGE_PROJECT_BACKWARD, &c->project.params, &c->both};
    struct verdict verdict = run_call(&call, how);
    return verdict.ok ? check_memory(c) : verdict;
}

void gradient_case_explain(const struct gradient_desc *d, struct verdict *verdict) {
    project_case_explain(&d->project, verdict);
    verdict_add(verdict, "  .accumulate = %d, .wild = %d, .wanted = 0x%x", d->accumulate, d->wild,
                d->wanted);
    for (int role = 0; role < GRADIENT_ROLES; role++) {
        const struct layout *l = &d->place[role];
        verdict_add(verdict, "  .place[%d] = {%d, {%d, %d, %d}, %d, %d, %d, %d}, /* %s */", role,
                    l->order, l->gap[0], l->gap[1], l->gap[2], l->zero, l->reverse, l->side,
                    l->offset, names[role]);
    }
}
