/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the command says when something is wrong: one line on stderr that names the file or the
 * option, and the exit status that goes with it.
 */
#ifndef QKV_CLI_COMPLAIN_H
#define QKV_CLI_COMPLAIN_H

enum exit_status {
    FINE = 0,
    FAILED = 1, /* a file, the data in it, or the machine is not as it must be */
    USAGE = 2,  /* the command line cannot be understood */
};

/* Prints "qkv: WHAT: MESSAGE" and returns status. Control characters, which a file name may
 * hold, are printed as '?', so that it stays one line. */
int complain(int status, const char *what, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* complain(FAILED, what, "out of memory") */
int out_of_memory(const char *what);

#endif
