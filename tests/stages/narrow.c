/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of one variant of narrow arithmetic (QKV_TEST_VARIANT): what it makes of rows of
 * queries and weights, number by number, and its products with stored keys and values beside double
 * precision, over all sizes, each row with the bits that it has alone. */
#include <math.h>
#include <string.h>

#include <qkv/cache.h>

#include "context.h"
#include "narrow_case.h"
#include "stage.h"
#include "support/rng.h"
#include "support/rooms.h"

static struct narrow_variant variant_of(int room) {
    static const int types[QKV_DTYPE_COUNT] = {
        [QKV_F16] = QKV_STORED_F16, [QKV_BF16] = QKV_STORED_BF16, [QKV_I8] = QKV_STORED_I8};
    const int type = types[test_narrow_dtype()];
    const struct qkv_table *table = &qkv_context_get(&rooms_get(room)->context)->table;
    return (struct narrow_variant){type, table->narrow[type]};
}

/* ---- Rows ---- */

/* Around every unit and vector, and the usual ones. */
static const int lengths[] = {1,  2,  3,  4,  5,  7,  8,  9,   15,  16,  17,  31,  32, 33,
                              47, 63, 64, 65, 80, 96, 97, 127, 128, 200, 256, 511, 512};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

START_TEST(queries) {
    const struct narrow_variant v = variant_of(_i);
    for (int i = 0; i < LENGTHS * NARROW_KINDS; i++) {
        const struct rounding_case c = {.rows = 1 + i % 5,
                                        .from = 0,
                                        .to = lengths[i % LENGTHS],
                                        .kind = i / LENGTHS,
                                        .seed = test_seed() + (uint64_t)i};
        struct verdict verdict = check_queries(&v, &c);
        stage_assert(&verdict);
    }
}
END_TEST

START_TEST(weights) {
    const struct narrow_variant v = variant_of(_i);
    for (int i = 0; i < QKV_BLOCK_PANELS * NARROW_KINDS; i++) {
        const int from = i % QKV_BLOCK_PANELS, left = QKV_BLOCK_PANELS - from;
        const struct rounding_case c = {.rows = 1 + i % 5,
                                        .from = from * QKV_PANEL,
                                        .to = (from + 1 + i / 3 % left) * QKV_PANEL,
                                        .kind = i / QKV_BLOCK_PANELS,
                                        .seed = test_seed() + (uint64_t)i};
        struct verdict verdict = check_weights(&v, &c);
        stage_assert(&verdict);
    }
}
END_TEST

/* ---- Products ---- */

static bool is_due(int i) {
    return test_takes((uint64_t)i, test_stride());
}

static struct verdict check_all_keys(const struct narrow_variant *v) {
    struct verdict verdict = verdict_ok();
    int i = 0;
    for (int rows = 1; rows <= QKV_FEW; rows++)
        for (int panels = 1; panels <= QKV_BLOCK_PANELS && verdict.ok; panels++, i++) {
            const struct key_case c = {.type = v->type,
                                       .rows = rows,
                                       .panels = panels,
                                       .k = lengths[i % LENGTHS],
                                       .seed = test_seed() + (uint64_t)i};
            if (is_due(i) || i % 37 == 0)
                verdict = check_narrow_keys(v, &c);
        }
    return verdict;
}

static struct verdict check_all_values(const struct narrow_variant *v) {
    static const int widths[] = {16, 32, 48, 64, 80, 96, 112, 128, 144, 256, 512};
    struct verdict verdict = verdict_ok();
    struct rng rng = rng_seeded(test_seed());
    for (int i = 0; i < 600 && verdict.ok; i++) {
        const int most = i % 10 == 0 ? QKV_KEY_BLOCK : i % 3 == 0 ? 24 : 60;
        const int from = (int)rng_below(&rng, most);
        const struct value_case c = {.type = v->type,
                                     .rows = 1 + i % QKV_FEW,
                                     .from = from,
                                     .to = from + 1 + (int)rng_below(&rng, most - from),
                                     .n = widths[i / QKV_FEW % 11],
                                     .seed = test_seed() + (uint64_t)i};
        if (is_due(i) || i % 37 == 0)
            verdict = check_narrow_values(v, &c);
    }
    return verdict;
}

START_TEST(products_with_keys) {
    const struct narrow_variant v = variant_of(_i);
    struct verdict verdict = check_all_keys(&v);
    stage_assert(&verdict);
}
END_TEST

START_TEST(products_with_values) {
    const struct narrow_variant v = variant_of(_i);
    struct verdict verdict = check_all_values(&v);
    stage_assert(&verdict);
}
END_TEST

/* ---- Kernels broken on purpose ---- */

static const struct qkv_narrow_kernels *whole;

static void keys_drop_a_unit(const struct qkv_key_product *p) {
    struct qkv_key_product less = *p;
    less.k -= less.k > 8 ? 8 : 0;
    whole->keys(&less);
}

static void keys_take_another_scale(const struct qkv_key_product *p) {
    float scale[QKV_FEW];
    struct qkv_key_product other = *p;
    for (int r = 0; r < p->rows; r++)
        scale[r] = 1.5F * p->row_scale[p->rows - 1];
    other.row_scale = scale;
    whole->keys(&other);
}

static void values_begin_late(const struct qkv_value_product *p) {
    struct qkv_value_product late = *p;
    late.from += late.from + 16 < late.to ? 16 : 0;
    whole->values(&late);
}

static void rounds_nothing_away(float *rows, ptrdiff_t ld, int count, int from, int to,
                                float *scale) {
    whole->round_queries(rows, ld, count, from, to, scale);
    ((unsigned char *)rows)[0] ^= 1;
}

START_TEST(broken_kernels_are_found) {
    const struct narrow_variant v = variant_of(_i);
    struct qkv_narrow_kernels broken = *v.kernels;
    const struct narrow_variant other = {v.type, &broken};
    whole = v.kernels;
    broken.keys = keys_drop_a_unit;
    ck_assert(!check_all_keys(&other).ok);
    if (v.type != QKV_STORED_BF16) { /* which has no scales */
        broken.keys = keys_take_another_scale;
        ck_assert(!check_all_keys(&other).ok);
    }
    broken.values = values_begin_late;
    ck_assert(!check_all_values(&other).ok);
    broken.round_queries = rounds_nothing_away;
    const struct rounding_case c = {.rows = 1, .from = 0, .to = 64, .kind = 0, .seed = 1};
    ck_assert(!check_queries(&other, &c).ok);
}
END_TEST

static Suite *make(void) {
    const TTest *const tests[] = {
        queries, weights, products_with_keys, products_with_values, broken_kernels_are_found,
    };
    Suite *suite = suite_create("narrow");
    TCase *tcase = tcase_create("rooms");
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
