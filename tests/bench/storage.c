/* What the log on disk costs: flue_bench_storage [FOLDER [MIB [KIB a record]]]
 *
 * Appends records from one loop with as many outstanding as 32 MiB, group commit and fsync on, and
 * prints the rate, the CPU of this process (all threads, the kernel's copying included), and the
 * syncs. Then takes and finishes everything. Then recovery: 10 GiB of sealed segments whose bodies
 * are holes (recovery reads headers and footers alone, so the figure is that of full ones), opened
 * with their pages in memory and, as far as the system lets it, without.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"
#include "collector/storage/io.h"
#include "collector/storage/storage.h"

#define OUTSTANDING_BYTES ((size_t)32 << 20)

static struct flue_loops *loops;
static struct flue_metrics *metrics;
static uv_sem_t slots, all;
static _Atomic size_t left, refused;
static uint64_t *ids;
static size_t record_bytes;

static void done(struct flue_storage_append *append, enum flue_code code,
                 const struct flue_error *error)
{
    if (code && atomic_fetch_add(&refused, 1) == 0)
        fprintf(stderr, "%s\n", error->text);
    ids[(size_t)append->time_ns] = append->record;
    uv_sem_post(&slots);
    if (atomic_fetch_sub(&left, 1) == 1)
        uv_sem_post(&all);
}

static double cpu_seconds(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static struct flue_storage *open_log(const char *folder, const struct flue_storage_io *io,
                                     struct flue_storage_queue **queue)
{
    struct flue_storage_config config = {
        .directory = folder, .create_directory = true, .fsync = true};
    struct flue_storage *storage;
    struct flue_error error;
    if (flue_storage_new(&config, "file_storage", loops, metrics, &storage, &error))
        exit((fprintf(stderr, "%s\n", error.text), 1));
    if (io)
        flue_storage_use_io(storage, io);
    if (flue_storage_queue_open(storage, "otlp", queue, &error) ||
        flue_storage_start(storage, &error))
        exit((fprintf(stderr, "%s\n", error.text), 1));
    return storage;
}

/* Returns the seconds until all is acknowledged. */
static double append_all(struct flue_storage *storage, struct flue_storage_queue *queue,
                         size_t count)
{
    static const uint8_t origin[120];
    struct flue_bytes head_item = flue_bytes(origin, sizeof origin);
    struct flue_slices head = {&head_item, 1, 1, sizeof origin};
    size_t bodies = 64;
    uint8_t *bytes = malloc(record_bytes * bodies);
    struct flue_storage_append *appends = calloc(count, sizeof *appends);
    struct flue_bytes items[64][3];
    struct flue_slices slices[64];
    if (!bytes || !appends)
        exit(1);
    for (size_t i = 0; i + 8 <= record_bytes * bodies; i += 8) {
        uint64_t random = flue_random_u64();
        memcpy(bytes + i, &random, sizeof random);
    }
    for (size_t i = 0; i < bodies; i++) { /* as a splice: header, original bytes, the rest */
        uint8_t *at = bytes + i * record_bytes;
        items[i][0] = flue_bytes(at, 200);
        items[i][1] = flue_bytes(at + 200, record_bytes - 300);
        items[i][2] = flue_bytes(at + record_bytes - 100, 100);
        slices[i] = (struct flue_slices){items[i], 3, 3, record_bytes};
    }
    atomic_store(&left, count);
    uint64_t begun = flue_monotonic_ns();
    for (size_t i = 0; i < count; i++) {
        uv_sem_wait(&slots);
        appends[i] = (struct flue_storage_append){.head = &head,
                                                  .body = &slices[i % bodies],
                                                  .counts = {1, 100, record_bytes},
                                                  .time_ns = i,
                                                  .queues = &queue,
                                                  .queue_count = 1,
                                                  .loop = loops->items[0],
                                                  .done = done};
        flue_storage_append(storage, &appends[i]);
    }
    uv_sem_wait(&all);
    double seconds = (double)(flue_monotonic_ns() - begun) / 1e9;
    free(appends);
    free(bytes);
    return seconds;
}

