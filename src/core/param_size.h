/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a caller's parameter struct. Such a struct begins with its size, by which a caller that
 * was compiled against another header is understood: what an older caller does not have is zero,
 * and what a newer one has beyond this library must be zero, or it would be ignored unseen. */
#ifndef QKV_CORE_PARAM_SIZE_H
#define QKV_CORE_PARAM_SIZE_H

#include <string.h>

#include "status.h"

/* No struct of ours comes near this: a larger size is memory that nobody initialised, and looking
 * for its last byte would leave the caller's object. */
#define QKV_STRUCT_SIZE_MAX ((size_t)4096)

static inline int qkv_all_zero(const unsigned char *bytes, size_t n) {
    size_t i = 0;
    while (i < n && bytes[i] == 0)
        i++;
    return i == n;
}

/* Copies the struct at src, whose first member is `size_t size`, to the dst_size bytes at dst, and
 * fills up with zeros. min_size: the size of the struct in the first header that had it. dst is
 * unspecified after a fault; src may be anything a caller hands in. */
static inline qkv_status qkv_take_struct(void *dst, size_t dst_size, const void *src,
                                         size_t min_size, qkv_arg arg) {
    size_t size;

    if (src == NULL)
        return qkv_fail(arg, QKV_FAULT_NULL);
    if ((uintptr_t)src % _Alignof(uint64_t) != 0)
        return qkv_fail(arg, QKV_FAULT_MISALIGNED);
    memcpy(&size, src, sizeof size);
    if (size < min_size || size > QKV_STRUCT_SIZE_MAX)
        return qkv_fail(arg, QKV_FAULT_SIZE);
    if (size > dst_size) {
        if (!qkv_all_zero((const unsigned char *)src + dst_size, size - dst_size))
            return qkv_fail(arg, QKV_FAULT_FUTURE);
        size = dst_size;
    }
    memcpy(dst, src, size);
    memset((unsigned char *)dst + size, 0, dst_size - size);
    return QKV_OK;
}

#endif
