/* SPDX-License-Identifier: Apache-2.0 */
/* The reference of the gradients against central differences. The forward stages stand here once
 * more, in double precision from inputs in double precision: each input is moved a little up and
 * down, and the loss, sum of outputs times their gradients, must follow the reference's gradient.
 *
 * The reference reads out, LSE and weights as float32. Their rounding moves a gradient by less than
 * its bound, which counts the same roundings for the kernel; what is left is the difference's own
 * error, of the order of STEP^2. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "options.h"
#include "ref/gradients.h"
#include "ref/rows.h"
#include "stage.h"
#include "support/case.h"

#define STEP 1e-5
#define OWN_ERROR 2e-8

/* The inputs of all stages, densely, in the order of struct ref_gradients. */
enum input { IN_Q, IN_K, IN_V, IN_SCORES, IN_WEIGHTS, IN_BIAS, IN_SINKS, INPUTS };
static const char *const input_names[INPUTS] = {"q",       "k",    "v",    "scores",
                                                "weights", "bias", "sinks"};

struct model {
    const struct test_case *c;
    int stage;
    double *x[INPUTS];
    int64_t count[INPUTS];
};

/* ---- Inputs ---- */

static int64_t query_of(const struct model *m, int64_t b, int64_t h, int64_t i) {
    return (b * m->c->params.q_heads + h) * m->c->params.q_len + i;
}

static int64_t key_of(const struct model *m, int64_t b, int64_t h, int64_t j) {
    const qkv_attention_params *p = &m->c->params;
    return (b * p->kv_heads + ref_kv_head(p, h)) * p->kv_len + j;
}

static void make_inputs(struct model *m) {
    const qkv_attention_params *p = &m->c->params;
    const int64_t queries = p->batch * p->q_heads * p->q_len;
    const int64_t keys = p->batch * p->kv_heads * p->kv_len;
    const int64_t count[INPUTS] = {
        queries * p->head_dim, keys * p->head_dim,  keys * p->v_dim, queries * p->kv_len,
        queries * p->kv_len,   queries * p->kv_len, p->q_heads};
    for (int i = 0; i < INPUTS; i++) {
        m->count[i] = count[i];
        m->x[i] = ref_allocate(count[i], sizeof(double));
    }
}

static void copy_row(const struct model *m, enum input input, int64_t row, const qkv_tensor *from,
                     struct ref_place place, int64_t h, int64_t n) {
    for (int64_t c = 0; from->data && c < n; c++)
        m->x[input][row * n + c] = (double)*tensor_f32(from, place.b, h, place.t, c);
}

static void copy_inputs_of(const struct model *m, int64_t b, int64_t h) {
    const qkv_attention_params *p = &m->c->params;
    const qkv_tensors *t = &m->c->tensors;
    for (int64_t i = 0; i < ref_queries(p, b); i++) {
        const int64_t row = query_of(m, b, h, i);
        const struct ref_place place = ref_query_place(p, b, i);
        copy_row(m, IN_Q, row, &t->q, place, h, p->head_dim);
        copy_row(m, IN_SCORES, row, &t->scores, place, h, p->kv_len);
        copy_row(m, IN_WEIGHTS, row, &t->weights, place, h, p->kv_len);
        copy_row(m, IN_BIAS, row, &p->bias, (struct ref_place){b, i}, h, p->kv_len);
    }
    for (int64_t j = 0; j < ref_keys(p, b); j++) {
        const struct ref_place place = ref_key_place(p, b, j);
        copy_row(m, IN_K, key_of(m, b, h, j), &t->k, place, ref_kv_head(p, h), p->head_dim);
        copy_row(m, IN_V, key_of(m, b, h, j), &t->v, place, ref_kv_head(p, h), p->v_dim);
    }
}

static void copy_inputs(const struct model *m) {
    const qkv_attention_params *p = &m->c->params;
    for (int64_t h = 0; h < p->q_heads; h++)
        for (int64_t b = 0; b < p->batch; b++)
            copy_inputs_of(m, b, h);
    for (int64_t h = 0; p->sinks && h < p->q_heads; h++)
        m->x[IN_SINKS][h] = (double)p->sinks[h];
}

/* ---- The forward stages ---- */

/* A row on its way: query i of head h of sequence b. */
struct spot {
    int64_t b, h, i;
};

static bool keeps(const struct model *m, struct spot s, int64_t j) {
    return ref_keeps(&m->c->params, s.b, s.h, s.i, j);
}

