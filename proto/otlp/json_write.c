/* json_write.c: a payload as OTLP/JSON, compact, fields in the order of the schema.
 *
 * Walks the encoded form by the same table that reading uses. Nesting is what the check of the body
 * allowed.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include "collector/base/arena.h"
#include "collector/base/base64.h"
#include "collector/base/buffer.h"
#include "proto/otlp/json_schema.h"
#include "proto/otlp/otlp.h"
#include "proto/wire/json_budget.h"
#include "proto/wire/reader.h"

#define SLICES_BUDGET (64u << 20)
#define DEPTH_MAX     (4 * FLUE_OTLP_MAX_DEPTH)

static void write_message(struct flue_buffer *out, const struct flue_json_field *fields,
                          struct flue_bytes message, unsigned depth);

static void write_base64(struct flue_buffer *out, struct flue_bytes b)
{
    char text[4096];

    flue_buffer_byte(out, '"');
    while (b.size) {
        struct flue_bytes piece = flue_bytes_first(b, sizeof text / 4 * 3);
        flue_base64_encode(piece, text);
        flue_buffer_add(out, flue_bytes(text, (piece.size + 2) / 3 * 4));
        b = flue_bytes_from(b, piece.size);
    }
    flue_buffer_byte(out, '"');
}

static void write_hex(struct flue_buffer *out, struct flue_bytes id)
{
    char text[64];

    flue_buffer_byte(out, '"');
    if (id.size <= sizeof text / 2) {
        flue_hex(id, text);
        flue_buffer_add(out, flue_bytes(text, id.size * 2));
    }
    flue_buffer_byte(out, '"');
}

static void write_double(struct flue_buffer *out, uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof value);
    if (isnan(value))
        flue_buffer_text(out, "\"NaN\"");
    else if (isinf(value))
        flue_buffer_text(out, value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    else
        flue_buffer_printf(out, "%.17g", value);
}

static void write_number(struct flue_buffer *out, enum flue_json_kind kind, uint64_t number)
{
    switch (kind) {
    case FLUE_JSON_BOOL:
        flue_buffer_text(out, number ? "true" : "false");
        break;
    case FLUE_JSON_INT32:
        flue_buffer_printf(out, "%" PRId32, (int32_t)number);
        break;
    case FLUE_JSON_UINT32:
    case FLUE_JSON_FIXED32:
        flue_buffer_printf(out, "%" PRIu32, (uint32_t)number);
        break;
    case FLUE_JSON_INT64:
        flue_buffer_printf(out, "\"%" PRId64 "\"", (int64_t)number);
        break;
    case FLUE_JSON_DOUBLE:
        write_double(out, number);
        break;
    default:
        flue_buffer_printf(out, "\"%" PRIu64 "\"", number);
        break;
    }
}

static void write_value(struct flue_buffer *out, const struct flue_json_field *field,
                        const struct flue_field_value *f, unsigned depth)
{
    switch (field->kind) {
    case FLUE_JSON_MESSAGE:
        write_message(out, field->message, f->bytes, depth + 1);
        break;
    case FLUE_JSON_STRING:
        flue_buffer_json(out, f->bytes);
        break;
    case FLUE_JSON_BYTES:
        write_base64(out, f->bytes);
        break;
    case FLUE_JSON_HEX:
        write_hex(out, f->bytes);
        break;
    default:
        write_number(out, field->kind, f->varint);
    }
}

static bool is_number(const struct flue_json_field *field)
{
    return field->kind >= FLUE_JSON_BOOL;
}

/* All occurrences of a repeated field; numbers may be packed. */
static void write_array(struct flue_buffer *out, const struct flue_json_field *field,
                        struct flue_bytes message, unsigned depth)
{
    struct flue_reader in = flue_reader(message);
    struct flue_field_value f;
    bool first = true;

    while (flue_read_field(&in, &f)) {
        if (f.number != field->number)
            continue;
        if (is_number(field) && f.type == FLUE_LEN) {
            struct flue_reader run = flue_reader(f.bytes);
            uint64_t number;
            while (!flue_reader_done(&run)) {
                if (field->kind == FLUE_JSON_FIXED64) {
                    if (run.end - run.at < 8)
                        break;
                    memcpy(&number, run.at, 8);
                    run.at += 8;
                } else if (!flue_read_varint(&run, &number)) {
                    break;
                }
                if (!first)
                    flue_buffer_byte(out, ',');
                first = false;
                write_number(out, field->kind, number);
            }
            continue;
        }
        if (!first)
            flue_buffer_byte(out, ',');
        first = false;
        write_value(out, field, &f, depth);
    }
}

/* The last occurrence of a single field, or any of a repeated one. */
static bool find(struct flue_bytes message, uint32_t number, struct flue_field_value *found)
{
    struct flue_reader in = flue_reader(message);
    struct flue_field_value f;
    bool there = false;

    while (flue_read_field(&in, &f))
        if (f.number == number) {
            *found = f;
            there = true;
        }
    return there;
}

static bool is_zero(const struct flue_json_field *field, const struct flue_field_value *f)
{
    return is_number(field) ? f->varint == 0
                            : field->kind != FLUE_JSON_MESSAGE && f->bytes.size == 0;
}

static void write_message(struct flue_buffer *out, const struct flue_json_field *fields,
                          struct flue_bytes message, unsigned depth)
{
    bool first = true;

    if (depth > DEPTH_MAX) {
        out->failed = true;
        return;
    }
    flue_buffer_byte(out, '{');
    for (const struct flue_json_field *field = fields; field->name; field++) {
        struct flue_field_value f;
        if (!find(message, field->number, &f) ||
            (!field->repeated && !field->oneof && is_zero(field, &f)))
            continue;
        if (!first)
            flue_buffer_byte(out, ',');
        first = false;
        flue_buffer_printf(out, "\"%s\":", field->name);
        if (field->repeated) {
            flue_buffer_byte(out, '[');
            write_array(out, field, message, depth);
            flue_buffer_byte(out, ']');
        } else {
            write_value(out, field, &f, depth);
        }
    }
    flue_buffer_byte(out, '}');
}

enum flue_code flue_otlp_json_write(const struct flue_payload *payload, struct flue_buffer *out,
                                    struct flue_error *error)
{
    struct flue_arena arena;
    struct flue_slices slices = {0};
    struct flue_block *whole = NULL;
    enum flue_code code;

    flue_arena_init(&arena, SLICES_BUDGET, 0);
    code = payload->ops->slices(payload, &arena, &slices, error);
    if (!code && !(whole = flue_block_new(NULL, slices.total + 1)))
        code =
            flue_fail(error, FLUE_NO_MEMORY, "no memory to write %zu bytes as JSON", slices.total);
    if (!code) {
        flue_slices_copy(&slices, whole->data);
        whole->size = slices.total;
        write_message(out,
                      payload->signal == FLUE_TRACES ? flue_json_trace_request : flue_json_request,
                      flue_block_bytes(whole), 0);
        if (out->starved)
            code = flue_fail(error, FLUE_NO_MEMORY, "no memory to write %zu bytes as JSON",
                             slices.total);
        else if (out->failed)
            code = flue_fail(error, FLUE_TOO_LARGE,
                             "as JSON this batch of %zu bytes takes more than %zu bytes or nests "
                             "deeper than %d",
                             slices.total, out->maximum, DEPTH_MAX);
    }
    flue_block_unref(whole);
    flue_arena_destroy(&arena);
    return code;
}
