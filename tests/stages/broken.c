/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels broken on purpose. A wrapper calls the room's own kernel and then spoils what it did, or
 * spoils what it is told; the rest of the table stays as it was. */
#include "broken.h"

#include <math.h>
#include <string.h>

#include "broken_backward.h"
#include "broken_decode.h"
#include "context.h"

/* The room's own kernels, and the copies that stand in the context. */
static struct qkv_table own;
static struct qkv_project_kernels project;
static struct qkv_scores_kernels scores;
static struct qkv_softmax_kernels softmax;
static struct qkv_mix_kernels mix;
static struct qkv_attention_kernels attention;

/* ---- project ---- */

static void project_drops_a_term(const struct qkv_multiply *g) {
    struct qkv_multiply less = *g;
    less.k -= less.k > 1;
    own.project->multiply(&less);
}

/* Of the blocks of inputs only the last one counts. */
static void project_forgets_a_sum(const struct qkv_multiply *g) {
    struct qkv_multiply alone = *g;
    alone.add = 0;
    own.project->multiply(&alone);
}

static void project_forgets_the_bias(const struct qkv_multiply *g) {
    struct qkv_multiply plain = *g;
    plain.bias = NULL;
    own.project->multiply(&plain);
}

/* Beside the last whole panel of a row. */
static void project_spills(const struct qkv_multiply *g) {
    own.project->multiply(g);
    if (g->ends)
        g->out[g->panels - 1][(g->tokens - 1) * g->out_ld + QKV_PANEL] = 0;
}

static void project_scales(float *out, const float *acc, const float *bias, ptrdiff_t n) {
    own.project->store(out, acc, bias, n);
    for (ptrdiff_t c = 0; c < n; c++)
        out[c] *= 1 + 0x1p-12F;
}

static void project_writes_past_the_end(float *out, const float *acc, const float *bias,
                                        ptrdiff_t n) {
    own.project->store(out, acc, bias, n);
    out[n] = 0;
}

/* ---- scores ---- */

static void scores_drop_a_key(float *out, const struct qkv_score_row *row,
                              const struct qkv_score_rule *rule, int n) {
    own.scores->store(out, row, rule, n);
    out[n - 1] = -INFINITY;
}

static void scores_scale_wrongly(float *out, const struct qkv_score_row *row,
                                 const struct qkv_score_rule *rule, int n) {
    struct qkv_score_rule wrong = *rule;
    wrong.scale *= 1 + 0x1p-12F;
    own.scores->store(out, row, &wrong, n);
}

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

static void scores_mask_one_less(float *out, const struct qkv_score_row *row,
                                 const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row more = one_key_more(row);
    own.scores->store(out, &more, rule, n);
}

static void scores_mask_one_more(float *out, const struct qkv_score_row *row,
                                 const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row less = one_key_less(row);
    own.scores->store(out, &less, rule, n);
}

static void scores_writes_past_the_end(float *out, const struct qkv_score_row *row,
                                       const struct qkv_score_rule *rule, int n) {
    own.scores->store(out, row, rule, n);
    out[n] = 0;
}

/* ---- softmax ---- */

static float softmax_drops_a_key(float *out, const float *in, const struct qkv_score_row *row,
                                 const struct qkv_score_rule *rule, int n) {
    float max = own.softmax->mask(out, in, row, rule, n);
    out[n - 1] = -INFINITY;
    return max;
}

static float softmax_mask_one_less(float *out, const float *in, const struct qkv_score_row *row,
                                   const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row more = one_key_more(row);
    return own.softmax->mask(out, in, &more, rule, n);
}

static float softmax_mask_one_more(float *out, const float *in, const struct qkv_score_row *row,
                                   const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row less = one_key_less(row);
    return own.softmax->mask(out, in, &less, rule, n);
}

static void softmax_scales_wrongly(float *row, ptrdiff_t n, float max, float sink, float *lse) {
    for (ptrdiff_t c = 0; c < n; c++)
        row[c] *= 1 + 0x1p-12F;
    own.softmax->row(row, n, max * (1 + 0x1p-12F), sink, lse);
}

