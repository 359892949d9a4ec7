/* disk.h: a disk in memory under the log, that can be full, broken, slow, or lose power.
 *
 * Every file has what the page cache shows (`now`) and what is on the platter (`durable`), with the
 * sectors that differ marked as dirty. A sync copies dirty sectors; a sync that fails forgets that
 * they were dirty without having copied them, as Linux does. Changes of the folder are durable when
 * it is synced. disk_power_cut() keeps of the dirty sectors and of the changes of the folder what
 * the dice say (a sector may be written in part); disk_kill() keeps what the page cache shows.
 */
#ifndef TESTS_STORAGE_DISK_H
#define TESTS_STORAGE_DISK_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "collector/storage/io.h"

#define DISK_SECTOR 512u
#define DISK_FILES  512
#define DISK_OPS    4096

struct disk_data {
    uint8_t *bytes;
    size_t size, room;
};
struct disk_file {
    struct disk_data now, durable;
    uint8_t *dirty; /* by sector */
    size_t dirty_room;
    bool used, locked;
};
struct disk_name {
    char path[160];
    int file; /* -1: free */
};
struct disk_change { /* of the folder, not synced */
    char path[160], to[160];
    int file; /* link: path -> file; -1: unlink path; rename when `to` is set */
};

struct disk {
    struct flue_storage_io io;
    pthread_mutex_t lock;
    pthread_cond_t freed;
    struct disk_file files[DISK_FILES];
    struct disk_name names[DISK_FILES], durable_names[DISK_FILES];
    struct disk_change changes[DISK_OPS];
    size_t change_count;
    uint64_t operations, cut_at; /* cut_at: operations after which the power is gone; 0: never */
    bool gone;
    uint64_t dice;

    /* Faults: the errno, and after how many more calls (0: now). */
    int write_errno, sync_errno, read_errno, create_errno, unlink_errno;
    unsigned write_after, sync_after;
    bool once; /* a fault happens once */
    uint64_t read_from, read_to;
    char read_path[64]; /* the fault is of files whose name contains this */
    size_t shortest;    /* a write takes at most so many bytes */
    uint64_t space, used;
    bool read_only;
    bool hold_syncs; /* a sync waits until it is false: a slow disk */
    unsigned waiting;
    uint64_t syncs, written;
};

