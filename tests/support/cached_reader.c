/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what a cache holds, number by number. */
#include "cached_reader.h"

#include <math.h>
#include <string.h>

struct verdict cached_open(struct cached_reader *reader, const qkv_cache *cache) {
    const qkv_status status = qkv_take_cache(&reader->state, cache);
    if (status != QKV_OK)
        return verdict_fail("the cache: %s", qkv_status_string(status));
    return verdict_ok();
}

/* ---- Numbers ---- */

static float from_f16(const unsigned char *p) {
    const unsigned bits = p[0] | (unsigned)p[1] << 8, fraction = bits & 0x3ff;
    const int exponent = (int)(bits >> 10 & 31);
    const float sign = bits >> 15 ? -1.0F : 1.0F;
    if (exponent == 31)
        return fraction ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexpf((float)fraction, -24);
    return sign * ldexpf((float)(fraction + 1024), exponent - 25);
}

static float from_bf16(const unsigned char *p) {
    const uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float from_f32(const unsigned char *p) {
    float x;
    memcpy(&x, p, sizeof x);
    return x;
}

static float from_i8(const unsigned char *p) {
    return (float)(*p < 128 ? *p : *p - 256);
}

static float (*const from[QKV_STORED_COUNT])(const unsigned char *) = {
    [QKV_STORED_F32] = from_f32,
    [QKV_STORED_F16] = from_f16,
    [QKV_STORED_BF16] = from_bf16,
    [QKV_STORED_I8] = from_i8,
};

/* ---- Places ---- */

/* A step of the sum and a column of a panel whose steps are `width` columns wide. */
static size_t place(const struct qkv_stored_layout *l, int64_t step, int64_t column,
                    int64_t width) {
    return (size_t)((step / l->unit * width + column) * l->unit + step % l->unit) * l->element;
}

void cached_read(const struct cached_reader *reader, bool values, int64_t sequence, int64_t head,
                 int64_t token, float *row) {
    const struct qkv_cache_state *s = &reader->state;
    const struct qkv_stored_layout *l = values ? &s->v : &s->k;
    const int64_t t = token % s->cache.page_tokens, in_panel = t % QKV_PANEL;
    char *share = qkv_page_head(s, qkv_page_of(s, sequence, token), head);
    const unsigned char *panel = (unsigned char *)qkv_stored_panel(l, share, t);
    const float *scales = qkv_stored_scales(l, share, t);
    const int64_t n = values ? s->cache.v_dim : s->cache.head_dim;
    for (int64_t c = 0; c < n; c++) {
        const size_t at = values ? place(l, in_panel, c, s->v_pad) : place(l, c, in_panel, 16);
        row[c] = from[l->type](panel + at) * (scales ? scales[in_panel] : 1.0F);
    }
}
