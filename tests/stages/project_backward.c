/* SPDX-License-Identifier: Apache-2.0 */
/* project_backward against the reference and against the scalar room, at sizes around every tile
 * and block, and kernels broken on purpose, which that must find. */
#include <math.h>
#include <string.h>

#include "context.h"
#include "project_backward.h"
#include "project_backward_bits.h"
#include "stage.h"
#include "support/project_gradient_case.h"

/* ---- Sizes ---- */

enum { DIMENSIONS = 3, EDGES = 50 };

static int64_t *size_of(struct gradient_desc *d, int dimension) {
    int64_t *const sizes[DIMENSIONS] = {&d->project.tokens, &d->project.d_model,
                                        &d->project.head_dim};
    return sizes[dimension];
}

/* 1 to 17, and what stands beside the places where something changes. */
static int edges_of(const qkv_context *context, int64_t *edges) {
    const struct qkv_table *table = &qkv_context_get(context)->table;
    const int64_t mr = table->project_backward->mr;
    const int64_t units[] = {
        3 * mr,          2 * QKV_PANEL,      QKV_PROJECT_COLUMNS, QKV_STRETCH,
        2 * QKV_STRETCH, QKV_PROJECT_TOKENS, QKV_PROJECT_DEPTH,   QKV_GRADIENT_ROWS};
    int count = 0;
    for (int64_t i = 1; i <= 17; i++)
        edges[count++] = i;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        for (int64_t near = -1; near <= 1; near++)
            edges[count++] = units[i] + near;
    ck_assert_int_le(count, EDGES);
    return count;
}

/* Either way to store weights, flush against either page, adding or writing, in turn. */
static struct gradient_desc numbered(uint64_t number) {
    struct gradient_desc d = gradient_desc_plain();
    d.project.seed = number;
    d.project.layout = number % 2 ? QKV_W_OUT_IN : QKV_W_IN_OUT;
    d.project.batch = 1 + number % 3 / 2;
    d.accumulate = number / 2 % 2;
    for (int role = 0; role < GRADIENT_ROLES; role++) {
        d.place[role].side = number / 4 % 2 ? GUARD_BEGIN : GUARD_END;
        d.place[role].order = role < GRADIENT_W ? number / 8 % 2 : LAYOUT_BHSD;
    }
    for (int role = 0; role < PROJECT_ROLES; role++)
        d.project.place[role].side = number / 4 % 2 ? GUARD_BEGIN : GUARD_END;
    return d;
}

START_TEST(sizes_alone) {
    const qkv_context *context = &rooms_get(_i)->context;
    int64_t edges[EDGES];
    const int count = edges_of(context, edges);
    uint64_t number = 0;
    for (int dimension = 0; dimension < DIMENSIONS; dimension++)
        for (int e = 0; e < count; e++)
            for (int repeat = 0; repeat < 4; repeat++) {
                struct gradient_desc d = numbered(number);
                if (!test_takes(number++, test_thinning()))
                    continue;
                *size_of(&d, dimension) = edges[e];
                struct verdict verdict = check_project_gradients(context, &d);
                stage_assert(&verdict);
            }
}
END_TEST

static void check_pairs(const qkv_context *context, int a, int b, uint64_t *number) {
    int64_t edges[EDGES];
    const int count = edges_of(context, edges);
    for (int i = 0; i < count; i++)
        for (int k = 0; k < count; k++) {
            struct gradient_desc d = numbered(++*number);
            if (!test_takes(*number, 4 * test_stride()))
                continue;
            *size_of(&d, a) = edges[i];
            *size_of(&d, b) = edges[k];
            d.project.q_heads = 1;
            struct verdict verdict = check_project_gradients(context, &d);
            stage_assert(&verdict);
        }
}

START_TEST(sizes_pairwise) {
    uint64_t number = 0;
    for (int a = 0; a < DIMENSIONS; a++)
        for (int b = a + 1; b < DIMENSIONS; b++)
            check_pairs(&rooms_get(_i)->context, a, b, &number);
}
END_TEST

