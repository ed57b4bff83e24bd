/* SPDX-License-Identifier: Apache-2.0 */
/* Row blocks and their tiles' columns (block.h). */
#include "block.h"

#include <string.h>

static void begin_worker(struct qkv_part *part, char *worker) {
    const struct qkv_worker_layout *w = &part->plan->worker;
    part->scores = (float *)(worker + w->scores);
    part->max = (float *)(worker + w->max);
    part->acc = (float *)(worker + w->acc);
    part->piece = (float *)(worker + w->piece);
    part->queries = part->q = (float *)(worker + w->q);
    part->block = (float *)(worker + w->block);
    part->numbers = (float *)(worker + w->numbers);
    part->row = (struct qkv_row *)(worker + w->rows);
}

/* Nothing but the lengths limits what a row sees, and every row is real. */
static int sees_all(const struct qkv_problem *p, const struct qkv_sequence *s) {
    return !p->causal && p->window_left < 0 && p->window_right < 0 && s->q_len == s->rows;
}

/* The rows from row i of head h on, and the keys that any and that all of them see. */
static void lay_rows(struct qkv_part *part, int64_t h, int64_t i) {
    const struct qkv_problem *p = &part->plan->problem;
    const struct qkv_sequence *s = &part->sequence;
    int64_t lo = INT64_MAX, hi = 0, all_lo = 0, all_hi = INT64_MAX;
    for (int r = 0; r < part->rows; r++) {
        const struct qkv_span span = qkv_span_of(p, s, i);
        part->row[r] = (struct qkv_row){span, h, i};
        all_lo = qkv_max(all_lo, span.lo);
        all_hi = qkv_min(all_hi, span.hi);
        if (span.lo < span.hi) {
            lo = qkv_min(lo, span.lo);
            hi = qkv_max(hi, span.hi);
        }
        if (++i == s->rows) {
            i = 0;
            h++;
        }
    }
    part->lo = qkv_min(lo, hi);
    part->hi = hi;
    part->all_lo = all_lo;
    part->all_hi = all_hi;
}

/* The same of rows that see all keys. */
static void lay_even_rows(struct qkv_part *part, int64_t h, int64_t i) {
    const struct qkv_sequence *s = &part->sequence;
    const struct qkv_span first = qkv_span_of(&part->plan->problem, s, 0);
    for (struct qkv_row *row = part->row, *end = row + part->rows; row < end; h++, i = 0)
        for (; i < s->rows && row < end; i++)
            *row++ = (struct qkv_row){first, h, i};
    part->lo = part->all_lo = first.lo;
    part->hi = part->all_hi = first.hi;
}

/* a / b, and what is left. Mostly b is 1 or a is less, and needs none of a division's dozens of
 * cycles. */
static int64_t divide(int64_t a, int64_t b, int64_t *rest) {
    const int64_t quotient = b == 1 ? a : a < b ? 0 : a / b;
    *rest = a - quotient * b;
    return quotient;
}

void qkv_part_open(struct qkv_part *part, const struct qkv_plan_state *plan,
                   const qkv_tensors *tensors, void *shared, void *worker, int64_t head) {
    const struct qkv_problem *p = &plan->problem;
    part->plan = plan;
    part->tensors = tensors;
    part->shared = shared;
    part->heads = 1;
    part->sequence = qkv_sequence_at(p, divide(head, p->kv_heads, &part->kv_head));
    begin_worker(part, worker);
}

void qkv_part_rows(struct qkv_part *part, int64_t head, int64_t index, int64_t rows) {
    part->rows = part->head_rows = (int)rows;
    if (part->heads > 1)
        part->head_rows /= part->heads;
    (sees_all(&part->plan->problem, &part->sequence) ? lay_even_rows : lay_rows)(part, head, index);
}

int qkv_part_begin(struct qkv_part *part, const struct qkv_plan_state *plan,
                   const qkv_tensors *tensors, void *shared, void *worker, int64_t index) {
    int64_t block, row;

    qkv_part_open(part, plan, tensors, shared, worker, divide(index, plan->row_blocks, &block));
    const int64_t rows = part->sequence.rows, all = rows * plan->problem.group;
    const int64_t row0 = block * plan->rows;
    if (row0 >= all)
        return 0;
    const int64_t head = part->kv_head * plan->problem.group + divide(row0, rows, &row);
    qkv_part_rows(part, head, row, qkv_min(all - row0, plan->rows));
    return 1;
}

