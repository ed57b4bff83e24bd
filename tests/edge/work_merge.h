/* SPDX-License-Identifier: Apache-2.0 */
/* The job of work.h that joins partial results, and what it writes. */
#ifndef QKV_TESTS_WORK_MERGE_H
#define QKV_TESTS_WORK_MERGE_H

#include <qkv/cache.h>

enum { WORK_MERGED_ROWS = 37, WORK_MERGED_DIM = 23 };

/* Numbers from `uniform`, -1 to 1. */
void work_fill_merge(float spread, float uniform(void));

qkv_status work_merge(const qkv_context *context);

extern float work_merged[WORK_MERGED_ROWS][WORK_MERGED_DIM];

#endif
