/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qkv train, and what its files share: the settings of a run, its state, and its steps. qkv party
 * --learn runs the same.
 */
#ifndef QKV_CLI_TRAIN_H
#define QKV_CLI_TRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "train_model.h"

/* In the order of --optimizer. Momentum is the rule SGD with a momentum. */
enum optimizer { OPTIMIZER_SGD, OPTIMIZER_MOMENTUM, OPTIMIZER_ADAMW, OPTIMIZERS };

struct train_settings {
    int64_t steps, heads, batch;
    uint64_t seed;
    enum optimizer optimizer;
    float rate, decay, clip;
    int threads;
    const char *isa;    /* NULL: the best */
    const char *folder; /* of the weights and the checkpoint; NULL: nothing is written */
    bool resume;
};

enum { TRAIN_STEPS = 1000, TRAIN_BATCH = 32, TRAIN_SEED = 1 };

/* The rate at which each optimizer learns well by default. */
extern const float train_rates[OPTIMIZERS];

/* What an evaluation on the sequences that are kept aside gives. */
struct evaluation {
    double loss, score; /* the score as task->measure says, from 0 to 1 */
};

struct trainer;

/* What is said while it learns. */
struct train_report {
    const struct trainer *trainer;
    double loss;            /* of the batch */
    bool evaluated;         /* at this step */
    struct evaluation last; /* the latest */
    double seconds;         /* since the first step of this process */
};

/* Called before the first step and after each, and when the run is over, with NULL. */
struct train_listener {
    void (*hear)(void *self, const struct train_report *report);
    void *self;
};

struct trainer {
    const struct train_settings *settings;
    const struct task *task;
    struct train_listener listener;
    struct model model;
    float *mean, *square; /* the optimizer's, as the weights */
    float *best;          /* the weights of the best evaluation */
    double best_loss;
    int64_t step, best_step; /* steps done */
    struct evaluation last;
    double started, seconds;  /* of the run in this process */
    int signal;               /* that ended the run, or 0 */
    const char *bad_gradient; /* the matrix whose gradient ended it, or NULL */
};

/* Each is FINE, or FAILED with a complaint. open fills the model with first weights, or those of
 * the checkpoint. */
int train_open(struct trainer *trainer, const struct train_settings *settings,
               const struct task *task);
void train_close(struct trainer *trainer);

/* Learns until the steps are done, a signal comes, or a gradient is no number. */
int train_run(struct trainer *trainer);

/* Ends the process by the signal that ended a run: who started it shall see that it was stopped. */
void train_leave(int signal);

/* The folder, made if it is missing, for the files below. */
int train_prepare_folder(const char *folder);

/* WQ.npy, WK.npy and WV.npy with the best weights, and the checkpoint: all or none. */
int train_save(const struct trainer *trainer);

/* Fills a trainer whose memory is there from the checkpoint in its folder. */
int train_restore(struct trainer *trainer);

/* A checksum of bytes, on top of another (0 to begin with). */
uint64_t train_checksum(const void *bytes, size_t size, uint64_t before);

/* The progress of qkv train on standard output: a bar on a terminal, else lines. */
struct progress {
    bool bar;
    double shown;  /* when the bar was drawn last; negative: never */
    int64_t first; /* steps done before */
};
struct train_listener progress_listener(struct progress *progress);

#endif
