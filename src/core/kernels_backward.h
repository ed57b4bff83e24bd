/* SPDX-License-Identifier: Apache-2.0 */
/* The second half of kernels.h, which includes it: the kernels of the gradients, of the losses and
 * of descent, with what they promise. */
#ifndef QKV_CORE_KERNELS_BACKWARD_H
#define QKV_CORE_KERNELS_BACKWARD_H

/* A chunk of a row of a gradient to the user: out[c] = in[c] in the columns c < n that the row's
 * intervals and masks keep, 0 in the others, whatever stands there. in is read in [lo, hi), and in
 * the vectors at its ends. */
typedef void qkv_keep_fn(float *out, const float *in, const struct qkv_score_row *row,
                         const struct qkv_score_rule *rule, int n);

/* The soft-cap on the way from scores to dot products s: x[c] *= 1 - tanh^2(scale * s[c] / softcap)
 * for c < n, a multiple of PANEL. What is zero, before or after, becomes -0, as in
 * qkv_mix_load_fn. */
typedef void qkv_uncap_fn(float *x, const float *s, const struct qkv_score_rule *rule, int n);

/* A chunk of a row of softmax's gradient, columns [0, n), n <= KEY_BLOCK: the sum of weight * dw
 * over the columns that intervals and masks keep; and out = weight * (dw - mean) there, 0 in the
 * others. A weight of zero makes zero of whatever stands in dw. out may be dw. */
typedef float qkv_weighted_sum_fn(const float *weight, const float *dw,
                                  const struct qkv_score_row *row,
                                  const struct qkv_score_rule *rule, int n);
typedef void qkv_softmax_gradient_fn(float *out, const float *weight, const float *dw, float mean,
                                     const struct qkv_score_row *row,
                                     const struct qkv_score_rule *rule, int n);

/* exp(sink - lse): the share of the sink in a row's mass. */
typedef float qkv_sink_share_fn(float sink, float lse);

/* The sum of (p - t)^2 over n elements of a row, in double precision; gradient (NULL: not wanted; p
 * itself is fine) gets factor * (p - t). */
typedef double qkv_square_fn(float *gradient, const float *p, const float *t, ptrdiff_t n,
                             float factor);

/* -log softmax(x)[label] of a row of n >= 1 logits; gradient (NULL: not wanted; x itself is fine)
 * gets (softmax(x) - onehot(label)) / counted. */
typedef double qkv_cross_entropy_fn(float *gradient, const float *x, ptrdiff_t n, int32_t label,
                                    double counted);

/* n weights one step down: the arrays, and the numbers of qkv_descent_params made ready. With g =
 * scale * g:
 *   plain     w -= rate * (g + decay w)
 *   momentum  m = keep1 m + g + decay w;  w -= rate * m
 *   adamw     m = keep1 m + take1 g;  v = keep2 v + take2 g^2;
 *             w -= rate * (m / (root sqrt(v) + epsilon) + decay w)
 * A decay of 0 is left out. first: m and v are not read, and taken for 0. No array overlaps
 * another; plain looks at neither m nor v. */
struct qkv_descend {
    float *w;
    const float *g;
    float *m, *v;
    ptrdiff_t n;
    float rate, scale, decay;
    float keep1, take1, keep2, take2;
    float root, epsilon;
    int first;
};
typedef void qkv_descend_fn(const struct qkv_descend *d);

/* The sum of the squares of x[n] in double precision. */
typedef double qkv_sum_squares_fn(const float *x, ptrdiff_t n);

/* Sums over rows: sum[c], c < n, is the ascending chain of additions of rows[r * ld + c], r <
 * count, from zero. */
typedef void qkv_sum_rows_fn(float *sum, const float *rows, ptrdiff_t ld, ptrdiff_t count,
                             ptrdiff_t n);

struct qkv_project_backward_kernels {
    const char *variant;
    qkv_multiply_fn *multiply;
    struct qkv_pack_kernels pack;
    qkv_pack_turned_fn *turned;
    qkv_sum_rows_fn *sum_rows;
    qkv_store_fn *store;
    int mr, nr;
};

