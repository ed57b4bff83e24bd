/* SPDX-License-Identifier: Apache-2.0 */
/* What the library makes once, when it is loaded. */
#ifndef QKV_CORE_STARTUP_H
#define QKV_CORE_STARTUP_H

#include "cpu.h"

struct qkv_startup {
    struct qkv_cpu_report cpu;
    qkv_context context; /* the default one */
};

/* Never NULL, and the same for every caller. Any thread, any moment. */
const struct qkv_startup *qkv_startup(void);

#endif
