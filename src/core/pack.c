/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed keys and values (block.h). A sequence takes its length rounded up to panels; a ragged
 * one starts at its own offset rounded up, plus a panel for each sequence before it, which is
 * never less than what those take: round_up(c + n) + 16 >= round_up(c) + round_up(n).
 */
#include "block.h"

#include <string.h>

/* The keys [lo, hi) of a block, as its sequence and head have them. */
struct source {
    const struct qkv_plan_state *plan;
    const qkv_tensors *tensors;
    const struct qkv_sequence *sequence;
    int64_t head, key0;
    int lo, hi;
};

static void pack_keys(float *dst, const struct source *s, const struct qkv_pack_kernels *pack) {
    const struct qkv_problem *p = &s->plan->problem;
    const int64_t ld = s->tensors->k.stride[2];
    for (int c = s->lo / QKV_PANEL * QKV_PANEL; c < s->hi; c += QKV_PANEL) {
        int first = s->lo > c ? s->lo - c : 0;
        int last = s->hi - c < QKV_PANEL ? s->hi - c : QKV_PANEL;
        const float *src = qkv_kv_row(&s->tensors->k, p, s->sequence, s->head, s->key0 + c);
        pack->panel(dst + c * p->head_dim, src, ld, first, last, p->head_dim);
    }
}

/* Dense rows of whole panels can be multiplied where they are: they are only looked at. */
static int values_in_place(const struct qkv_plan_state *plan, const qkv_tensors *tensors) {
    return tensors->v.stride[2] == plan->v_pad && plan->problem.v_dim == plan->v_pad;
}

/* A flag for each panel of values that are used where they are. */
static void scan_values(unsigned char *bad, const struct source *s,
                        const struct qkv_pack_kernels *pack) {
    const struct qkv_problem *p = &s->plan->problem;
    const int64_t ld = s->plan->v_pad;
    for (int c = s->lo / QKV_PANEL * QKV_PANEL; c < s->hi; c += QKV_PANEL) {
        int first = s->lo > c ? s->lo : c;
        int last = s->hi < c + QKV_PANEL ? s->hi : c + QKV_PANEL;
        const float *src = qkv_kv_row(&s->tensors->v, p, s->sequence, s->head, s->key0 + first);
        bad[c / QKV_PANEL] = !pack->finite(src, (last - first) * ld);
    }
}

/* A panel of values at a time, each with its flag. Rows that no query sees are zeros. */
static void pack_values(float *dst, unsigned char *bad, const struct source *s,
                        const struct qkv_pack_kernels *pack) {
    const struct qkv_problem *p = &s->plan->problem;
    const int64_t ld = s->tensors->v.stride[2], v_pad = s->plan->v_pad;
    for (int c = s->lo / QKV_PANEL * QKV_PANEL; c < s->hi; c += QKV_PANEL) {
        int first = s->lo > c ? s->lo : c;
        int last = s->hi < c + QKV_PANEL ? s->hi : c + QKV_PANEL;
        const float *src = qkv_kv_row(&s->tensors->v, p, s->sequence, s->head, s->key0 + first);
        memset(dst + c * v_pad, 0, (size_t)((first - c) * v_pad) * sizeof(float));
        bad[c / QKV_PANEL] = pack->rows(dst + first * v_pad, src, ld, last - first, p->v_dim) != 0;
    }
}

/* The first key of a head's run in shared memory, counted in keys. */
static int64_t shared_key(const struct qkv_problem *p, const struct qkv_sequence *s, int64_t head) {
    int64_t before = s->index * qkv_round_up(p->kv_len, QKV_PANEL);
    if (p->cu_kv)
        before = qkv_round_up(s->kv0 - p->cu_kv[0], QKV_PANEL) + s->index * QKV_PANEL;
    int64_t length = p->cu_kv ? s->kv_len : p->kv_len;
    return before * p->kv_heads + head * qkv_round_up(length, QKV_PANEL);
}

