/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of decode and its public functions: the cache's shape against the parameters', and what
 * must hold of lengths and pages whenever the plan runs. */
#include "decode.h"
#include "operands.h"
#include "run.h"
#include "status.h"

/* Of one piece: its rows' accumulators, which are those of one row block at most. The same whether
 * the pieces are parts or not, so that a longer q_len never needs less. */
static void lay_out_pieces(struct qkv_plan_state *s) {
    const struct qkv_problem *p = &s->problem;
    const int64_t f = sizeof(float), rows = p->group * p->q_len;
    const int64_t pieces = (p->kv_len + QKV_PIECE - 1) / QKV_PIECE;
    const int64_t slots = p->batch * p->kv_heads * pieces;
    struct qkv_decode_layout *d = &s->decode;
    d->pieces = s->row_blocks == 1 ? qkv_max(pieces, 1) : 1;
    d->state_rows = qkv_min(qkv_round_up(rows, QKV_PANEL), QKV_ROWS);
    d->slot = qkv_min(qkv_min(rows, QKV_ROWS) * s->v_pad, QKV_ROWS * QKV_WIDE);
    if (pieces < 2)
        return;
    d->state = qkv_reserve(&s->shared.size, slots * 2 * d->state_rows * f);
    d->partial = qkv_reserve(&s->shared.size, slots * d->slot * f);
}

static void lay_out(struct qkv_plan_state *s, qkv_plan *plan) {
    const struct qkv_problem *p = &s->problem;
    const int64_t heads = p->batch * p->kv_heads;
    lay_out_pieces(s);
    qkv_lay_out_worker(s);
    const int64_t pieces = s->decode.pieces;
    if (s->row_blocks > 0)
        plan->parts[plan->phases++] = heads * s->row_blocks * pieces;
    if (pieces > 1 && s->row_blocks > 0)
        plan->parts[plan->phases++] = heads;
    plan->threads = qkv_worth_threads(qkv_forward_flops(p), heads * s->row_blocks * pieces);
    s->grouped = plan->phases;
}

static qkv_status check_shape(const struct qkv_problem *p, const qkv_cache *c) {
    if (p->cu_kv)
        return qkv_fail(QKV_ARG_CU_KV, QKV_FAULT_CONFLICT);
    if (p->kv_heads != c->kv_heads)
        return qkv_fail(QKV_ARG_KV_HEADS, QKV_FAULT_MISMATCH);
    if (p->head_dim != c->head_dim)
        return qkv_fail(QKV_ARG_HEAD_DIM, QKV_FAULT_MISMATCH);
    return p->v_dim != c->v_dim ? qkv_fail(QKV_ARG_V_DIM, QKV_FAULT_MISMATCH) : QKV_OK;
}

static qkv_status check_sequences(const struct qkv_problem *p, const qkv_cache *c) {
    if (!p->stored)
        return p->batch > c->sequences ? qkv_fail(QKV_ARG_BATCH, QKV_FAULT_RANGE) : QKV_OK;
    if ((uintptr_t)p->stored % sizeof(int32_t))
        return qkv_fail(QKV_ARG_SEQUENCES, QKV_FAULT_MISALIGNED);
    for (int64_t b = 0; b < p->batch; b++)
        if (p->stored[b] < 0 || p->stored[b] >= c->sequences)
            return qkv_fail(QKV_ARG_SEQUENCES, QKV_FAULT_RANGE);
    return QKV_OK;
}

/* A type that is narrower than float32 must have kernels, and there must be one. */
static qkv_status choose_arithmetic(struct qkv_plan_state *s) {
    const struct qkv_cache_state *c = &s->decode.cache;
    const int k = c->k.type, v = c->v.type;
    if (!s->problem.narrow)
        return QKV_OK;
    s->decode.narrow_k = s->table->narrow[k];
    s->decode.narrow_v = s->table->narrow[v];
    const int lacks = (k != QKV_STORED_F32 && !s->decode.narrow_k) ||
                      (v != QKV_STORED_F32 && !s->decode.narrow_v);
    if (lacks || (k == QKV_STORED_F32 && v == QKV_STORED_F32))
        return qkv_fail(QKV_ARG_ARITHMETIC, QKV_FAULT_UNAVAILABLE);
    return QKV_OK;
}

/* The pages that hold what the sequence's queries see. */
static qkv_status check_pages(const struct qkv_plan_state *s, const struct qkv_sequence *sequence) {
    const struct qkv_cache_state *c = &s->decode.cache;
    const struct qkv_span seen = qkv_visible_span(&s->problem, sequence);
    const int64_t page = c->cache.page_tokens;
    for (int64_t t = seen.lo / page * page; t < seen.hi; t += page)
        if (!qkv_page_exists(c, qkv_page_of(c, sequence->stored, t)))
            return qkv_fail(QKV_ARG_TABLE, QKV_FAULT_RANGE);
    return QKV_OK;
}

