/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qkv cpu: what the library found out about this CPU, what the environment took away, and which
 * variant every stage runs as; a table, or the same as JSON.
 */
#include <stdio.h>
#include <string.h>

#include <qkv/cache.h>

#include "complain.h"
#include "options.h"
#include "parts.h"
#include "rooms.h"

struct cpu_options {
    bool json;
};

static const struct option options[] = {
    {.kind = OPTION_FLAG,
     .name = "--json",
     .help = "the same as JSON",
     .offset = offsetof(struct cpu_options, json)},
};

/* What is told of each feature, in the order of the columns. */
static const struct {
    const char *title, *key;
    uint64_t (*bits)(void);
} columns[] = {
    {"detected", "detected", qkv_cpu_detected},
    {"withheld by the OS", "withheld", qkv_cpu_withheld},
    {"removed by override", "removed", qkv_cpu_removed},
    {"usable", "usable", qkv_cpu_usable},
};

enum { COLUMNS = sizeof columns / sizeof columns[0] };

static bool has(int column, int feature) {
    return columns[column].bits() >> feature & 1;
}

static void print_features(void) {
    printf("%-12s", "feature");
    for (int c = 0; c < COLUMNS; c++) {
        printf("  %s", columns[c].title);
    }
    putchar('\n');
    for (int f = 0; f < QKV_CPU_COUNT; f++) {
        printf("%-12s", qkv_cpu_feature_name(f));
        for (int c = 0; c < COLUMNS; c++) {
            int width = c + 1 < COLUMNS ? (int)strlen(columns[c].title) : 1;
            printf("  %-*s", width, has(c, f) ? "yes" : "-");
        }
        putchar('\n');
    }
}

static void print_rooms(void) {
    printf("\n%-12s  %-8s  %s\n", "room", "built", "usable");
    for (int isa = QKV_ISA_NONE + 1; isa < QKV_ISA_COUNT; isa++) {
        qkv_context context;
        bool usable = room_open(&context, (qkv_isa)isa);
        printf("%-12s  %-8s  %s\n", qkv_isa_name(isa), qkv_isa_built(isa) ? "yes" : "-",
               usable ? "yes" : "-");
    }
}

static void print_stages(void) {
    printf("\n%-18s  variant (the room in use is %s)\n", "stage",
           qkv_isa_name((int)qkv_context_isa(NULL)));
    for (int stage = 0; stage < QKV_STAGE_COUNT; stage++) {
        printf("%-18s  %s\n", qkv_stage_name(stage), qkv_context_variant(NULL, stage));
    }
}

/* The types of a cache that can have narrow arithmetic. */
static const struct {
    const char *name;
    int32_t dtype;
} narrow[] = {{"f16", QKV_F16}, {"bf16", QKV_BF16}, {"i8", QKV_I8}};

enum { NARROW = sizeof narrow / sizeof narrow[0] };

static void print_narrow(void) {
    printf("\n%-18s  variant\n", "narrow decode of");
    for (int i = 0; i < NARROW; i++) {
        const char *variant = qkv_narrow_variant(NULL, narrow[i].dtype);
        printf("%-18s  %s\n", narrow[i].name, variant ? variant : "-");
    }
}

static void print_cache(void) {
    const long long bytes = qkv_cpu_last_cache();
    printf("\n%-18s  ", "last-level cache");
    if (bytes > 0) {
        printf("%.6g MiB\n", (double)bytes / (1 << 20));
    } else {
        puts("-");
    }
}

static void print_table(void) {
    const char *unknown = qkv_cpu_unknown_overrides();
    printf("qkv %s\n\n", qkv_version());
    print_features();
    print_rooms();
    print_stages();
    print_narrow();
    print_cache();
    if (*unknown) {
        printf("\nQKV_CPU_MAX or QKV_CPU_DISABLE hold names that mean nothing here: %s\n", unknown);
    }
}

/* One character of a JSON string. The environment may hold anything; bytes beyond ASCII are not
 * names of anything here, so each becomes the replacement character. */
