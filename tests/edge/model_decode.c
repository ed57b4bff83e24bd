/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over a model's tokens in double precision, beside qkv_decode. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cache_model.h"

enum { QUERIES = 5, GROUP = 3, DIM_MOST = 20, ROWS = QUERIES * GROUP * 2 };

struct question {
    const struct model *m;
    int64_t sequence, queries, group;
    float q[ROWS][DIM_MOST], out[ROWS][DIM_MOST];
};

/* Row h, i of a tensor [heads, queries, dim] without gaps. */
static int64_t row_of(const struct question *x, int64_t h, int64_t i) {
    return h * x->queries + i;
}

/* One row: a score is a chain of products, a multiplication by the int8 scale and one by the
 * softmax's; a weight's relative error is that of the exponential and twice the largest error of a
 * score, for the sum moves as well; then a chain over the keys, pieces and the division. */
static struct verdict check_row(const struct question *x, int64_t h, int64_t i) {
    const qkv_cache *c = &x->m->c.cache;
    const token *held = x->m->held[x->sequence];
    const int64_t keys = x->m->length[x->sequence] - x->queries + i + 1, kv = h / x->group;
    const double eps = (double)FLT_EPSILON, scale = 1 / sqrt((double)c->head_dim);
    double s[MODEL_TOKENS], row[DIM_MOST], max = -INFINITY, sum = 0, error = 0;
    double out[DIM_MOST] = {0}, size[DIM_MOST] = {0};
    for (int64_t t = 0; t < keys; t++) {
        double dot = 0, all = 0;
        token_stored(row, held[t], ROW_K, kv, c->head_dim, c->k_dtype);
        for (int64_t d = 0; d < c->head_dim; d++) {
            dot += (double)x->q[row_of(x, h, i)][d] * row[d];
            all += fabs((double)x->q[row_of(x, h, i)][d] * row[d]);
        }
        s[t] = scale * dot;
        max = fmax(max, s[t]);
        error = fmax(error, scale * all * eps * (double)(c->head_dim + 8));
    }
    for (int64_t t = 0; t < keys; t++)
        sum += exp(s[t] - max);
    for (int64_t t = 0; t < keys; t++) {
        const double w = exp(s[t] - max) / sum;
        token_stored(row, held[t], ROW_V, kv, c->v_dim, c->v_dtype);
        for (int64_t d = 0; d < c->v_dim; d++) {
            out[d] += w * row[d];
            size[d] += w * fabs(row[d]);
        }
    }
    for (int64_t d = 0; d < c->v_dim; d++) {
        const double bound = size[d] * (2 * error + eps * (double)(keys + 40)) + 1e-37;
        const double got = (double)x->out[row_of(x, h, i)][d];
        if (!(fabs(got - out[d]) <= bound))
            return verdict_fail("decode: query %lld of head %lld, number %lld: %.9g, not %.9g "
                                "+- %.3g",
                                (long long)i, (long long)h, (long long)d, got, out[d], bound);
    }
    return verdict_ok();
}

static qkv_status ask(struct question *x, const qkv_context *context) {
    const qkv_cache *c = &x->m->c.cache;
    const int32_t sequence = (int32_t)x->sequence;
    qkv_attention_params params;
    qkv_tensors tensors;
    qkv_plan plan;
    qkv_exec exec;
    float q[ROWS * DIM_MOST], out[ROWS * DIM_MOST];
    qkv_attention_params_init(&params);
    params.batch = 1;
    params.q_heads = c->kv_heads * x->group;
    params.kv_heads = c->kv_heads;
    params.q_len = x->queries;
    params.kv_len = x->m->capacity;
    params.head_dim = c->head_dim;
    params.v_dim = c->v_dim;
    params.flags = QKV_FLAG_CAUSAL;
    params.align = QKV_ALIGN_BOTTOM_RIGHT;
    qkv_tensors_init(&tensors);
    tensors.q = qkv_tensor_bhsd(q, params.q_heads, x->queries, c->head_dim);
    tensors.out = qkv_tensor_bhsd(out, params.q_heads, x->queries, c->v_dim);
    const int64_t rows = params.q_heads * x->queries;
    for (int64_t r = 0; r < rows; r++)
        memcpy(q + r * c->head_dim, x->q[r], (size_t)c->head_dim * sizeof *q);

    qkv_status status = qkv_decode_plan(&plan, &params, c, &sequence, context);
    if (status != QKV_OK)
        return status;
    struct guard workspace = guard_alloc(qkv_plan_workspace(&plan, 1), QKV_ALIGNMENT, GUARD_END, 0);
    qkv_exec_init(&exec);
    exec.context = context;
    exec.workspace = workspace.data;
    exec.workspace_size = workspace.size;
    status = qkv_decode(&params, &tensors, c, &sequence, &exec);
    guard_free(&workspace);
    for (int64_t r = 0; r < rows; r++)
        memcpy(x->out[r], out + r * c->v_dim, (size_t)c->v_dim * sizeof *out);
    return status;
}

static bool any_odd(const struct model *m, int64_t sequence) {
    token all = 0;
    for (int64_t t = 0; t < m->length[sequence]; t++)
        all |= m->held[sequence][t];
    return all & TOKEN_ODD;
}

struct verdict model_check_decode(const struct model *m, const qkv_context *context,
                                  int64_t sequence, struct rng *rng) {
    static struct question question;
    struct question *x = &question;
    struct verdict verdict = verdict_ok();
    const uint64_t seed = (uint64_t)rng_below(rng, 256);
    *x = (struct question){.m = m, .sequence = sequence, .group = 1 + rng_below(rng, GROUP)};
    x->queries = 1 + rng_below(rng, QUERIES);
    if (m->length[sequence] < x->queries || any_odd(m, sequence))
        return verdict;
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t d = 0; d < DIM_MOST; d++)
            x->q[r][d] = rng_normal(rng_hash(seed, (uint64_t)(r * DIM_MOST + d)));
    const qkv_status status = ask(x, context);
    if (status != QKV_OK)
        return verdict_fail("decode: %s", qkv_status_string(status));
    for (int64_t h = 0; h < m->c.cache.kv_heads * x->group && verdict.ok; h++)
        for (int64_t i = 0; i < x->queries && verdict.ok; i++)
            verdict = check_row(x, h, i);
    return verdict;
}
