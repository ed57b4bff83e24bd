/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run leaves behind: the best weights as .npy files, and a checkpoint that it can go on from
 * as if it had never stopped. The checkpoint is a head, the weights, the optimizer's two running
 * means and the best weights, little-endian as every machine that qkv runs on, with a checksum over
 * all of it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "complain.h"
#include "file.h"
#include "train.h"

static const char magic[8] = {'Q', 'K', 'V', 'T', 'R', 'A', 'I', 'N'};

enum { VERSION = 1, ARRAYS = 4, MATRICES = QKV_WHICH_COUNT, FILES = MATRICES + 1 };

struct head {
    char magic[sizeof magic];
    uint64_t checksum; /* of everything after it */
    uint64_t version;
    uint64_t likeness; /* of the task's data */
    int64_t seed, heads, optimizer, d_model, width;
    int64_t step, best_step;
    double best_loss;
    double last_loss, last_score;
};

static const char *const files[FILES] = {"WQ.npy", "WK.npy", "WV.npy", "checkpoint.qkvt"};

/* DIR/name; malloc'd, or NULL. */
static char *path_of(const char *folder, const char *name) {
    size_t room = strlen(folder) + strlen(name) + 2;
    char *path = malloc(room);
    if (path) {
        snprintf(path, room, "%s/%s", folder, name);
    }
    return path;
}

/* FNV-1a over 64 bits. */
uint64_t train_checksum(const void *bytes, size_t size, uint64_t before) {
    const unsigned char *at = bytes;
    uint64_t sum = before ^ 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) {
        sum = (sum ^ at[i]) * 0x100000001b3u;
    }
    return sum;
}

static size_t array_bytes(const struct trainer *t) {
    return (size_t)(MATRICES * t->model.matrix) * sizeof(float);
}

static size_t checkpoint_size(const struct trainer *t) {
    return sizeof(struct head) + ARRAYS * array_bytes(t);
}

static uint64_t checksum_of(const unsigned char *file, size_t size) {
    const size_t start = offsetof(struct head, version);
    return train_checksum(file + start, size - start, 0);
}

static struct head head_of(const struct trainer *t) {
    struct head head = {
        .version = VERSION,
        .likeness = t->task->likeness,
        .seed = (int64_t)t->settings->seed,
        .heads = t->settings->heads,
        .optimizer = t->settings->optimizer,
        .d_model = t->task->d_model,
        .width = t->task->width,
        .step = t->step,
        .best_step = t->best_step,
        .best_loss = t->best_loss,
        .last_loss = t->last.loss,
        .last_score = t->last.score,
    };
    memcpy(head.magic, magic, sizeof magic);
    return head;
}

/* The arrays of a checkpoint, in their order. */
static void list_arrays(const struct trainer *t, float *arrays[ARRAYS]) {
    float *const list[ARRAYS] = {t->model.weights, t->mean, t->square, t->best};
    memcpy(arrays, list, sizeof list);
}

static unsigned char *make_checkpoint(const struct trainer *t) {
    unsigned char *file = malloc(checkpoint_size(t));
    if (file) {
        float *arrays[ARRAYS];
        list_arrays(t, arrays);
        struct head head = head_of(t);
        memcpy(file, &head, sizeof head);
        for (int i = 0; i < ARRAYS; i++) {
            memcpy(file + sizeof head + (size_t)i * array_bytes(t), arrays[i], array_bytes(t));
        }
        head.checksum = checksum_of(file, checkpoint_size(t));
        memcpy(file, &head, sizeof head);
    }
    return file;
}

int train_prepare_folder(const char *folder) {
    struct stat st;
    if (mkdir(folder, 0777) && errno != EEXIST) {
        return complain(FAILED, folder, "%s", strerror(errno));
    }
    if (stat(folder, &st) || !S_ISDIR(st.st_mode)) {
        return complain(FAILED, folder, "is no folder");
    }
    return FINE;
}

static int stage(const struct trainer *t, int i, const char *path, const unsigned char *checkpoint,
                 struct staged *staged) {
    if (i == MATRICES) {
        return file_stage(staged, path, checkpoint, checkpoint_size(t), NULL, 0);
    }
    const int64_t shape[] = {t->task->d_model, t->task->width};
    return array_stage(staged, path, 2, shape, t->best + i * t->model.matrix);
}

