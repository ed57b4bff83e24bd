/* SPDX-License-Identifier: Apache-2.0 */
/* A C11 program that includes the public header alone and links with the shared library alone. */
#include <qkv/qkv.h>

_Static_assert(QKV_OK == 0 && QKV_FAULT_NONE == 0 && QKV_ARG_NONE == 0, "success is zero");
_Static_assert(QKV_CPU_COUNT <= 64, "a feature is a bit of a word");
_Static_assert(sizeof(qkv_status) == 4, "a status is an int32_t");

int main(void) {
    qkv_attention_params params;
    qkv_plan plan;
    qkv_status status;

    qkv_attention_params_init(&params);
    status = qkv_attention_plan(&plan, &params, 0);
    return qkv_status_arg(status) == QKV_ARG_HEAD_DIM && *qkv_status_string(status) == 'h' ? 0 : 1;
}
