/* Every coding, there and back, against zlib, under its cap, cut at every byte, and mutated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <pthread.h>
#include <zlib.h>
#include <zstd.h>
#include <cmocka.h>
#include "collector/base/codec.h"

#define MIB ((size_t)1 << 20)
#define BIG (6 * MIB)

static uint8_t *text;  /* compresses about as profiles do */
static uint8_t *noise; /* does not */
static uint8_t *zeros;

static uint32_t random_state = 1;
static uint32_t next_random(void)
{
    random_state = random_state * 1664525 + 1013904223;
    return random_state >> 8;
}

static int make_data(void **state)
{
    static const char *const words[] = {"runtime.mallocgc", "main.encode", "\x0a\x12\x08",
                                        "libx264",          "frame",       "\x80\x01",
                                        "std::vector",      "/usr/lib/"};

    text = malloc(BIG + 64);
    noise = malloc(BIG);
    zeros = calloc(1, BIG);
    for (size_t i = 0; i < BIG;) {
        const char *word = words[next_random() % 8];
        size_t size = strlen(word) < BIG - i ? strlen(word) : BIG - i;

        memcpy(text + i, word, size);
        i += size;
        if (i < BIG)
            text[i++] = (uint8_t)next_random();
    }
    for (size_t i = 0; i < BIG; i++)
        noise[i] = (uint8_t)next_random();
    return 0;
}

static int drop_data(void **state)
{
    free(text);
    free(noise);
    free(zeros);
    flue_block_trim();
    return 0;
}

/* Compresses `size` bytes as `pieces` slices. */
static struct flue_block *pack(enum flue_coding coding, int level, const uint8_t *data, size_t size,
                               size_t pieces)
{
    struct flue_bytes items[8];
    struct flue_slices in = {items, pieces, 8, size};
    struct flue_block *out = NULL;
    struct flue_error error;

    for (size_t i = 0; i < pieces; i++) {
        size_t from = size * i / pieces, to = size * (i + 1) / pieces;

        items[i] = flue_bytes(data + from, to - from);
    }
    if (flue_deflate(coding, level, &in, &out, &error) != FLUE_OK)
        fail_msg("%s level %d: %s", flue_coding_name(coding), level, error.text);
    return out;
}

static void unpacks_to(enum flue_coding coding, struct flue_bytes in, const uint8_t *data,
                       size_t size)
{
    struct flue_block *out = NULL;
    struct flue_error error = {.text = ""};

    if (flue_inflate(coding, in, 64 * MIB, 0, NULL, &out, &error) != FLUE_OK)
        fail_msg("%s of %zu bytes: %s", flue_coding_name(coding), size, error.text);
    assert_int_equal(out->size, size);
    assert_true(size == 0 || memcmp(out->data, data, size) == 0);
    for (unsigned i = 0; i < FLUE_BLOCK_SLACK; i++)
        assert_int_equal(out->data[size + i], 0);
    flue_block_unref(out);
}

static void fails_with(enum flue_code expected, enum flue_coding coding, struct flue_bytes in,
                       size_t limit, unsigned ratio)
{
    struct flue_budget budget;
    struct flue_account account;
    struct flue_block *out = NULL;
    struct flue_error error = {.text = ""};
    enum flue_code code;

    flue_budget_init(&budget, (int64_t)(256 * MIB));
    flue_account_init(&account, &budget, "test", 0);
    code = flue_inflate(coding, in, limit, ratio, &account, &out, &error);
    if (code != expected)
        fail_msg("%s of %zu bytes: code %d (%s) instead of %d", flue_coding_name(coding), in.size,
                 code, error.text, expected);
    assert_null(out);
    assert_int_equal(error.code, expected);
    assert_memory_equal(error.text, flue_coding_name(coding), strlen(flue_coding_name(coding)));
    assert_int_equal(atomic_load(&budget.used), 0);
}