int train_save(const struct trainer *t) {
    struct staged staged[FILES] = {{0}};
    char *paths[FILES] = {NULL};
    unsigned char *checkpoint = make_checkpoint(t);
    int status = checkpoint ? FINE : out_of_memory(t->settings->folder);
    for (int i = 0; i < FILES && !status; i++) {
        paths[i] = path_of(t->settings->folder, files[i]);
        status = paths[i] ? stage(t, i, paths[i], checkpoint, &staged[i])
                          : out_of_memory(t->settings->folder);
    }
    for (int i = 0; i < FILES; i++) {
        if (!status) {
            status = file_commit(&staged[i]);
        }
        file_discard(&staged[i]);
    }
    for (int i = 0; i < FILES; i++) {
        free(paths[i]);
    }
    free(checkpoint);
    return status;
}

/* What a checkpoint and the command line must agree on. */
static int check_settings(const char *path, const struct head *is, const struct head *wanted) {
    const struct {
        const char *what;
        int64_t is, wanted;
    } settings[] = {
        {"d_model", is->d_model, wanted->d_model},
        {"width", is->width, wanted->width},
        {"--heads", is->heads, wanted->heads},
        {"--seed", is->seed, wanted->seed},
    };
    static const char *const optimizers[OPTIMIZERS] = {"sgd", "momentum", "adamw"};
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        if (settings[i].is != settings[i].wanted) {
            return complain(FAILED, path,
                            "is of a run with %s %" PRId64 ", which cannot go on with %" PRId64,
                            settings[i].what, settings[i].is, settings[i].wanted);
        }
    }
    if (is->optimizer != wanted->optimizer) {
        bool known = is->optimizer >= 0 && is->optimizer < OPTIMIZERS;
        return complain(FAILED, path, "is of a run with --optimizer %s, which cannot go on with %s",
                        known ? optimizers[is->optimizer] : "?", optimizers[wanted->optimizer]);
    }
    if (is->likeness != wanted->likeness) {
        return complain(FAILED, path, "is of a run on other data");
    }
    return FINE;
}

static int check_file(const struct trainer *t, const char *path, const unsigned char *file,
                      size_t size, struct head *head) {
    if (size < sizeof magic || memcmp(file, magic, sizeof magic) != 0) {
        return complain(FAILED, path, "is no checkpoint of qkv train");
    }
    if (size < sizeof *head) {
        return complain(FAILED, path, "is damaged: it ends in its head");
    }
    memcpy(head, file, sizeof *head);
    if (head->version != VERSION) {
        return complain(FAILED, path, "is a checkpoint of version %" PRIu64 "; %d is known",
                        head->version, VERSION);
    }
    if (head->checksum != checksum_of(file, size)) {
        return complain(FAILED, path, "is damaged: its checksum is wrong");
    }
    const struct head wanted = head_of(t);
    int status = check_settings(path, head, &wanted);
    if (!status && (size != checkpoint_size(t) || head->step < 0)) {
        status = complain(FAILED, path, "is damaged: its size is wrong");
    }
    return status;
}

int train_restore(struct trainer *t) {
    unsigned char *file = NULL;
    size_t size;
    struct head head;
    char *path = path_of(t->settings->folder, files[MATRICES]);
    int status = path ? file_read(path, magic, sizeof magic, &file, &size)
                      : out_of_memory(t->settings->folder);
    if (!status) {
        status = check_file(t, path, file, size, &head);
    }
    if (!status) {
        float *arrays[ARRAYS];
        list_arrays(t, arrays);
        for (int i = 0; i < ARRAYS; i++) {
            memcpy(arrays[i], file + sizeof head + (size_t)i * array_bytes(t), array_bytes(t));
        }
        t->step = head.step;
        t->best_step = head.best_step;
        t->best_loss = head.best_loss;
        t->last = (struct evaluation){head.last_loss, head.last_score};
    }
    free(file);
    free(path);
    return status;
}
