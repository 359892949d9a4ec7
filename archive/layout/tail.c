/* tail.c: see tail.h and otlp.h. Sources: RFC 8878 3.1.2 (skippable frames), zstd's
 * contrib/seekable_format/zstd_seekable_compression_format.md 0.1.0. All numbers little-endian. */
#include "archive/layout/tail.h"
#include "archive/layout/otlp.h"

#define SKIPPABLE_INDEX 0x184D2A50u
#define SKIPPABLE_SEEK  0x184D2A5Eu
#define SEEK_MAGIC      0x8F92EAB1u
#define SEEK_FOOTER     9
#define TAG             "flueidx1"
#define TAG_SIZE        8
#define INDEX_FOOTER    (4 + TAG_SIZE) /* length of the index, tag */

static void put32(struct flue_buffer *out, uint32_t value)
{
    uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                        (uint8_t)(value >> 24)};
    flue_buffer_add(out, flue_bytes(bytes, 4));
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

enum flue_code flue_tail_write(const struct flue_index_object *object, struct flue_block **out,
                               struct flue_error *error)
{
    struct flue_buffer one, index, tail;
    enum flue_code code = FLUE_OK;

    flue_buffer_init(&one, FLUE_INDEX_LIMIT);
    flue_buffer_init(&index, FLUE_INDEX_LIMIT);
    flue_buffer_init(&tail, 2 * (size_t)FLUE_INDEX_LIMIT);
    flue_index_write_object(object, &one);
    struct flue_bytes bytes = flue_buffer_bytes(&one);
    flue_index_write(flue_bytes(NULL, 0), &bytes, 1, &index);
    put32(&tail, SKIPPABLE_INDEX);
    put32(&tail, (uint32_t)index.size + INDEX_FOOTER);
    flue_buffer_add(&tail, flue_buffer_bytes(&index));
    put32(&tail, (uint32_t)index.size);
    flue_buffer_add(&tail, FLUE_BYTES(TAG));
    put32(&tail, SKIPPABLE_SEEK);
    put32(&tail, (uint32_t)(object->frame_count * 8 + SEEK_FOOTER));
    for (size_t i = 0; i < object->frame_count; i++) {
        put32(&tail, (uint32_t)object->frames[i].size);
        put32(&tail, (uint32_t)object->frames[i].raw_size);
    }
    put32(&tail, (uint32_t)object->frame_count);
    flue_buffer_byte(&tail, 0);
    put32(&tail, SEEK_MAGIC);
    if (one.failed || index.failed || tail.failed)
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for the index of an object");
    else if (!(*out = flue_block_copy(NULL, flue_buffer_bytes(&tail))))
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for the index of an object");
    flue_buffer_destroy(&one);
    flue_buffer_destroy(&index);
    flue_buffer_destroy(&tail);
    return code;
}

static enum flue_code foreign(struct flue_error *error)
{
    return flue_fail(error, FLUE_INVALID, "not an object of layout otlp: no index at its end");
}

enum flue_code flue_otlp_tail(struct flue_bytes end, struct flue_bytes *index, size_t *missing,
                              struct flue_error *error)
{
    uint64_t seek, need = SEEK_FOOTER;
    uint32_t size;

    *missing = 0;
    *index = flue_bytes(NULL, 0);
    if (end.size < SEEK_FOOTER || get32(end.data + end.size - 4) != SEEK_MAGIC)
        return foreign(error);
    uint8_t descriptor = end.data[end.size - 5];
    seek = (uint64_t)get32(end.data + end.size - SEEK_FOOTER) * (descriptor & 0x80 ? 12 : 8) +
           SEEK_FOOTER + 8;
    if (seek > FLUE_INDEX_LIMIT)
        return foreign(error);
    need = seek + INDEX_FOOTER;
    if (end.size < need) {
        *missing = (size_t)(need - end.size);
        return FLUE_OK;
    }
    const uint8_t *footer = end.data + end.size - seek - INDEX_FOOTER;
    if (memcmp(footer + 4, TAG, TAG_SIZE) != 0)
        return foreign(error);
    size = get32(footer);
    if (size > FLUE_INDEX_LIMIT)
        return foreign(error);
    if (end.size - need < size) {
        *missing = (size_t)(size - (end.size - need));
        return FLUE_OK;
    }
    *index = flue_bytes(footer - size, size);
    return FLUE_OK;
}

bool flue_otlp_message(struct flue_bytes raw, size_t *at, struct flue_bytes *message,
                       struct flue_error *error)
{
    size_t left = *at < raw.size ? raw.size - *at : 0;
    const uint8_t *p = raw.data + *at;

    if (left == 0)
        return false;
    uint32_t size = left < 4 ? UINT32_MAX
                             : (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
                                   (uint32_t)p[3];
    if (left < 4 || size > left - 4) {
        (void)flue_fail(error, FLUE_INVALID, "a message is cut: %zu bytes at its length", left);
        return false;
    }
    *message = flue_bytes(p + 4, size);
    *at += 4 + (size_t)size;
    return true;
}
