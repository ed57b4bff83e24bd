/* SPDX-License-Identifier: Apache-2.0 */
/* Put before a room's decode.c and project.c (-include): what it prefetches is told to the test
 * (asked.c). */
#ifndef QKV_TESTS_STAGES_ASKED_LINE_H
#define QKV_TESTS_STAGES_ASKED_LINE_H

#if QKV_X86_64
#include <immintrin.h> /* has prefetches of its own */
#endif

void asked_line(const void *line);

#ifndef ASKED_LINE_TAKES /* the test itself */
#define __builtin_prefetch(...) asked_line((const void *)(ASKED_FIRST(__VA_ARGS__, 0)))
#define ASKED_FIRST(line, ...) line
#endif

#endif
