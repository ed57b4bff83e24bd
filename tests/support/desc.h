/* SPDX-License-Identifier: Apache-2.0 */
/* A description of one call of scores, softmax, mix or attention, or of their backward twins: plain
 * numbers from which case.h makes the parameters and the tensors. It can be written down by hand,
 * drawn from a random source or from a fuzzer's bytes, copied and changed, and printed for a
 * replay. */
#ifndef QKV_TEST_DESC_H
#define QKV_TEST_DESC_H

#include <stdbool.h>
#include <stdint.h>

#include <qkv/qkv.h>

#include "rng.h"
#include "tensor.h"

/* How the sequences' own lengths are given: not at all, q_lens/kv_lens, or cu_q/cu_kv. */
enum lengths { LENGTHS_FULL, LENGTHS_PADDED, LENGTHS_RAGGED, LENGTHS_COUNT };

/* What the numbers are like. */
enum values {
    VALUES_NORMAL, /* every number is finite and of moderate size */
    VALUES_POISON, /* K, V, scores and weights hold NaN and infinities where masks hide them */
    VALUES_WILD,   /* a few NaN and infinities anywhere */
    VALUES_COUNT
};

/* The tensors of a call. */
enum role {
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_SCORES,
    ROLE_WEIGHTS,
    ROLE_OUT,
    ROLE_LSE,
    ROLE_BIAS,
    ROLE_MASK,
    ROLE_D_Q, /* the gradients */
    ROLE_D_K,
    ROLE_D_V,
    ROLE_D_SCORES,
    ROLE_D_WEIGHTS,
    ROLE_D_OUT,
    ROLE_D_BIAS,
    ROLE_D_SINKS,
    ROLE_COUNT,
    ROLE_FIRST_GRADIENT = ROLE_D_Q
};
extern const char *const role_names[ROLE_COUNT];

struct desc {
    uint64_t seed; /* of the numbers, lengths and masks */
    int64_t batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim;
    int32_t align;
    int32_t exp; /* a qkv_exp, of attention */
    bool causal, alibi, sinks, bias, mask, lse;
    bool has_scale;
    bool bias_cuts;     /* the bias has -inf in places */
    bool in_place;      /* softmax: weights are the same view as scores; so are their gradients */
    bool bias_gradient; /* it is asked for though there is no bias */
    uint32_t unwanted;  /* bit r: the backward stage is not asked for the gradient of role r */
    float scale, softcap;
    float spread; /* standard deviation of Q's elements, or of the scores of softmax */
    int64_t window_left, window_right;
    enum lengths q_lengths, kv_lengths;
    enum values values;
    struct layout layout[ROLE_COUNT];
};

/* One head, q_len 5, kv_len 7, head_dim 8, no option. */
struct desc desc_plain(void);

struct desc_limits {
    int64_t length;   /* of q_len and kv_len */
    int64_t dim;      /* of head_dim and v_dim */
    int64_t products; /* batch * q_heads * q_len * kv_len * (head_dim + v_dim), about */
};

/* What the suites use. */
extern const struct desc_limits desc_limits_suite;

/* Any combination of all options. Every decision 0 gives a plain small description. */
struct desc desc_random(struct rng *rng, const struct desc_limits *limits);

/* The random description of a number: the same for the same seed. */
struct desc desc_numbered(uint64_t seed, int number, const struct desc_limits *limits);

/* A random layout: for a mask or bias also with zero strides. */
struct layout layout_random(struct rng *rng, bool may_broadcast);

/* Everything there is to know of a description, in a few lines. Returns text. */
const char *desc_text(const struct desc *desc, char *text, int size);

enum { DESC_TEXT_SIZE = 2600 };

#endif
