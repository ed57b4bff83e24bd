/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of scores against the reference and against the scalar room. */
#include "stage.h"

int main(void) {
    return stage_main(QKV_STAGE_SCORES_BACKWARD, NULL);
}
