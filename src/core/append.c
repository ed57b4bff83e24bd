/* SPDX-License-Identifier: Apache-2.0 */
/*
 * append: rows of K and V into the cache. A part is a run of one sequence's tokens for one head,
 * from a panel's first token to another's last, so that several threads can work on a long prompt;
 * the last phase moves the lengths and counts the holders of the pages that began.
 */
#include "append.h"

#include <string.h>

#include "param_size.h"
#include "plan.h"
#include "run.h"

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
    TRY(qkv_take_rope(&s->rope, &p.rope, s->cache.cache.head_dim));
    TRY(qkv_append_check(s));
    for (int64_t b = 0; b < p.batch; b++)
        TRY(qkv_check_positions(&s->rope, &s->rows, b, qkv_append_length(s, b), 0,
                                qkv_tokens_of(&s->rows, b)));
    s->signature = qkv_append_signature(s);
    return QKV_OK;
}

/* Runs count from the panel that the first token goes to, which may have others before. */
static qkv_status lay_out(struct qkv_append_state *s, qkv_plan *plan) {
    const qkv_cache *c = &s->cache.cache;
    const int64_t tokens = qkv_longest(&s->rows), row = c->head_dim * (int64_t)sizeof(float);
    memset(plan, 0, sizeof(*plan));
    plan->threads = 1;
    if (tokens == 0)
        return QKV_OK;
    s->run = qkv_min(tokens, QKV_RUN);
    s->runs = qkv_round_up(tokens + QKV_PANEL - 1, QKV_RUN) / QKV_RUN;
    plan->phases = 2;
    if (__builtin_mul_overflow(c->kv_heads * s->runs, s->rows.batch, plan->parts))
        return qkv_fail(QKV_ARG_BATCH, QKV_FAULT_OVERFLOW);
    plan->parts[1] = 1;
    if (s->rope.rope.dims > 0) {
        qkv_reserve(&plan->workspace_worker, qkv_angles_size(&s->rope, s->run));
        s->turned = qkv_reserve(&plan->workspace_worker, qkv_min(tokens, QKV_PANEL) * row);
        plan->workspace_worker = qkv_set_apart(plan->workspace_worker);
    }
    /* A number costs about as much as 20 flops: it comes from memory and goes there. */
    plan->threads = qkv_worth_threads(20.0 * (double)(s->rows.batch * c->kv_heads) *
                                          (double)(tokens * (c->head_dim + c->v_dim)),
                                      plan->parts[0]);
    return QKV_OK;
}

qkv_status qkv_append_plan(qkv_plan *plan, const qkv_append_params *params, const qkv_cache *cache,
                           const qkv_context *context) {
    struct qkv_append_state s = {0};
    TRY(qkv_check_plan(plan));
    TRY(make_state(&s, params, cache));
    TRY(qkv_check_context(context));
    s.kernels = &qkv_context_get(context)->table;
    TRY(lay_out(&s, plan));
    memcpy(plan->state, &s, sizeof(s));
    return QKV_OK;
}

static const struct qkv_append_state *state_of(const qkv_plan *plan) {
    const struct qkv_append_state *s = (const struct qkv_append_state *)plan->state;
    return s->magic == QKV_APPEND_MAGIC ? s : NULL;
}

/* ---- The tensors ---- */

/* Does what the call writes share a byte with what it reads? */
static qkv_status check_apart(const struct qkv_append_state *s, const struct qkv_footprint *out,
                              const struct qkv_footprint *k, const struct qkv_footprint *v) {
    if (qkv_overlap(out, k))
        return qkv_fail(QKV_ARG_K, QKV_FAULT_OVERLAP);
    if (qkv_overlap(out, v))
        return qkv_fail(QKV_ARG_V, QKV_FAULT_OVERLAP);
    if (qkv_overlaps_array(out, s->sequences, s->rows.batch) || qkv_overlaps_rows(out, &s->rows) ||
        qkv_overlaps_rope(out, &s->rope, &s->rows))
        return qkv_fail(QKV_ARG_PARAMS, QKV_FAULT_OVERLAP);
    return QKV_OK;
}

