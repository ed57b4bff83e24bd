/* SPDX-License-Identifier: Apache-2.0 */
/* A variant's products with stored keys and values, beside double precision over the numbers that
 * it has made of the rows, and beside itself, a row and a panel at a time. */
#include <math.h>
#include <string.h>

#include "narrow_case.h"
#include "ref/bound.h"
#include "support/rng.h"

/* A sum of products of rounded numbers and its bound (ref/narrow.h), before the row's scale. */
struct sum {
    double value, size;
    int n;
};

static void add(struct sum *sum, double x, double y) {
    sum->value += x * y;
    sum->size += fabs(x * y);
    sum->n++;
}

static double bound_of(int type, const struct sum *sum) {
    const double n = sum->n;
    switch (type) {
    case QKV_STORED_BF16:
        return (n + 4) * 0x1p-23 * sum->size + 4 * n * REF_FLOOR;
    case QKV_STORED_F16:
        return (8 * 0x1p-11 + (n / 8 + 4) * REF_U) * sum->size + n * 0x1p-25;
    default: /* exact, but for the conversion and the scales */
        return 4 * REF_U * fabs(sum->value) + REF_DENORMAL;
    }
}

/* Times the row's scale, and `scale`. */
static struct ref_value scaled(int type, const struct sum *sum, double scale) {
    return (struct ref_value){.value = sum->value * scale,
                              .bound =
                                  REF_SLACK * bound_of(type, sum) * fabs(scale) + REF_DENORMAL};
}

static bool same_bits(const struct rows *x, const struct rows *y, int rows, ptrdiff_t columns) {
    for (int r = 0; r < rows; r++)
        if (memcmp(x->at + r * x->ld, y->at + r * y->ld, (size_t)columns * sizeof(float)) != 0)
            return false;
    return true;
}

/* ---- Keys ---- */

static struct verdict keys_by_reference(const struct narrow_variant *v,
                                        const struct qkv_key_product *p,
                                        const struct panels *keys) {
    struct verdict verdict = verdict_ok();
    for (int r = 0; r < p->rows; r++)
        for (int c = 0; c < p->panels * QKV_PANEL && verdict.ok; c++) {
            const float *key = keys->numbers + c / QKV_PANEL * p->k * QKV_PANEL + c % QKV_PANEL;
            const float *q = (const float *)p->q + r * p->ldq;
            struct sum sum = {0};
            for (int k = 0; k < p->k; k++)
                add(&sum, narrow_number(v->type, q, k, false), (double)key[k * QKV_PANEL]);
            double scale = (double)p->row_scale[r];
            if (p->scale)
                scale *= (double)p->scale[c / QKV_PANEL][c % QKV_PANEL];
            verdict = compare_number(p->s[r * p->lds + c], scaled(v->type, &sum, scale), r, c);
        }
    return verdict;
}

/* One row and one panel at a time. */
static void keys_apart(const struct narrow_variant *v, const struct qkv_key_product *p,
                       struct rows *s) {
    for (int r = 0; r < p->rows; r++)
        for (int g = 0; g < p->panels; g++) {
            struct qkv_key_product one = *p;
            one.q = (const float *)p->q + r * p->ldq;
            one.panel = p->panel + g;
            one.scale = p->scale ? p->scale + g : NULL;
            one.row_scale = p->row_scale + r;
            one.s = s->at + r * s->ld + g * QKV_PANEL;
            one.rows = one.panels = 1;
            v->kernels->keys(&one);
        }
}

struct verdict check_narrow_keys(const struct narrow_variant *v, const struct key_case *c) {
    const ptrdiff_t columns = (ptrdiff_t)c->panels * QKV_PANEL, readable = round_to(c->k, 4);
    const uint64_t turn = turn_of(c->seed);
    struct panels keys = panels_make(c->type, c->panels, c->k, QKV_PANEL, c->seed, false);
    struct rows q = rows_make(c->rows, readable, (ptrdiff_t)(turn % 3));
    struct rows s = rows_make(c->rows, columns, (ptrdiff_t)(turn % 4) * 3);
    struct rows apart = rows_make(c->rows, columns, 0), scale = rows_make(1, c->rows, 0);
    rows_fill(&q, c->rows, 0, c->k, c->seed + 2);
    rows_zero(&q, c->rows, c->k, readable);
    v->kernels->round_queries(q.at, q.ld, c->rows, 0, (int)c->k, scale.at);
    const struct qkv_key_product p = {.q = q.at,
                                      .panel = keys.panel,
                                      .scale = c->type == QKV_STORED_I8 ? keys.scale : NULL,
                                      .row_scale = scale.at,
                                      .s = s.at,
                                      .ldq = q.ld,
                                      .lds = s.ld,
                                      .k = c->k,
                                      .rows = c->rows,
                                      .panels = c->panels,
                                      .next = next_of(turn),
                                      .nexts = 1 + (int)(turn / 2 % NEXTS)};
    v->kernels->keys(&p);
    keys_apart(v, &p, &apart);
    struct verdict verdict = keys_by_reference(v, &p, &keys);
    if (verdict.ok && !same_bits(&s, &apart, c->rows, columns))
        verdict = verdict_fail("a row or a panel alone has other bits");
    if (verdict.ok && !(rows_intact(&s, c->rows, columns) && rows_intact(&q, c->rows, readable)))
        verdict = verdict_fail("something was written beside the rows");
    verdict_add(&verdict, "%s keys: %d rows, %d panels, head_dim %d, seed %llu",
                stored_names[c->type], c->rows, c->panels, (int)c->k, (unsigned long long)c->seed);
    guard_free(&q.memory);
    guard_free(&s.memory);
    guard_free(&apart.memory);
    guard_free(&scale.memory);
    panels_free(&keys);
    return verdict;
}

