/* SPDX-License-Identifier: Apache-2.0 */
/* What every family of stages shares between a plan and its run: checks of the workspace and of
 * the phase, and the plain call above them. */
#ifndef QKV_CORE_RUN_H
#define QKV_CORE_RUN_H

#include <qkv/qkv.h>

/* Is there room for a plan at all? */
qkv_status qkv_check_plan(const qkv_plan *plan);

/* How many threads a number of flops, cut into parts, is worth. */
int32_t qkv_worth_threads(double flops, int64_t parts);

/* A worker's memory of so many bytes, and a pair of cache lines behind it that nobody uses.
 * Workers' memory lies end to end, and with a worker's last lines the processor fetches what
 * follows, which would be taken from the next worker in the middle of its work. */
size_t qkv_set_apart(size_t bytes);

/* The range of parts and the workspace of one call of a run function. */
qkv_status qkv_check_run(const qkv_plan *plan, int32_t phase, int64_t begin, int64_t end,
                         const qkv_workspace *workspace);

/* The context of a plan or of a plain call: NULL is the default one. */
qkv_status qkv_check_context(const qkv_context *context);

/* Takes the caller's exec (NULL: everything default, which needs a plan without workspace). */
qkv_status qkv_take_exec(qkv_exec *own, const qkv_exec *exec);

/* Is the exec's workspace enough for the plan? */
qkv_status qkv_check_exec(const qkv_plan *plan, const qkv_exec *exec);

/* Runs checked parts of a plan. */
typedef void qkv_run_fn(const void *job, const qkv_workspace *workspace, int32_t phase,
                        int64_t begin, int64_t end);

/* All phases of a plan, on the exec's threads; both were checked. The parts of the first `grouped`
 * phases come in `groups` runs of the same length, and a group needs nothing of earlier phases but
 * the same group's. */
qkv_status qkv_run_all(const qkv_plan *plan, const qkv_exec *exec, int64_t groups, int32_t grouped,
                       qkv_run_fn *run, const void *job);

#endif
