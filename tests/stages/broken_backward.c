/* SPDX-License-Identifier: Apache-2.0 */
/* The backward stages' kernels broken on purpose, as broken.c breaks those of the forward. */
#include "broken_backward.h"

#include <math.h>
#include <string.h>

#include "context.h"

/* The room's own kernels, and the copies that stand in the context. */
static struct qkv_table own;
static struct qkv_scores_backward_kernels scores;
static struct qkv_softmax_backward_kernels softmax;
static struct qkv_mix_backward_kernels mix;
static struct qkv_attention_backward_kernels attention;

static struct qkv_score_row one_key_more(const struct qkv_score_row *row) {
    struct qkv_score_row more = *row;
    more.hi += more.hi < more.to;
    return more;
}

static struct qkv_score_row one_key_less(const struct qkv_score_row *row) {
    struct qkv_score_row less = *row;
    less.lo += less.lo < less.hi;
    return less;
}

/* ---- scores ---- */

static void scores_drop_a_term(const struct qkv_gemm *g) {
    struct qkv_gemm less = *g;
    less.k -= less.k > 1;
    own.scores_backward->chain.gemm(&less);
}

static void scores_mask_one_less(float *out, const float *in, const struct qkv_score_row *row,
                                 const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row more = one_key_more(row);
    own.scores_backward->chain.load(out, in, &more, rule, n);
}

static void scores_mask_one_more(float *out, const float *in, const struct qkv_score_row *row,
                                 const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row less = one_key_less(row);
    own.scores_backward->chain.load(out, in, &less, rule, n);
}

static void scores_bias_masks_one_more(float *out, const float *in, const struct qkv_score_row *row,
                                       const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row less = one_key_less(row);
    own.scores_backward->chain.keep(out, in, &less, rule, n);
}

static void scores_forget_the_cap(float *x, const float *s, const struct qkv_score_rule *rule,
                                  int n) {
    (void)x, (void)s, (void)rule, (void)n;
}

static void scores_scale_wrongly(float *out, ptrdiff_t ld_out, const float *acc, ptrdiff_t ld,
                                 const float *scale, int rows, ptrdiff_t n) {
    own.scores_backward->chain.store(out, ld_out, acc, ld, scale, rows, n);
    for (int r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < n; c++)
            out[r * ld_out + c] *= 1 + 0x1p-12F;
}

static void scores_writes_past_the_end(float *out, ptrdiff_t ld_out, const float *acc, ptrdiff_t ld,
                                       const float *scale, int rows, ptrdiff_t n) {
    for (int r = 0; r < rows; r++) {
        own.scores_backward->chain.store(out + r * ld_out, ld_out, acc + r * ld, ld, scale + r, 1,
                                         n);
        out[r * ld_out + n] = 0;
    }
}

static int scores_take_all_for_finite(float *dst, const float *src, ptrdiff_t ld_src,
                                      ptrdiff_t rows, ptrdiff_t n) {
    own.scores_backward->chain.pack.rows(dst, src, ld_src, rows, n);
    return 0;
}

/* ---- softmax ---- */

static float softmax_drops_a_key(const float *weight, const float *dw,
                                 const struct qkv_score_row *row, const struct qkv_score_rule *rule,
                                 int n) {
    struct qkv_score_row less = one_key_less(row);
    return own.softmax_backward->sum(weight, dw, &less, rule, n);
}

static float softmax_forgets_the_mean(const float *weight, const float *dw,
                                      const struct qkv_score_row *row,
                                      const struct qkv_score_rule *rule, int n) {
    (void)weight, (void)dw, (void)row, (void)rule, (void)n;
    return 0;
}

static void softmax_mask_one_less(float *out, const float *weight, const float *dw, float mean,
                                  const struct qkv_score_row *row,
                                  const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row more = one_key_more(row);
    own.softmax_backward->gradient(out, weight, dw, mean, &more, rule, n);
}

static void softmax_mask_one_more(float *out, const float *weight, const float *dw, float mean,
                                  const struct qkv_score_row *row,
                                  const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row less = one_key_less(row);
    own.softmax_backward->gradient(out, weight, dw, mean, &less, rule, n);
}

static void softmax_writes_past_the_end(float *out, const float *weight, const float *dw,
                                        float mean, const struct qkv_score_row *row,
                                        const struct qkv_score_rule *rule, int n) {
    own.softmax_backward->gradient(out, weight, dw, mean, row, rule, n);
    out[n] = 0;
}

static float softmax_scales_the_sink(float sink, float lse) {
    return own.softmax_backward->sink_share(sink, lse) * (1 + 0x1p-12F);
}

/* ---- mix ---- */

static void mix_drops_a_term(const struct qkv_gemm *g) {
    struct qkv_gemm less = *g;
    less.k -= less.k > 1;
    own.mix_backward->chain.gemm(&less);
}

