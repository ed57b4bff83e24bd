/* SPDX-License-Identifier: Apache-2.0 */
/* The table test of the API's edge. A fixture holds valid arguments for every function; a case
 * edits it, calls, and must get exactly one status, with every byte of the fixture as it was:
 * outputs, inputs, workspace and the structs themselves. */
#ifndef QKV_TESTS_ARGUMENTS_H
#define QKV_TESTS_ARGUMENTS_H

#include <check.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include <qkv/cache.h>
#include <qkv/qkv.h>

enum {
    BATCH = 2,
    Q_HEADS = 4,
    KV_HEADS = 2,
    Q_LEN = 60, /* with the group's two heads more than one row block, so that K is packed once */
    KV_LEN = 5,
    DIM = 4,
    V_DIM = 6,
    TOKENS = 7,
    D_MODEL = 9,
    Q_WIDTH = Q_HEADS * DIM,
    K_WIDTH = KV_HEADS * DIM,
    V_WIDTH = KV_HEADS * V_DIM,
    ROW = Q_WIDTH + K_WIDTH + V_WIDTH + Q_HEADS * V_DIM, /* of an interleaved buffer */
    TAIL = 4,
    WORKSPACE = 640 * 1024,
    PACKED = 4096,
    LOSS_ROWS = 5,
    LOSS_COLUMNS = 7,
    NUMBERS = 40, /* of descent */
    MERGED_PARTS = 3,
    MERGED_HEADS = 2,
    MERGED_ROWS = 5,
    CACHE_SEQUENCES = 3,
    CACHE_ENTRIES = 2, /* of a sequence in the table */
    CACHE_PAGES = 8,
    CACHE_MEMORY = 16 * 1024,
    CACHE_FILE = 4096,
    PATIENCE = 60, /* seconds: a test takes milliseconds, but not under an emulator */
};

/* A struct as a newer header might have it. */
#define FUTURE(type)         \
    struct {                 \
        type now;            \
        uint64_t tail[TAIL]; \
    }

struct fixture {
    /* The arguments of the calls: pointers, so that they can be null or misaligned. */
    const qkv_attention_params *params_arg;
    const qkv_project_params *project_params_arg;
    const qkv_tensors *tensors_arg;
    const qkv_project_tensors *project_tensors_arg;
    const qkv_loss_params *loss_params_arg;
    const qkv_loss_tensors *loss_tensors_arg;
    const qkv_descent_params *descent_params_arg;
    const qkv_descent_arrays *descent_arrays_arg;
    const qkv_merge_params *merge_params_arg;
    const qkv_merge_tensors *merge_tensors_arg;
    const qkv_cache *cache_arg;
    const qkv_append_params *append_params_arg;
    const qkv_rotate_params *rotate_params_arg;
    const qkv_tensors *rotate_tensors_arg, *export_tensors_arg;
    const int32_t *decoded_arg;
    int64_t sequence, to, from, first, cached_tokens;
    void *buffer_arg;
    const void *file_arg;
    size_t buffer_size, file_size;
    float *cos_arg, *sin_arg;
    int64_t table_first, table_rows, table_dims;
    double table_theta;
    double *sum_arg;
    const float *summed_arg;
    int64_t summed;
    const qkv_gradients *gradients_arg;
    const qkv_project_gradients *project_gradients_arg;
    const qkv_exec *exec_arg;
    const qkv_context *context_arg;
    const qkv_context_config *config_arg;
    qkv_context *made_arg;
    qkv_plan *plan_arg;      /* written by the _plan functions */
    const qkv_plan *run_arg; /* read by the _run functions */
    const qkv_workspace *workspace_arg;
    const qkv_tensor *w_arg;
    void *packed_arg;
    size_t packed_size;
    int64_t begin, end;
    int32_t phase;
    int which;

