/* SPDX-License-Identifier: Apache-2.0 */
/* The mark of a key that must not count, where K or V hold infinities or NaN: a weight of -0, which
 * no exponential gives. */
#ifndef QKV_TMPL_MARK_H
#define QKV_TMPL_MARK_H

#include <stdint.h>
#include <string.h>

static inline int is_marked(float weight) {
    uint32_t bits;
    memcpy(&bits, &weight, sizeof(bits));
    return bits == 0x80000000u;
}

#endif
