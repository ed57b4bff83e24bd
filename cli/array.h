/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays in memory, from and to .npy files. All functions print their own complaint. */
#ifndef QKV_CLI_ARRAY_H
#define QKV_CLI_ARRAY_H

#include <stdint.h>

#include "file.h"
#include "npy.h"

struct array {
    const char *path; /* of its file; names it in complaints */
    int dims;
    int64_t shape[NPY_MAX_DIMS];
    size_t count;
    void *data; /* float or uint8_t, C order; never NULL once loaded */
};

/* Reads a file of float32 or float64 into floats. FINE or FAILED. */
int array_load(struct array *array, const char *path);

/* Reads a file of bool or uint8 into bytes. */
int array_load_mask(struct array *array, const char *path);

void array_free(struct array *array);

/* The shape as NumPy prints it, "(3, 4)", into text; returns text. */
enum { SHAPE_TEXT = 24 * NPY_MAX_DIMS };
const char *shape_text(char text[SHAPE_TEXT], int dims, const int64_t *shape);

/* Stages a float32 array as a .npy file (see file.h). */
int array_stage(struct staged *staged, const char *path, int dims, const int64_t *shape,
                const float *data);

#endif
