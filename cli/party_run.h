/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The work of the party in one room: project, then attention both ways, in the four steps and in
 * one pass. Holds the memory for it, so that the same work can be repeated and timed.
 */
#ifndef QKV_CLI_PARTY_RUN_H
#define QKV_CLI_PARTY_RUN_H

#include <qkv/qkv.h>

#include "party_data.h"
#include "runner.h"

struct party_run {
    const struct party *party;
    struct runner runner;
    qkv_attention_params params;
    qkv_project_params project_params;
    qkv_tensors tensors;
    qkv_project_tensors project_tensors;
    float *w; /* W^Q, W^K, W^V as [d_model, heads * head_dim] */
    void *packed[QKV_WHICH_COUNT];
    float *q, *k, *v;     /* [heads, tokens, head_dim] */
    float *weights;       /* [heads, tokens, tokens] */
    float *mixed, *fused; /* O of the four steps and of the one pass */
    float *lse;
};

/* Memory, and the matrices packed for the context (NULL: the default one). */
int party_run_open(struct party_run *run, const struct party *party, const qkv_context *context);
void party_run_close(struct party_run *run);

/* Project, scores, softmax, mix; and project, attention. FINE or FAILED with a complaint. */
int party_run_steps(struct party_run *run);
int party_run_fused(struct party_run *run);

/* The largest differences from what the file says double precision makes. */
struct party_difference {
    double q, k, v, weights, o;
};
struct party_difference party_run_difference(const struct party_run *run);

/* Median of many repeats, in microseconds; negative if the work failed. */
double party_run_time(struct party_run *run, int (*work)(struct party_run *run));

#endif
