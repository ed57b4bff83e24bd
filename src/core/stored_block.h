/* SPDX-License-Identifier: Apache-2.0 */
/* A block of keys and values where a cache has them, for one sequence and key/value head. */
#ifndef QKV_CORE_STORED_BLOCK_H
#define QKV_CORE_STORED_BLOCK_H

#include "block.h"

/* The panels [first, end) of a block, by their place in it. */
struct qkv_stored_block {
    const void *k[QKV_BLOCK_PANELS], *v[QKV_BLOCK_PANELS];
    const float *k_scale[QKV_BLOCK_PANELS], *v_scale[QKV_BLOCK_PANELS]; /* of I8 alone */
    int first, end;
    int bad; /* some value is not finite */
};

/* Those of a key/value head that hold the block's columns [lo, hi), which are not empty. */
void qkv_find_block(struct qkv_stored_block *s, const struct qkv_part *part, int64_t head,
                    const struct qkv_key_block *block);

/* The panels of keys that are wanted once this block is done: those of the part's next one, or of
 * the next head's first. Returns how many, at most QKV_BLOCK_PANELS; 0 if there are none. */
int qkv_find_next(const void **panel, const struct qkv_part *part,
                  const struct qkv_key_block *block);

/* As the products with packed blocks take them, in the cache itself or unpacked into the part's
 * memory, which overwrites the block that was there: keys [panel][head_dim][16] and values
 * [key][v_pad], both counted from the block's first. Of I8 the integers. */
const float *qkv_unpacked_keys(const struct qkv_stored_block *s, const struct qkv_part *part);
const float *qkv_unpacked_values(const struct qkv_stored_block *s, const struct qkv_part *part,
                                 const struct qkv_key_block *block);

#endif
