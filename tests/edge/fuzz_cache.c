/* SPDX-License-Identifier: Apache-2.0 */
/* A libFuzzer target: bytes become a cache and calls on it, in one room or another, which a model
 * foretells. No bytes at all are one token of one number. */
#include <stdio.h>
#include <stdlib.h>

#include "cache_moves.h"
#include "fuzz_rooms.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct rng rng = rng_from_bytes(data, size);
    const qkv_context *contexts;
    const int count = fuzz_rooms(&contexts);
    const struct verdict verdict = check_cache_moves(&rng, contexts, count);
    if (!verdict.ok) {
        fprintf(stderr, "%s\n", verdict.message);
        abort();
    }
    return 0;
}
