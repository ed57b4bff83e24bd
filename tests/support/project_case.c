/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions of calls of project, and the tensors that they stand for. */
#include "project_case.h"

#include <stdio.h>
#include <string.h>

static const char *const names[PROJECT_ROLES] = {"x",  "wq", "wk", "wv", "bq",
                                                 "bk", "bv", "q",  "k",  "v"};

struct project_desc project_desc_plain(void) {
    return (struct project_desc){.seed = 1,
                                 .batch = 1,
                                 .tokens = 3,
                                 .d_model = 5,
                                 .q_heads = 2,
                                 .kv_heads = 1,
                                 .head_dim = 4,
                                 .v_dim = 4,
                                 .layout = QKV_W_IN_OUT};
}

static int64_t random_size(struct rng *rng, int64_t most) {
    static const int64_t edges[] = {16, 32, 48, 64, 96, 128, 256, 512};
    int64_t size = 1 + rng_below(rng, 17);
    if (rng_chance(rng, 3))
        size = rng_pick(rng, edges, 8) - 1 + rng_below(rng, 3);
    else if (rng_chance(rng, 3))
        size = 1 + rng_below(rng, most);
    return size < most ? size : most;
}

static void shrink(struct project_desc *d, int64_t products) {
    int64_t *sizes[] = {&d->tokens, &d->d_model, &d->head_dim, &d->v_dim, &d->batch};
    for (;;) {
        int64_t width = d->q_heads * d->head_dim + d->kv_heads * (d->head_dim + d->v_dim);
        if (d->batch * d->tokens * d->d_model * width <= products)
            return;
        int largest = 0;
        for (int i = 1; i < 5; i++)
            if (*sizes[i] > *sizes[largest])
                largest = i;
        *sizes[largest] = (*sizes[largest] + 1) / 2;
    }
}

static void random_places(struct project_desc *d, struct rng *rng) {
    for (int role = 0; role < PROJECT_ROLES; role++) {
        d->place[role] = layout_random(rng, false);
        bool has_rows_only = role >= PROJECT_W && role < PROJECT_Y;
        if (has_rows_only)
            d->place[role].order = LAYOUT_BHSD;
        if (role == PROJECT_X && rng_chance(rng, 8))
            d->place[role].zero = 1;
    }
}

struct project_desc project_desc_random(struct rng *rng, int64_t products) {
    struct project_desc d = project_desc_plain();
    d.seed = rng_next(rng);
    d.batch = 1 + rng_below(rng, 3);
    d.tokens = random_size(rng, 300);
    d.d_model = random_size(rng, 700);
    d.kv_heads = rng_chance(rng, 6) ? 0 : 1 + rng_below(rng, 3);
    int64_t heads = d.kv_heads ? d.kv_heads : 1;
    d.q_heads = rng_chance(rng, 6) && d.kv_heads ? 0 : heads * (1 + rng_below(rng, 4));
    d.head_dim = random_size(rng, 300);
    d.v_dim = rng_chance(rng, 2) ? random_size(rng, 300) : d.head_dim;
    d.layout = rng_chance(rng, 2) ? QKV_W_OUT_IN : QKV_W_IN_OUT;
    d.packed = rng_chance(rng, 2);
    d.biases = (uint8_t)rng_below(rng, 8);
    random_places(&d, rng);
    shrink(&d, products);
    return d;
}

int64_t project_heads(const struct project_desc *d, int which) {
    return which == QKV_WHICH_Q ? d->q_heads : d->kv_heads;
}

int64_t project_dim(const struct project_desc *d, int which) {
    return which == QKV_WHICH_V ? d->v_dim : d->head_dim;
}

static void make_params(struct project_case *c) {
    const struct project_desc *d = &c->desc;
    qkv_project_params *p = &c->params;
    qkv_project_params_init(p);
    p->batch = d->batch;
    p->tokens = d->tokens;
    p->d_model = d->d_model;
    p->q_heads = d->q_heads;
    p->kv_heads = d->kv_heads;
    p->head_dim = d->head_dim;
    p->v_dim = d->v_dim;
    p->layout = d->layout;
}

static float normal(void *argument, uint64_t hash) {
    (void)argument;
    return rng_normal(hash);
}

static void make_tensor(struct project_case *c, int role, int64_t batch, int64_t heads,
                        int64_t rows, int64_t columns) {
    const int64_t dim[4] = {batch, heads, rows, columns};
    struct tensor *t = &c->tensor[role];
    *t = tensor_make(QKV_F32, dim, c->desc.place[role]);
    if (role >= PROJECT_Y)
        return;
    tensor_fill(t, rng_hash(c->desc.seed, (uint64_t)role), normal, NULL);
    tensor_freeze(t);
}