static qkv_status take_tensors(qkv_tensors *own, const struct qkv_append_state *s,
                               const qkv_tensors *tensors) {
    const qkv_cache *c = &s->cache.cache;
    const int64_t lines = (int64_t)(s->cache.page * (size_t)c->pages) / QKV_ALIGNMENT;
    struct qkv_footprint k, v;
    int64_t shape[4];
    TRY(qkv_take_struct(own, sizeof(*own), tensors, sizeof(*own), QKV_ARG_TENSORS));
    qkv_token_shape(shape, &s->rows, c->kv_heads, c->head_dim);
    TRY(qkv_check_tensor(&k, &own->k, shape, QKV_ARG_K));
    shape[3] = c->v_dim;
    TRY(qkv_check_tensor(&v, &own->v, shape, QKV_ARG_V));

    const struct qkv_footprint out[] = {
        qkv_footprint_array(c->memory, lines, QKV_ALIGNMENT),
        qkv_footprint_array(c->lengths, c->sequences, sizeof(*c->lengths)),
        qkv_footprint_array(c->holders, c->pages, sizeof(*c->holders)),
    };
    for (size_t i = 0; i < sizeof(out) / sizeof(out[0]); i++)
        TRY(check_apart(s, out + i, &k, &v));
    return QKV_OK;
}

/* ---- The parts ---- */

/* What a worker has: angles, and room for a panel's keys. */
struct worker {
    const struct qkv_append_state *state;
    const qkv_tensors *tensors;
    struct qkv_angles angles;
    float *turned;
};

/* Tokens [from, to) of sequence b of the batch, counted from its first token in the cache; its new
 * ones begin at `length`. */
struct run {
    int64_t b, head, sequence, length, from, to;
};

/* Parts that follow each other are the heads of one run: angles are computed once for them. */
static struct run run_at(const struct qkv_append_state *s, int64_t index) {
    const int64_t heads = s->cache.cache.kv_heads, entry = index / heads;
    struct run run = {.b = entry / s->runs, .head = index % heads};
    run.sequence = qkv_append_sequence(s, run.b);
    run.length = qkv_append_length(s, run.b);
    run.from = run.length / QKV_PANEL * QKV_PANEL + entry % s->runs * QKV_RUN;
    run.to = qkv_min(run.from + QKV_RUN, run.length + qkv_tokens_of(&s->rows, run.b));
    run.from = qkv_max(run.from, run.length);
    return run;
}

/* Rows that are `ld` apart. */
struct strided {
    const float *row;
    int64_t ld;
};

static struct strided keys_of(const struct worker *w, const struct run *run, int64_t t, int count) {
    const struct qkv_append_state *s = w->state;
    const qkv_tensor *k = &w->tensors->k;
    const int64_t first = t - run->length, dim = s->cache.cache.head_dim;
    const struct strided keys = {qkv_token_row(k, &s->rows, run->b, run->head, first),
                                 k->stride[2]};
    if (s->rope.rope.dims == 0)
        return keys;
    for (int i = 0; i < count; i++)
        qkv_angles_turn(&w->angles, s->kernels->rotate->turn, w->turned + i * dim,
                        keys.row + i * keys.ld, first + i, dim);
    return (struct strided){w->turned, dim};
}

/* Some tokens of a panel, the first of which is token t of the sequence and `at` of its page. */
static void append_panel(const struct worker *w, const struct run *run, char *page, int64_t t,
                         int64_t at, int count) {
    const struct qkv_append_state *s = w->state;
    const struct qkv_cache_kernels *kernels = s->kernels->cache;
    const struct qkv_stored_layout *k = &s->cache.k, *v = &s->cache.v;
    const qkv_tensor *values = &w->tensors->v;
    const struct strided keys = keys_of(w, run, t, count);
    const int column = (int)(at % QKV_PANEL);
    unsigned char *flag = qkv_stored_flag(&s->cache, page, at);

    kernels->append_keys[k->type](qkv_stored_panel(k, page, at), qkv_stored_scales(k, page, at),
                                  column, keys.row, keys.ld, count, s->cache.cache.head_dim);
    const int bad = kernels->append_values[v->type](
        qkv_stored_panel(v, page, at), qkv_stored_scales(v, page, at), column,
        qkv_token_row(values, &s->rows, run->b, run->head, t - run->length), values->stride[2],
        count, s->cache.cache.v_dim);
    *flag = (unsigned char)(bad | (column > 0 && *flag));
}

