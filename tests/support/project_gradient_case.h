/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions of calls of project_backward, made real in guarded memory, and their check against
 * the reference and the scalar room. X and the matrices are those of a case of project. */
#ifndef QKV_TEST_PROJECT_GRADIENT_CASE_H
#define QKV_TEST_PROJECT_GRADIENT_CASE_H

#include "project_case.h"
#include "run.h"

/* The gradients: of Q, K and V, which are inputs, then the outputs. */
enum gradient_role {
    GRADIENT_Y,
    GRADIENT_X = GRADIENT_Y + QKV_WHICH_COUNT,
    GRADIENT_W,
    GRADIENT_B = GRADIENT_W + QKV_WHICH_COUNT,
    GRADIENT_ROLES = GRADIENT_B + QKV_WHICH_COUNT
};

enum { GRADIENT_ALL = (1 << GRADIENT_ROLES) - 1 };

struct gradient_desc {
    struct project_desc project; /* seed, sizes and layout; places of x and the matrices */
    bool accumulate;             /* to numbers that stand there */
    bool wild;                   /* NaN and infinities in a few places of the inputs */
    uint16_t wanted;             /* bit r: output r is wanted */
    struct layout place[GRADIENT_ROLES];
};

struct gradient_case {
    struct gradient_desc desc;
    struct project_case project;
    qkv_project_gradients gradients;
    struct tensor tensor[GRADIENT_ROLES];
    struct tensor before[GRADIENT_ROLES]; /* what outputs held, if the call accumulates */
    struct project_backward_tensors both;
};

/* The plain description of project, every output wanted. */
struct gradient_desc gradient_desc_plain(void);
struct gradient_desc gradient_desc_random(struct rng *rng, int64_t products);

void gradient_case_make(struct gradient_case *c, const struct gradient_desc *desc);
void gradient_case_free(struct gradient_case *c);

/* Is there such a tensor: not of a matrix that is left out, nor an output that is not wanted? */
bool gradient_case_has(const struct gradient_case *c, int role);

/* Makes and runs a case; looks at the memory around. */
struct verdict gradient_case_run(struct gradient_case *c, const struct gradient_desc *desc,
                                 const qkv_context *context, struct how how);

/* Do all outputs of two cases of the same sizes hold the same bits? dW by input and column, however
 * it is stored; outputs that one of them lacks are not compared. */
struct verdict gradient_case_same(const struct gradient_case *a, const struct gradient_case *b);

/* Makes a case, runs it in the context and in the scalar room, and compares. */
struct verdict check_project_gradients(const qkv_context *context,
                                       const struct gradient_desc *desc);
struct verdict check_project_gradients_random(const qkv_context *context);

void gradient_case_explain(const struct gradient_desc *desc, struct verdict *verdict);

#endif
