/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a plan of scores, softmax, mix or attention holds in its private words, and how its
 * workspace is divided.
 *
 * K is packed into panels before it is used, and V into dense rows unless it is. When a key/value
 * head has more query rows than one row block, that is a phase of its own, into shared memory,
 * once; else the one part that needs a block packs it into its worker's memory. The bits are the
 * same.
 */
#ifndef QKV_CORE_PLAN_H
#define QKV_CORE_PLAN_H

#include "context.h"
#include "problem.h"

/* A head wider than this takes half the rows at a time, so that a worker's memory stays below 1
 * MiB. */
#define QKV_WIDE 256

/* Offsets in bytes. */
struct qkv_shared_layout {
    size_t k, v, flags; /* packed keys, packed values, one byte a panel: its V is not finite */
    size_t size;
};

struct qkv_worker_layout {
    size_t scores;  /* [ROWS][KEY_BLOCK] */
    size_t max;     /* [ROWS][PANEL] */
    size_t acc;     /* [ROWS][v_pad] */
    size_t piece;   /* the same, for pieces after the first */
    size_t q;       /* [ROWS][head_dim] */
    size_t block;   /* one packed block of K, then of V */
    size_t numbers; /* QKV_NUMBERS arrays of ROWS floats */
    size_t rows;    /* struct qkv_row [ROWS] */
    size_t size;
};

struct __attribute__((may_alias)) qkv_plan_state {
    uint64_t magic; /* QKV_PLAN_MAGIC + stage */
    const struct qkv_table *table;
    struct qkv_problem problem;
    struct qkv_shared_layout shared;
    struct qkv_worker_layout worker;
    int64_t blocks;     /* key blocks of the longest sequence */
    int64_t rows;       /* rows of a row block: QKV_ROWS, half of that for wide heads */
    int64_t row_blocks; /* row blocks of a key/value head */
    int64_t v_pad;      /* v_dim rounded up to panels */
    int stage;
    int packs; /* phase 0 packs */
};

#define QKV_PLAN_MAGIC 0x6e616c70766b71ULL /* "qkvplan" */

_Static_assert(sizeof(struct qkv_plan_state) <= sizeof(((qkv_plan *)0)->state), "state fits");

/* The plan's private part, or NULL if the plan is not one of the stages above. */
const struct qkv_plan_state *qkv_plan_get(const qkv_plan *plan);

#endif
