/* SPDX-License-Identifier: Apache-2.0 */
/* The fixture of the table test: valid arguments, edits, and the comparison byte for byte. */
#include "arguments.h"

#include "support/case.h"
#include "support/stages.h"

#include <string.h>

struct fixture f;

static struct fixture remembered;
static int row; /* of the table that is being gone through */

enum { UNTOUCHED = 0xcb };

static void fill(void *array, size_t bytes, float scale) {
    float *element = array;
    for (size_t i = 0; i < bytes / sizeof *element; i++)
        element[i] = scale * (float)((int)(i % 13) - 6);
}

static void fill_memory(void) {
    memset(&f, UNTOUCHED, sizeof f);
    fill(f.q, sizeof f.q, 0.25f);
    fill(f.k, sizeof f.k, 0.5f);
    fill(f.v, sizeof f.v, 1.0f);
    fill(f.scores, sizeof f.scores, 0.5f);
    fill(f.weights, sizeof f.weights, 0.0625f);
    fill(f.bias, sizeof f.bias, 0.125f);
    for (size_t i = 0; i < sizeof f.lse / sizeof(float); i++)
        ((float *)f.lse)[i] = NAN; /* no LSE of the backward stages, and none of another call */
    fill(f.d_scores, sizeof f.d_scores, 0.25f);
    fill(f.d_weights, sizeof f.d_weights, 0.25f);
    fill(f.d_out, sizeof f.d_out, 0.5f);
    memset(f.mask, 1, sizeof f.mask);
    fill(f.slopes, sizeof f.slopes, 0.25f);
    fill(f.sinks, sizeof f.sinks, 0.5f);
    fill(f.rows, sizeof f.rows, 0.5f);
    fill(f.x, sizeof f.x, 0.5f);
    fill(f.wq, sizeof f.wq, 0.25f);
    fill(f.wk, sizeof f.wk, 0.25f);
    fill(f.wv, sizeof f.wv, 0.25f);
    fill(f.bq, sizeof f.bq, 1.0f);
    fill(f.bk, sizeof f.bk, 1.0f);
    fill(f.bv, sizeof f.bv, 1.0f);
    fill(f.prediction, sizeof f.prediction, 0.5f);
    fill(f.target, sizeof f.target, 0.25f);
    fill(f.descending, sizeof f.descending, 0.5f);
    fill(f.gradient, sizeof f.gradient, 0.25f);
    fill(f.mean, sizeof f.mean, 0.125f);
    memset(f.square, 0, sizeof f.square);
    for (int i = 0; i < LOSS_ROWS; i++)
        f.labels[i] = i - 1;
    for (int b = 0; b < BATCH; b++) {
        f.q_lens[b] = Q_LEN - b;
        f.kv_lens[b] = KV_LEN - b;
    }
    for (int b = 0; b <= BATCH; b++) {
        f.cu_q[b] = b * (Q_LEN - 1);
        f.cu_kv[b] = b * (KV_LEN - 1);
    }
    memset(&f.zeros, 0, sizeof f.zeros);
    memset(&f.zero_plan, 0, sizeof f.zero_plan);
}

/* Rows of a batch lie end to end, so that the same tensors serve ragged sequences. */
static void describe_attention(void) {
    qkv_attention_params *params = &f.params.now;
    qkv_tensors *tensors = &f.tensors.now;

    memset(&f.params, 0, sizeof f.params);
    qkv_attention_params_init(params);
    params->batch = BATCH;
    params->q_heads = Q_HEADS;
    params->kv_heads = KV_HEADS;
    params->q_len = Q_LEN;
    params->kv_len = KV_LEN;
    params->head_dim = DIM;
    params->v_dim = V_DIM;
    params->alibi_slopes = f.slopes;
    params->sinks = f.sinks;
    params->bias = qkv_tensor_bhsd(f.bias, Q_HEADS, Q_LEN, KV_LEN);
    params->mask = qkv_tensor_bhsd(f.mask, Q_HEADS, Q_LEN, KV_LEN);
    params->mask.dtype = QKV_BOOL;
    memset(&f.tensors, 0, sizeof f.tensors);
    qkv_tensors_init(tensors);
    tensors->q = qkv_tensor_bshd(f.q, Q_HEADS, Q_LEN, DIM);
    tensors->k = qkv_tensor_bshd(f.k, KV_HEADS, KV_LEN, DIM);
    tensors->v = qkv_tensor_bshd(f.v, KV_HEADS, KV_LEN, V_DIM);
    tensors->scores = qkv_tensor_bshd(f.scores, Q_HEADS, Q_LEN, KV_LEN);
    tensors->weights = qkv_tensor_bshd(f.weights, Q_HEADS, Q_LEN, KV_LEN);
    tensors->out = qkv_tensor_bshd(f.out, Q_HEADS, Q_LEN, V_DIM);
    tensors->lse = qkv_tensor_bshd(f.lse, Q_HEADS, Q_LEN, 1);
}

