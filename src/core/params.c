/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of attention: their defaults, and every check that needs no tensor. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "param_size.h"
#include "problem.h"
#include "status.h"
#include "tensor.h"

void qkv_attention_params_init(qkv_attention_params *params) {
    *params =
        (qkv_attention_params){.size = sizeof(*params), .window_left = -1, .window_right = -1};
}

void qkv_tensors_init(qkv_tensors *tensors) {
    *tensors = (qkv_tensors){.size = sizeof(*tensors)};
}

void qkv_gradients_init(qkv_gradients *gradients) {
    *gradients = (qkv_gradients){.size = sizeof(*gradients)};
}

qkv_tensor qkv_tensor_bhsd(const void *data, int64_t heads, int64_t length, int64_t dim) {
    return (qkv_tensor){.data = (void *)data,
                        .stride = {heads * length * dim, length * dim, dim, 1},
                        .dtype = QKV_F32};
}

qkv_tensor qkv_tensor_mask(const void *data, int64_t kv_len) {
    return (qkv_tensor){.data = (void *)data, .stride = {0, 0, kv_len, 1}, .dtype = QKV_BOOL};
}

qkv_tensor qkv_tensor_packed(const void *packed) {
    return (qkv_tensor){.data = (void *)packed, .dtype = QKV_F32};
}

qkv_tensor qkv_tensor_bshd(const void *data, int64_t heads, int64_t length, int64_t dim) {
    return (qkv_tensor){.data = (void *)data,
                        .stride = {length * heads * dim, dim, heads * dim, 1},
                        .dtype = QKV_F32};
}

/* heads * length * dim elements of a batch, padded to panels, must fit in memory sixteen times: the
 * gradients work in ten such arrays or so. */
static qkv_status check_size(const struct qkv_problem *p, int64_t heads, int64_t length,
                             int64_t dim, qkv_arg arg) {
    int64_t n;
    if (__builtin_add_overflow(length, (int64_t)QKV_KEY_BLOCK, &n) ||
        __builtin_mul_overflow(n, dim + QKV_PANEL, &n) || __builtin_mul_overflow(n, heads, &n) ||
        __builtin_mul_overflow(n, p->batch, &n) || n > PTRDIFF_MAX / (int64_t)sizeof(float) / 32)
        return qkv_fail(arg, QKV_FAULT_OVERFLOW);
    return QKV_OK;
}

static qkv_status check_sizes(const struct qkv_problem *p, int stage) {
    int64_t width = qkv_max(p->head_dim, p->v_dim);
    TRY(qkv_check_count(p->batch, INT64_MAX, QKV_ARG_BATCH));
    TRY(qkv_check_count(p->q_heads, INT64_MAX, QKV_ARG_Q_HEADS));
    TRY(qkv_check_count(p->kv_heads, INT64_MAX, QKV_ARG_KV_HEADS));
    if (p->q_heads % p->kv_heads)
        return qkv_fail(QKV_ARG_Q_HEADS, QKV_FAULT_MULTIPLE);
    if (p->q_len < 0)
        return qkv_fail(QKV_ARG_Q_LEN, QKV_FAULT_NEGATIVE);
    if (p->kv_len < 0)
        return qkv_fail(QKV_ARG_KV_LEN, QKV_FAULT_NEGATIVE);
    TRY(check_size(p, 1, 0, width, QKV_ARG_BATCH));
    TRY(check_size(p, p->q_heads, 0, width, QKV_ARG_Q_HEADS));
    TRY(check_size(p, p->q_heads, p->q_len, width, QKV_ARG_Q_LEN));
    TRY(check_size(p, p->kv_heads, p->kv_len, width, QKV_ARG_KV_LEN));
    if (stage != QKV_STAGE_ATTENTION && p->q_len > 0)
        TRY(check_size(p, p->q_heads * p->q_len, p->kv_len, 1, QKV_ARG_KV_LEN));
    return QKV_OK;
}

static qkv_status check_dims(struct qkv_problem *p, int stage, const qkv_attention_params *params) {
    if (stage == QKV_STAGE_SCORES || stage == QKV_STAGE_ATTENTION) {
        TRY(qkv_check_count(params->head_dim, QKV_HEAD_DIM_MAX, QKV_ARG_HEAD_DIM));
        p->head_dim = params->head_dim;
    }
    if (stage == QKV_STAGE_MIX || stage == QKV_STAGE_ATTENTION) {
        int same = params->v_dim == 0;
        p->v_dim = same ? params->head_dim : params->v_dim;
        TRY(qkv_check_count(p->v_dim, QKV_HEAD_DIM_MAX, same ? QKV_ARG_HEAD_DIM : QKV_ARG_V_DIM));
    }
    return QKV_OK;
}

