/* SPDX-License-Identifier: Apache-2.0 */
/* append and export: random caches and calls beside the bytes of a model, which are the same in
 * every room; what the model itself says of numbers on the edge; calls that are refused; kernels
 * broken on purpose. */
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

/* ---- Refused, and nothing written ---- */

enum { SEQUENCES = 3, PAGES = 4, DIM = 5 };

static float rows[SEQUENCES][64][DIM];

struct small {
    qkv_cache cache;
    qkv_append_params params;
    qkv_tensors tensors;
    int32_t table[SEQUENCES][2], lengths[SEQUENCES], holders[PAGES], sequences[SEQUENCES];
    struct guard memory;
};

/* Pages of 16 tokens: sequence 0 has 20 in pages 0 and 1. */
static void make_small(struct small *s) {
    *s = (struct small){.table = {{0, 1}, {2, 3}, {3, 2}},
                        .lengths = {20, 0, 0},
                        .holders = {1, 1, 0, 0},
                        .sequences = {1, 2, 0}};
    qkv_cache_init(&s->cache);
    s->cache.kv_heads = 1;
    s->cache.head_dim = DIM;
    s->cache.page_tokens = 16;
    s->cache.pages = PAGES;
    s->cache.sequences = SEQUENCES;
    s->cache.sequence_pages = 2;
    s->cache.v_dtype = QKV_I8;
    s->memory = guard_alloc(qkv_cache_memory_size(&s->cache), QKV_ALIGNMENT, GUARD_END, 0);
    s->cache.memory = s->memory.data;
    s->cache.table = s->table[0];
    s->cache.lengths = s->lengths;
    s->cache.holders = s->holders;
    qkv_append_params_init(&s->params);
    s->params.batch = 1;
    s->params.tokens = 1;
    s->params.sequences = s->sequences;
    qkv_tensors_init(&s->tensors);
    s->tensors.k = s->tensors.v = qkv_tensor_bhsd(rows, 1, 64, DIM);
}

static qkv_status append_small(struct small *s, const qkv_context *context) {
    qkv_exec exec;
    qkv_exec_init(&exec);
    exec.context = context;
    return qkv_append(&s->params, &s->cache, &s->tensors, &exec);
}

typedef void spoil_fn(struct small *s);

static void too_long(struct small *s) {
    s->params.tokens = 33;
}
static void too_long_for_what_is_there(struct small *s) {
    s->sequences[0] = 0;
    s->params.tokens = 13;
}
static void outside(struct small *s) {
    s->table[1][0] = PAGES;
}
static void outside_later(struct small *s) {
    s->table[1][1] = -1;
    s->params.tokens = 17;
}
static void held_by_another(struct small *s) {
    s->table[1][0] = 1;
}
static void continued_but_shared(struct small *s) {
    s->sequences[0] = 0;
    s->holders[1] = 2;
}
static void begun_twice(struct small *s) {
    s->params.batch = 2;
    s->params.tokens = 17;
}
static void begun_twice_by_one(struct small *s) {
    s->table[1][1] = 2;
    s->params.tokens = 17;
}
static void one_begins_what_one_continues(struct small *s) {
    s->params.batch = 3;
    s->table[1][0] = 1;
}
static void twice(struct small *s) {
    s->params.batch = 3;
    s->sequences[2] = 1;
}
static void no_such_sequence(struct small *s) {
    s->sequences[0] = SEQUENCES;
}
static void more_than_there_are(struct small *s) {
    s->params.batch = SEQUENCES + 1;
}
static void spoilt_length(struct small *s) {
    s->lengths[1] = 33;
}
static void rows_in_the_cache(struct small *s) {
    s->tensors.v.data = s->memory.data;
}
static void lens_in_lengths(struct small *s) {
    s->lengths[1] = 1;
    s->holders[2] = 1;
    s->params.lens = s->lengths + 1;
}
static void short_tables(struct small *s) {
    s->params.rope.pairs = QKV_ROPE_HALF;
    s->params.rope.dims = 4;
    s->params.rope.cos = s->params.rope.sin = rows[0][0];
}

