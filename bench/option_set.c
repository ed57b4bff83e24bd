/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the fused stage with options: a table of what each option sets, in order. */
#include <stdio.h>
#include <string.h>

#include "option_set.h"

#define OPTION_NAME_(group, NAME, name) [OPTION_##NAME] = name,
#define OPTION_GROUP_(group, NAME, name) [OPTION_##NAME] = group,
static const char *const names[OPTION_COUNT] = {OPTIONS(OPTION_NAME_)};
static const int groups[OPTION_COUNT] = {OPTIONS(OPTION_GROUP_)};

/* The lengths of padded and ragged sequences: the first whole, the second shorter. */
static const int32_t q_lens[OPTION_BATCH] = {OPTION_Q_LEN, 250};
static const int32_t kv_lens[OPTION_BATCH] = {OPTION_KV_LEN, 601};
static const int32_t cu_q[OPTION_BATCH + 1] = {0, OPTION_Q_LEN, OPTION_Q_LEN + 250};
static const int32_t cu_kv[OPTION_BATCH + 1] = {0, OPTION_KV_LEN, OPTION_KV_LEN + 601};
static const float slopes[OPTION_HEADS] = {0.5f, 0.25f, 0.125f, 0.0625f};
static const float sinks[OPTION_HEADS] = {0.0f, 1.0f, -1.0f, 2.0f};

static int has(uint32_t set, enum option option) {
    return (set & OPTION_BIT(option)) != 0;
}

void option_set_name(char name[BENCH_NAME], uint32_t set) {
    size_t length = 0;
    snprintf(name, BENCH_NAME, "plain");
    for (int i = 0; i < OPTION_COUNT; i++) {
        if (has(set, (enum option)i) && length < BENCH_NAME)
            length += (size_t)snprintf(name + length, BENCH_NAME - length, "%s%s",
                                       length ? " " : "", names[i]);
    }
}

uint32_t option_set_from_seed(uint32_t seed) {
    uint64_t state = seed;
    uint32_t set = 0;
    for (int i = 0; i < OPTION_COUNT;) {
        int members = 1;
        while (i + members < OPTION_COUNT && groups[i + members] == groups[i])
            members++;
        /* soft-cap pays for its tanh and would hide the others: rarely */
        uint64_t odds = i == OPTION_SOFTCAP ? 8 : 2;
        uint64_t draw = bench_random(&state) >> 32;
        if (draw % odds == 0)
            set |= OPTION_BIT(i + (int)(draw / odds % (uint64_t)members));
        i += members;
    }
    return set;
}

static void set_heads(qkv_attention_params *p, uint32_t set) {
    p->batch = OPTION_BATCH;
    p->q_heads = OPTION_HEADS;
    p->kv_heads = has(set, OPTION_GQA) ? OPTION_HEADS / 2 : has(set, OPTION_MQA) ? 1 : OPTION_HEADS;
    p->q_len = OPTION_Q_LEN;
    p->kv_len = OPTION_KV_LEN;
    p->head_dim = OPTION_HEAD_DIM;
}

static void set_numbers(qkv_attention_params *p, uint32_t set) {
    if (has(set, OPTION_SCALE)) {
        p->flags |= QKV_FLAG_SCALE;
        p->scale = 0.1f;
    }
    if (has(set, OPTION_CAUSAL) || has(set, OPTION_CAUSAL_TOP_LEFT))
        p->flags |= QKV_FLAG_CAUSAL;
    if (has(set, OPTION_CAUSAL_TOP_LEFT))
        p->align = QKV_ALIGN_TOP_LEFT;
    if (has(set, OPTION_WINDOW_LEFT) || has(set, OPTION_WINDOW_BOTH))
        p->window_left = 200;
    if (has(set, OPTION_WINDOW_BOTH))
        p->window_right = 100;
    p->alibi_slopes = has(set, OPTION_ALIBI) ? slopes : NULL;
    p->softcap = has(set, OPTION_SOFTCAP) ? 20.0f : 0.0f;
    p->sinks = has(set, OPTION_SINKS) ? sinks : NULL;
}

static void set_lengths(qkv_attention_params *p, uint32_t set) {
    p->q_lens = has(set, OPTION_PADDED) ? q_lens : NULL;
    p->kv_lens = has(set, OPTION_PADDED) ? kv_lens : NULL;
    p->cu_q = has(set, OPTION_RAGGED) ? cu_q : NULL;
    p->cu_kv = has(set, OPTION_RAGGED) ? cu_kv : NULL;
}

static void set_bias(qkv_attention_params *p, struct bench_memory *memory, uint32_t set) {
    const int64_t keys = OPTION_KV_LEN;
    const int64_t rows = (int64_t)OPTION_BATCH * OPTION_HEADS * OPTION_Q_LEN;
    if (has(set, OPTION_BIAS)) {
        float *data = bench_normal(memory, rows * keys);
        p->bias = qkv_tensor_bhsd(data, OPTION_HEADS, OPTION_Q_LEN, keys);
    } else if (has(set, OPTION_BIAS_KEYS)) {
        p->bias = qkv_tensor_bhsd(bench_normal(memory, OPTION_BATCH * keys), 1, 1, keys);
        p->bias.stride[1] = p->bias.stride[2] = 0;
    }
}

