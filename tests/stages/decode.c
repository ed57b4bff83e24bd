/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over a cache: every stored type, size and option against the reference over the stored
 * values and, bit for bit where the types allow it, against attention on plain rows. */
#include "decode_suite.h"

#include "options.h"
#include "stage.h"
#include "support/cached.h"

/* Of the reference's work, which is most of what these tests take. */
enum { PRODUCTS = 600000 };

/* ---- Sizes ---- */

static const int64_t q_lens[] = {1, 2, 5, 13, 100};
static const int64_t groups[] = {1, 2, 4, 8};
static const int64_t kv_lens[] = {1,   15,  16,  17,   33,   255,  256,  257,
                                  511, 513, 768, 1023, 1024, 1025, 2047, 2049};
static const int64_t dims[][2] = {{16, 16}, {1, 2},   {7, 33},  {64, 5},
                                  {17, 16}, {31, 64}, {128, 48}};
static const int64_t pages[] = {16, 32, 48, 256, 0};
enum { Q_LENS = 5, GROUPS = 4, KV_LENS = 16, DIMS = 7, PAGES = 5 };

static struct cached_desc sized(int i) {
    struct desc desc = desc_plain();
    const int64_t *dim = dims[i % DIMS];
    desc.seed = test_seed() + (uint64_t)i;
    desc.kv_heads = 1 + i % 2;
    desc.q_len = q_lens[i % Q_LENS];
    desc.q_heads = desc.kv_heads * groups[i / Q_LENS % GROUPS];
    desc.kv_len = kv_lens[i / (Q_LENS * GROUPS) % KV_LENS];
    if (desc.q_heads * desc.q_len * desc.kv_len * (dim[0] + dim[1]) > PRODUCTS)
        dim = dims[1];
    desc.head_dim = dim[0];
    desc.v_dim = dim[1];
    for (int role = 0; role < ROLE_COUNT; role++)
        desc.layout[role].side = i % 3 ? GUARD_BEGIN : GUARD_END;
    struct cached_desc d = cached_plain(&desc);
    cached_set_pair(&d, (i / 3 + i / Q_LENS) % CACHED_PAIRS);
    d.table = i % 7 < 5;
    d.lens = i % 2;
    d.page_tokens = pages[(i / 11) % PAGES];
    d.page_tokens = d.page_tokens ? d.page_tokens : cached_one_page(&d);
    return d;
}

/* Rows at the border between few and many of them, keys at those of panels, blocks and pieces. */
START_TEST(sizes) {
    const int one_in = test_stride();
    for (int i = test_next(-1, one_in); i < Q_LENS * GROUPS * KV_LENS; i = test_next(i, one_in)) {
        const struct cached_desc d = sized(i);
        if (d.desc.q_heads * d.desc.q_len * d.desc.kv_len * 3 > PRODUCTS)
            continue;
        const struct verdict verdict = check_cached(&rooms_get(_i)->context, &d);
        stage_assert(&verdict);
    }
}
END_TEST

/* ---- Options ---- */

/* Few rows or many, one block of keys or three. */
static struct cached_desc with_options(int number, int first, int second) {
    struct desc desc = desc_plain();
    desc.seed = test_seed() + (uint64_t)number;
    desc.q_len = number % 3 ? 3 : 21;
    desc.kv_len = number % 5 ? 41 : 530;
    desc.head_dim = desc.v_dim = number % 2 ? 13 : 16;
    option_set(&desc, first);
    option_set(&desc, second);
    struct cached_desc d = cached_plain(&desc);
    cached_set_pair(&d, number % CACHED_PAIRS);
    d.mapping = (enum mapping)(number / 3 % MAPPED_COUNT);
    d.lens = d.mapping == MAPPED_IN_PAIRS || number % 4 < 2;
    d.table = number % 7 != 0;
    d.page_tokens = pages[number % (PAGES - 1)];
    return d;
}

static void check_options(int room, int number, int first, int second) {
    const struct cached_desc d = with_options(number, first, second);
    struct verdict verdict = check_cached(&rooms_get(room)->context, &d);
    verdict_add(&verdict, "options %s and %s", option_name(first), option_name(second));
    stage_assert(&verdict);
}

START_TEST(options_alone_with_every_type) {
    for (int pair = 0; pair < CACHED_PAIRS; pair++)
        for (int i = pair % test_stride(); i < option_count(); i += test_stride())
            check_options(_i, i * CACHED_PAIRS + pair, i, i);
}
END_TEST

START_TEST(options_pairwise) {
    const int n = option_count();
    const int one_in = 2 * test_stride() + 1;
    for (int i = test_next(-1, one_in); i < n * n; i = test_next(i, one_in))
        check_options(_i, i, i / n, i % n);
}
END_TEST

/* ---- Random descriptions ---- */

START_TEST(random_descriptions) {
    const struct verdict verdict = check_cached_random(&rooms_get(_i)->context, test_cases());
    stage_assert(&verdict);
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("decode");
    TCase *tcase = tcase_create("rooms");
    tcase_add_room_test(tcase, sizes);
    tcase_add_room_test(tcase, options_alone_with_every_type);
    tcase_add_room_test(tcase, options_pairwise);
    tcase_add_room_test(tcase, random_descriptions);
    decode_add_meaning_tests(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
