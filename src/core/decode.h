/* SPDX-License-Identifier: Apache-2.0 */
/* Decode's driver, for its public functions. */
#ifndef QKV_CORE_DECODE_H
#define QKV_CORE_DECODE_H

#include "block.h"

qkv_parts_fn qkv_decode_parts;

#endif
