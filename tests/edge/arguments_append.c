/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters, rows and pages of append, those of rotate, and rotary embedding in both. */
#include "arguments_cache.h"

#include <string.h>

#define APPEND append_params.now
#define ROTATE rotate_params.now
#define TURNED rotate_tensors.now
#define TENSORS tensors.now
#define IN_BOTH (IN_APPEND | IN_ROTATE)

/* Five tokens each for sequence 2, which has none, and sequence 1. */
static void describe_append(void) {
    qkv_append_params *params = &f.APPEND;

    memset(&f.append_params, 0, sizeof f.append_params);
    qkv_append_params_init(params);
    params->batch = BATCH;
    params->tokens = KV_LEN;
    params->sequences = f.appended;
    f.appended[0] = 2;
    f.appended[1] = 1;
    f.append_params_arg = params;
}

static void describe_rotate(void) {
    qkv_rotate_params *params = &f.ROTATE;

    memset(&f.rotate_params, 0, sizeof f.rotate_params);
    qkv_rotate_params_init(params);
    params->batch = BATCH;
    params->heads = Q_HEADS;
    params->tokens = Q_LEN;
    params->head_dim = DIM;
    params->first = f.places;
    params->rope.pairs = QKV_ROPE_HALF;
    params->rope.table_rows = Q_LEN;
    memset(&f.rotate_tensors, 0, sizeof f.rotate_tensors);
    qkv_tensors_init(&f.TURNED);
    f.TURNED.q = qkv_tensor_bshd(f.q, Q_HEADS, Q_LEN, DIM);
    f.TURNED.out = qkv_tensor_bshd(f.d_q, Q_HEADS, Q_LEN, DIM);
    f.rotate_params_arg = params;
    f.rotate_tensors_arg = &f.TURNED;
}

void fixture_describe_append(void) {
    describe_append();
    describe_rotate();
    memset(f.places, 0, sizeof f.places);
    memset(f.positions, 0, sizeof f.positions);
    memset(f.cosines, 0, sizeof f.cosines);
    memset(f.sines, 0, sizeof f.sines);
    f.cos_arg = f.table_cos[0];
    f.sin_arg = f.table_sin[0];
    f.table_first = 3;
    f.table_rows = Q_LEN;
    f.table_dims = DIM;
    f.table_theta = 10000.0;
}

/* ---- The calls ---- */

qkv_status plan_append(int stage) {
    (void)stage;
    return qkv_append_plan(f.plan_arg, f.append_params_arg, f.cache_arg, f.context_arg);
}

qkv_status plain_append(int stage) {
    (void)stage;
    return qkv_append(f.append_params_arg, f.cache_arg, f.tensors_arg, f.exec_arg);
}

/* Of either stage. */
static qkv_status call_its_plan(int stage) {
    if (stage == QKV_STAGE_APPEND)
        return plan_append(stage);
    return qkv_rotate_plan(f.plan_arg, f.rotate_params_arg, f.context_arg);
}

static qkv_status call_it(int stage) {
    if (stage == QKV_STAGE_APPEND)
        return plain_append(stage);
    return qkv_rotate(f.rotate_params_arg, f.rotate_tensors_arg, f.exec_arg);
}

static qkv_status call_its_run(int stage) {
    if (stage == QKV_STAGE_APPEND)
        return qkv_append_run(f.run_arg, f.tensors_arg, f.phase, f.begin, f.end, f.workspace_arg);
    return qkv_rotate_run(f.run_arg, f.rotate_tensors_arg, f.phase, f.begin, f.end,
                          f.workspace_arg);
}

static qkv_status call_tables(int stage) {
    (void)stage;
    return qkv_rope_tables(f.cos_arg, f.sin_arg, f.table_first, f.table_rows, f.table_dims,
                           f.table_theta);
}

/* With rotary embedding, whose angles take a worker's memory. */
static void prepare_turning(int stage) {
    (void)stage;
    f.APPEND.rope.pairs = QKV_ROPE_INTERLEAVED;
    f.APPEND.rope.table_rows = KV_LEN * 4;
}

