/* SPDX-License-Identifier: Apache-2.0 */
/* How a status is put together: the argument in the high part, its fault in the low byte. */
#ifndef QKV_CORE_STATUS_H
#define QKV_CORE_STATUS_H

#include <qkv/qkv.h>

static inline qkv_status qkv_fail(qkv_arg arg, qkv_fault fault) {
    return (qkv_status)arg << 8 | (qkv_status)fault;
}

/* Hands a fault on to the caller. */
#define TRY(call)                    \
    do {                             \
        qkv_status status_ = (call); \
        if (status_)                 \
            return status_;          \
    } while (0)

#endif