/* What the backward stages of mix and of scores share (chain.h). */
struct qkv_chain_kernels {
    qkv_gemm_fn *gemm;
    struct qkv_pack_kernels pack;
    qkv_sees_fn *sees;
    qkv_mix_load_fn *load;
    qkv_mix_marked_fn *marked;
    qkv_keep_fn *keep;
    qkv_store_scaled_fn *store;
    int mr, nr;
};

struct qkv_scores_backward_kernels {
    const char *variant;
    struct qkv_chain_kernels chain;
    qkv_uncap_fn *uncap;
};

struct qkv_softmax_backward_kernels {
    const char *variant;
    qkv_weighted_sum_fn *sum;
    qkv_softmax_gradient_fn *gradient;
    qkv_sink_share_fn *sink_share;
};

struct qkv_mix_backward_kernels {
    const char *variant;
    struct qkv_chain_kernels chain;
};

/* One query row, for the gradients of attention: D = sum of d_out * out, in lanes of a vector and
 * then by the room's tree, and base = -lse. D is 0 for a row that sees no key (an lse of
 * -inf, or the sink's own beside an out of zeros), base is NaN for an lse of +inf.
 * Returns non-zero if q or d_out holds infinities or NaN. */
struct qkv_backward_row {
    const float *q, *d_out, *out;
    ptrdiff_t head_dim, v_dim;
    float lse, sink; /* -inf: none */
};
typedef int qkv_backward_row_fn(const struct qkv_backward_row *row, float *delta, float *base);

/* The gradient of a sink from some rows: -(sum of exp(sink - lse) * D). */
typedef float qkv_backward_sink_fn(const float *base, const float *delta, ptrdiff_t rows,
                                   float sink);

/* One block's scores to weights, and the gradients of the weights to those of the scores, for the
 * rows of a row block. Row r's gradients of the weights stand in d_scores + r * SCORES_LD, its
 * numbers in base[r] and delta[r]. With p = exp(score + base):
 *   s = p and d_scores = p * (d_scores - delta), both -0 in the columns [begin, end) that are
 * outside the row's [from, to), and, if mark is set, wherever p is 0. With a soft-cap d_scores is
 * then multiplied by the cap's slope, and slope (of the same shape; else not looked at) has it as
 * it was before that. The sum of a row's p is added to mass[r], or written there if add is 0. */
struct qkv_weigh_backward {
    const struct qkv_score_row *row;
    const struct qkv_score_rule *rule;
    float *scores, *d_scores, *slope; /* scores: row 0's, at the block's first column */
    const float *base, *delta;
    float *mass;
    int rows, begin, end, mark, add;
};
typedef void qkv_weigh_backward_fn(const struct qkv_weigh_backward *block);

/* out[c] = scale * (the sum of pieces rows, `step` apart, from the left) + 0 for c < n; the rows
 * are readable up to the next multiple of PANEL. */
typedef void qkv_store_sum_fn(float *out, const float *piece, ptrdiff_t step, int pieces,
                              float scale, ptrdiff_t n);

struct qkv_attention_backward_kernels {
    const char *variant;
    qkv_gemm_fn *gemm;
    struct qkv_pack_kernels pack;
    qkv_sees_fn *sees;
    qkv_backward_row_fn *row;
    qkv_backward_sink_fn *sink;
    qkv_weigh_backward_fn *weigh[QKV_EXP_COUNT]; /* by exponential tier */
    qkv_mix_marked_fn *marked;
    qkv_store_scaled_fn *store;
    qkv_store_sum_fn *store_sum;
    int mr, nr;
};

struct qkv_loss_kernels {
    const char *variant;
    qkv_square_fn *square;
    qkv_cross_entropy_fn *cross_entropy;
};

struct qkv_descent_kernels {
    const char *variant;
    qkv_descend_fn *plain, *momentum, *adamw;
    qkv_sum_squares_fn *sum_squares;
};

#endif
