/* SPDX-License-Identifier: Apache-2.0 */
/* NaN and infinities in a case's inputs: where masks and lengths hide them, or anywhere. */
#include <math.h>

#include "case.h"
#include "ref/ref.h"

/* Seeds of things that have nothing to do with each other. */
enum { SEED_PLACES = 103 };

static float non_finite(uint64_t hash) {
    static const float values[] = {NAN, INFINITY, -INFINITY};
    return values[hash % 3];
}

static void spoil_row(struct tensor *t, int64_t b, int64_t h, int64_t row, uint64_t seed) {
    for (int64_t c = 0; t->view.dtype == QKV_F32 && c < t->dim[3]; c++)
        *tensor_f32(&t->view, b, h, row, c) = non_finite(rng_hash(seed, (uint64_t)(row + c)));
}

static bool any_query_keeps(const struct test_case *c, int64_t b, int64_t kv_head, int64_t j) {
    int64_t group = c->desc.q_heads / c->desc.kv_heads;
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++)
        for (int64_t i = 0; i < ref_queries(&c->params, b); i++)
            if (ref_keeps(&c->params, b, h, i, j))
                return true;
    return false;
}

/* K and V rows that no query keeps. */
static void spoil_keys(struct test_case *c, int64_t b) {
    bool poison = c->desc.values == VALUES_POISON;
    int64_t keys = ref_keys(&c->params, b);
    int64_t rows = c->params.cu_kv ? keys : c->desc.kv_len;
    for (int64_t h = 0; h < c->desc.kv_heads; h++)
        for (int64_t j = poison ? 0 : keys; j < rows; j++) {
            if (j < keys && any_query_keeps(c, b, h, j))
                continue;
            struct ref_place place = ref_key_place(&c->params, b, j);
            spoil_row(&c->tensor[ROLE_K], place.b, h, place.t, c->desc.seed);
            spoil_row(&c->tensor[ROLE_V], place.b, h, place.t, c->desc.seed + 1);
        }
}

static void spoil_pairs_of(struct test_case *c, enum role role, int64_t b, int64_t h, int64_t i) {
    if (c->tensor[role].view.dtype != QKV_F32 || !case_is_input(c, role))
        return;
    struct ref_place place = ref_query_place(&c->params, b, i);
    for (int64_t j = 0; j < c->desc.kv_len; j++)
        if (!ref_keeps(&c->params, b, h, i, j))
            *tensor_f32(&c->tensor[role].view, place.b, h, place.t, j) =
                non_finite(rng_hash(c->desc.seed, (uint64_t)(i * 4096 + j)));
}

/* Of a row that sees no key: what a backward stage reads of it. */
static void spoil_blind_row(struct test_case *c, int64_t b, int64_t h, int64_t i) {
    for (int64_t j = 0; j < ref_keys(&c->params, b); j++)
        if (ref_keeps(&c->params, b, h, i, j))
            return;
    struct ref_place place = ref_query_place(&c->params, b, i);
    if (case_is_input(c, ROLE_OUT))
        spoil_row(&c->tensor[ROLE_Q], place.b, h, place.t, c->desc.seed + 2);
    if (!c->desc.layout[ROLE_D_OUT].zero)
        spoil_row(&c->tensor[ROLE_D_OUT], place.b, h, place.t, c->desc.seed + 3);
}

/* Q rows beyond the sequence, and masked scores and weights. */
static void spoil_queries(struct test_case *c, int64_t b) {
    static const enum role pairs[] = {ROLE_SCORES, ROLE_WEIGHTS, ROLE_D_SCORES, ROLE_D_WEIGHTS};
    for (int64_t h = 0; h < c->desc.q_heads; h++) {
        for (int64_t i = ref_queries(&c->params, b); i < ref_rows(&c->params, b); i++)
            spoil_row(&c->tensor[ROLE_Q], b, h, i, c->desc.seed + 2);
        for (int64_t i = 0; c->desc.values == VALUES_POISON && i < ref_rows(&c->params, b); i++) {
            for (int k = 0; k < 4; k++)
                spoil_pairs_of(c, pairs[k], b, h, i);
            spoil_blind_row(c, b, h, i);
        }
    }
}

/* A few NaN and infinities anywhere in the inputs. */
static void spoil_anywhere(struct test_case *c, enum role role) {
    struct tensor *t = &c->tensor[role];
    const int64_t *dim = t->dim;
    int64_t count = dim[0] * dim[1] * dim[2] * dim[3];
    for (uint64_t k = 0; k < 2 && count > 0; k++) {
        uint64_t hash = rng_hash(c->desc.seed + k, SEED_PLACES + role);
        int64_t at = (int64_t)(hash % (uint64_t)count);
        int64_t row = at / dim[3];
        *tensor_f32(&t->view, row / dim[2] / dim[1], row / dim[2] % dim[1], row % dim[2],
                    at % dim[3]) = non_finite(hash >> 40);
    }
}

void case_spoil(struct test_case *c) {
    bool shared = c->desc.layout[ROLE_K].zero || c->desc.layout[ROLE_V].zero;
    for (int64_t b = 0; b < c->desc.batch; b++) {
        if (!shared)
            spoil_keys(c, b);
        spoil_queries(c, b);
    }
    static const enum role anywhere[] = {ROLE_Q,       ROLE_K,        ROLE_V,         ROLE_SCORES,
                                         ROLE_WEIGHTS, ROLE_D_SCORES, ROLE_D_WEIGHTS, ROLE_D_OUT};
    for (int k = 0; c->desc.values == VALUES_WILD && k < 8; k++)
        if (case_is_input(c, anywhere[k]))
            spoil_anywhere(c, anywhere[k]);
}
