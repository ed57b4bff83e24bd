/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of work.h. The shapes pass the ends of a tile, a row block, a key block and a piece. */
#include "work.h"
#include "work_learn.h"

#include <math.h>
#include <string.h>

#include "work_backward.h"
#include "work_cache.h"
#include "work_merge.h"

enum {
    BATCH = 2,
    Q_HEADS = 2,
    KV_HEADS = 1,
    Q_LEN = 51,
    KV_LEN = 1057,
    DIM = 20,
    V_DIM = 23,
    TOKENS = 19,
    D_MODEL = 65,
    MASKED_KEY = 700, /* its K and V rows hold NaN */
};

static float q[BATCH][Q_HEADS][Q_LEN][DIM];
static float k[BATCH][KV_HEADS][KV_LEN][DIM];
static float v[BATCH][KV_HEADS][KV_LEN][V_DIM];
static float scores[BATCH][Q_HEADS][Q_LEN][KV_LEN];
static float weights[BATCH][Q_HEADS][Q_LEN][KV_LEN];
static float bias[Q_LEN][KV_LEN];
static unsigned char mask[KV_LEN];
static float slopes[Q_HEADS], sinks[Q_HEADS];
static int32_t kv_lens[BATCH];
static float x[BATCH][TOKENS][D_MODEL];
static float wq[D_MODEL][Q_HEADS * DIM], wk[D_MODEL][KV_HEADS * DIM], wv[D_MODEL][KV_HEADS * V_DIM];
static float column_bias[Q_HEADS * DIM];
static _Alignas(QKV_ALIGNMENT) unsigned char packed[3][1 << 16];
static _Alignas(QKV_ALIGNMENT) unsigned char workspace[16 << 20];

static struct {
    float weights[BATCH][Q_HEADS][Q_LEN][KV_LEN]; /* the largest output */
    float lse[BATCH][Q_HEADS][Q_LEN];
} result;

#define FLOATS(array) (sizeof(array) / sizeof(float))

static uint32_t state;

/* -1 to 1, from a small congruential generator (Numerical Recipes, 7.1). */
static float uniform(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state * 0x1p-31f;
}

static void fill(void *array, size_t count, float scale) {
    float *element = array;
    for (size_t i = 0; i < count; i++)
        element[i] = scale * uniform();
}

static void fill_weights(void) {
    for (size_t row = 0; row < FLOATS(weights) / KV_LEN; row++) {
        float *a = (float *)weights + row * KV_LEN;
        for (int j = 0; j < KV_LEN; j++)
            a[j] = (uniform() + 1.0f) / KV_LEN;
    }
}

/* A key that a mask hides from every query, with NaN wherever it appears. */
static void poison_key(int key) {
    mask[key] = 0;
    for (int b = 0; b < BATCH; b++)
        for (int h = 0; h < KV_HEADS; h++) {
            for (int c = 0; c < DIM; c++)
                k[b][h][key][c] = NAN;
            for (int c = 0; c < V_DIM; c++)
                v[b][h][key][c] = NAN;
        }
}

void work_fill(float spread) {
    state = 20240229;
    /* A product of two of these has variance s^2 / 9; DIM of them, times 1 / DIM of the scale. */
    fill(q, FLOATS(q), 3.0f * spread);
    fill(k, FLOATS(k), 1.0f);
    fill(v, FLOATS(v), 1.0f);
    fill(scores, FLOATS(scores), spread);
    fill_weights();
    fill(bias, FLOATS(bias), 1.0f);
    fill(x, FLOATS(x), 1.0f);
    fill(wq, FLOATS(wq), 1.0f);
    fill(wk, FLOATS(wk), 1.0f);
    fill(wv, FLOATS(wv), 1.0f);
    fill(column_bias, FLOATS(column_bias), 1.0f);
    for (int i = 0; i < KV_LEN; i++)
        bias[i % Q_LEN][i] = -INFINITY;
    memset(mask, 1, sizeof mask);
    poison_key(MASKED_KEY);
    for (int h = 0; h < Q_HEADS; h++) {
        slopes[h] = ldexpf(1.0f, -4 - h);
        sinks[h] = (float)h - 1.5f;
    }
    kv_lens[0] = KV_LEN;
    kv_lens[1] = KV_LEN - 5;
    work_fill_learning(spread, uniform);
    work_fill_backward(spread);
    work_fill_merge(spread, uniform);
    work_fill_cache(spread, uniform);
}

