/* SPDX-License-Identifier: Apache-2.0 */
/* Random descriptions: sizes near the edges of tiles and blocks, and every option at its own
 * chance, so that combinations of all orders come up. */
#include "desc.h"

#include <stdio.h>
#include <string.h>

const struct desc_limits desc_limits_suite = {1200, 512, 1000000};

const char *const role_names[ROLE_COUNT] = {
    "q",  "k",  "v",  "scores",  "weights",  "out",  "lse",   "bias",  "mask",
    "dq", "dk", "dv", "dscores", "dweights", "dout", "dbias", "dsinks"};

struct desc desc_plain(void) {
    return (struct desc){
        .seed = 1,
        .batch = 1,
        .q_heads = 1,
        .kv_heads = 1,
        .q_len = 5,
        .kv_len = 7,
        .head_dim = 8,
        .v_dim = 8,
        .lse = true,
        .spread = 1,
        .window_left = -1,
        .window_right = -1,
    };
}

/* Small, at an edge (one below, at, one above), or anything up to the limit. */
static int64_t random_size(struct rng *rng, const int64_t *edges, int count, int64_t limit) {
    int64_t size;
    switch (rng_below(rng, 4)) {
    case 0:
    case 1:
        size = 1 + rng_below(rng, 17);
        break;
    case 2:
        size = rng_pick(rng, edges, count) - 1 + rng_below(rng, 3);
        break;
    default:
        size = 1 + rng_below(rng, limit);
    }
    return size < limit ? size : limit;
}

static int64_t random_length(struct rng *rng, int64_t limit) {
    static const int64_t edges[] = {16, 32, 48, 64, 96, 128, 256, 512, 768, 1024};
    if (rng_chance(rng, 64))
        return 0;
    return random_size(rng, edges, sizeof edges / sizeof *edges, limit);
}

static int64_t random_dim(struct rng *rng, int64_t limit) {
    static const int64_t edges[] = {16, 32, 48, 64, 80, 96, 128, 256, 511};
    return random_size(rng, edges, sizeof edges / sizeof *edges, limit);
}

static int64_t products(const struct desc *d) {
    return d->batch * d->q_heads * (d->q_len + 1) * (d->kv_len + 1) * (d->head_dim + d->v_dim);
}

/* Halves the largest sizes until the work fits. */
static void shrink(struct desc *d, int64_t limit) {
    int64_t *sizes[] = {&d->q_len, &d->kv_len, &d->head_dim, &d->v_dim, &d->batch};
    while (products(d) > limit) {
        int largest = 0;
        for (int i = 1; i < 5; i++)
            if (*sizes[i] > *sizes[largest])
                largest = i;
        if (*sizes[largest] < 2)
            return;
        *sizes[largest] /= 2;
    }
}

static void random_sizes(struct desc *d, struct rng *rng, const struct desc_limits *limits) {
    d->batch = 1 + rng_below(rng, 3);
    d->kv_heads = 1 + rng_below(rng, 3);
    d->q_heads = d->kv_heads * (1 + (rng_chance(rng, 2) ? rng_below(rng, 8) : 0));
    d->q_len = random_length(rng, limits->length);
    d->kv_len = random_length(rng, limits->length);
    d->head_dim = random_dim(rng, limits->dim);
    d->v_dim = rng_chance(rng, 2) ? random_dim(rng, limits->dim) : d->head_dim;
    shrink(d, limits->products);
}

static void random_masks(struct desc *d, struct rng *rng) {
    d->align = rng_chance(rng, 2) ? QKV_ALIGN_TOP_LEFT : QKV_ALIGN_BOTTOM_RIGHT;
    d->causal = rng_chance(rng, 2);
    if (rng_chance(rng, 3))
        d->window_left = rng_below(rng, d->kv_len / 2 + 2);
    if (rng_chance(rng, 4))
        d->window_right = rng_below(rng, d->kv_len / 2 + 2);
    d->mask = rng_chance(rng, 4);
    d->bias = rng_chance(rng, 4);
    d->bias_cuts = rng_chance(rng, 2);
    d->q_lengths = rng_chance(rng, 3) ? 1 + (enum lengths)rng_below(rng, 2) : LENGTHS_FULL;
    d->kv_lengths = rng_chance(rng, 3) ? 1 + (enum lengths)rng_below(rng, 2) : LENGTHS_FULL;
}

static void random_rule(struct desc *d, struct rng *rng) {
    static const float scales[] = {1.0F, 0.25F, 0.0F, -0.5F, 0x1p-20F};
    d->has_scale = rng_chance(rng, 4);
    d->scale = scales[rng_below(rng, 5)];
    d->softcap = rng_chance(rng, 5) ? (float)(1 + rng_below(rng, 30)) : 0.0F;
    d->exp = rng_chance(rng, 2) ? (int32_t)rng_below(rng, QKV_EXP_COUNT) : QKV_EXP_SLEEF_U10;
    d->alibi = rng_chance(rng, 4);
    d->sinks = rng_chance(rng, 4);
}

