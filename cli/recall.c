/* SPDX-License-Identifier: Apache-2.0 */
/* The parties that are learned from. See recall.h. */
#include "recall.h"

#include <stdlib.h>
#include <string.h>

#include "complain.h"
#include "noise.h"

enum { D_MODEL = 64, WIDTH = 64 };

/* Streams of random numbers beside the shares'. */
enum { STREAM_NAMES = SHARES, STREAM_STORIES, STREAM_CALL, STREAM_DICTIONARY };

const char *const recall_names[RECALL_NAMES] = {
    "Ada", "Ben",  "Cleo", "Dan", "Eve",  "Finn", "Gus", "Hana", "Ida", "Jon", "Kai",  "Lena",
    "Max", "Nora", "Otto", "Pia", "Quin", "Rosa", "Sam", "Tess", "Uma", "Vic", "Wren", "Yuri",
};

const char *const recall_stories[RECALL_STORIES] = {
    "met a bear",       "lost a shoe",      "won at chess",    "missed the train",
    "bakes bread",      "saw a whale",      "plays the cello", "found a coin",
    "swam the lake",    "fixed a clock",    "climbed a roof",  "grew a pumpkin",
    "broke a vase",     "wrote a poem",     "kept a secret",   "learned to skate",
    "painted the door", "fell off a horse", "caught a cold",   "cooked for ten",
    "flew a kite",      "read all night",   "sang on stage",   "slept in a tent",
};

struct recall {
    uint64_t seed;
    float name[RECALL_NAMES][D_MODEL];
    float story[RECALL_STORIES][D_MODEL];
    float call[D_MODEL]; /* stands where a guest has a story */
    float dictionary[WIDTH][RECALL_STORIES];
};

void recall_draw(const struct task *task, enum share share, int64_t index,
                 struct recall_party *party) {
    const struct recall *r = task->data;
    struct noise noise = noise_open(r->seed, share, (uint64_t)index);
    noise_choose(&noise, party->name, RECALL_NAMES, RECALL_GUESTS);
    noise_choose(&noise, party->story, RECALL_STORIES, RECALL_GUESTS);
    noise_choose(&noise, party->called, RECALL_GUESTS, share == SHARE_SHOW ? 0 : RECALL_GUESTS);
}

static void add(float *out, const float *a, const float *b) {
    for (int c = 0; c < D_MODEL; c++) {
        out[c] = a[c] + b[c];
    }
}

static void fill_party(const struct recall *r, const struct recall_party *party, float *x,
                       int32_t *labels) {
    for (int i = 0; i < RECALL_GUESTS; i++) {
        int called = party->called[i];
        add(x + i * D_MODEL, r->name[party->name[i]], r->story[party->story[i]]);
        add(x + (RECALL_GUESTS + i) * D_MODEL, r->name[party->name[called]], r->call);
        labels[i] = -1;
        labels[RECALL_GUESTS + i] = party->story[called];
    }
}

static void fill(const struct task *task, enum share share, int64_t first, struct batch *batch) {
    int64_t start = share == SHARE_TRAIN ? first * batch->sequences : first;
    for (int64_t i = 0; i < batch->sequences; i++) {
        struct recall_party party;
        recall_draw(task, share, start + i, &party);
        fill_party(task->data, &party, batch->x + i * RECALL_TOKENS * D_MODEL,
                   batch->labels + i * RECALL_TOKENS);
    }
}

/* Small enough that with the first weights every score is near 0: everybody listens to everybody,
 * and there is something to learn from. */
#define DEVIATION 0.5f

static void embed(const struct recall *r, int stream, float *out, int64_t count) {
    struct noise noise = noise_open(r->seed, (uint64_t)stream, 0);
    noise_fill(&noise, out, count, DEVIATION);
}

static void close_task(struct task *task) {
    free(task->data);
    *task = (struct task){0};
}

int recall_open(struct task *task, uint64_t seed) {
    struct recall *r = calloc(1, sizeof *r);
    if (!r) {
        return out_of_memory("train");
    }
    r->seed = seed;
    embed(r, STREAM_NAMES, r->name[0], RECALL_NAMES * D_MODEL);
    embed(r, STREAM_STORIES, r->story[0], RECALL_STORIES * D_MODEL);
    embed(r, STREAM_CALL, r->call, D_MODEL);
    embed(r, STREAM_DICTIONARY, r->dictionary[0], WIDTH * RECALL_STORIES);
    *task = (struct task){
        .name = "recall",
        .tokens = RECALL_TOKENS,
        .d_model = D_MODEL,
        .width = WIDTH,
        .answers = RECALL_STORIES,
        .dictionary = r->dictionary[0],
        .held = RECALL_HELD,
        .measure = "accuracy",
        .fill = fill,
        .close = close_task,
        .data = r,
    };
    return FINE;
}
