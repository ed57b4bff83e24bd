/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qkv as its users call it: plan, tensors, workspace and threads made once, then again and again
 * qkv_execute with a plan of attention, or qkv_project_execute; qkv_append and qkv_execute with a
 * plan of decode; or qkv_attention and qkv_attention_backward by turns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <qkv/cache.h>

#include "native.h"
#include "pool.h"

struct native_qkv {
    qkv_context context;
    qkv_plan plan; /* of attention, project or decode */
    qkv_attention_params attention;
    qkv_tensors tensors;
    qkv_project_params project;
    qkv_project_tensors project_tensors;
    qkv_gradients gradients;
    qkv_cache cache;
    qkv_append_params append;
    qkv_tensors token; /* the last one */
    qkv_exec exec;
    qkv_status (*run)(const struct native_qkv *call);
};

static qkv_status run_plan(const struct native_qkv *p) {
    return qkv_execute(&p->plan, &p->tensors, &p->exec);
}

static qkv_status run_learning(const struct native_qkv *p) {
    const qkv_status status = qkv_attention(&p->attention, &p->tensors, &p->exec);
    if (status != QKV_OK) {
        return status;
    }
    return qkv_attention_backward(&p->attention, &p->tensors, &p->gradients, &p->exec);
}

static qkv_status run_project(const struct native_qkv *p) {
    return qkv_project_execute(&p->plan, &p->project_tensors, &p->exec);
}

static int ok(qkv_status status) {
    if (status != QKV_OK) {
        fprintf(stderr, "qkv: %s\n", qkv_status_string(status));
    }
    return status == QKV_OK;
}

static int room_named(const char *name) {
    for (int isa = QKV_ISA_NONE + 1; name && isa < QKV_ISA_COUNT; isa++) {
        if (strcmp(qkv_isa_name(isa), name) == 0) {
            return isa;
        }
    }
    return QKV_ISA_NONE;
}

static int open_context(struct native_qkv *p, const char *room) {
    qkv_context_config config;
    qkv_context_config_init(&config);
    config.isa_max = room_named(room);
    return ok(qkv_context_init(&p->context, &config));
}

static int make_exec(struct native_qkv *p, size_t workspace, int threads) {
    qkv_exec_init(&p->exec);
    p->exec.context = &p->context;
    p->exec.threads = threads;
    p->exec.workspace_size = (workspace / 64 + 1) * 64;
    p->exec.workspace = aligned_alloc(QKV_ALIGNMENT, p->exec.workspace_size);
    if (threads > 1) {
        p->exec.parallel_for = pool_run;
        p->exec.pool = pool_open(threads);
    }
    return p->exec.workspace && (threads == 1 || p->exec.pool);
}

static void describe_attention(struct native_qkv *p, const struct native_attention *call) {
    qkv_attention_params *params = &p->attention;
    qkv_attention_params_init(params);
    params->flags = call->causal ? QKV_FLAG_CAUSAL : 0;
    params->batch = 1;
    params->q_heads = call->q_heads;
    params->kv_heads = call->kv_heads;
    params->q_len = call->q_len;
    params->kv_len = call->kv_len;
    params->head_dim = call->dim;
    params->exp = (int32_t)call->exp;
    qkv_tensors_init(&p->tensors);
    p->tensors.q = qkv_tensor_bhsd(call->q, call->q_heads, call->q_len, call->dim);
    p->tensors.k = qkv_tensor_bhsd(call->k, call->kv_heads, call->kv_len, call->dim);
    p->tensors.v = qkv_tensor_bhsd(call->v, call->kv_heads, call->kv_len, call->dim);
    p->tensors.out = qkv_tensor_bhsd(call->out, call->q_heads, call->q_len, call->dim);
}

struct native_qkv *native_qkv_attention(const struct native_attention *call, const char *room) {
    struct native_qkv *p = calloc(1, sizeof(*p));
    if (!p || !open_context(p, room)) {
        return NULL;
    }
    p->run = run_plan;
    describe_attention(p, call);
    if (!ok(qkv_attention_plan(&p->plan, &p->attention, &p->context)) ||
        !make_exec(p, qkv_plan_workspace(&p->plan, (int)call->threads), (int)call->threads)) {
        return NULL;
    }
    return p;
}

