/* SPDX-License-Identifier: Apache-2.0 */
/* The heat map. See heatmap.h. */
#include "heatmap.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { MAX_ROWS = 64, MAX_CELL = 3, MAX_LABEL = 12, NUMBER_SIZE = 24, LEVELS = 10 };

/* How a cell looks at each level; the first is nothing to speak of. */
struct look {
    const char *full, *half; /* the mark twice and once: cells are two or one mark wide */
    int colour;              /* of the 256-colour palette */
};

static const struct look coloured[LEVELS] = {
    {"··", "·", 238}, {"░░", "░", 24},  {"░░", "░", 31},  {"▒▒", "▒", 37},  {"▒▒", "▒", 72},
    {"▓▓", "▓", 107}, {"▓▓", "▓", 143}, {"██", "█", 179}, {"██", "█", 215}, {"██", "█", 229},
};

static const struct look plain[LEVELS] = {
    {"  ", " ", 0}, {"..", ".", 0}, {"::", ":", 0}, {"--", "-", 0}, {"==", "=", 0},
    {"++", "+", 0}, {"**", "*", 0}, {"##", "#", 0}, {"%%", "%", 0}, {"@@", "@", 0},
};

static const struct look not_a_number = {"??", "?", 9};

/* How a map is laid out on a screen. */
struct layout {
    const struct heatmap *map;
    const struct screen *screen;
    int64_t group_rows; /* weights of a cell, down and across */
    int64_t group_columns;
    int64_t rows, columns; /* cells */
    int cell;              /* characters of a cell, a space included from 2 up */
    int label;             /* characters of a row label */
    float largest;
};

static int terminal_width(void) {
    struct winsize size;
    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        return size.ws_col;
    }
    const char *columns = getenv("COLUMNS");
    int width = columns ? atoi(columns) : 0;
    return width > 0 ? width : 80;
}

struct screen screen_of_stdout(void) {
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    bool dumb = term && strcmp(term, "dumb") == 0;
    bool terminal = isatty(STDOUT_FILENO) && !dumb;
    return (struct screen){
        .to = stdout,
        .width = terminal_width(),
        .terminal = terminal,
        .colour = terminal && !(no_color && *no_color),
    };
}

/* Characters, not bytes, of UTF-8 text. */
static int characters(const char *text) {
    int n = 0;
    for (; *text; text++) {
        n += (*text & 0xc0) != 0x80;
    }
    return n;
}

/* The i-th character of UTF-8 text, and its bytes; none behind the end. */
static const char *character(const char *text, int i, int *bytes) {
    for (; *text && i > 0; i--) {
        do {
            text++;
        } while ((*text & 0xc0) == 0x80);
    }
    *bytes = *text != 0;
    while (*text && (text[*bytes] & 0xc0) == 0x80) {
        ++*bytes;
    }
    return text;
}

static const char *label_of(const char *const *labels, int64_t i, char number[NUMBER_SIZE]) {
    if (labels) {
        return labels[i];
    }
    snprintf(number, NUMBER_SIZE, "%" PRId64, i);
    return number;
}

static int longest_label(const char *const *labels, int64_t count) {
    char number[NUMBER_SIZE];
    int longest = labels ? 0 : characters(label_of(NULL, count - 1, number));
    for (int64_t i = 0; labels && i < count; i++) {
        int n = characters(labels[i]);
        longest = n > longest ? n : longest;
    }
    return longest < MAX_LABEL ? longest : MAX_LABEL;
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return a / b + (a % b != 0);
}

static float largest_of(const struct heatmap *map) {
    float largest = 0;
    for (int64_t i = 0; i < map->rows; i++) {
        for (int64_t j = 0; j < map->columns; j++) {
            largest = fmaxf(largest, map->values[i * map->stride + j]);
        }
    }
    return largest;
}

static struct layout lay_out(const struct heatmap *map, const struct screen *screen) {
    struct layout l = {.map = map, .screen = screen, .cell = MAX_CELL};
    l.label = longest_label(map->row_labels, map->rows);
    int64_t room = screen->width - l.label - 3; /* a space and the frame's two sides */
    room = room > 8 ? room : 8;
    while (l.cell > 1 && map->columns * l.cell > room) {
        l.cell--;
    }
    int64_t across = ceil_div(map->columns, room), down = ceil_div(map->rows, MAX_ROWS);
    l.group_columns = across;
    l.group_rows = across > down ? across : down;
    l.rows = ceil_div(map->rows, l.group_rows);
    l.columns = ceil_div(map->columns, l.group_columns);
    l.largest = largest_of(map);
    return l;
}

