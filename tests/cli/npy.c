/* SPDX-License-Identifier: Apache-2.0 */
/* The .npy parser in memory: what it writes it reads, and whatever is done to a file's bytes, it
 * never reads outside them. Each file stands in memory of exactly its size, so that the
 * sanitizers and valgrind see a byte too many. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "npy.h"

/* A file of float32 in memory of its own; its elements are 0, 1, 2, ... */
static unsigned char *make_file(int dims, const int64_t *shape, size_t *size, size_t *count) {
    unsigned char header[NPY_MAX_HEADER];
    size_t head = npy_header(header, dims, shape);
    *count = 1;
    for (int i = 0; i < dims; i++) {
        *count *= (size_t)shape[i];
    }
    *size = head + *count * sizeof(float);
    unsigned char *file = malloc(*size);
    ck_assert_ptr_nonnull(file);
    memcpy(file, header, head);
    for (size_t i = 0; i < *count; i++) {
        float value = (float)i;
        memcpy(file + head + i * sizeof value, &value, sizeof value);
    }
    return file;
}

/* What a caller does with a file: parses it and reads all of its elements. */
static int read_all(const unsigned char *file, size_t size, struct npy *npy) {
    struct npy_error error = {""};
    if (npy_parse(npy, file, size, &error)) {
        ck_assert_msg(error.text[0] != 0, "an error without words");
        return -1;
    }
    ck_assert_ptr_eq(npy->data + (file + size - npy->data), file + size);
    float *numbers = malloc(npy->count ? npy->count * sizeof *numbers : 1);
    ck_assert_ptr_nonnull(numbers);
    if (npy->type == NPY_F32 || npy->type == NPY_F64) {
        npy_to_f32(numbers, npy);
    } else {
        npy_to_bytes((uint8_t *)numbers, npy);
    }
    free(numbers);
    return 0;
}

START_TEST(reads_what_it_writes) {
    static const int64_t shape[NPY_MAX_DIMS] = {2, 1, 3, 4, 1, 1, 2, 5};
    for (int dims = 0; dims <= NPY_MAX_DIMS; dims++) {
        size_t size, count;
        struct npy npy;
        unsigned char *file = make_file(dims, shape, &size, &count);
        ck_assert_int_eq(read_all(file, size, &npy), 0);
        ck_assert_int_eq(npy.type, NPY_F32);
        ck_assert_int_eq(npy.dims, dims);
        ck_assert_uint_eq(npy.count, count);
        ck_assert_int_eq((npy.data - file) % 64, 0);
        for (int i = 0; i < dims; i++) {
            ck_assert_int_eq(npy.shape[i], shape[i]);
        }
        float *numbers = malloc(count * sizeof *numbers);
        npy_to_f32(numbers, &npy);
        for (size_t i = 0; i < count; i++) {
            ck_assert_float_eq(numbers[i], (float)i);
        }
        free(numbers);
        free(file);
    }
}
END_TEST

/* The longest header that can be written. */
START_TEST(large_sizes) {
    int64_t shape[NPY_MAX_DIMS];
    unsigned char header[NPY_MAX_HEADER];
    struct npy npy;
    struct npy_error error;
    for (int i = 0; i < NPY_MAX_DIMS; i++) {
        shape[i] = INT64_MAX;
    }
    size_t size = npy_header(header, NPY_MAX_DIMS, shape);
    ck_assert_uint_le(size, sizeof header);
    ck_assert_int_eq(header[size - 1], '\n');
    ck_assert_int_eq(npy_parse(&npy, header, size, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "too large"));
}
END_TEST

/* Every file that ends too early is refused. */
START_TEST(every_prefix) {
    static const int64_t shape[] = {3, 4};
    size_t size, count;
    unsigned char *file = make_file(2, shape, &size, &count);
    for (size_t length = 0; length < size; length++) {
        struct npy npy;
        unsigned char *part = malloc(length ? length : 1);
        memcpy(part, file, length);
        ck_assert_int_eq(read_all(part, length, &npy), -1);
        free(part);
    }
    free(file);
}
END_TEST

/* Every byte of the header replaced by every other: refused, or a file that makes sense. */
START_TEST(every_byte) {
    static const int64_t shape[] = {3, 4};
    size_t size, count;
    unsigned char *file = make_file(2, shape, &size, &count);
    size_t head = size - count * sizeof(float);
    for (size_t i = 0; i < head; i++) {
        unsigned char kept = file[i];
        for (int byte = 0; byte < 256; byte++) {
            struct npy npy;
            file[i] = (unsigned char)byte;
            if (read_all(file, size, &npy) == 0) {
                ck_assert_uint_eq(npy.count * (npy.type == NPY_F64   ? 8
                                               : npy.type == NPY_F32 ? 4
                                                                     : 1),
                                  count * sizeof(float));
            }
        }
        file[i] = kept;
    }
    free(file);
}
END_TEST

/* float64 to float32: rounding, zeros and infinities as the hardware has them. */
START_TEST(converts) {
    static const double values[] = {0.1,   -0.0,     1e300,      -1e300,
                                    1e-60, INFINITY, 16777217.0, 1.401298464324817e-45};
    static const float expected[] = {0.1f, -0.0f,    INFINITY,    -INFINITY,
                                     0.0f, INFINITY, 16777216.0f, 1.401298464324817e-45f};
    enum { COUNT = sizeof values / sizeof values[0] };
    struct npy npy = {.type = NPY_F64, .count = COUNT, .data = (const unsigned char *)values};
    float numbers[COUNT];
    npy_to_f32(numbers, &npy);
    ck_assert_mem_eq(numbers, expected, sizeof expected);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("npy");
    TCase *tcase = tcase_create("npy");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, reads_what_it_writes);
    tcase_add_test(tcase, large_sizes);
    tcase_add_test(tcase, every_prefix);
    tcase_add_test(tcase, every_byte);
    tcase_add_test(tcase, converts);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
