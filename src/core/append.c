/* SPDX-License-Identifier: Apache-2.0 */
/*
 * append: rows of K and V into the cache. A part is a run of one sequence's tokens for one head,
 * from a panel's first token to another's last, so that several threads can work on a long prompt;
 * the last phase moves the lengths and counts the holders of the pages that began.
 */
#include "append.h"

#include <string.h>

#include "param_size.h"
#include "run.h"
#include "tensor.h"

void qkv_append_params_init(qkv_append_params *params) {
    *params = (qkv_append_params){.size = sizeof(*params), .rope = {.theta = 10000.0}};
}

/* ---- The plan ---- */

static qkv_status make_state(struct qkv_append_state *s, const qkv_append_params *params,
                             const qkv_cache *cache) {
    qkv_append_params p;
    TRY(qkv_take_struct(&p, sizeof(p), params, sizeof(p), QKV_ARG_PARAMS));
    if (p.flags)
        return qkv_fail(QKV_ARG_FLAGS, QKV_FAULT_FLAG);
    s->magic = QKV_APPEND_MAGIC;
    s->rows = (struct qkv_token_rows){p.batch, p.tokens, p.lens, p.cu};
    s->sequences = p.sequences;
    if ((uintptr_t)p.sequences % sizeof(int32_t))
        return qkv_fail(QKV_ARG_SEQUENCES, QKV_FAULT_MISALIGNED);
    TRY(qkv_check_token_rows(&s->rows));
    TRY(qkv_take_cache(&s->cache, cache));
    if (p.rope.pairs != QKV_ROPE_NONE)
        return qkv_fail(QKV_ARG_ROPE_PAIRS, QKV_FAULT_FUTURE);
    TRY(qkv_append_check(s));
    s->total = qkv_append_total(s);
    return QKV_OK;
}

/* The most tokens that any sequence gets. */
static int64_t longest(const struct qkv_token_rows *rows) {
    int64_t most = 0;
    for (int64_t b = 0; b < rows->batch; b++)
        most = qkv_max(most, qkv_tokens_of(rows, b));
    return most;
}

qkv_status qkv_append_plan(qkv_plan *plan, const qkv_append_params *params, const qkv_cache *cache,
                           const qkv_context *context) {
    struct qkv_append_state s;
    TRY(qkv_check_plan(plan));
    TRY(make_state(&s, params, cache));
    TRY(qkv_check_context(context));
    s.kernels = &qkv_context_get(context)->table;

    const qkv_cache *c = &s.cache.cache;
    const int64_t tokens = longest(&s.rows);
    memset(plan, 0, sizeof(*plan));
    plan->threads = 1;
    if (tokens > 0) {
        /* Runs count from the panel that the first token goes to, which may have others before. */
        s.runs = qkv_round_up(tokens + QKV_PANEL - 1, QKV_APPEND_RUN) / QKV_APPEND_RUN;
        plan->phases = 2;
        if (__builtin_mul_overflow(c->kv_heads * s.runs, s.rows.batch, plan->parts))
            return qkv_fail(QKV_ARG_BATCH, QKV_FAULT_OVERFLOW);
        plan->parts[1] = 1;
        /* A number costs about as much as 20 flops: it comes from memory and goes there. */
        plan->threads = qkv_worth_threads(20.0 * (double)(s.rows.batch * c->kv_heads) *
                                              (double)(tokens * (c->head_dim + c->v_dim)),
                                          plan->parts[0]);
    }
    memcpy(plan->state, &s, sizeof(s));
    return QKV_OK;
}

static const struct qkv_append_state *state_of(const qkv_plan *plan) {
    const struct qkv_append_state *s = (const struct qkv_append_state *)plan->state;
    return s->magic == QKV_APPEND_MAGIC ? s : NULL;
}

/* ---- The tensors ---- */

static struct qkv_footprint integers(const int32_t *data, int64_t count) {
    return qkv_footprint_array(data, count, sizeof(*data));
}

/* K and V, and what the parameters point to, may not lie in what the call writes. */
static qkv_status take_tensors(qkv_tensors *own, const struct qkv_append_state *s,
                               const qkv_tensors *tensors) {
    const qkv_cache *c = &s->cache.cache;
    const struct qkv_token_rows *r = &s->rows;
    enum { INPUTS = 5, OUTPUTS = 3 };
    static const qkv_arg args[INPUTS] = {QKV_ARG_K, QKV_ARG_V, QKV_ARG_SEQUENCES, QKV_ARG_LENS,
                                         QKV_ARG_CU};
    struct qkv_footprint in[INPUTS];
    int64_t shape[4];
    TRY(qkv_take_struct(own, sizeof(*own), tensors, sizeof(*own), QKV_ARG_TENSORS));
    qkv_token_shape(shape, r, c->kv_heads, c->head_dim);
    TRY(qkv_check_tensor(in, &own->k, shape, QKV_ARG_K));
    shape[3] = c->v_dim;
    TRY(qkv_check_tensor(in + 1, &own->v, shape, QKV_ARG_V));
    in[2] = integers(s->sequences, r->batch);
    in[3] = integers(r->lens, r->batch);
    in[4] = integers(r->cu, r->batch + 1);

    const struct qkv_footprint out[OUTPUTS] = {
        qkv_footprint_array(c->memory, (int64_t)(s->cache.page * (size_t)c->pages) / QKV_ALIGNMENT,
                            QKV_ALIGNMENT),
        integers(c->lengths, c->sequences),
        integers(c->holders, c->pages),
    };
    for (int i = 0; i < INPUTS; i++)
        for (int k = 0; k < OUTPUTS; k++)
            if (qkv_overlap(in + i, out + k))
                return qkv_fail(args[i], QKV_FAULT_OVERLAP);
    return QKV_OK;
}

