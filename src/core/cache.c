/* SPDX-License-Identifier: Apache-2.0 */
/* The description of a cache: its checks, and where a page keeps what (cache.h). */
#include "cache.h"

#include "context.h"
#include "param_size.h"
#include "problem.h"
#include "status.h"

void qkv_cache_init(qkv_cache *cache) {
    *cache = (qkv_cache){.size = sizeof(*cache), .k_dtype = QKV_F32, .v_dtype = QKV_F32};
}

static const struct stored_type {
    int dtype, type, unit;
    size_t element;
} stored[] = {
    {QKV_F32, QKV_STORED_F32, 1, 4},
    {QKV_F16, QKV_STORED_F16, 1, 2},
    {QKV_BF16, QKV_STORED_BF16, 2, 2},
    {QKV_I8, QKV_STORED_I8, 4, 1},
};

static const struct stored_type *find_type(int dtype) {
    for (size_t i = 0; i < sizeof(stored) / sizeof(stored[0]); i++)
        if (stored[i].dtype == dtype)
            return stored + i;
    return NULL;
}

static qkv_status lay_out_type(struct qkv_stored_layout *l, int dtype, qkv_arg arg) {
    const struct stored_type *type = find_type(dtype);
    if (!type)
        return qkv_fail(arg, QKV_FAULT_DTYPE);
    l->type = type->type;
    l->unit = type->unit;
    l->element = type->element;
    return QKV_OK;
}

const char *qkv_narrow_variant(const qkv_context *context, int32_t dtype) {
    const struct qkv_context_state *state = qkv_context_get(context);
    const struct stored_type *type = find_type(dtype);
    if (!state || !type || !state->table.narrow[type->type])
        return NULL;
    return state->table.narrow[type->type]->variant;
}

static size_t lines(size_t bytes) {
    return (bytes + QKV_ALIGNMENT - 1) / QKV_ALIGNMENT * QKV_ALIGNMENT;
}

/* A token takes less than 2^13 bytes a head: tokens, heads and pages are multiplied in steps that
 * are looked at. */
static qkv_status lay_out_page(struct qkv_cache_state *s) {
    const qkv_cache *c = &s->cache;
    const int64_t panels = c->page_tokens / QKV_PANEL;
    const size_t scales = (size_t)c->page_tokens * sizeof(float);
    size_t at = 0, all;
    s->v_pad = qkv_round_up(c->v_dim, QKV_PANEL);
    s->k.panel = (size_t)qkv_round_up(c->head_dim, s->k.unit) * QKV_PANEL * s->k.element;
    s->v.panel = (size_t)s->v_pad * QKV_PANEL * s->v.element;
    s->k.data = at;
    at += lines((size_t)panels * s->k.panel);
    s->v.data = at;
    at += lines((size_t)panels * s->v.panel);
    s->k.scales = at;
    at += qkv_has_scales(&s->k) ? lines(scales) : 0;
    s->v.scales = at;
    at += qkv_has_scales(&s->v) ? lines(scales) : 0;
    s->flags = at;
    s->head = at + lines((size_t)panels);
    if (__builtin_mul_overflow(s->head, (size_t)c->kv_heads, &s->page) || s->page > PTRDIFF_MAX)
        return qkv_fail(QKV_ARG_KV_HEADS, QKV_FAULT_OVERFLOW);
    if (__builtin_mul_overflow(s->page, (size_t)c->pages, &all) || all > PTRDIFF_MAX)
        return qkv_fail(QKV_ARG_PAGES, QKV_FAULT_OVERFLOW);
    return QKV_OK;
}

