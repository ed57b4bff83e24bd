/* SPDX-License-Identifier: Apache-2.0 */
/* A sequence that leaves the cache, and one that comes back: export, save and load. */
#include "arguments_cache.h"

qkv_status call_export(int stage) {
    (void)stage;
    return qkv_cache_export(f.cache_arg, f.sequence, f.first, f.cached_tokens, f.export_tensors_arg,
                            f.context_arg);
}

qkv_status call_save(int stage) {
    (void)stage;
    return qkv_cache_save(f.cache_arg, f.sequence, f.buffer_arg, f.buffer_size);
}

/* Into sequence `to`. */
qkv_status call_load(int stage) {
    (void)stage;
    return qkv_cache_load(f.cache_arg, f.to, f.file_arg, f.file_size);
}

/* ---- Export ---- */

static const struct fault_case export_faults[] = {
    SEQUENCE_FAULTS(SEQUENCE, sequence),
    FAULT(IN_CACHE, FIRST, NEGATIVE, INT64(first, -1)),
    FAULT(IN_CACHE, FIRST, NEGATIVE, INT64(first, INT64_MIN)),
    FAULT(IN_CACHE, FIRST, RANGE, INT64(first, 21)),
    FAULT(IN_CACHE, FIRST, RANGE, INT64(first, INT64_MAX)),
    FAULT(IN_CACHE, TOKENS, NEGATIVE, INT64(cached_tokens, -1)),
    FAULT(IN_CACHE, TOKENS, RANGE, INT64(cached_tokens, 8)),
    FAULT(IN_CACHE, TOKENS, RANGE, INT64(first, 20), INT64(cached_tokens, 1)),
    FAULT(IN_CACHE, TOKENS, RANGE, INT64(cached_tokens, INT64_MAX)),
    HELD_FAULTS,
    FAULT(IN_CACHE, TENSORS, NULL, POINTER(export_tensors_arg, NULL)),
    FAULT(IN_CACHE, TENSORS, MISALIGNED, MOVE(export_tensors_arg, 4)),
    FAULT(IN_CACHE, TENSORS, SIZE, INT64(EXPORT.size, 0)),
    FAULT(IN_CACHE, TENSORS, FUTURE, INT64(EXPORT.size, sizeof f.export_tensors),
          INT64(export_tensors.tail[1], 1)),
    FAULT(IN_CACHE, V, OVERLAP, POINTER(EXPORT.v.data, f.d_k)),
    FAULT(IN_CACHE, CONTEXT, MISALIGNED, POINTER(context_arg, (const char *)&f.zeros + 4)),
    FAULT(IN_CACHE, CONTEXT, STALE, POINTER(context_arg, &f.zeros)),
    FINE(IN_CACHE, INT64(first, 20), INT64(cached_tokens, 0)),
    FINE(IN_CACHE, INT32(table[0][1], -1), INT64(first, 0)),
};

/* One sequence: the first stride does not matter. */
static const struct fault_case export_outputs[] = {
    FAULT(IN_CACHE, K, MISALIGNED, MOVE(EXPORT.k.data, 2)),
    FAULT(IN_CACHE, K, DTYPE, INT32(EXPORT.k.dtype, QKV_F16)),
    FAULT(IN_CACHE, K, FUTURE, INT32(EXPORT.k.reserved, 1)),
    FAULT(IN_CACHE, K, STRIDE, INT64(EXPORT.k.stride[3], 0)),
    FAULT(IN_CACHE, K, OVERFLOW, INT64(EXPORT.k.stride[1], INT64_MAX)),
    FAULT(IN_CACHE, K, OVERFLOW, POINTER(EXPORT.k.data, FAR_END)),
    FAULT(IN_CACHE, K, SELF_OVERLAP, INT64(EXPORT.k.stride[1], 0)),
    FAULT(IN_CACHE, K, SELF_OVERLAP, INT64(EXPORT.k.stride[2], DIM - 1)),
    FAULT(IN_CACHE, K, OVERLAP, POINTER(EXPORT.k.data, f.cache_memory)),
    FAULT(IN_CACHE, K, OVERLAP, POINTER(EXPORT.k.data, f.table)),
    FAULT(IN_CACHE, K, OVERLAP, POINTER(EXPORT.k.data, f.lengths)),
    FAULT(IN_CACHE, K, OVERLAP, POINTER(EXPORT.k.data, f.holders)),
    FAULT(IN_CACHE, V, MISALIGNED, MOVE(EXPORT.v.data, 2)),
    FAULT(IN_CACHE, V, DTYPE, INT32(EXPORT.v.dtype, QKV_I8)),
    FAULT(IN_CACHE, V, FUTURE, INT32(EXPORT.v.reserved, 1)),
    FAULT(IN_CACHE, V, STRIDE, INT64(EXPORT.v.stride[3], -1)),
    FAULT(IN_CACHE, V, OVERFLOW, INT64(EXPORT.v.stride[2], INT64_MAX)),
    FAULT(IN_CACHE, V, SELF_OVERLAP, INT64(EXPORT.v.stride[2], V_DIM - 1)),
    FAULT(IN_CACHE, V, OVERLAP, POINTER(EXPORT.v.data, f.cache_memory)),
    FAULT(IN_CACHE, V, OVERLAP, POINTER(EXPORT.v.data, f.holders)),
    FINE(IN_CACHE, POINTER(EXPORT.k.data, NULL)),
    FINE(IN_CACHE, POINTER(EXPORT.v.data, NULL)),
    FINE(IN_CACHE, INT64(EXPORT.k.stride[0], 0)),
};

