/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over a block of keys and values that are read as the cache stores them: by a few rows,
 * or, in narrow arithmetic, by any number of them, a strip of a few after the other.
 */
#include <math.h>
#include <string.h>

#include "decode.h"
#include "stored_block.h"

/* A block on its way, in strips of rows: those of each head, or QKV_FEW at a time of one head. */
struct stored_way {
    const struct qkv_part *part;
    struct qkv_key_block block;
    struct qkv_stored_block stored[QKV_TOGETHER]; /* by head */
    int bad;                                      /* some value of them is not finite */
    int strip;                                    /* rows of a strip but perhaps the last */
    struct qkv_tiles tiles;
    const void *next[QKV_BLOCK_PANELS]; /* the keys that come after it */
    int nexts;                          /* -1: nothing is asked for ahead */
    int in_order;                       /* where they are: panels are taken in their order */
    int lanes;                          /* where they are: as several streams */
};

static const struct qkv_decode_layout *layout_of(const struct qkv_part *part) {
    return &part->plan->decode;
}

/* What the products read: rows of a multiple of 4 numbers. */
static int64_t q_stride(const struct qkv_part *part) {
    return qkv_round_up(part->plan->problem.head_dim, 4);
}

/* Of more rows than this an unpacked copy of a block is worth its making, in float32
 * (docs/performance/tried-decode.md). */
enum { FEW_ROWS = 12 };

int qkv_reads_stored(const struct qkv_part *part) {
    return part->rows <= FEW_ROWS || part->plan->problem.narrow;
}

static void load_padded(const struct qkv_part *part) {
    const struct qkv_problem *p = &part->plan->problem;
    const int64_t ld = q_stride(part), dim = p->head_dim;
    for (int r = 0; r < part->rows; r++) {
        const struct qkv_row *row = part->row + r;
        float *q = part->q + r * ld;
        memset(q + dim, 0, (size_t)(ld - dim) * sizeof(float));
        if (row->index < part->sequence.q_len)
            memcpy(q, qkv_q_row(&part->tensors->q, p, &part->sequence, row->head, row->index),
                   (size_t)dim * sizeof(float));
        else
            memset(q, 0, (size_t)dim * sizeof(float));
    }
}

void qkv_load_stored_queries(const struct qkv_part *part) {
    const struct qkv_narrow_kernels *narrow = layout_of(part)->narrow_k;
    const int64_t dim = part->plan->problem.head_dim;
    if (q_stride(part) == dim)
        qkv_part_load_queries(part);
    else
        load_padded(part);
    if (narrow)
        narrow->round_queries(part->q, q_stride(part), part->rows, 0, (int)dim,
                              qkv_numbers(part, QKV_N_Q_SCALE));
}

/* A call that reads more than MOST finds little of it in the processor's caches, and asks for what
 * it will read; one that reads less than LEAST finds all of it, and asking takes time. In between
 * it depends on how long a row block works on a line: while it multiplies but a few vectors, the
 * processor runs far enough ahead by itself. Both are less where the last-level cache is small. Of
 * more than it holds, little is left there from call to call: then, if the work on a line is short
 * and the processor's own prefetchers are good at it, panels are taken in their order, as a stream
 * or two. Where they are not, what comes next is asked for as several streams where that cache
 * seldom holds much of it, unless the work on a line takes longer than reading it
 * (docs/performance/tried-decode.md). No bit depends on any of it. */
enum {
    LEAST = 1 << 20,
    MOST = 8 << 20,
    LINE = 64,
    MANY_VECTORS = 8,
    MOST_VECTORS = 32,
};

static int64_t panel_bytes(const struct qkv_plan_state *plan) {
    const struct qkv_cache_state *c = &plan->decode.cache;
    return (int64_t)(c->k.panel + c->v.panel);
}

/* Do `rows` rows multiply so many vectors with a line of the cache? In narrow arithmetic a word of
 * it goes into a lane. */
static int multiplies(const struct qkv_plan_state *plan, int64_t rows, int64_t vectors) {
    const struct qkv_problem *p = &plan->problem;
    const int64_t bytes = panel_bytes(plan);
    const int64_t numbers = p->narrow ? bytes / (int64_t)sizeof(float)
                                      : QKV_PANEL * (p->head_dim + p->v_dim);
    return rows * numbers * LINE >= vectors * plan->table->decode->lanes * bytes;
}

