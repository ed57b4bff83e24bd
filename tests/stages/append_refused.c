/* SPDX-License-Identifier: Apache-2.0 */
/* What append and export refuse: nothing is written then, and marks in the books are gone. */
#include <string.h>

#include "append_case.h"
#include "support/rooms.h"

enum { SEQUENCES = 3, PAGES = 4, DIM = 5 };

static float rows[SEQUENCES][64][DIM];

struct small {
    qkv_cache cache;
    qkv_append_params params;
    qkv_tensors tensors;
    int32_t table[SEQUENCES][2], lengths[SEQUENCES], holders[PAGES], sequences[SEQUENCES];
    int32_t lens[SEQUENCES], positions[2 * SEQUENCES];
    struct guard memory;
};

/* Pages of 16 tokens: sequence 0 has 20 in pages 0 and 1. */
static void make_small(struct small *s) {
    *s = (struct small){.table = {{0, 1}, {2, 3}, {3, 2}},
                        .lengths = {20, 0, 0},
                        .holders = {1, 1, 0, 0},
                        .sequences = {1, 2, 0},
                        .lens = {2, 1, 1}};
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

/* Guarded memory begins with these bytes. */
static void expect_nothing_written(const struct small *s, size_t i) {
    for (size_t k = 0; k < s->memory.size; k++)
        ck_assert_msg(s->memory.data[k] == (k % 4 == 3 ? 0x7f : 0xc5), "%zu: byte %zu", i, k);
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
        expect_nothing_written(&s, i);
        guard_free(&s.memory);
    }
}
END_TEST

static void shorter(struct small *s) {
    s->lens[0] = 1;
}
static void longer_than_may_be(struct small *s) {
    s->lens[0] = 3;
}
static void negative_position(struct small *s) {
    s->positions[0] = -1;
}
static void moved_on(struct small *s) {
    s->lengths[1] = 1;
    s->holders[2] = 1;
}
static void other_way_round(struct small *s) {
    s->sequences[0] = 2;
    s->sequences[1] = 1;
}
static void same_twice(struct small *s) {
    s->sequences[1] = 1;
}
static void more_for_the_other(struct small *s) {
    s->lens[1] = 2;
}
static void same_page(struct small *s) {
    s->table[2][0] = 2;
}

START_TEST(a_plan_looks_at_the_arrays_again) {
    enum { ROWS = 1, LENGTHS = 2, BOTH = ROWS | LENGTHS }; /* the phases */
    const struct {
        spoil_fn *spoil;
        int phases;
        qkv_arg arg;
        qkv_fault fault;
    } refused[] = {
        {outside, BOTH, QKV_ARG_TABLE, QKV_FAULT_RANGE},
        {held_by_another, BOTH, QKV_ARG_TABLE, QKV_FAULT_SHARED},
        {same_page, LENGTHS, QKV_ARG_TABLE, QKV_FAULT_SHARED},
        {no_such_sequence, BOTH, QKV_ARG_SEQUENCES, QKV_FAULT_RANGE},
        {spoilt_length, BOTH, QKV_ARG_LENGTHS, QKV_FAULT_LENGTH},
        {shorter, BOTH, QKV_ARG_PLAN, QKV_FAULT_STALE},
        {longer_than_may_be, BOTH, QKV_ARG_LENS, QKV_FAULT_LENGTH},
        {negative_position, ROWS, QKV_ARG_ROPE_POSITIONS, QKV_FAULT_NEGATIVE},
        {moved_on, BOTH, QKV_ARG_PLAN, QKV_FAULT_STALE},
        {other_way_round, BOTH, QKV_ARG_PLAN, QKV_FAULT_STALE},
        {same_twice, BOTH, QKV_ARG_PLAN, QKV_FAULT_STALE},
        {more_for_the_other, BOTH, QKV_ARG_PLAN, QKV_FAULT_STALE},
    };
    static _Alignas(QKV_ALIGNMENT) char memory[4096];
    const qkv_workspace workspace = {NULL, 0, memory, sizeof memory};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct small s, before;
        qkv_plan plan;
        make_small(&s);
        s.params.batch = 2;
        s.params.tokens = 2;
        s.params.lens = s.lens;
        s.params.rope.pairs = QKV_ROPE_HALF;
        s.params.rope.dims = 4;
        s.params.rope.positions = s.positions;
        ck_assert_int_eq(qkv_append_plan(&plan, &s.params, &s.cache, &rooms_get(_i)->context),
                         QKV_OK);
        refused[i].spoil(&s);
        before = s;
        for (int32_t phase = 0; phase < 2; phase++) {
            if (!(refused[i].phases >> phase & 1))
                continue;
            const qkv_status status =
                qkv_append_run(&plan, &s.tensors, phase, 0, plan.parts[phase], &workspace);
            ck_assert_msg(qkv_status_arg(status) == refused[i].arg &&
                              qkv_status_fault(status) == refused[i].fault,
                          "%zu: %s", i, qkv_status_string(status));
        }
        ck_assert_msg(memcmp(&s, &before, sizeof s) == 0, "%zu: the books were changed", i);
        expect_nothing_written(&s, i);
        guard_free(&s.memory);
    }
}
END_TEST

