/* SPDX-License-Identifier: Apache-2.0 */
/* The tests of the tests: kernels broken on purpose. Each mutant is a context of which one kernel
 * is replaced by a wrapper that does the work wrongly, and the checks of the stage suites must
 * fail with it; a mutant that survives fails this suite. The checks run in a process of their own,
 * as a mutant may run into a guard page. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broken.h"
#include "options.h"
#include "sizes.h"
#include "stage.h"
#include "support/cached.h"
#include "support/project_case.h"
#include "support/sanitized.h"
#include "support/stages.h"

/* Decode's types make its random descriptions many: a mutant is looked for in so many of them,
 * however few the suites take, since the first that finds it ends the search. */
enum { DECODE_CASES = 2000 };

/* The checks of the stage suites, the quick ones first. */
static struct verdict check_stage(const qkv_context *context, int stage) {
    if (stage == QKV_STAGE_DECODE)
        return check_cached_random(context, DECODE_CASES);
    struct verdict verdict = check_sizes_alone(context, stage);
    if (stage == QKV_STAGE_PROJECT)
        return verdict.ok ? check_project_random(context) : verdict;
    if (verdict.ok)
        verdict = check_options_alone(context, stage);
    if (verdict.ok)
        verdict = check_options_pairwise(context, stage);
    return verdict.ok ? check_random(context, stage) : verdict;
}

/* scores, softmax, mix and attention */
enum { BACKWARD_STAGES = 4 };

enum outcome { SURVIVED, FAILED_A_CHECK, HIT_A_GUARD };
static const char *const outcome_names[] = {"survived", "failed a check", "hit a guard page"};

/* Runs in the child; its exit status is an outcome. */
static _Noreturn void report(const qkv_context *context, int stage) {
    struct verdict verdict = check_stage(context, stage);
    char *end = strchr(verdict.message, '\n');
    if (end)
        *end = 0;
    if (!verdict.ok)
        printf("    %s\n", verdict.message);
    fflush(stdout);
    _exit(verdict.ok ? SURVIVED : FAILED_A_CHECK);
}

/* A mutant may also be killed by the guard page's signal, or by a sanitizer with a status of its
 * own; whatever else ends it has found nothing. */
static enum outcome outcome_of(const qkv_context *context, int stage) {
    fflush(stdout);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        report(context, stage);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) <= FAILED_A_CHECK)
        return (enum outcome)WEXITSTATUS(status);
    ck_assert_msg(SANITIZED || (WIFSIGNALED(status) &&
                                (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS)),
                  "ended with the wait status 0x%x", (unsigned)status);
    return HIT_A_GUARD;
}

START_TEST(every_mutant_is_found) {
    const struct room *room = rooms_get(_i);
    int survivors = 0;
    for (int m = 0; m < broken_count(); m++) {
        /* Only a guard page tells what was read, and with slack there is none near. */
        if (guard_slack() && strstr(broken_name(m), "reads_past_the_end"))
            continue;
        qkv_context context = room->context;
        int stage = broken_make(&context, m);
        printf("%s %s %s:\n", room->name, qkv_stage_name(stage), broken_name(m));
        enum outcome outcome = outcome_of(&context, stage);
        printf("    %s\n", outcome_names[outcome]);
        survivors += outcome == SURVIVED;
    }
    ck_assert_msg(survivors == 0, "%d of %d mutants survived in room %s", survivors, broken_count(),
                  room->name);
}
END_TEST

/* With gaps between all rows and no guard page near, only the canaries can tell. */
static struct verdict check_with_gaps(const qkv_context *context, int stage) {
    const struct layout gaps = {.gap = {3, 3, 3}, .side = GUARD_BEGIN};
    struct project_desc p = project_desc_plain();
    struct desc d = desc_plain();
    for (int role = 0; role < PROJECT_ROLES; role++)
        p.place[role] = gaps;
    for (int role = 0; role < ROLE_COUNT; role++)
        d.layout[role] = gaps;
    return stage == QKV_STAGE_PROJECT ? check_project(context, &p) : check_desc(context, stage, &d);
}

START_TEST(canaries_find_what_is_written_past_a_row) {
    int found = 0;
    for (int m = 0; m < broken_count(); m++) {
        if (!strstr(broken_name(m), "writes_past_the_end"))
            continue;
        qkv_context context = rooms_get(_i)->context;
        int stage = broken_make(&context, m);
        struct verdict verdict = check_with_gaps(&context, stage);
        ck_assert_msg(!verdict.ok && strstr(verdict.message, "lies in a gap"), "%s: %s",
                      broken_name(m), verdict.message);
        found++;
    }
    ck_assert_int_eq(found, FORWARD_STAGES + BACKWARD_STAGES);
}
END_TEST

/* A context whose kernels are wrapped and not broken must pass: the wrapping is not what fails. */
START_TEST(wrapped_but_not_broken_passes) {
    for (int stage = 0; stage <= QKV_STAGE_ATTENTION_BACKWARD; stage++) {
        if (stage >= FORWARD_STAGES && !stage_is_backward(stage))
            continue;
        qkv_context context = rooms_get(_i)->context;
        broken_wrap(&context);
        struct verdict verdict = verdict_ok();
        if (!stage_is_backward(stage))
            verdict = check_sizes_alone(&context, stage);
        stage_assert(&verdict);
        if (stage != QKV_STAGE_PROJECT)
            verdict = check_options_alone(&context, stage);
        stage_assert(&verdict);
    }
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("mutants");
    TCase *tcase = tcase_create("rooms");
    tcase_add_room_test(tcase, wrapped_but_not_broken_passes);
    tcase_add_room_test(tcase, every_mutant_is_found);
    tcase_add_room_test(tcase, canaries_find_what_is_written_past_a_row);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
