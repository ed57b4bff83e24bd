/* SPDX-License-Identifier: Apache-2.0 */
/* A cache's own numbers and pointers, as every function of it sees them; and the arguments of
 * truncate, share and copy. */
#include "arguments_cache.h"

#include <string.h>

/* Sequence 0 has 20 tokens in pages 5 and 2, sequence 1 has five in page 1, and sequence 2 has
 * none; f.file holds sequence 0. */
void fixture_describe_cache(void) {
    static const int32_t table[CACHE_SEQUENCES][CACHE_ENTRIES] = {{5, 2}, {1, 0}, {3, 4}};
    qkv_cache *cache = &f.CACHE;
    qkv_tensors *tensors = &f.EXPORT;

    memset(&f.cache, 0, sizeof f.cache);
    qkv_cache_init(cache);
    cache->kv_heads = KV_HEADS;
    cache->head_dim = DIM;
    cache->v_dim = V_DIM;
    cache->page_tokens = 16;
    cache->pages = CACHE_PAGES;
    cache->sequences = CACHE_SEQUENCES;
    cache->sequence_pages = CACHE_ENTRIES;
    cache->v_dtype = QKV_I8;
    cache->memory = f.cache_memory;
    cache->table = f.table[0];
    cache->lengths = f.lengths;
    cache->holders = f.holders;
    memset(f.cache_memory, 0, sizeof f.cache_memory);
    memset(f.holders, 0, sizeof f.holders);
    memcpy(f.table, table, sizeof table);
    f.lengths[0] = 20;
    f.lengths[1] = 5;
    f.lengths[2] = 0;
    f.holders[5] = f.holders[2] = f.holders[1] = 1;
    f.cache_arg = cache;

    memset(&f.export_tensors, 0, sizeof f.export_tensors);
    qkv_tensors_init(tensors);
    tensors->k = qkv_tensor_bhsd(f.d_k, KV_HEADS, KV_LEN, DIM);
    tensors->v = qkv_tensor_bhsd(f.d_v, KV_HEADS, KV_LEN, V_DIM);
    f.export_tensors_arg = tensors;
    f.sequence = 0;
    f.to = 2;
    f.from = 0;
    f.first = 13;
    f.cached_tokens = KV_LEN;
    f.buffer_arg = f.buffer;
    f.buffer_size = sizeof f.buffer;
    f.file_arg = f.file;
    f.file_size = qkv_cache_save_size(cache, 0);
    ck_assert_int_eq(qkv_cache_save(cache, 0, f.file, sizeof f.file), QKV_OK);
    ck_assert_uint_le(qkv_cache_memory_size(cache), sizeof f.cache_memory);
    fixture_describe_append();
    fixture_describe_decode();
}

/* ---- The calls ---- */

static qkv_status call_check(int stage) {
    (void)stage;
    return qkv_cache_check(f.cache_arg);
}

static qkv_status call_truncate(int stage) {
    (void)stage;
    return qkv_cache_truncate(f.cache_arg, f.sequence, f.cached_tokens);
}

static qkv_status call_share(int stage) {
    (void)stage;
    return qkv_cache_share(f.cache_arg, f.to, f.from, f.cached_tokens);
}

static qkv_status call_copy(int stage) {
    (void)stage;
    return qkv_cache_copy(f.cache_arg, f.to, f.from, f.cached_tokens);
}

/* ---- The cache ---- */

#define COUNT_FAULTS(arg, number)                                       \
    FAULT(IN_CACHE, arg, ZERO, INT64(CACHE.number, 0)),                 \
        FAULT(IN_CACHE, arg, NEGATIVE, INT64(CACHE.number, -1)),        \
        FAULT(IN_CACHE, arg, NEGATIVE, INT64(CACHE.number, INT64_MIN)), \
        FAULT(IN_CACHE, arg, RANGE, INT64(CACHE.number, INT64_MAX)),    \
        FAULT(IN_CACHE, arg, RANGE, INT64(CACHE.number, (int64_t)INT32_MAX + 1))