int qkv_part_begin_heads(struct qkv_part *part, const struct qkv_plan_state *plan,
                         const qkv_tensors *tensors, const qkv_workspace *workspace, int64_t index,
                         int heads) {
    if (heads == 1)
        return qkv_part_begin(part, plan, tensors, workspace->shared, workspace->worker, index);
    qkv_part_open(part, plan, tensors, workspace->shared, workspace->worker, index);
    part->heads = heads;
    const int64_t group = plan->problem.group, rows = part->sequence.rows * group * heads;
    if (rows)
        qkv_part_rows(part, part->kv_head * group, 0, rows);
    return rows > 0;
}

/* Do the rows' queries stand one after the other? Those of a query head do, where rows are dense,
 * and those of the next head may follow. */
static int dense_queries(const struct qkv_part *part) {
    const qkv_tensor *t = &part->tensors->q;
    const struct qkv_sequence *s = &part->sequence;
    const int64_t dim = part->plan->problem.head_dim;
    return s->q_len == s->rows && t->stride[2] == dim &&
           (part->row[0].head == part->row[part->rows - 1].head || t->stride[1] == s->rows * dim);
}

/* Rows beyond a padded sequence's length have no query: zeros stand in. The next row block's
 * queries are asked for on the way: they are used once, and would be waited for. */
static void gather_queries(const struct qkv_part *part) {
    const struct qkv_problem *p = &part->plan->problem;
    const qkv_tensor *t = &part->tensors->q;
    const int64_t dim = p->head_dim;
    const uintptr_t ahead = (uintptr_t)part->plan->rows * (uintptr_t)t->stride[2];
    for (int r = 0; r < part->rows; r++) {
        const struct qkv_row *row = part->row + r;
        float *q = part->q + r * dim;
        if (row->index >= part->sequence.q_len) {
            memset(q, 0, (size_t)dim * sizeof(float));
            continue;
        }
        const float *src = qkv_q_row(t, p, &part->sequence, row->head, row->index);
        for (int64_t c = 0; c < dim; c += QKV_PANEL)
            __builtin_prefetch((const float *)((uintptr_t)src + (ahead + (uintptr_t)c) * 4));
        memcpy(q, src, (size_t)dim * sizeof(float));
    }
}

static const float *first_query(const struct qkv_part *part) {
    const struct qkv_row *first = part->row;
    return qkv_q_row(&part->tensors->q, &part->plan->problem, &part->sequence, first->head,
                     first->index);
}

void qkv_part_load_queries(const struct qkv_part *part) {
    if (dense_queries(part))
        memcpy(part->q, first_query(part),
               (size_t)(part->rows * part->plan->problem.head_dim) * sizeof(float));
    else
        gather_queries(part);
}

void qkv_part_take_queries(struct qkv_part *part) {
    if (dense_queries(part))
        part->queries = first_query(part);
    else
        gather_queries(part);
}

static int clamp(int64_t n, int lo, int hi) {
    return n < lo ? lo : n > hi ? hi : (int)n;
}

struct qkv_key_block qkv_part_key_block(const struct qkv_part *part, int64_t index) {
    struct qkv_key_block b = {.key0 = index * QKV_KEY_BLOCK};
    b.keys = (int)qkv_min(part->sequence.kv_len - b.key0, QKV_KEY_BLOCK);
    b.lo = clamp(part->lo - b.key0, 0, b.keys);
    b.hi = clamp(part->hi - b.key0, b.lo, b.keys);
    return b;
}

/* The row of bias that stands where row r's does in the tile after; the last tile has none. */
static const float *bias_ahead(const struct qkv_part *part, const struct qkv_key_block *block,
                               int r, int rows) {
    const int next = r + rows < part->rows ? r + rows : r;
    return qkv_bias_row(part, part->row + next, block->key0);
}

