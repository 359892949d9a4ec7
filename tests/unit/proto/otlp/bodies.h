/* bodies.h: bodies for the tests and benchmarks of OTLP: real ones from files, made ones of any
 * size, and an encoder that writes whatever it is told. */
#ifndef TESTS_OTLP_BODIES_H
#define TESTS_OTLP_BODIES_H

#include <stdio.h>
#include <stdlib.h>
#include "collector/base/block.h"
#include "proto/wire/writer.h"

struct out {
    uint8_t *data;
    size_t size, room;
};

static inline void out_bytes(struct out *o, const void *data, size_t size)
{
    if (size > SIZE_MAX / 4) /* no body is so long, and the compiler knows it then */
        abort();
    if (o->size + size > o->room) {
        o->room = (o->size + size) * 2 + 64;
        o->data = realloc(o->data, o->room);
        if (!o->data)
            abort();
    }
    if (size)
        memcpy(o->data + o->size, data, size);
    o->size += size;
}
static inline void out_varint(struct out *o, uint64_t value)
{
    uint8_t b[10];
    out_bytes(o, b, (size_t)(flue_write_varint(b, value) - b));
}
static inline void out_number(struct out *o, uint32_t field, uint64_t value)
{
    out_varint(o, flue_tag(field, FLUE_VARINT));
    out_varint(o, value);
}
static inline void out_fixed(struct out *o, uint32_t field, uint64_t value)
{
    out_varint(o, flue_tag(field, FLUE_FIXED64));
    out_bytes(o, &value, 8);
}
static inline void out_field(struct out *o, uint32_t field, const void *data, size_t size)
{
    out_varint(o, flue_tag(field, FLUE_LEN));
    out_varint(o, size);
    out_bytes(o, data, size);
}
static inline void out_text(struct out *o, uint32_t field, const char *text)
{
    out_field(o, field, text, strlen(text));
}
/* Puts `inner` in as a field and empties it. */
static inline void out_message(struct out *o, uint32_t field, struct out *inner)
{
    out_field(o, field, inner->data, inner->size);
    inner->size = 0;
}
static inline void out_free(struct out *o)
{
    free(o->data);
    memset(o, 0, sizeof *o);
}
static inline void out_key_value(struct out *o, uint32_t field, const char *key, const char *value)
{
    struct out any = {0}, kv = {0};
    out_text(&any, 1, value);
    out_text(&kv, 1, key);
    out_message(&kv, 2, &any);
    out_message(o, field, &kv);
    out_free(&any);
    out_free(&kv);
}

static inline struct flue_block *block_of(const void *data, size_t size)
{
    struct flue_block *block = flue_block_copy(NULL, flue_bytes(data, size));
    if (!block)
        abort();
    flue_block_finish(block);
    return block;
}

/* NULL when the file is not there. */
static inline struct out *load_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct out *o;
    uint8_t part[65536];
    size_t n;
    if (!file)
        return NULL;
    o = calloc(1, sizeof *o);
    while (o && (n = fread(part, 1, sizeof part, file)) > 0)
        out_bytes(o, part, n);
    fclose(file);
    return o;
}

static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* What an application's profiler sends: one resource, deep stacks, one value a sample. */
struct made {
    unsigned resources, samples, stacks, depth, locations, functions;
    bool descending; /* dictionary first, stacks before locations, as pdata writes */
    bool timestamps;
};

static inline void made_stacks(struct out *dictionary, const struct made *m, uint64_t *seed)
{
    struct out run = {0}, row = {0};
    for (unsigned i = 0; i < m->stacks; i++) {
        unsigned depth = i ? m->depth / 2 + (unsigned)(random_next(seed) % (m->depth + 1)) : 0;
        for (unsigned k = 0; k < depth; k++)
            out_varint(&run, 1 + random_next(seed) % (m->locations - 1));
        if (run.size)
            out_message(&row, 1, &run);
        out_message(dictionary, 7, &row);
    }
    out_free(&run);
    out_free(&row);
}

