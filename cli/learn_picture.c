/* SPDX-License-Identifier: Apache-2.0 */
/* The picture of the party that learns: who listens to whom before and after, side by side, and
 * below it the loss and the accuracy. See learn.h. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "canvas.h"
#include "complain.h"
#include "learn.h"

enum {
    WIDTH = 1680,
    HEIGHT = 1020,
    MARGIN = 40,
    TITLE_SIZE = 4,
    SIZE = 3, /* of all other text */
    LINE = GLYPH_ROWS * SIZE,
    CELL = 28,
    LABELS = 100, /* room for the names, beside a map and above it */
    MAP_WIDTH = RECALL_TOKENS * CELL,
    MAP_HEIGHT = RECALL_GUESTS * CELL,
    MAP_TOP = 240,
    LEFT_MAP = MARGIN + LABELS,
    RIGHT_MAP = WIDTH - MARGIN - MAP_WIDTH,
    PLOT_LEFT = 120,
    PLOT_TOP = 720,
    PLOT_WIDTH = WIDTH - PLOT_LEFT - 140,
    PLOT_HEIGHT = 220,
    QUARTERS = 4, /* of either axis */
};

static const colour ink = 0x24292f, pale = 0x6e7781, grid = 0xd8dee4;
static const colour of_loss = 0x1f5fa8, of_score = 0xc4560a;

/* From white by way of blue to a deep one, so that small weights are still seen: by the root. */
static colour shade(float weight) {
    static const int stops[4][3] = {
        {0xff, 0xff, 0xff}, {0xb5, 0xd3, 0xec}, {0x3b, 0x82, 0xc4}, {0x08, 0x2a, 0x5e}};
    double place = 3 * sqrt(fmin(fmax((double)weight, 0), 1));
    int stop = place < 3 ? (int)place : 2;
    colour mixed = 0;
    for (int i = 0; i < 3; i++) {
        double part = stops[stop][i] + (place - stop) * (stops[stop + 1][i] - stops[stop][i]);
        mixed = mixed << 8 | (colour)lround(part);
    }
    return mixed;
}

static void text_centred(struct canvas *c, int x, int y, colour with, const char *text) {
    canvas_text(c, x - canvas_text_width(SIZE, text) / 2, y, SIZE, with, text);
}

static void text_to(struct canvas *c, int right, int y, colour with, const char *text) {
    canvas_text(c, right - canvas_text_width(SIZE, text), y, SIZE, with, text);
}

static void frame(struct canvas *c, int x, int y, int width, int height) {
    canvas_box(c, x - 2, y - 2, width + 4, 2, pale);
    canvas_box(c, x - 2, y + height, width + 4, 2, pale);
    canvas_box(c, x - 2, y, 2, height, pale);
    canvas_box(c, x + width, y, 2, height, pale);
}

static void draw_cells(struct canvas *c, int left, const struct learn_look *look) {
    for (int i = 0; i < RECALL_GUESTS; i++) {
        for (int j = 0; j < RECALL_TOKENS; j++) {
            canvas_box(c, left + j * CELL, MAP_TOP + i * CELL, CELL - 1, CELL - 1,
                       shade(look->weights[RECALL_GUESTS + i][j]));
        }
    }
    frame(c, left, MAP_TOP, MAP_WIDTH, MAP_HEIGHT);
    canvas_box(c, left + RECALL_GUESTS * CELL - 2, MAP_TOP, 2, MAP_HEIGHT, pale);
}

static void draw_names(struct canvas *c, int left, const struct recall_party *party) {
    const int capital = GLYPH_CAPITAL * SIZE, inset = (CELL - capital) / 2;
    for (int i = 0; i < RECALL_GUESTS; i++) {
        char called[16];
        const char *name = recall_names[party->name[i]];
        snprintf(called, sizeof called, "%s?", name);
        text_to(c, left - 10, MAP_TOP + i * CELL + inset, ink, called);
        canvas_text_up(c, left + i * CELL + inset, MAP_TOP - 10, SIZE, ink, name);
        canvas_text_up(c, left + (RECALL_GUESTS + i) * CELL + inset, MAP_TOP - 10, SIZE, pale,
                       called);
    }
    const int below = MAP_TOP + MAP_HEIGHT + 14;
    text_centred(c, left + RECALL_GUESTS * CELL / 2, below, ink, "the guests");
    text_centred(c, left + RECALL_GUESTS * CELL * 3 / 2, below, pale, "the calls");
}

