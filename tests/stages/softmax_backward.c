/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of softmax against the reference and against the scalar room. */
#include "stage.h"

int main(void) {
    return stage_main(QKV_STAGE_SOFTMAX_BACKWARD, NULL);
}