static inline void made_dictionary(struct out *body, const struct made *m, uint64_t *seed)
{
    struct out d = {0}, row = {0}, line = {0};
    char text[96];

    if (m->descending)
        made_stacks(&d, m, seed);
    out_message(&d, 1, &row);
    out_number(&row, 1, 0x400000);
    out_number(&row, 2, 0x900000);
    out_number(&row, 4, 1);
    out_message(&d, 1, &row);
    for (unsigned i = 0; i < m->locations; i++) {
        if (i) {
            out_number(&row, 1, 1);
            out_number(&row, 2, 0x400000 + random_next(seed) % 0x500000);
            for (unsigned k = 0; k < 1 + (random_next(seed) % 8 == 0); k++) {
                out_number(&line, 1, 1 + random_next(seed) % (m->functions - 1));
                out_number(&line, 2, 1 + random_next(seed) % 3000);
                out_message(&row, 3, &line);
            }
        }
        out_message(&d, 2, &row);
    }
    for (unsigned i = 0; i < m->functions; i++) {
        if (i) {
            out_number(&row, 1, 8 + i);
            out_number(&row, 2, 8 + i);
            out_number(&row, 3, 1 + i % 7);
        }
        out_message(&d, 3, &row);
    }
    out_message(&d, 4, &row);
    out_text(&d, 5, "");
    for (unsigned i = 1; i < 9; i++) {
        snprintf(text, sizeof text, "/srv/encoder/source/file_%u.cpp", i);
        out_text(&d, 5, text);
    }
    for (unsigned i = 1; i < m->functions; i++) {
        snprintf(text, sizeof text, "streaming::encoder::Stage%u::transform(Frame const&, int)",
                 (unsigned)(random_next(seed) % 100000));
        out_field(&d, 5, text, strlen(text) - random_next(seed) % 20);
    }
    out_message(&d, 6, &row);
    for (unsigned i = 1; i < 300; i++) {
        struct out any = {0};
        out_number(&any, 3, 1000 + i);
        out_number(&row, 1, 3);
        out_message(&row, 2, &any);
        out_message(&d, 6, &row);
        out_free(&any);
    }
    if (!m->descending)
        made_stacks(&d, m, seed);
    out_message(body, 2, &d);
    out_free(&d);
    out_free(&row);
    out_free(&line);
}

static inline struct out make_body(const struct made *m)
{
    struct out body = {0}, rp = {0}, sp = {0}, profile = {0}, sample = {0}, run = {0}, inner = {0};
    uint64_t seed = 88172645463325252u;
    char text[80];

    if (m->descending)
        made_dictionary(&body, m, &seed);
    for (unsigned r = 0; r < m->resources; r++) {
        out_key_value(&inner, 1, "service.name", "encoder");
        snprintf(text, sizeof text, "%064x", r);
        out_key_value(&inner, 1, "container.id", text);
        out_key_value(&inner, 1, "process.executable.name", "encoder");
        out_message(&rp, 1, &inner);
        out_text(&inner, 1, "profiler");
        out_message(&sp, 1, &inner);
        out_number(&inner, 1, 1);
        out_number(&inner, 2, 2);
        out_message(&profile, 1, &inner);
        for (unsigned i = 0; i < m->samples; i++) {
            out_number(&sample, 1, random_next(&seed) % m->stacks);
            for (unsigned k = 0; k < 3; k++)
                out_varint(&run, 1 + random_next(&seed) % 299);
            out_message(&sample, 2, &run);
            if (m->timestamps) {
                unsigned count = 1 + (unsigned)(random_next(&seed) % 20);
                for (unsigned k = 0; k < count; k++) {
                    uint64_t at = 1790000000000000000u + random_next(&seed) % 5000000000u;
                    out_bytes(&run, &at, 8);
                }
                out_message(&sample, 5, &run);
            } else {
                out_varint(&run, random_next(&seed) % 100000);
                out_message(&sample, 4, &run);
            }
            out_message(&profile, 2, &sample);
        }
        out_fixed(&profile, 3, 1790000000000000000u);
        out_number(&profile, 4, 5000000000u);
        out_message(&sp, 2, &profile);
        out_message(&rp, 2, &sp);
        out_text(&rp, 3, "https://opentelemetry.io/schemas/1.37.0");
        out_message(&body, 1, &rp);
    }
    if (!m->descending)
        made_dictionary(&body, m, &seed);
    out_free(&rp);
    out_free(&sp);
    out_free(&profile);
    out_free(&sample);
    out_free(&run);
    out_free(&inner);
    return body;
}

static const char *const bodies_ours[] = {
    "ebpf-v1.11-ascending.otlp",     "ebpf-v1.11-pdata-order-1.otlp",
    "ebpf-v1.11-pdata-order-2.otlp", "ebpf-v1.11-pdata-order-3.otlp",
    "async-profiler-alloc.otlp",     "async-profiler-cpu-threads.otlp",
    "async-profiler-wall.otlp",      "pyroscope-java-cpu.otlp",
};
#define BODIES_OURS (sizeof bodies_ours / sizeof *bodies_ours)

static inline struct out *load_ours(size_t i)
{
    char path[1024];
    struct out *o;
    snprintf(path, sizeof path, FLUE_TEST_DATA "/otlp/%s", bodies_ours[i]);
    o = load_file(path);
    if (!o) {
        fprintf(stderr, "missing: %s\n", path);
        abort();
    }
    return o;
}

#endif
