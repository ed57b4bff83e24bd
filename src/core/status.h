/* SPDX-License-Identifier: Apache-2.0 */
/* How a status is put together: the argument in the high part, its fault in the low byte. */
#ifndef QKV_CORE_STATUS_H
#define QKV_CORE_STATUS_H

#include <qkv/qkv.h>

static inline qkv_status qkv_fail(qkv_arg arg, qkv_fault fault) {
    return (qkv_status)arg << 8 | (qkv_status)fault;
}

/* A number of things must be there: 1 or more, and at most so many. */
static inline qkv_status qkv_check_count(int64_t n, int64_t most, qkv_arg arg) {
    if (n < 1)
        return qkv_fail(arg, n ? QKV_FAULT_NEGATIVE : QKV_FAULT_ZERO);
    return n > most ? qkv_fail(arg, QKV_FAULT_RANGE) : QKV_OK;
}

/* Hands a fault on to the caller. */
#define TRY(call)                    \
    do {                             \
        qkv_status status_ = (call); \
        if (status_)                 \
            return status_;          \
    } while (0)

#endif
