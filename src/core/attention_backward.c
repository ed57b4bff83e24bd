/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of the fused stage, phase 1: a piece of the keys of one key/value head, key block
 * by key block, and all query rows that see it (attention_backward.h). */
#include "attention_backward.h"

#include <string.h>

#include "tiles.h"

/* Keys whose dK and dV are summed at once where a mask cuts the block: a multiple of PANEL and of
 * most tiles' heights. */
enum { STRIP = 48 };

/* A part on its way: one key block, and the rows that pass it. */
struct backward {
    const struct qkv_attention_backward_kernels *kernels;
    const struct qkv_backward_layout *layout;
    const qkv_gradients *gradients;
    struct qkv_part part;
    struct qkv_piece piece;
    int64_t number;     /* the piece's */
    int64_t index, key; /* the key block, and its first key in shared memory */
    float *d_k, *d_v;   /* of its keys */
    float *d_scores, *slope;
    char *worker;
};

/* A matrix of rows: Q, dO or K. */
struct rows {
    const float *at;
    int64_t ld, dim, pad;
};

/* Rows of one query head, padded with zeros: where they are if they are dense. */
static struct rows query_rows(const struct backward *b, const qkv_tensor *t, int64_t dim,
                              float *own) {
    const struct qkv_part *part = &b->part;
    const struct qkv_row *first = part->row;
    const int64_t pad = qkv_round_up(dim, QKV_PANEL);
    const float *at =
        qkv_q_row(t, &part->plan->problem, &part->sequence, first->head, first->index);
    if (qkv_rows_in_place(t, dim))
        return (struct rows){at, dim, dim, dim};
    b->kernels->pack.rows(own, at, t->stride[2], part->rows, dim);
    return (struct rows){own, pad, dim, pad};
}

/* What the products of a row block over the key block work on. */
struct block {
    struct qkv_key_block keys;
    struct qkv_tiles tiles;
    struct rows q, d_out, k;
    int begin, end; /* the panels of columns that any row sees */
    int bad_keys, bad_rows;
};

static const float ones[QKV_KEY_BLOCK] = {
#define FOUR 1.0f, 1.0f, 1.0f, 1.0f
#define SIXTEEN FOUR, FOUR, FOUR, FOUR
#define SIXTY_FOUR SIXTEEN, SIXTEEN, SIXTEEN, SIXTEEN
    SIXTY_FOUR, SIXTY_FOUR, SIXTY_FOUR, SIXTY_FOUR};

/* C = rows times the keys' panels, a band of tiles at a time: S from Q and K, dP from dO and V. */
static void by_keys(const struct backward *b, const struct block *block, const struct rows *rows,
                    const float *panels, float *c) {
    const int mr = b->kernels->mr, width = block->tiles.whole ? QKV_KEY_BLOCK : b->kernels->nr;
    struct qkv_band band;
    for (int column = 0; column < QKV_KEY_BLOCK; column += width)
        for (int r = 0; r < b->part.rows; r += band.rows) {
            band = qkv_band_of(&block->tiles, &b->part, mr, r, column, column + width);
            if (band.from >= band.to)
                continue;
            const struct qkv_gemm g = {
                .a = rows->at + r * rows->ld,
                .lda = rows->ld,
                .a_k = 1,
                .b = panels + band.from * rows->dim,
                .b_k = QKV_PANEL,
                .b_g = QKV_PANEL * rows->dim,
                .c = c + r * QKV_SCORES_LD + band.from,
                .ldc = QKV_SCORES_LD,
                .m = band.rows,
                .n = band.to - band.from,
                .k = rows->dim,
            };
            b->kernels->gemm(&g);
        }
}

/* Rows of a strip of keys += columns of weights times the query rows that see any of them. */
static void add_strip(const struct backward *b, const struct block *block, const float *weights,
                      const struct rows *rows, float *acc, int from, int to) {
    int first = b->part.rows, end = 0;
    for (int r = 0; r < b->part.rows; r++) {
        const struct qkv_score_row *row = block->tiles.row + r;
        if (row->from < to && row->to > from) {
            first = first < r ? first : r;
            end = r + 1;
        }
    }
    if (first >= end)
        return;
    const struct qkv_gemm g = {
        .a = weights + first * QKV_SCORES_LD + from,
        .lda = 1,
        .a_k = QKV_SCORES_LD,
        .b = rows->at + first * rows->ld,
        .b_k = rows->ld,
        .b_g = QKV_PANEL,
        .c = acc + from * rows->pad,
        .ldc = rows->pad,
        .m = to - from,
        .n = rows->pad,
        .k = end - first,
        .factor = ones,
    };
    b->kernels->gemm(&g);
}

