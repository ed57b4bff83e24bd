/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan of append holds, and the checks that tell whether the cache can take the tokens. */
#ifndef QKV_CORE_APPEND_H
#define QKV_CORE_APPEND_H

#include "cache.h"
#include "context.h"
#include "rope.h"

struct __attribute__((may_alias)) qkv_append_state {
    uint64_t magic;
    const struct qkv_table *kernels;
    struct qkv_cache_state cache;
    struct qkv_token_rows rows;
    struct qkv_rope_state rope;
    const int32_t *sequences;
    int64_t runs;  /* parts of a sequence and head */
    int64_t run;   /* new tokens of one, at most */
    size_t turned; /* offset in a worker's memory of a panel's keys with rope */
    /* Of the batch's sequences, lengths and new tokens: a plan holds for one append. */
    uint64_t signature;
};

#define QKV_APPEND_MAGIC 0x6e707061766b71ULL /* "qkvappn" */

_Static_assert(sizeof(struct qkv_append_state) <= sizeof(((qkv_plan *)0)->state), "state fits");

static inline int64_t qkv_append_sequence(const struct qkv_append_state *s, int64_t b) {
    return s->sequences ? s->sequences[b] : b;
}

/* The tokens that sequence b of the batch has already. */
static inline int64_t qkv_append_length(const struct qkv_append_state *s, int64_t b) {
    return s->cache.cache.lengths[qkv_append_sequence(s, b)];
}

/* Of which sequences have how many tokens, and get how many more. */
uint64_t qkv_append_signature(const struct qkv_append_state *s);

/* Sequences, lengths, pages and their holders: is there room for every token? Whether the call
 * names a sequence or begins a page twice is found with marks in lengths and holders, which are as
 * they were when it returns; nobody else may look at those of these sequences meanwhile. */
qkv_status qkv_append_check(const struct qkv_append_state *s);

/* By the time that a plan runs the arrays may hold other numbers. Without marks, as parts run at
 * the same time: whether the signature is the same, QKV_FAULT_STALE if not; and the pages of tokens
 * [from, to) of sequence b, counted from its first token in the cache. */
qkv_status qkv_append_check_same(const struct qkv_append_state *s);
qkv_status qkv_append_check_pages(const struct qkv_append_state *s, int64_t b, int64_t from,
                                  int64_t to);

#endif
