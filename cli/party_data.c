/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of the party's file. See party_data.h, and data/FORMAT.md for the container. */
#include "party_data.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "complain.h"
#include "file.h"

#define FILE_NAME "party.qkvp"

static const char magic[] = "QKVPARTY ";

enum { MAGIC = sizeof magic - 1, ALIGNMENT = 64, MAX_DIMS = 3 };

/* The arrays, and their dimensions by letters: (t)okens, (h)eads, d_(m)odel, head_(d)im. */
static const struct {
    const char *name, *dtype, *dims;
    size_t place; /* of its pointer */
} arrays[] = {
#define ARRAY(field, dtype, dims) \
    { #field, (dtype), (dims), offsetof(struct party, field) }
    ARRAY(x, "f32", "tm"),   ARRAY(wq, "f32", "hmd"), ARRAY(wk, "f32", "hmd"),
    ARRAY(wv, "f32", "hmd"), ARRAY(bq, "f32", "hd"),  ARRAY(bk, "f32", "hd"),
    ARRAY(bv, "f32", "hd"),  ARRAY(q, "f64", "htd"),  ARRAY(k, "f64", "htd"),
    ARRAY(v, "f64", "htd"),  ARRAY(o, "f64", "htd"),  ARRAY(weights, "f64", "htt"),
    ARRAY(lse, "f64", "ht"),
#undef ARRAY
};

enum { ARRAYS = sizeof arrays / sizeof arrays[0] };

static int malformed(const struct party *party, const char *what) {
    return complain(FAILED, party->path, "is not a party file that this command can read: %s",
                    what);
}

/* The next word of a line, ended with NUL; "" at the end. */
static char *next_word(char **line) {
    char *word = *line, *end = word + strcspn(word, " ");
    *line = *end ? end + 1 : end;
    *end = 0;
    return word;
}

/* The next word as a number from 0 to most, or -1. */
static int64_t next_number(char **line, int64_t most) {
    const char *word = next_word(line);
    char *end;
    long long value = *word >= '0' && *word <= '9' ? strtoll(word, &end, 10) : -1;
    return value < 0 || *end || value > most ? -1 : value;
}

static int read_meta(struct party *party, char *line, size_t size) {
    (void)size;
    const char *key = next_word(&line);
    if (strcmp(key, "model") == 0) {
        party->model = line;
    } else if (strcmp(key, "licence") == 0) {
        party->licence = line;
    } else if (strcmp(key, "sentence") == 0) {
        party->sentence = line;
    } else if (strcmp(key, "layer") == 0) {
        party->layer = (int)next_number(&line, INT_MAX);
    } else if (strcmp(key, "scale") == 0) {
        party->scale = strtof(line, NULL);
    }
    return FINE;
}

static int read_token(struct party *party, char *line, size_t size) {
    (void)size;
    if (next_number(&line, PARTY_MAX_TOKENS - 1) != party->token_lines || !*line) {
        return malformed(party, "a token is out of order, or there are too many");
    }
    party->token[party->token_lines++] = line;
    return FINE;
}

static int read_head(struct party *party, char *line, size_t size) {
    (void)size;
    if (next_number(&line, PARTY_MAX_HEADS - 1) != party->head_lines) {
        return malformed(party, "a head is out of order, or there are too many");
    }
    int64_t number = next_number(&line, INT_MAX);
    party->head[party->head_lines++] = (struct party_head){(int)number, line};
    return number < 0 ? malformed(party, "a head has no number") : FINE;
}

/* The size that a letter stands for; the first array that has it sets it. */
static int64_t *size_of(struct party *party, char letter) {
    switch (letter) {
    case 't':
        return &party->tokens;
    case 'h':
        return &party->heads;
    case 'm':
        return &party->d_model;
    default:
        return &party->head_dim;
    }
}

/* Reads the dimensions after an array's name; the bytes they take go to *bytes. */
static bool read_dims(struct party *party, int i, char **line, int64_t *bytes) {
    const char *dims = arrays[i].dims;
    bool good = strcmp(next_word(line), arrays[i].dtype) == 0 &&
                next_number(line, MAX_DIMS) == (int64_t)strlen(dims);
    *bytes = arrays[i].dtype[1] == '3' ? 4 : 8;
    for (; good && *dims; dims++) {
        int64_t *size = size_of(party, *dims), is = next_number(line, 1 << 16);
        if (*size == 0) {
            *size = is;
        }
        good = is > 0 && is == *size;
        *bytes *= is;
    }
    return good;
}

static int read_array(struct party *party, char *line, size_t size) {
    const char *name = next_word(&line);
    for (int i = 0; i < ARRAYS; i++) {
        if (strcmp(name, arrays[i].name) != 0) {
            continue;
        }
        int64_t bytes;
        if (!read_dims(party, i, &line, &bytes)) {
            return malformed(party, "an array has another dtype or shape than it must");
        }
        int64_t offset = next_number(&line, (int64_t)size);
        if (offset < 0 || offset % ALIGNMENT != 0 || next_number(&line, INT64_MAX) != bytes ||
            bytes > (int64_t)size - offset) {
            return malformed(party, "an array is not where it must be; truncated?");
        }
        const void *data = party->file + offset;
        memcpy((char *)party + arrays[i].place, &data, sizeof data);
        return FINE;
    }
    return FINE;
}

static const struct {
    const char *word;
    int (*read)(struct party *party, char *line, size_t size);
} lines[] = {
    {"meta", read_meta}, {"token", read_token}, {"head", read_head}, {"array", read_array}};

static int read_line(struct party *party, char *line, size_t size) {
    const char *word = next_word(&line);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (strcmp(word, lines[i].word) == 0) {
            return lines[i].read(party, line, size);
        }
    }
    return FINE;
}

