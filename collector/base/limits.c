/* limits.c: see limits.h. */
#include "collector/base/limits.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "collector/base/bytes.h"

static struct flue_bytes read_file(const char *path, char *out, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, out, room - 1);

    if (fd >= 0)
        close(fd);
    out[size > 0 ? size : 0] = 0;
    while (size > 0 && out[size - 1] == '\n')
        out[--size] = 0;
    return flue_bytes(out, size > 0 ? (size_t)size : 0);
}

static struct flue_bytes read_in(const char *folder, const char *group, const char *file, char *out,
                                 size_t room)
{
    char path[8192];

    out[0] = 0;
    if (snprintf(path, sizeof path, "%s%s/%s", folder, group, file) >= (int)sizeof path)
        return flue_bytes(out, 0);
    return read_file(path, out, room);
}

/* INT64_MAX for "max", -1, an absent file, or v1's number for "no limit". */
static int64_t limit_of(struct flue_bytes text)
{
    uint64_t value;

    return flue_parse_u64(text, &value) && value < INT64_MAX / 2 ? (int64_t)value : INT64_MAX;
}

static int64_t quota(int64_t microseconds, int64_t period)
{
    if (microseconds > INT64_MAX / 2000 || period <= 0 || period == INT64_MAX)
        return INT64_MAX;
    return microseconds * 1000 / period;
}

static int64_t memory_v2(const char *folder, const char *group)
{
    char text[64];

    return limit_of(read_in(folder, group, "memory.max", text, sizeof text));
}

static int64_t memory_v1(const char *folder, const char *group)
{
    char text[64];

    return limit_of(read_in(folder, group, "memory.limit_in_bytes", text, sizeof text));
}

static int64_t cpus_v2(const char *folder, const char *group)
{
    char text[64];
    struct flue_bytes both = read_in(folder, group, "cpu.max", text, sizeof text);
    size_t blank = flue_bytes_find(both, ' ');

    if (blank == SIZE_MAX)
        return INT64_MAX;
    return quota(limit_of(flue_bytes_first(both, blank)),
                 limit_of(flue_bytes_from(both, blank + 1)));
}

static int64_t cpus_v1(const char *folder, const char *group)
{
    char text[64], period[64];

    return quota(limit_of(read_in(folder, group, "cpu.cfs_quota_us", text, sizeof text)),
                 limit_of(read_in(folder, group, "cpu.cfs_period_us", period, sizeof period)));
}

/* The least limit from the group up to the root: an ancestor's binds as well. In a container with
 * its own view of the tree the group's path is not there, but the root is the group. */
static void lower_to(int64_t *least, const char *root, const char *mount, const char *group,
                     int64_t (*read)(const char *folder, const char *group))
{
    char folder[4096], path[4096];

    if (snprintf(folder, sizeof folder, "%s/sys/fs/cgroup%s", root, mount) >= (int)sizeof folder ||
        snprintf(path, sizeof path, "%s", group) >= (int)sizeof path)
        return;
    for (;;) {
        int64_t limit = read(folder, path);
        char *slash = strrchr(path, '/');

        *least = limit < *least ? limit : *least;
        if (!slash)
            return;
        *slash = 0;
    }
}

/* Is `name` in the list of controllers "cpu,cpuacct"? */
static bool has_controller(const char *list, const char *name)
{
    size_t size = strlen(name);

    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, size) == 0 && (at[size] == ',' || at[size] == 0))
            return true;
    return false;
}

void flue_limits_read(const char *root, struct flue_limits *out)
{
    char path[4096], text[4096], *save = NULL;

    out->memory = out->cpus = INT64_MAX;
    if (snprintf(path, sizeof path, "%s/proc/self/cgroup", root) >= (int)sizeof path)
        return;
    read_file(path, text, sizeof text);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':'), *group;

        group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group || group[1] != '/')
            continue;
        *group++ = 0;
        controllers++;
        if (*controllers == 0) {
            lower_to(&out->memory, root, "", group, memory_v2);
            lower_to(&out->cpus, root, "", group, cpus_v2);
        }
        if (has_controller(controllers, "memory"))
            lower_to(&out->memory, root, "/memory", group, memory_v1);
        if (has_controller(controllers, "cpu"))
            lower_to(&out->cpus, root, "/cpu", group, cpus_v1);
    }
}

unsigned flue_usable_cpus(void)
{
    struct flue_limits limits;
    cpu_set_t set;
    int64_t cpus = 0;

    if (sched_getaffinity(0, sizeof set, &set) == 0)
        cpus = CPU_COUNT(&set);
    else
        cpus = sysconf(_SC_NPROCESSORS_ONLN);
    flue_limits_read("", &limits);
    if (limits.cpus != INT64_MAX && (limits.cpus + 999) / 1000 < cpus)
        cpus = (limits.cpus + 999) / 1000;
    return cpus > 0 ? (unsigned)cpus : 1;
}
