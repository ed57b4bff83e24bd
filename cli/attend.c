/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qkv attend: attention over arrays in .npy files. This file has the options and the order of
 * the steps; attend_input.c and attend_project.c make q, k and v, attend_params.c the masks,
 * attend_output.c computes, saves and shows; attend_cache.c takes the way through a cache.
 */
#include "attend.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "complain.h"
#include "parts.h"

#define OPTIONS struct attend_options
#include "option_rows.h"

/* In the order of qkv_weight_layout, qkv_align, qkv_exp and qkv_arithmetic, and of attend_cache.c.
 */
static const char *const layouts[] = {"in-out", "out-in", NULL};
static const char *const alignments[] = {"bottom-right", "top-left", NULL};
static const char *const exponentials[] = {"sleef-u10", "sleef-u35", "poly5", "poly4", NULL};
static const char *const arithmetics[] = {"f32", "narrow", NULL};
static const char *const cache_types[] = {"bf16", "f16", "i8", "f32", NULL};

#define LARGEST 3.4e38 /* of a float */

static const struct option options[] = {
    HEADING("Queries, keys and values (.npy, float32 or float64):"),
    TEXT("--q", q, "FILE",
         "queries: [tokens, dim], [heads, tokens, dim] or\n"
         "[batch, heads, tokens, dim]"),
    TEXT("--k", k, "FILE", "keys, likewise"),
    TEXT("--v", v, "FILE", "values, likewise"),
    INTEGER("--heads", heads, "H", 1, INT_MAX, "[tokens, dim] holds H heads side by side (1)"),
    INTEGER("--kv-heads", kv_heads, "H", 1, INT_MAX,
            "the same for keys and values; a divisor of --heads\n(from the width of the keys)"),
    HEADING("Or projected, Q = X W^Q + b^Q and so on:"),
    TEXT("--x", x, "FILE", "tokens: [tokens, d_model] or [batch, tokens, d_model]"),
    TEXT("--wq", wq, "FILE", "W^Q: [d_model, heads * dim]"),
    TEXT("--wk", wk, "FILE", "W^K: [d_model, kv_heads * dim]"),
    TEXT("--wv", wv, "FILE", "W^V: [d_model, kv_heads * v_dim]"),
    TEXT("--bq", bq, "FILE", "b^Q: [heads * dim]"),
    TEXT("--bk", bk, "FILE", "b^K: [kv_heads * dim]"),
    TEXT("--bv", bv, "FILE", "b^V: [kv_heads * v_dim]"),
    CHOICE("--w-layout", w_layout, "in-out|out-in", layouts,
           "how the W are stored; out-in as PyTorch does (in-out)"),
    HEADING("Scores and masks:"),
    REAL("--scale", scale, "S", -LARGEST, LARGEST, "multiplies q.k (1/sqrt(dim))"),
    REAL("--softcap", softcap, "C", 0, LARGEST, "s becomes C tanh(s / C); 0 for none (0)"),
    FLAG("--causal", causal, "a query sees no key after its own position"),
    CHOICE("--align", align, "bottom-right|top-left", alignments,
           "the last query stands at the last key, or the first\nat the first (bottom-right)"),
    LIST("--window", window, "L,R", -1,
         "a query sees L keys before and R after its position;\n-1 for no limit (-1,-1)"),
    TEXT("--alibi", alibi, "FILE|auto", "slopes [heads]; auto: 2^(-8h/heads) for h from 1"),
    TEXT("--sinks", sinks, "FILE", "one more logit a head, without a value: [heads]"),
    TEXT("--bias", bias, "FILE",
         "added to the scores: [batch, heads, queries, keys]; leading\n"
         "dimensions may be missing, any may be 1"),
    TEXT("--mask", mask, "FILE", "bool or uint8, the same shape: keeps where not 0"),
    CHOICE("--exp", exp, "sleef-u10|sleef-u35|poly5|poly4", exponentials,
           "the exponential in the output and the LSE (sleef-u10)"),
    HEADING("Sequences of different lengths:"),
    LIST("--q-lens", q_lens, "A,B,..", 0, "rows of each sequence that count (padded batch)"),
    LIST("--kv-lens", kv_lens, "A,B,..", 0, "keys of each; with --x as --q-lens, unless given"),
    LIST("--cu-q", cu_q, "0,A,B,..", 0,
         "where each sequence begins, and the last ends, in arrays\n"
         "[tokens, dim] or [heads, tokens, dim] that hold all of\nthem end to end (ragged batch)"),
    LIST("--cu-kv", cu_kv, "0,A,B,..", 0, "the same for keys; with --x as --cu-q, unless given"),
    HEADING("Through a key/value cache:"),
    CHOICE("--cache-dtype", cache_dtype, "bf16|f16|i8|f32", cache_types,
           "O and LSE from a cache that stores K and V so, and how\n"
           "far O is from the exact one; --weights and --show stay\n"
           "exact (no cache)"),
    CHOICE("--cache-v-dtype", cache_v_dtype, "bf16|f16|i8|f32", cache_types,
           "another type for V; needs --cache-dtype (the type of K)"),
    CHOICE("--cache-arithmetic", cache_arithmetic, "f32|narrow", arithmetics,
           "narrow: products in the width of the stored types, by\n"
           "instructions that qkv cpu names; needs --cache-dtype (f32)"),
    INTEGER("--page-size", page_size, "N", 16, INT_MAX,
            "tokens a page, a multiple of 16; needs --cache-dtype\n(a sequence is one page)"),
    HEADING("Answers (float32; at least one of these, or --cache-dtype):"),
    TEXT("--out", out, "FILE", "O, in the form of the queries"),
    TEXT("--lse", lse, "FILE",
         "natural logsumexp of each row: [batch, heads, tokens],\n"
         "without the axes that the queries do not have"),
    TEXT("--weights", weights, "FILE",
         "softmax of the scores: [batch, heads, tokens, keys],\n"
         "without the same axes"),
    FLAG("--show", show, "a heat map of the weights of each head"),
    HEADING("How:"),
    TEXT("--isa", isa, "NAME",
         "the room to use: scalar, avx2, avx512 or neon (the highest\n"
         "that this CPU can run)"),
    INTEGER("--threads", threads, "N", 1, RUNNER_MOST_THREADS,
            "threads at most; the answer does not depend on them\n(as many as there are CPUs)"),
};

