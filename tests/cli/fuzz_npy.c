/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer target for the .npy reader. An even first byte: the rest is a file. An odd one: the
 * rest is the text of a header and the data behind it, split where the second byte says, and the
 * magic, version and length are put in front, so that the header's parser is reached at once. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void read_all(const unsigned char *file, size_t size) {
    struct npy npy;
    struct npy_error error = {""};
    if (npy_parse(&npy, file, size, &error)) {
        if (!memchr(error.text, 0, sizeof error.text) || !error.text[0]) {
            abort();
        }
        return;
    }
    if (npy.dims > NPY_MAX_DIMS || npy.count > size) {
        abort();
    }
    float *numbers = malloc(npy.count * sizeof *numbers + 1);
    if (npy.type == NPY_F32 || npy.type == NPY_F64) {
        npy_to_f32(numbers, &npy);
    } else {
        npy_to_bytes((uint8_t *)numbers, &npy);
    }
    free(numbers);
}

/* The file in memory of exactly its size. */
static void read_wrapped(const uint8_t *bytes, size_t size, size_t header) {
    enum { PREFIX = NPY_MAGIC_SIZE + 4 };
    unsigned char *file = malloc(PREFIX + size);
    if (!file) {
        return;
    }
    memcpy(file, npy_magic, NPY_MAGIC_SIZE);
    file[NPY_MAGIC_SIZE] = 1;
    file[NPY_MAGIC_SIZE + 1] = 0;
    file[NPY_MAGIC_SIZE + 2] = (unsigned char)(header & 0xff);
    file[NPY_MAGIC_SIZE + 3] = (unsigned char)(header >> 8);
    memcpy(file + PREFIX, bytes, size);
    read_all(file, PREFIX + size);
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    if (size < 2) {
        read_all(bytes, size);
    } else if (bytes[0] % 2 == 0) {
        read_all(bytes + 1, size - 1);
    } else {
        size_t header = bytes[1] < size - 2 ? bytes[1] : size - 2;
        read_wrapped(bytes + 2, size - 2, header);
    }
    return 0;
}
