/* SPDX-License-Identifier: Apache-2.0 */
/* Memory and threads for plans. See runner.h. */
#include "runner.h"

#include <stdint.h>
#include <stdlib.h>

#include "complain.h"
#include "rooms.h"

static int grow_workspace(struct runner *runner, size_t size) {
    if (size <= runner->workspace_size) {
        return FINE;
    }
    free(runner->workspace);
    runner->workspace_size = 0;
    size_t rounded = size > SIZE_MAX - QKV_ALIGNMENT
                         ? 0
                         : (size + QKV_ALIGNMENT - 1) / QKV_ALIGNMENT * QKV_ALIGNMENT;
    runner->workspace = rounded ? aligned_alloc(QKV_ALIGNMENT, rounded) : NULL;
    if (!runner->workspace) {
        return out_of_memory("workspace");
    }
    runner->workspace_size = rounded;
    return FINE;
}

static int grow_pool(struct runner *runner, int threads) {
    if (threads <= 1 || threads <= runner->pool_threads) {
        return FINE;
    }
    pool_close(runner->pool);
    runner->pool = pool_open(threads);
    runner->pool_threads = runner->pool ? threads : 0;
    return runner->pool ? FINE : complain(FAILED, "--threads", "cannot start %d threads", threads);
}

int runner_choose(struct runner *runner, qkv_context *context, const char *isa) {
    if (!isa) {
        return FINE;
    }
    qkv_isa room = room_by_name(isa);
    if (!room_open(context, room)) {
        return complain(FAILED, "--isa", "%s is %s", isa, room_lack(room));
    }
    runner->context = context;
    return FINE;
}

int runner_prepare(struct runner *runner, const qkv_plan *plan, qkv_exec *exec) {
    int threads = runner->threads < plan->threads ? runner->threads : plan->threads;
    int status = grow_workspace(runner, qkv_plan_workspace(plan, threads));
    if (!status) {
        status = grow_pool(runner, threads);
    }
    qkv_exec_init(exec);
    exec->context = runner->context;
    exec->workspace = runner->workspace;
    exec->workspace_size = runner->workspace_size;
    exec->parallel_for = runner->pool ? pool_run : NULL;
    exec->pool = runner->pool;
    exec->threads = threads;
    return status;
}

void runner_close(struct runner *runner) {
    pool_close(runner->pool);
    free(runner->workspace);
    *runner = (struct runner){0};
}
