/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the parameters and tensors of a description. */
#include "case.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "ref/ref.h"

/* ---- Which tensors ---- */

enum { NOT_USED, READS, WRITES };

static const struct {
    int stage;
    enum role role;
    int how;
} uses[] = {
    {QKV_STAGE_SCORES, ROLE_Q, READS},
    {QKV_STAGE_SCORES, ROLE_K, READS},
    {QKV_STAGE_SCORES, ROLE_SCORES, WRITES},
    {QKV_STAGE_SOFTMAX, ROLE_SCORES, READS},
    {QKV_STAGE_SOFTMAX, ROLE_WEIGHTS, WRITES},
    {QKV_STAGE_SOFTMAX, ROLE_LSE, WRITES},
    {QKV_STAGE_MIX, ROLE_WEIGHTS, READS},
    {QKV_STAGE_MIX, ROLE_V, READS},
    {QKV_STAGE_MIX, ROLE_OUT, WRITES},
    {QKV_STAGE_ATTENTION, ROLE_Q, READS},
    {QKV_STAGE_ATTENTION, ROLE_K, READS},
    {QKV_STAGE_ATTENTION, ROLE_V, READS},
    {QKV_STAGE_ATTENTION, ROLE_OUT, WRITES},
    {QKV_STAGE_ATTENTION, ROLE_LSE, WRITES},
    {QKV_STAGE_SCORES_BACKWARD, ROLE_Q, READS},
    {QKV_STAGE_SCORES_BACKWARD, ROLE_K, READS},
    {QKV_STAGE_SCORES_BACKWARD, ROLE_D_SCORES, READS},
    {QKV_STAGE_SCORES_BACKWARD, ROLE_D_Q, WRITES},
    {QKV_STAGE_SCORES_BACKWARD, ROLE_D_K, WRITES},
    {QKV_STAGE_SCORES_BACKWARD, ROLE_D_BIAS, WRITES},
    {QKV_STAGE_SOFTMAX_BACKWARD, ROLE_WEIGHTS, READS},
    {QKV_STAGE_SOFTMAX_BACKWARD, ROLE_LSE, READS},
    {QKV_STAGE_SOFTMAX_BACKWARD, ROLE_D_WEIGHTS, READS},
    {QKV_STAGE_SOFTMAX_BACKWARD, ROLE_D_SCORES, WRITES},
    {QKV_STAGE_SOFTMAX_BACKWARD, ROLE_D_SINKS, WRITES},
    {QKV_STAGE_MIX_BACKWARD, ROLE_WEIGHTS, READS},
    {QKV_STAGE_MIX_BACKWARD, ROLE_V, READS},
    {QKV_STAGE_MIX_BACKWARD, ROLE_D_OUT, READS},
    {QKV_STAGE_MIX_BACKWARD, ROLE_D_WEIGHTS, WRITES},
    {QKV_STAGE_MIX_BACKWARD, ROLE_D_V, WRITES},
    {QKV_STAGE_ATTENTION_BACKWARD, ROLE_Q, READS},
    {QKV_STAGE_ATTENTION_BACKWARD, ROLE_K, READS},
    {QKV_STAGE_ATTENTION_BACKWARD, ROLE_V, READS},
    {QKV_STAGE_ATTENTION_BACKWARD, ROLE_OUT, READS},
    {QKV_STAGE_ATTENTION_BACKWARD, ROLE_LSE, READS},
    {QKV_STAGE_ATTENTION_BACKWARD, ROLE_D_OUT, READS},
    {QKV_STAGE_ATTENTION_BACKWARD, ROLE_D_Q, WRITES},
    {QKV_STAGE_ATTENTION_BACKWARD, ROLE_D_K, WRITES},
    {QKV_STAGE_ATTENTION_BACKWARD, ROLE_D_V, WRITES},
    {QKV_STAGE_ATTENTION_BACKWARD, ROLE_D_BIAS, WRITES},
    {QKV_STAGE_ATTENTION_BACKWARD, ROLE_D_SINKS, WRITES},
};

