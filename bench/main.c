/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qkv-bench [--isa ROOM] [--long] [--tiers] [Google Benchmark's options]
 *
 * Runs the benchmarks of one room, of the best one without --isa. Exit status: 0 fine, 1 failed,
 * 2 bad usage, 77 (skipped, as meson reads it) if the CPU or the build lacks the room or the
 * filter leaves nothing. --long adds the shapes of which one call takes more than about two
 * seconds in this room, --tiers the attention rows with the exponential tiers SLEEF_U35 and POLY4
 * (attention/exp:sleef_u35 and so on). Options in QKV_BENCH_ARGS, separated by blanks, come before
 * those of the command line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { EXIT_USAGE = 2, EXIT_SKIPPED = 77, MOST_ARGUMENTS = 64 };

struct arguments {
    char *list[MOST_ARGUMENTS + 1];
    int count;
};

static void add_argument(struct arguments *arguments, char *argument) {
    if (arguments->count < MOST_ARGUMENTS)
        arguments->list[arguments->count++] = argument;
}

/* Splits a copy of the text, which stays for as long as the program. */
static void add_words(struct arguments *arguments, const char *text) {
    char *copy = text ? strdup(text) : NULL;
    for (char *word = copy ? strtok(copy, " \t\n") : NULL; word; word = strtok(NULL, " \t\n"))
        add_argument(arguments, word);
}

static int find_room(const char *name) {
    for (int isa = QKV_ISA_NONE + 1; isa < QKV_ISA_COUNT; isa++) {
        if (name && strcmp(name, qkv_isa_name(isa)) == 0)
            return isa;
    }
    fprintf(stderr, "qkv-bench: --isa: %s is not the name of a room\n", name ? name : "nothing");
    return QKV_ISA_NONE;
}

/* Takes --isa, --long and --tiers out of the arguments: the room, or QKV_ISA_NONE after a
 * complaint. */
static int own_options(struct arguments *all, struct arguments *rest, int *all_shapes) {
    int isa = (int)qkv_context_isa(NULL);
    for (int i = 0; i < all->count && isa != QKV_ISA_NONE; i++) {
        if (strcmp(all->list[i], "--isa") == 0)
            isa = find_room(i + 1 < all->count ? all->list[++i] : NULL);
        else if (strcmp(all->list[i], "--long") == 0)
            *all_shapes = 1;
        else if (strcmp(all->list[i], "--tiers") == 0)
            bench_room.all_tiers = 1;
        else
            add_argument(rest, all->list[i]);
    }
    return isa;
}

static void register_all(void) {
    project_register();
    project_backward_register();
    scores_register();
    softmax_register();
    mix_register();
    attention_register();
    chain_register();
    learning_register();
    latency_register();
    options_register();
    loss_register();
    descent_register();
    merge_register();
    decode_register();
    decode_step_register();
    append_register();
    if (bench_room.left_out)
        fprintf(stderr,
                "%s: %d shapes left out, a call of which takes seconds here (--long runs them)\n",
                bench_room.name, bench_room.left_out);
}

int main(int argc, char **argv) {
    /* Defaults that a later argument replaces: a room takes some minutes. */
    static char min_time[] = "--benchmark_min_time=0.3";
    static char tabular[] = "--benchmark_counters_tabular=true";
    struct arguments all = {.count = 0};
    struct arguments rest = {.count = 0};
    int all_shapes = 0;
    add_argument(&all, argv[0]);
    add_argument(&all, min_time);
    add_argument(&all, tabular);
    add_words(&all, getenv("QKV_BENCH_ARGS"));
    for (int i = 1; i < argc; i++)
        add_argument(&all, argv[i]);
    int isa = own_options(&all, &rest, &all_shapes);
    if (isa == QKV_ISA_NONE)
        return EXIT_USAGE;
    if (bench_room_open(isa)) {
        printf("%s: skipped, this CPU or this build lacks it\n", bench_room.name);
        return EXIT_SKIPPED;
    }
    bench_room_measure(all_shapes);
    register_all();
    int result = gb_run(rest.count, rest.list);
    if (result == GB_NONE) {
        printf("%s: skipped, no benchmark of it matches the filter\n", bench_room.name);
        return EXIT_SKIPPED;
    }
    if (result == GB_FAILED)
        return EXIT_USAGE;
    return bench_room.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
