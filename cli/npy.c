/* SPDX-License-Identifier: Apache-2.0 */
/* Parser and writer of .npy files in memory. See npy.h. */
#include "npy.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const unsigned char npy_magic[NPY_MAGIC_SIZE] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

static const struct {
    const char *descr;
    size_t size;
} types[NPY_TYPES] = {
    [NPY_F32] = {"<f4", 4}, [NPY_F64] = {"<f8", 8}, [NPY_BOOL] = {"|b1", 1}, [NPY_U8] = {"|u1", 1}};

/* The header text that is left to read. */
struct cursor {
    const unsigned char *at, *end;
    struct npy_error *error;
};

/* A piece of the header text. */
struct text {
    const unsigned char *at;
    size_t length;
};

/* The three entries of the header. */
struct header {
    bool has_descr, has_order, has_shape;
    struct npy *npy;
};

static int fail(struct npy_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int fail(struct npy_error *error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return -1;
}

static int malformed(struct cursor *c, const char *expected) {
    return fail(c->error, "the header is not that of a .npy file: %s expected", expected);
}

static void skip_space(struct cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t')) {
        c->at++;
    }
}

/* Takes the character if it comes next. */
static bool take(struct cursor *c, char wanted) {
    skip_space(c);
    if (c->at < c->end && *c->at == (unsigned char)wanted) {
        c->at++;
        return true;
    }
    return false;
}

static bool take_word(struct cursor *c, const char *word) {
    size_t length = strlen(word);
    skip_space(c);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0) {
        return false;
    }
    c->at += length;
    return true;
}

static bool is(struct text text, const char *word) {
    return text.length == strlen(word) && memcmp(text.at, word, text.length) == 0;
}

static int read_string(struct cursor *c, struct text *text) {
    skip_space(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"')) {
        return malformed(c, "a string");
    }
    unsigned char quote = *c->at++;
    text->at = c->at;
    while (c->at < c->end && *c->at != quote) {
        c->at++;
    }
    if (c->at == c->end) {
        return malformed(c, "the end of a string");
    }
    text->length = (size_t)(c->at++ - text->at);
    return 0;
}

/* A dtype that is not one of ours: says why. */
static int refuse_descr(struct npy_error *error, struct text text) {
    int length = text.length < 20 ? (int)text.length : 20;
    const char *at = (const char *)text.at;
    if (text.length && *at == '>') {
        return fail(error, "is big-endian ('%.*s'); little-endian numbers are needed", length, at);
    }
    if (is(text, "|O") || is(text, "O")) {
        return fail(error, "holds Python objects; numbers are needed");
    }
    return fail(error, "has dtype '%.*s'; float32, float64, bool and uint8 are read", length, at);
}

static int read_descr(struct cursor *c, struct header *h) {
    skip_space(c);
    if (c->at < c->end && *c->at == '[') {
        return fail(c->error, "holds records; numbers are needed");
    }
    struct text text;
    if (read_string(c, &text)) {
        return -1;
    }
    for (int i = 0; i < NPY_TYPES; i++) {
        if (is(text, types[i].descr)) {
            h->npy->type = (enum npy_type)i;
            h->has_descr = true;
            return 0;
        }
    }
    return refuse_descr(c->error, text);
}

static int read_order(struct cursor *c, struct header *h) {
    if (take_word(c, "True")) {
        return fail(c->error, "is in Fortran order; C order is needed (numpy.ascontiguousarray)");
    }
    if (!take_word(c, "False")) {
        return malformed(c, "True or False");
    }
    h->has_order = true;
    return 0;
}

static int read_size(struct cursor *c, int64_t *size) {
    skip_space(c);
    if (take(c, '-')) {
        return fail(c->error, "has a negative dimension in its shape");
    }
    const unsigned char *start = c->at;
    *size = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        if (__builtin_mul_overflow(*size, 10, size) ||
            __builtin_add_overflow(*size, *c->at - '0', size)) {
            return fail(c->error, "has a dimension in its shape that is too large");
        }
    }
    if (c->at == start) {
        return malformed(c, "a dimension");
    }
    take(c, 'L'); /* Python 2 wrote long integers so */
    return 0;
}

static int read_shape(struct cursor *c, struct header *h) {
    struct npy *npy = h->npy;
    if (!take(c, '(')) {
        return malformed(c, "a shape");
    }
    npy->dims = 0;
    h->has_shape = true;
    while (!take(c, ')')) {
        if (npy->dims == NPY_MAX_DIMS) {
            return fail(c->error, "has more than %d dimensions", NPY_MAX_DIMS);
        }
        if (read_size(c, &npy->shape[npy->dims])) {
            return -1;
        }
        npy->dims++;
        if (!take(c, ',')) {
            return take(c, ')') ? 0 : malformed(c, "the end of the shape");
        }
    }
    return 0;
}

static int read_entry(struct cursor *c, struct header *h) {
    static const char twice[] = "has two entries of one name in its header";
    struct text key;
    if (read_string(c, &key)) {
        return -1;
    }
    if (!take(c, ':')) {
        return malformed(c, "a colon");
    }
    if (is(key, "descr")) {
        return h->has_descr ? fail(c->error, "%s", twice) : read_descr(c, h);
    }
    if (is(key, "fortran_order")) {
        return h->has_order ? fail(c->error, "%s", twice) : read_order(c, h);
    }
    if (is(key, "shape")) {
        return h->has_shape ? fail(c->error, "%s", twice) : read_shape(c, h);
    }
    return malformed(c, "descr, fortran_order or shape");
}

