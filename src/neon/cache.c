/* SPDX-License-Identifier: Apache-2.0 */
/* Into a cache and out of it in NEON: the rows of tmpl/cache.h over this room's stored.h, and the
 * rotary embedding. */
#include "kernels.h"
#include "vec.h"
#include "stored.h"

#include "tmpl/cache.h"
#include "tmpl/rotate.h"

const struct qkv_cache_kernels qkv_neon_cache = {
    .variant = ROOM_NAME,
    CACHE_TYPES,
};

const struct qkv_rotate_kernels qkv_neon_rotate = {
    .variant = ROOM_NAME,
    .turn = turn_row,
};
