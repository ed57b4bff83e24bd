/* SPDX-License-Identifier: Apache-2.0 */
/* Sweeps over sizes. A dimension is the place of a number in a description and the list of its
 * edges, which come from the kernels' own tile sizes. */
#include "sizes.h"

#include <stddef.h>
#include <string.h>

#include "support/compare.h"
#include "context.h"
#include "options.h"
#include "project.h"
#include "support/project_case.h"

enum { EDGES_MAX = 64, DIMENSIONS_MAX = 6 };

struct dimension {
    size_t offset;
    int64_t most;
    int count;
    int64_t edges[EDGES_MAX];
};

struct sweep {
    const qkv_context *context;
    int stage;
    int count;
    struct dimension dimension[DIMENSIONS_MAX];
};

/* ---- The lists ---- */

static void add_edge(struct dimension *d, int64_t edge) {
    for (int i = 0; i < d->count; i++)
        if (d->edges[i] == edge)
            return;
    if (edge >= 1 && edge <= d->most && d->count < EDGES_MAX)
        d->edges[d->count++] = edge;
}

static void add_dimension(struct sweep *s, size_t offset, int64_t most, const int64_t *units,
                          int count) {
    struct dimension *d = &s->dimension[s->count++];
    *d = (struct dimension){.offset = offset, .most = most};
    for (int64_t i = 1; i <= 17; i++)
        add_edge(d, i);
    for (int i = 0; i < count; i++)
        for (int64_t near = -1; near <= 1; near++)
            add_edge(d, units[i] + near);
}

struct tile {
    int64_t mr, nr;
};

static struct tile tile_of(const qkv_context *context, int stage) {
    const struct qkv_table *table = &qkv_context_get(context)->table;
    switch (stage) {
    case QKV_STAGE_PROJECT:
        return (struct tile){table->project->mr, table->project->nr};
    case QKV_STAGE_SCORES:
        return (struct tile){table->scores->mr, table->scores->nr};
    case QKV_STAGE_MIX:
        return (struct tile){table->mix->mr, table->mix->nr};
    default: /* softmax has no tile of its own, and the backward stages have those of attention */
        return (struct tile){table->attention->mr, table->attention->nr};
    }
}

#define UNITS(...) (const int64_t[]){__VA_ARGS__}, sizeof((int64_t[]){__VA_ARGS__}) / 8

static struct sweep attention_sweep(const qkv_context *context, int stage) {
    struct sweep s = {.context = context, .stage = stage};
    struct tile t = tile_of(context, stage);
    bool both = stage == QKV_STAGE_ATTENTION || stage == QKV_STAGE_ATTENTION_BACKWARD;
    bool has_q = both || stage == QKV_STAGE_SCORES || stage == QKV_STAGE_SCORES_BACKWARD;
    bool has_v = both || stage == QKV_STAGE_MIX || stage == QKV_STAGE_MIX_BACKWARD;
    int64_t most = QKV_HEAD_DIM_MAX;
    /* The backward stages also sum over rows, block by block: an edge that is there already is not
     * added again. */
    const int64_t blocks = stage_is_backward(stage) ? 2 : 1;
    add_dimension(&s, offsetof(struct desc, q_len), 4096,
                  UNITS(t.mr, 2 * t.mr, QKV_ROWS, blocks * QKV_ROWS));
    add_dimension(&s, offsetof(struct desc, kv_len), 4096,
                  UNITS(QKV_PANEL, t.nr, QKV_KEY_BLOCK, QKV_PIECE, QKV_PIECE + QKV_KEY_BLOCK,
                        blocks * QKV_KEY_BLOCK));
    if (has_q)
        add_dimension(&s, offsetof(struct desc, head_dim), most,
                      UNITS(t.mr, QKV_PANEL, t.nr, QKV_KEY_BLOCK, most));
    if (has_v)
        add_dimension(&s, offsetof(struct desc, v_dim), most,
                      UNITS(QKV_PANEL, t.nr, 2 * t.nr, QKV_KEY_BLOCK, most));
    add_dimension(&s, offsetof(struct desc, q_heads), 4096, UNITS(t.mr, QKV_ROWS));
    return s;
}

