/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of the backward stages of mix and of scores, their products, and the parts that gather
 * the gradient of a block of keys (chain.h). */
#include "chain.h"

#include <string.h>

#include "run.h"

/* Keys whose rows of W^T R are computed together, from the first to the last row that sees any of
 * them: a multiple of every room's tile height. */
enum { STRIP = 48 };

static void view_problem(struct qkv_plan_state *s) {
    struct qkv_problem *p = &s->problem;
    if (s->stage == QKV_STAGE_MIX_BACKWARD) {
        p->head_dim = p->v_dim;
        p->v_dim = 0;
    } else {
        p->v_dim = p->head_dim;
        p->head_dim = p->rule.softcap > 0.0f ? p->head_dim : 0;
    }
    s->v_pad = qkv_round_up(p->v_dim, QKV_PANEL);
}

static int64_t width_of(const struct qkv_problem *p) {
    return qkv_max(p->head_dim, p->v_dim);
}

static void lay_out_worker(struct qkv_plan_state *s) {
    const int64_t f = sizeof(float), pad = qkv_round_up(width_of(&s->problem), QKV_PANEL);
    const int64_t keys = qkv_min(qkv_round_up(s->problem.kv_len, QKV_PANEL), QKV_KEY_BLOCK);
    const int64_t rows = QKV_ROWS * qkv_min(pad, QKV_WIDE) * f;
    const int capped = s->problem.v_dim > 0 && s->problem.head_dim > 0;
    struct qkv_worker_layout *w = &s->worker;
    w->rows = qkv_reserve(&w->size, QKV_ROWS * (int64_t)sizeof(struct qkv_row));
    w->numbers = qkv_reserve(&w->size, QKV_NUMBERS * QKV_ROWS * f);
    w->scores = qkv_reserve(&w->size, QKV_ROWS * QKV_SCORES_LD * f);
    w->piece = qkv_reserve(&w->size, capped ? QKV_ROWS * QKV_SCORES_LD * f : 0);
    w->q = qkv_reserve(&w->size, rows);
    w->acc = qkv_reserve(&w->size, qkv_max(rows, keys * pad * f));
    w->block = qkv_reserve(&w->size, keys * pad * f);
}

void qkv_chain_layout(struct qkv_plan_state *s, qkv_plan *plan) {
    struct qkv_plan_state view = *s;
    const struct qkv_problem *p = &s->problem;
    const int64_t heads = p->batch * p->kv_heads, parts = heads * (s->row_blocks + s->blocks);
    view_problem(&view);
    view.packs = s->row_blocks > 1 && s->blocks > 0;
    qkv_lay_out_shared(&view);
    lay_out_worker(&view);
    s->packs = view.packs;
    s->shared = view.shared;
    s->worker = view.worker;
    if (s->packs)
        plan->parts[plan->phases++] = heads * s->blocks;
    if (parts > 0)
        plan->parts[plan->phases++] = parts;
    s->grouped = plan->phases;
    plan->threads =
        qkv_worth_threads(4.0 * (double)p->batch * (double)p->q_heads * (double)p->q_len *
                              (double)p->kv_len * (double)(width_of(p) + 16),
                          parts);
}

void qkv_chain_open(struct qkv_chain *chain, const struct qkv_plan_state *plan,
                    const qkv_workspace *workspace) {
    *chain = (struct qkv_chain){.plan = *plan, .workspace = workspace};
    view_problem(&chain->plan);
    chain->dim = width_of(&chain->plan.problem);
    chain->pad = qkv_round_up(chain->dim, QKV_PANEL);
    qkv_tensors_init(&chain->tensors);
}

/* Factors and scales of the products: the same for every row. */
static void fill_numbers(const struct qkv_chain *chain, const struct qkv_part *part) {
    float *ones = qkv_numbers(part, QKV_N_FACTOR), *scale = qkv_numbers(part, QKV_N_SCALE);
    for (int r = 0; r < QKV_ROWS; r++) {
        ones[r] = 1.0f;
        scale[r] = chain->scale;
    }
}

int qkv_chain_begin(struct qkv_part *part, const struct qkv_chain *chain, int64_t index) {
    const qkv_workspace *w = chain->workspace;
    if (!qkv_part_begin(part, &chain->plan, &chain->tensors, w->shared, w->worker, index))
        return 0;
    fill_numbers(chain, part);
    return 1;
}

static void products(const struct qkv_chain *chain, const struct qkv_part *part,
                     const struct qkv_band *band, int r, const float *panels, int64_t ld,
                     float *out, int64_t ld_out) {
    const struct qkv_gemm g = {
        .a = part->q + r * ld,
        .lda = ld,
        .a_k = 1,
        .b = panels + band->from * chain->dim,
        .b_k = QKV_PANEL,
        .b_g = QKV_PANEL * chain->dim,
        .c = out + r * ld_out + band->from,
        .ldc = ld_out,
        .m = band->rows,
        .n = band->to - band->from,
        .k = chain->dim,
    };
    chain->kernels->gemm(&g);
}

