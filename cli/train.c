/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qkv train: options, the task, the run, and what is said at its end. recall.c and fit.c hold the
 * tasks, train_model.c computes, train_loop.c learns, train_checkpoint.c keeps.
 */
#include "train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "complain.h"
#include "fit.h"
#include "parts.h"
#include "recall.h"
#include "rooms.h"

struct train_options {
    const char *x, *target;
    bool causal;
    struct option_real holdout;
    struct option_integer steps, heads, batch, seed, threads;
    struct option_real rate, decay, clip;
    struct option_choice optimizer;
    const char *out;
    bool resume;
    const char *isa;
};

#define OPTIONS struct train_options
#include "option_rows.h"

/* In the order of enum optimizer. */
static const char *const optimizers[] = {"sgd", "momentum", "adamw", NULL};

static const struct option options[] = {
    HEADING("What to learn (nothing given: who told which story at a party):"),
    TEXT("--x", x, "FILE", "tokens: [batch, tokens, d_model], float32 or float64 (.npy)"),
    TEXT("--target", target, "FILE",
         "what attention is to make of them: [batch, tokens,\nheads * head_dim]"),
    FLAG("--causal", causal, "a query sees no key after its own position; with --x"),
    REAL("--holdout", holdout, "P", 0, 0.9,
         "the share of the batch, its last sequences, that is\nkept aside to measure on; with --x "
         "(0.1)"),
    HEADING("How to learn:"),
    INTEGER("--steps", steps, "N", 1, 1e9, "steps of descent in all (1000)"),
    CHOICE("--optimizer", optimizer, "sgd|momentum|adamw", optimizers,
           "W <- W - rate * gradient; the same with a momentum of\n0.9; or AdamW (adamw)"),
    REAL("--lr", rate, "RATE", 1e-9, 1000, "the rate (sgd 0.2, momentum 0.03, adamw 0.001)"),
    REAL("--weight-decay", decay, "D", 0, 1, "pulls the weights towards zero (0)"),
    REAL("--clip", clip, "NORM", 1e-9, 1e9, "the longest a gradient may be (1)"),
    INTEGER("--batch", batch, "N", 1, 1 << 20, "parties, or sequences of --x, in a step (32)"),
    INTEGER("--heads", heads, "H", 1, 512, "heads of attention (1)"),
    INTEGER("--seed", seed, "S", 0, 1e15,
            "of all that is random; the same seed learns the\n"
            "same weights (1)"),
    HEADING("What to keep:"),
    TEXT(
        "--out", out, "FOLDER",
        "the best weights go to WQ.npy, WK.npy and WV.npy there,\n[d_model, heads * head_dim], and "
        "a checkpoint beside\nthem; also when Ctrl-C ends the run"),
    FLAG("--resume", resume, "go on from the checkpoint in --out"),
    HEADING("Where:"),
    TEXT("--isa", isa, "NAME",
         "the room to use: scalar, avx2, avx512 or neon (the highest\n"
         "that this CPU can run)"),
    INTEGER("--threads", threads, "N", 1, RUNNER_MOST_THREADS,
            "threads at most; the weights do not depend on them\n(as many as there are CPUs)"),
};

static int64_t integer(const struct option_integer *o, int64_t otherwise) {
    return o->given ? o->value : otherwise;
}

static float real(const struct option_real *o, float otherwise) {
    return o->given ? (float)o->value : otherwise;
}

static struct train_settings settings_of(const struct train_options *o) {
    enum optimizer optimizer =
        o->optimizer.given ? (enum optimizer)o->optimizer.value : OPTIMIZER_ADAMW;
    return (struct train_settings){
        .steps = integer(&o->steps, TRAIN_STEPS),
        .heads = integer(&o->heads, 1),
        .batch = integer(&o->batch, TRAIN_BATCH),
        .seed = (uint64_t)integer(&o->seed, TRAIN_SEED),
        .optimizer = optimizer,
        .rate = real(&o->rate, train_rates[optimizer]),
        .decay = real(&o->decay, 0),
        .clip = real(&o->clip, 1),
        .threads = (int)integer(&o->threads, pool_cpus()),
        .isa = o->isa,
        .folder = o->out,
        .resume = o->resume,
    };
}

static int check_options(const struct train_options *o) {
    if (!o->x != !o->target) {
        return complain(USAGE, o->x ? "--target" : "--x", "is missing; it goes with %s",
                        o->x ? "--x" : "--target");
    }
    if (!o->x && (o->causal || o->holdout.given)) {
        return complain(USAGE, o->causal ? "--causal" : "--holdout", "goes with --x");
    }
    if (o->resume && !o->out) {
        return complain(USAGE, "--resume", "needs --out, the folder with the checkpoint");
    }
    return room_check(o->isa);
}