static void describe(qkv_attention_params *params, int every_option) {
    qkv_attention_params_init(params);
    params->batch = BATCH;
    params->q_heads = Q_HEADS;
    params->kv_heads = KV_HEADS;
    params->q_len = Q_LEN;
    params->kv_len = KV_LEN;
    params->head_dim = DIM;
    params->v_dim = V_DIM;
    params->flags = QKV_FLAG_CAUSAL;
    params->mask = (qkv_tensor){.data = mask, .stride = {0, 0, 0, 1}, .dtype = QKV_BOOL};
    if (!every_option)
        return;
    params->flags |= QKV_FLAG_SCALE;
    params->scale = 0.25f;
    params->softcap = 20.0f;
    params->window_left = KV_LEN - 20;
    params->window_right = 7;
    params->alibi_slopes = slopes;
    params->sinks = sinks;
    params->bias = (qkv_tensor){.data = bias, .stride = {0, 0, KV_LEN, 1}, .dtype = QKV_F32};
    params->kv_lens = kv_lens;
}

static void bind(qkv_tensors *tensors) {
    qkv_tensors_init(tensors);
    tensors->q = qkv_tensor_bhsd(q, Q_HEADS, Q_LEN, DIM);
    tensors->k = qkv_tensor_bhsd(k, KV_HEADS, KV_LEN, DIM);
    tensors->v = qkv_tensor_bhsd(v, KV_HEADS, KV_LEN, V_DIM);
    tensors->scores = qkv_tensor_bhsd(scores, Q_HEADS, Q_LEN, KV_LEN);
    tensors->weights = qkv_tensor_bhsd(weights, Q_HEADS, Q_LEN, KV_LEN);
    tensors->out = qkv_tensor_bhsd(&result, Q_HEADS, Q_LEN, V_DIM);
    tensors->lse = qkv_tensor_bhsd(result.lse, Q_HEADS, Q_LEN, 1);
}

typedef qkv_status plan_fn(qkv_plan *, const qkv_attention_params *, const qkv_context *);
typedef qkv_status call_fn(const qkv_attention_params *, const qkv_tensors *, const qkv_exec *);

static void executor(qkv_exec *exec, const qkv_plan *plan, const qkv_context *context) {
    qkv_exec_init(exec);
    exec->context = context;
    exec->workspace = workspace;
    exec->workspace_size = qkv_plan_workspace(plan, exec->threads);
}

static qkv_status attend(plan_fn *make, call_fn *call, const qkv_attention_params *params,
                         const qkv_tensors *tensors, const qkv_context *context) {
    qkv_plan plan;
    qkv_exec exec;
    qkv_status status = make(&plan, params, context);

    if (status != QKV_OK)
        return status;
    executor(&exec, &plan, context);
    return call(params, tensors, &exec);
}

static qkv_status stage(int which, int every_option, int exp_tier, const qkv_context *context) {
    static const struct {
        plan_fn *plan;
        call_fn *call;
    } stages[QKV_STAGE_ATTENTION + 1] = {
        [QKV_STAGE_SCORES] = {qkv_scores_plan, qkv_scores},
        [QKV_STAGE_SOFTMAX] = {qkv_softmax_plan, qkv_softmax},
        [QKV_STAGE_MIX] = {qkv_mix_plan, qkv_mix},
        [QKV_STAGE_ATTENTION] = {qkv_attention_plan, qkv_attention},
    };
    qkv_attention_params params;
    qkv_tensors tensors;

    describe(&params, every_option);
    params.exp = exp_tier;
    bind(&tensors);
    if (which == QKV_STAGE_SCORES)
        tensors.scores.data = result.weights;
    if (which == QKV_STAGE_SOFTMAX)
        tensors.weights.data = result.weights;
    return attend(stages[which].plan, stages[which].call, &params, &tensors, context);
}

