/* Every coding without memory, both ways. */
#include "collector/base/codec.h"
#include "tests/fault/fault.h"

static enum flue_code sink(void *arg, struct flue_bytes piece, struct flue_error *error)
{
    *(size_t *)arg += piece.size;
    return FLUE_OK;
}

static void both_ways(void *arg)
{
    enum flue_coding coding = *(const enum flue_coding *)arg;
    static char text[3000];
    struct flue_bytes items[2] = {flue_bytes(text, 1000), flue_bytes(text + 1000, 2000)};
    struct flue_slices slices = {.items = items, .count = 2, .room = 2, .total = 3000};
    static const int levels[] = {FLUE_LEVEL_DEFAULT, FLUE_LEVEL_DENSE};

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i * i % 17);
    for (int i = 0; i < 2; i++) {
        struct flue_block *small = NULL, *again = NULL;
        struct flue_error error = {0};
        if (!fault_ok(flue_deflate(coding, levels[i], &slices, &small, &error), &error))
            continue;
        struct flue_bytes in = flue_block_bytes(small);
        if (fault_ok(flue_inflate(coding, in, 1u << 20, 200, &fault_account, &again, &error),
                     &error))
            assert_true(flue_bytes_equal(flue_block_bytes(again), flue_bytes(text, sizeof text)));
        else
            assert_null(again);
        flue_block_unref(again);
        size_t total = 0;
        if (coding == FLUE_GZIP &&
            fault_ok(flue_inflate_windows(in, 1u << 20, 200, sink, &total, &error), &error))
            assert_int_equal(total, sizeof text);
        flue_block_unref(small);
    }
}

static void codings(void **state)
{
    for (enum flue_coding coding = FLUE_GZIP; coding < FLUE_CODINGS; coding++)
        fault_sweep(both_ways, &coding, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(codings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
