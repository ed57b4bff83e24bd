/* SPDX-License-Identifier: Apache-2.0 */
/* append and export: random caches and calls beside the bytes of a model, which are the same in
 * every room; what the model itself says of numbers on the edge; kernels broken on purpose. */
#include <math.h>
#include <string.h>

#include "append_case.h"
#include "context.h"
#include "support/rooms.h"

static void require(struct verdict verdict) {
    if (!verdict.ok)
        ck_abort_msg("%s", verdict.message);
}

/* ---- Beside the model ---- */

static struct verdict check_case(const qkv_context *context, int64_t number) {
    struct append_case c = append_case_make(rng_hash(test_seed(), (uint64_t)number));
    struct verdict verdict = verdict_ok();
    const int64_t steps = 1 + rng_below(&c.rng, 5);
    for (int64_t i = 0; i < steps && verdict.ok; i++) {
        verdict = append_case_step(&c, context);
        if (verdict.ok)
            verdict = append_case_check(&c);
        verdict_add(&verdict, "step %lld: %s", (long long)i, c.call);
    }
    if (verdict.ok)
        verdict = append_case_export(&c, context);
    verdict_add(&verdict, "case %lld: %s", (long long)number, c.text);
    append_case_free(&c);
    return verdict;
}

START_TEST(the_bytes_are_the_model_s) {
    for (int64_t i = 0; i < test_cases() / 4; i++)
        if (test_only() < 0 || test_only() == i)
            require(check_case(&rooms_get(_i)->context, i));
}
END_TEST

/* ---- The model on the edge, from the formats' definitions ---- */

START_TEST(half_width_numbers_on_the_edge) {
    const struct {
        float x;
        uint16_t f16, bf16;
    } known[] = {
        {0.0f, 0x0000, 0x0000},        {-0.0f, 0x8000, 0x8000},
        {1.0f, 0x3c00, 0x3f80},        {-2.0f, 0xc000, 0xc000},
        {0x1.002p0f, 0x3c00, 0x3f80}, /* halfway to the even one below, in binary16 */
        {0x1.006p0f, 0x3c02, 0x3f80}, /* and above */
        {0x1.01p0f, 0x3c04, 0x3f80},  /* the same in bfloat16 */
        {0x1.03p0f, 0x3c0c, 0x3f82},   {0x1.ffdffep15f, 0x7bff, 0x4780}, /* just below 65520 */
        {65520.0f, 0x7c00, 0x4780},    {0x1p-14f, 0x0400, 0x3880},
        {0x1p-24f, 0x0001, 0x3380},    {0x1p-25f, 0x0000, 0x3300},
        {0x1.8p-25f, 0x0001, 0x3340},  {0x1.fep127f, 0x7c00, 0x7f7f},
        {0x1.ffp127f, 0x7c00, 0x7f80}, {0x1p-133f, 0x0000, 0x0001},
        {0x1p-134f, 0x0000, 0x0000},   {INFINITY, 0x7c00, 0x7f80},
        {-INFINITY, 0xfc00, 0xff80},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        ck_assert_msg(model_f16(known[i].x) == known[i].f16, "%a: %04x", (double)known[i].x,
                      model_f16(known[i].x));
        ck_assert_msg(model_bf16(known[i].x) == known[i].bf16, "%a: %04x", (double)known[i].x,
                      model_bf16(known[i].x));
    }
}
END_TEST

/* Half a scale, and what two roundings of a number up to 127 add. */
START_TEST(int8_is_within_half_a_scale) {
    for (int i = 0; i < 2000; i++) {
        enum flavour flavour = i % 2 ? TINY : HEAVY;
        float row[20];
        for (int c = 0; c < 20; c++)
            row[c] = append_value(&flavour, rng_hash((uint64_t)i, (uint64_t)c));
        const struct model_row m = model_row_of(row, 20);
        for (int c = 0; c < 20; c++) {
            const double stored = (double)m.scale * model_i8(&m, c);
            ck_assert_msg(fabs(stored - (double)row[c]) <= 0.50003 * (double)m.scale,
                          "%a with the scale %a is stored as %d", (double)row[c], (double)m.scale,
                          model_i8(&m, c));
        }
    }
}
END_TEST

/* ---- Kernels broken on purpose, which the cases must find ---- */

static struct qkv_cache_kernels own;

static void forgets_the_last_number(void *panel, float *scale, int column, const float *row,
                                    ptrdiff_t ld, int count, ptrdiff_t k) {
    own.append_keys[QKV_STORED_F16](panel, scale, column, row, ld, count, k > 1 ? k - 1 : k);
}

static void takes_a_column_too_many(void *panel, float *scale, int column, const float *row,
                                    ptrdiff_t ld, int count, ptrdiff_t k) {
    own.append_keys[QKV_STORED_F32](panel, scale, column, row, ld, count, k);
    if (column + count < 16)
        memcpy((float *)panel + column + count, row, sizeof(float));
}

static int sees_no_infinity(void *panel, float *scale, int row, const float *values, ptrdiff_t ld,
                            int count, ptrdiff_t v_dim) {
    own.append_values[QKV_STORED_F16](panel, scale, row, values, ld, count, v_dim);
    return 0;
}

/* A unit's first token leaves what stood beside it. */
static int clears_nothing(void *panel, float *scale, int row, const float *values, ptrdiff_t ld,
                          int count, ptrdiff_t v_dim) {
    const ptrdiff_t n = (v_dim + 15) / 16 * 16, unit = row / 4 * n * 4;
    char kept[4 * 512];
    memcpy(kept, (char *)panel + unit, (size_t)n * 4);
    const int bad = own.append_values[QKV_STORED_I8](panel, scale, row, values, ld, count, v_dim);
    if (row % 4 == 0 && count == 1)
        for (ptrdiff_t c = 0; c < n * 4; c++)
            if (c % 4)
                ((char *)panel)[unit + c] = kept[c];
    return bad;
}

START_TEST(broken_kernels_are_found) {
    for (int m = 0; m < 4; m++) {
        qkv_context context = rooms_get(_i)->context;
        struct qkv_context_state *state = (struct qkv_context_state *)context.state;
        own = *state->table.cache;
        struct qkv_cache_kernels broken = own;
        if (m == 0)
            broken.append_keys[QKV_STORED_F16] = forgets_the_last_number;
        else if (m == 1)
            broken.append_keys[QKV_STORED_F32] = takes_a_column_too_many;
        else if (m == 2)
            broken.append_values[QKV_STORED_F16] = sees_no_infinity;
        else
            broken.append_values[QKV_STORED_I8] = clears_nothing;
        state->table.cache = &broken;
        int64_t i = 0;
        while (i < 400 && check_case(&context, i).ok)
            i++;
        ck_assert_msg(i < 400, "mutant %d was not found", m);
    }
}
END_TEST

static Suite *append_suite(void) {
    Suite *suite = suite_create("append");
    TCase *tcase = tcase_create("append");
    tcase_set_timeout(tcase, 1200);
    tcase_add_test(tcase, half_width_numbers_on_the_edge);
    tcase_add_test(tcase, int8_is_within_half_a_scale);
    tcase_add_room_test(tcase, the_bytes_are_the_model_s);
    tcase_add_room_test(tcase, broken_kernels_are_found);
    append_add_refused_tests(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(append_suite);
}
