/* SPDX-License-Identifier: Apache-2.0 */
/* Memory between two pages that may not be touched, by mmap and mprotect. */
#define _GNU_SOURCE
#include "guard.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILL 0xc5 /* of the bytes around the data */

static size_t page_size(void) {
    static size_t size;
    if (size == 0)
        size = (size_t)sysconf(_SC_PAGESIZE);
    return size;
}

/* Mappings that were freed wait here for the next buffer of their size: a run makes millions. */
enum { KEPT_MAX = 256 };
static struct {
    unsigned char *pages;
    size_t size;
} kept[KEPT_MAX];
static int kept_count;

static unsigned char *take_kept(size_t size) {
    for (int i = 0; i < kept_count; i++)
        if (kept[i].size == size) {
            unsigned char *pages = kept[i].pages;
            kept[i] = kept[--kept_count];
            return pages;
        }
    return NULL;
}

static unsigned char *map_between_guards(size_t inner, size_t page) {
    unsigned char *pages = take_kept(inner + 2 * page);
    if (pages)
        return pages;
    pages =
        mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED || (inner && mprotect(pages + page, inner, PROT_READ | PROT_WRITE))) {
        perror("guarded memory");
        exit(EXIT_FAILURE);
    }
    return pages;
}

/* Whole pages, a power of two of them, so that few sizes are in use. */
static size_t inner_size(size_t need, size_t page) {
    size_t inner = need ? page : 0;
    while (inner < need)
        inner *= 2;
    return inner;
}

size_t guard_slack(void) {
    static size_t bytes = SIZE_MAX;
    if (bytes == SIZE_MAX) {
        const char *text = getenv("QKV_TEST_SLACK");
        bytes = text ? strtoul(text, NULL, 10) / 64 * 64 : 0;
    }
    return bytes;
}

struct guard guard_alloc(size_t size, size_t align, enum guard_side side, size_t offset) {
    size_t page = page_size();
    offset += side == GUARD_END ? guard_slack() : 0;
    size_t inner = inner_size(size ? size + offset + align + guard_slack() : 0, page);
    struct guard guard = {
        .pages = map_between_guards(inner, page), .pages_size = inner + 2 * page, .size = size};
    if (side == GUARD_BEGIN || size == 0)
        guard.data = guard.pages + page + (size ? offset : 0);
    else
        guard.data = guard.pages + page + ((inner - size) / align * align - offset);
    memset(guard.pages + page, FILL, (size_t)(guard.data - guard.pages) - page);
    memset(guard.data + size, FILL, (size_t)(guard.pages + page + inner - guard.data) - size);
    guard_clear(&guard);
    return guard;
}

void guard_free(struct guard *guard) {
    if (guard->pages && kept_count < KEPT_MAX) {
        kept[kept_count].pages = guard->pages;
        kept[kept_count++].size = guard->pages_size;
    } else if (guard->pages) {
        munmap(guard->pages, guard->pages_size);
    }
    *guard = (struct guard){0};
}

/* By the C library's copies, and so is the look at what is left of them: much of what a suite takes
 * under an emulator would else be these bytes, one instruction each. */
void guard_clear(struct guard *guard) {
    const uint32_t canary = GUARD_CANARY;
    size_t done = guard->size < sizeof canary ? guard->size : sizeof canary;

    memcpy(guard->data, &canary, done);
    for (; done < guard->size; done *= 2)
        memcpy(guard->data + done, guard->data,
               done < guard->size - done ? done : guard->size - done);
}

/* Each byte is FILL if the first one is and each one is as the one before it. */
static bool all_fill(const unsigned char *from, const unsigned char *to) {
    return from == to || (*from == FILL && memcmp(from, from + 1, (size_t)(to - from) - 1) == 0);
}

bool guard_intact(const struct guard *guard) {
    size_t page = page_size();
    return guard->size == 0 ||
           (all_fill(guard->pages + page, guard->data) &&
            all_fill(guard->data + guard->size, guard->pages + guard->pages_size - page));
}
