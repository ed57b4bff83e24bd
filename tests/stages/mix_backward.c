/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of mix against the reference and against the scalar room. */
#include "stage.h"

int main(void) {
    return stage_main(QKV_STAGE_MIX_BACKWARD, NULL);
}