static void mix_masks_one_less(float *out, const float *in, const struct qkv_score_row *row,
                               const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row more = one_key_more(row);
    own.mix_backward->chain.load(out, in, &more, rule, n);
}

static void mix_weights_mask_one_less(float *out, const float *in, const struct qkv_score_row *row,
                                      const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row more = one_key_more(row);
    own.mix_backward->chain.keep(out, in, &more, rule, n);
}

static void mix_weights_mask_one_more(float *out, const float *in, const struct qkv_score_row *row,
                                      const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row less = one_key_less(row);
    own.mix_backward->chain.keep(out, in, &less, rule, n);
}

static void mix_writes_past_the_end(float *out, ptrdiff_t ld_out, const float *acc, ptrdiff_t ld,
                                    const float *scale, int rows, ptrdiff_t n) {
    for (int r = 0; r < rows; r++) {
        own.mix_backward->chain.store(out + r * ld_out, ld_out, acc + r * ld, ld, scale + r, 1, n);
        out[r * ld_out + n] = 0;
    }
}

/* Of a gradient's rows that hold NaN the products are those of rows that do not. */
static int mix_takes_all_for_finite(float *dst, const float *src, ptrdiff_t ld_src, ptrdiff_t rows,
                                    ptrdiff_t n) {
    own.mix_backward->chain.pack.rows(dst, src, ld_src, rows, n);
    return 0;
}

/* ---- attention ---- */

static void weigh(const struct qkv_weigh_backward *block) {
    own.attention_backward->weigh[block->rule->exp](block);
}

static void attention_drops_a_key(const struct qkv_weigh_backward *block) {
    weigh(block);
    for (int r = 0; r < block->rows; r++)
        if (block->row[r].hi > block->row[r].lo)
            block->d_scores[r * QKV_SCORES_LD + block->row[r].hi - 1] = 0;
}

static void attention_scales_wrongly(const struct qkv_weigh_backward *block) {
    struct qkv_score_rule wrong = *block->rule;
    struct qkv_weigh_backward other = *block;
    wrong.scale *= 1 + 0x1p-12F;
    other.rule = &wrong;
    weigh(&other);
}

typedef struct qkv_score_row cut(const struct qkv_score_row *row);

static void weigh_cut(const struct qkv_weigh_backward *block, cut *how) {
    struct qkv_score_row wrong[QKV_ROWS];
    struct qkv_weigh_backward other = *block;
    for (int r = 0; r < block->rows; r++)
        wrong[r] = how(&block->row[r]);
    other.row = wrong;
    weigh(&other);
}

static void attention_masks_one_less(const struct qkv_weigh_backward *block) {
    weigh_cut(block, one_key_more);
}

static void attention_masks_one_more(const struct qkv_weigh_backward *block) {
    weigh_cut(block, one_key_less);
}

static void attention_forgets_delta(const struct qkv_weigh_backward *block) {
    static const float none[QKV_ROWS];
    struct qkv_weigh_backward other = *block;
    other.delta = none;
    weigh(&other);
}

static void attention_forgets_the_cap(const struct qkv_weigh_backward *block) {
    weigh(block);
    for (int r = 0; block->rule->softcap > 0 && block->slope && r < block->rows; r++)
        memcpy(block->d_scores + r * QKV_SCORES_LD, block->slope + r * QKV_SCORES_LD,
               (size_t)block->end * sizeof(float));
}

static void attention_drops_a_term(const struct qkv_gemm *g) {
    struct qkv_gemm less = *g;
    less.k -= less.k > 1;
    own.attention_backward->gemm(&less);
}

static void attention_loses_a_piece(float *out, const float *piece, ptrdiff_t step, int pieces,
                                    float scale, ptrdiff_t n) {
    own.attention_backward->store_sum(out, piece, step, pieces > 1 ? pieces - 1 : 1, scale, n);
}

static void attention_writes_past_the_end(float *out, const float *piece, ptrdiff_t step,
                                          int pieces, float scale, ptrdiff_t n) {
    own.attention_backward->store_sum(out, piece, step, pieces, scale, n);
    out[n] = 0;
}

static float attention_loses_the_sink(const float *base, const float *delta, ptrdiff_t rows,
                                      float sink) {
    return own.attention_backward->sink(base, delta, rows > 1 ? rows - 1 : rows, sink);
}

/* A NaN in Q or dO is multiplied by the zero of a masked pair. */
static int attention_takes_rows_for_finite(const struct qkv_backward_row *row, float *delta,
                                           float *base) {
    own.attention_backward->row(row, delta, base);
    return 0;
}

static int attention_takes_keys_for_finite(const float *x, ptrdiff_t n) {
    (void)x, (void)n;
    return 1;
}

/* ---- The list ---- */

static void weigh_with(qkv_weigh_backward_fn *kernel) {
    for (int tier = 0; tier < QKV_EXP_COUNT; tier++)
        attention.weigh[tier] = kernel;
}

