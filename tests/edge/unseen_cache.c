/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of a cache that no query sees are not read: beyond the length, outside the window, behind
 * the last position. The cache's memory lies in a mapping of its own, of which whatever lies within
 * such pages may not be touched. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ref/ref.h"
#include "support/cached.h"
#include "support/rooms.h"
#include "unseen.h"

enum { KEYS = 600, PAGE = 48 };

static bool is_seen(const struct cached *x, int64_t token) {
    for (int64_t i = 0; i < x->c.desc.q_len; i++)
        if (ref_keeps(&x->c.params, 0, 0, i, token))
            return true;
    return false;
}

/* The page that holds a token is the cache's page `index`. */
static int32_t page_of(const struct cached *x, int64_t token) {
    const int64_t entry = cached_sequence(x, 0) * x->cache.sequence_pages + token / PAGE;
    return x->cache.table[entry];
}

/* Takes away what lies within [from, to) in whole pages of the system. Returns how many. */
static int take_away(unsigned char *from, unsigned char *to) {
    const uintptr_t size = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)from + size - 1) / size * size;
    const uintptr_t end = (uintptr_t)to / size * size;
    if (begin >= end)
        return 0;
    ck_assert_int_eq(mprotect(from + (begin - (uintptr_t)from), end - begin, PROT_NONE), 0);
    return (int)((end - begin) / size);
}

static int take_unseen_pages(const struct cached *x, unsigned char *memory) {
    const size_t size = qkv_cache_page_size(&x->cache);
    int taken = 0;
    for (int64_t first = 0; first < KEYS; first += PAGE) {
        bool seen = false;
        for (int64_t t = first; t < first + PAGE && t < KEYS; t++)
            seen = seen || is_seen(x, t);
        unsigned char *page = memory + (size_t)page_of(x, first) * size;
        taken += seen ? 0 : take_away(page, page + size);
    }
    return taken;
}

static void check(const qkv_context *context, const struct cached_desc *d) {
    struct cached x;
    struct verdict verdict = cached_make(&x, d, context);
    const struct call call = cached_call(&x, context);
    if (verdict.ok)
        verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    ck_assert_msg(verdict.ok, "%s", verdict.message);
    const size_t size = x.memory.size;
    unsigned char *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    memcpy(memory, x.memory.data, size);
    x.cache.memory = memory;
    const int taken = take_unseen_pages(&x, memory);
    ck_assert(taken > 0 || sysconf(_SC_PAGESIZE) > 4096);
    verdict = cached_run_again(&x, &call, (struct how){WAY_PLAIN, 1, 0});
    cached_explain(d, &verdict);
    ck_assert_msg(verdict.ok, "%s", verdict.message);
    munmap(memory, size);
    cached_free(&x);
}

static void window(struct desc *d) {
    d->window_left = 100;
}

static void last_position(struct desc *d) {
    d->causal = true;
    d->align = QKV_ALIGN_TOP_LEFT;
}

/* What was beyond the length held NaN. */
static void half_the_length(struct test_case *c) {
    *(int32_t *)(void *)c->kv_lens.data = KEYS / 2;
    for (int64_t i = 0; i < 2 * KEYS / 2 * 64; i++) {
        const int64_t h = i % 2, t = i / 2 % (KEYS / 2), at = i / KEYS;
        *tensor_f32(&c->tensors.k, 0, h, t, at) = rng_normal((uint64_t)i);
        *tensor_f32(&c->tensors.v, 0, h, t, at) = rng_normal((uint64_t)i + (1 << 20));
    }
}

START_TEST(pages_that_nobody_sees_are_not_read) {
    for (int i = 0; i < 3 * 2 * CACHED_DTYPES; i++) {
        struct desc desc = desc_plain();
        desc.kv_heads = desc.q_heads = 2;
        desc.q_len = i % 2 ? 2 : 40;
        desc.kv_len = KEYS;
        desc.head_dim = desc.v_dim = 64;
        if (i % 3 == 0)
            window(&desc);
        else if (i % 3 == 1)
            last_position(&desc);
        else
            desc.kv_lengths = LENGTHS_PADDED;
        struct cached_desc d = cached_plain(&desc);
        d.k_dtype = d.v_dtype = cached_dtypes[i / 6];
        d.page_tokens = PAGE;
        d.prepare = i % 3 == 2 ? half_the_length : NULL;
        check(&rooms_get(_i)->context, &d);
    }
}
END_TEST

void unseen_add_cache_test(TCase *tcase) {
    tcase_add_room_test(tcase, pages_that_nobody_sees_are_not_read);
}
