/* SPDX-License-Identifier: Apache-2.0 */
/* The same inputs by way of a key/value cache: K and V are appended, rounded as the cache stores
 * them, and attention reads them from there. What that changes is told beside the answer. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <qkv/cache.h>

#include "attend.h"
#include "complain.h"

/* In the order of the choices of --cache-dtype. */
static const struct {
    const char *name;
    int dtype;
} stored[] = {{"bf16", QKV_BF16}, {"f16", QKV_F16}, {"i8", QKV_I8}, {"f32", QKV_F32}};

static int v_type(const struct attend_options *o) {
    return o->cache_v_dtype.given ? o->cache_v_dtype.value : o->cache_dtype.value;
}

/* A cache of the command's own. */
struct store {
    qkv_cache cache;
    int64_t entries; /* of the table */
};

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Without --page-size a sequence is one page. Pages stand in memory from the last to the first:
 * where they are changes nothing. */
static int make_tables(struct store *s) {
    qkv_cache *c = &s->cache;
    s->entries = c->sequences * c->sequence_pages;
    c->pages = s->entries;
    c->table = calloc((size_t)s->entries, sizeof *c->table);
    c->lengths = calloc((size_t)c->sequences, sizeof *c->lengths);
    c->holders = calloc((size_t)s->entries, sizeof *c->holders);
    if (!c->table || !c->lengths || !c->holders) {
        return out_of_memory("--cache-dtype");
    }
    for (int64_t i = 0; i < s->entries; i++) {
        c->table[i] = (int32_t)(s->entries - 1 - i);
    }
    return FINE;
}

static int make_store(struct store *s, const struct job *job) {
    const struct attend_options *o = job->options;
    const qkv_attention_params *p = &job->params;
    const int64_t keys = most((p->kv_len + 15) / 16 * 16, 16);
    qkv_cache *c = &s->cache;
    qkv_cache_init(c);
    c->kv_heads = p->kv_heads;
    c->head_dim = p->head_dim;
    c->v_dim = p->v_dim;
    c->page_tokens = o->page_size.given ? o->page_size.value : keys;
    c->sequences = p->batch;
    c->sequence_pages = (keys + c->page_tokens - 1) / c->page_tokens;
    c->k_dtype = stored[o->cache_dtype.value].dtype;
    c->v_dtype = stored[v_type(o)].dtype;
    int status = make_tables(s);
    if (status) {
        return status;
    }
    const size_t size = qkv_cache_memory_size(c);
    c->memory = size ? aligned_alloc(QKV_ALIGNMENT, size) : NULL;
    return c->memory ? FINE : out_of_memory("--cache-dtype");
}

static void free_store(struct store *s) {
    free(s->cache.memory);
    free(s->cache.table);
    free(s->cache.lengths);
    free(s->cache.holders);
}

/* All keys and values at once. */
static int fill_store(const struct store *s, struct job *job) {
    const qkv_attention_params *p = &job->params;
    qkv_append_params params;
    qkv_plan plan;
    qkv_exec exec;
    qkv_append_params_init(&params);
    params.batch = p->batch;
    params.tokens = p->kv_len;
    params.lens = p->kv_lens;
    params.cu = p->cu_kv;
    qkv_status status = qkv_append_plan(&plan, &params, &s->cache, job->runner.context);
    if (status) {
        return attend_explain(status);
    }
    if (runner_prepare(&job->runner, &plan, &exec)) {
        return FAILED;
    }
    status = qkv_append(&params, &s->cache, &job->tensors, &exec);
    return status ? attend_explain(status) : FINE;
}

/* The cache knows its sequences' lengths. */
static int read_store(const struct store *s, struct job *job, const qkv_tensors *tensors) {
    qkv_attention_params params = job->params;
    qkv_plan plan;
    qkv_exec exec;
    params.kv_lens = params.cu_kv = NULL;
    params.arithmetic = job->options->cache_arithmetic.value;
    qkv_status status = qkv_decode_plan(&plan, &params, &s->cache, NULL, job->runner.context);
    if (status) {
        return attend_explain(status);
    }
    if (runner_prepare(&job->runner, &plan, &exec)) {
        return FAILED;
    }
    status = qkv_decode(&params, tensors, &s->cache, NULL, &exec);
    return status ? attend_explain(status) : FINE;
}

/* Numbers that are equal, NaN among them, do not differ. */
static void compare(struct difference *d, const float *exact, const float *got, int64_t count) {
    double squares = 0, size = 0;
    for (int64_t i = 0; i < count; i++) {
        const bool both_nan = isnan(exact[i]) && isnan(got[i]);
        if (both_nan || exact[i] == got[i]) {
            size += isfinite(exact[i]) ? (double)exact[i] * (double)exact[i] : 0;
            continue;
        }
        const double step = fabs((double)got[i] - (double)exact[i]);
        d->largest = step > d->largest || isnan(step) ? step : d->largest;
        squares += step * step;
        size += (double)exact[i] * (double)exact[i];
    }
    if (squares != 0) {
        d->largest /= sqrt(size / (double)count);
        d->rms = sqrt(squares / size);
    }
}

/* The answer from the cache takes the exact one's place once they have been compared. */
static int answer(struct job *job, const struct store *s) {
    const qkv_attention_params *p = &job->params;
    const int64_t out_shape[] = {job->blocks, p->q_heads, job->rows, p->v_dim};
    float *out = NULL, *exact = job->out;
    qkv_tensors tensors = job->tensors;
    if (attend_allocate("--out", 4, out_shape, &out)) {
        return FAILED;
    }
    tensors.out.data = out;
    int status = read_store(s, job, &tensors);
    if (status) {
        free(out);
        return status;
    }
    compare(&job->difference, exact, out, job->blocks * p->q_heads * job->rows * p->v_dim);
    job->out = out;
    free(exact);
    return FINE;
}

int attend_cached(struct job *job) {
    struct store s = {0};
    int status = make_store(&s, job);
    if (!status) {
        status = fill_store(&s, job);
    }
    if (!status) {
        status = answer(job, &s);
    }
    if (!status) {
        job->difference.bytes = qkv_cache_memory_size(&s.cache);
        job->difference.tokens = s.entries * s.cache.page_tokens;
    }
    free_store(&s);
    return status;
}

static void tell_variant(const struct job *job, int type) {
    const char *variant = qkv_narrow_variant(job->runner.context, stored[type].dtype);
    if (job->options->cache_arithmetic.value == QKV_ARITHMETIC_NARROW && variant) {
        printf(" (by %s)", variant);
    }
}

void attend_tell(const struct job *job) {
    const struct difference *d = &job->difference;
    const int k_type = job->options->cache_dtype.value, v = v_type(job->options);
    printf("a cache of %zu bytes with room for %" PRId64 " tokens, K in %s", d->bytes, d->tokens,
           stored[k_type].name);
    tell_variant(job, k_type);
    printf(", V in %s", stored[v].name);
    tell_variant(job, v);
    putchar('\n');
    printf("from exact attention, in percent of the RMS of its output: RMS %.4g %%, "
           "at most %.4g %%\n",
           100 * d->rms, 100 * d->largest);
}
