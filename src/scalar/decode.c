/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products with keys and values as a cache stores them (kernels_cache.h) in scalar.
 */
#include "kernels.h"
#include "vec.h"
#include "stored.h"

const struct qkv_decode_kernels qkv_scalar_decode = {
    .variant = ROOM_NAME,
};
