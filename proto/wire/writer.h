/* writer.h: the sizes and bytes of protobuf's wire format, written forwards into room that the
 * caller has measured, or into a growing block. Minimal varints only. */
#ifndef PROTO_WIRE_WRITER_H
#define PROTO_WIRE_WRITER_H

#include "collector/base/bytes.h"
#include "proto/wire/reader.h"

static inline size_t flue_varint_size(uint64_t value)
{
    return (size_t)(64 - __builtin_clzll(value | 1) + 6) / 7;
}
static inline uint8_t *flue_write_varint(uint8_t *at, uint64_t value)
{
    while (value >= 0x80) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}
static inline uint32_t flue_tag(uint32_t number, enum flue_wire_type type)
{
    return number << 3 | (uint32_t)type;
}
/* tag + length + content */
static inline size_t flue_len_field_size(uint32_t number, size_t size)
{
    return flue_varint_size(flue_tag(number, FLUE_LEN)) + flue_varint_size(size) + size;
}
static inline uint8_t *flue_write_len_head(uint8_t *at, uint32_t number, size_t size)
{
    at = flue_write_varint(at, flue_tag(number, FLUE_LEN));
    return flue_write_varint(at, size);
}
static inline uint8_t *flue_write_len_field(uint8_t *at, uint32_t number, struct flue_bytes b)
{
    at = flue_write_len_head(at, number, b.size);
    if (b.size)
        memcpy(at, b.data, b.size);
    return at + b.size;
}

#endif
