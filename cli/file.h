/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole files in and out. What is written goes to a temporary file beside the target first and
 * takes its name when every output is complete: after a failure no half-written output is there,
 * and an old file is as it was. All functions print their own complaint.
 */
#ifndef QKV_CLI_FILE_H
#define QKV_CLI_FILE_H

#include <stddef.h>

/* Reads a file or a pipe to its end into *bytes (free it); stops early, with *size short, if it
 * does not begin with the given magic. FINE or FAILED. */
int file_read(const char *path, const void *magic, size_t magic_size, unsigned char **bytes,
              size_t *size);

/* One output between stage and commit. */
struct staged {
    const char *path; /* what the user called it */
    char *target;     /* the file behind that name, or NULL if it was written directly */
    char *temporary;
};

/* Writes two pieces one after the other beside `path`. What is no regular file (a pipe, a
 * device) is written directly. After FAILED nothing is left to discard. */
int file_stage(struct staged *staged, const char *path, const void *head, size_t head_size,
               const void *body, size_t body_size);

/* Gives the staged file its name and frees *staged, also when it fails. */
int file_commit(struct staged *staged);

/* Removes the staged file and frees *staged; does nothing to a zeroed or committed one. */
void file_discard(struct staged *staged);

#endif