static void describe_gradients(void) {
    qkv_gradients *gradients = &f.gradients.now;

    memset(&f.gradients, 0, sizeof f.gradients);
    qkv_gradients_init(gradients);
    gradients->q = qkv_tensor_bshd(f.d_q, Q_HEADS, Q_LEN, DIM);
    gradients->k = qkv_tensor_bshd(f.d_k, KV_HEADS, KV_LEN, DIM);
    gradients->v = qkv_tensor_bshd(f.d_v, KV_HEADS, KV_LEN, V_DIM);
    gradients->scores = qkv_tensor_bshd(f.d_scores, Q_HEADS, Q_LEN, KV_LEN);
    gradients->weights = qkv_tensor_bshd(f.d_weights, Q_HEADS, Q_LEN, KV_LEN);
    gradients->out = qkv_tensor_bshd(f.d_out, Q_HEADS, Q_LEN, V_DIM);
    gradients->bias = qkv_tensor_bshd(f.d_bias, Q_HEADS, Q_LEN, KV_LEN);
    gradients->sinks = qkv_tensor_bshd(f.d_sinks, 1, 1, Q_HEADS);
}

static void describe_project(void) {
    qkv_project_params *params = &f.project_params.now;
    qkv_project_tensors *tensors = &f.project_tensors.now;

    memset(&f.project_params, 0, sizeof f.project_params);
    qkv_project_params_init(params);
    params->batch = BATCH;
    params->tokens = TOKENS;
    params->d_model = D_MODEL;
    params->q_heads = Q_HEADS;
    params->kv_heads = KV_HEADS;
    params->head_dim = DIM;
    params->v_dim = V_DIM;
    params->layout = QKV_W_IN_OUT;
    memset(&f.project_tensors, 0, sizeof f.project_tensors);
    qkv_project_tensors_init(tensors);
    tensors->x = qkv_tensor_bhsd(f.x, 1, TOKENS, D_MODEL);
    tensors->wq = qkv_tensor_bhsd(f.wq, 1, D_MODEL, Q_WIDTH);
    tensors->wk = qkv_tensor_bhsd(f.wk, 1, D_MODEL, K_WIDTH);
    tensors->wv = qkv_tensor_bhsd(f.wv, 1, D_MODEL, V_WIDTH);
    tensors->bq = qkv_tensor_bhsd(f.bq, 1, 1, Q_WIDTH);
    tensors->bk = qkv_tensor_bhsd(f.bk, 1, 1, K_WIDTH);
    tensors->bv = qkv_tensor_bhsd(f.bv, 1, 1, V_WIDTH);
    tensors->q = qkv_tensor_bhsd(f.pq, Q_HEADS, TOKENS, DIM);
    tensors->k = qkv_tensor_bhsd(f.pk, KV_HEADS, TOKENS, DIM);
    tensors->v = qkv_tensor_bhsd(f.pv, KV_HEADS, TOKENS, V_DIM);
    f.w = tensors->wq;
}

static void describe_loss(void) {
    qkv_loss_params *params = &f.loss_params.now;
    qkv_loss_tensors *tensors = &f.loss_tensors.now;

    memset(&f.loss_params, 0, sizeof f.loss_params);
    qkv_loss_params_init(params);
    params->rows = LOSS_ROWS;
    params->columns = LOSS_COLUMNS;
    params->kind = QKV_LOSS_CROSS_ENTROPY;
    memset(&f.loss_tensors, 0, sizeof f.loss_tensors);
    qkv_loss_tensors_init(tensors);
    tensors->prediction = qkv_tensor_bhsd(f.prediction, 1, LOSS_ROWS, LOSS_COLUMNS);
    tensors->target = qkv_tensor_bhsd(f.target, 1, LOSS_ROWS, LOSS_COLUMNS);
    tensors->gradient = qkv_tensor_bhsd(f.slope, 1, LOSS_ROWS, LOSS_COLUMNS);
    tensors->labels = f.labels;
    tensors->loss = &f.loss;
}

