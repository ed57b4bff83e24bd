/* SPDX-License-Identifier: Apache-2.0 */
/* What rotate and the tables refuse, argument by argument, and that nothing is written then. */
#include <math.h>
#include <string.h>

#include "rotate_case.h"
#include "support/rooms.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

static float one[HEADS][TOKENS][DIM], other[HEADS][TOKENS][DIM];

enum { UNTOUCHED = 0x5a };

static int32_t lens[2] = {1, 1}, negative[TOKENS] = {0, -1};
static const int32_t cu[2] = {0, 70};

typedef void spoil_fn(qkv_rotate_params *p);

static void no_batch(qkv_rotate_params *p) {
    p->batch = 0;
}
static void no_heads(qkv_rotate_params *p) {
    p->heads = 0;
}
static void negative_heads(qkv_rotate_params *p) {
    p->heads = -1;
}
static void too_wide(qkv_rotate_params *p) {
    p->head_dim = 513;
}
static void negative_tokens(qkv_rotate_params *p) {
    p->tokens = -1;
}
static void too_many_tokens(qkv_rotate_params *p) {
    p->tokens = INT64_MAX / 2;
}
static void a_flag(qkv_rotate_params *p) {
    p->flags = 1;
}
static void another_kind(qkv_rotate_params *p) {
    p->rope.pairs = QKV_ROPE_COUNT;
}
static void a_newer_rope(qkv_rotate_params *p) {
    p->rope.reserved = 1;
}
static void odd_dims(qkv_rotate_params *p) {
    p->rope.dims = 3;
}
static void odd_head_dim(qkv_rotate_params *p) {
    p->head_dim = 35;
}
static void wide_dims(qkv_rotate_params *p) {
    p->rope.dims = 38;
}
static void negative_dims(qkv_rotate_params *p) {
    p->rope.dims = -2;
}
static void theta_nan(qkv_rotate_params *p) {
    p->rope.theta = (double)NAN;
}
static void theta_below_one(qkv_rotate_params *p) {
    p->rope.theta = 0.5;
}
static void no_sines(qkv_rotate_params *p) {
    p->rope.cos = one[0][0];
}
static void no_cosines(qkv_rotate_params *p) {
    p->rope.sin = one[0][0];
}
static void short_tables(qkv_rotate_params *p) {
    p->rope.cos = p->rope.sin = one[0][0];
    p->rope.table_rows = TOKENS - 1;
}
static void negative_rows(qkv_rotate_params *p) {
    p->rope.cos = p->rope.sin = one[0][0];
    p->rope.table_rows = -1;
}
static void negative_position(qkv_rotate_params *p) {
    p->rope.positions = negative;
}
static void position_beyond(qkv_rotate_params *p) {
    static int32_t positions[TOKENS];
    positions[TOKENS - 1] = 5;
    short_tables(p);
    p->rope.table_rows = 5;
    p->rope.positions = positions;
}
static void negative_first(qkv_rotate_params *p) {
    p->first = negative + 1;
}
static void first_misaligned(qkv_rotate_params *p) {
    p->first = (const int32_t *)(const void *)((const char *)negative + 2);
}
static void both_shapes(qkv_rotate_params *p) {
    p->lens = lens;
    p->cu = cu;
}
static void long_lens(qkv_rotate_params *p) {
    static const int32_t more = TOKENS + 1;
    p->lens = &more;
}
static void tables_in_out(qkv_rotate_params *p) {
    p->rope.cos = other[0][0];
    p->rope.sin = one[0][0];
    p->rope.table_rows = TOKENS;
}
static void positions_in_out(qkv_rotate_params *p) {
    p->rope.positions = (const int32_t *)(const void *)other;
}

/* What may be read, and what may not be written. */
static void fill_all(void) {
    rotate_fill();
    memcpy(one, rotate_x, sizeof one);
    memset(other, UNTOUCHED, sizeof other);
}

static void expect_nothing_written(void) {
    for (size_t i = 0; i < sizeof other; i++)
        ck_assert_int_eq(((const unsigned char *)other)[i], UNTOUCHED);
}