static int use_of(unsigned stages, enum role role) {
    int use = NOT_USED;
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++)
        if (uses[i].role == role && (stages & STAGES_ONE(uses[i].stage)) && uses[i].how > use)
            use = uses[i].how;
    return use;
}

/* Softmax in place overwrites its scores; their tensor serves as the weights. */
static bool shares_scores(const struct test_case *c) {
    return c->desc.in_place && c->stages == STAGES_ONE(QKV_STAGE_SOFTMAX);
}

/* So does its backward twin the gradient of the weights. */
static bool shares_gradients(const struct test_case *c) {
    return c->desc.in_place && c->stages == STAGES_ONE(QKV_STAGE_SOFTMAX_BACKWARD);
}

bool case_is_output(const struct test_case *c, enum role role) {
    if (role == ROLE_SCORES && shares_scores(c))
        return true;
    if (role == ROLE_D_WEIGHTS && shares_gradients(c))
        return true;
    return use_of(c->stages, role) == WRITES;
}

bool case_is_input(const struct test_case *c, enum role role) {
    return use_of(c->stages, role) == READS;
}

bool stage_is_backward(int stage) {
    return stage >= QKV_STAGE_SCORES_BACKWARD && stage <= QKV_STAGE_ATTENTION_BACKWARD;
}

int stage_share(int stage) {
    return stage_is_backward(stage) ? 4 : 1;
}

qkv_tensor *case_view(qkv_tensors *tensors, enum role role) {
    qkv_tensor *views[ROLE_COUNT] = {
        [ROLE_Q] = &tensors->q,
        [ROLE_K] = &tensors->k,
        [ROLE_V] = &tensors->v,
        [ROLE_SCORES] = &tensors->scores,
        [ROLE_WEIGHTS] = &tensors->weights,
        [ROLE_OUT] = &tensors->out,
        [ROLE_LSE] = &tensors->lse,
    };
    return views[role];
}

qkv_tensor *case_gradient(qkv_gradients *gradients, enum role role) {
    qkv_tensor *views[ROLE_COUNT] = {
        [ROLE_D_Q] = &gradients->q,
        [ROLE_D_K] = &gradients->k,
        [ROLE_D_V] = &gradients->v,
        [ROLE_D_SCORES] = &gradients->scores,
        [ROLE_D_WEIGHTS] = &gradients->weights,
        [ROLE_D_OUT] = &gradients->out,
        [ROLE_D_BIAS] = &gradients->bias,
        [ROLE_D_SINKS] = &gradients->sinks,
    };
    return views[role];
}

/* ---- Parameters ---- */

/* Seeds of things that have nothing to do with each other. */
enum { SEED_LENGTHS = 100, SEED_SLOPES, SEED_SINKS };

static struct guard floats(uint64_t seed, int64_t count, float scale) {
    struct guard memory = guard_alloc((size_t)count * sizeof(float), sizeof(float), GUARD_END, 0);
    for (int64_t i = 0; i < count; i++)
        ((float *)(void *)memory.data)[i] = scale * rng_normal(rng_hash(seed, (uint64_t)i));
    return memory;
}

/* Lengths of sequences: about a third of them as long as can be. */
static struct guard lengths(uint64_t seed, int64_t batch, int64_t most) {
    struct guard memory = guard_alloc((size_t)batch * 4, 4, GUARD_END, 0);
    for (int64_t b = 0; b < batch; b++) {
        uint64_t hash = rng_hash(seed, (uint64_t)b);
        uint64_t length = hash % 3 == 0 ? (uint64_t)most : (hash >> 8) % (uint64_t)(most + 1);
        ((int32_t *)(void *)memory.data)[b] = (int32_t)length;
    }
    return memory;
}

