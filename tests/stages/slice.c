/* SPDX-License-Identifier: Apache-2.0 */
/* A part of a call as a call of its own: a sequence without its batch, a head without the others,
 * a chunk of a prefill, one query by itself. */
#include "slice.h"

#include <math.h>
#include <string.h>

#include "ref/ref.h"
#include "support/run.h"

bool same_bits(float x, float y) {
    return memcmp(&x, &y, sizeof x) == 0 || (isnan(x) && isnan(y));
}

int64_t slice_keys(const struct test_case *c, const struct slice *s) {
    const qkv_attention_params *p = &c->params;
    bool causal = p->flags & QKV_FLAG_CAUSAL;
    int64_t keys = ref_keys(p, s->b), shift = keys - ref_queries(p, s->b);
    if (!causal && p->window_left < 0 && p->window_right < 0 && !p->alibi_slopes)
        return keys;
    int64_t end = s->first + s->rows + (p->align == QKV_ALIGN_TOP_LEFT ? 0 : shift);
    return end == keys || (causal && end > 0 && end < keys) ? end : 0;
}

static void move_to(qkv_tensor *view, int64_t b, int64_t h, int64_t t) {
    size_t element = view->dtype == QKV_BOOL ? 1 : sizeof(float);
    int64_t step = b * view->stride[0] + h * view->stride[1] + t * view->stride[2];
    if (view->data)
        view->data = (char *)view->data + step * (int64_t)element;
}

static void move_params(qkv_attention_params *p, const struct slice *s, int64_t keys) {
    move_to(&p->bias, s->b, s->h, s->first);
    move_to(&p->mask, s->b, s->h, s->first);
    p->alibi_slopes = p->alibi_slopes ? p->alibi_slopes + s->h : NULL;
    p->sinks = p->sinks ? p->sinks + s->h : NULL;
    p->batch = p->q_heads = p->kv_heads = 1;
    p->q_len = s->rows;
    p->kv_len = keys;
    p->align = QKV_ALIGN_BOTTOM_RIGHT;
    p->q_lens = p->kv_lens = p->cu_q = p->cu_kv = NULL;
}

/* The inputs' views moved to the slice, and outputs of its own. */
static void move_tensors(const struct test_case *c, const struct slice *s, qkv_tensors *tensors,
                         struct tensor own[ROLE_COUNT], int64_t keys) {
    struct ref_place query = ref_query_place(&c->params, s->b, s->first);
    struct ref_place key = ref_key_place(&c->params, s->b, 0);
    int64_t kv_head = s->h / (c->desc.q_heads / c->desc.kv_heads);
    for (int role = 0; role <= ROLE_LSE; role++) {
        qkv_tensor *view = case_view(tensors, (enum role)role);
        bool keyed = role == ROLE_K || role == ROLE_V;
        if (case_is_output(c, (enum role)role) && view->data) {
            int64_t width = role == ROLE_OUT ? c->desc.v_dim : role == ROLE_LSE ? 1 : keys;
            own[role] =
                tensor_make(QKV_F32, (const int64_t[]){1, 1, s->rows, width}, (struct layout){0});
            *view = own[role].view;
        } else if (keyed) {
            move_to(view, key.b, kv_head, key.t);
        } else {
            move_to(view, query.b, s->h, query.t);
        }
    }
}

static struct verdict compare_bits(const struct test_case *c, const struct slice *s,
                                   const struct tensor *own, enum role role) {
    qkv_tensors whole = c->tensors;
    const qkv_tensor *view = case_view(&whole, role);
    for (int64_t i = 0; i < s->rows; i++) {
        struct ref_place place = ref_query_place(&c->params, s->b, s->first + i);
        for (int64_t x = 0; x < own->dim[3]; x++) {
            float alone = *tensor_f32(&own->view, 0, 0, i, x);
            float among = *tensor_f32(view, place.b, s->h, place.t, x);
            if (!same_bits(alone, among))
                return verdict_fail("%s[b=%lld h=%lld i=%lld c=%lld] is %a alone (%lld rows) and "
                                    "%a among others",
                                    role_names[role], (long long)s->b, (long long)s->h,
                                    (long long)(s->first + i), (long long)x, (double)alone,
                                    (long long)s->rows, (double)among);
        }
    }
    return verdict_ok();
}

static struct verdict run_slice(const struct test_case *c, int stage, const qkv_context *context,
                                const struct slice *s, int64_t keys) {
    qkv_attention_params params = c->params;
    qkv_tensors tensors = c->tensors;
    struct tensor own[ROLE_COUNT] = {0};
    move_tensors(c, s, &tensors, own, keys);
    move_params(&params, s, keys);
    struct call call = {context, stage, &params, &tensors};
    struct verdict verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (verdict.ok && own[role].memory.pages)
            verdict = compare_bits(c, s, &own[role], (enum role)role);
        tensor_free(&own[role]);
    }
    return verdict;
}

struct verdict slice_check(const struct test_case *c, int stage, const qkv_context *context,
                           const struct slice *s) {
    const int64_t keys = slice_keys(c, s);
    if (s->rows == 0 || keys == 0)
        return verdict_ok();
    return run_slice(c, stage, context, s, keys);
}