static int needs_keys(const struct qkv_plan_state *plan) {
    return plan->problem.head_dim > 0;
}

static int needs_values(const struct qkv_plan_state *plan) {
    return plan->problem.v_dim > 0;
}

void qkv_pack_part(const struct qkv_plan_state *plan, const qkv_tensors *tensors, void *shared,
                   const struct qkv_pack_kernels *pack, int64_t index) {
    const struct qkv_problem *p = &plan->problem;
    const int64_t head = index / plan->blocks, key0 = index % plan->blocks * QKV_KEY_BLOCK;
    const struct qkv_sequence sequence = qkv_sequence_at(p, head / p->kv_heads);
    const struct qkv_span seen = qkv_visible_span(p, &sequence);
    if (seen.hi <= key0 || seen.lo >= key0 + QKV_KEY_BLOCK || seen.lo == seen.hi)
        return;

    const struct source source = {
        .plan = plan,
        .tensors = tensors,
        .sequence = &sequence,
        .head = head % p->kv_heads,
        .key0 = key0,
        .lo = (int)qkv_max(seen.lo - key0, 0),
        .hi = (int)qkv_min(seen.hi - key0, QKV_KEY_BLOCK),
    };
    const int64_t key = shared_key(p, &sequence, source.head) + key0;
    char *base = shared;
    if (needs_keys(plan))
        pack_keys((float *)(base + plan->shared.k) + key * p->head_dim, &source, pack);
    if (!needs_values(plan))
        return;
    unsigned char *flags = (unsigned char *)base + plan->shared.flags + key / QKV_PANEL;
    if (values_in_place(plan, tensors))
        scan_values(flags, &source, pack);
    else
        pack_values((float *)(base + plan->shared.v) + key * plan->v_pad, flags, &source, pack);
}

static struct source part_source(const struct qkv_part *part, const struct qkv_key_block *block) {
    return (struct source){
        .plan = part->plan,
        .tensors = part->tensors,
        .sequence = &part->sequence,
        .head = part->kv_head,
        .key0 = block->key0,
        .lo = block->lo,
        .hi = block->hi,
    };
}

const float *qkv_part_keys(const struct qkv_part *part, const struct qkv_key_block *block,
                           const struct qkv_pack_kernels *pack) {
    const struct qkv_plan_state *plan = part->plan;
    if (plan->packs) {
        int64_t key = shared_key(&plan->problem, &part->sequence, part->kv_head) + block->key0;
        return (float *)(part->shared + plan->shared.k) + key * plan->problem.head_dim;
    }
    const struct source source = part_source(part, block);
    pack_keys(part->block, &source, pack);
    return part->block;
}

const float *qkv_part_values(const struct qkv_part *part, const struct qkv_key_block *block,
                             const struct qkv_pack_kernels *pack, int *bad) {
    const struct qkv_plan_state *plan = part->plan;
    const struct source source = part_source(part, block);
    const int in_place = values_in_place(plan, part->tensors);
    unsigned char own[QKV_KEY_BLOCK / QKV_PANEL];
    const unsigned char *flags = own;
    const float *values = part->block;
    if (plan->packs) {
        int64_t key = shared_key(&plan->problem, &part->sequence, part->kv_head) + block->key0;
        values = (float *)(part->shared + plan->shared.v) + key * plan->v_pad;
        flags = (unsigned char *)part->shared + plan->shared.flags + key / QKV_PANEL;
    } else if (in_place) {
        scan_values(own, &source, pack);
    } else {
        pack_values(part->block, own, &source, pack);
    }
    if (in_place)
        values = qkv_kv_row(&part->tensors->v, &plan->problem, &part->sequence, part->kv_head,
                            block->key0);
    *bad = 0;
    for (int g = block->lo / QKV_PANEL; g * QKV_PANEL < block->hi; g++)
        *bad |= flags[g];
    return values;
}