/* The largest weight of a cell; NaN if there is one. */
static float cell_value(const struct layout *l, int64_t row, int64_t column) {
    const struct heatmap *map = l->map;
    float value = 0;
    int64_t top = row * l->group_rows, left = column * l->group_columns;
    for (int64_t i = top; i < top + l->group_rows && i < map->rows; i++) {
        for (int64_t j = left; j < left + l->group_columns && j < map->columns; j++) {
            float v = map->values[i * map->stride + j];
            value = isnan(v) || v > value ? v : value;
        }
    }
    return value;
}

static const struct look *look_of(const struct layout *l, float value) {
    const struct look *looks = l->screen->colour ? coloured : plain;
    if (isnan(value)) {
        return &not_a_number;
    }
    int level = l->largest > 0 ? (int)(value / l->largest * LEVELS) : 0;
    return &looks[level < LEVELS ? level : LEVELS - 1];
}

/* A mark, one or two characters wide. */
static void print_look(const struct screen *screen, const struct look *look, int width) {
    const char *mark = width > 1 ? look->full : look->half;
    if (screen->colour) {
        fprintf(screen->to, "\033[38;5;%dm%s\033[0m", look->colour, mark);
    } else {
        fputs(mark, screen->to);
    }
}

/* A label cut or padded to the width, on the right. */
static void print_label(FILE *to, const char *label, int width) {
    int n = characters(label);
    fprintf(to, "%*s", n < width ? width - n : 0, "");
    for (int i = 0; i < n && i < width; i++) {
        int bytes;
        const char *at = character(label, i, &bytes);
        fwrite(at, 1, (size_t)bytes, to);
    }
}

/* Labels of columns hang above them, a letter a line. Where cells are narrow, only every tenth
 * column has one. */
static void print_column_labels(const struct layout *l) {
    FILE *to = l->screen->to;
    int height = longest_label(l->map->column_labels, l->map->columns);
    int64_t step = l->cell > 1 ? 1 : 10;
    for (int line = 0; line < height; line++) {
        fprintf(to, "%*s", l->label + 2, "");
        for (int64_t j = 0; j < l->columns; j++) {
            char number[NUMBER_SIZE];
            const char *label = label_of(l->map->column_labels, j * l->group_columns, number);
            int bytes = 0, n = characters(label), shown = n < height ? n : height;
            const char *at = character(label, line - (height - shown), &bytes);
            bool visible = j % step == 0 && line >= height - shown;
            fprintf(to, "%.*s%*s", visible ? bytes : 1, visible ? at : " ", l->cell - 1, "");
        }
        fputc('\n', to);
    }
}

static void print_row(const struct layout *l, int64_t row) {
    char number[NUMBER_SIZE];
    FILE *to = l->screen->to;
    print_label(to, label_of(l->map->row_labels, row * l->group_rows, number), l->label);
    fputs(" |", to);
    for (int64_t j = 0; j < l->columns; j++) {
        int width = l->cell > 2 ? 2 : 1;
        print_look(l->screen, look_of(l, cell_value(l, row, j)), width);
        fprintf(to, "%*s", l->cell - width, "");
    }
    fputs("|\n", to);
}

static void print_legend(const struct layout *l) {
    FILE *to = l->screen->to;
    fprintf(to, "%*s  0 ", l->label, "");
    for (int i = 0; i < LEVELS; i++) {
        print_look(l->screen, l->screen->colour ? &coloured[i] : &plain[i], 1);
    }
    fprintf(to, " %.2g", (double)l->largest);
    if (l->group_rows > 1 || l->group_columns > 1) {
        fprintf(to, "; a mark is the largest of %" PRId64 " x %" PRId64 " weights", l->group_rows,
                l->group_columns);
    }
    fputc('\n', to);
}

void heatmap_print(const struct heatmap *map, const struct screen *screen) {
    if (map->rows == 0 || map->columns == 0) {
        fprintf(screen->to, "(nothing to show: %" PRId64 " rows, %" PRId64 " columns)\n", map->rows,
                map->columns);
        return;
    }
    struct layout l = lay_out(map, screen);
    print_column_labels(&l);
    for (int64_t i = 0; i < l.rows; i++) {
        print_row(&l, i);
    }
    print_legend(&l);
}
