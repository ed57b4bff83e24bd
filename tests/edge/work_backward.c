/* SPDX-License-Identifier: Apache-2.0 */
/* The backward stages among the calls of work.h: attention first goes forward, for the out and the
 * LSE that its backward twin reads. The shapes pass the ends of a tile, of two row blocks, of a key
 * block and of a piece. */
#include "work_backward.h"

#include <math.h>
#include <string.h>

enum {
    BATCH = 2,
    Q_HEADS = 2,
    KV_HEADS = 1,
    Q_LEN = 103,
    KV_LEN = 1057,
    DIM = 20,
    V_DIM = 23,
    MASKED_KEY = 700, /* its K and V rows hold NaN */
};

static float q[BATCH][Q_HEADS][Q_LEN][DIM], k[BATCH][KV_HEADS][KV_LEN][DIM];
static float v[BATCH][KV_HEADS][KV_LEN][V_DIM], out[BATCH][Q_HEADS][Q_LEN][V_DIM];
static float lse[BATCH][Q_HEADS][Q_LEN], d_out[BATCH][Q_HEADS][Q_LEN][V_DIM];
static float weights[BATCH][Q_HEADS][Q_LEN][KV_LEN], d_pairs[BATCH][Q_HEADS][Q_LEN][KV_LEN];
static float bias[Q_LEN][KV_LEN];
static unsigned char mask[KV_LEN];
static float slopes[Q_HEADS], sinks[Q_HEADS];
static int32_t kv_lens[BATCH] = {KV_LEN, KV_LEN - 5};
static _Alignas(QKV_ALIGNMENT) unsigned char workspace[16 << 20];

struct work_gradients work_gradients;

#define FLOATS(array) (sizeof(array) / sizeof(float))
_Static_assert(FLOATS(work_gradients.q) == BATCH * Q_HEADS * Q_LEN * DIM, "the shape of Q");
_Static_assert(FLOATS(work_gradients.k) == BATCH * KV_HEADS * KV_LEN * DIM, "the shape of K");
_Static_assert(FLOATS(work_gradients.v) == BATCH * KV_HEADS * KV_LEN * V_DIM, "the shape of V");
_Static_assert(FLOATS(work_gradients.pairs) == FLOATS(weights), "the shape of the weights");

static uint32_t state;

/* -1 to 1, from a small congruential generator (Numerical Recipes, 7.1). */
static void fill(void *array, size_t count, float scale) {
    float *element = array;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        element[i] = scale * (float)(int32_t)state * 0x1p-31f;
    }
}

static void poison_key(int key) {
    mask[key] = 0;
    for (int b = 0; b < BATCH; b++) {
        for (int c = 0; c < DIM; c++)
            k[b][0][key][c] = NAN;
        for (int c = 0; c < V_DIM; c++)
            v[b][0][key][c] = NAN;
    }
}

void work_fill_backward(float spread) {
    state = 20240301;
    fill(q, FLOATS(q), 3.0f * spread);
    fill(k, FLOATS(k), 1.0f);
    fill(v, FLOATS(v), 1.0f);
    fill(d_out, FLOATS(d_out), 1.0f);
    fill(weights, FLOATS(weights), 1.0f / KV_LEN);
    fill(d_pairs, FLOATS(d_pairs), 1.0f);
    fill(lse, FLOATS(lse), 1.0f);
    fill(bias, FLOATS(bias), 1.0f);
    for (int i = 0; i < KV_LEN; i++)
        bias[i % Q_LEN][i] = -INFINITY;
    memset(mask, 1, sizeof mask);
    poison_key(MASKED_KEY);
    for (int h = 0; h < Q_HEADS; h++) {
        slopes[h] = ldexpf(1.0f, -4 - h);
        sinks[h] = (float)h - 1.5f;
    }
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
    tensors->weights = qkv_tensor_bhsd(weights, Q_HEADS, Q_LEN, KV_LEN);
    tensors->out = qkv_tensor_bhsd(out, Q_HEADS, Q_LEN, V_DIM);
    tensors->lse = qkv_tensor_bhsd(lse, Q_HEADS, Q_LEN, 1);
}

