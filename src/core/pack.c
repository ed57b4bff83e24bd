/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed keys and values (pack.h, block.h). A sequence takes its length rounded up to panels; a
 * ragged one starts at its own offset rounded up, plus a panel for each sequence before it, which
 * is never less than what those take: round_up(c + n) + 16 >= round_up(c) + round_up(n).
 */
#include "pack.h"

#include <string.h>

static const float *row_of(const struct qkv_key_source *s, int c) {
    return qkv_kv_row(s->tensor, &s->plan->problem, s->sequence, s->head, s->key0 + c);
}

void qkv_pack_panels(float *dst, const struct qkv_key_source *s,
                     const struct qkv_pack_kernels *pack) {
    const int64_t ld = s->tensor->stride[2];
    for (int c = s->lo / QKV_PANEL * QKV_PANEL; c < s->hi; c += QKV_PANEL) {
        int first = s->lo > c ? s->lo - c : 0;
        int last = s->hi - c < QKV_PANEL ? s->hi - c : QKV_PANEL;
        pack->panel(dst + c * s->dim, row_of(s, c), ld, first, last, s->dim);
    }
}

int qkv_rows_in_place(const qkv_tensor *tensor, int64_t dim) {
    return dim % QKV_PANEL == 0 && tensor->stride[2] == dim;
}

/* A flag for each panel of rows that are used where they are. */
static void scan_rows(unsigned char *bad, const struct qkv_key_source *s,
                      const struct qkv_pack_kernels *pack) {
    for (int c = s->lo / QKV_PANEL * QKV_PANEL; c < s->hi; c += QKV_PANEL) {
        int first = s->lo > c ? s->lo : c;
        int last = s->hi < c + QKV_PANEL ? s->hi : c + QKV_PANEL;
        bad[c / QKV_PANEL] = !pack->finite(row_of(s, first), (last - first) * s->dim);
    }
}

/* A panel of rows at a time, each with its flag. Rows that no query sees are zeros. */
static void copy_rows(float *dst, unsigned char *bad, const struct qkv_key_source *s,
                      const struct qkv_pack_kernels *pack) {
    const int64_t ld = s->tensor->stride[2], pad = qkv_round_up(s->dim, QKV_PANEL);
    for (int c = s->lo / QKV_PANEL * QKV_PANEL; c < s->hi; c += QKV_PANEL) {
        int first = s->lo > c ? s->lo : c;
        int last = s->hi < c + QKV_PANEL ? s->hi : c + QKV_PANEL;
        memset(dst + c * pad, 0, (size_t)((first - c) * pad) * sizeof(float));
        bad[c / QKV_PANEL] =
            pack->rows(dst + first * pad, row_of(s, first), ld, last - first, s->dim) != 0;
    }
}

void qkv_pack_rows(float *dst, unsigned char *bad, const struct qkv_key_source *s,
                   const struct qkv_pack_kernels *pack) {
    if (qkv_rows_in_place(s->tensor, s->dim))
        scan_rows(bad, s, pack);
    else
        copy_rows(dst, bad, s, pack);
}

int64_t qkv_shared_key(const struct qkv_problem *p, const struct qkv_sequence *s, int64_t head) {
    int64_t before = s->index * qkv_round_up(p->kv_len, QKV_PANEL);
    if (p->cu_kv)
        before = qkv_round_up(s->kv0 - p->cu_kv[0], QKV_PANEL) + s->index * QKV_PANEL;
    int64_t length = p->cu_kv ? s->kv_len : p->kv_len;
    return before * p->kv_heads + head * qkv_round_up(length, QKV_PANEL);
}

int64_t qkv_packed_keys(const struct qkv_problem *p) {
    int64_t keys = p->batch * qkv_round_up(p->kv_len, QKV_PANEL);
    if (p->cu_kv)
        keys = qkv_round_up((int64_t)p->cu_kv[p->batch] - p->cu_kv[0], QKV_PANEL) +
               p->batch * QKV_PANEL;
    return keys * p->kv_heads;
}

