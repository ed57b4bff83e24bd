/* SPDX-License-Identifier: Apache-2.0 */
/* What qkv train shows while it learns: a bar with the time left on a terminal, a line for each
 * evaluation elsewhere. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "heatmap.h"
#include "train.h"

enum { BAR = 16 };

/* Seconds between two drawings of the bar. */
#define PAUSE 0.1

static void print_line(const struct train_report *r) {
    const struct trainer *t = r->trainer;
    printf("step %6" PRId64 "   loss %-10.4g  kept aside: loss %-10.4g %s %6.2f %%   %.1f s\n",
           t->step, r->loss, r->last.loss, t->task->measure, 100 * r->last.score, r->seconds);
    fflush(stdout);
}

static void print_bar(const struct train_report *r, int64_t first) {
    const struct trainer *t = r->trainer;
    double share = (double)t->step / (double)t->settings->steps;
    char bar[BAR + 1];
    for (int i = 0; i < BAR; i++) {
        bar[i] = i < (int)(share * BAR) ? '#' : '.';
    }
    bar[BAR] = 0;
    printf("\r[%s] step %" PRId64 "/%" PRId64 "  loss %.3g  %s %.1f %%", bar, t->step,
           t->settings->steps, r->loss, t->task->measure, 100 * r->last.score);
    if (t->step > first) {
        double left = (double)(t->settings->steps - t->step) / (double)(t->step - first);
        printf("  %.0f s left", ceil(left * r->seconds));
    }
    fputs("\033[K", stdout);
    fflush(stdout);
}

static void hear(void *self, const struct train_report *r) {
    struct progress *p = self;
    if (!r) {
        if (p->bar) {
            putchar('\n');
        }
        return;
    }
    if (!p->bar) {
        if (r->evaluated) {
            print_line(r);
        }
        return;
    }
    if (p->shown < 0) {
        p->first = r->trainer->step;
    }
    if (p->shown < 0 || r->seconds - p->shown >= PAUSE ||
        r->trainer->step == r->trainer->settings->steps) {
        print_bar(r, p->first);
        p->shown = r->seconds;
    }
}

struct train_listener progress_listener(struct progress *progress) {
    *progress = (struct progress){.bar = screen_of_stdout().terminal, .shown = -1};
    return (struct train_listener){hear, progress};
}