/* ---- The parts ---- */

/* Tokens [from, to) of sequence b of the batch, counted from its first token in the cache; its new
 * ones begin at `length`. */
struct run {
    int64_t b, head, sequence, length, from, to;
};

static struct run run_at(const struct qkv_append_state *s, int64_t index) {
    const int64_t entry = index / s->runs, heads = s->cache.cache.kv_heads;
    struct run run = {.b = entry / heads, .head = entry % heads};
    run.sequence = qkv_append_sequence(s, run.b);
    run.length = s->cache.cache.lengths[run.sequence];
    run.from = run.length / QKV_PANEL * QKV_PANEL + index % s->runs * QKV_APPEND_RUN;
    run.to = qkv_min(run.from + QKV_APPEND_RUN, run.length + qkv_tokens_of(&s->rows, run.b));
    run.from = qkv_max(run.from, run.length);
    return run;
}

/* Some tokens of a panel, the first of which is token t of the sequence and `in_page` of its page.
 */
static void append_panel(const struct qkv_append_state *s, const qkv_tensors *tensors,
                         const struct run *run, char *page, int64_t t, int64_t in_page, int count) {
    const struct qkv_cache_kernels *kernels = s->kernels->cache;
    const struct qkv_stored_layout *k = &s->cache.k, *v = &s->cache.v;
    const qkv_cache *c = &s->cache.cache;
    const int column = (int)(in_page % QKV_PANEL);
    unsigned char *flag = qkv_stored_flag(&s->cache, page, in_page);
    const float *keys = qkv_token_row(&tensors->k, &s->rows, run->b, run->head, t - run->length);
    const float *values = qkv_token_row(&tensors->v, &s->rows, run->b, run->head, t - run->length);

    kernels->append_keys[k->type](qkv_stored_panel(k, page, in_page),
                                  qkv_stored_scales(k, page, in_page), column, keys,
                                  tensors->k.stride[2], count, c->head_dim);
    const int bad = kernels->append_values[v->type](qkv_stored_panel(v, page, in_page),
                                                    qkv_stored_scales(v, page, in_page), column,
                                                    values, tensors->v.stride[2], count, c->v_dim);
    *flag = (unsigned char)(bad | (column > 0 && *flag));
}

static void append_part(const struct qkv_append_state *s, const qkv_tensors *tensors,
                        int64_t index) {
    const struct run run = run_at(s, index);
    const int64_t page_tokens = s->cache.cache.page_tokens;
    int64_t in_page = run.from % page_tokens;
    char *page = NULL;
    for (int64_t t = run.from, n; t < run.to; t += n, in_page += n) {
        if (in_page == page_tokens)
            in_page = 0;
        if (!page || in_page == 0)
            page = qkv_page_head(&s->cache, qkv_page_of(&s->cache, run.sequence, t), run.head);
        n = qkv_min(QKV_PANEL - in_page % QKV_PANEL, run.to - t);
        append_panel(s, tensors, &run, page, t, in_page, (int)n);
    }
}

/* The sequences have their tokens, and hold the pages that begin with one of them. */
static void commit(const struct qkv_append_state *s) {
    const qkv_cache *c = &s->cache.cache;
    for (int64_t b = 0; b < s->rows.batch; b++) {
        const int64_t sequence = qkv_append_sequence(s, b), from = c->lengths[sequence];
        const int64_t to = from + qkv_tokens_of(&s->rows, b);
        for (int64_t t = qkv_round_up(from, c->page_tokens); c->holders && t < to;
             t += c->page_tokens)
            c->holders[qkv_page_of(&s->cache, sequence, t)] = 1;
        c->lengths[sequence] = (int32_t)to;
    }
}

static void do_parts(const struct qkv_append_state *s, const qkv_tensors *tensors, int32_t phase,
                     int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        if (phase == 0)
            append_part(s, tensors, i);
        else
            commit(s);
    }
}

struct job {
    const struct qkv_append_state *state;
    const qkv_tensors *tensors;
};

static void run_job(const void *job, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                    int64_t end) {
    const struct job *j = job;
    (void)workspace;
    do_parts(j->state, j->tensors, phase, begin, end);
}

qkv_status qkv_append_run(const qkv_plan *plan, const qkv_tensors *tensors, int32_t phase,
                          int64_t begin, int64_t end, const qkv_workspace *workspace) {
    qkv_tensors own;
    TRY(qkv_check_plan(plan));
    const struct qkv_append_state *s = state_of(plan);
    if (!s || qkv_append_total(s) != s->total)
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
    TRY(take_tensors(&own, s, tensors));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    do_parts(s, &own, phase, begin, end);
    return QKV_OK;
}

qkv_status qkv_append(const qkv_append_params *params, const qkv_cache *cache,
                      const qkv_tensors *tensors, const qkv_exec *exec) {
    qkv_plan plan;
    qkv_exec own;
    qkv_tensors own_tensors;
    TRY(qkv_take_exec(&own, exec));
    TRY(qkv_append_plan(&plan, params, cache, own.context));
    const struct job job = {state_of(&plan), &own_tensors};
    TRY(take_tensors(&own_tensors, job.state, tensors));
    TRY(qkv_check_exec(&plan, &own));
    return qkv_run_all(&plan, &own, 1, 0, run_job, &job);
}
