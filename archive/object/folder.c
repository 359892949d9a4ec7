/* folder.c: a folder as an object store. See folder.h.
 *
 * Every request is one piece of work on the pool. A key is a path below the folder; symbolic links
 * inside it are the operator's and followed. */
#include "archive/object/folder.h"
#include "archive/object/offload.h"
#include "archive/object/store.h"
#include "archive/object/url.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define TEMPORARY  ".flue-"
#define MOST_DEPTH 64
#define MOST_LIST  1000
#define VECTORS    64

struct folder {
    struct flue_object_store store;
    const struct flue_folder_config *config;
    unsigned mode;
};

struct object_work { /* object_op.own */
    struct object_offload offload;
    struct object_op *op;
    struct flue_error error;
};

const struct flue_field flue_folder_fields[] = {
    FLUE_STRING(struct flue_folder_config, path, .required = true, .help = "the folder"),
    FLUE_BOOL(struct flue_folder_config, create_directory, .def = "true",
              .help = "make it when it is not there"),
    FLUE_BOOL(struct flue_folder_config, fsync, .def = "true",
              .help = "an object is on disk before it is called stored"),
    FLUE_STRING(struct flue_folder_config, directory_permissions, .def = "0755",
                .help = "of folders that are made, octal"),
    FLUE_FIELDS_END};

/* ---- paths ---------------------------------------------------------------------------------- */

static bool part_ok(struct flue_bytes part)
{
    return part.size > 0 && part.size <= 255 && !flue_bytes_is(part, ".") &&
           !flue_bytes_is(part, "..") && !flue_bytes_starts_with(part, FLUE_BYTES(TEMPORARY));
}

static struct flue_bytes take_part(struct flue_bytes *rest)
{
    size_t slash = flue_bytes_find(*rest, '/');
    struct flue_bytes part = flue_bytes_first(*rest, slash == SIZE_MAX ? rest->size : slash);
    *rest = flue_bytes_from(*rest, slash == SIZE_MAX ? rest->size : slash + 1);
    return part;
}

static bool key_ok(struct flue_bytes key)
{
    unsigned depth = 0;
    if (key.size == 0 || key.data[key.size - 1] == '/')
        return false;
    while (key.size)
        if (!part_ok(take_part(&key)) || ++depth > MOST_DEPTH)
            return false;
    return true;
}

static enum flue_code fail_errno(struct object_work *work, const char *what)
{
    int saved = errno;
    bool put = work->op->kind == OBJECT_PUT;
    enum flue_code code = FLUE_UNAVAILABLE; /* a full or broken disk may be mended */
    if (saved == ENOENT || saved == ENOTDIR)
        code = put ? saved == ENOTDIR ? FLUE_REFUSED : FLUE_UNAVAILABLE : FLUE_NOT_FOUND;
    else if (saved == ENAMETOOLONG || saved == EISDIR || saved == EEXIST || saved == EINVAL)
        code = FLUE_REFUSED;
    else if (saved == ENOMEM)
        code = FLUE_NO_MEMORY;
    return flue_fail(&work->error, code, "%s: %s: %s", work->op->store->label, what,
                     strerror(saved));
}

