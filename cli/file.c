/* SPDX-License-Identifier: Apache-2.0 */
/* Reading whole files, and writing them so that none is ever half there. See file.h. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "complain.h"

static int system_error(const char *path) {
    return complain(FAILED, path, "%s", strerror(errno));
}

/* read(2) until the buffer is full or the file ends; the bytes read, or -1. */
static ssize_t read_full(int fd, unsigned char *to, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, to + done, size - done);
        if (n == 0) {
            break;
        }
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)done;
}

/* The first size of the buffer: of the file, if it has one, and a byte to see its end. */
static size_t first_size(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? (size_t)st.st_size + 1 : 1 << 16;
}

/* Reads on from *size until the end, doubling the buffer whenever it is full. */
static int read_rest(int fd, const char *path, unsigned char **bytes, size_t *size, size_t room) {
    for (;;) {
        ssize_t n = read_full(fd, *bytes + *size, room - *size);
        if (n < 0) {
            return system_error(path);
        }
        *size += (size_t)n;
        if (*size < room) {
            return FINE;
        }
        unsigned char *larger = room > SIZE_MAX / 2 ? NULL : realloc(*bytes, room *= 2);
        if (!larger) {
            return out_of_memory(path);
        }
        *bytes = larger;
    }
}

static int read_open(int fd, const char *path, const void *magic, size_t magic_size,
                     unsigned char **bytes, size_t *size) {
    size_t room = first_size(fd);
    room = room < magic_size ? magic_size : room;
    *bytes = malloc(room);
    if (!*bytes) {
        return out_of_memory(path);
    }
    ssize_t n = read_full(fd, *bytes, magic_size);
    if (n < 0) {
        return system_error(path);
    }
    *size = (size_t)n;
    if (*size < magic_size || memcmp(*bytes, magic, magic_size) != 0) {
        return FINE;
    }
    return read_rest(fd, path, bytes, size, room);
}

int file_read(const char *path, const void *magic, size_t magic_size, unsigned char **bytes,
              size_t *size) {
    *bytes = NULL;
    *size = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return system_error(path);
    }
    int status = read_open(fd, path, magic, magic_size, bytes, size);
    close(fd);
    if (status) {
        free(*bytes);
        *bytes = NULL;
    }
    return status;
}

static int write_full(int fd, const void *from, size_t size) {
    const char *at = from;
    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        at += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Writes both pieces and closes; the first error stays in errno. A file is flushed to its disk,
 * which may be where it turns out that there is no room; a pipe or a device has nothing to flush.
 */
static int write_and_close(int fd, const void *head, size_t head_size, const void *body,
                           size_t body_size) {
    int bad = write_full(fd, head, head_size) || write_full(fd, body, body_size) ||
              (fsync(fd) && errno != EINVAL && errno != EROFS);
    int first = errno;
    if (close(fd) && !bad) {
        return -1;
    }
    errno = first;
    return bad ? -1 : 0;
}

/* Opens a new file beside the target; its name goes to *name. The target's own may be as long as
 * names can be. */
static int open_beside(const char *target, mode_t mode, char **name) {
    const char *slash = strrchr(target, '/');
    const int folder = slash ? (int)(slash - target) + 1 : 0;
    const size_t room = (size_t)folder + 48;
    *name = malloc(room);
    for (int i = 0; *name && i < 1000; i++) {
        snprintf(*name, room, "%.*sqkv-%ld-%d.tmp", folder, target, (long)getpid(), i);
        int fd = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd >= 0 || errno != EEXIST) {
            return fd;
        }
    }
    return -1;
}

static int write_directly(const char *path, const void *head, size_t head_size, const void *body,
                          size_t body_size) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write_and_close(fd, head, head_size, body, body_size)) {
        return system_error(path);
    }
    return FINE;
}

/* The file that `path` means, links followed; malloc'd, NULL with errno on failure, as for a link
 * to nothing. */
static char *find_target(const char *path) {
    struct stat st;
    char *target = realpath(path, NULL);
    if (!target && errno == ENOENT && (lstat(path, &st) || !S_ISLNK(st.st_mode))) {
        errno = ENOENT;
        target = strdup(path);
    } else if (target && access(target, W_OK)) {
        free(target);
        target = NULL;
    }
    return target;
}

int file_stage(struct staged *staged, const char *path, const void *head, size_t head_size,
               const void *body, size_t body_size) {
    struct stat st;
    int exists = stat(path, &st) == 0;
    *staged = (struct staged){.path = path};
    if (exists && !S_ISREG(st.st_mode)) {
        return write_directly(path, head, head_size, body, body_size);
    }
    staged->target = find_target(path);
    if (!staged->target) {
        return system_error(path);
    }
    int fd = open_beside(staged->target, exists ? st.st_mode & 0777 : 0666, &staged->temporary);
    if (fd < 0) {
        int status = system_error(path);
        free(staged->temporary);
        staged->temporary = NULL;
        file_discard(staged);
        return status;
    }
    if (exists) {
        /* It keeps its mode, whatever the umask; where the file system has no modes, the umask's
         * narrower one will do. */
        fchmod(fd, st.st_mode & 0777);
    }
    if (write_and_close(fd, head, head_size, body, body_size)) {
        int status = system_error(path);
        file_discard(staged);
        return status;
    }
    return FINE;
}

int file_commit(struct staged *staged) {
    int status = FINE;
    if (staged->temporary && rename(staged->temporary, staged->target)) {
        status = system_error(staged->path);
    } else {
        free(staged->temporary);
        staged->temporary = NULL;
    }
    file_discard(staged);
    return status;
}

void file_discard(struct staged *staged) {
    if (staged->temporary) {
        unlink(staged->temporary);
    }
    free(staged->temporary);
    free(staged->target);
    *staged = (struct staged){0};
}
