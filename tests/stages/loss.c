/* SPDX-License-Identifier: Apache-2.0 */
/* The losses: values and gradients beside double precision for random shapes and places, the
 * reference beside central differences, and kernels broken on purpose. */
#include <math.h>
#include <stdlib.h>

#include "context.h"
#include "loss_case.h"
#include "ref/loss.h"
#include "support/compare.h"
#include "support/desc.h"
#include "support/rng.h"
#include "support/rooms.h"

enum { PATIENCE = 900 };

static void explain(const struct loss_desc *d, struct verdict *verdict) {
    verdict_add(verdict,
                "kind %d, %lld x %lld, seed %llu, spread %g, gradient %d, in place %d, 1/%d",
                d->kind, (long long)d->rows, (long long)d->columns, (unsigned long long)d->seed,
                (double)d->spread, d->gradient, d->in_place, d->left_out);
}

/* ---- Beside the reference ---- */

static struct ref_value *values(int64_t n) {
    struct ref_value *memory = calloc((size_t)n, sizeof *memory);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

static struct verdict compare_one(const char *what, int64_t row, int64_t c, float got,
                                  const struct ref_value *want) {
    const char *fault = compare_value(got, want);
    if (!fault)
        return verdict_ok();
    return verdict_fail("%s[%lld %lld] = %.9g %s: reference %.17g +- %.3g", what, (long long)row,
                        (long long)c, (double)got, fault, want->value, want->bound);
}

/* inputs: as they were before a call in place. */
static struct verdict compare_loss(const struct loss_case *c, const qkv_loss_tensors *inputs) {
    const struct ref_value loss = ref_loss(&c->params, inputs);
    struct verdict verdict = compare_one("loss", 0, 0, *c->tensors.loss, &loss);
    struct ref_value *want = values(c->params.columns);
    for (int64_t row = 0; row < c->params.rows && c->desc.gradient && verdict.ok; row++) {
        ref_loss_gradient(&c->params, inputs, row, want);
        for (int64_t x = 0; x < c->params.columns && verdict.ok; x++)
            verdict = compare_one("gradient", row, x,
                                  *tensor_f32(&c->tensors.gradient, 0, 0, row, x), want + x);
    }
    free(want);
    return verdict;
}

static struct verdict check_memory(const struct loss_case *c) {
    struct verdict verdict = verdict_ok();
    if (!guard_intact(&c->loss) || !guard_intact(&c->labels))
        return verdict_fail("beside the loss or the labels");
    if (!c->desc.in_place)
        verdict = tensor_check_input(&c->prediction, "prediction");
    if (verdict.ok && c->desc.kind == QKV_LOSS_SQUARED)
        verdict = tensor_check_input(&c->target, "target");
    if (verdict.ok && c->desc.gradient && !c->desc.in_place)
        verdict = tensor_check_output(&c->gradient, "gradient");
    return verdict;
}

static struct verdict check_loss(const qkv_context *context, const struct loss_desc *d,
                                 struct how how) {
    struct loss_desc aside = *d;
    struct loss_case c, inputs;
    aside.in_place = false;
    case_make_loss(&c, d);
    case_make_loss(&inputs, &aside);
    struct verdict verdict = run_loss(&c, context, how);
    if (verdict.ok)
        verdict = check_memory(&c);
    if (verdict.ok)
        verdict = compare_loss(&c, &inputs.tensors);
    case_free_loss(&c);
    case_free_loss(&inputs);
    explain(d, &verdict);
    return verdict;
}

static struct layout layout_of_rows(struct rng *rng) {
    struct layout layout = layout_random(rng, false);
    layout.zero = 0;
    return layout;
}

static struct loss_desc random_desc(struct rng *rng) {
    static const int64_t columns[] = {1,  2,  3,  7,   8,   9,   15,  16,
                                      17, 31, 33, 255, 256, 257, 600, 4099};
    static const int64_t rows[] = {0, 1, 2, 5, 64};
    struct loss_desc d = {.seed = rng_next(rng), .gradient = !rng_chance(rng, 4)};
    d.kind = (int32_t)rng_below(rng, QKV_LOSS_COUNT);
    d.columns = rng_pick(rng, columns, 16);
    d.rows = d.columns > 600 ? rng_pick(rng, rows, 4) : rng_pick(rng, rows, 5);
    d.spread = ldexpf(1.0f, (int)rng_below(rng, 9) - 3);
    d.in_place = d.gradient && rng_chance(rng, 3);
    d.left_out = rng_chance(rng, 2) ? (int)rng_below(rng, 4) : 0;
    for (int i = 0; i < 3; i++)
        d.layout[i] = layout_of_rows(rng);
    return d;
}

START_TEST(random_shapes_and_places) {
    for (int i = 0; i < test_cases(); i++) {
        struct rng rng = rng_seeded(rng_hash(test_seed() + 11, (uint64_t)i));
        const struct loss_desc d = random_desc(&rng);
        require(check_loss(&rooms_get(_i)->context, &d,
                           (struct how){(enum way)(i % WAY_COUNT), 2, (uint64_t)i}));
    }
}
END_TEST

START_TEST(shapes_around_the_ends_of_blocks) {
    const int one_in = test_thinning(), n = BLOCK_SHAPES * QKV_LOSS_COUNT;
    for (int i = test_next(-1, one_in); i < n; i = test_next(i, one_in)) {
        const struct loss_desc d = block_desc(i / QKV_LOSS_COUNT, i % QKV_LOSS_COUNT);
        require(check_loss(&rooms_get(_i)->context, &d, plainly));
    }
}
END_TEST

START_TEST(a_million_columns) {
    struct loss_desc d = {.seed = 4,
                          .kind = QKV_LOSS_CROSS_ENTROPY,
                          .rows = 2,
                          .columns = 1000003,
                          .spread = 3.0f,
                          .gradient = true};
    require(check_loss(&rooms_get(_i)->context, &d, plainly));
}
END_TEST

/* ---- The reference beside central differences ---- */

/* The loss in double precision with one prediction moved by h, which stays a float32 number. */
static double moved_loss(const struct loss_case *c, int64_t row, int64_t column, float h) {
    float *x = tensor_f32(&c->tensors.prediction, 0, 0, row, column), before = *x;
    *x = before + h;
    const double loss = ref_loss(&c->params, &c->tensors).value;
    *x = before;
    return loss;
}

START_TEST(the_reference_beside_central_differences) {
    for (int kind = 0; kind < QKV_LOSS_COUNT; kind++) {
        struct loss_desc d = {
            .seed = 8, .kind = kind, .rows = 4, .columns = 9, .spread = 2.0f, .left_out = 4};
        struct loss_case c;
        struct ref_value want[9];
        case_make_loss(&c, &d);
        for (int64_t row = 0; row < 4; row++) {
            ref_loss_gradient(&c.params, &c.tensors, row, want);
            for (int64_t x = 0; x < 9; x++) {
                const float here = *tensor_f32(&c.tensors.prediction, 0, 0, row, x);
                const float h = 0x1p-12f;
                /* what the two steps really are after rounding */
                const double width = (double)(here + h) - (double)(here - h);
                const double slope =
                    (moved_loss(&c, row, x, h) - moved_loss(&c, row, x, -h)) / width;
                ck_assert_msg(fabs(slope - want[x].value) <= 1e-6, "%d [%lld %lld]: %g, not %g",
                              kind, (long long)row, (long long)x, want[x].value, slope);
            }
        }
        case_free_loss(&c);
    }
}
END_TEST

/* ---- Kernels broken on purpose ---- */

static struct qkv_loss_kernels own;

static double drops_a_column(float *gradient, const float *x, ptrdiff_t n, int32_t label,
                             double counted) {
    return own.cross_entropy(gradient, x, n > 1 && label < n - 1 ? n - 1 : n, label, counted);
}

static double forgets_the_label(float *gradient, const float *x, ptrdiff_t n, int32_t label,
                                double counted) {
    const double loss = own.cross_entropy(gradient, x, n, label, counted);
    if (gradient)
        gradient[label] += (float)(1.0 / counted);
    return loss;
}

static double scales_wrongly(float *gradient, const float *p, const float *t, ptrdiff_t n,
                             float factor) {
    return own.square(gradient, p, t, n, factor * (1 + 0x1p-12F));
}

START_TEST(broken_kernels_are_found) {
    const struct {
        int kind;
        struct qkv_loss_kernels kernels;
    } mutants[] = {
        {QKV_LOSS_CROSS_ENTROPY, {.cross_entropy = drops_a_column}},
        {QKV_LOSS_CROSS_ENTROPY, {.cross_entropy = forgets_the_label}},
        {QKV_LOSS_SQUARED, {.square = scales_wrongly}},
    };
    for (int m = 0; m < 3; m++) {
        const struct loss_desc d = {.seed = 5,
                                    .kind = mutants[m].kind,
                                    .rows = 9,
                                    .columns = 33,
                                    .spread = 1.0f,
                                    .gradient = true};
        qkv_context context = rooms_get(_i)->context;
        struct qkv_context_state *state = (struct qkv_context_state *)context.state;
        own = *state->table.loss;
        state->table.loss = &mutants[m].kernels;
        ck_assert_msg(!check_loss(&context, &d, plainly).ok, "mutant %d survived", m);
    }
}
END_TEST

static Suite *make(void) {
    const TTest *const room_tests[] = {
        random_shapes_and_places,
        shapes_around_the_ends_of_blocks,
        a_million_columns,
        broken_kernels_are_found,
    };
    Suite *suite = suite_create("loss");
    TCase *tcase = tcase_create("rooms");
    tcase_set_timeout(tcase, PATIENCE);
    tcase_add_room_tests(tcase, room_tests, sizeof room_tests / sizeof *room_tests);
    loss_add_odd_tests(tcase);
    loss_add_bits_tests(tcase);
    tcase_add_test(tcase, the_reference_beside_central_differences);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