static void softmax_writes_past_the_end(float *row, ptrdiff_t n, float max, float sink,
                                        float *lse) {
    own.softmax->row(row, n, max, sink, lse);
    row[n] = 0;
}

/* ---- mix ---- */

static void mix_drops_a_key(float *out, const float *in, const struct qkv_score_row *row,
                            const struct qkv_score_rule *rule, int n) {
    own.mix->load(out, in, row, rule, n);
    out[n - 1] = -0.0F;
}

static void mix_mask_one_less(float *out, const float *in, const struct qkv_score_row *row,
                              const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row more = one_key_more(row);
    own.mix->load(out, in, &more, rule, n);
}

static void mix_mask_one_more(float *out, const float *in, const struct qkv_score_row *row,
                              const struct qkv_score_rule *rule, int n) {
    struct qkv_score_row less = one_key_less(row);
    own.mix->load(out, in, &less, rule, n);
}

static void mix_scales_wrongly(float *out, const float *acc, const float *bias, ptrdiff_t n) {
    own.mix->store(out, acc, bias, n);
    for (ptrdiff_t c = 0; c < n; c++)
        out[c] *= 1 + 0x1p-12F;
}

static void mix_writes_past_the_end(float *out, const float *acc, const float *bias, ptrdiff_t n) {
    own.mix->store(out, acc, bias, n);
    out[n] = 0;
}

static void mix_reads_past_the_end(float *out, const float *in, const struct qkv_score_row *row,
                                   const struct qkv_score_rule *rule, int n) {
    volatile float beyond = in[n];
    (void)beyond;
    own.mix->load(out, in, row, rule, n);
}

/* ---- attention ---- */

static void weigh(const struct qkv_weigh *w) {
    own.attention->weigh[w->rule->exp](w);
}

/* The key is in the sum and not in the values. */
static void attention_drops_a_key(const struct qkv_weigh *w) {
    weigh(w);
    for (const struct qkv_score_row *row = w->row; row < w->row + w->rows; row++)
        if (row->hi > row->lo)
            row->s[row->hi - 1] = w->mark ? -0.0F : 0.0F;
}

static void attention_drops_a_term(const struct qkv_gemm *g) {
    struct qkv_gemm less = *g;
    less.k -= less.k > 1;
    own.attention->gemm(&less);
}

static void attention_scales_wrongly(const struct qkv_weigh *w) {
    struct qkv_score_rule rule = *w->rule;
    struct qkv_weigh wrong = *w;
    rule.scale *= 1 + 0x1p-12F;
    wrong.rule = &rule;
    weigh(&wrong);
}

typedef struct qkv_score_row cut(const struct qkv_score_row *row);

/* Without the maxima, which would be those of what was not cut. */
static void weigh_cut(const struct qkv_weigh *w, cut *how) {
    struct qkv_score_row row[QKV_ROWS];
    struct qkv_weigh wrong = *w;
    for (int r = 0; r < w->rows; r++)
        row[r] = how(&w->row[r]);
    wrong.row = row;
    wrong.max = NULL;
    wrong.whole = 0;
    weigh(&wrong);
}

static void attention_masks_one_less(const struct qkv_weigh *w) {
    weigh_cut(w, one_key_more);
}

static void attention_masks_one_more(const struct qkv_weigh *w) {
    weigh_cut(w, one_key_less);
}

static const float *ones(void) {
    static float one[QKV_ROWS];
    for (int r = 0; r < QKV_ROWS; r++)
        one[r] = 1;
    return one;
}

static void attention_forgets_to_rescale(const struct qkv_gemm *g) {
    struct qkv_gemm as_it_is = *g;
    if (g->factor)
        as_it_is.factor = ones();
    own.attention->gemm(&as_it_is);
}

/* Rows that the last block's product takes to the user. */
static void attention_ends_rows_unscaled(const struct qkv_gemm *g) {
    struct qkv_gemm as_it_is = *g;
    if (g->scale)
        as_it_is.scale = ones();
    own.attention->gemm(&as_it_is);
}

