/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kernel signature, once, and the table through which the drivers reach them.
 *
 * The drivers in src/core block, mask and keep the books; a kernel works on one block in memory
 * that the driver prepared, and never checks arguments. A table entry holds a stage's kernels
 * together with the tile sizes that they were written for, so that they cannot disagree.
 *
 * PANEL is the one packing constant of all rooms: matrices that stand on the right of a product
 * are packed in groups of 16 columns (one ZMM, two YMM, four Q registers), [k][16] each.
 */
#ifndef QKV_CORE_KERNELS_H
#define QKV_CORE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include <qkv/qkv.h>

#include "config.h"

enum {
    QKV_PANEL = 16,
    /* Law of the bits: keys are grouped in blocks, blocks in pieces, both from key 0. The same
     * in every room (and a multiple of PANEL), so that a packed cache suits them all. */
    QKV_KEY_BLOCK = 256,
    QKV_PIECE = 4 * QKV_KEY_BLOCK,
    /* Floats from one row of a row block's scores to the next: not a power of two, so that a walk
     * down a column, as the gradients' products take it, does not meet the same few sets of the
     * cache. */
    QKV_SCORES_LD = QKV_KEY_BLOCK + QKV_PANEL,
    /* Law of the bits: project sums d_model in stretches of so many inputs. */
    QKV_STRETCH = 128,
    /* Panels of W that project's kernel takes at a time, at most: the widest room's tile. */
    QKV_STRIP = 4,
    /* Rows that a part takes through the keys together, at most (the query heads of a group count
     * as rows): a multiple of every room's tile height and of PANEL. Not part of the law. */
    QKV_ROWS = 96,
};

/* C[m x n] = C * factor[row] + A[m x k] B[k x n], or A B alone if factor is NULL: every element of
 * the product is one ascending FMA chain over k, to which C is added last, in one more FMA.
 * A's element (i, p) is at a[i * lda + p * a_k], of which one is 1: A stands by rows or by columns.
 * B's element (p, 16 g + c) is at b[p * b_k + g * b_g + c]. n is a multiple of
 * PANEL and C, row-major, is written in full panels. Any m, n, k >= 0. C overlaps neither input.
 * If scale is not NULL, the results times scale[row], + 0 as in qkv_store_scaled_fn, go to out,
 * whose rows are ld_out apart, instead of to C. If max is not NULL, column c of row r takes part in
 * the maximum at max[r * PANEL + c % PANEL], -inf for a column of nothing but NaN (only rooms whose
 * attention says so look at max). */
struct qkv_gemm {
    const float *a;
    const float *b;
    float *c;
    float *max;
    ptrdiff_t lda, a_k, b_k, b_g, ldc;
    ptrdiff_t m, n, k;
    const float *factor, *scale;
    float *out;
    ptrdiff_t ld_out;
    uintptr_t ahead; /* an address, from which on about as much as B is prefetched; 0: nothing */
};
typedef void qkv_gemm_fn(const struct qkv_gemm *g);

/* Where the results of a tile go whose first element is C's (i, j), in rows *ld apart. */
static inline float *qkv_gemm_results(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j,
                                      ptrdiff_t *ld) {
    *ld = g->scale ? g->ld_out : g->ldc;
    return (g->scale ? g->out : g->c) + i * *ld + j;
}

/* One panel of the transpose: dst[p * 16 + r] = src[r * ld + p] for p < k and first <= r < last,
 * and 0 for the other r < 16. Rows outside [first, last) are not read. */
typedef void qkv_pack_panel_fn(float *dst, const float *src, ptrdiff_t ld, int first, int last,
                               ptrdiff_t k);

/* The transpose of up to 16 rows, to rows that are ld_dst apart: dst[p * ld_dst + r] = src[r * ld +
 * p] for p < k and r < rows, and 0 for rows <= r < 16. */
typedef void qkv_pack_turned_fn(float *dst, ptrdiff_t ld_dst, const float *src, ptrdiff_t ld,
                                int rows, ptrdiff_t k);

/* Rows copied into a dense block: dst[r * ld_dst + c] = src[r * ld_src + c] for c < n, and 0 for
 * n <= c < ld_dst, where ld_dst is n rounded up to PANEL. Returns non-zero if any element is
 * infinite or NaN. */
typedef int qkv_pack_rows_fn(float *dst, const float *src, ptrdiff_t ld_src, ptrdiff_t rows,
                             ptrdiff_t n);

/* Are all of x[0 .. n) finite? n is a multiple of PANEL. */
typedef int qkv_finite_fn(const float *x, ptrdiff_t n);

