/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan promises: workspaces never shrink as a shape grows, so that a caller may plan for
 * the largest shape once, and a plan holds nothing but what follows from the description. */
#include <string.h>

#include <qkv/cache.h>

#include "support/rng.h"
#include "support/rooms.h"
#include "support/stages.h"

enum { SHAPES = 400, SIZES = 7, PATIENCE = 120, STAGES = QKV_STAGE_PROJECT_BACKWARD + 1 };

/* The sizes of a shape; the query heads are group * kv_heads. */
struct shape {
    int64_t size[SIZES];
};
enum { SIZE_BATCH, SIZE_GROUP, SIZE_KV_HEADS, SIZE_Q_LEN, SIZE_KV_LEN, SIZE_HEAD_DIM, SIZE_V_DIM };

static const char *const size_names[SIZES] = {"batch",  "group",    "kv_heads", "q_len",
                                              "kv_len", "head_dim", "v_dim"};
static const int64_t largest[SIZES] = {3, 5, 3, 700, 2300, 512, 512};

static void describe(qkv_attention_params *params, const struct shape *s) {
    qkv_attention_params_init(params);
    params->batch = s->size[SIZE_BATCH];
    params->q_heads = s->size[SIZE_GROUP] * s->size[SIZE_KV_HEADS];
    params->kv_heads = s->size[SIZE_KV_HEADS];
    params->q_len = s->size[SIZE_Q_LEN];
    params->kv_len = s->size[SIZE_KV_LEN];
    params->head_dim = s->size[SIZE_HEAD_DIM];
    params->v_dim = s->size[SIZE_V_DIM];
}

static qkv_status plan_attention(qkv_plan *plan, int stage, const struct shape *s) {
    static qkv_status (*const plans[QKV_STAGE_COUNT])(qkv_plan *, const qkv_attention_params *,
                                                      const qkv_context *) = {
        [QKV_STAGE_SCORES] = qkv_scores_plan,
        [QKV_STAGE_SOFTMAX] = qkv_softmax_plan,
        [QKV_STAGE_MIX] = qkv_mix_plan,
        [QKV_STAGE_ATTENTION] = qkv_attention_plan,
        [QKV_STAGE_SCORES_BACKWARD] = qkv_scores_backward_plan,
        [QKV_STAGE_SOFTMAX_BACKWARD] = qkv_softmax_backward_plan,
        [QKV_STAGE_MIX_BACKWARD] = qkv_mix_backward_plan,
        [QKV_STAGE_ATTENTION_BACKWARD] = qkv_attention_backward_plan,
    };
    qkv_attention_params params;

    describe(&params, s);
    return plans[stage](plan, &params, NULL);
}

/* A plan looks at no token: memory is a place and nothing more. */
static qkv_status plan_decode(qkv_plan *plan, const struct shape *s) {
    enum { SEQUENCES = 16 };
    static _Alignas(QKV_ALIGNMENT) unsigned char memory[QKV_ALIGNMENT];
    static int32_t lengths[SEQUENCES];
    qkv_attention_params params;
    qkv_cache cache;

    describe(&params, s);
    qkv_cache_init(&cache);
    cache.kv_heads = params.kv_heads;
    cache.head_dim = params.head_dim;
    cache.v_dim = params.v_dim;
    cache.page_tokens = 1 << 20;
    cache.pages = cache.sequences = SEQUENCES;
    cache.sequence_pages = 1;
    cache.k_dtype = QKV_I8;
    cache.v_dtype = QKV_F16;
    cache.memory = memory;
    cache.lengths = lengths;
    return qkv_decode_plan(plan, &params, &cache, NULL, NULL);
}

/* q_len tokens, and kv_len serves as d_model. */
static qkv_status plan_project(qkv_plan *plan, int stage, const struct shape *s) {
    qkv_project_params params;

    qkv_project_params_init(&params);
    params.batch = s->size[SIZE_BATCH];
    params.tokens = s->size[SIZE_Q_LEN];
    params.d_model = s->size[SIZE_KV_LEN];
    params.q_heads = s->size[SIZE_GROUP] * s->size[SIZE_KV_HEADS];
    params.kv_heads = s->size[SIZE_KV_HEADS];
    params.head_dim = s->size[SIZE_HEAD_DIM];
    params.v_dim = s->size[SIZE_V_DIM];
    return stage == QKV_STAGE_PROJECT ? qkv_project_plan(plan, &params, NULL)
                                      : qkv_project_backward_plan(plan, &params, NULL);
}

