/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors for tests: strides from a layout, values from places, canaries around and between. */
#include "tensor.h"

#include <stdlib.h>
#include <string.h>

#include "rng.h"

/* The dimensions from the innermost out, the last one (always innermost) left out. */
static const uint8_t orders[LAYOUT_ORDERS][3] = {{2, 1, 0}, {1, 2, 0}, {2, 0, 1},
                                                 {0, 2, 1}, {1, 0, 2}, {0, 1, 2}};

static bool has_bit(uint8_t bits, int bit) {
    return bits >> bit & 1;
}

/* Sets the strides, all positive, and returns the extent in elements. */
static int64_t lay_out(struct tensor *tensor) {
    const struct layout *layout = &tensor->layout;
    int64_t *stride = tensor->view.stride;
    stride[3] = !has_bit(layout->zero, 3);
    int64_t extent = stride[3] ? tensor->dim[3] : tensor->dim[3] > 0;
    for (int i = 0; i < 3; i++) {
        int d = orders[layout->order][i];
        if (has_bit(layout->zero, d)) {
            stride[d] = 0;
            extent = tensor->dim[d] ? extent : 0;
            continue;
        }
        stride[d] = extent + layout->gap[d];
        extent = tensor->dim[d] ? stride[d] * (tensor->dim[d] - 1) + extent : 0;
    }
    return extent;
}

/* Turns reversed dimensions round; returns the place of the element (0, 0, 0, 0). */
static int64_t turn_round(struct tensor *tensor) {
    int64_t origin = 0;
    for (int d = 0; d < 3; d++) {
        if (!has_bit(tensor->layout.reverse, d) || tensor->dim[d] < 2)
            continue;
        origin += (tensor->dim[d] - 1) * tensor->view.stride[d];
        tensor->view.stride[d] = -tensor->view.stride[d];
    }
    return origin;
}

struct tensor tensor_make(int dtype, const int64_t dim[4], struct layout layout) {
    size_t element = dtype == QKV_BOOL ? 1 : sizeof(float);
    struct tensor tensor = {.layout = layout, .view = {.dtype = dtype}};
    memcpy(tensor.dim, dim, sizeof tensor.dim);
    int64_t extent = lay_out(&tensor);
    int64_t origin = extent ? turn_round(&tensor) : 0;
    tensor.memory =
        guard_alloc((size_t)extent * element, element, layout.side, layout.offset * element);
    tensor.view.data = tensor.memory.data + (size_t)origin * element;
    return tensor;
}

void tensor_free(struct tensor *tensor) {
    guard_free(&tensor->memory);
    free(tensor->before);
    *tensor = (struct tensor){0};
}

static int64_t place(const qkv_tensor *view, int64_t b, int64_t h, int64_t t, int64_t c) {
    return b * view->stride[0] + h * view->stride[1] + t * view->stride[2] + c * view->stride[3];
}

float *tensor_f32(const qkv_tensor *view, int64_t b, int64_t h, int64_t t, int64_t c) {
    return (float *)view->data + place(view, b, h, t, c);
}

uint8_t *tensor_bool(const qkv_tensor *view, int64_t b, int64_t h, int64_t t, int64_t c) {
    return (uint8_t *)view->data + place(view, b, h, t, c);
}

/* Calls visit for each index of the view, in order. */
typedef void visitor(struct tensor *tensor, const int64_t index[4], void *argument);

static void for_each(struct tensor *tensor, visitor *visit, void *argument) {
    const int64_t *dim = tensor->dim;
    int64_t i[4];
    for (i[0] = 0; i[0] < dim[0]; i[0]++)
        for (i[1] = 0; i[1] < dim[1]; i[1]++)
            for (i[2] = 0; i[2] < dim[2]; i[2]++)
                for (i[3] = 0; i[3] < dim[3]; i[3]++)
                    visit(tensor, i, argument);
}

struct filling {
    uint64_t seed;
    tensor_value *value;
    void *argument;
};

static void fill_one(struct tensor *tensor, const int64_t index[4], void *argument) {
    const struct filling *filling = argument;
    uint64_t hash = filling->seed;
    for (int d = 0; d < 4; d++)
        hash = hash * 0x100000001b3U + (has_bit(tensor->layout.zero, d) ? 0 : (uint64_t)index[d]);
    *tensor_f32(&tensor->view, index[0], index[1], index[2], index[3]) =
        filling->value(filling->argument, rng_hash(filling->seed, hash));
}

void tensor_fill(struct tensor *tensor, uint64_t seed, tensor_value *value, void *argument) {
    struct filling filling = {seed, value, argument};
    for_each(tensor, fill_one, &filling);
}

void tensor_freeze(struct tensor *tensor) {
    size_t size = tensor->memory.size;
    if (!tensor->before)
        tensor->before = malloc(size ? size : 1);
    if (!tensor->before)
        exit(EXIT_FAILURE);
    memcpy(tensor->before, tensor->memory.data, size);
}

struct verdict tensor_check_input(const struct tensor *tensor, const char *name) {
    const struct guard *memory = &tensor->memory;
    if (!memory->pages)
        return verdict_ok();
    if (!guard_intact(memory))
        return verdict_fail("%s is an input, and bytes beside it were written", name);
    if (tensor->before && memcmp(tensor->before, memory->data, memory->size) != 0)
        return verdict_fail("%s is an input, and was written", name);
    return verdict_ok();
}

static void mark_one(struct tensor *tensor, const int64_t index[4], void *argument) {
    const float *element = tensor_f32(&tensor->view, index[0], index[1], index[2], index[3]);
    unsigned char *covered = argument;
    covered[element - (const float *)(const void *)tensor->memory.data] = 1;
}

/* The first element whose being a canary differs from its being outside the view, or -1. */
static int64_t find_misplaced(const struct tensor *tensor, const unsigned char *covered) {
    for (size_t i = 0; i < tensor->memory.size / sizeof(float); i++) {
        uint32_t bits;
        memcpy(&bits, tensor->memory.data + i * sizeof bits, sizeof bits);
        if ((bits == GUARD_CANARY) == (covered[i] != 0))
            return (int64_t)i;
    }
    return -1;
}

struct verdict tensor_check_output(const struct tensor *tensor, const char *name) {
    if (!tensor->memory.pages)
        return verdict_ok();
    unsigned char *covered = calloc(tensor->memory.size / sizeof(float) + 1, 1);
    if (!covered)
        exit(EXIT_FAILURE);
    struct tensor copy = *tensor;
    for_each(&copy, mark_one, covered);
    int64_t wrong = find_misplaced(tensor, covered);
    struct verdict verdict = verdict_ok();
    if (wrong >= 0)
        verdict =
            verdict_fail("%s: element %lld of its memory %s", name, (long long)wrong,
                         covered[wrong] ? "was not written" : "lies in a gap and was written");
    else if (!guard_intact(&tensor->memory))
        verdict = verdict_fail("%s: bytes beside it were written", name);
    free(covered);
    return verdict;
}
