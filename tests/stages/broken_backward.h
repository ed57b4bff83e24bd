/* SPDX-License-Identifier: Apache-2.0 */
/* The part of broken.h's mutants whose stages go backward. */
#ifndef QKV_TEST_BROKEN_BACKWARD_H
#define QKV_TEST_BROKEN_BACKWARD_H

#include <qkv/qkv.h>

int broken_backward_count(void);
const char *broken_backward_name(int mutant);
int broken_backward_make(qkv_context *context, int mutant);
void broken_backward_wrap(qkv_context *context);

#endif