static qkv_status plan_stage(qkv_plan *plan, int stage, const struct shape *s) {
    if (stage == QKV_STAGE_DECODE)
        return plan_decode(plan, s);
    const int projects = stage == QKV_STAGE_PROJECT || stage == QKV_STAGE_PROJECT_BACKWARD;
    return projects ? plan_project(plan, stage, s) : plan_attention(plan, stage, s);
}

static void make_plan(qkv_plan *plan, int stage, const struct shape *s) {
    qkv_status status = plan_stage(plan, stage, s);
    ck_assert_msg(status == QKV_OK, "%s", qkv_status_string(status));
}

static struct shape random_shape(struct rng *rng) {
    struct shape s;
    for (int i = 0; i < SIZES; i++)
        s.size[i] = 1 + rng_below(rng, rng_chance(rng, 2) ? largest[i] : (largest[i] + 15) / 16);
    return s;
}

/* One size grows, by one or by any amount; _i is the stage. */
START_TEST(workspaces_never_shrink) {
    struct rng rng = rng_seeded(test_seed());

    for (int n = 0; n < SHAPES; n++) {
        struct shape small = random_shape(&rng), large = small;
        int i = (int)rng_below(&rng, SIZES);
        qkv_plan before, after;
        large.size[i] += rng_chance(&rng, 2) ? 1 : rng_below(&rng, largest[i]);
        if (large.size[i] > largest[i])
            continue;
        make_plan(&before, _i, &small);
        make_plan(&after, _i, &large);
        if (after.workspace_shared < before.workspace_shared ||
            after.workspace_worker < before.workspace_worker)
            ck_abort_msg("%s, %s from %lld to %lld: shared %zu to %zu, worker %zu to %zu",
                         qkv_stage_name(_i), size_names[i], (long long)small.size[i],
                         (long long)large.size[i], before.workspace_shared, after.workspace_shared,
                         before.workspace_worker, after.workspace_worker);
        ck_assert_int_ge(after.threads, 1);
        ck_assert_uint_eq(after.workspace_shared % QKV_ALIGNMENT, 0);
    }
}
END_TEST

/* Every byte is written, and the same description makes the same bytes. */
START_TEST(plans_are_made_of_the_description_alone) {
    struct rng rng = rng_seeded(test_seed());

    for (int n = 0; n < SHAPES / 4; n++) {
        struct shape s = random_shape(&rng);
        qkv_plan first, second;
        memset(&first, 0x5a, sizeof first);
        memset(&second, 0xa5, sizeof second);
        make_plan(&first, _i, &s);
        make_plan(&second, _i, &s);
        ck_assert_mem_eq(&first, &second, sizeof first);
        for (int phase = first.phases; phase < QKV_MAX_PHASES; phase++)
            ck_assert_int_eq(first.parts[phase], 0);
    }
}
END_TEST

/* Of a forward stage the last phase is the one that computes. */
static int64_t most_parts(const qkv_plan *plan, int stage) {
    int64_t most = plan->parts[plan->phases - 1];
    for (int phase = 0; stage > QKV_STAGE_ATTENTION && phase < plan->phases; phase++)
        most = plan->parts[phase] > most ? plan->parts[phase] : most;
    return most;
}

/* No thread for whom there is no part; and twice the batch is worth as many threads at least. */
START_TEST(threads_have_parts_and_follow_the_work) {
    struct rng rng = rng_seeded(test_seed());

    for (int n = 0; n < SHAPES; n++) {
        struct shape s = random_shape(&rng);
        qkv_plan once, twice;
        make_plan(&once, _i, &s);
        s.size[SIZE_BATCH] *= 2;
        make_plan(&twice, _i, &s);
        ck_assert_int_ge(once.threads, 1);
        ck_assert_int_le(once.threads, most_parts(&once, _i));
        ck_assert_int_ge(twice.threads, once.threads);
    }
}
END_TEST

/* Of attention: what is over in a microsecond or two stays on one thread, what takes longer is
 * worth another, and a prompt is worth as many as a large machine has. */
START_TEST(threads_that_shapes_are_worth) {
    static const struct {
        struct shape shape;
        int least, most;
    } cases[] = {
        {{{1, 1, 1, 1, 1, 16, 16}}, 1, 1},       {{{1, 1, 2, 16, 16, 32, 32}}, 1, 1},
        {{{1, 1, 12, 16, 16, 32, 32}}, 2, 12},   {{{1, 1, 12, 64, 64, 32, 32}}, 8, 12},
        {{{1, 1, 1, 512, 512, 64, 64}}, 4, 64},  {{{1, 4, 8, 1, 4096, 128, 128}}, 8, 32},
        {{{1, 1, 8, 512, 512, 64, 64}}, 32, 96}, {{{8, 1, 12, 64, 64, 32, 32}}, 64, 96},
    };
    qkv_plan plan;

    make_plan(&plan, QKV_STAGE_ATTENTION, &cases[_i].shape);
    ck_assert_int_ge(plan.threads, cases[_i].least);
    ck_assert_int_le(plan.threads, cases[_i].most);
}
END_TEST