static int works_long(const struct qkv_plan_state *plan, int64_t rows) {
    return multiplies(plan, rows, MANY_VECTORS);
}

/* Panels of a sequence in a call of sequences like it. */
static int64_t panels_of(const struct qkv_plan_state *plan, const struct qkv_sequence *sequence) {
    const struct qkv_problem *p = &plan->problem;
    return p->batch * p->kv_heads * (sequence->kv_len / QKV_PANEL);
}

int qkv_is_streamed(const struct qkv_plan_state *plan, const struct qkv_sequence *sequence) {
    const int64_t last = plan->table->last_cache > 0 ? plan->table->last_cache : INT64_MAX;
    const int64_t most = works_long(plan, sequence->rows * plan->problem.group)
                             ? qkv_min(LEAST, last / 8)
                             : qkv_min(MOST, last / 4);
    return panels_of(plan, sequence) > most / panel_bytes(plan);
}

int qkv_is_read_in_order(const struct qkv_plan_state *plan, const struct qkv_sequence *sequence) {
    const struct qkv_problem *p = &plan->problem;
    const struct qkv_cache_state *c = &plan->decode.cache;
    const int *widest = plan->table->decode->in_order;
    const int64_t last = plan->table->last_cache;
    return last > 0 && plan->table->follows && !p->narrow && plan->v_pad <= widest[c->k.type] &&
           plan->v_pad <= widest[c->v.type] && !works_long(plan, sequence->rows * p->group) &&
           panels_of(plan, sequence) > last / panel_bytes(plan);
}

int qkv_is_read_in_lanes(const struct qkv_plan_state *plan, const struct qkv_sequence *sequence) {
    return !plan->table->follows &&
           panels_of(plan, sequence) > qkv_seldom_cached(plan->table) / panel_bytes(plan) &&
           !multiplies(plan, sequence->rows * plan->problem.group, MOST_VECTORS);
}

static const struct qkv_stored_block *stored_of(const struct stored_way *way, int r) {
    return way->stored + (way->part->heads > 1 ? r / way->strip : 0);
}

static int strip_rows(const struct stored_way *way, int r) {
    return qkv_tile_rows(way->part, r, way->strip);
}

static int sees_any(const struct stored_way *way, int r) {
    return way->tiles.row[r].from < way->tiles.row[r].to;
}

/* The scores of the strip from row r on; the first one asks for what all of them will read. */
static struct qkv_key_product keys_of(const struct stored_way *way, int r) {
    const struct qkv_part *part = way->part;
    const struct qkv_stored_block *s = stored_of(way, r);
    const struct qkv_score_row *row = way->tiles.row + r;
    const int first = row->from / QKV_PANEL;
    return (struct qkv_key_product){
        .q = part->q + r * q_stride(part),
        .panel = s->k + first,
        .scale = qkv_has_scales(&layout_of(part)->cache.k) ? s->k_scale + first : NULL,
        .row_scale = qkv_numbers(part, QKV_N_Q_SCALE) + r,
        .s = row->s + row->from,
        .ldq = q_stride(part),
        .lds = QKV_SCORES_LD,
        .k = part->plan->problem.head_dim,
        .rows = strip_rows(way, r),
        .panels = row->to / QKV_PANEL - first,
        .next = r == 0 && way->nexts >= 0 ? s->v + s->first : NULL,
        .nexts = s->end - s->first,
        .in_order = way->in_order,
        .lanes = way->lanes,
        .halves = part->plan->table->halves,
    };
}

static void score_strip(const struct stored_way *way, int r) {
    const struct qkv_decode_layout *d = layout_of(way->part);
    const struct qkv_key_product keys = keys_of(way, r);
    if (d->narrow_k)
        d->narrow_k->keys(&keys);
    else
        way->part->plan->table->decode->keys[d->cache.k.type](&keys);
}

static void score(const struct stored_way *way) {
    for (int r = 0; r < way->part->rows; r += way->strip)
        if (sees_any(way, r))
            score_strip(way, r);
}

/* The columns that row r's strip sees. */
struct seen {
    int from, to;
};

static struct seen seen_of(const struct stored_way *way, int r) {
    const struct qkv_score_row *row = way->tiles.row + r;
    return (struct seen){row->from > way->block.lo ? row->from : way->block.lo,
                         row->to < way->block.hi ? row->to : way->block.hi};
}

