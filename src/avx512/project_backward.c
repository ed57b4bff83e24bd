/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection's gradients in AVX-512: products in the tiles of project.c, the way there in
 * pack.c, and the biases' sums in tmpl/project_backward.h.
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/project_backward.h"

const struct qkv_project_backward_kernels qkv_avx512_project_backward = {
    .variant = ROOM_NAME,
    .multiply = ROOM(multiply),
    .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},
    .turned = ROOM(pack_turned),
    .sum_rows = sum_rows,
    .store = ROOM(store),
    .mr = MR,
    .nr = NR,
};
