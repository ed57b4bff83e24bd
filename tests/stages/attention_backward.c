/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of the fused attention against the reference and against the scalar room. */
#include <math.h>
#include <string.h>

#include "stage.h"

#include "options.h"
#include "support/compare_gradients.h"

static void check(int room, const struct desc *d) {
    struct verdict verdict =
        check_gradients(&rooms_get(room)->context, QKV_STAGE_ATTENTION_BACKWARD, d);
    stage_assert(&verdict);
}

/* Several pieces of keys under each option. */
START_TEST(many_keys) {
    static const int64_t lengths[] = {511, 513, 2047, 2048, 2049};
    const int one_in = test_stride() < 5 ? 1 : 5 * test_thinning();
    for (int i = test_next(-1, one_in); i < option_count(); i = test_next(i, one_in)) {
        struct desc d = desc_plain();
        d.seed = test_seed() + (uint64_t)i;
        d.kv_len = lengths[i % 5];
        d.spread = i % 2 ? 1 : 6;
        option_set(&d, i);
        check(_i, &d);
    }
}
END_TEST

/* Several row blocks, whose shares of dK and dV are joined, under each option. */
START_TEST(many_rows) {
    static const int64_t lengths[] = {95, 96, 97, 191, 192, 193, 389};
    const int one_in = test_stride() < 5 ? 1 : 5 * test_thinning();
    for (int i = test_next(-1, one_in); i < 2 * option_count(); i = test_next(i, one_in)) {
        struct desc d = desc_plain();
        d.seed = test_seed() + (uint64_t)i;
        d.q_len = lengths[i % 7];
        d.kv_len = i % 2 ? 33 : 257;
        option_set(&d, i / 2);
        check(_i, &d);
    }
}
END_TEST

/* Every pair of dimensions of Q and V around the edges of panels and tiles. */
START_TEST(dimensions) {
    static const int64_t dims[] = {1, 15, 16, 17, 63, 64, 65, 80, 128, 256, 512};
    const int one_in = test_stride() < 5 ? 1 : 5 * test_thinning();
    for (int i = test_next(-1, one_in); i < 11 * 11; i = test_next(i, one_in)) {
        struct desc d = desc_plain();
        d.seed = test_seed() + (uint64_t)i;
        d.q_heads = 2;
        d.q_len = 13;
        d.kv_len = 33;
        d.causal = i % 2;
        d.head_dim = dims[i / 11];
        d.v_dim = dims[i % 11];
        check(_i, &d);
    }
}
END_TEST

/* The shapes of real models: many rows, many keys, groups. */
START_TEST(model_shapes) {
    static const struct {
        int64_t q_heads, kv_heads, q_len, kv_len, head_dim;
    } shapes[] = {{12, 12, 96, 96, 64}, {8, 2, 33, 700, 128}, {8, 1, 1, 1500, 128},
                  {4, 4, 200, 200, 80}, {2, 2, 64, 577, 256}, {1, 1, 300, 300, 40}};
    const int one_in = test_stride() < 5 ? 1 : 5 * test_thinning();
    for (int i = test_next(-1, one_in); i < 12; i = test_next(i, one_in)) {
        struct desc d = desc_plain();
        d.seed = test_seed() + (uint64_t)i;
        d.q_heads = shapes[i / 2].q_heads;
        d.kv_heads = shapes[i / 2].kv_heads;
        d.q_len = shapes[i / 2].q_len;
        d.kv_len = shapes[i / 2].kv_len;
        d.head_dim = d.v_dim = shapes[i / 2].head_dim;
        d.causal = i % 2;
        check(_i, &d);
    }
}
END_TEST

/* Runs a case whose inputs were changed by hand, and compares. */
static void run_changed(int room, struct test_case *c) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if (c->tensor[role].before)
            tensor_freeze(&c->tensor[role]);
    struct verdict verdict = run_backward(c, QKV_STAGE_ATTENTION_BACKWARD,
                                          &rooms_get(room)->context, (struct how){WAY_PLAIN, 1, 0});
    if (verdict.ok)
        verdict = check_gradient_results(c, QKV_STAGE_ATTENTION_BACKWARD);
    stage_assert(&verdict);
}

static void expect_stale(int room, const struct test_case *c, struct how how, bool stale) {
    const struct verdict verdict =
        run_backward(c, QKV_STAGE_ATTENTION_BACKWARD, &rooms_get(room)->context, how);
    const char *message = qkv_status_string(QKV_ARG_LSE << 8 | QKV_FAULT_STALE);
    ck_assert_msg(stale ? !verdict.ok && strstr(verdict.message, message) : verdict.ok,
                  "way %d, seed %d, %s: %s", (int)how.way, (int)how.seed, stale ? "stale" : "sound",
                  verdict.message);
}