static int check_complete(const struct party *party) {
    for (int i = 0; i < ARRAYS; i++) {
        const void *data;
        memcpy(&data, (const char *)party + arrays[i].place, sizeof data);
        if (!data) {
            return malformed(party, "an array is missing");
        }
    }
    if (party->token_lines != party->tokens || party->head_lines != party->heads || !party->model ||
        !party->licence || !party->sentence) {
        return malformed(party, "its header does not name every token and head, or the model");
    }
    return FINE;
}

/* "QKVPARTY 1 2048" and the rest of the header, copied so that it can be cut up. */
static int read_header(struct party *party, size_t size) {
    char first[64] = {0};
    memcpy(first, party->file, size < sizeof first - 1 ? size : sizeof first - 1);
    first[strcspn(first, "\n")] = 0;
    char *line = first + MAGIC;
    if (next_number(&line, 1) != 1) {
        return malformed(party, "its version is not 1");
    }
    int64_t length = next_number(&line, (int64_t)size);
    if (length < 0) {
        return malformed(party, "its header is truncated");
    }
    party->header = strndup((const char *)party->file, (size_t)length);
    if (!party->header) {
        return out_of_memory(party->path);
    }
    int status = FINE;
    for (char *at = party->header; *at && !status;) {
        char *end = at + strcspn(at, "\n");
        char *next = *end ? end + 1 : end;
        *end = 0;
        status = read_line(party, at, size);
        at = next;
    }
    return status ? status : check_complete(party);
}

/* DIR/name, if there is such a file; malloc'd or NULL. */
static char *look_in(const char *directory, const char *name) {
    size_t room = strlen(directory) + strlen(name) + 2;
    char *path = malloc(room);
    if (path) {
        snprintf(path, room, "%s/%s", directory, name);
        if (access(path, R_OK)) {
            free(path);
            path = NULL;
        }
    }
    return path;
}

/* $QKV_DATA; else beside the command (a build folder); else where an installed command has it,
 * wherever it was moved; else where it was meant to be installed. */
static char *find_file(void) {
    static const char *const beside[] = {FILE_NAME, "../share/qkv/" FILE_NAME};
    const char *given = getenv("QKV_DATA");
    if (given && *given) {
        return strdup(given);
    }
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    char *path = NULL;
    for (size_t i = 0; slash && !path && i < sizeof beside / sizeof beside[0]; i++) {
        *slash = 0;
        path = look_in(self, beside[i]);
    }
    return path ? path : look_in(QKV_DATA_DIR, FILE_NAME);
}

int party_load(struct party *party) {
    *party = (struct party){.path = find_file()};
    if (!party->path) {
        return complain(FAILED, FILE_NAME,
                        "is neither beside the command nor in %s; QKV_DATA can name it",
                        QKV_DATA_DIR);
    }
    size_t size;
    if (file_read(party->path, magic, MAGIC, &party->file, &size)) {
        return FAILED;
    }
    if (size < MAGIC || memcmp(party->file, magic, MAGIC) != 0) {
        return malformed(party, "it does not begin with QKVPARTY");
    }
    return read_header(party, size);
}

void party_free(struct party *party) {
    free(party->path);
    free(party->file);
    free(party->header);
    *party = (struct party){0};
}
