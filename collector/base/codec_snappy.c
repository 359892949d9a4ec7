/* codec_snappy.c: snappy's block format by its library, and the framing format (framing_format.txt
 * of google/snappy, 2013-10-25), which the library does not have. See codec.h.
 *
 * A framed stream is chunks: a type, a length in three bytes, and for data the masked CRC-32C of
 * what it holds when uncompressed, at most 65,536 bytes.
 */
#include "collector/base/codec_inside.h"

#include <isa-l.h>
#include <snappy-c.h>

#define CHUNK_LIMIT ((size_t)65536)

enum chunk {
    CHUNK_COMPRESSED = 0x00,
    CHUNK_PLAIN = 0x01,
    CHUNK_FIRST_SKIPPABLE = 0x80, /* 0x02 to 0x7F are reserved and not to be skipped */
    CHUNK_IDENTIFIER = 0xFF
};

static const uint8_t identifier[10] = {0xFF, 6, 0, 0, 's', 'N', 'a', 'P', 'p', 'Y'};

/* CRC-32C (RFC 3720 section 12.1), masked: a checksum of data that holds checksums is weak. */
static uint32_t masked_crc(const uint8_t *data, size_t size)
{
    uint32_t crc = ~crc32_iscsi((unsigned char *)(uintptr_t)data, (int)size, 0xFFFFFFFFu);

    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static uint32_t read_le(const uint8_t *p, unsigned bytes)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint32_t)p[i] << (8 * i);
    return value;
}

