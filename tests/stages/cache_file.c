/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences as bytes: saved from caches of one paging and room, loaded into those of another; and
 * files that are cut short, altered, or of another shape. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "support/cache_case.h"
#include "support/rng.h"
#include "support/rooms.h"

enum { MOST = 112, SEQUENCES = 2, PAIRS = CACHE_TYPES * CACHE_TYPES, HEADER = 64 };

static const struct {
    int64_t tokens, count;
    bool table;
} pagings[] = {{16, 7, true}, {48, 3, true}, {256, 1, true}, {112, 1, false}};
enum { PAGINGS = sizeof pagings / sizeof *pagings };

static const int64_t lengths[] = {0, 1, 2, 5, 16, 31, 35, 48, 50, 100};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

/* What a sequence of every test begins with; odd numbers from `odd` on. */
static token tokens[MOST];

static void make_tokens(int odd) {
    for (int i = 0; i < MOST; i++)
        tokens[i] = (test_seed() << 20) + (uint64_t)i + (i >= odd ? TOKEN_ODD : 0);
}

static struct cache_case make_cache(int pair, int paging) {
    const struct cache_shape shape = {
        .k_dtype = cache_types[pair / CACHE_TYPES],
        .v_dtype = cache_types[pair % CACHE_TYPES],
        .kv_heads = 2,
        .head_dim = 5,
        .v_dim = 18,
        .page_tokens = pagings[paging].tokens,
        .sequences = SEQUENCES,
        .sequence_pages = pagings[paging].count,
        .table = pagings[paging].table,
    };
    return cache_make(&shape, test_seed() + (uint64_t)(pair + paging));
}

static void require(struct verdict verdict) {
    if (!verdict.ok)
        ck_abort_msg("%s", verdict.message);
}

static void require_ok(qkv_status status) {
    ck_assert_msg(status == QKV_OK, "%s", qkv_status_string(status));
}

static void fill(const struct cache_case *c, const qkv_context *context, int64_t count) {
    const int32_t sequence = 0, lens = (int32_t)count;
    require_ok(cache_append(c, context, 1, &sequence, &lens, count, tokens));
}

/* A file of sequence 0 between guard pages, at any alignment. */
static struct guard save(const struct cache_case *c, size_t offset) {
    const size_t size = qkv_cache_save_size(&c->cache, 0);
    ck_assert_uint_ge(size, HEADER);
    struct guard file = guard_alloc(size, 1, offset & 1 ? GUARD_BEGIN : GUARD_END, offset);
    require_ok(qkv_cache_save(&c->cache, 0, file.data, file.size));
    ck_assert(guard_intact(&file));
    return file;
}

/* A cache of `count` tokens and its file. */
struct saved {
    struct cache_case c;
    struct guard file;
};

static struct saved save_new(const qkv_context *context, int pair, int paging, int64_t count,
                             size_t offset) {
    struct saved s = {.c = make_cache(pair, paging)};
    fill(&s.c, context, count);
    s.file = save(&s.c, offset);
    return s;
}

static void saved_free(struct saved *s) {
    cache_free(&s->c);
    guard_free(&s->file);
}

/* ---- There and back ---- */

/* The same tokens are the same bytes from any paging, in any room, at any alignment, and when more
 * had been there; and they come back as they were. */
