/* SPDX-License-Identifier: Apache-2.0 */
/* A part of a call of decode as a call of its own. */
#include "cached_slice.h"

#include "ref/ref.h"
#include "slice.h"

enum { HEADS_MAX = 64 };

struct sliced {
    qkv_attention_params params;
    qkv_tensors tensors;
    struct tensor out, lse;
    int32_t kv_len, sequence;
    float slopes[HEADS_MAX], sinks[HEADS_MAX];
};

/* Query head h of the slice among those of the case. */
static int64_t head_of(const struct cached *x, const struct cached_slice *s, int64_t h) {
    return s->member < 0 ? h : h * (x->c.desc.q_heads / x->c.desc.kv_heads) + s->member;
}

static void move_to(const struct cached *x, const struct cached_slice *s, qkv_tensor *view,
                    struct ref_place place) {
    const int64_t at =
        place.b * view->stride[0] + head_of(x, s, 0) * view->stride[1] + place.t * view->stride[2];
    if (!view->data)
        return;
    view->data = (char *)view->data + at * (view->dtype == QKV_BOOL ? 1 : (int64_t)sizeof(float));
    if (s->member >= 0)
        view->stride[1] *= x->c.desc.q_heads / x->c.desc.kv_heads;
}

static const float *pick(const struct cached *x, const struct cached_slice *s, const float *from,
                         float *to, int64_t heads) {
    for (int64_t h = 0; from && h < heads; h++)
        to[h] = from[head_of(x, s, h)];
    return from ? to : NULL;
}

static void describe(struct sliced *call, const struct cached *x, const struct cached_slice *s,
                     int64_t keys) {
    const qkv_attention_params *of = &x->c.params;
    const struct ref_place place = {s->b, s->first};
    qkv_attention_params *p = &call->params;
    *p = *of;
    p->batch = 1;
    p->q_heads = s->member < 0 ? of->q_heads : of->kv_heads;
    p->q_len = s->rows;
    p->kv_len = keys + s->more;
    if (!cached_kv_len_is_free(x) && p->kv_len > of->kv_len)
        p->kv_len = of->kv_len;
    p->align = QKV_ALIGN_BOTTOM_RIGHT;
    p->q_lens = p->cu_q = NULL;
    call->kv_len = (int32_t)keys;
    p->kv_lens = &call->kv_len;
    call->sequence = cached_sequence(x, s->b);
    p->alibi_slopes = pick(x, s, of->alibi_slopes, call->slopes, p->q_heads);
    p->sinks = pick(x, s, of->sinks, call->sinks, p->q_heads);
    move_to(x, s, &p->bias, place);
    move_to(x, s, &p->mask, place);
}

static void bind(struct sliced *call, const struct cached *x, const struct cached_slice *s) {
    const int64_t shape[] = {1, call->params.q_heads, s->rows, x->c.desc.v_dim};
    const int64_t of_lse[] = {1, call->params.q_heads, s->rows, 1};
    qkv_tensors_init(&call->tensors);
    call->tensors.q = x->c.tensors.q;
    move_to(x, s, &call->tensors.q, ref_query_place(&x->c.params, s->b, s->first));
    call->out = tensor_make(QKV_F32, shape, (struct layout){0});
    call->lse = tensor_make(QKV_F32, of_lse, (struct layout){0});
    call->tensors.out = call->out.view;
    call->tensors.lse = call->lse.view;
}

static struct verdict compare(const struct sliced *call, const struct cached *x,
                              const struct cached_slice *s, const struct tensor *own,
                              enum role role) {
    qkv_tensors whole = x->c.tensors;
    const qkv_tensor *view = case_view(&whole, role);
    for (int64_t e = 0; view->data && e < call->params.q_heads * s->rows * own->dim[3]; e++) {
        const int64_t c = e % own->dim[3], i = e / own->dim[3] % s->rows;
        const int64_t h = e / own->dim[3] / s->rows;
        const struct ref_place place = ref_query_place(&x->c.params, s->b, s->first + i);
        const float alone = *tensor_f32(&own->view, 0, h, i, c);
        const float among = *tensor_f32(view, place.b, head_of(x, s, h), place.t, c);
        if (!same_bits(alone, among))
            return verdict_fail(
                "%s[b=%lld h=%lld i=%lld c=%lld] is %a alone (%lld rows, member %lld, %d keys, "
                "kv_len %lld) and %a among others",
                role_names[role], (long long)s->b, (long long)head_of(x, s, h),
                (long long)(s->first + i), (long long)c, (double)alone, (long long)s->rows,
                (long long)s->member, call->kv_len, (long long)call->params.kv_len, (double)among);
    }
    return verdict_ok();
}

bool cached_kv_len_is_free(const struct cached *x) {
    return !x->c.desc.bias && !x->c.desc.mask;
}

struct verdict cached_slice_check(const struct cached *x, const qkv_context *context,
                                  const struct cached_slice *s) {
    const struct slice slice = {s->b, 0, s->first, s->rows};
    const int64_t keys = slice_keys(&x->c, &slice);
    struct sliced call;
    if (s->rows == 0 || keys == 0)
        return verdict_ok();
    describe(&call, x, s, keys);
    bind(&call, x, s);
    const struct decode_params params = {&call.params, &x->cache, &call.sequence};
    const struct call decode = {context, QKV_STAGE_DECODE, &params, &call.tensors};
    struct verdict verdict = run_call(&decode, (struct how){WAY_PLAIN, 1, 0});
    if (verdict.ok)
        verdict = compare(&call, x, s, &call.out, ROLE_OUT);
    if (verdict.ok)
        verdict = compare(&call, x, s, &call.lse, ROLE_LSE);
    tensor_free(&call.out);
    tensor_free(&call.lse);
    return verdict;
}
