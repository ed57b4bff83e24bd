/* SPDX-License-Identifier: Apache-2.0 */
/* A user's own arrays as a task: attention over the tokens of X is to give Y. */
#ifndef QKV_CLI_FIT_H
#define QKV_CLI_FIT_H

#include "train_task.h"

struct fit_request {
    const char *x, *target;
    bool causal;
    double holdout; /* the share of the sequences, the last ones, that is kept aside */
    uint64_t seed;
};

/* FINE, or FAILED with a complaint. */
int fit_open(struct task *task, const struct fit_request *request);

#endif
