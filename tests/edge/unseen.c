/* SPDX-License-Identifier: Apache-2.0 */
/* Keys that a window keeps from every row are not read: the rows of K and V before the first one
 * seen stand in a page that may not be touched. The first one stands within a panel of 16 keys and
 * within a block, and V is either used where it is (dim 16) or packed (dim 13). */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "support/guard.h"
#include "support/rooms.h"
#include "unseen.h"

enum { HEADS = 2, KEYS = 300, WINDOW = 10, MOST_ROWS = 100, MOST_DIM = 16 };

static float q[HEADS * MOST_ROWS * MOST_DIM], k[KEYS * MOST_DIM], v[KEYS * MOST_DIM];
static float weights[HEADS * MOST_ROWS * KEYS];
static float scores[2][HEADS * MOST_ROWS * KEYS], out[2][HEADS * MOST_ROWS * MOST_DIM];
static float lse[HEADS * MOST_ROWS], d_out[HEADS * MOST_ROWS * MOST_DIM];
static float d_keys[2][2][KEYS * MOST_DIM];

/* The gradients of a call: dQ stands where the forward stages have their output, and dA where they
 * have the scores; those of K and V of their own. */
static qkv_gradients gradients_of(const qkv_attention_params *params, const qkv_tensors *t) {
    const int64_t dim = params->head_dim;
    const int which = t->scores.data == scores[1];
    qkv_gradients g;
    qkv_gradients_init(&g);
    g.out = qkv_tensor_bhsd(d_out, HEADS, params->q_len, dim);
    g.weights = t->scores;
    g.scores = t->weights;
    g.q = t->out;
    g.k = qkv_tensor_bhsd(d_keys[which][0], 1, KEYS, dim);
    g.v = qkv_tensor_bhsd(d_keys[which][1], 1, KEYS, dim);
    return g;
}

static qkv_status scores_back(const qkv_attention_params *params, const qkv_tensors *t,
                              const qkv_exec *exec) {
    const qkv_gradients g = gradients_of(params, t);
    return qkv_scores_backward(params, t, &g, exec);
}

static qkv_status mix_back(const qkv_attention_params *params, const qkv_tensors *t,
                           const qkv_exec *exec) {
    const qkv_gradients g = gradients_of(params, t);
    return qkv_mix_backward(params, t, &g, exec);
}

/* The output and the LSE that the gradients need are those of a forward call with the same keys. */
static float forward_out[HEADS * MOST_ROWS * MOST_DIM];

static qkv_status attention_back(const qkv_attention_params *params, const qkv_tensors *t,
                                 const qkv_exec *exec) {
    const qkv_gradients g = gradients_of(params, t);
    qkv_tensors own = *t;
    own.out = qkv_tensor_bhsd(forward_out, HEADS, params->q_len, params->head_dim);
    own.lse = qkv_tensor_bhsd(lse, HEADS, params->q_len, 1);
    const qkv_status status = qkv_attention(params, &own, exec);
    return status ? status : qkv_attention_backward(params, &own, &g, exec);
}

typedef qkv_status plan_fn(qkv_plan *plan, const qkv_attention_params *params,
                           const qkv_context *context);
typedef qkv_status call_fn(const qkv_attention_params *params, const qkv_tensors *tensors,
                           const qkv_exec *exec);
static const struct {
    const char *name;
    plan_fn *plan;
    call_fn *call;
} stages[] = {
    {"scores", qkv_scores_plan, qkv_scores},
    {"mix", qkv_mix_plan, qkv_mix},
    {"attention", qkv_attention_plan, qkv_attention},
    {"scores_backward", qkv_scores_backward_plan, scores_back},
    {"mix_backward", qkv_mix_backward_plan, mix_back},
    {"attention_backward", qkv_attention_backward_plan, attention_back},
};

static void fill(float *data, int count, unsigned seed) {
    for (int i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (float)(seed >> 8) * 0x1p-23f - 1.0f;
    }
}

