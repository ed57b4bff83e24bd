/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model that learns: one layer of attention, and all that is computed with it, forward and
 * backward, on the library's kernels.
 *
 *   Q = X W^Q   K = X W^K   V = X W^V   O = attention(Q, K, V)
 *   logits = O D, with the task's dictionary D, and cross-entropy with the labels;
 *   or the squared difference of O from the target
 */
#ifndef QKV_CLI_TRAIN_MODEL_H
#define QKV_CLI_TRAIN_MODEL_H

#include <qkv/qkv.h>

#include "runner.h"
#include "train_task.h"

struct model {
    const struct task *task;
    struct runner runner;
    qkv_context context;
    int64_t heads, head_dim;
    int64_t capacity; /* sequences that the memory below is made for */
    int64_t matrix;   /* numbers of one of W^Q, W^K and W^V */
    float *memory;    /* all of what follows but the labels */
    float *weights;   /* W^Q, W^K, W^V one after the other, each [d_model, width] */
    float *gradient;  /* of these */
    float *q, *k, *v, *out, *lse;
    float *d_q, *d_k, *d_v, *d_out;
    float *logits, *d_logits;
    float loss;
    struct batch batch;
};

/* Memory, and weights from the seed; the context and the threads stand in the runner already. FINE
 * or FAILED with a complaint, as all that follow. */
int model_open(struct model *model, const struct task *task, int64_t heads, int64_t capacity,
               uint64_t seed);
void model_close(struct model *model);

/* Takes sequences of the task into the batch; first is as for task->fill. */
void model_take(struct model *model, enum share share, int64_t first, int64_t sequences);

/* From the batch to O and the logits; then the loss, with its gradient if it is wanted; then the
 * gradients of the weights. */
int model_forward(struct model *model);
int model_loss(struct model *model, bool gradient);
int model_backward(struct model *model);

/* The tokens of the batch that an answer is wanted for, and how many get the right one. */
struct model_answers {
    int64_t wanted, right;
};
struct model_answers model_answers(const struct model *model);

/* The answer with the largest logit for a token of the batch. */
int64_t model_answer(const struct model *model, int64_t sequence, int64_t token);

/* The weights of attention, softmax(scale Q K^T), of the batch's first sequence after a forward
 * pass: [heads, tokens, tokens]. */
int model_attention_weights(struct model *model, float *weights);

#endif