    FUTURE(qkv_attention_params) params;
    FUTURE(qkv_project_params) project_params;
    FUTURE(qkv_tensors) tensors;
    FUTURE(qkv_project_tensors) project_tensors;
    FUTURE(qkv_loss_params) loss_params;
    FUTURE(qkv_loss_tensors) loss_tensors;
    FUTURE(qkv_descent_params) descent_params;
    FUTURE(qkv_descent_arrays) descent_arrays;
    FUTURE(qkv_merge_params) merge_params;
    FUTURE(qkv_merge_tensors) merge_tensors;
    qkv_tensor merge_outs[MERGED_PARTS], merge_lses[MERGED_PARTS];
    FUTURE(qkv_cache) cache;
    FUTURE(qkv_append_params) append_params;
    FUTURE(qkv_rotate_params) rotate_params;
    FUTURE(qkv_tensors) rotate_tensors;
    FUTURE(qkv_tensors) export_tensors;
    FUTURE(qkv_gradients) gradients;
    FUTURE(qkv_project_gradients) project_gradients; /* those of Q, K and V in pq, pk and pv */
    FUTURE(qkv_exec) exec;
    FUTURE(qkv_context_config) config;
    qkv_context made, zeros, noise;
    qkv_plan plan, ready, other; /* to be made; made for the stage; made for another family */
    qkv_plan zero_plan;
    qkv_workspace workspace;
    qkv_tensor w;

    float q[BATCH][Q_HEADS][Q_LEN][DIM];
    float k[BATCH][KV_HEADS][KV_LEN][DIM];
    float v[BATCH][KV_HEADS][KV_LEN][V_DIM];
    float scores[BATCH][Q_HEADS][Q_LEN][KV_LEN];
    float weights[BATCH][Q_HEADS][Q_LEN][KV_LEN];
    float out[BATCH][Q_HEADS][Q_LEN][V_DIM];
    float lse[BATCH][Q_HEADS][Q_LEN];
    float bias[BATCH][Q_HEADS][Q_LEN][KV_LEN];
    unsigned char mask[BATCH][Q_HEADS][Q_LEN][KV_LEN];
    float slopes[Q_HEADS], sinks[Q_HEADS];
    int32_t q_lens[BATCH], kv_lens[BATCH], cu_q[BATCH + 1], cu_kv[BATCH + 1];
    float rows[BATCH][Q_LEN][ROW];

    float d_q[BATCH][Q_HEADS][Q_LEN][DIM];
    float d_k[BATCH][KV_HEADS][KV_LEN][DIM];
    float d_v[BATCH][KV_HEADS][KV_LEN][V_DIM];
    float d_scores[BATCH][Q_HEADS][Q_LEN][KV_LEN];
    float d_weights[BATCH][Q_HEADS][Q_LEN][KV_LEN];
    float d_out[BATCH][Q_HEADS][Q_LEN][V_DIM];
    float d_bias[BATCH][Q_HEADS][Q_LEN][KV_LEN];
    float d_sinks[Q_HEADS];

    float x[BATCH][TOKENS][D_MODEL];
    float wq[D_MODEL * Q_WIDTH], wk[D_MODEL * K_WIDTH], wv[D_MODEL * V_WIDTH];
    float bq[Q_WIDTH], bk[K_WIDTH], bv[V_WIDTH];
    float pq[BATCH][Q_HEADS][TOKENS][DIM];
    float pk[BATCH][KV_HEADS][TOKENS][DIM];
    float pv[BATCH][KV_HEADS][TOKENS][V_DIM];
    float dx[BATCH][TOKENS][D_MODEL];
    float dwq[D_MODEL * Q_WIDTH], dwk[D_MODEL * K_WIDTH], dwv[D_MODEL * V_WIDTH];
    float dbq[Q_WIDTH], dbk[K_WIDTH], dbv[V_WIDTH];

