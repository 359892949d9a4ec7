/* corpus.h: the recorded requests, and the profiles that are in them. */
#ifndef TESTS_PPROF_CORPUS_H
#define TESTS_PPROF_CORPUS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collector/base/codec.h"
#include "proto/pprof/pprof.h"
#include "proto/wire/reader.h"

static const struct flue_pprof_limits test_limits = {64u << 20, FLUE_RATIO_LIMIT};

/* NULL when it is not there. */
static inline struct flue_block *read_path(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    struct flue_block *block = flue_block_new(NULL, size + 1);
    block->size = fread(block->data, 1, size, file);
    fclose(file);
    flue_block_finish(block);
    return block;
}

static inline struct flue_block *capture(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/captures/%s", FLUE_TEST_DATA, name);
    struct flue_block *block = read_path(path);
    if (!block) {
        fprintf(stderr, "%s is missing\n", path);
        abort();
    }
    return block;
}

static const char *const plain_profiles[] = {
    "go-net-http-pprof/profile.body",         "go-net-http-pprof/heap.body",
    "go-net-http-pprof/allocs.body",          "go-net-http-pprof/goroutine.body",
    "go-net-http-pprof/mutex.body",           "go-net-http-pprof/block.body",
    "go-net-http-pprof/threadcreate.body",    "go-net-http-pprof/delta-heap.body",
    "go-net-http-pprof/delta-goroutine.body", "go-net-http-pprof/delta-block.body",
    "go-net-http-pprof/delta-mutex.body",     "pyroscope-nodejs/heap.body",
    "pyroscope-nodejs/wall-cpu-labels.body",
};
static const char *const pushes[] = {
    "pyroscope-python/cpu-tags.body",       "pyroscope-python/cpu-and-memory.body",
    "pyroscope-python/cpu-otel-spans.body", "pyroscope-python/stack-cpu-and-memory.body",
    "pyroscope-rust/cpu-tags.body",         "pyroscope-rust/memory-jemalloc.body",
};
static const char *const multiparts[] = {
    "pyroscope-go/cpu-spans.body", "pyroscope-go/memory.body",     "pyroscope-go/mutex.body",
    "pyroscope-go/block.body",     "pyroscope-go/goroutines.body", "ddtrace-python/upload.body",
    "dd-trace-js/upload.body",     "dd-trace-go/upload.body",
};

typedef void (*with_profile)(const char *name, struct flue_bytes profile, void *arg);

static inline void profiles_of_push(const char *name, struct flue_bytes gzip, with_profile use,
                                    void *arg)
{
    struct flue_block *block;
    struct flue_error error;
    if (flue_inflate(FLUE_GZIP, gzip, 64u << 20, 200, NULL, &block, &error) != FLUE_OK)
        abort();
    struct flue_reader request = flue_reader(flue_block_bytes(block));
    struct flue_field_value series, sample, part;
    while (flue_read_field(&request, &series)) {
        struct flue_reader in = flue_reader(series.bytes);
        while (flue_read_field(&in, &sample)) {
            struct flue_reader raw = flue_reader(sample.bytes);
            while (sample.number == 2 && flue_read_field(&raw, &part))
                if (part.number == 1)
                    use(name, part.bytes, arg);
        }
    }
    flue_block_unref(block);
}

/* A part is a profile when it has a file name with "pprof" in it. */
static inline void profiles_of_multipart(const char *name, struct flue_bytes body, with_profile use,
                                         void *arg)
{
    const uint8_t *at = body.data, *end = body.data + body.size;
    const uint8_t *line = memmem(at, body.size, "\r\n", 2);
    char boundary[200];
    snprintf(boundary, sizeof boundary, "\r\n%.*s", (int)(line - at), (const char *)at);
    while ((at = memmem(at, (size_t)(end - at), "filename=", 9))) {
        const uint8_t *head = memmem(at, (size_t)(end - at), "\r\n", 2);
        bool pprof = memmem(at, (size_t)(head - at), "pprof", 5) != NULL;
        at = (const uint8_t *)memmem(at, (size_t)(end - at), "\r\n\r\n", 4) + 4;
        const uint8_t *stop = memmem(at, (size_t)(end - at), boundary, strlen(boundary));
        struct flue_bytes part = flue_bytes(at, (size_t)(stop - at));
        struct flue_block *block = NULL;
        struct flue_error error;
        if (part.size > 4 && memcmp(part.data, "\x28\xb5\x2f\xfd", 4) == 0 &&
            flue_inflate(FLUE_ZSTD, part, 64u << 20, 200, NULL, &block, &error) == FLUE_OK)
            part = flue_block_bytes(block);
        if (pprof)
            use(name, part, arg);
        flue_block_unref(block);
        at = stop;
    }
}

static inline void every_profile(with_profile use, void *arg)
{
    for (size_t i = 0; i < sizeof plain_profiles / sizeof *plain_profiles; i++) {
        struct flue_block *body = capture(plain_profiles[i]);
        use(plain_profiles[i], flue_block_bytes(body), arg);
        flue_block_unref(body);
    }
    for (size_t i = 0; i < sizeof pushes / sizeof *pushes; i++) {
        struct flue_block *body = capture(pushes[i]);
        profiles_of_push(pushes[i], flue_block_bytes(body), use, arg);
        flue_block_unref(body);
    }
    for (size_t i = 0; i < sizeof multiparts / sizeof *multiparts; i++) {
        struct flue_block *body = capture(multiparts[i]);
        profiles_of_multipart(multiparts[i], flue_block_bytes(body), use, arg);
        flue_block_unref(body);
    }
}

static inline struct flue_block *raw_of(struct flue_bytes profile)
{
    struct flue_block *block;
    struct flue_bytes raw;
    struct flue_error error;
    if (flue_pprof_raw(profile, &test_limits, NULL, &block, &raw, &error) != FLUE_OK)
        abort();
    return block ? block : flue_block_copy(NULL, raw);
}

#endif
