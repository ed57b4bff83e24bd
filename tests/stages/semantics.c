/* SPDX-License-Identifier: Apache-2.0 */
/* What the options mean, one named test each; the helpers and main() of the suite. */
#include "semantics.h"

#include <math.h>
#include <string.h>

#include "support/compare.h"
#include "stage.h"

enum {
    CHAIN = STAGES_ONE(QKV_STAGE_SCORES) | STAGES_ONE(QKV_STAGE_SOFTMAX) | STAGES_ONE(QKV_STAGE_MIX)
};

static void run_stage(const struct test_case *c, const struct room *room, int stage) {
    struct call call = {&room->context, stage, &c->params, &c->tensors};
    struct verdict verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    stage_assert(&verdict);
}

static void prepare_case(struct test_case *c, const struct desc *desc, unsigned stages,
                         semantics_prepare *prepare) {
    case_make(c, desc, stages);
    if (prepare)
        prepare(c);
    for (int role = 0; role < ROLE_COUNT; role++)
        if (c->tensor[role].before)
            tensor_freeze(&c->tensor[role]);
}

void semantics_run(struct test_case *c, const struct room *room, const struct desc *desc,
                   semantics_prepare *prepare) {
    prepare_case(c, desc, STAGES_ONE(QKV_STAGE_ATTENTION), prepare);
    run_stage(c, room, QKV_STAGE_ATTENTION);
}

static void check_fused(const struct room *room, const struct desc *desc,
                        semantics_prepare *prepare, semantics_expect *expect) {
    struct test_case c;
    semantics_run(&c, room, desc, prepare);
    struct verdict verdict = check_results(&c, QKV_STAGE_ATTENTION);
    stage_assert(&verdict);
    if (expect)
        expect(&c);
    case_free(&c);
}

static void check_chain(const struct room *room, const struct desc *desc,
                        semantics_prepare *prepare, semantics_expect *expect) {
    struct test_case c;
    prepare_case(&c, desc, CHAIN, prepare);
    for (int stage = QKV_STAGE_SCORES; stage <= QKV_STAGE_MIX; stage++) {
        run_stage(&c, room, stage);
        struct verdict verdict = check_values(&c, stage);
        stage_assert(&verdict);
    }
    struct verdict verdict = case_check_memory(&c);
    stage_assert(&verdict);
    if (expect)
        expect(&c);
    case_free(&c);
}

void semantics_check(const struct room *room, const struct desc *desc, semantics_prepare *prepare,
                     semantics_expect *expect) {
    check_fused(room, desc, prepare, expect);
    check_chain(room, desc, prepare, expect);
}

bool semantics_same_row(const struct test_case *x, const struct test_case *y, int64_t b, int64_t h,
                        int64_t i) {
    size_t size = (size_t)x->desc.v_dim * sizeof(float);
    return memcmp(tensor_f32(&x->tensors.out, b, h, i, 0), tensor_f32(&y->tensors.out, b, h, i, 0),
                  size) == 0 &&
           memcmp(tensor_f32(&x->tensors.lse, b, h, i, 0), tensor_f32(&y->tensors.lse, b, h, i, 0),
                  sizeof(float)) == 0;
}

float *q_at(const struct test_case *c, int64_t h, int64_t i, int64_t x) {
    return tensor_f32(&c->tensors.q, 0, h, i, x);
}

float *k_at(const struct test_case *c, int64_t h, int64_t j, int64_t x) {
    return tensor_f32(&c->tensors.k, 0, h, j, x);
}

float *v_at(const struct test_case *c, int64_t h, int64_t j, int64_t x) {
    return tensor_f32(&c->tensors.v, 0, h, j, x);
}

float out_at(const struct test_case *c, int64_t b, int64_t h, int64_t i, int64_t x) {
    return *tensor_f32(&c->tensors.out, b, h, i, x);
}

float lse_at(const struct test_case *c, int64_t b, int64_t h, int64_t i) {
    return *tensor_f32(&c->tensors.lse, b, h, i, 0);
}

void set_row(float *row, int64_t n, float value) {
    for (int64_t x = 0; x < n; x++)
        row[x] = value;
}

void make_v_identity(struct test_case *c) {
    ck_assert_int_eq(c->desc.v_dim, c->desc.kv_len);
    for (int64_t b = 0; b < c->desc.batch; b++)
        for (int64_t h = 0; h < c->desc.kv_heads; h++)
            for (int64_t j = 0; j < c->desc.kv_len; j++) {
                set_row(tensor_f32(&c->tensors.v, b, h, j, 0), c->desc.v_dim, 0);
                *tensor_f32(&c->tensors.v, b, h, j, j) = 1;
            }
}

void make_q_zero(struct test_case *c) {
    for (int64_t b = 0; b < c->desc.batch; b++)
        for (int64_t h = 0; h < c->desc.q_heads; h++)
            for (int64_t i = 0; i < c->desc.q_len; i++)
                set_row(tensor_f32(&c->tensors.q, b, h, i, 0), c->desc.head_dim, 0);
}

bool row_is_nan(const struct test_case *c, int64_t b, int64_t h, int64_t i) {
    for (int64_t x = 0; x < c->desc.v_dim; x++)
        if (!isnan(out_at(c, b, h, i, x)))
            return false;
    return true;
}

bool row_is(const struct test_case *c, int64_t b, int64_t h, int64_t i, float value) {
    for (int64_t x = 0; x < c->desc.v_dim; x++)
        if (out_at(c, b, h, i, x) != value)
            return false;
    return true;
}

bool near(double x, double y) {
    return fabs(x - y) <= 1e-5 * fmax(1, fmax(fabs(x), fabs(y)));
}

static Suite *make(void) {
    Suite *suite = suite_create("semantics");
    TCase *tcase = tcase_create("rooms");
    add_masking_tests(tcase);
    add_number_tests(tcase);
    add_position_tests(tcase);
    add_zero_tests(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