/* What the size functions can see, too: they answer 0. */
static const struct fault_case cache_numbers[] = {
    FAULT(IN_CACHE, CACHE, NULL, POINTER(cache_arg, NULL)),
    FAULT(IN_CACHE, CACHE, MISALIGNED, MOVE(cache_arg, 4)),
    FAULT(IN_CACHE, CACHE, SIZE, INT64(CACHE.size, 0)),
    FAULT(IN_CACHE, CACHE, SIZE, INT64(CACHE.size, sizeof f.CACHE - 8)),
    FAULT(IN_CACHE, CACHE, SIZE, INT64(CACHE.size, -1)),
    FAULT(IN_CACHE, CACHE, FUTURE, INT64(CACHE.size, sizeof f.cache), INT64(cache.tail[0], 1)),
    FAULT(IN_CACHE, FLAGS, FLAG, INT64(CACHE.flags, 1)),
    COUNT_FAULTS(KV_HEADS, kv_heads),
    COUNT_FAULTS(HEAD_DIM, head_dim),
    FAULT(IN_CACHE, HEAD_DIM, RANGE, INT64(CACHE.head_dim, 513)),
    FAULT(IN_CACHE, V_DIM, NEGATIVE, INT64(CACHE.v_dim, -1)),
    FAULT(IN_CACHE, V_DIM, RANGE, INT64(CACHE.v_dim, 513)),
    COUNT_FAULTS(PAGE_TOKENS, page_tokens),
    FAULT(IN_CACHE, PAGE_TOKENS, MULTIPLE, INT64(CACHE.page_tokens, 1)),
    FAULT(IN_CACHE, PAGE_TOKENS, MULTIPLE, INT64(CACHE.page_tokens, 15)),
    FAULT(IN_CACHE, PAGE_TOKENS, MULTIPLE, INT64(CACHE.page_tokens, 24)),
    COUNT_FAULTS(PAGES, pages),
    COUNT_FAULTS(SEQUENCES, sequences),
    COUNT_FAULTS(SEQUENCE_PAGES, sequence_pages),
    /* a length is a number of 32 bits */
    FAULT(IN_CACHE, SEQUENCE_PAGES, OVERFLOW, INT64(CACHE.sequence_pages, INT32_MAX / 16 + 1)),
    FAULT(IN_CACHE, KV_HEADS, OVERFLOW, INT64(CACHE.kv_heads, INT32_MAX),
          INT64(CACHE.page_tokens, INT32_MAX / 16 * 16), INT64(CACHE.sequence_pages, 1)),
    FAULT(IN_CACHE, PAGES, OVERFLOW, INT64(CACHE.kv_heads, (int64_t)1 << 28),
          INT64(CACHE.pages, INT32_MAX)),
    FAULT(IN_CACHE, K_DTYPE, DTYPE, INT32(CACHE.k_dtype, QKV_DTYPE_NONE)),
    FAULT(IN_CACHE, K_DTYPE, DTYPE, INT32(CACHE.k_dtype, QKV_BOOL)),
    FAULT(IN_CACHE, K_DTYPE, DTYPE, INT32(CACHE.k_dtype, QKV_DTYPE_COUNT)),
    FAULT(IN_CACHE, K_DTYPE, DTYPE, INT32(CACHE.k_dtype, -1)),
    FAULT(IN_CACHE, V_DTYPE, DTYPE, INT32(CACHE.v_dtype, QKV_DTYPE_NONE)),
    FAULT(IN_CACHE, V_DTYPE, DTYPE, INT32(CACHE.v_dtype, QKV_BOOL)),
    FAULT(IN_CACHE, V_DTYPE, DTYPE, INT32(CACHE.v_dtype, INT32_MAX)),
};

