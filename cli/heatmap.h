/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A heat map of a matrix of weights in the terminal: rows and columns with labels, one cell per
 * weight while there is room; otherwise a cell stands for a square of them and shows the largest.
 * Shades and colours when the output is a terminal and NO_COLOR is unset, ASCII otherwise.
 */
#ifndef QKV_CLI_HEATMAP_H
#define QKV_CLI_HEATMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct heatmap {
    const float *values; /* [rows, columns], not negative */
    int64_t rows, columns;
    ptrdiff_t stride;                 /* from row to row */
    const char *const *row_labels;    /* NULL: the numbers from 0 */
    const char *const *column_labels; /* written from top to bottom */
};

/* Where a map is printed. */
struct screen {
    FILE *to;
    int width;
    bool terminal; /* one that can move its cursor */
    bool colour;
};

/* The screen behind stdout, as the terminal and the environment say. */
struct screen screen_of_stdout(void);

void heatmap_print(const struct heatmap *map, const struct screen *screen);

#endif
