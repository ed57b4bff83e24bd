/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qkv: the key/value cache, and attention over it.
 *
 *   K, V of new tokens -> cache               qkv_append (rotary embedding and rounding on the way)
 *   O from Q and the cache                    qkv_decode
 *   O from parts of it computed apart         qkv_merge
 *   rotary embedding of Q                     qkv_rotate
 *
 * The conventions of qkv.h hold. One more promise: for the same stored values, a query's output row
 * has the same bits whether it is computed alone or with others, before or after later tokens were
 * appended, from pages or from one run; and from a float32 cache the bits of qkv_attention.
 */
#ifndef QKV_CACHE_H
#define QKV_CACHE_H

#include <qkv/qkv.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The cache --------------------------------------------------------------------------- */

/* A cache of some sequences' keys and values, all of it in the caller's memory. Tokens stand in
 * pages of page_tokens; a page holds all key/value heads of its tokens, K and V each as one of
 *
 *   QKV_F32, QKV_F16, QKV_BF16   rounded to nearest, ties to even
 *   QKV_I8                       x * (127 / m), both in float32, rounded likewise, and a scale of
 *                                m / 127 for each token and head, where m is the largest |x| of
 *                                the row, and 127 * 2^-126 at least
 *
 * An int8 row of zeros has the scale 0; one that holds a NaN or an infinity has the scale NaN, so
 * that whoever attends to it gets NaN. The same rows leave the same bytes in every room (turned by
 * rope, in every room but scalar, which has no fused multiply-add).
 *
 * Page i of sequence s is page table[s * sequence_pages + i] of memory. The table is the caller's:
 * an entry is looked at when a token goes there, and from then on for as long as the sequence holds
 * that token; others may be anything. Without a table page i of sequence s is page s *
 * sequence_pages + i: one run of memory for each sequence, which one large page makes contiguous.
 *
 * Pages may be shared (qkv_cache_share): holders counts the sequences that have tokens in a page.
 * Nothing is appended to a page that two sequences hold. lengths and holders begin as zeros, and
 * belong to the functions below from then on; memory needs no preparation.
 *
 * Functions that write to a cache may not run at the same time as others on the same sequences;
 * qkv_append_plan is one of them, as it marks what it has seen while it checks. Of those that claim
 * or give up pages (append and its plan, truncate, share, copy, load) one may run at a time, on
 * whatever sequences: holders is one array. */
typedef struct qkv_cache {
    size_t size;
    uint64_t flags;         /* 0 */
    int64_t kv_heads;       /* 1 or more */
    int64_t head_dim;       /* 1 to 512 */
    int64_t v_dim;          /* 1 to 512; 0: as head_dim */
    int64_t page_tokens;    /* a multiple of 16 */
    int64_t pages;          /* in memory; 1 or more */
    int64_t sequences;      /* 1 or more */
    int64_t sequence_pages; /* that a sequence may have; 1 or more */
    int32_t k_dtype, v_dtype;
    void *memory;   /* qkv_cache_memory_size() bytes, aligned to QKV_ALIGNMENT */
    int32_t *table; /* [sequences, sequence_pages], or NULL: then pages = sequences * sequence_pages
                     */
    int32_t *lengths; /* [sequences]: the tokens of each */
    int32_t *holders; /* [pages]; may be NULL if table is */
} qkv_cache;

/* QKV_F32 for both, and zeros. */
QKV_API void qkv_cache_init(qkv_cache *cache);

/* Bytes of one page, and of all; 0 for a cache whose numbers have a fault. Pointers are not looked
 * at. */
QKV_API size_t qkv_cache_page_size(const qkv_cache *cache);
QKV_API size_t qkv_cache_memory_size(const qkv_cache *cache);

/* Checks a cache as every function here does. */
QKV_API qkv_status qkv_cache_check(const qkv_cache *cache);

/* ---- Rotary embedding -------------------------------------------------------------------- */

