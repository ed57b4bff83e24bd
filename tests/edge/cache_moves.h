/* SPDX-License-Identifier: Apache-2.0 */
/* Random calls on a cache beside its model: what moves.c and fuzz_cache.c have in common. */
#ifndef QKV_TEST_CACHE_MOVES_H
#define QKV_TEST_CACHE_MOVES_H

#include "support/rng.h"
#include "support/verdict.h"

#include <qkv/qkv.h>

/* A cache of random shape and types, and some dozens of calls, each in one of the contexts. After
 * every call the cache must be what the model says; one that is refused leaves every byte alone. */
struct verdict check_cache_moves(struct rng *rng, const qkv_context *contexts, int count);

#endif
