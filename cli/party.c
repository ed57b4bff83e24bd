/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qkv party: one real sentence through a layer of a real trained model. Tells who the tokens
 * are, who listens to whom, and how long the same work takes in every room.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qkv/qkv.h>

#include "complain.h"
#include "heatmap.h"
#include "learn.h"
#include "options.h"
#include "party_data.h"
#include "party_run.h"
#include "parts.h"
#include "rooms.h"

enum { LINKS = 4, LABEL_SIZE = 40, LINE_WIDTH = 80 };

/* More than this from double precision is no rounding. */
#define TOO_FAR 1e-4

struct party_options {
    struct option_integer head;
    bool learn;
    const char *png;
};

#define OPTIONS struct party_options
#include "option_rows.h"

static const struct option options[] = {
    INTEGER("--head", head, "H", 0, 1e6,
            "tell of this head alone, by its number in the model\n"
            "(all heads, with a map of the first)"),
    FLAG("--learn", learn,
         "another party, at which W^Q, W^K and W^V learn who told\nwhich story: before, the loss, "
         "after"),
    TEXT("--png", png, "FILE", "draws that too; with --learn"),
};

/* [CLS], [SEP] and the like: what the model adds around the words. */
static bool is_special(const char *token) {
    return token[0] == '[' && token[1] != 0;
}

/* A token as one speaks of it: a word that occurs twice says which time it is meant. */
static const char *name_of(const struct party *p, int64_t token, char label[LABEL_SIZE]) {
    static const char *const times[] = {"1st", "2nd", "3rd"};
    int64_t before = 0, all = 0;
    for (int64_t i = 0; i < p->tokens; i++) {
        bool same = strcmp(p->token[i], p->token[token]) == 0;
        all += same;
        before += same && i < token;
    }
    if (all == 1) {
        snprintf(label, LABEL_SIZE, "%s", p->token[token]);
    } else if (before < 3) {
        snprintf(label, LABEL_SIZE, "%s (%s)", p->token[token], times[before]);
    } else {
        snprintf(label, LABEL_SIZE, "%s (%" PRId64 "th)", p->token[token], before + 1);
    }
    return label;
}

static void print_guests(const struct party *p) {
    int column = printf("Guests:");
    for (int64_t i = 0; i < p->tokens; i++) {
        int length = (int)strlen(p->token[i]);
        if (column + 1 + length > LINE_WIDTH) {
            column = printf("\n       ") - 1;
        }
        column += printf(" %s", p->token[i]);
    }
    putchar('\n');
    if (strcmp(p->token[0], "[CLS]") == 0) {
        puts("        ([CLS] opens the sentence and [SEP] closes it; a word that looks for\n"
             "        nothing in particular rests its eyes on [CLS].)");
    }
}

static void print_invitation(const struct party *p) {
    printf("A party of words\n\n    \"%s\"\n\n", p->sentence);
    puts("Every guest brings three notes: a query (what am I looking for?), a key (what am\n"
         "I?) and a value (what have I got to say?). Queries are matched with keys, softmax\n"
         "turns each guest's matches into weights that sum to 1, and the guest goes home\n"
         "with everybody's values, mixed by these weights. That is attention.\n");
    printf("The notes are real: layer %d of %s writes them. Nobody told that\n"
           "model who should listen to whom; it learned it.\n\n",
           p->layer, p->model);
    print_guests(p);
}

/* The weight with which one guest listens to another. */
struct link {
    int64_t from, to;
    float weight;
};

static int stronger_first(const void *a, const void *b) {
    const struct link *x = a, *y = b;
    return (x->weight < y->weight) - (x->weight > y->weight);
}

/* The strongest links between different words; returns how many. */
static int strongest(const struct party *p, const float *weights, struct link links[LINKS]) {
    struct link all[PARTY_MAX_TOKENS * PARTY_MAX_TOKENS];
    size_t count = 0;
    for (int64_t i = 0; i < p->tokens; i++) {
        for (int64_t j = 0; j < p->tokens; j++) {
            if (i != j && !is_special(p->token[i]) && !is_special(p->token[j])) {
                all[count++] = (struct link){i, j, weights[i * p->tokens + j]};
            }
        }
    }
    qsort(all, count, sizeof all[0], stronger_first);
    int shown = count < LINKS ? (int)count : LINKS;
    memcpy(links, all, (size_t)shown * sizeof all[0]);
    return shown;
}

static void print_links(const struct party *p, int64_t head, const float *weights) {
    struct link links[LINKS];
    int count = strongest(p, weights, links);
    printf("\n  Head %d: %s\n", p->head[head].number, p->head[head].caption);
    for (int i = 0; i < count; i++) {
        char from[LABEL_SIZE], to[LABEL_SIZE];
        printf("    %-10s listens to  %-10s %3.0f %%\n", name_of(p, links[i].from, from),
               name_of(p, links[i].to, to), 100 * (double)links[i].weight);
    }
}

static void print_map(const struct party *p, int64_t head, const float *weights) {
    struct heatmap map = {.values = weights,
                          .rows = p->tokens,
                          .columns = p->tokens,
                          .stride = p->tokens,
                          .row_labels = p->token,
                          .column_labels = p->token};
    struct screen screen = screen_of_stdout();
    printf("\nHead %d as a map (down: who listens, across: to whom)\n\n", p->head[head].number);
    heatmap_print(&map, &screen);
}

