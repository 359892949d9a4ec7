/* codec_gzip.c: gzip (RFC 1952), zlib (RFC 1950) and raw deflate (RFC 1951), by ISA-L; dense output
 * by libdeflate. See codec.h.
 *
 * "deflate" is zlib by RFC 9110, but some clients send raw deflate: the two are told apart by the
 * first two bytes.
 */
#include "collector/base/codec_inside.h"

#include <isa-l.h>
#include <libdeflate.h>
#include <stdlib.h>

#define PIECE       ((size_t)1 << 30) /* ISA-L counts in 32 bits */
#define WINDOW      ((size_t)128 * 1024)
#define SMALL_BODY  ((size_t)8 * 1024)
#define JOINED_MOST ((size_t)64 * 1024)
#define HIGHEST     3 /* level of ISA-L; above it libdeflate's */
/* Within 6 % of zlib's default in size at half the time of libdeflate's own 6
 * (docs/performance.md). */
#define DENSE 2
/* An empty member has 20 bytes and costs a microsecond: what is cut so fine is an attack. */
#define MOST_MEMBERS(size) (1000 + (size) / 512)
#define FIRST_GUESS        4 /* times the input, where nothing says better */

static bool is_gzip(struct flue_bytes in)
{
    return in.size >= 2 && in.data[0] == 0x1F && in.data[1] == 0x8B;
}

static bool is_zlib(struct flue_bytes in)
{
    return in.size >= 2 && (in.data[0] & 15) == 8 && in.data[0] >> 4 <= 7 &&
           (in.data[0] << 8 | in.data[1]) % 31 == 0;
}

/* ISA-L's name for the wrapping of `in`. */
static uint32_t wrapping(enum flue_coding coding, struct flue_bytes in)
{
    if (coding == FLUE_GZIP)
        return ISAL_GZIP;
    return is_zlib(in) ? ISAL_ZLIB : ISAL_DEFLATE;
}

/* One walk over all members of a stream, resumable after every piece of output. */
struct walk {
    struct inflate_state *state;
    const char *name;
    struct flue_bytes in;
    size_t next; /* of `in`: what the state was not given yet */
    uint32_t wrapping;
    size_t members;
    bool ended;
};

static enum flue_code walk_begin(struct walk *walk, const char *name, struct flue_bytes in,
                                 uint32_t wrap, struct flue_error *error)
{
    *walk = (struct walk){.name = name, .in = in, .wrapping = wrap};
    walk->state = flue_context_take(FLUE_CONTEXT_INFLATE);
    if (!walk->state)
        walk->state = malloc(sizeof *walk->state);
    if (!walk->state)
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory", name);
    isal_inflate_init(walk->state);
    walk->state->crc_flag = wrap;
    return FLUE_OK;
}

static void walk_end(struct walk *walk)
{
    flue_context_give(FLUE_CONTEXT_INFLATE, walk->state, free);
}

static const char *reason(int failure)
{
    switch (failure) {
    case ISAL_INVALID_WRAPPER:
    case ISAL_UNSUPPORTED_METHOD:
        return "no valid header";
    case ISAL_INCORRECT_CHECKSUM:
        return "the checksum is wrong";
    case ISAL_NEED_DICT:
        return "a preset dictionary is not supported";
    default:
        return "the data is damaged";
    }
}

/* A member ended; bytes that the state has read ahead into its bit buffer belong to the next. */
static enum flue_code next_member(struct walk *walk, struct flue_error *error)
{
    struct inflate_state *state = walk->state;
    size_t ahead = state->read_in_length > 0 ? (size_t)state->read_in_length / 8 : 0;

