/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fused stage's driver: each part takes a block of query rows through the key blocks that any
 * of its rows sees. The order of the arithmetic of one row (the law of the bits, docs/design.md)
 * is fixed by the key blocks and pieces alone: which rows stand beside it, and which of its
 * masked columns are computed, changes nothing.
 */
#include "attention.h"

#include <math.h>
#include <string.h>

/* A call more in either product is 3 % of a call of one query. */
#define INLINE static inline __attribute__((always_inline))

static const struct qkv_attention_kernels *kernels_of(const struct qkv_part *part) {
    return part->plan->table->attention;
}

/* Whole vectors of rows are sealed and merged: the numbers of rows that are not there are set, too.
 */
static int padded_rows(const struct qkv_part *part) {
    return (int)qkv_round_up(part->rows, QKV_PANEL);
}

void qkv_begin_piece(struct qkv_accumulator *acc, const struct qkv_part *part,
                     struct qkv_running state, float *rows) {
    acc->state = state;
    acc->rows = rows;
    acc->any = 0;
    acc->last = -1;
    acc->scale = NULL;
    for (int r = 0; r < padded_rows(part); r++) {
        state.max[r] = -INFINITY;
        state.sum[r] = 0.0f;
        acc->begun[r] = 0;
    }
}

/* What a product of all rows asks for, whose block's keys or values begin at `numbers`, so many a
 * key: those of the next block, or behind the last one of the first, with which the next rows
 * begin. */
static uintptr_t ahead_of(const struct qkv_part *part, const struct qkv_key_block *block,
                          const float *numbers, int64_t width) {
    if (!part->plan->asks)
        return 0;
    const int64_t next = block->key0 + QKV_KEY_BLOCK;
    const int64_t key = next < part->hi ? next : part->lo / QKV_KEY_BLOCK * QKV_KEY_BLOCK;
    return (uintptr_t)numbers + (uintptr_t)((key - block->key0) * width) * sizeof(float);
}

/* The scores of a band's rows, from row r on, in its columns. */
INLINE void score(const struct qkv_attention_kernels *kernels, const struct qkv_part *part,
                  const float *keys, int r, struct qkv_band band, float *max, uintptr_t ahead) {
    const int64_t dim = part->plan->problem.head_dim;
    const struct qkv_gemm g = {
        .a = part->queries + r * dim,
        .lda = dim,
        .a_k = 1,
        .b = keys + band.from * dim,
        .b_k = QKV_PANEL,
        .b_g = QKV_PANEL * dim,
        .c = part->scores + r * QKV_SCORES_LD + band.from,
        .max = max,
        .ldc = QKV_SCORES_LD,
        .m = band.rows,
        .n = band.to - band.from,
        .k = dim,
        .ahead = ahead,
    };
    kernels->gemm(&g);
}

/* A tile's width of columns at a time, so that their keys stay in the first-level cache while all
 * rows pass. Returns the rows' largest scores if the product has left them. */
const float *qkv_score_tiles(const struct qkv_part *part, const struct qkv_tiles *t,
                             const struct qkv_key_block *block, const float *keys) {
    const struct qkv_attention_kernels *kernels = kernels_of(part);
    const int mr = kernels->mr, nr = kernels->nr;
    if (t->whole) {
        const struct qkv_band all = {part->rows, t->row->from, t->row->to};
        float *max = kernels->gemm_max ? part->max : NULL;
        score(kernels, part, keys, 0, all, max,
              ahead_of(part, block, keys, part->plan->problem.head_dim));
        return max;
    }
    struct qkv_band band;
    for (int c = t->from / nr * nr; c < t->to; c += nr) {
        for (int r = 0; r < part->rows; r += band.rows) {
            band = qkv_band_of(t, part, mr, r, c, c + nr);
            if (band.from < band.to)
                score(kernels, part, keys, r, band, NULL, 0);
        }
    }
    return NULL;
}

const float *qkv_weigh_tiles(const struct qkv_part *part, const struct qkv_tiles *t,
                             const float *max, const struct qkv_accumulator *acc, int bad) {
    const struct qkv_score_rule *rule = &part->plan->problem.rule;
    float *factor = qkv_numbers(part, QKV_N_FACTOR);
    const struct qkv_weigh w = {
        .row = t->row,
        .rule = rule,
        .max = max,
        .state = acc->state,
        .factor = factor,
        .rows = part->rows,
        .whole = t->whole,
        .mark = bad,
        .halves = part->plan->table->halves,
    };
    kernels_of(part)->weigh[rule->exp](&w);
    return factor;
}