/* The index of the head that --head names, -1 for all; or a complaint. */
static int find_head(const struct party *p, const struct party_options *o, int64_t *found) {
    char list[PARTY_MAX_HEADS * 12 + 1] = "";
    size_t length = 0;
    *found = -1;
    for (int64_t h = 0; h < p->heads; h++) {
        if (o->head.given && o->head.value == p->head[h].number) {
            *found = h;
        }
        length += (size_t)snprintf(list + length, sizeof list - length, "%s%d", h ? ", " : "",
                                   p->head[h].number);
    }
    if (o->head.given && *found < 0) {
        return complain(USAGE, "--head", "%" PRId64 " is not at the party; here are %s",
                        o->head.value, list);
    }
    return FINE;
}

/* Who listens to whom, as this computer's best room has it. */
static int tell(const struct party *p, int64_t head) {
    struct party_run run;
    int status = party_run_open(&run, p, NULL);
    if (!status) {
        status = party_run_steps(&run);
    }
    if (!status) {
        int64_t square = p->tokens * p->tokens, mapped = head < 0 ? 0 : head;
        print_invitation(p);
        puts(
            "\nWho listens to whom (a head is one such party; a layer holds several side by side)");
        for (int64_t h = 0; h < p->heads; h++) {
            if (head < 0 || h == head) {
                print_links(p, h, run.weights + h * square);
            }
        }
        print_map(p, mapped, run.weights + mapped * square);
    }
    party_run_close(&run);
    return status;
}

/* One line of the table; FAILED if the work fails or its numbers are wrong. */
static int tell_of_room(const struct party *p, const qkv_context *context, const char *name) {
    struct party_run run;
    double fused = -1, steps = -1;
    int status = party_run_open(&run, p, context);
    if (!status) {
        steps = party_run_time(&run, party_run_steps);
        fused = steps < 0 ? -1 : party_run_time(&run, party_run_fused);
        status = fused < 0 ? FAILED : FINE;
    }
    if (!status) {
        struct party_difference d = party_run_difference(&run);
        printf("  %-8s %10.1f %10.1f      %.0e  %.0e  %.0e  %.0e  %.0e\n", name, steps, fused, d.q,
               d.k, d.v, d.weights, d.o);
        double largest = fmax(fmax(fmax(d.q, d.k), fmax(d.v, d.weights)), d.o);
        if (!(largest < TOO_FAR)) {
            status = complain(FAILED, name, "is off by %.2g from double precision", largest);
        }
    }
    party_run_close(&run);
    return status;
}

static int tell_of_rooms(const struct party *p) {
    int status = FINE;
    printf("\nThe same party in every room (one room per instruction set): the work of all\n"
           "%" PRId64 " heads on one thread, and how far the numbers are from double precision\n\n",
           p->heads);
    puts("           microseconds (median)     largest difference in\n"
         "  room     four steps   one pass      Q      K      V      A      O");
    for (int isa = QKV_ISA_NONE + 1; isa < QKV_ISA_COUNT; isa++) {
        qkv_context context;
        if (!room_open(&context, (qkv_isa)isa)) {
            printf("  %-8s %s\n", qkv_isa_name(isa), room_lack((qkv_isa)isa));
        } else if (tell_of_room(p, &context, qkv_isa_name(isa))) {
            status = FAILED;
        }
    }
    puts("\nFour steps: project to Q, K and V; score; softmax to the weights A; mix to O.\n"
         "One pass: project, then the fused attention, which never stores A. The scalar\n"
         "room is kept free of vector instructions, to compare with.");
    return status;
}

static int learn(const struct party_options *o) {
    if (!o->learn) {
        return complain(USAGE, "--png", "goes with --learn");
    }
    if (o->head.given) {
        return complain(USAGE, "--head", "cannot be given together with --learn");
    }
    return learn_party(o->png);
}

static int run(int argc, char **argv) {
    struct party_options values = {0};
    enum parsed parsed = options_parse(&party_command, argc, argv, &values);
    if (parsed != PARSED_RUN) {
        return parsed == PARSED_HELP ? FINE : USAGE;
    }
    if (values.learn || values.png) {
        return learn(&values);
    }
    struct party party;
    int64_t head;
    int status = party_load(&party);
    if (!status) {
        status = find_head(&party, &values, &head);
    }
    if (!status) {
        status = tell(&party, head);
    }
    if (!status) {
        status = tell_of_rooms(&party);
    }
    party_free(&party);
    return status;
}

const struct command party_command = {
    .name = "party",
    .summary = "attention at work: a sentence, who listens to whom, every room",
    .usage = "[--head H]\n--learn [--png FILE]",
    .about =
        "Takes one English sentence through the attention of a trained model's layer: who the\n"
        "tokens are, who listens to whom, a map of the weights; then times the same work in\n"
        "every room (instruction set) and compares it with double precision. The data stand\n"
        "in party.qkvp beside the command, or in share/qkv where it is installed; QKV_DATA\n"
        "names another file.",
    .options = options,
    .count = sizeof options / sizeof options[0],
    .run = run,
};
