/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of work.h with a cache: on shuffled pages, past the end of a piece, with every option
 * and with a token that holds NaN. */
#include "work_cache.h"

#include <math.h>
#include <string.h>

enum {
    BATCH = 2,
    Q_HEADS = 4,
    KV_HEADS = 2,
    KV_LEN = 1057,
    DIM = 20,
    V_DIM = 23,
    FEW = 3,
    PAGE = 48,
    SEQUENCES = BATCH + 2,
    SEQUENCE_PAGES = 23,
    PAGES = SEQUENCES * SEQUENCE_PAGES,
    MASKED_KEY = 700,
    SHARED = 500
};

static float q[BATCH][Q_HEADS][WORK_STEPS][DIM];
static float k[BATCH][KV_HEADS][KV_LEN][DIM], v[BATCH][KV_HEADS][KV_LEN][V_DIM];
static float bias[WORK_STEPS][KV_LEN], slopes[Q_HEADS], sinks[Q_HEADS], lse[WORK_DECODED];
static unsigned char mask[KV_LEN];
static int32_t table[SEQUENCES][SEQUENCE_PAGES], lengths[SEQUENCES], holders[PAGES];
static const int32_t lens[BATCH] = {KV_LEN, KV_LEN - 5};
static unsigned char file[1 << 19];
static _Alignas(QKV_ALIGNMENT) unsigned char workspace[4 << 20];

_Alignas(QKV_ALIGNMENT) float work_cached[WORK_CACHED];
float work_decoded[WORK_DECODED];
float work_rows[WORK_ROWS_OUT];

static void fill(void *array, size_t bytes, float scale, float uniform(void)) {
    float *element = array;
    for (size_t i = 0; i < bytes / sizeof *element; i++)
        element[i] = scale * uniform();
}

void work_fill_cache(float spread, float uniform(void)) {
    fill(q, sizeof q, 3.0f * spread, uniform);
    fill(k, sizeof k, 1.0f, uniform);
    fill(v, sizeof v, 1.0f, uniform);
    fill(bias, sizeof bias, 1.0f, uniform);
    fill(slopes, sizeof slopes, 0.1f, uniform);
    fill(sinks, sizeof sinks, 1.0f, uniform);
    memset(mask, 1, sizeof mask);
    mask[MASKED_KEY] = 0;
    k[1][0][MASKED_KEY][3] = v[1][0][MASKED_KEY][5] = NAN;
    for (int i = 0; i < PAGES; i++)
        (&table[0][0])[i] = i * 7 % PAGES;
}

static void describe_cache(qkv_cache *cache, int k_dtype, int v_dtype) {
    qkv_cache_init(cache);
    cache->kv_heads = KV_HEADS;
    cache->head_dim = DIM;
    cache->v_dim = V_DIM;
    cache->page_tokens = PAGE;
    cache->pages = PAGES;
    cache->sequences = SEQUENCES;
    cache->sequence_pages = SEQUENCE_PAGES;
    cache->k_dtype = k_dtype;
    cache->v_dtype = v_dtype;
    cache->memory = work_cached;
    cache->table = &table[0][0];
    cache->lengths = lengths;
    cache->holders = holders;
}

static void describe_exec(qkv_exec *exec, const qkv_context *context) {
    qkv_exec_init(exec);
    exec->context = context;
    exec->workspace = workspace;
    exec->workspace_size = sizeof workspace;
}

static qkv_status append(const qkv_cache *cache, int pairs, const qkv_context *context) {
    qkv_append_params params;
    qkv_tensors tensors;
    qkv_exec exec;

    if (qkv_cache_memory_size(cache) > sizeof work_cached)
        return QKV_ARG_MEMORY << 8 | QKV_FAULT_TOO_SMALL;
    memset(lengths, 0, sizeof lengths);
    memset(holders, 0, sizeof holders);
    qkv_append_params_init(&params);
    params.batch = BATCH;
    params.tokens = KV_LEN;
    params.lens = lens;
    params.rope.pairs = pairs;
    qkv_tensors_init(&tensors);
    tensors.k = qkv_tensor_bhsd(k, KV_HEADS, KV_LEN, DIM);
    tensors.v = qkv_tensor_bhsd(v, KV_HEADS, KV_LEN, V_DIM);
    describe_exec(&exec, context);
    return qkv_append(&params, cache, &tensors, &exec);
}

static void describe_decode(qkv_attention_params *params, int64_t q_len) {
    qkv_attention_params_init(params);
    params->batch = BATCH;
    params->q_heads = Q_HEADS;
    params->kv_heads = KV_HEADS;
    params->q_len = q_len;
    params->kv_len = KV_LEN;
    params->head_dim = DIM;
    params->v_dim = V_DIM;
    params->flags = QKV_FLAG_CAUSAL;
    params->window_left = KV_LEN - 20;
    params->softcap = 20.0f;
    params->alibi_slopes = slopes;
    params->sinks = sinks;
    params->bias = (qkv_tensor){.data = bias, .stride = {0, 0, KV_LEN, 1}, .dtype = QKV_F32};
    params->mask = (qkv_tensor){.data = mask, .stride = {0, 0, 0, 1}, .dtype = QKV_BOOL};
}