static struct guard cumulate(const struct guard *lens, int64_t batch) {
    struct guard memory = guard_alloc((size_t)(batch + 1) * 4, 4, GUARD_END, 0);
    int32_t *cu = (int32_t *)(void *)memory.data;
    cu[0] = 0;
    for (int64_t b = 0; b < batch; b++)
        cu[b + 1] = cu[b] + ((const int32_t *)(const void *)lens->data)[b];
    return memory;
}

static void make_lengths(uint64_t seed, enum lengths kind, int64_t batch, int64_t most,
                         struct guard *lens, struct guard *cu) {
    if (kind == LENGTHS_FULL)
        return;
    *lens = lengths(seed, batch, most);
    if (kind == LENGTHS_PADDED)
        return;
    *cu = cumulate(lens, batch);
    guard_free(lens);
}

static void make_arrays(struct test_case *c) {
    const struct desc *d = &c->desc;
    make_lengths(rng_hash(d->seed, SEED_LENGTHS), d->q_lengths, d->batch, d->q_len, &c->q_lens,
                 &c->cu_q);
    make_lengths(rng_hash(d->seed, SEED_LENGTHS + 1000), d->kv_lengths, d->batch, d->kv_len,
                 &c->kv_lens, &c->cu_kv);
    if (d->alibi)
        c->slopes = floats(rng_hash(d->seed, SEED_SLOPES), d->q_heads, 0.1F);
    if (d->sinks)
        c->sinks = floats(rng_hash(d->seed, SEED_SINKS), d->q_heads, 2.0F);
}

static void make_params(struct test_case *c) {
    const struct desc *d = &c->desc;
    qkv_attention_params *p = &c->params;
    make_arrays(c);
    qkv_attention_params_init(p);
    p->flags = (d->causal ? QKV_FLAG_CAUSAL : 0) | (d->has_scale ? QKV_FLAG_SCALE : 0);
    p->batch = d->batch;
    p->q_heads = d->q_heads;
    p->kv_heads = d->kv_heads;
    p->q_len = d->q_len;
    p->kv_len = d->kv_len;
    p->head_dim = d->head_dim;
    p->v_dim = d->v_dim;
    p->scale = d->has_scale ? d->scale : 0;
    p->softcap = d->softcap;
    p->align = d->align;
    p->exp = d->exp;
    p->window_left = d->window_left;
    p->window_right = d->window_right;
    p->alibi_slopes = (const float *)(const void *)c->slopes.data;
    p->sinks = (const float *)(const void *)c->sinks.data;
    p->q_lens = (const int32_t *)(const void *)c->q_lens.data;
    p->kv_lens = (const int32_t *)(const void *)c->kv_lens.data;
    p->cu_q = (const int32_t *)(const void *)c->cu_q.data;
    p->cu_kv = (const int32_t *)(const void *)c->cu_kv.data;
}

/* ---- Shapes ---- */

static bool is_keyed(enum role role) {
    return role == ROLE_K || role == ROLE_V;
}

/* The role whose gradient a role is, or the role itself: they have one shape. */
static enum role original(enum role role) {
    static const enum role of[ROLE_COUNT - ROLE_FIRST_GRADIENT] = {
        ROLE_Q, ROLE_K, ROLE_V, ROLE_SCORES, ROLE_WEIGHTS, ROLE_OUT, ROLE_BIAS, ROLE_D_SINKS};
    return role < ROLE_FIRST_GRADIENT ? role : of[role - ROLE_FIRST_GRADIENT];
}

static void shape_of(const struct test_case *c, enum role role, int64_t dim[4]) {
    const struct desc *d = &c->desc;
    const int64_t last[ROLE_COUNT] = {d->head_dim, d->head_dim, d->v_dim,  d->kv_len, d->kv_len,
                                      d->v_dim,    1,           d->kv_len, d->kv_len};
    bool by_sequence = role == ROLE_BIAS || role == ROLE_MASK;
    const int32_t *cu = by_sequence ? NULL : is_keyed(role) ? c->params.cu_kv : c->params.cu_q;
    dim[0] = cu ? 1 : d->batch;
    dim[1] = is_keyed(role) ? d->kv_heads : d->q_heads;
    dim[2] = cu ? cu[d->batch] : is_keyed(role) ? d->kv_len : d->q_len;
    dim[3] = last[role];
    if (role == ROLE_D_SINKS)
        memcpy(dim, (const int64_t[]){1, 1, 1, d->q_heads}, 4 * sizeof *dim);
}

