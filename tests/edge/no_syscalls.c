/* SPDX-License-Identifier: Apache-2.0 */
/* No allocation, lock or system call, from the first call of a process on: each job runs in each
 * room as the first thing that a child does with the library. Linked with the shared library, so
 * that lazy binding would be seen as well. */
#define _GNU_SOURCE

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "forbid.h"
#include "../support/sanitized.h"
#include "work.h"

enum { SKIPPED = 77, LACKING = 78, WRONG_STATUS = 6 };

/* Set in the parent by the first child: whether system calls can be refused here. */
static int refused;

static int child_status(void (*body)(const void *), const void *argument, int quiet) {
    int status;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child < 0) {
        perror("fork");
        exit(EXIT_FAILURE);
    }
    if (child == 0) {
        if (quiet)
            close(STDERR_FILENO);
        if (forbid_everything() != 0 && refused)
            _exit(EXIT_FAILURE);
        body(argument);
        _exit(EXIT_SUCCESS);
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- The watchman watched: what is forbidden must be caught. ---- */

static void does_nothing(const void *argument) {
    (void)argument;
}

static void enters_the_system(const void *argument) {
    (void)argument;
    syscall(SYS_getppid);
}

static void allocates(const void *argument) {
    static void *volatile memory;
    (void)argument;
    memory = malloc(1);
    free(memory);
}

static void locks(const void *argument) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    (void)argument;
    pthread_mutex_lock(&mutex);
}

static int expect(const char *name, void (*body)(const void *), int wanted) {
    int status = child_status(body, NULL, 1);

    printf("%s: %s\n", name, status == wanted ? "ok" : "FAILED");
    return status != wanted;
}

static int watchman(void) {
    int failed = expect("nothing is fine", does_nothing, EXIT_SUCCESS);

    failed += expect("an allocation is caught", allocates, CAUGHT_ALLOCATION);
    failed += expect("a lock is caught", locks, CAUGHT_LOCK);
    refused = child_status(enters_the_system, NULL, 1) == CAUGHT_SYSTEM_CALL;
    if (refused)
        puts("a system call is caught: ok");
    else
        puts("skipped: refusing system calls (no seccomp here, as under an emulator)");
    return failed;
}

/* ---- The library ---- */

struct first_call {
    const struct job *job;
    int isa;
};

static void makes_a_first_call(const void *argument) {
    const struct first_call *first = argument;
    qkv_context context;

    if (work_context(&context, first->isa) != QKV_OK)
        _exit(LACKING);
    if (first->job->run(&context) != QKV_OK)
        _exit(WRONG_STATUS);
}

static void uses_the_default_context(const void *argument) {
    const struct job *job = argument;

    qkv_init();
    if (job->run(NULL) != QKV_OK || qkv_status_string(QKV_OK)[0] != 'o')
        _exit(WRONG_STATUS);
}

static int report(const char *room, const struct job *job, int status) {
    printf("%s, %s: ", room, job->name);
    if (status == EXIT_SUCCESS)
        puts("ok");
    else
        printf("FAILED, status %d\n", status);
    return status != EXIT_SUCCESS;
}

static int room(int isa) {
    int failed = 0;

    for (int i = 0; i < jobs_count; i++) {
        struct first_call first = {&jobs[i], isa};
        int status = child_status(makes_a_first_call, &first, 0);
        if (status == LACKING) {
            printf("skipped: %s, which this CPU lacks\n", qkv_isa_name(isa));
            return failed;
        }
        failed += report(qkv_isa_name(isa), &jobs[i], status);
    }
    return failed;
}

int main(void) {
    int failed = 0;

    if (SANITIZED) {
        puts("skipped: a sanitizer's runtime allocates and enters the system by itself");
        return SKIPPED;
    }
    work_fill(2.0f);
    failed += watchman();
    for (int i = 0; i < jobs_count; i++)
        failed += report("default context", &jobs[i],
                         child_status(uses_the_default_context, &jobs[i], 0));
    for (int isa = QKV_ISA_SCALAR; isa < QKV_ISA_COUNT; isa++)
        if (qkv_isa_built(isa))
            failed += room(isa);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