static void names(void **state)
{
    enum flue_coding coding = FLUE_LZ4;

    for (unsigned i = 0; i < FLUE_CODINGS; i++) {
        assert_true(
            flue_coding_by_name(flue_bytes_of(flue_coding_name((enum flue_coding)i)), &coding));
        assert_int_equal(coding, i);
    }
    assert_true(flue_coding_by_name(FLUE_BYTES("GZip"), &coding) && coding == FLUE_GZIP);
    assert_true(flue_coding_by_name(FLUE_BYTES(""), &coding) && coding == FLUE_IDENTITY);
    assert_true(flue_coding_by_name(FLUE_BYTES("none"), &coding) && coding == FLUE_IDENTITY);
    assert_false(flue_coding_by_name(FLUE_BYTES("br"), &coding));
}

static void there_and_back(void **state)
{
    static const size_t sizes[] = {0, 1, 100, 8191, 8192, 65535, 65536, 65537, 300000, BIG};
    static const int levels[] = {FLUE_LEVEL_DEFAULT, FLUE_LEVEL_DENSE, 1, 2, 3};
    const uint8_t *const sources[] = {text, noise, zeros};

    for (unsigned coding = 0; coding < FLUE_CODINGS; coding++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (size_t l = 0; l < sizeof levels / sizeof *levels; l++)
                for (size_t d = 0; d < 3; d++) {
                    size_t pieces = (s + l + d) % 4;
                    struct flue_block *packed;

                    if (sizes[s] == BIG && (l > 1 || d == 1))
                        continue;
                    packed = pack((enum flue_coding)coding, levels[l], sources[d], sizes[s],
                                  sizes[s] ? pieces + 1 : pieces);
                    if (coding != FLUE_IDENTITY || sizes[s])
                        unpacks_to((enum flue_coding)coding, flue_block_bytes(packed), sources[d],
                                   sizes[s]);
                    if (coding != FLUE_IDENTITY && d == 0 && sizes[s] >= 8192)
                        assert_true(packed->size < sizes[s] * 3 / 4);
                    flue_block_unref(packed);
                }
}

/* windowBits as zlib wants them: 31 gzip, 15 zlib, -15 raw. */
static struct flue_block *zlib_pack(const uint8_t *data, size_t size, int window_bits)
{
    struct flue_block *out = flue_block_new(NULL, size + size / 2 + 1000);
    z_stream z = {0};

    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (uint8_t *)(uintptr_t)data;
    z.avail_in = (uInt)size;
    z.next_out = out->data;
    z.avail_out = (uInt)out->capacity;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out->size = z.total_out;
    deflateEnd(&z);
    return out;
}

static void zlib_reads(struct flue_bytes in, int window_bits, const uint8_t *data, size_t size)
{
    uint8_t *out = malloc(size + 1);
    z_stream z = {0};

    assert_int_equal(inflateInit2(&z, window_bits), Z_OK);
    z.next_in = (uint8_t *)(uintptr_t)in.data;
    z.avail_in = (uInt)in.size;
    z.next_out = out;
    z.avail_out = (uInt)size + 1;
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    assert_int_equal(z.total_out, size);
    assert_int_equal(z.avail_in, 0);
    assert_true(memcmp(out, data, size) == 0);
    inflateEnd(&z);
    free(out);
}

static void agrees_with_zlib(void **state)
{
    static const size_t sizes[] = {1, 5000, 100000, 2000000};
    static const int levels[] = {FLUE_LEVEL_DEFAULT, FLUE_LEVEL_DENSE, -1, 0, 1, 2, 3, 9, 12};

    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct flue_block *gzip = zlib_pack(text, sizes[s], 31),
                          *zlib = zlib_pack(text, sizes[s], 15);
        struct flue_block *raw = zlib_pack(text, sizes[s], -15);

        unpacks_to(FLUE_GZIP, flue_block_bytes(gzip), text, sizes[s]);
        unpacks_to(FLUE_ZLIB, flue_block_bytes(zlib), text, sizes[s]);
        unpacks_to(FLUE_DEFLATE, flue_block_bytes(zlib), text, sizes[s]);
        unpacks_to(FLUE_DEFLATE, flue_block_bytes(raw), text, sizes[s]);
        unpacks_to(FLUE_ZLIB, flue_block_bytes(raw), text, sizes[s]);
        flue_block_unref(gzip);
        flue_block_unref(zlib);
        flue_block_unref(raw);
        for (size_t l = 0; l < sizeof levels / sizeof *levels; l++) {
            if (sizes[s] == 2000000 && l > 5)
                continue;
            gzip = pack(FLUE_GZIP, levels[l], text, sizes[s], 3);
            zlib_reads(flue_block_bytes(gzip), 31, text, sizes[s]);
            flue_block_unref(gzip);
            zlib = pack(FLUE_DEFLATE, levels[l], text, sizes[s], 2);
            zlib_reads(flue_block_bytes(zlib), 15, text, sizes[s]);
            flue_block_unref(zlib);
        }
    }
}