static qkv_status check_numbers(struct qkv_problem *p, const qkv_attention_params *params) {
    struct qkv_score_rule *rule = &p->rule;
    if (params->align < 0 || params->align >= QKV_ALIGN_COUNT)
        return qkv_fail(QKV_ARG_ALIGN, QKV_FAULT_RANGE);
    if (params->window_left < -1)
        return qkv_fail(QKV_ARG_WINDOW_LEFT, QKV_FAULT_RANGE);
    if (params->window_right < -1)
        return qkv_fail(QKV_ARG_WINDOW_RIGHT, QKV_FAULT_RANGE);
    if (!(params->flags & QKV_FLAG_SCALE) && params->scale != 0.0f) /* it would be of no use */
        return qkv_fail(QKV_ARG_SCALE, QKV_FAULT_CONFLICT);
    if ((params->flags & QKV_FLAG_SCALE) && !isfinite(params->scale))
        return qkv_fail(QKV_ARG_SCALE, QKV_FAULT_VALUE);
    if (!isfinite(params->softcap))
        return qkv_fail(QKV_ARG_SOFTCAP, QKV_FAULT_VALUE);
    if (params->softcap < 0.0f)
        return qkv_fail(QKV_ARG_SOFTCAP, QKV_FAULT_NEGATIVE);
    if (params->softcap > 0.0f && params->softcap < FLT_MIN) /* its inverse may be infinite */
        return qkv_fail(QKV_ARG_SOFTCAP, QKV_FAULT_RANGE);

    rule->scale = params->flags & QKV_FLAG_SCALE ? params->scale
                  : p->head_dim > 0              ? 1.0f / sqrtf((float)p->head_dim)
                                                 : 1.0f;
    rule->softcap = params->softcap;
    return QKV_OK;
}

static qkv_status check_array(const void *data, qkv_arg arg) {
    return (uintptr_t)data % sizeof(float) ? qkv_fail(arg, QKV_FAULT_MISALIGNED) : QKV_OK;
}

/* A bias or a boolean mask: [batch, q_heads, q_len, kv_len], the columns' stride 0 or 1. */
static qkv_status check_mask(const struct qkv_problem *p, const qkv_tensor *t, int dtype,
                             int element, qkv_arg arg) {
    const int64_t shape[4] = {p->batch, p->q_heads, p->q_len, p->kv_len};
    struct qkv_footprint f;
    if (!t->data)
        return QKV_OK;
    if (t->dtype != dtype)
        return qkv_fail(arg, QKV_FAULT_DTYPE);
    if (t->reserved)
        return qkv_fail(arg, QKV_FAULT_FUTURE);
    if (p->kv_len > 1 && t->stride[3] != 0 && t->stride[3] != 1)
        return qkv_fail(arg, QKV_FAULT_STRIDE);
    return qkv_footprint_make(&f, t, shape, element, arg);
}

qkv_status qkv_check_lengths(const int32_t *lens, int64_t batch, int64_t most, qkv_arg arg) {
    TRY(check_array(lens, arg));
    for (int64_t b = 0; lens && b < batch; b++)
        if (lens[b] < 0 || lens[b] > most)
            return qkv_fail(arg, QKV_FAULT_LENGTH);
    return QKV_OK;
}

qkv_status qkv_check_cumulative(const int32_t *cu, int64_t batch, int64_t most, qkv_arg arg) {
    TRY(check_array(cu, arg));
    if (cu && cu[0] < 0)
        return qkv_fail(arg, QKV_FAULT_NEGATIVE);
    for (int64_t b = 0; cu && b < batch; b++) {
        if (cu[b + 1] < cu[b])
            return qkv_fail(arg, QKV_FAULT_ORDER);
        if ((int64_t)cu[b + 1] - cu[b] > most)
            return qkv_fail(arg, QKV_FAULT_LENGTH);
    }
    return QKV_OK;
}

uint64_t qkv_cumulative_bits(const int32_t *cu, int64_t batch) {
    uint64_t bits = 0;
    for (int64_t b = 0; cu && b <= batch; b++)
        bits = qkv_mix_bits(bits + (uint64_t)cu[b]);
    return bits;
}

