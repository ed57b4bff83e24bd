/* SPDX-License-Identifier: Apache-2.0 */
/* The model that learns, and its calls of the library. See train_model.h. */
#include "train_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "complain.h"
#include "noise.h"

enum { MATRICES = 3 };

/* The stream of the first weights; the tasks' own streams are small numbers. */
#define STREAM_WEIGHTS 1000

/* One block of floats cut into pieces, each aligned; without a block only the room is counted. */
struct cutter {
    float *block;
    int64_t used;
};

static float *cut(struct cutter *cutter, int64_t count) {
    enum { FLOATS = QKV_ALIGNMENT / sizeof(float) };
    float *piece = cutter->block ? cutter->block + cutter->used : NULL;
    cutter->used += (count + FLOATS - 1) / FLOATS * FLOATS;
    return piece;
}

/* The pieces of the model's memory; returns how many floats they take. */
static int64_t lay_out(struct model *m) {
    const struct task *t = m->task;
    const int64_t tokens = m->capacity * t->tokens, rows = tokens * t->width;
    struct cutter cutter = {m->memory, 0};
    m->weights = cut(&cutter, MATRICES * m->matrix);
    m->gradient = cut(&cutter, MATRICES * m->matrix);
    m->batch.x = cut(&cutter, tokens * t->d_model);
    m->batch.target = cut(&cutter, t->answers ? 0 : rows);
    m->lse = cut(&cutter, tokens * m->heads);
    m->logits = cut(&cutter, tokens * t->answers);
    m->d_logits = cut(&cutter, tokens * t->answers);
    float **const like_out[] = {&m->q, &m->k, &m->v, &m->out, &m->d_q, &m->d_k, &m->d_v, &m->d_out};
    for (size_t i = 0; i < sizeof like_out / sizeof like_out[0]; i++) {
        *like_out[i] = cut(&cutter, rows);
    }
    return cutter.used;
}

int model_open(struct model *m, const struct task *task, int64_t heads, int64_t capacity,
               uint64_t seed) {
    m->task = task;
    m->heads = heads;
    m->head_dim = task->width / heads;
    m->capacity = capacity;
    m->matrix = task->d_model * task->width;
    m->memory = NULL;
    size_t size = (size_t)lay_out(m) * sizeof *m->memory;
    m->memory = aligned_alloc(QKV_ALIGNMENT, size);
    m->batch.labels = malloc((size_t)(capacity * task->tokens) * sizeof *m->batch.labels);
    if (!m->memory || !m->batch.labels) {
        return out_of_memory("train");
    }
    memset(m->memory, 0, size);
    lay_out(m);
    struct noise noise = noise_open(seed, STREAM_WEIGHTS, 0);
    noise_fill(&noise, m->weights, MATRICES * m->matrix, 1 / sqrtf((float)task->d_model));
    return FINE;
}

void model_close(struct model *m) {
    runner_close(&m->runner);
    free(m->batch.labels);
    free(m->memory);
    m->memory = NULL;
    m->batch.labels = NULL;
}

void model_take(struct model *m, enum share share, int64_t first, int64_t sequences) {
    m->batch.sequences = sequences;
    m->task->fill(m->task, share, first, &m->batch);
}

static int failed(int stage, qkv_status status) {
    return complain(FAILED, qkv_stage_name(stage), "%s", qkv_status_string(status));
}

/* Plans, prepares and runs a stage: its functions and their arguments. */
#define RUN(m, stage, function, params, ...)                                         \
    do {                                                                             \
        qkv_plan plan_;                                                              \
        qkv_exec exec_;                                                              \
        qkv_status status_ = function##_plan(&plan_, (params), (m)->runner.context); \
        if (!status_) {                                                              \
            if (runner_prepare(&(m)->runner, &plan_, &exec_)) {                      \
                return FAILED;                                                       \
            }                                                                        \
            status_ = function((params), __VA_ARGS__, &exec_);                       \
        }                                                                            \
        if (status_) {                                                               \
            return failed((stage), status_);                                         \
        }                                                                            \
    } while (0)