/* As the writer of a small body makes them: a few tiny pieces, then the rest. */
static void tiny_pieces_pack_as_one(void **state)
{
    struct flue_bytes pieces[] = {flue_bytes(text, 3), flue_bytes(text + 3, 30),
                                  flue_bytes(text + 33, 9967)};
    const struct flue_slices cut = {.items = pieces, .count = 3, .room = 3, .total = 10000};
    struct flue_block *whole = pack(FLUE_GZIP, FLUE_LEVEL_DEFAULT, text, 10000, 1), *block = NULL;
    struct flue_error error;

    assert_int_equal(flue_deflate(FLUE_GZIP, FLUE_LEVEL_DEFAULT, &cut, &block, &error), FLUE_OK);
    assert_int_equal(block->size, whole->size);
    assert_true(block->size < 6000);
    flue_block_unref(block);
    flue_block_unref(whole);
}

static void wrong_levels(void **state)
{
    struct flue_bytes item = FLUE_BYTES("x");
    struct flue_slices in = {&item, 1, 1, 1};
    struct flue_block *out = NULL;

    assert_int_equal(flue_deflate(FLUE_GZIP, 13, &in, &out, NULL), FLUE_INVALID);
    assert_int_equal(flue_deflate(FLUE_GZIP, -2, &in, &out, NULL), FLUE_INVALID);
    assert_int_equal(flue_deflate(FLUE_ZSTD, 23, &in, &out, NULL), FLUE_INVALID);
    assert_int_equal(flue_deflate(FLUE_LZ4, 13, &in, &out, NULL), FLUE_INVALID);
    assert_null(out);
}

/* Joins packed bodies; frees them. */
static struct flue_block *joined(struct flue_block *a, struct flue_block *b)
{
    assert_int_equal(flue_block_append(a, flue_block_bytes(b), SIZE_MAX, NULL), FLUE_OK);
    flue_block_unref(b);
    return a;
}

static void several_members(void **state)
{
    struct flue_block *two;

    two = joined(pack(FLUE_GZIP, 1, text, 70000, 1), pack(FLUE_GZIP, 0, text + 70000, 10, 1));
    two = joined(two, zlib_pack(text + 70010, 500000, 31));
    unpacks_to(FLUE_GZIP, flue_block_bytes(two), text, 570010);
    two->size -= 1;
    fails_with(FLUE_INVALID, FLUE_GZIP, flue_block_bytes(two), MIB, 200);
    flue_block_unref(two);
    two = joined(pack(FLUE_ZSTD, 1, text, 70000, 1), pack(FLUE_ZSTD, 3, text + 70000, 500000, 2));
    unpacks_to(FLUE_ZSTD, flue_block_bytes(two), text, 570000);
    flue_block_unref(two);
    two = joined(pack(FLUE_LZ4, 1, text, 70000, 1), pack(FLUE_LZ4, 3, text + 70000, 500000, 2));
    unpacks_to(FLUE_LZ4, flue_block_bytes(two), text, 570000);
    flue_block_unref(two);
    two = joined(pack(FLUE_SNAPPY_FRAMED, 0, text, 70000, 1),
                 pack(FLUE_SNAPPY_FRAMED, 0, text + 70000, 500000, 2));
    unpacks_to(FLUE_SNAPPY_FRAMED, flue_block_bytes(two), text, 570000);
    unpacks_to(FLUE_SNAPPY, flue_block_bytes(two), text, 570000);
    flue_block_unref(two);
}

