/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the table test that every tensor of attention's stages needs, and every output. */
#ifndef QKV_TESTS_ARGUMENTS_FAULTS_H
#define QKV_TESTS_ARGUMENTS_FAULTS_H

#include "arguments.h"

#define FAR_END \
    ((const void *)(UINTPTR_MAX - 63)) /* of the address space: nothing fits behind it */

/* What can be wrong with any tensor. */
#define ANY_FAULT(stages, arg, view)                                        \
    FAULT(stages, arg, MISALIGNED, MOVE(view.data, 1)),                     \
        FAULT(stages, arg, MISALIGNED, MOVE(view.data, 2)),                 \
        FAULT(stages, arg, DTYPE, INT32(view.dtype, QKV_DTYPE_NONE)),       \
        FAULT(stages, arg, DTYPE, INT32(view.dtype, QKV_BOOL)),             \
        FAULT(stages, arg, DTYPE, INT32(view.dtype, QKV_DTYPE_COUNT)),      \
        FAULT(stages, arg, DTYPE, INT32(view.dtype, INT32_MIN)),            \
        FAULT(stages, arg, FUTURE, INT32(view.reserved, 1)),                \
        FAULT(stages, arg, OVERFLOW, INT64(view.stride[0], INT64_MAX)),     \
        FAULT(stages, arg, OVERFLOW, INT64(view.stride[0], INT64_MIN)),     \
        FAULT(stages, arg, OVERFLOW, INT64(view.stride[1], INT64_MAX / 4)), \
        FAULT(stages, arg, OVERFLOW, INT64(view.stride[1], INT64_MIN / 4)), \
        FAULT(stages, arg, OVERFLOW, INT64(view.stride[2], INT64_MAX / 8)), \
        FAULT(stages, arg, OVERFLOW, POINTER(view.data, FAR_END))

/* And with one whose rows have elements. */
#define ROW_FAULT(stages, arg, view)                                                  \
    ANY_FAULT(stages, arg, view), FAULT(stages, arg, NULL, POINTER(view.data, NULL)), \
        FAULT(stages, arg, STRIDE, INT64(view.stride[3], 0)),                         \
        FAULT(stages, arg, STRIDE, INT64(view.stride[3], 2)),                         \
        FAULT(stages, arg, STRIDE, INT64(view.stride[3], -1))

/* What can be wrong with an output besides: rows that share an element. The heads of a row lie
 * side by side, `width` elements each. */
#define OUTPUT_FAULT(stages, arg, view, heads, length, width)                                    \
    FAULT(stages, arg, SELF_OVERLAP, INT64(view.stride[0], 0)),                                  \
        FAULT(stages, arg, SELF_OVERLAP, INT64(view.stride[1], 0)),                              \
        FAULT(stages, arg, SELF_OVERLAP, INT64(view.stride[2], 0)),                              \
        FAULT(stages, arg, SELF_OVERLAP, INT64(view.stride[0], (length) * (heads) * (width)-1)), \
        FAULT(stages, arg, SELF_OVERLAP, INT64(view.stride[1], (width)-1)),                      \
        FAULT(stages, arg, SELF_OVERLAP, INT64(view.stride[1], -(width) + 1),                    \
              MOVE(view.data, 4 * (heads) * (width))),                                           \
        FAULT(stages, arg, SELF_OVERLAP, INT64(view.stride[2], (heads) * (width)-1)),            \
        FAULT(stages, arg, SELF_OVERLAP, INT64(view.stride[2], width)),                          \
        FINE(stages, INT64(view.stride[1], -(width)), MOVE(view.data, 4 * ((heads)-1) * (width)))

#endif
