/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts by the name of the room. See rooms.h. */
#include "rooms.h"

#include <string.h>

#include "complain.h"

qkv_isa room_by_name(const char *name) {
    for (int isa = QKV_ISA_NONE + 1; isa < QKV_ISA_COUNT; isa++) {
        if (strcmp(name, qkv_isa_name(isa)) == 0) {
            return (qkv_isa)isa;
        }
    }
    return QKV_ISA_NONE;
}

int room_check(const char *name) {
    return !name || room_by_name(name) != QKV_ISA_NONE
               ? FINE
               : complain(USAGE, "--isa", "'%s' is no room: scalar, avx2, avx512 or neon", name);
}

bool room_open(qkv_context *context, qkv_isa isa) {
    qkv_context_config config;
    qkv_context_config_init(&config);
    config.isa_max = (int32_t)isa;
    return qkv_context_init(context, &config) == QKV_OK && qkv_context_isa(context) == isa;
}

const char *room_lack(qkv_isa isa) {
    if (!qkv_isa_built((int)isa)) {
        return "not in this build";
    }
    return qkv_cpu_removed() ? "not on this CPU, or taken away by QKV_CPU_MAX or QKV_CPU_DISABLE"
                             : "not on this CPU";
}