/* The same for rows that hold infinities or NaN: without the weights that are marked. */
static void add_marked(const struct backward *b, const struct block *block, const float *weights,
                       const struct rows *rows, float *acc) {
    float column[QKV_ROWS];
    for (int c = block->begin; c < block->end; c++) {
        for (int r = 0; r < b->part.rows; r++)
            column[r] = weights[r * QKV_SCORES_LD + c];
        b->kernels->marked(acc + c * rows->pad, 1.0f, column, rows->at, rows->ld, b->part.rows,
                           rows->pad);
    }
}

/* dV += P^T dO, and dK += dS^T Q. */
static void by_rows(const struct backward *b, const struct block *block, const float *weights,
                    const struct rows *rows, float *acc) {
    const int strip = block->tiles.whole ? QKV_KEY_BLOCK : STRIP;
    if (block->bad_rows) {
        add_marked(b, block, weights, rows, acc);
        return;
    }
    for (int c = block->begin; c < block->end; c += strip)
        add_strip(b, block, weights, rows, acc, c, c + strip < block->end ? c + strip : block->end);
}

/* The place of the part's first row among all, and among all of this piece. */
static int64_t row_slot(const struct backward *b) {
    const struct qkv_part *part = &b->part;
    return qkv_query_slot(&part->plan->problem, &part->sequence, part->row->head, part->row->index);
}

static int64_t piece_slot(const struct backward *b) {
    return b->number * b->layout->query_rows + row_slot(b);
}

/* What this piece gives to the part's rows: its part of dQ, and the sum of their weights. */
static float *partial_of(const struct backward *b) {
    return (float *)(b->part.shared + b->layout->partial) + piece_slot(b) * b->layout->q_pad;
}

static float *mass_of(const struct backward *b) {
    return (float *)(b->part.shared + b->layout->mass) + piece_slot(b);
}

/* The first block of the piece that the rows see writes those, the others add to them. */
static int writes_queries(const struct backward *b) {
    return b->index == qkv_max(b->piece.begin, b->part.lo / QKV_KEY_BLOCK);
}

static void zero_queries(const struct backward *b) {
    memset(partial_of(b), 0, (size_t)(b->part.rows * b->layout->q_pad) * sizeof(float));
}

/* The same for keys that hold infinities or NaN. */
static void add_queries_marked(const struct backward *b, const struct block *block, float *acc,
                               int r, struct qkv_band band) {
    for (int i = r; i < r + band.rows; i++)
        b->kernels->marked(
            acc + (i - r) * block->k.pad, 1.0f, b->d_scores + i * QKV_SCORES_LD + band.from,
            block->k.at + band.from * block->k.ld, block->k.ld, band.to - band.from, block->k.pad);
}

/* dQ += dS K. */
static void add_queries(const struct backward *b, const struct block *block) {
    const int64_t pad = block->k.pad;
    const int writes = writes_queries(b) && !block->bad_keys;
    float *acc = partial_of(b);
    struct qkv_band band;
    if (block->bad_keys && writes_queries(b))
        zero_queries(b);
    for (int r = 0; r < b->part.rows; r += band.rows, acc += band.rows * pad) {
        band = qkv_key_band_of(&block->tiles, &b->part, b->kernels->mr, r, &block->keys,
                               b->kernels->nr, pad);
        if (band.from >= band.to) {
            if (writes)
                memset(acc, 0, (size_t)(band.rows * pad) * sizeof(float));
            continue;
        }
        if (block->bad_keys) {
            add_queries_marked(b, block, acc, r, band);
            continue;
        }
        const struct qkv_gemm g = {
            .a = b->d_scores + r * QKV_SCORES_LD + band.from,
            .lda = QKV_SCORES_LD,
            .a_k = 1,
            .b = block->k.at + band.from * block->k.ld,
            .b_k = block->k.ld,
            .b_g = QKV_PANEL,
            .c = acc,
            .ldc = pad,
            .m = band.rows,
            .n = pad,
            .k = band.to - band.from,
            .factor = writes ? NULL : ones,
        };
        b->kernels->gemm(&g);
    }
}

/* The gradient of bias is dS before the soft-cap's slope. Columns that a tile computed beyond what
 * its row sees are zeros, and beyond the sequence's keys they are not there. */