static double score(const struct model *m, struct spot s, int64_t j) {
    const qkv_attention_params *p = &m->c->params;
    const double *q = m->x[IN_Q] + query_of(m, s.b, s.h, s.i) * p->head_dim;
    const double *k = m->x[IN_K] + key_of(m, s.b, s.h, j) * p->head_dim;
    double sum = 0;
    for (int64_t c = 0; c < p->head_dim; c++)
        sum += q[c] * k[c];
    sum *= ref_scale(p);
    if (p->softcap > 0)
        sum = (double)p->softcap * tanh(sum / (double)p->softcap);
    if (p->alibi_slopes) {
        int64_t shift = p->align == QKV_ALIGN_TOP_LEFT ? 0 : ref_keys(p, s.b) - ref_queries(p, s.b);
        sum -= (double)p->alibi_slopes[s.h] * (double)llabs(s.i + shift - j);
    }
    return sum + m->x[IN_BIAS][query_of(m, s.b, s.h, s.i) * p->kv_len + j];
}

/* Scores (-inf where masked) to weights in place; returns the LSE. */
static double soften(const struct model *m, struct spot s, double *row) {
    const qkv_attention_params *p = &m->c->params;
    double max = p->sinks ? m->x[IN_SINKS][s.h] : -INFINITY, sum = 0;
    for (int64_t j = 0; j < p->kv_len; j++)
        max = fmax(max, row[j]);
    for (int64_t j = 0; j < p->kv_len; j++)
        sum += row[j] == -INFINITY ? 0 : exp(row[j] - max);
    sum += p->sinks ? exp(m->x[IN_SINKS][s.h] - max) : 0;
    for (int64_t j = 0; j < p->kv_len; j++)
        row[j] = row[j] == -INFINITY ? 0 : exp(row[j] - max) / sum;
    return max + log(sum);
}

/* The row's scores or weights, as the stage has them, and how many keys there are. */
static int64_t weigh(const struct model *m, struct spot s, double *row) {
    const qkv_attention_params *p = &m->c->params;
    const int64_t first = query_of(m, s.b, s.h, s.i) * p->kv_len;
    const bool scored =
        m->stage == QKV_STAGE_SCORES_BACKWARD || m->stage == QKV_STAGE_ATTENTION_BACKWARD;
    const double *given =
        m->x[m->stage == QKV_STAGE_SOFTMAX_BACKWARD ? IN_SCORES : IN_WEIGHTS] + first;
    int64_t kept = 0;
    for (int64_t j = 0; j < p->kv_len; j++) {
        bool keep = keeps(m, s, j);
        row[j] = !keep ? -INFINITY : scored ? score(m, s, j) : given[j];
        kept += keep;
    }
    return kept;
}

static double sum_with(const struct model *m, struct spot s, const double *row,
                       const qkv_tensor *gradient) {
    const float *g = ref_row_of(gradient, ref_query_place(&m->c->params, s.b, s.i), s.h);
    double sum = 0;
    for (int64_t j = 0; j < m->c->params.kv_len; j++)
        if (keeps(m, s, j))
            sum += row[j] * (double)g[j];
    return sum;
}

static double mixed_with(const struct model *m, struct spot s, const double *row) {
    const qkv_attention_params *p = &m->c->params;
    const float *g = ref_row_of(&m->c->gradients.out, ref_query_place(p, s.b, s.i), s.h);
    double sum = 0;
    for (int64_t j = 0; j < p->kv_len; j++)
        for (int64_t c = 0; keeps(m, s, j) && c < p->v_dim; c++)
            sum += row[j] * m->x[IN_V][key_of(m, s.b, s.h, j) * p->v_dim + c] * (double)g[c];
    return sum;
}

/* What the row adds to the loss. A row without keys has outputs that nothing moves. */
static double loss_of_row(const struct model *m, struct spot s, double *row) {
    if (weigh(m, s, row) == 0)
        return 0;
    if (m->stage == QKV_STAGE_SCORES_BACKWARD)
        return sum_with(m, s, row, &m->c->gradients.scores);
    if (m->stage == QKV_STAGE_MIX_BACKWARD)
        return mixed_with(m, s, row);
    soften(m, s, row);
    return m->stage == QKV_STAGE_SOFTMAX_BACKWARD ? sum_with(m, s, row, &m->c->gradients.weights)
                                                  : mixed_with(m, s, row);
}

static double loss(const struct model *m) {
    const qkv_attention_params *p = &m->c->params;
    double *row = ref_allocate(p->kv_len, sizeof *row), sum = 0;
    struct spot s;
    for (s.b = 0; s.b < p->batch; s.b++)
        for (s.h = 0; s.h < p->q_heads; s.h++)
            for (s.i = 0; s.i < ref_queries(p, s.b); s.i++)
                sum += loss_of_row(m, s, row);
    free(row);
    return sum;
}

/* ---- Inputs that go together ---- */