static void describe_descent(void) {
    qkv_descent_arrays *arrays = &f.descent_arrays.now;

    memset(&f.descent_params, 0, sizeof f.descent_params);
    qkv_descent_params_init(&f.descent_params.now);
    f.descent_params.now.count = NUMBERS;
    f.descent_params.now.rule = QKV_DESCENT_ADAMW;
    memset(&f.descent_arrays, 0, sizeof f.descent_arrays);
    qkv_descent_arrays_init(arrays);
    arrays->weights = f.descending;
    arrays->gradient = f.gradient;
    arrays->mean = f.mean;
    arrays->square = f.square;
    f.sum = 1.0;
}

static void describe_project_gradients(void) {
    qkv_project_gradients *gradients = &f.project_gradients.now;

    memset(&f.project_gradients, 0, sizeof f.project_gradients);
    qkv_project_gradients_init(gradients);
    gradients->q = qkv_tensor_bhsd(f.pq, Q_HEADS, TOKENS, DIM);
    gradients->k = qkv_tensor_bhsd(f.pk, KV_HEADS, TOKENS, DIM);
    gradients->v = qkv_tensor_bhsd(f.pv, KV_HEADS, TOKENS, V_DIM);
    gradients->x = qkv_tensor_bhsd(f.dx, 1, TOKENS, D_MODEL);
    gradients->wq = qkv_tensor_bhsd(f.dwq, 1, D_MODEL, Q_WIDTH);
    gradients->wk = qkv_tensor_bhsd(f.dwk, 1, D_MODEL, K_WIDTH);
    gradients->wv = qkv_tensor_bhsd(f.dwv, 1, D_MODEL, V_WIDTH);
    gradients->bq = qkv_tensor_bhsd(f.dbq, 1, 1, Q_WIDTH);
    gradients->bk = qkv_tensor_bhsd(f.dbk, 1, 1, K_WIDTH);
    gradients->bv = qkv_tensor_bhsd(f.dbv, 1, 1, V_WIDTH);
}

static void describe_calls(void) {
    f.params_arg = &f.params.now;
    f.project_params_arg = &f.project_params.now;
    f.tensors_arg = &f.tensors.now;
    f.project_tensors_arg = &f.project_tensors.now;
    f.loss_params_arg = &f.loss_params.now;
    f.loss_tensors_arg = &f.loss_tensors.now;
    f.descent_params_arg = &f.descent_params.now;
    f.descent_arrays_arg = &f.descent_arrays.now;
    f.sum_arg = &f.sum;
    f.summed_arg = f.gradient;
    f.summed = NUMBERS;
    f.gradients_arg = &f.gradients.now;
    f.project_gradients_arg = &f.project_gradients.now;
    f.exec_arg = &f.exec.now;
    f.context_arg = NULL;
    f.config_arg = &f.config.now;
    f.made_arg = &f.made;
    f.plan_arg = &f.plan;
    f.run_arg = &f.ready;
    f.workspace_arg = &f.workspace;
    f.w_arg = &f.w;
    f.packed_arg = f.packed[QKV_WHICH_Q];
    f.packed_size = sizeof f.packed[QKV_WHICH_Q];
    f.which = QKV_WHICH_Q;
    memset(&f.exec, 0, sizeof f.exec);
    qkv_exec_init(&f.exec.now);
    f.exec.now.workspace = f.shared;
    f.exec.now.workspace_size = sizeof f.shared;
    memset(&f.config, 0, sizeof f.config);
    qkv_context_config_init(&f.config.now);
    f.workspace = (qkv_workspace){f.shared, sizeof f.shared, f.worker, sizeof f.worker};
}

void fixture_reset(void) {
    fill_memory();
    describe_attention();
    describe_gradients();
    describe_project();
    describe_loss();
    describe_descent();
    describe_project_gradients();
    describe_calls();
    fixture_describe_merge();
    fixture_describe_cache();
}

