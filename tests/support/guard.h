/* SPDX-License-Identifier: Apache-2.0 */
/* Memory between two pages that may not be touched. A buffer lies flush against the page after
 * it or flush against the page before it; what is left of its own pages on the other side holds
 * canaries, which guard_intact() looks at. */
#ifndef QKV_TEST_GUARD_H
#define QKV_TEST_GUARD_H

#include <stdbool.h>
#include <stddef.h>

enum guard_side { GUARD_END, GUARD_BEGIN };

struct guard {
    unsigned char *pages; /* the whole mapping, with both guard pages */
    size_t pages_size;
    unsigned char *data;
    size_t size;
};

/* `size` bytes whose distance from the guarded side is less than `align` + `offset`: the start
 * (GUARD_BEGIN) or the end (GUARD_END) stands `offset` bytes from the page, and data is aligned
 * to `align` if offset is 0. align is a power of two, at most a page. The bytes hold canaries. A
 * size of 0 gives a pointer that cannot be read. Ends the process when memory runs out. */
struct guard guard_alloc(size_t size, size_t align, enum guard_side side, size_t offset);
void guard_free(struct guard *guard);

/* Every byte of data to canaries. */
void guard_clear(struct guard *guard);

/* True if nothing around the data was written. */
bool guard_intact(const struct guard *guard);

/* QKV_TEST_SLACK: so many bytes (a multiple of 64) stay free before the page behind a buffer. For
 * emulators whose masked loads touch the lanes that the mask leaves out, as qemu 7.2's do. */
size_t guard_slack(void);

/* What a float looks like that nobody has written: a NaN with a payload of its own. The pattern
 * repeats every four bytes, counted from the start of data. */
#define GUARD_CANARY 0x7fc5c5c5U

#endif