/* Zeros in the rows of a tile that no product has written. */
static void begin_tile(struct qkv_accumulator *acc, const struct qkv_part *part, int r, int mr) {
    const int64_t v_pad = part->plan->v_pad;
    if (!acc->begun[r])
        memset(acc->rows + r * v_pad, 0,
               (size_t)(qkv_tile_rows(part, r, mr) * v_pad) * sizeof(float));
    acc->begun[r] = acc->any = 1;
}

static float *out_row(const struct qkv_part *part, int r) {
    const struct qkv_row *row = part->row + r;
    return qkv_q_row(&part->tensors->out, &part->plan->problem, &part->sequence, row->head,
                     row->index);
}

/* Weights of a band's rows times V: added to their accumulators times the factors, or (NULL)
 * written there; or to the user, if they end here. */
INLINE void mix(const struct qkv_part *part, const float *values, const struct qkv_accumulator *acc,
                int r, struct qkv_band band, const float *factor, uintptr_t ahead) {
    const int64_t v_pad = part->plan->v_pad;
    struct qkv_gemm g = {
        .a = part->scores + r * QKV_SCORES_LD + band.from,
        .lda = QKV_SCORES_LD,
        .a_k = 1,
        .b = values + band.from * v_pad,
        .b_k = v_pad,
        .b_g = QKV_PANEL,
        .c = acc->rows + r * v_pad,
        .ldc = v_pad,
        .m = band.rows,
        .n = v_pad,
        .k = band.to - band.from,
        .factor = factor,
        .ahead = ahead,
    };
    if (acc->scale) {
        g.scale = acc->scale + r;
        g.out = out_row(part, r);
        g.ld_out = part->tensors->out.stride[2];
    }
    kernels_of(part)->gemm(&g);
}

/* The same without the keys that are marked, for values that hold infinities or NaN. */
static void mix_marked(const struct qkv_part *part, const float *values,
                       const struct qkv_accumulator *acc, int r, struct qkv_band band,
                       const float *factor) {
    const int64_t v_pad = part->plan->v_pad;
    for (int i = r; i < r + band.rows; i++)
        kernels_of(part)->marked(acc->rows + i * v_pad, factor[i - r],
                                 part->scores + i * QKV_SCORES_LD + band.from,
                                 values + band.from * v_pad, v_pad, band.to - band.from, v_pad);
}

/* A band's tiles may all be added to once some of them have been written. A row whose tile has not
 * begun had nothing before: its factor is 1. */
void qkv_mix_tiles(const struct qkv_part *part, const struct qkv_tiles *t,
                   const struct qkv_key_block *block, const float *values,
                   struct qkv_accumulator *acc, const float *factor, int bad) {
    const int mr = kernels_of(part)->mr, nr = kernels_of(part)->nr;
    struct qkv_band band;
    for (int r = 0; r < part->rows; r += band.rows) {
        band = qkv_key_band_of(t, part, mr, r, block, nr, part->plan->v_pad);
        if (band.from >= band.to)
            continue;
        const int add = acc->any || bad;
        for (int i = r; i < r + band.rows; i += mr) {
            if (add)
                begin_tile(acc, part, i, mr);
            acc->begun[i] = 1;
            if (acc->scale)
                acc->gone[i] = 1;
        }
        if (bad)
            mix_marked(part, values, acc, r, band, factor + r);
        else
            mix(part, values, acc, r, band, add ? factor + r : NULL,
                band.rows == part->rows ? ahead_of(part, block, values, part->plan->v_pad) : 0);
    }
    acc->any = 1;
}

/* Sums, with the sinks, to what accumulators are multiplied by, and the LSE to the user if it is
 * wanted. */
static const float *seal(const struct qkv_part *part, struct qkv_running total) {
    const struct qkv_problem *p = &part->plan->problem;
    const struct qkv_sequence *s = &part->sequence;
    float *sink = qkv_numbers(part, QKV_N_SINK), *scale = qkv_numbers(part, QKV_N_SCALE);
    float *lse = part->tensors->lse.data ? qkv_numbers(part, QKV_N_LSE) : NULL;

    /* A row beyond a padded sequence's length has no sink either. */
    for (int r = 0; r < padded_rows(part); r++)
        sink[r] = -INFINITY;
    for (int r = 0; p->sinks && r < part->rows; r++)
        if (part->row[r].index < s->q_len)
            sink[r] = p->sinks[part->row[r].head];
    kernels_of(part)->seal(total, sink, part->rows, scale, lse);
    for (int r = 0; r < part->rows && lse; r++)
        *qkv_q_row(&part->tensors->lse, p, s, part->row[r].head, part->row[r].index) = lse[r];
    return scale;
}

