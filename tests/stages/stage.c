/* SPDX-License-Identifier: Apache-2.0 */
/* The tests that every stage has. */
#include "stage.h"

#include "options.h"
#include "support/project_case.h"
#include "sizes.h"

static int stage_under_test;
static void (*add_own_tests)(TCase *tcase);

void stage_assert(const struct verdict *verdict) {
    if (!verdict->ok)
        ck_abort_msg("%s", verdict->message);
}

START_TEST(sizes_alone) {
    struct verdict verdict = check_sizes_alone(&rooms_get(_i)->context, stage_under_test);
    stage_assert(&verdict);
}
END_TEST

START_TEST(sizes_pairwise) {
    struct verdict verdict = check_sizes_pairwise(&rooms_get(_i)->context, stage_under_test);
    stage_assert(&verdict);
}
END_TEST

START_TEST(options_alone) {
    struct verdict verdict = check_options_alone(&rooms_get(_i)->context, stage_under_test);
    stage_assert(&verdict);
}
END_TEST

START_TEST(options_pairwise) {
    struct verdict verdict = check_options_pairwise(&rooms_get(_i)->context, stage_under_test);
    stage_assert(&verdict);
}
END_TEST

START_TEST(random_descriptions) {
    const qkv_context *context = &rooms_get(_i)->context;
    struct verdict verdict = stage_under_test == QKV_STAGE_PROJECT
                                 ? check_project_random(context)
                                 : check_random(context, stage_under_test);
    stage_assert(&verdict);
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create(qkv_stage_name(stage_under_test));
    TCase *tcase = tcase_create("rooms");
    tcase_add_room_test(tcase, sizes_alone);
    tcase_add_room_test(tcase, sizes_pairwise);
    if (stage_under_test != QKV_STAGE_PROJECT) {
        tcase_add_room_test(tcase, options_alone);
        tcase_add_room_test(tcase, options_pairwise);
    }
    tcase_add_room_test(tcase, random_descriptions);
    if (add_own_tests)
        add_own_tests(tcase);
    suite_add_tcase(suite, tcase);
    return suite;
}

int stage_main(int stage, void (*add)(TCase *tcase)) {
    stage_under_test = stage;
    add_own_tests = add;
    return suite_main(make);
}