START_TEST(random_descriptions) {
    struct verdict verdict = check_project_gradients_random(&rooms_get(_i)->context);
    stage_assert(&verdict);
}
END_TEST

/* ---- Left out, nothing there ---- */

START_TEST(matrices_left_out) {
    for (uint64_t number = 0; number < 8; number++) {
        struct gradient_desc d = numbered(number);
        if (number % 4 < 2)
            d.project.q_heads = 0;
        else
            d.project.kv_heads = 0;
        struct verdict verdict = check_project_gradients(&rooms_get(_i)->context, &d);
        stage_assert(&verdict);
    }
}
END_TEST

/* A sum over no tokens is zero, and adds nothing. */
START_TEST(no_tokens) {
    for (uint64_t number = 0; number < 4; number++) {
        struct gradient_desc d = numbered(number);
        d.project.tokens = 0;
        struct verdict verdict = check_project_gradients(&rooms_get(_i)->context, &d);
        stage_assert(&verdict);
    }
}
END_TEST

START_TEST(nothing_wanted) {
    struct gradient_desc d = gradient_desc_plain();
    d.wanted = 0;
    struct verdict verdict = check_project_gradients(&rooms_get(_i)->context, &d);
    stage_assert(&verdict);
}
END_TEST

/* ---- NaN ---- */

enum { ALL = -1, NONE = -2 };

static bool is_in(int64_t i, int64_t which) {
    return which == ALL || i == which;
}

/* Is NaN where row and column say, and nowhere else? */
static bool only_nan(const qkv_tensor *t, int64_t rows, int64_t columns, int64_t row,
                     int64_t column) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            const bool meant = is_in(r, row) && is_in(c, column);
            if (!isnan(*tensor_f32(t, 0, 0, r, c)) == meant)
                return false;
        }
    return true;
}

/* Where NaN comes from (0: x, 1: wq, 2: the gradient of q), and the rows and columns of dX and dWq
 * and the column of dbq that it reaches. */
static const struct {
    int from;
    int64_t x_row, x_column, w_row, w_column, b;
} spreads[] = {
    {0, NONE, NONE, 7, ALL, NONE},
    {1, ALL, 7, NONE, NONE, NONE},
    {2, 5, ALL, ALL, 3, 3},
};

/* One NaN, at token 5, input 7, column 3, reaches its row and column and nothing else. */
START_TEST(nan_stays_in_its_row_and_column) {
    struct gradient_desc d = gradient_desc_plain();
    d.project.tokens = 40;
    d.project.d_model = 35;
    d.project.q_heads = 1;
    d.project.head_dim = 20;
    for (size_t i = 0; i < sizeof spreads / sizeof *spreads; i++) {
        struct gradient_case c;
        gradient_case_make(&c, &d);
        qkv_project_tensors *t = &c.project.tensors;
        float *const places[] = {tensor_f32(&t->x, 0, 0, 5, 7), tensor_f32(&t->wq, 0, 0, 7, 3),
                                 tensor_f32(&c.gradients.q, 0, 0, 5, 3)};
        *places[spreads[i].from] = NAN;
        c.both = (struct project_backward_tensors){t, &c.gradients};
        const struct call call = {&rooms_get(_i)->context, QKV_STAGE_PROJECT_BACKWARD,
                                  &c.project.params, &c.both};
        struct verdict verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
        stage_assert(&verdict);
        ck_assert(only_nan(&c.gradients.x, 40, 35, spreads[i].x_row, spreads[i].x_column));
        ck_assert(only_nan(&c.gradients.wq, 35, 20, spreads[i].w_row, spreads[i].w_column));
        ck_assert(only_nan(&c.gradients.bq, 1, 20, ALL, spreads[i].b));
        const bool from_x = spreads[i].from == 0; /* which K shares */
        ck_assert(only_nan(&c.gradients.wk, 35, 20, from_x ? 7 : NONE, ALL));
        ck_assert(only_nan(&c.gradients.bv, 1, 4, NONE, NONE));
        gradient_case_free(&c);
    }
}
END_TEST

