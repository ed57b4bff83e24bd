/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of a part of the command. One table of options serves the parser and --help
 * alike, so that they cannot disagree. A value is stored at its option's offset in a struct of
 * the part's own; what is not given stays as it was (the part zeroes the struct first).
 */
#ifndef QKV_CLI_OPTIONS_H
#define QKV_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { OPTIONS_MAX = 64 }; /* of one part */

enum option_kind {
    OPTION_HEADING, /* a heading in --help, no option */
    OPTION_FLAG,    /* bool: true when given, takes no value */
    OPTION_TEXT,    /* const char *: NULL unless given */
    OPTION_CHOICE,  /* struct option_choice: one of `choices` */
    OPTION_INTEGER, /* struct option_integer: from `low` to `high` */
    OPTION_REAL,    /* struct option_real: finite, from `low` to `high` */
    OPTION_LIST,    /* struct option_list: integers from `low` to `high`, commas between them */
};

struct option_choice {
    bool given;
    int value; /* index into `choices` */
};

struct option_integer {
    bool given;
    int64_t value;
};

struct option_real {
    bool given;
    double value;
};

struct option_list {
    int32_t *values; /* NULL unless given */
    int count;
};

struct option {
    enum option_kind kind;
    const char *name;  /* "--causal", or the heading */
    const char *value; /* what --help calls the value; NULL for a flag */
    const char *help;  /* '\n' begins a new line */
    size_t offset;
    double low, high;
    const char *const *choices; /* ends with NULL */
};

/* A part of the command. */
struct command {
    const char *name;    /* "attend" */
    const char *summary; /* one line for `qkv --help` */
    const char *usage;   /* what follows "qkv NAME", one form a line */
    const char *about;   /* a paragraph */
    const struct option *options;
    int count;
    int (*run)(int argc, char **argv); /* without the name of the part */
};

enum parsed { PARSED_RUN, PARSED_HELP, PARSED_BAD };

/* Reads argv into values. PARSED_HELP: help was asked for and printed. PARSED_BAD: a complaint
 * was printed; the part returns USAGE. In every case options_free must follow. */
enum parsed options_parse(const struct command *command, int argc, char **argv, void *values);

/* Frees the lists that options_parse made. */
void options_free(const struct command *command, void *values);

void options_help(const struct command *command, FILE *to);

#endif
