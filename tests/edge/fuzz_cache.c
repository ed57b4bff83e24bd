/* SPDX-License-Identifier: Apache-2.0 */
/* A libFuzzer target: bytes become a cache and calls on it, in one room or another, which a model
 * foretells. No bytes at all are one token of one number. */
#include <stdio.h>
#include <stdlib.h>

#include "cache_moves.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static qkv_context contexts[QKV_ISA_COUNT];
static int contexts_count;

static void open_rooms(void) {
    for (int isa = QKV_ISA_SCALAR; isa < QKV_ISA_COUNT; isa++) {
        qkv_context_config config;
        qkv_context *room = &contexts[contexts_count];
        qkv_context_config_init(&config);
        config.isa_max = isa;
        contexts_count +=
            qkv_context_init(room, &config) == QKV_OK && (int)qkv_context_isa(room) == isa;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct rng rng = rng_from_bytes(data, size);
    if (contexts_count == 0)
        open_rooms();
    const struct verdict verdict = check_cache_moves(&rng, contexts, contexts_count);
    if (!verdict.ok) {
        fprintf(stderr, "%s\n", verdict.message);
        abort();
    }
    return 0;
}
