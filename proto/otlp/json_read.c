/* json_read.c: OTLP/JSON to the protobuf body that says the same.
 *
 * jansson parses within the caller's budget; the tree is then written out field by field as the
 * schema says, each message's length put before it once it is known. Keys that the schema does not
 * have are ignored, as the specification asks; a value of a wrong type is refused with its path.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/base64.h"
#include "proto/otlp/json_schema.h"
#include "proto/otlp/otlp.h"
#include "proto/otlp/trace.h"
#include "proto/wire/json_budget.h"
#include "proto/wire/writer.h"

#define BODY_MAX ((size_t)1 << 32)

/* Where we are, for messages: a list from the leaf to the root, on the stack. */
struct place {
    const struct place *outer;
    const char *name;
    size_t index; /* SIZE_MAX: no element */
};

struct reader {
    struct flue_block *out;
    struct flue_error *error;
    size_t maximum;
};

static void path_of(const struct place *place, char *out, size_t size)
{
    char rest[256];

    if (!place->outer) {
        out[0] = 0;
        return;
    }
    path_of(place->outer, rest, sizeof rest);
    if (place->index == SIZE_MAX)
        snprintf(out, size, "%s%s%s", rest, rest[0] ? "." : "", place->name);
    else
        snprintf(out, size, "%s%s%s[%zu]", rest, rest[0] ? "." : "", place->name, place->index);
}

static enum flue_code wrong(struct reader *r, const struct place *place, const char *expected,
                            const json_t *got)
{
    static const char *const names[] = {"an object", "an array", "a string", "a number",
                                        "a number",  "true",     "false",    "null"};
    char path[300];

    path_of(place, path, sizeof path);
    return flue_fail(r->error, FLUE_INVALID, "%s: expected %s, got %s", path[0] ? path : "body",
                     expected, names[json_typeof(got)]);
}

static enum flue_code put(struct reader *r, const void *data, size_t size)
{
    return flue_block_append(r->out, flue_bytes(data, size), r->maximum, r->error);
}

static enum flue_code put_varint(struct reader *r, uint64_t value)
{
    uint8_t bytes[10];
    return put(r, bytes, (size_t)(flue_write_varint(bytes, value) - bytes));
}

static enum flue_code put_tag(struct reader *r, const struct flue_json_field *field,
                              enum flue_wire_type type)
{
    return put_varint(r, flue_tag(field->number, type));
}

/* The content from `start` on becomes length-delimited: its length is put before it. */
static enum flue_code close_length(struct reader *r, size_t start)
{
    size_t size = r->out->size - start, head = flue_varint_size(size);
    enum flue_code code = flue_block_reserve(r->out, head, r->maximum, r->error);

    if (code)
        return code;
    memmove(r->out->data + start + head, r->out->data + start, size);
    flue_write_varint(r->out->data + start, size);
    r->out->size += head;
    return FLUE_OK;
}

/* A JSON number or its decimal string, within [minimum, maximum]. */
static bool integer(const json_t *value, bool is_unsigned, uint64_t *out)
{
    struct flue_bytes text;
    int64_t number;

    if (json_is_integer(value)) {
        number = json_integer_value(value);
        *out = (uint64_t)number;
        return !is_unsigned || number >= 0;
    }
    if (json_is_real(value)) { /* 1e3 and 5.0 are integers in protobuf's mapping */
        double real = json_real_value(value);
        if (real != floor(real) || real < (is_unsigned ? 0 : -9007199254740992.0) ||
            real > 9007199254740992.0)
            return false;
        *out = (uint64_t)(int64_t)real;
        return true;
    }
    if (!json_is_string(value))
        return false;
    text = flue_bytes(json_string_value(value), json_string_length(value));
    if (is_unsigned)
        return flue_parse_u64(text, out);
    if (!flue_parse_i64(text, &number))
        return false;
    *out = (uint64_t)number;
    return true;
}