/* Of decode: a sequence's pieces are parts, and one query of a long one is worth many threads; its
 * memory is that of the pieces' rows and no more. */
START_TEST(a_long_cache_has_parts_for_many_threads) {
    static const struct {
        struct shape shape;
        int64_t parts;
        int threads;
    } cases[] = {
        {{{1, 1, 1, 1, 1024, 64, 64}}, 1, 1},       {{{1, 4, 8, 1, 1024, 128, 128}}, 8, 2},
        {{{1, 1, 1, 1, 65536, 128, 128}}, 64, 8},   {{{1, 4, 8, 1, 65536, 128, 128}}, 512, 64},
        {{{1, 8, 1, 7, 262144, 64, 128}}, 256, 64},
    };
    const int64_t *size = cases[_i].shape.size;
    const int64_t rows = size[SIZE_GROUP] * size[SIZE_Q_LEN];
    qkv_plan plan;

    make_plan(&plan, QKV_STAGE_DECODE, &cases[_i].shape);
    ck_assert_int_eq(plan.parts[0], cases[_i].parts);
    ck_assert_int_ge(plan.threads, cases[_i].threads);
    ck_assert_uint_le(plan.workspace_shared,
                      (size_t)(plan.parts[0] * ((rows + 16) * (size[SIZE_V_DIM] + 2) + 16) * 4));
}
END_TEST

/* Of attention's backward twin: never q_len x kv_len, but a few times what it reads. */
START_TEST(gradients_need_no_memory_for_all_pairs) {
    static const struct shape shapes[] = {{{1, 1, 8, 1024, 1024, 64, 64}},
                                          {{1, 1, 8, 4096, 4096, 128, 128}},
                                          {{2, 4, 2, 512, 4096, 128, 128}},
                                          {{1, 1, 1, 65536, 65536, 64, 64}},
                                          {{1, 8, 1, 256, 131072, 64, 128}}};
    const int64_t *size = shapes[_i].size;
    const int64_t keys = size[SIZE_BATCH] * size[SIZE_KV_HEADS] * size[SIZE_KV_LEN];
    const int64_t rows =
        size[SIZE_BATCH] * size[SIZE_KV_HEADS] * size[SIZE_GROUP] * size[SIZE_Q_LEN];
    const int64_t numbers = rows * (8 * size[SIZE_HEAD_DIM] + 11) +
                            keys * (2 * size[SIZE_HEAD_DIM] + size[SIZE_V_DIM] + 1);
    qkv_plan plan;

    make_plan(&plan, QKV_STAGE_ATTENTION_BACKWARD, &shapes[_i]);
    ck_assert_uint_le(plan.workspace_shared, (size_t)numbers * sizeof(float));
}
END_TEST

/* ---- The losses and descent ---- */

static void plan_loss(qkv_plan *plan, int kind, int64_t rows, int64_t columns) {
    qkv_loss_params params;

    qkv_loss_params_init(&params);
    params.kind = kind;
    params.rows = rows;
    params.columns = columns;
    ck_assert_int_eq(qkv_loss_plan(plan, &params, NULL), QKV_OK);
}

/* _i is the kind. A byte of every plan that does not follow from the shape would differ. */
START_TEST(plans_of_losses) {
    struct rng rng = rng_seeded(test_seed());

    for (int n = 0; n < SHAPES; n++) {
        const int64_t rows = rng_below(&rng, 3000), columns = 1 + rng_below(&rng, 60000);
        qkv_plan plan, again, taller, wider;
        memset(&plan, 0x5a, sizeof plan);
        memset(&again, 0xa5, sizeof again);
        plan_loss(&plan, _i, rows, columns);
        plan_loss(&again, _i, rows, columns);
        plan_loss(&taller, _i, rows + 1 + rng_below(&rng, 100), columns);
        plan_loss(&wider, _i, rows, columns + 1 + rng_below(&rng, 10000));
        ck_assert_mem_eq(&plan, &again, sizeof plan);
        ck_assert_uint_le(plan.workspace_shared, taller.workspace_shared);
        ck_assert_uint_le(plan.workspace_shared, wider.workspace_shared);
        ck_assert_uint_eq(plan.workspace_shared % QKV_ALIGNMENT, 0);
        ck_assert_int_ge(plan.threads, 1);
        ck_assert(plan.threads == 1 || plan.threads <= plan.parts[plan.phases - 2]);
        ck_assert_int_eq(plan.parts[plan.phases - 1], 1);
    }
}
END_TEST