static void empty_members_without_end(void **state)
{
    struct flue_block *one = pack(FLUE_GZIP, 1, text, 0, 0), *many = flue_block_new(NULL, 0);

    for (unsigned i = 0; i < 3000; i++)
        assert_int_equal(flue_block_append(many, flue_block_bytes(one), SIZE_MAX, NULL), FLUE_OK);
    fails_with(FLUE_TOO_LARGE, FLUE_GZIP, flue_block_bytes(many), MIB, 200);
    many->size = one->size * 900;
    unpacks_to(FLUE_GZIP, flue_block_bytes(many), text, 0);
    flue_block_unref(one);
    flue_block_unref(many);
}

static void trailing_garbage(void **state)
{
    for (unsigned coding = FLUE_GZIP; coding < FLUE_CODINGS; coding++)
        for (size_t more = 1; more <= 9; more += 4) {
            struct flue_block *packed = pack((enum flue_coding)coding, 1, text, 30000, 1);

            flue_block_append(packed, flue_bytes("garbage!!", more), SIZE_MAX, NULL);
            fails_with(FLUE_INVALID, (enum flue_coding)coding, flue_block_bytes(packed), MIB, 200);
            flue_block_unref(packed);
        }
}

/* A copy that ends where the memory ends, so that a read behind it is seen. */
static uint8_t *exact(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);

    memcpy(copy, data, size);
    return copy;
}

static void cut_at_every_byte(void **state)
{
    for (unsigned coding = FLUE_GZIP; coding < FLUE_CODINGS; coding++) {
        /* Two chunks in the framed coding, which has no end mark: a cut between chunks is not seen.
         */
        bool framed = coding == FLUE_SNAPPY_FRAMED;
        size_t size = framed ? 66000 : 1500;
        struct flue_block *packed = pack((enum flue_coding)coding, 1, text, size, 1);
        size_t second = framed ? 10 + 4 + (packed->data[11] | packed->data[12] << 8) : 0;

        for (size_t cut = 0; cut < packed->size;
             cut += framed && cut > 50 && cut < second - 10 ? 97 : 1) {
            uint8_t *copy = exact(packed->data, cut);

            if (framed && (cut == 10 || cut == second))
                unpacks_to(FLUE_SNAPPY_FRAMED, flue_bytes(copy, cut), text, cut == 10 ? 0 : 65536);
            else
                fails_with(FLUE_INVALID, (enum flue_coding)coding, flue_bytes(copy, cut), MIB, 200);
            free(copy);
        }
        flue_block_unref(packed);
    }
}

static void limit_is_exact(void **state)
{
    static const size_t sizes[] = {1000, 70000, 2 * MIB};

    for (unsigned coding = 0; coding < FLUE_CODINGS; coding++)
        for (unsigned s = 0; s < 3; s++) {
            struct flue_block *packed = pack((enum flue_coding)coding, 1, text, sizes[s], 1), *out;

            assert_int_equal(flue_inflate((enum flue_coding)coding, flue_block_bytes(packed),
                                          sizes[s], 200, NULL, &out, NULL),
                             FLUE_OK);
            assert_int_equal(out->size, sizes[s]);
            flue_block_unref(out);
            fails_with(FLUE_TOO_LARGE, (enum flue_coding)coding, flue_block_bytes(packed),
                       sizes[s] - 1, 200);
            fails_with(FLUE_TOO_LARGE, (enum flue_coding)coding, flue_block_bytes(packed), 0, 0);
            flue_block_unref(packed);
        }
}

