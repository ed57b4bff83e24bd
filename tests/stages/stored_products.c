/* SPDX-License-Identifier: Apache-2.0 */
/* The products with stored keys and values. What a product may write, read and not read stands
 * between pages that may not be touched; rows have gaps, which hold NaN. */
#include <math.h>
#include <string.h>

#include "ref/bound.h"
#include "stored_case.h"
#include "stored_rows.h"
#include "support/compare.h"
#include "support/rng.h"
#include "support/rooms.h"

static struct verdict compare_product(const struct rows *got, const struct rows *bits, int rows,
                                      ptrdiff_t columns) {
    for (int r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < columns; c++) {
            const float x = got->at[r * got->ld + c], y = bits->at[r * bits->ld + c];
            if (!same_number(x, y))
                return verdict_fail("[%d][%d] is %a; by the room's gemm %a", r, (int)c, (double)x,
                                    (double)y);
        }
    return verdict_ok();
}

/* ---- Keys ---- */

static void keys_by_gemm(const struct qkv_table *table, const struct qkv_key_product *p,
                         const struct panels *keys, struct rows *s) {
    const struct qkv_gemm g = {.a = p->q,
                               .b = keys->numbers,
                               .c = s->at,
                               .lda = p->ldq,
                               .a_k = 1,
                               .b_k = QKV_PANEL,
                               .b_g = p->k * QKV_PANEL,
                               .ldc = s->ld,
                               .m = p->rows,
                               .n = p->panels * QKV_PANEL,
                               .k = p->k};
    table->scores->gemm(&g);
    for (int r = 0; p->scale && r < p->rows; r++)
        for (int c = 0; c < p->panels * QKV_PANEL; c++)
            s->at[r * s->ld + c] *= p->scale[c / QKV_PANEL][c % QKV_PANEL];
}

static struct verdict keys_by_reference(const struct qkv_key_product *p, const struct panels *keys,
                                        const struct rows *s) {
    struct verdict verdict = verdict_ok();
    for (int r = 0; r < p->rows; r++)
        for (int c = 0; c < p->panels * QKV_PANEL && verdict.ok; c++) {
            const float *key = keys->numbers + c / QKV_PANEL * p->k * QKV_PANEL + c % QKV_PANEL;
            struct ref_value dot = ref_dot((const float *)p->q + r * p->ldq, key, QKV_PANEL, p->k);
            if (p->scale) {
                const double scale = (double)p->scale[c / QKV_PANEL][c % QKV_PANEL];
                dot.value *= scale;
                dot.bound = dot.bound * scale + REF_U * fabs(dot.value) + REF_DENORMAL;
            }
            verdict = compare_number(s->at[r * s->ld + c], dot, r, c);
        }
    return verdict;
}

struct verdict check_key_product(const struct qkv_table *table, const struct key_case *c) {
    const ptrdiff_t columns = (ptrdiff_t)c->panels * QKV_PANEL, readable = round_to(c->k, 4);
    struct panels keys = panels_make(c->type, c->panels, c->k, QKV_PANEL, c->seed, c->wild);
    const uint64_t turn = turn_of(c->seed);
    struct rows q = rows_make(c->rows, readable, (ptrdiff_t)(turn % 3));
    struct rows s = rows_make(c->rows, columns, (ptrdiff_t)(turn % 4) * 3);
    struct rows bits = rows_make(c->rows, columns, 0);
    rows_fill(&q, c->rows, 0, c->k, c->seed + 2);
    rows_zero(&q, c->rows, c->k, readable);
    const struct qkv_key_product p = {.q = q.at,
                                      .panel = keys.panel,
                                      .scale =
                                          c->type == QKV_STORED_I8 && turn % 5 ? keys.scale : NULL,
                                      .s = s.at,
                                      .ldq = q.ld,
                                      .lds = s.ld,
                                      .k = c->k,
                                      .rows = c->rows,
                                      .panels = c->panels,
                                      .next = next_of(turn),
                                      .nexts = 1 + (int)(turn / 2 % NEXTS),
                                      .in_order = turn % 7 < 3,
                                      .lanes = turn % 11 < 6,
                                      .halves = turn % 2};
    table->decode->keys[c->type](&p);
    keys_by_gemm(table, &p, &keys, &bits);
    struct verdict verdict = compare_product(&s, &bits, c->rows, columns);
    if (verdict.ok && !c->wild)
        verdict = keys_by_reference(&p, &keys, &s);
    if (verdict.ok && !(rows_intact(&s, c->rows, columns) && rows_intact(&q, c->rows, readable)))
        verdict = verdict_fail("something was written beside the rows");
    verdict_add(&verdict, "%s keys: %d rows, %d panels, head_dim %d, seed %llu%s",
                stored_names[c->type], c->rows, c->panels, (int)c->k, (unsigned long long)c->seed,
                c->wild ? ", wild" : "");
    guard_free(&q.memory);
    guard_free(&s.memory);
    guard_free(&bits.memory);
    panels_free(&keys);
    return verdict;
}

/* ---- Values ---- */

