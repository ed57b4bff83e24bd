/* SPDX-License-Identifier: Apache-2.0 */
/* Mix against the reference and against the scalar room. */
#include "stage.h"

START_TEST(many_keys) {
    static const int64_t lengths[] = {2047, 2048, 2049, 5000};
    for (int i = 0; i < 4; i++) {
        struct desc d = desc_plain();
        d.seed = test_seed() + (uint64_t)i;
        d.kv_len = lengths[i];
        d.v_dim = 17;
        struct verdict verdict = check_desc(&rooms_get(_i)->context, QKV_STAGE_MIX, &d);
        stage_assert(&verdict);
    }
}
END_TEST

static void add(TCase *tcase) {
    tcase_add_room_test(tcase, many_keys);
}

int main(void) {
    return stage_main(QKV_STAGE_MIX, add);
}