    float prediction[LOSS_ROWS][LOSS_COLUMNS];
    float target[LOSS_ROWS][LOSS_COLUMNS];
    float slope[LOSS_ROWS][LOSS_COLUMNS]; /* the loss's gradient */
    int32_t labels[LOSS_ROWS];
    float loss;
    float descending[NUMBERS], gradient[NUMBERS], mean[NUMBERS], square[NUMBERS];
    double sum;
    float merge_rows[MERGED_PARTS][BATCH][MERGED_HEADS][MERGED_ROWS][V_DIM];
    float merge_numbers[MERGED_PARTS][BATCH][MERGED_HEADS][MERGED_ROWS];
    float merge_out[BATCH][MERGED_HEADS][MERGED_ROWS][V_DIM];
    float merge_lse[BATCH][MERGED_HEADS][MERGED_ROWS];
    int32_t table[CACHE_SEQUENCES][CACHE_ENTRIES], lengths[CACHE_SEQUENCES], holders[CACHE_PAGES];
    int32_t appended[BATCH], decoded[BATCH], places[BATCH], positions[BATCH][Q_LEN];
    float cosines[Q_LEN][DIM / 2], sines[Q_LEN][DIM / 2];
    float table_cos[Q_LEN][DIM / 2], table_sin[Q_LEN][DIM / 2]; /* of qkv_rope_tables */
    _Alignas(QKV_ALIGNMENT) unsigned char cache_memory[CACHE_MEMORY];
    _Alignas(QKV_ALIGNMENT) unsigned char file[CACHE_FILE], buffer[CACHE_FILE];

    float spare[256]; /* what lies behind the last tensor, for edits that move one */
    _Alignas(QKV_ALIGNMENT) unsigned char packed[QKV_WHICH_COUNT][PACKED];
    _Alignas(QKV_ALIGNMENT) unsigned char shared[WORKSPACE];
    _Alignas(QKV_ALIGNMENT) unsigned char worker[WORKSPACE];
};

extern struct fixture f;

/* Valid arguments everywhere; every output byte is 0xcb. */
void fixture_reset(void);
void fixture_describe_merge(void); /* of them those of merge */
void fixture_describe_cache(void); /* and of all that has to do with a cache */

/* One change of the fixture. */
enum edit_kind {
    EDIT_NONE,
    EDIT_INT64,
    EDIT_INT32,
    EDIT_FLOAT,
    EDIT_DOUBLE,
    EDIT_POINTER,
    EDIT_MOVE,
    EDIT_BYTE
};

struct edit {
    enum edit_kind kind;
    void *at;
    int64_t number;
    float value;
    const void *pointer;
};

#define INT64(field, n) \
    { EDIT_INT64, &f.field, (int64_t)(n), 0, NULL }
#define INT32(field, n) \
    { EDIT_INT32, &f.field, n, 0, NULL }
#define FLOAT(field, x) \
    { EDIT_FLOAT, &f.field, 0, x, NULL }
#define DOUBLE(field, x) \
    { EDIT_DOUBLE, &f.field, 0, x, NULL }
#define POINTER(field, to) \
    { EDIT_POINTER, &f.field, 0, 0, to }
/* Adds to a pointer, or to a number of its size. */
#define MOVE(field, bytes) \
    { EDIT_MOVE, &f.field, bytes, 0, NULL }
#define BYTE(field, n) \
    { EDIT_BYTE, &f.field, n, 0, NULL }

/* The stages of a case, as a set. */
#define IN_PROJECT (1u << QKV_STAGE_PROJECT)
#define IN_PROJECT_BACKWARD (1u << QKV_STAGE_PROJECT_BACKWARD)
#define IN_PROJECTS (IN_PROJECT | IN_PROJECT_BACKWARD)
#define IN_SCORES (1u << QKV_STAGE_SCORES)
#define IN_SOFTMAX (1u << QKV_STAGE_SOFTMAX)
#define IN_MIX (1u << QKV_STAGE_MIX)
#define IN_ATTENTION (1u << QKV_STAGE_ATTENTION)
#define IN_LOSS (1u << QKV_STAGE_LOSS)
#define IN_DESCENT (1u << QKV_STAGE_DESCENT)
#define IN_MERGE (1u << QKV_STAGE_MERGE)
#define IN_APPEND (1u << QKV_STAGE_APPEND) /* and what is no stage */
#define IN_ROTATE (1u << QKV_STAGE_ROTATE)
#define IN_DECODE (1u << QKV_STAGE_DECODE)
#define IN_ALL (IN_SCORES | IN_SOFTMAX | IN_MIX | IN_ATTENTION)
#define IN_SCORES_BACKWARD (1u << QKV_STAGE_SCORES_BACKWARD)
#define IN_SOFTMAX_BACKWARD (1u << QKV_STAGE_SOFTMAX_BACKWARD)
#define IN_MIX_BACKWARD (1u << QKV_STAGE_MIX_BACKWARD)
#define IN_ATTENTION_BACKWARD (1u << QKV_STAGE_ATTENTION_BACKWARD)
#define IN_ALL_BACKWARD \
    (IN_SCORES_BACKWARD | IN_SOFTMAX_BACKWARD | IN_MIX_BACKWARD | IN_ATTENTION_BACKWARD)