static int needs_keys(const struct qkv_plan_state *plan) {
    return plan->problem.head_dim > 0;
}

static int needs_values(const struct qkv_plan_state *plan) {
    return plan->problem.v_dim > 0;
}

int qkv_seen_source(struct qkv_key_source *s, const struct qkv_plan_state *plan,
                    const struct qkv_sequence *sequence, int64_t head, int64_t key0) {
    const struct qkv_span seen = qkv_visible_span(&plan->problem, sequence);
    if (seen.hi <= key0 || seen.lo >= key0 + QKV_KEY_BLOCK || seen.lo == seen.hi)
        return 0;
    *s = (struct qkv_key_source){
        .plan = plan,
        .sequence = sequence,
        .head = head,
        .key0 = key0,
        .lo = (int)qkv_max(seen.lo - key0, 0),
        .hi = (int)qkv_min(seen.hi - key0, QKV_KEY_BLOCK),
    };
    return 1;
}

void qkv_pack_part(const struct qkv_plan_state *plan, const qkv_tensors *tensors, void *shared,
                   const struct qkv_pack_kernels *pack, int64_t index) {
    const struct qkv_problem *p = &plan->problem;
    const int64_t head = index / plan->blocks, key0 = index % plan->blocks * QKV_KEY_BLOCK;
    const struct qkv_sequence sequence = qkv_sequence_at(p, head / p->kv_heads);
    struct qkv_key_source source;
    if (!qkv_seen_source(&source, plan, &sequence, head % p->kv_heads, key0))
        return;

    const int64_t key = qkv_shared_key(p, &sequence, source.head) + key0;
    char *base = shared;
    if (needs_keys(plan)) {
        source.tensor = &tensors->k;
        source.dim = p->head_dim;
        qkv_pack_panels((float *)(base + plan->shared.k) + key * p->head_dim, &source, pack);
    }
    if (!needs_values(plan))
        return;
    source.tensor = &tensors->v;
    source.dim = p->v_dim;
    qkv_pack_rows((float *)(base + plan->shared.v) + key * plan->v_pad,
                  (unsigned char *)base + plan->shared.flags + key / QKV_PANEL, &source, pack);
}

static struct qkv_key_source part_source(const struct qkv_part *part,
                                         const struct qkv_key_block *block,
                                         const qkv_tensor *tensor, int64_t dim) {
    return (struct qkv_key_source){
        .plan = part->plan,
        .tensor = tensor,
        .dim = dim,
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
        int64_t key = qkv_shared_key(&plan->problem, &part->sequence, part->kv_head) + block->key0;
        return (float *)(part->shared + plan->shared.k) + key * plan->problem.head_dim;
    }
    const struct qkv_key_source source =
        part_source(part, block, &part->tensors->k, plan->problem.head_dim);
    qkv_pack_panels(part->block, &source, pack);
    return part->block;
}

const float *qkv_part_values(const struct qkv_part *part, const struct qkv_key_block *block,
                             const struct qkv_pack_kernels *pack, int *bad) {
    const struct qkv_plan_state *plan = part->plan;
    const struct qkv_key_source source =
        part_source(part, block, &part->tensors->v, plan->problem.v_dim);
    unsigned char own[QKV_KEY_BLOCK / QKV_PANEL];
    const unsigned char *flags = own;
    const float *values = part->block;
    if (plan->packs) {
        int64_t key = qkv_shared_key(&plan->problem, &part->sequence, part->kv_head) + block->key0;
        values = (float *)(part->shared + plan->shared.v) + key * plan->v_pad;
        flags = (unsigned char *)part->shared + plan->shared.flags + key / QKV_PANEL;
    } else {
        qkv_pack_rows(part->block, own, &source, pack);
    }
    if (qkv_rows_in_place(source.tensor, source.dim))
        values = qkv_kv_row(&part->tensors->v, &plan->problem, &part->sequence, part->kv_head,
                            block->key0);
    *bad = 0;
    for (int g = block->lo / QKV_PANEL; g * QKV_PANEL < block->hi; g++)
        *bad |= flags[g];
    return values;
}