    walk->next -= state->avail_in + ahead;
    if (walk->next == walk->in.size) {
        walk->ended = true;
        return FLUE_OK;
    }
    if (walk->wrapping != ISAL_GZIP || !is_gzip(flue_bytes_from(walk->in, walk->next)))
        return flue_fail(error, FLUE_INVALID, "%s: %zu bytes of garbage behind the data",
                         walk->name, walk->in.size - walk->next);
    if (++walk->members >= MOST_MEMBERS(walk->in.size))
        return flue_fail(error, FLUE_TOO_LARGE, "%s: %zu bytes in over %zu members; send it in one",
                         walk->name, walk->in.size, walk->members);
    isal_inflate_reset(state);
    state->avail_in = 0;
    state->crc_flag = ISAL_GZIP;
    return FLUE_OK;
}

/* Writes up to `room` bytes; *made is 0 only at the end. */
static enum flue_code walk_step(struct walk *walk, uint8_t *out, size_t room, size_t *made,
                                struct flue_error *error)
{
    struct inflate_state *state = walk->state;
    enum flue_code code;
    int failure;

    *made = 0;
    while (*made == 0 && !walk->ended) {
        uint32_t given;

        if (state->avail_in == 0) {
            struct flue_bytes piece =
                flue_bytes_first(flue_bytes_from(walk->in, walk->next), PIECE);

            state->next_in = (uint8_t *)(uintptr_t)piece.data;
            state->avail_in = (uint32_t)piece.size;
            walk->next += piece.size;
        }
        given = state->avail_in;
        state->next_out = out;
        state->avail_out = (uint32_t)room;
        failure = isal_inflate(state);
        *made = room - state->avail_out;
        if (failure != ISAL_DECOMP_OK && failure != ISAL_END_INPUT && failure != ISAL_OUT_OVERFLOW)
            return flue_fail(error, FLUE_INVALID, "%s: %s", walk->name, reason(failure));
        if (state->block_state == ISAL_BLOCK_FINISH) {
            code = next_member(walk, error);
            if (code != FLUE_OK)
                return code;
        } else if (*made == 0 && state->avail_in == 0 && walk->next == walk->in.size) {
            return flue_unpack_truncated(walk->name, error);
        } else if (*made == 0 && state->avail_in == given) {
            return flue_fail(error, FLUE_INVALID, "%s: %s", walk->name, reason(failure));
        }
    }
    return FLUE_OK;
}

/* gzip ends with its size modulo 2^32: a hint, as it may lie or be the last member's only. */
static size_t guess(struct flue_bytes in, uint32_t wrap)
{
    size_t least = in.size < SIZE_MAX / FIRST_GUESS ? in.size * FIRST_GUESS : in.size;
    uint32_t said = 0;

    if (wrap != ISAL_GZIP || in.size < 18)
        return least;
    for (unsigned i = 0; i < 4; i++)
        said |= (uint32_t)in.data[in.size - 4 + i] << (8 * i);
    return said >= in.size / 2 ? said : least;
}

enum flue_code flue_isal_inflate(enum flue_coding coding, struct flue_bytes in,
                                 struct flue_account *account, struct flue_unpacked *out,
                                 struct flue_error *error)
{
    uint32_t wrap = wrapping(coding, in);
    enum flue_code code = flue_unpack_begin(out, guess(in, wrap), account, error);
    struct walk walk;
    size_t room, made;

    if (code != FLUE_OK)
        return code;
    code = walk_begin(&walk, out->name, in, wrap, error);
    if (code != FLUE_OK)
        return code;
    while (code == FLUE_OK && !walk.ended) {
        code = flue_unpack_room(out, FLUE_UNPACK_STEP, &room, error);
        if (code == FLUE_OK)
            code = walk_step(&walk, out->block->data + out->block->size, room, &made, error);
        if (code == FLUE_OK)
            code = flue_unpack_took(out, made, error);
    }
    walk_end(&walk);
    return code;
}

