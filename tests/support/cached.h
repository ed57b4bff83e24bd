/* SPDX-License-Identifier: Apache-2.0 */
/* A case of attention whose keys and values stand in a cache: the description of the call and of
 * the cache, the cache filled by qkv_append in guarded memory, and in the case's K and V what the
 * cache holds of them, so that the reference of attention judges the output of decode. */
#ifndef QKV_TEST_CACHED_H
#define QKV_TEST_CACHED_H

#include <qkv/cache.h>

#include "case.h"
#include "run.h"

/* Which sequence of the cache an entry of the batch attends to. */
enum mapping {
    MAPPED_PLAINLY, /* its own, and no `sequences` */
    MAPPED_SHUFFLED,
    MAPPED_IN_PAIRS, /* two entries one after the other to the same */
    MAPPED_COUNT
};

struct cached_desc {
    struct desc desc; /* of attention, with K and V as they were before they were stored */
    int32_t k_dtype, v_dtype;
    int64_t page_tokens;
    int64_t chunk; /* tokens that are appended at a time */
    int64_t room;  /* tokens that may be appended later */
    bool table;    /* shuffled pages, else each sequence's are one run of memory */
    bool lens;     /* the sequences are as long as kv_len, and kv_lens says how much is seen */
    enum mapping mapping;
    void (*prepare)(struct test_case *c); /* what to do before K and V are stored, or NULL */
};

struct cached {
    struct cached_desc desc;
    struct test_case c; /* as a call of attention with the stored values */
    qkv_cache cache;
    qkv_attention_params params; /* those of the case, as decode needs them */
    struct decode_params decode;
    bool narrow;         /* decode computes in narrow arithmetic (QKV_TEST_VARIANT) */
    qkv_tensors tensors; /* q, out, lse */
    struct guard memory, table, lengths, holders, sequences;
    unsigned char *before; /* what the cache's memory held when it was filled */
};

/* The four types that a cache stores, and all pairs of them: K's, then V's. Where a variant is
 * tested, the pairs of its type and float32 in turn. */
enum { CACHED_DTYPES = 4, CACHED_PAIRS = CACHED_DTYPES * CACHED_DTYPES };
extern const int32_t cached_dtypes[CACHED_DTYPES];
void cached_set_pair(struct cached_desc *desc, int pair);

/* One page for all that a sequence may hold. */
int64_t cached_one_page(const struct cached_desc *desc);

/* The call in a cache of float32 on shuffled pages of 32 tokens. */
struct cached_desc cached_plain(const struct desc *desc);

/* The random description of a number. */
struct cached_desc cached_numbered(uint64_t seed, int number, const struct desc_limits *limits);

/* Makes the case and fills the cache. Fails if a call does, or if the cache gives back other
 * numbers than the nearest of its type; cached_free follows in any case. */
struct verdict cached_make(struct cached *x, const struct cached_desc *desc,
                           const qkv_context *context);
void cached_free(struct cached *x);

/* Appends rows to a sequence. k and v: [1, kv_heads, tokens, dim]. */
qkv_status cached_append(const struct cached *x, const qkv_context *context, int32_t sequence,
                         const qkv_tensor *k, const qkv_tensor *v, int64_t tokens);

/* The sequence of entry b. */
int32_t cached_sequence(const struct cached *x, int64_t b);

/* The case's call of decode. */
struct call cached_call(const struct cached *x, const qkv_context *context);

/* Fails if decode wrote anything but out and lse, or not all of them. */
struct verdict cached_check_memory(const struct cached *x);

/* True if attention on the stored values must give the same bits: nothing is scaled apart, and the
 * arithmetic is float32. */
bool cached_is_plain(const struct cached *x);

/* Adds the description to a verdict that failed. */
void cached_explain(const struct cached_desc *desc, struct verdict *verdict);

/* Makes a case, runs decode, and compares with the reference and, where the law of the bits says
 * so, with attention. */
struct verdict check_cached(const qkv_context *context, const struct cached_desc *desc);

/* Runs a call on the tensors of a case that was run, and compares the bits of out and lse. */
struct verdict cached_run_again(struct cached *x, const struct call *call, struct how how);

/* The same with attention on the stored values as plain rows, where the law of the bits says so. */
struct verdict cached_run_attention(struct cached *x, const qkv_context *context);

/* A quarter of so many random descriptions. */
struct verdict check_cached_random(const qkv_context *context, int cases);

/* The bits of out and lse of two cases of one description (NaN are alike), which lie alike. */
struct verdict cached_same_bits(const struct test_case *x, const struct test_case *y);

#endif
