/* SPDX-License-Identifier: Apache-2.0 */
/* Every option of attention by itself, and every pair of them. */
#include "options.h"

#include "support/compare.h"

static void causal(struct desc *d) {
    d->causal = true;
}

static void causal_top_left(struct desc *d) {
    d->causal = true;
    d->align = QKV_ALIGN_TOP_LEFT;
}

static void window(struct desc *d) {
    d->window_left = 3;
    d->window_right = 2;
}

static void window_left_only(struct desc *d) {
    d->window_left = 0;
}

static void window_right_only(struct desc *d) {
    d->window_right = 1;
    d->align = QKV_ALIGN_TOP_LEFT;
}

static void scale(struct desc *d) {
    d->has_scale = true;
    d->scale = 0.3F;
}

static void negative_scale(struct desc *d) {
    d->has_scale = true;
    d->scale = -0.3F;
}

static void zero_scale(struct desc *d) {
    d->has_scale = true;
    d->scale = 0;
}

static void softcap(struct desc *d) {
    d->softcap = 1.5F;
}

static void sleef_u35(struct desc *d) {
    d->exp = QKV_EXP_SLEEF_U35;
}

static void poly5(struct desc *d) {
    d->exp = QKV_EXP_POLY5;
}

static void poly4(struct desc *d) {
    d->exp = QKV_EXP_POLY4;
}

static void alibi(struct desc *d) {
    d->alibi = true;
}

static void sinks(struct desc *d) {
    d->sinks = true;
}

static void bias(struct desc *d) {
    d->bias = true;
}

static void bias_that_cuts(struct desc *d) {
    d->bias = d->bias_cuts = true;
}

static void bias_of_a_key(struct desc *d) {
    d->bias = true;
    d->layout[ROLE_BIAS].zero = 7;
}

static void bias_of_a_query(struct desc *d) {
    d->bias = true;
    d->layout[ROLE_BIAS].zero = 11;
}

static void mask(struct desc *d) {
    d->mask = true;
}

static void mask_of_a_key(struct desc *d) {
    d->mask = true;
    d->layout[ROLE_MASK].zero = 7;
}

static void mask_of_a_query(struct desc *d) {
    d->mask = true;
    d->layout[ROLE_MASK].zero = 9;
}

static void gqa(struct desc *d) {
    d->kv_heads = 2;
    d->q_heads = 6;
}

static void mqa(struct desc *d) {
    d->kv_heads = 1;
    d->q_heads = 4;
}

static void batch(struct desc *d) {
    d->batch = 3;
}

static void padded_queries(struct desc *d) {
    d->batch = 3;
    d->q_lengths = LENGTHS_PADDED;
}

static void padded_keys(struct desc *d) {
    d->batch = 3;
    d->kv_lengths = LENGTHS_PADDED;
}

static void ragged_queries(struct desc *d) {
    d->batch = 3;
    d->q_lengths = LENGTHS_RAGGED;
}

static void ragged_keys(struct desc *d) {
    d->batch = 3;
    d->kv_lengths = LENGTHS_RAGGED;
}

static void bshd(struct desc *d) {
    for (int role = 0; role < ROLE_COUNT; role++)
        d->layout[role].order = LAYOUT_BSHD;
}

static void gaps(struct desc *d) {
    for (int role = 0; role < ROLE_COUNT; role++)
        d->layout[role] = (struct layout){.gap = {5, 3, 7}, .order = d->layout[role].order};
}

static void backwards(struct desc *d) {
    for (int role = 0; role < ROLE_COUNT; role++)
        d->layout[role].reverse = 7;
}

static void shared_keys(struct desc *d) {
    d->layout[ROLE_K].zero = d->layout[ROLE_V].zero = 3;
}

static void one_key_for_all(struct desc *d) {
    d->layout[ROLE_K].zero = d->layout[ROLE_V].zero = 7;
}

static void v_dim(struct desc *d) {
    d->v_dim = 19;
}