/* W stored either way: the numbers are read in another order, which is as good. */
static void project_tensors(qkv_project_tensors *tensors, int layout) {
    float *out = (float *)&result;

    qkv_project_tensors_init(tensors);
    tensors->x = qkv_tensor_bhsd(x, 1, TOKENS, D_MODEL);
    if (layout == QKV_W_IN_OUT) {
        tensors->wq = qkv_tensor_bhsd(wq, 1, D_MODEL, Q_HEADS * DIM);
        tensors->wk = qkv_tensor_bhsd(wk, 1, D_MODEL, KV_HEADS * DIM);
        tensors->wv = qkv_tensor_bhsd(wv, 1, D_MODEL, KV_HEADS * V_DIM);
    } else {
        tensors->wq = qkv_tensor_bhsd(wq, 1, Q_HEADS * DIM, D_MODEL);
        tensors->wk = qkv_tensor_bhsd(wk, 1, KV_HEADS * DIM, D_MODEL);
        tensors->wv = qkv_tensor_bhsd(wv, 1, KV_HEADS * V_DIM, D_MODEL);
    }
    tensors->bq = qkv_tensor_bhsd(column_bias, 1, 1, Q_HEADS * DIM);
    tensors->bk = qkv_tensor_bhsd(column_bias, 1, 1, KV_HEADS * DIM);
    tensors->bv = qkv_tensor_bhsd(column_bias, 1, 1, KV_HEADS * V_DIM);
    tensors->q = qkv_tensor_bhsd(out, Q_HEADS, TOKENS, DIM);
    out += BATCH * Q_HEADS * TOKENS * DIM;
    tensors->k = qkv_tensor_bshd(out, KV_HEADS, TOKENS, DIM);
    out += BATCH * KV_HEADS * TOKENS * DIM;
    tensors->v = qkv_tensor_bhsd(out, KV_HEADS, TOKENS, V_DIM);
}

static qkv_status pack(const qkv_project_params *params, qkv_project_tensors *tensors,
                       const qkv_context *context) {
    qkv_tensor *w[QKV_WHICH_COUNT] = {&tensors->wq, &tensors->wk, &tensors->wv};
    qkv_status status = QKV_OK;

    for (int which = 0; which < QKV_WHICH_COUNT && status == QKV_OK; which++) {
        status = qkv_project_pack(params, which, w[which], packed[which],
                                  qkv_project_pack_size(params, which, context), context);
        *w[which] = (qkv_tensor){.data = packed[which], .dtype = QKV_F32};
    }
    return status;
}

static void describe_project(qkv_project_params *params, int layout) {
    qkv_project_params_init(params);
    params->batch = BATCH;
    params->tokens = TOKENS;
    params->d_model = D_MODEL;
    params->q_heads = Q_HEADS;
    params->kv_heads = KV_HEADS;
    params->head_dim = DIM;
    params->v_dim = V_DIM;
    params->layout = layout;
}

static qkv_status project(int layout, int packs, const qkv_context *context) {
    qkv_project_params params;
    qkv_project_tensors tensors;
    qkv_plan plan;
    qkv_exec exec;
    qkv_status status = QKV_OK;

    describe_project(&params, layout);
    project_tensors(&tensors, layout);
    if (packs) {
        status = pack(&params, &tensors, context);
        params.layout = QKV_W_PACKED;
    }
    if (status == QKV_OK)
        status = qkv_project_plan(&plan, &params, context);
    if (status != QKV_OK)
        return status;
    executor(&exec, &plan, context);
    return qkv_project(&params, &tensors, &exec);
}

#define GRADIENTS_COUNT \
    (BATCH * TOKENS * D_MODEL + (D_MODEL + 1) * (Q_HEADS * DIM + KV_HEADS * (DIM + V_DIM)))

/* Biases, too, and added to what stands there; the gradients of Q, K and V are numbers that are
 * there anyway. */
