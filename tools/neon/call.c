/* SPDX-License-Identifier: Apache-2.0 */
/*
 * call HEADS TOKENS HEAD_DIM CAUSAL COUNT
 *
 * One attention call in the NEON room, COUNT times: tools/neon-report counts the instructions of
 * one call as the difference between two such runs. Exit status 1 if a call fails.
 */
#include <stdio.h>
#include <stdlib.h>

#include <qkv/qkv.h>

/* The same numbers in every run, in about [-1, 1]; memory from QKV_ALIGNMENT on. */
static float *numbers(size_t count, unsigned seed) {
    size_t bytes = (count * sizeof(float) + QKV_ALIGNMENT) / QKV_ALIGNMENT * QKV_ALIGNMENT;
    float *data = aligned_alloc(QKV_ALIGNMENT, bytes);
    for (size_t i = 0; data && i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (float)(int)(seed >> 8) / (float)(1 << 23) - 1.0f;
    }
    return data;
}

int main(int argc, char **argv) {
    long given[5];
    for (int i = 0; i < 5; i++)
        given[i] = i + 1 < argc ? strtol(argv[i + 1], NULL, 10) : 0;
    const long heads = given[0], tokens = given[1], dim = given[2];
    const size_t elements = (size_t)(heads * tokens * dim);

    qkv_attention_params params;
    qkv_attention_params_init(&params);
    params.batch = 1;
    params.q_heads = params.kv_heads = heads;
    params.q_len = params.kv_len = tokens;
    params.head_dim = dim;
    params.flags |= given[3] ? QKV_FLAG_CAUSAL : 0;

    qkv_tensors tensors;
    qkv_tensors_init(&tensors);
    tensors.q = qkv_tensor_bhsd(numbers(elements, 1), heads, tokens, dim);
    tensors.k = qkv_tensor_bhsd(numbers(elements, 2), heads, tokens, dim);
    tensors.v = qkv_tensor_bhsd(numbers(elements, 3), heads, tokens, dim);
    tensors.out = qkv_tensor_bhsd(numbers(elements, 4), heads, tokens, dim);

    qkv_plan plan;
    qkv_exec exec;
    qkv_exec_init(&exec);
    qkv_status status = qkv_attention_plan(&plan, &params, exec.context);
    if (status == QKV_OK) {
        exec.workspace_size = qkv_plan_workspace(&plan, 1);
        exec.workspace = numbers(exec.workspace_size / sizeof(float) + 1, 5);
    }
    for (long i = 0; i < given[4] && status == QKV_OK; i++)
        status = qkv_attention(&params, &tensors, &exec);
    if (status != QKV_OK)
        fprintf(stderr, "call: %s\n", qkv_status_string(status));
    return status != QKV_OK;
}
