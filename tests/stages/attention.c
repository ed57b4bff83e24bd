/* SPDX-License-Identifier: Apache-2.0 */
/* The fused attention, out and LSE, against the reference and against the scalar room. */
#include "stage.h"

#include "options.h"

/* Several pieces, with the largest scores anywhere among them, under each option. */
START_TEST(many_keys) {
    static const int64_t lengths[] = {2047, 2048, 2049, 3333};
    const int one_in = test_stride() < 5 ? 1 : 5 * test_thinning();
    for (int i = test_next(-1, one_in); i < 4 * option_count(); i = test_next(i, one_in)) {
        struct desc d = desc_plain();
        d.seed = test_seed() + (uint64_t)i;
        d.kv_len = lengths[i % 4];
        d.spread = i % 8 < 4 ? 1 : 6;
        option_set(&d, i / 4);
        struct verdict verdict = check_desc(&rooms_get(_i)->context, QKV_STAGE_ATTENTION, &d);
        verdict_add(&verdict, "option %s", option_name(i / 4));
        stage_assert(&verdict);
    }
}
END_TEST

/* The shapes of real models: many rows, many keys, groups. */
START_TEST(model_shapes) {
    static const struct {
        int64_t q_heads, kv_heads, q_len, kv_len, head_dim;
    } shapes[] = {{12, 12, 96, 96, 64}, {8, 2, 33, 700, 128}, {8, 1, 1, 1500, 128},
                  {4, 4, 200, 200, 80}, {2, 2, 64, 577, 256}, {1, 1, 300, 300, 40}};
    const int one_in = test_stride() < 5 ? 1 : 5 * test_thinning();
    for (int i = test_next(-1, one_in); i < 12; i = test_next(i, one_in)) {
        struct desc d = desc_plain();
        d.seed = test_seed() + (uint64_t)i;
        d.q_heads = shapes[i / 2].q_heads;
        d.kv_heads = shapes[i / 2].kv_heads;
        d.q_len = shapes[i / 2].q_len;
        d.kv_len = shapes[i / 2].kv_len;
        d.head_dim = d.v_dim = shapes[i / 2].head_dim;
        d.causal = i % 2;
        struct verdict verdict = check_desc(&rooms_get(_i)->context, QKV_STAGE_ATTENTION, &d);
        stage_assert(&verdict);
    }
}
END_TEST

static void add(TCase *tcase) {
    tcase_add_room_test(tcase, many_keys);
    tcase_add_room_test(tcase, model_shapes);
}

int main(void) {
    return stage_main(QKV_STAGE_ATTENTION, add);
}
