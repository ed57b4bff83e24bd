/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small pool of threads for qkv_parallel_for, to be copied: pool.h and pool.c need C11, POSIX
 * threads, Linux (for the number of CPUs alone) and qkv's header. The command and the benchmarks
 * use it as it is.
 *
 *     struct pool *pool = pool_open(pool_cpus());
 *     exec.parallel_for = pool_run;
 *     exec.pool = pool;
 *     exec.threads = plan.threads < cpus ? plan.threads : cpus;
 *     ... any number of calls ...
 *     pool_close(pool);
 *
 * Every worker starts with a share of its own of the parts, the same share in every phase of a
 * call, so that it finds in its cache what it packed a phase before, and takes a few of them at a
 * time; who is done takes single parts off the others' ends. Between jobs the workers look out for
 * the next one for a moment, about a tenth of a millisecond, and then sleep, so that the phases of
 * a call and calls in quick succession follow each other without the operating system. The thread
 * that asks for a job works too, and never waits for a worker that has not begun: a call is not
 * slower than on one thread, even one that takes less time than waking a thread, which it then lets
 * sleep. In return, a task must not wait for another part of its job; qkv's never do.
 */
#ifndef QKV_EXAMPLES_POOL_H
#define QKV_EXAMPLES_POOL_H

#include <stdint.h>

#include <qkv/qkv.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pool;

/* A pool of `threads` workers, 1 or more, the caller included; NULL if they cannot be started. */
struct pool *pool_open(int threads);

/* Ends the threads; no job may run. pool may be NULL. */
void pool_close(struct pool *pool);

/* A qkv_parallel_for over a struct pool. Always 0. One job at a time has the threads: a task that
 * asks for a job of its own, or a second thread that asks meanwhile, does all of it itself. */
int pool_run(void *pool, int threads, int64_t parts, qkv_task task, void *argument);

/* CPUs that this process may run on. Where a core runs two threads, half of them keep its units for
 * vectors busy. */
int pool_cpus(void);

#ifdef __cplusplus
}
#endif

#endif
