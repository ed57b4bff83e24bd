/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of a batch's new tokens, as append and rotate take them: padded, with a length for each
 * sequence or not, or ragged. */
#ifndef QKV_CORE_TOKEN_ROWS_H
#define QKV_CORE_TOKEN_ROWS_H

#include "problem.h"
#include "status.h"
#include "tensor.h"

/* Tokens of a part: a multiple of PANEL, so that no two parts of append meet in a panel. */
enum { QKV_RUN = 4 * QKV_PANEL };

struct qkv_token_rows {
    int64_t batch, tokens;    /* tokens: of a sequence, at most */
    const int32_t *lens, *cu; /* at most one of them */
};

static inline qkv_status qkv_check_token_rows(const struct qkv_token_rows *r) {
    if (r->batch < 1)
        return qkv_fail(QKV_ARG_BATCH, r->batch ? QKV_FAULT_NEGATIVE : QKV_FAULT_ZERO);
    if (r->tokens < 0)
        return qkv_fail(QKV_ARG_TOKENS, QKV_FAULT_NEGATIVE);
    if (r->tokens > PTRDIFF_MAX / (int64_t)sizeof(float) / r->batch)
        return qkv_fail(QKV_ARG_TOKENS, QKV_FAULT_OVERFLOW);
    TRY(qkv_check_lengths(r->lens, r->batch, r->tokens, QKV_ARG_LENS));
    TRY(qkv_check_cumulative(r->cu, r->batch, r->tokens, QKV_ARG_CU));
    return r->lens && r->cu ? qkv_fail(QKV_ARG_LENS, QKV_FAULT_CONFLICT) : QKV_OK;
}

/* The tokens of sequence b. */
static inline int64_t qkv_tokens_of(const struct qkv_token_rows *r, int64_t b) {
    if (r->cu)
        return r->cu[b + 1] - r->cu[b];
    return r->lens ? r->lens[b] : r->tokens;
}

/* The rows of a tensor: of all sequences if it is ragged. */
static inline void qkv_token_shape(int64_t shape[4], const struct qkv_token_rows *r, int64_t heads,
                                   int64_t dim) {
    shape[0] = r->cu ? 1 : r->batch;
    shape[1] = heads;
    shape[2] = r->cu ? r->cu[r->batch] : r->tokens;
    shape[3] = dim;
}

/* The row of token i of sequence b. */
static inline float *qkv_token_row(const qkv_tensor *t, const struct qkv_token_rows *r, int64_t b,
                                   int64_t head, int64_t i) {
    const int64_t first = r->cu ? r->cu[b] * t->stride[2] : b * t->stride[0];
    return (float *)t->data + first + head * t->stride[1] + i * t->stride[2];
}

/* The most tokens that any sequence has. */
static inline int64_t qkv_longest(const struct qkv_token_rows *r) {
    int64_t most = r->lens || r->cu ? 0 : r->tokens;
    for (int64_t b = 0; b < r->batch && (r->lens || r->cu); b++)
        most = qkv_max(most, qkv_tokens_of(r, b));
    return most;
}

static inline int qkv_overlaps_rows(const struct qkv_footprint *out,
                                    const struct qkv_token_rows *r) {
    return qkv_overlaps_array(out, r->lens, r->batch) ||
           qkv_overlaps_array(out, r->cu, r->batch + 1);
}

#endif
