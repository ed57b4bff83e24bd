/* SPDX-License-Identifier: Apache-2.0 */
/* A process that may compute and nothing else: no allocation, no lock, no system call. */
#ifndef QKV_TESTS_FORBID_H
#define QKV_TESTS_FORBID_H

/* How a process ends that did what is forbidden. */
enum { CAUGHT_SYSTEM_CALL = 3, CAUGHT_ALLOCATION = 4, CAUGHT_LOCK = 5 };

/* From here on malloc and its relatives, locks and every system call except write, exit and the
 * return from a signal end the process with a word on stderr. Returns 0, or -1 if system calls
 * cannot be refused here: then the rest is still forbidden. */
int forbid_everything(void);

#endif
