/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The third part of kernels.h, which includes it: the kernels of the key/value cache and of
 * attention over it, with the order in which a cache stores numbers.
 *
 * Keys and values stand in panels of 16 tokens, as the products read them: along the tokens for K
 * (the columns of scores), along the numbers of a row for V (the columns of the output). Where an
 * element is smaller than a float, successive steps of the product's sum share a word of 32 bits,
 * the first in its lowest bits, as dot-product instructions want them: head_dim's for K, tokens'
 * for V. A step then costs a shift instead of a load, and the words of 16 columns fill a line.
 *
 *   dtype   steps a unit   K panel                              V panel
 *   F32     1              [head_dim][16] of 4 bytes            [16][v_pad] of 4 bytes
 *   F16     1              [head_dim][16] of 2 bytes            [16][v_pad] of 2 bytes
 *   BF16    2              [ceil(head_dim / 2)][16][2] of 2     [8][v_pad][2] of 2
 *   I8      4              [ceil(head_dim / 4)][16][4] of 1     [4][v_pad][4] of 1
 *
 * v_pad is v_dim rounded up to 16, with zeros; so is the last unit of head_dim. When the first
 * token of a unit of V is stored, its other tokens become zeros, and so do their scales. An I8
 * panel has 16 scales beside it. (F16 pairs would have to be taken apart before the conversion.)
 */
#ifndef QKV_CORE_KERNELS_CACHE_H
#define QKV_CORE_KERNELS_CACHE_H

/* The types that a cache stores, as indices. */
enum qkv_stored {
    QKV_STORED_F32,
    QKV_STORED_F16,
    QKV_STORED_BF16,
    QKV_STORED_I8,
    QKV_STORED_COUNT
};

enum {
    QKV_FEW = 32, /* rows of a product with panels as they are stored, at most */
    QKV_BLOCK_PANELS = QKV_KEY_BLOCK / QKV_PANEL,
};

/* s[r * lds + 16 g + c] = the dot product of row r of q with column c of panel[g]: one ascending
 * FMA chain over k steps from zero, as in qkv_gemm; times scale[g][c] at the end if scale is not
 * NULL. 1 <= rows <= QKV_FEW, 1 <= panels <= QKV_BLOCK_PANELS. q's rows are readable, and zero, up
 * to k rounded up to 4. */
struct qkv_key_product {
    const void *q; /* floats; for narrow kernels what they have made of these, in the same rows */
    const void *const *panel;
    const float *const *scale;
    const float *row_scale; /* of narrow kernels alone, by row */
    float *s;
    ptrdiff_t ldq, lds;
    ptrdiff_t k;
    int rows, panels;
    const void *const *next; /* [nexts] panels that will be read after these: to be prefetched, as
                                these are; NULL where nothing need be, in a cache in the caches */
    int nexts;
    int in_order; /* with next: panels are taken one after the other, in as few streams as may be */
    int lanes;    /* what is prefetched is next alone, as several streams */
    int halves;   /* as in struct qkv_table */
};
typedef void qkv_key_product_fn(const struct qkv_key_product *p);

/* acc[r * ld_acc + c] = acc * factor[r] + chain, or the chain alone if factor is NULL: over the
 * tokens t in [from, to) in ascending order, from zero, of w[r * ldw + t] times element c of token
 * t, which is token t % 16 of panel[t / 16]. c < n, a multiple of 16. Where a unit of the panel
 * reaches beyond [from, to), the weights there are zeros, and may be taken into the chain. */
struct qkv_value_product {
    const void *w; /* as q above */
    const void *const *panel;
    const float *row_scale;
    float *acc;
    const float *factor;
    ptrdiff_t ldw, ld_acc;
    ptrdiff_t n;
    int rows, from, to; /* 1 <= rows <= QKV_FEW, 0 <= from < to <= QKV_KEY_BLOCK */
    const void *const *next;
    int nexts, in_order, lanes, halves;
};
typedef void qkv_value_product_fn(const struct qkv_value_product *p);

/* Rows of floats to the numbers that a narrow product takes, in place: columns [from, to) of row r,
 * which stands at rows + r * ld, become numbers of the stored type's width, c at c times that width
 * from the row's begin, and zeros behind them up to a multiple of 4. from is a multiple of PANEL.
 * scale[r]: what the product's sums must be multiplied by; NaN where the sums themselves could not
 * say that the row holds a NaN or an infinity. What a row becomes depends on nothing but itself. */