/* Which two numbers of a row make a pair (Su et al. 2021, RoFormer, section 3.2.2), of the first
 * `dims` numbers: pair i is turned by the angle position * theta^(-2 i / dims). The rest stays. */
typedef enum qkv_rope_pairs {
    QKV_ROPE_NONE,        /* no embedding */
    QKV_ROPE_INTERLEAVED, /* x[2 i] and x[2 i + 1] */
    QKV_ROPE_HALF,        /* x[i] and x[i + dims / 2] */
    QKV_ROPE_COUNT
} qkv_rope_pairs;

typedef struct qkv_rope {
    int32_t pairs; /* a qkv_rope_pairs */
    int32_t reserved;
    int64_t dims;             /* even, at most head_dim; 0: head_dim, which must be even then */
    double theta;             /* 1 or more, finite; of no use with tables */
    const int32_t *positions; /* [batch, tokens] (ragged: [all tokens]), 0 or more; NULL: the place
                                 in the sequence */
    const float *cos, *sin;   /* [table_rows, dims / 2], or both NULL: computed from theta in double
                                 precision by libm, once for all heads of a token; that takes longer
                                 than the rest of the work */
    int64_t table_rows;       /* positions are below it */
} qkv_rope;

/* Rows [first, first + count) of such tables: cos and sin, [count, dims / 2] each, rounded from
 * double precision. */
QKV_API qkv_status qkv_rope_tables(float *cos, float *sin, int64_t first, int64_t count,
                                   int64_t dims, double theta);

/* rotate: out = x with every row turned to its position, as append does it with K. x and out are
 * q and out of the tensors, [batch, heads, tokens, head_dim]; they may be the same view. A plan
 * serves whatever lens, cu, first and positions hold when it runs. */
typedef struct qkv_rotate_params {
    size_t size;
    uint64_t flags; /* 0 */
    int64_t batch;
    int64_t heads;
    int64_t tokens; /* a sequence, at most */
    int64_t head_dim;
    const int32_t *lens;  /* [batch], or NULL: rows beyond stay as they are */
    const int32_t *cu;    /* [batch + 1], or NULL: ragged, as cu_q is */
    const int32_t *first; /* [batch]: the position of each sequence's first row; NULL: 0. Not looked
                             at if rope.positions are there */
    qkv_rope rope;
} qkv_rotate_params;

QKV_API void qkv_rotate_params_init(qkv_rotate_params *params); /* theta 10000 */
QKV_API qkv_status qkv_rotate_plan(qkv_plan *plan, const qkv_rotate_params *params,
                                   const qkv_context *context);
QKV_API qkv_status qkv_rotate_run(const qkv_plan *plan, const qkv_tensors *tensors, int32_t phase,
                                  int64_t begin, int64_t end, const qkv_workspace *workspace);
QKV_API qkv_status qkv_rotate(const qkv_rotate_params *params, const qkv_tensors *tensors,
                              const qkv_exec *exec);

/* ---- Into the cache, and out of it ------------------------------------------------------- */

/* append: the rows of k and v, [batch, kv_heads, tokens, head_dim or v_dim] of the tensors, become
 * the next tokens of the batch's sequences. Either lens (padded: sequence b has lens[b] of its
 * tokens rows) or cu (ragged), or neither. rope turns K on the way; its position is that of the
 * token in the sequence. Nothing is written if anything is wrong: QKV_ARG_CACHE is QKV_FAULT_FULL
 * when a sequence has no room, QKV_ARG_TABLE is QKV_FAULT_RANGE where an entry that is needed lies
 * outside the pages, and QKV_FAULT_SHARED where it names a page that a sequence holds, or a page
 * twice. It needs no workspace without rope.
 *
 * Phase 0 writes rows, phase 1, of one part, the lengths; the call runs the second itself, so that
 * the lengths are as they were if exec->parallel_for fails. A plan holds for one append: when
 * it runs the sequences, their lengths and the numbers of new tokens must be what they were when it
 * was made, else it is QKV_FAULT_STALE of QKV_ARG_PLAN. Positions and the table are looked at
 * again: in phase 0 as far as the parts need them, in phase 1 as a whole. */
