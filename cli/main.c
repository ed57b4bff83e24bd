/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command qkv: finds the part that is asked for and runs it. Exit status 0: fine; 1: failed;
 * 2: bad usage.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <qkv/qkv.h>

#include "complain.h"
#include "parts.h"

static const struct command *const parts[] = {&cpu_command, &attend_command, &party_command,
                                              &train_command};

enum { PARTS = sizeof parts / sizeof parts[0] };

static int help(int argc, char **argv);
static int version(int argc, char **argv);

/* What may stand where the name of a part does. */
static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} general[] = {{"--help", help}, {"-h", help}, {"help", help}, {"--version", version}};

static const struct command *find_part(const char *name) {
    for (int i = 0; i < PARTS; i++) {
        if (strcmp(name, parts[i]->name) == 0) {
            return parts[i];
        }
    }
    return NULL;
}

/* `qkv help PART` is `qkv PART --help`. */
static int help(int argc, char **argv) {
    if (argc > 0) {
        const struct command *part = find_part(argv[0]);
        if (!part) {
            return complain(USAGE, argv[0], "is no part of this command (see qkv --help)");
        }
        options_help(part, stdout);
        return FINE;
    }
    puts("usage: qkv PART [options]\n\nAttention on CPUs: Q = X W^Q, K = X W^K, V = X W^V, "
         "O = softmax(scale Q K^T) V.\n");
    for (int i = 0; i < PARTS; i++) {
        printf("  qkv %-8s %s\n", parts[i]->name, parts[i]->summary);
    }
    puts("\n  --help       this page; qkv PART --help tells a part's options\n"
         "  --version    the version of the library\n\n"
         "Exit status: 0 fine, 1 failed, 2 bad usage.\n"
         "QKV_CPU_MAX=scalar|avx2|avx512|neon and QKV_CPU_DISABLE=feature,... take instruction\n"
         "sets away; qkv cpu shows what is left.");
    return FINE;
}

static int version(int argc, char **argv) {
    if (argc > 0) {
        return complain(USAGE, argv[0], "is not expected after --version");
    }
    printf("qkv %s\n", qkv_version());
    return FINE;
}

static int run(int argc, char **argv) {
    if (argc < 2) {
        return complain(USAGE, "PART", "is missing: cpu, attend, party or train (see qkv --help)");
    }
    for (size_t i = 0; i < sizeof general / sizeof general[0]; i++) {
        if (strcmp(argv[1], general[i].name) == 0) {
            return general[i].run(argc - 2, argv + 2);
        }
    }
    const struct command *part = find_part(argv[1]);
    if (!part) {
        return complain(USAGE, argv[1], "is no part of this command (see qkv --help)");
    }
    return part->run(argc - 2, argv + 2);
}

int main(int argc, char **argv) {
    /* A file size limit shall be an error like a full disk, not the end of the process. */
    signal(SIGXFSZ, SIG_IGN);
    int status = run(argc, argv);
    if (fflush(stdout) || ferror(stdout)) {
        return complain(FAILED, "standard output", "%s", strerror(errno));
    }
    return status;
}
