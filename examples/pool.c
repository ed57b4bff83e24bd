/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool of threads (pool.h). A job is published by raising its number. A worker's share of it
 * is one word, [job's number | first unit | end], from which its owner takes units at the front,
 * a few at a time, and the others single ones at the end, by a compare-and-exchange; the number
 * keeps a worker that comes too late from taking anything of a later job. A job is over when as
 * many units are done as it has, so that nobody waits for a worker that took none.
 *
 * A line that one core has written takes another some hundred nanoseconds, so few of them travel
 * with a job: its number and all that is said of it in one, the share in another, and back the
 * count of what is done, which only those write that the caller waits for.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity */
#endif

#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

enum {
    LOOK_OUT_NS = 100000, /* how long a thread looks out before it sleeps */
    LOOKS = 200,          /* looks, some microseconds, between two readings of the clock */
    WAKING_NS = 50000,    /* what it takes until a sleeping thread works, with reserve */
    LINE = 128,           /* bytes that processors move together: a pair of cache lines */
    UNIT_BITS = 12,
    MOST_UNITS = (1 << UNIT_BITS) - 1,
    AT_A_TIME = 4, /* units that a worker takes, at most: who is put to sleep holds them back */
};

/* Times to wake others at. */
enum { AT_ONCE = 0, NEVER = -1 };

/* Where one thread sleeps. */
struct bed {
    atomic_bool taken;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

struct worker {
    _Alignas(LINE) atomic_uint_fast64_t share;
    _Alignas(LINE) struct bed bed;
    struct pool *pool;
    int number;
    pthread_t id;
};

/* A worker that comes late may read the job while the next one is written; it then gets no unit
 * of what it read. Hence atomics, whose order does not matter. */
struct job {
    _Atomic(qkv_task) task;
    _Atomic(void *) argument;
    atomic_int_fast64_t parts;
    atomic_int units;   /* the parts, or if there are too many, runs of them */
    atomic_int workers; /* that may work on it */
    atomic_int cpu;     /* where the caller was */
};

struct pool {
    _Alignas(LINE) atomic_uint_fast64_t number; /* of the job; 0 before the first */
    atomic_bool closing;
    struct job job;
    _Alignas(LINE) _Atomic(uint32_t) done; /* units of all jobs, without the caller's own */
    _Alignas(LINE) atomic_flag busy;
    uint32_t due;                  /* what `done` will be when the job is over */
    int64_t alone_ns, alone_until; /* the caller's time in the last jobs that met sleepers */
    int threads;
    bool looks_out;         /* there is a CPU for every thread */
    struct worker worker[]; /* the first is the caller */
};

static inline void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What a thread waits for: has the word become other than, or equal to, the value? */
typedef bool ready_fn(struct pool *pool, uint64_t value);

static bool has_news(struct pool *pool, uint64_t seen) {
    return atomic_load(&pool->number) != seen || atomic_load(&pool->closing);
}

static bool is_done(struct pool *pool, uint64_t due) {
    return atomic_load(&pool->done) == due;
}

/* Gives way now and then: the system may have put the thread that is waited for on this CPU. */
static bool look_out(struct pool *pool, ready_fn *ready, uint64_t value) {
    int64_t end = 0;
    do {
        for (int i = 0; i < LOOKS; i++) {
            if (ready(pool, value)) {
                return true;
            }
            pause_cpu();
        }
        sched_yield();
        end = end ? end : nanoseconds() + LOOK_OUT_NS;
    } while (pool->looks_out && nanoseconds() < end);
    return false;
}

/* The bed is taken before the last look, and rouse() looks at the bed after the change: one of
 * the two sees the other. Returns whether the thread has slept. */
static bool await(struct pool *pool, struct bed *bed, ready_fn *ready, uint64_t value) {
    if (look_out(pool, ready, value)) {
        return false;
    }
    pthread_mutex_lock(&bed->lock);
    atomic_store(&bed->taken, true);
    while (!ready(pool, value)) {
        pthread_cond_wait(&bed->wake, &bed->lock);
    }
    atomic_store(&bed->taken, false);
    pthread_mutex_unlock(&bed->lock);
    return true;
}

static void rouse(struct bed *bed) {
    if (atomic_load(&bed->taken)) {
        pthread_mutex_lock(&bed->lock);
        pthread_cond_signal(&bed->wake);
        pthread_mutex_unlock(&bed->lock);
    }
}

static uint64_t make_share(uint64_t number, int begin, int end) {
    return number << (2 * UNIT_BITS) | (uint64_t)begin << UNIT_BITS | (uint64_t)end;
}

/* Units [first, first + count). */
struct run {
    int first, count;
};

/* How much of a share is taken at once. */
enum piece { ONE_OF_THE_END, ONE_OF_THE_FRONT, SOME_OF_THE_FRONT };

static int units_of(enum piece piece, int left) {
    const int half = (left + 1) / 2;
    return piece != SOME_OF_THE_FRONT ? 1 : half < AT_A_TIME ? half : AT_A_TIME;
}

/* A piece of a share of the job; nothing if none is left. *seen is what the share is thought to be,
 * which saves looking at it first. */
static struct run take(atomic_uint_fast64_t *share, uint64_t number, enum piece piece,
                       uint64_t *seen) {
    for (;;) {
        int begin = (int)(*seen >> UNIT_BITS & MOST_UNITS);
        int end = (int)(*seen & MOST_UNITS);
        if (begin >= end || make_share(number, begin, end) != *seen) {
            return (struct run){0, 0};
        }
        const bool front = piece != ONE_OF_THE_END;
        const int count = units_of(piece, end - begin);
        uint64_t rest =
            front ? make_share(number, begin + count, end) : make_share(number, begin, end - count);
        if (atomic_compare_exchange_weak_explicit(share, seen, rest, memory_order_acquire,
                                                  memory_order_relaxed)) {
            *seen = rest;
            return (struct run){front ? begin : end - count, count};
        }
    }
}

/* `count` things in `shares` shares that differ by one at most: where share `index` begins. */
static int64_t share_begin(int64_t count, int shares, int index) {
    int64_t longer = count % shares;
    return count / shares * index + (index < longer ? index : longer);
}

/* What worker `index` starts with. */
static uint64_t first_share(uint64_t number, int units, int workers, int index) {
    return make_share(number, (int)share_begin(units, workers, index),
                      (int)share_begin(units, workers, index + 1));
}

/* Each worker wakes two others, so that none has to wake them all. */
static int woken_begin(int self) {
    return 2 * self + 1;
}

static int woken_end(int self, int workers) {
    return 2 * self + 3 < workers ? 2 * self + 3 : workers;
}

static bool others_sleep(struct pool *pool, int self, int workers) {
    bool sleep = false;
    for (int i = woken_begin(self); i < woken_end(self, workers); i++) {
        sleep = sleep || atomic_load(&pool->worker[i].bed.taken);
    }
    return sleep;
}

static void wake_others(struct pool *pool, int self, int workers) {
    for (int i = woken_begin(self); i < woken_end(self, workers); i++) {
        rouse(&pool->worker[i].bed);
    }
}

/* A worker's view of a job. */
struct view {
    struct pool *pool;
    uint64_t number;
    qkv_task task;
    void *argument;
    int64_t parts;
    int units, workers, self;
    int64_t wake_at; /* when it wakes others */
};

static struct view view_of(struct pool *pool, uint64_t number, int self, int64_t wake_at) {
    struct job *job = &pool->job;
    return (struct view){
        .pool = pool,
        .number = number,
        .task = atomic_load_explicit(&job->task, memory_order_relaxed),
        .argument = atomic_load_explicit(&job->argument, memory_order_relaxed),
        .parts = atomic_load_explicit(&job->parts, memory_order_relaxed),
        .units = atomic_load_explicit(&job->units, memory_order_relaxed),
        .workers = atomic_load_explicit(&job->workers, memory_order_relaxed),
        .self = self,
        .wake_at = wake_at,
    };
}

static void wake_in_time(struct view *view) {
    const int64_t at = view->wake_at;
    if (at != NEVER && (at == AT_ONCE || nanoseconds() >= at)) {
        wake_others(view->pool, view->self, view->workers);
        view->wake_at = NEVER;
    }
}

/* All that the worker gets of a share; returns how many units. Of its own it takes a few,
 * half of what is left towards the end, so that few pieces make up a share and little is left to
 * wait for; and single units while it may have to wake others in between. */
static int work_on(struct view *view, int owner) {
    atomic_uint_fast64_t *share = &view->pool->worker[owner].share;
    const bool own = owner == view->self;
    uint64_t seen = own ? first_share(view->number, view->units, view->workers, owner)
                        : atomic_load_explicit(share, memory_order_relaxed);
    int count = 0;
    for (;;) {
        wake_in_time(view);
        const enum piece piece = !own                     ? ONE_OF_THE_END
                                 : view->wake_at == NEVER ? SOME_OF_THE_FRONT
                                                          : ONE_OF_THE_FRONT;
        const struct run run = take(share, view->number, piece, &seen);
        if (run.count == 0) {
            return count;
        }
        view->task(view->argument, view->self, share_begin(view->parts, view->units, run.first),
                   share_begin(view->parts, view->units, run.first + run.count));
        count += run.count;
    }
}

/* The same of the others' shares. */
static int help_others(struct view *view) {
    int count = 0;
    for (int i = 1; i < view->workers; i++) {
        count += work_on(view, (view->self + i) % view->workers);
    }
    return count;
}

/* The system likes to wake a thread on the CPU of the one that wakes it, and in a virtual machine
 * does so even if another is idle: there the two would take turns. The worker may return
 * afterwards. */
static void leave_callers_cpu(struct pool *pool) {
    const int cpu = atomic_load_explicit(&pool->job.cpu, memory_order_relaxed);
    cpu_set_t all, others;
    if (sched_getcpu() != cpu || sched_getaffinity(0, sizeof all, &all) != 0) {
        return;
    }
    others = all;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0) {
        sched_setaffinity(0, sizeof all, &all);
    }
}

static void report(struct pool *pool, int count) {
    if (count) {
        atomic_fetch_add(&pool->done, (uint32_t)count);
        rouse(&pool->worker[0].bed);
    }
}

static void *worker_main(void *argument) {
    struct worker *self = argument;
    struct pool *pool = self->pool;
    for (uint64_t number = 0;;) {
        bool slept = await(pool, &self->bed, has_news, number);
        if (atomic_load(&pool->closing)) {
            return NULL;
        }
        number = atomic_load(&pool->number);
        if (slept && pool->looks_out) {
            leave_callers_cpu(pool);
        }
        struct view view = view_of(pool, number, self->number, AT_ONCE);
        if (self->number < view.workers) {
            report(pool, work_on(&view, self->number));
            report(pool, help_others(&view));
        }
    }
}

/* Returns the job's number. */
static uint64_t publish(struct pool *pool, int workers, int64_t parts, qkv_task task,
                        void *argument) {
    const uint64_t number = atomic_load_explicit(&pool->number, memory_order_relaxed) + 1;
    const int units = parts < MOST_UNITS ? (int)parts : MOST_UNITS;
    atomic_store_explicit(&pool->job.task, task, memory_order_relaxed);
    atomic_store_explicit(&pool->job.argument, argument, memory_order_relaxed);
    atomic_store_explicit(&pool->job.parts, parts, memory_order_relaxed);
    atomic_store_explicit(&pool->job.units, units, memory_order_relaxed);
    atomic_store_explicit(&pool->job.workers, workers, memory_order_relaxed);
    atomic_store_explicit(&pool->job.cpu, sched_getcpu(), memory_order_relaxed);
    for (int i = 0; i < workers; i++) {
        atomic_store_explicit(&pool->worker[i].share, first_share(number, units, workers, i),
                              memory_order_release);
    }
    atomic_store(&pool->number, number);
    return number;
}

/* When the others are to be woken for a job that starts now and meets them asleep: as soon as the
 * caller has worked alone for as long as waking them takes, in this job and those right before it;
 * at once if the last such job was as long. */
static int64_t when_to_wake(struct pool *pool, int64_t now) {
    const bool was_long = pool->alone_ns >= WAKING_NS;
    if (now - pool->alone_until > LOOK_OUT_NS) {
        pool->alone_ns = 0;
    }
    return was_long ? AT_ONCE : now + WAKING_NS - pool->alone_ns;
}

/* Publishes a job, does the caller's share of it, and waits for the others. */
static void run(struct pool *pool, int workers, int64_t parts, qkv_task task, void *argument) {
    const bool alone = others_sleep(pool, 0, workers);
    const int64_t start = alone ? nanoseconds() : 0;
    const uint64_t number = publish(pool, workers, parts, task, argument);
    struct view view = view_of(pool, number, 0, alone ? when_to_wake(pool, start) : AT_ONCE);
    int count = work_on(&view, 0);
    count += help_others(&view);
    pool->due += (uint32_t)(view.units - count);
    await(pool, &pool->worker[0].bed, is_done, pool->due);
    if (alone) {
        pool->alone_until = nanoseconds();
        pool->alone_ns += pool->alone_until - start;
    }
}

int pool_run(void *opaque, int threads, int64_t parts, qkv_task task, void *argument) {
    struct pool *pool = opaque;
    int workers = threads < pool->threads ? threads : pool->threads;
    workers = parts < workers ? (int)parts : workers;
    if (workers <= 1 || atomic_flag_test_and_set(&pool->busy)) {
        task(argument, 0, 0, parts);
    } else {
        run(pool, workers, parts, task, argument);
        atomic_flag_clear(&pool->busy);
    }
    return 0;
}

int pool_cpus(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static void bed_init(struct bed *bed) {
    atomic_init(&bed->taken, false);
    pthread_mutex_init(&bed->lock, NULL);
    pthread_cond_init(&bed->wake, NULL);
}

static void bed_destroy(struct bed *bed) {
    pthread_cond_destroy(&bed->wake);
    pthread_mutex_destroy(&bed->lock);
}

/* Ends the workers that have been started, the caller included, and what belongs to the pool. */
static void end(struct pool *pool, int started) {
    atomic_store(&pool->closing, true);
    for (int i = 1; i < started; i++) {
        rouse(&pool->worker[i].bed);
        pthread_join(pool->worker[i].id, NULL);
    }
    for (int i = 0; i < pool->threads; i++) {
        bed_destroy(&pool->worker[i].bed);
    }
    free(pool);
}

struct pool *pool_open(int threads) {
    const size_t size = sizeof(struct pool) + (size_t)threads * sizeof(struct worker);
    struct pool *pool = aligned_alloc(LINE, size);
    if (!pool) {
        return NULL;
    }
    *pool = (struct pool){
        .busy = ATOMIC_FLAG_INIT,
        .alone_ns = WAKING_NS,
        .threads = threads,
        .looks_out = threads <= pool_cpus(),
    };
    for (int i = 0; i < threads; i++) {
        pool->worker[i] = (struct worker){.pool = pool, .number = i};
        bed_init(&pool->worker[i].bed);
    }
    for (int i = 1; i < threads; i++) {
        if (pthread_create(&pool->worker[i].id, NULL, worker_main, pool->worker + i) != 0) {
            end(pool, i);
            return NULL;
        }
    }
    return pool;
}

void pool_close(struct pool *pool) {
    if (pool) {
        end(pool, pool->threads);
    }
}