static const struct fault_case cache_pointers[] = {
    FAULT(IN_CACHE, MEMORY, NULL, POINTER(CACHE.memory, NULL)),
    FAULT(IN_CACHE, MEMORY, MISALIGNED, MOVE(CACHE.memory, 1)),
    FAULT(IN_CACHE, MEMORY, MISALIGNED, MOVE(CACHE.memory, 32)),
    FAULT(IN_CACHE, TABLE, MISALIGNED, MOVE(CACHE.table, 2)),
    FAULT(IN_CACHE, LENGTHS, NULL, POINTER(CACHE.lengths, NULL)),
    FAULT(IN_CACHE, LENGTHS, MISALIGNED, MOVE(CACHE.lengths, 1)),
    FAULT(IN_CACHE, HOLDERS, NULL, POINTER(CACHE.holders, NULL)),
    FAULT(IN_CACHE, HOLDERS, MISALIGNED, MOVE(CACHE.holders, 2)),
    /* without a table every sequence has its pages */
    FAULT(IN_CACHE, PAGES, RANGE, POINTER(CACHE.table, NULL)),
    FAULT(IN_CACHE, PAGES, RANGE, POINTER(CACHE.table, NULL), POINTER(CACHE.holders, NULL)),
};

static const struct fault_case good_caches[] = {
    FINE(IN_CACHE, MOVE(CACHE.size, 0)),
    FINE(IN_CACHE, INT64(CACHE.size, sizeof f.cache)),
    FINE(IN_CACHE, INT64(CACHE.v_dim, 0)),
    FINE(IN_CACHE, INT64(CACHE.head_dim, 1)),
    FINE(IN_CACHE, POINTER(CACHE.table, NULL), POINTER(CACHE.holders, NULL),
         INT64(CACHE.pages, CACHE_SEQUENCES *CACHE_ENTRIES)),
};

static const struct {
    const char *name;
    argument_call *call;
} calls[] = {
    {"qkv_cache_check", call_check},
    {"truncate", call_truncate},
    {"share", call_share},
    {"copy", call_copy},
    {"export", call_export},
    {"save", call_save},
    {"load", call_load},
    {"append's plan", plan_append},
    {"append", plain_append},
    {"decode's plan", plan_decode},
    {"decode", plain_decode},
};

static void check_cache_pointers(const struct fault_case *c) {
    fixture_edit(c, NULL, QKV_STAGE_APPEND); /* once: a refused call leaves it for the next */
    for (int i = 0; i < COUNT(calls); i++)
        fixture_check(c, calls[i].call(QKV_STAGE_APPEND), calls[i].name, QKV_STAGE_APPEND);
    ck_assert_uint_eq(qkv_cache_save_size(f.cache_arg, 0), 0);
}
TABLE_TEST(cache_pointers, check_cache_pointers)

static void check_cache_numbers(const struct fault_case *c) {
    check_cache_pointers(c);
    ck_assert_uint_eq(qkv_cache_page_size(f.cache_arg), 0);
    ck_assert_uint_eq(qkv_cache_memory_size(f.cache_arg), 0);
}
TABLE_TEST(cache_numbers, check_cache_numbers)

static void check_good_caches(const struct fault_case *c) {
    run_case(c, NULL, "qkv_cache_check", call_check);
    ck_assert_uint_gt(qkv_cache_page_size(f.cache_arg), 0);
    ck_assert_uint_eq(qkv_cache_memory_size(f.cache_arg),
                      qkv_cache_page_size(f.cache_arg) * (size_t)f.CACHE.pages);
}
TABLE_TEST(good_caches, check_good_caches)

/* ---- Sequences and pages ---- */

static const struct fault_case truncate_faults[] = {
    SEQUENCE_FAULTS(SEQUENCE, sequence),
    TOKEN_FAULTS,
    HELD_FAULTS,
    HOLDER_FAULTS,
    FINE(IN_CACHE, INT64(cached_tokens, 20)),
    FINE(IN_CACHE, INT64(cached_tokens, 0)),
    /* pages that it keeps, and entries that it does not need, are not looked at */
    FINE(IN_CACHE, INT32(table[0][0], -1)),
    FINE(IN_CACHE, INT64(sequence, 1), INT32(table[1][1], INT32_MAX), INT64(cached_tokens, 0)),
};

