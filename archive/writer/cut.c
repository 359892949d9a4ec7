/* cut.c: see cut.h. */
#include "archive/writer/cut.h"
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include "archive/layout/otlp.h"
#include "proto/wire/writer.h"

#define CUT_VERSION 1
#define SECOND      1000000000u

static void number(struct flue_buffer *out, uint32_t field, uint64_t value)
{
    uint8_t bytes[16], *at = flue_write_varint(bytes, flue_tag(field, FLUE_VARINT));
    flue_buffer_add(out, flue_bytes(bytes, (size_t)(flue_write_varint(at, value) - bytes)));
}

static void text(struct flue_buffer *out, uint32_t field, struct flue_bytes value)
{
    uint8_t bytes[16], *at = flue_write_len_head(bytes, field, value.size);
    flue_buffer_add(out, flue_bytes(bytes, (size_t)(at - bytes)));
    flue_buffer_add(out, value);
}

void flue_cut_write(const struct flue_cut_text *cut, struct flue_buffer *out)
{
    struct flue_buffer records;
    uint64_t before = 0;

    flue_buffer_init(&records, 1u << 20);
    for (size_t i = 0; i < cut->count; i++) {
        uint8_t bytes[10];
        uint8_t *end = flue_write_varint(bytes, cut->records[i] - before);
        flue_buffer_add(&records, flue_bytes(bytes, (size_t)(end - bytes)));
        before = cut->records[i];
    }
    number(out, 1, CUT_VERSION);
    number(out, 2, cut->written);
    number(out, 3, cut->encoder);
    number(out, 4, cut->level);
    text(out, 5, cut->place.bucket);
    text(out, 6, cut->place.folder);
    number(out, 7, cut->seq);
    number(out, 8, cut->min_ns);
    number(out, 9, cut->max_ns);
    text(out, 10, flue_buffer_bytes(&records));
    out->failed = out->failed || records.failed;
    flue_buffer_destroy(&records);
}

static bool read_records(struct flue_bytes packed, struct flue_arena *arena,
                         struct flue_cut_text *out)
{
    struct flue_reader r = flue_reader(packed);
    uint64_t *records = NULL, value, record = 0;
    size_t room = 0;

    out->count = 0;
    while (!flue_reader_done(&r)) {
        if (!flue_read_varint(&r, &value) || out->count == FLUE_CUT_RECORDS ||
            !FLUE_ARENA_PUSH(arena, records, out->count, room, record + value))
            return false;
        record += value;
    }
    out->records = records;
    return true;
}

enum flue_code flue_cut_read(struct flue_bytes bytes, struct flue_arena *arena,
                             struct flue_cut_text *out, struct flue_error *error)
{
    struct flue_reader r = flue_reader(bytes);
    struct flue_field_value f;
    uint64_t version = 0;

    memset(out, 0, sizeof *out);
    while (flue_read_field(&r, &f)) {
        switch (f.number) {
        case 1:
            version = f.varint;
            break;
        case 2:
            out->written = f.varint != 0;
            break;
        case 3:
            out->encoder = (uint32_t)f.varint;
            break;
        case 4:
            out->level = (uint32_t)f.varint;
            break;
        case 5:
            out->place.bucket = f.bytes;
            break;
        case 6:
            out->place.folder = f.bytes;
            break;
        case 7:
            out->seq = f.varint;
            break;
        case 8:
            out->min_ns = f.varint;
            break;
        case 9:
            out->max_ns = f.varint;
            break;
        case 10:
            if (!read_records(f.bytes, arena, out))
                return flue_fail(error, FLUE_INVALID, "broken list of records in a cut");
            break;
        default:
            break;
        }
    }
    if (!flue_reader_done(&r) || version != CUT_VERSION || !out->count)
        return flue_fail(error, FLUE_INVALID, "a note of the queue is not a cut of version %d",
                         CUT_VERSION);
    return FLUE_OK;
}

char *flue_cut_key(struct flue_arena *arena, struct flue_bytes folder, uint64_t min_ns,
                   uint64_t max_ns, const char *writer, uint64_t seq, unsigned part,
                   const char *hash)
{
    time_t start = (time_t)(min_ns / SECOND);
    uint64_t seconds = max_ns > min_ns ? max_ns / SECOND - min_ns / SECOND + 1 : 1;
    char when[32], parts[16] = "";
    struct tm utc;

    if (!gmtime_r(&start, &utc) || !strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", &utc))
        return NULL;
    if (part)
        snprintf(parts, sizeof parts, "p%u", part + 1);
    return flue_arena_printf(arena, "%.*s%s-%" PRIu64 "-%s-%" PRIu64 "%s-%s" FLUE_OTLP_EXTENSION,
                             FLUE_PRI(folder), when, seconds, writer, seq, parts, hash);
}