static void attention_ends_rows_past_the_end(const struct qkv_gemm *g) {
    own.attention->gemm(g);
    for (ptrdiff_t r = 0; r < g->m && g->scale; r++)
        g->out[r * g->ld_out + g->n] = 0;
}

/* The accumulators of two pieces are added as they are; the sums are joined rightly. */
static void attention_merges_without_rescale(float *acc, struct qkv_running state,
                                             const float *piece, struct qkv_running piece_state,
                                             ptrdiff_t ld, int rows, ptrdiff_t n) {
    own.attention->merge(acc, state, piece, piece_state, ld, rows, 0);
    for (int r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < n; c++)
            acc[r * ld + c] += piece[r * ld + c];
}

static void attention_writes_past_the_end(float *out, ptrdiff_t ld_out, const float *acc,
                                          ptrdiff_t ld, const float *scale, int rows, ptrdiff_t n) {
    for (int r = 0; r < rows; r++) {
        own.attention->store(out + r * ld_out, ld_out, acc + r * ld, ld, scale + r, 1, n);
        out[r * ld_out + n] = 0;
    }
}

static void attention_reads_past_the_end(float *dst, const float *src, ptrdiff_t ld, int first,
                                         int last, ptrdiff_t k) {
    volatile float beyond = src[(last - 1) * ld + k];
    (void)beyond;
    own.attention->pack.panel(dst, src, ld, first, last, k);
}

static int attention_takes_all_for_finite(const float *x, ptrdiff_t n) {
    (void)x;
    (void)n;
    return 1;
}

static void attention_loses_the_sink(struct qkv_running state, const float *sink, int rows,
                                     float *scale, float *lse) {
    float none[QKV_ROWS];
    (void)sink;
    for (int r = 0; r < QKV_ROWS; r++)
        none[r] = -INFINITY;
    own.attention->seal(state, none, rows, scale, lse);
}

/* ---- The list ---- */

static void weigh_with(qkv_weigh_fn *kernel) {
    for (int tier = 0; tier < QKV_EXP_COUNT; tier++)
        attention.weigh[tier] = kernel;
}

#define MUTANT(name, stage, assignment) \
    static void make_##name(void) {     \
        assignment;                     \
    }