/* What a stage reads and what it writes of the gradients of pairs is told by the stage. */
static void bind_gradients(qkv_gradients *gradients, int which, int every_option) {
    struct work_gradients *made = &work_gradients;
    float *given = (float *)d_pairs;
    const int reads_weights = which == QKV_STAGE_SOFTMAX_BACKWARD;
    qkv_gradients_init(gradients);
    gradients->q = qkv_tensor_bhsd(made->q, Q_HEADS, Q_LEN, DIM);
    gradients->k = qkv_tensor_bhsd(made->k, KV_HEADS, KV_LEN, DIM);
    gradients->v = qkv_tensor_bhsd(made->v, KV_HEADS, KV_LEN, V_DIM);
    gradients->out = qkv_tensor_bhsd(d_out, Q_HEADS, Q_LEN, V_DIM);
    gradients->weights =
        qkv_tensor_bhsd(reads_weights ? given : made->pairs, Q_HEADS, Q_LEN, KV_LEN);
    gradients->scores =
        qkv_tensor_bhsd(reads_weights ? made->pairs : given, Q_HEADS, Q_LEN, KV_LEN);
    if (!every_option)
        return;
    gradients->bias = qkv_tensor_bhsd(made->pairs, Q_HEADS, Q_LEN, KV_LEN);
    gradients->sinks = qkv_tensor_bhsd(made->sinks, 1, 1, Q_HEADS);
}

static qkv_exec executor(const qkv_plan *plan, const qkv_context *context) {
    qkv_exec exec;
    qkv_exec_init(&exec);
    exec.context = context;
    exec.workspace = workspace;
    exec.workspace_size = qkv_plan_workspace(plan, exec.threads);
    return exec;
}

static qkv_status forward(const qkv_attention_params *params, const qkv_tensors *tensors,
                          const qkv_context *context) {
    qkv_plan plan;
    qkv_status status = qkv_attention_plan(&plan, params, context);
    if (status != QKV_OK)
        return status;
    const qkv_exec exec = executor(&plan, context);
    return qkv_attention(params, tensors, &exec);
}

qkv_status work_backward(int which, int every_option, const qkv_context *context) {
    static const struct {
        qkv_status (*plan)(qkv_plan *, const qkv_attention_params *, const qkv_context *);
        qkv_status (*call)(const qkv_attention_params *, const qkv_tensors *, const qkv_gradients *,
                           const qkv_exec *);
    } stages[QKV_STAGE_COUNT] = {
        [QKV_STAGE_SCORES_BACKWARD] = {qkv_scores_backward_plan, qkv_scores_backward},
        [QKV_STAGE_SOFTMAX_BACKWARD] = {qkv_softmax_backward_plan, qkv_softmax_backward},
        [QKV_STAGE_MIX_BACKWARD] = {qkv_mix_backward_plan, qkv_mix_backward},
        [QKV_STAGE_ATTENTION_BACKWARD] = {qkv_attention_backward_plan, qkv_attention_backward},
    };
    qkv_attention_params params;
    qkv_tensors tensors;
    qkv_gradients gradients;
    qkv_plan plan;
    qkv_status status = QKV_OK;

    describe(&params, every_option);
    bind(&tensors);
    bind_gradients(&gradients, which, every_option);
    if (which == QKV_STAGE_ATTENTION_BACKWARD)
        status = forward(&params, &tensors, context);
    if (status == QKV_OK)
        status = stages[which].plan(&plan, &params, context);
    if (status != QKV_OK)
        return status;
    const qkv_exec exec = executor(&plan, context);
    return stages[which].call(&params, &tensors, &gradients, &exec);
}