static void there_and_back(const qkv_context *context, int pair, int paging, int64_t count) {
    const struct room *other = rooms_runnable((pair + paging) % rooms_runnable_count());
    struct saved s = save_new(context, pair, paging, count, (size_t)(count % 8));
    struct cache_case to = make_cache(pair, (paging + 1 + pair % 3) % PAGINGS);
    require_ok(qkv_cache_load(&to.cache, 0, s.file.data, s.file.size));
    require(cache_check_tokens(&to, &other->context, 0, tokens, count));
    require(cache_check_holders(&to));

    struct guard again = save(&to, 3);
    ck_assert_uint_eq(again.size, s.file.size);
    ck_assert_mem_eq(again.data, s.file.data, again.size);

    struct saved rewound = save_new(&other->context, pair, paging, MOST, 0);
    require_ok(qkv_cache_truncate(&rewound.c.cache, 0, count));
    guard_free(&rewound.file);
    rewound.file = save(&rewound.c, 5);
    ck_assert_uint_eq(rewound.file.size, s.file.size);
    ck_assert_mem_eq(rewound.file.data, s.file.data, again.size);
    guard_free(&again);
    cache_free(&to);
    saved_free(&rewound);
    saved_free(&s);
}

START_TEST(a_file_brings_the_same_tokens_back) {
    make_tokens(3);
    for (int pair = 0; pair < PAIRS; pair++)
        for (int paging = 0; paging < PAGINGS; paging++)
            for (int i = 0; i < LENGTHS; i++)
                if ((pair + 3 * paging + i) % (2 * test_stride()) == 0)
                    there_and_back(&rooms_get(_i)->context, pair, paging, lengths[i]);
}
END_TEST

/* What is appended to a loaded sequence stands as if it had never been away. */
START_TEST(a_loaded_sequence_goes_on) {
    make_tokens(20);
    for (int pair = 0; pair < PAIRS; pair++) {
        const qkv_context *context = &rooms_get(_i)->context;
        const int32_t sequence = 0, more = 30;
        struct saved s = save_new(context, pair, 1, 41, 1);
        struct cache_case to = make_cache(pair, 0);
        require_ok(qkv_cache_load(&to.cache, 0, s.file.data, s.file.size));
        require_ok(cache_append(&to, context, 1, &sequence, &more, more, tokens + 41));
        require(cache_check_tokens(&to, context, 0, tokens, 41 + more));
        cache_free(&to);
        saved_free(&s);
    }
}
END_TEST

/* Which panels of V hold infinities or NaN is found anew: as append finds it. */
START_TEST(odd_values_are_marked_as_append_marks_them) {
    for (int odd = 0; odd < 40; odd++) {
        const int pair = odd % PAIRS;
        struct qkv_cache_state from, to;
        int marked = 0;
        make_tokens(odd);
        struct saved s = save_new(&rooms_get(_i)->context, pair, 3, 40, 2);
        struct cache_case c = make_cache(pair, 3);
        require_ok(qkv_cache_load(&c.cache, 0, s.file.data, s.file.size));
        require_ok(qkv_take_cache(&from, &s.c.cache));
        require_ok(qkv_take_cache(&to, &c.cache));
        for (int head = 0; head < 2; head++)
            for (int t = 0; t < 40; t += QKV_PANEL) {
                const int want = *qkv_stored_flag(&from, qkv_page_head(&from, 0, head), t) != 0;
                ck_assert_int_eq(*qkv_stored_flag(&to, qkv_page_head(&to, 0, head), t), want);
                marked += want;
            }
        ck_assert_int_le(marked, 2 * (3 - odd / QKV_PANEL));
        ck_assert(odd > 20 || marked > 0);
        cache_free(&c);
        saved_free(&s);
    }
}
END_TEST

/* ---- The format ---- */

static uint64_t word_at(const unsigned char *p) {
    uint64_t word = 0;
    for (int i = 7; i >= 0; i--)
        word = word << 8 | p[i];
    return word;
}

static void put_word(unsigned char *p, uint64_t word) {
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(word >> 8 * i);
}

/* Of every `step`-th word. */
static uint64_t sum_of(const unsigned char *p, size_t bytes, size_t step) {
    uint64_t sum = 14695981039346656037U;
    for (size_t i = 0; i < bytes; i += 8 * step) {
        sum = (sum ^ word_at(p + i)) * 1099511628211U;
        sum ^= sum >> 32;
    }
    return sum;
}

