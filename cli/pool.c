/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread pool. A job is published through one word, the gate: a bit that says whether it is
 * open, and a count of the workers inside. A worker enters an open gate by raising the count,
 * which gives it the right to read the job; the caller closes the gate when no part is left, and
 * waits until the count is 0 before it writes the next job. A worker that wakes too late finds
 * the gate closed, and nobody has waited for it.
 */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum {
    SPINS = 2000, /* looks at the gate before a thread sleeps: some tens of microseconds */
    CHUNKS = 8,   /* a thread's share comes in this many pieces, to even out the finish */
};

#define GATE_OPEN (UINT64_C(1) << 32)
#define GATE_STOP (UINT64_C(1) << 33)
#define GATE_INSIDE (GATE_OPEN - 1)

/* Where threads sleep until the gate is as they need it. */
struct bed {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_int sleepers;
};

struct pool {
    atomic_uint_fast64_t gate;
    struct bed workers, caller;
    int threads;
    int spins;
    int started;
    pthread_t *ids;
    /* The job; written by the caller while the gate is closed and nobody inside. */
    qkv_task task;
    void *argument;
    int64_t parts, chunk;
    int most;               /* workers of this job */
    atomic_int next_worker; /* the next worker's number */
    atomic_int_fast64_t next_part;
};

static inline void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

typedef bool ready_fn(uint64_t gate);

static bool may_enter(uint64_t gate) {
    return (gate & (GATE_OPEN | GATE_STOP)) != 0;
}

static bool is_empty(uint64_t gate) {
    return (gate & GATE_INSIDE) == 0;
}

/* Returns a gate that is ready. The count of sleepers is raised before the gate is looked at
 * again, and rouse() reads it after the gate was changed: one of the two sees the other. */
static uint64_t await(struct pool *pool, struct bed *bed, ready_fn *ready) {
    uint64_t gate;
    for (int i = 0; i < pool->spins; i++) {
        gate = atomic_load(&pool->gate);
        if (ready(gate)) {
            return gate;
        }
        pause_cpu();
    }
    pthread_mutex_lock(&bed->lock);
    atomic_fetch_add(&bed->sleepers, 1);
    while (!ready(gate = atomic_load(&pool->gate))) {
        pthread_cond_wait(&bed->wake, &bed->lock);
    }
    atomic_fetch_sub(&bed->sleepers, 1);
    pthread_mutex_unlock(&bed->lock);
    return gate;
}

static void rouse(struct bed *bed) {
    if (atomic_load(&bed->sleepers) > 0) {
        pthread_mutex_lock(&bed->lock);
        pthread_cond_broadcast(&bed->wake);
        pthread_mutex_unlock(&bed->lock);
    }
}

/* One worker's share of the job; worker < pool->most. */
static void work(struct pool *pool, int worker) {
    for (;;) {
        int64_t begin = atomic_fetch_add(&pool->next_part, pool->chunk);
        if (begin >= pool->parts) {
            return;
        }
        int64_t end = begin + pool->chunk < pool->parts ? begin + pool->chunk : pool->parts;
        pool->task(pool->argument, worker, begin, end);
    }
}

/* Everyone who comes out closes the gate behind him: either the parts or the numbers of the
 * workers are used up, so that another worker would find nothing to do. */
static void *worker_main(void *argument) {
    struct pool *pool = argument;
    for (;;) {
        uint64_t gate = await(pool, &pool->workers, may_enter);
        if (gate & GATE_STOP) {
            return NULL;
        }
        if (!atomic_compare_exchange_strong(&pool->gate, &gate, gate + 1)) {
            continue;
        }
        int worker = atomic_fetch_add(&pool->next_worker, 1);
        if (worker < pool->most) {
            work(pool, worker);
        }
        atomic_fetch_and(&pool->gate, ~GATE_OPEN);
        if (is_empty(atomic_fetch_sub(&pool->gate, 1) - 1)) {
            rouse(&pool->caller);
        }
    }
}

int pool_run(void *opaque, int threads, int64_t parts, qkv_task task, void *argument) {
    struct pool *pool = opaque;
    int most = threads < pool->threads ? threads : pool->threads;
    if (most <= 1 || parts <= 1) {
        task(argument, 0, 0, parts);
        return 0;
    }
    pool->task = task;
    pool->argument = argument;
    pool->parts = parts;
    pool->chunk = parts / ((int64_t)most * CHUNKS) + 1;
    pool->most = most;
    atomic_store(&pool->next_worker, 1);
    atomic_store(&pool->next_part, 0);
    atomic_store(&pool->gate, GATE_OPEN);
    rouse(&pool->workers);
    work(pool, 0);
    atomic_fetch_and(&pool->gate, ~GATE_OPEN);
    await(pool, &pool->caller, is_empty);
    return 0;
}

int pool_cpus(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static void bed_init(struct bed *bed) {
    pthread_mutex_init(&bed->lock, NULL);
    pthread_cond_init(&bed->wake, NULL);
}

static void bed_destroy(struct bed *bed) {
    pthread_cond_destroy(&bed->wake);
    pthread_mutex_destroy(&bed->lock);
}

struct pool *pool_open(int threads) {
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool) {
        return NULL;
    }
    pool->threads = threads;
    pool->spins = threads <= pool_cpus() ? SPINS : 0;
    bed_init(&pool->workers);
    bed_init(&pool->caller);
    pool->ids = calloc((size_t)threads, sizeof *pool->ids);
    while (pool->ids && pool->started < threads - 1 &&
           pthread_create(&pool->ids[pool->started], NULL, worker_main, pool) == 0) {
        pool->started++;
    }
    if (pool->started < threads - 1) {
        pool_close(pool);
        return NULL;
    }
    return pool;
}

void pool_close(struct pool *pool) {
    if (!pool) {
        return;
    }
    atomic_store(&pool->gate, GATE_STOP);
    rouse(&pool->workers);
    for (int i = 0; i < pool->started; i++) {
        pthread_join(pool->ids[i], NULL);
    }
    bed_destroy(&pool->caller);
    bed_destroy(&pool->workers);
    free(pool->ids);
    free(pool);
}
