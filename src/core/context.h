/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a qkv_context: the kernels bound, and the features that bound them. */
#ifndef QKV_CORE_CONTEXT_H
#define QKV_CORE_CONTEXT_H

#include <qkv/qkv.h>

#include "kernels.h"

/* may_alias: it lives in the words of the caller's qkv_context. */
struct __attribute__((may_alias)) qkv_context_state {
    uint64_t magic;    /* QKV_CONTEXT_MAGIC once bound */
    uint64_t features; /* usable, less what the configuration disabled */
    int32_t isa;
    struct qkv_table table;
};

#define QKV_CONTEXT_MAGIC 0x31747863766b71ULL /* "qkvcxt1" */

_Static_assert(sizeof(struct qkv_context_state) <= sizeof(qkv_context), "state fits");

/* Binds the highest room that `features` allow, none above isa_max: pure, so that tests can ask
 * about CPUs that are not at hand. */
void qkv_context_bind(struct qkv_context_state *state, uint64_t features, int isa_max);

/* Sets what the kernels are told of the processor's memory. */
struct qkv_cpu_report;
void qkv_context_tell(struct qkv_context_state *state, const struct qkv_cpu_report *cpu);

/* Of more bytes than this a call seldom finds much in the last-level cache, which holds other
 * things, and other processors' as well. */
static inline int64_t qkv_seldom_cached(const struct qkv_table *table) {
    const int64_t most = 24 << 20, share = table->last_cache / 4;
    return table->last_cache > 0 && share < most ? share : most;
}

/* The state of a context, of the default one for NULL; NULL if it was never initialised. */
const struct qkv_context_state *qkv_context_get(const qkv_context *context);

#endif