static qkv_status project_gradients(int layout, uint64_t flags, const qkv_context *context) {
    qkv_project_params params;
    qkv_project_tensors tensors;
    qkv_project_gradients g;
    qkv_plan plan;
    qkv_exec exec;
    float *out = (float *)&result;

    memset(out, 0, GRADIENTS_COUNT * sizeof *out);
    describe_project(&params, layout);
    params.flags = flags;
    project_tensors(&tensors, layout);
    qkv_project_gradients_init(&g);
    g.q = qkv_tensor_bhsd(q, Q_HEADS, TOKENS, DIM);
    g.k = qkv_tensor_bshd(k, KV_HEADS, TOKENS, DIM);
    g.v = qkv_tensor_bhsd(v, KV_HEADS, TOKENS, V_DIM);
    const qkv_tensor *const like[] = {&tensors.x,  &tensors.wq, &tensors.wk, &tensors.wv,
                                      &tensors.bq, &tensors.bk, &tensors.bv};
    qkv_tensor *const to[] = {&g.x, &g.wq, &g.wk, &g.wv, &g.bq, &g.bk, &g.bv};
    for (int i = 0; i < 7; i++) {
        *to[i] = *like[i];
        to[i]->data = out;
        out += to[i]->stride[0] * (i == 0 ? BATCH : 1);
    }
    qkv_status status = qkv_project_backward_plan(&plan, &params, context);
    if (status != QKV_OK)
        return status;
    executor(&exec, &plan, context);
    return qkv_project_backward(&params, &tensors, &g, &exec);
}