struct qkv_pack_kernels {
    qkv_pack_panel_fn *panel;
    qkv_pack_rows_fn *rows;
    qkv_finite_fn *finite;
};

/* A row of scores over one key block: what its masks leave, and what is added to it. Columns
 * count from the block's first key; column c of the row stands at s[c]. Many stand on the stack. */
struct qkv_score_row {
    float *s;
    short from, to;      /* the columns that were computed, multiples of PANEL; from <= to */
    short lo, hi;        /* of these, the ones that interval masks keep: from <= lo <= hi <= to */
    short first, end;    /* those that some row of its tile keeps: from <= first, end <= to */
    float slope;         /* ALiBi */
    const float *bias;   /* the row of bias at column 0, or NULL */
    const float *ahead;  /* the row of bias that will be read one tile later: to be prefetched */
    const uint8_t *mask; /* the row of the boolean mask at column 0, or NULL */
    float distance;      /* the query's position minus the block's first key */
};

/* How a call's scores are made from dot products; the same for all rows of a call. */
struct qkv_score_rule {
    float scale;   /* of the dot product */
    float softcap; /* 0: none */
    int modified;  /* scale, soft-cap, ALiBi or bias are applied to the scores one by one; if 0,
                      the scale is part of the exponential's argument (scale > 0 then) */
    int exp;       /* the exponential tier, a qkv_exp */
    int alibi;
    int bias_step; /* 0 or 1 columns */
    int mask_step;
};

/* The running state of the rows of a row block within a piece (online softmax), one array of
 * QKV_ROWS floats each: the largest scaled score as a power of two (times log2 e), -inf before
 * the first key, and the sum. */
struct qkv_running {
    float *max;
    float *sum;
};

/* Do the row's masks (boolean, or a bias below -2^127) leave it any column of [lo, hi)? */
typedef int qkv_sees_fn(const struct qkv_score_row *row, const struct qkv_score_rule *rule);

/* One block's scores to weights, for the rows of a row block: applies the rule and the masks, moves
 * each row's running maximum and sum, leaves exp(score - max) in the columns [from, to) and in
 * factor[r] what the row's accumulator must be multiplied by (exactly 1 when the maximum did not
 * move or there was none). A row without columns (from = to) keeps its state. state and factor are
 * readable and written up to the next multiple of PANEL rows. */
struct qkv_weigh {
    const struct qkv_score_row *row;
    const struct qkv_score_rule *rule;
    const float *max; /* unless NULL: the rows' largest scores as qkv_gemm leaves them, if whole */
    struct qkv_running state;
    float *factor;
    int rows;
    int whole; /* all rows have row 0's columns and stand SCORES_LD apart, and the rule and the
                  masks leave their scores as they are: row 0 alone is there unless mark is set */
    int mark;  /* masked keys leave -0 instead of +0, for qkv_mix_marked_fn */
    int halves; /* as in struct qkv_table */
};
typedef void qkv_weigh_fn(const struct qkv_weigh *block);

/* Joins the partial result of a later piece to that of the earlier ones, row by row. */
typedef void qkv_merge_fn(float *acc, struct qkv_running state, const float *piece,
                          struct qkv_running piece_state, ptrdiff_t ld, int rows, ptrdiff_t n);

/* Ends the rows of a row block: joins the sinks (-inf: none), leaves in scale[r] what the
 * accumulator must be multiplied by (0 for a row without mass), and in lse[r], unless lse is NULL,
 * the natural logarithm of the mass (the sink, or -inf, for a row without keys). All arrays are
 * QKV_ROWS long. */
typedef void qkv_seal_fn(struct qkv_running state, const float *sink, int rows, float *scale,
                         float *lse);

/* Rows to the user: out[r * ld_out + c] = acc[r * ld + c] * scale[r] + 0 for c < n (acc is readable
 * up to the next multiple of PANEL): the added zero turns -0 into +0, so that a masked key that was
 * skipped and one that was multiplied by zero leave the same bits. */
typedef void qkv_store_scaled_fn(float *out, ptrdiff_t ld_out, const float *acc, ptrdiff_t ld,
                                 const float *scale, int rows, ptrdiff_t n);

/* acc[n] = acc * factor + a[k] V[k x n] as qkv_gemm has it, without the keys whose weight is -0:
 * the selecting path for blocks of V that hold infinities or NaN. n is a multiple of PANEL. */
typedef void qkv_mix_marked_fn(float *acc, float factor, const float *a, const float *v,
                               ptrdiff_t ld_v, ptrdiff_t k, ptrdiff_t n);

