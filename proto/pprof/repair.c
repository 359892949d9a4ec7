/* repair.c: see repair.h. */
#include "proto/pprof/repair.h"

#include "collector/base/codec.h"
#include "proto/wire/writer.h"

#define STRING_TABLE 6
#define TIME_NANOS   9

enum flue_code flue_pprof_raw(struct flue_bytes profile, const struct flue_pprof_limits *limits,
                              struct flue_account *account, struct flue_block **inflated,
                              struct flue_bytes *raw, struct flue_error *error)
{
    *inflated = NULL;
    *raw = profile;
    if (profile.size < 2 || profile.data[0] != 0x1f || profile.data[1] != 0x8b)
        return FLUE_OK;
    enum flue_code code =
        flue_inflate(FLUE_GZIP, profile, limits->inflated, limits->ratio, account, inflated, error);
    if (code == FLUE_OK)
        *raw = flue_block_bytes(*inflated);
    return code;
}

static enum flue_code broken(struct flue_error *error)
{
    return flue_fail(error, FLUE_INVALID, "profile: broken protobuf");
}

static enum flue_code rewrite(struct flue_bytes raw, bool strings, const int64_t *time,
                              struct flue_account *account, struct flue_block **out,
                              struct flue_error *error)
{
    struct flue_reader in = flue_reader(raw);
    struct flue_field_value f;
    size_t size = time ? 1 + flue_varint_size((uint64_t)*time) : 0;
    while (flue_read_field(&in, &f)) {
        if (time && f.number == TIME_NANOS)
            continue;
        if (strings && f.number == STRING_TABLE && f.type == FLUE_LEN && !flue_utf8_valid(f.bytes))
            size += flue_len_field_size(STRING_TABLE, flue_utf8_repaired_size(f.bytes));
        else
            size += (size_t)(in.at - f.tag_at);
    }
    if (!flue_reader_done(&in))
        return broken(error);
    struct flue_block *block = flue_block_new(account, size ? size : 1);
    if (!block)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to rewrite a profile of %zu bytes",
                         size);
    uint8_t *at = block->data;
    in = flue_reader(raw);
    while (flue_read_field(&in, &f)) {
        if (time && f.number == TIME_NANOS)
            continue;
        if (strings && f.number == STRING_TABLE && f.type == FLUE_LEN &&
            !flue_utf8_valid(f.bytes)) {
            size_t repaired = flue_utf8_repaired_size(f.bytes);
            at = flue_write_len_head(at, STRING_TABLE, repaired);
            flue_utf8_repair(f.bytes, at);
            at += repaired;
        } else {
            memcpy(at, f.tag_at, (size_t)(in.at - f.tag_at));
            at += in.at - f.tag_at;
        }
    }
    if (time) {
        at = flue_write_varint(at, flue_tag(TIME_NANOS, FLUE_VARINT));
        at = flue_write_varint(at, (uint64_t)*time);
    }
    block->size = (size_t)(at - block->data);
    if (!flue_block_charge(block)) {
        flue_block_unref(block);
        return flue_fail(error, FLUE_OVERLOADED, "no memory left for a profile of %zu bytes", size);
    }
    flue_block_finish(block);
    *out = block;
    return FLUE_OK;
}

enum flue_code flue_pprof_repair(struct flue_bytes profile, const struct flue_pprof_limits *limits,
                                 struct flue_account *account, struct flue_block **out,
                                 struct flue_error *error)
{
    struct flue_block *inflated;
    struct flue_bytes raw;
    enum flue_code code = flue_pprof_raw(profile, limits, account, &inflated, &raw, error);
    if (code == FLUE_OK)
        code = rewrite(raw, true, NULL, account, out, error);
    flue_block_unref(inflated);
    return code;
}

bool flue_pprof_patch_time(uint8_t *profile, size_t at, int64_t from_nanos, int64_t to_nanos)
{
    if (flue_varint_size((uint64_t)from_nanos) != flue_varint_size((uint64_t)to_nanos))
        return false;
    flue_write_varint(profile + at, (uint64_t)to_nanos);
    return true;
}

enum flue_code flue_pprof_set_time(struct flue_bytes profile, int64_t time_nanos,
                                   const struct flue_pprof_limits *limits,
                                   struct flue_account *account, struct flue_block **out,
                                   struct flue_error *error)
{
    struct flue_block *inflated;
    struct flue_bytes raw;
    enum flue_code code = flue_pprof_raw(profile, limits, account, &inflated, &raw, error);
    if (code == FLUE_OK)
        code = rewrite(raw, false, &time_nanos, account, out, error);
    flue_block_unref(inflated);
    return code;
}