/* ---- Values ---- */

static float scaled_normal(void *spread, uint64_t hash) {
    return *(const float *)spread * rng_normal(hash);
}

static float plain_normal(void *argument, uint64_t hash) {
    (void)argument;
    return rng_normal(hash);
}

/* Weights as a user might have them: mostly small and positive, some negative, some zero. */
static float mixed_weight(void *argument, uint64_t hash) {
    (void)argument;
    float w = 0.125F * rng_normal(rng_hash(hash, 1));
    if (hash % 8 == 0)
        return hash & 8 ? 0.0F : -0.0F;
    return hash % 16 == 1 ? w : fabsf(w);
}

/* Large enough that no sink is far above it. */
static float some_lse(void *argument, uint64_t hash) {
    (void)argument;
    return 3 + fabsf(rng_normal(hash));
}

static float bias_value(void *cuts, uint64_t hash) {
    if (*(const bool *)cuts && hash % 8 == 0)
        return hash & 8 ? -INFINITY : -FLT_MAX; /* as many programs write it */
    return 0.5F * rng_normal(rng_hash(hash, 1));
}

/* One row in 16 keeps nothing, runs of 64 keys are empty here and there, and of the other keys
 * three in four stay. */
static void fill_mask(struct tensor *mask, uint64_t seed) {
    const int64_t *dim = mask->dim;
    for (int64_t r = 0; r < dim[0] * dim[1] * dim[2]; r++) {
        int64_t b = r / dim[2] / dim[1], h = r / dim[2] % dim[1], t = r % dim[2];
        uint64_t row = rng_hash(seed, (uint64_t)r);
        for (int64_t j = 0; j < dim[3]; j++) {
            bool run = (rng_hash(row, (uint64_t)(j / 64)) & 7) != 0;
            uint64_t own = rng_hash(row, (uint64_t)(j + 1000000));
            bool keep = (row & 15) != 0 && run && (own & 3) != 0;
            *tensor_bool(&mask->view, b, h, t, j) = keep ? (uint8_t)(1 + (own >> 8) % 255) : 0;
        }
    }
}

static void fill_role(struct test_case *c, enum role role) {
    struct tensor *t = &c->tensor[role];
    struct desc *d = &c->desc;
    uint64_t seed = rng_hash(d->seed, role);
    static tensor_value *const values[ROLE_COUNT] = {
        [ROLE_Q] = scaled_normal,        [ROLE_K] = plain_normal,
        [ROLE_V] = plain_normal,         [ROLE_SCORES] = scaled_normal,
        [ROLE_WEIGHTS] = mixed_weight,   [ROLE_BIAS] = bias_value,
        [ROLE_OUT] = plain_normal,       [ROLE_LSE] = some_lse,
        [ROLE_D_OUT] = plain_normal,     [ROLE_D_SCORES] = plain_normal,
        [ROLE_D_WEIGHTS] = plain_normal,
    };
    if (role == ROLE_MASK)
        fill_mask(t, seed);
    else
        tensor_fill(t, seed, values[role], role == ROLE_BIAS ? (void *)&d->bias_cuts : &d->spread);
}

/* ---- Making ---- */

/* A gradient that the stage writes is made if it is asked for and there is such an input. */
static bool gradient_wanted(const struct test_case *c, enum role role) {
    if (c->desc.unwanted >> role & 1 ||
        (role == ROLE_D_BIAS && !c->desc.bias && !c->desc.bias_gradient))
        return false;
    if (role == ROLE_D_SINKS && !(c->desc.sinks && c->tensor[ROLE_LSE].memory.pages))
        return false;
    if (role == ROLE_D_SCORES && shares_gradients(c))
        return false;
    return use_of(c->stages, role) != NOT_USED;
}