/* A zstd body that does not state its size. */
static struct flue_block *zstd_unsized(const uint8_t *data, size_t size)
{
    struct flue_block *out = flue_block_new(NULL, ZSTD_compressBound(size));
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_inBuffer in = {data, size, 0};
    ZSTD_outBuffer to = {out->data, out->capacity, 0};

    assert_false(ZSTD_isError(ZSTD_compressStream2(context, &to, &in, ZSTD_e_continue)));
    assert_int_equal(ZSTD_compressStream2(context, &to, &in, ZSTD_e_end), 0);
    out->size = to.pos;
    ZSTD_freeCCtx(context);
    return out;
}

static void bombs(void **state)
{
    for (unsigned coding = FLUE_GZIP; coding < FLUE_CODINGS; coding++) {
        struct flue_block *packed = pack((enum flue_coding)coding, 9, zeros, BIG, 1);

        assert_true(packed->size < BIG / 15);
        fails_with(FLUE_TOO_LARGE, (enum flue_coding)coding, flue_block_bytes(packed), 64 * MIB,
                   15);
        fails_with(FLUE_TOO_LARGE, (enum flue_coding)coding, flue_block_bytes(packed), 2 * MIB,
                   2000);
        flue_block_unref(packed);
    }
    struct flue_block *packed = zstd_unsized(zeros, BIG);
    fails_with(FLUE_TOO_LARGE, FLUE_ZSTD, flue_block_bytes(packed), 64 * MIB, 200);
    flue_block_unref(packed);
}

static void claims_cost_nothing(void **state)
{
    /* snappy: 4 GiB claimed; zstd: a frame header with 2^40 bytes; gzip: a trailer that lies. */
    static const uint8_t snappy[] = {0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0x00, 0x61};
    static const uint8_t zstd[] = {0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0};
    struct flue_block *gzip = zlib_pack(text, 5000, 31);

    fails_with(FLUE_TOO_LARGE, FLUE_SNAPPY, flue_bytes(snappy, sizeof snappy), 64 * MIB, 200);
    fails_with(FLUE_TOO_LARGE, FLUE_ZSTD, flue_bytes(zstd, sizeof zstd), 64 * MIB, 200);
    memset(gzip->data + gzip->size - 4, 0xFF, 4);
    fails_with(FLUE_INVALID, FLUE_GZIP, flue_block_bytes(gzip), 64 * MIB, 200);
    flue_block_unref(gzip);
}

static void a_large_zstd_window_is_refused(void **state)
{
    struct flue_block *out = flue_block_new(NULL, ZSTD_compressBound(BIG));
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_inBuffer in = {text, BIG, 0};
    ZSTD_outBuffer to = {out->data, out->capacity, 0};

    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 25);
    ZSTD_compressStream2(context, &to, &in, ZSTD_e_continue);
    assert_int_equal(ZSTD_compressStream2(context, &to, &in, ZSTD_e_end), 0);
    fails_with(FLUE_INVALID, FLUE_ZSTD, flue_bytes(out->data, to.pos), 64 * MIB, 200);
    ZSTD_freeCCtx(context);
    flue_block_unref(out);
}

static void the_account_is_asked(void **state)
{
    for (unsigned coding = 0; coding < FLUE_CODINGS; coding++) {
        struct flue_block *packed = pack((enum flue_coding)coding, 1, text, BIG, 1), *out = NULL;
        struct flue_budget budget;
        struct flue_account account;

        flue_budget_init(&budget, BIG - 1);
        flue_account_init(&account, &budget, "test", 0);
        assert_int_equal(flue_inflate((enum flue_coding)coding, flue_block_bytes(packed), 64 * MIB,
                                      200, &account, &out, NULL),
                         FLUE_OVERLOADED);
        assert_int_equal(atomic_load(&budget.used), 0);
        atomic_store(&budget.hard, BIG);
        assert_int_equal(flue_inflate((enum flue_coding)coding, flue_block_bytes(packed), 64 * MIB,
                                      200, &account, &out, NULL),
                         FLUE_OK);
        assert_int_equal(atomic_load(&account.used), BIG);
        flue_block_unref(out);
        assert_int_equal(atomic_load(&budget.used), 0);
        flue_block_unref(packed);
    }
}

