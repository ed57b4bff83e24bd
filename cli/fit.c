/* SPDX-License-Identifier: Apache-2.0 */
/* X and Y from their files, and batches of them. See fit.h. */
#include "fit.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "complain.h"
#include "noise.h"
#include "train.h"

struct fit {
    struct array x, target;
    uint64_t seed;
    int64_t train;               /* sequences to train on; those that are kept aside follow */
    int64_t held_from;           /* the first of SHARE_HELD */
    int64_t x_size, target_size; /* numbers of a sequence */
};

static void copy(const struct fit *fit, int64_t from, struct batch *batch, int64_t to) {
    const float *x = fit->x.data, *target = fit->target.data;
    memcpy(batch->x + to * fit->x_size, x + from * fit->x_size, (size_t)fit->x_size * sizeof *x);
    memcpy(batch->target + to * fit->target_size, target + from * fit->target_size,
           (size_t)fit->target_size * sizeof *target);
}

/* Training takes sequences at random, all of them where a batch holds as many. */
static void fill(const struct task *task, enum share share, int64_t first, struct batch *batch) {
    const struct fit *fit = task->data;
    struct noise noise = noise_open(fit->seed, share, (uint64_t)first);
    for (int64_t i = 0; i < batch->sequences; i++) {
        if (share == SHARE_HELD) {
            copy(fit, fit->held_from + first + i, batch, i);
        } else if (batch->sequences == fit->train) {
            copy(fit, i, batch, i);
        } else {
            copy(fit, noise_below(&noise, fit->train), batch, i);
        }
    }
}

static int check_shapes(const struct fit *fit) {
    const struct array *x = &fit->x, *y = &fit->target;
    char text[SHAPE_TEXT], other[SHAPE_TEXT];
    const struct array *const both[] = {x, y};
    for (int i = 0; i < 2; i++) {
        if (both[i]->dims != 3) {
            return complain(FAILED, both[i]->path,
                            "has the shape %s; [batch, tokens, %s] is needed",
                            shape_text(text, both[i]->dims, both[i]->shape),
                            i ? "heads * head_dim" : "d_model");
        }
        if (both[i]->count == 0) {
            return complain(FAILED, both[i]->path, "has the shape %s: there is nothing in it",
                            shape_text(text, 3, both[i]->shape));
        }
    }
    if (x->shape[0] != y->shape[0] || x->shape[1] != y->shape[1]) {
        return complain(FAILED, y->path,
                        "has the shape %s, but %s has %s: batch and tokens must be the same",
                        shape_text(text, 3, y->shape), x->path, shape_text(other, 3, x->shape));
    }
    return FINE;
}

/* A NaN or an infinity would be in every weight after one step. */
static int check_finite(const struct array *array) {
    const float *data = array->data;
    for (size_t i = 0; i < array->count; i++) {
        if (!isfinite(data[i])) {
            const int64_t width = array->shape[2], row = (int64_t)i / width;
            return complain(FAILED, array->path,
                            "holds %g at [%" PRId64 ", %" PRId64 ", %" PRId64 "]", (double)data[i],
                            row / array->shape[1], row % array->shape[1], (int64_t)i % width);
        }
    }
    return FINE;
}

static int divide(struct fit *fit, double holdout) {
    const int64_t all = fit->x.shape[0];
    int64_t held = (int64_t)ceil(holdout * (double)all);
    if (held >= all) {
        return complain(FAILED, "--holdout",
                        "of %" PRId64 " sequence%s leaves none to train on; 0 keeps none aside",
                        all, all > 1 ? "s" : "");
    }
    fit->train = all - held;
    fit->held_from = held ? fit->train : 0;
    return FINE;
}

/* The mean squared distance of the targets from their mean, column by column: the loss of the best
 * guess that does not look at X. */
static double variance(const struct fit *fit, int64_t held, int64_t width) {
    const int64_t rows = held * fit->target_size / width;
    const float *y = (const float *)fit->target.data + fit->held_from * fit->target_size;
    double total = 0;
    for (int64_t c = 0; c < width; c++) {
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < rows; i++) {
            sum += (double)y[i * width + c];
        }
        for (int64_t i = 0; i < rows; i++) {
            double d = (double)y[i * width + c] - sum / (double)rows;
            squares += d * d;
        }
        total += squares / (double)rows;
    }
    return total / (double)width;
}

static uint64_t likeness(const struct fit *fit) {
    const struct array *x = &fit->x, *y = &fit->target;
    uint64_t sum = train_checksum(x->shape, 3 * sizeof x->shape[0], (uint64_t)fit->train);
    sum = train_checksum(x->data, x->count * sizeof(float), sum);
    return train_checksum(y->data, y->count * sizeof(float), sum);
}

static void close_task(struct task *task) {
    struct fit *fit = task->data;
    array_free(&fit->x);
    array_free(&fit->target);
    free(fit);
    *task = (struct task){0};
}

static void describe(struct task *task, const struct fit *fit, bool causal) {
    const int64_t all = fit->x.shape[0];
    task->name = "fit";
    task->tokens = fit->x.shape[1];
    task->d_model = fit->x.shape[2];
    task->width = fit->target.shape[2];
    task->causal = causal;
    task->held = fit->held_from ? all - fit->train : all;
    task->variance = variance(fit, task->held, task->width);
    task->likeness = likeness(fit) + causal;
    task->measure = "explained";
    task->fill = fill;
}

int fit_open(struct task *task, const struct fit_request *request) {
    struct fit *fit = calloc(1, sizeof *fit);
    *task = (struct task){.data = fit, .close = close_task};
    if (!fit) {
        task->close = NULL;
        return out_of_memory("train");
    }
    fit->seed = request->seed;
    if (array_load(&fit->x, request->x) || array_load(&fit->target, request->target) ||
        check_shapes(fit) || check_finite(&fit->x) || check_finite(&fit->target) ||
        divide(fit, request->holdout)) {
        return FAILED;
    }
    fit->x_size = fit->x.shape[1] * fit->x.shape[2];
    fit->target_size = fit->target.shape[1] * fit->target.shape[2];
    describe(task, fit, request->causal);
    return FINE;
}
