/* SPDX-License-Identifier: Apache-2.0 */
#include "cache.h"

typedef int qkv_cache_file_stub;
