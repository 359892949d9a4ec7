/* io.c: the real system calls of the log, and whole reads and writes on top of a table. */
#include "collector/storage/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int or_errno(int result)
{
    return result < 0 ? -errno : result;
}

static int system_open(const struct flue_storage_io *io, const char *path, int flags, unsigned mode)
{
    return or_errno(open(path, flags | O_CLOEXEC, mode));
}

static void system_close(const struct flue_storage_io *io, int fd)
{
    close(fd);
}

static ssize_t system_pread(const struct flue_storage_io *io, int fd, void *to, size_t size,
                            uint64_t offset)
{
    ssize_t got = pread(fd, to, size, (off_t)offset);
    return got < 0 ? -errno : got;
}

static ssize_t system_pwritev(const struct flue_storage_io *io, int fd, const struct iovec *from,
                              int count, uint64_t offset)
{
    ssize_t put = pwritev(fd, from, count, (off_t)offset);
    return put < 0 ? -errno : put;
}

static int system_sync(const struct flue_storage_io *io, int fd)
{
    return or_errno(fdatasync(fd));
}

/* The space is taken and the size set before the first record, so that the sync of a record has
 * neither to commit, and so that a full disk is found here, where nothing is lost yet. Blocks that
 * were never written read as zeros, which is where a scan ends. */
static int system_allocate(const struct flue_storage_io *io, int fd, uint64_t size)
{
    int result;
    do
        result = or_errno(fallocate(fd, 0, 0, (off_t)size));
    while (result == -EINTR);
    if (result == -EOPNOTSUPP || result == -ENOSYS)
        result = or_errno(ftruncate(fd, (off_t)size));
    return result;
}

static int system_truncate(const struct flue_storage_io *io, int fd, uint64_t size)
{
    return or_errno(ftruncate(fd, (off_t)size));
}

static int64_t system_size(const struct flue_storage_io *io, int fd)
{
    struct stat st;
    return fstat(fd, &st) < 0 ? -errno : (int64_t)st.st_size;
}

static int system_rename(const struct flue_storage_io *io, const char *from, const char *to)
{
    return or_errno(rename(from, to));
}

static int system_unlink(const struct flue_storage_io *io, const char *path)
{
    return or_errno(unlink(path));
}

static int system_sync_folder(const struct flue_storage_io *io, const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = or_errno(fsync(fd));
    close(fd);
    return result;
}

static int system_list(const struct flue_storage_io *io, const char *path,
                       bool (*visit)(void *arg, const char *name), void *arg)
{
    DIR *folder = opendir(path);
    if (!folder)
        return -errno;
    int result = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry) {
            result = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            !visit(arg, entry->d_name))
            break;
    }
    closedir(folder);
    return result;
}

static int system_make_folder(const struct flue_storage_io *io, const char *path, unsigned mode)
{
    return or_errno(mkdir(path, mode));
}

static int system_lock(const struct flue_storage_io *io, int fd)
{
    return or_errno(flock(fd, LOCK_EX | LOCK_NB));
}

const struct flue_storage_io flue_storage_system = {
    .open = system_open,
    .close = system_close,
    .pread = system_pread,
    .pwritev = system_pwritev,
    .sync = system_sync,
    .allocate = system_allocate,
    .truncate = system_truncate,
    .size = system_size,
    .rename = system_rename,
    .unlink = system_unlink,
    .sync_folder = system_sync_folder,
    .list = system_list,
    .make_folder = system_make_folder,
    .lock = system_lock,
};

ssize_t flue_storage_read_all(const struct flue_storage_io *io, int fd, void *to, size_t size,
                              uint64_t offset)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = io->pread(io, fd, (char *)to + done, size - done, offset + done);
        if (got == -EINTR)
            continue;
        if (got < 0)
            return got;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

int flue_storage_write_all(const struct flue_storage_io *io, int fd, struct iovec *from,
                           size_t count, uint64_t offset)
{
    while (count) {
        ssize_t put = io->pwritev(io, fd, from, count > IOV_MAX ? IOV_MAX : (int)count, offset);
        if (put == -EINTR)
            continue;
        if (put <= 0)
            return put == 0 ? -EIO : (int)put;
        offset += (uint64_t)put;
        while (count && (size_t)put >= from->iov_len) {
            put -= (ssize_t)from->iov_len;
            from++;
            count--;
        }
        if (count) {
            from->iov_base = (char *)from->iov_base + put;
            from->iov_len -= (size_t)put;
        }
    }
    return 0;
}

static const char *advice(int number)
{
    switch (number) {
    case ENOSPC:
    case EDQUOT:
        return ": the disk is full: free space there, or give the log a larger one";
    case EROFS:
        return ": the file system is read-only: see why it was (a disk error?) and mount it again";
    case EIO:
        return ": the disk fails: look at the kernel's log and replace it";
    case EACCES:
    case EPERM:
        return ": give the user of flue the right to read and write there";
    case EMFILE:
    case ENFILE:
        return ": raise the limit of open files";
    default:
        return "";
    }
}

enum flue_code flue_storage_io_fail(struct flue_error *error, int negative_errno, const char *what,
                                    const char *path)
{
    const char *name = strerrorname_np(-negative_errno);
    return flue_fail(error, FLUE_UNAVAILABLE, "cannot %s %s: %s (%s)%s", what, path,
                     strerrordesc_np(-negative_errno) ? strerrordesc_np(-negative_errno)
                                                      : "unknown error",
                     name ? name : "?", advice(-negative_errno));
}