/* A row's LSE that is not its own is told, whichever row it is and however the call runs, with each
 * exponential; one that another program rounded is none. A shift of -inf makes it that of a row
 * without keys. */
static void check_lse(int room, enum way way, int64_t row, float shift, bool stale) {
    struct desc d = desc_plain();
    struct test_case c;
    d.q_heads = 4;
    d.kv_heads = 2;
    d.q_len = 100;
    d.kv_len = 300;
    d.sinks = row % 2;
    d.exp = (int)way % QKV_EXP_COUNT;
    case_make(&c, &d, STAGES_ONE(QKV_STAGE_ATTENTION_BACKWARD));
    *tensor_f32(&c.tensors.lse, 0, row % d.q_heads, row, 0) += shift;
    expect_stale(room, &c, (struct how){way, 2, (uint64_t)row}, stale);
    case_free(&c);
}

START_TEST(lse_of_another_call) {
    static const int64_t rows[WAY_COUNT] = {0, 5, 50, 95, 96, 99};
    static const float shifts[] = {0.1F, -0.1F, 40, -40, -INFINITY, 1e-4F};
    const int one_in = test_thinning();
    for (int i = test_next(-1, one_in); i < 6 * WAY_COUNT; i = test_next(i, one_in))
        check_lse(_i, (enum way)(i / 6), rows[i / 6], shifts[i % 6], i % 6 < 5);
}
END_TEST

/* The key's weight by its score alone would be next to nothing. */
START_TEST(lse_of_a_row_without_keys) {
    struct desc d = desc_plain();
    struct test_case c;
    d.kv_len = d.q_len = d.head_dim = 1;
    d.has_scale = true;
    d.scale = 1;
    case_make(&c, &d, STAGES_ONE(QKV_STAGE_ATTENTION_BACKWARD));
    *tensor_f32(&c.tensors.q, 0, 0, 0, 0) = -10;
    *tensor_f32(&c.tensors.k, 0, 0, 0, 0) = 1;
    *tensor_f32(&c.tensors.lse, 0, 0, 0, 0) = -INFINITY;
    expect_stale(_i, &c, (struct how){WAY_PLAIN, 1, 0}, true);
    case_free(&c);
}
END_TEST

/* So far off that weights overflow, which the polynomials must not hide. */
START_TEST(lse_far_off) {
    for (int exp = 0; exp < QKV_EXP_COUNT; exp++) {
        struct desc d = desc_plain();
        struct test_case c;
        d.exp = exp;
        case_make(&c, &d, STAGES_ONE(QKV_STAGE_ATTENTION_BACKWARD));
        for (int64_t i = 0; i < d.q_len; i++)
            *tensor_f32(&c.tensors.lse, 0, 0, i, 0) -= 355; /* 512 ln 2 */
        expect_stale(_i, &c, (struct how){WAY_PLAIN, 1, 0}, true);
        case_free(&c);
    }
}
END_TEST

/* Gradients of two rows, of which the second's output has none; its keys are all `bias` away. */
static struct test_case without_second(int room, struct desc d, float bias) {
    struct test_case c;
    case_make(&c, &d, STAGES_ONE(QKV_STAGE_ATTENTION_BACKWARD));
    for (int64_t j = 0; j < d.kv_len; j++)
        *tensor_f32(&c.params.bias, 0, 0, 1, j) = bias;
    for (int64_t x = 0; x < d.v_dim; x++)
        *tensor_f32(&c.gradients.out, 0, 0, 1, x) = 0;
    case_forward(&c);
    const struct verdict verdict = run_backward(
        &c, QKV_STAGE_ATTENTION_BACKWARD, &rooms_get(room)->context, (struct how){WAY_PLAIN, 1, 0});
    stage_assert(&verdict);
    return c;
}

/* The rounding of its LSE is as large as the distances between its scores, as where a finite bias
 * stands for a mask. It leaves the other row's gradients alone. */
