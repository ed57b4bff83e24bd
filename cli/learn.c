/* SPDX-License-Identifier: Apache-2.0 */
/* The party that learns, in the terminal. See learn.h. */
#include "learn.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "canvas.h"
#include "complain.h"
#include "heatmap.h"

enum { BAR = 40, LABEL = 8 };

static void print_invitation(void) {
    printf("A party that learns\n\n"
           "%d guests come, and each brings a name and a story. Then every name is called, and a\n"
           "call must come back with that guest's story. Nobody says how: the queries (whom do I\n"
           "look for?), the keys (who am I?) and the values (what have I got to tell?) are W^Q,\n"
           "W^K and W^V times what a guest brings, and the three matrices begin as random\n"
           "numbers. Each step takes %d practice parties, looks how wrong the answers are, and\n"
           "moves every number a little to where they are less wrong: gradient descent.\n",
           RECALL_GUESTS, TRAIN_BATCH);
}

/* The rows of the calls, over everybody. */
static void print_map(const struct learned *l, const struct learn_look *look) {
    char called[RECALL_GUESTS][LABEL];
    const char *columns[RECALL_TOKENS], *rows[RECALL_GUESTS];
    for (int i = 0; i < RECALL_GUESTS; i++) {
        const char *name = recall_names[l->party.name[i]];
        snprintf(called[i], LABEL, "%s?", name);
        columns[i] = name;
        columns[RECALL_GUESTS + i] = rows[i] = called[i];
    }
    struct heatmap map = {.values = look->weights[RECALL_GUESTS],
                          .rows = RECALL_GUESTS,
                          .columns = RECALL_TOKENS,
                          .stride = RECALL_TOKENS,
                          .row_labels = rows,
                          .column_labels = columns};
    struct screen screen = screen_of_stdout();
    heatmap_print(&map, &screen);
}

static int right_answers(const struct learned *l, const struct learn_look *look) {
    int right = 0;
    for (int i = 0; i < RECALL_GUESTS; i++) {
        right += look->answer[i] == l->party.story[i];
    }
    return right;
}

static void print_answers(const struct learned *l) {
    printf("\n  %-8s %-20s %-20s %s\n", "guest", "told", "answer before", "answer after");
    for (int i = 0; i < RECALL_GUESTS; i++) {
        printf("  %-8s %-20s %-20s %s\n", recall_names[l->party.name[i]],
               recall_stories[l->party.story[i]], recall_stories[l->before.answer[i]],
               recall_stories[l->after.answer[i]]);
    }
}

static int look_at_party(struct trainer *t, struct learn_look *look) {
    model_take(&t->model, SHARE_SHOW, 0, 1);
    if (model_forward(&t->model) || model_attention_weights(&t->model, look->weights[0])) {
        return FAILED;
    }
    for (int i = 0; i < RECALL_GUESTS; i++) {
        look->answer[i] = model_answer(&t->model, 0, RECALL_GUESTS + i);
    }
    return FINE;
}

static void hear(void *self, const struct train_report *r) {
    struct learned *l = self;
    if (!r) {
        return;
    }
    int64_t step = r->trainer->step;
    l->steps = step;
    l->loss[step] = (float)r->loss;
    if (!r->evaluated) {
        return;
    }
    l->evaluation[l->evaluations].step = step;
    l->evaluation[l->evaluations++].score = r->last.score;
    int length = (int)(r->last.loss / (double)l->loss[0] * BAR + 0.5);
    char bar[BAR + 1] = "";
    memset(bar, '#', (size_t)(length < BAR ? length : BAR));
    printf("  step %4" PRId64 "  loss %6.4f  accuracy %5.1f %%%s%s\n", step, r->last.loss,
           100 * r->last.score, *bar ? "  " : "", bar);
    fflush(stdout);
}

static void print_before(const struct learned *l) {
    printf("\nBefore: every call listens to everybody, guests and other calls alike, and %d of %d\n"
           "answers are right (down: the calls; across: whom they listen to)\n\n",
           right_answers(l, &l->before), RECALL_GUESTS);
    print_map(l, &l->before);
    printf("\nThe loss as it falls, and the share of right answers, at %d parties that are never\n"
           "practised on:\n\n",
           RECALL_HELD);
}

static void print_after(const struct learned *l, double seconds) {
    printf("\nAfter %" PRId64 " steps, %.1f seconds: every call listens to its guest, and %d of %d "
           "answers are\nright. Nobody was at this party before.\n\n",
           l->steps, seconds, right_answers(l, &l->after), RECALL_GUESTS);
    print_map(l, &l->after);
    print_answers(l);
}

static int learn(struct trainer *t, struct learned *l) {
    recall_draw(t->task, SHARE_SHOW, 0, &l->party);
    if (look_at_party(t, &l->before)) {
        return FAILED;
    }
    print_before(l);
    t->listener = (struct train_listener){hear, l};
    if (train_run(t)) {
        return FAILED;
    }
    if (t->signal) {
        train_leave(t->signal);
    }
    if (look_at_party(t, &l->after)) {
        return FAILED;
    }
    l->before.score = l->evaluation[0].score;
    l->after.score = t->last.score;
    print_after(l, t->seconds);
    return FINE;
}

int learn_party(const char *png) {
    if (png && !canvas_has_png) {
        return complain(FAILED, "--png", "this command was built without libpng");
    }
    const struct train_settings settings = {
        .steps = LEARN_STEPS,
        .heads = 1,
        .batch = TRAIN_BATCH,
        .seed = TRAIN_SEED,
        .optimizer = OPTIMIZER_ADAMW,
        .rate = train_rates[OPTIMIZER_ADAMW],
        .clip = 1,
        .threads = pool_cpus(),
    };
    struct task task = {0};
    struct trainer trainer = {0};
    struct learned *learned = calloc(1, sizeof *learned);
    int status = learned ? recall_open(&task, settings.seed) : out_of_memory("--learn");
    if (!status) {
        print_invitation();
        status = train_open(&trainer, &settings, &task);
    }
    if (!status) {
        status = learn(&trainer, learned);
    }
    if (!status && png) {
        status = learn_draw(learned, png);
    }
    train_close(&trainer);
    if (task.close) {
        task.close(&task);
    }
    free(learned);
    return status;
}