static void check_export_faults(const struct fault_case *c) {
    run_case(c, NULL, "export", call_export);
}
TABLE_TEST(export_faults, check_export_faults)
TABLE_TEST(export_outputs, check_export_faults)

/* ---- Files ---- */

#define OVERLAP_FAULTS(buffer)                                         \
    FAULT(IN_CACHE, BUFFER, OVERLAP, POINTER(buffer, f.cache_memory)), \
        FAULT(IN_CACHE, BUFFER, OVERLAP, POINTER(buffer, f.table)),    \
        FAULT(IN_CACHE, BUFFER, OVERLAP, POINTER(buffer, f.lengths)),  \
        FAULT(IN_CACHE, BUFFER, OVERLAP, POINTER(buffer, f.holders)),  \
        FAULT(IN_CACHE, BUFFER, OVERLAP, POINTER(buffer, f.cache_memory), MOVE(buffer, -63))

static const struct fault_case save_faults[] = {
    SEQUENCE_FAULTS(SEQUENCE, sequence),
    HELD_FAULTS,
    HOLDER_FAULTS,
    FAULT(IN_CACHE, BUFFER, NULL, POINTER(buffer_arg, NULL)),
    FAULT(IN_CACHE, BUFFER, TOO_SMALL, INT64(buffer_size, 0)),
    FAULT(IN_CACHE, BUFFER, TOO_SMALL, INT64(buffer_size, 63)),
    FAULT(IN_CACHE, BUFFER, TOO_SMALL, INT64(buffer_size, 64)),
    FAULT(IN_CACHE, BUFFER, TOO_SMALL, INT64(buffer_size, 2 * 2 * (256 + 256 + 64) + 63)),
    FINE(IN_CACHE, INT64(buffer_size, 2 * 2 * (256 + 256 + 64) + 64)),
    FINE(IN_CACHE, INT64(buffer_size, -1)),
    FINE(IN_CACHE, MOVE(buffer_arg, 3), INT64(buffer_size, CACHE_FILE - 3)),
    FINE(IN_CACHE, INT64(sequence, 2), INT64(buffer_size, 64)),
    OVERLAP_FAULTS(buffer_arg),
};

static void check_save_faults(const struct fault_case *c) {
    run_case(c, NULL, "save", call_save);
}
TABLE_TEST(save_faults, check_save_faults)

static const struct fault_case load_faults[] = {
    SEQUENCE_FAULTS(SEQUENCE, to),
    FAULT(IN_CACHE, SEQUENCE, NOT_EMPTY, INT64(to, 0)),
    FAULT(IN_CACHE, SEQUENCE, NOT_EMPTY, INT64(to, 1)),
    FAULT(IN_CACHE, BUFFER, NULL, POINTER(file_arg, NULL)),
    FAULT(IN_CACHE, BUFFER, TOO_SMALL, INT64(file_size, 0)),
    FAULT(IN_CACHE, BUFFER, TOO_SMALL, INT64(file_size, 63)),
    FAULT(IN_CACHE, BUFFER, TOO_SMALL, INT64(file_size, 64)),
    FAULT(IN_CACHE, BUFFER, TOO_SMALL, MOVE(file_size, -1)),
    FAULT(IN_CACHE, BUFFER, LAYOUT, BYTE(file[0], 'Q')),
    FAULT(IN_CACHE, BUFFER, LAYOUT, BYTE(file[8], 2)), /* a later version */
    FAULT(IN_CACHE, BUFFER, LAYOUT, POINTER(file_arg, f.shared)),
    FAULT(IN_CACHE, BUFFER, CHECKSUM, BYTE(file[24], 21)),
    FAULT(IN_CACHE, BUFFER, CHECKSUM, BYTE(file[64], 1)),
    FAULT(IN_CACHE, BUFFER, LAYOUT, INT32(CACHE.k_dtype, QKV_BF16)),
    FAULT(IN_CACHE, BUFFER, LAYOUT, INT32(CACHE.v_dtype, QKV_F16)),
    FAULT(IN_CACHE, BUFFER, LAYOUT, INT64(CACHE.head_dim, DIM - 1)),
    FAULT(IN_CACHE, BUFFER, LAYOUT, INT64(CACHE.v_dim, V_DIM + 1)),
    FAULT(IN_CACHE, BUFFER, LAYOUT, INT64(CACHE.kv_heads, 1)),
    FAULT(IN_CACHE, CACHE, FULL, INT64(CACHE.sequence_pages, 1)),
    FAULT(IN_CACHE, TABLE, RANGE, INT32(table[2][1], -1)),
    FAULT(IN_CACHE, TABLE, RANGE, INT32(table[2][0], CACHE_PAGES)),
    FAULT(IN_CACHE, TABLE, SHARED, INT32(table[2][1], 5)),
    FAULT(IN_CACHE, TABLE, SHARED, INT32(table[2][1], 3)), /* twice */
    OVERLAP_FAULTS(file_arg),
    FINE(IN_CACHE, MOVE(file_size, 1)),
    FINE(IN_CACHE, INT64(file_size, -1)),
};

static void check_load_faults(const struct fault_case *c) {
    run_case(c, NULL, "load", call_load);
}
TABLE_TEST(load_faults, check_load_faults)

TCase *cache_file_faults_case(void) {
    TCase *test = tcase_create("cache files");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, export_faults);
    ADD_TABLE(test, export_outputs);
    ADD_TABLE(test, save_faults);
    ADD_TABLE(test, load_faults);
    return test;
}
