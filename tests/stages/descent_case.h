/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of descent for its suite: the rules that are tested, and arrays in guarded memory. */
#ifndef QKV_TEST_DESCENT_CASE_H
#define QKV_TEST_DESCENT_CASE_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#include <qkv/qkv.h>

#include "support/guard.h"
#include "support/run.h"

struct rule {
    const char *name;
    int32_t rule;
    float rate, scale, momentum, decay, beta1, beta2, epsilon;
};

enum { RULES = 8 };
extern const struct rule rules[RULES];

qkv_descent_params params_of(const struct rule *rule, int64_t count, int64_t step);

/* The running means that a rule has. */
bool has_mean(const struct rule *rule);
bool has_square(const struct rule *rule);

extern const struct how plainly;
struct verdict descend(const qkv_context *context, const qkv_descent_params *params,
                       const qkv_descent_arrays *arrays, struct how how);

/* Fails the running test if the verdict did. */
void require(struct verdict verdict);

enum array { W, G, M, V, ARRAYS };

struct arrays {
    struct guard memory[ARRAYS];
    qkv_descent_arrays view;
};

float *numbers(const struct arrays *a, enum array which);

/* Numbers that depend on seed and place; squares are positive. */
float value_of(uint64_t seed, enum array which, int64_t i);

/* Arrays of such numbers, those that the rule lacks too, but not in view. offset: elements between
 * the guarded side and the data, if not 0 different for each array. */
struct arrays arrays_make(uint64_t seed, const struct rule *rule, int64_t count,
                          enum guard_side side, int offset);
void arrays_free(struct arrays *a);

/* Nothing beside an array was written, nor any number that the rule does not change. */
void assert_intact(const struct arrays *a, const struct rule *rule, uint64_t seed, int64_t count);

void descent_add_bits_tests(TCase *tcase);

#endif
