/* SPDX-License-Identifier: Apache-2.0 */
/* Partial results joined: values beside double precision for random shapes and places, rows that
 * hold nothing, the same bits in any way, and kernels broken on purpose. */
#include <math.h>
#include <string.h>

#include "context.h"
#include "merge_case.h"
#include "slice.h"
#include "support/desc.h"
#include "support/rng.h"
#include "support/rooms.h"

enum { PATIENCE = 900 };

static struct merge_desc plain_desc(void) {
    return (struct merge_desc){.seed = 3,
                               .batch = 2,
                               .heads = 3,
                               .length = 9,
                               .v_dim = 33,
                               .parts = 3,
                               .spread = 2.0f,
                               .lse = true};
}

static struct layout layout_of_rows(struct rng *rng) {
    struct layout layout = layout_random(rng, false);
    layout.zero = 0;
    return layout;
}

static struct merge_desc random_desc(struct rng *rng) {
    static const int64_t dims[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 80, 128, 511, 512};
    struct merge_desc d = {.seed = rng_next(rng)};
    d.batch = 1 + rng_below(rng, 3);
    d.heads = 1 + rng_below(rng, 4);
    d.length = rng_chance(rng, 2) ? 1 : rng_below(rng, 6);
    d.v_dim = rng_pick(rng, dims, d.batch * d.heads * d.length > 12 ? 12 : 16);
    d.parts = 1 + rng_below(rng, MERGE_PARTS);
    d.spread = ldexpf(1.0f, (int)rng_below(rng, 10) - 3);
    d.empty = rng_chance(rng, 2) ? 1 + (int)rng_below(rng, 4) : 0;
    d.lse = !rng_chance(rng, 4);
    d.in_place = rng_chance(rng, 3);
    d.lse_in_place = d.lse && rng_chance(rng, 3);
    d.out = layout_of_rows(rng);
    d.lse_layout = layout_of_rows(rng);
    for (int p = 0; p < MERGE_PARTS; p++) {
        const bool written = p == 0 && (d.in_place || d.lse_in_place);
        d.part_out[p] = written ? layout_of_rows(rng) : layout_random(rng, false);
        d.part_lse[p] = written ? layout_of_rows(rng) : layout_random(rng, false);
        /* rows that hold nothing differ from each other */
        d.part_out[p].zero = d.part_lse[p].zero = 0;
    }
    return d;
}

START_TEST(random_shapes_and_places) {
    for (int i = 0; i < test_cases(); i++) {
        struct rng rng = rng_seeded(rng_hash(test_seed() + 13, (uint64_t)i));
        const struct merge_desc d = random_desc(&rng);
        merge_require(merge_check(&rooms_get(_i)->context, &d,
                                  (struct how){(enum way)(i % WAY_COUNT), 2, (uint64_t)i}));
    }
}
END_TEST

/* Inputs may be broadcast: one row joined to many. */
START_TEST(a_part_of_one_row) {
    for (int dimension = 0; dimension < 3; dimension++) {
        struct merge_desc d = plain_desc();
        d.part_out[1].zero = d.part_lse[1].zero = (uint8_t)(1 << dimension);
        merge_require(merge_check(&rooms_get(_i)->context, &d, merge_plainly));
    }
}
END_TEST

/* ---- The same bits ---- */

static void assert_same(const struct merge_case *a, const struct merge_case *b) {
    const qkv_merge_params *p = &a->params;
    for (int64_t row = 0; row < p->batch * p->heads * p->length; row++) {
        const int64_t i = row % p->length, h = row / p->length % p->heads;
        const int64_t n = row / p->length / p->heads;
        ck_assert(same_bits(*tensor_f32(&a->tensors.lse, n, h, i, 0),
                            *tensor_f32(&b->tensors.lse, n, h, i, 0)));
        for (int64_t x = 0; x < p->v_dim; x++)
            ck_assert(same_bits(*tensor_f32(&a->tensors.out, n, h, i, x),
                                *tensor_f32(&b->tensors.out, n, h, i, x)));
    }
}

START_TEST(the_same_bits_in_any_way) {
    struct merge_desc d = plain_desc();
    struct merge_case want, got;
    merge_case_make(&want, &d);
    merge_require(merge_case_run(&want, &rooms_get(_i)->context, merge_plainly));
    for (int way = 0; way < 2 * WAY_COUNT; way++) {
        d.in_place = way % 3 == 1;
        d.lse_in_place = way % 3 == 2;
        d.out.offset = d.part_out[1].offset = (uint8_t)(way % 4);
        merge_case_make(&got, &d);
        merge_require(
            merge_case_run(&got, &rooms_get(_i)->context,
                           (struct how){(enum way)(way % WAY_COUNT), 1 + way % 5, (uint64_t)way}));
        assert_same(&want, &got);
        merge_case_free(&got);
    }
    merge_case_free(&want);
}
END_TEST