static void prepare_its_run(int stage) {
    prepare_turning(stage);
    f.plan_arg = &f.other;
    ck_assert_int_eq(call_plan(QKV_STAGE_PROJECT), QKV_OK);
    f.plan_arg = &f.ready;
    ck_assert_int_eq(call_its_plan(stage), QKV_OK);
    fixture_use_ready();
}

/* ---- Parameters ---- */

/* What both have, by the name of their parameters. */
#define PARAMS_FAULTS(stage, params)                                                            \
    FAULT(stage, PARAMS, NULL, POINTER(params##_arg, NULL)),                                    \
        FAULT(stage, PARAMS, MISALIGNED, MOVE(params##_arg, 4)),                                \
        FAULT(stage, PARAMS, SIZE, INT64(params.now.size, 0)),                                  \
        FAULT(stage, PARAMS, SIZE, INT64(params.now.size, sizeof f.params.now - 8)),            \
        FAULT(stage, PARAMS, FUTURE, INT64(params.now.size, sizeof f.params),                   \
              INT64(params.tail[0], 1)),                                                        \
        FINE(stage, INT64(params.now.size, sizeof f.params)),                                   \
        FAULT(stage, FLAGS, FLAG, INT64(params.now.flags, 1)),                                  \
        FAULT(stage, BATCH, ZERO, INT64(params.now.batch, 0)),                                  \
        FAULT(stage, BATCH, NEGATIVE, INT64(params.now.batch, -1)),                             \
        FAULT(stage, TOKENS, NEGATIVE, INT64(params.now.tokens, -1)),                           \
        FINE(stage, INT64(params.now.tokens, 0)),                                               \
        FAULT(stage, LENS, MISALIGNED, POINTER(params.now.lens, f.kv_lens),                     \
              MOVE(params.now.lens, 2)),                                                        \
        FAULT(stage, LENS, LENGTH, POINTER(params.now.lens, f.kv_lens), INT32(kv_lens[1], -1)), \
        FAULT(stage, LENS, LENGTH, POINTER(params.now.lens, f.kv_lens), INT32(kv_lens[0], 99)), \
        FINE(stage, POINTER(params.now.lens, f.kv_lens), INT32(kv_lens[0], 0)),                 \
        FAULT(stage, CU, MISALIGNED, POINTER(params.now.cu, f.cu_kv), MOVE(params.now.cu, 1)),  \
        FAULT(stage, CU, NEGATIVE, POINTER(params.now.cu, f.cu_kv), INT32(cu_kv[0], -1)),       \
        FAULT(stage, CU, ORDER, POINTER(params.now.cu, f.cu_kv), INT32(cu_kv[2], 3)),           \
        FAULT(stage, CU, LENGTH, POINTER(params.now.cu, f.cu_kv), INT32(cu_kv[2], 99)),         \
        FINE(stage, POINTER(params.now.cu, f.cu_kv)),                                           \
        FAULT(stage, LENS, CONFLICT, POINTER(params.now.lens, f.kv_lens),                       \
              POINTER(params.now.cu, f.cu_kv))

#define ROPE_FAULTS(stage, params, beyond)                                                         \
    FAULT(stage, ROPE_PAIRS, RANGE, INT32(params.rope.pairs, -1)),                                 \
        FAULT(stage, ROPE_PAIRS, RANGE, INT32(params.rope.pairs, QKV_ROPE_COUNT)),                 \
        FAULT(stage, ROPE_PAIRS, FUTURE, INT32(params.rope.reserved, 1)),                          \
        FAULT(stage, ROPE_DIMS, NEGATIVE, INT64(params.rope.dims, -2)),                            \
        FAULT(stage, ROPE_DIMS, RANGE, INT64(params.rope.dims, 3)),                                \
        FAULT(stage, ROPE_DIMS, RANGE, INT64(params.rope.dims, DIM + 2)),                          \
        FAULT(stage, ROPE_DIMS, RANGE, INT64(params.rope.dims, INT64_MAX)),                        \
        FINE(stage, INT64(params.rope.dims, 2)),                                                   \
        FAULT(stage, ROPE_THETA, VALUE, DOUBLE(params.rope.theta, NAN)),                           \
        FAULT(stage, ROPE_THETA, VALUE, DOUBLE(params.rope.theta, INFINITY)),                      \
        FAULT(stage, ROPE_THETA, RANGE, DOUBLE(params.rope.theta, 0.5f)),                          \
        FAULT(stage, ROPE_THETA, RANGE, DOUBLE(params.rope.theta, -1e4f)),                         \
        FINE(stage, DOUBLE(params.rope.theta, 1.0f)),                                              \
        FAULT(stage, ROPE_POSITIONS, MISALIGNED, POINTER(params.rope.positions, f.positions),      \
              MOVE(params.rope.positions, 2)),                                                     \
        FAULT(stage, ROPE_POSITIONS, NEGATIVE, POINTER(params.rope.positions, f.positions),        \
              INT32(positions[0][4], -1)),                                                         \
        FINE(stage, POINTER(params.rope.positions, f.positions),                                   \
             INT32(positions[0][4], INT32_MAX)),                                                   \
        FAULT(stage, ROPE_COS, NULL, POINTER(params.rope.sin, f.sines)),                           \
        FAULT(stage, ROPE_SIN, NULL, POINTER(params.rope.cos, f.cosines)),                         \
        FAULT(stage, ROPE_COS, MISALIGNED, TABLES(params), MOVE(params.rope.cos, 2)),              \
        FAULT(stage, ROPE_SIN, MISALIGNED, TABLES(params), MOVE(params.rope.sin, 1)),              \
        FAULT(stage, ROPE_ROWS, NEGATIVE, TABLES(params), INT64(params.rope.table_rows, -1)),      \
        FAULT(stage, ROPE_ROWS, OVERFLOW, TABLES(params),                                          \
              INT64(params.rope.table_rows, INT64_MAX)),                                           \
        FAULT(stage, ROPE_ROWS, TOO_SMALL, TABLES(params), INT64(params.rope.table_rows, beyond)), \
        FINE(stage, TABLES(params), INT64(params.rope.table_rows, (beyond) + 1)),                  \
        FAULT(stage, ROPE_POSITIONS, RANGE, TABLES(params),                                        \
              POINTER(params.rope.positions, f.positions), INT64(params.rope.table_rows, 2),       \
              INT32(positions[0][3], 2)),                                                          \
        FINE(stage, TABLES(params), DOUBLE(params.rope.theta, NAN))
#define TABLES(params) POINTER(params.rope.cos, f.cosines), POINTER(params.rope.sin, f.sines)

static const struct fault_case append_params_faults[] = {
    PARAMS_FAULTS(IN_APPEND, append_params),
    /* sequence 1 has five tokens, so that its last new one is the tenth */
    ROPE_FAULTS(IN_APPEND, APPEND, 9),
    FAULT(IN_APPEND, BATCH, RANGE, INT64(APPEND.batch, CACHE_SEQUENCES + 1),
          POINTER(APPEND.sequences, NULL)),
    FAULT(IN_APPEND, SEQUENCES, MISALIGNED, MOVE(APPEND.sequences, 2)),
    FAULT(IN_APPEND, SEQUENCES, RANGE, INT32(appended[1], -1)),
    FAULT(IN_APPEND, SEQUENCES, RANGE, INT32(appended[1], CACHE_SEQUENCES)),
    FAULT(IN_APPEND, SEQUENCES, RANGE, INT32(appended[0], INT32_MAX)),
    FAULT(IN_APPEND, SEQUENCES, RANGE, INT32(appended[0], INT32_MIN)),
    FAULT(IN_APPEND, SEQUENCES, CONFLICT, INT32(appended[0], 1)),
    FAULT(IN_APPEND, LENGTHS, LENGTH, INT32(lengths[1], -1)),
    FAULT(IN_APPEND, LENGTHS, LENGTH, INT32(lengths[1], 33)),
    FAULT(IN_APPEND, CACHE, FULL, INT32(lengths[1], 28)),
    FAULT(IN_APPEND, CACHE, FULL, INT32(lengths[1], 32), INT32(holders[0], 1)),
    FAULT(IN_APPEND, TABLE, RANGE, INT32(table[1][0], -1)),
    FAULT(IN_APPEND, TABLE, RANGE, INT32(table[2][0], CACHE_PAGES)),
    FAULT(IN_APPEND, TABLE, RANGE, INT32(table[2][0], INT32_MIN)),
    FAULT(IN_APPEND, TABLE, SHARED, INT32(table[2][0], 5)),
    FAULT(IN_APPEND, TABLE, SHARED, INT32(holders[1], 2)), /* half full, and not its alone */
    FAULT(IN_APPEND, TABLE, SHARED, INT32(lengths[1], 0), INT32(holders[1], 0),
          INT32(table[2][0], 1)), /* two sequences of the call begin it */
    FAULT(IN_APPEND, TABLE, SHARED, INT32(lengths[1], 14), INT32(table[1][1], 3)),
    FINE(IN_APPEND, INT32(lengths[1], 11)),
    FINE(IN_APPEND, INT32(table[1][1], -1), INT32(table[2][1], INT32_MAX)),
};

static const struct fault_case rotate_params_faults[] = {
    PARAMS_FAULTS(IN_ROTATE, rotate_params),
    ROPE_FAULTS(IN_ROTATE, ROTATE, Q_LEN - 1),
    FAULT(IN_ROTATE, HEADS, ZERO, INT64(ROTATE.heads, 0)),
    FAULT(IN_ROTATE, HEADS, NEGATIVE, INT64(ROTATE.heads, -1)),
    FAULT(IN_ROTATE, HEADS, RANGE, INT64(ROTATE.heads, INT64_MAX)),
    FAULT(IN_ROTATE, HEAD_DIM, ZERO, INT64(ROTATE.head_dim, 0)),
    FAULT(IN_ROTATE, HEAD_DIM, NEGATIVE, INT64(ROTATE.head_dim, -1)),
    FAULT(IN_ROTATE, HEAD_DIM, RANGE, INT64(ROTATE.head_dim, 513)),
    FAULT(IN_ROTATE, ROPE_DIMS, RANGE, INT64(ROTATE.head_dim, 3)),
    FAULT(IN_ROTATE, FIRST, MISALIGNED, MOVE(ROTATE.first, 2)),
    FAULT(IN_ROTATE, FIRST, NEGATIVE, INT32(places[1], -1)),
    FINE(IN_ROTATE, INT32(ROTATE.rope.pairs, QKV_ROPE_NONE)),
};

static const struct fault_case either_plan_faults[] = {
    FAULT(IN_BOTH, PLAN, NULL, POINTER(plan_arg, NULL)),
    FAULT(IN_BOTH, PLAN, MISALIGNED, MOVE(plan_arg, 4)),
    FAULT(IN_BOTH, CONTEXT, MISALIGNED, POINTER(context_arg, (const char *)&f.zeros + 4)),
    FAULT(IN_BOTH, CONTEXT, STALE, POINTER(context_arg, &f.zeros)),
};

static void check_either_params(const struct fault_case *c) {
    run_case(c, prepare_turning, "the plan", call_its_plan);
    run_case(c, prepare_turning, "the plain call", call_it);
}
TABLE_TEST(append_params_faults, check_either_params)
TABLE_TEST(rotate_params_faults, check_either_params)

static void check_either_plan_faults(const struct fault_case *c) {
    run_case(c, NULL, "the plan", call_its_plan);
}
TABLE_TEST(either_plan_faults, check_either_plan_faults)

/* ---- Tensors ---- */

static const struct fault_case either_tensors_faults[] = {
    FAULT(IN_APPEND, TENSORS, NULL, POINTER(tensors_arg, NULL)),
    FAULT(IN_APPEND, TENSORS, MISALIGNED, MOVE(tensors_arg, 4)),
    FAULT(IN_APPEND, TENSORS, SIZE, INT64(TENSORS.size, 0)),
    ROW_FAULT(IN_APPEND, K, TENSORS.k),
    ROW_FAULT(IN_APPEND, V, TENSORS.v),
    FAULT(IN_APPEND, K, OVERLAP, POINTER(TENSORS.k.data, f.cache_memory)),
    FAULT(IN_APPEND, K, OVERLAP, POINTER(TENSORS.k.data, f.lengths)),
    FAULT(IN_APPEND, K, OVERLAP, POINTER(TENSORS.k.data, f.holders)),
    FAULT(IN_APPEND, V, OVERLAP, POINTER(TENSORS.v.data, f.cache_memory)),
    FAULT(IN_APPEND, V, OVERLAP, POINTER(TENSORS.v.data, f.lengths)),
    FINE(IN_APPEND, INT64(TENSORS.k.stride[0], 0), INT64(TENSORS.v.stride[2], 0)),
    FAULT(IN_ROTATE, TENSORS, NULL, POINTER(rotate_tensors_arg, NULL)),
    FAULT(IN_ROTATE, TENSORS, MISALIGNED, MOVE(rotate_tensors_arg, 4)),
    FAULT(IN_ROTATE, TENSORS, SIZE, INT64(TURNED.size, 0)),
    ROW_FAULT(IN_ROTATE, Q, TURNED.q),
    ROW_FAULT(IN_ROTATE, OUT, TURNED.out),
    OUTPUT_FAULT(IN_ROTATE, OUT, TURNED.out, Q_HEADS, Q_LEN, DIM),
    FINE(IN_ROTATE, POINTER(TURNED.out.data, f.q)), /* in place, and nearly so */
    FAULT(IN_ROTATE, OUT, OVERLAP, POINTER(TURNED.out.data, &f.q[0][0][0][1])),
    FAULT(IN_ROTATE, OUT, OVERLAP, POINTER(TURNED.q.data, &f.d_q[1][2][3][0])),
    FAULT(IN_ROTATE, OUT, OVERLAP, POINTER(TURNED.out.data, f.places)),
};

static void check_either_tensors(const struct fault_case *c) {
    run_case(c, prepare_turning, "the plain call", call_it);
    run_case(c, prepare_its_run, "the run", call_its_run);
}
TABLE_TEST(either_tensors_faults, check_either_tensors)

/* ---- Runs ---- */

static const struct fault_case either_run_faults[] = {
    FAULT(IN_BOTH, PLAN, NULL, POINTER(run_arg, NULL)),
    FAULT(IN_BOTH, PLAN, MISALIGNED, MOVE(run_arg, 4)),
    FAULT(IN_BOTH, PLAN, STALE, POINTER(run_arg, &f.zero_plan)),
    FAULT(IN_BOTH, PLAN, STALE, POINTER(run_arg, &f.other)),
    FAULT(IN_APPEND, PLAN, STALE, INT32(lengths[1], 6)), /* something was appended meanwhile */
    FAULT(IN_BOTH, PHASE, RANGE, INT32(phase, -1)),
    FAULT(IN_BOTH, PHASE, RANGE, INT32(phase, QKV_MAX_PHASES)),
    FAULT(IN_BOTH, BEGIN, RANGE, INT64(begin, -1)),
    FAULT(IN_BOTH, BEGIN, RANGE, INT64(begin, INT64_MAX)),
    FAULT(IN_BOTH, END, RANGE, MOVE(end, 1)),
    FAULT(IN_BOTH, END, RANGE, INT64(begin, 1), INT64(end, 0)),
    FAULT(IN_BOTH, WORKSPACE, NULL, POINTER(workspace_arg, NULL)),
    FAULT(IN_BOTH, WORKSPACE, MISALIGNED, MOVE(workspace_arg, 4)),
    FAULT(IN_BOTH, WORKSPACE_WORKER, NULL, POINTER(workspace.worker, NULL)),
    FAULT(IN_BOTH, WORKSPACE_WORKER, MISALIGNED, MOVE(workspace.worker, 32)),
    FAULT(IN_BOTH, WORKSPACE_WORKER, TOO_SMALL, MOVE(workspace.worker_size, -1)),
    FINE(IN_BOTH, MOVE(workspace.worker_size, 0)),
    FINE(IN_BOTH, INT64(end, 0)),
};

static void check_either_run_faults(const struct fault_case *c) {
    run_case(c, prepare_its_run, "the run", call_its_run);
}
TABLE_TEST(either_run_faults, check_either_run_faults)

static const struct fault_case either_exec_faults[] = {
    FAULT(IN_BOTH, EXEC, SIZE, INT64(exec.now.size, 0)),
    FAULT(IN_BOTH, THREADS, RANGE, INT32(exec.now.threads, 0)),
    FAULT(IN_BOTH, WORKSPACE, NULL, POINTER(exec_arg, NULL)),
    FAULT(IN_BOTH, WORKSPACE, MISALIGNED, MOVE(exec.now.workspace, 32)),
    FAULT(IN_BOTH, WORKSPACE, TOO_SMALL, INT64(exec.now.workspace_size, 1)),
    FINE(IN_APPEND, POINTER(exec_arg, NULL), INT32(APPEND.rope.pairs, QKV_ROPE_NONE)),
};

static void check_either_exec_faults(const struct fault_case *c) {
    run_case(c, prepare_turning, "the plain call", call_it);
}
TABLE_TEST(either_exec_faults, check_either_exec_faults)

static const struct fault_case rope_tables_faults[] = {
    FAULT(IN_ROTATE, FIRST, NEGATIVE, INT64(table_first, -1)),
    FAULT(IN_ROTATE, NUMBERS, NEGATIVE, INT64(table_rows, -1)),
    FAULT(IN_ROTATE, NUMBERS, RANGE, INT64(table_first, INT64_MAX)),
    FAULT(IN_ROTATE, NUMBERS, RANGE, INT64(table_rows, (int64_t)INT32_MAX + 1)),
    FAULT(IN_ROTATE, ROPE_DIMS, ZERO, INT64(table_dims, 0)),
    FAULT(IN_ROTATE, ROPE_DIMS, NEGATIVE, INT64(table_dims, -2)),
    FAULT(IN_ROTATE, ROPE_DIMS, RANGE, INT64(table_dims, 3)),
    FAULT(IN_ROTATE, ROPE_DIMS, RANGE, INT64(table_dims, 514)),
    FAULT(IN_ROTATE, ROPE_THETA, VALUE, DOUBLE(table_theta, NAN)),
    FAULT(IN_ROTATE, ROPE_THETA, RANGE, DOUBLE(table_theta, 0.0f)),
    FAULT(IN_ROTATE, ROPE_COS, NULL, POINTER(cos_arg, NULL)),
    FAULT(IN_ROTATE, ROPE_COS, MISALIGNED, MOVE(cos_arg, 2)),
    FAULT(IN_ROTATE, ROPE_SIN, NULL, POINTER(sin_arg, NULL)),
    FAULT(IN_ROTATE, ROPE_SIN, MISALIGNED, MOVE(sin_arg, 1)),
    FAULT(IN_ROTATE, ROPE_SIN, OVERLAP, POINTER(sin_arg, &f.table_cos[Q_LEN - 1][1])),
    FINE(IN_ROTATE, INT64(table_rows, 0), POINTER(cos_arg, NULL), POINTER(sin_arg, NULL)),
    FINE(IN_ROTATE, INT64(table_first, INT32_MAX), INT64(table_rows, 1)),
};

static void check_rope_tables_faults(const struct fault_case *c) {
    run_case(c, NULL, "qkv_rope_tables", call_tables);
}
TABLE_TEST(rope_tables_faults, check_rope_tables_faults)

TCase *append_faults_case(void) {
    TCase *test = tcase_create("append and rotate");

    tcase_set_timeout(test, PATIENCE);
    ADD_TABLE(test, append_params_faults);
    ADD_TABLE(test, rotate_params_faults);
    ADD_TABLE(test, either_plan_faults);
    ADD_TABLE(test, either_tensors_faults);
    ADD_TABLE(test, either_run_faults);
    ADD_TABLE(test, either_exec_faults);
    ADD_TABLE(test, rope_tables_faults);
    return test;
}
