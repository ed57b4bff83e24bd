/* SPDX-License-Identifier: Apache-2.0 */
/* What append leaves in a cache's memory, to the byte: a model that takes token by token and number
 * by number, and rounds in double precision. */
#ifndef QKV_TEST_APPEND_MODEL_H
#define QKV_TEST_APPEND_MODEL_H

#include "cache.h"

/* The bytes that a number becomes. */
uint16_t model_f16(float x);
uint16_t model_bf16(float x);

/* A row, with its scale and what its numbers are multiplied by; the integers of int8. */
struct model_row {
    const float *x;
    int64_t n;
    float scale, factor;
};
struct model_row model_row_of(const float *row, int64_t n);
int8_t model_i8(const struct model_row *row, int64_t c);

/* Token t of a sequence (counted from its first) into `memory`, which is that of the cache or a
 * copy of it. */
void model_append(const struct qkv_cache_state *s, char *memory, int64_t sequence, int64_t t,
                  int64_t head, const float *key, const float *value);

/* The number that memory holds: element c of a token's key (which = 0) or value. */
float model_stored(const struct qkv_cache_state *s, char *memory, int64_t sequence, int64_t t,
                   int64_t head, int which, int64_t c);

#endif