static bool real_number(const json_t *value, double *out)
{
    const char *text = json_string_value(value);
    char *end;

    if (json_is_number(value)) {
        *out = json_number_value(value);
        return true;
    }
    if (!text || !*text)
        return false;
    if (strcmp(text, "NaN") == 0)
        *out = NAN;
    else if (strcmp(text, "Infinity") == 0)
        *out = INFINITY;
    else if (strcmp(text, "-Infinity") == 0)
        *out = -INFINITY;
    else {
        *out = strtod(text, &end);
        return !*end && (*text == '-' || (*text >= '0' && *text <= '9'));
    }
    return true;
}

static enum flue_code put_bytes(struct reader *r, const struct flue_json_field *field,
                                const json_t *value, const struct place *place)
{
    struct flue_bytes text = flue_bytes(json_string_value(value), json_string_length(value));
    size_t room = flue_base64_room(text.size), size = 0, start;
    enum flue_code code;

    if (!json_is_string(value))
        return wrong(r, place, field->kind == FLUE_JSON_HEX ? "an id in hex" : "base64", value);
    if (field->kind == FLUE_JSON_HEX && text.size == 0)
        return FLUE_OK;
    if ((code = put_tag(r, field, FLUE_LEN)))
        return code;
    start = r->out->size;
    if ((code = flue_block_reserve(r->out, room, r->maximum, r->error)))
        return code;
    if (field->kind == FLUE_JSON_HEX && text.size == (size_t)field->id_size * 2) {
        if (!flue_unhex(text, r->out->data + start, field->id_size))
            return wrong(r, place, "an id in hex", value);
        size = field->id_size;
    } else if (!flue_base64_decode(text, r->out->data + start, &size) ||
               (field->kind == FLUE_JSON_HEX && size != field->id_size)) {
        return wrong(r, place, field->kind == FLUE_JSON_HEX ? "an id in hex" : "base64", value);
    }
    r->out->size += size;
    return close_length(r, start);
}

static enum flue_code put_message(struct reader *r, const struct flue_json_field *fields,
                                  const json_t *object, const struct place *place);

/* One value with its tag; `packed`: a number without one. */
static enum flue_code put_value(struct reader *r, const struct flue_json_field *field,
                                const json_t *value, bool packed, const struct place *place)
{
    bool always = field->oneof || field->repeated || packed;
    uint64_t number = 0;
    double real;
    enum flue_code code;
    size_t start;

    switch (field->kind) {
    case FLUE_JSON_MESSAGE:
        if ((code = put_tag(r, field, FLUE_LEN)))
            return code;
        start = r->out->size;
        code = put_message(r, field->message, value, place);
        return code ? code : close_length(r, start);
    case FLUE_JSON_STRING:
        if (!json_is_string(value))
            return wrong(r, place, "a string", value);
        if (!always && json_string_length(value) == 0)
            return FLUE_OK;
        if ((code = put_tag(r, field, FLUE_LEN)) ||
            (code = put_varint(r, json_string_length(value))))
            return code;
        return put(r, json_string_value(value), json_string_length(value));
    case FLUE_JSON_BYTES:
    case FLUE_JSON_HEX:
        return put_bytes(r, field, value, place);
    case FLUE_JSON_BOOL:
        if (!json_is_boolean(value))
            return wrong(r, place, "true or false", value);
        number = json_is_true(value);
        break;
    case FLUE_JSON_DOUBLE:
        if (!real_number(value, &real))
            return wrong(r, place, "a number", value);
        memcpy(&number, &real, sizeof number);
        break;
    case FLUE_JSON_INT32:
    case FLUE_JSON_INT64:
        if (!integer(value, false, &number) ||
            (field->kind == FLUE_JSON_INT32 && (int64_t)number != (int32_t)number))
            return wrong(r, place,
                         field->kind == FLUE_JSON_INT32 ? "a 32-bit integer" : "a 64-bit integer",
                         value);
        break;
    case FLUE_JSON_UINT32:
    case FLUE_JSON_FIXED32:
    case FLUE_JSON_UINT64:
    case FLUE_JSON_FIXED64:
        if (!integer(value, true, &number) ||
            ((field->kind == FLUE_JSON_UINT32 || field->kind == FLUE_JSON_FIXED32) && number >> 32))
            return wrong(r, place, "an unsigned integer within its size", value);
        break;
    }
    bool fixed = field->kind == FLUE_JSON_FIXED64 || field->kind == FLUE_JSON_DOUBLE;
    if (!always && number == 0)
        return FLUE_OK;
    if (field->kind == FLUE_JSON_FIXED32) { /* never repeated; little-endian */
        code = put_tag(r, field, FLUE_FIXED32);
        return code ? code : put(r, &number, 4);
    }
    if (!packed && (code = put_tag(r, field, fixed ? FLUE_FIXED64 : FLUE_VARINT)))
        return code;
    return fixed ? put(r, &number, 8) : put_varint(r, number);
}

