/* SPDX-License-Identifier: Apache-2.0 */
/* The answers of qkv attend: their memory and shapes, the calls that compute them, the files and
 * the heat maps. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "attend.h"
#include "complain.h"
#include "heatmap.h"

int attend_allocate(const char *what, int dims, const int64_t *shape, float **data) {
    int64_t size = sizeof **data;
    for (int i = 0; i < dims; i++) {
        if (__builtin_mul_overflow(size, shape[i], &size) || size > PTRDIFF_MAX) {
            size = -1;
            break;
        }
    }
    *data = size < 0 ? NULL : malloc(size ? (size_t)size : 1);
    if (!*data) {
        char text[SHAPE_TEXT];
        return complain(FAILED, what, "an array of shape %s does not fit in memory",
                        shape_text(text, dims, shape));
    }
    return FINE;
}

/* The option that an argument of the library comes from. */
static const struct {
    qkv_arg arg;
    const char *option;
} origins[] = {
    {QKV_ARG_Q_HEADS, "--heads"},
    {QKV_ARG_KV_HEADS, "--kv-heads"},
    {QKV_ARG_HEAD_DIM, "--q"},
    {QKV_ARG_V_DIM, "--v"},
    {QKV_ARG_BATCH, "--q"},
    {QKV_ARG_Q_LEN, "--q"},
    {QKV_ARG_KV_LEN, "--k"},
    {QKV_ARG_SCALE, "--scale"},
    {QKV_ARG_SOFTCAP, "--softcap"},
    {QKV_ARG_ALIGN, "--align"},
    {QKV_ARG_EXP, "--exp"},
    {QKV_ARG_ARITHMETIC, "--cache-arithmetic"},
    {QKV_ARG_WINDOW_LEFT, "--window"},
    {QKV_ARG_WINDOW_RIGHT, "--window"},
    {QKV_ARG_ALIBI, "--alibi"},
    {QKV_ARG_SINKS, "--sinks"},
    {QKV_ARG_BIAS, "--bias"},
    {QKV_ARG_MASK, "--mask"},
    {QKV_ARG_Q_LENS, "--q-lens"},
    {QKV_ARG_KV_LENS, "--kv-lens"},
    {QKV_ARG_CU_Q, "--cu-q"},
    {QKV_ARG_CU_KV, "--cu-kv"},
    {QKV_ARG_TOKENS, "--x"},
    {QKV_ARG_D_MODEL, "--x"},
};

int attend_explain(qkv_status status) {
    const char *option = "attend";
    for (size_t i = 0; i < sizeof origins / sizeof origins[0]; i++) {
        if (origins[i].arg == qkv_status_arg(status)) {
            option = origins[i].option;
        }
    }
    return complain(FAILED, option, "%s", qkv_status_string(status));
}

/* The shapes of the answers, without the dimensions that the queries do not have. */
struct shape {
    int dims;
    int64_t size[4];
};

static void append(struct shape *shape, bool wanted, int64_t size) {
    if (wanted) {
        shape->size[shape->dims++] = size;
    }
}

static struct shape shape_of_out(const struct job *job) {
    const qkv_attention_params *p = &job->params;
    struct shape shape = {0};
    append(&shape, job->batch_axis, job->blocks);
    append(&shape, !job->merged, p->q_heads);
    append(&shape, true, job->rows);
    append(&shape, true, job->merged ? p->q_heads * p->v_dim : p->v_dim);
    return shape;
}

/* Of lse, and of the weights with columns > 0. */
static struct shape shape_of_rows(const struct job *job, bool has_columns) {
    struct shape shape = {0};
    append(&shape, job->batch_axis, job->blocks);
    append(&shape, job->head_axis, job->params.q_heads);
    append(&shape, true, job->rows);
    append(&shape, has_columns, job->params.kv_len);
    return shape;
}

typedef qkv_status plan_fn(qkv_plan *plan, const qkv_attention_params *params,
                           const qkv_context *context);
typedef qkv_status stage_fn(const qkv_attention_params *params, const qkv_tensors *tensors,
                            const qkv_exec *exec);

static int run_stage(struct job *job, plan_fn *make_plan, stage_fn *stage) {
    qkv_plan plan;
    qkv_exec exec;
    qkv_status status = make_plan(&plan, &job->params, job->runner.context);
    if (status) {
        return attend_explain(status);
    }
    if (runner_prepare(&job->runner, &plan, &exec)) {
        return FAILED;
    }
    status = stage(&job->params, &job->tensors, &exec);
    return status ? attend_explain(status) : FINE;
}

