/* SPDX-License-Identifier: Apache-2.0 */
/* From a sequence's page table to the panels of one block (stored_block.h). */
#include "stored_block.h"

static const struct qkv_cache_state *cache_of(const struct qkv_part *part) {
    return &part->plan->decode.cache;
}

static char *page_head(const struct qkv_part *part, int64_t head, int64_t token) {
    const struct qkv_cache_state *c = cache_of(part);
    return qkv_page_head(c, qkv_page_of(c, part->sequence.stored, token), head);
}

/* A head's tokens, a panel at a time: the page it is in, and the token's place there. */
struct walk {
    char *head;
    int64_t at;
};

static struct walk walk_from(const struct qkv_part *part, int64_t head, int64_t token) {
    return (struct walk){page_head(part, head, token), token % cache_of(part)->cache.page_tokens};
}

/* On to the next panel, which begins with this token. */
static void walk_on(struct walk *w, const struct qkv_part *part, int64_t head, int64_t token) {
    w->at += QKV_PANEL;
    if (w->at == cache_of(part)->cache.page_tokens)
        *w = (struct walk){page_head(part, head, token), 0};
}

void qkv_find_block(struct qkv_stored_block *s, const struct qkv_part *part,
                    const struct qkv_key_block *block) {
    const struct qkv_cache_state *c = cache_of(part);
    s->first = block->lo / QKV_PANEL;
    s->end = (block->hi + QKV_PANEL - 1) / QKV_PANEL;
    s->bad = 0;
    int64_t token = block->key0 + s->first * QKV_PANEL;
    struct walk w = walk_from(part, part->kv_head, token);
    for (int g = s->first;;) {
        s->k[g] = qkv_stored_panel(&c->k, w.head, w.at);
        s->v[g] = qkv_stored_panel(&c->v, w.head, w.at);
        s->k_scale[g] = qkv_stored_scales(&c->k, w.head, w.at);
        s->v_scale[g] = qkv_stored_scales(&c->v, w.head, w.at);
        s->bad |= *qkv_stored_flag(c, w.head, w.at);
        if (++g == s->end)
            break; /* there may be no page behind */
        walk_on(&w, part, part->kv_head, token += QKV_PANEL);
    }
}

int qkv_find_next(const void **panel, const struct qkv_part *part,
                  const struct qkv_key_block *block) {
    const struct qkv_cache_state *c = cache_of(part);
    int64_t token = block->key0 + QKV_KEY_BLOCK, head = part->kv_head;
    if (token >= part->hi) {
        token = part->lo / QKV_PANEL * QKV_PANEL;
        head++;
    }
    if (head == c->cache.kv_heads)
        return 0;
    struct walk w = walk_from(part, head, token);
    for (int g = 0;;) {
        panel[g++] = qkv_stored_panel(&c->k, w.head, w.at);
        token += QKV_PANEL;
        if (g == QKV_BLOCK_PANELS || token >= part->hi)
            return g;
        walk_on(&w, part, head, token);
    }
}

/* Panels of floats that stand one behind the other can be multiplied where they are. Returns where
 * panel 0 of the block would stand, or NULL. */
static const float *in_place(const struct qkv_stored_layout *l, const void *const *panel, int first,
                             int end) {
    if (l->type != QKV_STORED_F32)
        return NULL;
    const uintptr_t base = (uintptr_t)panel[first] - (size_t)first * l->panel;
    for (int g = first + 1; g < end; g++)
        if ((uintptr_t)panel[g] != base + (size_t)g * l->panel)
            return NULL;
    return (const float *)base;
}

const float *qkv_unpacked_keys(const struct qkv_stored_block *s, const struct qkv_part *part) {
    const struct qkv_cache_state *c = cache_of(part);
    const int64_t dim = c->cache.head_dim;
    const float *keys = in_place(&c->k, s->k, s->first, s->end);
    if (keys)
        return keys;
    for (int g = s->first; g < s->end; g++)
        part->plan->table->cache->unpack_keys[c->k.type](part->block + g * QKV_PANEL * dim, s->k[g],
                                                         dim);
    return part->block;
}

const float *qkv_unpacked_values(const struct qkv_stored_block *s, const struct qkv_part *part,
                                 const struct qkv_key_block *block) {
    const struct qkv_cache_state *c = cache_of(part);
    const float *values = in_place(&c->v, s->v, s->first, s->end);
    if (values)
        return values;
    for (int g = s->first; g < s->end; g++) {
        const int key = g * QKV_PANEL, from = block->lo > key ? block->lo - key : 0;
        const int to = block->hi < key + QKV_PANEL ? block->hi - key : QKV_PANEL;
        part->plan->table->cache->unpack_values[c->v.type](part->block + key * c->v_pad, s->v[g],
                                                           from, to, c->v_pad);
    }
    return part->block;
}
