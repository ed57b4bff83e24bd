/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of descent that are tested, and arrays in guarded memory (descent_case.h). */
#include "descent_case.h"

#include "support/rng.h"
#include "support/rooms.h"

const struct rule rules[RULES] = {
    {"sgd", QKV_DESCENT_SGD, 0.01f, 1, 0, 0, 0, 0, 0},
    {"sgd, clipped", QKV_DESCENT_SGD, 0.01f, 0.3f, 0, 0, 0, 0, 0},
    {"sgd, decay", QKV_DESCENT_SGD, 0.01f, 1, 0, 0.1f, 0, 0, 0},
    {"momentum", QKV_DESCENT_SGD, 0.003f, 1, 0.9f, 0, 0, 0, 0},
    {"momentum, decay, clipped", QKV_DESCENT_SGD, 0.003f, 0.7f, 0.95f, 0.01f, 0, 0, 0},
    {"adamw", QKV_DESCENT_ADAMW, 0.001f, 1, 0, 0, 0.9f, 0.999f, 1e-8f},
    {"adamw, decay, clipped", QKV_DESCENT_ADAMW, 0.001f, 0.3f, 0, 0.1f, 0.9f, 0.999f, 1e-8f},
    {"adamw without memory", QKV_DESCENT_ADAMW, 0.001f, 1, 0, 0.1f, 0, 0, 1e-6f},
};
qkv_descent_params params_of(const struct rule *rule, int64_t count, int64_t step) {
    qkv_descent_params p;
    qkv_descent_params_init(&p);
    p.count = count;
    p.step = step;
    p.rule = rule->rule;
    p.rate = rule->rate;
    p.gradient_scale = rule->scale;
    p.momentum = rule->momentum;
    p.weight_decay = rule->decay;
    p.beta1 = rule->beta1;
    p.beta2 = rule->beta2;
    p.epsilon = rule->epsilon;
    return p;
}

bool has_mean(const struct rule *rule) {
    return rule->rule == QKV_DESCENT_ADAMW || rule->momentum > 0;
}

bool has_square(const struct rule *rule) {
    return rule->rule == QKV_DESCENT_ADAMW;
}

struct verdict descend(const qkv_context *context, const qkv_descent_params *params,
                       const qkv_descent_arrays *arrays, struct how how) {
    const struct call call = {context, QKV_STAGE_DESCENT, params, arrays};
    return run_call(&call, how);
}

const struct how plainly = {WAY_PLAIN, 1, 0};

void require(struct verdict verdict) {
    if (!verdict.ok)
        ck_abort_msg("%s", verdict.message);
}

float *numbers(const struct arrays *a, enum array which) {
    return (float *)a->memory[which].data;
}

float value_of(uint64_t seed, enum array which, int64_t i) {
    const float x = rng_normal(rng_hash(seed + (uint64_t)which, (uint64_t)i));
    return which == V ? x * x : x;
}

struct arrays arrays_make(uint64_t seed, const struct rule *rule, int64_t count,
                          enum guard_side side, int offset) {
    struct arrays a;
    qkv_descent_arrays_init(&a.view);
    for (int which = 0; which < ARRAYS; which++) {
        const size_t away = offset ? (size_t)(offset + which) % 16 * sizeof(float) : 0;
        a.memory[which] = guard_alloc((size_t)count * sizeof(float), sizeof(float), side, away);
        for (int64_t i = 0; i < count; i++)
            ((float *)a.memory[which].data)[i] = value_of(seed, which, i);
    }
    a.view.weights = numbers(&a, W);
    a.view.gradient = numbers(&a, G);
    a.view.mean = has_mean(rule) ? numbers(&a, M) : NULL;
    a.view.square = has_square(rule) ? numbers(&a, V) : NULL;
    return a;
}

void arrays_free(struct arrays *a) {
    for (int which = 0; which < ARRAYS; which++)
        guard_free(&a->memory[which]);
}

void assert_intact(const struct arrays *a, const struct rule *rule, uint64_t seed, int64_t count) {
    const bool changes[ARRAYS] = {true, false, has_mean(rule), has_square(rule)};
    for (int which = 0; which < ARRAYS; which++) {
        ck_assert_msg(guard_intact(&a->memory[which]), "%s: beside array %d", rule->name, which);
        /* No assertion for each: it writes to a file. */
        for (int64_t i = 0; i < count && !changes[which]; i++)
            if (numbers(a, which)[i] != value_of(seed, which, i))
                ck_abort_msg("%s: number %lld of array %d was written", rule->name, (long long)i,
                             which);
    }
}