static void make_tensors(struct project_case *c) {
    const struct project_desc *d = &c->desc;
    make_tensor(c, PROJECT_X, d->batch, 1, d->tokens, d->d_model);
    for (int w = 0; w < QKV_WHICH_COUNT; w++) {
        int64_t heads = project_heads(d, w), dim = project_dim(d, w), width = heads * dim;
        if (heads == 0)
            continue;
        bool in_out = d->layout == QKV_W_IN_OUT;
        make_tensor(c, PROJECT_W + w, 1, 1, in_out ? d->d_model : width,
                    in_out ? width : d->d_model);
        make_tensor(c, PROJECT_Y + w, d->batch, heads, d->tokens, dim);
        if (d->biases >> w & 1)
            make_tensor(c, PROJECT_B + w, 1, 1, 1, width);
    }
}

static void show_views(struct project_case *c) {
    qkv_project_tensors *t = &c->tensors;
    qkv_tensor *views[PROJECT_ROLES] = {&t->x,  &t->wq, &t->wk, &t->wv, &t->bq,
                                        &t->bk, &t->bv, &t->q,  &t->k,  &t->v};
    qkv_project_tensors_init(t);
    for (int role = 0; role < PROJECT_ROLES; role++)
        *views[role] = c->tensor[role].view;
}

/* The packed blobs take the weights' place. */
static struct verdict pack(struct project_case *c, const qkv_context *context) {
    qkv_tensor *views[] = {&c->tensors.wq, &c->tensors.wk, &c->tensors.wv};
    for (int w = 0; w < QKV_WHICH_COUNT; w++) {
        if (project_heads(&c->desc, w) == 0)
            continue;
        size_t size = qkv_project_pack_size(&c->params, w, context);
        c->packed[w] = guard_alloc(size, QKV_ALIGNMENT, GUARD_END, 0);
        qkv_status status =
            qkv_project_pack(&c->params, w, views[w], c->packed[w].data, size, context);
        if (status != QKV_OK)
            return verdict_fail("packing %s: %s", names[PROJECT_W + w], qkv_status_string(status));
        if (!guard_intact(&c->packed[w]))
            return verdict_fail("packing %s wrote beside its memory", names[PROJECT_W + w]);
        *views[w] =
            (qkv_tensor){.data = c->packed[w].data, .dtype = QKV_F32, .stride = {0, 0, 0, 1}};
    }
    c->params.layout = QKV_W_PACKED;
    return verdict_ok();
}

struct verdict project_case_make(struct project_case *c, const struct project_desc *desc,
                                 const qkv_context *context) {
    *c = (struct project_case){.desc = *desc};
    make_params(c);
    make_tensors(c);
    show_views(c);
    return desc->packed ? pack(c, context) : verdict_ok();
}

void project_case_free(struct project_case *c) {
    for (int role = 0; role < PROJECT_ROLES; role++)
        tensor_free(&c->tensor[role]);
    for (int w = 0; w < QKV_WHICH_COUNT; w++)
        guard_free(&c->packed[w]);
}

struct verdict project_case_check_memory(const struct project_case *c) {
    struct verdict verdict = verdict_ok();
    for (int role = 0; role < PROJECT_ROLES && verdict.ok; role++)
        verdict = role >= PROJECT_Y ? tensor_check_output(&c->tensor[role], names[role])
                                    : tensor_check_input(&c->tensor[role], names[role]);
    return verdict;
}

void project_case_explain(const struct project_desc *d, struct verdict *verdict) {
    verdict_add(verdict,
                "struct project_desc {.seed = 0x%llxU, .batch = %lld, .tokens = %lld,\n"
                "  .d_model = %lld, .q_heads = %lld, .kv_heads = %lld, .head_dim = %lld,\n"
                "  .v_dim = %lld, .layout = %d, .packed = %d, .biases = %d,",
                (unsigned long long)d->seed, (long long)d->batch, (long long)d->tokens,
                (long long)d->d_model, (long long)d->q_heads, (long long)d->kv_heads,
                (long long)d->head_dim, (long long)d->v_dim, d->layout, d->packed, d->biases);
    for (int role = 0; role < PROJECT_ROLES; role++) {
        const struct layout *l = &d->place[role];
        verdict_add(verdict, "  .place[%d] = {%d, {%d, %d, %d}, %d, %d, %d, %d}, /* %s */", role,
                    l->order, l->gap[0], l->gap[1], l->gap[2], l->zero, l->reverse, l->side,
                    l->offset, names[role]);
    }
}
