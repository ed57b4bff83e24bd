/* SPDX-License-Identifier: Apache-2.0 */
/* The party's work in one room, and how long it takes. See party_run.h. */
#include "party_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "complain.h"

enum { WARM_UPS = 3, LEAST_REPEATS = 11, MOST_REPEATS = 2001 };

#define ENOUGH_SECONDS 0.05

static int failed(const char *stage, qkv_status status) {
    return complain(FAILED, stage, "%s", qkv_status_string(status));
}

/* [heads, d_model, head_dim] to [d_model, heads * head_dim]. */
static void join_heads(float *to, const float *from, const struct party *p) {
    int64_t width = p->heads * p->head_dim;
    for (int64_t h = 0; h < p->heads; h++) {
        for (int64_t i = 0; i < p->d_model; i++) {
            memcpy(to + i * width + h * p->head_dim, from + (h * p->d_model + i) * p->head_dim,
                   (size_t)p->head_dim * sizeof *to);
        }
    }
}

/* One block of floats cut into pieces. */
static float *cut(float **rest, int64_t count) {
    float *piece = *rest;
    *rest += count;
    return piece;
}

static int allocate(struct party_run *run) {
    const struct party *p = run->party;
    int64_t rows = p->heads * p->tokens, result = rows * p->head_dim, square = rows * p->tokens;
    int64_t matrix = p->d_model * p->heads * p->head_dim;
    run->w = malloc((size_t)(matrix + 5 * result + square + rows) * sizeof *run->w);
    if (!run->w) {
        return out_of_memory(p->path);
    }
    float *rest = run->w + matrix;
    run->q = cut(&rest, result);
    run->k = cut(&rest, result);
    run->v = cut(&rest, result);
    run->mixed = cut(&rest, result);
    run->fused = cut(&rest, result);
    run->weights = cut(&rest, square);
    run->lse = cut(&rest, rows);
    return FINE;
}

static void set_params(struct party_run *run) {
    const struct party *p = run->party;
    qkv_attention_params *a = &run->params;
    qkv_attention_params_init(a);
    a->flags = QKV_FLAG_SCALE;
    a->batch = 1;
    a->q_heads = a->kv_heads = p->heads;
    a->q_len = a->kv_len = p->tokens;
    a->head_dim = a->v_dim = p->head_dim;
    a->scale = p->scale;
    qkv_project_params *j = &run->project_params;
    qkv_project_params_init(j);
    j->batch = 1;
    j->tokens = p->tokens;
    j->d_model = p->d_model;
    j->q_heads = j->kv_heads = p->heads;
    j->head_dim = j->v_dim = p->head_dim;
    j->layout = QKV_W_IN_OUT;
}

/* Packs one matrix, as a program that multiplies by it for ever does once. */
static int pack(struct party_run *run, int which, const float *w, qkv_tensor *tensor) {
    const qkv_project_params *params = &run->project_params;
    size_t size = qkv_project_pack_size(params, which, run->runner.context);
    size_t rounded = (size + QKV_ALIGNMENT - 1) / QKV_ALIGNMENT * QKV_ALIGNMENT;
    run->packed[which] = size ? aligned_alloc(QKV_ALIGNMENT, rounded) : NULL;
    if (!run->packed[which]) {
        return out_of_memory(run->party->path);
    }
    join_heads(run->w, w, run->party);
    qkv_tensor plain =
        qkv_tensor_bhsd(run->w, 1, run->party->d_model, run->party->heads * run->party->head_dim);
    qkv_status status =
        qkv_project_pack(params, which, &plain, run->packed[which], size, run->runner.context);
    *tensor = (qkv_tensor){.data = run->packed[which], .dtype = QKV_F32};
    tensor->stride[3] = 1;
    return status ? failed("project", status) : FINE;
}

static void set_tensors(struct party_run *run) {
    const struct party *p = run->party;
    int64_t width = p->heads * p->head_dim;
    qkv_project_tensors *j = &run->project_tensors;
    j->x = qkv_tensor_bhsd(p->x, 1, p->tokens, p->d_model);
    j->bq = qkv_tensor_bhsd(p->bq, 1, 1, width);
    j->bk = qkv_tensor_bhsd(p->bk, 1, 1, width);
    j->bv = qkv_tensor_bhsd(p->bv, 1, 1, width);
    j->q = qkv_tensor_bhsd(run->q, p->heads, p->tokens, p->head_dim);
    j->k = qkv_tensor_bhsd(run->k, p->heads, p->tokens, p->head_dim);
    j->v = qkv_tensor_bhsd(run->v, p->heads, p->tokens, p->head_dim);
    qkv_tensors *t = &run->tensors;
    qkv_tensors_init(t);
    t->q = j->q;
    t->k = j->k;
    t->v = j->v;
    t->scores = t->weights = qkv_tensor_bhsd(run->weights, p->heads, p->tokens, p->tokens);
}