static uint64_t disk_dice(struct disk *disk)
{
    uint64_t x = disk->dice += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static struct disk *disk_of(const struct flue_storage_io *io)
{
    return io->user;
}

/* Counts an operation; false: the power is gone. */
static bool disk_alive(struct disk *disk)
{
    if (!disk->gone && disk->cut_at && ++disk->operations >= disk->cut_at)
        disk->gone = true;
    return !disk->gone;
}

static void disk_grow(struct disk_data *data, size_t size)
{
    if (size > data->room) {
        data->room = size * 2;
        data->bytes = realloc(data->bytes, data->room);
    }
    if (size > data->size)
        memset(data->bytes + data->size, 0, size - data->size);
    data->size = size;
}

static void disk_mark(struct disk_file *file, size_t from, size_t to)
{
    size_t last = (to + DISK_SECTOR - 1) / DISK_SECTOR;
    if (last > file->dirty_room) {
        file->dirty = realloc(file->dirty, last * 2);
        memset(file->dirty + file->dirty_room, 0, last * 2 - file->dirty_room);
        file->dirty_room = last * 2;
    }
    for (size_t i = from / DISK_SECTOR; i < last; i++)
        file->dirty[i] = 1;
}

static struct disk_name *disk_find(struct disk_name *names, const char *path)
{
    for (size_t i = 0; i < DISK_FILES; i++)
        if (names[i].file >= 0 && strcmp(names[i].path, path) == 0)
            return &names[i];
    return NULL;
}

static void disk_link(struct disk_name *names, const char *path, int file)
{
    struct disk_name *there = disk_find(names, path);
    for (size_t i = 0; !there && i < DISK_FILES; i++)
        if (names[i].file < 0)
            there = &names[i];
    snprintf(there->path, sizeof there->path, "%s", path);
    there->file = file;
}

static void disk_apply(struct disk_name *names, const struct disk_change *change)
{
    struct disk_name *there = disk_find(names, change->path);
    if (change->to[0]) {
        if (there) {
            int file = there->file;
            there->file = -1;
            disk_link(names, change->to, file);
        }
    } else if (change->file >= 0) {
        disk_link(names, change->path, change->file);
    } else if (there) {
        there->file = -1;
    }
}

static void disk_change(struct disk *disk, const char *path, const char *to, int file)
{
    struct disk_change change = {.file = file};
    snprintf(change.path, sizeof change.path, "%s", path);
    snprintf(change.to, sizeof change.to, "%s", to);
    disk_apply(disk->names, &change);
    if (disk->change_count == DISK_OPS) /* an old one has certainly been written */
        disk_apply(disk->durable_names, &disk->changes[0]);
    if (disk->change_count == DISK_OPS)
        memmove(disk->changes, disk->changes + 1, --disk->change_count * sizeof change);
    disk->changes[disk->change_count++] = change;
}

/* ---- the table ------------------------------------------------------------------------------- */

static int disk_open(const struct flue_storage_io *io, const char *path, int flags, unsigned mode)
{
    struct disk *disk = disk_of(io);
    int result = -ENOENT;
    pthread_mutex_lock(&disk->lock);
    struct disk_name *name = disk_find(disk->names, path);
    if (!disk_alive(disk)) {
        result = -EIO;
    } else if (name) {
        result = flags & O_EXCL ? -EEXIST : name->file;
        if (disk->read_only && (flags & O_ACCMODE) != O_RDONLY)
            result = -EROFS;
    } else if (flags & O_CREAT) {
        result = disk->read_only ? -EROFS : disk->create_errno ? -disk->create_errno : -ENFILE;
        for (int i = 0; result == -ENFILE && i < DISK_FILES; i++)
            if (!disk->files[i].used) {
                disk->files[i].used = true;
                disk_change(disk, path, "", i);
                result = i;
            }
    }
    if (result >= 0 && flags & O_TRUNC) {
        disk_mark(&disk->files[result], 0, disk->files[result].now.size);
        disk->files[result].now.size = 0;
    }
    pthread_mutex_unlock(&disk->lock);
    return result;
}

static void disk_close(const struct flue_storage_io *io, int fd)
{
}

static ssize_t disk_pread(const struct flue_storage_io *io, int fd, void *to, size_t size,
                          uint64_t offset)
{
    struct disk *disk = disk_of(io);
    pthread_mutex_lock(&disk->lock);
    const struct disk_data *data = &disk->files[fd].now;
    ssize_t result = 0;
    bool bad = disk->read_errno && offset < disk->read_to && offset + size > disk->read_from;
    for (size_t i = 0; bad && disk->read_path[0] && i < DISK_FILES; i++)
        if (disk->names[i].file == fd)
            bad = strstr(disk->names[i].path, disk->read_path) != NULL;
    if (!disk_alive(disk)) {
        result = -EIO;
    } else if (bad) {
        result = -disk->read_errno;
    } else if (offset < data->size) {
        result = (ssize_t)(data->size - offset < size ? data->size - offset : size);
        memcpy(to, data->bytes + offset, (size_t)result);
    }
    pthread_mutex_unlock(&disk->lock);
    return result;
}

static int disk_fault(struct disk *disk, int *number, unsigned *after)
{
    if (!*number)
        return 0;
    if (*after) {
        --*after;
        return 0;
    }
    int result = -*number;
    if (disk->once)
        *number = 0;
    return result;
}

static int disk_resize(struct disk *disk, struct disk_file *file, uint64_t size)
{
    if (size > file->now.size && disk->space && disk->used + size - file->now.size > disk->space)
        return -ENOSPC;
    disk->used += size - file->now.size;
    if (size < file->now.size)
        disk_mark(file, size, file->now.size);
    disk_grow(&file->now, size);
    return 0;
}

static ssize_t disk_pwritev(const struct flue_storage_io *io, int fd, const struct iovec *from,
                            int count, uint64_t offset)
{
    struct disk *disk = disk_of(io);
    pthread_mutex_lock(&disk->lock);
    struct disk_file *file = &disk->files[fd];
    ssize_t done = disk_alive(disk) ? 0 : -EIO;
    if (!done)
        done = disk->read_only ? -EROFS : disk_fault(disk, &disk->write_errno, &disk->write_after);
    for (int i = 0; done >= 0 && i < count; i++) {
        size_t size = from[i].iov_len;
        if (disk->shortest && (size_t)done + size > disk->shortest)
            size = disk->shortest - (size_t)done;
        uint64_t end = offset + (uint64_t)done + size;
        int failure = end > file->now.size ? disk_resize(disk, file, end) : 0;
        if (failure) {
            done = done ? done : failure;
            break;
        }
        if (size)
            memcpy(file->now.bytes + offset + done, from[i].iov_base, size);
        if (size)
            disk_mark(file, offset + (uint64_t)done, end);
        done += (ssize_t)size;
        if (size < from[i].iov_len)
            break;
    }
    if (done > 0)
        disk->written += (uint64_t)done;
    pthread_mutex_unlock(&disk->lock);
    return done;
}

static int disk_sync(const struct flue_storage_io *io, int fd)
{
    struct disk *disk = disk_of(io);
    pthread_mutex_lock(&disk->lock);
    struct disk_file *file = &disk->files[fd];
    disk->waiting++;
    while (disk->hold_syncs)
        pthread_cond_wait(&disk->freed, &disk->lock);
    disk->waiting--;
    int result = disk_alive(disk) ? disk_fault(disk, &disk->sync_errno, &disk->sync_after) : -EIO;
    disk->syncs++;
    if (!disk->gone) {
        if (!result)
            disk_grow(&file->durable, file->now.size);
        for (size_t i = 0; i < file->dirty_room; i++) {
            size_t at = i * DISK_SECTOR;
            if (file->dirty[i] && !result && at < file->now.size) {
                size_t size = file->now.size - at < DISK_SECTOR ? file->now.size - at : DISK_SECTOR;
                memcpy(file->durable.bytes + at, file->now.bytes + at, size);
            }
            file->dirty[i] = 0;
        }
    }
    pthread_mutex_unlock(&disk->lock);
    return result;
}

static int disk_truncate(const struct flue_storage_io *io, int fd, uint64_t size)
{
    struct disk *disk = disk_of(io);
    pthread_mutex_lock(&disk->lock);
    int result = disk_alive(disk) ? disk_resize(disk, &disk->files[fd], size) : -EIO;
    pthread_mutex_unlock(&disk->lock);
    return result;
}

static int64_t disk_size(const struct flue_storage_io *io, int fd)
{
    struct disk *disk = disk_of(io);
    pthread_mutex_lock(&disk->lock);
    int64_t result = disk_alive(disk) ? (int64_t)disk->files[fd].now.size : -EIO;
    pthread_mutex_unlock(&disk->lock);
    return result;
}

static int disk_rename(const struct flue_storage_io *io, const char *from, const char *to)
{
    struct disk *disk = disk_of(io);
    pthread_mutex_lock(&disk->lock);
    int result = !disk_alive(disk)               ? -EIO
                 : disk->read_only               ? -EROFS
                 : !disk_find(disk->names, from) ? -ENOENT
                                                 : 0;
    if (!result)
        disk_change(disk, from, to, -1);
    pthread_mutex_unlock(&disk->lock);
    return result;
}

static int disk_unlink(const struct flue_storage_io *io, const char *path)
{
    struct disk *disk = disk_of(io);
    pthread_mutex_lock(&disk->lock);
    struct disk_name *name = disk_find(disk->names, path);
    int result = !disk_alive(disk)    ? -EIO
                 : disk->unlink_errno ? -disk->unlink_errno
                 : !name              ? -ENOENT
                                      : 0;
    if (!result) {
        disk->used -= disk->files[name->file].now.size;
        disk_change(disk, path, "", -1);
    }
    pthread_mutex_unlock(&disk->lock);
    return result;
}

static int disk_sync_folder(const struct flue_storage_io *io, const char *path)
{
    struct disk *disk = disk_of(io);
    pthread_mutex_lock(&disk->lock);
    int result = disk_alive(disk) ? 0 : -EIO;
    for (size_t i = 0; !result && i < disk->change_count; i++)
        disk_apply(disk->durable_names, &disk->changes[i]);
    if (!result)
        disk->change_count = 0;
    pthread_mutex_unlock(&disk->lock);
    return result;
}

static int disk_list(const struct flue_storage_io *io, const char *path,
                     bool (*visit)(void *arg, const char *name), void *arg)
{
    struct disk *disk = disk_of(io);
    static __thread char names[DISK_FILES][160];
    size_t count = 0, prefix = strlen(path);
    pthread_mutex_lock(&disk->lock);
    bool alive = disk_alive(disk);
    for (size_t i = 0; i < DISK_FILES; i++)
        if (disk->names[i].file >= 0)
            snprintf(names[count++], sizeof names[0], "%s", disk->names[i].path + prefix + 1);
    pthread_mutex_unlock(&disk->lock);
    for (size_t i = 0; alive && i < count; i++)
        if (!visit(arg, names[i]))
            break;
    return alive ? 0 : -EIO;
}

static int disk_make_folder(const struct flue_storage_io *io, const char *path, unsigned mode)
{
    return -EEXIST;
}

static int disk_lock(const struct flue_storage_io *io, int fd)
{
    return 0;
}

/* ---- its life -------------------------------------------------------------------------------- */

static struct disk *disk_new(uint64_t seed)
{
    struct disk *disk = calloc(1, sizeof *disk);
    disk->io = (struct flue_storage_io){.open = disk_open,
                                        .close = disk_close,
                                        .pread = disk_pread,
                                        .pwritev = disk_pwritev,
                                        .sync = disk_sync,
                                        .allocate = disk_truncate,
                                        .truncate = disk_truncate,
                                        .size = disk_size,
                                        .rename = disk_rename,
                                        .unlink = disk_unlink,
                                        .sync_folder = disk_sync_folder,
                                        .list = disk_list,
                                        .make_folder = disk_make_folder,
                                        .lock = disk_lock,
                                        .user = disk};
    pthread_mutex_init(&disk->lock, NULL);
    pthread_cond_init(&disk->freed, NULL);
    disk->dice = seed;
    for (size_t i = 0; i < DISK_FILES; i++)
        disk->names[i].file = disk->durable_names[i].file = -1;
    return disk;
}

static void disk_free(struct disk *disk)
{
    for (size_t i = 0; i < DISK_FILES; i++) {
        free(disk->files[i].now.bytes);
        free(disk->files[i].durable.bytes);
        free(disk->files[i].dirty);
    }
    free(disk);
}

/* Files that no name leads to are free again; nothing is dirty. */
static void disk_settle(struct disk *disk)
{
    bool reached[DISK_FILES] = {false};
    memcpy(disk->durable_names, disk->names, sizeof disk->names);
    disk->change_count = 0;
    for (size_t i = 0; i < DISK_FILES; i++)
        if (disk->names[i].file >= 0)
            reached[disk->names[i].file] = true;
    disk->used = 0;
    for (size_t i = 0; i < DISK_FILES; i++) {
        struct disk_file *file = &disk->files[i];
        file->used = reached[i];
        if (!reached[i])
            file->now.size = 0;
        disk->used += file->now.size;
        disk_grow(&file->durable, file->now.size);
        if (file->now.size)
            memcpy(file->durable.bytes, file->now.bytes, file->now.size);
        if (file->dirty)
            memset(file->dirty, 0, file->dirty_room);
    }
    disk->gone = false;
    disk->cut_at = disk->operations = 0;
}

/* The process was killed: the page cache is what it was. */
__attribute__((unused)) static void disk_kill(struct disk *disk)
{
    disk_settle(disk);
}

__attribute__((unused)) static void disk_power_cut(struct disk *disk)
{
    size_t kept = disk_dice(disk) % (disk->change_count + 1);
    unsigned chance = (unsigned)(disk_dice(disk) % 5); /* of a dirty sector, in quarters */
    for (size_t i = 0; i < kept; i++)
        disk_apply(disk->durable_names, &disk->changes[i]);
    for (size_t i = 0; i < DISK_FILES; i++) {
        struct disk_file *file = &disk->files[i];
        size_t size = disk_dice(disk) % 2 ? file->now.size : file->durable.size;
        size_t before = file->durable.size;
        disk_grow(&file->durable, size > before ? size : before);
        for (size_t s = 0; s < file->dirty_room; s++) {
            size_t at = s * DISK_SECTOR;
            if (!file->dirty[s] || at >= file->durable.size || at >= file->now.size ||
                disk_dice(disk) % 4 >= chance)
                continue;
            size_t most = file->durable.size < file->now.size ? file->durable.size : file->now.size;
            size_t part = most - at < DISK_SECTOR ? most - at : DISK_SECTOR;
            if (disk_dice(disk) % 8 == 0)
                part = disk_dice(disk) % (part + 1);
            memcpy(file->durable.bytes + at, file->now.bytes + at, part);
        }
        disk_grow(&file->durable, size);
        disk_grow(&file->now, size);
        if (size)
            memcpy(file->now.bytes, file->durable.bytes, size);
    }
    memcpy(disk->names, disk->durable_names, sizeof disk->names);
    disk_settle(disk);
}

/* The bytes of a file as the page cache shows them; NULL: there is none. */
__attribute__((unused)) static struct disk_data *disk_data(struct disk *disk, const char *name)
{
    for (size_t i = 0; i < DISK_FILES; i++)
        if (disk->names[i].file >= 0 && strstr(disk->names[i].path, name))
            return &disk->files[disk->names[i].file].now;
    return NULL;
}

__attribute__((unused)) static size_t disk_count(struct disk *disk, const char *part)
{
    size_t count = 0;
    pthread_mutex_lock(&disk->lock);
    for (size_t i = 0; i < DISK_FILES; i++)
        count += disk->names[i].file >= 0 && strstr(disk->names[i].path, part);
    pthread_mutex_unlock(&disk->lock);
    return count;
}

#endif