enum { EDITS = 6 };

struct fault_case {
    unsigned stages;
    qkv_arg arg;
    qkv_fault fault; /* QKV_FAULT_NONE: the edits are fine */
    struct edit edits[EDITS];
};

#define FAULT(stages, arg, fault, ...)                \
    {                                                 \
        (stages), QKV_ARG_##arg, QKV_FAULT_##fault, { \
            __VA_ARGS__                               \
        }                                             \
    }
#define FINE(stages, ...)                         \
    {                                             \
        (stages), QKV_ARG_NONE, QKV_FAULT_NONE, { \
            __VA_ARGS__                           \
        }                                         \
    }
#define COUNT(table) ((int)(sizeof(table) / sizeof *(table)))

/* The case for the backward twins of its stages. */
struct fault_case twin_of(const struct fault_case *c);

/* Applies a case's edits to a fresh fixture, after `prepare` (or NULL). */
void fixture_edit(const struct fault_case *c, void (*prepare)(int stage), int stage);

/* Remembers the fixture, and checks that nothing of it has changed since. */
void fixture_remember(void);
void fixture_check_untouched(const char *call, int stage);

/* Fails unless the status is the case's and, if that is a fault, the fixture is untouched. */
void fixture_check(const struct fault_case *c, qkv_status status, const char *call, int stage);

/* The functions of a stage, with the fixture's arguments. */
qkv_status call_plan(int stage);
qkv_status call_plain(int stage);
qkv_status call_run(int stage);

/* f.ready, which was made for a stage, becomes what runs: its first phase, and the workspace that
 * it asks for. f.other is a plan of another family. */
void fixture_use_ready(void);

/* Makes f.ready for a stage, and sizes the workspaces to it: valid arguments for a run. */
void prepare_ready(int stage);

/* Runs the case in each of its stages: prepared, edited, then handed to each call. */
typedef qkv_status argument_call(int stage);
void run_case(const struct fault_case *c, void (*prepare)(int stage), const char *name,
              argument_call *call);

/* Hands each row of the chunk to `check`; messages then name the row. */
void check_rows(const struct fault_case *table, int count, int chunk,
                void (*check)(const struct fault_case *c));

/* The tests of a table: ROWS rows in one, since a process for each would take minutes under an
 * emulator. */
enum { ROWS = 16 };
#define TABLE_TEST(table, check)                    \
    START_TEST(test_##table) {                      \
        check_rows(table, COUNT(table), _i, check); \
    }                                               \
    END_TEST
#define ADD_TABLE(tcase, table) \
    tcase_add_loop_test(tcase, test_##table, 0, (COUNT(table) + ROWS - 1) / ROWS)

TCase *status_case(void);
TCase *params_case(void);
TCase *tensors_case(void);
TCase *overlap_case(void);
TCase *run_case_suite(void);
TCase *backward_case(void);
TCase *project_case(void);
TCase *loss_faults_case(void);
TCase *descent_faults_case(void);
TCase *merge_faults_case(void);
TCase *cache_faults_case(void);
TCase *cache_file_faults_case(void);
TCase *append_faults_case(void);
TCase *decode_faults_case(void);
TCase *project_backward_case(void);
TCase *pack_case(void);
TCase *context_faults_case(void);

#endif
