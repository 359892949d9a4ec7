/* reader.h: the bounded reader of protobuf's wire format; no objects, no allocation, no recursion.
 *
 * A reader is a position and an end within one body. Every function checks bounds; a failed one
 * leaves `at` where the mistake is. Overlong (non-minimal) varints of up to 10 bytes are accepted,
 * as real senders write them (fixed-width back-patched lengths); groups (wire types 3, 4) are not.
 * Source: protobuf encoding specification.
 */
#ifndef PROTO_WIRE_READER_H
#define PROTO_WIRE_READER_H

#include "collector/base/bytes.h"

enum flue_wire_type { FLUE_VARINT = 0, FLUE_FIXED64 = 1, FLUE_LEN = 2, FLUE_FIXED32 = 5 };

struct flue_reader {
    const uint8_t *at, *end;
};

struct flue_field_value {
    uint32_t number; /* 1 .. 2^29-1 */
    enum flue_wire_type type;
    uint64_t varint;         /* VARINT, FIXED64, FIXED32; else 0 */
    struct flue_bytes bytes; /* LEN; else empty */
    const uint8_t *tag_at;   /* first byte of the tag */
};

static inline struct flue_reader flue_reader(struct flue_bytes b)
{
    return (struct flue_reader){b.data,
                                b.size ? b.data + b.size : b.data}; /* NULL + 0: undefined */
}

/* False: over 10 bytes, over 64 bits in the tenth, or truncated. */
static inline bool flue_read_varint(struct flue_reader *r, uint64_t *out)
{
    const uint8_t *at = r->at;
    if (at < r->end && *at < 0x80) {
        *out = *at;
        r->at = at + 1;
        return true;
    }
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && at < r->end; shift += 7) {
        uint64_t byte = *at++;
        if (shift == 63 && byte > 1)
            return false;
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = value;
            r->at = at;
            return true;
        }
    }
    return false;
}

/* The next field; false at the end (at == end) or on a mistake (at < end). */
static inline bool flue_read_field(struct flue_reader *r, struct flue_field_value *f)
{
    const uint8_t *start = r->at;
    uint64_t tag, size;
    if (r->at >= r->end)
        return false;
    if (!flue_read_varint(r, &tag) || tag < 8 || tag >> 32)
        goto broken;
    f->number = (uint32_t)(tag >> 3);
    f->tag_at = start;
    f->varint = 0;
    f->bytes = flue_bytes(NULL, 0);
    switch (tag & 7) {
    case 0:
        f->type = FLUE_VARINT;
        if (!flue_read_varint(r, &f->varint))
            goto broken;
        return true;
    case 1:
        f->type = FLUE_FIXED64;
        if (r->end - r->at < 8)
            goto broken;
        memcpy(&f->varint, r->at, 8);
        r->at += 8;
        return true;
    case 2:
        f->type = FLUE_LEN;
        if (!flue_read_varint(r, &size) || size > (uint64_t)(r->end - r->at))
            goto broken;
        f->bytes = flue_bytes(r->at, (size_t)size);
        r->at += size;
        return true;
    case 5: {
        uint32_t word;
        f->type = FLUE_FIXED32;
        if (r->end - r->at < 4)
            goto broken;
        memcpy(&word, r->at, 4);
        f->varint = word;
        r->at += 4;
        return true;
    }
    default:
        break;
    }
broken:
    r->at = start;
    return false;
}

static inline bool flue_reader_done(const struct flue_reader *r)
{
    return r->at >= r->end;
}

/* How many varints end in `run`. */
static inline uint64_t flue_count_varints(struct flue_bytes run)
{
    uint64_t count = 0;
    for (size_t i = 0; i < run.size; i++)
        count += run.data[i] < 0x80;
    return count;
}

#endif
