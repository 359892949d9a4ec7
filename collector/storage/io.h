/* io.h: the system calls of the log, in one table, so that tests can put a disk under it that is
 * full, broken, slow, or loses power.
 *
 * All functions but close return a value >= 0, or -errno. `path` is absolute or relative to the
 * working folder of the process. Any thread.
 */
#ifndef FLUE_STORAGE_IO_H
#define FLUE_STORAGE_IO_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "collector/base/error.h"

struct flue_storage_io {
    int (*open)(const struct flue_storage_io *io, const char *path, int flags, unsigned mode);
    void (*close)(const struct flue_storage_io *io, int fd);
    ssize_t (*pread)(const struct flue_storage_io *io, int fd, void *to, size_t size,
                     uint64_t offset);
    ssize_t (*pwritev)(const struct flue_storage_io *io, int fd, const struct iovec *from,
                       int count, uint64_t offset);
    int (*sync)(const struct flue_storage_io *io, int fd); /* fdatasync */
    /* Takes the space now and sets the size; what was never written reads as zeros. */
    int (*allocate)(const struct flue_storage_io *io, int fd, uint64_t size);
    int (*truncate)(const struct flue_storage_io *io, int fd, uint64_t size);
    int64_t (*size)(const struct flue_storage_io *io, int fd);
    int (*rename)(const struct flue_storage_io *io, const char *from, const char *to);
    int (*unlink)(const struct flue_storage_io *io, const char *path);
    int (*sync_folder)(const struct flue_storage_io *io, const char *path);
    /* The names in a folder, in any order, without "." and ".."; false from `visit` ends it. */
    int (*list)(const struct flue_storage_io *io, const char *path,
                bool (*visit)(void *arg, const char *name), void *arg);
    int (*make_folder)(const struct flue_storage_io *io, const char *path, unsigned mode);
    int (*lock)(const struct flue_storage_io *io, int fd); /* -EWOULDBLOCK: somebody else has it */
    void *user;
};

extern const struct flue_storage_io flue_storage_system; /* the real ones */

struct flue_storage;
/* Before start; borrowed until close. */
void flue_storage_use_io(struct flue_storage *storage, const struct flue_storage_io *io);

/* Reads until `size` or the end of the file: the bytes read, or -errno. */
ssize_t flue_storage_read_all(const struct flue_storage_io *io, int fd, void *to, size_t size,
                              uint64_t offset);
/* 0 or -errno; a short write goes on where it ended. Changes the items of `from`. */
int flue_storage_write_all(const struct flue_storage_io *io, int fd, struct iovec *from,
                           size_t count, uint64_t offset);
/* FLUE_UNAVAILABLE: "cannot WHAT PATH: text of the errno (ENOSPC): what to do". */
enum flue_code flue_storage_io_fail(struct flue_error *error, int negative_errno, const char *what,
                                    const char *path);

#endif
