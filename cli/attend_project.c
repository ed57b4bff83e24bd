/* SPDX-License-Identifier: Apache-2.0 */
/* q, k and v of qkv attend projected from x: loads x, the matrices and the biases, and projects
 * into [batch, tokens, heads * dim] arrays. */
#include <inttypes.h>
#include <stdlib.h>

#include "attend.h"
#include "complain.h"

/* One matrix with its bias, and what they make. */
struct projection {
    const char *w_path, *b_path;
    struct array w, b;
    int64_t width; /* outputs of the matrix */
    struct array *result;
};

struct projections {
    struct array x;
    struct projection q, k, v;
    int64_t batch, tokens, d_model;
    int64_t heads, kv_heads, head_dim, v_dim;
};

static int bad_shape(const struct array *a, const char *needed) {
    char text[SHAPE_TEXT];
    return complain(FAILED, a->path, "has shape %s; %s is needed",
                    shape_text(text, a->dims, a->shape), needed);
}

static int load_x(struct projections *p, const char *path) {
    if (array_load(&p->x, path)) {
        return FAILED;
    }
    if (p->x.dims != 2 && p->x.dims != 3) {
        return bad_shape(&p->x, "[tokens, d_model] or [batch, tokens, d_model]");
    }
    p->batch = p->x.dims == 3 ? p->x.shape[0] : 1;
    p->tokens = p->x.shape[p->x.dims - 2];
    p->d_model = p->x.shape[p->x.dims - 1];
    return FINE;
}

static int load_one(struct projections *p, struct projection *one, int layout) {
    if (array_load(&one->w, one->w_path)) {
        return FAILED;
    }
    int in = layout == QKV_W_IN_OUT ? 0 : 1;
    if (one->w.dims != 2 || one->w.shape[in] != p->d_model || one->w.shape[1 - in] == 0) {
        return bad_shape(&one->w, layout == QKV_W_IN_OUT ? "[d_model, width], as --x has it,"
                                                         : "[width, d_model], as --x has it,");
    }
    one->width = one->w.shape[1 - in];
    if (!one->b_path) {
        return FINE;
    }
    if (array_load(&one->b, one->b_path)) {
        return FAILED;
    }
    if (one->b.dims != 1 || one->b.shape[0] != one->width) {
        return bad_shape(&one->b, "one number for each output of its matrix");
    }
    return FINE;
}

/* One size into another: width = heads * dim. */
static int divide(const struct projection *one, const char *what, int64_t by, int64_t *quotient) {
    if (one->width % by != 0) {
        return complain(FAILED, one->w_path, "has %" PRId64 " outputs, no multiple of %s %" PRId64,
                        one->width, what, by);
    }
    *quotient = one->width / by;
    return FINE;
}

static int set_heads(struct projections *p, const struct attend_options *o) {
    p->heads = o->heads.given ? o->heads.value : 1;
    if (divide(&p->q, "--heads", p->heads, &p->head_dim) ||
        divide(&p->k, "head_dim", p->head_dim, &p->kv_heads)) {
        return FAILED;
    }
    if (o->kv_heads.given && o->kv_heads.value != p->kv_heads) {
        return complain(FAILED, "--kv-heads",
                        "says %" PRId64 ", but %s has %" PRId64 " outputs, "
                        "%" PRId64 " heads of %" PRId64,
                        o->kv_heads.value, o->wk, p->k.width, p->kv_heads, p->head_dim);
    }
    return divide(&p->v, "kv_heads", p->kv_heads, &p->v_dim);
}

/* The array that a projection writes, and the view of it. */
static int make_result(const struct projections *p, struct projection *one, int64_t heads,
                       struct view *view) {
    const int64_t shape[] = {p->batch, p->tokens, one->width};
    float *data;
    if (attend_allocate(one->w_path, 3, shape, &data)) {
        return FAILED;
    }
    one->result->data = data;
    int64_t dim = one->width / heads;
    *view = (struct view){p->x.path, p->batch, heads, p->tokens, dim, {0}};
    view->tensor = qkv_tensor_bshd(data, heads, p->tokens, dim);
    return FINE;
}

/* A matrix or a bias: its rows stand one after the other. */
static qkv_tensor tensor_of(const struct array *a) {
    qkv_tensor tensor = {.data = a->data, .dtype = a->data ? QKV_F32 : QKV_DTYPE_NONE};
    tensor.stride[2] = a->dims == 2 ? a->shape[1] : 0;
    tensor.stride[3] = 1;
    return tensor;
}

static int run_projection(struct job *job, const struct projections *p, const struct view *q,
                          const struct view *k, const struct view *v, int layout) {
    qkv_project_params params;
    qkv_project_params_init(&params);
    params.batch = p->batch;
    params.tokens = p->tokens;
    params.d_model = p->d_model;
    params.q_heads = p->heads;
    params.kv_heads = p->kv_heads;
    params.head_dim = p->head_dim;
    params.v_dim = p->v_dim;
    params.layout = layout;

    qkv_project_tensors tensors;
    qkv_project_tensors_init(&tensors);
    tensors.x = qkv_tensor_bhsd(p->x.data, 1, p->tokens, p->d_model);
    tensors.wq = tensor_of(&p->q.w);
    tensors.wk = tensor_of(&p->k.w);
    tensors.wv = tensor_of(&p->v.w);
    tensors.bq = tensor_of(&p->q.b);
    tensors.bk = tensor_of(&p->k.b);
    tensors.bv = tensor_of(&p->v.b);
    tensors.q = q->tensor;
    tensors.k = k->tensor;
    tensors.v = v->tensor;

    qkv_plan plan;
    qkv_exec exec;
    qkv_status status = qkv_project_plan(&plan, &params, job->runner.context);
    if (status) {
        return attend_explain(status);
    }
    if (runner_prepare(&job->runner, &plan, &exec)) {
        return FAILED;
    }
    status = qkv_project(&params, &tensors, &exec);
    return status ? attend_explain(status) : FINE;
}

static int load_all(struct projections *p, const struct attend_options *o, int layout) {
    if (load_x(p, o->x) || load_one(p, &p->q, layout) || load_one(p, &p->k, layout) ||
        load_one(p, &p->v, layout)) {
        return FAILED;
    }
    return set_heads(p, o);
}

static int project(struct job *job, struct projections *p, int layout) {
    const struct attend_options *o = job->options;
    struct view q, k, v;
    if (load_all(p, o, layout) || make_result(p, &p->q, p->heads, &q) ||
        make_result(p, &p->k, p->kv_heads, &k) || make_result(p, &p->v, p->kv_heads, &v) ||
        run_projection(job, p, &q, &k, &v, layout)) {
        return FAILED;
    }
    job->merged = true;
    job->batch_axis = p->x.dims == 3;
    job->head_axis = o->heads.given;
    return attend_take_shapes(job, &q, &k, &v);
}

int attend_project(struct job *job) {
    const struct attend_options *o = job->options;
    struct projections p = {
        .q = {.w_path = o->wq, .b_path = o->bq, .result = &job->q},
        .k = {.w_path = o->wk, .b_path = o->bk, .result = &job->k},
        .v = {.w_path = o->wv, .b_path = o->bv, .result = &job->v},
    };
    int status = project(job, &p, o->w_layout.given ? o->w_layout.value : QKV_W_IN_OUT);
    struct array *loaded[] = {&p.x, &p.q.w, &p.k.w, &p.v.w, &p.q.b, &p.k.b, &p.v.b};
    for (size_t i = 0; i < sizeof loaded / sizeof loaded[0]; i++) {
        array_free(loaded[i]);
    }
    return status;
}