enum flue_code flue_inflate_windows(struct flue_bytes gzip, size_t limit, unsigned ratio,
                                    flue_inflate_sink sink, void *arg, struct flue_error *error)
{
    enum flue_coding coding = is_gzip(gzip) ? FLUE_GZIP : FLUE_ZLIB;
    struct flue_unpacked cap = {.name = flue_coding_name(coding),
                                .allowed = flue_unpack_allowed(gzip, limit, ratio),
                                .limit = limit,
                                .ratio = ratio};
    struct flue_block *window;
    size_t total = 0, made;
    enum flue_code code;
    struct walk walk;

    if (coding == FLUE_ZLIB && !is_zlib(gzip))
        return flue_fail(error, FLUE_INVALID, "neither gzip nor zlib: no valid header");
    code = walk_begin(&walk, cap.name, gzip, coding == FLUE_GZIP ? ISAL_GZIP : ISAL_ZLIB, error);
    if (code != FLUE_OK)
        return code;
    window = flue_block_new(NULL, WINDOW);
    if (!window)
        code = flue_fail(error, FLUE_NO_MEMORY, "%s: no memory", cap.name);
    while (code == FLUE_OK && !walk.ended) {
        code = walk_step(&walk, window->data, WINDOW, &made, error);
        if (code != FLUE_OK)
            break;
        if (made > cap.allowed - total)
            code = flue_unpack_too_large(&cap, error);
        else if (made)
            code = sink(arg, flue_bytes(window->data, made), error);
        total += made;
    }
    flue_block_unref(window);
    walk_end(&walk);
    return code;
}

struct packer {
    struct isal_zstream stream;
    uint8_t buffer[ISAL_DEF_LVL3_DEFAULT]; /* the largest of the levels' */
};

static const uint32_t buffer_sizes[HIGHEST + 1] = {0, ISAL_DEF_LVL1_DEFAULT, ISAL_DEF_LVL2_DEFAULT,
                                                   ISAL_DEF_LVL3_DEFAULT};

static struct packer *packer_take(void)
{
    struct packer *packer = flue_context_take(FLUE_CONTEXT_DEFLATE);

    if (packer) {
        isal_deflate_reset(&packer->stream);
    } else {
        packer = malloc(sizeof *packer);
        if (packer)
            isal_deflate_init(&packer->stream);
    }
    return packer;
}

/* Gives `piece` to the stream until all of it is in, and at the last one until all is out. */
static enum flue_code pack_piece(struct isal_zstream *stream, struct flue_bytes piece, bool last,
                                 struct flue_block *out, struct flue_error *error)
{
    stream->next_in = (uint8_t *)(uintptr_t)piece.data;
    stream->avail_in = (uint32_t)piece.size;
    stream->end_of_stream = last;
    do {
        enum flue_code code = flue_block_reserve(out, 1024, SIZE_MAX, error);
        size_t room = out->capacity - out->size;

        if (code != FLUE_OK)
            return code;
        stream->next_out = out->data + out->size;
        stream->avail_out = (uint32_t)(room < PIECE ? room : PIECE);
        room = stream->avail_out;
        if (isal_deflate(stream) != COMP_OK)
            return flue_fail(error, FLUE_INTERNAL, "gzip: the compressor refused its input");
        out->size += room - stream->avail_out;
    } while (stream->avail_in || (last && stream->internal_state.state != ZSTATE_END));
    return FLUE_OK;
}

static enum flue_code pack_pieces(uint16_t wrap, uint32_t level, const struct flue_slices *in,
                                  struct flue_block *out, struct flue_error *error)
{
    struct packer *packer = packer_take();
    enum flue_code code = FLUE_OK;
    struct isal_zstream *stream;

    if (!packer)
        return flue_fail(error, FLUE_NO_MEMORY, "gzip: no memory");
    stream = &packer->stream;
    stream->gzip_flag = wrap;
    stream->flush = NO_FLUSH;
    stream->level = level;
    stream->level_buf = level ? packer->buffer : NULL;
    stream->level_buf_size = buffer_sizes[level];
    for (size_t i = 0; code == FLUE_OK && i < in->count; i++)
        for (struct flue_bytes left = in->items[i]; code == FLUE_OK && left.size;
             left = flue_bytes_from(left, PIECE))
            code = pack_piece(stream, flue_bytes_first(left, PIECE), false, out, error);
    if (code == FLUE_OK)
        code = pack_piece(stream, FLUE_BYTES(""), true, out, error);
    flue_context_give(FLUE_CONTEXT_DEFLATE, packer, free);
    return code;
}

