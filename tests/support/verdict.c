/* SPDX-License-Identifier: Apache-2.0 */
/* What a check found, put into words. */
#include "verdict.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct verdict verdict_ok(void) {
    struct verdict verdict;
    verdict.ok = true;
    verdict.message[0] = 0;
    return verdict;
}

struct verdict verdict_fail(const char *format, ...) {
    struct verdict verdict;
    verdict.ok = false;
    va_list list;
    va_start(list, format);
    vsnprintf(verdict.message, sizeof verdict.message, format, list);
    va_end(list);
    return verdict;
}

void verdict_add(struct verdict *verdict, const char *format, ...) {
    size_t used = strlen(verdict->message);
    size_t left = sizeof verdict->message - used;
    if (verdict->ok || left < 2)
        return;
    verdict->message[used] = '\n';
    va_list list;
    va_start(list, format);
    vsnprintf(verdict->message + used + 1, left - 1, format, list);
    va_end(list);
}
