/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets have in common: a context for each room that this CPU can run. */
#ifndef QKV_TEST_FUZZ_ROOMS_H
#define QKV_TEST_FUZZ_ROOMS_H

#include <qkv/qkv.h>

/* Opens them at the first call. Returns how many there are; the scalar one is the first. */
int fuzz_rooms(const qkv_context **contexts);

#endif
