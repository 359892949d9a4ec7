/* codec_lz4.c: the LZ4 frame format, version 1.6. See codec.h. */
#include "collector/base/codec_inside.h"

#include <lz4frame.h>

#define FIRST_GUESS 4

static void reader_free(void *context)
{
    LZ4F_freeDecompressionContext(context);
}

/* The size that the first frame states, or 0. */
static size_t stated_size(LZ4F_dctx *context, struct flue_bytes in)
{
    LZ4F_frameInfo_t info = LZ4F_INIT_FRAMEINFO;
    size_t consumed = in.size;

    if (LZ4F_isError(LZ4F_getFrameInfo(context, &info, in.data, &consumed)))
        info.contentSize = 0;
    LZ4F_resetDecompressionContext(context);
    return info.contentSize < SIZE_MAX ? (size_t)info.contentSize : SIZE_MAX - 1;
}

static enum flue_code inflate_all(LZ4F_dctx *context, struct flue_bytes in,
                                  struct flue_unpacked *out, struct flue_error *error)
{
    for (;;) {
        size_t room, consumed = in.size, made, left;
        enum flue_code code = flue_unpack_room(out, FLUE_UNPACK_STEP, &room, error);

        if (code != FLUE_OK)
            return code;
        made = room;
        left = LZ4F_decompress(context, out->block->data + out->block->size, &made, in.data,
                               &consumed, NULL);
        if (LZ4F_isError(left))
            return flue_fail(error, FLUE_INVALID, "lz4: %s", LZ4F_getErrorName(left));
        in = flue_bytes_from(in, consumed);
        code = flue_unpack_took(out, made, error);
        if (code != FLUE_OK)
            return code;
        if (left == 0 && in.size == 0)
            return FLUE_OK;
        if (made < room && in.size == 0 && left != 0)
            return flue_unpack_truncated(out->name, error);
        if (made == 0 && consumed == 0 && left != 0)
            return flue_fail(error, FLUE_INVALID, "lz4: the data is damaged");
    }
}

enum flue_code flue_lz4_inflate(struct flue_bytes in, struct flue_account *account,
                                struct flue_unpacked *out, struct flue_error *error)
{
    LZ4F_dctx *context = flue_context_take(FLUE_CONTEXT_LZ4);
    enum flue_code code = FLUE_OK;
    size_t said;

    if (context)
        LZ4F_resetDecompressionContext(context);
    else if (LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION)))
        return flue_fail(error, FLUE_NO_MEMORY, "lz4: no memory");
    said = stated_size(context, in);
    if (said > out->allowed)
        code = flue_unpack_too_large(out, error);
    if (code == FLUE_OK)
        code = flue_unpack_begin(out, said ? said : in.size * FIRST_GUESS, account, error);
    if (code == FLUE_OK)
        code = inflate_all(context, in, out, error);
    flue_context_give(FLUE_CONTEXT_LZ4, context, reader_free);
    return code;
}

enum flue_code flue_lz4_deflate(int level, const struct flue_slices *in, struct flue_block *out,
                                struct flue_error *error)
{
    LZ4F_preferences_t preferences = LZ4F_INIT_PREFERENCES;
    struct flue_block *copy;
    struct flue_bytes whole = flue_slices_joined(in, &copy);
    enum flue_code code;
    size_t size;

    if (!whole.data)
        return flue_fail(error, FLUE_NO_MEMORY, "lz4: no memory");
    preferences.frameInfo.contentSize = whole.size;
    preferences.frameInfo.blockSizeID = LZ4F_max4MB;
    preferences.compressionLevel = level == FLUE_LEVEL_DEFAULT ? 0
                                   : level == FLUE_LEVEL_DENSE ? 3
                                                               : level;
    if (preferences.compressionLevel > LZ4F_compressionLevel_max()) {
        flue_block_unref(copy);
        return flue_fail(error, FLUE_INVALID, "lz4: level %d, but the highest is %d", level,
                         LZ4F_compressionLevel_max());
    }
    code =
        flue_block_reserve(out, LZ4F_compressFrameBound(whole.size, &preferences), SIZE_MAX, error);
    if (code == FLUE_OK) {
        size = LZ4F_compressFrame(out->data, out->capacity, whole.data, whole.size, &preferences);
        if (LZ4F_isError(size))
            code = flue_fail(error, FLUE_NO_MEMORY, "lz4: %s", LZ4F_getErrorName(size));
        else
            out->size = size;
    }
    flue_block_unref(copy);
    return code;
}