/* ---- Values ---- */

static struct verdict values_by_reference(const struct narrow_variant *v,
                                          const struct qkv_value_product *p,
                                          const struct panels *values, const struct rows *before) {
    struct verdict verdict = verdict_ok();
    for (int r = 0; r < p->rows; r++)
        for (ptrdiff_t c = 0; c < p->n && verdict.ok; c++) {
            const float *w = (const float *)p->w + r * p->ldw;
            struct sum sum = {0};
            for (int t = p->from; t < p->to; t++)
                add(&sum, narrow_number(v->type, w, t, true),
                    (double)values->numbers[t * p->n + c]);
            struct ref_value want = scaled(v->type, &sum, (double)p->row_scale[r]);
            if (p->factor) {
                const double kept = (double)before->at[r * before->ld + c] * (double)p->factor[r];
                want.value += kept;
                want.bound += 2 * REF_U * (fabs(kept) + fabs(want.value)) + REF_DENORMAL;
            }
            verdict = compare_number(p->acc[r * p->ld_acc + c], want, r, c);
        }
    return verdict;
}

/* Tokens beyond the last panel that may count are not there. */
static struct panels values_make(const struct value_case *c) {
    const int count = (int)round_to(c->to, QKV_PANEL) / QKV_PANEL;
    struct panels p = panels_make(c->type, count, QKV_PANEL, c->n, c->seed, false);
    for (int g = 0; g < c->from / QKV_PANEL; g++)
        panels_forbid(&p, g);
    return p;
}

static void values_apart(const struct narrow_variant *v, const struct qkv_value_product *p,
                         struct rows *acc) {
    for (int r = 0; r < p->rows; r++) {
        struct qkv_value_product one = *p;
        one.w = (const float *)p->w + r * p->ldw;
        one.row_scale = p->row_scale + r;
        one.factor = p->factor ? p->factor + r : NULL;
        one.acc = acc->at + r * acc->ld;
        one.rows = 1;
        v->kernels->values(&one);
    }
}

static void fill_weights(struct rows *w, const struct value_case *c, int from, int to) {
    rows_zero(w, c->rows, from, to);
    rows_fill(w, c->rows, c->from, c->to, c->seed + 3);
    for (int r = 0; r < c->rows; r++)
        for (int t = from; t < to; t++)
            w->at[r * w->ld + t] = fabsf(w->at[r * w->ld + t]);
}

struct verdict check_narrow_values(const struct narrow_variant *v, const struct value_case *c) {
    const int from = c->from / QKV_PANEL * QKV_PANEL, to = (int)round_to(c->to, QKV_PANEL);
    const uint64_t turn = turn_of(c->seed);
    struct panels values = values_make(c);
    struct rows w = rows_make(c->rows, to, (ptrdiff_t)(turn % 3));
    struct rows acc = rows_make(c->rows, c->n, (ptrdiff_t)(turn % 4) * 3);
    struct rows factor = rows_make(1, c->rows, 0), scale = rows_make(1, c->rows, 0);
    const bool adds = turn % 3 != 0;
    fill_weights(&w, c, from, to);
    rows_fill(&factor, 1, 0, c->rows, c->seed + 4);
    if (adds) /* else what stands there is NaN, and not read */
        rows_fill(&acc, c->rows, 0, c->n, c->seed + 5);
    struct rows before = rows_copy(&acc, c->rows, c->n), apart = rows_copy(&acc, c->rows, c->n);
    v->kernels->round_weights(w.at, w.ld, c->rows, from, to, scale.at);
    const struct qkv_value_product p = {.w = w.at,
                                        .panel = values.panel,
                                        .row_scale = scale.at,
                                        .acc = acc.at,
                                        .factor = adds ? factor.at : NULL,
                                        .ldw = w.ld,
                                        .ld_acc = acc.ld,
                                        .n = c->n,
                                        .rows = c->rows,
                                        .from = c->from,
                                        .to = c->to,
                                        .next = next_of(turn),
                                        .nexts = 1 + (int)(turn / 2 % NEXTS)};
    v->kernels->values(&p);
    values_apart(v, &p, &apart);
    struct verdict verdict = values_by_reference(v, &p, &values, &before);
    if (verdict.ok && !same_bits(&acc, &apart, c->rows, c->n))
        verdict = verdict_fail("a row alone has other bits");
    if (verdict.ok && !(rows_intact(&acc, c->rows, c->n) && rows_intact(&w, c->rows, to)))
        verdict = verdict_fail("something was written beside the rows");
    verdict_add(&verdict, "%s values: %d rows, tokens %d to %d, %d columns, seed %llu",
                stored_names[c->type], c->rows, c->from, c->to, (int)c->n,
                (unsigned long long)c->seed);
    struct guard *const memory[] = {&w.memory,     &acc.memory,    &factor.memory,
                                    &scale.memory, &before.memory, &apart.memory};
    for (int i = 0; i < 6; i++)
        guard_free(memory[i]);
    panels_free(&values);
    return verdict;
}
