/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is to be learned: sequences of tokens to train on, others kept aside, and what the output of
 * attention should be for them. Two tasks: recall.h (who told which story) and fit.h (a user's own
 * arrays).
 */
#ifndef QKV_CLI_TRAIN_TASK_H
#define QKV_CLI_TRAIN_TASK_H

#include <stdbool.h>
#include <stdint.h>

/* The sequences of a task: to train on, kept aside, and to show. */
enum share { SHARE_TRAIN, SHARE_HELD, SHARE_SHOW, SHARES };

/* Some sequences, in memory of the model's. */
struct batch {
    int64_t sequences;
    float *x;        /* [sequences, tokens, d_model] */
    float *target;   /* [sequences, tokens, width], of a task without a dictionary */
    int32_t *labels; /* [sequences, tokens], of a task with one; -1: no answer is wanted */
};

struct task {
    const char *name;
    int64_t tokens, d_model;
    int64_t width;           /* of O: heads * head_dim */
    int64_t answers;         /* columns of the dictionary; 0: O itself is compared with a target */
    const float *dictionary; /* [width, answers]: O times this are the logits of the answers */
    bool causal;
    int64_t held;        /* sequences of SHARE_HELD, that evaluations are made on */
    double variance;     /* of the kept-aside targets; 0 with a dictionary */
    uint64_t likeness;   /* of the data: a run can only be resumed on the same */
    const char *measure; /* what the score of an evaluation is called */

    /* The sequences [first, first + batch->sequences) of a share; for the training share, those of
     * the step `first`. */
    void (*fill)(const struct task *task, enum share share, int64_t first, struct batch *batch);
    void (*close)(struct task *task);
    void *data; /* the task's own */
};

#endif
