/* SPDX-License-Identifier: Apache-2.0 */
/* What merge is for: attention over pieces of the keys, each computed apart, joined, is attention
 * over all of them. */
#include <math.h>
#include <stdlib.h>

#include "merge_case.h"
#include "ref/merge.h"
#include "support/case.h"
#include "support/compare.h"
#include "support/rng.h"
#include "support/rooms.h"

enum { BATCH = 2, HEADS = 4, KV_HEADS = 2, ROWS = 3, DIM = 24, V_DIM = 20, PIECES = 3 };

/* A piece of the keys as a call of its own, with an output of its own. */
struct piece {
    qkv_attention_params params;
    qkv_tensors tensors;
    float out[BATCH][HEADS][ROWS][V_DIM];
    float lse[BATCH][HEADS][ROWS];
};

static void *key(const qkv_tensor *t, int dimension, int64_t from) {
    const int64_t size = t->dtype == QKV_BOOL ? 1 : (int64_t)sizeof(float);
    return t->data ? (char *)t->data + from * t->stride[dimension] * size : NULL;
}

/* Keys [from, to); the sinks belong to one of the pieces. */
static void cut(struct piece *piece, const struct test_case *c, int64_t from, int64_t to,
                bool has_sinks) {
    piece->params = c->params;
    piece->params.kv_len = to - from;
    piece->params.mask.data = key(&c->params.mask, 3, from);
    if (!has_sinks)
        piece->params.sinks = NULL;
    qkv_tensors_init(&piece->tensors);
    piece->tensors.q = c->tensors.q;
    piece->tensors.k = c->tensors.k;
    piece->tensors.k.data = key(&c->tensors.k, 2, from);
    piece->tensors.v = c->tensors.v;
    piece->tensors.v.data = key(&c->tensors.v, 2, from);
    piece->tensors.out = qkv_tensor_bhsd(piece->out, HEADS, ROWS, V_DIM);
    piece->tensors.lse = qkv_tensor_bhsd(piece->lse, HEADS, ROWS, 1);
}

static struct verdict attend(const qkv_context *context, const struct piece *piece) {
    const struct call call = {context, QKV_STAGE_ATTENTION, &piece->params, &piece->tensors};
    return run_call(&call, merge_plainly);
}

/* The whole row, and by how much the errors of the pieces move what they are joined to. */
struct expected {
    struct ref_value out[V_DIM], lse;
};

static void reference(struct expected *e, const qkv_attention_params *params,
                      const qkv_tensors *tensors, int64_t b, int64_t h, int64_t i) {
    struct ref_value *weights = calloc((size_t)params->kv_len + 1, sizeof *weights);
    ck_assert_ptr_nonnull(weights);
    ref_attention(params, tensors, b, h, i, weights, e->out, &e->lse);
    free(weights);
}

static void expect(struct expected *whole, const struct test_case *c, const struct piece *pieces,
                   const qkv_merge_params *params, const qkv_merge_tensors *tensors,
                   const int64_t at[3]) {
    struct ref_value joined[V_DIM], joined_lse;
    reference(whole, &c->params, &c->tensors, at[0], at[1], at[2]);
    ref_merge(params, tensors, at[0], at[1], at[2], joined, &joined_lse);
    whole->lse.bound = joined_lse.bound;
    for (int x = 0; x < V_DIM; x++)
        whole->out[x].bound = joined[x].bound;
    for (int p = 0; p < PIECES; p++) {
        struct expected part;
        reference(&part, &pieces[p].params, &pieces[p].tensors, at[0], at[1], at[2]);
        if (part.lse.value == -INFINITY)
            continue;
        const double share = exp(part.lse.value - whole->lse.value);
        whole->lse.bound += 1.01 * share * part.lse.bound;
        for (int x = 0; x < V_DIM; x++)
            whole->out[x].bound += 1.01 * share *
                                   (part.out[x].bound +
                                    fabs(part.out[x].value - whole->out[x].value) * part.lse.bound);
    }
}

