/* SPDX-License-Identifier: Apache-2.0 */
/* The rooms (instruction sets) by name, and a context for exactly one of them. */
#ifndef QKV_CLI_ROOMS_H
#define QKV_CLI_ROOMS_H

#include <stdbool.h>

#include <qkv/qkv.h>

/* The qkv_isa of that name; QKV_ISA_NONE if there is none. */
qkv_isa room_by_name(const char *name);

/* Whether --isa names a room, or is NULL: FINE, or USAGE with a complaint. */
int room_check(const char *name);

/* Makes a context that binds this room; false if the build or this CPU (after the overrides)
 * lacks it. */
bool room_open(qkv_context *context, qkv_isa isa);

/* Why room_open says no: "not on this CPU" and the like. */
const char *room_lack(qkv_isa isa);

#endif