/* Lengths and pages as they are now. */
static qkv_status check_contents(const struct qkv_plan_state *s) {
    const struct qkv_problem *p = &s->problem;
    const qkv_cache *c = &s->decode.cache.cache;
    const int64_t most = qkv_min(p->kv_len, c->sequence_pages * c->page_tokens);
    for (int64_t b = 0; b < p->batch; b++) {
        const struct qkv_sequence sequence = qkv_sequence_at(p, b);
        const int64_t length = c->lengths[sequence.stored];
        if (length < 0 || (p->kv_lens ? sequence.kv_len : length) > most)
            return qkv_fail(QKV_ARG_LENGTHS, QKV_FAULT_LENGTH);
        if (sequence.kv_len > length)
            return qkv_fail(QKV_ARG_KV_LENS, QKV_FAULT_LENGTH);
        if (c->table)
            TRY(check_pages(s, &sequence));
    }
    return QKV_OK;
}

qkv_status qkv_decode_plan(qkv_plan *plan, const qkv_attention_params *params,
                           const qkv_cache *cache, const int32_t *sequences,
                           const qkv_context *context) {
    struct qkv_cache_state own;
    qkv_plan made;
    TRY(qkv_check_plan(plan));
    TRY(qkv_take_cache(&own, cache));
    TRY(qkv_make_plan(&made, QKV_STAGE_DECODE, params, context, lay_out));
    struct qkv_plan_state *s = (struct qkv_plan_state *)made.state;
    TRY(check_shape(&s->problem, &own.cache));
    s->decode.cache = own;
    s->problem.stored = sequences;
    s->problem.stored_lens = own.cache.lengths;
    TRY(check_sequences(&s->problem, &own.cache));
    TRY(choose_arithmetic(s));
    *plan = made;
    return QKV_OK;
}

static qkv_status check_apart(const struct qkv_operands *own, const struct qkv_plan_state *s) {
    const struct qkv_cache_state *c = &s->decode.cache;
    const size_t pages = (size_t)c->cache.pages, sequences = (size_t)c->cache.sequences;
    const size_t entry = sizeof(int32_t);
    const struct {
        const void *data;
        size_t bytes;
    } arrays[] = {
        {c->cache.memory, pages * c->page},
        {c->cache.table, sequences * (size_t)c->cache.sequence_pages * entry},
        {c->cache.lengths, sequences * entry},
        {c->cache.holders, pages * entry},
        {s->problem.stored, (size_t)s->problem.batch * entry},
    };
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
        if (arrays[i].data)
            TRY(qkv_outputs_apart(own, &s->problem, s->stage, arrays[i].data, arrays[i].bytes));
    return QKV_OK;
}

/* Everything that a run needs but its range and its memory. */
static qkv_status take_call(struct qkv_operands *own, const struct qkv_plan_state *s,
                            const qkv_tensors *tensors) {
    TRY(check_sequences(&s->problem, &s->decode.cache.cache));
    TRY(check_contents(s));
    TRY(qkv_take_operands(own, &s->problem, s->stage, tensors, NULL));
    return check_apart(own, s);
}

struct job {
    const struct qkv_plan_state *state;
    const qkv_tensors *tensors;
};

static void run_job(const void *job, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                    int64_t end) {
    const struct job *j = job;
    qkv_decode_parts(j->state, j->tensors, workspace, phase, begin, end);
}

qkv_status qkv_decode_run(const qkv_plan *plan, const qkv_tensors *tensors, int32_t phase,
                          int64_t begin, int64_t end, const qkv_workspace *workspace) {
    struct qkv_operands own;
    TRY(qkv_check_plan(plan));
    const struct qkv_plan_state *s = qkv_plan_get(plan);
    if (!s || s->stage != QKV_STAGE_DECODE)
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
    TRY(take_call(&own, s, tensors));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    qkv_decode_parts(s, &own.tensors, workspace, phase, begin, end);
    return QKV_OK;
}

qkv_status qkv_decode_with(const qkv_plan *plan, const qkv_tensors *tensors, const qkv_exec *exec) {
    struct qkv_operands operands;
    const struct job job = {qkv_plan_get(plan), &operands.tensors};
    const struct qkv_problem *p = &job.state->problem;
    TRY(take_call(&operands, job.state, tensors));
    TRY(qkv_check_exec(plan, exec));
    return qkv_run_all(plan, exec, p->batch * p->kv_heads, job.state->grouped, run_job, &job);
}

qkv_status qkv_decode(const qkv_attention_params *params, const qkv_tensors *tensors,
                      const qkv_cache *cache, const int32_t *sequences, const qkv_exec *exec) {
    qkv_plan plan;
    qkv_exec own;
    TRY(qkv_take_exec(&own, exec));
    TRY(qkv_decode_plan(&plan, params, cache, sequences, own.context));
    return qkv_decode_with(&plan, tensors, &own);
}