static void append_run(struct worker *w, const struct run *run) {
    const struct qkv_append_state *s = w->state;
    const int64_t page_tokens = s->cache.cache.page_tokens;
    int64_t at = run->from % page_tokens;
    char *page = NULL;
    qkv_angles_move(&w->angles, run->b, run->length, run->from - run->length,
                    run->to - run->length);
    for (int64_t t = run->from, n; t < run->to; t += n, at += n) {
        if (at == page_tokens)
            at = 0;
        if (!page || at == 0)
            page = qkv_page_head(&s->cache, qkv_page_of(&s->cache, run->sequence, t), run->head);
        n = qkv_min(QKV_PANEL - at % QKV_PANEL, run->to - t);
        append_panel(w, run, page, t, at, (int)n);
    }
}

static void append_parts(const struct qkv_append_state *s, const qkv_tensors *tensors, void *memory,
                         int64_t begin, int64_t end) {
    struct worker w = {.state = s, .tensors = tensors, .turned = NULL};
    if (s->rope.rope.dims > 0)
        w.turned = (float *)((char *)memory + s->turned);
    qkv_angles_begin(&w.angles, &s->rope, &s->rows, memory, s->run);
    for (int64_t i = begin; i < end; i++) {
        const struct run run = run_at(s, i);
        append_run(&w, &run);
    }
}

/* The sequences have their tokens, and hold the pages that begin with one of them. */
static void commit(const struct qkv_append_state *s) {
    const qkv_cache *c = &s->cache.cache;
    for (int64_t b = 0; b < s->rows.batch; b++) {
        const int64_t sequence = qkv_append_sequence(s, b), from = qkv_append_length(s, b);
        const int64_t to = from + qkv_tokens_of(&s->rows, b);
        for (int64_t t = qkv_round_up(from, c->page_tokens); c->holders && t < to;
             t += c->page_tokens)
            c->holders[qkv_page_of(&s->cache, sequence, t)] = 1;
        c->lengths[sequence] = (int32_t)to;
    }
}

struct job {
    const struct qkv_append_state *state;
    const qkv_tensors *tensors;
};

static void run_job(const void *job, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                    int64_t end) {
    const struct job *j = job;
    if (phase == 0)
        append_parts(j->state, j->tensors, workspace->worker, begin, end);
    else if (begin < end)
        commit(j->state);
}

/* The pages and positions of these parts' tokens by now; parts follow each other by heads. */
static qkv_status check_parts(const struct qkv_append_state *s, int64_t begin, int64_t end) {
    const int64_t heads = s->cache.cache.kv_heads;
    for (int64_t i = begin; i < end; i = (i / heads + 1) * heads) {
        const struct run run = run_at(s, i);
        if (run.from >= run.to)
            continue;
        TRY(qkv_append_check_pages(s, run.b, run.from, run.to));
        TRY(qkv_check_positions(&s->rope, &s->rows, run.b, run.length, run.from - run.length,
                                run.to - run.length));
    }
    return QKV_OK;
}

qkv_status qkv_append_run(const qkv_plan *plan, const qkv_tensors *tensors, int32_t phase,
                          int64_t begin, int64_t end, const qkv_workspace *workspace) {
    qkv_tensors own;
    TRY(qkv_check_plan(plan));
    const struct job job = {state_of(plan), &own};
    if (!job.state)
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
    TRY(qkv_append_check_same(job.state));
    TRY(take_tensors(&own, job.state, tensors));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    /* The last phase is one part, and runs alone. */
    TRY(phase == 0 ? check_parts(job.state, begin, end) : qkv_append_check(job.state));
    run_job(&job, workspace, phase, begin, end);
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
