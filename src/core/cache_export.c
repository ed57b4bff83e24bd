/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence's stored values as plain rows of float32: exactly what the cache holds, int8 times its
 * scale, rounded once. K is turned back a few steps of a panel at a time, V read unit by unit.
 */
#include <string.h>

#include "cache.h"
#include "context.h"
#include "param_size.h"
#include "run.h"
#include "status.h"
#include "tensor.h"

enum {
    STEPS = 64,   /* of a panel of K at a time; a multiple of every unit */
    UNIT_MOST = 4 /* tokens of a unit of V */
};

struct export {
    struct qkv_cache_state cache;
    const struct qkv_cache_kernels *kernels;
    qkv_tensors tensors;
    int64_t sequence, first, tokens;
};

/* ---- The checks ---- */

static qkv_status check_tokens(const struct export *e) {
    const qkv_cache *c = &e->cache.cache;
    if (e->sequence < 0 || e->sequence >= c->sequences)
        return qkv_fail(QKV_ARG_SEQUENCE, QKV_FAULT_RANGE);
    const int64_t length = c->lengths[e->sequence], page = c->page_tokens;
    if (length < 0 || length > c->sequence_pages * page)
        return qkv_fail(QKV_ARG_LENGTHS, QKV_FAULT_LENGTH);
    if (e->first < 0)
        return qkv_fail(QKV_ARG_FIRST, QKV_FAULT_NEGATIVE);
    if (e->first > length)
        return qkv_fail(QKV_ARG_FIRST, QKV_FAULT_RANGE);
    if (e->tokens < 0)
        return qkv_fail(QKV_ARG_TOKENS, QKV_FAULT_NEGATIVE);
    if (e->tokens > length - e->first)
        return qkv_fail(QKV_ARG_TOKENS, QKV_FAULT_RANGE);
    for (int64_t t = e->first / page * page; t < e->first + e->tokens; t += page)
        if (!qkv_page_exists(&e->cache, qkv_page_of(&e->cache, e->sequence, t)))
            return qkv_fail(QKV_ARG_TABLE, QKV_FAULT_RANGE);
    return QKV_OK;
}

static qkv_status check_output(struct qkv_footprint *f, const struct export *e, const qkv_tensor *t,
                               int64_t dim, qkv_arg arg) {
    const qkv_cache *c = &e->cache.cache;
    const int64_t shape[4] = {1, c->kv_heads, e->tokens, dim};
    const int64_t words = (int64_t)(e->cache.page * (size_t)c->pages) / (int64_t)sizeof(float);
    f->element = 0;
    if (!t->data)
        return QKV_OK;
    TRY(qkv_check_tensor(f, t, shape, arg));
    if (qkv_overlaps_itself(f))
        return qkv_fail(arg, QKV_FAULT_SELF_OVERLAP);
    if (qkv_overlaps_array(f, c->memory, words) ||
        qkv_overlaps_array(f, c->table, c->sequences * c->sequence_pages) ||
        qkv_overlaps_array(f, c->lengths, c->sequences) ||
        qkv_overlaps_array(f, c->holders, c->pages))
        return qkv_fail(arg, QKV_FAULT_OVERLAP);
    return QKV_OK;
}

static qkv_status take_tensors(struct export *e, const qkv_tensors *tensors) {
    const qkv_cache *c = &e->cache.cache;
    qkv_tensors *own = &e->tensors;
    struct qkv_footprint k, v;
    TRY(qkv_take_struct(own, sizeof(*own), tensors, sizeof(*own), QKV_ARG_TENSORS));
    TRY(check_output(&k, e, &own->k, c->head_dim, QKV_ARG_K));
    TRY(check_output(&v, e, &own->v, c->v_dim, QKV_ARG_V));
    return qkv_overlap(&k, &v) ? qkv_fail(QKV_ARG_V, QKV_FAULT_OVERLAP) : QKV_OK;
}

/* ---- The rows ---- */

