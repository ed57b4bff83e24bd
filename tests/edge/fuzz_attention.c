/* SPDX-License-Identifier: Apache-2.0 */
/* A libFuzzer target: bytes become a room and a description, which goes through fused and unfused
 * attention, or through a backward stage beside the reference. No bytes at all are the plainest
 * description. */
#include <stdio.h>
#include <stdlib.h>

#include "fused_unfused.h"
#include "fuzz_rooms.h"
#include "support/compare_gradients.h"
#include "support/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* So small that a second holds hundreds of them. */
static const struct desc_limits limits = {300, 80, 60000};

/* Of eight inputs as many go through attention and the stages it is made of. */
enum { WHOLE = 4 };

static struct verdict check_backward(const qkv_context *context, const struct desc *desc,
                                     int stage) {
    struct test_case c;
    case_make(&c, desc, STAGES_ONE(stage));
    struct verdict verdict = run_backward(&c, stage, context, (struct how){WAY_PLAIN, 1, 0});
    if (verdict.ok)
        verdict = check_gradient_results(&c, stage);
    case_free(&c);
    case_explain(desc, &verdict);
    return verdict;
}

static struct verdict check(const qkv_context *context, const struct desc *desc, int64_t what) {
    static const int backward[WHOLE] = {QKV_STAGE_ATTENTION_BACKWARD, QKV_STAGE_MIX_BACKWARD,
                                        QKV_STAGE_SOFTMAX_BACKWARD, QKV_STAGE_SCORES_BACKWARD};
    return what < WHOLE ? check_fused_unfused(context, desc)
                        : check_backward(context, desc, backward[what - WHOLE]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct rng rng = rng_from_bytes(data, size);
    struct verdict verdict;
    const qkv_context *contexts;
    struct desc desc;
    int64_t room;

    room = rng_below(&rng, fuzz_rooms(&contexts));
    desc = desc_random(&rng, &limits);
    verdict = check(&contexts[room], &desc, rng_below(&rng, 2 * WHOLE));
    if (!verdict.ok) {
        fprintf(stderr, "%s\n", verdict.message);
        abort();
    }
    return 0;
}
