/* SPDX-License-Identifier: Apache-2.0 */
/* Truncate, share and copy: what each sequence holds afterwards, who holds which page, and what
 * may be appended then; for every pair of types, at every edge of panels and pages. */
#include <string.h>

#include "cache.h"
#include "support/cache_case.h"
#include "support/rng.h"
#include "support/rooms.h"

enum { MOST = 112, SEQUENCES = 4, PAIRS = CACHE_TYPES * CACHE_TYPES };

/* Pages of one panel, of three, of more than there are tokens, and one run for each sequence. */
static const struct {
    int64_t tokens, count;
    bool table;
} pagings[] = {{16, 7, true}, {48, 3, true}, {256, 1, true}, {112, 1, false}, {16, 7, false}};
enum { PAGINGS = sizeof pagings / sizeof *pagings };

static const int64_t lengths[] = {1, 2, 3, 15, 16, 17, 31, 33, 47, 48, 49, 96, 100};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

struct world {
    struct cache_case c;
    const qkv_context *context;
    token held[SEQUENCES][MOST];
    int64_t length[SEQUENCES];
    token next;
};

static struct world make_world(int room, int pair, int paging) {
    const struct cache_shape shape = {
        .k_dtype = cache_types[pair / CACHE_TYPES],
        .v_dtype = cache_types[pair % CACHE_TYPES],
        .kv_heads = 2,
        .head_dim = 5,
        .v_dim = 3,
        .page_tokens = pagings[paging].tokens,
        .sequences = SEQUENCES,
        .sequence_pages = pagings[paging].count,
        .table = pagings[paging].table,
    };
    return (struct world){.c = cache_make(&shape, test_seed() + (uint64_t)(pair + paging)),
                          .context = &rooms_get(room)->context,
                          .next = test_seed() << 20};
}

static void require(struct verdict verdict) {
    if (!verdict.ok)
        ck_abort_msg("%s", verdict.message);
}

static void require_ok(qkv_status status) {
    ck_assert_msg(status == QKV_OK, "%s", qkv_status_string(status));
}

/* Every sequence holds its tokens, and every page's holders are counted. */
static void look_at_all(const struct world *w) {
    require(cache_check_holders(&w->c));
    for (int s = 0; s < SEQUENCES; s++)
        require(cache_check_tokens(&w->c, w->context, s, w->held[s], w->length[s]));
}

static qkv_status try_append(struct world *w, int32_t sequence, int32_t count) {
    token *tokens = w->held[sequence] + w->length[sequence];
    for (int32_t i = 0; i < count; i++, w->next++)
        tokens[i] = w->next | (w->next % 5 ? 0 : TOKEN_ODD);
    const qkv_status status = cache_append(&w->c, w->context, 1, &sequence, &count, count, tokens);
    if (status == QKV_OK)
        w->length[sequence] += count;
    return status;
}

static void append(struct world *w, int32_t sequence, int64_t count) {
    require_ok(try_append(w, sequence, (int32_t)count));
}

static void truncate_to(struct world *w, int sequence, int64_t tokens) {
    require_ok(qkv_cache_truncate(&w->c.cache, sequence, tokens));
    w->length[sequence] = tokens;
}

static void inherit(struct world *w, int to, int from, int64_t tokens) {
    memcpy(w->held[to], w->held[from], sizeof w->held[to]);
    w->length[to] = tokens;
}

static bool is_chosen(int pair, int paging, int i, int j) {
    const int number = ((pair * PAGINGS + paging) * 16 + i) * 16 + j;
    return test_takes((uint64_t)number, 5 * test_stride());
}

/* ---- Truncate ---- */

/* A draft is rewound, and another one written over it. */
static void rewind_draft(int room, int pair, int paging, int64_t tokens, int64_t kept) {
    struct world w = make_world(room, pair, paging);
    append(&w, 2, 20);
    append(&w, 1, tokens);
    truncate_to(&w, 1, kept);
    look_at_all(&w);
    append(&w, 1, tokens - kept < 7 ? tokens - kept : 7);
    look_at_all(&w);
    append(&w, 1, tokens - w.length[1]);
    truncate_to(&w, 2, 0);
    look_at_all(&w);
    cache_free(&w.c);
}

START_TEST(a_rewound_draft_leaves_what_was_before) {
    for (int pair = 0; pair < PAIRS; pair++)
        for (int paging = 0; paging < PAGINGS; paging++)
            for (int i = 0; i < LENGTHS; i++)
                for (int j = 0; j <= i; j++)
                    if (is_chosen(pair, paging, i, j))
                        rewind_draft(_i, pair, paging, lengths[i], j ? lengths[j] : 0);
}
END_TEST

