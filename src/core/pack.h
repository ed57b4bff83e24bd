/* SPDX-License-Identifier: Apache-2.0 */
/* Packing one block of the rows of keys or values of a head, into panels or into rows. */
#ifndef QKV_CORE_PACK_H
#define QKV_CORE_PACK_H

#include "block.h"

/* The rows [lo, hi) of a block of K or V, as its sequence and head have them. */
struct qkv_key_source {
    const struct qkv_plan_state *plan;
    const qkv_tensor *tensor;
    int64_t dim; /* of a row */
    const struct qkv_sequence *sequence;
    int64_t head, key0;
    int lo, hi;
};

/* What some query sees of the block that begins at key0; 0 if that is nothing. tensor and dim are
 * left to the caller. */
int qkv_seen_source(struct qkv_key_source *s, const struct qkv_plan_state *plan,
                    const struct qkv_sequence *sequence, int64_t head, int64_t key0);

/* Into panels of 16 rows: element (p, r) of panel c at dst[(c * dim + p) * 16 + r]. */
void qkv_pack_panels(float *dst, const struct qkv_key_source *s,
                     const struct qkv_pack_kernels *pack);

/* Into dense rows, rounded up to PANEL columns and padded with zeros, unless they can be used where
 * they are. bad: a flag for each panel of rows, whether it holds infinities or NaN. */
void qkv_pack_rows(float *dst, unsigned char *bad, const struct qkv_key_source *s,
                   const struct qkv_pack_kernels *pack);

/* Dense rows of whole panels can be multiplied where they are: they are only looked at. */
int qkv_rows_in_place(const qkv_tensor *tensor, int64_t dim);

/* The first key of a head's run in shared memory, counted in keys. */
int64_t qkv_shared_key(const struct qkv_problem *p, const struct qkv_sequence *s, int64_t head);

/* The keys that all sequences and heads take there. */
int64_t qkv_packed_keys(const struct qkv_problem *p);

#endif
