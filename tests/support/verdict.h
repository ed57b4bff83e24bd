/* SPDX-License-Identifier: Apache-2.0 */
/* What a check found: it returns this instead of aborting, so that the tests of the tests
 * (stages/mutants.c) can ask the same checks about kernels that are broken on purpose. */
#ifndef QKV_TEST_VERDICT_H
#define QKV_TEST_VERDICT_H

#include <stdbool.h>

struct verdict {
    bool ok;
    char message[3000];
};

struct verdict verdict_ok(void);
struct verdict verdict_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Adds a line to the message of a verdict that failed. */
void verdict_add(struct verdict *verdict, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