static ssize_t write_small(const struct flue_storage_io *io, int fd, const struct iovec *from,
                           int count, uint64_t offset)
{
    uint64_t at = offset;
    for (int i = 0; i < count; at += from[i++].iov_len)
        if ((from[i].iov_len <= 4096 || offset < 65536 || from[i].iov_len % 64 == 0) &&
            pwrite(fd, from[i].iov_base, from[i].iov_len, (off_t)at) != (ssize_t)from[i].iov_len)
            return -5;
    return (ssize_t)(at - offset);
}

static int set_size(const struct flue_storage_io *io, int fd, uint64_t size)
{
    return ftruncate(fd, (off_t)size) < 0 ? -5 : 0;
}

static bool drop_pages(void *arg, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", (const char *)arg, name);
    int fd = open(path, O_RDONLY);
    if (fd >= 0) {
        fdatasync(fd);
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
    return true;
}

static bool remove_file(void *arg, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", (const char *)arg, name);
    unlink(path);
    return true;
}

static void measure_recovery(const char *folder)
{
    struct flue_storage_io io = flue_storage_system;
    struct flue_storage_queue *queue;
    struct flue_storage_lag lag;
    io.pwritev = write_small;
    io.allocate = set_size;
    size_t count = ((uint64_t)10 << 30) / record_bytes;
    struct flue_storage *storage = open_log(folder, &io, &queue);
    append_all(storage, queue, count);
    flue_storage_close(storage);
    for (int cold = 0; cold < 2; cold++) {
        if (cold)
            flue_storage_system.list(&flue_storage_system, folder, drop_pages,
                                     (void *)(uintptr_t)folder);
        uint64_t begun = flue_monotonic_ns();
        storage = open_log(folder, NULL, &queue);
        double seconds = (double)(flue_monotonic_ns() - begun) / 1e9;
        flue_storage_recovered(queue, &lag);
        printf("recovery %s: %.1f GiB, %llu records in %.3f s\n", cold ? "(pages dropped)" : "",
               (double)lag.bytes / (1u << 30), (unsigned long long)lag.records, seconds);
        flue_storage_close(storage);
    }
    flue_storage_system.list(&flue_storage_system, folder, remove_file, (void *)(uintptr_t)folder);
}

int main(int argc, char **argv)
{
    char made[] = "/tmp/flue-bench-XXXXXX";
    const char *folder = argc > 1 ? argv[1] : mkdtemp(made);
    size_t mib = argc > 2 ? strtoul(argv[2], NULL, 10) : 2048;
    struct flue_storage_queue *queue;
    struct flue_error error;
    record_bytes = (argc > 3 ? strtoul(argv[3], NULL, 10) : 100) * 1000;
    size_t count = (mib << 20) / record_bytes, most = ((uint64_t)10 << 30) / record_bytes;
    flue_log_configure(FLUE_ERROR, false, 2);
    ids = calloc(count > most ? count : most, sizeof *ids);
    metrics = flue_metrics_new("otelcol_");
    if (!folder || !ids || record_bytes < 1000 || flue_loops_new(1, &loops, &error) ||
        flue_loops_run(loops, &error))
        return 1;
    uv_sem_init(&slots, (unsigned)(OUTSTANDING_BYTES / record_bytes + 1));
    uv_sem_init(&all, 0);

    struct flue_storage *storage = open_log(folder, NULL, &queue);
    double before = cpu_seconds();
    double seconds = append_all(storage, queue, count), cpu = cpu_seconds() - before;
    const struct flue_label labels[] = {{"storage", "file_storage"}, {NULL, NULL}};
    int64_t syncs =
        flue_metric_get(flue_metric(metrics, FLUE_COUNTER, "storage_syncs", "", labels));
    double gb = (double)count * (double)record_bytes / 1e9;
    printf("append: %.2f GB in records of %zu bytes: %.0f MB/s, %.3f CPU-s/GB, %lld syncs\n", gb,
           record_bytes, gb * 1000 / seconds, cpu / gb, (long long)syncs);
    before = cpu_seconds();
    for (size_t i = 0; i < count; i++)
        flue_storage_finish(queue, ids[i]);
    flue_storage_close(storage);
    printf("finish: %zu records, %.2f CPU-us each\n", count,
           (cpu_seconds() - before) * 1e6 / (double)count);
    measure_recovery(folder);
    flue_loops_stop(loops);
    flue_loops_destroy(loops);
    flue_metrics_destroy(metrics);
    free(ids);
    if (argc < 2)
        rmdir(folder);
    return atomic_load(&refused) != 0;
}
