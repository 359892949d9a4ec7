/* process.c: what the kernel says about this process. */
#include "collector/telemetry/process.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "collector/base/clock.h"

static uint64_t started_ns;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void note_start(void)
{
    started_ns = flue_monotonic_ns();
}

static double cpu_seconds(void *unused)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double resident_bytes(void *unused)
{
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    unsigned long total, resident;
    if (fd >= 0)
        close(fd);
    if (size <= 0)
        return 0;
    text[size] = 0;
    if (sscanf(text, "%lu %lu", &total, &resident) != 2)
        return 0;
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double uptime_seconds(void *unused)
{
    return (double)(flue_monotonic_ns() - started_ns) / 1e9;
}

void flue_process_metrics_add(struct flue_metrics *metrics)
{
    pthread_once(&once, note_start);
    flue_metric_callback(metrics, FLUE_COUNTER, "process_cpu_seconds",
                         "CPU time of this process, user and system, in seconds", NULL, cpu_seconds,
                         NULL);
    flue_metric_callback(metrics, FLUE_GAUGE, "process_memory_rss",
                         "resident memory of this process in bytes", NULL, resident_bytes, NULL);
    flue_metric_callback(metrics, FLUE_COUNTER, "process_uptime",
                         "seconds since this process started", NULL, uptime_seconds, NULL);
}