void qkv_prefetch_bias(const struct qkv_score_row *row, int rows) {
    for (int r = 0; r < rows && row->bias; r++)
        for (int c = row[r].from; c < row[r].to; c += QKV_PANEL)
            __builtin_prefetch(row[r].bias + c);
}

/* The next block's bytes of a row's boolean mask, which is looked at before anything else is done
 * there. */
static void prefetch_mask(const struct qkv_part *part, const struct qkv_row *row, int64_t key) {
    const uintptr_t bytes = (uintptr_t)qkv_mask_row(part, row, key);
    for (int line = 0; line < QKV_KEY_BLOCK; line += 64)
        __builtin_prefetch((const void *)(bytes + (uintptr_t)line));
}

static int any_sees(const struct qkv_problem *p, const struct qkv_score_row *row, int rows,
                    qkv_sees_fn *sees) {
    if (!p->bias.data && !p->mask.data)
        return 1;
    for (int r = 0; r < rows; r++)
        if (sees(row + r, &p->rule))
            return 1;
    return 0;
}

int qkv_part_is_even(const struct qkv_part *part, const struct qkv_key_block *block) {
    const struct qkv_problem *p = &part->plan->problem;
    return !p->bias.data && !p->mask.data && !p->slopes &&
           part->all_lo <= block->key0 + block->lo && part->all_hi >= block->key0 + block->hi;
}

/* What is added to the scores of row r of the row block, in a tile of `rows`, and its mask. */
static void add_extras(const struct qkv_part *part, const struct qkv_key_block *block, int r,
                       int rows, struct qkv_score_row *out) {
    const struct qkv_problem *p = &part->plan->problem;
    const struct qkv_row *row = part->row + r;
    out->bias = qkv_bias_row(part, row, block->key0);
    out->ahead = bias_ahead(part, block, r, rows);
    out->mask = qkv_mask_row(part, row, block->key0);
    if (out->mask)
        prefetch_mask(part, row, block->key0 + QKV_KEY_BLOCK);
    out->slope = p->slopes ? p->slopes[row->head] : 0.0f;
    out->distance = (float)(qkv_position_of(p, &part->sequence, row->index) - block->key0);
}

int qkv_part_score_rows(const struct qkv_part *part, const struct qkv_key_block *block, int row0,
                        int rows, qkv_sees_fn *sees, struct qkv_score_row *out) {
    const struct qkv_problem *p = &part->plan->problem;
    int first = block->hi, end = block->lo;

    for (int r = 0; r < rows; r++) {
        const struct qkv_row *row = part->row + row0 + r;
        out[r].lo = clamp(row->span.lo - block->key0, block->lo, block->hi);
        out[r].hi = clamp(row->span.hi - block->key0, out[r].lo, block->hi);
        if (out[r].lo < out[r].hi) {
            first = out[r].lo < first ? out[r].lo : first;
            end = out[r].hi > end ? out[r].hi : end;
        }
    }
    if (first >= end)
        return 0;
    const int from = first / QKV_PANEL * QKV_PANEL;
    const int to = (end + QKV_PANEL - 1) / QKV_PANEL * QKV_PANEL;
    const int extras = p->bias.data || p->mask.data || p->slopes;
    for (int r = 0; r < rows; r++) {
        const int lo = out[r].lo, hi = out[r].hi;
        out[r] = (struct qkv_score_row){
            .s = part->scores + (row0 + r) * QKV_SCORES_LD,
            .from = from,
            .to = to,
            .lo = lo < hi ? lo : from,
            .hi = lo < hi ? hi : from,
            .first = first,
            .end = end,
        };
        if (extras)
            add_extras(part, block, row0 + r, rows, out + r);
    }
    return any_sees(p, out, rows, sees);
}

struct qkv_score_row qkv_part_chunk_row(const struct qkv_part *part, const struct qkv_row *row,
                                        int64_t key0, int n) {
    struct qkv_score_row out = {.to = n};
    int64_t lo = qkv_max(row->span.lo - key0, 0), hi = qkv_min(row->span.hi - key0, n);
    if (lo < hi) {
        out.lo = (int)lo;
        out.hi = (int)hi;
    }
    out.bias = qkv_bias_row(part, row, key0);
    out.mask = qkv_mask_row(part, row, key0);
    return out;
}