/* Lengths are numbers of 32 bits, and so are pages in a table. */
static qkv_status check_counts(const qkv_cache *c) {
    int64_t entries;
    TRY(qkv_check_count(c->kv_heads, INT32_MAX, QKV_ARG_KV_HEADS));
    TRY(qkv_check_count(c->head_dim, QKV_HEAD_DIM_MAX, QKV_ARG_HEAD_DIM));
    TRY(qkv_check_count(c->v_dim, QKV_HEAD_DIM_MAX, QKV_ARG_V_DIM));
    TRY(qkv_check_count(c->page_tokens, INT32_MAX, QKV_ARG_PAGE_TOKENS));
    if (c->page_tokens % QKV_PANEL)
        return qkv_fail(QKV_ARG_PAGE_TOKENS, QKV_FAULT_MULTIPLE);
    TRY(qkv_check_count(c->pages, INT32_MAX, QKV_ARG_PAGES));
    TRY(qkv_check_count(c->sequences, INT32_MAX, QKV_ARG_SEQUENCES));
    TRY(qkv_check_count(c->sequence_pages, INT32_MAX, QKV_ARG_SEQUENCE_PAGES));
    if (c->sequence_pages > INT32_MAX / c->page_tokens)
        return qkv_fail(QKV_ARG_SEQUENCE_PAGES, QKV_FAULT_OVERFLOW);
    entries = c->sequences * c->sequence_pages;
    if (entries > PTRDIFF_MAX / (int64_t)sizeof(int32_t))
        return qkv_fail(QKV_ARG_SEQUENCES, QKV_FAULT_OVERFLOW);
    return QKV_OK;
}

static qkv_status take_numbers(struct qkv_cache_state *s, const qkv_cache *cache) {
    qkv_cache *c = &s->cache;
    TRY(qkv_take_struct(c, sizeof(*c), cache, sizeof(*c), QKV_ARG_CACHE));
    if (c->flags)
        return qkv_fail(QKV_ARG_FLAGS, QKV_FAULT_FLAG);
    if (c->v_dim == 0)
        c->v_dim = c->head_dim;
    TRY(check_counts(c));
    TRY(lay_out_type(&s->k, c->k_dtype, QKV_ARG_K_DTYPE));
    TRY(lay_out_type(&s->v, c->v_dtype, QKV_ARG_V_DTYPE));
    return lay_out_page(s);
}

static qkv_status check_pointer(const void *p, size_t alignment, int optional, qkv_arg arg) {
    if (!p)
        return optional ? QKV_OK : qkv_fail(arg, QKV_FAULT_NULL);
    return (uintptr_t)p % alignment ? qkv_fail(arg, QKV_FAULT_MISALIGNED) : QKV_OK;
}

qkv_status qkv_take_cache(struct qkv_cache_state *s, const qkv_cache *cache) {
    *s = (struct qkv_cache_state){0};
    TRY(take_numbers(s, cache));
    const qkv_cache *c = &s->cache;
    TRY(check_pointer(c->memory, QKV_ALIGNMENT, 0, QKV_ARG_MEMORY));
    TRY(check_pointer(c->table, sizeof(int32_t), 1, QKV_ARG_TABLE));
    TRY(check_pointer(c->lengths, sizeof(int32_t), 0, QKV_ARG_LENGTHS));
    TRY(check_pointer(c->holders, sizeof(int32_t), c->table == NULL, QKV_ARG_HOLDERS));
    if (!c->table && c->pages != c->sequences * c->sequence_pages)
        return qkv_fail(QKV_ARG_PAGES, QKV_FAULT_RANGE);
    return QKV_OK;
}

qkv_status qkv_cache_check(const qkv_cache *cache) {
    struct qkv_cache_state s;
    return qkv_take_cache(&s, cache);
}

size_t qkv_cache_page_size(const qkv_cache *cache) {
    struct qkv_cache_state s = {0};
    return take_numbers(&s, cache) == QKV_OK ? s.page : 0;
}

size_t qkv_cache_memory_size(const qkv_cache *cache) {
    struct qkv_cache_state s = {0};
    return take_numbers(&s, cache) == QKV_OK ? s.page * (size_t)s.cache.pages : 0;
}
