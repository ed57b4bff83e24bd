/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels broken on purpose, one way at a time, around the kernels of any room. */
#ifndef QKV_TEST_BROKEN_H
#define QKV_TEST_BROKEN_H

#include <qkv/qkv.h>

int broken_count(void);
const char *broken_name(int mutant);

/* Replaces one kernel of the context by a broken one. Returns the stage that it belongs to. */
int broken_make(qkv_context *context, int mutant);

/* Replaces the tables by copies of themselves, with wrappers that change nothing. */
void broken_wrap(qkv_context *context);

#endif