/* O and LSE in one pass. */
static int compute_fused(struct job *job) {
    const qkv_attention_params *p = &job->params;
    const int64_t out_shape[] = {job->blocks, p->q_heads, job->rows, p->v_dim};
    const int64_t lse_shape[] = {job->blocks, p->q_heads, job->rows};
    if (attend_allocate("--out", 4, out_shape, &job->out) ||
        attend_allocate("--lse", 3, lse_shape, &job->lse)) {
        return FAILED;
    }
    job->tensors.out = job->merged ? qkv_tensor_bshd(job->out, p->q_heads, job->rows, p->v_dim)
                                   : qkv_tensor_bhsd(job->out, p->q_heads, job->rows, p->v_dim);
    job->tensors.lse = qkv_tensor_bhsd(job->lse, p->q_heads, job->rows, 1);
    return run_stage(job, qkv_attention_plan, qkv_attention);
}

/* The weights by way of the scores, in place. */
static int compute_weights(struct job *job) {
    const qkv_attention_params *p = &job->params;
    const int64_t shape[] = {job->blocks, p->q_heads, job->rows, p->kv_len};
    if (attend_allocate("--weights", 4, shape, &job->weights)) {
        return FAILED;
    }
    job->tensors.scores = qkv_tensor_bhsd(job->weights, p->q_heads, job->rows, p->kv_len);
    job->tensors.weights = job->tensors.scores;
    job->tensors.lse = (qkv_tensor){0};
    int status = run_stage(job, qkv_scores_plan, qkv_scores);
    return status ? status : run_stage(job, qkv_softmax_plan, qkv_softmax);
}

int attend_compute(struct job *job) {
    const struct attend_options *o = job->options;
    int status = FINE;
    const bool cached = o->cache_dtype.given;
    if (o->out || o->lse || cached) {
        status = compute_fused(job);
    }
    if (!status && cached) {
        status = attend_cached(job);
    }
    if (!status && (o->weights || o->show)) {
        status = compute_weights(job);
    }
    return status;
}

/* Stages every file, and gives them their names when all are complete. */
int attend_save(const struct job *job) {
    const struct attend_options *o = job->options;
    const struct {
        const char *path;
        struct shape shape;
        const float *data;
    } outputs[] = {
        {o->out, shape_of_out(job), job->out},
        {o->lse, shape_of_rows(job, false), job->lse},
        {o->weights, shape_of_rows(job, true), job->weights},
    };
    enum { OUTPUTS = sizeof outputs / sizeof outputs[0] };
    struct staged staged[OUTPUTS] = {{0}};
    int status = FINE;
    for (int i = 0; i < OUTPUTS && !status; i++) {
        if (outputs[i].path) {
            status = array_stage(&staged[i], outputs[i].path, outputs[i].shape.dims,
                                 outputs[i].shape.size, outputs[i].data);
        }
    }
    for (int i = 0; i < OUTPUTS; i++) {
        if (!status) {
            status = file_commit(&staged[i]);
        }
        file_discard(&staged[i]);
    }
    return status;
}

/* Where the rows of a sequence begin in its block, and how many rows and keys it has. */
struct extent {
    int64_t block, first, rows, keys;
};

static struct extent extent_of(const qkv_attention_params *p, int64_t b) {
    struct extent e = {b, 0, p->q_len, p->kv_len};
    if (p->cu_q) {
        e = (struct extent){0, p->cu_q[b], p->cu_q[b + 1] - p->cu_q[b], p->kv_len};
    } else if (p->q_lens) {
        e.rows = p->q_lens[b];
    }
    if (p->cu_kv) {
        e.keys = p->cu_kv[b + 1] - p->cu_kv[b];
    } else if (p->kv_lens) {
        e.keys = p->kv_lens[b];
    }
    return e;
}

void attend_show(const struct job *job) {
    const qkv_attention_params *p = &job->params;
    struct screen screen = screen_of_stdout();
    for (int64_t b = 0; b < p->batch; b++) {
        struct extent e = extent_of(p, b);
        for (int64_t h = 0; h < p->q_heads; h++) {
            int64_t row = (e.block * p->q_heads + h) * job->rows + e.first;
            struct heatmap map = {.values = job->weights + row * p->kv_len,
                                  .rows = e.rows,
                                  .columns = e.keys,
                                  .stride = p->kv_len};
            printf("%ssequence %" PRId64 ", head %" PRId64 " (down: queries, across: keys)\n",
                   b + h > 0 ? "\n" : "", b, h);
            heatmap_print(&map, &screen);
        }
    }
}
