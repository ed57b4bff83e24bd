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

/* Panels of a head that stand in one page, one behind the other. */
struct stretch {
    char *head; /* the head's share of the page */
    int64_t at; /* the first one's token there */
    int panels;
};

static struct stretch stretch_from(const struct qkv_part *part, int64_t head, int64_t token,
                                   int most) {
    const int64_t page_tokens = cache_of(part)->cache.page_tokens, at = token % page_tokens;
    const int64_t panels = qkv_min((page_tokens - at) / QKV_PANEL, most);
    return (struct stretch){page_head(part, head, token), at, (int)panels};
}

/* Panel g and those behind it, as far as they stand in one page. */
static int find_stretch(struct qkv_stored_block *s, const struct qkv_part *part, int64_t head,
                        int g, int64_t token) {
    const struct qkv_cache_state *c = cache_of(part);
    const struct stretch t = stretch_from(part, head, token, s->end - g);
    const char *k = qkv_stored_panel(&c->k, t.head, t.at),
               *v = qkv_stored_panel(&c->v, t.head, t.at);
    const float *k_scale = qkv_stored_scales(&c->k, t.head, t.at);
    const float *v_scale = qkv_stored_scales(&c->v, t.head, t.at);
    const unsigned char *flag = qkv_stored_flag(c, t.head, t.at);
    for (int i = 0; i < t.panels; i++) {
        s->k[g + i] = k + (size_t)i * c->k.panel;
        s->v[g + i] = v + (size_t)i * c->v.panel;
        s->k_scale[g + i] = k_scale ? k_scale + i * QKV_PANEL : NULL;
        s->v_scale[g + i] = v_scale ? v_scale + i * QKV_PANEL : NULL;
        s->bad |= flag[i];
    }
    return t.panels;
}

void qkv_find_block(struct qkv_stored_block *s, const struct qkv_part *part, int64_t head,
                    const struct qkv_key_block *block) {
    s->first = block->lo / QKV_PANEL;
    s->end = (block->hi + QKV_PANEL - 1) / QKV_PANEL;
    s->bad = 0;
    for (int g = s->first; g < s->end;)
        g += find_stretch(s, part, head, g, block->key0 + g * QKV_PANEL);
}

int qkv_find_next(const void **panel, const struct qkv_part *part,
                  const struct qkv_key_block *block) {
    const struct qkv_stored_layout *l = &cache_of(part)->k;
    int64_t token = block->key0 + QKV_KEY_BLOCK, head = part->kv_head;
    if (token >= part->hi) {
        token = part->lo / QKV_PANEL * QKV_PANEL;
        head++;
    }
    if (head == cache_of(part)->cache.kv_heads)
        return 0;
    const int64_t left = (part->hi - token + QKV_PANEL - 1) / QKV_PANEL;
    const int count = (int)qkv_min(left, QKV_BLOCK_PANELS);
    for (int g = 0; g < count;) {
        const struct stretch t = stretch_from(part, head, token + g * QKV_PANEL, count - g);
        const char *k = qkv_stored_panel(l, t.head, t.at);
        for (int i = 0; i < t.panels; i++, k += l->panel)
            panel[g++] = k;
    }
    return count;
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
