/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training: W^Q, W^K and W^V of one attention layer learn to give the targets. A step is project,
 * attention with its LSE, the loss with its gradient, and back through attention and project to
 * the gradients of the weights, which AdamW takes a step down, clipped by their common norm. The
 * program checks that the loss falls.
 */
#include <stdio.h>
#include <stdlib.h>

#include <qkv/qkv.h>

enum {
    BATCH = 4,
    TOKENS = 24,
    D_MODEL = 32,
    HEADS = 4,
    DIM = 16,
    WIDTH = HEADS * DIM,
    STEPS = 200
};

/* The three matrices stand one behind the other, so that one step of descent takes all of them. */
enum { MATRIX = D_MODEL * WIDTH, WEIGHTS = 3 * MATRIX };
static float weights[WEIGHTS], gradient[WEIGHTS], mean[WEIGHTS], square[WEIGHTS];

enum { ROWS = BATCH * TOKENS, NUMBERS = ROWS * WIDTH };
static float x[ROWS * D_MODEL], target[NUMBERS];
static float q[NUMBERS], k[NUMBERS], v[NUMBERS], out[NUMBERS], lse[ROWS * HEADS];
static float d_q[NUMBERS], d_k[NUMBERS], d_v[NUMBERS], d_out[NUMBERS];

static void must(qkv_status status, const char *what) {
    if (status != QKV_OK) {
        fprintf(stderr, "%s: %s\n", what, qkv_status_string(status));
        exit(1);
    }
}

static void fill(float *data, int n, float size, unsigned seed) {
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = size * ((float)(seed >> 8) * 0x1p-23f - 1.0f);
    }
}

/* The heads of a token stand side by side, as project leaves them: [batch, tokens, heads, dim]. */
static qkv_tensor heads(const float *data) {
    return qkv_tensor_bshd(data, HEADS, TOKENS, DIM);
}

/* Matrix i of the weights or of their gradients. */
static qkv_tensor matrix(const float *data, int i) {
    return qkv_tensor_bhsd(data + i * MATRIX, 1, D_MODEL, WIDTH);
}

static qkv_project_params project_params(void) {
    qkv_project_params params;
    qkv_project_params_init(&params);
    params.batch = BATCH;
    params.tokens = TOKENS;
    params.d_model = D_MODEL;
    params.q_heads = params.kv_heads = HEADS;
    params.head_dim = DIM;
    params.layout = QKV_W_IN_OUT;
    return params;
}

static qkv_attention_params attention_params(void) {
    qkv_attention_params params;
    qkv_attention_params_init(&params);
    params.batch = BATCH;
    params.q_heads = params.kv_heads = HEADS;
    params.q_len = params.kv_len = TOKENS;
    params.head_dim = DIM;
    params.flags = QKV_FLAG_CAUSAL;
    return params;
}

static qkv_loss_params loss_params(void) {
    qkv_loss_params params;
    qkv_loss_params_init(&params);
    params.kind = QKV_LOSS_SQUARED;
    params.rows = ROWS;
    params.columns = WIDTH;
    return params;
}

static qkv_descent_params descent_params(int step, float scale) {
    qkv_descent_params params;
    qkv_descent_params_init(&params);
    params.rule = QKV_DESCENT_ADAMW;
    params.count = WEIGHTS;
    params.step = step;
    params.rate = 0.01f;
    params.weight_decay = 0.01f;
    params.gradient_scale = scale;
    return params;
}

