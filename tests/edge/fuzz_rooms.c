/* SPDX-License-Identifier: Apache-2.0 */
/* The rooms of a fuzz target, which has no environment to be steered by (fuzz_rooms.h). */
#include "fuzz_rooms.h"

static qkv_context rooms[QKV_ISA_COUNT];
static int count;

static void open_rooms(void) {
    for (int isa = QKV_ISA_SCALAR; isa < QKV_ISA_COUNT; isa++) {
        qkv_context_config config;
        qkv_context *room = &rooms[count];
        qkv_context_config_init(&config);
        config.isa_max = isa;
        count += qkv_context_init(room, &config) == QKV_OK && (int)qkv_context_isa(room) == isa;
    }
}

int fuzz_rooms(const qkv_context **contexts) {
    if (count == 0)
        open_rooms();
    *contexts = rooms;
    return count;
}
