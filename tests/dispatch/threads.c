/* SPDX-License-Identifier: Apache-2.0 */
/* qkv_init and first calls from 16 threads at once, before the library's own constructor has run:
 * a constructor of this program with a higher priority starts them. Meant for ThreadSanitizer as
 * much as for its own comparisons. */
#define _POSIX_C_SOURCE 200809L

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qkv/qkv.h>

enum { THREADS = 16, Q_LEN = 5, KV_LEN = 7, DIM = 8 };

/* What a thread saw on its first calls. */
struct seen {
    const qkv_context *context;
    uint64_t detected, usable;
    const char *unknown;
    const char *variant[QKV_STAGE_COUNT];
    qkv_status status;
    float out[Q_LEN * DIM];
};

static struct seen seen[THREADS];
static pthread_barrier_t start;
static float q[Q_LEN * DIM], kv[KV_LEN * DIM];

static qkv_status attend(float *out) {
    qkv_attention_params params;
    qkv_tensors tensors;
    qkv_exec exec;
    qkv_plan plan;
    qkv_status status;

    qkv_attention_params_init(&params);
    params.batch = params.q_heads = params.kv_heads = 1;
    params.q_len = Q_LEN;
    params.kv_len = KV_LEN;
    params.head_dim = DIM;
    qkv_tensors_init(&tensors);
    tensors.q = qkv_tensor_bhsd(q, 1, Q_LEN, DIM);
    tensors.k = tensors.v = qkv_tensor_bhsd(kv, 1, KV_LEN, DIM);
    tensors.out = qkv_tensor_bhsd(out, 1, Q_LEN, DIM);
    status = qkv_attention_plan(&plan, &params, NULL);
    if (status != QKV_OK)
        return status;
    qkv_exec_init(&exec);
    exec.workspace_size = qkv_plan_workspace(&plan, 1);
    exec.workspace = aligned_alloc(QKV_ALIGNMENT, exec.workspace_size + QKV_ALIGNMENT -
                                                      exec.workspace_size % QKV_ALIGNMENT);
    status = qkv_attention(&params, &tensors, &exec);
    free(exec.workspace);
    return status;
}

/* The threads begin with different calls, so that each function is somebody's first. */
static void *first_calls(void *argument) {
    struct seen *mine = argument;

    pthread_barrier_wait(&start);
    switch ((mine - seen) % 4) {
    case 0:
        qkv_init();
        break;
    case 1:
        mine->usable = qkv_cpu_usable();
        break;
    case 2:
        mine->status = attend(mine->out);
        break;
    default:
        break;
    }
    mine->context = qkv_default_context();
    mine->detected = qkv_cpu_detected();
    mine->usable = qkv_cpu_usable();
    mine->unknown = qkv_cpu_unknown_overrides();
    for (int stage = 0; stage < QKV_STAGE_COUNT; stage++)
        mine->variant[stage] = qkv_context_variant(NULL, stage);
    mine->status = attend(mine->out);
    return NULL;
}

/* The lowest priority number that a program may use: before any constructor without one. */
__attribute__((constructor(101))) static void before_the_library(void) {
    pthread_t threads[THREADS];

    for (int i = 0; i < Q_LEN * DIM; i++)
        q[i] = (float)(i % 7) - 3;
    for (int i = 0; i < KV_LEN * DIM; i++)
        kv[i] = (float)(i % 5) - 2;
    pthread_barrier_init(&start, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, first_calls, &seen[i]) != 0) {
            fputs("cannot start a thread\n", stderr);
            abort();
        }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
}

/* _i is the thread. */
START_TEST(every_thread_saw_the_finished_library) {
    const struct seen *mine = &seen[_i];

    ck_assert_ptr_nonnull(mine->context);
    ck_assert_ptr_eq(mine->context, qkv_default_context());
    ck_assert_uint_eq(mine->detected, qkv_cpu_detected());
    ck_assert_uint_eq(mine->usable, qkv_cpu_usable());
    ck_assert_ptr_eq(mine->unknown, qkv_cpu_unknown_overrides());
    for (int stage = 0; stage < QKV_STAGE_COUNT; stage++)
        ck_assert_ptr_eq(mine->variant[stage], qkv_context_variant(NULL, stage));
}
END_TEST

START_TEST(every_thread_computed_the_same_bits) {
    float out[Q_LEN * DIM];

    memset(out, 0xff, sizeof out);
    ck_assert_int_eq(attend(out), QKV_OK);
    ck_assert_int_eq(seen[_i].status, QKV_OK);
    ck_assert_mem_eq(seen[_i].out, out, sizeof out);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("dispatch_threads");
    TCase *test = tcase_create("first calls");
    SRunner *runner = srunner_create(suite);
    int failed;

    suite_add_tcase(suite, test);
    tcase_set_timeout(test, 60);
    tcase_add_loop_test(test, every_thread_saw_the_finished_library, 0, THREADS);
    tcase_add_loop_test(test, every_thread_computed_the_same_bits, 0, THREADS);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
