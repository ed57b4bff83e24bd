/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of queries and weights as a variant rounds them, beside the definition of its type. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "narrow_case.h"
#include "ref/stored.h"
#include "support/rng.h"

double narrow_number(int type, const float *row, int c, bool weights) {
    const unsigned char *bytes = (const unsigned char *)row;
    uint16_t half;
    if (type == QKV_STORED_I8)
        return weights || bytes[c] < 128 ? bytes[c] : bytes[c] - 256;
    memcpy(&half, bytes + 2 * c, sizeof half);
    return ref_format_value(type == QKV_STORED_F16 ? REF_F16 : REF_BF16, half);
}

/* ---- Inputs ---- */

static float of_kind(int kind, uint64_t hash) {
    static const float sizes[] = {0x1p-140F, 1e-20F, 1e-3F, 1.0F, 700.0F};
    const float x = rng_normal(hash);
    switch (kind) {
    case 1:
        return 0.0F;
    case 2:
        return x * 0x1p-130F;
    case 3:
        return x * 1e37F;
    case 4:
        return x * sizes[hash % 5];
    default:
        return x;
    }
}

/* Weights are not negative, but for the mark of a masked key. */
static float as_weight(float x, uint64_t hash) {
    return hash % 7 == 0 ? -0.0F : fabsf(x);
}

static void fill(struct rows *r, const struct rounding_case *c, bool weights) {
    for (int i = 0; i < c->rows; i++)
        for (int j = c->from; j < c->to; j++) {
            const uint64_t hash = rng_hash(c->seed, (uint64_t)(i * 1000 + j));
            const float x = of_kind(c->kind, hash);
            r->at[i * r->ld + j] = weights ? as_weight(x, hash) : x;
        }
    float *odd =
        r->at + (c->rows - 1) * r->ld + c->from + (int)(c->seed % (uint64_t)(c->to - c->from));
    if (c->kind == 5)
        *odd = NAN;
    if (c->kind == 6)
        *odd = weights || c->seed % 2 ? INFINITY : -INFINITY;
}

/* ---- What must come out ---- */

/* Integers have the largest for 127 or 255 steps; float16 is scaled by a power of two, of which the
 * largest has a normal inverse: numbers beyond 2^123 come out larger than 1/8. */
static bool is_scale(int type, double scale, double largest) {
    if (type == QKV_STORED_BF16)
        return scale == 1;
    if (type == QKV_STORED_F16)
        return largest == 0 ||
               (frexp(scale, &(int){0}) == 0.5 && (largest / scale <= 0.125 || scale == 0x1p126));
    for (int steps = 127; steps <= 255; steps += 128)
        if (fabs(scale * steps - fmax(largest, steps * (double)FLT_MIN)) <=
            0x1p-22 * fmax(largest, steps * (double)FLT_MIN))
            return true;
    return largest == 0 && scale == 0;
}

/* Half a step, and the roundings of its computation. */
static bool is_nearest(int type, double number, double x, double scale) {
    const double scaled = scale > 0 ? x / scale : 0;
    if (type == QKV_STORED_I8)
        return number == nearbyint(number) && fabs(number - scaled) <= 0.5 + 0x1p-14;
    return number == ref_format_rounded(type == QKV_STORED_F16 ? REF_F16 : REF_BF16, scaled) ||
           (isnan(number) && isnan(x));
}

static double largest_of(const float *row, const struct rounding_case *c) {
    double largest = 0;
    for (int j = c->from; j < c->to; j++)
        largest = isfinite(row[j]) ? fmax(largest, fabs((double)row[j])) : NAN;
    return largest;
}

static bool has_odd(const float *row, const struct rounding_case *c) {
    for (int j = c->from; j < c->to; j++)
        if (!isfinite(row[j]))
            return true;
    return false;
}

static struct verdict check_row(int type, const float *row, const float *before,
                                const struct rounding_case *c, float scale, bool weights) {
    if (type != QKV_STORED_BF16 && has_odd(before, c))
        return isnan(scale) ? verdict_ok() : verdict_fail("the scale hides a NaN or an infinity");
    if (!has_odd(before, c) && !is_scale(type, (double)scale, largest_of(before, c)))
        return verdict_fail("the scale is %a", (double)scale);
    for (int j = c->from; j < c->to; j++) {
        const double number = narrow_number(type, row, j, weights);
        if (!is_nearest(type, number, (double)before[j], (double)scale))
            return verdict_fail("column %d is %g of %a, scale %a", j, number, (double)before[j],
                                (double)scale);
    }
    for (int j = c->to; j < (int)round_to(c->to, 4); j++)
        if (narrow_number(type, row, j, weights) != 0)
            return verdict_fail("column %d, behind the row, is not zero", j);
    return verdict_ok();
}

static struct verdict check(const struct narrow_variant *v, const struct rounding_case *c,
                            bool weights) {
    const ptrdiff_t length = round_to(c->to, 4);
    struct rows rows = rows_make(c->rows, length, (ptrdiff_t)(c->seed % 3));
    struct rows scale = rows_make(1, c->rows, 0);
    fill(&rows, c, weights);
    struct rows before = rows_copy(&rows, c->rows, length);
    (weights ? v->kernels->round_weights : v->kernels->round_queries)(rows.at, rows.ld, c->rows,
                                                                      c->from, c->to, scale.at);
    struct verdict verdict = verdict_ok();
    for (int r = 0; r < c->rows && verdict.ok; r++)
        verdict = check_row(v->type, rows.at + r * rows.ld, before.at + r * before.ld, c,
                            scale.at[r], weights);
    if (verdict.ok && !(rows_intact(&rows, c->rows, length) && guard_intact(&scale.memory)))
        verdict = verdict_fail("something was written beside the rows");
    verdict_add(&verdict, "%s %s: %d rows, columns %d to %d, kind %d, seed %llu",
                stored_names[v->type], weights ? "weights" : "queries", c->rows, c->from, c->to,
                c->kind, (unsigned long long)c->seed);
    guard_free(&rows.memory);
    guard_free(&before.memory);
    guard_free(&scale.memory);
    return verdict;
}

struct verdict check_queries(const struct narrow_variant *v, const struct rounding_case *c) {
    return check(v, c, false);
}

struct verdict check_weights(const struct narrow_variant *v, const struct rounding_case *c) {
    return check(v, c, true);
}
