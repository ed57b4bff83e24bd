/* SPDX-License-Identifier: Apache-2.0 */
/* The reference's view of sequences and masks: where rows stand, and which keys a query keeps. */
#include "ref.h"

#include <math.h>

static struct ref_place place(const int32_t *cu, int64_t b, int64_t t) {
    return cu ? (struct ref_place){0, cu[b] + t} : (struct ref_place){b, t};
}

struct ref_place ref_query_place(const qkv_attention_params *params, int64_t b, int64_t i) {
    return place(params->cu_q, b, i);
}

struct ref_place ref_key_place(const qkv_attention_params *params, int64_t b, int64_t j) {
    return place(params->cu_kv, b, j);
}

static int64_t length(int64_t full, const int32_t *lens, const int32_t *cu, int64_t b) {
    if (lens)
        return lens[b];
    return cu ? cu[b + 1] - cu[b] : full;
}

int64_t ref_rows(const qkv_attention_params *params, int64_t b) {
    return length(params->q_len, 0, params->cu_q, b);
}

int64_t ref_queries(const qkv_attention_params *params, int64_t b) {
    return length(params->q_len, params->q_lens, params->cu_q, b);
}

int64_t ref_keys(const qkv_attention_params *params, int64_t b) {
    return length(params->kv_len, params->kv_lens, params->cu_kv, b);
}

int64_t ref_v_dim(const qkv_attention_params *params) {
    return params->v_dim ? params->v_dim : params->head_dim;
}

static int64_t element(const qkv_tensor *x, int64_t b, int64_t h, int64_t i, int64_t j) {
    return b * x->stride[0] + h * x->stride[1] + i * x->stride[2] + j * x->stride[3];
}

bool ref_keeps(const qkv_attention_params *params, int64_t b, int64_t h, int64_t i, int64_t j) {
    int64_t queries = ref_queries(params, b);
    int64_t keys = ref_keys(params, b);
    if (i >= queries || j >= keys)
        return false;
    int64_t position = params->align == QKV_ALIGN_TOP_LEFT ? i : i + keys - queries;
    if ((params->flags & QKV_FLAG_CAUSAL) && j > position)
        return false;
    if (params->window_left >= 0 && position - j > params->window_left)
        return false;
    if (params->window_right >= 0 && j - position > params->window_right)
        return false;
    if (params->mask.data &&
        ((const uint8_t *)params->mask.data)[element(&params->mask, b, h, i, j)] == 0)
        return false;
    if (params->bias.data &&
        ((const float *)params->bias.data)[element(&params->bias, b, h, i, j)] < -0x1p127F)
        return false;
    return true;
}
