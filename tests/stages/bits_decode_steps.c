/* SPDX-License-Identifier: Apache-2.0 */
/* The law of the bits for tokens that are decoded one by one: their rows are those of a prefill. */
#include "bits_decode.h"

#include "cached_slice.h"
#include "stage.h"

/* The step of token t: its key and value come, and its query is answered. */
static struct verdict decode_step(const struct cached *prefill, const struct cached *growing,
                                  const struct test_case *plain, const qkv_context *context,
                                  int64_t t) {
    qkv_tensor k = plain->tensor[ROLE_K].view, v = plain->tensor[ROLE_V].view;
    k.data = tensor_f32(&k, 0, 0, t, 0);
    v.data = tensor_f32(&v, 0, 0, t, 0);
    const qkv_status status =
        cached_append(growing, context, cached_sequence(growing, 0), &k, &v, 1);
    if (status != QKV_OK)
        return verdict_fail("append: %s", qkv_status_string(status));
    struct cached grown = *prefill;
    grown.cache = growing->cache;
    const qkv_attention_params *p = &prefill->c.params;
    const struct cached_slice step = {0, t - (p->kv_len - p->q_len), 1, -1, p->kv_len - t - 1};
    return cached_slice_check(&grown, context, &step);
}

/* Tokens from `first` on are decoded one by one, where others stood and were forgotten. */
static void check_decoding(int room, const struct cached_desc *d, int64_t first) {
    const qkv_context *context = &rooms_get(room)->context;
    struct cached prefill, growing;
    struct test_case plain; /* what is appended: K and V before they were rounded */
    case_make(&plain, &d->desc, STAGES_ONE(QKV_STAGE_ATTENTION));
    struct verdict verdict = cached_make(&prefill, d, context);
    const struct call call = cached_call(&prefill, context);
    if (verdict.ok)
        verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    stage_assert(&verdict);
    verdict = cached_make(&growing, d, context);
    stage_assert(&verdict);
    ck_assert_int_eq(qkv_cache_truncate(&growing.cache, cached_sequence(&growing, 0), first),
                     QKV_OK);
    for (int64_t t = first; t < d->desc.kv_len && verdict.ok; t++)
        verdict = decode_step(&prefill, &growing, &plain, context, t);
    cached_free(&prefill);
    cached_free(&growing);
    case_free(&plain);
    cached_explain(d, &verdict);
    stage_assert(&verdict);
}

START_TEST(a_token_at_a_time) {
    static const int64_t spans[][2] = {{0, 35}, {250, 259}, {1020, 1027}};
    const int one_in = test_stride() < 5 ? 1 : 7;
    for (int i = test_next(-1, one_in); i < 3 * CACHED_PAIRS; i = test_next(i, one_in)) {
        struct desc desc = desc_plain();
        desc.seed = test_seed() + (uint64_t)i;
        desc.causal = true;
        desc.kv_len = spans[i % 3][1];
        desc.q_len = desc.kv_len - spans[i % 3][0];
        desc.kv_heads = 2;
        desc.q_heads = i % 2 ? 8 : 2;
        desc.window_left = i % 5 == 1 ? 20 : -1;
        desc.alibi = i % 5 == 2;
        desc.sinks = i % 5 == 3;
        struct cached_desc d = cached_plain(&desc);
        cached_set_pair(&d, i / 3);
        d.mapping = MAPPED_SHUFFLED;
        d.page_tokens = i % 4 ? 16 : 48;
        check_decoding(_i, &d, spans[i % 3][0]);
    }
}
END_TEST

void bits_add_step_tests(TCase *tcase) {
    tcase_add_room_test(tcase, a_token_at_a_time);
}
