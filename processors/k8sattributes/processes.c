/* processes.c: see processes.h. */
#include "processors/k8sattributes/processes.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "collector/base/clock.h"
#include "collector/base/hash.h"

#define YOUNG_NS INT64_C(10000000000) /* a runtime may still be moving it to its group */

void k8s_processes_init(struct k8s_processes *processes, const char *proc)
{
    *processes = (struct k8s_processes){.proc = proc};
}

void k8s_processes_destroy(struct k8s_processes *processes)
{
    free(processes->items);
    processes->items = NULL;
}

static struct flue_bytes read_file(const char *proc, int64_t pid, const char *name, char *out,
                                   size_t size)
{
    char path[300];

    if (pid)
        snprintf(path, sizeof path, "%.200s/%lld/%s", proc, (long long)pid, name);
    else
        snprintf(path, sizeof path, "%.200s/%s", proc, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return flue_bytes(NULL, 0);
    size_t used = 0;
    ssize_t got;
    while (used < size && (got = read(file, out + used, size - used)) > 0)
        used += (size_t)got;
    close(file);
    return flue_bytes(out, used);
}

/* Field 22 of stat, behind the name in parentheses, which may hold anything. */
static bool start_of(const char *proc, int64_t pid, uint64_t *out)
{
    char text[2048];
    struct flue_bytes stat = read_file(proc, pid, "stat", text, sizeof text);
    size_t at = stat.size;

    while (at && stat.data[at - 1] != ')')
        at--;
    stat = flue_bytes_trim(flue_bytes_from(stat, at));
    for (unsigned field = 3; at && field < 22; field++) {
        size_t blank = flue_bytes_find(stat, ' ');
        if (blank == SIZE_MAX)
            return false;
        stat = flue_bytes_from(stat, blank + 1);
    }
    size_t blank = flue_bytes_find(stat, ' ');
    return at && blank != SIZE_MAX && flue_parse_u64(flue_bytes_first(stat, blank), out);
}

static int64_t boot_of(const char *proc)
{
    char text[65536];
    struct flue_bytes stat = read_file(proc, 0, "stat", text, sizeof text);
    uint64_t seconds;

    while (stat.size) {
        size_t end = flue_bytes_find(stat, '\n');
        struct flue_bytes line = flue_bytes_first(stat, end == SIZE_MAX ? stat.size : end);
        if (flue_bytes_starts_with(line, FLUE_BYTES("btime ")) &&
            flue_parse_u64(flue_bytes_from(line, 6), &seconds))
            return (int64_t)seconds * 1000000000;
        stat = flue_bytes_from(stat, line.size + 1);
    }
    return 0;
}

static bool look(struct k8s_processes *processes, int64_t pid, struct k8s_process *item)
{
    uint64_t start, again;
    char text[8192];
    int64_t now = (int64_t)flue_wall_ns();

    if (!start_of(processes->proc, pid, &start))
        return false;
    if (item->pid == pid && item->start == start && now - item->started_ns > YOUNG_NS &&
        item->looked_ns - item->started_ns > YOUNG_NS) {
        item->looked_ns = now;
        return true;
    }
    struct flue_bytes cgroup = read_file(processes->proc, pid, "cgroup", text, sizeof text);
    item->pid = pid;
    item->start = start;
    item->started_ns = processes->boot_ns +
                       (int64_t)(start * (UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK)));
    item->looked_ns = now;
    flue_kube_cgroup_file(cgroup, &item->cgroup);
    /* Between the two reads the process may have ended and another begun. */
    return start_of(processes->proc, pid, &again) && again == start;
}

bool k8s_process_find(struct k8s_processes *processes, int64_t pid, int64_t profile_ns,
                      struct flue_kube_cgroup *out)
{
    if (pid <= 0 || pid > INT32_MAX)
        return false;
    if (!processes->items) {
        processes->items = calloc(K8S_PROCESSES, sizeof *processes->items);
        processes->boot_ns = boot_of(processes->proc);
        if (!processes->items)
            return false;
    }
    struct k8s_process *item =
        &processes->items[flue_hash_u64((uint64_t)pid) & (K8S_PROCESSES - 1)];
    if ((item->pid != pid || profile_ns > item->looked_ns) && !look(processes, pid, item)) {
        item->pid = 0;
        return false;
    }
    if (item->started_ns > profile_ns)
        return false;
    *out = item->cgroup;
    return out->container[0] || out->pod[0];
}
