/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of floats between pages that may not be touched. */
#include "stored_rows.h"

#include <string.h>

#include "support/compare.h"
#include "support/rng.h"

struct rows rows_make(int rows, ptrdiff_t length, ptrdiff_t gap) {
    struct rows r = {.ld = length + gap};
    r.memory = guard_alloc((size_t)((rows - 1) * r.ld + length) * sizeof(float), sizeof(float),
                           GUARD_END, 0);
    r.at = (float *)r.memory.data;
    return r;
}

void rows_fill(struct rows *r, int rows, ptrdiff_t from, ptrdiff_t to, uint64_t seed) {
    for (int i = 0; i < rows; i++)
        for (ptrdiff_t c = from; c < to; c++)
            r->at[i * r->ld + c] = rng_normal(rng_hash(seed, (uint64_t)(i * r->ld + c)));
}

void rows_zero(struct rows *r, int rows, ptrdiff_t from, ptrdiff_t to) {
    for (int i = 0; i < rows; i++)
        for (ptrdiff_t c = from; c < to; c++)
            r->at[i * r->ld + c] = 0.0F;
}

bool rows_intact(const struct rows *r, int rows, ptrdiff_t length) {
    const uint32_t canary = GUARD_CANARY;
    for (int i = 0; i + 1 < rows; i++)
        for (ptrdiff_t c = length; c < r->ld; c++)
            if (memcmp(&r->at[i * r->ld + c], &canary, sizeof canary) != 0)
                return false;
    return guard_intact(&r->memory);
}

ptrdiff_t round_to(ptrdiff_t n, ptrdiff_t unit) {
    return (n + unit - 1) / unit * unit;
}

struct rows rows_copy(const struct rows *from, int rows, ptrdiff_t length) {
    struct rows copy = rows_make(rows, length, 0);
    for (int r = 0; r < rows; r++)
        memcpy(copy.at + r * copy.ld, from->at + r * from->ld, (size_t)length * sizeof(float));
    return copy;
}

uint64_t turn_of(uint64_t seed) {
    return rng_hash(seed, 1) >> 32;
}

const void *const *next_of(uint64_t seed) {
    static const void *const nowhere[NEXTS] = {(const void *)4096, (const void *)8192,
                                               (const void *)12288};
    return seed % 2 ? nowhere : NULL;
}

struct verdict compare_number(float got, struct ref_value want, int r, ptrdiff_t c) {
    const char *fault = compare_value(got, &want);
    if (!fault)
        return verdict_ok();
    return verdict_fail("[%d][%d] = %.9g %s: reference %.9g +- %.3g", r, (int)c, (double)got, fault,
                        want.value, want.bound);
}
