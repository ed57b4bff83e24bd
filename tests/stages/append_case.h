/* SPDX-License-Identifier: Apache-2.0 */
/* Random caches and appends for the suite of append: a cache in guarded memory beside the bytes
 * that it should hold, and calls that bring both further. */
#ifndef QKV_TEST_APPEND_CASE_H
#define QKV_TEST_APPEND_CASE_H

#include "append_model.h"

#include <check.h>

#include "support/guard.h"
#include "support/rng.h"
#include "support/run.h"
#include "support/tensor.h"

enum { CASE_SEQUENCES = 4 };

/* What the rows hold. */
enum flavour { PLAIN, HEAVY, TINY, SPECIAL, TIES, FLAVOURS };

struct append_case {
    struct rng rng;
    struct qkv_cache_state state;
    struct guard memory, lengths, holders, table;
    char *want; /* what memory should hold */
    int32_t want_lengths[CASE_SEQUENCES];
    int32_t *want_holders;
    enum flavour flavour;
    char text[200], call[200]; /* the cache, and the last call */
};

struct append_case append_case_make(uint64_t seed);
void append_case_free(struct append_case *c);

/* One append of some sequences in some way, or the end of some sequence forgotten. */
struct verdict append_case_step(struct append_case *c, const qkv_context *context);

/* Is everything as it should be, and nothing beside it written? */
struct verdict append_case_check(const struct append_case *c);

/* Some tokens of a sequence exported, beside what memory should hold. */
struct verdict append_case_export(struct append_case *c, const qkv_context *context);

/* A number of some flavour; argument: an enum flavour. */
float append_value(void *flavour, uint64_t hash);

void append_add_refused_tests(TCase *tcase);

#endif