_Static_assert(sizeof options / sizeof options[0] <= OPTIONS_MAX, "the parser keeps count of them");

/* The context, and how many threads. */
static int set_runner(struct job *job) {
    const struct attend_options *o = job->options;
    job->runner.threads = o->threads.given ? (int)o->threads.value : pool_cpus();
    return runner_choose(&job->runner, &job->context, o->isa);
}

static int do_job(struct job *job) {
    int status = set_runner(job);
    if (!status) {
        status = job->options->x ? attend_project(job) : attend_load(job);
    }
    if (!status) {
        status = attend_set_params(job);
    }
    if (!status) {
        status = attend_compute(job);
    }
    if (!status) {
        status = attend_save(job);
    }
    if (!status && job->options->cache_dtype.given) {
        attend_tell(job);
    }
    if (!status && job->options->show) {
        attend_show(job);
    }
    return status;
}

static void free_job(struct job *job) {
    struct array *arrays[] = {&job->q,     &job->k,    &job->v,   &job->alibi,
                              &job->sinks, &job->bias, &job->mask};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        array_free(arrays[i]);
    }
    free(job->out);
    free(job->lse);
    free(job->weights);
    runner_close(&job->runner);
}

static int run(int argc, char **argv) {
    struct attend_options values = {0};
    enum parsed parsed = options_parse(&attend_command, argc, argv, &values);
    int status = parsed == PARSED_BAD ? USAGE : FINE;
    if (parsed == PARSED_RUN) {
        struct job job = {.options = &values};
        qkv_attention_params_init(&job.params);
        qkv_tensors_init(&job.tensors);
        status = attend_check_options(&values);
        if (!status) {
            status = do_job(&job);
        }
        free_job(&job);
    }
    options_free(&attend_command, &values);
    return status;
}

const struct command attend_command = {
    .name = "attend",
    .summary = "attention over arrays in .npy files",
    .usage = "--q Q.npy --k K.npy --v V.npy [options]\n"
             "--x X.npy --wq WQ.npy --wk WK.npy --wv WV.npy [options]",
    .about = "O = softmax(scale Q K^T) V with every mask below. What is not given is as the\n"
             "parentheses say. Arrays are little-endian and in C order.",
    .options = options,
    .count = sizeof options / sizeof options[0],
    .run = run,
};