/* Rows [r, end) of an accumulator to the user, the rows of a query head at once. */
static void store(const struct qkv_part *part, const float *acc, const float *scale, int r,
                  int end) {
    const int64_t v_pad = part->plan->v_pad;
    for (int n; r < end; r += n) {
        n = (int)qkv_min(end - r, part->sequence.rows - part->row[r].index);
        kernels_of(part)->store(out_row(part, r), part->tensors->out.stride[2], acc + r * v_pad,
                                v_pad, scale + r, n, part->plan->problem.v_dim);
    }
}

void qkv_store_rows(const struct qkv_part *part, struct qkv_running total, const float *acc) {
    store(part, acc, seal(part, total), 0, part->rows);
}

/* The tiles' rows that have not gone there. */
static void store_rest(const struct qkv_part *part, const struct qkv_accumulator *acc) {
    const int mr = kernels_of(part)->mr;
    for (int r = 0; r < part->rows; r += mr)
        if (!acc->gone[r])
            store(part, acc->rows, acc->scale, r, r + qkv_tile_rows(part, r, mr));
}

/* The key block after the last that any row sees. */
static int64_t end_block(const struct qkv_part *part) {
    return qkv_round_up(part->hi, QKV_KEY_BLOCK) / QKV_KEY_BLOCK;
}

/* The last block, if the rows are one piece and stand in the user's memory as they do in the
 * accumulator. */
static int64_t last_block(const struct qkv_part *part) {
    const qkv_tensor *out = &part->tensors->out;
    const int64_t last = end_block(part) - 1;
    const int dense = part->row[0].head == part->row[part->head_rows - 1].head ||
                      out->stride[1] == part->sequence.rows * out->stride[2];
    const int whole = part->plan->problem.v_dim == part->plan->v_pad;
    return dense && whole && part->lo / QKV_PIECE == last * QKV_KEY_BLOCK / QKV_PIECE ? last : -1;
}

void qkv_end_rows(const struct qkv_part *part, int64_t index, struct qkv_accumulator *acc,
                  int bad) {
    if (index != acc->last || bad)
        return;
    acc->scale = seal(part, acc->state);
    memset(acc->gone, 0, sizeof(acc->gone));
}

/* One key block into the accumulator of the piece. */
static void attend_block(const struct qkv_part *part, int64_t index, struct qkv_accumulator *acc) {
    const struct qkv_attention_kernels *kernels = kernels_of(part);
    const struct qkv_key_block block = qkv_part_key_block(part, index);
    struct qkv_tiles *t = part->tiles;
    int bad;

    qkv_lay_next_tiles(t, part, &block, kernels->mr, kernels->sees);
    if (!t->any)
        return;
    const float *keys = qkv_part_keys(part, &block, &kernels->pack);
    const float *max = qkv_score_tiles(part, t, &block, keys);
    /* The keys' memory may be the values' as well: nothing reads the keys below. */
    const float *values = qkv_part_values(part, &block, &kernels->pack, &bad);
    if (bad)
        qkv_lay_all_rows(t, part, &block);
    const float *factor = qkv_weigh_tiles(part, t, max, acc, bad);
    qkv_end_rows(part, index, acc, bad);
    qkv_mix_tiles(part, t, &block, values, acc, factor, bad);
}

int64_t qkv_attend_piece(const struct qkv_part *part, int64_t b, int64_t end,
                         struct qkv_accumulator *acc, qkv_attend_fn *attend) {
    const int64_t blocks = QKV_PIECE / QKV_KEY_BLOCK, piece = b / blocks;
    const int mr = kernels_of(part)->mr;
    for (; b < end && b / blocks == piece; b++)
        attend(part, b, acc);
    for (int r = 0; r < part->rows; r += mr)
        begin_tile(acc, part, r, mr);
    return b;
}

void qkv_attend_rows(const struct qkv_part *part, qkv_attend_fn *attend) {
    const int64_t end = end_block(part);
    const int64_t v_pad = part->plan->v_pad;
    const struct qkv_running total = qkv_running_of(part, QKV_N_MAX, QKV_N_SUM);
    const struct qkv_running later = qkv_running_of(part, QKV_N_PIECE_MAX, QKV_N_PIECE_SUM);
    struct qkv_accumulator acc;

    qkv_begin_piece(&acc, part, total, part->acc);
    acc.last = last_block(part);
    int64_t b = qkv_attend_piece(part, part->lo / QKV_KEY_BLOCK, end, &acc, attend);
    if (acc.scale) {
        store_rest(part, &acc);
        return;
    }
    while (b < end) {
        qkv_begin_piece(&acc, part, later, part->piece);
        b = qkv_attend_piece(part, b, end, &acc, attend);
        kernels_of(part)->merge(part->acc, total, part->piece, later, v_pad, part->rows, v_pad);
    }
    qkv_store_rows(part, total, part->acc);
}

