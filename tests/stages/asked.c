/* SPDX-License-Identifier: Apache-2.0 */
/* What products ask for ahead, of which no bit of a result can tell: where they do so in lanes,
 * each line of what comes next, once. With stored keys and values, and in the projection of few
 * tokens. Linked with rooms whose prefetches are told here (asked_line.h). */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#define ASKED_LINE_TAKES
#include "asked_line.h"
#include "context.h"
#include "kernels_cache.h"
#include "support/rooms.h"

enum { PANELS = 16, LINE = 64, STORED_BYTES = 4, MOST = 256 };

/* What comes next: panels in an order that is not that of memory, and how often each line was asked
 * for. */
static struct {
    char *memory;
    size_t size; /* of a panel */
    const void *panel[PANELS];
    int times[PANELS * MOST * STORED_BYTES * QKV_PANEL / LINE];
    int elsewhere;
} next;

void asked_line(const void *line) {
    const uintptr_t past = (uintptr_t)line - (uintptr_t)next.memory;
    if (past < PANELS * next.size)
        next.times[past / LINE]++;
    else
        next.elsewhere++;
}

static void next_begin(size_t size) {
    next.size = size;
    next.memory = aligned_alloc(LINE, PANELS * size);
    ck_assert_ptr_nonnull(next.memory);
    for (int i = 0; i < PANELS; i++)
        next.panel[i] = next.memory + (size_t)(i * 7 % PANELS) * size;
    memset(next.times, 0, sizeof(next.times));
    next.elsewhere = 0;
}

static void next_end(const char *what, int type, int rows, int numbers) {
    for (size_t i = 0; i < PANELS * next.size / LINE; i++)
        ck_assert_msg(next.times[i] == 1,
                      "%s of type %d, %d rows, %d numbers: line %zu of %zu of "
                      "a panel was asked for %d times",
                      what, type, rows, numbers, i % (next.size / LINE), next.size / LINE,
                      next.times[i]);
    ck_assert_msg(next.elsewhere == 0, "%s of type %d, %d rows, %d numbers: %d lines elsewhere",
                  what, type, rows, numbers, next.elsewhere);
    free(next.memory);
}

static const size_t bytes_of[QKV_STORED_COUNT] = {
    [QKV_STORED_F32] = 4, [QKV_STORED_F16] = 2, [QKV_STORED_BF16] = 2, [QKV_STORED_I8] = 1};

/* The block's own panels: zeros, all the same. */
static _Alignas(LINE) const char zeros[QKV_PANEL * MOST * STORED_BYTES];

static void own_panels(const void **panel) {
    for (int i = 0; i < PANELS; i++)
        panel[i] = zeros;
}

static void ask_by_keys(const struct qkv_decode_kernels *kernels, int type, int rows, int k) {
    static float q[QKV_FEW * MOST], s[QKV_FEW * PANELS * QKV_PANEL];
    const void *panel[PANELS];
    own_panels(panel);
    next_begin(bytes_of[type] * QKV_PANEL * (size_t)k);
    const struct qkv_key_product p = {.q = q,
                                      .panel = panel,
                                      .s = s,
                                      .ldq = MOST,
                                      .lds = PANELS * QKV_PANEL,
                                      .k = k,
                                      .rows = rows,
                                      .panels = PANELS,
                                      .next = next.panel,
                                      .nexts = PANELS,
                                      .lanes = 1};
    kernels->keys[type](&p);
    next_end("keys", type, rows, k);
}

static void ask_by_values(const struct qkv_decode_kernels *kernels, int type, int rows, int n) {
    static float w[QKV_FEW * PANELS * QKV_PANEL], acc[QKV_FEW * MOST];
    const void *panel[PANELS];
    own_panels(panel);
    next_begin(bytes_of[type] * QKV_PANEL * (size_t)n);
    const struct qkv_value_product p = {.w = w,
                                        .panel = panel,
                                        .acc = acc,
                                        .ldw = PANELS * QKV_PANEL,
                                        .ld_acc = MOST,
                                        .n = n,
                                        .rows = rows,
                                        .to = PANELS * QKV_PANEL,
                                        .next = next.panel,
                                        .nexts = PANELS,
                                        .lanes = 1};
    kernels->values[type](&p);
    next_end("values", type, rows, n);
}

START_TEST(each_line_of_four_lanes_once) {
    const struct qkv_decode_kernels *kernels =
        qkv_context_get(&rooms_get(_i)->context)->table.decode;
    const int numbers[] = {64, 128, 256};
    if (qkv_context_isa(&rooms_get(_i)->context) == QKV_ISA_SCALAR)
        return; /* it asks for nothing */
    for (int type = 0; type < QKV_STORED_COUNT; type++)
        for (int rows = 1; rows <= 4; rows++)
            for (int i = 0; i < 3; i++) {
                ask_by_keys(kernels, type, rows, numbers[i]);
                ask_by_values(kernels, type, rows, numbers[i]);
            }
}
END_TEST

enum { TOKENS = 24, INPUTS = 512, STRIPS = 2 };

/* Two strips of W, the first of which is multiplied. */
static void ask_by_tokens(const struct qkv_project_kernels *kernels, int tokens, int inputs) {
    static float x[TOKENS * INPUTS], sum[TOKENS * QKV_STRIP * QKV_PANEL];
    static _Alignas(LINE) float w[STRIPS * QKV_STRIP * INPUTS * QKV_PANEL];
    const int panel = inputs * QKV_PANEL;
    next.memory = (char *)w;
    next.size = (size_t)panel * sizeof(float) * STRIPS * QKV_STRIP / PANELS;
    memset(next.times, 0, sizeof(next.times));
    next.elsewhere = 0;
    const struct qkv_multiply g = {.x = x,
                                   .w = w,
                                   .sum = sum,
                                   .x_ld = INPUTS,
                                   .w_panel = panel,
                                   .sum_ld = QKV_STRIP * QKV_PANEL,
                                   .tokens = tokens,
                                   .k = inputs,
                                   .panels = QKV_STRIP,
                                   .ahead = w + QKV_STRIP * panel,
                                   .ahead_k = inputs};
    kernels->multiply_lanes(&g);

    int width = 0; /* of a tile: nobody asks for the first one's panels */
    while (width < QKV_STRIP && next.times[width * inputs] == 0)
        width++;
    ck_assert_int_ge(width, 1);
    for (int i = 0; i < STRIPS * QKV_STRIP * inputs; i++)
        ck_assert_msg(next.times[i] == (i >= width * inputs && i < (width + QKV_STRIP) * inputs),
                      "%d tokens, %d inputs: line %d of panel %d was asked for %d times", tokens,
                      inputs, i % inputs, i / inputs, next.times[i]);
    ck_assert_int_eq(next.elsewhere, 0);
}

START_TEST(each_line_of_weights_once) {
    const struct qkv_table *table = &qkv_context_get(&rooms_get(_i)->context)->table;
    const int isa = qkv_context_isa(&rooms_get(_i)->context);
    if (isa == QKV_ISA_SCALAR)
        return;
    const int two_tiles = isa == QKV_ISA_AVX2 ? 12 : 23;
    for (int tokens = 1; tokens <= two_tiles; tokens++)
        for (int inputs = QKV_STRETCH; inputs <= INPUTS; inputs *= 2)
            ask_by_tokens(table->project, tokens, inputs);
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("asked");
    TCase *tcase = tcase_create("lanes");
    tcase_add_room_test(tcase, each_line_of_four_lanes_once);
    tcase_add_room_test(tcase, each_line_of_weights_once);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    return suite_main(make);
}
