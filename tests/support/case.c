/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the parameters and tensors of a description. */
#include "case.h"

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
    {QKV_STAGE_SCORES, ROLE_Q, READS},         {QKV_STAGE_SCORES, ROLE_K, READS},
    {QKV_STAGE_SCORES, ROLE_SCORES, WRITES},   {QKV_STAGE_SOFTMAX, ROLE_SCORES, READS},
    {QKV_STAGE_SOFTMAX, ROLE_WEIGHTS, WRITES}, {QKV_STAGE_SOFTMAX, ROLE_LSE, WRITES},
    {QKV_STAGE_MIX, ROLE_WEIGHTS, READS},      {QKV_STAGE_MIX, ROLE_V, READS},
    {QKV_STAGE_MIX, ROLE_OUT, WRITES},         {QKV_STAGE_ATTENTION, ROLE_Q, READS},
    {QKV_STAGE_ATTENTION, ROLE_K, READS},      {QKV_STAGE_ATTENTION, ROLE_V, READS},
    {QKV_STAGE_ATTENTION, ROLE_OUT, WRITES},   {QKV_STAGE_ATTENTION, ROLE_LSE, WRITES},
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

bool case_is_output(const struct test_case *c, enum role role) {
    if (role == ROLE_SCORES && shares_scores(c))
        return true;
    return use_of(c->stages, role) == WRITES;
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

/* ---- Parameters ---- */

/* Seeds of things that have nothing to do with each other. */
enum { SEED_LENGTHS = 100, SEED_SLOPES, SEED_SINKS, SEED_PLACES };

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

static float bias_value(void *cuts, uint64_t hash) {
    if (*(const bool *)cuts && hash % 8 == 0)
        return -INFINITY;
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
        [ROLE_Q] = scaled_normal,      [ROLE_K] = plain_normal,       [ROLE_V] = plain_normal,
        [ROLE_SCORES] = scaled_normal, [ROLE_WEIGHTS] = mixed_weight, [ROLE_BIAS] = bias_value,
    };
    if (role == ROLE_MASK)
        fill_mask(t, seed);
    else
        tensor_fill(t, seed, values[role], role == ROLE_BIAS ? (void *)&d->bias_cuts : &d->spread);
}

/* ---- What masks hide ---- */

static float non_finite(uint64_t hash) {
    static const float values[] = {NAN, INFINITY, -INFINITY};
    return values[hash % 3];
}

static void spoil_row(struct tensor *t, int64_t b, int64_t h, int64_t row, uint64_t seed) {
    for (int64_t c = 0; t->view.dtype == QKV_F32 && c < t->dim[3]; c++)
        *tensor_f32(&t->view, b, h, row, c) = non_finite(rng_hash(seed, (uint64_t)(row + c)));
}

static bool any_query_keeps(const struct test_case *c, int64_t b, int64_t kv_head, int64_t j) {
    int64_t group = c->desc.q_heads / c->desc.kv_heads;
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++)
        for (int64_t i = 0; i < ref_queries(&c->params, b); i++)
            if (ref_keeps(&c->params, b, h, i, j))
                return true;
    return false;
}

/* K and V rows that no query keeps. */
static void spoil_keys(struct test_case *c, int64_t b) {
    bool poison = c->desc.values == VALUES_POISON;
    int64_t keys = ref_keys(&c->params, b);
    int64_t rows = c->params.cu_kv ? keys : c->desc.kv_len;
    for (int64_t h = 0; h < c->desc.kv_heads; h++)
        for (int64_t j = poison ? 0 : keys; j < rows; j++) {
            if (j < keys && any_query_keeps(c, b, h, j))
                continue;
            struct ref_place place = ref_key_place(&c->params, b, j);
            spoil_row(&c->tensor[ROLE_K], place.b, h, place.t, c->desc.seed);
            spoil_row(&c->tensor[ROLE_V], place.b, h, place.t, c->desc.seed + 1);
        }
}

static void spoil_pairs_of(struct test_case *c, enum role role, int64_t b, int64_t h, int64_t i) {
    if (c->tensor[role].view.dtype != QKV_F32 || use_of(c->stages, role) != READS)
        return;
    struct ref_place place = ref_query_place(&c->params, b, i);
    for (int64_t j = 0; j < c->desc.kv_len; j++)
        if (!ref_keeps(&c->params, b, h, i, j))
            *tensor_f32(&c->tensor[role].view, place.b, h, place.t, j) =
                non_finite(rng_hash(c->desc.seed, (uint64_t)(i * 4096 + j)));
}

/* Q rows beyond the sequence, and masked scores and weights. */
static void spoil_queries(struct test_case *c, int64_t b) {
    for (int64_t h = 0; h < c->desc.q_heads; h++) {
        for (int64_t i = ref_queries(&c->params, b); i < ref_rows(&c->params, b); i++)
            spoil_row(&c->tensor[ROLE_Q], b, h, i, c->desc.seed + 2);
        for (int64_t i = 0; c->desc.values == VALUES_POISON && i < ref_rows(&c->params, b); i++) {
            spoil_pairs_of(c, ROLE_SCORES, b, h, i);
            spoil_pairs_of(c, ROLE_WEIGHTS, b, h, i);
        }
    }
}

/* A few NaN and infinities anywhere in the inputs. */
static void spoil_anywhere(struct test_case *c, enum role role) {
    struct tensor *t = &c->tensor[role];
    const int64_t *dim = t->dim;
    int64_t count = dim[0] * dim[1] * dim[2] * dim[3];
    for (uint64_t k = 0; k < 2 && count > 0; k++) {
        uint64_t hash = rng_hash(c->desc.seed + k, SEED_PLACES + role);
        int64_t at = (int64_t)(hash % (uint64_t)count);
        int64_t row = at / dim[3];
        *tensor_f32(&t->view, row / dim[2] / dim[1], row / dim[2] % dim[1], row % dim[2],
                    at % dim[3]) = non_finite(hash >> 40);
    }
}

static void spoil(struct test_case *c) {
    bool shared = c->desc.layout[ROLE_K].zero || c->desc.layout[ROLE_V].zero;
    for (int64_t b = 0; b < c->desc.batch; b++) {
        if (!shared)
            spoil_keys(c, b);
        spoil_queries(c, b);
    }
    for (int role = ROLE_Q; c->desc.values == VALUES_WILD && role <= ROLE_WEIGHTS; role++)
        if (use_of(c->stages, (enum role)role) == READS)
            spoil_anywhere(c, (enum role)role);
}

/* ---- Making ---- */

static bool wanted(const struct test_case *c, enum role role) {
    switch (role) {
    case ROLE_BIAS:
        return c->desc.bias;
    case ROLE_MASK:
        return c->desc.mask;
    case ROLE_LSE:
        return c->desc.lse && use_of(c->stages, role);
    case ROLE_WEIGHTS:
        return use_of(c->stages, role) && !shares_scores(c);
    default:
        return use_of(c->stages, role) != NOT_USED;
    }
}

static void make_tensor(struct test_case *c, enum role role) {
    int64_t dim[4];
    shape_of(c, role, dim);
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
    spoil(c);
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