typedef struct qkv_append_params {
    size_t size;
    uint64_t flags; /* 0 */
    int64_t batch;
    int64_t tokens;           /* a sequence, at most */
    const int32_t *sequences; /* [batch], all different; NULL: 0, 1, 2, ... */
    const int32_t *lens;      /* [batch], or NULL */
    const int32_t *cu;        /* [batch + 1], or NULL */
    qkv_rope rope;
} qkv_append_params;

QKV_API void qkv_append_params_init(qkv_append_params *params); /* no rope; theta 10000 */
QKV_API qkv_status qkv_append_plan(qkv_plan *plan, const qkv_append_params *params,
                                   const qkv_cache *cache, const qkv_context *context);
QKV_API qkv_status qkv_append_run(const qkv_plan *plan, const qkv_tensors *tensors, int32_t phase,
                                  int64_t begin, int64_t end, const qkv_workspace *workspace);
QKV_API qkv_status qkv_append(const qkv_append_params *params, const qkv_cache *cache,
                              const qkv_tensors *tensors, const qkv_exec *exec);

/* Forgets the tokens of a sequence from `tokens` on; more than it has is QKV_FAULT_RANGE. What
 * remains keeps its bits. */
QKV_API qkv_status qkv_cache_truncate(const qkv_cache *cache, int64_t sequence, int64_t tokens);

/* The first `tokens` tokens of sequence `from` become those of the empty sequence `to`. share:
 * pages that they fill are entered into the table of `to`, and held by both; a last one that they
 * do not fill is copied to the page that the table of `to` has for it. copy: every page is copied
 * to those of `to`. Pages to be copied to must be held by nobody. QKV_ARG_TO is
 * QKV_FAULT_NOT_EMPTY, or QKV_FAULT_CONFLICT where it is `from`; the table is QKV_FAULT_RANGE or
 * QKV_FAULT_SHARED as of append, and QKV_FAULT_CONFLICT where share has none. */
QKV_API qkv_status qkv_cache_share(const qkv_cache *cache, int64_t to, int64_t from,
                                   int64_t tokens);
QKV_API qkv_status qkv_cache_copy(const qkv_cache *cache, int64_t to, int64_t from, int64_t tokens);

/* The stored values of tokens [first, first + tokens) of a sequence as float32 rows, to k and v of
 * the tensors, [1, kv_heads, tokens, head_dim or v_dim]; either may be absent. */
QKV_API qkv_status qkv_cache_export(const qkv_cache *cache, int64_t sequence, int64_t first,
                                    int64_t tokens, const qkv_tensors *tensors,
                                    const qkv_context *context);

/* A sequence as bytes: a header of 64 (magic, version, types, shape, tokens, checksum), then its
 * tokens as they are stored, whatever the pages: the same tokens make the same bytes. load: into an
 * empty sequence of a cache of the same types and shape, whose pages have room; QKV_ARG_BUFFER is
 * QKV_FAULT_LAYOUT for other bytes, QKV_FAULT_TOO_SMALL for too few, QKV_FAULT_CHECKSUM for altered
 * ones, and QKV_FAULT_VALUE where a scale is negative or infinite; the cache is as it was then. The
 * buffer needs no alignment; what is left of it behind the file is not looked at. The size is 0
 * where save would find a fault. */
QKV_API size_t qkv_cache_save_size(const qkv_cache *cache, int64_t sequence);
QKV_API qkv_status qkv_cache_save(const qkv_cache *cache, int64_t sequence, void *buffer,
                                  size_t buffer_size);
QKV_API qkv_status qkv_cache_load(const qkv_cache *cache, int64_t sequence, const void *buffer,
                                  size_t buffer_size);

/* ---- Attention over the cache ------------------------------------------------------------ */

