/* index.c: see index.h. */
#include "archive/layout/index.h"
#include "proto/wire/writer.h"

static void number(struct flue_buffer *out, uint32_t field, uint64_t value)
{
    uint8_t bytes[16], *at = flue_write_varint(bytes, flue_tag(field, FLUE_VARINT));

    if (value)
        flue_buffer_add(out, flue_bytes(bytes, (size_t)(flue_write_varint(at, value) - bytes)));
}

static void fixed(struct flue_buffer *out, uint32_t field, uint64_t value)
{
    uint8_t bytes[16], *at = flue_write_varint(bytes, flue_tag(field, FLUE_FIXED64));

    for (unsigned i = 0; i < 8; i++)
        *at++ = (uint8_t)(value >> 8 * i);
    flue_buffer_add(out, flue_bytes(bytes, (size_t)(at - bytes)));
}

static void text(struct flue_buffer *out, uint32_t field, struct flue_bytes value)
{
    uint8_t bytes[16], *at = flue_write_len_head(bytes, field, value.size);

    flue_buffer_add(out, flue_bytes(bytes, (size_t)(at - bytes)));
    flue_buffer_add(out, value);
}

static void write_frame(const struct flue_index_frame *frame, struct flue_buffer *out)
{
    number(out, 1, frame->offset);
    number(out, 2, frame->size);
    number(out, 3, frame->raw_size);
    fixed(out, 4, frame->min_ns);
    fixed(out, 5, frame->max_ns);
    text(out, 6, frame->service);
    for (size_t i = 0; i < frame->type_count; i++)
        text(out, 7, frame->types[i]);
    number(out, 8, frame->profiles);
    number(out, 9, frame->samples);
}

void flue_index_write_object(const struct flue_index_object *object, struct flue_buffer *out)
{
    struct flue_buffer frame;

    flue_buffer_init(&frame, FLUE_INDEX_LIMIT);
    if (object->key.size)
        text(out, 1, object->key);
    number(out, 2, object->size);
    for (size_t i = 0; i < object->frame_count; i++) {
        flue_buffer_clear(&frame);
        write_frame(&object->frames[i], &frame);
        text(out, 3, flue_buffer_bytes(&frame));
    }
    out->failed = out->failed || frame.failed;
    flue_buffer_destroy(&frame);
}

void flue_index_write(struct flue_bytes writer, const struct flue_bytes *objects, size_t count,
                      struct flue_buffer *out)
{
    number(out, 1, FLUE_INDEX_VERSION);
    text(out, 2, writer);
    for (size_t i = 0; i < count; i++)
        text(out, 3, objects[i]);
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool read_frame(struct flue_bytes bytes, struct flue_arena *arena,
                       struct flue_index_frame *out)
{
    struct flue_reader r = flue_reader(bytes);
    struct flue_bytes *types = NULL;
    struct flue_field_value f;
    size_t room = 0;

    memset(out, 0, sizeof *out);
    while (flue_read_field(&r, &f)) {
        switch (f.number) {
        case 1:
            out->offset = f.varint;
            break;
        case 2:
            out->size = f.varint;
            break;
        case 3:
            out->raw_size = f.varint;
            break;
        case 4:
            out->min_ns = f.varint;
            break;
        case 5:
            out->max_ns = f.varint;
            break;
        case 6:
            out->service = f.bytes;
            break;
        case 7:
            if (!FLUE_ARENA_PUSH(arena, types, out->type_count, room, f.bytes))
                return false;
            break;
        case 8:
            out->profiles = f.varint;
            break;
        case 9:
            out->samples = f.varint;
            break;
        default:
            break;
        }
    }
    out->types = types;
    return flue_reader_done(&r);
}

static bool read_object(struct flue_bytes bytes, struct flue_arena *arena,
                        struct flue_index_object *out)
{
    struct flue_reader r = flue_reader(bytes);
    struct flue_field_value f;
    size_t room = 0;

    memset(out, 0, sizeof *out);
    out->encoded = bytes;
    while (flue_read_field(&r, &f)) {
        struct flue_index_frame frame;
        if (f.number == 1)
            out->key = f.bytes;
        else if (f.number == 2)
            out->size = f.varint;
        else if (f.number == 3 &&
                 (!read_frame(f.bytes, arena, &frame) ||
                  !FLUE_ARENA_PUSH(arena, out->frames, out->frame_count, room, frame)))
            return false;
    }
    return flue_reader_done(&r);
}

enum flue_code flue_index_read(struct flue_bytes bytes, struct flue_arena *arena,
                               struct flue_index *out, struct flue_error *error)
{
    struct flue_reader r = flue_reader(bytes);
    struct flue_field_value f;
    uint64_t version = 0;

    memset(out, 0, sizeof *out);
    while (flue_read_field(&r, &f)) {
        struct flue_index_object object;
        if (f.number == 1)
            version = f.varint;
        else if (f.number == 2)
            out->writer = f.bytes;
        else if (f.number == 3 &&
                 (!read_object(f.bytes, arena, &object) ||
                  !FLUE_ARENA_PUSH(arena, out->objects, out->count, out->room, object)))
            return arena->full || arena->starved
                       ? flue_fail(error, FLUE_NO_MEMORY, "no memory for an index of %zu bytes",
                                   bytes.size)
                       : flue_fail(error, FLUE_INVALID, "broken index of an archive");
    }
    if (!flue_reader_done(&r))
        return flue_fail(error, FLUE_INVALID, "broken index of an archive");
    if (version != FLUE_INDEX_VERSION)
        return flue_fail(error, FLUE_INVALID,
                         "index of version %llu, this flue reads version %d: use a newer one",
                         (unsigned long long)version, FLUE_INDEX_VERSION);
    return FLUE_OK;
}