/* Rows that all have the same columns at once; else a tile's width of columns at a time, so that
 * their panels stay in the first-level cache while all rows pass. */
void qkv_chain_products(const struct qkv_chain *chain, const struct qkv_part *part,
                        const struct qkv_tiles *tiles, int mr, const float *panels, int64_t ld,
                        float *out, int64_t ld_out) {
    struct qkv_band band = qkv_band_of(tiles, part, mr, 0, 0, QKV_KEY_BLOCK);
    const int width = band.rows == part->rows ? QKV_KEY_BLOCK : chain->kernels->nr;
    for (int c = 0; c < QKV_KEY_BLOCK; c += width) {
        for (int r = 0; r < part->rows; r += band.rows) {
            band = qkv_band_of(tiles, part, mr, r, c, c + width);
            if (band.from < band.to)
                products(chain, part, &band, r, panels, ld, out, ld_out);
        }
    }
}

int qkv_chain_stands(const struct qkv_chain *chain, const struct qkv_part *part,
                     const struct qkv_tiles *tiles) {
    return tiles->even && !chain->uncap && qkv_chain_one_head(part);
}

struct qkv_chain_weights qkv_chain_in_place(const struct qkv_chain *chain,
                                            const struct qkv_part *part,
                                            const struct qkv_key_block *block) {
    const qkv_tensor *w = &chain->tensors.weights;
    const float *first =
        qkv_q_row(w, &chain->plan.problem, &part->sequence, part->row->head, part->row->index);
    return (struct qkv_chain_weights){first + block->key0, w->stride[2]};
}

/* One row of W, in the columns that its tile has. */
static void load_row(const struct qkv_chain *chain, const struct qkv_score_row *row,
                     const float *in, int keys) {
    const struct qkv_score_rule *rule = &chain->plan.problem.rule;
    const int from = row->from, to = row->to < keys ? row->to : keys;
    struct qkv_score_row rest = *row;
    rest.lo -= from;
    rest.hi -= from;
    if (row->bias)
        rest.bias += from * rule->bias_step;
    if (row->mask)
        rest.mask += from * rule->mask_step;
    chain->kernels->load(row->s + from, in + from, &rest, rule, to - from);
}

struct qkv_chain_weights qkv_chain_load(const struct qkv_chain *chain, const struct qkv_part *part,
                                        const struct qkv_key_block *block,
                                        const struct qkv_tiles *tiles, int mr, int64_t ld) {
    const struct qkv_problem *p = &chain->plan.problem;
    if (chain->uncap) {
        const float *panels = qkv_part_keys(part, block, &chain->kernels->pack);
        qkv_chain_products(chain, part, tiles, mr, panels, ld, part->piece, QKV_SCORES_LD);
    }
    for (int r = 0; r < part->rows; r++) {
        const struct qkv_score_row *row = tiles->row + r;
        const struct qkv_row *at = part->row + r;
        if (row->from >= row->to)
            continue;
        const float *in =
            qkv_q_row(&chain->tensors.weights, p, &part->sequence, at->head, at->index);
        load_row(chain, row, in + block->key0, block->keys);
        if (chain->uncap)
            chain->uncap(row->s + row->from, part->piece + r * QKV_SCORES_LD + row->from, &p->rule,
                         row->to - row->from);
    }
    return (struct qkv_chain_weights){part->scores, QKV_SCORES_LD};
}

void qkv_chain_store(const struct qkv_chain *chain, const struct qkv_part *part, float *out,
                     int64_t ld_out, const float *acc, int64_t rows) {
    const float *scale = qkv_numbers(part, QKV_N_SCALE);
    for (int64_t r = 0; r < rows; r += QKV_ROWS)
        chain->kernels->store(out + r * ld_out, ld_out, acc + r * chain->pad, chain->pad, scale,
                              (int)qkv_min(rows - r, QKV_ROWS), chain->dim);
}

/* The rows of a block that see some of the keys [c, end), from the first to the last. */
struct stretch {
    int first, end;
};

static struct stretch rows_that_see(const struct qkv_score_row *row, int rows, int c, int end) {
    struct stretch s = {rows, 0};
    for (int r = 0; r < rows; r++) {
        if (row[r].lo < end && row[r].hi > c) {
            s.first = s.first < r ? s.first : r;
            s.end = r + 1;
        }
    }
    return s;
}