static void in_place(struct desc *d) {
    d->in_place = true;
}

static void no_lse(struct desc *d) {
    d->lse = false;
}

static void large_scores(struct desc *d) {
    d->spread = 40;
}

static void poison(struct desc *d) {
    d->values = VALUES_POISON;
}

/* Rows of V in whole panels are multiplied where they are, also those of keys that all rows mask.
 */
static void poison_in_place(struct desc *d) {
    d->head_dim = d->v_dim = 16;
    mask_of_a_key(d);
    poison(d);
}

static void wild(struct desc *d) {
    d->values = VALUES_WILD;
}

#define OPTION(name) \
    { #name, name }
static const struct {
    const char *name;
    void (*set)(struct desc *desc);
} options[] = {
    OPTION(causal),
    OPTION(causal_top_left),
    OPTION(window),
    OPTION(window_left_only),
    OPTION(window_right_only),
    OPTION(scale),
    OPTION(negative_scale),
    OPTION(zero_scale),
    OPTION(softcap),
    OPTION(alibi),
    OPTION(sinks),
    OPTION(bias),
    OPTION(bias_that_cuts),
    OPTION(bias_of_a_key),
    OPTION(bias_of_a_query),
    OPTION(mask),
    OPTION(mask_of_a_key),
    OPTION(mask_of_a_query),
    OPTION(gqa),
    OPTION(mqa),
    OPTION(batch),
    OPTION(padded_queries),
    OPTION(padded_keys),
    OPTION(ragged_queries),
    OPTION(ragged_keys),
    OPTION(bshd),
    OPTION(gaps),
    OPTION(backwards),
    OPTION(shared_keys),
    OPTION(one_key_for_all),
    OPTION(v_dim),
    OPTION(in_place),
    OPTION(no_lse),
    OPTION(sleef_u35),
    OPTION(poly5),
    OPTION(poly4),
    OPTION(large_scores),
    OPTION(poison),
    OPTION(poison_in_place),
    OPTION(wild),
};

int option_count(void) {
    return sizeof options / sizeof *options;
}

const char *option_name(int option) {
    return options[option].name;
}

void option_set(struct desc *desc, int option) {
    options[option].set(desc);
}

/* A small shape, and one that crosses key blocks and a row block. */
static struct desc shape(bool large, uint64_t seed) {
    struct desc d = desc_plain();
    d.seed = seed;
    d.q_len = large ? 53 : 9;
    d.kv_len = large ? 530 : 21;
    d.head_dim = d.v_dim = large ? 16 : 13;
    return d;
}

struct verdict check_options_alone(const qkv_context *context, int stage) {
    /* A short run of a backward stage takes the small shape alone. */
    const int shapes = stage_share(stage) > 1 && test_stride() > 1 ? 1 : 2;
    struct verdict verdict = verdict_ok();
    const int one_in = test_thinning(), n = shapes * option_count();
    for (int i = test_next(-1, one_in); i < n && verdict.ok; i = test_next(i, one_in)) {
        struct desc d = shape(i % shapes, test_seed() + (uint64_t)i);
        option_set(&d, i / shapes);
        verdict = check_desc(context, stage, &d);
        verdict_add(&verdict, "option %s", option_name(i / shapes));
    }
    return verdict;
}

struct verdict check_options_pairwise(const qkv_context *context, int stage) {
    int n = option_count();
    struct verdict verdict = verdict_ok();
    const int one_in = test_stride() * stage_share(stage);
    for (int i = test_next(-1, one_in); i < n * n && verdict.ok; i = test_next(i, one_in)) {
        struct desc d = shape(i % 8 == 0, test_seed() + (uint64_t)i); /* large: one in eight */
        option_set(&d, i / n);
        option_set(&d, i % n);
        verdict = check_desc(context, stage, &d);
        verdict_add(&verdict, "options %s and %s", option_name(i / n), option_name(i % n));
    }
    return verdict;
}