START_TEST(large_lse_of_a_row_without_gradient) {
    for (int i = 0; i < 6 * QKV_EXP_COUNT; i++) {
        struct desc d = desc_plain();
        d.kv_len = 7;
        d.q_len = 2;
        d.bias = true;
        d.exp = i / 6;
        struct test_case near = without_second(_i, d, 0);
        struct test_case far = without_second(_i, d, -powf(10, (float)(7 + 3 * (i % 6))));
        for (int64_t j = 0; j < d.kv_len; j++) {
            for (int64_t x = 0; x < d.v_dim; x++)
                ck_assert_float_eq_tol(*tensor_f32(&far.gradients.v, 0, 0, j, x),
                                       *tensor_f32(&near.gradients.v, 0, 0, j, x), 1e-5F);
            for (int64_t x = 0; x < d.head_dim; x++)
                ck_assert_float_eq_tol(*tensor_f32(&far.gradients.k, 0, 0, j, x),
                                       *tensor_f32(&near.gradients.k, 0, 0, j, x), 1e-5F);
        }
        case_free(&near);
        case_free(&far);
    }
}
END_TEST

/* Q, K and V are slices of one buffer, [token][q | k | v], and so are their gradients. */
START_TEST(slices_of_one_buffer) {
    enum { TOKENS = 37, HEADS = 3, DIM = 10, WIDTH = 3 * HEADS * DIM };
    static float buffer[TOKENS * WIDTH], gradients[TOKENS * WIDTH];
    struct desc d = desc_plain();
    struct test_case c;
    d.q_heads = d.kv_heads = HEADS;
    d.q_len = d.kv_len = TOKENS;
    d.head_dim = d.v_dim = DIM;
    case_make(&c, &d, STAGES_ONE(QKV_STAGE_ATTENTION_BACKWARD));
    for (int i = 0; i < TOKENS * WIDTH; i++)
        buffer[i] = rng_normal(rng_hash(test_seed(), (uint64_t)i));
    qkv_tensor *inputs[] = {&c.tensors.q, &c.tensors.k, &c.tensors.v};
    qkv_tensor *outputs[] = {&c.gradients.q, &c.gradients.k, &c.gradients.v};
    for (int i = 0; i < 3; i++) {
        const qkv_tensor slice = {.stride = {0, DIM, WIDTH, 1}, .dtype = QKV_F32};
        *inputs[i] = *outputs[i] = slice;
        inputs[i]->data = buffer + i * HEADS * DIM;
        outputs[i]->data = gradients + i * HEADS * DIM;
        tensor_free(&c.tensor[ROLE_D_Q + i]); /* nothing is written there */
    }
    case_forward(&c);
    run_changed(_i, &c);
    case_free(&c);
}
END_TEST

/* What is not asked for changes nothing of what is. */
START_TEST(any_of_the_gradients) {
    static const enum role roles[] = {ROLE_D_Q, ROLE_D_K, ROLE_D_V, ROLE_D_BIAS, ROLE_D_SINKS};
    struct desc d = desc_plain();
    struct test_case all;
    d.q_len = 100;
    d.kv_len = 270;
    d.q_heads = 2;
    d.bias = d.sinks = true;
    case_make(&all, &d, STAGES_ONE(QKV_STAGE_ATTENTION_BACKWARD));
    run_changed(_i, &all);
    const int one_in = test_thinning();
    for (int n = test_next(-1, one_in); n < 31; n = test_next(n, one_in)) {
        const uint32_t wanted = (uint32_t)n + 1;
        struct test_case some;
        d.unwanted = 0;
        for (int i = 0; i < 5; i++)
            d.unwanted |= wanted >> i & 1 ? 0 : 1U << roles[i];
        case_make(&some, &d, STAGES_ONE(QKV_STAGE_ATTENTION_BACKWARD));
        run_changed(_i, &some);
        for (int i = 0; i < 5; i++) {
            const struct guard *x = &all.tensor[roles[i]].memory,
                               *y = &some.tensor[roles[i]].memory;
            ck_assert_msg(!(wanted >> i & 1) || memcmp(x->data, y->data, x->size) == 0,
                          "%s differs where only some gradients are asked for (%x)",
                          role_names[roles[i]], (unsigned)wanted);
        }
        case_free(&some);
    }
    case_free(&all);
}
END_TEST

static void add(TCase *tcase) {
    const TTest *const tests[] = {many_keys,
                                  many_rows,
                                  dimensions,
                                  model_shapes,
                                  lse_of_another_call,
                                  lse_of_a_row_without_keys,
                                  lse_far_off,
                                  large_lse_of_a_row_without_gradient,
                                  slices_of_one_buffer,
                                  any_of_the_gradients};
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}

int main(void) {
    return stage_main(QKV_STAGE_ATTENTION_BACKWARD, add);
}
