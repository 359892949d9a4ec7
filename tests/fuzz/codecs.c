/* Compression: every coding over any bytes, under its limits; what was inflated can be put back.
 * The first byte says the coding. */
#include "collector/base/codec.h"
#include "tests/fuzz/fuzz.h"

#define LIMIT ((size_t)2 << 20)
#define RATIO 50
#define FLOOR ((size_t)1 << 20) /* of the ratio, as the header says */

static struct flue_block *deflated(enum flue_coding coding, struct flue_bytes in)
{
    struct flue_bytes items[3] = {flue_bytes_first(in, in.size / 3),
                                  flue_bytes(in.data + in.size / 3, in.size - in.size / 3)};
    struct flue_slices slices = {.items = items, .count = 2, .room = 3, .total = in.size};
    static const int levels[] = {FLUE_LEVEL_DEFAULT, FLUE_LEVEL_DENSE, 1};
    struct flue_error error = {0};
    struct flue_block *out = NULL;
    FUZZ_CHECK(flue_deflate(coding, levels[dice(3)], &slices, &out, &error) == FLUE_OK, error.text);
    return out;
}

static void round_trip(struct flue_bytes in)
{
    for (int coding = FLUE_GZIP; coding < FLUE_CODINGS; coding++) {
        struct flue_block *small = deflated((enum flue_coding)coding, in), *again = NULL;
        struct flue_error error = {0};
        enum flue_code code = flue_inflate((enum flue_coding)coding, flue_block_bytes(small),
                                           LIMIT * 2, 1u << 20, &fuzz_account, &again, &error);
        FUZZ_CHECK(code == FLUE_OK, error.text);
        FUZZ_CHECK(flue_bytes_equal(flue_block_bytes(again), in), "other bytes came back");
        flue_block_unref(small);
        flue_block_unref(again);
    }
}

struct windows {
    struct flue_block *block;
};
static enum flue_code on_window(void *arg, struct flue_bytes piece, struct flue_error *error)
{
    struct windows *windows = arg;
    return flue_block_append(windows->block, piece, LIMIT, error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_error error = {0};
    struct flue_block *out = NULL;

    fuzz_begin(data, size);
    if (size == 0)
        return 0;
    enum flue_coding coding = (enum flue_coding)(data[0] % FLUE_CODINGS);
    struct flue_bytes in = flue_bytes(data + 1, size - 1);
    enum flue_code code = flue_inflate(coding, in, LIMIT, RATIO, &fuzz_account, &out, &error);
    if (code == FLUE_OK) {
        size_t allowed = in.size * RATIO > FLOOR ? in.size * RATIO : FLOOR;
        FUZZ_CHECK(out->size <= LIMIT && (coding == FLUE_IDENTITY || out->size <= allowed),
                   "over its limit");
        for (size_t i = 0; i < FLUE_BLOCK_SLACK; i++)
            FUZZ_CHECK(out->data[out->size + i] == 0, "the slack is not zero");
        if (out->size < 20000)
            round_trip(flue_block_bytes(out));
    } else {
        fuzz_refused(code, &error);
        FUZZ_CHECK(!out, "refused, and a block");
    }
    if (coding == FLUE_GZIP && in.size > 1 && in.data[0] == 0x1f && in.data[1] == 0x8b) {
        /* a window at a time: the same */
        struct windows windows = {flue_block_new(NULL, 1000)};
        enum flue_code other = flue_inflate_windows(in, LIMIT, RATIO, on_window, &windows, &error);
        FUZZ_CHECK((other == FLUE_OK) == (code == FLUE_OK), error.text);
        FUZZ_CHECK(code != FLUE_OK ||
                       flue_bytes_equal(flue_block_bytes(windows.block), flue_block_bytes(out)),
                   "windows hold other bytes");
        flue_block_unref(windows.block);
    }
    flue_block_unref(out);
    return fuzz_end();
}
