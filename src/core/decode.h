/* SPDX-License-Identifier: Apache-2.0 */
/* Decode's driver, for its public functions, and its two ways through a block. */
#ifndef QKV_CORE_DECODE_H
#define QKV_CORE_DECODE_H

#include "attention.h"
#include "stored_block.h"

qkv_parts_fn qkv_decode_parts;

/* A whole call with a plan of decode; exec is the library's own. */
qkv_status qkv_decode_with(const qkv_plan *plan, const qkv_tensors *tensors, const qkv_exec *exec);

/* Key/value heads that are taken together, at most. */
enum { QKV_TOGETHER = 4 };

/* Is the sequence's cache so large that a call asks for it ahead? */
int qkv_is_streamed(const struct qkv_plan_state *plan, const struct qkv_sequence *sequence);

/* If so: are its panels taken in their order, and few of their lines asked for? */
int qkv_is_read_in_order(const struct qkv_plan_state *plan, const struct qkv_sequence *sequence);

/* Or is what comes next asked for as several streams, instead of as one? */
int qkv_is_read_in_lanes(const struct qkv_plan_state *plan, const struct qkv_sequence *sequence);

/* Does the part read K and V as they are stored (decode_stored.c), or blocks that are unpacked? */
int qkv_reads_stored(const struct qkv_part *part);

/* Then its queries, as such products take them; and one key block into the accumulator. */
void qkv_load_stored_queries(const struct qkv_part *part);
qkv_attend_fn qkv_attend_stored;

/* Weights of rows [r, r + rows) for values that have scales, times these. */
void qkv_scale_weights(const struct qkv_part *part, const struct qkv_stored_block *stored, int r,
                       int rows);

#endif