static uint64_t payload_sum_of(const struct guard *file) {
    unsigned char lanes[32];
    for (size_t i = 0; i < 4; i++)
        put_word(lanes + 8 * i,
                 sum_of(file->data + HEADER + 8 * i, file->size - HEADER - 8 * i, 4));
    return sum_of(lanes, sizeof lanes, 1);
}

/* Makes the checksums those of what is there. */
static void sign(struct guard *file) {
    put_word(file->data + 40, payload_sum_of(file));
    put_word(file->data + 56, sum_of(file->data, 56, 1));
}

/* A file of version 1, byte for byte: one head, two tokens of two numbers, int8 with scales. */
START_TEST(the_format_is_what_it_was) {
    static const unsigned char header[40] = {'q', 'k', 'v', 'c',    'a', 'c',      'h', 'e', 1,
                                             0,   0,   0,   QKV_I8, 0,   QKV_BF16, 0,   1,   0,
                                             0,   0,   2,   0,      3,   0,        2,   0,   0,
                                             0,   16,  0,   0,      0,   64,       2,   0,   0,
                                             0,   0,   0,   0}; /* 64 of K, 16 * 16 * 2 of V, not 64
                                                                   scales */
    const struct cache_shape shape = {QKV_I8, QKV_BF16, 1, 2, 3, 16, 1, 1, false};
    struct cache_case c = cache_make(&shape, 1);
    const float k[2][2] = {{127.0f, -64.0f}, {-254.0f, 2.0f}}, v[2][3] = {{1, 2, 3}, {-1, 0.5f, 4}};
    qkv_append_params params;
    qkv_tensors in;
    qkv_exec exec;
    qkv_append_params_init(&params);
    params.batch = 1;
    params.tokens = 2;
    qkv_tensors_init(&in);
    in.k = qkv_tensor_bhsd((void *)(uintptr_t)k, 1, 2, 2);
    in.v = qkv_tensor_bhsd((void *)(uintptr_t)v, 1, 2, 3);
    qkv_exec_init(&exec);
    exec.context = &rooms_get(_i)->context;
    require_ok(qkv_append(&params, &c.cache, &in, &exec));

    struct guard file = save(&c, 0);
    unsigned char want[HEADER + 64 + 512 + 64] = {0};
    static const float scales[2] = {1.0f, 2.0f};
    static const uint16_t values[3][2] = {{0x3f80, 0xbf80}, {0x4000, 0x3f00}, {0x4040, 0x4080}};
    memcpy(want, header, sizeof header);
    put_word(want + 32, 64 + 512 + 64);
    memcpy(want + HEADER, (const signed char[8]){127, -64, 0, 0, -127, 1, 0, 0}, 8);
    memcpy(want + HEADER + 64, values, sizeof values);
    memcpy(want + HEADER + 64 + 512, scales, sizeof scales);
    struct guard signed_want = guard_alloc(sizeof want, 1, GUARD_END, 0);
    memcpy(signed_want.data, want, sizeof want);
    sign(&signed_want);
    ck_assert_uint_eq(file.size, sizeof want);
    ck_assert_mem_eq(file.data, signed_want.data, sizeof want);
    guard_free(&signed_want);
    guard_free(&file);
    cache_free(&c);
}
END_TEST

/* ---- Refused ---- */

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

static Suite *make(void) {
    const TTest *const tests[] = {
        a_file_brings_the_same_tokens_back,
        a_loaded_sequence_goes_on,
        odd_values_are_marked_as_append_marks_them,
        the_format_is_what_it_was,
        a_file_cut_short_is_refused_at_every_length,
        every_altered_bit_is_found,
        changes_that_would_cancel_out_are_found,
        a_file_of_another_shape_is_refused,
        a_file_that_does_not_fit_is_refused,
        scales_are_looked_at,
        pages_to_load_to_must_be_free,
    };
    Suite *suite = suite_create("cache_file");
    TCase *tcase = tcase_create("rooms");
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