static void apply(const struct edit *e) {
    uintptr_t pointer;
    int32_t number = (int32_t)e->number;

    switch (e->kind) {
    case EDIT_NONE:
        break;
    case EDIT_INT64:
        memcpy(e->at, &e->number, sizeof e->number);
        break;
    case EDIT_INT32:
        memcpy(e->at, &number, sizeof number);
        break;
    case EDIT_FLOAT:
        memcpy(e->at, &e->value, sizeof e->value);
        break;
    case EDIT_DOUBLE:
        memcpy(e->at, &(double){(double)e->value}, sizeof(double));
        break;
    case EDIT_POINTER:
        memcpy(e->at, &e->pointer, sizeof e->pointer);
        break;
    case EDIT_MOVE:
        memcpy(&pointer, e->at, sizeof pointer);
        pointer += (uintptr_t)e->number;
        memcpy(e->at, &pointer, sizeof pointer);
        break;
    case EDIT_BYTE:
        *(unsigned char *)e->at = (unsigned char)e->number;
        break;
    }
}

void fixture_edit(const struct fault_case *c, void (*prepare)(int stage), int stage) {
    fixture_reset();
    if (prepare != NULL)
        prepare(stage);
    for (int i = 0; i < EDITS; i++)
        apply(&c->edits[i]);
    fixture_remember();
}

void fixture_remember(void) {
    memcpy(&remembered, &f, sizeof f);
}

void fixture_check_untouched(const char *call, int stage) {
    const unsigned char *now = (const unsigned char *)&f;
    const unsigned char *then = (const unsigned char *)&remembered;
    size_t at = 0;

    if (memcmp(now, then, sizeof f) == 0)
        return;
    while (now[at] == then[at])
        at++;
    ck_abort_msg("row %d: %s of %s wrote byte %zu of the fixture", row, call, qkv_stage_name(stage),
                 at);
}

void fixture_check(const struct fault_case *c, qkv_status status, const char *call, int stage) {
    qkv_arg arg = qkv_status_arg(status);
    qkv_fault fault = qkv_status_fault(status);

    if (arg != c->arg || fault != c->fault)
        ck_abort_msg("row %d: %s of %s: got (%d, %d) \"%s\", not (%d, %d) \"%s\"", row, call,
                     qkv_stage_name(stage), (int)arg, (int)fault, qkv_status_string(status),
                     (int)c->arg, (int)c->fault,
                     qkv_status_string((qkv_status)c->arg << 8 | (qkv_status)c->fault));
    if (c->fault != QKV_FAULT_NONE)
        fixture_check_untouched(call, stage);
    ck_assert_int_eq(status == QKV_OK, c->fault == QKV_FAULT_NONE);
}

typedef qkv_status plan_fn(qkv_plan *, const qkv_attention_params *, const qkv_context *);
typedef qkv_status plain_fn(const qkv_attention_params *, const qkv_tensors *, const qkv_exec *);

static const struct {
    plan_fn *plan;
    plain_fn *plain;
} functions[FORWARD_STAGES] = {
    [QKV_STAGE_SCORES] = {qkv_scores_plan, qkv_scores},
    [QKV_STAGE_SOFTMAX] = {qkv_softmax_plan, qkv_softmax},
    [QKV_STAGE_MIX] = {qkv_mix_plan, qkv_mix},
    [QKV_STAGE_ATTENTION] = {qkv_attention_plan, qkv_attention},
};

typedef qkv_status gradient_fn(const qkv_attention_params *, const qkv_tensors *,
                               const qkv_gradients *, const qkv_exec *);

static const struct {
    plan_fn *plan;
    gradient_fn *plain;
} backward[QKV_STAGE_COUNT] = {
    [QKV_STAGE_SCORES_BACKWARD] = {qkv_scores_backward_plan, qkv_scores_backward},
    [QKV_STAGE_SOFTMAX_BACKWARD] = {qkv_softmax_backward_plan, qkv_softmax_backward},
    [QKV_STAGE_MIX_BACKWARD] = {qkv_mix_backward_plan, qkv_mix_backward},
    [QKV_STAGE_ATTENTION_BACKWARD] = {qkv_attention_backward_plan, qkv_attention_backward},
};

qkv_status call_plan(int stage) {
    if (stage_is_backward(stage))
        return backward[stage].plan(f.plan_arg, f.params_arg, f.context_arg);
    if (stage == QKV_STAGE_PROJECT)
        return qkv_project_plan(f.plan_arg, f.project_params_arg, f.context_arg);
    if (stage == QKV_STAGE_LOSS)
        return qkv_loss_plan(f.plan_arg, f.loss_params_arg, f.context_arg);
    if (stage == QKV_STAGE_DESCENT)
        return qkv_descent_plan(f.plan_arg, f.descent_params_arg, f.context_arg);
    if (stage == QKV_STAGE_PROJECT_BACKWARD)
        return qkv_project_backward_plan(f.plan_arg, f.project_params_arg, f.context_arg);
    return functions[stage].plan(f.plan_arg, f.params_arg, f.context_arg);
}

