/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of merge for its suite: descriptions, made real in guarded memory, run, and compared. */
#ifndef QKV_TEST_MERGE_CASE_H
#define QKV_TEST_MERGE_CASE_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#include <qkv/cache.h>

#include "support/run.h"
#include "support/tensor.h"

enum { MERGE_PARTS = 9 };

struct merge_desc {
    uint64_t seed;
    int64_t batch, heads, length, v_dim, parts;
    float spread;                /* standard deviation of the logsumexp */
    int empty;                   /* one row of a part in so many has nothing; 0: none */
    bool lse;                    /* wanted */
    bool in_place, lse_in_place; /* in part 0 */
    struct layout out, lse_layout;
    struct layout part_out[MERGE_PARTS], part_lse[MERGE_PARTS];
};

struct merge_case {
    struct merge_desc desc;
    qkv_merge_params params;
    qkv_merge_tensors tensors;
    struct tensor out, lse;
    struct tensor part_out[MERGE_PARTS], part_lse[MERGE_PARTS];
    qkv_tensor out_views[MERGE_PARTS], lse_views[MERGE_PARTS];
};

/* A row without mass has NaN in its out. */
void merge_case_make(struct merge_case *c, const struct merge_desc *desc);
void merge_case_free(struct merge_case *c);

extern const struct how merge_plainly;
struct verdict merge_case_run(const struct merge_case *c, const qkv_context *context,
                              struct how how);

/* Runs a description, looks at the memory around, and compares with the reference. */
struct verdict merge_check(const qkv_context *context, const struct merge_desc *desc,
                           struct how how);

/* Fails the running test if the verdict did. */
void merge_require(struct verdict verdict);

void merge_add_attention_tests(TCase *tcase);

#endif
