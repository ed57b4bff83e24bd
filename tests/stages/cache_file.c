/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences as bytes: saved from caches of one paging and room, loaded into those of another; and
 * the format, byte for byte. */
#include <string.h>

#include "cache.h"
#include "cache_file_case.h"
#include "support/rooms.h"

static const int64_t lengths[] = {0, 1, 2, 5, 16, 31, 35, 48, 50, 100};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

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
                if (test_takes((uint64_t)((pair * PAGINGS + paging) * LENGTHS + i),
                               2 * test_stride()))
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

static Suite *make(void) {
    const TTest *const tests[] = {
        a_file_brings_the_same_tokens_back,
        a_loaded_sequence_goes_on,
        odd_values_are_marked_as_append_marks_them,
        the_format_is_what_it_was,
    };
    Suite *suite = suite_create("cache_file");
    TCase *tcase = tcase_create("rooms");
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
    cache_file_add_refused_tests(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