static void values_by_gemm(const struct qkv_table *table, const struct qkv_value_product *p,
                           const struct panels *values, struct rows *acc) {
    const struct qkv_gemm g = {.a = (const float *)p->w + p->from,
                               .b = values->numbers + p->from * p->n,
                               .c = acc->at,
                               .lda = p->ldw,
                               .a_k = 1,
                               .b_k = p->n,
                               .b_g = QKV_PANEL,
                               .ldc = acc->ld,
                               .m = p->rows,
                               .n = p->n,
                               .k = p->to - p->from,
                               .factor = p->factor};
    table->mix->gemm(&g);
}

static struct verdict values_by_reference(const struct qkv_value_product *p,
                                          const struct panels *values, const struct rows *before) {
    struct verdict verdict = verdict_ok();
    for (int r = 0; r < p->rows; r++)
        for (ptrdiff_t c = 0; c < p->n && verdict.ok; c++) {
            struct ref_value sum =
                ref_dot((const float *)p->w + r * p->ldw + p->from,
                        values->numbers + p->from * p->n + c, p->n, p->to - p->from);
            if (p->factor) {
                const double kept = (double)before->at[r * before->ld + c] * (double)p->factor[r];
                sum.value += kept;
                sum.bound += REF_SLACK * REF_U * (fabs(kept) + fabs(sum.value)) + REF_DENORMAL;
            }
            verdict = compare_number(p->acc[r * p->ld_acc + c], sum, r, c);
        }
    return verdict;
}

/* Panels of which only the tokens [from, to) may count. Others of their units have weights of zero,
 * and are finite; the rest is spoiled, and whole panels may not even be read. */
static struct panels values_make(const struct value_case *c, int from, int to) {
    const int reached = (int)round_to(c->to + 1, QKV_PANEL) / QKV_PANEL;
    const int count = reached < QKV_BLOCK_PANELS ? reached : QKV_BLOCK_PANELS;
    struct panels p = panels_make(c->type, count, QKV_PANEL, c->n, c->seed, c->wild);
    for (int t = 0; t < count * QKV_PANEL; t++) {
        if (t < from || t >= to)
            panels_fill(&p, t / QKV_PANEL, t % QKV_PANEL, stored_spoiled[c->type]);
        else if (c->wild && (t < c->from || t >= c->to))
            panels_fill(&p, t / QKV_PANEL, t % QKV_PANEL, 0);
    }
    for (int g = 0; g < count; g++)
        if ((g + 1) * QKV_PANEL <= from || g * QKV_PANEL >= to)
            panels_forbid(&p, g);
    return p;
}

/* Without a factor acc is not read: what stands there is NaN. */
static struct verdict run_values(const struct qkv_table *table, const struct qkv_value_product *p,
                                 const struct panels *values, struct rows *acc, bool wild) {
    struct rows before = rows_copy(acc, p->rows, p->n), bits = rows_copy(acc, p->rows, p->n);
    table->decode->values[values->type](p);
    values_by_gemm(table, p, values, &bits);
    struct verdict verdict = compare_product(acc, &bits, p->rows, p->n);
    if (verdict.ok && !wild)
        verdict = values_by_reference(p, values, &before);
    if (verdict.ok && !rows_intact(acc, p->rows, p->n))
        verdict = verdict_fail("something was written beside the rows");
    guard_free(&before.memory);
    guard_free(&bits.memory);
    return verdict;
}

struct verdict check_value_product(const struct qkv_table *table, const struct value_case *c) {
    const int unit = stored_units[c->type], from = c->from / unit * unit;
    const ptrdiff_t to = round_to(c->to, unit);
    struct panels values = values_make(c, from, (int)to);
    const uint64_t turn = turn_of(c->seed);
    struct rows w = rows_make(c->rows, to, (ptrdiff_t)(turn % 3));
    struct rows acc = rows_make(c->rows, c->n, (ptrdiff_t)(turn % 4) * 3);
    struct rows factor = rows_make(1, c->rows, 0);
    const bool adds = turn % 3 != 0;
    rows_fill(&w, c->rows, c->from, c->to, c->seed + 3);
    rows_zero(&w, c->rows, from, c->from);
    rows_zero(&w, c->rows, c->to, to);
    rows_fill(&factor, 1, 0, c->rows, c->seed + 4);
    if (adds)
        rows_fill(&acc, c->rows, 0, c->n, c->seed + 5);
    const struct qkv_value_product p = {.w = w.at,
                                        .panel = values.panel,
                                        .acc = acc.at,
                                        .factor = adds ? factor.at : NULL,
                                        .ldw = w.ld,
                                        .ld_acc = acc.ld,
                                        .n = c->n,
                                        .rows = c->rows,
                                        .from = c->from,
                                        .to = c->to,
                                        .next = next_of(turn),
                                        .nexts = 1 + (int)(turn / 2 % NEXTS),
                                        .in_order = turn % 7 < 3,
                                        .lanes = turn % 11 < 6,
                                        .halves = turn % 2};
    struct verdict verdict = run_values(table, &p, &values, &acc, c->wild);
    verdict_add(&verdict, "%s values: %d rows, tokens %d to %d, %d columns, seed %llu%s",
                stored_names[c->type], c->rows, c->from, c->to, (int)c->n,
                (unsigned long long)c->seed, c->wild ? ", wild" : "");
    guard_free(&w.memory);
    guard_free(&acc.memory);
    guard_free(&factor.memory);
    panels_free(&values);
    return verdict;
}
