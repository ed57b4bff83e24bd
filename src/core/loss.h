/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a plan of a loss holds. Steps, of which the squared loss has no first one: the labels are
 * counted; each block of rows and columns leaves its sum in shared memory; the sums are joined in
 * order. What a block is depends on the shape alone.
 */
#ifndef QKV_CORE_LOSS_H
#define QKV_CORE_LOSS_H

#include "context.h"

/* Elements of a block, about; cross-entropy takes whole rows whatever their length. */
enum { QKV_LOSS_BLOCK = 16384 };

enum qkv_loss_step { QKV_LOSS_COUNT_ROWS, QKV_LOSS_BLOCKS, QKV_LOSS_JOIN, QKV_LOSS_STEPS };

struct __attribute__((may_alias)) qkv_loss_state {
    uint64_t magic;
    const struct qkv_table *table;
    int64_t rows, columns;
    int64_t block_rows, block_columns;
    int64_t column_blocks, blocks; /* of a row; of all */
    int32_t kind, first;           /* a qkv_loss_kind, and the step of phase 0 */
};

#define QKV_LOSS_MAGIC 0x73736f6c766b71ULL /* "qkvloss" */

_Static_assert(sizeof(struct qkv_loss_state) <= sizeof(((qkv_plan *)0)->state), "state fits");

/* The shared memory: how many rows count (cross-entropy), and each block's sum. */
struct qkv_loss_shared {
    int64_t counted;
    double sum[];
};

/* Runs checked parts. */
void qkv_loss_do(const struct qkv_loss_state *s, const qkv_loss_tensors *tensors,
                 const qkv_workspace *workspace, int32_t phase, int64_t begin, int64_t end);

#endif
