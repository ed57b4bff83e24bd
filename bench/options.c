/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No silent slow path: every option of the fused stage alone, and 50 fixed combinations, each
 * measured in turn with the plain call of the same shape.
 *
 *   pct_plain   speed relative to the plain call, in keys a second, where both count the keys of
 *               the blocks that the masks leave (keys.c). 80 or more is asked of all of them but
 *               those with a soft-cap, which pays for its tanh.
 *
 * GFLOPS counts the same keys. The name of a combination holds its seed; its options stand at the
 * end of the line.
 */
#include <stdio.h>

#include "option_set.h"

enum { COMBINATIONS = 50 };

/* The first are the options alone, the others the seeds from 1. */
struct option_case {
    uint32_t set;
    uint32_t seed; /* 0: none */
};

static struct option_case cases[OPTION_COUNT + COMBINATIONS];

static void run(gb_state *state, void *user) {
    const struct option_case *option_case = user;
    struct bench_memory memory = {.count = 0};
    struct bench_call call = {.stage = &bench_attention};
    struct bench_call plain_call = {.stage = &bench_attention};
    struct bench_work work = {.plain = NULL};
    struct bench_work plain = {.plain = NULL};
    option_set_fill(&call, &memory, option_case->set);
    option_set_fill(&plain_call, &memory, 0);
    if (bench_call_prepare(state, &memory, &call, NULL, 1, &work) == 0 &&
        bench_call_prepare(state, &memory, &plain_call, NULL, 1, &plain) == 0) {
        char label[BENCH_NAME];
        option_set_name(label, option_case->set);
        gb_label(state, label);
        work.plain = &plain;
        work.keys = option_set_keys(&call.params);
        plain.keys = option_set_keys(&plain_call.params);
        work.flops = 4.0 * work.keys * OPTION_HEAD_DIM;
        work.bytes = 4.0 * OPTION_BATCH * OPTION_HEAD_DIM *
                     (2.0 * OPTION_HEADS * OPTION_Q_LEN +
                      2.0 * (double)call.params.kv_heads * OPTION_KV_LEN);
        bench_measure(state, &work);
    }
    bench_free(&memory);
}

static void register_case(struct option_case *option_case) {
    char name[2 * BENCH_NAME];
    char which[BENCH_NAME];
    if (option_case->seed)
        snprintf(which, sizeof(which), "seed%u", (unsigned)option_case->seed);
    else
        option_set_name(which, option_case->set);
    snprintf(name, sizeof(name), "b%d_h%d_q%d_kv%d_d%d_%s", OPTION_BATCH, OPTION_HEADS,
             OPTION_Q_LEN, OPTION_KV_LEN, OPTION_HEAD_DIM, which);
    double flops =
        4.0 * OPTION_BATCH * OPTION_HEADS * OPTION_Q_LEN * OPTION_KV_LEN * OPTION_HEAD_DIM;
    bench_register("options", name, 1, flops, run, option_case);
}

void options_register(void) {
    for (int i = 0; i < OPTION_COUNT + COMBINATIONS; i++) {
        if (i < OPTION_COUNT) {
            cases[i].set = OPTION_BIT(i);
        } else {
            cases[i].seed = (uint32_t)(i - OPTION_COUNT + 1);
            cases[i].set = option_set_from_seed(cases[i].seed);
        }
        register_case(&cases[i]);
    }
}
