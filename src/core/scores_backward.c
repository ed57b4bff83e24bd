/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of scores_backward: dQ = scale dS K as values are mixed, row blocks by key blocks; the
 * gradient of bias, which is dS where the masks leave it; dK = scale dS^T Q by blocks of keys
 * (chain.h). */
#include "backward.h"
#include "chain.h"

#include <string.h>

/* A band's rows of dS times K, added to their accumulators. */
static void add_band(const struct qkv_chain *chain, const struct qkv_part *part,
                     const struct qkv_chain_weights *ds, const struct qkv_band *band, int r,
                     const float *values, int bad) {
    const int64_t pad = chain->pad;
    const struct qkv_gemm g = {
        .a = ds->rows + r * ds->ld + band->from,
        .lda = ds->ld,
        .a_k = 1,
        .b = values + band->from * pad,
        .b_k = pad,
        .b_g = QKV_PANEL,
        .c = part->acc + r * pad,
        .ldc = pad,
        .m = band->rows,
        .n = pad,
        .k = band->to - band->from,
        .factor = qkv_numbers(part, QKV_N_FACTOR),
    };
    if (!bad) {
        chain->kernels->gemm(&g);
        return;
    }
    for (int i = 0; i < band->rows; i++)
        chain->kernels->marked(g.c + i * pad, 1.0f, g.a + i * ds->ld, g.b, pad, g.k, pad);
}

static QKV_LARGE_FRAME void query_block(const struct qkv_chain *chain, const struct qkv_part *part,
                                        int64_t b) {
    const struct qkv_chain_kernels *kernels = chain->kernels;
    const struct qkv_key_block block = qkv_part_key_block(part, b);
    struct qkv_chain_weights ds;
    struct qkv_tiles t;
    int bad;

    qkv_lay_tiles(&t, part, &block, kernels->mr, kernels->sees);
    if (!t.any)
        return;
    const int stands = qkv_chain_stands(chain, part, &t);
    if (!stands)
        ds = qkv_chain_load(chain, part, &block, &t, kernels->mr, chain->dim);
    /* The keys' panels may have been in the same memory: nothing reads them below. */
    const float *values = qkv_part_values(part, &block, &kernels->pack, &bad);
    if (stands)
        ds = bad ? qkv_chain_load(chain, part, &block, &t, kernels->mr, chain->dim)
                 : qkv_chain_in_place(chain, part, &block);
    struct qkv_band band;
    for (int r = 0; r < part->rows; r += band.rows) {
        band = qkv_key_band_of(&t, part, kernels->mr, r, &block, kernels->nr, chain->pad);
        if (band.from < band.to)
            add_band(chain, part, &ds, &band, r, values, bad);
    }
}

static void query_part(const struct qkv_chain *chain, const struct qkv_part *part,
                       const qkv_tensor *out) {
    const struct qkv_problem *p = &chain->plan.problem;
    const int64_t end = qkv_round_up(part->hi, QKV_KEY_BLOCK) / QKV_KEY_BLOCK;
    if (chain->uncap)
        qkv_part_load_queries(part);
    memset(part->acc, 0, (size_t)(part->rows * chain->pad) * sizeof(float));
    for (int64_t b = part->lo / QKV_KEY_BLOCK; b < end; b++)
        query_block(chain, part, b);
    /* The rows of a query head at once. */
    for (int r = 0, n; r < part->rows; r += n) {
        const struct qkv_row *row = part->row + r;
        n = (int)qkv_min(part->rows - r, part->sequence.rows - row->index);
        qkv_chain_store(chain, part, qkv_q_row(out, p, &part->sequence, row->head, row->index),
                        out->stride[2], part->acc + r * chain->pad, n);
    }
}

/* One row of the gradient of bias, which has q_len rows a sequence even if the sequences are
 * ragged. */
static void bias_row(const struct qkv_chain *chain, const struct qkv_part *part,
                     const struct qkv_row *row, const qkv_tensor *out) {
    const struct qkv_problem *p = &chain->plan.problem;
    const struct qkv_sequence *s = &part->sequence;
    float *to = (float *)out->data + s->index * out->stride[0] + row->head * out->stride[1] +
                row->index * out->stride[2];
    const float *in = NULL; /* rows beyond the sequence have no scores */
    if (row->index < s->q_len)
        in = qkv_q_row(&chain->tensors.weights, p, s, row->head, row->index);
    for (int64_t c = 0; c < p->kv_len; c += QKV_KEY_BLOCK) {
        const int n = (int)qkv_min(p->kv_len - c, QKV_KEY_BLOCK);
        const struct qkv_score_row chunk = qkv_part_chunk_row(part, row, c, n);
        chain->kernels->keep(to + c, in ? in + c : NULL, &chunk, &p->rule, n);
    }
}

/* The rows of bias are divided into the parts as those of q_len rows a head would be. */
static void bias_part(const struct qkv_chain *chain, int64_t index, const qkv_tensor *out) {
    const struct qkv_plan_state *plan = &chain->plan;
    const struct qkv_problem *p = &plan->problem;
    const qkv_workspace *w = chain->workspace;
    const int64_t row0 = index % plan->row_blocks * plan->rows;
    const int64_t end = qkv_min(row0 + plan->rows, p->group * p->q_len);
    struct qkv_part part;
    qkv_part_open(&part, plan, &chain->tensors, w->shared, w->worker, index / plan->row_blocks);
    for (int64_t r = row0; r < end; r++) {
        struct qkv_row row = {.head = part.kv_head * p->group + r / p->q_len,
                              .index = r % p->q_len};
        row.span = qkv_span_of(p, &part.sequence, row.index);
        bias_row(chain, &part, &row, out);
    }
}

static void rows_part(const struct qkv_chain *chain, const qkv_gradients *gradients,
                      int64_t index) {
    struct qkv_part part;
    if (gradients->q.data && qkv_chain_begin(&part, chain, index))
        query_part(chain, &part, &gradients->q);
    if (gradients->bias.data)
        bias_part(chain, index, &gradients->bias);
}

void qkv_scores_backward_layout(struct qkv_plan_state *s, qkv_plan *plan) {
    qkv_chain_layout(s, plan);
}

void qkv_scores_backward_parts(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                               const qkv_gradients *gradients, const qkv_workspace *workspace,
                               int32_t phase, int64_t begin, int64_t end) {
    const struct qkv_scores_backward_kernels *kernels = plan->table->scores_backward;
    struct qkv_chain chain;
    qkv_chain_open(&chain, plan, workspace);
    chain.kernels = &kernels->chain;
    chain.uncap = plan->problem.rule.softcap > 0.0f ? kernels->uncap : NULL;
    chain.scale = plan->problem.rule.scale;
    chain.tensors.q = tensors->q;
    chain.tensors.k = chain.tensors.v = tensors->k;
    chain.tensors.weights = gradients->scores;
    qkv_chain_run(&chain, rows_part, gradients, &gradients->k, phase, begin, end);
}