static void check_truncate_faults(const struct fault_case *c) {
    run_case(c, NULL, "truncate", call_truncate);
}
TABLE_TEST(truncate_faults, check_truncate_faults)

/* What share and copy have in common, with all 20 tokens of sequence 0. */
static const struct fault_case inherit_faults[] = {
    SEQUENCE_FAULTS(TO, to),
    SEQUENCE_FAULTS(FROM, from),
    TOKEN_FAULTS,
    HELD_FAULTS,
    HOLDER_FAULTS,
    FAULT(IN_CACHE, TO, CONFLICT, INT64(to, 0)),
    FAULT(IN_CACHE, TO, CONFLICT, INT64(from, 2)),
    FAULT(IN_CACHE, TO, NOT_EMPTY, INT64(to, 1)),
    /* the page that the last tokens are copied to */
    FAULT(IN_CACHE, TABLE, RANGE, INT32(table[2][1], -1)),
    FAULT(IN_CACHE, TABLE, RANGE, INT32(table[2][1], CACHE_PAGES)),
    FAULT(IN_CACHE, TABLE, SHARED, INT32(table[2][1], 1)),
    FAULT(IN_CACHE, TABLE, SHARED, INT32(table[2][1], 2)),
    FAULT(IN_CACHE, TABLE, SHARED, INT32(holders[4], -1)),
    FINE(IN_CACHE, INT32(table[1][1], -1)),
    FINE(IN_CACHE, INT32(table[2][1], 0)),
    FINE(IN_CACHE, INT64(cached_tokens, 16), INT32(table[2][1], -1)),
    FINE(IN_CACHE, INT64(cached_tokens, 0), INT32(table[2][0], -1), INT32(table[2][1], -1)),
};

static void prepare_inherit(int stage) {
    (void)stage;
    f.cached_tokens = 20;
}

static void check_inherit_faults(const struct fault_case *c) {
    run_case(c, prepare_inherit, "share", call_share);
    run_case(c, prepare_inherit, "copy", call_copy);
}
TABLE_TEST(inherit_faults, check_inherit_faults)

static const struct fault_case share_faults[] = {
    FAULT(IN_CACHE, TABLE, CONFLICT, POINTER(CACHE.table, NULL), POINTER(CACHE.holders, NULL),
          INT64(CACHE.pages, CACHE_SEQUENCES *CACHE_ENTRIES)),
    /* all sequences hold it, though one is empty */
    FAULT(IN_CACHE, HOLDERS, RANGE, INT32(holders[5], CACHE_SEQUENCES)),
    FINE(IN_CACHE, INT32(holders[5], CACHE_SEQUENCES - 1)),
    FINE(IN_CACHE, INT32(table[2][0], -1)),
};

static void check_share_faults(const struct fault_case *c) {
    run_case(c, prepare_inherit, "share", call_share);
}
TABLE_TEST(share_faults, check_share_faults)

static const struct fault_case copy_faults[] = {
    FAULT(IN_CACHE, TABLE, RANGE, INT32(table[2][0], -1)),
    FAULT(IN_CACHE, TABLE, SHARED, INT32(table[2][0], 5)),
    FAULT(IN_CACHE, TABLE, SHARED, INT32(table[2][0], 4)), /* twice */
    FINE(IN_CACHE, POINTER(CACHE.table, NULL), POINTER(CACHE.holders, NULL),
         INT64(CACHE.pages, CACHE_SEQUENCES *CACHE_ENTRIES)),
};

static void check_copy_faults(const struct fault_case *c) {
    run_case(c, prepare_inherit, "copy", call_copy);
}
TABLE_TEST(copy_faults, check_copy_faults)

TCase *cache_faults_case(void) {
    TCase *test = tcase_create("cache");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, cache_numbers);
    ADD_TABLE(test, cache_pointers);
    ADD_TABLE(test, good_caches);
    ADD_TABLE(test, truncate_faults);
    ADD_TABLE(test, inherit_faults);
    ADD_TABLE(test, share_faults);
    ADD_TABLE(test, copy_faults);
    return test;
}
