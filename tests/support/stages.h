/* SPDX-License-Identifier: Apache-2.0 */
/* The stages from project to attention, which tests walk through by their number. */
#ifndef QKV_TEST_STAGES_H
#define QKV_TEST_STAGES_H

#include <qkv/qkv.h>

enum { FORWARD_STAGES = QKV_STAGE_ATTENTION + 1 };

#endif
