/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one call of any stage in every way the API offers, with workspaces exactly as large as
 * the plan says, between guard pages and full of NaN. */
#ifndef QKV_TEST_RUN_H
#define QKV_TEST_RUN_H

#include <stdint.h>

#include <qkv/cache.h>

#include "verdict.h"

enum way {
    WAY_PLAIN,      /* the plain call, on this thread */
    WAY_POOL,       /* the plain call with a parallel_for of real threads */
    WAY_THREADS,    /* plan and run: real threads that take parts one at a time */
    WAY_ONE_BY_ONE, /* plan and run on this thread: each part alone */
    WAY_REVERSED,   /* the same from the last part to the first */
    WAY_RANDOM,     /* random ranges in random order, by two workers in turn */
    WAY_COUNT
};

struct how {
    enum way way;
    int threads; /* of WAY_POOL and WAY_THREADS */
    uint64_t seed; /* seed / WAY_COUNT odd: a whole call executes a plan that stands, if it can */
};

/* What `tensors` of a call of a backward stage points to. */
struct backward_tensors {
    const qkv_tensors *tensors;
    const qkv_gradients *gradients;
};

/* A call: params and tensors are those of project, of the loss, of descent (its arrays) or of merge
 * if that is the stage. */
struct call {
    const qkv_context *context;
    int stage;
    const void *params;
    const void *tensors;
};

/* What `params` of a call of append points to. */
struct append_call {
    const qkv_append_params *params;
    const qkv_cache *cache;
};

/* What `tensors` of a call of project_backward points to. */
struct project_backward_tensors {
    const qkv_project_tensors *tensors;
    const qkv_project_gradients *gradients;
};

/* What `params` of a call of decode points to. */
struct decode_params {
    const qkv_attention_params *params;
    const qkv_cache *cache;
    const int32_t *sequences;
};

/* Fails if a status is not QKV_OK or memory beside a workspace was written. */
struct verdict run_call(const struct call *call, struct how how);

/* A qkv_parallel_for: `threads` real threads take the parts one at a time. pool is not used. */
int run_parallel_for(void *pool, int threads, int64_t parts, qkv_task task, void *argument);

/* "4 threads" and so on. */
const char *run_way_name(struct how how);

#endif
