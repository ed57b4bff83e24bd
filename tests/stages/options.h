/* SPDX-License-Identifier: Apache-2.0 */
/* Every option of attention by itself, as a change to a description. */
#ifndef QKV_TEST_OPTIONS_H
#define QKV_TEST_OPTIONS_H

#include "support/desc.h"
#include "support/verdict.h"

int option_count(void);
const char *option_name(int option);
void option_set(struct desc *desc, int option);

/* Every option alone, on a small shape, and on one that crosses key blocks. */
struct verdict check_options_alone(const qkv_context *context, int stage);

/* Every pair of options; on a run with fewer random cases the same share of them. */
struct verdict check_options_pairwise(const qkv_context *context, int stage);

#endif
