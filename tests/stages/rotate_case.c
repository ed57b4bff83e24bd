/* SPDX-License-Identifier: Apache-2.0 */
/* Random calls of rotate, and the reference in long double (rotate_case.h). */
#include "rotate_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/rng.h"
#include "support/rooms.h"
#include "support/run.h"
#include "support/tensor.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

void require(struct verdict verdict) {
    if (!verdict.ok)
        ck_abort_msg("%s", verdict.message);
}

/* ---- Angles ---- */

/* A frequency's rounding counts as often as the position says, in double precision; the cosine's
 * is that of a float below 1. */
struct angle rotate_angle(const qkv_rope *r, int64_t position, int64_t pair) {
    const int64_t at = position * (r->dims / 2) + pair;
    if (r->cos)
        return (struct angle){(double)r->cos[at], (double)r->sin[at], 0};
    const long double angle =
        (long double)position *
        powl((long double)r->theta, -2.0L * (long double)pair / (long double)r->dims);
    return (struct angle){(double)cosl(angle), (double)sinl(angle),
                          0x1p-25 + (double)(position + 1) * 0x1p-50};
}

/* ---- Random calls ---- */

enum { TABLE_ROWS = 128 };

struct rotate_case {
    struct rng rng;
    qkv_rotate_params params;
    int32_t lens[4], cu[5], first[4], positions[512];
    float cos[TABLE_ROWS * 40], sin[TABLE_ROWS * 40];
    struct tensor x, out; /* out is not there in place */
    struct how how;
    char text[200];
};

static float value(void *argument, uint64_t hash) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, -0.0f, 1e-42f};
    const int *special = argument;
    return *special && hash % 29 == 0 ? odd[hash / 29 % COUNT(odd)] : rng_normal(hash);
}

static struct layout random_layout(struct rng *rng) {
    return (struct layout){.order = (uint8_t)rng_below(rng, LAYOUT_ORDERS),
                           .gap = {(uint8_t)rng_below(rng, 3), 0, (uint8_t)rng_below(rng, 3)},
                           .reverse = (uint8_t)rng_below(rng, 8),
                           .side = (uint8_t)rng_below(rng, 2),
                           .offset = (uint8_t)rng_below(rng, 3)};
}

static void choose_rows(struct rotate_case *c) {
    qkv_rotate_params *p = &c->params;
    p->batch = 1 + rng_below(&c->rng, 3);
    p->heads = 1 + rng_below(&c->rng, 3);
    p->tokens = rng_pick(&c->rng, (const int64_t[]){0, 1, 2, 5, 63, 64, 65, 100}, 8);
    p->head_dim = rng_pick(&c->rng, (const int64_t[]){1, 2, 3, 6, 8, 20, 34, 36, 64, 70, 80}, 11);
    c->cu[0] = (int32_t)rng_below(&c->rng, 3);
    for (int64_t b = 0; b < p->batch; b++) {
        c->lens[b] = (int32_t)rng_below(&c->rng, p->tokens + 1);
        c->cu[b + 1] = c->cu[b] + c->lens[b];
        c->first[b] = (int32_t)rng_below(&c->rng, TABLE_ROWS - 100);
    }
    const int64_t shape = rng_below(&c->rng, 3);
    p->lens = shape == 1 ? c->lens : NULL;
    p->cu = shape == 2 ? c->cu : NULL;
    p->first = rng_chance(&c->rng, 2) ? c->first : NULL;
}

static void choose_rope(struct rotate_case *c) {
    qkv_rope *r = &c->params.rope;
    if (c->params.head_dim > 1) {
        r->pairs = (int32_t)rng_below(&c->rng, 3);
        r->dims = 2 * (1 + rng_below(&c->rng, c->params.head_dim / 2));
    }
    r->theta = rng_chance(&c->rng, 2) ? 10000 : 1.5;
    for (int i = 0; i < COUNT(c->positions); i++)
        c->positions[i] = (int32_t)rng_below(&c->rng, TABLE_ROWS);
    r->positions = rng_chance(&c->rng, 3) ? c->positions : NULL;
    if (rng_chance(&c->rng, 2) && r->pairs) {
        for (int i = 0; i < COUNT(c->cos); i++) {
            c->cos[i] = rng_normal(rng_hash(1, (uint64_t)i));
            c->sin[i] = rng_normal(rng_hash(2, (uint64_t)i));
        }
        r->cos = c->cos;
        r->sin = c->sin;
        r->table_rows = TABLE_ROWS;
    }
}

