/* SPDX-License-Identifier: Apache-2.0 */
/* rotate and its tables: random calls in every way beside a reference in long double, the bits of
 * theta's angles and of tables made from it, and kernels broken on purpose. */
#include <math.h>
#include <string.h>

#include "context.h"
#include "rotate_case.h"
#include "support/rooms.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

static float one[HEADS][TOKENS][DIM], other[HEADS][TOKENS][DIM];

START_TEST(tables_are_cosines_and_sines) {
    static float cosines[300 * 4], sines[300 * 4], part[2][7 * 4];
    for (int64_t first = 0; first < 3000000; first = first * 7 + 1000) {
        const qkv_rope r = {.dims = 8, .theta = 10000};
        ck_assert_int_eq(qkv_rope_tables(cosines, sines, first, 300, 8, 10000), QKV_OK);
        for (int i = 0; i < 300 * 4; i++) {
            const struct angle a = rotate_angle(&r, first + i / 4, i % 4);
            ck_assert_msg(fabs((double)cosines[i] - a.cos) <= a.error &&
                              fabs((double)sines[i] - a.sin) <= a.error,
                          "row %lld, pair %d", (long long)first + i / 4, i % 4);
        }
        ck_assert_int_eq(qkv_rope_tables(part[0], part[1], first + 50, 7, 8, 10000), QKV_OK);
        ck_assert_mem_eq(part[0], cosines + 50 * 4, sizeof part[0]);
        ck_assert_mem_eq(part[1], sines + 50 * 4, sizeof part[1]);
    }
    ck_assert(cosines[3] != sines[3]);
    ck_assert_int_eq(qkv_rope_tables(NULL, NULL, 0, 0, 8, 10000), QKV_OK);
}
END_TEST

START_TEST(rows_beside_the_reference) {
    for (int64_t i = 0; i < test_cases() / 8; i++)
        if (test_only() < 0 || test_only() == i)
            require(rotate_check_case(&rooms_get(_i)->context, i));
}
END_TEST

/* ---- The bits ---- */

/* The tables of theta leave the bits that theta does; so does a row by itself, at its position. */
START_TEST(the_same_bits_from_tables_and_alone) {
    static float cosines[TOKENS * DIM / 2], sines[TOKENS * DIM / 2];
    const qkv_context *context = &rooms_get(_i)->context;
    rotate_fill();
    ck_assert_int_eq(qkv_rope_tables(cosines, sines, 0, TOKENS, DIM, 10000), QKV_OK);
    for (int pairs = 1; pairs < QKV_ROPE_COUNT; pairs++) {
        qkv_rotate_params p = rotate_params(pairs);
        ck_assert_int_eq(rotate_rows(&p, rotate_x, one, context), QKV_OK);
        p.rope.cos = cosines;
        p.rope.sin = sines;
        p.rope.table_rows = TOKENS;
        ck_assert_int_eq(rotate_rows(&p, rotate_x, other, context), QKV_OK);
        ck_assert_mem_eq(one, other, sizeof one);
        p = rotate_params(pairs);
        p.tokens = 1;
        for (int32_t i = 0; i < TOKENS; i++) {
            p.first = &i;
            ck_assert_int_eq(rotate_rows(&p, rotate_x[0][i], other[0][i], context), QKV_OK);
            ck_assert_mem_eq(one[2][i], other[2][i], sizeof one[2][i]);
        }
        ck_assert(memcmp(one, rotate_x, sizeof one) != 0);
    }
}
END_TEST

/* ---- Kernels broken on purpose, which the cases must find ---- */

static struct qkv_rotate_kernels own;

static void turns_back(float *out, const float *row, const float *cosines, const float *sines,
                       ptrdiff_t dims, int half, ptrdiff_t n) {
    float other_way[256];
    for (ptrdiff_t i = 0; i < dims / 2; i++)
        other_way[i] = -sines[i];
    own.turn(out, row, cosines, other_way, dims, half, n);
}

static void knows_one_kind(float *out, const float *row, const float *cosines, const float *sines,
                           ptrdiff_t dims, int half, ptrdiff_t n) {
    (void)half;
    own.turn(out, row, cosines, sines, dims, 1, n);
}

static void loses_the_rest(float *out, const float *row, const float *cosines, const float *sines,
                           ptrdiff_t dims, int half, ptrdiff_t n) {
    own.turn(out, row, cosines, sines, dims, half, dims + (n > dims ? n - dims - 1 : 0));
}

START_TEST(broken_kernels_are_found) {
    qkv_turn_fn *const mutants[] = {turns_back, knows_one_kind, loses_the_rest};
    for (int m = 0; m < COUNT(mutants); m++) {
        qkv_context context = rooms_get(_i)->context;
        struct qkv_context_state *state = (struct qkv_context_state *)context.state;
        own = *state->table.rotate;
        struct qkv_rotate_kernels broken = own;
        broken.turn = mutants[m];
        state->table.rotate = &broken;
        int64_t i = 0;
        while (i < 100 && rotate_check_case(&context, i).ok)
            i++;
        ck_assert_msg(i < 100, "mutant %d was not found", m);
    }
}
END_TEST

static Suite *rotate_suite(void) {
    Suite *suite = suite_create("rotate");
    TCase *tcase = tcase_create("rotate");
    tcase_set_timeout(tcase, 1200);
    tcase_add_test(tcase, tables_are_cosines_and_sines);
    tcase_add_room_test(tcase, rows_beside_the_reference);
    tcase_add_room_test(tcase, the_same_bits_from_tables_and_alone);
    tcase_add_room_test(tcase, broken_kernels_are_found);
    rotate_add_refused_tests(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(rotate_suite);
}