int party_run_open(struct party_run *run, const struct party *party, const qkv_context *context) {
    *run = (struct party_run){.party = party, .runner = {.context = context, .threads = 1}};
    qkv_project_tensors_init(&run->project_tensors);
    set_params(run);
    if (allocate(run) || pack(run, QKV_WHICH_Q, party->wq, &run->project_tensors.wq) ||
        pack(run, QKV_WHICH_K, party->wk, &run->project_tensors.wk) ||
        pack(run, QKV_WHICH_V, party->wv, &run->project_tensors.wv)) {
        return FAILED;
    }
    run->project_params.layout = QKV_W_PACKED;
    set_tensors(run);
    return FINE;
}

void party_run_close(struct party_run *run) {
    for (int which = 0; which < QKV_WHICH_COUNT; which++) {
        free(run->packed[which]);
    }
    free(run->w);
    runner_close(&run->runner);
}

static int project(struct party_run *run) {
    qkv_plan plan;
    qkv_exec exec;
    qkv_status status = qkv_project_plan(&plan, &run->project_params, run->runner.context);
    if (!status) {
        if (runner_prepare(&run->runner, &plan, &exec)) {
            return FAILED;
        }
        status = qkv_project(&run->project_params, &run->project_tensors, &exec);
    }
    return status ? failed("project", status) : FINE;
}

typedef qkv_status plan_fn(qkv_plan *plan, const qkv_attention_params *params,
                           const qkv_context *context);
typedef qkv_status stage_fn(const qkv_attention_params *params, const qkv_tensors *tensors,
                            const qkv_exec *exec);

static int run_stage(struct party_run *run, int stage, plan_fn *make_plan, stage_fn *call) {
    qkv_plan plan;
    qkv_exec exec;
    qkv_status status = make_plan(&plan, &run->params, run->runner.context);
    if (!status) {
        if (runner_prepare(&run->runner, &plan, &exec)) {
            return FAILED;
        }
        status = call(&run->params, &run->tensors, &exec);
    }
    return status ? failed(qkv_stage_name(stage), status) : FINE;
}

/* O, and LSE in the one pass alone. */
static void aim(struct party_run *run, float *out, float *lse) {
    const struct party *p = run->party;
    run->tensors.out = qkv_tensor_bhsd(out, p->heads, p->tokens, p->head_dim);
    run->tensors.lse = lse ? qkv_tensor_bhsd(lse, p->heads, p->tokens, 1) : (qkv_tensor){0};
}

int party_run_steps(struct party_run *run) {
    aim(run, run->mixed, NULL);
    if (project(run) || run_stage(run, QKV_STAGE_SCORES, qkv_scores_plan, qkv_scores) ||
        run_stage(run, QKV_STAGE_SOFTMAX, qkv_softmax_plan, qkv_softmax)) {
        return FAILED;
    }
    return run_stage(run, QKV_STAGE_MIX, qkv_mix_plan, qkv_mix);
}

int party_run_fused(struct party_run *run) {
    aim(run, run->fused, run->lse);
    int status = project(run);
    return status ? status : run_stage(run, QKV_STAGE_ATTENTION, qkv_attention_plan, qkv_attention);
}

/* NaN counts as infinitely far away. */
static double difference(const float *is, const double *expected, int64_t count) {
    double largest = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)is[i] - expected[i]);
        largest = isnan(d) ? INFINITY : fmax(largest, d);
    }
    return largest;
}

struct party_difference party_run_difference(const struct party_run *run) {
    const struct party *p = run->party;
    int64_t rows = p->heads * p->tokens, count = rows * p->head_dim;
    return (struct party_difference){
        .q = difference(run->q, p->q, count),
        .k = difference(run->k, p->k, count),
        .v = difference(run->v, p->v, count),
        .weights = difference(run->weights, p->weights, rows * p->tokens),
        .o = fmax(difference(run->mixed, p->o, count), difference(run->fused, p->o, count)),
    };
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

double party_run_time(struct party_run *run, int (*work)(struct party_run *run)) {
    double seconds[MOST_REPEATS];
    int count = 0;
    for (int i = 0; i < WARM_UPS; i++) {
        if (work(run)) {
            return -1;
        }
    }
    for (double start = now(), before = start;
         count < MOST_REPEATS && (count < LEAST_REPEATS || before - start < ENOUGH_SECONDS);
         count++) {
        if (work(run)) {
            return -1;
        }
        double after = now();
        seconds[count] = after - before;
        before = after;
    }
    qsort(seconds, (size_t)count, sizeof seconds[0], by_size);
    return 1e6 * seconds[count / 2];
}