/* Both calls have the same workspace, one after the other. */
struct native_qkv *native_qkv_learning(const struct native_learning *call, const char *room) {
    const struct native_attention *a = &call->forward;
    const int threads = (int)a->threads;
    struct native_qkv *p = calloc(1, sizeof(*p));
    qkv_plan forward, backward;
    if (!p || !open_context(p, room)) {
        return NULL;
    }
    p->run = run_learning;
    describe_attention(p, a);
    p->tensors.lse = qkv_tensor_bhsd(call->lse, a->q_heads, a->q_len, 1);
    qkv_gradients *g = &p->gradients;
    qkv_gradients_init(g);
    g->out = qkv_tensor_bhsd(call->d_out, a->q_heads, a->q_len, a->dim);
    g->q = qkv_tensor_bhsd(call->d_q, a->q_heads, a->q_len, a->dim);
    g->k = qkv_tensor_bhsd(call->d_k, a->kv_heads, a->kv_len, a->dim);
    g->v = qkv_tensor_bhsd(call->d_v, a->kv_heads, a->kv_len, a->dim);
    if (!ok(qkv_attention_plan(&forward, &p->attention, &p->context)) ||
        !ok(qkv_attention_backward_plan(&backward, &p->attention, &p->context))) {
        return NULL;
    }
    const size_t first = qkv_plan_workspace(&forward, threads);
    const size_t second = qkv_plan_workspace(&backward, threads);
    return make_exec(p, first > second ? first : second, threads) ? p : NULL;
}

/* Memory in huge pages where there are any, as everyone's inputs and the peers' packed weights. */
static void *huge_pages(size_t bytes) {
    const size_t page = (size_t)2 << 20, whole = (bytes + page - 1) / page * page;
    void *memory = aligned_alloc(page, whole);
    if (memory) {
        madvise(memory, whole, MADV_HUGEPAGE);
    }
    return memory;
}

/* Packs weight matrix `which`, [d_model, width] of the call, into memory of its own. */
static int pack(struct native_qkv *p, const struct native_project *call, int which,
                qkv_tensor *to) {
    qkv_tensor w = {.data = (void *)call->w[which], .dtype = QKV_F32};
    w.stride[2] = call->width / call->matrices;
    w.stride[3] = 1;
    size_t bytes = qkv_project_pack_size(&p->project, which, &p->context);
    to->data = huge_pages(bytes);
    to->dtype = QKV_F32;
    return to->data && ok(qkv_project_pack(&p->project, which, &w, to->data, bytes, &p->context));
}

/* The columns of one matrix within the rows of out. */
static qkv_tensor columns(const struct native_project *call, int which) {
    qkv_tensor t = {.data = call->out + which * (call->width / call->matrices), .dtype = QKV_F32};
    t.stride[0] = call->tokens * call->width;
    t.stride[1] = call->head_dim;
    t.stride[2] = call->width;
    t.stride[3] = 1;
    return t;
}

struct native_qkv *native_qkv_project(const struct native_project *call, const char *room) {
    struct native_qkv *p = calloc(1, sizeof(*p));
    if (!p || !open_context(p, room)) {
        return NULL;
    }
    p->run = run_project;
    qkv_project_params *params = &p->project;
    qkv_project_params_init(params);
    params->batch = 1;
    params->tokens = call->tokens;
    params->d_model = call->d_model;
    params->head_dim = call->head_dim;
    params->q_heads = call->width / call->matrices / call->head_dim;
    params->kv_heads = call->matrices == 3 ? params->q_heads : 0;
    params->layout = QKV_W_IN_OUT;

    qkv_project_tensors *t = &p->project_tensors;
    qkv_project_tensors_init(t);
    t->x = qkv_tensor_bhsd(call->x, 1, call->tokens, call->d_model);
    qkv_tensor *weights[] = {&t->wq, &t->wk, &t->wv};
    qkv_tensor *outputs[] = {&t->q, &t->k, &t->v};
    for (int i = 0; i < call->matrices; i++) {
        if (!pack(p, call, i, weights[i])) {
            return NULL;
        }
        *outputs[i] = columns(call, i);
    }
    params->layout = QKV_W_PACKED;
    if (!ok(qkv_project_plan(&p->plan, params, &p->context)) ||
        !make_exec(p, qkv_plan_workspace(&p->plan, (int)call->threads), (int)call->threads)) {
        return NULL;
    }
    return p;
}

