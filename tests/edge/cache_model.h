/* SPDX-License-Identifier: Apache-2.0 */
/* A model of a cache: lists of tokens, and what cache.h says of each call about them. It foretells
 * which faults a call has; a call must be refused with one of them, or succeed if it has none. */
#ifndef QKV_TEST_CACHE_MODEL_H
#define QKV_TEST_CACHE_MODEL_H

#include "support/cache_case.h"
#include "support/rng.h"

enum { MODEL_SEQUENCES = 4, MODEL_TOKENS = 144 };

struct model {
    struct cache_case c;
    int64_t capacity; /* tokens of a sequence */
    int64_t length[MODEL_SEQUENCES];
    token held[MODEL_SEQUENCES][MODEL_TOKENS];
};

/* The faults that a call may be refused with. */
enum { FAULTS_MOST = 8 };
struct faults {
    qkv_status status[FAULTS_MOST];
    int count;
};

void faults_add(struct faults *f, bool there, qkv_arg arg, qkv_fault fault);

/* Fails if the status is not one of the faults, or not OK where there are none. */
struct verdict faults_check(const struct faults *f, qkv_status status, const char *call);

/* Pages [first, end) of a sequence must exist and be held by nobody; `taken` says which pages the
 * call has for others, and is added to. */
void faults_of_pages(struct faults *f, const struct model *m, int64_t sequence, int64_t first,
                     int64_t end, bool *taken);

/* Pages that hold a token are not to be changed; this is the first that a sequence does not hold.
 */
int64_t model_pages(const struct model *m, int64_t sequence);
int64_t model_pages_for(const struct model *m, int64_t tokens);

/* How many sequences hold a page. */
int model_holders(const struct model *m, int64_t page);

/* Lengths and holders are the model's; and, if `all`, every number of every token. */
struct verdict model_check(const struct model *m, const qkv_context *context, bool all);

/* Queries of random numbers, causal, the last at the last token, attend to a sequence: beside
 * double precision. Does nothing where a token is odd. */
struct verdict model_check_decode(const struct model *m, const qkv_context *context,
                                  int64_t sequence, struct rng *rng);

#endif
