/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the command, each in the file of its name. */
#ifndef QKV_CLI_PARTS_H
#define QKV_CLI_PARTS_H

#include "options.h"

extern const struct command cpu_command;
extern const struct command attend_command;
extern const struct command party_command;
extern const struct command train_command;

#endif
