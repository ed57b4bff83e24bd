/* SPDX-License-Identifier: Apache-2.0 */
/* The table-driven option parser. See options.h. */
#include "options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "complain.h"

enum { HELP_COLUMN = 26 };

static int bad_number(const struct option *o, const char *text) {
    return complain(USAGE, o->name, "'%s' is not a number", text);
}

static int bad_range(const struct option *o, double value) {
    if (isinf(o->high)) {
        return complain(USAGE, o->name, "%g is less than %g", value, o->low);
    }
    return complain(USAGE, o->name, "%.15g is not between %.15g and %.15g", value, o->low, o->high);
}

static int check_range(const struct option *o, double value) {
    return value >= o->low && value <= o->high ? FINE : bad_range(o, value);
}

/* An integer at the start of text; *end is set behind it, or to text if there is none. */
static int read_integer(const struct option *o, const char *text, char **end, int64_t *value) {
    errno = 0;
    *value = strtoll(text, end, 10);
    if (errno == ERANGE) {
        return complain(USAGE, o->name, "'%s' is out of range", text);
    }
    return *end == text ? FINE : check_range(o, (double)*value);
}

static int store_flag(const struct option *o, const char *text, void *place) {
    (void)o;
    (void)text;
    *(bool *)place = true;
    return FINE;
}

static int store_text(const struct option *o, const char *text, void *place) {
    if (!*text) {
        return complain(USAGE, o->name, "needs a value (%s)", o->value);
    }
    *(const char **)place = text;
    return FINE;
}

static int store_choice(const struct option *o, const char *text, void *place) {
    struct option_choice *choice = place;
    for (int i = 0; o->choices[i]; i++) {
        if (strcmp(text, o->choices[i]) == 0) {
            *choice = (struct option_choice){true, i};
            return FINE;
        }
    }
    return complain(USAGE, o->name, "'%s' is not one of %s", text, o->value);
}

static int store_integer(const struct option *o, const char *text, void *place) {
    struct option_integer *integer = place;
    char *end;
    int status = read_integer(o, text, &end, &integer->value);
    if (status) {
        return status;
    }
    if (end == text || *end) {
        return bad_number(o, text);
    }
    integer->given = true;
    return FINE;
}

static int store_real(const struct option *o, const char *text, void *place) {
    struct option_real *real = place;
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end) {
        return bad_number(o, text);
    }
    if (!isfinite(value)) {
        return complain(USAGE, o->name, "%s is not a finite number", text);
    }
    *real = (struct option_real){true, value};
    return check_range(o, value);
}

static int store_list(const struct option *o, const char *text, void *place) {
    struct option_list *list = place;
    size_t most = strlen(text) / 2 + 1; /* a digit and a comma each */
    list->values = malloc(most * sizeof *list->values);
    if (!list->values) {
        return out_of_memory(o->name);
    }
    for (const char *p = text;; p++) {
        char *end;
        int64_t value;
        int status = read_integer(o, p, &end, &value);
        if (status) {
            return status;
        }
        if (end == p || (*end && *end != ',')) {
            return complain(USAGE, o->name, "'%s' is not a list of integers such as %s", text,
                            o->value);
        }
        list->values[list->count++] = (int32_t)value;
        if (!*end) {
            return FINE;
        }
        p = end;
    }
}

typedef int store_fn(const struct option *o, const char *text, void *place);

static store_fn *const stores[] = {
    [OPTION_FLAG] = store_flag,       [OPTION_TEXT] = store_text, [OPTION_CHOICE] = store_choice,
    [OPTION_INTEGER] = store_integer, [OPTION_REAL] = store_real, [OPTION_LIST] = store_list,
};

/* The option called by the first `length` characters of argument, or -1. */
static int find(const struct command *c, const char *argument, size_t length) {
    for (int i = 0; i < c->count; i++) {
        const struct option *o = &c->options[i];
        if (o->kind != OPTION_HEADING && strlen(o->name) == length &&
            strncmp(o->name, argument, length) == 0) {
            return i;
        }
    }
    return -1;
}

static int unknown(const struct command *c, const char *argument) {
    const char *what = argument[0] == '-' ? "is not an option" : "is not expected";
    return complain(USAGE, *argument ? argument : "''", "%s here (see qkv %s --help)", what,
                    c->name);
}

/* One option and its value; *i moves over what was used. */
static int parse_one(const struct command *c, int argc, char **argv, int *i, bool *given,
                     void *values) {
    const char *argument = argv[*i];
    size_t length = strcspn(argument, "=");
    int found = find(c, argument, length);
    if (found < 0) {
        return unknown(c, argument);
    }
    const struct option *o = &c->options[found];
    const char *text = argument[length] ? argument + length + 1 : NULL;
    if (o->kind == OPTION_FLAG && text) {
        return complain(USAGE, o->name, "takes no value");
    }
    if (o->kind != OPTION_FLAG && !text) {
        if (*i + 1 == argc || strncmp(argv[*i + 1], "--", 2) == 0) {
            return complain(USAGE, o->name, "needs a value (%s)", o->value);
        }
        text = argv[++*i];
    }
    if (given[found]) {
        return complain(USAGE, o->name, "is given twice");
    }
    given[found] = true;
    return stores[o->kind](o, text, (char *)values + o->offset);
}

enum parsed options_parse(const struct command *c, int argc, char **argv, void *values) {
    bool given[OPTIONS_MAX] = {false};
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            options_help(c, stdout);
            return PARSED_HELP;
        }
        if (parse_one(c, argc, argv, &i, given, values)) {
            return PARSED_BAD;
        }
    }
    return PARSED_RUN;
}

void options_free(const struct command *c, void *values) {
    for (int i = 0; i < c->count; i++) {
        if (c->options[i].kind == OPTION_LIST) {
            struct option_list *list = (void *)((char *)values + c->options[i].offset);
            free(list->values);
            *list = (struct option_list){0};
        }
    }
}

/* Text whose lines after the first begin in the given column. */
static void print_lines(FILE *to, const char *text, const char *start, int column) {
    for (;;) {
        size_t length = strcspn(text, "\n");
        fprintf(to, "%.*s\n", (int)length, text);
        if (!text[length]) {
            return;
        }
        text += length + 1;
        fprintf(to, "%s%*s", start, column, "");
    }
}

static void print_option(FILE *to, const struct option *o) {
    char left[64];
    snprintf(left, sizeof left, "  %s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
    if (strlen(left) + 2 > HELP_COLUMN) {
        fprintf(to, "%s\n%*s", left, HELP_COLUMN, "");
    } else {
        fprintf(to, "%-*s", HELP_COLUMN, left);
    }
    print_lines(to, o->help, "", HELP_COLUMN);
}

void options_help(const struct command *c, FILE *to) {
    char start[32];
    snprintf(start, sizeof start, "       qkv %s ", c->name);
    fprintf(to, "usage: qkv %s ", c->name);
    print_lines(to, c->usage, start, 0);
    fprintf(to, "\n%s\n", c->about);
    for (int i = 0; i < c->count; i++) {
        if (c->options[i].kind == OPTION_HEADING) {
            fprintf(to, "\n%s\n", c->options[i].name);
        } else {
            print_option(to, &c->options[i]);
        }
    }
    fprintf(to, "\n  --help                  this page\n");
}
