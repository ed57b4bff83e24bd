/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of the blocks that the masks leave: blocks of 48 queries by 256 keys, counted whole
 * as soon as one query keeps one key in them. Written from the definition of the masks in qkv.h,
 * key by key, and not from what the library does.
 */
#include "option_set.h"

enum { QUERY_BLOCK = 48, KEY_BLOCK = 256 };

/* One sequence of a batch. */
struct sequence {
    const qkv_attention_params *params;
    int64_t batch, q_len, kv_len;
};

static int64_t length_of(const int32_t *lens, const int32_t *cu, int64_t batch, int64_t length) {
    if (lens)
        return lens[batch];
    return cu ? cu[batch + 1] - cu[batch] : length;
}

static int is_kept(const struct sequence *s, int64_t head, int64_t query, int64_t key) {
    const qkv_attention_params *p = s->params;
    int64_t position = query + (p->align == QKV_ALIGN_TOP_LEFT ? 0 : s->kv_len - s->q_len);
    if ((p->flags & QKV_FLAG_CAUSAL) && key > position)
        return 0;
    if (p->window_left >= 0 && key < position - p->window_left)
        return 0;
    if (p->window_right >= 0 && key > position + p->window_right)
        return 0;
    const uint8_t *mask = p->mask.data;
    const int64_t *stride = p->mask.stride;
    return !mask || mask[s->batch * stride[0] + head * stride[1] + query * stride[2] + key];
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* The products of one block: all of them, or none if every key is masked for every query. */
static int64_t keys_of_block(const struct sequence *s, int64_t head, int64_t q, int64_t k) {
    int64_t q_end = least(q + QUERY_BLOCK, s->q_len);
    int64_t k_end = least(k + KEY_BLOCK, s->kv_len);
    for (int64_t i = q; i < q_end; i++) {
        for (int64_t j = k; j < k_end; j++) {
            if (is_kept(s, head, i, j))
                return (q_end - q) * (k_end - k);
        }
    }
    return 0;
}

static int64_t keys_of_head(const struct sequence *s, int64_t head) {
    int64_t keys = 0;
    for (int64_t q = 0; q < s->q_len; q += QUERY_BLOCK) {
        for (int64_t k = 0; k < s->kv_len; k += KEY_BLOCK)
            keys += keys_of_block(s, head, q, k);
    }
    return keys;
}

double option_set_keys(const qkv_attention_params *params) {
    int64_t keys = 0;
    for (int64_t batch = 0; batch < params->batch; batch++) {
        struct sequence s = {params, batch, 0, 0};
        s.q_len = length_of(params->q_lens, params->cu_q, batch, params->q_len);
        s.kv_len = length_of(params->kv_lens, params->cu_kv, batch, params->kv_len);
        for (int64_t head = 0; head < params->q_heads; head++)
            keys += keys_of_head(&s, head);
    }
    return (double)keys;
}
