/* SPDX-License-Identifier: Apache-2.0 */
/* The bits of the losses: the same by any threads and parts, with a gradient or without, in place
 * or not. */
#include "loss_case.h"
#include "slice.h"
#include "support/rooms.h"

/* Everything that a case of the same numbers leaves, run in another way, has the same bits. */
static void assert_same(const struct loss_case *a, const struct loss_case *b) {
    ck_assert_mem_eq(a->tensors.loss, b->tensors.loss, sizeof(float));
    if (!a->desc.gradient || !b->desc.gradient)
        return;
    for (int64_t row = 0; row < a->params.rows; row++)
        for (int64_t c = 0; c < a->params.columns; c++) {
            const float x = *tensor_f32(&a->tensors.gradient, 0, 0, row, c);
            const float y = *tensor_f32(&b->tensors.gradient, 0, 0, row, c);
            if (!same_bits(x, y)) /* an assertion writes to a file */
                ck_abort_msg("%lld x %lld: gradient[%lld %lld] is %a or %a",
                             (long long)a->params.rows, (long long)a->params.columns,
                             (long long)row, (long long)c, (double)x, (double)y);
        }
}

static void assert_any_way_is_the_same(const qkv_context *context, const struct loss_desc *d) {
    struct loss_case want, got;
    case_make_loss(&want, d);
    require(run_loss(&want, context, plainly));
    const int step = test_stride() > 1 ? 5 : 1; /* a short run takes a few of them */
    for (int way = 0; way < 2 * WAY_COUNT; way += step) {
        struct loss_desc other = *d;
        other.gradient = way % 4 != 1;
        other.in_place = way % 4 == 2;
        other.layout[0].offset = other.layout[2].offset = (uint8_t)(way % 4);
        case_make_loss(&got, &other);
        require(run_loss(&got, context,
                         (struct how){(enum way)(way % WAY_COUNT), 1 + way % 5, (uint64_t)way}));
        assert_same(&want, &got);
        case_free_loss(&got);
    }
    case_free_loss(&want);
}

START_TEST(the_same_bits_in_any_way) {
    for (int shape = 0; shape < BLOCK_SHAPES - 1; shape++)
        for (int kind = 0; kind < QKV_LOSS_COUNT; kind++) {
            const struct loss_desc d = block_desc(shape, kind);
            assert_any_way_is_the_same(&rooms_get(_i)->context, &d);
        }
}
END_TEST

void loss_add_bits_tests(TCase *tcase) {
    tcase_add_room_test(tcase, the_same_bits_in_any_way);
}