/* Memory that is enough for each of the calls, made once. */
static void make_workspace(qkv_exec *exec) {
    const qkv_project_params project = project_params();
    const qkv_attention_params attention = attention_params();
    const qkv_loss_params loss = loss_params();
    qkv_plan plan[5];
    must(qkv_project_plan(&plan[0], &project, NULL), "project");
    must(qkv_attention_plan(&plan[1], &attention, NULL), "attention");
    must(qkv_loss_plan(&plan[2], &loss, NULL), "loss");
    must(qkv_attention_backward_plan(&plan[3], &attention, NULL), "attention_backward");
    must(qkv_project_backward_plan(&plan[4], &project, NULL), "project_backward");
    qkv_exec_init(exec);
    for (int i = 0; i < 5; i++) {
        const size_t size = qkv_plan_workspace(&plan[i], exec->threads);
        exec->workspace_size = size > exec->workspace_size ? size : exec->workspace_size;
    }
    exec->workspace = aligned_alloc(QKV_ALIGNMENT, exec->workspace_size);
}

/* The gradients of the weights; returns the loss. */
static float gradients_of_weights(const qkv_exec *exec) {
    const qkv_project_params project = project_params();
    qkv_project_tensors p;
    qkv_project_tensors_init(&p);
    p.x = qkv_tensor_bhsd(x, 1, TOKENS, D_MODEL);
    p.wq = matrix(weights, 0), p.wk = matrix(weights, 1), p.wv = matrix(weights, 2);
    p.q = heads(q), p.k = heads(k), p.v = heads(v);
    must(qkv_project(&project, &p, exec), "project");

    const qkv_attention_params attention = attention_params();
    qkv_tensors t;
    qkv_tensors_init(&t);
    t.q = p.q, t.k = p.k, t.v = p.v, t.out = heads(out);
    t.lse = qkv_tensor_bshd(lse, HEADS, TOKENS, 1);
    must(qkv_attention(&attention, &t, exec), "attention");

    /* The gradient may not stand in the prediction's place: attention_backward reads out. */
    const qkv_loss_params params = loss_params();
    float loss;
    qkv_loss_tensors l;
    qkv_loss_tensors_init(&l);
    l.prediction = qkv_tensor_bhsd(out, 1, ROWS, WIDTH);
    l.target = qkv_tensor_bhsd(target, 1, ROWS, WIDTH);
    l.gradient = qkv_tensor_bhsd(d_out, 1, ROWS, WIDTH);
    l.loss = &loss;
    must(qkv_loss(&params, &l, exec), "loss");

    qkv_gradients g;
    qkv_gradients_init(&g);
    g.out = heads(d_out), g.q = heads(d_q), g.k = heads(d_k), g.v = heads(d_v);
    must(qkv_attention_backward(&attention, &t, &g, exec), "attention_backward");

    qkv_project_gradients w;
    qkv_project_gradients_init(&w);
    w.q = g.q, w.k = g.k, w.v = g.v;
    w.wq = matrix(gradient, 0), w.wk = matrix(gradient, 1), w.wv = matrix(gradient, 2);
    must(qkv_project_backward(&project, &p, &w, exec), "project_backward");
    return loss;
}

static void descend(int step, const qkv_exec *exec) {
    double norm2 = 0.0;
    must(qkv_sum_squares(&norm2, gradient, WEIGHTS, NULL), "sum of squares");
    const qkv_descent_params params = descent_params(step, qkv_clip_scale(norm2, 1.0f));
    qkv_descent_arrays arrays;
    qkv_descent_arrays_init(&arrays);
    arrays.weights = weights;
    arrays.gradient = gradient;
    arrays.mean = mean; /* mean and square begin as zeros */
    arrays.square = square;
    must(qkv_descent(&params, &arrays, exec), "descent");
}

int main(void) {
    fill(x, ROWS * D_MODEL, 1.0f, 1);
    fill(target, NUMBERS, 1.0f, 2);
    fill(weights, WEIGHTS, 0.3f, 3);
    qkv_exec exec;
    make_workspace(&exec);
    float first = 0.0f, loss = 0.0f;
    for (int step = 1; step <= STEPS; step++) {
        loss = gradients_of_weights(&exec);
        first = step == 1 ? loss : first;
        if (step == 1 || step % 50 == 0)
            printf("step %3d  loss %.4f\n", step, (double)loss);
        descend(step, &exec);
    }
    free(exec.workspace);
    return !(loss < 0.8f * first);
}