/* Framing by hand: padding, skippable and repeated identifiers pass; reserved types do not. */
static void snappy_frames(void **state)
{
    static const uint8_t good[] = {
        0xFF, 6, 0, 0, 's', 'N', 'a', 'P', 'p', 'Y', 0xFE, 3, 0, 0, 0, 0, 0, /* padding */
        0x80, 0, 0, 0,                                                       /* skippable, empty */
        0xFF, 6, 0, 0, 's', 'N', 'a', 'P', 'p', 'Y',
        /* CRC-32C of "123456789" is 0xE3069283, masked 0xC78AB0E5 */
        1, 13, 0, 0, 0xE5, 0xB0, 0x8A, 0xC7, '1', '2', '3', '4', '5', '6', '7', '8', '9'};
    uint8_t bad[sizeof good];

    unpacks_to(FLUE_SNAPPY_FRAMED, flue_bytes(good, sizeof good), (const uint8_t *)"123456789", 9);
    memcpy(bad, good, sizeof good);
    bad[17] = 0x7F;
    fails_with(FLUE_INVALID, FLUE_SNAPPY_FRAMED, flue_bytes(bad, sizeof bad), MIB, 200);
    memcpy(bad, good, sizeof good);
    bad[sizeof bad - 1] ^= 1;
    fails_with(FLUE_INVALID, FLUE_SNAPPY_FRAMED, flue_bytes(bad, sizeof bad), MIB, 200);
    memcpy(bad, good, sizeof good);
    bad[22] = 'S'; /* within the second identifier */
    bad[25] = 'S';
    fails_with(FLUE_INVALID, FLUE_SNAPPY_FRAMED, flue_bytes(bad, sizeof bad), MIB, 200);
    fails_with(FLUE_INVALID, FLUE_SNAPPY_FRAMED, flue_bytes(good + 10, sizeof good - 10), MIB, 200);
}

static void mutations(void **state)
{
    for (unsigned coding = FLUE_GZIP; coding < FLUE_CODINGS; coding++) {
        struct flue_block *packed = pack((enum flue_coding)coding, 1, text, 9000, 1);

        for (unsigned i = 0; i < 4000; i++) {
            size_t size = i % 8 ? packed->size : next_random() % packed->size + 1;
            uint8_t *copy = exact(packed->data, size);
            struct flue_block *out = NULL;
            struct flue_error error;
            enum flue_code code;

            for (unsigned k = next_random() % 4 + 1; k; k--) {
                size_t at = next_random() % (i % 2 || size < 64 ? size : 64);

                copy[at] =
                    i % 3 ? (uint8_t)(copy[at] ^ 1 << next_random() % 8) : (uint8_t)next_random();
            }
            code = flue_inflate((enum flue_coding)coding, flue_bytes(copy, size), 100000, 200, NULL,
                                &out, &error);
            if (code == FLUE_OK) {
                assert_true(out->size <= 100000);
                if (coding == FLUE_GZIP) { /* only its header may differ: there is a checksum */
                    assert_int_equal(out->size, 9000);
                    assert_memory_equal(out->data, text, 9000);
                }
                flue_block_unref(out);
            } else {
                assert_true(code == FLUE_INVALID || code == FLUE_TOO_LARGE);
                assert_null(out);
            }
            free(copy);
        }
        flue_block_unref(packed);
    }
}

struct collected {
    size_t size, stop_at;
    bool nested;
};

static enum flue_code collect(void *arg, struct flue_bytes piece, struct flue_error *error)
{
    struct collected *c = arg;

    assert_true(piece.size > 0);
    assert_memory_equal(piece.data, text + c->size, piece.size);
    c->size += piece.size;
    if (c->nested) { /* the codec may be entered again from here */
        struct flue_block *packed = pack(FLUE_GZIP, 1, text, 1000, 1);

        unpacks_to(FLUE_GZIP, flue_block_bytes(packed), text, 1000);
        flue_block_unref(packed);
    }
    return c->size >= c->stop_at ? flue_fail(error, FLUE_CANCELLED, "enough") : FLUE_OK;
}

