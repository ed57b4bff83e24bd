/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of qkv attend beyond the shapes: scale, positions, slopes, sinks, bias, mask and
 * the lengths of a padded batch. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attend.h"
#include "complain.h"

static int bad_shape(const struct array *a, const int64_t *needed) {
    char has[SHAPE_TEXT], fits[SHAPE_TEXT];
    return complain(FAILED, a->path, "has shape %s, which does not broadcast to %s",
                    shape_text(has, a->dims, a->shape), shape_text(fits, 4, needed));
}

/* One number for each query head. */
static int load_per_head(struct array *array, const char *path, int64_t heads, const float **out) {
    if (!path) {
        return FINE;
    }
    if (array_load(array, path)) {
        return FAILED;
    }
    if (array->dims != 1 || array->shape[0] != heads) {
        char text[SHAPE_TEXT];
        return complain(FAILED, path, "has shape %s; (%" PRId64 ",), a number a head, is needed",
                        shape_text(text, array->dims, array->shape), heads);
    }
    *out = array->data;
    return FINE;
}

/* The slopes of the ALiBi paper (Press, Smith and Lewis 2022): a geometric sequence. */
static int make_slopes(struct array *array, int64_t heads, const float **out) {
    float *slopes;
    if (attend_allocate("--alibi", 1, &heads, &slopes)) {
        return FAILED;
    }
    for (int64_t h = 0; h < heads; h++) {
        slopes[h] = (float)exp2(-8.0 * (double)(h + 1) / (double)heads);
    }
    array->data = slopes;
    *out = slopes;
    return FINE;
}

/* Strides over [batch, heads, queries, keys] as NumPy broadcasts: dimensions that are missing in
 * front, and those of size 1, have a stride of 0. */
static int broadcast(const struct array *a, const int64_t *shape, int dtype, qkv_tensor *tensor) {
    int64_t step = 1;
    *tensor = (qkv_tensor){.data = a->data, .dtype = dtype};
    if (a->dims > 4) {
        return bad_shape(a, shape);
    }
    for (int i = 3, j = a->dims - 1; j >= 0; i--, j--) {
        if (a->shape[j] != 1 && a->shape[j] != shape[i]) {
            return bad_shape(a, shape);
        }
        tensor->stride[i] = a->shape[j] == 1 ? 0 : step;
        step *= a->shape[j];
    }
    return FINE;
}

static int set_per_head(struct job *job) {
    const struct attend_options *o = job->options;
    qkv_attention_params *p = &job->params;
    if (load_per_head(&job->sinks, o->sinks, p->q_heads, &p->sinks)) {
        return FAILED;
    }
    if (o->alibi && strcmp(o->alibi, "auto") == 0) {
        return make_slopes(&job->alibi, p->q_heads, &p->alibi_slopes);
    }
    return load_per_head(&job->alibi, o->alibi, p->q_heads, &p->alibi_slopes);
}

static int set_masks(struct job *job) {
    const struct attend_options *o = job->options;
    qkv_attention_params *p = &job->params;
    const int64_t shape[] = {p->batch, p->q_heads, p->q_len, p->kv_len};
    if (o->bias &&
        (array_load(&job->bias, o->bias) || broadcast(&job->bias, shape, QKV_F32, &p->bias))) {
        return FAILED;
    }
    if (o->mask && (array_load_mask(&job->mask, o->mask) ||
                    broadcast(&job->mask, shape, QKV_BOOL, &p->mask))) {
        return FAILED;
    }
    return FINE;
}

static int take_lens(const char *option, const struct option_list *list, int64_t batch,
                     const int32_t **lens) {
    if (list->values && list->count != batch) {
        return complain(FAILED, option, "has %d numbers for a batch of %" PRId64, list->count,
                        batch);
    }
    *lens = list->values;
    return FINE;
}

static int set_lengths(struct job *job) {
    const struct attend_options *o = job->options;
    qkv_attention_params *p = &job->params;
    bool same = o->x && !o->kv_lens.values && !o->cu_kv.values;
    if (take_lens("--q-lens", &o->q_lens, p->batch, &p->q_lens)) {
        return FAILED;
    }
    return take_lens("--kv-lens", same ? &o->q_lens : &o->kv_lens, p->batch, &p->kv_lens);
}

int attend_set_params(struct job *job) {
    const struct attend_options *o = job->options;
    qkv_attention_params *p = &job->params;
    if (o->scale.given) {
        p->flags |= QKV_FLAG_SCALE;
        p->scale = (float)o->scale.value;
    }
    if (o->causal) {
        p->flags |= QKV_FLAG_CAUSAL;
    }
    if (o->align.given) {
        p->align = o->align.value;
    }
    if (o->exp.given) {
        p->exp = o->exp.value;
    }
    if (o->window.values) {
        p->window_left = o->window.values[0];
        p->window_right = o->window.values[1];
    }
    p->softcap = (float)o->softcap.value;
    if (set_per_head(job) || set_masks(job)) {
        return FAILED;
    }
    return set_lengths(job);
}
