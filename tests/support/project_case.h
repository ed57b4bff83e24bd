/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions of calls of project, made real in guarded memory, and their check against the
 * reference and the scalar room: what desc.h, case.h and compare.h are for the other stages. */
#ifndef QKV_TEST_PROJECT_CASE_H
#define QKV_TEST_PROJECT_CASE_H

#include <stdbool.h>

#include <qkv/qkv.h>

#include "guard.h"
#include "desc.h"
#include "rng.h"
#include "tensor.h"
#include "verdict.h"

enum project_role {
    PROJECT_X,
    PROJECT_W, /* of Q, K and V */
    PROJECT_B = PROJECT_W + QKV_WHICH_COUNT,
    PROJECT_Y = PROJECT_B + QKV_WHICH_COUNT,
    PROJECT_ROLES = PROJECT_Y + QKV_WHICH_COUNT
};

struct project_desc {
    uint64_t seed;
    int64_t batch, tokens, d_model, q_heads, kv_heads, head_dim, v_dim;
    int32_t layout; /* how the weights are stored: IN_OUT or OUT_IN */
    bool packed;    /* pack them first */
    uint8_t biases; /* bit w: matrix w has a bias */
    struct layout place[PROJECT_ROLES];
};

struct project_case {
    struct project_desc desc;
    qkv_project_params params;
    qkv_project_tensors tensors;
    struct tensor tensor[PROJECT_ROLES];
    struct guard packed[QKV_WHICH_COUNT];
};

/* Three tokens of d_model 5 to two heads of Q and one of K and V, head_dim 4. */
struct project_desc project_desc_plain(void);
struct project_desc project_desc_random(struct rng *rng, int64_t products);

/* Packing, if any, is done by the context. Fails if that fails. */
struct verdict project_case_make(struct project_case *c, const struct project_desc *desc,
                                 const qkv_context *context);
void project_case_free(struct project_case *c);

/* Width of an output, 0 if the call leaves it out. */
int64_t project_heads(const struct project_desc *desc, int which);
int64_t project_dim(const struct project_desc *desc, int which);

struct verdict project_case_check_memory(const struct project_case *c);

/* Makes a case, runs it in the context and in the scalar room, and compares. */
struct verdict check_project(const qkv_context *context, const struct project_desc *desc);
struct verdict check_project_random(const qkv_context *context);

void project_case_explain(const struct project_desc *desc, struct verdict *verdict);

#endif