static void store_bias(const struct backward *b, const struct block *block) {
    const struct qkv_problem *p = &b->part.plan->problem;
    const qkv_tensor *t = &b->gradients->bias;
    const float *from = p->rule.softcap > 0.0f ? b->slope : b->d_scores;
    for (int r = 0; r < b->part.rows; r++) {
        const struct qkv_row *at = b->part.row + r;
        const struct qkv_score_row *row = block->tiles.row + r;
        float *out = (float *)t->data + b->part.sequence.index * t->stride[0] +
                     at->head * t->stride[1] + at->index * t->stride[2] + block->keys.key0;
        for (int c = row->lo; c < row->hi; c++)
            out[c] = from[r * QKV_SCORES_LD + c] + 0.0f;
    }
}

/* What stands in shared memory of the key block, and whether its keys are finite. */
static void find_keys(const struct backward *b, struct block *block) {
    const struct qkv_plan_state *plan = b->part.plan;
    const int64_t dim = plan->problem.head_dim, pad = b->layout->q_pad;
    const unsigned char *flags =
        (unsigned char *)b->part.shared + plan->shared.flags + b->key / QKV_PANEL;
    const qkv_tensor *k = &b->part.tensors->k;
    block->k =
        (struct rows){(float *)(b->part.shared + b->layout->k_rows) + b->key * pad, pad, dim, pad};
    if (qkv_rows_in_place(k, dim))
        block->k.at =
            qkv_kv_row(k, &plan->problem, &b->part.sequence, b->part.kv_head, block->keys.key0);
    block->bad_keys = 0;
    for (int g = block->keys.lo / QKV_PANEL; g * QKV_PANEL < block->keys.hi; g++)
        block->bad_keys |= flags[g];
}

static void weigh(const struct backward *b, const struct block *block) {
    const struct qkv_plan_state *plan = b->part.plan;
    const struct qkv_problem *p = &plan->problem;
    const int64_t slot = row_slot(b);
    const struct qkv_weigh_backward w = {
        .row = block->tiles.row,
        .rule = &p->rule,
        .scores = b->part.scores,
        .d_scores = b->d_scores,
        .slope = b->slope,
        .base = (float *)(b->part.shared + b->layout->base) + slot,
        .delta = (float *)(b->part.shared + b->layout->delta) + slot,
        .rows = b->part.rows,
        .begin = block->begin,
        .end = block->end,
        .mark = block->bad_keys || block->bad_rows,
        .mass = mass_of(b),
        .add = !writes_queries(b),
    };
    b->kernels->weigh[p->rule.exp](&w);
}

/* Rows that see nothing of the first block after all, because of a boolean mask or a bias. */
static void begin_rows(const struct backward *b) {
    memset(mass_of(b), 0, (size_t)b->part.rows * sizeof(float));
    if (b->gradients->q.data)
        zero_queries(b);
}

/* One row block against the key block. */
static void pass_rows(const struct backward *b) {
    const struct qkv_part *part = &b->part;
    const struct qkv_plan_state *plan = part->plan;
    const struct qkv_problem *p = &plan->problem;
    const struct qkv_row *first = part->row;
    const qkv_gradients *gradients = b->gradients;
    struct block block = {.keys = qkv_part_key_block(part, b->index)};

    qkv_lay_tiles(&block.tiles, part, &block.keys, b->kernels->mr, b->kernels->sees);
    if (!block.tiles.any) {
        if (writes_queries(b))
            begin_rows(b);
        return;
    }
    block.begin = block.keys.lo / QKV_PANEL * QKV_PANEL;
    block.end = (int)qkv_round_up(block.keys.hi, QKV_PANEL);
    block.q = query_rows(b, &part->tensors->q, p->head_dim, part->q);
    block.d_out = query_rows(b, &gradients->out, p->v_dim, (float *)(b->worker + b->layout->d_out));
    block.bad_rows = *((unsigned char *)part->shared + b->layout->bad +
                       qkv_block_slot(plan, &part->sequence, first->head, first->index));
    find_keys(b, &block);

    by_keys(b, &block, &block.q, (float *)(part->shared + plan->shared.k) + b->key * p->head_dim,
            part->scores);
    by_keys(b, &block, &block.d_out, (float *)(part->shared + plan->shared.v) + b->key * p->v_dim,
            b->d_scores);
    weigh(b, &block);
    if (gradients->bias.data)
        store_bias(b, &block);
    if (gradients->v.data)
        by_rows(b, &block, part->scores, &block.d_out, b->d_v);
    if (gradients->k.data)
        by_rows(b, &block, b->d_scores, &block.q, b->d_k);
    if (gradients->q.data)
        add_queries(b, &block);
}