/* Sequence 0's last page has two holders. */
START_TEST(a_sequence_without_new_tokens_needs_no_page) {
    struct small s;
    qkv_plan plan;
    const qkv_workspace workspace = {0};
    make_small(&s);
    s.params.batch = 2;
    s.params.lens = s.lens;
    s.lens[0] = 1;
    s.lens[1] = 0;
    s.sequences[1] = 0;
    s.holders[1] = 2;
    ck_assert_int_eq(qkv_append_plan(&plan, &s.params, &s.cache, &rooms_get(_i)->context), QKV_OK);
    for (int32_t phase = 0; phase < 2; phase++)
        for (int64_t part = 0; part < plan.parts[phase]; part++)
            ck_assert_int_eq(qkv_append_run(&plan, &s.tensors, phase, part, part + 1, &workspace),
                             QKV_OK);
    ck_assert_int_eq(s.lengths[1], 1);
    ck_assert_int_eq(s.lengths[0], 20);
    guard_free(&s.memory);
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

/* ---- Export ---- */

static float exported[2][40][DIM];

struct range {
    int64_t sequence, first, tokens;
    qkv_arg arg;
    qkv_fault fault;
};

static qkv_status export_small(const struct small *s, const struct range *r,
                               const qkv_tensors *tensors, const qkv_context *context) {
    memset(exported, 0, sizeof exported);
    return qkv_cache_export(&s->cache, r->sequence, r->first, r->tokens, tensors, context);
}

static void assert_refused(qkv_status status, qkv_arg arg, qkv_fault fault) {
    static const float nothing[2][40][DIM];
    ck_assert_msg(qkv_status_arg(status) == arg && qkv_status_fault(status) == fault, "%s",
                  qkv_status_string(status));
    ck_assert_mem_eq(exported, nothing, sizeof nothing);
}

START_TEST(export_refuses_what_is_not_there) {
    const struct range refused[] = {
        {-1, 0, 1, QKV_ARG_SEQUENCE, QKV_FAULT_RANGE},
        {SEQUENCES, 0, 1, QKV_ARG_SEQUENCE, QKV_FAULT_RANGE},
        {0, -1, 1, QKV_ARG_FIRST, QKV_FAULT_NEGATIVE},
        {0, 21, 0, QKV_ARG_FIRST, QKV_FAULT_RANGE},
        {0, 0, -1, QKV_ARG_TOKENS, QKV_FAULT_NEGATIVE},
        {0, 1, 20, QKV_ARG_TOKENS, QKV_FAULT_RANGE},
        {0, 20, INT64_MAX, QKV_ARG_TOKENS, QKV_FAULT_RANGE},
        {1, 0, 1, QKV_ARG_TOKENS, QKV_FAULT_RANGE},
    };
    const qkv_context *context = &rooms_get(_i)->context;
    const struct range all = {.tokens = 20}, none = {.first = 20};
    qkv_tensors t;
    struct small s;
    make_small(&s);
    qkv_tensors_init(&t);
    t.k = qkv_tensor_bhsd(exported[0], 1, 40, DIM);
    t.v = qkv_tensor_bhsd(exported[1], 1, 40, DIM);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        assert_refused(export_small(&s, refused + i, &t, context), refused[i].arg,
                       refused[i].fault);
    s.table[0][1] = PAGES;
    assert_refused(export_small(&s, &all, &t, context), QKV_ARG_TABLE, QKV_FAULT_RANGE);
    s.table[0][1] = 1;
    t.v.data = exported[0][3];
    assert_refused(export_small(&s, &all, &t, context), QKV_ARG_V, QKV_FAULT_OVERLAP);
    t.v.data = s.memory.data;
    assert_refused(export_small(&s, &all, &t, context), QKV_ARG_V, QKV_FAULT_OVERLAP);
    t.v.data = exported[1];
    t.k.stride[2] = 0;
    assert_refused(export_small(&s, &all, &t, context), QKV_ARG_K, QKV_FAULT_SELF_OVERLAP);
    t.k.stride[2] = DIM;
    ck_assert_int_eq(export_small(&s, &none, &t, context), QKV_OK);
    ck_assert_int_eq(export_small(&s, &all, &t, context), QKV_OK);
    guard_free(&s.memory);
}
END_TEST

/* ---- Threads that fail ---- */

enum { LONG = 256, HEADS = 8, WIDE = 64 };

struct failing {
    int calls, result;
};

/* Does all that it is asked for, and says what it is told to. */
static int run_and_report(void *pool, int threads, int64_t parts, qkv_task task, void *argument) {
    struct failing *failing = pool;
    (void)threads;
    failing->calls++;
    task(argument, 0, 0, parts);
    return failing->result;
}

/* One sequence without a table, and an append that is worth threads. */
static qkv_status append_long(const qkv_context *context, int32_t *length, struct failing *pool) {
    static float tokens[HEADS][LONG][WIDE];
    static _Alignas(QKV_ALIGNMENT) char memory[sizeof tokens * 2 + LONG * HEADS];
    qkv_cache cache;
    qkv_append_params params;
    qkv_tensors tensors;
    qkv_plan plan;
    qkv_exec exec;
    qkv_cache_init(&cache);
    cache.kv_heads = HEADS;
    cache.head_dim = WIDE;
    cache.page_tokens = LONG;
    cache.pages = cache.sequences = cache.sequence_pages = 1;
    cache.memory = memory;
    cache.lengths = length;
    ck_assert_uint_le(qkv_cache_memory_size(&cache), sizeof memory);
    qkv_append_params_init(&params);
    params.batch = 1;
    params.tokens = LONG;
    qkv_tensors_init(&tensors);
    tensors.k = tensors.v = qkv_tensor_bhsd(tokens, HEADS, LONG, WIDE);
    qkv_exec_init(&exec);
    exec.context = context;
    exec.threads = 2;
    exec.parallel_for = run_and_report;
    exec.pool = pool;
    ck_assert_int_eq(qkv_append_plan(&plan, &params, &cache, context), QKV_OK);
    ck_assert_int_gt(plan.threads, 1);
    return qkv_append(&params, &cache, &tensors, &exec);
}

/* The lengths move when all rows have been written, and not on the caller's threads. */
START_TEST(threads_that_fail_leave_the_lengths) {
    const qkv_context *context = &rooms_get(_i)->context;
    struct failing pool = {.result = 1};
    int32_t length = 0;
    ck_assert_int_eq(append_long(context, &length, &pool),
                     (QKV_ARG_PARALLEL_FOR << 8) + QKV_FAULT_FAILED);
    ck_assert_int_eq(length, 0);
    pool = (struct failing){.result = 0};
    ck_assert_int_eq(append_long(context, &length, &pool), QKV_OK);
    ck_assert_int_eq(length, LONG);
    ck_assert_int_eq(pool.calls, 1);
}
END_TEST

void append_add_refused_tests(TCase *tcase) {
    tcase_add_room_test(tcase, what_is_refused_writes_nothing);
    tcase_add_room_test(tcase, a_plan_looks_at_the_arrays_again);
    tcase_add_room_test(tcase, a_sequence_without_new_tokens_needs_no_page);
    tcase_add_room_test(tcase, a_plan_holds_for_one_append);
    tcase_add_room_test(tcase, export_refuses_what_is_not_there);
    tcase_add_room_test(tcase, threads_that_fail_leave_the_lengths);
}