static void json_character(unsigned char c) {
    if (c == '"' || c == '\\') {
        printf("\\%c", c);
    } else if (c < 0x20 || c == 0x7f) {
        printf("\\u%04x", c);
    } else if (c < 0x80) {
        putchar(c);
    } else {
        printf("\\ufffd");
    }
}

/* "a,b" as ["a", "b"]; nothing between two commas is no name. */
static void json_names(const char *names) {
    const char *between = "";
    putchar('[');
    while (*names) {
        const char *end = names + strcspn(names, ",");
        if (end > names) {
            printf("%s\"", between);
            between = "\", ";
        }
        for (; names < end; names++) {
            json_character((unsigned char)*names);
        }
        names += *names == ',';
    }
    printf("%s]", *between ? "\"" : "");
}

static const char *json_bool(bool value) {
    return value ? "true" : "false";
}

/* A comma after all but the last entry. */
static const char *comma(int i, int count) {
    return i + 1 < count ? "," : "";
}

static void json_features(void) {
    puts("  \"features\": {");
    for (int f = 0; f < QKV_CPU_COUNT; f++) {
        printf("    \"%s\": {", qkv_cpu_feature_name(f));
        for (int c = 0; c < COLUMNS; c++) {
            printf("\"%s\": %s%s", columns[c].key, json_bool(has(c, f)),
                   c + 1 < COLUMNS ? ", " : "");
        }
        printf("}%s\n", comma(f, QKV_CPU_COUNT));
    }
    puts("  },");
}

static void json_rooms(void) {
    puts("  \"rooms\": {");
    for (int isa = QKV_ISA_NONE + 1; isa < QKV_ISA_COUNT; isa++) {
        qkv_context context;
        bool usable = room_open(&context, (qkv_isa)isa);
        printf("    \"%s\": {\"built\": %s, \"usable\": %s}%s\n", qkv_isa_name(isa),
               json_bool(qkv_isa_built(isa)), json_bool(usable), comma(isa, QKV_ISA_COUNT));
    }
    puts("  },");
}

static void json_stages(void) {
    puts("  \"stages\": {");
    for (int stage = 0; stage < QKV_STAGE_COUNT; stage++) {
        printf("    \"%s\": \"%s\"%s\n", qkv_stage_name(stage), qkv_context_variant(NULL, stage),
               comma(stage, QKV_STAGE_COUNT));
    }
    puts("  },");
}

static void json_narrow(void) {
    printf("  \"narrow\": {");
    for (int i = 0; i < NARROW; i++) {
        const char *variant = qkv_narrow_variant(NULL, narrow[i].dtype);
        const char *quote = variant ? "\"" : "";
        printf("\"%s\": %s%s%s%s", narrow[i].name, quote, variant ? variant : "null", quote,
               i + 1 < NARROW ? ", " : "");
    }
    puts("}");
}

static void print_json(void) {
    printf("{\n  \"version\": \"%s\",\n", qkv_version());
    json_features();
    json_rooms();
    printf("  \"last_cache\": %lld,\n  \"unknown_overrides\": ", (long long)qkv_cpu_last_cache());
    json_names(qkv_cpu_unknown_overrides());
    printf(",\n  \"isa\": \"%s\",\n", qkv_isa_name((int)qkv_context_isa(NULL)));
    json_stages();
    json_narrow();
    puts("}");
}

static int run(int argc, char **argv) {
    struct cpu_options values = {0};
    enum parsed parsed = options_parse(&cpu_command, argc, argv, &values);
    if (parsed != PARSED_RUN) {
        return parsed == PARSED_HELP ? FINE : USAGE;
    }
    if (values.json) {
        print_json();
    } else {
        print_table();
    }
    return FINE;
}

const struct command cpu_command = {
    .name = "cpu",
    .summary = "what this CPU can do, and which variant every stage got",
    .usage = "[--json]",
    .about = "Shows the features that were detected, what the operating system withholds, what\n"
             "QKV_CPU_MAX and QKV_CPU_DISABLE removed, the rooms (instruction sets) that are\n"
             "built and usable, the variant of every stage, those of decode in narrow\n"
             "arithmetic (see qkv attend --cache-arithmetic), and the size of the\n"
             "last-level cache.",
    .options = options,
    .count = sizeof options / sizeof options[0],
    .run = run,
};