/* Of a page of its own, one that another sequence holds as well, and one that it alone is left
 * with, truncate lets go of exactly one hold each. */
START_TEST(pages_are_let_go_one_holder_at_a_time) {
    struct world w = make_world(_i, 0, 0);
    append(&w, 0, 40);
    const int32_t first = w.c.cache.table[0];
    for (int s = 1; s < SEQUENCES; s++) {
        require_ok(qkv_cache_share(&w.c.cache, s, 0, 32));
        inherit(&w, s, 0, 32);
        ck_assert_int_eq(w.c.cache.holders[first], s + 1);
    }
    for (int s = 0; s < SEQUENCES; s++) {
        truncate_to(&w, s, 1);
        ck_assert_int_eq(w.c.cache.holders[first], SEQUENCES - s);
        truncate_to(&w, s, 0);
        ck_assert_int_eq(w.c.cache.holders[first], SEQUENCES - s - 1);
        look_at_all(&w);
    }
    cache_free(&w.c);
}
END_TEST

/* ---- Share and copy ---- */

typedef qkv_status inherit_fn(const qkv_cache *, int64_t, int64_t, int64_t);

/* Both go on by themselves afterwards, and neither sees what the other does. A source whose last
 * page is held by both may not be appended to, until the other lets go. */
static void branch_off(int room, int pair, int paging, int64_t tokens, int64_t shared,
                       inherit_fn *function) {
    struct world w = make_world(room, pair, paging);
    append(&w, 0, tokens);
    require_ok(function(&w.c.cache, 3, 0, shared));
    inherit(&w, 3, 0, shared);
    look_at_all(&w);
    append(&w, 3, 9);
    append(&w, 0, 5);
    look_at_all(&w);
    truncate_to(&w, 0, shared / 2);
    look_at_all(&w);
    truncate_to(&w, 3, 0);
    append(&w, 0, 11);
    look_at_all(&w);
    cache_free(&w.c);
}

static void branch_off_everywhere(int room, inherit_fn *function) {
    for (int pair = 0; pair < PAIRS; pair++)
        for (int paging = 0; paging < PAGINGS; paging++)
            for (int i = 0; i < LENGTHS; i++)
                for (int j = 0; j <= i; j++)
                    if (is_chosen(pair, paging, i, j) &&
                        (pagings[paging].table || function == qkv_cache_copy))
                        branch_off(room, pair, paging, lengths[i], j ? lengths[j] : 0, function);
}

START_TEST(a_shared_prefix_serves_both) {
    branch_off_everywhere(_i, qkv_cache_share);
}
END_TEST

START_TEST(a_copy_serves_both) {
    branch_off_everywhere(_i, qkv_cache_copy);
}
END_TEST

/* Whole pages are entered into the table, and no entry beyond them is changed. */
START_TEST(sharing_enters_pages_and_copies_the_last) {
    struct world w = make_world(_i, 5, 0);
    int32_t *own = w.c.cache.table + 7, before[7];
    append(&w, 0, 60);
    memcpy(before, own, sizeof before);
    require_ok(qkv_cache_share(&w.c.cache, 1, 0, 35));
    inherit(&w, 1, 0, 35);
    ck_assert_mem_eq(own, w.c.cache.table, 2 * sizeof *own);
    ck_assert_mem_eq(own + 2, before + 2, 5 * sizeof *own);
    ck_assert_int_eq(w.c.cache.holders[own[0]], 2);
    ck_assert_int_eq(w.c.cache.holders[own[2]], 1);
    look_at_all(&w);
    cache_free(&w.c);
}
END_TEST

/* Of the page that is copied to, what lies beyond the tokens' panels stays as it was. */
START_TEST(a_copy_writes_no_more_than_its_panels) {
    struct world w = make_world(_i, 15, 2);
    const qkv_cache *c = &w.c.cache;
    append(&w, 0, 100);
    cache_remember(&w.c);
    require_ok(qkv_cache_copy(c, 1, 0, 20));
    const size_t page = qkv_cache_page_size(c), at = (size_t)c->table[1] * page;
    size_t changed = 0;
    for (size_t i = 0; i < w.c.memory.size; i++)
        if (w.c.memory.data[i] != w.c.before[0][i]) {
            ck_assert(i >= at && i < at + page);
            changed++;
        }
    /* of each head two panels with units of four bytes, 128 bytes of scales, 2 of flags */
    ck_assert_uint_gt(changed, 0);
    ck_assert_uint_le(changed, 2 * (2 * (128 + 256) + 2 * 128 + 2));
    cache_free(&w.c);
}
END_TEST