/* ---- Several key/value heads at once ----
 *
 * Their rows are one row block, and all see the same of the only key block. Each head has products
 * of its own; the rest is done once for all of them. */

/* The heads' keys stand packed one head after the other. */
static const float *score_heads(const struct qkv_part *part, const struct qkv_key_block *block,
                                const struct qkv_tiles *t) {
    const struct qkv_attention_kernels *kernels = kernels_of(part);
    const int rows = part->head_rows;
    float *max = t->whole && kernels->gemm_max ? part->max : NULL;
    struct qkv_part head = *part;
    for (int r = 0; r < part->rows; r += rows) {
        const float *keys = qkv_part_keys(&head, block, &kernels->pack);
        const struct qkv_band band = {rows, t->from, t->to};
        score(kernels, part, keys, r, band, max ? max + r * QKV_PANEL : NULL, 0);
        head.kv_head++;
        head.block += t->to * part->plan->problem.head_dim;
    }
    return max;
}

/* Where the heads' values are; returns whether any of them is not finite. */
static int find_values(const struct qkv_part *part, const struct qkv_key_block *block,
                       const struct qkv_tiles *t, const float **values) {
    struct qkv_part head = *part;
    int any = 0, bad;
    for (int h = 0; h < part->heads; h++) {
        values[h] = qkv_part_values(&head, block, &kernels_of(part)->pack, &bad);
        any |= bad;
        head.kv_head++;
        head.block += t->to * part->plan->v_pad;
    }
    return any;
}

static void mix_heads(const struct qkv_part *part, const struct qkv_tiles *t,
                      const float *const *values, struct qkv_accumulator *acc, const float *factor,
                      int bad) {
    const int rows = part->head_rows;
    const struct qkv_band band = {rows, t->row->lo, t->row->hi};
    if (bad)
        memset(acc->rows, 0, (size_t)(part->rows * part->plan->v_pad) * sizeof(float));
    for (int h = 0; h < part->heads; h++)
        if (bad)
            mix_marked(part, values[h], acc, h * rows, band, factor + h * rows);
        else
            mix(part, values[h], acc, h * rows, band, NULL, 0);
    acc->any = 1;
    memset(acc->begun, 1, (size_t)part->rows);
    memset(acc->gone, 1, (size_t)part->rows);
}

static void attend_heads(const struct qkv_part *part, int64_t index, struct qkv_accumulator *acc) {
    const struct qkv_attention_kernels *kernels = kernels_of(part);
    const struct qkv_key_block block = qkv_part_key_block(part, index);
    struct qkv_tiles *t = part->tiles;
    const float *values[QKV_HEADS];

    qkv_lay_next_tiles(t, part, &block, kernels->mr, kernels->sees);
    const float *max = score_heads(part, &block, t);
    const int bad = find_values(part, &block, t, values);
    if (bad)
        qkv_lay_all_rows(t, part, &block);
    const float *factor = qkv_weigh_tiles(part, t, max, acc, bad);
    qkv_end_rows(part, index, acc, bad);
    mix_heads(part, t, values, acc, factor, bad);
}

/* How many of the `most` parts from part `index` on are one row block. */
static int heads_from(const struct qkv_plan_state *plan, int64_t index, int64_t most) {
    const int64_t heads = plan->problem.kv_heads;
    if (plan->together == 1)
        return 1;
    return (int)qkv_min(qkv_min(most, plan->together), heads - index % heads);
}

void qkv_attention_parts(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                         const qkv_workspace *workspace, int32_t phase, int64_t begin,
                         int64_t end) {
    struct qkv_part part;
    struct qkv_tiles tiles;
    tiles.laid = 0;
    part.tiles = &tiles;
    if (plan->packs && phase == 0) {
        for (int64_t i = begin; i < end; i++)
            qkv_pack_part(plan, tensors, workspace->shared, &plan->table->attention->pack, i);
        return;
    }
    for (int64_t i = begin, n; i < end; i += n) {
        n = heads_from(plan, i, end - i);
        if (!qkv_part_begin_heads(&part, plan, tensors, workspace, i, (int)n))
            continue;
        qkv_part_take_queries(&part);
        qkv_attend_rows(&part, n > 1 ? attend_heads : attend_block);
    }
}