static void call(int stage, const qkv_attention_params *params, const qkv_context *context,
                 const float *keys, const float *values, int which) {
    qkv_tensors t;
    qkv_plan plan, forward;
    qkv_exec exec;
    qkv_tensors_init(&t);
    t.q = qkv_tensor_bhsd(q, HEADS, params->q_len, params->head_dim);
    t.k = qkv_tensor_bhsd((float *)(uintptr_t)keys, 1, KEYS, params->head_dim);
    t.v = qkv_tensor_bhsd((float *)(uintptr_t)values, 1, KEYS, params->head_dim);
    t.scores = qkv_tensor_bhsd(scores[which], HEADS, params->q_len, KEYS);
    t.weights = qkv_tensor_bhsd(weights, HEADS, params->q_len, KEYS);
    t.out = qkv_tensor_bhsd(out[which], HEADS, params->q_len, params->head_dim);
    ck_assert_int_eq(stages[stage].plan(&plan, params, context), QKV_OK);
    ck_assert_int_eq(qkv_attention_plan(&forward, params, context), QKV_OK);
    qkv_exec_init(&exec);
    exec.context = context;
    exec.workspace_size = qkv_plan_workspace(&plan, 1) + qkv_plan_workspace(&forward, 1);
    exec.workspace = aligned_alloc(QKV_ALIGNMENT, exec.workspace_size);
    ck_assert_ptr_nonnull(exec.workspace);
    qkv_status status = stages[stage].call(params, &t, &exec);
    ck_assert_msg(status == QKV_OK, "%s: %s", stages[stage].name, qkv_status_string(status));
    free(exec.workspace);
}

/* The rows from `first` on, behind a guard page; the address of row 0 would lie before it. */
static const float *behind_guard(struct guard *guard, const float *rows, int first, int dim) {
    const size_t size = (size_t)((KEYS - first) * dim) * sizeof(float);
    *guard = guard_alloc(size, 64, GUARD_BEGIN, 0);
    memcpy(guard->data, rows + first * dim, size);
    return (const float *)((uintptr_t)guard->data - (size_t)(first * dim) * sizeof(float));
}

static void check(int stage, const qkv_context *context, int q_len, int dim) {
    struct guard key_guard, value_guard;
    qkv_attention_params params;
    qkv_attention_params_init(&params);
    params.batch = params.kv_heads = 1;
    params.q_heads = HEADS;
    params.q_len = q_len;
    params.kv_len = KEYS;
    params.head_dim = dim;
    params.flags = QKV_FLAG_CAUSAL;
    params.window_left = WINDOW;
    const int first = KEYS - q_len - WINDOW;
    ck_assert_int_ne(first % 16, 0);

    memset(scores, 0, sizeof scores);
    memset(out, 0, sizeof out);
    memset(d_keys, 0, sizeof d_keys);
    call(stage, &params, context, k, v, 0);
    call(stage, &params, context, behind_guard(&key_guard, k, first, dim),
         behind_guard(&value_guard, v, first, dim), 1);
    ck_assert_mem_eq(scores[0], scores[1], sizeof scores[0]);
    ck_assert_mem_eq(out[0], out[1], sizeof out[0]);
    ck_assert_mem_eq(d_keys[0], d_keys[1], sizeof d_keys[0]);
    guard_free(&key_guard);
    guard_free(&value_guard);
}

START_TEST(keys_that_nobody_sees_are_not_read) {
    fill(q, HEADS * MOST_ROWS * MOST_DIM, 1);
    fill(k, KEYS * MOST_DIM, 2);
    fill(v, KEYS * MOST_DIM, 3);
    fill(weights, HEADS * MOST_ROWS * KEYS, 4);
    fill(d_out, HEADS * MOST_ROWS * MOST_DIM, 5);
    for (size_t stage = 0; stage < sizeof stages / sizeof *stages; stage++)
        for (int dim = 13; dim <= MOST_DIM; dim += 3) {
            check((int)stage, &rooms_get(_i)->context, 5, dim);
            check((int)stage, &rooms_get(_i)->context, MOST_ROWS, dim);
        }
}
END_TEST

static Suite *make(void) {
    Suite *suite = suite_create("unseen");
    TCase *test = tcase_create("unseen keys");

    suite_add_tcase(suite, test);
    tcase_add_room_test(test, keys_that_nobody_sees_are_not_read);
    unseen_add_cache_test(test);
    return suite;
}

int main(void) {
    return suite_main(make);
}
