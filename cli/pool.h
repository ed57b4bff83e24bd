/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads for qkv_parallel_for. The workers live as long as the pool; between jobs they spin for
 * a moment, so that the phases of one call follow each other quickly, and then sleep. A job's
 * parts are handed out in chunks as workers become free. One job at a time; the thread that asks
 * for it works too.
 */
#ifndef QKV_CLI_POOL_H
#define QKV_CLI_POOL_H

#include <stdint.h>

#include <qkv/qkv.h>

struct pool;

/* A pool of `threads` workers, the caller included; NULL if threads cannot be started. */
struct pool *pool_open(int threads);

/* Ends the threads; no job may run. pool may be NULL. */
void pool_close(struct pool *pool);

/* A qkv_parallel_for over a struct pool. Always 0. */
int pool_run(void *pool, int threads, int64_t parts, qkv_task task, void *argument);

/* CPUs that this process may run on. */
int pool_cpus(void);

#endif