START_TEST(what_is_refused_writes_nothing) {
    const struct {
        spoil_fn *spoil;
        qkv_arg arg;
        qkv_fault fault;
    } refused[] = {
        {too_long, QKV_ARG_CACHE, QKV_FAULT_FULL},
        {too_long_for_what_is_there, QKV_ARG_CACHE, QKV_FAULT_FULL},
        {outside, QKV_ARG_TABLE, QKV_FAULT_RANGE},
        {outside_later, QKV_ARG_TABLE, QKV_FAULT_RANGE},
        {held_by_another, QKV_ARG_TABLE, QKV_FAULT_SHARED},
        {continued_but_shared, QKV_ARG_TABLE, QKV_FAULT_SHARED},
        {begun_twice, QKV_ARG_TABLE, QKV_FAULT_SHARED},
        {begun_twice_by_one, QKV_ARG_TABLE, QKV_FAULT_SHARED},
        {one_begins_what_one_continues, QKV_ARG_TABLE, QKV_FAULT_SHARED},
        {twice, QKV_ARG_SEQUENCES, QKV_FAULT_CONFLICT},
        {no_such_sequence, QKV_ARG_SEQUENCES, QKV_FAULT_RANGE},
        {more_than_there_are, QKV_ARG_BATCH, QKV_FAULT_RANGE},
        {spoilt_length, QKV_ARG_LENGTHS, QKV_FAULT_LENGTH},
        {rows_in_the_cache, QKV_ARG_V, QKV_FAULT_OVERLAP},
        {lens_in_lengths, QKV_ARG_PARAMS, QKV_FAULT_OVERLAP},
        {short_tables, QKV_ARG_ROPE_ROWS, QKV_FAULT_TOO_SMALL},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct small s, before;
        make_small(&s);
        refused[i].spoil(&s);
        before = s;
        const qkv_status status = append_small(&s, &rooms_get(_i)->context);
        ck_assert_msg(qkv_status_arg(status) == refused[i].arg &&
                          qkv_status_fault(status) == refused[i].fault,
                      "%zu: %s", i, qkv_status_string(status));
        ck_assert_msg(memcmp(&s, &before, sizeof s) == 0, "%zu: the books were changed", i);
        for (size_t k = 0; k < s.memory.size; k++)
            ck_assert_msg(s.memory.data[k] == (k % 4 == 3 ? 0x7f : 0xc5), "%zu: byte %zu", i, k);
        guard_free(&s.memory);
    }
}
END_TEST

START_TEST(a_plan_holds_for_one_append) {
    struct small s;
    qkv_plan plan;
    const qkv_workspace workspace = {0};
    make_small(&s);
    ck_assert_int_eq(qkv_append_plan(&plan, &s.params, &s.cache, &rooms_get(_i)->context), QKV_OK);
    ck_assert_int_eq(plan.phases, 2);
    for (int32_t phase = 0; phase < 2; phase++)
        ck_assert_int_eq(qkv_append_run(&plan, &s.tensors, phase, 0, plan.parts[phase], &workspace),
                         QKV_OK);
    ck_assert_int_eq(s.lengths[1], 1);
    const qkv_status again = qkv_append_run(&plan, &s.tensors, 0, 0, 1, &workspace);
    ck_assert_int_eq(qkv_status_arg(again), QKV_ARG_PLAN);
    ck_assert_int_eq(qkv_status_fault(again), QKV_FAULT_STALE);
    guard_free(&s.memory);
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
    tcase_add_room_test(tcase, what_is_refused_writes_nothing);
    tcase_add_room_test(tcase, a_plan_holds_for_one_append);
    tcase_add_room_test(tcase, broken_kernels_are_found);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(append_suite);
}
