/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qkv party --learn: the three matrices learn to find out who told which story. One party is shown
 * before and after, and between them the loss as it falls.
 */
#ifndef QKV_CLI_LEARN_H
#define QKV_CLI_LEARN_H

#include <stdint.h>

#include "recall.h"
#include "train.h"

enum { LEARN_STEPS = 400 };

/* What the model makes of the party that is shown. */
struct learn_look {
    float weights[RECALL_TOKENS][RECALL_TOKENS]; /* who listens to whom */
    int64_t answer[RECALL_GUESTS];               /* to the calls */
    double score;                                /* at the parties that are kept aside */
};

/* All that is told. */
struct learned {
    struct recall_party party;
    struct learn_look before, after;
    int64_t steps;
    float loss[LEARN_STEPS + 1]; /* before each step, and after the last */
    int evaluations;
    struct {
        int64_t step;
        double score;
    } evaluation[LEARN_STEPS + 1];
};

/* Tells it on standard output, and draws it if png is not NULL. FINE or FAILED. */
int learn_party(const char *png);

/* The picture: both maps with the names, the loss and the accuracy. FINE or FAILED. */
int learn_draw(const struct learned *learned, const char *path);

#endif