/* Softmax's backward reads the weights and the LSE that its forward wrote: of random scores. */
static void leave_weights(struct model *m) {
    const qkv_attention_params *p = &m->c->params;
    double *row = ref_allocate(p->kv_len, sizeof *row);
    struct spot s;
    for (int64_t e = 0; e < m->count[IN_SCORES]; e++)
        m->x[IN_SCORES][e] = (double)rng_normal(rng_hash(m->c->desc.seed, (uint64_t)e));
    for (s.b = 0; s.b < p->batch; s.b++)
        for (s.h = 0; s.h < p->q_heads; s.h++)
            for (s.i = 0; s.i < ref_queries(p, s.b); s.i++) {
                struct ref_place place = ref_query_place(p, s.b, s.i);
                if (weigh(m, s, row) == 0)
                    continue;
                double lse = soften(m, s, row);
                if (m->c->tensors.lse.data)
                    *tensor_f32(&m->c->tensors.lse, place.b, s.h, place.t, 0) = (float)lse;
                for (int64_t j = 0; j < p->kv_len; j++)
                    if (keeps(m, s, j))
                        *tensor_f32(&m->c->tensors.weights, place.b, s.h, place.t, j) =
                            (float)row[j];
            }
    free(row);
}

/* ---- The comparison ---- */

static double slope(const struct model *m, double *x) {
    const double was = *x;
    *x = was + STEP;
    const double up = loss(m);
    *x = was - STEP;
    const double down = loss(m);
    *x = was;
    return (up - down) / (2 * STEP);
}

static struct verdict compare(const struct model *m, enum input input,
                              const struct ref_value *want) {
    for (int64_t e = 0; want && e < m->count[input]; e++) {
        double got = slope(m, &m->x[input][e]);
        double error = 2 * want[e].bound + OWN_ERROR * fmax(1, fabs(got));
        if (!(fabs(got - want[e].value) <= error))
            return verdict_fail("d%s[%lld] is %.9g by differences and %.9g in the reference",
                                input_names[input], (long long)e, got, want[e].value);
    }
    return verdict_ok();
}

static struct verdict compare_inputs(const struct model *m) {
    const struct test_case *c = m->c;
    struct ref_gradients want = ref_backward(m->stage, &c->params, &c->tensors, &c->gradients);
    const struct ref_value *const all[INPUTS] = {want.q,       want.k,    want.v,    want.scores,
                                                 want.weights, want.bias, want.sinks};
    struct verdict verdict = verdict_ok();
    for (int i = 0; i < INPUTS && verdict.ok; i++)
        verdict = compare(m, (enum input)i, i == IN_SINKS && !c->tensors.lse.data ? NULL : all[i]);
    ref_gradients_free(&want);
    return verdict;
}

static struct verdict check(int stage, const struct desc *desc) {
    struct test_case c;
    case_make(&c, desc, STAGES_ONE(stage));
    struct model m = {.c = &c, .stage = stage};
    make_inputs(&m);
    copy_inputs(&m);
    if (stage == QKV_STAGE_SOFTMAX_BACKWARD)
        leave_weights(&m);
    struct verdict verdict = compare_inputs(&m);
    for (int i = 0; i < INPUTS; i++)
        free(m.x[i]);
    case_free(&c);
    verdict_add(&verdict, "%s", qkv_stage_name(stage));
    case_explain(desc, &verdict);
    return verdict;
}

static struct desc small(uint64_t seed) {
    struct desc d = desc_plain();
    d.seed = test_seed() + seed;
    d.q_len = 4;
    d.kv_len = 6;
    d.head_dim = 3;
    d.v_dim = 2;
    d.bias_gradient = seed % 2;
    return d;
}

static void check_options(int stage, int first, int second) {
    struct desc d = small((uint64_t)(first * option_count() + second));
    option_set(&d, first);
    option_set(&d, second);
    if (d.values == VALUES_WILD)
        return; /* no differences of NaN */
    struct verdict verdict = check(stage, &d);
    verdict_add(&verdict, "options %s and %s", option_name(first), option_name(second));
    stage_assert(&verdict);
}

/* _i is the stage. */
START_TEST(every_option) {
    for (int i = 0; i < option_count(); i++)
        check_options(_i, i, i);
}
END_TEST

START_TEST(pairs_of_options) {
    const int n = option_count();
    for (int i = _i; i < n * n; i += 23)
        check_options(_i, i / n, i % n);
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("differences");
    TCase *tcase = tcase_create("the reference");
    tcase_set_timeout(tcase, 600);
    tcase_add_loop_test(tcase, every_option, QKV_STAGE_SCORES_BACKWARD,
                        QKV_STAGE_ATTENTION_BACKWARD + 1);
    tcase_add_loop_test(tcase, pairs_of_options, QKV_STAGE_SCORES_BACKWARD,
                        QKV_STAGE_ATTENTION_BACKWARD + 1);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