qkv_status call_plain(int stage) {
    if (stage_is_backward(stage))
        return backward[stage].plain(f.params_arg, f.tensors_arg, f.gradients_arg, f.exec_arg);
    if (stage == QKV_STAGE_PROJECT)
        return qkv_project(f.project_params_arg, f.project_tensors_arg, f.exec_arg);
    if (stage == QKV_STAGE_LOSS)
        return qkv_loss(f.loss_params_arg, f.loss_tensors_arg, f.exec_arg);
    if (stage == QKV_STAGE_DESCENT)
        return qkv_descent(f.descent_params_arg, f.descent_arrays_arg, f.exec_arg);
    if (stage == QKV_STAGE_PROJECT_BACKWARD)
        return qkv_project_backward(f.project_params_arg, f.project_tensors_arg,
                                    f.project_gradients_arg, f.exec_arg);
    return functions[stage].plain(f.params_arg, f.tensors_arg, f.exec_arg);
}

qkv_status call_run(int stage) {
    if (stage_is_backward(stage))
        return qkv_backward_run(f.run_arg, f.tensors_arg, f.gradients_arg, f.phase, f.begin, f.end,
                                f.workspace_arg);
    if (stage == QKV_STAGE_PROJECT)
        return qkv_project_run(f.run_arg, f.project_tensors_arg, f.phase, f.begin, f.end,
                               f.workspace_arg);
    if (stage == QKV_STAGE_LOSS)
        return qkv_loss_run(f.run_arg, f.loss_tensors_arg, f.phase, f.begin, f.end,
                            f.workspace_arg);
    if (stage == QKV_STAGE_DESCENT)
        return qkv_descent_run(f.run_arg, f.descent_arrays_arg, f.phase, f.begin, f.end,
                               f.workspace_arg);
    if (stage == QKV_STAGE_PROJECT_BACKWARD)
        return qkv_project_backward_run(f.run_arg, f.project_tensors_arg, f.project_gradients_arg,
                                        f.phase, f.begin, f.end, f.workspace_arg);
    return qkv_run(f.run_arg, f.tensors_arg, f.phase, f.begin, f.end, f.workspace_arg);
}

void prepare_ready(int stage) {
    int other = stage == QKV_STAGE_PROJECT ? QKV_STAGE_ATTENTION : QKV_STAGE_PROJECT;

    f.plan_arg = &f.other;
    ck_assert_int_eq(call_plan(other), QKV_OK);
    f.plan_arg = &f.ready;
    ck_assert_int_eq(call_plan(stage), QKV_OK);
    fixture_use_ready();
}

void fixture_use_ready(void) {
    f.plan_arg = &f.plan;
    ck_assert_uint_le(f.ready.workspace_shared, sizeof f.shared);
    ck_assert_uint_le(f.ready.workspace_worker, sizeof f.worker);
    f.workspace.shared_size = f.ready.workspace_shared;
    f.workspace.worker_size = f.ready.workspace_worker;
    f.exec.now.workspace_size = qkv_plan_workspace(&f.ready, 1);
    f.phase = 0;
    f.begin = 0;
    f.end = f.ready.parts[0];
}

struct fault_case twin_of(const struct fault_case *c) {
    struct fault_case twin = *c;

    twin.stages = 0;
    for (int stage = QKV_STAGE_SCORES; stage <= QKV_STAGE_ATTENTION; stage++)
        if (c->stages >> stage & 1)
            twin.stages |= 1u << (stage - QKV_STAGE_SCORES + QKV_STAGE_SCORES_BACKWARD);
    return twin;
}

void run_case(const struct fault_case *c, void (*prepare)(int stage), const char *name,
              argument_call *call) {
    for (int stage = 0; stage < QKV_STAGE_COUNT; stage++) {
        if ((c->stages >> stage & 1) == 0)
            continue;
        fixture_edit(c, prepare, stage);
        fixture_check(c, call(stage), name, stage);
    }
}

void check_rows(const struct fault_case *table, int count, int chunk,
                void (*check)(const struct fault_case *c)) {
    for (row = chunk * ROWS; row < count && row < (chunk + 1) * ROWS; row++)
        check(&table[row]);
}
