/* codec.c: names, caps and the way to each family. See codec.h. */
#include "collector/base/codec.h"

#include <pthread.h>
#include "collector/base/codec_inside.h"

#define RATIO_FLOOR ((size_t)1 << 20)

static const struct {
    const char *name, *also;
} codings[FLUE_CODINGS] = {
    [FLUE_IDENTITY] = {"identity", "none"}, [FLUE_GZIP] = {"gzip", "x-gzip"},
    [FLUE_ZLIB] = {"zlib", NULL},           [FLUE_DEFLATE] = {"deflate", NULL},
    [FLUE_SNAPPY] = {"snappy", NULL},       [FLUE_SNAPPY_FRAMED] = {"x-snappy-framed", NULL},
    [FLUE_ZSTD] = {"zstd", NULL},           [FLUE_LZ4] = {"lz4", NULL},
};

bool flue_coding_by_name(struct flue_bytes name, enum flue_coding *out)
{
    if (name.size == 0) {
        *out = FLUE_IDENTITY;
        return true;
    }
    for (unsigned i = 0; i < FLUE_CODINGS; i++) {
        if (!flue_bytes_equal_nocase(name, flue_bytes_of(codings[i].name)) &&
            !(codings[i].also && flue_bytes_equal_nocase(name, flue_bytes_of(codings[i].also))))
            continue;
        *out = (enum flue_coding)i;
        return true;
    }
    return false;
}

const char *flue_coding_name(enum flue_coding coding)
{
    return (unsigned)coding < FLUE_CODINGS ? codings[coding].name : "unknown";
}

size_t flue_unpack_allowed(struct flue_bytes in, size_t limit, unsigned ratio)
{
    size_t by_ratio;

    if (limit > SIZE_MAX / 4)
        limit = SIZE_MAX / 4;
    if (ratio == 0 || __builtin_mul_overflow(in.size, (size_t)ratio, &by_ratio))
        return limit;
    if (by_ratio < RATIO_FLOOR)
        by_ratio = RATIO_FLOOR;
    return by_ratio < limit ? by_ratio : limit;
}

enum flue_code flue_unpack_too_large(const struct flue_unpacked *out, struct flue_error *error)
{
    if (out->allowed < out->limit)
        return flue_fail(error, FLUE_TOO_LARGE,
                         "%s: the body grows past %zu bytes, %u times its compressed size; send it "
                         "less compressed",
                         out->name, out->allowed, out->ratio);
    return flue_fail(error, FLUE_TOO_LARGE,
                     "%s: the body is over %zu bytes when decompressed; send it in parts",
                     out->name, out->limit);
}

enum flue_code flue_unpack_overloaded(const struct flue_unpacked *out, size_t size,
                                      struct flue_error *error)
{
    return flue_fail(error, FLUE_OVERLOADED,
                     "%s: no memory left for a body of %zu bytes or more; send again later",
                     out->name, size);
}

enum flue_code flue_unpack_truncated(const char *name, struct flue_error *error)
{
    return flue_fail(error, FLUE_INVALID, "%s: the body ends in the middle of the data", name);
}

enum flue_code flue_unpack_begin(struct flue_unpacked *out, size_t guess,
                                 struct flue_account *account, struct flue_error *error)
{
    size_t capacity = guess < out->allowed ? guess : out->allowed;

    out->block = flue_block_new(account, capacity + 1);
    if (!out->block)
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory for %zu bytes", out->name, capacity);
    return FLUE_OK;
}

enum flue_code flue_unpack_room(struct flue_unpacked *out, size_t step, size_t *room,
                                struct flue_error *error)
{
    struct flue_block *block = out->block;
    size_t left = out->allowed + 1 - block->size;
    enum flue_code code;

    if (block->capacity == block->size) {
        code = flue_block_reserve(block, left < 65536 ? left : 65536, out->allowed + 1, error);
        if (code != FLUE_OK)
            return code;
    }
    *room = block->capacity - block->size;
    if (*room > left)
        *room = left;
    if (*room > step)
        *room = step;
    return FLUE_OK;
}

enum flue_code flue_unpack_took(struct flue_unpacked *out, size_t count, struct flue_error *error)
{
    out->block->size += count;
    if (out->block->size > out->allowed)
        return flue_unpack_too_large(out, error);
    if (!flue_block_charge(out->block))
        return flue_unpack_overloaded(out, out->block->size, error);
    return FLUE_OK;
}

static enum flue_code copy_whole(struct flue_bytes in, struct flue_account *account,
                                 struct flue_unpacked *out, struct flue_error *error)
{
    enum flue_code code;

    if (in.size > out->allowed)
        return flue_unpack_too_large(out, error);
    code = flue_unpack_begin(out, in.size, account, error);
    if (code != FLUE_OK)
        return code;
    if (in.size)
        memcpy(out->block->data, in.data, in.size);
    return flue_unpack_took(out, in.size, error);
}