/* `rows` rows of weights from row r on, times the panels of values. */
static struct qkv_value_product values_of(const struct stored_way *way, int r, int rows,
                                          const void *const *panel,
                                          const struct qkv_accumulator *acc) {
    const struct qkv_part *part = way->part;
    const struct seen seen = seen_of(way, r);
    const int64_t v_pad = part->plan->v_pad;
    return (struct qkv_value_product){
        .w = part->scores + r * QKV_SCORES_LD,
        .panel = panel,
        .row_scale = qkv_numbers(part, QKV_N_W_SCALE) + r,
        .acc = acc->rows + r * v_pad,
        .factor = acc->any ? qkv_numbers(part, QKV_N_FACTOR) + r : NULL,
        .ldw = QKV_SCORES_LD,
        .ld_acc = v_pad,
        .n = v_pad,
        .rows = rows,
        .from = seen.from,
        .to = seen.to,
        .next = r || way->nexts < 0 ? NULL
                : way->nexts > 0    ? way->next
                                    : way->stored->k + way->stored->first,
        .nexts = way->nexts > 0 ? way->nexts : 1,
        .in_order = way->in_order,
        .lanes = way->lanes,
        .halves = part->plan->table->halves,
    };
}

/* Tokens of the row's panels that it does not see, whose scales may be anything, are zeros. */
static void clear_unseen(const struct qkv_score_row *row, const struct seen *seen) {
    memset(row->s + row->from, 0, (size_t)(seen->from - row->from) * sizeof(float));
    memset(row->s + seen->to, 0, (size_t)(row->to - seen->to) * sizeof(float));
}

static void mix_narrow(const struct stored_way *way, int r, int rows, const void *const *panel,
                       const struct qkv_accumulator *acc) {
    const struct qkv_narrow_kernels *narrow = layout_of(way->part)->narrow_v;
    const struct qkv_value_product values = values_of(way, r, rows, panel, acc);
    const struct qkv_score_row *row = way->tiles.row + r;
    const struct seen seen = seen_of(way, r);
    for (int i = 0; i < rows; i++)
        clear_unseen(row + i, &seen);
    narrow->round_weights(row->s, QKV_SCORES_LD, rows, row->from, row->to,
                          qkv_numbers(way->part, QKV_N_W_SCALE) + r);
    narrow->values(&values);
}

static void mix_strip(const struct stored_way *way, int r, const struct qkv_accumulator *acc) {
    const struct qkv_decode_layout *d = layout_of(way->part);
    const int rows = strip_rows(way, r);
    const void *const *panel = stored_of(way, r)->v;
    if (d->narrow_v) {
        mix_narrow(way, r, rows, panel, acc);
        return;
    }
    const struct qkv_value_product values = values_of(way, r, rows, panel, acc);
    way->part->plan->table->decode->values[d->cache.v.type](&values);
}

static void have_begun(const struct qkv_part *part, struct qkv_accumulator *acc) {
    acc->any = 1;
    for (int r = 0; r < part->rows; r++)
        acc->begun[r] = 1;
}

/* Zeros in all rows, so that some of them can be added to. */
static void begin_rows(const struct qkv_part *part, struct qkv_accumulator *acc) {
    if (!acc->any)
        memset(acc->rows, 0, (size_t)(part->rows * part->plan->v_pad) * sizeof(float));
    have_begun(part, acc);
}

/* The first product writes the rows, if that does for all of them. */
static void mix_strips(const struct stored_way *way, struct qkv_accumulator *acc) {
    const struct qkv_part *part = way->part;
    for (int r = 0; r < part->rows; r += way->strip)
        if (!sees_any(way, r))
            begin_rows(part, acc);
    for (int r = 0; r < part->rows; r += way->strip)
        if (sees_any(way, r))
            mix_strip(way, r, acc);
    have_begun(part, acc);
}

/* Token t of a panel of values of 2 bytes each becomes zeros. */
static void clear_token(uint16_t *panel, int t, int unit, int64_t v_pad) {
    uint16_t *number = panel + (t / unit * v_pad) * unit + t % unit;
    for (int64_t c = 0; c < v_pad; c++)
        number[c * unit] = 0;
}