static void write_le(uint8_t *p, uint32_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

static enum flue_code damaged(const struct flue_unpacked *out, struct flue_error *error)
{
    return flue_fail(error, FLUE_INVALID, "%s: the data is damaged", out->name);
}

static enum flue_code inflate_block(struct flue_bytes in, struct flue_account *account,
                                    struct flue_unpacked *out, struct flue_error *error)
{
    enum flue_code code;
    size_t size;

    if (snappy_uncompressed_length((const char *)in.data, in.size, &size) != SNAPPY_OK)
        return damaged(out, error);
    if (size > out->allowed)
        return flue_unpack_too_large(out, error);
    code = flue_unpack_begin(out, size, account, error);
    if (code != FLUE_OK)
        return code;
    size = out->block->capacity;
    if (snappy_uncompress((const char *)in.data, in.size, (char *)out->block->data, &size) !=
        SNAPPY_OK)
        return damaged(out, error);
    return flue_unpack_took(out, size, error);
}

/* Makes room for one whole chunk, as far as the cap goes. */
static enum flue_code chunk_room(struct flue_unpacked *out, size_t size, struct flue_error *error)
{
    if (size > out->allowed - out->block->size)
        return flue_unpack_too_large(out, error);
    return flue_block_reserve(out->block, size, out->allowed + 1, error);
}

static enum flue_code inflate_chunk(uint8_t type, struct flue_bytes body, struct flue_unpacked *out,
                                    struct flue_error *error)
{
    size_t size = body.size - 4;
    struct flue_bytes data;
    enum flue_code code;
    uint8_t *to;

    if (body.size < 4)
        return damaged(out, error);
    data = flue_bytes_from(body, 4);
    if (type == CHUNK_COMPRESSED &&
        snappy_uncompressed_length((const char *)data.data, data.size, &size) != SNAPPY_OK)
        return damaged(out, error);
    if (size > CHUNK_LIMIT)
        return flue_fail(error, FLUE_INVALID, "%s: a chunk of %zu bytes, limit %zu", out->name,
                         size, CHUNK_LIMIT);
    code = chunk_room(out, size, error);
    if (code != FLUE_OK)
        return code;
    to = out->block->data + out->block->size;
    if (type == CHUNK_PLAIN)
        memcpy(to, data.data, size);
    else if (snappy_uncompress((const char *)data.data, data.size, (char *)to, &size) != SNAPPY_OK)
        return damaged(out, error);
    if (masked_crc(to, size) != read_le(body.data, 4))
        return flue_fail(error, FLUE_INVALID, "%s: the checksum is wrong", out->name);
    return flue_unpack_took(out, size, error);
}

static bool is_framed(struct flue_bytes in)
{
    return flue_bytes_starts_with(in, flue_bytes(identifier, sizeof identifier));
}

static enum flue_code inflate_framed(struct flue_bytes in, struct flue_account *account,
                                     struct flue_unpacked *out, struct flue_error *error)
{
    enum flue_code code;

    if (!is_framed(in))
        return flue_fail(error, FLUE_INVALID, "%s: no stream identifier at the start", out->name);
    code = flue_unpack_begin(out, in.size * 2, account, error);
    while (code == FLUE_OK && in.size) {
        uint8_t type = in.data[0];
        struct flue_bytes body;
        size_t size;

        if (in.size < 4)
            return flue_unpack_truncated(out->name, error);
        size = read_le(in.data + 1, 3);
        body = flue_bytes_first(flue_bytes_from(in, 4), size);
        if (body.size < size)
            return flue_unpack_truncated(out->name, error);
        if (type == CHUNK_COMPRESSED || type == CHUNK_PLAIN)
            code = inflate_chunk(type, body, out, error);
        else if (type == CHUNK_IDENTIFIER ? !is_framed(in) : type < CHUNK_FIRST_SKIPPABLE)
            code =
                flue_fail(error, FLUE_INVALID, "%s: unknown chunk of type 0x%02x", out->name, type);
        in = flue_bytes_from(in, 4 + size);
    }
    return code;
}

enum flue_code flue_snappy_inflate(enum flue_coding coding, struct flue_bytes in,
                                   struct flue_account *account, struct flue_unpacked *out,
                                   struct flue_error *error)
{
    if (coding == FLUE_SNAPPY_FRAMED || is_framed(in))
        return inflate_framed(in, account, out, error);
    return inflate_block(in, account, out, error);
}

static enum flue_code deflate_chunk(struct flue_bytes data, struct flue_block *out,
                                    struct flue_error *error)
{
    size_t size = snappy_max_compressed_length(data.size);
    enum flue_code code = flue_block_reserve(out, 8 + size, SIZE_MAX, error);
    uint8_t *at = out->data + out->size;

    if (code != FLUE_OK)
        return code;
    at[0] = CHUNK_COMPRESSED;
    if (snappy_compress((const char *)data.data, data.size, (char *)at + 8, &size) != SNAPPY_OK ||
        size > data.size - data.size / 8) {
        at[0] = CHUNK_PLAIN;
        size = data.size;
        memcpy(at + 8, data.data, size);
    }
    write_le(at + 1, (uint32_t)size + 4, 3);
    write_le(at + 4, masked_crc(data.data, data.size), 4);
    out->size += 8 + size;
    return FLUE_OK;
}

static enum flue_code deflate_framed(struct flue_bytes in, struct flue_block *out,
                                     struct flue_error *error)
{
    enum flue_code code =
        flue_block_append(out, flue_bytes(identifier, sizeof identifier), SIZE_MAX, error);

    for (; code == FLUE_OK && in.size; in = flue_bytes_from(in, CHUNK_LIMIT))
        code = deflate_chunk(flue_bytes_first(in, CHUNK_LIMIT), out, error);
    return code;
}

static enum flue_code deflate_block(struct flue_bytes in, struct flue_block *out,
                                    struct flue_error *error)
{
    size_t size = snappy_max_compressed_length(in.size);
    enum flue_code code;

    if (in.size > UINT32_MAX)
        return flue_fail(error, FLUE_TOO_LARGE, "snappy: %zu bytes, limit %u", in.size, UINT32_MAX);
    code = flue_block_reserve(out, size, SIZE_MAX, error);
    if (code != FLUE_OK)
        return code;
    if (snappy_compress((const char *)in.data, in.size, (char *)out->data, &size) != SNAPPY_OK)
        return flue_fail(error, FLUE_INTERNAL, "snappy: the compressor refused its input");
    out->size = size;
    return FLUE_OK;
}

enum flue_code flue_snappy_deflate(enum flue_coding coding, const struct flue_slices *in,
                                   struct flue_block *out, struct flue_error *error)
{
    struct flue_block *copy;
    struct flue_bytes whole = flue_slices_joined(in, &copy);
    enum flue_code code;

    if (!whole.data)
        return flue_fail(error, FLUE_NO_MEMORY, "snappy: no memory");
    code = coding == FLUE_SNAPPY_FRAMED ? deflate_framed(whole, out, error)
                                        : deflate_block(whole, out, error);
    flue_block_unref(copy);
    return code;
}