#define STAGE_JOB(name, which, option, tier)                              \
    static qkv_status name(const qkv_context *context) {                  \
        return stage(QKV_STAGE_##which, option, QKV_EXP_##tier, context); \
    }
STAGE_JOB(attention_plain, ATTENTION, 0, SLEEF_U10)
STAGE_JOB(attention_options, ATTENTION, 1, SLEEF_U10)
STAGE_JOB(attention_u35, ATTENTION, 0, SLEEF_U35)
STAGE_JOB(attention_poly5, ATTENTION, 0, POLY5)
STAGE_JOB(attention_poly4, ATTENTION, 1, POLY4)
STAGE_JOB(scores_plain, SCORES, 0, SLEEF_U10)
STAGE_JOB(scores_options, SCORES, 1, SLEEF_U10)
STAGE_JOB(softmax_plain, SOFTMAX, 0, SLEEF_U10)
STAGE_JOB(softmax_options, SOFTMAX, 1, SLEEF_U10)
STAGE_JOB(mix_plain, MIX, 0, SLEEF_U10)
STAGE_JOB(mix_options, MIX, 1, SLEEF_U10)
#undef STAGE_JOB

static qkv_status project_in_out(const qkv_context *context) {
    return project(QKV_W_IN_OUT, 0, context);
}

static qkv_status project_out_in(const qkv_context *context) {
    return project(QKV_W_OUT_IN, 0, context);
}

static qkv_status project_packed(const qkv_context *context) {
    return project(QKV_W_OUT_IN, 1, context);
}

#define BACKWARD_JOB(name, which, option)                         \
    static qkv_status name(const qkv_context *context) {          \
        return work_backward(QKV_STAGE_##which, option, context); \
    }
BACKWARD_JOB(attention_backward, ATTENTION_BACKWARD, 0)
BACKWARD_JOB(attention_backward_options, ATTENTION_BACKWARD, 1)
BACKWARD_JOB(scores_backward, SCORES_BACKWARD, 0)
BACKWARD_JOB(scores_backward_options, SCORES_BACKWARD, 1)
BACKWARD_JOB(softmax_backward, SOFTMAX_BACKWARD, 0)
BACKWARD_JOB(softmax_backward_options, SOFTMAX_BACKWARD, 1)
BACKWARD_JOB(mix_backward, MIX_BACKWARD, 0)
BACKWARD_JOB(mix_backward_options, MIX_BACKWARD, 1)
#undef BACKWARD_JOB

static qkv_status gradients_in_out(const qkv_context *context) {
    return project_gradients(QKV_W_IN_OUT, 0, context);
}

static qkv_status gradients_out_in(const qkv_context *context) {
    return project_gradients(QKV_W_OUT_IN, QKV_PROJECT_ACCUMULATE, context);
}

#define OUT_COUNT (BATCH * Q_HEADS * Q_LEN * V_DIM)
#define PROJECT_COUNT (BATCH * TOKENS * (Q_HEADS * DIM + KV_HEADS * (DIM + V_DIM)))

const struct job jobs[] = {
    {"attention", attention_plain, (float *)&result, OUT_COUNT},
    {"attention with every option", attention_options, (float *)&result, OUT_COUNT},
    {"attention, exp u35", attention_u35, (float *)&result, OUT_COUNT},
    {"attention, exp poly5", attention_poly5, (float *)&result, OUT_COUNT},
    {"attention, exp poly4", attention_poly4, (float *)&result, OUT_COUNT},
    {"scores", scores_plain, (float *)&result, FLOATS(scores)},
    {"scores with every option", scores_options, (float *)&result, FLOATS(scores)},
    {"softmax", softmax_plain, (float *)&result, FLOATS(weights)},
    {"softmax with every option", softmax_options, (float *)&result, FLOATS(weights)},
    {"mix", mix_plain, (float *)&result, OUT_COUNT},
    {"mix with every option", mix_options, (float *)&result, OUT_COUNT},
    {"project", project_in_out, (float *)&result, PROJECT_COUNT},
    {"project, W transposed", project_out_in, (float *)&result, PROJECT_COUNT},
    {"project, W packed", project_packed, (float *)&result, PROJECT_COUNT},
    {"squared loss", work_squared, work_slope, WORK_SLOPE},
    {"cross-entropy", work_cross_entropy, work_slope, WORK_SLOPE},
    {"descent", work_sgd, work_weights, WORK_NUMBERS},
    {"descent, momentum", work_momentum, work_weights, WORK_NUMBERS},
    {"descent, adamw", work_adamw, work_weights, WORK_NUMBERS},
    {"attention backward", attention_backward, work_gradients.q, FLOATS(work_gradients.q)},
    {"attention backward with every option", attention_backward_options, work_gradients.k,
     FLOATS(work_gradients.k)},
    {"scores backward", scores_backward, work_gradients.k, FLOATS(work_gradients.k)},
    {"scores backward with every option", scores_backward_options, work_gradients.q,
     FLOATS(work_gradients.q)},
    {"softmax backward", softmax_backward, work_gradients.pairs, FLOATS(work_gradients.pairs)},
    {"softmax backward with every option", softmax_backward_options, work_gradients.pairs,
     FLOATS(work_gradients.pairs)},
    {"mix backward", mix_backward, work_gradients.v, FLOATS(work_gradients.v)},
    {"mix backward with every option", mix_backward_options, work_gradients.pairs,
     FLOATS(work_gradients.pairs)},
    {"project_backward", gradients_in_out, (float *)&result, GRADIENTS_COUNT},
    {"project_backward, W transposed, added", gradients_out_in, (float *)&result, GRADIENTS_COUNT},
    {"append", work_append, work_cached, FLOATS(work_cached)},
    {"append to bfloat16 and int8", work_append_int8, work_cached, FLOATS(work_cached)},
    {"pages shared, copied, saved and loaded", work_pages, work_cached, FLOATS(work_cached)},
    {"append with rope, and export", work_export, work_rows, FLOATS(work_rows)},
    {"rotate", work_rotate, work_rows, FLOATS(work_rows)},
    {"decode", work_step, work_decoded, FLOATS(work_decoded)},
    {"decode, half width", work_step_half, work_decoded, FLOATS(work_decoded)},
    {"decode, int8", work_step_int8, work_decoded, FLOATS(work_decoded)},
    {"decode of a chunk", work_chunk, work_decoded, FLOATS(work_decoded)},
    {"decode of a chunk, int8", work_chunk_int8, work_decoded, FLOATS(work_decoded)},
    {"decode, narrow", work_step_narrow, work_decoded, FLOATS(work_decoded)},
    {"decode of a chunk, narrow", work_chunk_narrow, work_decoded, FLOATS(work_decoded)},
    {"merge", work_merge, (float *)work_merged, FLOATS(work_merged)},
};
const int jobs_count = sizeof jobs / sizeof *jobs;

qkv_status work_context(qkv_context *context, int isa) {
    qkv_context_config config;
    qkv_status status;

    qkv_context_config_init(&config);
    config.isa_max = isa;
    status = qkv_context_init(context, &config);
    if (status != QKV_OK || (int)qkv_context_isa(context) == isa)
        return status;
    return QKV_ARG_ISA << 8 | QKV_FAULT_RANGE;
}