/* The block's values as row r sees them, in the worker's memory. */
static void copy_seen(const struct stored_way *way, int r, const void **panel) {
    const struct qkv_part *part = way->part;
    const struct qkv_stored_layout *l = &layout_of(part)->cache.v;
    const struct qkv_score_row *row = way->tiles.row + r;
    char *copy = (char *)part->block;
    for (int g = row->from / QKV_PANEL; g < row->to / QKV_PANEL; g++, copy += l->panel) {
        memcpy(copy, stored_of(way, r)->v[g], l->panel);
        for (int t = 0; t < QKV_PANEL; t++)
            if (signbit(row->s[g * QKV_PANEL + t]))
                clear_token((uint16_t *)copy, t, l->unit, part->plan->v_pad);
        panel[g] = copy;
    }
}

static void mix_copied(const struct stored_way *way, struct qkv_accumulator *acc) {
    const void *panel[QKV_BLOCK_PANELS];
    for (int r = 0; r < way->part->rows; r++)
        if (sees_any(way, r)) {
            copy_seen(way, r, panel);
            mix_narrow(way, r, 1, panel, acc);
        }
}

/* Row r's weights times values as floats. */
static void mix_row(const struct stored_way *way, int r, const float *values,
                    const struct qkv_accumulator *acc) {
    const struct qkv_part *part = way->part;
    const int64_t v_pad = part->plan->v_pad;
    const struct seen s = seen_of(way, r);
    part->plan->table->attention->marked(acc->rows + r * v_pad, qkv_numbers(part, QKV_N_FACTOR)[r],
                                         part->scores + r * QKV_SCORES_LD + s.from,
                                         values + s.from * v_pad, v_pad, s.to - s.from, v_pad);
}

static void mix_unpacked(const struct stored_way *way, struct qkv_accumulator *acc) {
    const struct qkv_part *part = way->part;
    for (int r = 0; r < part->rows; r += way->strip) {
        if (!sees_any(way, r))
            continue;
        const float *values = qkv_unpacked_values(stored_of(way, r), part, &way->block);
        for (int i = r; i < r + strip_rows(way, r); i++)
            mix_row(way, i, values, acc);
    }
}

/* Row by row; rare. */
static void mix_marked(const struct stored_way *way, struct qkv_accumulator *acc) {
    begin_rows(way->part, acc);
    if (layout_of(way->part)->narrow_v)
        mix_copied(way, acc);
    else
        mix_unpacked(way, acc);
}

static void find_blocks(struct stored_way *way) {
    const struct qkv_part *part = way->part;
    way->bad = 0;
    for (int i = 0; i < part->heads; i++) {
        qkv_find_block(way->stored + i, part, part->kv_head + i, &way->block);
        way->bad |= way->stored[i].bad;
    }
    way->nexts = qkv_is_streamed(part->plan, &part->sequence)
                     ? qkv_find_next(way->next, part, &way->block)
                     : -1;
    way->lanes = way->nexts >= 0 && qkv_is_read_in_lanes(part->plan, &part->sequence);
    way->in_order = way->nexts >= 0 && qkv_is_read_in_order(part->plan, &part->sequence);
}

/* Scores to weights, with the scales that values have. */
static void weigh(const struct stored_way *way, const struct qkv_accumulator *acc) {
    const struct qkv_part *part = way->part;
    qkv_weigh_tiles(part, &way->tiles, NULL, acc, way->bad);
    for (int r = 0; r < part->rows; r += way->strip)
        qkv_scale_weights(part, stored_of(way, r), r, strip_rows(way, r));
}

/* Values that are not finite are kept from a row by its marks; integers by their scales, which are
 * in the weights. */
void qkv_attend_stored(const struct qkv_part *part, int64_t index, struct qkv_accumulator *acc) {
    struct stored_way way;
    way.part = part;
    way.block = qkv_part_key_block(part, index);
    way.strip = part->heads > 1 ? part->head_rows : QKV_FEW;
    qkv_lay_tiles(&way.tiles, part, &way.block, way.strip, part->plan->table->attention->sees);
    if (!way.tiles.any)
        return;
    find_blocks(&way);
    score(&way);
    weigh(&way, acc);
    if (way.bad && !qkv_has_scales(&layout_of(part)->cache.v))
        mix_marked(&way, acc);
    else
        mix_strips(&way, acc);
}
