/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sentence of qkv party: a file in the container that data/FORMAT.md describes, with the
 * tokens, the matrices of a few heads of a trained model, and what double precision makes of them.
 */
#ifndef QKV_CLI_PARTY_DATA_H
#define QKV_CLI_PARTY_DATA_H

#include <stdint.h>

enum { PARTY_MAX_TOKENS = 64, PARTY_MAX_HEADS = 16 };

struct party_head {
    int number; /* in the model's layer */
    const char *caption;
};

/* All pointers lead into the file's own memory. */
struct party {
    char *path;
    unsigned char *file;
    char *header; /* a copy, cut into lines */
    int version;

    const char *model, *licence, *sentence;
    int layer;
    float scale;

    int64_t tokens, heads, d_model, head_dim;
    const char *token[PARTY_MAX_TOKENS];
    struct party_head head[PARTY_MAX_HEADS];
    int64_t token_lines, head_lines;

    const float *x;              /* [tokens, d_model] */
    const float *wq, *wk, *wv;   /* [heads, d_model, head_dim] */
    const float *bq, *bk, *bv;   /* [heads, head_dim] */
    const double *q, *k, *v, *o; /* [heads, tokens, head_dim] */
    const double *weights;       /* [heads, tokens, tokens] */
    const double *lse;           /* [heads, tokens] */
};

/* Finds and reads the file; checks all of it. FINE, or FAILED with a complaint. */
int party_load(struct party *party);

void party_free(struct party *party);

#endif
