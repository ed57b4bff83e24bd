/* SPDX-License-Identifier: Apache-2.0 */
/* qkv attend, from its options to its outputs; what its files share. */
#ifndef QKV_CLI_ATTEND_H
#define QKV_CLI_ATTEND_H

#include <stdbool.h>
#include <stdint.h>

#include <qkv/qkv.h>

#include "array.h"
#include "options.h"
#include "runner.h"

/* What the command line says, as attend_options.c describes it. */
struct attend_options {
    const char *q, *k, *v;
    const char *x, *wq, *wk, *wv, *bq, *bk, *bv;
    struct option_choice w_layout;
    struct option_integer heads, kv_heads;
    struct option_real scale, softcap;
    bool causal;
    struct option_choice align;
    struct option_choice exp;
    struct option_list window;
    const char *alibi, *sinks, *bias, *mask;
    struct option_list q_lens, kv_lens, cu_q, cu_kv;
    struct option_choice cache_dtype, cache_v_dtype, cache_arithmetic;
    struct option_integer page_size;
    const char *out, *lse, *weights;
    bool show;
    const char *isa;
    struct option_integer threads;
};

/* Of the answer from a cache from the exact one; and the cache's size. */
struct difference {
    double largest, rms; /* over the RMS of the exact answer */
    size_t bytes;
    int64_t tokens; /* of all sequences, that there is room for */
};

/* One call of attention: its inputs, what it computes, and the shape of the answer. */
struct job {
    const struct attend_options *options;
    struct runner runner;
    qkv_context context;
    qkv_attention_params params;
    qkv_tensors tensors;
    struct array q, k, v; /* as loaded, or as projected from x: [batch, tokens, heads * dim] */
    struct array alibi, sinks, bias, mask;
    bool merged;          /* out has its heads side by side in the last dimension */
    bool batch_axis;      /* the outputs have a batch dimension */
    bool head_axis;       /* lse and weights have a head dimension */
    int64_t blocks, rows; /* the outputs hold `blocks` times `rows` rows a head: the batch and
                             its length, or 1 and the rows of all ragged sequences */
    float *out, *lse, *weights;
    struct difference difference;
};

/* Each says FINE, FAILED or USAGE, and complains itself. */

/* Whether the options go together, as far as they alone can tell. */
int attend_check_options(const struct attend_options *options);

/* q, k and v from their files, or x from its file and projected: fills the tensors and the
 * shapes in the parameters. */
int attend_load(struct job *job);
int attend_project(struct job *job);

/* The shapes of q, k and v, seen as [batch, heads, length, dim]: fills the parameters. */
struct view {
    const char *path;
    int64_t batch, heads, length, dim;
    qkv_tensor tensor;
};
int attend_take_shapes(struct job *job, const struct view *q, const struct view *k,
                       const struct view *v);

/* Everything else in the parameters: scale, masks, lengths. */
int attend_set_params(struct job *job);

/* Memory for what is asked for, the computation, the files, the heat maps. */
int attend_compute(struct job *job);
int attend_save(const struct job *job);
void attend_show(const struct job *job);

/* With --cache-dtype: out and lse once more, by way of a cache; what that changed. */
int attend_cached(struct job *job);
void attend_tell(const struct job *job);

/* Memory for a product of sizes, at least one byte, in *data. */
int attend_allocate(const char *what, int dims, const int64_t *shape, float **data);

/* Complains of a status of the library, under the option that it is about. */
int attend_explain(qkv_status status);

#endif