START_TEST(plans_of_descent) {
    qkv_descent_params params;
    qkv_plan plan, again;

    qkv_descent_params_init(&params);
    for (int64_t count = 0; count < (int64_t)1 << 40; count = 3 * count + 1) {
        params.count = count;
        memset(&plan, 0x5a, sizeof plan);
        memset(&again, 0xa5, sizeof again);
        ck_assert_int_eq(qkv_descent_plan(&plan, &params, NULL), QKV_OK);
        ck_assert_int_eq(qkv_descent_plan(&again, &params, NULL), QKV_OK);
        ck_assert_mem_eq(&plan, &again, sizeof plan);
        ck_assert_int_eq(plan.phases, count > 0);
        ck_assert_uint_eq(qkv_plan_workspace(&plan, 64), 0);
        ck_assert_int_ge(plan.threads, 1);
        ck_assert(plan.threads == 1 || plan.threads <= plan.parts[0]);
    }
}
END_TEST

START_TEST(plans_of_merge) {
    qkv_merge_params params;
    qkv_plan plan, again;

    qkv_merge_params_init(&params);
    params.batch = params.heads = 2;
    params.v_dim = 64;
    for (int64_t n = 0; n < (int64_t)1 << 30; n = 3 * n + 1) {
        params.length = n;
        params.parts = 1 + n % 9;
        memset(&plan, 0x5a, sizeof plan);
        memset(&again, 0xa5, sizeof again);
        ck_assert_int_eq(qkv_merge_plan(&plan, &params, NULL), QKV_OK);
        ck_assert_int_eq(qkv_merge_plan(&again, &params, NULL), QKV_OK);
        ck_assert_mem_eq(&plan, &again, sizeof plan);
        ck_assert_int_eq(plan.phases, n > 0);
        ck_assert_uint_eq(qkv_plan_workspace(&plan, 64), 0);
        ck_assert_int_ge(plan.threads, 1);
        ck_assert(plan.threads == 1 || plan.threads <= plan.parts[0]);
    }
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("plans");
    TCase *test = tcase_create("plans");

    suite_add_tcase(suite, test);
    tcase_set_timeout(test, PATIENCE);
    tcase_add_loop_test(test, workspaces_never_shrink, 0, STAGES);
    tcase_add_loop_test(test, threads_have_parts_and_follow_the_work, 0, STAGES);
    tcase_add_loop_test(test, workspaces_never_shrink, QKV_STAGE_DECODE, QKV_STAGE_DECODE + 1);
    tcase_add_loop_test(test, threads_have_parts_and_follow_the_work, QKV_STAGE_DECODE,
                        QKV_STAGE_DECODE + 1);
    tcase_add_loop_test(test, plans_are_made_of_the_description_alone, QKV_STAGE_DECODE,
                        QKV_STAGE_DECODE + 1);
    tcase_add_loop_test(test, a_long_cache_has_parts_for_many_threads, 0, 5);
    tcase_add_loop_test(test, threads_that_shapes_are_worth, 0, 8);
    tcase_add_loop_test(test, plans_of_losses, 0, QKV_LOSS_COUNT);
    tcase_add_test(test, plans_of_descent);
    tcase_add_test(test, plans_of_merge);
    tcase_add_loop_test(test, plans_are_made_of_the_description_alone, 0, STAGES);
    tcase_add_loop_test(test, workspaces_never_shrink, QKV_STAGE_SCORES_BACKWARD,
                        QKV_STAGE_ATTENTION_BACKWARD + 1);
    tcase_add_loop_test(test, threads_have_parts_and_follow_the_work, QKV_STAGE_SCORES_BACKWARD,
                        QKV_STAGE_ATTENTION_BACKWARD + 1);
    tcase_add_loop_test(test, plans_are_made_of_the_description_alone, QKV_STAGE_SCORES_BACKWARD,
                        QKV_STAGE_ATTENTION_BACKWARD + 1);
    tcase_add_loop_test(test, gradients_need_no_memory_for_all_pairs, 0, 5);
    return suite;
}

int main(void) {
    return suite_main(make);
}