/* [sequences, tokens, heads, head_dim], seen as the library sees it. */
static qkv_tensor view(const struct model *m, const float *data) {
    return qkv_tensor_bshd(data, m->heads, m->task->tokens, m->head_dim);
}

static qkv_tensor matrix(const struct model *m, const float *all, int which) {
    return qkv_tensor_bhsd(all + which * m->matrix, 1, m->task->d_model, m->task->width);
}

static void describe_projection(const struct model *m, qkv_project_params *p,
                                qkv_project_tensors *t) {
    qkv_project_params_init(p);
    p->batch = m->batch.sequences;
    p->tokens = m->task->tokens;
    p->d_model = m->task->d_model;
    p->q_heads = p->kv_heads = m->heads;
    p->head_dim = p->v_dim = m->head_dim;
    p->layout = QKV_W_IN_OUT;
    qkv_project_tensors_init(t);
    t->x = qkv_tensor_bhsd(m->batch.x, 1, p->tokens, p->d_model);
    t->wq = matrix(m, m->weights, QKV_WHICH_Q);
    t->wk = matrix(m, m->weights, QKV_WHICH_K);
    t->wv = matrix(m, m->weights, QKV_WHICH_V);
    t->q = view(m, m->q);
    t->k = view(m, m->k);
    t->v = view(m, m->v);
}

static void describe_attention(const struct model *m, qkv_attention_params *p, qkv_tensors *t) {
    qkv_attention_params_init(p);
    p->flags = m->task->causal ? QKV_FLAG_CAUSAL : 0;
    p->batch = m->batch.sequences;
    p->q_heads = p->kv_heads = m->heads;
    p->q_len = p->kv_len = m->task->tokens;
    p->head_dim = p->v_dim = m->head_dim;
    qkv_tensors_init(t);
    t->q = view(m, m->q);
    t->k = view(m, m->k);
    t->v = view(m, m->v);
    t->out = view(m, m->out);
    t->lse = qkv_tensor_bhsd(m->lse, m->heads, p->q_len, 1);
}

/* The dictionary as one more projection: the logits are O times it. */
static void describe_answers(const struct model *m, qkv_project_params *p, qkv_project_tensors *t) {
    qkv_project_params_init(p);
    p->batch = 1;
    p->tokens = m->batch.sequences * m->task->tokens;
    p->d_model = m->task->width;
    p->q_heads = 1;
    p->head_dim = m->task->answers;
    p->layout = QKV_W_IN_OUT;
    qkv_project_tensors_init(t);
    t->x = qkv_tensor_bhsd(m->out, 1, p->tokens, p->d_model);
    t->wq = qkv_tensor_bhsd(m->task->dictionary, 1, p->d_model, p->head_dim);
    t->q = qkv_tensor_bhsd(m->logits, 1, p->tokens, p->head_dim);
}

int model_forward(struct model *m) {
    qkv_project_params project, answers;
    qkv_project_tensors project_tensors, answer_tensors;
    qkv_attention_params attention;
    qkv_tensors tensors;
    describe_projection(m, &project, &project_tensors);
    RUN(m, QKV_STAGE_PROJECT, qkv_project, &project, &project_tensors);
    describe_attention(m, &attention, &tensors);
    RUN(m, QKV_STAGE_ATTENTION, qkv_attention, &attention, &tensors);
    if (m->task->answers) {
        describe_answers(m, &answers, &answer_tensors);
        RUN(m, QKV_STAGE_PROJECT, qkv_project, &answers, &answer_tensors);
    }
    return FINE;
}

