/* SPDX-License-Identifier: Apache-2.0 */
/* What the forward call leaves for its backward twin: out and LSE, by the reference, rounded. Rows
 * beyond a sequence's length hold NaN, as nobody may look at them. */
#include <math.h>
#include <stdlib.h>

#include "case.h"
#include "ref/ref.h"

struct forward_row {
    struct ref_value *weights, *out;
    struct ref_value lse;
};

static struct ref_value *values(int64_t n) {
    struct ref_value *memory = calloc((size_t)n + 1, sizeof *memory);
    if (!memory)
        abort();
    return memory;
}

static void leave_row(struct test_case *c, const struct forward_row *row, int64_t b, int64_t h,
                      int64_t i) {
    const bool beyond = i >= ref_queries(&c->params, b);
    struct ref_place place = ref_query_place(&c->params, b, i);
    for (int64_t x = 0; x < ref_v_dim(&c->params); x++)
        *tensor_f32(&c->tensors.out, place.b, h, place.t, x) =
            beyond ? NAN : (float)row->out[x].value;
    *tensor_f32(&c->tensors.lse, place.b, h, place.t, 0) = beyond ? NAN : (float)row->lse.value;
}

void case_forward(struct test_case *c) {
    const qkv_attention_params *p = &c->params;
    if (!case_is_input(c, ROLE_OUT))
        return;
    struct forward_row row = {.weights = values(p->kv_len), .out = values(ref_v_dim(p))};
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->q_heads; h++)
            for (int64_t i = 0; i < ref_rows(p, b); i++) {
                ref_attention(p, &c->tensors, b, h, i, row.weights, row.out, &row.lse);
                leave_row(c, &row, b, h, i);
            }
    free(row.weights);
    free(row.out);
}
