/* SPDX-License-Identifier: Apache-2.0 */
/* Statuses taken apart and put into words. Every argument is crossed with every fault by the
 * preprocessor, so that a sentence is static storage and no call has to build one. */
#include "status.h"

/* QKV_FAULTS writes `DO(NAME, sentence)` for whatever stands in DO's place. With the argument's
 * text and a macro's name there, each entry becomes two adjacent literals: one string. */
#define SENTENCE(name, sentence) sentence,
#define ROW(name, text) {NULL, QKV_FAULTS(text " " SENTENCE)},

static const char *const sentences[QKV_ARG_COUNT][QKV_FAULT_COUNT] = {{"ok"}, QKV_ARGS(ROW)};

#undef ROW
#undef SENTENCE

static int is_failure(qkv_status status) {
    int fault = status & 0xff;
    int arg = status >> 8;

    return arg > QKV_ARG_NONE && arg < QKV_ARG_COUNT && fault > QKV_FAULT_NONE &&
           fault < QKV_FAULT_COUNT;
}

qkv_fault qkv_status_fault(qkv_status status) {
    return is_failure(status) ? (qkv_fault)(status & 0xff) : QKV_FAULT_NONE;
}

qkv_arg qkv_status_arg(qkv_status status) {
    return is_failure(status) ? (qkv_arg)(status >> 8) : QKV_ARG_NONE;
}

const char *qkv_status_string(qkv_status status) {
    if (status != QKV_OK && !is_failure(status))
        return "not a status of this library";
    return sentences[status >> 8][status & 0xff];
}

const char *qkv_version(void) {
    return QKV_VERSION_STRING;
}