static qkv_status check_arrays(const struct qkv_problem *p) {
    TRY(check_array(p->slopes, QKV_ARG_ALIBI));
    TRY(check_array(p->sinks, QKV_ARG_SINKS));
    TRY(check_mask(p, &p->bias, QKV_F32, sizeof(float), QKV_ARG_BIAS));
    TRY(check_mask(p, &p->mask, QKV_BOOL, 1, QKV_ARG_MASK));
    TRY(qkv_check_lengths(p->q_lens, p->batch, p->q_len, QKV_ARG_Q_LENS));
    TRY(qkv_check_lengths(p->kv_lens, p->batch, p->kv_len, QKV_ARG_KV_LENS));
    TRY(qkv_check_cumulative(p->cu_q, p->batch, p->q_len, QKV_ARG_CU_Q));
    TRY(qkv_check_cumulative(p->cu_kv, p->batch, p->kv_len, QKV_ARG_CU_KV));
    if (p->q_lens && p->cu_q)
        return qkv_fail(QKV_ARG_Q_LENS, QKV_FAULT_CONFLICT);
    if (p->kv_lens && p->cu_kv)
        return qkv_fail(QKV_ARG_KV_LENS, QKV_FAULT_CONFLICT);
    return QKV_OK;
}

/* Steps of bias and mask along the keys, and whether scores are modified one by one, as the user
 * of the scores stage sees them. A scale that is not a positive normal number, or is so large that
 * log2(e) times it overflows, can't be left to the exponential, where it would meet -inf. */
static void complete_rule(struct qkv_problem *p, int stage) {
    struct qkv_score_rule *rule = &p->rule;
    rule->alibi = p->slopes != NULL;
    rule->bias_step = (int)p->bias.stride[3];
    rule->mask_step = (int)p->mask.stride[3];
    rule->modified = stage == QKV_STAGE_SCORES || rule->softcap > 0.0f || rule->alibi ||
                     p->bias.data || !(rule->scale >= FLT_MIN && rule->scale <= 0x1p127f);
}

qkv_status qkv_problem_make(struct qkv_problem *p, int stage, const qkv_attention_params *params) {
    qkv_attention_params own;
    TRY(qkv_take_struct(&own, sizeof(own), params, sizeof(own), QKV_ARG_PARAMS));
    if (own.flags & ~(QKV_FLAG_SCALE | QKV_FLAG_CAUSAL))
        return qkv_fail(QKV_ARG_FLAGS, QKV_FAULT_FLAG);
    if (own.exp < 0 || own.exp >= QKV_EXP_COUNT)
        return qkv_fail(QKV_ARG_EXP, QKV_FAULT_RANGE);
    if (own.arithmetic < 0 || own.arithmetic >= QKV_ARITHMETIC_COUNT)
        return qkv_fail(QKV_ARG_ARITHMETIC, QKV_FAULT_RANGE);
    if (own.reserved)
        return qkv_fail(QKV_ARG_PARAMS, QKV_FAULT_FUTURE);

    *p = (struct qkv_problem){
        .batch = own.batch,
        .q_heads = own.q_heads,
        .kv_heads = own.kv_heads,
        .q_len = own.q_len,
        .kv_len = own.kv_len,
        .window_left = own.window_left,
        .window_right = own.window_right,
        .slopes = own.alibi_slopes,
        .sinks = own.sinks,
        .bias = own.bias,
        .mask = own.mask,
        .q_lens = own.q_lens,
        .kv_lens = own.kv_lens,
        .cu_q = own.cu_q,
        .cu_kv = own.cu_kv,
        .causal = (own.flags & QKV_FLAG_CAUSAL) != 0,
        .align = own.align,
        .narrow = own.arithmetic == QKV_ARITHMETIC_NARROW,
        .rule = {.exp = own.exp},
    };
    TRY(check_dims(p, stage, &own));
    TRY(check_sizes(p, stage));
    TRY(check_numbers(p, &own));
    TRY(check_arrays(p));
    p->group = p->q_heads / p->kv_heads;
    p->cu_q_bits = qkv_cumulative_bits(p->cu_q, p->batch);
    p->cu_kv_bits = qkv_cumulative_bits(p->cu_kv, p->batch);
    complete_rule(p, stage);
    return QKV_OK;
}
