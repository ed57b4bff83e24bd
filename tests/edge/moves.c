/* SPDX-License-Identifier: Apache-2.0 */
/* The random calls of fuzz_cache.c as a plain test, in all rooms of this CPU at once. */
#include <check.h>
#include <string.h>

#include "cache_moves.h"
#include "support/rooms.h"

enum { GAMES_MOST = 4000 };

START_TEST(a_cache_is_what_its_model_says) {
    qkv_context contexts[QKV_ISA_COUNT];
    const int games = GAMES_MOST * test_cases() / 2000 + 1, count = rooms_runnable_count();
    for (int i = 0; i < count; i++)
        contexts[i] = rooms_runnable(i)->context;
    for (int i = 0; i < games; i++) {
        struct rng rng = rng_seeded(rng_hash(test_seed(), (uint64_t)i));
        if (test_only() >= 0 && i != test_only())
            continue;
        const struct verdict verdict = check_cache_moves(&rng, contexts, count);
        if (!verdict.ok)
            ck_abort_msg("%s\nQKV_TEST_SEED=%llu QKV_TEST_ONLY=%d", verdict.message,
                         (unsigned long long)test_seed(), i);
    }
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("cache_moves");
    TCase *tcase = tcase_create("games");
    tcase_set_timeout(tcase, 600);
    tcase_add_test(tcase, a_cache_is_what_its_model_says);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
