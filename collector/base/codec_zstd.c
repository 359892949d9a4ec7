/* codec_zstd.c: Zstandard (RFC 8878). See codec.h.
 *
 * A frame that states its size is decoded straight into the output. One that does not needs a
 * window in memory: at most 8 MiB, which RFC 8878 section 3.1.1.1.2 asks every decoder to have.
 */
#include "collector/base/codec_inside.h"

#include <stdlib.h>
#include <zstd.h>

#define WINDOW_LOG   23
#define FIRST_GUESS  4
#define KEPT_CONTEXT ((size_t)4 << 20) /* a larger one is not kept between bodies */

static void reader_free(void *context)
{
    ZSTD_freeDCtx(context);
}

static void writer_free(void *context)
{
    ZSTD_freeCCtx(context);
}

static enum flue_code inflate_all(ZSTD_DCtx *context, struct flue_bytes in,
                                  struct flue_unpacked *out, struct flue_error *error)
{
    ZSTD_inBuffer from = {in.data, in.size, 0};

    for (;;) {
        ZSTD_outBuffer to = {0};
        size_t room, left, before = from.pos;
        enum flue_code code = flue_unpack_room(out, SIZE_MAX, &room, error);

        if (code != FLUE_OK)
            return code;
        to.dst = out->block->data + out->block->size;
        to.size = room;
        left = ZSTD_decompressStream(context, &to, &from);
        if (ZSTD_isError(left))
            return flue_fail(error, FLUE_INVALID, "zstd: %s", ZSTD_getErrorName(left));
        code = flue_unpack_took(out, to.pos, error);
        if (code != FLUE_OK)
            return code;
        if (left == 0 && from.pos == from.size)
            return FLUE_OK;
        if (to.pos < to.size && from.pos == from.size && left != 0)
            return flue_unpack_truncated(out->name, error);
        if (to.pos == 0 && from.pos == before && left != 0)
            return flue_fail(error, FLUE_INVALID, "zstd: the data is damaged");
    }
}

enum flue_code flue_zstd_inflate(struct flue_bytes in, struct flue_account *account,
                                 struct flue_unpacked *out, struct flue_error *error)
{
    unsigned long long said = ZSTD_getFrameContentSize(in.data, in.size);
    bool known = said != ZSTD_CONTENTSIZE_UNKNOWN && said != ZSTD_CONTENTSIZE_ERROR;
    ZSTD_DCtx *context;
    enum flue_code code;

    if (known && said > out->allowed)
        return flue_unpack_too_large(out, error);
    if (known && account) { /* it is made in one go: look at the account before */
        if (!flue_account_charge(account, (size_t)said))
            return flue_unpack_overloaded(out, (size_t)said, error);
        flue_account_release(account, (size_t)said);
    }
    code = flue_unpack_begin(out, known ? (size_t)said : in.size * FIRST_GUESS, account, error);
    if (code != FLUE_OK)
        return code;
    context = flue_context_take(FLUE_CONTEXT_ZSTD_IN);
    if (context)
        ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
    else
        context = ZSTD_createDCtx();
    if (!context)
        return flue_fail(error, FLUE_NO_MEMORY, "zstd: no memory");
    ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, WINDOW_LOG);
    code = inflate_all(context, in, out, error);
    if (ZSTD_sizeof_DCtx(context) > KEPT_CONTEXT)
        reader_free(context);
    else
        flue_context_give(FLUE_CONTEXT_ZSTD_IN, context, reader_free);
    return code;
}

static enum flue_code deflate_all(ZSTD_CCtx *context, const struct flue_slices *in,
                                  struct flue_block *out, struct flue_error *error)
{
    ZSTD_CCtx_setPledgedSrcSize(context, in->total);
    for (size_t i = 0; i < in->count || i == 0; i++) {
        bool last = i + 1 >= in->count;
        ZSTD_inBuffer from = {in->count ? in->items[i].data : (const uint8_t *)"",
                              in->count ? in->items[i].size : 0, 0};
        size_t left;

        do {
            ZSTD_outBuffer to = {out->data, out->capacity, out->size};

            left = ZSTD_compressStream2(context, &to, &from, last ? ZSTD_e_end : ZSTD_e_continue);
            if (ZSTD_isError(left))
                return flue_fail(error, FLUE_NO_MEMORY, "zstd: %s", ZSTD_getErrorName(left));
            out->size = to.pos;
            if (to.pos == to.size && (left || from.pos < from.size)) {
                enum flue_code code = flue_block_reserve(out, 65536, SIZE_MAX, error);

                if (code != FLUE_OK)
                    return code;
            }
        } while (last ? left != 0 : from.pos < from.size);
    }
    return FLUE_OK;
}

enum flue_code flue_zstd_deflate(int level, const struct flue_slices *in, struct flue_block *out,
                                 struct flue_error *error)
{
    ZSTD_CCtx *context;
    enum flue_code code;

    if (level == FLUE_LEVEL_DEFAULT)
        level = 1;
    else if (level == FLUE_LEVEL_DENSE)
        level = 3;
    if (level < ZSTD_minCLevel() || level > ZSTD_maxCLevel())
        return flue_fail(error, FLUE_INVALID, "zstd: level %d, but the highest is %d", level,
                         ZSTD_maxCLevel());
    /* With room for all of it zstd writes in one pass, without a buffer of its own. */
    code = flue_block_reserve(out, ZSTD_compressBound(in->total), SIZE_MAX, error);
    if (code != FLUE_OK)
        return code;
    context = flue_context_take(FLUE_CONTEXT_ZSTD_OUT);
    if (!context)
        context = ZSTD_createCCtx();
    if (!context)
        return flue_fail(error, FLUE_NO_MEMORY, "zstd: no memory");
    ZSTD_CCtx_reset(context, ZSTD_reset_session_and_parameters);
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level);
    code = deflate_all(context, in, out, error);
    if (ZSTD_sizeof_CCtx(context) > KEPT_CONTEXT)
        writer_free(context);
    else
        flue_context_give(FLUE_CONTEXT_ZSTD_OUT, context, writer_free);
    return code;
}
