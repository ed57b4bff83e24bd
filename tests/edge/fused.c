/* SPDX-License-Identifier: Apache-2.0 */
/* Fused against unfused over random descriptions: what the fuzz target does, for builds without
 * libFuzzer. */
#include "fused_unfused.h"
#include "support/rooms.h"

/* Small enough for the unfused way to be quick, large enough for several blocks. */
static const struct desc_limits limits = {600, 128, 200000};

/* _i is the room. */
START_TEST(random_descriptions) {
    for (int i = 0; i < test_cases() / 5 + 1; i++) {
        struct desc desc = desc_numbered(test_seed(), i, &limits);
        struct verdict verdict;
        if (test_only() >= 0 && i != test_only())
            continue;
        verdict = check_fused_unfused(&rooms_get(_i)->context, &desc);
        ck_assert_msg(verdict.ok, "%s\nreplay: QKV_TEST_SEED=%llu QKV_TEST_ONLY=%d",
                      verdict.message, (unsigned long long)test_seed(), i);
    }
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("fused");
    TCase *test = tcase_create("fused against unfused");

    suite_add_tcase(suite, test);
    tcase_add_room_test(test, random_descriptions);
    return suite;
}

int main(void) {
    return suite_main(make);
}