/* Parts that come in later, from another machine, say, are joined to what is there. */
START_TEST(one_part_after_the_other) {
    struct merge_desc d = plain_desc();
    struct merge_case want, got;
    d.parts = MERGE_PARTS;
    d.empty = 3;
    merge_case_make(&want, &d);
    merge_require(merge_case_run(&want, &rooms_get(_i)->context, merge_plainly));
    d.in_place = d.lse_in_place = true;
    merge_case_make(&got, &d);
    for (int p = 1; p < MERGE_PARTS; p++) {
        qkv_tensor outs[2] = {got.tensors.out, got.out_views[p]};
        qkv_tensor lses[2] = {got.tensors.lse, got.lse_views[p]};
        got.tensors.part_out = outs;
        got.tensors.part_lse = lses;
        got.params.parts = 2;
        merge_require(merge_case_run(&got, &rooms_get(_i)->context, merge_plainly));
    }
    assert_same(&want, &got);
    merge_case_free(&want);
    merge_case_free(&got);
}
END_TEST

/* ---- Odd rows ---- */

/* Joins rows of V_DIM to one. */
enum { V_DIM = 21 };

static float join_rows(const qkv_context *context, float x[][V_DIM], float *lse, int parts,
                       float out[V_DIM]) {
    qkv_tensor outs[MERGE_PARTS], lses[MERGE_PARTS];
    qkv_merge_params params;
    qkv_merge_tensors tensors;
    float joined = 0.0f;
    qkv_merge_params_init(&params);
    params.batch = params.heads = params.length = 1;
    params.v_dim = V_DIM;
    params.parts = parts;
    for (int p = 0; p < parts; p++) {
        outs[p] = qkv_tensor_bhsd(x[p], 1, 1, V_DIM);
        lses[p] = qkv_tensor_bhsd(lse + p, 1, 1, 1);
    }
    qkv_merge_tensors_init(&tensors);
    tensors.part_out = outs;
    tensors.part_lse = lses;
    tensors.out = qkv_tensor_bhsd(out, 1, 1, V_DIM);
    tensors.lse = qkv_tensor_bhsd(&joined, 1, 1, 1);
    const struct call call = {context, QKV_STAGE_MERGE, &params, &tensors};
    merge_require(run_call(&call, merge_plainly));
    return joined;
}

static void set_rows(float x[][V_DIM], const float *value, int parts) {
    for (int p = 0; p < parts; p++)
        for (int c = 0; c < V_DIM; c++)
            x[p][c] = value[p];
}

static void assert_row(const float *out, float value) {
    for (int c = 0; c < V_DIM; c++)
        ck_assert_msg(same_bits(out[c], value), "%a, not %a", (double)out[c], (double)value);
}

START_TEST(rows_that_hold_nothing) {
    const qkv_context *context = &rooms_get(_i)->context;
    float x[3][V_DIM], out[V_DIM];
    set_rows(x, (const float[]){NAN, 5.0f, NAN}, 3);
    /* all of them; all but one, which stays as it is */
    ck_assert(join_rows(context, x, (float[]){-INFINITY, -INFINITY, -INFINITY}, 3, out) ==
              -INFINITY);
    assert_row(out, 0.0f);
    ck_assert(join_rows(context, x, (float[]){-INFINITY, -7.25f, -INFINITY}, 3, out) == -7.25f);
    assert_row(out, 5.0f);
    ck_assert(join_rows(context, x, (float[]){-INFINITY}, 1, out) == -INFINITY);
    assert_row(out, 0.0f);
}
END_TEST

/* What a sink of +inf leaves, with and without keys; alone it stays as it is. */
START_TEST(rows_of_infinite_mass) {
    const qkv_context *context = &rooms_get(_i)->context;
    float x[2][V_DIM], out[V_DIM];
    for (int first = 0; first < 2; first++) {
        const float other = first ? INFINITY : 3.0f;
        set_rows(x, (const float[]){0.0f, 5.0f}, 2);
        ck_assert(isnan(join_rows(context, x, (float[]){INFINITY, other}, 2, out)));
        ck_assert(isnan(out[0]));
        ck_assert(isnan(join_rows(context, x, (float[]){other, INFINITY}, 2, out)));
        ck_assert(isnan(out[0]));
    }
    ck_assert(join_rows(context, x, (float[]){-INFINITY, INFINITY}, 2, out) == INFINITY);
    assert_row(out, 5.0f);
}
END_TEST

