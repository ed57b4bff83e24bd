/* SPDX-License-Identifier: Apache-2.0 */
/* Calls to watch: each stage, plain and with every option, on static buffers that were filled
 * beforehand, so that whatever allocates, enters the system or uses stack is the library. */
#ifndef QKV_TESTS_WORK_H
#define QKV_TESTS_WORK_H

#include <stddef.h>

#include <qkv/qkv.h>

struct job {
    const char *name;
    qkv_status (*run)(const qkv_context *context); /* plan and plain call */
    float *out;                                    /* what it writes, and how many elements */
    size_t count;
};

extern const struct job jobs[];
extern const int jobs_count;

/* Fills the inputs; before the first job. spread: the standard deviation, about, of the scores. */
void work_fill(float spread);

/* A context of exactly this room: QKV_OK; any other status if the build or this CPU lacks it. */
qkv_status work_context(qkv_context *context, int isa);

#endif