/* decode: attention with the keys and values of a cache: any number of queries a sequence (one
 * token; a draft, its tree as a mask; a chunk of a prompt), with all of attention's parameters but
 * cu_kv. kv_heads, head_dim and v_dim are those of the cache. Entry b of the batch attends to cache
 * sequence sequences[b] (NULL: b; an entry may come twice), of which it sees the length, or
 * kv_lens[b] tokens of it. kv_len is the most that any of them may have when the plan runs: a plan
 * made once for the largest length serves every step. bias and mask have kv_len columns. Reads q;
 * writes out, and lse if it is there.
 *
 * All arithmetic is in float32, with the stored numbers taken exactly; a scale multiplies a key's
 * scores, and its weight on the way to V. Unless the caller asks for QKV_ARITHMETIC_NARROW: then a
 * product with K or V of a type narrower than float32 goes through the processor's instructions for
 * numbers of that width: meant to be faster, and less exact. Queries are rounded to K's type, weights
 * to V's: float16, bfloat16, or integers with a scale of their own for each query row, and for each
 * row and 256 keys. docs/decode.md has the variants, what they round, and the errors. The promises
 * of the bits hold within a variant. params is QKV_FAULT_UNAVAILABLE of QKV_ARG_ARITHMETIC where
 * both K and V are float32, and where one is narrower and qkv_narrow_variant has none for it. */
QKV_API qkv_status qkv_decode_plan(qkv_plan *plan, const qkv_attention_params *params,
                                   const qkv_cache *cache, const int32_t *sequences,
                                   const qkv_context *context);
QKV_API qkv_status qkv_decode_run(const qkv_plan *plan, const qkv_tensors *tensors, int32_t phase,
                                  int64_t begin, int64_t end, const qkv_workspace *workspace);
QKV_API qkv_status qkv_decode(const qkv_attention_params *params, const qkv_tensors *tensors,
                              const qkv_cache *cache, const int32_t *sequences,
                              const qkv_exec *exec);

/* The name of the variant that QKV_ARITHMETIC_NARROW uses for K or V of a dtype, or NULL if the
 * context's features have none. */
QKV_API const char *qkv_narrow_variant(const qkv_context *context, int32_t dtype);

/* merge: attention over several sets of keys from the attention over each, part p with its out[p],
 * [batch, heads, length, v_dim], and lse[p], [batch, heads, length, 1], from left to right:
 *
 *   LSE = log sum_p exp(lse_p)      O = sum_p exp(lse_p - LSE) O_p
 *
 * whose error is that of the LSEs: their rounding, 2^-24 |LSE|, is one of the weights.
 * (FlashAttention-2, section 3.1.1.) Writes out, and lse if it is there, which may be those of part
 * 0. A row of a part whose lse is -inf counts for nothing, whatever its out holds. If the call has
 * a sink, exactly one part was computed with it. */
typedef struct qkv_merge_params {
    size_t size;
    uint64_t flags; /* 0 */
    int64_t batch;
    int64_t heads;
    int64_t length;
    int64_t v_dim; /* 1 to 512 */
    int64_t parts; /* 1 or more */
} qkv_merge_params;

QKV_API void qkv_merge_params_init(qkv_merge_params *params);

typedef struct qkv_merge_tensors {
    size_t size;
    const qkv_tensor *part_out; /* [parts] */
    const qkv_tensor *part_lse; /* [parts] */
    qkv_tensor out, lse;
} qkv_merge_tensors;

QKV_API void qkv_merge_tensors_init(qkv_merge_tensors *tensors);
QKV_API qkv_status qkv_merge_plan(qkv_plan *plan, const qkv_merge_params *params,
                                  const qkv_context *context);
QKV_API qkv_status qkv_merge_run(const qkv_plan *plan, const qkv_merge_tensors *tensors,
                                 int32_t phase, int64_t begin, int64_t end,
                                 const qkv_workspace *workspace);
QKV_API qkv_status qkv_merge(const qkv_merge_params *params, const qkv_merge_tensors *tensors,
                             const qkv_exec *exec);

#ifdef __cplusplus
}
#endif

#endif