static void draw_map(struct canvas *c, int left, const struct learned *l,
                     const struct learn_look *look, const char *when) {
    char title[80];
    snprintf(title, sizeof title, "%s: %.1f %% right answers", when, 100 * look->score);
    canvas_text(c, left, MAP_TOP - LABELS - LINE - 12, SIZE, ink, title);
    draw_cells(c, left, look);
    draw_names(c, left, &l->party);
}

static void draw_legend(struct canvas *c) {
    enum { STEPS = 200, HIGH = 18 };
    const int left = WIDTH / 2 - STEPS / 2, y = MAP_TOP + MAP_HEIGHT + 54;
    for (int i = 0; i < STEPS; i++) {
        canvas_box(c, left + i, y, 1, HIGH, shade((float)i / (STEPS - 1)));
    }
    frame(c, left, y, STEPS, HIGH);
    text_to(c, left - 14, y, pale, "weight 0");
    canvas_text(c, left + STEPS + 14, y, SIZE, pale, "1");
}

/* Where a value stands in the plot. */
static double plot_x(const struct learned *l, int64_t step) {
    return PLOT_LEFT + (double)step / (double)l->steps * PLOT_WIDTH;
}

static double plot_y(double share) {
    return PLOT_TOP + (1 - share) * PLOT_HEIGHT;
}

/* The top of the loss's axis: a round number for each of its quarters. The highest loss may pass it
 * by the width of its line. */
static double top_loss(const struct learned *l) {
    float highest = 0;
    for (int64_t i = 0; i <= l->steps; i++) {
        highest = l->loss[i] > highest ? l->loss[i] : highest;
    }
    return QUARTERS * fmax(1, ceil((double)highest / QUARTERS * 4 - 0.05)) / 4;
}

static void draw_axes(struct canvas *c, const struct learned *l) {
    const double top = top_loss(l);
    char text[32];
    for (int i = 0; i <= QUARTERS; i++) {
        const double share = (double)i / QUARTERS;
        const int y = (int)plot_y(share), middle = y - GLYPH_CAPITAL * SIZE / 2;
        const int64_t step = l->steps * i / QUARTERS;
        canvas_box(c, PLOT_LEFT, y - 1, PLOT_WIDTH, 2, grid);
        snprintf(text, sizeof text, "%g", top * share);
        text_to(c, PLOT_LEFT - 12, middle, of_loss, text);
        snprintf(text, sizeof text, "%g %%", 100 * share);
        canvas_text(c, PLOT_LEFT + PLOT_WIDTH + 12, middle, SIZE, of_score, text);
        snprintf(text, sizeof text, i ? "%" PRId64 : "step %" PRId64, step);
        text_centred(c, (int)plot_x(l, step), PLOT_TOP + PLOT_HEIGHT + 20, pale, text);
    }
}

static void draw_curves(struct canvas *c, const struct learned *l) {
    const double top = top_loss(l);
    for (int64_t i = 0; i < l->steps; i++) {
        canvas_line(c, plot_x(l, i), plot_y((double)l->loss[i] / top), plot_x(l, i + 1),
                    plot_y((double)l->loss[i + 1] / top), 4, of_loss);
    }
    for (int i = 0; i + 1 < l->evaluations; i++) {
        canvas_line(c, plot_x(l, l->evaluation[i].step), plot_y(l->evaluation[i].score),
                    plot_x(l, l->evaluation[i + 1].step), plot_y(l->evaluation[i + 1].score), 4,
                    of_score);
    }
    const int above = PLOT_TOP - LINE - 16;
    canvas_text(c, PLOT_LEFT, above, SIZE, of_loss, "loss");
    text_to(c, PLOT_LEFT + PLOT_WIDTH, above, of_score, "right answers at parties never seen");
}

int learn_draw(const struct learned *l, const char *path) {
    struct canvas canvas;
    if (canvas_open(&canvas, WIDTH, HEIGHT)) {
        return FAILED;
    }
    char after[40];
    snprintf(after, sizeof after, "After %" PRId64 " steps", l->steps);
    canvas_text(&canvas, MARGIN, MARGIN, TITLE_SIZE, ink,
                "Attention learns who told which story: whom the calls listen to");
    draw_map(&canvas, LEFT_MAP, l, &l->before, "Before");
    draw_map(&canvas, RIGHT_MAP, l, &l->after, after);
    draw_legend(&canvas);
    draw_axes(&canvas, l);
    draw_curves(&canvas, l);
    int status = canvas_save_png(&canvas, path);
    canvas_close(&canvas);
    return status;
}