#define MUTANTS(DO)                                                                               \
    DO(project_drops_a_term, PROJECT, project.multiply = project_drops_a_term)                    \
    DO(project_forgets_a_sum, PROJECT, project.multiply = project_forgets_a_sum)                  \
    DO(project_forgets_the_bias, PROJECT, project.multiply = project_forgets_the_bias)            \
    DO(project_spills, PROJECT, project.multiply = project_spills)                                \
    DO(project_scales, PROJECT, project.store = project_scales)                                   \
    DO(project_writes_past_the_end, PROJECT, project.store = project_writes_past_the_end)         \
    DO(scores_drop_a_key, SCORES, scores.store = scores_drop_a_key)                               \
    DO(scores_scale_wrongly, SCORES, scores.store = scores_scale_wrongly)                         \
    DO(scores_mask_one_less, SCORES, scores.store = scores_mask_one_less)                         \
    DO(scores_mask_one_more, SCORES, scores.store = scores_mask_one_more)                         \
    DO(scores_writes_past_the_end, SCORES, scores.store = scores_writes_past_the_end)             \
    DO(softmax_drops_a_key, SOFTMAX, softmax.mask = softmax_drops_a_key)                          \
    DO(softmax_scales_wrongly, SOFTMAX, softmax.row = softmax_scales_wrongly)                     \
    DO(softmax_mask_one_less, SOFTMAX, softmax.mask = softmax_mask_one_less)                      \
    DO(softmax_mask_one_more, SOFTMAX, softmax.mask = softmax_mask_one_more)                      \
    DO(softmax_writes_past_the_end, SOFTMAX, softmax.row = softmax_writes_past_the_end)           \
    DO(mix_drops_a_key, MIX, mix.load = mix_drops_a_key)                                          \
    DO(mix_scales_wrongly, MIX, mix.store = mix_scales_wrongly)                                   \
    DO(mix_mask_one_less, MIX, mix.load = mix_mask_one_less)                                      \
    DO(mix_mask_one_more, MIX, mix.load = mix_mask_one_more)                                      \
    DO(mix_writes_past_the_end, MIX, mix.store = mix_writes_past_the_end)                         \
    DO(mix_reads_past_the_end, MIX, mix.load = mix_reads_past_the_end)                            \
    DO(attention_drops_a_key, ATTENTION, weigh_with(attention_drops_a_key))                       \
    DO(attention_drops_a_term, ATTENTION, attention.gemm = attention_drops_a_term)                \
    DO(attention_scales_wrongly, ATTENTION, weigh_with(attention_scales_wrongly))                 \
    DO(attention_masks_one_less, ATTENTION, weigh_with(attention_masks_one_less))                 \
    DO(attention_masks_one_more, ATTENTION, weigh_with(attention_masks_one_more))                 \
    DO(attention_forgets_to_rescale, ATTENTION, attention.gemm = attention_forgets_to_rescale)    \
    DO(attention_ends_rows_unscaled, ATTENTION, attention.gemm = attention_ends_rows_unscaled)    \
    DO(attention_ends_rows_past_the_end, ATTENTION,                                               \
       attention.gemm = attention_ends_rows_past_the_end)                                         \
    DO(attention_merges_without_rescale, ATTENTION,                                               \
       attention.merge = attention_merges_without_rescale)                                        \
    DO(attention_writes_past_the_end, ATTENTION, attention.store = attention_writes_past_the_end) \
    DO(attention_reads_past_the_end, ATTENTION,                                                   \
       attention.pack.panel = attention_reads_past_the_end)                                       \
    DO(attention_takes_all_for_finite, ATTENTION,                                                 \
       attention.pack.finite = attention_takes_all_for_finite)                                    \
    DO(attention_loses_the_sink, ATTENTION, attention.seal = attention_loses_the_sink)

MUTANTS(MUTANT)

#define ENTRY(name, stage, assignment) {#name, QKV_STAGE_##stage, make_##name},
static const struct {
    const char *name;
    int stage;
    void (*make)(void);
} mutants[] = {MUTANTS(ENTRY)};

enum { FORWARD_MUTANTS = sizeof mutants / sizeof *mutants };

int broken_count(void) {
    return FORWARD_MUTANTS + broken_backward_count() + broken_decode_count();
}

const char *broken_name(int mutant) {
    if (mutant < FORWARD_MUTANTS)
        return mutants[mutant].name;
    mutant -= FORWARD_MUTANTS;
    return mutant < broken_backward_count() ? broken_backward_name(mutant)
                                            : broken_decode_name(mutant - broken_backward_count());
}

static void copy_tables(qkv_context *context) {
    struct qkv_context_state *state = (struct qkv_context_state *)context->state;
    own = state->table;
    project = *own.project;
    scores = *own.scores;
    softmax = *own.softmax;
    mix = *own.mix;
    attention = *own.attention;
    state->table.project = &project;
    state->table.scores = &scores;
    state->table.softmax = &softmax;
    state->table.mix = &mix;
    state->table.attention = &attention;
}

int broken_make(qkv_context *context, int mutant) {
    if (mutant >= FORWARD_MUTANTS + broken_backward_count())
        return broken_decode_make(context, mutant - FORWARD_MUTANTS - broken_backward_count());
    if (mutant >= FORWARD_MUTANTS)
        return broken_backward_make(context, mutant - FORWARD_MUTANTS);
    copy_tables(context);
    mutants[mutant].make();
    return mutants[mutant].stage;
}

void broken_wrap(qkv_context *context) {
    copy_tables(context);
    weigh_with(weigh);
    broken_backward_wrap(context);
}