static void windows(void **state)
{
    struct flue_block *gzip = zlib_pack(text, 3 * MIB, 31), *zlib = zlib_pack(text, 3 * MIB, 15);
    struct collected c = {.stop_at = SIZE_MAX, .nested = true};
    struct flue_error error;

    assert_int_equal(
        flue_inflate_windows(flue_block_bytes(gzip), 3 * MIB, 200, collect, &c, &error), FLUE_OK);
    assert_int_equal(c.size, 3 * MIB);
    c = (struct collected){.stop_at = SIZE_MAX};
    assert_int_equal(
        flue_inflate_windows(flue_block_bytes(zlib), 3 * MIB, 200, collect, &c, &error), FLUE_OK);
    assert_int_equal(c.size, 3 * MIB);
    c = (struct collected){.stop_at = SIZE_MAX};
    assert_int_equal(
        flue_inflate_windows(flue_block_bytes(gzip), 3 * MIB - 1, 200, collect, &c, &error),
        FLUE_TOO_LARGE);
    assert_true(c.size < 3 * MIB);
    c = (struct collected){.stop_at = 1};
    assert_int_equal(
        flue_inflate_windows(flue_block_bytes(gzip), 3 * MIB, 200, collect, &c, &error),
        FLUE_CANCELLED);
    assert_string_equal(error.text, "enough");
    c = (struct collected){.stop_at = SIZE_MAX};
    gzip->size--;
    assert_int_equal(
        flue_inflate_windows(flue_block_bytes(gzip), 3 * MIB, 200, collect, &c, &error),
        FLUE_INVALID);
    assert_int_equal(flue_inflate_windows(FLUE_BYTES("hello"), 3 * MIB, 200, collect, &c, &error),
                     FLUE_INVALID);
    assert_int_equal(flue_inflate_windows(FLUE_BYTES(""), 3 * MIB, 200, collect, &c, &error),
                     FLUE_INVALID);
    flue_block_unref(gzip);
    flue_block_unref(zlib);
}

static void *work(void *arg)
{
    for (unsigned i = 0; i < 40; i++) {
        enum flue_coding coding = (enum flue_coding)(i % FLUE_CODINGS);
        size_t size = 20000 + i * 1000;
        struct flue_bytes item = flue_bytes(text, size);
        struct flue_slices in = {&item, 1, 1, size};
        struct flue_block *packed, *out;

        if (flue_deflate(coding, FLUE_LEVEL_DEFAULT, &in, &packed, NULL) != FLUE_OK ||
            flue_inflate(coding, flue_block_bytes(packed), MIB, 200, NULL, &out, NULL) != FLUE_OK ||
            out->size != size || memcmp(out->data, text, size) != 0)
            return NULL;
        flue_block_unref(packed);
        flue_block_unref(out);
    }
    return arg;
}

static void threads(void **state)
{
    pthread_t all[4];
    void *result;

    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&all[i], NULL, work, text), 0);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(all[i], &result);
        assert_non_null(result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(agrees_with_zlib),
        cmocka_unit_test(tiny_pieces_pack_as_one),
        cmocka_unit_test(wrong_levels),
        cmocka_unit_test(several_members),
        cmocka_unit_test(empty_members_without_end),
        cmocka_unit_test(trailing_garbage),
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(limit_is_exact),
        cmocka_unit_test(bombs),
        cmocka_unit_test(claims_cost_nothing),
        cmocka_unit_test(a_large_zstd_window_is_refused),
        cmocka_unit_test(the_account_is_asked),
        cmocka_unit_test(snappy_frames),
        cmocka_unit_test(mutations),
        cmocka_unit_test(windows),
        cmocka_unit_test(threads),
    };
    return cmocka_run_group_tests(tests, make_data, drop_data);
}