struct layout layout_random(struct rng *rng, bool may_broadcast) {
    struct layout layout = {.order = (uint8_t)rng_below(rng, LAYOUT_ORDERS)};
    for (int d = 0; d < 3; d++)
        layout.gap[d] = (uint8_t)(rng_chance(rng, 3) ? rng_below(rng, 20) : 0);
    if (rng_chance(rng, 4))
        layout.reverse = (uint8_t)rng_below(rng, 8);
    if (may_broadcast && rng_chance(rng, 2))
        layout.zero = (uint8_t)rng_below(rng, 16);
    layout.side = rng_chance(rng, 2) ? GUARD_BEGIN : GUARD_END;
    layout.offset = rng_chance(rng, 4) ? 1 : 0;
    return layout;
}

static void random_layouts(struct desc *d, struct rng *rng) {
    for (int role = 0; role < ROLE_FIRST_GRADIENT; role++)
        d->layout[role] = layout_random(rng, role == ROLE_BIAS || role == ROLE_MASK);
    /* Keys and values shared by a whole batch or by all heads. */
    if (rng_chance(rng, 8))
        d->layout[ROLE_K].zero = d->layout[ROLE_V].zero = (uint8_t)rng_below(rng, 4);
}

/* Every second description asks for all gradients. The gradient of out may be the same for all. */
static void random_gradients(struct desc *d, struct rng *rng) {
    for (int role = ROLE_FIRST_GRADIENT; role < ROLE_COUNT; role++)
        d->layout[role] = layout_random(rng, false);
    if (rng_chance(rng, 8))
        d->layout[ROLE_D_OUT].zero = (uint8_t)rng_below(rng, 8);
    static const enum role optional[] = {ROLE_D_Q, ROLE_D_K, ROLE_D_V, ROLE_D_BIAS, ROLE_D_SINKS};
    d->bias_gradient = rng_chance(rng, 8);
    bool all = rng_chance(rng, 2);
    for (int i = 0; i < 5 && !all; i++)
        d->unwanted |= rng_chance(rng, 3) ? 1U << optional[i] : 0;
}

struct desc desc_random(struct rng *rng, const struct desc_limits *limits) {
    static const float spreads[] = {1.0F, 0.1F, 8.0F};
    struct desc d = desc_plain();
    d.seed = rng_next(rng);
    random_sizes(&d, rng, limits);
    random_masks(&d, rng);
    random_rule(&d, rng);
    random_layouts(&d, rng);
    d.lse = !rng_chance(rng, 4);
    d.in_place = rng_chance(rng, 3);
    d.spread = spreads[rng_below(rng, 3)];
    d.values = rng_chance(rng, 2) ? (enum values)rng_below(rng, VALUES_COUNT) : VALUES_NORMAL;
    random_gradients(&d, rng);
    return d;
}

struct desc desc_numbered(uint64_t seed, int number, const struct desc_limits *limits) {
    struct rng rng = rng_seeded(rng_hash(seed, (uint64_t)number));
    return desc_random(&rng, limits);
}

static int add_layout(char *text, int size, int role, const struct layout *l) {
    return snprintf(text, (size_t)size,
                    "\n  .layout[%d] = {%d, {%d, %d, %d}, %d, %d, %d, %d}, /* %s */", role,
                    l->order, l->gap[0], l->gap[1], l->gap[2], l->zero, l->reverse, l->side,
                    l->offset, role_names[role]);
}

/* In the form of a C initialiser, so that a failure can be pasted into a test. */
const char *desc_text(const struct desc *d, char *text, int size) {
    int used = snprintf(
        text, (size_t)size,
        "struct desc {.seed = 0x%llxU,\n"
        "  .batch = %lld, .q_heads = %lld, .kv_heads = %lld, .q_len = %lld, .kv_len = %lld,\n"
        "  .head_dim = %lld, .v_dim = %lld, .align = %d, .exp = %d, .causal = %d, .alibi = %d,\n"
        "  .sinks = %d, .bias = %d, .mask = %d, .lse = %d, .has_scale = %d, .bias_cuts = %d, "
        ".in_place = %d, .bias_gradient = %d, .unwanted = 0x%x,\n"
        "  .scale = %g, .softcap = %g, .spread = %g, .window_left = %lld, .window_right = %lld,\n"
        "  .q_lengths = %d, .kv_lengths = %d, .values = %d,",
        (unsigned long long)d->seed, (long long)d->batch, (long long)d->q_heads,
        (long long)d->kv_heads, (long long)d->q_len, (long long)d->kv_len, (long long)d->head_dim,
        (long long)d->v_dim, d->align, d->exp, d->causal, d->alibi, d->sinks, d->bias, d->mask,
        d->lse, d->has_scale, d->bias_cuts, d->in_place, d->bias_gradient, (unsigned)d->unwanted,
        (double)d->scale, (double)d->softcap, (double)d->spread, (long long)d->window_left,
        (long long)d->window_right, (int)d->q_lengths, (int)d->kv_lengths, (int)d->values);
    static const struct layout none;
    for (int role = 0; role < ROLE_COUNT && used < size; role++)
        if (memcmp(&d->layout[role], &none, sizeof none) != 0)
            used += add_layout(text + used, size - used, role, &d->layout[role]);
    if (used < size)
        snprintf(text + used, (size_t)(size - used), "}");
    return text;
}
