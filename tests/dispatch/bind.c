/* SPDX-License-Identifier: Apache-2.0 */
/* Which variant each stage gets, for every subset of the features there are under every cap. */
#include "dispatch.h"

#include <string.h>

#include "context.h"
#include "cpu.h"

static int has(uint64_t features, uint64_t needs) {
    return (features & needs) == needs;
}

/* The highest room, by the design's rule. */
static int expected_room(uint64_t features, int cap) {
    static const struct {
        int room, built;
        uint64_t needs;
    } rooms[] = {
        {QKV_ISA_NEON, QKV_ROOM_NEON, NEON_ROOM},
        {QKV_ISA_AVX512, QKV_ROOM_AVX512, AVX512_ROOM},
        {QKV_ISA_AVX2, QKV_ROOM_AVX2, AVX2_ROOM},
    };
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        if (rooms[i].built && has(features, rooms[i].needs) &&
            (cap == QKV_ISA_NONE || cap >= rooms[i].room))
            return rooms[i].room;
    return QKV_ISA_SCALAR;
}

static int table_is_full(const struct qkv_table *table) {
    return table->project != NULL && table->scores != NULL && table->softmax != NULL &&
           table->mix != NULL && table->attention != NULL && table->project_backward != NULL &&
           table->scores_backward != NULL && table->softmax_backward != NULL &&
           table->mix_backward != NULL && table->attention_backward != NULL &&
           table->loss != NULL && table->descent != NULL && table->cache != NULL &&
           table->rotate != NULL && table->decode != NULL && table->merge != NULL;
}

static int every_variant_is(const qkv_context *context, const char *name) {
    for (int stage = 0; stage < QKV_STAGE_COUNT; stage++)
        if (strcmp(qkv_context_variant(context, stage), name) != 0)
            return 0;
    return 1;
}

/* Which variants of narrow arithmetic a room has: the last of these whose features are there. */
static const struct {
    int room, type;
    uint64_t needs;
    const char *name;
} narrow[] = {
    {QKV_ISA_AVX2, QKV_STORED_I8, QKV_CPU_BIT(QKV_CPU_AVXVNNI), "avxvnni"},
    {QKV_ISA_AVX512, QKV_STORED_I8, QKV_CPU_BIT(QKV_CPU_AVX512VNNI), "avx512vnni"},
    {QKV_ISA_AVX512, QKV_STORED_BF16, QKV_CPU_BIT(QKV_CPU_AVX512BF16), "avx512bf16"},
    {QKV_ISA_NEON, QKV_STORED_F16, QKV_CPU_BIT(QKV_CPU_FP16), "fp16"},
    {QKV_ISA_NEON, QKV_STORED_I8, QKV_CPU_BIT(QKV_CPU_DOTPROD), "dotprod"},
    {QKV_ISA_NEON, QKV_STORED_I8, QKV_CPU_BIT(QKV_CPU_DOTPROD) | QKV_CPU_BIT(QKV_CPU_I8MM), "i8mm"},
    {QKV_ISA_NEON, QKV_STORED_BF16, QKV_CPU_BIT(QKV_CPU_BF16), "bf16"},
};

/* A lower room's variant stays where the higher one has none. */
static const char *expected_narrow(uint64_t features, int room, int type) {
    const char *name = NULL;
    for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++)
        if (qkv_isa_built(narrow[i].room) && narrow[i].room <= room && narrow[i].type == type &&
            has(features, narrow[i].needs))
            name = narrow[i].name;
    return name;
}

static int narrow_is_as_expected(const struct qkv_context_state *state) {
    for (int type = 0; type < QKV_STORED_COUNT; type++) {
        const char *want = expected_narrow(state->features, state->isa, type);
        const struct qkv_narrow_kernels *got = state->table.narrow[type];
        if (!want != !got || (want && strcmp(got->variant, want) != 0))
            return 0;
    }
    return 1;
}

/* _i is the cap. Features of other architectures are among the subsets: they change nothing. */
START_TEST(every_feature_set_gets_its_room) {
    for (uint64_t features = 0; features >> QKV_CPU_COUNT == 0; features++) {
        qkv_context context;
        struct qkv_context_state *state = (struct qkv_context_state *)&context;
        int room = expected_room(features, _i);

        memset(&context, 0xee, sizeof context);
        qkv_context_bind(state, features, _i);
        if (state->isa != room || state->features != features || !table_is_full(&state->table) ||
            (int)qkv_context_isa(&context) != room || !narrow_is_as_expected(state) ||
            !every_variant_is(&context, qkv_isa_name(room)))
            ck_abort_msg("features %#llx, cap %d: room %d, not %d", (unsigned long long)features,
                         _i, (int)state->isa, room);
    }
}
END_TEST

/* The overrides and the binding together: a cap by name binds that room or a lower one. */
START_TEST(a_cap_by_name_binds_no_higher_room) {
    for (int cap = QKV_ISA_SCALAR; cap < QKV_ISA_COUNT; cap++) {
        struct qkv_cpu_report report = {.detected = EVERY_FEATURE};
        struct qkv_context_state state;

        if (!qkv_isa_built(cap))
            continue;
        qkv_cpu_override(&report, qkv_isa_name(cap), NULL);
        qkv_context_bind(&state, qkv_cpu_report_usable(&report), QKV_ISA_NONE);
        ck_assert_int_eq(state.isa, cap);
    }
}
END_TEST

START_TEST(withheld_features_are_not_bound) {
    struct qkv_cpu_report report = {.detected = EVERY_FEATURE, .withheld = EVERY_FEATURE};
    struct qkv_context_state state;

    qkv_cpu_override(&report, NULL, NULL);
    qkv_context_bind(&state, qkv_cpu_report_usable(&report), QKV_ISA_NONE);
    ck_assert_int_eq(state.isa, QKV_ISA_SCALAR);

    report.withheld = AVX512_FAMILY;
    qkv_cpu_override(&report, NULL, NULL);
    qkv_context_bind(&state, qkv_cpu_report_usable(&report), QKV_ISA_NONE);
    ck_assert_int_eq(state.isa, expected_room(EVERY_FEATURE & ~AVX512_FAMILY, QKV_ISA_NONE));
}
END_TEST

TCase *bind_case(void) {
    TCase *test = tcase_create("bind");

    tcase_set_timeout(test, PATIENCE);
    tcase_add_loop_test(test, every_feature_set_gets_its_room, QKV_ISA_NONE, QKV_ISA_COUNT);
    tcase_add_test(test, a_cap_by_name_binds_no_higher_room);
    tcase_add_test(test, withheld_features_are_not_bound);
    return test;
}
