/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every option of the fused stage, alone or combined: the parameters and tensors of such a call,
 * and how many keys its masks leave.
 */
#ifndef QKV_BENCH_OPTION_SET_H
#define QKV_BENCH_OPTION_SET_H

#include <stdint.h>

#include "bench.h"

/* Of the options in one group a call has one at most. DO(group, NAME, name). */
#define OPTIONS(DO)                    \
    DO(0, GQA, "gqa")                  \
    DO(0, MQA, "mqa")                  \
    DO(1, BSHD, "bshd")                \
    DO(1, PACKED_KV, "packedkv")       \
    DO(2, SCALE, "scale")              \
    DO(3, CAUSAL, "causal")            \
    DO(3, CAUSAL_TOP_LEFT, "causaltl") \
    DO(4, WINDOW_LEFT, "windowleft")   \
    DO(4, WINDOW_BOTH, "windowboth")   \
    DO(5, ALIBI, "alibi")              \
    DO(6, SOFTCAP, "softcap")          \
    DO(7, SINKS, "sinks")              \
    DO(8, BIAS, "bias")                \
    DO(8, BIAS_KEYS, "biaskeys")       \
    DO(9, MASK, "mask")                \
    DO(9, MASK_KEYS, "maskkeys")       \
    DO(9, MASK_BLOCKS, "maskblocks")   \
    DO(10, PADDED, "padded")           \
    DO(10, RAGGED, "ragged")           \
    DO(11, LSE, "lse")

#define OPTION_ENUM_(group, NAME, name) OPTION_##NAME,
enum option { OPTIONS(OPTION_ENUM_) OPTION_COUNT };
#undef OPTION_ENUM_

#define OPTION_BIT(option) ((uint32_t)1 << (option))

/* The shape of all these calls, with and without options. */
enum {
    OPTION_BATCH = 2,
    OPTION_HEADS = 4,
    OPTION_Q_LEN = 384,
    OPTION_KV_LEN = 768,
    OPTION_HEAD_DIM = 64
};

/* "gqa causal sinks", or "plain". */
void option_set_name(char name[BENCH_NAME], uint32_t set);

/* A combination of about half of the groups, the same for a seed on every machine. */
uint32_t option_set_from_seed(uint32_t seed);

/* Fills params and tensors (both initialised here). */
void option_set_fill(struct bench_call *call, struct bench_memory *memory, uint32_t set);

/* Keys that a call looks at, summed over queries, when it skips blocks of 48 queries by 256 keys
 * in which every key is masked, and no others. */
double option_set_keys(const qkv_attention_params *params);

#endif
