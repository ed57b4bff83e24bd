/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor's features and the default context: made once and never changed.
 *
 * A constructor makes them when the library is loaded, before the program can call it, and every
 * later call only reads one pointer. But a constructor of the program's own may run earlier and
 * call in, from several threads even. So nobody may ever see a half-made context, and since a
 * call takes no lock, nobody may wait for another thread either. Therefore each caller that finds
 * nothing published makes the whole thing for itself, in a slot that it alone has taken, and offers
 * it by one compare-and-swap of a pointer. The first offer stands; the others use it, and their
 * slots stay unused. The release of the swap and the acquire of the load order what the slot holds
 * before its use.
 *
 * A slot is only taken after the work is done and nothing has been published in the meantime, so
 * that SLOTS bounds the threads stopped between two neighbouring statements, not the callers.
 */
#include "startup.h"

#include <stdatomic.h>

#include "context.h"

enum { SLOTS = 64 };

static struct qkv_startup slots[SLOTS];
static atomic_uint taken;
static _Atomic(const struct qkv_startup *) published;

static void make(struct qkv_startup *startup) {
    struct qkv_context_state *state = (struct qkv_context_state *)&startup->context;

    *startup = (struct qkv_startup){0};
    qkv_cpu_read(&startup->cpu);
    qkv_context_bind(state, qkv_cpu_report_usable(&startup->cpu), QKV_ISA_NONE);
    qkv_context_tell(state, &startup->cpu);
}

static const struct qkv_startup *current(void) {
    return atomic_load_explicit(&published, memory_order_acquire);
}

static void offer(const struct qkv_startup *made) {
    const struct qkv_startup *none = NULL;
    unsigned slot = atomic_fetch_add_explicit(&taken, 1, memory_order_relaxed);

    if (slot >= SLOTS)
        return;
    slots[slot] = *made;
    atomic_compare_exchange_strong_explicit(&published, &none, &slots[slot], memory_order_release,
                                            memory_order_relaxed);
}

const struct qkv_startup *qkv_startup(void) {
    const struct qkv_startup *startup = current();

    while (startup == NULL) {
        struct qkv_startup made;
        make(&made);
        if (current() == NULL)
            offer(&made);
        startup = current();
    }
    return startup;
}

void qkv_init(void) {
    (void)qkv_startup();
}

__attribute__((constructor)) static void load(void) {
    (void)qkv_startup();
}

uint64_t qkv_cpu_detected(void) {
    return qkv_startup()->cpu.detected;
}

uint64_t qkv_cpu_withheld(void) {
    return qkv_startup()->cpu.withheld;
}

uint64_t qkv_cpu_removed(void) {
    return qkv_startup()->cpu.removed;
}

uint64_t qkv_cpu_usable(void) {
    return qkv_cpu_report_usable(&qkv_startup()->cpu);
}

int64_t qkv_cpu_last_cache(void) {
    return qkv_startup()->cpu.last_cache;
}

const char *qkv_cpu_unknown_overrides(void) {
    return qkv_startup()->cpu.unknown;
}

const qkv_context *qkv_default_context(void) {
    return &qkv_startup()->context;
}