/* The token of the call before is forgotten first, so that the cache does not grow. */
static qkv_status run_decode(const struct native_qkv *p) {
    qkv_exec alone;
    qkv_exec_init(&alone);
    alone.context = &p->context;
    qkv_status status = qkv_cache_truncate(&p->cache, 0, p->attention.kv_len - 1);
    if (status == QKV_OK) {
        status = qkv_append(&p->append, &p->cache, &p->token, &alone);
    }
    return status == QKV_OK ? run_plan(p) : status;
}

/* Rows [first, first + count) of keys or values. */
static qkv_tensor rows(const float *data, const struct native_decode *call, int64_t first) {
    return qkv_tensor_bhsd(data + first * call->dim, call->kv_heads, call->kv_len, call->dim);
}

static void describe_cache(qkv_cache *cache, const struct native_decode *call) {
    qkv_cache_init(cache);
    cache->kv_heads = call->kv_heads;
    cache->head_dim = call->dim;
    cache->page_tokens = (call->kv_len + 15) / 16 * 16;
    cache->pages = cache->sequences = cache->sequence_pages = 1;
    cache->k_dtype = cache->v_dtype = (int32_t)call->dtype;
    cache->memory = call->memory;
}

size_t native_qkv_cache_size(const struct native_decode *call) {
    qkv_cache cache;
    describe_cache(&cache, call);
    return qkv_cache_memory_size(&cache);
}

static int fill_cache(struct native_qkv *p, const struct native_decode *call) {
    qkv_cache *cache = &p->cache;
    describe_cache(cache, call);
    cache->lengths = calloc(1, sizeof(*cache->lengths));
    qkv_append_params all;
    qkv_append_params_init(&all);
    all.batch = 1;
    all.tokens = call->kv_len;
    p->append = all;
    p->append.tokens = 1;
    qkv_tensors_init(&p->token);
    p->token.k = rows(call->k, call, call->kv_len - 1);
    p->token.v = rows(call->v, call, call->kv_len - 1);
    qkv_tensors from;
    qkv_tensors_init(&from);
    from.k = rows(call->k, call, 0);
    from.v = rows(call->v, call, 0);
    qkv_exec exec;
    qkv_exec_init(&exec);
    exec.context = &p->context;
    return cache->lengths && ok(qkv_append(&all, cache, &from, &exec));
}

static struct native_qkv *make_decode(const struct native_decode *call, const char *room) {
    const struct native_attention shape = {.q_heads = call->q_heads,
                                           .kv_heads = call->kv_heads,
                                           .q_len = 1,
                                           .kv_len = call->kv_len,
                                           .dim = call->dim,
                                           .q = call->q,
                                           .out = call->out};
    struct native_qkv *p = calloc(1, sizeof(*p));
    if (!p || !open_context(p, room) || !fill_cache(p, call)) {
        return NULL;
    }
    describe_attention(p, &shape);
    if (call->narrow) {
        p->attention.arithmetic = QKV_ARITHMETIC_NARROW;
    }
    if (!ok(qkv_decode_plan(&p->plan, &p->attention, &p->cache, NULL, &p->context)) ||
        !make_exec(p, qkv_plan_workspace(&p->plan, (int)call->threads), (int)call->threads)) {
        return NULL;
    }
    return p;
}

struct native_qkv *native_qkv_decode(const struct native_decode *call, const char *room) {
    struct native_qkv *p = make_decode(call, room);
    if (p) {
        p->run = run_decode;
    }
    return p;
}

struct native_qkv *native_qkv_attend(const struct native_decode *call, const char *room) {
    struct native_qkv *p = make_decode(call, room);
    if (p) {
        p->run = run_plan;
    }
    return p;
}

int native_qkv_run(struct native_qkv *qkv) {
    return qkv->run(qkv);
}

const char *native_qkv_narrow(int64_t dtype) {
    struct native_qkv p;
    return open_context(&p, NULL) ? qkv_narrow_variant(&p.context, (int32_t)dtype) : NULL;
}

const char *native_qkv_room(const char *room) {
    struct native_qkv p;
    return open_context(&p, room) ? qkv_isa_name(qkv_context_isa(&p.context)) : NULL;
}
