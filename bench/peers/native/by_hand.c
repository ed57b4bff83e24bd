/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention as a user would write it over a good sgemm: for each head and 128 rows of queries,
 * one product for the scores, a softmax over its rows, one product for the output. Under a causal
 * mask the keys beyond the block's last query are left out of both products. The exponential is
 * expf in a plain loop, which the compiler makes a vector function of (-O3 -march=native
 * -ffast-math and glibc's libmvec). Threads take (head, block) pairs; sgemm itself runs serially.
 */
#include <math.h>
#include <stdlib.h>

#include "native.h"
#include "pool.h"

enum { BLOCK = 128 };

typedef void cblas_fn(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                      const float *a, int lda, const float *b, int ldb, float beta, float *c,
                      int ldc);
typedef int dnnl_fn(char transpose_a, char transpose_b, int64_t m, int64_t n, int64_t k,
                    float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                    float beta, float *c, int64_t ldc);

struct native_by_hand {
    struct native_attention call;
    native_sgemm *sgemm;
    int kind;
    int64_t blocks;
    float *scores; /* [threads][BLOCK][kv_len] */
    struct pool *pool;
};

enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };

/* c [m, n] = a [m, k] b; b is [k, n], or [n, k] if transposed. */
static void multiply(const struct native_by_hand *p, int transposed, int64_t m, int64_t n,
                     int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                     int64_t ldc) {
    if (p->kind == NATIVE_DNNL) {
        dnnl_fn *sgemm = (dnnl_fn *)p->sgemm;
        sgemm('N', transposed ? 'T' : 'N', m, n, k, 1.0f, a, lda, b, ldb, 0.0f, c, ldc);
        return;
    }
    cblas_fn *sgemm = (cblas_fn *)p->sgemm;
    sgemm(ROW_MAJOR, PLAIN, transposed ? TRANSPOSED : PLAIN, (int)m, (int)n, (int)k, 1.0f, a,
          (int)lda, b, (int)ldb, 0.0f, c, (int)ldc);
}

/* Leaves exp(scale * (s - max)) in the first `keep` columns, 0 in the others; returns their sum. */
static float weigh_row(float *s, int64_t keep, int64_t n, float scale) {
    float max = s[0];
    for (int64_t i = 1; i < keep; i++) {
        max = s[i] > max ? s[i] : max;
    }
    float sum = 0.0f;
    for (int64_t i = 0; i < keep; i++) {
        s[i] = expf(scale * (s[i] - max));
        sum += s[i];
    }
    for (int64_t i = keep; i < n; i++) {
        s[i] = 0.0f;
    }
    return sum;
}

static void attend_block(const struct native_by_hand *p, int64_t head, int64_t first,
                         float *scores) {
    const struct native_attention *c = &p->call;
    int64_t rows = c->q_len - first < BLOCK ? c->q_len - first : BLOCK;
    int64_t before = c->causal ? c->kv_len - c->q_len + first : 0; /* keys every row sees */
    int64_t keys = c->causal ? before + rows : c->kv_len;
    int64_t kv_head = head / (c->q_heads / c->kv_heads);
    const float *k = c->k + kv_head * c->kv_len * c->dim;
    const float *v = c->v + kv_head * c->kv_len * c->dim;
    const float *q = c->q + (head * c->q_len + first) * c->dim;
    float *out = c->out + (head * c->q_len + first) * c->dim;
    float scale = 1.0f / sqrtf((float)c->dim);
    float sums[BLOCK];

    multiply(p, 1, rows, keys, c->dim, q, c->dim, k, c->dim, scores, keys);
    for (int64_t r = 0; r < rows; r++) {
        sums[r] = weigh_row(scores + r * keys, c->causal ? before + r + 1 : keys, keys, scale);
    }
    multiply(p, 0, rows, c->dim, keys, scores, keys, v, c->dim, out, c->dim);
    for (int64_t r = 0; r < rows; r++) {
        float factor = 1.0f / sums[r];
        for (int64_t i = 0; i < c->dim; i++) {
            out[r * c->dim + i] *= factor;
        }
    }
}

static void attend_parts(void *argument, int worker, int64_t begin, int64_t end) {
    struct native_by_hand *p = argument;
    float *scores = p->scores + (int64_t)worker * BLOCK * p->call.kv_len;
    for (int64_t part = begin; part < end; part++) {
        attend_block(p, part / p->blocks, part % p->blocks * BLOCK, scores);
    }
}

struct native_by_hand *native_by_hand(const struct native_attention *call, native_sgemm *sgemm,
                                      int kind) {
    struct native_by_hand *p = calloc(1, sizeof(*p));
    p->call = *call;
    p->sgemm = sgemm;
    p->kind = kind;
    p->blocks = (call->q_len + BLOCK - 1) / BLOCK;
    size_t bytes = (size_t)(call->threads * BLOCK * call->kv_len) * sizeof(float);
    p->scores = aligned_alloc(64, (bytes + 63) / 64 * 64);
    p->pool = pool_open((int)call->threads);
    return p->scores && p->pool ? p : NULL;
}

int native_by_hand_run(struct native_by_hand *program) {
    int64_t parts = program->call.q_heads * program->blocks;
    return pool_run(program->pool, (int)program->call.threads, parts, attend_parts, program);
}