/* The open folder that holds the last part of the key, made if need be; -1: work->error. */
static int open_parent(struct object_work *work, bool make, const char **name)
{
    struct folder *folder = (struct folder *)work->op->store;
    struct flue_bytes key = work->op->request->key, rest = key;
    const char *root = folder->config->path;
    int at = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (at < 0 && errno == ENOENT && make && folder->config->create_directory) {
        mkdir(root, folder->mode);
        at = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (at < 0) {
        fail_errno(work, "the folder cannot be opened");
        if (work->error.code == FLUE_NOT_FOUND && work->op->kind != OBJECT_GET)
            work->error.code = FLUE_UNAVAILABLE;
        return -1;
    }
    for (;;) {
        struct flue_bytes part = take_part(&rest);
        *name = flue_arena_string(&work->op->arena, part);
        if (!*name) {
            close(at);
            errno = ENOMEM;
            fail_errno(work, "key");
            return -1;
        }
        if (rest.size == 0)
            return at;
        int next = openat(at, *name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (next < 0 && errno == ENOENT && make) {
            if (mkdirat(at, *name, folder->mode) == 0 && folder->config->fsync)
                fsync(at);
            next = openat(at, *name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        }
        int saved = errno;
        close(at);
        errno = saved;
        at = next;
        if (at < 0) {
            fail_errno(work, "a folder of the key");
            return -1;
        }
    }
}

/* ---- put ------------------------------------------------------------------------------------ */

static bool write_all(int fd, const struct flue_slices *body)
{
    size_t slice = 0, offset = 0;
    while (body && slice < body->count) {
        struct iovec vectors[VECTORS];
        int count = 0;
        size_t skip = offset;
        for (size_t i = slice; i < body->count && count < VECTORS; i++, skip = 0) {
            struct flue_bytes b = flue_bytes_from(body->items[i], skip);
            vectors[count++] =
                (struct iovec){.iov_base = (void *)(uintptr_t)b.data, .iov_len = b.size};
        }
        ssize_t n = writev(fd, vectors, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        while (slice < body->count && (size_t)n >= body->items[slice].size - offset) {
            n -= (ssize_t)(body->items[slice].size - offset);
            slice++;
            offset = 0;
        }
        offset += (size_t)n;
    }
    return true;
}

/* False: the folder vanished under it (another request deleted its last object): again. */
static bool put(struct object_work *work)
{
    struct folder *folder = (struct folder *)work->op->store;
    struct flue_object_request *request = work->op->request;
    bool fresh = request->create == FLUE_OBJECT_CREATE, sync = folder->config->fsync;
    const char *name;
    char temporary[40];
    int at = open_parent(work, true, &name);
    if (at < 0)
        return work->error.code != FLUE_UNAVAILABLE || errno != ENOENT;
    snprintf(temporary, sizeof temporary, TEMPORARY "%016llx",
             (unsigned long long)flue_random_u64());
    int fd = openat(at, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        bool again = errno == ENOENT;
        fail_errno(work, "a file cannot be made");
        close(at);
        return !again;
    }
    bool good = write_all(fd, request->body) && (!sync || fsync(fd) == 0);
    int saved = errno;
    if (close(fd) != 0 && good) {
        good = false;
        saved = errno;
    }
    errno = saved;
    if (good && fresh)
        good = linkat(at, temporary, at, name, 0) == 0;
    else if (good)
        good = renameat(at, temporary, at, name) == 0;
    saved = errno;
    if (!good || fresh)
        unlinkat(at, temporary, 0);
    if (good && sync && fsync(at) != 0) {
        good = false;
        saved = errno;
    }
    close(at);
    errno = saved;
    if (!good && fresh && saved == EEXIST) {
        request->existed = true;
        flue_fail(&work->error, FLUE_REFUSED, "%s: the object exists already",
                  work->op->store->label);
    } else if (!good) {
        fail_errno(work, "it cannot be written");
    }
    return true;
}

/* ---- get, delete ---------------------------------------------------------------------------- */

static void get(struct object_work *work)
{
    struct flue_object_request *request = work->op->request;
    const char *name;
    struct stat facts;
    int at = open_parent(work, false, &name);
    if (at < 0)
        return;
    int fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int saved = errno;
    close(at);
    errno = saved;
    if (fd < 0) {
        fail_errno(work, "it cannot be opened");
        return;
    }
    if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) {
        close(fd);
        flue_fail(&work->error, FLUE_NOT_FOUND, "%s: no such object", work->op->store->label);
        return;
    }
    uint64_t total = (uint64_t)facts.st_size, from = 0, size = request->size;
    if (request->offset < 0)
        from = size < total ? total - size : 0;
    else
        from = (uint64_t)request->offset;
    request->object_size = total;
    if (from > total || (from == total && from > 0)) {
        flue_fail(&work->error, FLUE_INVALID,
                  "%s: the range begins at %llu, behind the end at %llu", work->op->store->label,
                  (unsigned long long)from, (unsigned long long)total);
    } else {
        uint64_t left = total - from;
        size = size && size < left ? size : left;
        if (size > FLUE_OBJECT_GET_LIMIT)
            flue_fail(&work->error, FLUE_TOO_LARGE, "%s: %llu bytes of an object, limit %u",
                      work->op->store->label, (unsigned long long)size, FLUE_OBJECT_GET_LIMIT);
        else if (!(request->data = flue_block_new(NULL, (size_t)size)))
            flue_fail(&work->error, FLUE_NO_MEMORY, "no memory for an object of %llu bytes",
                      (unsigned long long)size);
    }
    struct flue_block *block = request->data;
    while (!work->error.code && block->size < size) {
        ssize_t n = pread(fd, block->data + block->size, (size_t)size - block->size,
                          (off_t)(from + block->size));
        if (n > 0)
            block->size += (size_t)n;
        else if (n == 0)
            flue_fail(&work->error, FLUE_UNAVAILABLE, "%s: the object ends too early",
                      work->op->store->label);
        else if (errno != EINTR)
            fail_errno(work, "it cannot be read");
    }
    if (block && !work->error.code)
        flue_block_finish(block);
    close(fd);
}

static void delete (struct object_work *work)
{
    const char *name;
    char path[2200], *slash;
    const char *root = ((struct folder *)work->op->store)->config->path;
    int at = open_parent(work, false, &name);
    if (at < 0) {
        if (work->error.code == FLUE_NOT_FOUND)
            work->error = (struct flue_error){0}; /* as S3: gone is gone */
        return;
    }
    if (unlinkat(at, name, 0) != 0 && errno != ENOENT)
        fail_errno(work, "it cannot be deleted");
    else if (((struct folder *)work->op->store)->config->fsync)
        fsync(at);
    close(at);
    /* Folders are not objects: those left empty go. */
    if ((size_t)snprintf(path, sizeof path, "%s/%.*s", root, FLUE_PRI(work->op->request->key)) <
        sizeof path)
        while ((slash = strrchr(path, '/')) && (size_t)(slash - path) > strlen(root)) {
            *slash = 0;
            if (rmdir(path) != 0)
                break;
        }
}

/* ---- list ----------------------------------------------------------------------------------- */

struct entry {
    const char *name; /* a folder's ends in "/", so that the order is that of keys */
    bool folder;
};

struct level {
    int fd;
    struct entry *entries;
    size_t count, room, next, key_size;
};

struct walk {
    struct object_work *work;
    struct flue_bytes prefix, after;
    char key[FLUE_OBJECT_KEY_LIMIT + 1];
    struct level levels[MOST_DEPTH];
    unsigned depth;
    struct flue_object_listed *items;
    size_t count, room, limit;
    bool full;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static bool enter(struct walk *walk, int fd, size_t key_size)
{
    struct flue_arena *arena = &walk->work->op->arena;
    struct level *level = &walk->levels[walk->depth];
    *level = (struct level){.fd = fd, .key_size = key_size};
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    bool good = dir != NULL;
    struct dirent *found;
    if (!dir && copy >= 0)
        close(copy);
    walk->depth++;
    while (good && (found = readdir(dir))) {
        struct entry entry = {.folder = found->d_type == DT_DIR};
        struct stat facts;
        if (!part_ok(flue_bytes_of(found->d_name)))
            continue;
        if (found->d_type == DT_UNKNOWN || found->d_type == DT_LNK) {
            if (fstatat(fd, found->d_name, &facts, 0) != 0)
                continue;
            entry.folder = S_ISDIR(facts.st_mode);
            if (!entry.folder && !S_ISREG(facts.st_mode))
                continue;
        } else if (!entry.folder && found->d_type != DT_REG) {
            continue;
        }
        entry.name = flue_arena_printf(arena, entry.folder ? "%s/" : "%s", found->d_name);
        good =
            entry.name && FLUE_ARENA_PUSH(arena, level->entries, level->count, level->room, entry);
    }
    if (dir)
        closedir(dir);
    if (!good)
        flue_fail(&walk->work->error, dir ? FLUE_NO_MEMORY : FLUE_UNAVAILABLE,
                  "%s: a folder cannot be listed", walk->work->op->store->label);
    if (level->count)
        qsort(level->entries, level->count, sizeof *level->entries, by_name);
    return good;
}

static bool emit(struct walk *walk, struct flue_bytes key, bool folder, int fd, const char *name)
{
    struct flue_arena *arena = &walk->work->op->arena;
    struct flue_object_listed item = {.folder = folder};
    struct stat facts;
    if (walk->after.size && flue_bytes_compare(key, walk->after) <= 0)
        return true;
    if (folder && walk->count && flue_bytes_equal(walk->items[walk->count - 1].key, key))
        return true;
    if (walk->count == walk->limit) {
        walk->full = true;
        return false;
    }
    if (!folder && fstatat(fd, name, &facts, 0) == 0) {
        item.size = (uint64_t)facts.st_size;
        item.modified = facts.st_mtim.tv_sec;
    }
    item.key = flue_arena_copy(arena, key);
    if (!item.key.data || !FLUE_ARENA_PUSH(arena, walk->items, walk->count, walk->room, item)) {
        flue_fail(&walk->work->error, FLUE_NO_MEMORY, "no memory for a list");
        return false;
    }
    return true;
}

/* One entry; false: the walk is over. */
static bool visit(struct walk *walk, struct level *level, const struct entry *entry)
{
    char delimiter = walk->work->op->request->delimiter;
    struct flue_bytes name = flue_bytes_of(entry->name), prefix = walk->prefix;
    if (level->key_size + name.size > FLUE_OBJECT_KEY_LIMIT)
        return true;
    memcpy(walk->key + level->key_size, name.data, name.size);
    struct flue_bytes key = flue_bytes(walk->key, level->key_size + name.size);
    if (entry->folder) {
        size_t common = key.size < prefix.size ? key.size : prefix.size;
        if (memcmp(key.data, prefix.data ? prefix.data : key.data, common) != 0)
            return true;
        if (walk->after.size && flue_bytes_compare(key, walk->after) < 0 &&
            !flue_bytes_starts_with(walk->after, key))
            return true; /* all of it comes before */
        if (delimiter == '/' && key.size > prefix.size)
            return emit(walk, key, true, -1, NULL);
        if (walk->depth == MOST_DEPTH)
            return true;
        char part[256];
        snprintf(part, sizeof part, "%.*s", (int)name.size - 1, entry->name);
        int fd = openat(level->fd, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 || enter(walk, fd, key.size);
    }
    if (!flue_bytes_starts_with(key, prefix))
        return true;
    size_t fold = delimiter ? flue_bytes_find(flue_bytes_from(key, prefix.size), (uint8_t)delimiter)
                            : SIZE_MAX;
    if (fold != SIZE_MAX)
        return emit(walk, flue_bytes_first(key, prefix.size + fold + 1), true, -1, NULL);
    return emit(walk, key, false, level->fd, entry->name);
}

static void list(struct object_work *work)
{
    struct flue_object_request *request = work->op->request;
    const char *root = ((struct folder *)work->op->store)->config->path;
    struct walk *walk = flue_arena_zalloc(&work->op->arena, 1, sizeof *walk);
    int at = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!walk || at < 0) {
        if (!walk)
            flue_fail(&work->error, FLUE_NO_MEMORY, "no memory for a list");
        else
            fail_errno(work, "the folder cannot be opened");
        if (at >= 0)
            close(at);
        return;
    }
    walk->work = work;
    walk->prefix = request->key;
    walk->after = request->start_after;
    walk->limit = request->limit && request->limit < MOST_LIST ? request->limit : MOST_LIST;
    bool good = enter(walk, at, 0);
    while (good && walk->depth) {
        struct level *level = &walk->levels[walk->depth - 1];
        if (level->next == level->count) {
            close(level->fd);
            walk->depth--;
            continue;
        }
        good = visit(walk, level, &level->entries[level->next++]);
    }
    while (walk->depth)
        close(walk->levels[--walk->depth].fd);
    object_op_listed(work->op, walk->items, walk->count, walk->full);
}

/* ---- the store ------------------------------------------------------------------------------ */

static void on_work(void *user)
{
    struct object_work *work = user;
    switch (work->op->kind) {
    case OBJECT_PUT:
        for (unsigned tries = 0; !put(work) && tries < 3; tries++)
            work->error = (struct flue_error){0};
        break;
    case OBJECT_GET:
        get(work);
        break;
    case OBJECT_LIST:
        list(work);
        break;
    default:
        delete (work);
    }
}

static void on_done(void *user)
{
    struct object_work *work = user;
    work->op->request->error = work->error;
    object_op_finish(work->op);
}

static void begin(struct object_op *op)
{
    struct object_work *work = flue_arena_zalloc(&op->arena, 1, sizeof *work);
    char text[80];
    if (!work) {
        object_op_fail(op, FLUE_NO_MEMORY, "no memory for a request");
        return;
    }
    if (op->kind != OBJECT_LIST && !key_ok(op->request->key)) {
        object_op_fail(op, FLUE_INVALID,
                       "the key \"%s\" is no path in a folder: its parts are not empty, not \".\", "
                       "not \"..\", at most 255 bytes, and do not begin with " TEMPORARY,
                       flue_printable(op->request->key, text, sizeof text));
        return;
    }
    op->own = work;
    work->op = op;
    work->offload = (struct object_offload){
        .loop = op->store->loop, .work = on_work, .done = on_done, .user = work};
    object_offload(&work->offload);
}

static void disconnect(struct flue_object_store *store)
{
    for (struct object_op *op = store->ops; op; op = op->next)
        if (op->own)
            object_offload_stop(&((struct object_work *)op->own)->offload);
}

static void destroy(struct flue_object_store *store)
{
    free(store);
}

static const struct object_driver driver = {
    .vendor = "folder", .begin = begin, .disconnect = disconnect, .destroy = destroy};

static bool mode_of(const char *text, unsigned *mode)
{
    *mode = 0;
    if (!text || !*text || strlen(text) > 5)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '7')
            return false;
        *mode = *mode * 8 + (unsigned)(*text - '0');
    }
    return *mode <= 07777;
}

static void check(const void *raw, struct flue_check *check)
{
    const struct flue_folder_config *config = raw;
    unsigned mode;
    if (!mode_of(config->directory_permissions, &mode) || (mode & 0300) != 0300)
        flue_check_fail(check, "directory_permissions",
                        "is not an octal mode that lets the owner write and enter (0750)");
}

static enum flue_code open_store(const void *raw, struct flue_loop *loop,
                                 struct flue_metrics *metrics, struct flue_object_store **out,
                                 struct flue_error *error)
{
    const struct flue_folder_config *config = raw;
    struct folder *folder = calloc(1, sizeof *folder);
    if (!folder)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a store");
    if (!config->path || !*config->path || !mode_of(config->directory_permissions, &folder->mode)) {
        free(folder);
        return flue_fail(error, FLUE_INVALID,
                         "path is missing, or directory_permissions is no "
                         "octal mode");
    }
    folder->config = config;
    object_store_init(&folder->store, &driver, loop, metrics, "folder", config->path);
    *out = &folder->store;
    return FLUE_OK;
}

static enum flue_code from_url(const char *url, struct flue_arena *arena, void *raw,
                               struct flue_bytes *prefix, struct flue_error *error)
{
    struct flue_folder_config *config = raw;
    struct object_url parts;
    enum flue_code code =
        object_url_read(url, "file", flue_folder_fields, raw, arena, &parts, error);
    if (code)
        return code;
    if (parts.name.size && !flue_bytes_is(parts.name, "localhost"))
        return flue_fail(error, FLUE_INVALID, "a folder's URL is file:///path, without a host");
    config->path = flue_arena_printf(arena, "/%.*s", FLUE_PRI(parts.rest));
    *prefix = (struct flue_bytes){0};
    return config->path ? FLUE_OK : flue_fail(error, FLUE_NO_MEMORY, "no memory for a path");
}

static const char *const schemes[] = {"file", NULL};
const struct flue_object_vendor flue_object_folder = {.name = "folder",
                                                      .schemes = schemes,
                                                      .config_size =
                                                          sizeof(struct flue_folder_config),
                                                      .fields = flue_folder_fields,
                                                      .check = check,
                                                      .open = open_store,
                                                      .from_url = from_url};
