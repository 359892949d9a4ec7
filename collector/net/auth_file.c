/* auth_file.c: see auth_file.h. */
#include "collector/net/auth_file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <unistd.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"

#define LOOK_EVERY_NS UINT64_C(2000000000)

static enum flue_code read_file(const struct flue_auth_file *file, uint8_t *room, size_t *size,
                                struct flue_error *error)
{
    *size = 0;
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return flue_fail(error, FLUE_INVALID, "cannot open \"%s\": %s", file->path,
                         strerror(errno));
    ssize_t got = 1;
    while (got > 0 && *size <= FLUE_AUTH_FILE_MOST) {
        got = read(fd, room + *size, FLUE_AUTH_FILE_MOST + 1 - *size);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            *size += (size_t)got;
    }
    int wrong = got < 0 ? errno : 0;
    close(fd);
    if (wrong)
        return flue_fail(error, FLUE_INVALID, "cannot read \"%s\": %s", file->path,
                         strerror(wrong));
    if (*size > FLUE_AUTH_FILE_MOST)
        return flue_fail(error, FLUE_INVALID, "\"%s\" has more than %zu bytes", file->path,
                         FLUE_AUTH_FILE_MOST);
    return FLUE_OK;
}

static enum flue_code read_and_take(struct flue_auth_file *file, struct flue_error *error)
{
    size_t size = 0;
    uint8_t *room = malloc(FLUE_AUTH_FILE_MOST + 1);
    if (!room)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to read \"%s\"", file->path);
    enum flue_code code = read_file(file, room, &size, error);
    if (!code)
        code = file->take(file->arg, flue_bytes(room, size), error);
    OPENSSL_cleanse(room, size);
    free(room);
    return code;
}

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void look(struct flue_job *job)
{
    struct flue_auth_file *file =
        (struct flue_auth_file *)(void *)((char *)job - offsetof(struct flue_auth_file, job));
    struct flue_error error;
    struct stat now;
    enum flue_code code = FLUE_OK;
    if (stat(file->path, &now) != 0)
        code = flue_fail(&error, FLUE_INVALID, "cannot look at \"%s\": %s", file->path,
                         strerror(errno));
    else if (!same(&now, &file->seen) && !(code = read_and_take(file, &error)))
        file->seen = now;
    if (code && !file->complained)
        flue_log(FLUE_WARN, "auth", "cannot read a file again; what it held stays in use",
                 FLUE_S("error", error.text), FLUE_LOG_END);
    file->complained = code != FLUE_OK;
    atomic_store(&file->working, false);
}

static void looked(struct flue_job *job)
{
    struct flue_auth_file *file =
        (struct flue_auth_file *)(void *)((char *)job - offsetof(struct flue_auth_file, job));
    if (!file->stopping)
        flue_timer_arm(file->loop, &file->timer, flue_monotonic_ns() + LOOK_EVERY_NS);
}

static void on_time(struct flue_timer *timer)
{
    struct flue_auth_file *file =
        (struct flue_auth_file *)(void *)((char *)timer - offsetof(struct flue_auth_file, timer));
    atomic_store(&file->working, true);
    file->job = (struct flue_job){.work = look, .done = looked};
    flue_pool_submit(file->loop, &file->job);
}

static void arm(struct flue_loop *loop, void *arg)
{
    struct flue_auth_file *file = arg;
    flue_timer_arm(loop, &file->timer, flue_monotonic_ns() + LOOK_EVERY_NS);
}

static void disarm(struct flue_loop *loop, void *arg)
{
    struct flue_auth_file *file = arg;
    file->stopping = true;
    flue_timer_disarm(loop, &file->timer);
}

enum flue_code flue_auth_file_start(struct flue_auth_file *file, struct flue_loop *loop,
                                    struct flue_error *error)
{
    if (stat(file->path, &file->seen) != 0)
        return flue_fail(error, FLUE_INVALID, "cannot open \"%s\": %s", file->path,
                         strerror(errno));
    enum flue_code code = read_and_take(file, error);
    if (code)
        return code;
    file->loop = loop;
    file->timer.fire = on_time;
    flue_loop_call(loop, arm, file);
    return FLUE_OK;
}

void flue_auth_file_stop(struct flue_auth_file *file)
{
    if (!file->loop)
        return;
    flue_loop_call(file->loop, disarm, file);
    while (atomic_load(&file->working))
        usleep(1000);
    file->loop = NULL;
}
