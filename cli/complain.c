/* SPDX-License-Identifier: Apache-2.0 */
/* One line of complaint on stderr. See complain.h. */
#include "complain.h"

#include <stdarg.h>
#include <stdio.h>

static void print_clean(const char *text) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        fputc(c < 0x20 || c == 0x7f ? '?' : c, stderr);
    }
}

int complain(int status, const char *what, const char *format, ...) {
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);

    fputs("qkv: ", stderr);
    print_clean(what);
    fputs(": ", stderr);
    print_clean(message);
    fputc('\n', stderr);
    return status;
}

int out_of_memory(const char *what) {
    return complain(FAILED, what, "out of memory");
}
