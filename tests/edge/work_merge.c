/* SPDX-License-Identifier: Apache-2.0 */
/* The call of work.h that joins partial results, some of which are empty. */
#include "work_merge.h"

#include <math.h>

enum { ROWS = WORK_MERGED_ROWS, DIM = WORK_MERGED_DIM, PARTS = 3 };

static float part_out[PARTS][ROWS][DIM], part_lse[PARTS][ROWS], lse[ROWS];

float work_merged[ROWS][DIM];

void work_fill_merge(float spread, float uniform(void)) {
    for (int i = 0; i < PARTS * ROWS; i++) {
        part_lse[i / ROWS][i % ROWS] = i % 11 ? spread * uniform() : -INFINITY;
        for (int c = 0; c < DIM; c++)
            part_out[i / ROWS][i % ROWS][c] = i % 11 ? uniform() : NAN;
    }
}

qkv_status work_merge(const qkv_context *context) {
    qkv_tensor outs[PARTS], lses[PARTS];
    qkv_merge_params params;
    qkv_merge_tensors tensors;
    qkv_exec exec;

    qkv_merge_params_init(&params);
    params.batch = params.heads = 1;
    params.length = ROWS;
    params.v_dim = DIM;
    params.parts = PARTS;
    for (int p = 0; p < PARTS; p++) {
        outs[p] = qkv_tensor_bhsd(part_out[p], 1, ROWS, DIM);
        lses[p] = qkv_tensor_bhsd(part_lse[p], 1, ROWS, 1);
    }
    qkv_merge_tensors_init(&tensors);
    tensors.part_out = outs;
    tensors.part_lse = lses;
    tensors.out = qkv_tensor_bhsd(work_merged, 1, ROWS, DIM);
    tensors.lse = qkv_tensor_bhsd(lse, 1, ROWS, 1);
    qkv_exec_init(&exec);
    exec.context = context;
    return qkv_merge(&params, &tensors, &exec);
}
