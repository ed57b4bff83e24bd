/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a plan of the projection holds. Each matrix is a job of its own: blocks of its columns by
 * blocks of the tokens of one batch entry, or of some entries that have few. A matrix that the
 * caller did not pack is packed into shared memory by phase 0, or, where there are not many rows,
 * some inputs of a strip at a time by the parts.
 */
#ifndef QKV_CORE_PROJECT_H
#define QKV_CORE_PROJECT_H

#include "context.h"

enum {
    /* A part: up to TOKENS tokens by a strip of columns, DEPTH inputs at a time, so that what is
     * read again and again stays in the second-level cache: the strip's part of W, for the next
     * TOKENS tokens. If that cache is large, those TOKENS tokens, for the next strip; up to
     * TOGETHER parts that a thread gets in a row then share WIDE_DEPTH inputs at a time. The sums
     * of TOKENS tokens stay near, too. Not part of the law, but the depths are multiples of
     * STRETCH. */
    QKV_PROJECT_TOKENS = 96,
    QKV_PROJECT_COLUMNS = QKV_STRIP * QKV_PANEL,
    QKV_PROJECT_DEPTH = 3 * QKV_STRETCH,
    QKV_PROJECT_TOGETHER = 4,
    QKV_PROJECT_WIDE_DEPTH = 6 * QKV_STRETCH,
    /* Rows of a call whose parts pack for themselves, at most: DEPTH inputs of a strip at a time,
     * or PLAIN_DEPTH for less than half of TOKENS. Where the columns of an input stand beside each
     * other, up to PLAIN_FEW rows take a stretch of up to PLAIN_TOGETHER parts, so that pages are
     * read from end to end instead of some lines of each; more would need more than a MiB. */
    QKV_PLAIN_ROWS = 512,
    QKV_PLAIN_DEPTH = QKV_STRETCH,
    QKV_PLAIN_FEW = 120,
    QKV_PLAIN_TOGETHER = 16,
};

_Static_assert((QKV_PLAIN_FEW + QKV_STRETCH) * QKV_PLAIN_TOGETHER * QKV_PROJECT_COLUMNS <
                   (1 << 20) / (int)sizeof(float),
               "a worker's sums and what it packs");

struct qkv_matrix {
    int64_t heads, dim, width; /* width = heads * dim, of the output's rows */
    int64_t panels;            /* of its packed columns */
    size_t packed;             /* offset in shared memory, when phase 0 packs */
};

struct __attribute__((may_alias)) qkv_project_state {
    uint64_t magic;
    const struct qkv_table *table;
    int64_t batch, tokens, d_model;
    /* A block of rows: all of so many batch entries if they have few, else so many of one. */
    int64_t entries, block;
    int64_t row_blocks; /* of the whole batch */
    struct qkv_matrix matrix[QKV_WHICH_COUNT];
    int layout;
    int packs; /* phase 0 packs what the caller did not */
    int plain; /* the parts do, at this offset in a worker's memory: */
    size_t packed;
    int wide; /* strip after strip for some tokens, not tokens after tokens for a strip */
    int64_t together; /* parts in a row that share their inputs, at most */
    int lanes; /* few tokens by W from memory: the kernel is multiply_lanes */
};

#define QKV_PROJECT_MAGIC 0x6a6f7270766b71ULL /* "qkvproj" */

_Static_assert(sizeof(struct qkv_project_state) <= sizeof(((qkv_plan *)0)->state), "state fits");

/* Validates the parameters, whose flags may be those known; the context and the workspace are the
 * plan's. */
qkv_status qkv_project_make(struct qkv_project_state *state, const qkv_project_params *params,
                            uint64_t known_flags);

/* Parts of the two phases of a matrix. */
int64_t qkv_project_pack_parts(const struct qkv_matrix *m);
int64_t qkv_project_parts(const struct qkv_project_state *s, const struct qkv_matrix *m);

/* Columns as they stand: element (p, c) is at data[p * ld + c] or, if turned, at [c * ld + p]. */
struct qkv_columns {
    const float *data;
    int64_t ld;
    int turned;
};

/* A strip of a matrix, by its number, into that of a packed one. */
void qkv_project_pack_strip(const struct qkv_project_state *s, const struct qkv_matrix *m,
                            const qkv_tensor *w, float *packed, int64_t strip);

/* A matrix's columns from one on. */
struct qkv_columns qkv_columns_of(const qkv_tensor *w, int layout, int64_t column);

/* Steps [first, first + k) of n columns, as panels of [k][16]. */
void qkv_pack_columns(const struct qkv_pack_kernels *kernels, float *dst,
                      const struct qkv_columns *from, int64_t first, int64_t k, int64_t n);

/* Asks for rows of n numbers, from number `first` on, which may lie outside the matrix: nothing is
 * read there. */
void qkv_ask_for_rows(const float *data, int64_t first, int64_t ld, int64_t count, int64_t n);

/* The header of packed weights. */
struct qkv_packed_header {
    char magic[8];
    uint32_t version, layout, dtype, panel;
    int64_t d_model, width;
    char zero[24];
};

_Static_assert(sizeof(struct qkv_packed_header) == 64, "the header is 64 bytes");

/* The header that a matrix's packed weights must have. */
struct qkv_packed_header qkv_packed_header_of(const struct qkv_project_state *s,
                                              const struct qkv_matrix *m);

/* Runs checked parts: phase 0 packs when the plan says so. */
void qkv_project_do(const struct qkv_project_state *s, const qkv_project_tensors *tensors,
                    const qkv_workspace *workspace, int32_t phase, int64_t begin, int64_t end);

/* The tensors of one matrix of the call. */
struct qkv_matrix_tensors {
    const qkv_tensor *w, *bias, *out;
};

struct qkv_matrix_tensors qkv_matrix_tensors_of(const qkv_project_tensors *t, int which);

#endif