static void make_case(struct rotate_case *c, int64_t number) {
    memset(c, 0, sizeof *c);
    c->rng = rng_seeded(rng_hash(test_seed(), (uint64_t)number));
    qkv_rotate_params_init(&c->params);
    choose_rows(c);
    choose_rope(c);
    const qkv_rotate_params *p = &c->params;
    const int64_t shape[4] = {p->cu ? 1 : p->batch, p->heads, p->cu ? c->cu[p->batch] : p->tokens,
                              p->head_dim};
    int special = rng_chance(&c->rng, 4);
    c->x = tensor_make(QKV_F32, shape, random_layout(&c->rng));
    tensor_fill(&c->x, rng_next(&c->rng), value, &special);
    if (!rng_chance(&c->rng, 3)) {
        tensor_freeze(&c->x);
        c->out = tensor_make(QKV_F32, shape, random_layout(&c->rng));
    }
    c->how = (struct how){(enum way)rng_below(&c->rng, WAY_COUNT), 3, rng_next(&c->rng)};
    snprintf(c->text, sizeof c->text,
             "case %lld: %lld sequences of %lld, %lld heads of %lld, pairs %d of %lld, %s",
             (long long)number, (long long)p->batch, (long long)p->tokens, (long long)p->heads,
             (long long)p->head_dim, p->rope.pairs, (long long)p->rope.dims, run_way_name(c->how));
}

static const qkv_tensor *out_of(const struct rotate_case *c) {
    return c->out.memory.pages ? &c->out.view : &c->x.view;
}

static struct verdict run_case(const struct rotate_case *c, const qkv_context *context) {
    qkv_tensors tensors;
    qkv_tensors_init(&tensors);
    tensors.q = c->x.view;
    tensors.out = *out_of(c);
    const struct call call = {context, QKV_STAGE_ROTATE, &c->params, &tensors};
    return run_call(&call, c->how);
}

/* ---- The reference ---- */

static int same(float x, float y) {
    return memcmp(&x, &y, sizeof x) == 0 || (isnan(x) && isnan(y));
}

/* One number of a turned pair: a cos + b sin (sin of the sign that it has there). */
static int is_turned(float got, float a, float b, double cosine, double sine, double error) {
    const double x = (double)a * cosine, y = (double)b * sine, want = x + y;
    if (!isfinite(want))
        return isnan(want) ? isnan(got) : (double)got == want;
    return fabs((double)got - want) <= 0x1p-23 * (fabs(x) + fabs(y)) + 0x1p-148 +
                                           1.0001 * error * (fabs((double)a) + fabs((double)b));
}

static struct verdict check_row(const qkv_rotate_params *p, int64_t position, const float *x,
                                const float *got) {
    const qkv_rope *r = &p->rope;
    const int64_t dims = r->pairs ? r->dims : 0, half = dims / 2;
    for (int64_t i = 0; i < half; i++) {
        const int64_t first = r->pairs == QKV_ROPE_HALF ? i : 2 * i;
        const int64_t second = r->pairs == QKV_ROPE_HALF ? i + half : 2 * i + 1;
        const struct angle t = rotate_angle(r, position, i);
        if (!is_turned(got[first], x[first], x[second], t.cos, -t.sin, t.error) ||
            !is_turned(got[second], x[first], x[second], t.sin, t.cos, t.error))
            return verdict_fail("pair %lld (%a, %a) at %lld became (%a, %a)", (long long)i,
                                (double)x[first], (double)x[second], (long long)position,
                                (double)got[first], (double)got[second]);
    }
    for (int64_t i = dims; i < p->head_dim; i++)
        if (!same(got[i], x[i]))
            return verdict_fail("number %lld changed", (long long)i);
    return verdict_ok();
}

/* Rows in the order of sequences, heads and tokens, each with its sequence's row number; `before`
 * holds what the rows of x were. */