/* Scores of one row as the user sees them: rule and masks applied to row->s, then columns
 * [0, n) written to out, -inf where masked or outside [from, to). */
typedef void qkv_score_store_fn(float *out, const struct qkv_score_row *row,
                                const struct qkv_score_rule *rule, int n);

/* One chunk of a row of softmax: columns [0, n), n <= KEY_BLOCK, of in copied to out with -inf
 * where masked ([lo, hi), bias below -2^127, boolean mask). Returns the largest. in may be out. */
typedef float qkv_softmax_mask_fn(float *out, const float *in, const struct qkv_score_row *row,
                                  const struct qkv_score_rule *rule, int n);

/* A whole row of masked scores to weights, in place: exp(s - m) / sum with the sink in the sum.
 * max is the largest of the row, or -inf. lse (NULL: not wanted) as in qkv_seal_fn. */
typedef void qkv_softmax_row_fn(float *row, ptrdiff_t n, float max, float sink, float *lse);

/* A chunk of a row of weights prepared for mixing: out[c] = in[c] for c < n, but -0 where the
 * weight is zero or masked (as in qkv_softmax_mask_fn); -0 up to the next multiple of PANEL. */
typedef void qkv_mix_load_fn(float *out, const float *in, const struct qkv_score_row *row,
                             const struct qkv_score_rule *rule, int n);

/* A row of a product to the user: out[c] = acc[c] + bias[c] (NULL: + 0) for c < n. */
typedef void qkv_store_fn(float *out, const float *acc, const float *bias, ptrdiff_t n);

/* A strip of the projection: tokens by up to STRIP panels of W, k inputs of d_model, k a multiple
 * of STRETCH unless d_model ends there. x is row-major; W's element (p, 16 v + c) is at w[v *
 * w_panel + p * 16 + c]. Each stretch is one ascending FMA chain from zero, and sum[tokens x 16
 * panels], row-major, is their sum from left to right. */
struct qkv_multiply {
    const float *x, *w;
    float *sum;
    ptrdiff_t x_ld, w_panel, sum_ld;
    ptrdiff_t tokens, k; /* 1 or more */
    int panels;
    int add;           /* sum holds the stretches before these */
    int ends;          /* sum + bias (NULL: + 0) goes to out instead, and sum holds nothing then */
    const float *bias; /* of the strip's columns */
    float *out[QKV_STRIP]; /* of each panel: all 16 columns of its first row */
    ptrdiff_t out_ld;
    const float *ahead; /* what will be w next, and k: may be prefetched */
    ptrdiff_t ahead_k;
    int follows;        /* as in struct qkv_table */
};
typedef void qkv_multiply_fn(const struct qkv_multiply *strip);

struct qkv_project_kernels {
    const char *variant;
    qkv_multiply_fn *multiply;
    struct qkv_pack_kernels pack;
    qkv_store_fn *store;
    int mr, nr;
    int few; /* up to so many tokens W is read once, as a stream, whatever k is */
    /* The same for up to `laned` tokens, and up to `window` inputs at a time, where W comes from
     * memory and several streams are faster than one; NULL if the room has no such thing. What is
     * asked for during a window must not leave the second-level cache before it is read. */
    qkv_multiply_fn *multiply_lanes;
    int laned, window;
    /* A second-level cache of so many bytes holds some tokens of X for one strip after another; 0:
     * that is not worth it. */
    int64_t wide_from;
};

struct qkv_scores_kernels {
    const char *variant;
    qkv_gemm_fn *gemm;
    struct qkv_pack_kernels pack;
    qkv_sees_fn *sees;
    qkv_score_store_fn *store;
    int mr, nr;
};

struct qkv_softmax_kernels {
    const char *variant;
    qkv_softmax_mask_fn *mask;
    qkv_softmax_row_fn *row;
};

struct qkv_mix_kernels {
    const char *variant;
    qkv_gemm_fn *gemm;
    struct qkv_pack_kernels pack;
    qkv_sees_fn *sees;
    qkv_mix_load_fn *load;
    qkv_mix_marked_fn *marked;
    qkv_store_fn *store;
    int mr, nr;
};

struct qkv_attention_kernels {
    const char *variant;
    qkv_gemm_fn *gemm;
    struct qkv_pack_kernels pack;
    qkv_sees_fn *sees;
    qkv_weigh_fn *weigh[QKV_EXP_COUNT]; /* by exponential tier */
    qkv_mix_marked_fn *marked;
    qkv_merge_fn *merge;
    qkv_seal_fn *seal;
    qkv_store_scaled_fn *store;
    int mr, nr;
    int gemm_max; /* gemm looks at max */
};

