/* SPDX-License-Identifier: Apache-2.0 */
/* The model of append (append_model.h). Its quotients and products of floats in double precision
 * are exact or rounded far below a float, so that rounding them once more is rounding once. */
#include "append_model.h"

#include <math.h>
#include <string.h>

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* |x| rounded to `digits` binary digits, or to a multiple of 2^least. */
static double rounded(double x, int digits, int least) {
    if (x == 0)
        return 0;
    int exponent = ilogb(x) - digits + 1;
    exponent = exponent > least ? exponent : least;
    return ldexp(nearbyint(ldexp(x, -exponent)), exponent);
}

uint16_t model_f16(float x) {
    const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000;
    if (isnan(x))
        return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    const double y = isinf(x) ? INFINITY : rounded(fabs((double)x), 11, -24);
    if (y >= 65536.0)
        return (uint16_t)(sign | 0x7c00);
    if (y < 0x1p-14)
        return (uint16_t)(sign | (uint32_t)ldexp(y, 24));
    const int exponent = ilogb(y); /* its first digit becomes one more in the exponent's field */
    return (uint16_t)(sign + ((uint32_t)(exponent + 14) << 10) + (uint32_t)ldexp(y, 10 - exponent));
}

uint16_t model_bf16(float x) {
    if (isnan(x))
        return (uint16_t)(bits_of(x) >> 16 | 0x40);
    const double y = isinf(x) ? INFINITY : rounded(fabs((double)x), 8, -133);
    const float z = y >= 0x1p128 ? INFINITY : (float)y;
    return (uint16_t)(bits_of(signbit(x) ? -z : z) >> 16);
}

/* The larger of max |x| and 127 * 2^-126; 0 for zeros, NaN if there is a NaN or an infinity. */
static double largest(const float *row, int64_t n) {
    double most = 0;
    for (int64_t c = 0; c < n; c++) {
        if (!isfinite(row[c]))
            return NAN;
        most = fmax(most, fabs((double)row[c]));
    }
    return most > 0 ? fmax(most, 127 * 0x1p-126) : 0;
}

struct model_row model_row_of(const float *row, int64_t n) {
    const double most = largest(row, n);
    return (struct model_row){
        .x = row,
        .n = n,
        .scale = isnan(most) ? float_of(0x7fc00000) : (float)(most / 127),
        .factor = most > 0 ? (float)(127 / most) : 0,
    };
}

int8_t model_i8(const struct model_row *row, int64_t c) {
    if (!(row->factor > 0))
        return 0;
    const float product = (float)((double)row->x[c] * (double)row->factor);
    return (int8_t)nearbyint((double)product);
}

/* ---- Where it goes ---- */

struct place {
    char *panel;
    char *scale;
    const struct qkv_stored_layout *layout;
    int column; /* the token's, of its panel */
    int unit;
};

static struct place place_of(const struct qkv_cache_state *s, char *memory, int64_t sequence,
                             int64_t t, int64_t head, int which) {
    const struct qkv_stored_layout *l = which ? &s->v : &s->k;
    const int64_t at = t % s->cache.page_tokens;
    char *page = memory + (size_t)qkv_page_of(s, sequence, t) * s->page + (size_t)head * s->head;
    return (struct place){
        .panel = page + l->data + (size_t)(at / 16) * l->panel,
        .scale = page + l->scales + (size_t)at * sizeof(float),
        .layout = l,
        .column = (int)(at % 16),
        .unit = l->type == QKV_STORED_I8     ? 4
                : l->type == QKV_STORED_BF16 ? 2
                                             : 1,
    };
}

/* Step p of a panel's sum in column c of so many. */
static char *element(const struct place *p, int64_t step, int64_t c, int64_t columns) {
    const int64_t index = (step / p->unit * columns + c) * p->unit + step % p->unit;
    return p->panel + (size_t)index * p->layout->element;
}

static char *key_element(const struct place *p, int64_t c) {
    return element(p, c, p->column, 16);
}

/* A number of a row, or a zero beyond it. */
static void put(const struct place *p, char *where, const struct model_row *row, int64_t c) {
    const float x = c < row->n ? row->x[c] : 0.0f;
    const uint16_t half = p->layout->type == QKV_STORED_F16 ? model_f16(x) : model_bf16(x);
    const int8_t integer = c < row->n ? model_i8(row, c) : 0;
    const void *from[QKV_STORED_COUNT] = {&x, &half, &half, &integer};
    memcpy(where, from[p->layout->type], p->layout->element);
}

static void put_scale(const struct place *p, const struct model_row *row) {
    if (p->layout->type == QKV_STORED_I8)
        memcpy(p->scale, &row->scale, sizeof row->scale);
}

static float get(const struct place *p, const char *where) {
    uint16_t half;
    float x;
    memcpy(&half, where, sizeof half);
    const int exponent = half >> 10 & 31, fraction = half & 0x3ff;
    switch (p->layout->type) {
    case QKV_STORED_F32:
        memcpy(&x, where, sizeof x);
        return x;
    case QKV_STORED_BF16:
        return float_of((uint32_t)half << 16);
    case QKV_STORED_I8:
        memcpy(&x, p->scale, sizeof x);
        return (float)*(const int8_t *)where * x;
    default:
        if (exponent == 31)
            x = fraction ? NAN : INFINITY;
        else
            x = ldexpf((float)(exponent ? 1024 + fraction : fraction),
                       (exponent ? exponent : 1) - 25);
        return half & 0x8000 ? -x : x;
    }
}

void model_append(const struct qkv_cache_state *s, char *memory, int64_t sequence, int64_t t,
                  int64_t head, const float *key, const float *value) {
    const struct place k = place_of(s, memory, sequence, t, head, 0);
    const struct place v = place_of(s, memory, sequence, t, head, 1);
    const struct model_row keys = model_row_of(key, s->cache.head_dim);
    const struct model_row values = model_row_of(value, s->cache.v_dim);
    put_scale(&k, &keys);
    for (int64_t c = 0; c < (keys.n + k.unit - 1) / k.unit * k.unit; c++)
        put(&k, key_element(&k, c), &keys, c);

    int bad = 0;
    put_scale(&v, &values);
    if (v.unit == 4 && v.column % 4 == 0) /* the scales of tokens to come */
        memset(v.scale + sizeof(float), 0, 3 * sizeof(float));
    for (int64_t c = 0; c < s->v_pad; c++) {
        char *where = element(&v, v.column, c, s->v_pad);
        put(&v, where, &values, c);
        bad |= !isfinite(get(&v, where));
        for (int i = 1; i < v.unit && v.column % v.unit == 0; i++)
            memset(element(&v, v.column + i, c, s->v_pad), 0, v.layout->element);
    }
    unsigned char *flag = (unsigned char *)memory + (size_t)qkv_page_of(s, sequence, t) * s->page +
                          (size_t)head * s->head + s->flags + t % s->cache.page_tokens / 16;
    *flag = (unsigned char)(bad | (v.column ? *flag : 0));
}

float model_stored(const struct qkv_cache_state *s, char *memory, int64_t sequence, int64_t t,
                   int64_t head, int which, int64_t c) {
    const struct place p = place_of(s, memory, sequence, t, head, which);
    return get(&p, which ? element(&p, p.column, c, s->v_pad) : key_element(&p, c));
}
