/* SPDX-License-Identifier: Apache-2.0 */
/* The exponentials of attention, measured through the kernels themselves: 2^x for x from -150 to
 * 0, every tier in every room, against double precision. Prints the largest errors. By default a
 * share of the floats that differs with the seed; with QKV_TEST_EVERY set, each of them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "stage.h"
#include "support/rng.h"

enum { COLUMNS = QKV_KEY_BLOCK };

/* What each tier promises: ulps of a normal result. A result below the smallest normal number may
 * be zero. Without SLEEF the project's own polynomial stands in for it. */
static const struct {
    const char *name;
    double most;
} tiers[QKV_EXP_COUNT] = {
    [QKV_EXP_SLEEF_U10] = {"sleef_u10", QKV_SLEEF ? 1.0 : 3.0},
    [QKV_EXP_SLEEF_U35] = {"sleef_u35", QKV_SLEEF ? 3.5 : 3.0},
    [QKV_EXP_POLY5] = {"poly5", 2.5},
    [QKV_EXP_POLY4] = {"poly4", 64},
};

/* A scale whose product with the kernel's own log2(e) is exactly 1. */
static float inverse_of_log2e(void) {
    const float log2e = 0x1.715476p+0F;
    float scale = 0x1.62e43p-1F;
    for (int i = 0; i < 8 && scale * log2e != 1; i++)
        scale = nextafterf(scale, scale * log2e < 1 ? 1.0F : 0.0F);
    ck_assert(scale * log2e == 1);
    return scale;
}

/* x[COLUMNS], none above 0, to 2^x: a row of scores whose running maximum is 0 already; one that
 * masks may cut, or one that is known to be whole. */
static void weigh_row(qkv_weigh_fn *weigh, float *x, int tier, float scale, int whole) {
    float max[QKV_ROWS] = {0}, sum[QKV_ROWS] = {0}, factor[QKV_ROWS];
    const struct qkv_score_row row = {.s = x, .to = COLUMNS, .hi = COLUMNS};
    const struct qkv_score_rule rule = {.scale = scale, .exp = tier};
    const struct qkv_weigh block = {.row = &row,
                                    .rule = &rule,
                                    .state = {max, sum},
                                    .factor = factor,
                                    .rows = 1,
                                    .whole = whole};
    weigh(&block);
}

/* Either way has the same bits. */
static void exp2_by_kernel(qkv_weigh_fn *weigh, float *x, int tier, float scale) {
    _Alignas(64) float y[COLUMNS];
    memcpy(y, x, sizeof y);
    weigh_row(weigh, x, tier, scale, 0);
    weigh_row(weigh, y, tier, scale, 1);
    ck_assert_mem_eq(x, y, sizeof y);
}

/* The error of y = 2^x in ulps. */
static double error_of(float y, float x) {
    double exact = exp2((double)x);
    if (exact < 0x1p-126)
        return y == 0 ? 0 : fabs((double)y - exact) / 0x1p-149;
    return fabs((double)y - exact) / ldexp(1, ilogb(exact) - 23);
}

struct worst {
    double error;
    float x;
};

static void try_block(qkv_weigh_fn *weigh, int tier, float scale, const float *x,
                      struct worst *worst) {
    _Alignas(64) float y[COLUMNS];
    memcpy(y, x, sizeof y);
    exp2_by_kernel(weigh, y, tier, scale);
    for (int c = 0; c < COLUMNS; c++) {
        double error = error_of(y[c], x[c]);
        if (!(error <= worst->error)) /* a NaN is the worst of all */
            *worst = (struct worst){error, x[c]};
    }
}

/* Below 2^-30 in magnitude, 2^x is 1 in float32 for every x: a share of those is enough. */
static struct worst try_all(qkv_weigh_fn *weigh, int tier, uint32_t step) {
    const float scale = inverse_of_log2e();
    struct worst worst = {0, 0};
    const float first = -0x1p-30F, last = -150;
    uint32_t bits, end;
    memcpy(&bits, &first, sizeof bits);
    memcpy(&end, &last, sizeof end);
    bits += (uint32_t)(test_seed() % step);
    while (bits <= end) {
        float x[COLUMNS] = {0};
        for (int c = 0; c < COLUMNS && bits <= end; c++, bits += step)
            memcpy(&x[c], &bits, sizeof bits);
        try_block(weigh, tier, scale, x, &worst);
    }
    return worst;
}

START_TEST(exponentials_keep_their_promise) {
    const struct room *room = rooms_get(_i);
    const struct qkv_attention_kernels *kernels = qkv_context_get(&room->context)->table.attention;
    uint32_t step = getenv("QKV_TEST_EVERY") ? 1 : 251 * (uint32_t)test_stride();
    for (int tier = 0; tier < QKV_EXP_COUNT; tier++) {
        struct worst worst = try_all(kernels->weigh[tier], tier, step);
        printf("%s %s: at most %.4f ulp, at x = %a (%s)\n", room->name, tiers[tier].name,
               worst.error, (double)worst.x, step == 1 ? "every float" : "a share of the floats");
        ck_assert_msg(worst.error <= tiers[tier].most, "%s %s: %.4f ulp at %a", room->name,
                      tiers[tier].name, worst.error, (double)worst.x);
    }
}
END_TEST

/* The argument 0 stands for the largest key of every row: its weight is exactly 1. */
START_TEST(power_of_zero_is_one) {
    const struct room *room = rooms_get(_i);
    const struct qkv_attention_kernels *kernels = qkv_context_get(&room->context)->table.attention;
    for (int tier = 0; tier < QKV_EXP_COUNT; tier++) {
        _Alignas(64) float x[COLUMNS];
        for (int c = 0; c < COLUMNS; c++)
            x[c] = c % 3 == 0 ? 0.0F : c % 3 == 1 ? -0.0F : -INFINITY;
        exp2_by_kernel(kernels->weigh[tier], x, tier, inverse_of_log2e());
        for (int c = 0; c < COLUMNS; c++)
            ck_assert_float_eq(x[c], c % 3 == 2 ? 0.0F : 1.0F);
    }
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("exp2");
    TCase *tcase = tcase_create("rooms");
    tcase_add_room_test(tcase, exponentials_keep_their_promise);
    tcase_add_room_test(tcase, power_of_zero_is_one);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