/* ISA-L fits its tables to the first piece: after a tiny one it finds few of a small body's
 * repeats. */
static enum flue_code pack_fast(uint16_t wrap, uint32_t level, const struct flue_slices *in,
                                struct flue_block *out, struct flue_error *error)
{
    struct flue_block *copy = NULL;
    struct flue_slices whole = *in;
    struct flue_bytes joined;
    enum flue_code code;

    if (in->count > 1 && in->total <= JOINED_MOST) {
        joined = flue_slices_joined(in, &copy);
        if (!joined.data)
            return flue_fail(error, FLUE_NO_MEMORY, "gzip: no memory");
        whole.items = &joined;
        whole.count = 1;
    }
    code = pack_pieces(wrap, level, &whole, out, error);
    flue_block_unref(copy);
    return code;
}

struct dense {
    struct libdeflate_compressor *compressor;
    int level;
};

static void dense_free(void *arg)
{
    struct dense *dense = arg;

    libdeflate_free_compressor(dense->compressor);
    free(dense);
}

static struct dense *dense_take(int level)
{
    struct dense *dense = flue_context_take(FLUE_CONTEXT_DENSE);

    if (dense && dense->level == level)
        return dense;
    if (dense)
        dense_free(dense);
    dense = malloc(sizeof *dense);
    if (!dense)
        return NULL;
    dense->level = level;
    dense->compressor = libdeflate_alloc_compressor(level);
    if (!dense->compressor) {
        free(dense);
        return NULL;
    }
    return dense;
}

static enum flue_code pack_dense(bool gzip, int level, const struct flue_slices *in,
                                 struct flue_block *out, struct flue_error *error)
{
    struct dense *dense = dense_take(level);
    struct flue_block *copy;
    struct flue_bytes whole;
    enum flue_code code;

    if (!dense)
        return flue_fail(error, FLUE_NO_MEMORY, "gzip: no memory");
    whole = flue_slices_joined(in, &copy);
    if (whole.data)
        code = flue_block_reserve(out,
                                  gzip ? libdeflate_gzip_compress_bound(NULL, whole.size)
                                       : libdeflate_zlib_compress_bound(NULL, whole.size),
                                  SIZE_MAX, error);
    else
        code = flue_fail(error, FLUE_NO_MEMORY, "gzip: no memory");
    if (code == FLUE_OK) {
        out->size = (gzip ? libdeflate_gzip_compress : libdeflate_zlib_compress)(
            dense->compressor, whole.data, whole.size, out->data, out->capacity);
        if (out->size == 0)
            code = flue_fail(error, FLUE_INTERNAL, "gzip: the compressor passed its own bound");
    }
    flue_block_unref(copy);
    flue_context_give(FLUE_CONTEXT_DENSE, dense, dense_free);
    return code;
}

enum flue_code flue_isal_deflate(enum flue_coding coding, int level, const struct flue_slices *in,
                                 struct flue_block *out, struct flue_error *error)
{
    bool gzip = coding == FLUE_GZIP;

    if (level == FLUE_LEVEL_DENSE)
        return pack_dense(gzip, DENSE, in, out, error);
    if (level == FLUE_LEVEL_DEFAULT || level == -1) /* -1 is zlib's word for its default */
        return pack_fast(gzip ? IGZIP_GZIP : IGZIP_ZLIB, in->total < SMALL_BODY ? 0 : 1, in, out,
                         error);
    if (level < 0 || level > 12)
        return flue_fail(error, FLUE_INVALID, "%s: level %d, but levels are -1 to 12",
                         flue_coding_name(coding), level);
    if (level >= 1 && level <= HIGHEST)
        return pack_fast(gzip ? IGZIP_GZIP : IGZIP_ZLIB, (uint32_t)level, in, out, error);
    return pack_dense(gzip, level, in, out, error);
}
