/* SPDX-License-Identifier: Apache-2.0 */
/* Project against the reference and against the scalar room, and what packed weights promise. */
#include "stage.h"

#include <math.h>
#include <string.h>

#include "kernels.h"
#include "support/project_case.h"

static struct verdict run(struct project_case *c, const struct project_desc *d,
                          const qkv_context *pack_with, const qkv_context *run_with) {
    struct verdict verdict = project_case_make(c, d, pack_with);
    struct call call = {run_with, QKV_STAGE_PROJECT, &c->params, &c->tensors};
    return verdict.ok ? run_call(&call, (struct how){WAY_PLAIN, 1, 0}) : verdict;
}

static bool same_outputs(const struct project_case *a, const struct project_case *b) {
    for (int role = PROJECT_Y; role < PROJECT_ROLES; role++) {
        const struct guard *x = &a->tensor[role].memory, *y = &b->tensor[role].memory;
        if (x->size != y->size || memcmp(x->data, y->data, x->size) != 0)
            return false;
    }
    return true;
}

/* Weights packed in any room, from either layout, give the bits of unpacked weights. */
START_TEST(packed_is_unpacked) {
    struct project_desc d = project_desc_plain();
    d.tokens = 23;
    d.d_model = 300;
    d.head_dim = 37;
    for (int32_t layout = QKV_W_IN_OUT; layout <= QKV_W_OUT_IN; layout++) {
        d.layout = layout;
        for (int packer = 0; packer < rooms_runnable_count(); packer++) {
            const qkv_context *here = &rooms_get(_i)->context;
            struct project_case plain, packed;
            d.packed = false;
            struct verdict verdict = run(&plain, &d, here, here);
            stage_assert(&verdict);
            d.packed = true;
            verdict = run(&packed, &d, &rooms_runnable(packer)->context, here);
            stage_assert(&verdict);
            ck_assert(same_outputs(&plain, &packed));
            project_case_free(&plain);
            project_case_free(&packed);
        }
    }
}
END_TEST

/* The two ways to store W are two ways to store the same bytes once they are packed. */
START_TEST(packed_bytes_do_not_depend_on_the_layout) {
    enum { IN = 19, OUT = 34 };
    static float in_out[IN * OUT], out_in[IN * OUT];
    for (int i = 0; i < IN * OUT; i++)
        in_out[i] = out_in[i % OUT * IN + i / OUT] = (float)i;
    qkv_project_params p;
    qkv_project_params_init(&p);
    p.batch = p.tokens = 1;
    p.d_model = IN;
    p.q_heads = 2;
    p.kv_heads = 1;
    p.head_dim = OUT / 2;
    const qkv_context *context = &rooms_get(_i)->context;
    struct guard blob[2];
    for (int i = 0; i < 2; i++) {
        p.layout = i == 0 ? QKV_W_IN_OUT : QKV_W_OUT_IN;
        const qkv_tensor w = {.data = i == 0 ? in_out : out_in,
                              .stride = {0, 0, i == 0 ? OUT : IN, 1},
                              .dtype = QKV_F32};
        size_t size = qkv_project_pack_size(&p, QKV_WHICH_Q, context);
        ck_assert_uint_gt(size, sizeof in_out);
        blob[i] = guard_alloc(size, QKV_ALIGNMENT, GUARD_END, 0);
        ck_assert_int_eq(qkv_project_pack(&p, QKV_WHICH_Q, &w, blob[i].data, size, context),
                         QKV_OK);
    }
    ck_assert_uint_eq(blob[0].size, blob[1].size);
    ck_assert_mem_eq(blob[0].data, blob[1].data, blob[0].size);
    guard_free(&blob[0]);
    guard_free(&blob[1]);
}
END_TEST

/* Any of Q, or K and V, may be left out. */
START_TEST(parts_left_out) {
    struct project_desc d = project_desc_plain();
    d.q_heads = 0;
    struct verdict verdict = check_project(&rooms_get(_i)->context, &d);
    stage_assert(&verdict);
    d.q_heads = 3;
    d.kv_heads = 0;
    verdict = check_project(&rooms_get(_i)->context, &d);
    stage_assert(&verdict);
}
END_TEST

/* One element by the law of the bits, as docs/design.md words it. */
static float by_the_law(const struct project_case *c, const float *x, const float *w,
                        int64_t w_step, bool fused) {
    float sum = 0;
    for (int64_t first = 0; first < c->desc.d_model; first += QKV_STRETCH) {
        int64_t rest = c->desc.d_model - first, n = rest < QKV_STRETCH ? rest : QKV_STRETCH;
        float chain = 0;
        for (int64_t p = first; p < first + n; p++)
            chain = fused ? fmaf(x[p], w[p * w_step], chain) : chain + x[p] * w[p * w_step];
        sum = first == 0 ? chain : sum + chain;
    }
    return sum;
}

static void check_the_law(const struct project_case *c, bool fused) {
    for (int64_t t = 0; t < c->desc.tokens; t++)
        for (int64_t column = 0; column < c->desc.head_dim; column++) {
            const float *w = tensor_f32(&c->tensor[PROJECT_W].view, 0, 0, 0, column);
            float want = by_the_law(c, tensor_f32(&c->tensors.x, 0, 0, t, 0), w,
                                    c->tensor[PROJECT_W].view.stride[2], fused);
            if (c->desc.biases)
                want += *tensor_f32(&c->tensors.bq, 0, 0, 0, column);
            float got = *tensor_f32(&c->tensors.q, 0, 0, t, column);
            ck_assert_msg(got == want,
                          "d_model %lld, %lld tokens: [%lld, %lld] is %a, by the law %a",
                          (long long)c->desc.d_model, (long long)c->desc.tokens, (long long)t,
                          (long long)column, (double)got, (double)want);
        }
}

/* The bits are those of stretches joined from left to right, for few tokens and for many, which are
 * shared out to tiles of six and of five in some ways, through the worker's memory (heads of 70)
 * and past it (heads of 80). */
START_TEST(stretches_are_joined_from_left_to_right) {
    const qkv_context *here = &rooms_get(_i)->context;
    const int64_t tokens[] = {1, 2, 5, 9, 10, 12, 13, 25, 26, 29, 49},
                  sizes[] = {1, 16, 63, 127, 128, 129, 136, 176, 255, 256, 257, 700};
    struct project_desc d = project_desc_plain();
    d.q_heads = 1;
    d.kv_heads = 0;
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
            for (d.head_dim = 70; d.head_dim <= 80; d.head_dim += 10) {
                struct project_case c;
                d.tokens = tokens[i];
                d.d_model = sizes[k];
                d.biases = (uint8_t)((i + k) % 2);
                d.packed = sizes[k] > 2 * QKV_STRETCH || i % 2; /* many stretches in one go */
                struct verdict verdict = run(&c, &d, here, here);
                stage_assert(&verdict);
                check_the_law(&c, qkv_context_isa(here) != QKV_ISA_SCALAR);
                project_case_free(&c);
            }
}
END_TEST

static void add(TCase *tcase) {
    tcase_add_room_test(tcase, stretches_are_joined_from_left_to_right);
    tcase_add_room_test(tcase, packed_is_unpacked);
    tcase_add_room_test(tcase, packed_bytes_do_not_depend_on_the_layout);
    tcase_add_room_test(tcase, parts_left_out);
}

int main(void) {
    return stage_main(QKV_STAGE_PROJECT, add);
}