static qkv_status decode_in(int arithmetic, int k_dtype, int v_dtype, int64_t q_len,
                            const qkv_context *context) {
    static const int32_t sequences[BATCH] = {1, 0};
    qkv_attention_params params;
    qkv_tensors tensors;
    qkv_cache cache;
    qkv_exec exec;

    describe_cache(&cache, k_dtype, v_dtype);
    const qkv_status status = append(&cache, QKV_ROPE_NONE, context);
    if (status != QKV_OK)
        return status;
    describe_decode(&params, q_len);
    params.arithmetic = arithmetic;
    qkv_tensors_init(&tensors);
    tensors.q = qkv_tensor_bhsd(q, Q_HEADS, WORK_STEPS, DIM);
    tensors.out = qkv_tensor_bhsd(work_decoded, Q_HEADS, q_len, V_DIM);
    tensors.lse = qkv_tensor_bhsd(lse, Q_HEADS, q_len, 1);
    describe_exec(&exec, context);
    return qkv_decode(&params, &tensors, &cache, sequences, &exec);
}

static qkv_status decode(int k_dtype, int v_dtype, int64_t q_len, const qkv_context *context) {
    return decode_in(QKV_ARITHMETIC_F32, k_dtype, v_dtype, q_len, context);
}

static qkv_status decode_narrow(int64_t q_len, const qkv_context *context) {
    static const int dtypes[] = {QKV_F16, QKV_BF16, QKV_I8};
    qkv_status status = decode(QKV_F16, QKV_I8, q_len, context);
    for (int i = 0; i < 3 && status == QKV_OK; i++)
        if (qkv_narrow_variant(context, dtypes[i]))
            status = decode_in(QKV_ARITHMETIC_NARROW, dtypes[i], dtypes[i], q_len, context);
    return status;
}

qkv_status work_append(const qkv_context *context) {
    qkv_cache cache;
    describe_cache(&cache, QKV_F32, QKV_F32);
    return append(&cache, QKV_ROPE_NONE, context);
}

qkv_status work_append_int8(const qkv_context *context) {
    qkv_cache cache;
    describe_cache(&cache, QKV_BF16, QKV_I8);
    return append(&cache, QKV_ROPE_NONE, context);
}

qkv_status work_pages(const qkv_context *context) {
    qkv_cache cache;
    describe_cache(&cache, QKV_F16, QKV_I8);
    qkv_status status = append(&cache, QKV_ROPE_NONE, context);
    if (status == QKV_OK)
        status = qkv_cache_share(&cache, BATCH, 0, SHARED);
    if (status == QKV_OK)
        status = qkv_cache_copy(&cache, BATCH + 1, 1, SHARED);
    if (status == QKV_OK)
        status = qkv_cache_truncate(&cache, BATCH + 1, 0);
    if (status == QKV_OK)
        status = qkv_cache_save(&cache, 1, file, sizeof file);
    return status == QKV_OK ? qkv_cache_load(&cache, BATCH + 1, file, sizeof file) : status;
}

qkv_status work_step(const qkv_context *context) {
    return decode(QKV_F32, QKV_F32, FEW, context);
}

qkv_status work_step_half(const qkv_context *context) {
    return decode(QKV_F16, QKV_BF16, FEW, context);
}

qkv_status work_step_int8(const qkv_context *context) {
    return decode(QKV_I8, QKV_I8, FEW, context);
}

qkv_status work_chunk(const qkv_context *context) {
    return decode(QKV_BF16, QKV_F16, WORK_STEPS, context);
}

qkv_status work_chunk_int8(const qkv_context *context) {
    return decode(QKV_I8, QKV_I8, WORK_STEPS, context);
}

qkv_status work_step_narrow(const qkv_context *context) {
    return decode_narrow(FEW, context);
}

qkv_status work_chunk_narrow(const qkv_context *context) {
    return decode_narrow(WORK_STEPS, context);
}

qkv_status work_export(const qkv_context *context) {
    qkv_tensors tensors;
    qkv_cache cache;
    describe_cache(&cache, QKV_F16, QKV_I8);
    const qkv_status status = append(&cache, QKV_ROPE_INTERLEAVED, context);
    if (status != QKV_OK)
        return status;
    qkv_tensors_init(&tensors);
    tensors.k = qkv_tensor_bhsd(work_rows, KV_HEADS, KV_LEN, DIM);
    return qkv_cache_export(&cache, 0, 0, KV_LEN, &tensors, context);
}

qkv_status work_rotate(const qkv_context *context) {
    qkv_rotate_params params;
    qkv_tensors tensors;
    qkv_exec exec;

    qkv_rotate_params_init(&params);
    params.batch = 1;
    params.heads = KV_HEADS;
    params.tokens = KV_LEN;
    params.head_dim = DIM;
    params.rope.pairs = QKV_ROPE_HALF;
    qkv_tensors_init(&tensors);
    tensors.q = qkv_tensor_bhsd(k, KV_HEADS, KV_LEN, DIM);
    tensors.out = qkv_tensor_bhsd(work_rows, KV_HEADS, KV_LEN, DIM);
    describe_exec(&exec, context);
    return qkv_rotate(&params, &tensors, &exec);
}
