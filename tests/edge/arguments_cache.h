/* SPDX-License-Identifier: Apache-2.0 */
/* What the tables of the cache's functions have in common: rows about sequences and their pages. */
#ifndef QKV_TESTS_ARGUMENTS_CACHE_H
#define QKV_TESTS_ARGUMENTS_CACHE_H

#include "arguments_faults.h"

#define CACHE cache.now
#define EXPORT export_tensors.now
#define IN_CACHE IN_APPEND /* for functions that are no stage */

/* An index of a sequence, and the length that stands there. */
#define SEQUENCE_FAULTS(arg, index)                                               \
    FAULT(IN_CACHE, arg, RANGE, INT64(index, -1)),                                \
        FAULT(IN_CACHE, arg, RANGE, INT64(index, CACHE_SEQUENCES)),               \
        FAULT(IN_CACHE, arg, RANGE, INT64(index, INT64_MIN)),                     \
        FAULT(IN_CACHE, arg, RANGE, INT64(index, INT64_MAX)),                     \
        FAULT(IN_CACHE, LENGTHS, LENGTH, INT64(index, 1), INT32(lengths[1], -1)), \
        FAULT(IN_CACHE, LENGTHS, LENGTH, INT64(index, 1), INT32(lengths[1], 33)), \
        FAULT(IN_CACHE, LENGTHS, LENGTH, INT64(index, 1), INT32(lengths[1], INT32_MAX))

/* The pages that sequence 0 has tokens in. */
#define HELD_FAULTS                                                     \
    FAULT(IN_CACHE, TABLE, RANGE, INT32(table[0][1], -1)),              \
        FAULT(IN_CACHE, TABLE, RANGE, INT32(table[0][1], CACHE_PAGES)), \
        FAULT(IN_CACHE, TABLE, RANGE, INT32(table[0][1], INT32_MAX)),   \
        FAULT(IN_CACHE, TABLE, RANGE, INT32(table[0][1], INT32_MIN))
#define HOLDER_FAULTS                                                            \
    FAULT(IN_CACHE, HOLDERS, RANGE, INT32(holders[2], 0)),                       \
        FAULT(IN_CACHE, HOLDERS, RANGE, INT32(holders[2], -1)),                  \
        FAULT(IN_CACHE, HOLDERS, RANGE, INT32(holders[2], CACHE_SEQUENCES + 1)), \
        FAULT(IN_CACHE, HOLDERS, RANGE, INT32(holders[2], INT32_MAX))
#define TOKEN_FAULTS                                                        \
    FAULT(IN_CACHE, TOKENS, NEGATIVE, INT64(cached_tokens, -1)),            \
        FAULT(IN_CACHE, TOKENS, NEGATIVE, INT64(cached_tokens, INT64_MIN)), \
        FAULT(IN_CACHE, TOKENS, RANGE, INT64(cached_tokens, 21)),           \
        FAULT(IN_CACHE, TOKENS, RANGE, INT64(cached_tokens, INT64_MAX))

/* The calls that must see a cache's faults, with the fixture's arguments. */
argument_call call_export, call_save, call_load;
argument_call plan_append, plain_append, plan_decode, plain_decode;

/* Valid arguments for append and rotate, and for decode. */
void fixture_describe_append(void);
void fixture_describe_decode(void);

#endif