typedef void qkv_round_rows_fn(float *rows, ptrdiff_t ld, int count, int from, int to,
                               float *scale);

/* Weights of I8 values: w[r * ldw + c] *= scale[c / 16][c % 16] for from <= c < to, multiples of
 * 16. marked: a weight of -0 stays, whatever its scale is. */
typedef void qkv_scale_weights_fn(float *w, ptrdiff_t ldw, const float *const *scale, int rows,
                                  int from, int to, int marked);

/* A panel of keys as floats, dst[p * 16 + c], k steps; and tokens [from, to) of a panel of values
 * as rows, dst[t * n + c], n a multiple of 16. Of I8 the integers, unscaled. */
typedef void qkv_unpack_keys_fn(float *dst, const void *panel, ptrdiff_t k);
typedef void qkv_unpack_values_fn(float *dst, const void *panel, int from, int to, ptrdiff_t n);

/* Tokens [column, column + count) of a panel from rows of floats that are ld apart; scale (of I8
 * alone, else NULL) is that of the panel's first token. 1 <= count, column + count <= 16. values:
 * pads to v_pad columns; returns non-zero if any number as stored, or any scale, is infinite or
 * NaN. */
typedef void qkv_append_keys_fn(void *panel, float *scale, int column, const float *rows,
                                ptrdiff_t ld, int count, ptrdiff_t k);
typedef int qkv_append_values_fn(void *panel, float *scale, int row, const float *rows,
                                 ptrdiff_t ld, int count, ptrdiff_t v_dim);

/* out = x with its first `dims` numbers turned, pair i by (cos[i], sin[i]); half: the pairs are (i,
 * i + dims / 2), else (2 i, 2 i + 1). a' = a cos - b sin, b' = a sin + b cos, each a product and a
 * fused multiply-add. n numbers in all; out may be x. */
typedef void qkv_turn_fn(float *out, const float *x, const float *cos, const float *sin,
                         ptrdiff_t dims, int half, ptrdiff_t n);

/* a part's row joined to those before it: out = (out * exp(lse - m) + x * exp(x_lse - m)) / (their
 * sum), m the larger; *lse moves along. n numbers. A -inf on either side takes the other row as it
 * is; if both are, out becomes zeros. */
typedef void qkv_join_fn(float *out, float *lse, const float *x, float x_lse, ptrdiff_t n);

/* What is known of one stored type, by qkv_stored. */
struct qkv_cache_kernels {
    const char *variant;
    qkv_append_keys_fn *append_keys[QKV_STORED_COUNT];
    qkv_append_values_fn *append_values[QKV_STORED_COUNT];
    qkv_unpack_keys_fn *unpack_keys[QKV_STORED_COUNT];
    qkv_unpack_values_fn *unpack_values[QKV_STORED_COUNT];
};

struct qkv_rotate_kernels {
    const char *variant;
    qkv_turn_fn *turn;
};

/* The row steps, and the products with unpacked blocks, are those of attention. */
struct qkv_decode_kernels {
    const char *variant;
    qkv_key_product_fn *keys[QKV_STORED_COUNT];
    qkv_value_product_fn *values[QKV_STORED_COUNT];
    qkv_scale_weights_fn *scale;
    int lanes; /* floats of a vector */
    int in_order[QKV_STORED_COUNT]; /* the widest values that are worth taking in order; 0: none */
};

/* The products with one stored type by instructions for numbers of its width. row_scale of the
 * products is what the rounding has left in scale. The order of the sums is each variant's own, and
 * the same for a row whichever rows, panels and columns stand beside it: what is grouped is grouped
 * from k = 0, and from the block's first token. */
struct qkv_narrow_kernels {
    const char *variant;
    qkv_round_rows_fn *round_queries;
    qkv_key_product_fn *keys;
    qkv_round_rows_fn *round_weights; /* numbers of 0 or more, marks (-0) among them */
    qkv_value_product_fn *values;
};

struct qkv_merge_kernels {
    const char *variant;
    qkv_join_fn *join;
};

#endif
