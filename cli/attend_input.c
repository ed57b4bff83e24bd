/* SPDX-License-Identifier: Apache-2.0 */
/*
 * q, k and v of qkv attend from their files: how [tokens, dim], [heads, tokens, dim] and
 * [batch, heads, tokens, dim] become one description, and whether the three fit together.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "attend.h"
#include "complain.h"

static int bad_shape(const struct array *a, const char *why) {
    char text[SHAPE_TEXT];
    return complain(FAILED, a->path, "has shape %s; %s", shape_text(text, a->dims, a->shape), why);
}

/* [tokens, dim] with the heads side by side in dim. */
static int view_merged(struct view *view, const struct array *a, int64_t heads) {
    int64_t width = a->shape[1];
    if (width % heads != 0) {
        char why[80];
        snprintf(why, sizeof why, "its columns do not split into %" PRId64 " heads", heads);
        return bad_shape(a, why);
    }
    *view = (struct view){a->path, 1, heads, a->shape[0], width / heads, {0}};
    view->tensor = qkv_tensor_bshd(a->data, heads, view->length, view->dim);
    return FINE;
}

/* Sees an array as [batch, heads, length, dim]. heads: what the option of that name says, or 0;
 * a two-dimensional array without it has `merged_heads`. */
static int make_view(struct view *view, const struct array *a, const char *option, int64_t heads,
                     int64_t merged_heads) {
    if (a->dims < 2 || a->dims > 4) {
        return bad_shape(a, "[tokens, dim], [heads, tokens, dim] or [batch, heads, tokens, dim] "
                            "is needed");
    }
    if (a->shape[a->dims - 1] == 0) {
        return bad_shape(a, "its last dimension is empty");
    }
    if (a->dims == 2) {
        return view_merged(view, a, heads ? heads : merged_heads);
    }
    const int64_t *last = a->shape + a->dims - 3;
    *view = (struct view){a->path, a->dims == 4 ? a->shape[0] : 1, last[0], last[1], last[2], {0}};
    view->tensor = qkv_tensor_bhsd(a->data, view->heads, view->length, view->dim);
    if (heads && heads != view->heads) {
        return complain(FAILED, option, "says %" PRId64 ", but %s has %" PRId64 " heads", heads,
                        a->path, view->heads);
    }
    return FINE;
}

/* The heads of a two-dimensional k whose number no option says. */
static int64_t heads_of_k(const struct job *job, const struct view *q) {
    bool divided = job->options->heads.given || job->q.dims > 2;
    int64_t heads = divided && q->dim > 0 && job->k.dims == 2 ? job->k.shape[1] / q->dim : 1;
    return heads > 0 ? heads : 1;
}

/* All views of ragged arrays hold the rows of all sequences, so they have no batch. */
static int check_batch(const struct view *view, const struct option_list *cu, const char *option,
                       int64_t batch) {
    if (!cu->values) {
        if (view->batch == batch) {
            return FINE;
        }
        return complain(FAILED, view->path, "holds a batch of %" PRId64 "; %" PRId64 " is needed",
                        view->batch, batch);
    }
    if (view->batch != 1) {
        return complain(FAILED, view->path, "has a batch dimension, which does not go with %s",
                        option);
    }
    int32_t end = cu->values[cu->count - 1];
    if (end != view->length) {
        return complain(FAILED, option, "ends with %d, but %s has %" PRId64 " rows", end,
                        view->path, view->length);
    }
    return FINE;
}

static int check_fit(const struct view *q, const struct view *k, const struct view *v) {
    if (k->dim != q->dim) {
        return complain(FAILED, k->path, "has head_dim %" PRId64 ", but %s has %" PRId64, k->dim,
                        q->path, q->dim);
    }
    if (k->heads && q->heads % k->heads != 0) {
        return complain(FAILED, q->path,
                        "has %" PRId64 " heads, no multiple of the %" PRId64 " of %s", q->heads,
                        k->heads, k->path);
    }
    if (v->heads != k->heads) {
        return complain(FAILED, v->path, "has %" PRId64 " heads, but %s has %" PRId64, v->heads,
                        k->path, k->heads);
    }
    if (v->length != k->length) {
        return complain(FAILED, v->path, "has %" PRId64 " rows, but %s has %" PRId64, v->length,
                        k->path, k->length);
    }
    return FINE;
}

/* The longest sequence: of a ragged batch, or all rows. */
static int64_t longest(const struct option_list *cu, int64_t rows) {
    int64_t most = cu->values ? 0 : rows;
    for (int i = 1; i < cu->count; i++) {
        int64_t length = cu->values[i] - cu->values[i - 1];
        most = length > most ? length : most;
    }
    return most;
}

int attend_take_shapes(struct job *job, const struct view *q, const struct view *k,
                       const struct view *v) {
    const struct attend_options *o = job->options;
    const struct option_list *cu_kv = o->x && !o->cu_kv.values ? &o->cu_q : &o->cu_kv;
    const struct option_list *cu = o->cu_q.values ? &o->cu_q : cu_kv;
    int64_t batch = cu->values ? cu->count - 1 : q->batch;
    int status = check_fit(q, k, v);
    if (!status) {
        status = check_batch(q, &o->cu_q, "--cu-q", batch);
    }
    if (!status) {
        status = check_batch(k, cu_kv, "--cu-kv", batch);
    }
    if (!status) {
        status = check_batch(v, cu_kv, "--cu-kv", batch);
    }
    qkv_attention_params *p = &job->params;
    p->batch = batch;
    p->q_heads = q->heads;
    p->kv_heads = k->heads;
    p->q_len = longest(&o->cu_q, q->length);
    p->kv_len = longest(cu_kv, k->length);
    p->head_dim = q->dim;
    p->v_dim = v->dim;
    p->cu_q = o->cu_q.values;
    p->cu_kv = cu_kv->values;
    job->tensors.q = q->tensor;
    job->tensors.k = k->tensor;
    job->tensors.v = v->tensor;
    job->blocks = q->batch;
    job->rows = q->length;
    return status;
}

int attend_load(struct job *job) {
    const struct attend_options *o = job->options;
    struct view q, k, v;
    int64_t heads = o->heads.given ? o->heads.value : 0;
    int64_t kv_heads = o->kv_heads.given ? o->kv_heads.value : 0;
    if (array_load(&job->q, o->q) || array_load(&job->k, o->k) || array_load(&job->v, o->v) ||
        make_view(&q, &job->q, "--heads", heads, 1) ||
        make_view(&k, &job->k, "--kv-heads", kv_heads, heads_of_k(job, &q)) ||
        make_view(&v, &job->v, "--kv-heads", kv_heads, k.heads)) {
        return FAILED;
    }
    job->merged = job->q.dims == 2;
    job->batch_axis = job->q.dims == 4;
    job->head_axis = !job->merged || o->heads.given;
    return attend_take_shapes(job, &q, &k, &v);
}
