/* dictionary_out.h: protobuf written forwards into a growing block, for messages whose size is
 * known only at their end. A failed write sets `failed` and later ones do nothing: a writer checks
 * once. Used by merging, splitting and converting. One thread. */
#ifndef PROTO_OTLP_DICTIONARY_OUT_H
#define PROTO_OTLP_DICTIONARY_OUT_H

#include "collector/base/block.h"
#include "proto/wire/writer.h"

struct flue_out {
    struct flue_block *block; /* not charged while it grows */
    size_t maximum;
    bool failed;
};

/* What is written may not pass `maximum` bytes. False without memory. */
bool flue_out_init(struct flue_out *out, size_t expected, size_t maximum);
void flue_out_destroy(struct flue_out *out);
uint8_t *flue_out_grow(struct flue_out *out, size_t more);

/* Where `more` bytes may be written; NULL once failed. The writer says with flue_out_end how far it
 * got. */
static inline uint8_t *flue_out_room(struct flue_out *out, size_t more)
{
    struct flue_block *block = out->block;

    if (__builtin_expect(out->failed || block->capacity - block->size < more, 0))
        return flue_out_grow(out, more);
    return block->data + block->size;
}
static inline void flue_out_end(struct flue_out *out, const uint8_t *at)
{
    out->block->size = (size_t)(at - out->block->data);
}
static inline size_t flue_out_size(const struct flue_out *out)
{
    return out->block->size;
}
static inline void flue_out_bytes(struct flue_out *out, struct flue_bytes b)
{
    uint8_t *at = flue_out_room(out, b.size);

    if (at && b.size) {
        memcpy(at, b.data, b.size);
        out->block->size += b.size;
    }
}
/* A varint field; a zero is left out, as proto3 does. */
static inline void flue_out_number(struct flue_out *out, uint32_t field, uint64_t value)
{
    uint8_t *at = value ? flue_out_room(out, 16) : NULL;

    if (at) {
        at = flue_write_varint(at, flue_tag(field, FLUE_VARINT));
        flue_out_end(out, flue_write_varint(at, value));
    }
}
static inline void flue_out_varint(struct flue_out *out, uint64_t value)
{
    uint8_t *at = flue_out_room(out, 10);

    if (at)
        flue_out_end(out, flue_write_varint(at, value));
}
static inline void flue_out_field(struct flue_out *out, uint32_t field, struct flue_bytes b)
{
    uint8_t *at = flue_out_room(out, b.size + 16);

    if (at)
        flue_out_end(out, flue_write_len_field(at, field, b));
}
static inline void flue_out_fixed64(struct flue_out *out, uint32_t field, uint64_t value)
{
    uint8_t *at = value ? flue_out_room(out, 16) : NULL;

    if (at) {
        at = flue_write_varint(at, flue_tag(field, FLUE_FIXED64));
        memcpy(at, &value, 8);
        flue_out_end(out, at + 8);
    }
}

/* A length-delimited field of unknown size: its content lies between the two calls. Returns what
 * flue_out_close needs. Its length prefix is one byte until it is closed. */
static inline size_t flue_out_open(struct flue_out *out, uint32_t field)
{
    uint8_t *at = flue_out_room(out, 8);

    if (!at)
        return 0;
    at = flue_write_varint(at, flue_tag(field, FLUE_LEN));
    *at++ = 0;
    flue_out_end(out, at);
    return out->block->size;
}
void flue_out_close_long(struct flue_out *out, size_t mark);
static inline void flue_out_close(struct flue_out *out, size_t mark)
{
    if (out->failed)
        return;
    if (out->block->size - mark < 0x80)
        out->block->data[mark - 1] = (uint8_t)(out->block->size - mark);
    else
        flue_out_close_long(out, mark);
}
/* Forgets what was written behind `size`. */
static inline void flue_out_cut(struct flue_out *out, size_t size)
{
    if (size < out->block->size)
        out->block->size = size;
}

#endif