enum flue_code flue_inflate(enum flue_coding coding, struct flue_bytes in, size_t limit,
                            unsigned ratio, struct flue_account *account, struct flue_block **out,
                            struct flue_error *error)
{
    struct flue_unpacked unpacked = {.name = flue_coding_name(coding),
                                     .allowed = flue_unpack_allowed(in, limit, ratio),
                                     .limit = limit,
                                     .ratio = ratio};
    enum flue_code code;

    if (in.size == 0 && coding != FLUE_IDENTITY)
        return flue_unpack_truncated(unpacked.name, error);
    switch (coding) {
    case FLUE_IDENTITY:
        code = copy_whole(in, account, &unpacked, error);
        break;
    case FLUE_GZIP:
    case FLUE_ZLIB:
    case FLUE_DEFLATE:
        code = flue_isal_inflate(coding, in, account, &unpacked, error);
        break;
    case FLUE_SNAPPY:
    case FLUE_SNAPPY_FRAMED:
        code = flue_snappy_inflate(coding, in, account, &unpacked, error);
        break;
    case FLUE_ZSTD:
        code = flue_zstd_inflate(in, account, &unpacked, error);
        break;
    case FLUE_LZ4:
        code = flue_lz4_inflate(in, account, &unpacked, error);
        break;
    default:
        code = flue_fail(error, FLUE_BAD_ENCODING, "unknown content coding");
    }
    if (code != FLUE_OK) {
        flue_block_unref(unpacked.block);
        return code;
    }
    flue_block_finish(unpacked.block);
    *out = unpacked.block;
    return FLUE_OK;
}

struct flue_bytes flue_slices_joined(const struct flue_slices *in, struct flue_block **copy)
{
    *copy = NULL;
    if (in->count == 0)
        return FLUE_BYTES("");
    if (in->count == 1)
        return in->items[0];
    *copy = flue_block_new(NULL, in->total);
    if (!*copy)
        return flue_bytes(NULL, 0);
    flue_slices_copy(in, (*copy)->data);
    (*copy)->size = in->total;
    return flue_block_bytes(*copy);
}

static enum flue_code join(const struct flue_slices *in, struct flue_block *out,
                           struct flue_error *error)
{
    enum flue_code code = flue_block_reserve(out, in->total, SIZE_MAX, error);

    if (code == FLUE_OK) {
        flue_slices_copy(in, out->data);
        out->size = in->total;
    }
    return code;
}

enum flue_code flue_deflate(enum flue_coding coding, int level, const struct flue_slices *in,
                            struct flue_block **out, struct flue_error *error)
{
    struct flue_block *block = flue_block_new(NULL, in->total / 2 + 256);
    enum flue_code code;

    if (!block)
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory to compress %zu bytes",
                         flue_coding_name(coding), in->total);
    switch (coding) {
    case FLUE_IDENTITY:
        code = join(in, block, error);
        break;
    case FLUE_GZIP:
    case FLUE_ZLIB:
    case FLUE_DEFLATE:
        code = flue_isal_deflate(coding, level, in, block, error);
        break;
    case FLUE_SNAPPY:
    case FLUE_SNAPPY_FRAMED:
        code = flue_snappy_deflate(coding, in, block, error);
        break;
    case FLUE_ZSTD:
        code = flue_zstd_deflate(level, in, block, error);
        break;
    case FLUE_LZ4:
        code = flue_lz4_deflate(level, in, block, error);
        break;
    default:
        code = flue_fail(error, FLUE_BAD_ENCODING, "unknown content coding");
    }
    if (code != FLUE_OK) {
        flue_block_unref(block);
        return code;
    }
    flue_block_finish(block);
    *out = block;
    return FLUE_OK;
}

struct contexts {
    struct {
        void *context;
        void (*destroy)(void *);
    } items[FLUE_CONTEXTS];
    bool known;
};

static _Thread_local struct contexts contexts;
static pthread_once_t contexts_once = PTHREAD_ONCE_INIT;
static pthread_key_t contexts_key;
static bool contexts_key_made;

static void contexts_free(void *arg)
{
    struct contexts *own = arg;

    for (unsigned i = 0; i < FLUE_CONTEXTS; i++)
        if (own->items[i].context)
            own->items[i].destroy(own->items[i].context);
    memset(own, 0, sizeof *own);
}

static void contexts_key_make(void)
{
    contexts_key_made = pthread_key_create(&contexts_key, contexts_free) == 0;
}

void *flue_context_take(enum flue_codec_context which)
{
    void *context = contexts.items[which].context;

    contexts.items[which].context = NULL;
    return context;
}

void flue_context_give(enum flue_codec_context which, void *context, void (*destroy)(void *))
{
    if (!contexts.known) {
        pthread_once(&contexts_once, contexts_key_make);
        contexts.known = contexts_key_made && pthread_setspecific(contexts_key, &contexts) == 0;
    }
    if (!contexts.known || contexts.items[which].context) {
        destroy(context);
        return;
    }
    contexts.items[which].context = context;
    contexts.items[which].destroy = destroy;
}
