/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest whole program that embeds qkv; README.md shows it from here on. */

#include <qkv/qkv.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 8, TOKENS = 100, DIM = 64, SIZE = HEADS * TOKENS * DIM };
static float q[SIZE], k[SIZE], v[SIZE], out[SIZE]; /* [heads, tokens, dim] */
#define VIEW(data) qkv_tensor_bhsd(data, HEADS, TOKENS, DIM)

int main(void) {
    for (int i = 0; i < SIZE; i++)
        q[i] = (float)(i % 7), k[i] = (float)(i % 5), v[i] = (float)(i % 3);
    qkv_attention_params params;
    qkv_attention_params_init(&params);
    params.batch = 1, params.q_heads = params.kv_heads = HEADS, params.head_dim = DIM;
    params.q_len = params.kv_len = TOKENS, params.flags = QKV_FLAG_CAUSAL;
    qkv_tensors tensors;
    qkv_tensors_init(&tensors);
    tensors.q = VIEW(q), tensors.k = VIEW(k), tensors.v = VIEW(v), tensors.out = VIEW(out);
    qkv_plan plan = {0}; /* made once; tells what memory the calls work in, which is yours */
    qkv_exec exec;
    qkv_exec_init(&exec);
    qkv_status status = qkv_attention_plan(&plan, &params, exec.context);
    exec.workspace_size = qkv_plan_workspace(&plan, exec.threads);
    exec.workspace = aligned_alloc(QKV_ALIGNMENT, exec.workspace_size);
    if (!status)
        status = qkv_execute(&plan, &tensors, &exec);
    printf("%s: %g %g ...\n", qkv_status_string(status), out[SIZE - 2], out[SIZE - 1]);
    free(exec.workspace);
    return status != QKV_OK;
}