START_TEST(weights_at_the_ends_of_the_range) {
    const qkv_context *context = &rooms_get(_i)->context;
    float x[2][V_DIM], out[V_DIM];
    set_rows(x, (const float[]){1.0f, 3.0f}, 2);
    /* equal, and so far apart that the exponential of the difference overflows or vanishes */
    ck_assert_float_eq_tol(join_rows(context, x, (float[]){1e4f, 1e4f}, 2, out), 1e4f + logf(2.0f),
                           1e-3f);
    assert_row(out, 2.0f);
    ck_assert(join_rows(context, x, (float[]){-1e38f, 3e38f}, 2, out) == 3e38f);
    assert_row(out, 3.0f);
    ck_assert(join_rows(context, x, (float[]){1e4f, -1e4f}, 2, out) == 1e4f);
    assert_row(out, 1.0f);
}
END_TEST

/* A NaN spreads to its row, whichever part it stands in, and whatever its weight. */
START_TEST(nan_is_not_lost) {
    const qkv_context *context = &rooms_get(_i)->context;
    float x[2][V_DIM], out[V_DIM];
    for (int p = 0; p < 2; p++) {
        float lse[2] = {1.0f, 2.0f};
        set_rows(x, (const float[]){1.0f, 3.0f}, 2);
        lse[p] = NAN;
        ck_assert(isnan(join_rows(context, x, lse, 2, out)));
        assert_row(out, NAN);
        lse[p] = -500.0f;
        x[p][V_DIM - 1] = NAN;
        ck_assert(isfinite(join_rows(context, x, lse, 2, out)));
        ck_assert(isfinite(out[0]) && isfinite(out[V_DIM - 2]) && isnan(out[V_DIM - 1]));
    }
}
END_TEST

/* ---- Kernels broken on purpose ---- */

static struct qkv_merge_kernels own;

static void forgets_the_lse(float *out, float *lse, const float *x, float x_lse, ptrdiff_t n) {
    float moved = *lse;
    own.join(out, &moved, x, x_lse, n);
    if (*lse == -INFINITY)
        *lse = moved;
}

static void takes_the_last_part(float *out, float *lse, const float *x, float x_lse, ptrdiff_t n) {
    float none = -INFINITY;
    own.join(out, lse, x, x_lse, n);
    own.join(out, &none, x, x_lse, n);
}

static void stops_before_the_end(float *out, float *lse, const float *x, float x_lse, ptrdiff_t n) {
    own.join(out, lse, x, x_lse, n > 1 ? n - 1 : n);
}

static void is_off_by_a_little(float *out, float *lse, const float *x, float x_lse, ptrdiff_t n) {
    own.join(out, lse, x, x_lse + 0x1p-15f, n);
}

START_TEST(broken_kernels_are_found) {
    const struct qkv_merge_kernels mutants[] = {{.join = forgets_the_lse},
                                                {.join = takes_the_last_part},
                                                {.join = stops_before_the_end},
                                                {.join = is_off_by_a_little}};
    for (int m = 0; m < 4; m++) {
        const struct merge_desc d = plain_desc();
        qkv_context context = rooms_get(_i)->context;
        struct qkv_context_state *state = (struct qkv_context_state *)context.state;
        own = *state->table.merge;
        state->table.merge = &mutants[m];
        ck_assert_msg(!merge_check(&context, &d, merge_plainly).ok, "mutant %d survived", m);
    }
}
END_TEST

static Suite *make(void) {
    const TTest *const room_tests[] = {
        random_shapes_and_places,         a_part_of_one_row,      the_same_bits_in_any_way,
        one_part_after_the_other,         rows_that_hold_nothing, rows_of_infinite_mass,
        weights_at_the_ends_of_the_range, nan_is_not_lost,        broken_kernels_are_found,
    };
    Suite *suite = suite_create("merge");
    TCase *tcase = tcase_create("rooms");
    tcase_set_timeout(tcase, PATIENCE);
    tcase_add_room_tests(tcase, room_tests, sizeof room_tests / sizeof *room_tests);
    merge_add_attention_tests(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
