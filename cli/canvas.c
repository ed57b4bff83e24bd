/* SPDX-License-Identifier: Apache-2.0 */
/* Rectangles, lines and letters. See canvas.h. */
#include "canvas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "complain.h"

int canvas_open(struct canvas *canvas, int width, int height) {
    size_t size = (size_t)width * (size_t)height * 3;
    *canvas = (struct canvas){width, height, malloc(size)};
    if (!canvas->pixels) {
        return out_of_memory("--png");
    }
    memset(canvas->pixels, 0xff, size);
    return FINE;
}

void canvas_close(struct canvas *canvas) {
    free(canvas->pixels);
    *canvas = (struct canvas){0};
}

/* Covers a pixel by a share from 0 to 1. */
static void blend(struct canvas *canvas, int x, int y, colour ink, double share) {
    if (x < 0 || y < 0 || x >= canvas->width || y >= canvas->height || share <= 0) {
        return;
    }
    unsigned char *pixel = canvas->pixels + 3 * ((size_t)y * (size_t)canvas->width + (size_t)x);
    for (int i = 0; i < 3; i++) {
        double wanted = (double)(ink >> (16 - 8 * i) & 0xff);
        pixel[i] = (unsigned char)lround(pixel[i] + (wanted - pixel[i]) * fmin(share, 1));
    }
}

void canvas_box(struct canvas *canvas, int x, int y, int width, int height, colour ink) {
    for (int i = 0; i < height; i++) {
        for (int j = 0; j < width; j++) {
            blend(canvas, x + j, y + i, ink, 1);
        }
    }
}

void canvas_line(struct canvas *canvas, double x0, double y0, double x1, double y1, double width,
                 colour ink) {
    double dx = x1 - x0, dy = y1 - y0, square = dx * dx + dy * dy, margin = width / 2 + 1;
    int left = (int)floor(fmin(x0, x1) - margin), right = (int)ceil(fmax(x0, x1) + margin);
    int top = (int)floor(fmin(y0, y1) - margin), bottom = (int)ceil(fmax(y0, y1) + margin);
    for (int y = top; y <= bottom; y++) {
        for (int x = left; x <= right; x++) {
            double px = x + 0.5 - x0, py = y + 0.5 - y0;
            double along = square > 0 ? fmin(fmax((px * dx + py * dy) / square, 0), 1) : 0;
            double away = hypot(px - along * dx, py - along * dy);
            blend(canvas, x, y, ink, width / 2 + 0.5 - away);
        }
    }
}

static const struct glyph *glyph_of(char letter) {
    unsigned char code = (unsigned char)letter;
    return &canvas_glyphs[code < CANVAS_GLYPHS && canvas_glyphs[code].width ? code : '?'];
}

int canvas_text_width(int size, const char *text) {
    int width = 0;
    for (; *text; text++) {
        width += (glyph_of(*text)->width + 1) * size;
    }
    return width > 0 ? width - size : 0;
}

/* Letters along (dx, dy), which is to the right or up; a letter's rows go to the right of that. */
static void write_along(struct canvas *canvas, int x, int y, int dx, int dy, int size, colour ink,
                        const char *text) {
    for (; *text; text++) {
        const struct glyph *g = glyph_of(*text);
        for (int row = 0; row < GLYPH_ROWS; row++) {
            for (int column = 0; column < g->width; column++) {
                if (g->rows[row] >> column & 1) {
                    int along = column * size, down = row * size;
                    canvas_box(canvas, x + along * dx - down * dy,
                               y + along * dy + down * dx - (dy < 0 ? size : 0), size, size, ink);
                }
            }
        }
        x += (g->width + 1) * size * dx;
        y += (g->width + 1) * size * dy;
    }
}

void canvas_text(struct canvas *canvas, int x, int y, int size, colour ink, const char *text) {
    write_along(canvas, x, y, 1, 0, size, ink, text);
}

void canvas_text_up(struct canvas *canvas, int x, int y, int size, colour ink, const char *text) {
    write_along(canvas, x, y, 0, -1, size, ink, text);
}