/* Tokens [from, to) of a panel, and where the first one's row goes. */
struct piece {
    char *panel;
    const float *scales; /* of the panel's tokens, or NULL */
    int from, to;
    float *out;
    int64_t ld;
};

static struct piece piece_at(const struct export *e, const struct qkv_stored_layout *l,
                             const qkv_tensor *out, int64_t head, int64_t t) {
    const int64_t page_tokens = e->cache.cache.page_tokens, at = t % page_tokens;
    const int64_t end = e->first + e->tokens, column = t % QKV_PANEL;
    char *page = qkv_page_head(&e->cache, qkv_page_of(&e->cache, e->sequence, t), head);
    return (struct piece){
        .panel = qkv_stored_panel(l, page, at),
        .scales = qkv_stored_scales(l, page, at),
        .from = (int)column,
        .to = (int)(end - t < QKV_PANEL - column ? column + end - t : QKV_PANEL),
        .out = (float *)out->data + head * out->stride[1] + (t - e->first) * out->stride[2],
        .ld = out->stride[2],
    };
}

static float scaled(const struct piece *p, int token, float x) {
    return p->scales ? x * p->scales[token] : x;
}

static void export_keys(const struct export *e, const struct piece *p) {
    const struct qkv_stored_layout *k = &e->cache.k;
    const int64_t dim = e->cache.cache.head_dim;
    float steps[STEPS * QKV_PANEL];
    for (int64_t d = 0; d < dim; d += STEPS) {
        const int64_t n = dim - d < STEPS ? dim - d : STEPS;
        e->kernels->unpack_keys[k->type](steps, p->panel + (size_t)(d * QKV_PANEL) * k->element, n);
        for (int r = p->from; r < p->to; r++)
            for (int64_t i = 0; i < n; i++)
                p->out[(r - p->from) * p->ld + d + i] = scaled(p, r, steps[i * QKV_PANEL + r]);
    }
}

static void export_values(const struct export *e, const struct piece *p) {
    const struct qkv_stored_layout *v = &e->cache.v;
    const int64_t dim = e->cache.cache.v_dim, pad = e->cache.v_pad;
    float rows[UNIT_MOST * QKV_HEAD_DIM_MAX];
    for (int r = p->from; r < p->to; r++) {
        const int in_unit = r % v->unit;
        const char *unit = p->panel + (size_t)((r - in_unit) * pad) * v->element;
        e->kernels->unpack_values[v->type](rows, unit, in_unit, in_unit + 1, pad);
        for (int64_t i = 0; i < dim; i++)
            p->out[(r - p->from) * p->ld + i] = scaled(p, r, rows[in_unit * pad + i]);
    }
}

typedef void export_piece_fn(const struct export *e, const struct piece *p);

static void export_head(const struct export *e, const struct qkv_stored_layout *l,
                        const qkv_tensor *out, int64_t head, export_piece_fn *export_piece) {
    const int64_t end = e->first + e->tokens;
    struct piece p;
    for (int64_t t = e->first; out->data && t < end; t += p.to - p.from) {
        p = piece_at(e, l, out, head, t);
        export_piece(e, &p);
    }
}

qkv_status qkv_cache_export(const qkv_cache *cache, int64_t sequence, int64_t first, int64_t tokens,
                            const qkv_tensors *tensors, const qkv_context *context) {
    struct export e = {.sequence = sequence, .first = first, .tokens = tokens};
    TRY(qkv_take_cache(&e.cache, cache));
    TRY(check_tokens(&e));
    TRY(take_tensors(&e, tensors));
    TRY(qkv_check_context(context));
    e.kernels = qkv_context_get(context)->table.cache;
    for (int64_t h = 0; h < e.cache.cache.kv_heads; h++) {
        export_head(&e, &e.cache.k, &e.tensors.k, h, export_keys);
        export_head(&e, &e.cache.v, &e.tensors.v, h, export_values);
    }
    return QKV_OK;
}
