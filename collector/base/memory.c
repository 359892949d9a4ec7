/* memory.c: see memory.h. */
#include "collector/base/memory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "collector/base/bytes.h"

#define MIB ((int64_t)1 << 20)

static size_t read_file(const char *path, char *out, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, out, room - 1);

    if (fd >= 0)
        close(fd);
    out[size > 0 ? size : 0] = 0;
    return size > 0 ? (size_t)size : 0;
}

/* A file with one number; INT64_MAX for "max", an absent file, or v1's "no limit". */
static int64_t limit_of(const char *folder, const char *group, const char *file)
{
    char path[1024], text[64];
    uint64_t value;
    size_t size;

    if (snprintf(path, sizeof path, "%s%s/%s", folder, group, file) >= (int)sizeof path)
        return INT64_MAX;
    size = read_file(path, text, sizeof text);
    while (size && text[size - 1] == '\n')
        size--;
    if (!flue_parse_u64(flue_bytes(text, size), &value) || value > INT64_MAX)
        return INT64_MAX;
    return (int64_t)value;
}

/* The least limit from the group up to the root: an ancestor's binds as well. In a container with
 * its own view of the tree the group's path is not there, but the root is the group. */
static int64_t least_limit(const char *folder, char *group, const char *file)
{
    int64_t least = INT64_MAX;

    for (;;) {
        int64_t limit = limit_of(folder, group, file);
        char *slash = strrchr(group, '/');

        least = limit < least ? limit : least;
        if (!slash)
            return least;
        *slash = 0;
    }
}

static int64_t cgroup_limit(void)
{
    char text[4096], *save = NULL;
    int64_t least = INT64_MAX;

    read_file("/proc/self/cgroup", text, sizeof text);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        int64_t limit = INT64_MAX;
        char *controllers = strchr(line, ':'), *group;

        group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group || group[1] != '/')
            continue;
        *group++ = 0;
        controllers++;
        if (*controllers == 0)
            limit = least_limit("/sys/fs/cgroup", group, "memory.max");
        else if (strcmp(controllers, "memory") == 0)
            limit = least_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
        least = limit < least ? limit : least;
    }
    return least;
}

int64_t flue_budget_default_bytes(void)
{
    int64_t limit = cgroup_limit();
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    int64_t memory = pages > 0 && page > 0 ? (int64_t)pages * page : 1024 * MIB;

    if (limit < memory)
        return limit / 5 * 4;
    return memory / 4 < 1024 * MIB ? memory / 4 : 1024 * MIB;
}

void flue_budget_init(struct flue_budget *budget, int64_t hard)
{
    atomic_init(&budget->used, 0);
    atomic_init(&budget->hard, hard);
}

void flue_account_init(struct flue_account *account, struct flue_budget *budget, const char *name,
                       int64_t soft)
{
    account->budget = budget;
    account->name = name;
    atomic_init(&account->used, 0);
    atomic_init(&account->soft, soft);
}

static int64_t load(_Atomic int64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static int64_t clamp(size_t bytes)
{
    return bytes > INT64_MAX / 4 ? INT64_MAX / 4 : (int64_t)bytes;
}

enum flue_code flue_account_admit(struct flue_account *account, size_t bytes,
                                  struct flue_error *error)
{
    int64_t soft = load(&account->soft), used = load(&account->used);
    int64_t hard = load(&account->budget->hard), all = load(&account->budget->used);

    if (soft > 0 && used + clamp(bytes) > soft)
        return flue_fail(error, FLUE_OVERLOADED,
                         "memory: %s holds %" PRId64 " bytes and a request of %zu would pass its "
                         "limit of %" PRId64 "; send again later",
                         account->name, used, bytes, soft);
    if (all + clamp(bytes) > hard)
        return flue_fail(error, FLUE_OVERLOADED,
                         "memory: %" PRId64 " bytes are in use and a request of %zu for %s would "
                         "pass the limit of %" PRId64 "; send again later",
                         all, bytes, account->name, hard);
    return FLUE_OK;
}

bool flue_account_charge(struct flue_account *account, size_t bytes)
{
    struct flue_budget *budget = account->budget;
    int64_t before = atomic_fetch_add_explicit(&budget->used, clamp(bytes), memory_order_relaxed);

    if (before + clamp(bytes) > load(&budget->hard)) {
        atomic_fetch_sub_explicit(&budget->used, clamp(bytes), memory_order_relaxed);
        return false;
    }
    atomic_fetch_add_explicit(&account->used, clamp(bytes), memory_order_relaxed);
    return true;
}

void flue_account_charge_always(struct flue_account *account, size_t bytes)
{
    atomic_fetch_add_explicit(&account->budget->used, clamp(bytes), memory_order_relaxed);
    atomic_fetch_add_explicit(&account->used, clamp(bytes), memory_order_relaxed);
}

void flue_account_release(struct flue_account *account, size_t bytes)
{
    atomic_fetch_sub_explicit(&account->used, clamp(bytes), memory_order_relaxed);
    atomic_fetch_sub_explicit(&account->budget->used, clamp(bytes), memory_order_relaxed);
}
