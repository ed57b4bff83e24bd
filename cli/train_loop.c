/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of learning: a batch forward and backward, the gradient looked at and clipped, one step
 * of descent; every few steps an evaluation, and the best weights are kept.
 */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "complain.h"
#include "train.h"

/* Steps from one evaluation to the next. Not an option: the best weights of a run that was stopped
 * and resumed are those of one that was not. */
enum { EVERY = 25, MATRICES = QKV_WHICH_COUNT };

#define MOMENTUM 0.9f

const float train_rates[OPTIMIZERS] = {
    [OPTIMIZER_SGD] = 0.2f, [OPTIMIZER_MOMENTUM] = 0.03f, [OPTIMIZER_ADAMW] = 0.001f};

/* The signal that asked for the end; a second one ends the process at once. */
static volatile sig_atomic_t asked_to_stop;

static void ask_to_stop(int signal) {
    asked_to_stop = signal;
}

/* Whoever started the process with a signal ignored, as a shell does with SIGINT of its background
 * jobs, meant that. */
static void listen_for(int signal) {
    struct sigaction action = {.sa_handler = ask_to_stop, .sa_flags = (int)SA_RESETHAND}, old;
    if (sigaction(signal, NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
        sigaction(signal, &action, NULL);
    }
}

static void listen_for_signals(void) {
    asked_to_stop = 0;
    listen_for(SIGINT);
    listen_for(SIGTERM);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int64_t weights_of(const struct trainer *t) {
    return MATRICES * t->model.matrix;
}

int train_open(struct trainer *t, const struct train_settings *settings, const struct task *task) {
    *t = (struct trainer){.settings = settings, .task = task, .best_loss = INFINITY};
    int status = runner_choose(&t->model.runner, &t->model.context, settings->isa);
    t->model.runner.threads = settings->threads;
    if (!status) {
        status = model_open(&t->model, task, settings->heads, settings->batch, settings->seed);
    }
    if (status) {
        return status;
    }
    size_t count = (size_t)weights_of(t);
    t->mean = calloc(3 * count, sizeof *t->mean);
    if (!t->mean) {
        return out_of_memory("train");
    }
    t->square = t->mean + count;
    t->best = t->square + count;
    memcpy(t->best, t->model.weights, count * sizeof *t->best);
    return settings->resume ? train_restore(t) : FINE;
}

void train_close(struct trainer *t) {
    free(t->mean);
    t->mean = NULL;
    model_close(&t->model);
}

/* The loss and the score over everything that is kept aside. */
static int evaluate(struct trainer *t, struct evaluation *evaluation) {
    const struct task *task = t->task;
    struct model *m = &t->model;
    struct model_answers all = {0, 0};
    double loss = 0;
    for (int64_t first = 0; first < task->held; first += m->batch.sequences) {
        int64_t left = task->held - first;
        model_take(m, SHARE_HELD, first, left < m->capacity ? left : m->capacity);
        if (model_forward(m) || model_loss(m, false)) {
            return FAILED;
        }
        struct model_answers some = model_answers(m);
        all.wanted += some.wanted;
        all.right += some.right;
        loss += (double)m->loss * (double)m->batch.sequences;
    }
    evaluation->loss = loss / (double)task->held;
    evaluation->score = task->answers ? (double)all.right / (double)all.wanted
                                      : 1 - evaluation->loss / task->variance;
    return FINE;
}

static int keep_best(struct trainer *t) {
    if (evaluate(t, &t->last)) {
        return FAILED;
    }
    if (t->last.loss < t->best_loss) {
        t->best_loss = t->last.loss;
        t->best_step = t->step;
        memcpy(t->best, t->model.weights, (size_t)weights_of(t) * sizeof *t->best);
    }
    return FINE;
}

/* What the gradient is to be multiplied by; a gradient that holds NaN or infinity stops the run. */
static int check_gradient(struct trainer *t, float *scale) {
    static const char *const names[MATRICES] = {"W^Q", "W^K", "W^V"};
    double sum = 0;
    for (int i = 0; i < MATRICES; i++) {
        double part = 0;
        const float *gradient = t->model.gradient + i * t->model.matrix;
        qkv_status status =
            qkv_sum_squares(&part, gradient, t->model.matrix, t->model.runner.context);
        if (status) {
            return complain(FAILED, "descent", "%s", qkv_status_string(status));
        }
        if (!isfinite(part)) {
            t->bad_gradient = names[i];
            return FAILED;
        }
        sum += part;
    }
    *scale = qkv_clip_scale(sum, t->settings->clip);
    return FINE;
}

static int descend(struct trainer *t, float scale) {
    const struct train_settings *s = t->settings;
    qkv_descent_params params;
    qkv_descent_arrays arrays;
    qkv_descent_params_init(&params);
    params.count = weights_of(t);
    params.step = t->step + 1;
    params.rule = s->optimizer == OPTIMIZER_ADAMW ? QKV_DESCENT_ADAMW : QKV_DESCENT_SGD;
    params.rate = s->rate;
    params.gradient_scale = scale;
    params.momentum = s->optimizer == OPTIMIZER_MOMENTUM ? MOMENTUM : 0;
    params.weight_decay = s->decay;
    qkv_descent_arrays_init(&arrays);
    arrays.weights = t->model.weights;
    arrays.gradient = t->model.gradient;
    arrays.mean = t->mean;
    arrays.square = t->square;
    qkv_plan plan;
    qkv_exec exec;
    qkv_status status = qkv_descent_plan(&plan, &params, t->model.runner.context);
    if (!status && runner_prepare(&t->model.runner, &plan, &exec)) {
        return FAILED;
    }
    if (!status) {
        status = qkv_descent(&params, &arrays, &exec);
    }
    return status ? complain(FAILED, "descent", "%s", qkv_status_string(status)) : FINE;
}

static int learn_one_step(struct trainer *t) {
    struct model *m = &t->model;
    float scale = 0;
    model_take(m, SHARE_TRAIN, t->step, m->capacity);
    if (model_forward(m) || model_loss(m, true) || model_backward(m) || check_gradient(t, &scale) ||
        descend(t, scale)) {
        return FAILED;
    }
    t->step++;
    return FINE;
}

static void report(struct trainer *t, bool evaluated, double loss) {
    struct train_report r = {t, loss, evaluated, t->last, now() - t->started};
    if (t->listener.hear) {
        t->listener.hear(t->listener.self, &r);
    }
}

static int learn(struct trainer *t) {
    if (t->step == 0 && keep_best(t)) {
        return FAILED;
    }
    report(t, true, t->last.loss);
    while (t->step < t->settings->steps && !asked_to_stop) {
        if (learn_one_step(t)) {
            return FAILED;
        }
        double loss = (double)t->model.loss;
        bool due = t->step % EVERY == 0 || t->step == t->settings->steps;
        if (due && keep_best(t)) {
            return FAILED;
        }
        report(t, due, loss);
    }
    return FINE;
}

static int complain_of_gradient(const struct trainer *t) {
    char kept[80] = "there are no good weights";
    if (isfinite(t->best_loss)) {
        snprintf(kept, sizeof kept, "the weights of step %" PRId64 " are the last good ones%s",
                 t->best_step, t->settings->folder ? " and are kept" : "");
    }
    return complain(FAILED, "train",
                    "step %" PRId64 ": the gradient of %s holds NaN or infinity; %s", t->step + 1,
                    t->bad_gradient, kept);
}

int train_run(struct trainer *t) {
    listen_for_signals();
    t->started = now();
    int status = learn(t);
    t->signal = asked_to_stop;
    t->seconds = now() - t->started;
    if (t->listener.hear) {
        t->listener.hear(t->listener.self, NULL);
    }
    return t->bad_gradient ? complain_of_gradient(t) : status;
}

void train_leave(int number) {
    fflush(stdout);
    signal(number, SIG_DFL);
    raise(number);
}
