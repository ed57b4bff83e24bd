/* SPDX-License-Identifier: Apache-2.0 */
/* The part of broken.h's mutants that append to a cache and attend to it. */
#ifndef QKV_TEST_BROKEN_DECODE_H
#define QKV_TEST_BROKEN_DECODE_H

#include <qkv/qkv.h>

int broken_decode_count(void);
const char *broken_decode_name(int mutant);
int broken_decode_make(qkv_context *context, int mutant);

#endif
