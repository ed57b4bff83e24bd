/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of a part's table of options. Define OPTIONS, the struct that the values are stored in,
 * before it is included. */
#ifndef QKV_CLI_OPTION_ROWS_H
#define QKV_CLI_OPTION_ROWS_H

#include "options.h"

#define AT(field) offsetof(OPTIONS, field)
#define HEADING(text) \
    { .kind = OPTION_HEADING, .name = (text) }
#define FLAG(opt, field, text) \
    { OPTION_FLAG, (opt), NULL, (text), AT(field), 0, 0, NULL }
#define TEXT(opt, field, called, text) \
    { OPTION_TEXT, (opt), (called), (text), AT(field), 0, 0, NULL }
#define CHOICE(opt, field, called, among, text) \
    { OPTION_CHOICE, (opt), (called), (text), AT(field), 0, 0, (among) }
#define INTEGER(opt, field, called, low, high, text) \
    { OPTION_INTEGER, (opt), (called), (text), AT(field), (low), (high), NULL }
#define REAL(opt, field, called, low, high, text) \
    { OPTION_REAL, (opt), (called), (text), AT(field), (low), (high), NULL }
#define LIST(opt, field, called, low, text) \
    { OPTION_LIST, (opt), (called), (text), AT(field), (low), INT_MAX, NULL }

#endif
