/* SPDX-License-Identifier: Apache-2.0 */
/* Statuses as values: taken apart, and put into words. */
#include "arguments.h"

#include <stdio.h>
#include <string.h>

#define TEXT(name, text) text,
static const char *const arguments[QKV_ARG_COUNT] = {"", QKV_ARGS(TEXT)};
static const char *const faults[QKV_FAULT_COUNT] = {"", QKV_FAULTS(TEXT)};
#undef TEXT

static qkv_status made_of(int arg, int fault) {
    return (qkv_status)(arg << 8 | fault);
}

START_TEST(ok_is_zero_and_says_so) {
    ck_assert_int_eq(QKV_OK, 0);
    ck_assert_int_eq(qkv_status_fault(QKV_OK), QKV_FAULT_NONE);
    ck_assert_int_eq(qkv_status_arg(QKV_OK), QKV_ARG_NONE);
    ck_assert_str_eq(qkv_status_string(QKV_OK), "ok");
}
END_TEST

START_TEST(a_sentence_names_the_argument_and_its_fault) {
    char expected[200];

    for (int arg = 1; arg < QKV_ARG_COUNT; arg++)
        for (int fault = 1; fault < QKV_FAULT_COUNT; fault++) {
            qkv_status status = made_of(arg, fault);
            snprintf(expected, sizeof expected, "%s %s", arguments[arg], faults[fault]);
            ck_assert_str_eq(qkv_status_string(status), expected);
            ck_assert_int_eq((int)qkv_status_arg(status), arg);
            ck_assert_int_eq((int)qkv_status_fault(status), fault);
        }
    ck_assert_str_eq(qkv_status_string(made_of(QKV_ARG_KV_HEADS, QKV_FAULT_ZERO)),
                     "kv_heads is zero");
}
END_TEST

/* Whether a number that may be no status at all is taken apart and put into words sensibly. */
static int any_number_is_fine(qkv_status status) {
    int arg = (int)qkv_status_arg(status), fault = (int)qkv_status_fault(status);
    const char *text = qkv_status_string(status);

    if (text == NULL || *text == '\0')
        return 0;
    if (arg != QKV_ARG_NONE && fault != QKV_FAULT_NONE)
        return made_of(arg, fault) == status;
    return arg == QKV_ARG_NONE && fault == QKV_FAULT_NONE &&
           (status == QKV_OK) == (strcmp(text, "ok") == 0);
}

START_TEST(any_number_has_a_string) {
    for (int32_t status = -70000; status < 70000; status++)
        if (!any_number_is_fine(status))
            ck_abort_msg("%d", status);
    for (int bit = 0; bit < 31; bit++) {
        ck_assert(any_number_is_fine(INT32_MIN + (1 << bit)));
        ck_assert(any_number_is_fine(1 << bit));
        ck_assert(any_number_is_fine(INT32_MAX - (1 << bit)));
    }
    ck_assert(any_number_is_fine(INT32_MIN));
    ck_assert(any_number_is_fine(INT32_MAX));
}
END_TEST

START_TEST(the_version_is_the_headers) {
    char expected[40];

    snprintf(expected, sizeof expected, "%d.%d.%d", QKV_VERSION_MAJOR, QKV_VERSION_MINOR,
             QKV_VERSION_PATCH);
    ck_assert_str_eq(qkv_version(), expected);
    ck_assert_str_eq(QKV_VERSION_STRING, expected);
}
END_TEST

TCase *status_case(void) {
    TCase *test = tcase_create("status");

    tcase_set_timeout(test, PATIENCE);
    tcase_add_test(test, ok_is_zero_and_says_so);
    tcase_add_test(test, a_sentence_names_the_argument_and_its_fault);
    tcase_add_test(test, any_number_has_a_string);
    tcase_add_test(test, the_version_is_the_headers);
    return test;
}