int model_loss(struct model *m, bool gradient) {
    const struct task *task = m->task;
    const int64_t rows = m->batch.sequences * task->tokens;
    qkv_loss_params params;
    qkv_loss_tensors tensors;
    qkv_loss_params_init(&params);
    qkv_loss_tensors_init(&tensors);
    params.rows = rows;
    tensors.loss = &m->loss;
    if (task->answers) {
        params.kind = QKV_LOSS_CROSS_ENTROPY;
        params.columns = task->answers;
        tensors.labels = m->batch.labels;
        tensors.prediction = qkv_tensor_bhsd(m->logits, 1, rows, params.columns);
    } else {
        params.kind = QKV_LOSS_SQUARED;
        params.columns = task->width;
        tensors.target = qkv_tensor_bhsd(m->batch.target, 1, rows, params.columns);
        tensors.prediction = qkv_tensor_bhsd(m->out, 1, rows, params.columns);
    }
    if (gradient) {
        float *to = task->answers ? m->d_logits : m->d_out;
        tensors.gradient = qkv_tensor_bhsd(to, 1, rows, params.columns);
    }
    RUN(m, QKV_STAGE_LOSS, qkv_loss, &params, &tensors);
    return FINE;
}

/* From the gradient of the logits to that of O. */
static int answers_backward(struct model *m) {
    qkv_project_params params;
    qkv_project_tensors tensors;
    qkv_project_gradients gradients;
    describe_answers(m, &params, &tensors);
    qkv_project_gradients_init(&gradients);
    gradients.q = qkv_tensor_bhsd(m->d_logits, 1, params.tokens, params.head_dim);
    gradients.x = qkv_tensor_bhsd(m->d_out, 1, params.tokens, params.d_model);
    RUN(m, QKV_STAGE_PROJECT_BACKWARD, qkv_project_backward, &params, &tensors, &gradients);
    return FINE;
}

static int attention_backward(struct model *m) {
    qkv_attention_params params;
    qkv_tensors tensors;
    qkv_gradients gradients;
    describe_attention(m, &params, &tensors);
    qkv_gradients_init(&gradients);
    gradients.out = view(m, m->d_out);
    gradients.q = view(m, m->d_q);
    gradients.k = view(m, m->d_k);
    gradients.v = view(m, m->d_v);
    RUN(m, QKV_STAGE_ATTENTION_BACKWARD, qkv_attention_backward, &params, &tensors, &gradients);
    return FINE;
}

int model_backward(struct model *m) {
    qkv_project_params params;
    qkv_project_tensors tensors;
    qkv_project_gradients gradients;
    if ((m->task->answers && answers_backward(m)) || attention_backward(m)) {
        return FAILED;
    }
    describe_projection(m, &params, &tensors);
    qkv_project_gradients_init(&gradients);
    gradients.q = view(m, m->d_q);
    gradients.k = view(m, m->d_k);
    gradients.v = view(m, m->d_v);
    gradients.wq = matrix(m, m->gradient, QKV_WHICH_Q);
    gradients.wk = matrix(m, m->gradient, QKV_WHICH_K);
    gradients.wv = matrix(m, m->gradient, QKV_WHICH_V);
    RUN(m, QKV_STAGE_PROJECT_BACKWARD, qkv_project_backward, &params, &tensors, &gradients);
    return FINE;
}

int64_t model_answer(const struct model *m, int64_t sequence, int64_t token) {
    const int64_t answers = m->task->answers;
    const float *logits = m->logits + (sequence * m->task->tokens + token) * answers;
    int64_t best = 0;
    for (int64_t i = 1; i < answers; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

struct model_answers model_answers(const struct model *m) {
    struct model_answers count = {0, 0};
    for (int64_t s = 0; m->task->answers && s < m->batch.sequences; s++) {
        for (int64_t t = 0; t < m->task->tokens; t++) {
            int32_t label = m->batch.labels[s * m->task->tokens + t];
            count.wanted += label >= 0;
            count.right += label >= 0 && model_answer(m, s, t) == label;
        }
    }
    return count;
}

int model_attention_weights(struct model *m, float *weights) {
    qkv_attention_params params;
    qkv_tensors tensors;
    describe_attention(m, &params, &tensors);
    params.batch = 1;
    tensors.scores = tensors.weights =
        qkv_tensor_bhsd(weights, m->heads, m->task->tokens, m->task->tokens);
    tensors.lse = (qkv_tensor){0};
    RUN(m, QKV_STAGE_SCORES, qkv_scores, &params, &tensors);
    RUN(m, QKV_STAGE_SOFTMAX, qkv_softmax, &params, &tensors);
    return FINE;
}