/* One key in eight masked here and there, or every second of the blocks of 96 queries by 256
 * keys, as on a chess-board. */
static void fill_mask(uint8_t *mask, int64_t rows, int blocks) {
    for (int64_t i = 0; mask && i < rows * OPTION_KV_LEN; i++) {
        int64_t row = i / OPTION_KV_LEN % OPTION_Q_LEN;
        int64_t key = i % OPTION_KV_LEN;
        mask[i] = blocks ? (row / 96 + key / 256) % 2 == 0 : (uint32_t)i * 2654435761u >> 29 != 0;
    }
}

static void set_mask(qkv_attention_params *p, struct bench_memory *memory, uint32_t set) {
    const int blocks = has(set, OPTION_MASK_BLOCKS);
    if (!blocks && !has(set, OPTION_MASK) && !has(set, OPTION_MASK_KEYS))
        return;
    int64_t rows = has(set, OPTION_MASK) ? (int64_t)OPTION_BATCH * OPTION_HEADS * OPTION_Q_LEN
                   : blocks              ? OPTION_Q_LEN
                                         : OPTION_BATCH;
    uint8_t *data = bench_bytes(memory, (size_t)(rows * OPTION_KV_LEN));
    fill_mask(data, rows, blocks);
    p->mask = qkv_tensor_bhsd(data, OPTION_HEADS, OPTION_Q_LEN, OPTION_KV_LEN);
    p->mask.dtype = QKV_BOOL;
    if (has(set, OPTION_MASK))
        return;
    p->mask.stride[0] = blocks ? 0 : OPTION_KV_LEN;
    p->mask.stride[1] = 0;
    p->mask.stride[2] = blocks ? OPTION_KV_LEN : 0;
}

/* [batch, heads, length, dim], or [batch, length, row] with the heads side by side in the row;
 * ragged sequences lie end to end in the length of one. */
static qkv_tensor view(const float *data, uint32_t set, int64_t heads, int64_t length,
                       int64_t row) {
    int64_t rows = !has(set, OPTION_RAGGED) ? length
                   : length == OPTION_Q_LEN ? cu_q[OPTION_BATCH]
                                            : cu_kv[OPTION_BATCH];
    qkv_tensor tensor = qkv_tensor_bhsd(data, heads, rows, OPTION_HEAD_DIM);
    if (!has(set, OPTION_BSHD) && !has(set, OPTION_PACKED_KV))
        return tensor;
    tensor.stride[0] = rows * row;
    tensor.stride[1] = OPTION_HEAD_DIM;
    tensor.stride[2] = row;
    return tensor;
}

static void set_tensors(qkv_tensors *t, const qkv_attention_params *p, struct bench_memory *memory,
                        uint32_t set) {
    const int64_t q_row = p->q_heads * OPTION_HEAD_DIM;
    const int64_t k_row = p->kv_heads * OPTION_HEAD_DIM;
    const int packed = has(set, OPTION_PACKED_KV);
    const int64_t q_count = OPTION_BATCH * OPTION_Q_LEN * q_row;
    const float *q = bench_normal(memory, q_count);
    const float *kv = bench_normal(memory, OPTION_BATCH * OPTION_KV_LEN * k_row * 2);
    const int64_t v_at = packed ? k_row : OPTION_BATCH * OPTION_KV_LEN * k_row;
    const float *v = kv ? kv + v_at : NULL;
    const int64_t row = packed ? 2 * k_row : k_row;
    qkv_tensors_init(t);
    t->q = view(q, set, p->q_heads, OPTION_Q_LEN, q_row);
    t->k = view(kv, set, p->kv_heads, OPTION_KV_LEN, row);
    t->v = view(v, set, p->kv_heads, OPTION_KV_LEN, row);
    t->out = view(bench_zeros(memory, q_count), set, p->q_heads, OPTION_Q_LEN, q_row);
    if (has(set, OPTION_LSE)) {
        int64_t rows = has(set, OPTION_RAGGED) ? cu_q[OPTION_BATCH] : OPTION_Q_LEN;
        float *lse = bench_zeros(memory, OPTION_BATCH * OPTION_HEADS * OPTION_Q_LEN);
        t->lse = qkv_tensor_bhsd(lse, p->q_heads, rows, 1);
    }
}

void option_set_fill(struct bench_call *call, struct bench_memory *memory, uint32_t set) {
    qkv_attention_params *p = &call->params;
    qkv_attention_params_init(p);
    set_heads(p, set);
    set_numbers(p, set);
    set_lengths(p, set);
    set_bias(p, memory, set);
    set_mask(p, memory, set);
    set_tensors(&call->tensors, p, memory, set);
}