static int open_task(struct task *task, const struct train_options *o,
                     const struct train_settings *s) {
    if (!o->x) {
        return recall_open(task, s->seed);
    }
    struct fit_request request = {
        .x = o->x,
        .target = o->target,
        .causal = o->causal,
        .holdout = o->holdout.given ? o->holdout.value : 0.1,
        .seed = s->seed,
    };
    return fit_open(task, &request);
}

/* Heads of a width that the library takes. */
static int check_heads(const struct task *task, int64_t heads) {
    if (task->width % heads != 0) {
        return complain(FAILED, "--heads", "%" PRId64 " heads do not divide the width of %" PRId64,
                        heads, task->width);
    }
    if (task->width / heads > QKV_HEAD_DIM_MAX) {
        return complain(FAILED, "--heads",
                        "%" PRId64 " are too few: a head of %" PRId64 " is wider than %d", heads,
                        task->width / heads, QKV_HEAD_DIM_MAX);
    }
    return FINE;
}

static void print_start(const struct trainer *t) {
    const struct train_settings *s = t->settings;
    const struct task *task = t->task;
    printf("%s: W^Q, W^K and W^V of [%" PRId64 ", %" PRId64 "], %" PRId64 " head%s of %" PRId64
           ", in the room %s\n",
           task->name, task->d_model, task->width, s->heads, s->heads > 1 ? "s" : "",
           task->width / s->heads, qkv_isa_name((int)qkv_context_isa(t->model.runner.context)));
    fflush(stdout);
}

static void print_end(const struct trainer *t) {
    if (t->signal) {
        printf("Stopped after step %" PRId64 ".\n", t->step);
    }
    printf("Best on %" PRId64 " kept aside: loss %.4g, at step %" PRId64 "\n", t->task->held,
           t->best_loss, t->best_step);
    if (t->settings->folder) {
        printf("Weights and checkpoint: %s\n", t->settings->folder);
    }
}

static int learn(const struct train_settings *settings, const struct task *task, int *signal) {
    struct trainer trainer;
    struct progress progress;
    int status = train_open(&trainer, settings, task);
    if (!status) {
        trainer.listener = progress_listener(&progress);
        print_start(&trainer);
        status = train_run(&trainer);
        if (!isfinite(trainer.best_loss)) {
            status = status ? status
                            : complain(FAILED, "train",
                                       "the loss on what is kept aside was never a finite number; "
                                       "there are no good weights");
        } else if (settings->folder && train_save(&trainer)) {
            status = FAILED;
        } else {
            print_end(&trainer);
        }
        *signal = trainer.signal;
    }
    train_close(&trainer);
    return status;
}

static int prepare_and_learn(const struct train_options *o, int *signal) {
    struct train_settings settings = settings_of(o);
    struct task task = {0};
    int status = open_task(&task, o, &settings);
    if (!status) {
        status = check_heads(&task, settings.heads);
    }
    if (!status && settings.folder) {
        status = train_prepare_folder(settings.folder);
    }
    if (!status) {
        status = learn(&settings, &task, signal);
    }
    if (task.close) {
        task.close(&task);
    }
    return status;
}

static int run(int argc, char **argv) {
    struct train_options values = {0};
    enum parsed parsed = options_parse(&train_command, argc, argv, &values);
    if (parsed != PARSED_RUN) {
        return parsed == PARSED_HELP ? FINE : USAGE;
    }
    int stopped_by = 0;
    int status = check_options(&values);
    if (!status) {
        status = prepare_and_learn(&values, &stopped_by);
    }
    if (stopped_by && !status) {
        train_leave(stopped_by);
    }
    return status;
}

const struct command train_command = {
    .name = "train",
    .summary = "learns W^Q, W^K and W^V: at parties, or from your own arrays",
    .usage = "[options]\n--x X.npy --target Y.npy [options]",
    .about =
        "One layer of attention learns by gradient descent, on the library's kernels forward and\n"
        "backward. At a party every guest brings a name and a story; then names are called, and\n"
        "the answer is that guest's story. Who comes and who tells what is drawn anew for each\n"
        "party, so that only the mechanism can be learned; what is measured is measured at\n"
        "parties that were never trained on. With --x and --target, attention over your own\n"
        "tokens is fitted to what you want of it, by the mean squared difference.",
    .options = options,
    .count = sizeof options / sizeof options[0],
    .run = run,
};