/* ---- Broken on purpose ---- */

static struct qkv_project_backward_kernels own;

static void forgets_a_sum(const struct qkv_multiply *g) {
    struct qkv_multiply alone = *g;
    alone.add = 0;
    own.multiply(&alone);
}

static void drops_a_term(const struct qkv_multiply *g) {
    struct qkv_multiply less = *g;
    less.k -= less.k > 1;
    own.multiply(&less);
}

static void turns_one_row_less(float *dst, ptrdiff_t ld_dst, const float *src, ptrdiff_t ld,
                               int rows, ptrdiff_t k) {
    own.turned(dst, ld_dst, src, ld, rows - 1, k);
}

static void sums_one_row_less(float *sum, const float *rows, ptrdiff_t ld, ptrdiff_t count,
                              ptrdiff_t n) {
    own.sum_rows(sum, rows, ld, count - (count > 1), n);
}

static void forgets_what_stood_there(float *out, const float *acc, const float *bias, ptrdiff_t n) {
    (void)bias;
    own.store(out, acc, NULL, n);
}

static void writes_past_the_end(float *out, const float *acc, const float *bias, ptrdiff_t n) {
    own.store(out, acc, bias, n);
    out[n] = 0;
}

static void packs_one_row_less(float *dst, const float *src, ptrdiff_t ld, int first, int last,
                               ptrdiff_t k) {
    own.pack.panel(dst, src, ld, first, last - 1, k);
}

static void break_kernels(struct qkv_project_backward_kernels *k, int mutant) {
    switch (mutant) {
    case 0:
        k->multiply = forgets_a_sum;
        break;
    case 1:
        k->multiply = drops_a_term;
        break;
    case 2:
        k->turned = turns_one_row_less;
        break;
    case 3:
        k->sum_rows = sums_one_row_less;
        break;
    case 4:
        k->store = forgets_what_stood_there;
        break;
    case 5:
        k->store = writes_past_the_end;
        break;
    default:
        k->pack.panel = packs_one_row_less;
    }
}

enum { MUTANTS = 7, NO_MUTANT = -1 };

/* Gaps keep what is written past a row from the guard page. */
static struct verdict check_mutant(const qkv_context *room, int mutant) {
    static struct qkv_project_backward_kernels broken;
    qkv_context context = *room;
    struct qkv_context_state *state = (struct qkv_context_state *)context.state;
    struct gradient_desc d = gradient_desc_plain();
    broken = own = *state->table.project_backward;
    if (mutant != NO_MUTANT)
        break_kernels(&broken, mutant);
    state->table.project_backward = &broken;
    d.project.tokens = 2 * QKV_PROJECT_DEPTH + 1;
    d.accumulate = true;
    for (int role = 0; role < GRADIENT_ROLES; role++)
        d.place[role] = (struct layout){.gap = {3, 3, 3}, .side = GUARD_BEGIN};
    return check_project_gradients(&context, &d);
}

START_TEST(broken_kernels_are_found) {
    const qkv_context *context = &rooms_get(_i)->context;
    struct verdict fine = check_mutant(context, NO_MUTANT);
    stage_assert(&fine);
    for (int mutant = 0; mutant < MUTANTS; mutant++)
        ck_assert_msg(!check_mutant(context, mutant).ok, "mutant %d survived", mutant);
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("project_backward");
    TCase *tcase = tcase_create("rooms");
    const TTest *const tests[] = {
        sizes_alone,
        sizes_pairwise,
        random_descriptions,
        matrices_left_out,
        no_tokens,
        nothing_wanted,
        nan_stays_in_its_row_and_column,
        broken_kernels_are_found,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
    project_backward_add_bits(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