static struct sweep project_sweep(const qkv_context *context) {
    struct sweep s = {.context = context, .stage = QKV_STAGE_PROJECT};
    struct tile t = tile_of(context, QKV_STAGE_PROJECT);
    const int few = qkv_context_get(context)->table.project->few;
    add_dimension(&s, offsetof(struct project_desc, tokens), 4096,
                  UNITS(t.mr, 2 * t.mr, 3 * t.mr, 4 * t.mr, 8 * t.mr, few, QKV_PROJECT_TOKENS,
                        2 * QKV_PROJECT_TOKENS));
    add_dimension(&s, offsetof(struct project_desc, d_model), 4096,
                  UNITS(QKV_STRETCH, 2 * QKV_STRETCH, QKV_PROJECT_DEPTH,
                        QKV_PROJECT_DEPTH + QKV_STRETCH, 2 * QKV_PROJECT_DEPTH));
    add_dimension(&s, offsetof(struct project_desc, head_dim), 4096,
                  UNITS(QKV_PANEL, 2 * QKV_PANEL, 3 * QKV_PANEL, QKV_PROJECT_COLUMNS,
                        2 * QKV_PROJECT_COLUMNS, 4 * QKV_PROJECT_COLUMNS));
    add_dimension(&s, offsetof(struct project_desc, q_heads), 17, UNITS(t.mr));
    return s;
}

static struct sweep sweep_of(const qkv_context *context, int stage) {
    return stage == QKV_STAGE_PROJECT ? project_sweep(context) : attention_sweep(context, stage);
}

/* ---- One point of a sweep ---- */

static void set_size(void *desc, const struct dimension *d, int edge) {
    memcpy((char *)desc + d->offset, &d->edges[edge], sizeof(int64_t));
}

/* A pair of edges; the same dimension twice stands for one dimension alone. */
struct point {
    const struct dimension *a, *b;
    int edge_a, edge_b;
    uint64_t number;
};

static struct verdict check_project_point(const struct sweep *s, const struct point *p) {
    struct project_desc d = project_desc_plain();
    d.seed = p->number;
    if (p->number % 4 == 3) /* many tokens: blocks of inputs one after the other */
        d.tokens = qkv_context_get(s->context)->table.project->few + 1;
    set_size(&d, p->a, p->edge_a);
    set_size(&d, p->b, p->edge_b);
    d.layout = p->number % 2 ? QKV_W_OUT_IN : QKV_W_IN_OUT;
    d.packed = p->number / 2 % 2;
    d.biases = p->number % 8;
    for (int role = 0; role < PROJECT_ROLES; role++)
        d.place[role].side = p->number / 4 % 2 ? GUARD_BEGIN : GUARD_END;
    return check_project(s->context, &d);
}

/* Plain, flush against either page; every fourth point also with an option. */
static struct verdict check_attention_point(const struct sweep *s, const struct point *p) {
    struct desc d = desc_plain();
    d.seed = p->number;
    set_size(&d, p->a, p->edge_a);
    set_size(&d, p->b, p->edge_b);
    for (int role = 0; role < ROLE_COUNT; role++) {
        d.layout[role].side = p->number % 2 ? GUARD_BEGIN : GUARD_END;
        d.layout[role].offset = p->number % 8 == 3;
    }
    struct verdict verdict = check_desc(s->context, s->stage, &d);
    if (!verdict.ok || p->number % 4 != 0)
        return verdict;
    option_set(&d, (int)(p->number / 4 % (uint64_t)option_count()));
    return check_desc(s->context, s->stage, &d);
}

static struct verdict check_point(const struct sweep *s, const struct point *p) {
    return s->stage == QKV_STAGE_PROJECT ? check_project_point(s, p) : check_attention_point(s, p);
}

/* ---- The sweeps ---- */

struct verdict check_sizes_alone(const qkv_context *context, int stage) {
    struct sweep s = sweep_of(context, stage);
    struct verdict verdict = verdict_ok();
    const int one_in = test_thinning();
    uint64_t number = 0;
    for (int i = 0; i < s.count; i++)
        for (int e = 0; e < s.dimension[i].count; e++)
            for (int repeat = 0; repeat < 4 && verdict.ok; repeat++) {
                struct point p = {&s.dimension[i], &s.dimension[i], e, e, number++};
                if (test_takes(p.number, one_in))
                    verdict = check_point(&s, &p);
            }
    return verdict;
}

static struct verdict check_pair(const struct sweep *s, const struct dimension *a,
                                 const struct dimension *b, uint64_t *number) {
    struct verdict verdict = verdict_ok();
    const int one_in = test_stride() * stage_share(s->stage);
    for (int i = 0; i < a->count; i++)
        for (int j = 0; j < b->count && verdict.ok; j++) {
            struct point p = {a, b, i, j, (*number)++};
            if (test_takes(p.number, one_in))
                verdict = check_point(s, &p);
        }
    return verdict;
}

struct verdict check_sizes_pairwise(const qkv_context *context, int stage) {
    struct sweep s = sweep_of(context, stage);
    struct verdict verdict = verdict_ok();
    uint64_t number = 0;
    for (int i = 0; i < s.count; i++)
        for (int j = i + 1; j < s.count && verdict.ok; j++)
            verdict = check_pair(&s, &s.dimension[i], &s.dimension[j], &number);
    return verdict;
}