#include "kernels_backward.h"
#include "kernels_cache.h"

/* What a context binds. A room's init overlays the entries that it has. */
struct qkv_table {
    const struct qkv_project_kernels *project;
    const struct qkv_scores_kernels *scores;
    const struct qkv_softmax_kernels *softmax;
    const struct qkv_mix_kernels *mix;
    const struct qkv_attention_kernels *attention;
    const struct qkv_project_backward_kernels *project_backward;
    const struct qkv_scores_backward_kernels *scores_backward;
    const struct qkv_softmax_backward_kernels *softmax_backward;
    const struct qkv_mix_backward_kernels *mix_backward;
    const struct qkv_attention_backward_kernels *attention_backward;
    const struct qkv_loss_kernels *loss;
    const struct qkv_descent_kernels *descent;
    const struct qkv_cache_kernels *cache;
    const struct qkv_rotate_kernels *rotate;
    const struct qkv_decode_kernels *decode;
    const struct qkv_merge_kernels *merge;
    const struct qkv_narrow_kernels *narrow[QKV_STORED_COUNT]; /* NULL: none */
    int64_t second_cache; /* bytes of a core's second-level cache; 0: not known */
    int64_t last_cache; /* bytes of the last-level cache that calls may count on; 0: not known */
    int follows; /* the processor's own prefetchers are faster than asking for lines one by one */
    int halves;  /* vectors of 512 bits go through the processor's units in two halves */
};

/* What every room provides: its entries of the table, made of its kernels. */
#define QKV_DECLARE_ROOM(room)                                                          \
    extern const struct qkv_project_kernels qkv_##room##_project;                       \
    extern const struct qkv_scores_kernels qkv_##room##_scores;                         \
    extern const struct qkv_softmax_kernels qkv_##room##_softmax;                       \
    extern const struct qkv_mix_kernels qkv_##room##_mix;                               \
    extern const struct qkv_attention_kernels qkv_##room##_attention;                   \
    extern const struct qkv_project_backward_kernels qkv_##room##_project_backward;     \
    extern const struct qkv_scores_backward_kernels qkv_##room##_scores_backward;       \
    extern const struct qkv_softmax_backward_kernels qkv_##room##_softmax_backward;     \
    extern const struct qkv_mix_backward_kernels qkv_##room##_mix_backward;             \
    extern const struct qkv_attention_backward_kernels qkv_##room##_attention_backward; \
    extern const struct qkv_loss_kernels qkv_##room##_loss;                             \
    extern const struct qkv_descent_kernels qkv_##room##_descent;                       \
    extern const struct qkv_cache_kernels qkv_##room##_cache;                           \
    extern const struct qkv_rotate_kernels qkv_##room##_rotate;                         \
    extern const struct qkv_decode_kernels qkv_##room##_decode;                         \
    extern const struct qkv_merge_kernels qkv_##room##_merge;                           \
    qkv_gemm_fn qkv_##room##_gemm;                                                      \
    qkv_multiply_fn qkv_##room##_multiply;                                              \
    qkv_pack_panel_fn qkv_##room##_pack_panel;                                          \
    qkv_pack_turned_fn qkv_##room##_pack_turned;                                        \
    qkv_pack_rows_fn qkv_##room##_pack_rows;                                            \
    qkv_finite_fn qkv_##room##_finite;                                                  \
    qkv_store_fn qkv_##room##_store;                                                    \
    qkv_mix_load_fn qkv_##room##_mix_load;                                              \
    qkv_mix_marked_fn qkv_##room##_mix_marked;                                          \
    qkv_sees_fn qkv_##room##_sees;                                                      \
    void qkv_##room##_init(struct qkv_table *table, uint64_t features);

#define ROOM(folder, name, native, built, needs) QKV_DECLARE_ROOM(folder)
#include "isa.def"
#undef ROOM

/* Variants for features beyond those that a room needs: a room lists its own, the better ones of a
 * type behind the others, and binds what the features allow. */
struct qkv_narrow_variant {
    uint64_t needs;
    int type; /* a qkv_stored */
    const struct qkv_narrow_kernels *kernels;
};

void qkv_bind_narrow(struct qkv_table *table, uint64_t features,
                     const struct qkv_narrow_variant *variants, size_t count);

extern const struct qkv_narrow_kernels qkv_avx2_vnni, qkv_avx512_vnni, qkv_avx512_bf16;
extern const struct qkv_narrow_kernels qkv_neon_fp16, qkv_neon_dotprod, qkv_neon_i8mm,
    qkv_neon_bf16;

#endif