static enum flue_code put_array(struct reader *r, const struct flue_json_field *field,
                                const json_t *array, const struct place *outer)
{
    struct place place = {outer, field->name, SIZE_MAX};
    bool packed = field->kind >= FLUE_JSON_BOOL;
    size_t start = 0;
    enum flue_code code = FLUE_OK;

    if (!json_is_array(array))
        return wrong(r, &place, "an array", array);
    if (packed && json_array_size(array)) {
        if ((code = put_tag(r, field, FLUE_LEN)))
            return code;
        start = r->out->size;
    }
    for (size_t i = 0; !code && i < json_array_size(array); i++) {
        place.index = i;
        code = put_value(r, field, json_array_get(array, i), packed, &place);
    }
    if (!code && packed && json_array_size(array))
        code = close_length(r, start);
    return code;
}

/* In the order of the schema, so that equal JSON gives equal bytes. Recursion is bounded by the
 * depth that flue_json_parse allows. */
static enum flue_code put_message(struct reader *r, const struct flue_json_field *fields,
                                  const json_t *object, const struct place *place)
{
    enum flue_code code = FLUE_OK;

    if (!json_is_object(object))
        return wrong(r, place, "an object", object);
    for (const struct flue_json_field *field = fields; !code && field->name; field++) {
        const json_t *value = json_object_get(object, field->name);
        struct place inner = {place, field->name, SIZE_MAX};
        if (!value && field->other)
            value = json_object_get(object, field->other);
        if (!value || json_is_null(value))
            continue;
        code = field->repeated ? put_array(r, field, value, place)
                               : put_value(r, field, value, false, &inner);
    }
    return code;
}

static enum flue_code read_as(const struct flue_json_field *schema, struct flue_bytes json,
                              size_t budget_size, struct flue_account *account,
                              struct flue_block **body, struct flue_error *error)
{
    struct flue_json_budget budget;
    struct place root = {NULL, "", SIZE_MAX};
    struct reader r = {.error = error, .maximum = BODY_MAX - 1};
    json_t *tree = NULL;
    enum flue_code code;

    *body = NULL;
    flue_json_begin(&budget, budget_size);
    code = flue_json_parse(&budget, json, &tree, error);
    if (!code) {
        r.out = flue_block_new(account, json.size / 2 + 64);
        if (!r.out)
            code =
                flue_fail(error, FLUE_NO_MEMORY, "no memory to read %zu bytes of JSON", json.size);
        else
            code = put_message(&r, schema, tree, &root);
    }
    if (tree)
        json_decref(tree);
    flue_json_end(&budget);
    if (!code && !flue_block_charge(r.out))
        code = flue_fail(error, FLUE_OVERLOADED, "no memory left for a body of %zu bytes",
                         r.out->size);
    if (code) {
        flue_block_unref(r.out);
        return code;
    }
    flue_block_finish(r.out);
    *body = r.out;
    return FLUE_OK;
}

enum flue_code flue_otlp_json_read(struct flue_bytes json, size_t budget,
                                   struct flue_account *account, struct flue_block **body,
                                   struct flue_error *error)
{
    return read_as(flue_json_request, json, budget, account, body, error);
}

enum flue_code flue_trace_json_read(struct flue_bytes json, size_t budget,
                                    struct flue_account *account, struct flue_block **body,
                                    struct flue_error *error)
{
    return read_as(flue_json_trace_request, json, budget, account, body, error);
}
