/* SPDX-License-Identifier: Apache-2.0 */
/* The half-width formats, straight from their definitions. */
#include "stored.h"

#include <math.h>

/* Bits of the fraction, and the exponents of the smallest normal and of the largest number. */
static const struct {
    int fraction, least, most;
} formats[REF_FORMATS] = {
    [REF_F16] = {10, -14, 15},
    [REF_BF16] = {7, -126, 127},
};

int ref_fraction_bits(enum ref_format format) {
    return formats[format].fraction;
}

double ref_format_value(enum ref_format format, uint32_t bits) {
    const int width = formats[format].fraction, least = formats[format].least;
    const double sign = bits & 0x8000 ? -1 : 1, fraction = bits & ((1U << width) - 1);
    const int exponent = (int)((bits & 0x7fff) >> width);
    if (exponent == 0)
        return sign * ldexp(fraction, least - width);
    if (exponent > formats[format].most - least + 1)
        return fraction > 0 ? NAN : sign * INFINITY;
    return sign * ldexp(fraction + ldexp(1, width), exponent - 1 + least - width);
}

double ref_format_rounded(enum ref_format format, double x) {
    if (x == 0 || !isfinite(x))
        return x;
    const int least = formats[format].least;
    const int exponent = ilogb(x) > least ? ilogb(x) : least;
    const double unit = ldexp(1, exponent - formats[format].fraction);
    const double rounded = nearbyint(x / unit) * unit;
    const double beyond = ldexp(1, formats[format].most + 1);
    return fabs(rounded) < beyond ? rounded : copysign(INFINITY, x);
}
