/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax, in place and not, against the reference and against the scalar room. */
#include "stage.h"

static struct verdict check_row(const qkv_context *context, int64_t length, float spread) {
    struct desc d = desc_plain();
    d.seed = test_seed() + (uint64_t)length;
    d.q_len = 2;
    d.kv_len = length;
    d.spread = spread;
    d.sinks = length % 2;
    return check_desc(context, QKV_STAGE_SOFTMAX, &d);
}

START_TEST(long_rows) {
    static const int64_t lengths[] = {4095, 4096, 4097, 20000, 100003};
    for (int i = 0; i < 5; i++) {
        struct verdict verdict = check_row(&rooms_get(_i)->context, lengths[i], 1);
        stage_assert(&verdict);
        verdict = check_row(&rooms_get(_i)->context, lengths[i], 1e4F);
        stage_assert(&verdict);
    }
}
END_TEST

static void add(TCase *tcase) {
    tcase_add_room_test(tcase, long_rows);
}

int main(void) {
    return stage_main(QKV_STAGE_SOFTMAX, add);
}
