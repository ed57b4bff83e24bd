/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a plan of scores, softmax, mix, attention or of their backward stages holds in its private
 * words, and how its
 * workspace is divided.
 *
 * K is packed into panels before it is used, and V into dense rows unless it is. When a key/value
 * head has more query rows than one row block, that is a phase of its own, into shared memory,
 * once; else the one part that needs a block packs it into its worker's memory. The bits are the
 * same.
 */
#ifndef QKV_CORE_PLAN_H
#define QKV_CORE_PLAN_H

#include "cache.h"
#include "context.h"
#include "problem.h"

/* A head wider than this takes half the rows at a time, so that a worker's memory stays below 1
 * MiB. */
#define QKV_WIDE 256

/* So many key/value heads at most are taken together (attention.c). */
enum { QKV_HEADS = 16 };

/* Offsets in bytes. */
struct qkv_shared_layout {
    size_t k, v, flags; /* packed keys, packed values, one byte a panel: its V is not finite */
    size_t size;
};

struct qkv_worker_layout {
    size_t scores;  /* [ROWS][SCORES_LD] */
    size_t max;     /* [ROWS][PANEL] */
    size_t acc;     /* [ROWS][v_pad] */
    size_t piece;   /* the same, for pieces after the first */
    size_t q;       /* [ROWS][head_dim], in decode rounded up to 4 */
    size_t block;   /* one packed block of K, then of V */
    size_t numbers; /* QKV_NUMBERS arrays of ROWS floats */
    size_t rows;    /* struct qkv_row [ROWS] */
    size_t size;
};

/* What the plan of attention_backward has beside those: offsets in bytes, and counts. */
struct qkv_backward_layout {
    size_t k_rows;          /* shared: the keys as rows, and with shared.flags what is in them */
    size_t delta, base;     /* shared: a number of each query row (qkv_backward_row_fn) */
    size_t bad;             /* shared: a byte of each row block */
    size_t mass;            /* shared: [pieces][query_rows], the sums of their weights */
    size_t stale;           /* shared: a byte of each row block: its masses are not 1 */
    size_t sinks;           /* shared: a number of each row block, or row */
    size_t partial;         /* shared: [pieces][query_rows][q_pad], parts of dQ */
    size_t d_scores, slope; /* worker: [ROWS][SCORES_LD] */
    size_t d_out;           /* worker: [rows][v_pad] */
    size_t d_k, d_v;        /* worker: [KEY_BLOCK][q_pad], [KEY_BLOCK][v_pad] */
    int64_t q_pad;          /* head_dim rounded up to panels */
    int64_t query_rows;     /* of all sequences and heads */
    int64_t head_blocks;    /* row blocks of a query head */
    int64_t pieces;         /* parts of a head's keys, at most */
};

/* What the plan of decode has beside those. */
struct qkv_decode_layout {
    struct qkv_cache_state cache;
    const struct qkv_narrow_kernels *narrow_k, *narrow_v; /* NULL: float32 arithmetic */
    int64_t pieces;           /* parts of a head's keys, if its rows are one row block; else 1 */
    int64_t state_rows, slot; /* rows and floats of a piece, at most */
    size_t state;   /* shared: [heads][pieces][2][state_rows], the pieces' maxima and sums */
    size_t partial; /* shared: [heads][pieces][slot], their accumulators */
};

struct __attribute__((may_alias)) qkv_plan_state {
    uint64_t magic; /* QKV_PLAN_MAGIC + stage */
    const struct qkv_table *table;
    struct qkv_problem problem;
    struct qkv_shared_layout shared;
    struct qkv_worker_layout worker;
    struct qkv_backward_layout backward;
    struct qkv_decode_layout decode;
    int64_t blocks;     /* key blocks of the longest sequence */
    int64_t rows;       /* rows of a row block: QKV_ROWS, half of that for wide heads */
    int64_t row_blocks; /* row blocks of a key/value head */
    int64_t v_pad;      /* v_dim rounded up to panels */
    int stage;
    int packs;   /* phase 0 packs */
    int asks;    /* the next keys and values are asked for ahead */
    int together; /* so many key/value heads can be one row block; at least 1 */
    int grouped; /* so many phases a key/value head can go through without waiting for the others */
};

#define QKV_PLAN_MAGIC 0x6e616c70766b71ULL /* "qkvplan" */

_Static_assert(sizeof(struct qkv_plan_state) <= sizeof(((qkv_plan *)0)->state), "state fits");

/* A plan of a stage that is made of attention's parameters: validates, fills in what all of them
 * have, and lets the stage lay out the rest. The forward stages' layout is the default. */
typedef void qkv_layout_fn(struct qkv_plan_state *state, qkv_plan *plan);
qkv_status qkv_make_plan(qkv_plan *plan, int stage, const qkv_attention_params *params,
                         const qkv_context *context, qkv_layout_fn *layout);

/* A worker's memory of the forward stages. */
void qkv_lay_out_worker(struct qkv_plan_state *state);

/* What a forward call takes, softmax included. */
double qkv_forward_flops(const struct qkv_problem *problem);

/* Shared memory for packed keys and values, if the plan packs. */
void qkv_lay_out_shared(struct qkv_plan_state *state);

/* Reserves `bytes` at the end of a layout, aligned; returns their offset. */
size_t qkv_reserve(size_t *size, int64_t bytes);

/* The forward stage of a stage: itself, or the one whose gradients it computes. */
int qkv_forward_stage(int stage);

/* The plan's private part, or NULL if the plan is not one of the stages above. */
const struct qkv_plan_state *qkv_plan_get(const qkv_plan *plan);

#endif
