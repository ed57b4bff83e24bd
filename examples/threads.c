/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call on several threads: the pool of pool.h is handed to qkv as its parallel_for. The result
 * has the same bits as one thread's, which the program checks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"

enum { HEADS = 8, TOKENS = 512, DIM = 64, SIZE = HEADS * TOKENS * DIM };

static float q[SIZE], k[SIZE], v[SIZE]; /* [heads, tokens, dim] */
static float alone[SIZE], together[SIZE];

static void fill(float *data, unsigned seed) {
    for (int i = 0; i < SIZE; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (float)(seed >> 8) * 0x1p-23f - 1.0f;
    }
}

static int call(const qkv_attention_params *params, const qkv_exec *exec, float *out) {
    qkv_tensors tensors;
    qkv_tensors_init(&tensors);
    tensors.q = qkv_tensor_bhsd(q, HEADS, TOKENS, DIM);
    tensors.k = qkv_tensor_bhsd(k, HEADS, TOKENS, DIM);
    tensors.v = qkv_tensor_bhsd(v, HEADS, TOKENS, DIM);
    tensors.out = qkv_tensor_bhsd(out, HEADS, TOKENS, DIM);
    qkv_status status = qkv_attention(params, &tensors, exec);
    if (status != QKV_OK)
        fprintf(stderr, "qkv_attention: %s\n", qkv_status_string(status));
    return status != QKV_OK;
}

int main(void) {
    fill(q, 1);
    fill(k, 2);
    fill(v, 3);
    qkv_attention_params params;
    qkv_attention_params_init(&params);
    params.batch = 1;
    params.q_heads = params.kv_heads = HEADS;
    params.q_len = params.kv_len = TOKENS;
    params.head_dim = DIM;
    params.flags = QKV_FLAG_CAUSAL;

    /* Once, when the program starts: the threads. */
    const int cpus = pool_cpus();
    struct pool *pool = pool_open(cpus);

    /* Once for a shape: how many of them it is worth, and the memory that they work in. */
    qkv_plan plan;
    qkv_exec exec;
    qkv_exec_init(&exec);
    qkv_status status = qkv_attention_plan(&plan, &params, exec.context);
    const int threads = !pool || status ? 1 : plan.threads < cpus ? plan.threads : cpus;
    exec.workspace_size = status ? 0 : qkv_plan_workspace(&plan, threads);
    exec.workspace = status ? NULL : aligned_alloc(QKV_ALIGNMENT, exec.workspace_size);

    int failed = call(&params, &exec, alone);
    exec.parallel_for = pool ? pool_run : NULL;
    exec.pool = pool;
    exec.threads = threads;
    for (int i = 0; i < 10 && !failed; i++)
        failed = call(&params, &exec, together);
    const int same = memcmp(alone, together, sizeof(alone)) == 0;
    if (!failed)
        printf("%d of %d threads, %s bits as one thread\n", threads, cpus,
               same ? "the same" : "other");
    free(exec.workspace);
    pool_close(pool);
    return failed || !same;
}
