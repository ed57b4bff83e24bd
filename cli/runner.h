/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the command runs a call: a context, the memory and the threads that its plan asks for. The
 * memory grows and the threads start when a plan first needs them, and both are kept for the
 * next call.
 */
#ifndef QKV_CLI_RUNNER_H
#define QKV_CLI_RUNNER_H

#include <stddef.h>

#include <qkv/qkv.h>

#include "pool.h"

enum { RUNNER_MOST_THREADS = 1024 };

struct runner {
    const qkv_context *context; /* NULL: the default one */
    int threads;                /* the most to use; 1 or more */
    void *workspace;
    size_t workspace_size;
    struct pool *pool;
    int pool_threads;
};

/* Binds the runner to the room of that name, by a context in *context; NULL: to the default one.
 * FINE or FAILED with a complaint. */
int runner_choose(struct runner *runner, qkv_context *context, const char *isa);

/* Memory and threads for the plan, and *exec to run it with. FINE, or FAILED with a complaint. */
int runner_prepare(struct runner *runner, const qkv_plan *plan, qkv_exec *exec);

void runner_close(struct runner *runner);

#endif
