/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are cut short, altered, of another shape or without room: refused, and nothing
 * written. */
#include <string.h>

#include "cache_file_case.h"
#include "support/rooms.h"

/* Loading gives this status, and leaves the cache as it was. */
static void refuse(struct cache_case *c, const void *file, size_t size, qkv_arg arg,
                   qkv_fault fault, const char *what, size_t number) {
    const qkv_status status = qkv_cache_load(&c->cache, 0, file, size);
    ck_assert_msg(status == (qkv_status)(arg << 8 | fault), "%s %zu: %s", what, number,
                  qkv_status_string(status));
    require(cache_check_unchanged(c));
}

/* A small file for the tests that try each of its bytes: _i is the room. */
static struct saved save_small(const qkv_context *context, int type) {
    const struct cache_shape shape = {.k_dtype = cache_types[type],
                                      .v_dtype = cache_types[(type + 3) % CACHE_TYPES],
                                      .kv_heads = 1,
                                      .head_dim = 2,
                                      .v_dim = 1,
                                      .page_tokens = 16,
                                      .sequences = SEQUENCES,
                                      .sequence_pages = 2};
    struct saved s = {.c = cache_make(&shape, 1)};
    fill(&s.c, context, 18);
    s.file = save(&s.c, 0);
    require_ok(qkv_cache_truncate(&s.c.cache, 0, 0));
    cache_remember(&s.c);
    return s;
}

START_TEST(a_file_cut_short_is_refused_at_every_length) {
    make_tokens(5);
    for (int type = 0; type < CACHE_TYPES; type++) {
        struct saved s = save_small(&rooms_get(_i)->context, type);
        for (size_t size = 0; size < s.file.size; size++) {
            struct guard cut = guard_alloc(size, 1, GUARD_END, 0);
            memcpy(cut.data, s.file.data, size);
            refuse(&s.c, cut.data, size, QKV_ARG_BUFFER, QKV_FAULT_TOO_SMALL, "length", size);
            guard_free(&cut);
        }
        require_ok(qkv_cache_load(&s.c.cache, 0, s.file.data, s.file.size + 100));
        saved_free(&s);
    }
}
END_TEST

/* Magic and version tell another file; any other bit is one that was altered. */
START_TEST(every_altered_bit_is_found) {
    make_tokens(5);
    for (int type = 0; type < CACHE_TYPES; type++) {
        struct saved s = save_small(&rooms_get(_i)->context, type);
        for (size_t at = 0; at < s.file.size; at++)
            for (int bit = (int)at % test_stride(); bit < 8; bit += test_stride()) {
                s.file.data[at] ^= (unsigned char)(1 << bit);
                refuse(&s.c, s.file.data, s.file.size, QKV_ARG_BUFFER,
                       at < 12 ? QKV_FAULT_LAYOUT : QKV_FAULT_CHECKSUM, "byte", at);
                s.file.data[at] ^= (unsigned char)(1 << bit);
            }
        require_ok(qkv_cache_load(&s.c.cache, 0, s.file.data, s.file.size));
        saved_free(&s);
    }
}
END_TEST

/* Two words of which the highest bits are altered, or that change places: pairs of changes that a
 * sum, an exclusive or, or a product without the shift would not see. */
static void alter_pair(struct saved *s, size_t at, size_t other) {
    unsigned char *x = s->file.data + at, *y = s->file.data + other, before[16];
    memcpy(before, x, 8);
    memcpy(before + 8, y, 8);
    x[7] ^= 0x80;
    y[7] ^= 0x80;
    refuse(&s->c, s->file.data, s->file.size, QKV_ARG_BUFFER, QKV_FAULT_CHECKSUM, "word", at);
    memcpy(x, before + 8, 8);
    memcpy(y, before, 8);
    if (memcmp(before, before + 8, 8) != 0)
        refuse(&s->c, s->file.data, s->file.size, QKV_ARG_BUFFER, QKV_FAULT_CHECKSUM, "swap", at);
    memcpy(x, before, 8);
    memcpy(y, before + 8, 8);
}

START_TEST(changes_that_would_cancel_out_are_found) {
    make_tokens(MOST);
    struct saved s = save_small(&rooms_get(_i)->context, 0);
    for (size_t at = HEADER; at + 40 <= s.file.size; at += 8) {
        alter_pair(&s, at, at + 8);
        alter_pair(&s, at, at + 32);
    }
    require_ok(qkv_cache_load(&s.c.cache, 0, s.file.data, s.file.size));
    saved_free(&s);
}
END_TEST

