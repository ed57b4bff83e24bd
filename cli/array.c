/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays from and to .npy files. See array.h. */
#include "array.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "complain.h"

/* What is wanted of a file: which dtypes, their name, and the conversion to what is kept. */
struct want {
    const char *name;
    unsigned types; /* bits of npy_type */
    size_t size;    /* bytes an element in memory */
    void (*convert)(void *out, const struct npy *npy);
};

static void to_floats(void *out, const struct npy *npy) {
    npy_to_f32(out, npy);
}

static void to_bytes(void *out, const struct npy *npy) {
    npy_to_bytes(out, npy);
}

static const struct want floats = {"float32 or float64", 1u << NPY_F32 | 1u << NPY_F64,
                                   sizeof(float), to_floats};
static const struct want bytes = {"bool or uint8", 1u << NPY_BOOL | 1u << NPY_U8, 1, to_bytes};

static int convert(struct array *array, const struct npy *npy, const struct want *want) {
    if (!(want->types >> npy->type & 1)) {
        return complain(FAILED, array->path, "holds %s; %s is needed here",
                        floats.types >> npy->type & 1 ? floats.name : bytes.name, want->name);
    }
    array->data = malloc(npy->count ? npy->count * want->size : 1);
    if (!array->data) {
        return out_of_memory(array->path);
    }
    array->dims = npy->dims;
    array->count = npy->count;
    memcpy(array->shape, npy->shape, sizeof array->shape);
    want->convert(array->data, npy);
    return FINE;
}

static int load(struct array *array, const char *path, const struct want *want) {
    unsigned char *file;
    size_t size;
    *array = (struct array){.path = path};
    int status = file_read(path, npy_magic, NPY_MAGIC_SIZE, &file, &size);
    if (status) {
        return status;
    }
    struct npy npy;
    struct npy_error error;
    if (npy_parse(&npy, file, size, &error)) {
        status = complain(FAILED, path, "%s", error.text);
    } else {
        status = convert(array, &npy, want);
    }
    free(file);
    return status;
}

int array_load(struct array *array, const char *path) {
    return load(array, path, &floats);
}

int array_load_mask(struct array *array, const char *path) {
    return load(array, path, &bytes);
}

void array_free(struct array *array) {
    free(array->data);
    *array = (struct array){0};
}

const char *shape_text(char text[SHAPE_TEXT], int dims, const int64_t *shape) {
    size_t length = (size_t)snprintf(text, SHAPE_TEXT, "(");
    for (int i = 0; i < dims; i++) {
        length += (size_t)snprintf(text + length, SHAPE_TEXT - length, "%s%" PRId64, i ? ", " : "",
                                   shape[i]);
    }
    snprintf(text + length, SHAPE_TEXT - length, "%s", dims == 1 ? ",)" : ")");
    return text;
}

int array_stage(struct staged *staged, const char *path, int dims, const int64_t *shape,
                const float *data) {
    unsigned char header[NPY_MAX_HEADER];
    size_t header_size = npy_header(header, dims, shape);
    size_t count = 1;
    for (int i = 0; i < dims; i++) {
        count *= (size_t)shape[i];
    }
    return file_stage(staged, path, header, header_size, data, count * sizeof *data);
}
