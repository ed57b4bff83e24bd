/* SPDX-License-Identifier: Apache-2.0 */
/* Into a cache and out of it in AVX-512: the rows of tmpl/cache.h over this room's stored.h, and
 * the rotary embedding. */
#include "kernels.h"
#include "vec.h"
#include "stored.h"

#include "tmpl/cache.h"
#include "tmpl/rotate.h"

const struct qkv_cache_kernels qkv_avx512_cache = {
    .variant = ROOM_NAME,
    CACHE_TYPES,
};

const struct qkv_rotate_kernels qkv_avx512_rotate = {
    .variant = ROOM_NAME,
    .turn = turn_row,
};