/* A header whose checksum is right, with one field that is not this cache's. */
START_TEST(a_file_of_another_shape_is_refused) {
    static const struct {
        size_t at;
        unsigned char byte;
    } fields[] = {{12, QKV_F16}, {13, 1}, {14, QKV_BF16}, {16, 2},  {19, 0x80}, {20, 3}, {21, 1},
                  {22, 2},       {24, 1}, {24, 0},        {28, 32}, {32, 1},    {39, 1}, {48, 1}};
    make_tokens(MOST);
    struct saved s = save_small(&rooms_get(_i)->context, 0);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        unsigned char before[HEADER];
        memcpy(before, s.file.data, HEADER);
        s.file.data[fields[i].at] = fields[i].byte;
        sign(&s.file);
        refuse(&s.c, s.file.data, s.file.size, QKV_ARG_BUFFER, QKV_FAULT_LAYOUT, "field",
               fields[i].at);
        memcpy(s.file.data, before, HEADER);
    }
    saved_free(&s);
}
END_TEST

/* More tokens than a sequence may have: in the file, and in a header that says so. */
START_TEST(a_file_that_does_not_fit_is_refused) {
    make_tokens(MOST);
    struct saved s = save_new(&rooms_get(_i)->context, 6, 0, 33, 0);
    struct cache_case small = make_cache(6, 0);
    small.cache.sequence_pages = 2;
    cache_remember(&small);
    refuse(&small, s.file.data, s.file.size, QKV_ARG_CACHE, QKV_FAULT_FULL, "tokens", 33);
    memset(s.file.data + 24, 0xff, 4);
    sign(&s.file);
    refuse(&small, s.file.data, s.file.size, QKV_ARG_CACHE, QKV_FAULT_FULL, "tokens", UINT32_MAX);
    cache_free(&small);
    saved_free(&s);
}
END_TEST

/* Zero, any positive number and NaN are scales; no others, wherever they stand. */
START_TEST(scales_are_looked_at) {
    static const struct {
        uint32_t bits;
        bool good;
    } scales[] = {{0, true},           {1, true},           {0x3f800000, true},
                  {0x7f7fffff, true},  {0x7f800000, false}, {0x7f800001, true},
                  {0xffc00000, true},  {0x80000000, false}, {0x80000001, false},
                  {0xbf800000, false}, {0xff800000, false}, {0x7fc00000, true}};
    make_tokens(MOST);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        struct saved s = save_small(&rooms_get(_i)->context, 3); /* keys of int8 */
        const size_t panel = (s.file.size - HEADER) / 2;
        memcpy(s.file.data + HEADER + (i & 1 ? 2 : 1) * panel - 64 + 4 * (i % 2), &scales[i].bits,
               4);
        sign(&s.file);
        if (scales[i].good)
            require_ok(qkv_cache_load(&s.c.cache, 0, s.file.data, s.file.size));
        else
            refuse(&s.c, s.file.data, s.file.size, QKV_ARG_BUFFER, QKV_FAULT_VALUE, "scale", i);
        saved_free(&s);
    }
}
END_TEST

/* Pages that do not exist, that somebody holds, or that come twice. */
START_TEST(pages_to_load_to_must_be_free) {
    make_tokens(MOST);
    struct saved s = save_new(&rooms_get(_i)->context, 9, 0, 40, 0);
    const int32_t outside[] = {-1, INT32_MIN, INT32_MAX, (int32_t)s.c.cache.pages};
    int32_t *own = s.c.cache.table + 7;
    for (int i = 0; i < 6; i++) {
        const int32_t before = own[2];
        own[2] = i < 4 ? outside[i] : i == 4 ? own[0] : s.c.cache.table[1];
        cache_remember(&s.c);
        const qkv_status status = qkv_cache_load(&s.c.cache, 1, s.file.data, s.file.size);
        ck_assert_int_eq(status, QKV_ARG_TABLE << 8 | (i < 4 ? QKV_FAULT_RANGE : QKV_FAULT_SHARED));
        require(cache_check_unchanged(&s.c));
        own[2] = before;
    }
    require_ok(qkv_cache_load(&s.c.cache, 1, s.file.data, s.file.size));
    require(cache_check_tokens(&s.c, &rooms_get(_i)->context, 1, tokens, 40));
    require(cache_check_holders(&s.c));
    saved_free(&s);
}
END_TEST

void cache_file_add_refused_tests(TCase *tcase) {
    const TTest *const tests[] = {
        a_file_cut_short_is_refused_at_every_length,
        every_altered_bit_is_found,
        changes_that_would_cancel_out_are_found,
        a_file_of_another_shape_is_refused,
        a_file_that_does_not_fit_is_refused,
        scales_are_looked_at,
        pages_to_load_to_must_be_free,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
