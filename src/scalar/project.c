/* SPDX-License-Identifier: Apache-2.0 */
/* The projection in plain C: the product is gemm.c's, the packing pack.c's, the rows' way out
 * tmpl/project.h's. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/project.h"

const struct qkv_project_kernels qkv_scalar_project = {
    .variant = ROOM_NAME,
    .gemm = ROOM(gemm),
    .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},
    .store = ROOM(store),
    .mr = MR,
    .nr = NR,
};
