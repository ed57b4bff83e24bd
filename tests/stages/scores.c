/* SPDX-License-Identifier: Apache-2.0 */
/* Scores, with every mask, against the reference and against the scalar room. */
#include "stage.h"

/* The whole of K and of Q is one buffer, as a projection to [token][q | k | v] leaves it. */
START_TEST(slices_of_one_buffer) {
    enum { TOKENS = 37, HEADS = 3, DIM = 10, WIDTH = 3 * HEADS * DIM };
    struct desc d = desc_plain();
    d.q_heads = d.kv_heads = HEADS;
    d.q_len = d.kv_len = TOKENS;
    d.head_dim = DIM;
    struct test_case c;
    case_make(&c, &d, STAGES_ONE(QKV_STAGE_SCORES));
    static float buffer[TOKENS * WIDTH];
    for (int i = 0; i < TOKENS * WIDTH; i++)
        buffer[i] = rng_normal(rng_hash(test_seed(), (uint64_t)i));
    const qkv_tensor slice = {.data = buffer, .stride = {0, DIM, WIDTH, 1}, .dtype = QKV_F32};
    c.tensors.q = c.tensors.k = slice;
    c.tensors.k.data = buffer + HEADS * DIM;
    struct call call = {&rooms_get(_i)->context, QKV_STAGE_SCORES, &c.params, &c.tensors};
    struct verdict verdict = run_call(&call, (struct how){WAY_PLAIN, 1, 0});
    if (verdict.ok)
        verdict = check_results(&c, QKV_STAGE_SCORES);
    case_free(&c);
    stage_assert(&verdict);
}
END_TEST

static void add(TCase *tcase) {
    tcase_add_room_test(tcase, slices_of_one_buffer);
}

int main(void) {
    return stage_main(QKV_STAGE_SCORES, add);
}
