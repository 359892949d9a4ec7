/* attribute.c: KeyValue and AnyValue, between the wire and collector/base/attribute.h. */
#include "proto/otlp/otlp.h"
#include "proto/otlp/index.h"
#include "proto/wire/writer.h"

/* AnyValue: 1 string, 2 bool, 3 int, 4 double, 5 array, 6 list, 7 bytes, 8 string_value_strindex.
 * The last one counts, as in any oneof. */
void flue_otlp_value_read(struct flue_bytes any_value,
                          const struct flue_otlp_dictionary *dictionary, struct flue_value *out)
{
    struct flue_reader reader = flue_reader(any_value);
    struct flue_field_value field;

    *out = (struct flue_value){.type = FLUE_VALUE_EMPTY};
    while (flue_read_field(&reader, &field)) {
        switch (field.number) {
        case 1:
            *out = (struct flue_value){.type = FLUE_VALUE_STRING, .text = field.bytes};
            break;
        case 2:
            *out = (struct flue_value){.type = FLUE_VALUE_BOOL, .boolean = field.varint != 0};
            break;
        case 3:
            *out = (struct flue_value){.type = FLUE_VALUE_INT, .integer = (int64_t)field.varint};
            break;
        case 4:
            *out = (struct flue_value){.type = FLUE_VALUE_DOUBLE};
            memcpy(&out->number, &field.varint, sizeof out->number);
            break;
        case 5:
        case 6:
            *out = (struct flue_value){.type = FLUE_VALUE_COMPLEX, .text = any_value};
            break;
        case 7:
            *out = (struct flue_value){.type = FLUE_VALUE_BYTES, .text = field.bytes};
            break;
        case 8:
            *out = (struct flue_value){.type = FLUE_VALUE_STRING};
            if (dictionary && field.varint <= UINT32_MAX)
                out->text = flue_otlp_string(dictionary, (uint32_t)field.varint);
            break;
        default:
            break;
        }
    }
}

size_t flue_otlp_value_size(const struct flue_value *value)
{
    switch (value->type) {
    case FLUE_VALUE_STRING:
    case FLUE_VALUE_BYTES:
        return flue_len_field_size(1, value->text.size);
    case FLUE_VALUE_BOOL:
        return 2;
    case FLUE_VALUE_INT:
        return 1 + flue_varint_size((uint64_t)value->integer);
    case FLUE_VALUE_DOUBLE:
        return 9;
    case FLUE_VALUE_COMPLEX:
        return value->text.size;
    default:
        return 0;
    }
}

uint8_t *flue_otlp_value_write(uint8_t *at, const struct flue_value *value)
{
    switch (value->type) {
    case FLUE_VALUE_STRING:
        return flue_write_len_field(at, 1, value->text);
    case FLUE_VALUE_BYTES:
        return flue_write_len_field(at, 7, value->text);
    case FLUE_VALUE_BOOL:
        *at++ = 0x10;
        *at++ = value->boolean;
        return at;
    case FLUE_VALUE_INT:
        *at++ = 0x18;
        return flue_write_varint(at, (uint64_t)value->integer);
    case FLUE_VALUE_DOUBLE:
        *at++ = 0x21;
        memcpy(at, &value->number, 8);
        return at + 8;
    case FLUE_VALUE_COMPLEX:
        if (value->text.size)
            memcpy(at, value->text.data, value->text.size);
        return at + value->text.size;
    default:
        return at;
    }
}

void flue_otlp_attribute_read(struct flue_bytes key_value, struct flue_attribute *out)
{
    struct flue_reader reader = flue_reader(key_value);
    struct flue_field_value field;

    *out = (struct flue_attribute){.value.type = FLUE_VALUE_EMPTY};
    while (flue_read_field(&reader, &field)) {
        if (field.number == 1)
            out->key = field.bytes;
        else if (field.number == 2)
            flue_otlp_value_read(field.bytes, NULL, &out->value);
    }
}

static size_t key_value_size(const struct flue_attribute *attribute)
{
    return flue_len_field_size(1, attribute->key.size) +
           flue_len_field_size(2, flue_otlp_value_size(&attribute->value));
}

size_t flue_otlp_attribute_size(uint32_t field, const struct flue_attribute *attribute)
{
    return flue_len_field_size(field, key_value_size(attribute));
}

uint8_t *flue_otlp_attribute_write(uint8_t *at, uint32_t field,
                                   const struct flue_attribute *attribute)
{
    at = flue_write_len_head(at, field, key_value_size(attribute));
    at = flue_write_len_field(at, 1, attribute->key);
    at = flue_write_len_head(at, 2, flue_otlp_value_size(&attribute->value));
    return flue_otlp_value_write(at, &attribute->value);
}

enum flue_code flue_otlp_attribute_set(struct flue_arena *arena, const struct flue_attribute *items,
                                       size_t count, struct flue_attribute_set *out,
                                       struct flue_error *error)
{
    struct flue_attribute *copies = flue_arena_alloc(arena, count * sizeof *copies);
    uint32_t *ends = flue_arena_alloc(arena, count * sizeof *ends);
    size_t size = 0;
    uint8_t *bytes, *at;

    for (size_t i = 0; i < count; i++)
        size += flue_otlp_attribute_size(1, &items[i]);
    if (size > UINT32_MAX)
        return flue_fail(error, FLUE_TOO_LARGE, "%zu attributes of %zu bytes, limit %u", count,
                         size, UINT32_MAX);
    bytes = flue_arena_alloc(arena, size);
    if (!copies || !ends || !bytes)
        return flue_fail(error, FLUE_NO_MEMORY, "out of memory for %zu attributes of %zu bytes",
                         count, size);
    memset(out, 0, sizeof *out);
    at = bytes;
    for (size_t i = 0; i < count; i++) {
        uint8_t *start = at;
        struct flue_bytes whole;
        struct flue_reader reader;
        struct flue_field_value field;
        at = flue_otlp_attribute_write(at, 1, &items[i]);
        ends[i] = (uint32_t)(at - bytes);
        out->keys |= flue_attribute_bit(items[i].key);
        /* The items name the copy, so that the caller's strings need not live on. */
        whole = flue_bytes(start, (size_t)(at - start));
        reader = flue_reader(whole);
        if (flue_read_field(&reader, &field))
            flue_otlp_attribute_read(field.bytes, &copies[i]);
    }
    out->items = copies;
    out->count = count;
    out->encoded = flue_bytes(bytes, size);
    out->encoded_ends = ends;
    return FLUE_OK;
}