static int read_dictionary(struct cursor *c, struct npy *npy) {
    struct header h = {.npy = npy};
    if (!take(c, '{')) {
        return malformed(c, "'{'");
    }
    while (!take(c, '}')) {
        if (read_entry(c, &h)) {
            return -1;
        }
        if (!take(c, ',')) {
            if (!take(c, '}')) {
                return malformed(c, "'}'");
            }
            break;
        }
    }
    skip_space(c);
    if (c->at != c->end) {
        return malformed(c, "the end");
    }
    if (!h.has_descr || !h.has_order || !h.has_shape) {
        return malformed(c, "descr, fortran_order and shape");
    }
    return 0;
}

/* The product of the shape. A dimension of 0 does not hide others that are too large, since
 * strides are made from them. */
static int count_elements(struct npy *npy, struct npy_error *error) {
    int64_t product = (int64_t)types[npy->type].size;
    npy->count = 1;
    for (int i = 0; i < npy->dims; i++) {
        int64_t size = npy->shape[i];
        if (__builtin_mul_overflow(product, size ? size : 1, &product) || product > PTRDIFF_MAX) {
            return fail(error, "has a shape that is too large to fit in memory");
        }
        npy->count *= (size_t)size;
    }
    return 0;
}

/* Where the header text stands: magic, version, length (2 or 4 bytes), text. */
static int find_header(struct cursor *c, const unsigned char *file, size_t size) {
    if (size < NPY_MAGIC_SIZE || memcmp(file, npy_magic, NPY_MAGIC_SIZE) != 0) {
        return fail(c->error, "is not a .npy file");
    }
    if (size < NPY_MAGIC_SIZE + 2) {
        return fail(c->error, "is truncated in its header");
    }
    int major = file[NPY_MAGIC_SIZE], minor = file[NPY_MAGIC_SIZE + 1];
    if (major < 1 || major > 3 || minor != 0) {
        return fail(c->error, "is of version %d.%d of the .npy format; 1.0 to 3.0 are known", major,
                    minor);
    }
    size_t width = major == 1 ? 2 : 4, start = NPY_MAGIC_SIZE + 2 + width, length = 0;
    if (size < start) {
        return fail(c->error, "is truncated in its header");
    }
    for (size_t i = 0; i < width; i++) {
        length |= (size_t)file[NPY_MAGIC_SIZE + 2 + i] << (8 * i);
    }
    if (size - start < length) {
        return fail(c->error, "is truncated in its header");
    }
    c->at = file + start;
    c->end = c->at + length;
    return 0;
}

int npy_parse(struct npy *npy, const void *file, size_t size, struct npy_error *error) {
    struct cursor c = {.error = error};
    *npy = (struct npy){0};
    if (find_header(&c, file, size) || read_dictionary(&c, npy) || count_elements(npy, error)) {
        return -1;
    }
    size_t bytes = npy->count * types[npy->type].size;
    size_t left = size - (size_t)(c.end - (const unsigned char *)file);
    if (left < bytes) {
        return fail(error, "is truncated: its shape needs %zu bytes of data, %zu are there", bytes,
                    left);
    }
    if (left > bytes) {
        return fail(error, "has %zu trailing bytes behind its data", left - bytes);
    }
    npy->data = c.end;
    return 0;
}

void npy_to_f32(float *out, const struct npy *npy) {
    if (npy->type == NPY_F32) {
        memcpy(out, npy->data, npy->count * sizeof *out);
        return;
    }
    for (size_t i = 0; i < npy->count; i++) {
        double value;
        memcpy(&value, npy->data + i * sizeof value, sizeof value);
        out[i] = (float)value;
    }
}

void npy_to_bytes(uint8_t *out, const struct npy *npy) {
    memcpy(out, npy->data, npy->count);
}

size_t npy_header(unsigned char header[NPY_MAX_HEADER], int dims, const int64_t *shape) {
    enum { START = NPY_MAGIC_SIZE + 4 };
    char *text = (char *)header + START;
    size_t room = NPY_MAX_HEADER - START;
    size_t length = (size_t)snprintf(text, room,
                                     "{'descr': '<f4', 'fortran_order': False, "
                                     "'shape': (");
    for (int i = 0; i < dims; i++) {
        length += (size_t)snprintf(text + length, room - length, "%s%" PRId64 "%s", i ? " " : "",
                                   shape[i], i + 1 < dims || dims == 1 ? "," : "");
    }
    length += (size_t)snprintf(text + length, room - length, "), }");
    size_t padded = (START + length + 1 + 63) / 64 * 64; /* a newline ends it */
    memset(text + length, ' ', padded - START - length);
    header[padded - 1] = '\n';
    memcpy(header, npy_magic, NPY_MAGIC_SIZE);
    header[NPY_MAGIC_SIZE] = 1;
    header[NPY_MAGIC_SIZE + 1] = 0;
    header[NPY_MAGIC_SIZE + 2] = (unsigned char)((padded - START) & 0xff);
    header[NPY_MAGIC_SIZE + 3] = (unsigned char)((padded - START) >> 8);
    return padded;
}