/* W^T R of a row block, added to the accumulators of the keys [from, to). */
static void add_block(const struct qkv_chain *chain, const struct qkv_part *part,
                      const struct qkv_chain_weights *w, const struct qkv_score_row *row, int from,
                      int to) {
    const int64_t pad = chain->pad;
    for (int c = from; c < to; c += STRIP) {
        const int keys = to - c < STRIP ? to - c : STRIP;
        const struct stretch s = rows_that_see(row, part->rows, c, c + keys);
        if (s.first >= s.end)
            continue;
        const struct qkv_gemm g = {
            .a = w->rows + s.first * w->ld + c,
            .lda = 1,
            .a_k = w->ld,
            .b = part->q + s.first * pad,
            .b_k = pad,
            .b_g = QKV_PANEL,
            .c = part->acc + c * pad,
            .ldc = pad,
            .m = keys,
            .n = pad,
            .k = s.end - s.first,
            .factor = qkv_numbers(part, QKV_N_FACTOR),
        };
        chain->kernels->gemm(&g);
    }
}

/* The same where R holds infinities or NaN: without what is marked, in the same order. */
static void add_block_marked(const struct qkv_chain *chain, const struct qkv_part *part,
                             const struct qkv_chain_weights *w, int from, int to) {
    float column[QKV_ROWS];
    for (int c = from; c < to; c++) {
        for (int r = 0; r < part->rows; r++)
            column[r] = w->rows[r * w->ld + c];
        chain->kernels->marked(part->acc + c * chain->pad, 1.0f, column, part->q, chain->pad,
                               part->rows, chain->pad);
    }
}

/* R's rows as dense ones of whole panels; is any number of them not finite? */
static int load_rows(const struct qkv_chain *chain, const struct qkv_part *part) {
    const qkv_tensor *rows = &chain->tensors.q;
    const float *first =
        qkv_q_row(rows, &chain->plan.problem, &part->sequence, part->row->head, part->row->index);
    return chain->kernels->pack.rows(part->q, first, rows->stride[2], part->rows, chain->dim) != 0;
}

/* A block of rows of a query head into the accumulators of key block b. All rows are one tile. */
static QKV_LARGE_FRAME void add_rows(const struct qkv_chain *chain, const struct qkv_part *part,
                                     int64_t b) {
    const struct qkv_key_block block = qkv_part_key_block(part, b);
    struct qkv_chain_weights w;
    struct qkv_tiles t;

    if (block.lo >= block.hi)
        return;
    qkv_lay_tiles(&t, part, &block, QKV_ROWS, chain->kernels->sees);
    if (!t.any)
        return;
    const int bad = load_rows(chain, part);
    if (!bad && qkv_chain_stands(chain, part, &t)) {
        w = qkv_chain_in_place(chain, part, &block);
        add_block(chain, part, &w, t.row, block.lo, block.hi);
        return;
    }
    w = qkv_chain_load(chain, part, &block, &t, QKV_ROWS, chain->pad);
    if (bad)
        add_block_marked(chain, part, &w, t.row->from, t.row->to);
    else
        add_block(chain, part, &w, t.row, t.row->from, t.row->to);
}

/* The gradient of the rows of C of one key block. */
static void gather_keys(const struct qkv_chain *chain, const qkv_tensor *out, int64_t head,
                        int64_t b) {
    const struct qkv_plan_state *plan = &chain->plan;
    const struct qkv_problem *p = &plan->problem;
    const qkv_workspace *w = chain->workspace;
    struct qkv_part part;
    qkv_part_open(&part, plan, &chain->tensors, w->shared, w->worker, head);
    fill_numbers(chain, &part);

    const struct qkv_sequence *s = &part.sequence;
    const int64_t key0 = b * QKV_KEY_BLOCK, all = p->cu_kv ? s->kv_len : p->kv_len;
    const int64_t keys = qkv_min(all - key0, QKV_KEY_BLOCK);
    if (keys <= 0)
        return;
    memset(part.acc, 0, (size_t)(qkv_round_up(keys, QKV_PANEL) * chain->pad) * sizeof(float));
    for (int64_t h = part.kv_head * p->group; h < (part.kv_head + 1) * p->group; h++) {
        for (int64_t i = 0; i < s->q_len; i += plan->rows) {
            qkv_part_rows(&part, h, i, qkv_min(s->q_len - i, plan->rows));
            add_rows(chain, &part, b);
        }
    }
    qkv_chain_store(chain, &part, qkv_kv_row(out, p, s, part.kv_head, key0), out->stride[2],
                    part.acc, keys);
}

void qkv_chain_run(const struct qkv_chain *chain, qkv_chain_rows_fn *rows,
                   const qkv_gradients *gradients, const qkv_tensor *d_keys, int32_t phase,
                   int64_t begin, int64_t end) {
    const struct qkv_plan_state *plan = &chain->plan;
    const int64_t parts = plan->row_blocks + plan->blocks;
    for (int64_t i = begin; i < end; i++) {
        const int64_t head = i / parts, at = i % parts;
        if (plan->packs && phase == 0)
            qkv_pack_part(plan, &chain->tensors, chain->workspace->shared, &chain->kernels->pack,
                          i);
        else if (at < plan->row_blocks)
            rows(chain, gradients, head * plan->row_blocks + at);
        else if (d_keys->data)
            gather_keys(chain, d_keys, head, at - plan->row_blocks);
    }
}