START_TEST(what_is_refused_writes_nothing) {
    const struct {
        spoil_fn *spoil;
        qkv_arg arg;
        qkv_fault fault;
    } refused[] = {
        {no_batch, QKV_ARG_BATCH, QKV_FAULT_ZERO},
        {no_heads, QKV_ARG_HEADS, QKV_FAULT_ZERO},
        {negative_heads, QKV_ARG_HEADS, QKV_FAULT_NEGATIVE},
        {too_wide, QKV_ARG_HEAD_DIM, QKV_FAULT_RANGE},
        {negative_tokens, QKV_ARG_TOKENS, QKV_FAULT_NEGATIVE},
        {too_many_tokens, QKV_ARG_TOKENS, QKV_FAULT_OVERFLOW},
        {a_flag, QKV_ARG_FLAGS, QKV_FAULT_FLAG},
        {another_kind, QKV_ARG_ROPE_PAIRS, QKV_FAULT_RANGE},
        {a_newer_rope, QKV_ARG_ROPE_PAIRS, QKV_FAULT_FUTURE},
        {odd_dims, QKV_ARG_ROPE_DIMS, QKV_FAULT_RANGE},
        {odd_head_dim, QKV_ARG_ROPE_DIMS, QKV_FAULT_RANGE},
        {wide_dims, QKV_ARG_ROPE_DIMS, QKV_FAULT_RANGE},
        {negative_dims, QKV_ARG_ROPE_DIMS, QKV_FAULT_NEGATIVE},
        {theta_nan, QKV_ARG_ROPE_THETA, QKV_FAULT_VALUE},
        {theta_below_one, QKV_ARG_ROPE_THETA, QKV_FAULT_RANGE},
        {no_sines, QKV_ARG_ROPE_SIN, QKV_FAULT_NULL},
        {no_cosines, QKV_ARG_ROPE_COS, QKV_FAULT_NULL},
        {short_tables, QKV_ARG_ROPE_ROWS, QKV_FAULT_TOO_SMALL},
        {negative_rows, QKV_ARG_ROPE_ROWS, QKV_FAULT_NEGATIVE},
        {negative_position, QKV_ARG_ROPE_POSITIONS, QKV_FAULT_NEGATIVE},
        {position_beyond, QKV_ARG_ROPE_POSITIONS, QKV_FAULT_RANGE},
        {negative_first, QKV_ARG_FIRST, QKV_FAULT_NEGATIVE},
        {first_misaligned, QKV_ARG_FIRST, QKV_FAULT_MISALIGNED},
        {both_shapes, QKV_ARG_LENS, QKV_FAULT_CONFLICT},
        {long_lens, QKV_ARG_LENS, QKV_FAULT_LENGTH},
        {tables_in_out, QKV_ARG_OUT, QKV_FAULT_OVERLAP},
        {positions_in_out, QKV_ARG_OUT, QKV_FAULT_OVERLAP},
    };
    fill_all();
    for (int i = 0; i < COUNT(refused); i++) {
        qkv_rotate_params p = rotate_params(QKV_ROPE_HALF);
        refused[i].spoil(&p);
        const qkv_status status = rotate_rows(&p, rotate_x, other, &rooms_get(_i)->context);
        ck_assert_msg(qkv_status_arg(status) == refused[i].arg &&
                          qkv_status_fault(status) == refused[i].fault,
                      "%d: %s", i, qkv_status_string(status));
    }
    expect_nothing_written();
}
END_TEST

static qkv_tensors x_to_other(void) {
    qkv_tensors tensors;
    qkv_tensors_init(&tensors);
    tensors.q = qkv_tensor_bhsd(rotate_x, HEADS, TOKENS, DIM);
    tensors.out = qkv_tensor_bhsd(other, HEADS, TOKENS, DIM);
    return tensors;
}

/* A plan is told of the arrays, and reads them when it runs. */
START_TEST(a_plan_looks_at_the_arrays_again) {
    const struct {
        int32_t length, first, position;
        qkv_arg arg;
        qkv_fault fault;
    } refused[] = {
        {TOKENS + 1, 0, 0, QKV_ARG_LENS, QKV_FAULT_LENGTH},
        {-1, 0, 0, QKV_ARG_LENS, QKV_FAULT_LENGTH},
        {1, -1, 0, QKV_ARG_FIRST, QKV_FAULT_NEGATIVE},
        {1, TOKENS, 0, QKV_ARG_ROPE_ROWS, QKV_FAULT_TOO_SMALL},
        {1, 0, -1, QKV_ARG_ROPE_POSITIONS, QKV_FAULT_NEGATIVE},
        {1, 0, TOKENS, QKV_ARG_ROPE_POSITIONS, QKV_FAULT_RANGE},
    };
    fill_all();
    for (int i = 0; i < COUNT(refused); i++) {
        int32_t length = 1, first = 0, positions[TOKENS] = {0};
        qkv_rotate_params p = rotate_params(QKV_ROPE_HALF);
        p.lens = &length;
        p.first = &first;
        p.rope.cos = p.rope.sin = one[0][0];
        p.rope.table_rows = TOKENS;
        if (refused[i].arg == QKV_ARG_ROPE_POSITIONS)
            p.rope.positions = positions;
        const qkv_tensors tensors = x_to_other();
        qkv_plan plan;
        ck_assert_int_eq(qkv_rotate_plan(&plan, &p, &rooms_get(_i)->context), QKV_OK);
        length = refused[i].length;
        first = refused[i].first;
        positions[0] = refused[i].position;
        const qkv_status status =
            qkv_rotate_run(&plan, &tensors, 0, 0, plan.parts[0], &(qkv_workspace){0});
        ck_assert_msg(qkv_status_arg(status) == refused[i].arg &&
                          qkv_status_fault(status) == refused[i].fault,
                      "%d: %s", i, qkv_status_string(status));
    }
    expect_nothing_written();
}
END_TEST