static struct verdict check_rows(const struct rotate_case *c, const float *before) {
    const qkv_rotate_params *p = &c->params;
    struct verdict verdict = verdict_ok();
    for (int64_t b = 0; b < p->batch && verdict.ok; b++) {
        const int64_t n = p->lens || p->cu ? c->lens[b] : p->tokens;
        for (int64_t h = 0; h < p->heads && verdict.ok; h++)
            for (int64_t i = 0; i < n && verdict.ok; i++) {
                const int64_t e = p->cu ? 0 : b, row = p->cu ? c->cu[b] + i : i;
                const int64_t place = p->cu ? row : b * p->tokens + i;
                const int64_t position = p->rope.positions ? c->positions[place]
                                         : p->first        ? c->first[b] + i
                                                           : i;
                verdict = check_row(p, position,
                                    before + ((e * p->heads + h) * c->x.dim[2] + row) * p->head_dim,
                                    tensor_f32(out_of(c), e, h, row, 0));
                verdict_add(&verdict, "sequence %lld, head %lld, token %lld", (long long)b,
                            (long long)h, (long long)i);
            }
    }
    return verdict;
}

static float *copy_of(const struct tensor *t) {
    float *copy =
        malloc((size_t)(t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3]) * sizeof *copy + 1);
    float *to = copy;
    for (int64_t b = 0; b < t->dim[0]; b++)
        for (int64_t h = 0; h < t->dim[1]; h++)
            for (int64_t i = 0; i < t->dim[2]; i++)
                for (int64_t x = 0; x < t->dim[3]; x++)
                    *to++ = *tensor_f32(&t->view, b, h, i, x);
    return copy;
}

/* Rows that no sequence has keep what they held. */
static struct verdict check_others(const struct rotate_case *c) {
    const qkv_rotate_params *p = &c->params;
    const uint32_t canary = GUARD_CANARY;
    if (!c->out.memory.pages)
        return guard_intact(&c->x.memory) ? verdict_ok() : verdict_fail("bytes beside x");
    if (!p->lens && !(p->cu && c->cu[0]))
        return tensor_check_output(&c->out, "out");
    for (int64_t b = 0; b < p->batch && p->lens; b++)
        for (int64_t i = c->lens[b]; i < p->tokens; i++)
            if (memcmp(tensor_f32(&c->out.view, b, 0, i, 0), &canary, sizeof canary) != 0)
                return verdict_fail("row %lld of sequence %lld was written", (long long)i,
                                    (long long)b);
    return guard_intact(&c->out.memory) ? verdict_ok() : verdict_fail("bytes beside out");
}

struct verdict rotate_check_case(const qkv_context *context, int64_t number) {
    static struct rotate_case c;
    make_case(&c, number);
    float *before = copy_of(&c.x);
    struct verdict verdict = run_case(&c, context);
    if (verdict.ok)
        verdict = check_rows(&c, before);
    if (verdict.ok && c.x.before)
        verdict = tensor_check_input(&c.x, "x");
    if (verdict.ok)
        verdict = check_others(&c);
    verdict_add(&verdict, "%s", c.text);
    tensor_free(&c.x);
    tensor_free(&c.out);
    free(before);
    return verdict;
}

/* ---- One shape ---- */

float rotate_x[HEADS][TOKENS][DIM];
static _Alignas(QKV_ALIGNMENT) unsigned char workspace[1 << 16];

qkv_rotate_params rotate_params(int pairs) {
    qkv_rotate_params p;
    qkv_rotate_params_init(&p);
    p.batch = 1;
    p.heads = HEADS;
    p.tokens = TOKENS;
    p.head_dim = DIM;
    p.rope.pairs = pairs;
    return p;
}

qkv_status rotate_rows(const qkv_rotate_params *p, const void *from, void *to,
                       const qkv_context *context) {
    qkv_tensors tensors;
    qkv_exec exec;
    qkv_tensors_init(&tensors);
    tensors.q = qkv_tensor_bhsd(from, HEADS, TOKENS, DIM);
    tensors.out = qkv_tensor_bhsd(to, HEADS, TOKENS, DIM);
    qkv_exec_init(&exec);
    exec.context = context;
    exec.workspace = workspace;
    exec.workspace_size = sizeof workspace;
    return qkv_rotate(p, &tensors, &exec);
}

void rotate_fill(void) {
    for (int i = 0; i < HEADS * TOKENS * DIM; i++)
        ((float *)rotate_x)[i] = rng_normal(rng_hash(test_seed(), (uint64_t)i));
}
