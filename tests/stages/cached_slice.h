/* SPDX-License-Identifier: Apache-2.0 */
/* Some rows of one entry of a call of decode as a call of their own, with all query heads or one of
 * each group, over as much of the sequence as they see. The law of the bits says that nothing
 * changes. */
#ifndef QKV_TEST_CACHED_SLICE_H
#define QKV_TEST_CACHED_SLICE_H

#include "support/cached.h"

struct cached_slice {
    int64_t b;
    int64_t first, rows; /* of the entry's queries */
    int64_t member;      /* of each group; -1: all */
    int64_t more;        /* by how much the plan's kv_len is above what is seen */
};

/* Runs the slice and compares its bits with those rows of the finished case. A slice that cannot be
 * a call of its own is fine. */
struct verdict cached_slice_check(const struct cached *x, const qkv_context *context,
                                  const struct cached_slice *slice);

/* By how much kv_len may be above that of the case: bias and mask have so many columns. */
bool cached_kv_len_is_free(const struct cached *x);

#endif
