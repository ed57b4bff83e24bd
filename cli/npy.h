/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The .npy format, versions 1.0 to 3.0, in memory: a magic string, the length of a header, the
 * header (a Python literal with dtype, order and shape), and the elements. Reads little-endian
 * float32 and float64, bool and uint8, in C order; writes float32. Knows nothing of files, so
 * that a fuzzer can drive it.
 */
#ifndef QKV_CLI_NPY_H
#define QKV_CLI_NPY_H

#include <stddef.h>
#include <stdint.h>

enum { NPY_MAX_DIMS = 8, NPY_MAX_HEADER = 256, NPY_MAGIC_SIZE = 6 };

enum npy_type { NPY_F32, NPY_F64, NPY_BOOL, NPY_U8, NPY_TYPES };

/* What a file holds. The elements stand in the file's own memory, not aligned. */
struct npy {
    enum npy_type type;
    int dims;
    int64_t shape[NPY_MAX_DIMS];
    size_t count; /* elements: the product of the shape, 1 for no dimensions */
    const unsigned char *data;
};

/* What is wrong with a file, in words that follow "FILE: ". */
struct npy_error {
    char text[200];
};

/* The magic string that every file begins with. */
extern const unsigned char npy_magic[NPY_MAGIC_SIZE];

/* Reads the whole file of `size` bytes. 0, or -1 with *error filled; never reads outside the
 * file, whatever it holds, and count elements of it are there on success. */
int npy_parse(struct npy *npy, const void *file, size_t size, struct npy_error *error);

/* The elements as float32; for NPY_F32 and NPY_F64. A float64 beyond the range of float32
 * becomes an infinity. */
void npy_to_f32(float *out, const struct npy *npy);

/* The elements as bytes, non-zero is true; for NPY_BOOL and NPY_U8. */
void npy_to_bytes(uint8_t *out, const struct npy *npy);

/* Writes the header of a float32 array; returns its length, a multiple of 64. */
size_t npy_header(unsigned char header[NPY_MAX_HEADER], int dims, const int64_t *shape);

#endif