static void check_row(const struct expected *e, const float *out, float lse) {
    const char *fault = compare_value(lse, &e->lse);
    if (fault)
        ck_abort_msg("lse %.9g %s: %.17g +- %.3g", (double)lse, fault, e->lse.value, e->lse.bound);
    for (int x = 0; x < V_DIM; x++) {
        fault = compare_value(out[x], e->out + x);
        if (fault)
            ck_abort_msg("out[%d] %.9g %s: %.17g +- %.3g", x, (double)out[x], fault,
                         e->out[x].value, e->out[x].bound);
    }
}

static void check_cut(const qkv_context *context, const struct test_case *c, int64_t first,
                      int64_t second) {
    static struct piece pieces[PIECES];
    static float out[BATCH][HEADS][ROWS][V_DIM], lse[BATCH][HEADS][ROWS];
    const int64_t ends[PIECES + 1] = {0, first, second, c->params.kv_len};
    qkv_tensor outs[PIECES], lses[PIECES];
    qkv_merge_params params;
    qkv_merge_tensors tensors;
    for (int p = 0; p < PIECES; p++) {
        cut(pieces + p, c, ends[p], ends[p + 1], p == 1);
        merge_require(attend(context, pieces + p));
        outs[p] = pieces[p].tensors.out;
        lses[p] = pieces[p].tensors.lse;
    }
    qkv_merge_params_init(&params);
    params.batch = BATCH;
    params.heads = HEADS;
    params.length = ROWS;
    params.v_dim = V_DIM;
    params.parts = PIECES;
    qkv_merge_tensors_init(&tensors);
    tensors.part_out = outs;
    tensors.part_lse = lses;
    tensors.out = qkv_tensor_bhsd(out, HEADS, ROWS, V_DIM);
    tensors.lse = qkv_tensor_bhsd(lse, HEADS, ROWS, 1);
    const struct call call = {context, QKV_STAGE_MERGE, &params, &tensors};
    merge_require(run_call(&call, merge_plainly));
    for (int64_t row = 0; row < (int64_t)BATCH * HEADS * ROWS; row++) {
        const int64_t at[3] = {row / ROWS / HEADS, row / ROWS % HEADS, row % ROWS};
        struct expected whole;
        expect(&whole, c, pieces, &params, &tensors, at);
        check_row(&whole, out[at[0]][at[1]][at[2]], lse[at[0]][at[1]][at[2]]);
    }
}

/* Masks leave some pieces nothing of some rows; a piece without keys has the sink alone. */
START_TEST(attention_over_pieces_of_the_keys) {
    static const int64_t cuts[][2] = {{0, 0}, {1, 40}, {37, 37}, {16, 299}, {300, 300}};
    struct desc d = desc_plain();
    d.batch = BATCH;
    d.q_heads = HEADS;
    d.kv_heads = KV_HEADS;
    d.q_len = ROWS;
    d.kv_len = 300;
    d.head_dim = DIM;
    d.v_dim = V_DIM;
    d.lse = true;
    const int one_in = test_stride() < 5 ? 1 : 5;
    for (int i = test_next(-1, one_in); i < 20; i = test_next(i, one_in)) {
        struct test_case c;
        d.seed = test_seed() + (uint64_t)i;
        d.sinks = i % 2;
        d.mask = i % 4 > 1;
        d.spread = i % 3 ? 1.0f : 5.0f;
        case_make(&c, &d, STAGES_ONE(QKV_STAGE_ATTENTION));
        check_cut(&rooms_get(_i)->context, &c, cuts[i % 5][0], cuts[i % 5][1]);
        case_free(&c);
    }
}
END_TEST

void merge_add_attention_tests(TCase *tcase) {
    tcase_add_room_test(tcase, attention_over_pieces_of_the_keys);
}