/* A plan that was made for one row turns as many as there are when it runs. */
START_TEST(a_plan_turns_more_rows_than_there_were) {
    const qkv_context *context = &rooms_get(_i)->context;
    static float whole[HEADS][TOKENS][DIM];
    int32_t length = 1;
    qkv_rotate_params p = rotate_params(QKV_ROPE_HALF);
    rotate_fill();
    ck_assert_int_eq(rotate_rows(&p, rotate_x, whole, context), QKV_OK);
    p.lens = &length;
    const qkv_tensors tensors = x_to_other();
    qkv_plan plan;
    ck_assert_int_eq(qkv_rotate_plan(&plan, &p, context), QKV_OK);
    static _Alignas(QKV_ALIGNMENT) char memory[1 << 16];
    ck_assert_uint_le(plan.workspace_worker, sizeof memory);
    length = TOKENS;
    ck_assert_int_eq(qkv_rotate_run(&plan, &tensors, 0, 0, plan.parts[0],
                                    &(qkv_workspace){NULL, 0, memory, sizeof memory}),
                     QKV_OK);
    ck_assert_mem_eq(other, whole, sizeof whole);
}
END_TEST

START_TEST(first_is_not_looked_at_beside_positions) {
    static const int32_t positions[TOKENS];
    qkv_rotate_params p = rotate_params(QKV_ROPE_HALF);
    p.rope.positions = positions;
    negative_first(&p);
    ck_assert_int_eq(rotate_rows(&p, rotate_x, other, &rooms_get(_i)->context), QKV_OK);
    first_misaligned(&p);
    ck_assert_int_eq(rotate_rows(&p, rotate_x, other, &rooms_get(_i)->context), QKV_OK);
}
END_TEST

START_TEST(views_that_overlap_are_refused) {
    const qkv_context *context = &rooms_get(_i)->context;
    qkv_rotate_params p = rotate_params(QKV_ROPE_INTERLEAVED);
    rotate_fill();
    memcpy(one, rotate_x, sizeof one);
    p.tokens = TOKENS - 1;
    ck_assert_int_eq(rotate_rows(&p, one[0][0], one[0][1], context),
                     (int)QKV_ARG_OUT << 8 | QKV_FAULT_OVERLAP);
    ck_assert_mem_eq(one, rotate_x, sizeof one);
    p.heads = INT32_MAX;
    p.batch = INT64_MAX / TOKENS / 4 - 1;
    ck_assert_int_eq(rotate_rows(&p, one, other, context),
                     (int)QKV_ARG_HEADS << 8 | QKV_FAULT_OVERFLOW);
}
END_TEST

START_TEST(tables_are_refused) {
    float cosine[4], sine[4];
    const struct {
        float *cos, *sin;
        int64_t first, count, dims;
        double theta;
        qkv_arg arg;
        qkv_fault fault;
    } refused[] = {
        {NULL, sine, 0, 2, 4, 10, QKV_ARG_ROPE_COS, QKV_FAULT_NULL},
        {cosine, NULL, 0, 2, 4, 10, QKV_ARG_ROPE_SIN, QKV_FAULT_NULL},
        {cosine, cosine, 0, 2, 4, 10, QKV_ARG_ROPE_SIN, QKV_FAULT_OVERLAP},
        {cosine, sine, -1, 2, 4, 10, QKV_ARG_FIRST, QKV_FAULT_NEGATIVE},
        {cosine, sine, 0, -1, 4, 10, QKV_ARG_NUMBERS, QKV_FAULT_NEGATIVE},
        {cosine, sine, INT32_MAX, 2, 4, 10, QKV_ARG_NUMBERS, QKV_FAULT_RANGE},
        {cosine, sine, 0, 2, 0, 10, QKV_ARG_ROPE_DIMS, QKV_FAULT_ZERO},
        {cosine, sine, 0, 2, 3, 10, QKV_ARG_ROPE_DIMS, QKV_FAULT_RANGE},
        {cosine, sine, 0, 2, 514, 10, QKV_ARG_ROPE_DIMS, QKV_FAULT_RANGE},
        {cosine, sine, 0, 2, 4, 0.9, QKV_ARG_ROPE_THETA, QKV_FAULT_RANGE},
        {cosine, sine, 0, 2, 4, (double)INFINITY, QKV_ARG_ROPE_THETA, QKV_FAULT_VALUE},
    };
    for (int i = 0; i < COUNT(refused); i++) {
        const qkv_status status =
            qkv_rope_tables(refused[i].cos, refused[i].sin, refused[i].first, refused[i].count,
                            refused[i].dims, refused[i].theta);
        ck_assert_msg(qkv_status_arg(status) == refused[i].arg &&
                          qkv_status_fault(status) == refused[i].fault,
                      "%d: %s", i, qkv_status_string(status));
    }
}
END_TEST

void rotate_add_refused_tests(TCase *tcase) {
    tcase_add_test(tcase, tables_are_refused);
    tcase_add_room_test(tcase, what_is_refused_writes_nothing);
    tcase_add_room_test(tcase, a_plan_looks_at_the_arrays_again);
    tcase_add_room_test(tcase, a_plan_turns_more_rows_than_there_were);
    tcase_add_room_test(tcase, first_is_not_looked_at_beside_positions);
    tcase_add_room_test(tcase, views_that_overlap_are_refused);
}