#define MUTANT(name, stage, assignment) \
    static void make_##name(void) {     \
        assignment;                     \
    }
#define MUTANTS(DO)                                                                             \
    DO(scores_drop_a_term, SCORES, scores.chain.gemm = scores_drop_a_term)                      \
    DO(scores_mask_one_less, SCORES, scores.chain.load = scores_mask_one_less)                  \
    DO(scores_mask_one_more, SCORES, scores.chain.load = scores_mask_one_more)                  \
    DO(scores_bias_masks_one_more, SCORES, scores.chain.keep = scores_bias_masks_one_more)      \
    DO(scores_forget_the_cap, SCORES, scores.uncap = scores_forget_the_cap)                     \
    DO(scores_scale_wrongly, SCORES, scores.chain.store = scores_scale_wrongly)                 \
    DO(scores_writes_past_the_end, SCORES, scores.chain.store = scores_writes_past_the_end)     \
    DO(scores_take_all_for_finite, SCORES, scores.chain.pack.rows = scores_take_all_for_finite) \
    DO(softmax_drops_a_key, SOFTMAX, softmax.sum = softmax_drops_a_key)                         \
    DO(softmax_forgets_the_mean, SOFTMAX, softmax.sum = softmax_forgets_the_mean)               \
    DO(softmax_mask_one_less, SOFTMAX, softmax.gradient = softmax_mask_one_less)                \
    DO(softmax_mask_one_more, SOFTMAX, softmax.gradient = softmax_mask_one_more)                \
    DO(softmax_scales_the_sink, SOFTMAX, softmax.sink_share = softmax_scales_the_sink)          \
    DO(softmax_writes_past_the_end, SOFTMAX, softmax.gradient = softmax_writes_past_the_end)    \
    DO(mix_drops_a_term, MIX, mix.chain.gemm = mix_drops_a_term)                                \
    DO(mix_masks_one_less, MIX, mix.chain.load = mix_masks_one_less)                            \
    DO(mix_weights_mask_one_less, MIX, mix.chain.keep = mix_weights_mask_one_less)              \
    DO(mix_weights_mask_one_more, MIX, mix.chain.keep = mix_weights_mask_one_more)              \
    DO(mix_writes_past_the_end, MIX, mix.chain.store = mix_writes_past_the_end)                 \
    DO(mix_takes_all_for_finite, MIX, mix.chain.pack.rows = mix_takes_all_for_finite)           \
    DO(attention_drops_a_key, ATTENTION, weigh_with(attention_drops_a_key))                     \
    DO(attention_scales_wrongly, ATTENTION, weigh_with(attention_scales_wrongly))               \
    DO(attention_masks_one_less, ATTENTION, weigh_with(attention_masks_one_less))               \
    DO(attention_masks_one_more, ATTENTION, weigh_with(attention_masks_one_more))               \
    DO(attention_forgets_delta, ATTENTION, weigh_with(attention_forgets_delta))                 \
    DO(attention_forgets_the_cap, ATTENTION, weigh_with(attention_forgets_the_cap))             \
    DO(attention_drops_a_term, ATTENTION, attention.gemm = attention_drops_a_term)              \
    DO(attention_loses_a_piece, ATTENTION, attention.store_sum = attention_loses_a_piece)       \
    DO(attention_writes_past_the_end, ATTENTION,                                                \
       attention.store_sum = attention_writes_past_the_end)                                     \
    DO(attention_loses_the_sink, ATTENTION, attention.sink = attention_loses_the_sink)          \
    DO(attention_takes_rows_for_finite, ATTENTION,                                              \
       attention.row = attention_takes_rows_for_finite)                                         \
    DO(attention_takes_keys_for_finite, ATTENTION,                                              \
       attention.pack.finite = attention_takes_keys_for_finite)

MUTANTS(MUTANT)

#define ENTRY(name, stage, assignment) {#name, QKV_STAGE_##stage##_BACKWARD, make_##name},
static const struct {
    const char *name;
    int stage;
    void (*make)(void);
} mutants[] = {MUTANTS(ENTRY)};

int broken_backward_count(void) {
    return sizeof mutants / sizeof *mutants;
}

const char *broken_backward_name(int mutant) {
    return mutants[mutant].name;
}

static void copy_tables(qkv_context *context) {
    struct qkv_context_state *state = (struct qkv_context_state *)context->state;
    own = state->table;
    scores = *own.scores_backward;
    softmax = *own.softmax_backward;
    mix = *own.mix_backward;
    attention = *own.attention_backward;
    state->table.scores_backward = &scores;
    state->table.softmax_backward = &softmax;
    state->table.mix_backward = &mix;
    state->table.attention_backward = &attention;
}

int broken_backward_make(qkv_context *context, int mutant) {
    copy_tables(context);
    mutants[mutant].make();
    return mutants[mutant].stage;
}

void broken_backward_wrap(qkv_context *context) {
    copy_tables(context);
    weigh_with(weigh);
}
