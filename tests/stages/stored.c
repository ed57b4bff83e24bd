/* SPDX-License-Identifier: Apache-2.0 */
/* Stored keys and values: the products with them in all sizes, the weights' scales, and kernels
 * broken on purpose, which these checks must find. The conversions are in stored_numbers.c. */
#include <math.h>
#include <string.h>

#include "context.h"
#include "stage.h"
#include "stored_case.h"
#include "support/rng.h"
#include "support/rooms.h"

static const struct qkv_table *table_of(int room) {
    return &qkv_context_get(&rooms_get(room)->context)->table;
}

/* ---- Sizes ---- */

/* Around every unit, round and vector, and the usual ones. */
static const int lengths[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  11, 13, 15,  16,
                              17, 23, 31, 32, 33, 48, 63, 64, 65, 80, 96, 127, 128};
static const int widths[] = {16, 32, 48, 64, 80, 96, 112, 128, 144};

enum { LENGTHS = sizeof lengths / sizeof *lengths, WIDTHS = sizeof widths / sizeof *widths };

/* What is broken on purpose is looked for in all cases: the first that finds it ends the search. */
static bool every_case;

/* Is it the turn of this case, in a run of fewer? */
static bool is_due(int i) {
    return every_case || test_takes((uint64_t)i, test_stride());
}

static struct verdict check_keys_of(const struct qkv_table *table, int type, bool wild) {
    struct verdict verdict = verdict_ok();
    int i = 0;
    for (int rows = 1; rows <= QKV_FEW; rows++)
        for (int panels = 1; panels <= QKV_BLOCK_PANELS; panels += rows > 13 ? 5 : 1, i++) {
            const struct key_case c = {.type = type,
                                       .rows = rows,
                                       .panels = panels,
                                       .k = i % 61 == 60 ? 512 : lengths[i % LENGTHS],
                                       .seed = test_seed() + (uint64_t)(i + type),
                                       .wild = wild};
            if (verdict.ok && is_due(i))
                verdict = check_key_product(table, &c);
        }
    return verdict;
}

static struct verdict check_values_of(const struct qkv_table *table, int type, bool wild) {
    struct verdict verdict = verdict_ok();
    struct rng rng = rng_seeded(test_seed() + (uint64_t)type);
    for (int i = 0; i < 400; i++) {
        const int most = i % 10 == 0 ? QKV_KEY_BLOCK : i % 3 == 0 ? 24 : 60;
        const int from = (int)rng_below(&rng, most);
        const struct value_case c = {.type = type,
                                     .rows = 1 + i % QKV_FEW,
                                     .from = from,
                                     .to = from + 1 + (int)rng_below(&rng, most - from),
                                     .n = i % 97 == 96 ? 512 : widths[i / QKV_FEW % WIDTHS],
                                     .seed = test_seed() + (uint64_t)(i + type),
                                     .wild = wild};
        if (verdict.ok && is_due(i))
            verdict = check_value_product(table, &c);
    }
    return verdict;
}

START_TEST(products_with_keys) {
    for (int type = 0; type < QKV_STORED_COUNT; type++)
        for (int wild = 0; wild <= 1; wild++) {
            struct verdict verdict = check_keys_of(table_of(_i), type, wild);
            stage_assert(&verdict);
        }
}
END_TEST

START_TEST(products_with_values) {
    for (int type = 0; type < QKV_STORED_COUNT; type++)
        for (int wild = 0; wild <= 1; wild++) {
            struct verdict verdict = check_values_of(table_of(_i), type, wild);
            stage_assert(&verdict);
        }
}
END_TEST

/* Every first and last token of the first panels. */
START_TEST(values_from_and_to_everywhere) {
    int i = 0;
    for (int type = 0; type < QKV_STORED_COUNT; type++)
        for (int from = 0; from < 2 * QKV_PANEL; from++)
            for (int to = from + 1; to <= 2 * QKV_PANEL + 1; to++, i++) {
                const struct value_case c = {.type = type,
                                             .rows = 1 + i % QKV_FEW,
                                             .from = from,
                                             .to = to,
                                             .n = QKV_PANEL,
                                             .seed = (uint64_t)i};
                if (!is_due(i))
                    continue;
                struct verdict verdict = check_value_product(table_of(_i), &c);
                stage_assert(&verdict);
            }
}
END_TEST

/* ---- The weights' scales ---- */

enum { WEIGHTS_LD = QKV_KEY_BLOCK + 3 };

static float weight_of(uint64_t hash) {
    static const float odd[] = {0.0F, -0.0F, 1.0F, NAN};
    return hash % 3 ? rng_normal(hash) : odd[hash / 3 % 4];
}

static float scale_of(uint64_t hash) {
    static const float odd[] = {0.0F, NAN, INFINITY, 0x1p-149F};
    return hash % 3 ? 0.01F * (float)(1 + hash % 100) : odd[hash / 3 % 4];
}

