/* SPDX-License-Identifier: Apache-2.0 */
/* Panels of a cache, packed number by number. */
#include "stored_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ref/rows.h"
#include "ref/stored.h"
#include "support/rng.h"

const char *const stored_names[QKV_STORED_COUNT] = {"f32", "f16", "bf16", "i8"};
const int stored_units[QKV_STORED_COUNT] = {1, 1, 2, 4};
const uint32_t stored_spoiled[QKV_STORED_COUNT] = {0x7fc00000, 0x7e00, 0x7fc0, 0x81};
static const size_t element_size[QKV_STORED_COUNT] = {4, 2, 2, 1};

static ptrdiff_t padded_steps(const struct panels *p) {
    const int unit = stored_units[p->type];
    return (p->steps + unit - 1) / unit * unit;
}

/* ---- Numbers ---- */

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

float stored_value(int type, uint32_t bits) {
    float x;
    switch (type) {
    case QKV_STORED_F16:
        return (float)ref_format_value(REF_F16, bits);
    case QKV_STORED_BF16:
        return (float)ref_format_value(REF_BF16, bits);
    case QKV_STORED_I8:
        return (float)(int)(bits & 0x7f) - (bits & 0x80 ? 128.0F : 0.0F);
    default:
        memcpy(&x, &bits, sizeof x);
        return x;
    }
}

static const uint32_t odd_patterns[QKV_STORED_COUNT][8] = {
    {0x7fc00000, 0x7f800000, 0xff800000, 0x80000000, 0, 1, 0x807fffff, 0x7f7fffff},
    {0x7e00, 0x7c00, 0xfc00, 0x8000, 0, 1, 0x83ff, 0x7bff},
    {0x7fc0, 0x7f80, 0xff80, 0x8000, 0, 1, 0x807f, 0x7f7f},
    {0x81, 0x7f, 0, 1, 0xff, 0x40, 0xc0, 0x02},
};

/* Of the size of 1, with all the digits that the type has. */
static uint32_t plain_pattern(int type, uint64_t hash) {
    const uint32_t sign = (uint32_t)(hash >> 32) & 0x8000, digits = (uint32_t)(hash >> 8);
    switch (type) {
    case QKV_STORED_F16:
        return sign | (uint32_t)(10 + hash % 8) << 10 | (digits & 0x3ff);
    case QKV_STORED_BF16:
        return sign | (uint32_t)(122 + hash % 8) << 7 | (digits & 0x7f);
    case QKV_STORED_I8:
        return (uint32_t)((int)(hash % 255) - 127) & 0xff;
    default:
        return bits_of(rng_normal(hash));
    }
}

static float scale_of(uint64_t hash, bool wild) {
    static const float odd[] = {NAN, 0.0F, 0x1p-130F, 1e30F};
    return wild && hash % 3 == 0 ? odd[hash / 3 % 4] : 0.01F * (1.5F + (float)(hash % 97) / 97.0F);
}

bool same_number(float x, float y) {
    return bits_of(x) == bits_of(y) || (isnan(x) && isnan(y)) || (x == 0 && y == 0);
}

/* ---- Panels ---- */

static float *number_at(const struct panels *p, int panel, ptrdiff_t step, ptrdiff_t column) {
    return p->numbers + (panel * p->steps + step) * p->width + column;
}

/* Successive steps share a unit. */
static unsigned char *element_at(const struct panels *p, int panel, ptrdiff_t step,
                                 ptrdiff_t column) {
    const ptrdiff_t unit = stored_units[p->type];
    const ptrdiff_t element = (step / unit * p->width + column) * unit + step % unit;
    return p->memory[panel].data + (size_t)element * element_size[p->type];
}

void panels_put(struct panels *p, int panel, ptrdiff_t step, ptrdiff_t column, uint32_t bits) {
    memcpy(element_at(p, panel, step, column), &bits, element_size[p->type]); /* little-endian */
    *number_at(p, panel, step, column) = stored_value(p->type, bits);
}

uint32_t panels_bits(const struct panels *p, int panel, ptrdiff_t step, ptrdiff_t column) {
    uint32_t bits = 0;
    memcpy(&bits, element_at(p, panel, step, column), element_size[p->type]);
    return bits;
}

static void fill_panel(struct panels *p, int panel, uint64_t seed, bool wild) {
    for (ptrdiff_t step = 0; step < p->steps; step++)
        for (ptrdiff_t c = 0; c < p->width; c++) {
            const uint64_t place = (uint64_t)((panel * p->steps + step) * p->width + c);
            const uint64_t hash = rng_hash(seed, place);
            const bool odd = wild && hash >> 60 == 0;
            panels_put(p, panel, step, c,
                       odd ? odd_patterns[p->type][hash % 8] : plain_pattern(p->type, hash));
        }
    for (int t = 0; t < QKV_PANEL; t++)
        ((float *)p->scales[panel].data)[t] =
            scale_of(rng_hash(seed + 1, (uint64_t)(panel * QKV_PANEL + t)), wild);
}

struct panels panels_make(int type, int count, ptrdiff_t steps, ptrdiff_t width, uint64_t seed,
                          bool wild) {
    struct panels p = {.type = type, .count = count, .steps = steps, .width = width};
    const size_t size = (size_t)(padded_steps(&p) * width) * element_size[type];
    p.numbers = ref_allocate(count * steps * width, sizeof(float));
    for (int g = 0; g < count; g++) {
        const bool begin = (seed + (uint64_t)g) % 4 == 0;
        p.memory[g] = guard_alloc(size, 4, begin ? GUARD_BEGIN : GUARD_END, begin ? 4 : 0);
        p.scales[g] = guard_alloc(QKV_PANEL * sizeof(float), 4, GUARD_END, 0);
        p.panel[g] = p.memory[g].data;
        p.scale[g] = (const float *)p.scales[g].data;
        memset(p.memory[g].data, 0, size);
        fill_panel(&p, g, seed, wild);
    }
    return p;
}

void panels_free(struct panels *p) {
    for (int g = 0; g < p->count; g++) {
        if (!guard_intact(&p->memory[g]) || !guard_intact(&p->scales[g]))
            ck_abort_msg("something was written beside panel %d", g);
        guard_free(&p->memory[g]);
        guard_free(&p->scales[g]);
    }
    free(p->numbers);
}

void panels_fill(struct panels *p, int panel, ptrdiff_t step, uint32_t bits) {
    for (ptrdiff_t c = 0; c < p->width; c++)
        panels_put(p, panel, step, c, bits);
}

void panels_forbid(struct panels *p, int panel) {
    guard_free(&p->memory[panel]);
    guard_free(&p->scales[panel]);
    p->memory[panel] = guard_alloc(0, 4, GUARD_END, 0);
    p->scales[panel] = guard_alloc(0, 4, GUARD_END, 0);
    p->panel[panel] = p->memory[panel].data;
    p->scale[panel] = (const float *)p->scales[panel].data;
}
