/* SPDX-License-Identifier: Apache-2.0 */
/* A picture in memory: rectangles, lines and letters in RGB; saved as a PNG. */
#ifndef QKV_CLI_CANVAS_H
#define QKV_CLI_CANVAS_H

#include <stdint.h>

enum { GLYPH_ROWS = 9, GLYPH_CAPITAL = 7, CANVAS_GLYPHS = 128 };

struct glyph {
    uint8_t width; /* 0: no such letter */
    uint8_t rows[GLYPH_ROWS];
};

extern const struct glyph canvas_glyphs[CANVAS_GLYPHS];

struct canvas {
    int width, height;
    unsigned char *pixels; /* RGB, row by row */
};

/* 0xRRGGBB */
typedef uint32_t colour;

/* A white canvas. FINE, or FAILED with a complaint. */
int canvas_open(struct canvas *canvas, int width, int height);
void canvas_close(struct canvas *canvas);

/* What lies outside the canvas is left out. */
void canvas_box(struct canvas *canvas, int x, int y, int width, int height, colour ink);
void canvas_line(struct canvas *canvas, double x0, double y0, double x1, double y1, double width,
                 colour ink);

/* Text whose capitals begin at y, each pixel of a letter `size` pixels wide. canvas_text_up writes
 * from the bottom up, its capitals' tops at x and its first letter at y. */
void canvas_text(struct canvas *canvas, int x, int y, int size, colour ink, const char *text);
void canvas_text_up(struct canvas *canvas, int x, int y, int size, colour ink, const char *text);
int canvas_text_width(int size, const char *text);

/* Whether this build can save a PNG. */
extern const int canvas_has_png;

/* FINE, or FAILED with a complaint; an old file stays whole (file.h). */
int canvas_save_png(const struct canvas *canvas, const char *path);

#endif