static void check_scales(const struct qkv_table *table, int rows, int from, int to, int marked) {
    struct panels scales = panels_make(QKV_STORED_I8, QKV_BLOCK_PANELS, 4, QKV_PANEL, 1, false);
    struct guard memory = guard_alloc((size_t)((rows - 1) * WEIGHTS_LD + to) * sizeof(float),
                                      sizeof(float), GUARD_END, 0);
    float *w = (float *)memory.data, before[QKV_FEW * WEIGHTS_LD];
    const uint64_t seed = test_seed() + (uint64_t)(rows + from + 2 * to + marked);
    for (int c = 0; c < QKV_KEY_BLOCK; c++)
        ((float *)scales.scales[c / QKV_PANEL].data)[c % QKV_PANEL] =
            scale_of(rng_hash(seed, (uint64_t)c));
    for (int g = 0; g < QKV_BLOCK_PANELS; g++)
        if (g < from / QKV_PANEL || g >= to / QKV_PANEL)
            panels_forbid(&scales, g);
    for (size_t i = 0; i < memory.size / sizeof(float); i++)
        w[i] = weight_of(rng_hash(seed + 1, i));
    memcpy(before, w, memory.size);
    table->decode->scale(w, WEIGHTS_LD, scales.scale, rows, from, to, marked);
    for (size_t i = 0; i < memory.size / sizeof(float); i++) {
        const int c = (int)(i % WEIGHTS_LD);
        const bool skipped = marked && before[i] == 0 && signbit(before[i]);
        float want = before[i];
        if (c >= from && c < to && !skipped)
            want *= scales.scale[c / QKV_PANEL][c % QKV_PANEL];
        if (!same_number(w[i], want) || (!isnan(want) && !signbit(want) != !signbit(w[i])))
            ck_abort_msg("weight %d: %g, not %g (it was %g)", c, (double)w[i], (double)want,
                         (double)before[i]);
    }
    ck_assert(guard_intact(&memory));
    guard_free(&memory);
    panels_free(&scales);
}

START_TEST(weights_times_scales) {
    int i = 0;
    for (int rows = 1; rows <= QKV_FEW; rows++)
        for (int from = 0; from < QKV_KEY_BLOCK; from += 5 * QKV_PANEL, i++) {
            const int panels = 1 + i % ((QKV_KEY_BLOCK - from) / QKV_PANEL);
            for (int marked = 0; marked <= 1; marked++)
                if (is_due(i))
                    check_scales(table_of(_i), rows, from, from + panels * QKV_PANEL, marked);
        }
}
END_TEST

/* ---- Kernels broken on purpose ---- */

static struct qkv_decode_kernels own;

static void keys_drop_a_step(const struct qkv_key_product *p) {
    struct qkv_key_product less = *p;
    less.k -= less.k > 1;
    own.keys[QKV_STORED_BF16](&less);
}

static void keys_forget_the_scale(const struct qkv_key_product *p) {
    struct qkv_key_product plain = *p;
    plain.scale = NULL;
    own.keys[QKV_STORED_I8](&plain);
}

static void values_begin_late(const struct qkv_value_product *p) {
    struct qkv_value_product late = *p;
    late.from += late.from + 1 < late.to;
    own.values[QKV_STORED_F16](&late);
}

static void values_forget_what_was(const struct qkv_value_product *p) {
    struct qkv_value_product alone = *p;
    alone.factor = NULL;
    own.values[QKV_STORED_F32](&alone);
}

START_TEST(broken_products_are_found) {
    struct qkv_table table = *table_of(_i);
    own = *table.decode;
    struct qkv_decode_kernels broken = own;
    table.decode = &broken;
    every_case = true;
    broken.keys[QKV_STORED_BF16] = keys_drop_a_step;
    ck_assert(!check_keys_of(&table, QKV_STORED_BF16, false).ok);
    broken.keys[QKV_STORED_I8] = keys_forget_the_scale;
    ck_assert(!check_keys_of(&table, QKV_STORED_I8, false).ok);
    broken.values[QKV_STORED_F16] = values_begin_late;
    ck_assert(!check_values_of(&table, QKV_STORED_F16, false).ok);
    broken.values[QKV_STORED_F32] = values_forget_what_was;
    ck_assert(!check_values_of(&table, QKV_STORED_F32, false).ok);
}
END_TEST

static Suite *make(void) {
    const TTest *const room_tests[] = {
        products_with_keys,   products_with_values,      values_from_and_to_everywhere,
        weights_times_scales, broken_products_are_found,
    };
    Suite *suite = suite_create("stored");
    TCase *tcase = tcase_create("rooms");
    tcase_add_room_tests(tcase, room_tests, sizeof room_tests / sizeof *room_tests);
    stored_add_number_tests(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