static bool wanted(const struct test_case *c, enum role role) {
    if (role >= ROLE_FIRST_GRADIENT)
        return gradient_wanted(c, role);
    switch (role) {
    case ROLE_BIAS:
        return c->desc.bias;
    case ROLE_MASK:
        return c->desc.mask;
    case ROLE_LSE:
        return use_of(c->stages, role) &&
               (c->desc.lse || c->stages == STAGES_ONE(QKV_STAGE_ATTENTION_BACKWARD));
    case ROLE_WEIGHTS:
        return use_of(c->stages, role) && !shares_scores(c);
    default:
        return use_of(c->stages, role) != NOT_USED;
    }
}

static void make_tensor(struct test_case *c, enum role role) {
    int64_t dim[4];
    shape_of(c, original(role), dim);
    c->tensor[role] =
        tensor_make(role == ROLE_MASK ? QKV_BOOL : QKV_F32, dim, c->desc.layout[role]);
    if (use_of(c->stages, role) != WRITES)
        fill_role(c, role);
}

static void show_views(struct test_case *c) {
    qkv_tensors_init(&c->tensors);
    for (int role = 0; role <= ROLE_LSE; role++)
        *case_view(&c->tensors, (enum role)role) = c->tensor[role].view;
    if (shares_scores(c))
        c->tensors.weights = c->tensors.scores;
    c->gradients = (qkv_gradients){.size = sizeof c->gradients};
    for (int role = ROLE_FIRST_GRADIENT; role < ROLE_COUNT; role++)
        *case_gradient(&c->gradients, (enum role)role) = c->tensor[role].view;
    if (shares_gradients(c))
        c->gradients.scores = c->gradients.weights;
}

void case_make(struct test_case *c, const struct desc *desc, unsigned stages) {
    *c = (struct test_case){.desc = *desc, .stages = stages};
    make_params(c);
    for (int role = 0; role < ROLE_COUNT; role++)
        if (wanted(c, (enum role)role))
            make_tensor(c, (enum role)role);
    if (desc->bias)
        c->params.bias = c->tensor[ROLE_BIAS].view;
    if (desc->mask)
        c->params.mask = c->tensor[ROLE_MASK].view;
    show_views(c);
    case_spoil(c);
    case_forward(c);
    for (int role = 0; role < ROLE_COUNT; role++)
        if (c->tensor[role].memory.pages && use_of(stages, (enum role)role) != WRITES)
            tensor_freeze(&c->tensor[role]);
}

void case_reset(struct test_case *c) {
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct tensor *t = &c->tensor[role];
        if (t->before)
            memcpy(t->memory.data, t->before, t->memory.size);
        else if (t->memory.pages)
            guard_clear(&t->memory);
    }
}

struct verdict case_check_memory(const struct test_case *c) {
    struct verdict verdict = verdict_ok();
    for (int role = 0; role < ROLE_COUNT && verdict.ok; role++)
        verdict = case_is_output(c, (enum role)role)
                      ? tensor_check_output(&c->tensor[role], role_names[role])
                      : tensor_check_input(&c->tensor[role], role_names[role]);
    return verdict;
}

void case_free(struct test_case *c) {
    for (int role = 0; role < ROLE_COUNT; role++)
        tensor_free(&c->tensor[role]);
    guard_free(&c->slopes);
    guard_free(&c->sinks);
    guard_free(&c->q_lens);
    guard_free(&c->kv_lens);
    guard_free(&c->cu_q);
    guard_free(&c->cu_kv);
}

void case_explain(const struct desc *desc, struct verdict *verdict) {
    char text[DESC_TEXT_SIZE];
    if (!verdict->ok)
        verdict_add(verdict, "%s", desc_text(desc, text, sizeof text));
}
