/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Associative recall as a party: every guest is a token that carries a name and a story, then names
 * are called, and the answer is that guest's story. Names and stories have fixed random embeddings;
 * who is there, and who tells what, is drawn anew for each party, so that nothing can be learned
 * but how to ask: queries that find a name, keys that show one, values that hold the story.
 */
#ifndef QKV_CLI_RECALL_H
#define QKV_CLI_RECALL_H

#include "train_task.h"

enum {
    RECALL_NAMES = 24,
    RECALL_STORIES = 24,
    RECALL_GUESTS = 12,
    RECALL_TOKENS = 2 * RECALL_GUESTS, /* the guests, then as many calls */
    RECALL_HELD = 128,                 /* parties kept aside */
};

extern const char *const recall_names[RECALL_NAMES];
extern const char *const recall_stories[RECALL_STORIES];

/* Who is at a party and tells what, and the order in which they are called. */
struct recall_party {
    int32_t name[RECALL_NAMES]; /* the first RECALL_GUESTS count, here and below */
    int32_t story[RECALL_STORIES];
    int32_t called[RECALL_GUESTS]; /* guests */
};

/* Party number `index` of a share. At parties to show, guests are called in the order of seats. */
void recall_draw(const struct task *task, enum share share, int64_t index,
                 struct recall_party *party);

/* FINE, or FAILED with a complaint. */
int recall_open(struct task *task, uint64_t seed);

#endif
