/* convert.c: how fast payloads are converted, merged and split, on one thread.
 *
 *     flue_bench_convert [-j JOB] [FILE.otlp ...]   (bodies of generate.py; default: the captures)
 *
 * One row per body, in MB of body per second of thread CPU time, the best of several runs: reading
 * (check and index), OTLP to pprof, back to OTLP, merged into an empty dictionary, two of the same
 * merged, cut in parts of 16,000 samples and in parts of a quarter of the bytes. */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "proto/convert/convert.h"
#include "proto/otlp/dictionary.h"
#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"

#define RUN_SECONDS 0.15
#define RUNS        5

static const char *const captures[] = {
    FLUE_TEST_DATA "/otlp/ebpf-v1.11-ascending.otlp",
    FLUE_TEST_DATA "/otlp/ebpf-v1.11-pdata-order-1.otlp",
    FLUE_TEST_DATA "/otlp/async-profiler-wall.otlp",
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what, const struct flue_error *error)
{
    fprintf(stderr, "%s: %s\n", what, error ? error->text : "failed");
    exit(1);
}

static struct flue_block *file_read(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path, NULL);
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    struct flue_block *block = flue_block_new(NULL, size);
    block->size = fread(block->data, 1, size, file);
    fclose(file);
    flue_block_finish(block);
    return block;
}

static struct flue_payload *payload_read(struct flue_block *block)
{
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    if (flue_otlp_read(flue_block_ref(block), &payload, &report, &error) != FLUE_OK || !payload)
        die("read", &error);
    return payload;
}

struct subject {
    struct flue_block *block;
    struct flue_payload *payload, *series;
    struct flue_arena arena;
    uint64_t out;
};

static void result(void *arg, const struct flue_to_pprof_result *r)
{
    ((struct subject *)arg)->out += r->pprof.size;
}

static void part(void *arg, struct flue_payload *payload, const struct flue_counts *counts)
{
    ((struct subject *)arg)->out += counts->bytes;
    flue_payload_unref(payload);
}

static void do_read(struct subject *s)
{
    flue_payload_unref(payload_read(s->block));
}
static void do_to_pprof(struct subject *s)
{
    struct flue_error error;
    if (flue_otlp_to_pprof(s->payload, NULL, &s->arena, result, s, &error) != FLUE_OK)
        die("to pprof", &error);
    flue_arena_reset(&s->arena);
}
static void do_fold(struct subject *s)
{
    static const struct flue_to_pprof_options options = {.drop_other_attributes = true};
    struct flue_error error;
    if (flue_otlp_to_pprof(s->payload, &options, &s->arena, result, s, &error) != FLUE_OK)
        die("to pprof", &error);
    flue_arena_reset(&s->arena);
}
static void do_from_pprof(struct subject *s)
{
    struct flue_payload *out;
    struct flue_error error;
    flue_payload_unref(s->series->other_form);
    s->series->other_form = NULL;
    if (flue_convert(s->series, FLUE_FORM_OTLP, NULL, &out, &error) != FLUE_OK)
        die("from pprof", &error);
    flue_payload_unref(out);
}
static void merge(struct subject *s, size_t count)
{
    struct flue_payload *two[] = {s->payload, s->payload}, *out;
    struct flue_error error;
    if (flue_otlp_merge(two, count, NULL, &out, &error) != FLUE_OK)
        die("merge", &error);
    flue_payload_unref(out);
}
static void do_merge(struct subject *s)
{
    merge(s, 1);
}
static void do_merge_two(struct subject *s)
{
    merge(s, 2);
}
static void split(struct subject *s, uint64_t max, bool by_bytes)
{
    struct flue_counts total = {1, 1, 1};
    struct flue_error error;
    if (flue_otlp_split(s->payload, max, by_bytes, &total, NULL, part, s, &error) != FLUE_OK)
        die("split", &error);
}
static void do_split_samples(struct subject *s)
{
    split(s, flue_otlp_index_of(s->payload)->samples / 4 + 1, false);
}
static void do_split_bytes(struct subject *s)
{
    split(s, s->block->size / 4, true);
}

static const struct {
    const char *name;
    void (*run)(struct subject *s);
    unsigned bodies; /* that one run works on */
} jobs[] = {
    {"read", do_read, 1},
    {"to pprof", do_to_pprof, 1},
    {"folded", do_fold, 1},
    {"from pprof", do_from_pprof, 1},
    {"merge 1", do_merge, 1},
    {"merge 2", do_merge_two, 2},
    {"split/4 n", do_split_samples, 1},
    {"split/4 B", do_split_bytes, 1},
};
#define JOBS (sizeof jobs / sizeof *jobs)

static double speed(struct subject *s, size_t job)
{
    double best = 0;
    for (unsigned run = 0; run < RUNS; run++) {
        double start = now(), spent = 0;
        size_t times = 0;
        do {
            jobs[job].run(s);
            times++;
            spent = now() - start;
        } while (spent < RUN_SECONDS);
        double mb = (double)s->block->size * (double)times * jobs[job].bodies / 1e6 / spent;
        best = mb > best ? mb : best;
    }
    return best;
}

static const char *only; /* the one job to run, for a profiler */

static bool wanted(size_t job)
{
    return !only || strcmp(only, jobs[job].name) == 0;
}

static void row(const char *path)
{
    struct subject s = {.block = file_read(path)};
    struct flue_error error;
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;

    s.payload = payload_read(s.block);
    flue_arena_init(&s.arena, 0, 0);
    if (flue_convert(s.payload, FLUE_FORM_PPROF, NULL, &s.series, &error) != FLUE_OK)
        die("convert", &error);
    printf("%-28s %8.1f", name, (double)s.block->size / 1e3);
    for (size_t job = 0; job < JOBS; job++) {
        if (!wanted(job))
            continue;
        printf(" %10.0f", speed(&s, job));
        fflush(stdout);
    }
    printf("\n");
    flue_payload_unref(s.series);
    flue_payload_unref(s.payload);
    flue_block_unref(s.block);
    flue_arena_destroy(&s.arena);
}

int main(int argc, char **argv)
{
    int first = 1;
    /* Memory stays in the process between two runs, as in a daemon that is busy (its loop gives it
     * back when idle); else page faults are a third of what is measured. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    if (argc > 2 && strcmp(argv[1], "-j") == 0) {
        only = argv[2];
        first = 3;
    }
    printf("%-28s %8s", "MB/s of", "KB");
    for (size_t job = 0; job < JOBS; job++)
        if (wanted(job))
            printf(" %10s", jobs[job].name);
    printf("\n");
    for (int i = first; i < argc; i++)
        row(argv[i]);
    for (size_t i = 0; argc == first && i < sizeof captures / sizeof *captures; i++)
        row(captures[i]);
    return 0;
}