/* dK or dV of some keys to the user. */
static void store_keys(const struct backward *b, const qkv_tensor *t, const float *acc, int64_t dim,
                       float scale, int keys) {
    const struct qkv_problem *p = &b->part.plan->problem;
    const int64_t pad = qkv_round_up(dim, QKV_PANEL);
    float factor[QKV_KEY_BLOCK];
    if (!t->data)
        return;
    for (int c = 0; c < keys; c++)
        factor[c] = scale;
    b->kernels->store(
        (float *)qkv_kv_row(t, p, &b->part.sequence, b->part.kv_head, b->index * QKV_KEY_BLOCK),
        t->stride[2], acc, pad, factor, keys, dim);
}

/* Keys beyond a padded sequence's length have gradients of zero. */
static void zero_keys(const struct backward *b, const qkv_tensor *t, int64_t dim) {
    const struct qkv_problem *p = &b->part.plan->problem;
    const struct qkv_sequence *s = &b->part.sequence;
    const int64_t end = p->cu_kv || !t->data ? 0 : p->kv_len;
    for (int64_t j = s->kv_len; j < end; j++)
        memset((float *)qkv_kv_row(t, p, s, b->part.kv_head, j), 0, (size_t)dim * sizeof(float));
}

/* One key block: its dK and dV, from all rows of the group's heads. */
static void pass_keys(struct backward *b) {
    struct qkv_part *part = &b->part;
    const struct qkv_plan_state *plan = part->plan;
    const struct qkv_problem *p = &plan->problem;
    const int64_t key0 = b->index * QKV_KEY_BLOCK;
    const int keys = (int)qkv_min(part->sequence.kv_len - key0, QKV_KEY_BLOCK);
    const int64_t padded = qkv_round_up(keys, QKV_PANEL);

    b->key = qkv_shared_key(p, &part->sequence, part->kv_head) + key0;
    memset(b->d_k, 0, (size_t)(padded * b->layout->q_pad) * sizeof(float));
    memset(b->d_v, 0, (size_t)(padded * plan->v_pad) * sizeof(float));
    for (int64_t g = 0; g < p->group; g++)
        for (int64_t i = 0; i < part->sequence.q_len; i += plan->rows) {
            qkv_part_rows(part, part->kv_head * p->group + g, i,
                          qkv_min(part->sequence.q_len - i, plan->rows));
            if (part->lo < key0 + keys && part->hi > key0)
                pass_rows(b);
        }
    store_keys(b, &b->gradients->k, b->d_k, p->head_dim, p->rule.scale, keys);
    store_keys(b, &b->gradients->v, b->d_v, p->v_dim, 1.0f, keys);
}

/* Pieces from both ends in turn: under a causal mask the first is the longest work and the last the
 * shortest, and whoever takes a run of parts gets some of each. */
static int64_t piece_number(int64_t part, int64_t pieces) {
    return part % 2 ? pieces - 1 - part / 2 : part / 2;
}

static void pass_piece(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                       const qkv_gradients *gradients, const qkv_workspace *workspace,
                       int64_t index) {
    const struct qkv_backward_layout *layout = &plan->backward;
    const int64_t head = index / layout->pieces;
    struct backward b = {
        .kernels = plan->table->attention_backward,
        .layout = layout,
        .gradients = gradients,
        .number = piece_number(index % layout->pieces, layout->pieces),
        .worker = workspace->worker,
    };
    b.d_k = (float *)(b.worker + layout->d_k);
    b.d_v = (float *)(b.worker + layout->d_v);
    b.d_scores = (float *)(b.worker + layout->d_scores);
    b.slope = (float *)(b.worker + layout->slope);
    qkv_part_open(&b.part, plan, tensors, workspace->shared, workspace->worker, head);
    b.piece = qkv_piece_at(plan, &b.part.sequence, b.number);
    for (b.index = b.piece.begin; b.index < b.piece.end; b.index++)
        pass_keys(&b);
    if (b.number == 0) {
        zero_keys(&b, &gradients->k, plan->problem.head_dim);
        zero_keys(&b, &gradients->v, plan->problem.v_dim);
    }
}

void qkv_attention_backward_parts(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                                  const qkv_gradients *gradients, const qkv_workspace *workspace,
                                  int32_t phase, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        if (phase == 0)
            qkv_backward_prepare(plan, tensors, gradients, workspace->shared, i);
        else if (phase == 1)
            pass_piece(plan, tensors, gradients, workspace, i);
        else if (phase == 2)
            qkv_backward_sum(plan, tensors, gradients, workspace, i);
        else
            qkv_backward_sinks(plan, gradients, workspace->shared);
    }
}