static int flag_of(const qkv_cache *cache, int64_t sequence, int64_t head, int64_t t) {
    struct qkv_cache_state s;
    require_ok(qkv_take_cache(&s, cache));
    char *page_head = qkv_page_head(&s, qkv_page_of(&s, sequence, t), head);
    return *qkv_stored_flag(&s, page_head, t % cache->page_tokens);
}

/* A panel of V that holds infinities or NaN says so in its copy as well. */
START_TEST(marks_of_odd_values_are_copied) {
    struct world w = make_world(_i, 1, 1);
    int marked = 0;
    append(&w, 0, 80);
    require_ok(qkv_cache_copy(&w.c.cache, 1, 0, 70));
    require_ok(qkv_cache_share(&w.c.cache, 2, 0, 70));
    for (int head = 0; head < 2; head++)
        for (int t = 0; t < 70; t += QKV_PANEL) {
            const int flag = flag_of(&w.c.cache, 0, head, t);
            ck_assert_int_eq(flag_of(&w.c.cache, 1, head, t), flag);
            ck_assert_int_eq(flag_of(&w.c.cache, 2, head, t), flag);
            marked += flag;
        }
    ck_assert_int_gt(marked, 0);
    ck_assert_int_lt(marked, 10);
    cache_free(&w.c);
}
END_TEST

/* A full page stays what its holders have read, whoever goes on. */
START_TEST(nothing_is_appended_to_a_shared_page) {
    const qkv_status shared = QKV_ARG_TABLE << 8 | QKV_FAULT_SHARED;
    struct world w = make_world(_i, 10, 1);
    append(&w, 0, 48);
    require_ok(qkv_cache_share(&w.c.cache, 1, 0, 48));
    inherit(&w, 1, 0, 48);
    truncate_to(&w, 1, 40);
    cache_remember(&w.c);
    ck_assert_int_eq(try_append(&w, 1, 1), shared);
    require(cache_check_unchanged(&w.c));
    truncate_to(&w, 0, 40);
    cache_remember(&w.c);
    ck_assert_int_eq(try_append(&w, 0, 9), shared);
    require(cache_check_unchanged(&w.c));
    truncate_to(&w, 1, 0);
    append(&w, 0, 9);
    look_at_all(&w);
    cache_free(&w.c);
}
END_TEST

/* ---- Counts ---- */

/* Holders need not be there without a table. */
START_TEST(a_cache_without_a_table_needs_no_holders) {
    struct world w = make_world(_i, 0, 4);
    w.c.cache.holders = NULL;
    append(&w, 0, 50);
    require_ok(qkv_cache_copy(&w.c.cache, 1, 0, 33));
    inherit(&w, 1, 0, 33);
    truncate_to(&w, 0, 3);
    for (int s = 0; s < SEQUENCES; s++)
        require(cache_check_tokens(&w.c, w.context, s, w.held[s], w.length[s]));
    cache_free(&w.c);
}
END_TEST

/* Of a page that the table names twice, the second is found when the first is claimed already. */
START_TEST(a_refused_copy_lets_go_of_what_it_claimed) {
    const qkv_status shared = QKV_ARG_TABLE << 8 | QKV_FAULT_SHARED;
    struct world w = make_world(_i, 3, 0);
    int32_t *own = w.c.cache.table + 7;
    append(&w, 0, 60);
    own[3] = own[1];
    cache_remember(&w.c);
    ck_assert_int_eq(qkv_cache_copy(&w.c.cache, 1, 0, 60), shared);
    require(cache_check_unchanged(&w.c));
    require_ok(qkv_cache_copy(&w.c.cache, 1, 0, 48));
    inherit(&w, 1, 0, 48);
    look_at_all(&w);
    cache_free(&w.c);
}
END_TEST

static Suite *make(void) {
    const TTest *const tests[] = {
        a_rewound_draft_leaves_what_was_before,
        pages_are_let_go_one_holder_at_a_time,
        a_shared_prefix_serves_both,
        a_copy_serves_both,
        sharing_enters_pages_and_copies_the_last,
        a_copy_writes_no_more_than_its_panels,
        marks_of_odd_values_are_copied,
        nothing_is_appended_to_a_shared_page,
        a_cache_without_a_table_needs_no_holders,
        a_refused_copy_lets_go_of_what_it_claimed,
    };
    Suite *suite = suite_create("cache_pages");
    TCase *tcase = tcase_create("rooms");
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
