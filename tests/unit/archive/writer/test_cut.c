/* Cuts and places: what is logged is read again, keys are functions of it, and times of profiles,
 * not of writing, say where they go. */
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <setjmp.h>
#include <cmocka.h>

#include "archive/layout/key.h"
#include "archive/writer/cut.h"
#include "archive/writer/zone.h"

#define SECOND 1000000000ull

static const uint64_t records[] = {1, 2, 7, 1ull << 40, UINT64_MAX};

static struct flue_cut_text cut(void)
{
    return (struct flue_cut_text){.written = true,
                                  .encoder = 0x01010203,
                                  .level = 3,
                                  .place = {FLUE_BYTES("bucket"), FLUE_BYTES("a/b/")},
                                  .seq = 1,
                                  .min_ns = 5,
                                  .max_ns = 9,
                                  .records = records,
                                  .count = 5};
}

static void a_cut_is_read_as_it_was_logged(void **state)
{
    struct flue_cut_text in = cut(), out;
    struct flue_buffer text;
    struct flue_arena arena;
    struct flue_error error;

    flue_buffer_init(&text, 1u << 20);
    flue_arena_init(&arena, 1u << 20, 0);
    flue_cut_write(&in, &text);
    assert_int_equal(flue_cut_read(flue_buffer_bytes(&text), &arena, &out, &error), FLUE_OK);
    assert_true(out.written && out.encoder == in.encoder && out.level == 3 && out.seq == 1);
    assert_true(out.min_ns == 5 && out.max_ns == 9 && out.count == 5);
    assert_true(flue_place_equal(&in.place, &out.place));
    assert_memory_equal(out.records, records, sizeof records);
    for (size_t size = 0; size < text.size; size++) {
        uint8_t *copy = malloc(size ? size : 1);
        memcpy(copy, text.data, size);
        assert_int_equal(flue_cut_read(flue_bytes(copy, size), &arena, &out, &error), FLUE_INVALID);
        free(copy);
    }
    text.data[1] = 9;
    assert_int_equal(flue_cut_read(flue_buffer_bytes(&text), &arena, &out, &error), FLUE_INVALID);
    flue_arena_destroy(&arena);
    flue_buffer_destroy(&text);
}

static void the_largest_cut_fits_a_note(void **state)
{
    uint64_t *many = malloc(FLUE_CUT_RECORDS * sizeof *many);
    struct flue_cut_text in = cut();
    struct flue_buffer text;

    for (size_t i = 0; i < FLUE_CUT_RECORDS; i++)
        many[i] = (1ull << 60) + i * 100000; /* far apart: other exporters' records between */
    in.records = many;
    in.count = FLUE_CUT_RECORDS;
    flue_buffer_init(&text, 1u << 20);
    flue_cut_write(&in, &text);
    assert_false(text.failed);
    flue_buffer_destroy(&text);
    free(many);
}

static void keys_sort_by_time(void **state)
{
    struct flue_arena arena;

    flue_arena_init(&arena, 1u << 20, 0);
    assert_string_equal(flue_cut_key(&arena, FLUE_BYTES("f/"), 1795000000 * SECOND,
                                     1795000299 * SECOND, "node-1", 42, 0, "00ff"),
                        "f/20261118T110640Z-300-node-1-42-00ff.otlp.zst");
    assert_string_equal(flue_cut_key(&arena, FLUE_BYTES(""), 1795000000 * SECOND,
                                     1795000000 * SECOND, "w", 1, 2, "0"),
                        "20261118T110640Z-1-w-1p3-0.otlp.zst");
    flue_arena_destroy(&arena);
}

static void partitions(void **state)
{
    struct flue_zone *utc, *paris, *kathmandu;
    struct flue_error error;
    char out[64];

    assert_int_equal(flue_zone_load("UTC", &utc, &error), FLUE_OK);
    assert_true(flue_partition_format("%Y/%m/%d/%H", utc, 1795000000 * SECOND, out, sizeof out));
    assert_string_equal(out, "2026/11/18/11");
    assert_true(flue_partition_format("", utc, 0, out, sizeof out));
    assert_string_equal(out, "");
    assert_false(flue_partition_format("%Y%Y%Y%Y%Y", utc, 0, out, 8));
    if (flue_zone_load("Europe/Paris", &paris, &error) == FLUE_OK) {
        assert_true(flue_partition_format("%H", paris, 1795000000 * SECOND, out, sizeof out));
        assert_string_equal(out, "12");
        assert_true(flue_partition_format("%H", paris, 1784000000 * SECOND, out, sizeof out));
        assert_string_equal(out, "05"); /* summer: two hours from UTC */
        assert_int_equal(flue_zone_load("Asia/Kathmandu", &kathmandu, &error), FLUE_OK);
        assert_true(
            flue_partition_format("%H:%M", kathmandu, 1795000000 * SECOND, out, sizeof out));
        assert_string_equal(out, "16:51");
        flue_zone_destroy(paris);
        flue_zone_destroy(kathmandu);
    }
    static const char *const bad[] = {"../../etc/passwd", "/etc/localtime", "Nowhere/Land", "a b"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct flue_zone *none;
        assert_int_equal(flue_zone_load(bad[i], &none, &error), FLUE_INVALID);
        assert_null(none);
    }
    flue_zone_destroy(utc);
}

static void prefixes_stay_below(void **state)
{
    struct flue_arena arena;

    flue_arena_init(&arena, 1u << 16, 0);
    assert_string_equal(flue_key_prefix(&arena, NULL), "");
    assert_string_equal(flue_key_prefix(&arena, "///"), "");
    assert_string_equal(flue_key_prefix(&arena, "/a//b/"), "a/b/");
    assert_string_equal(flue_key_prefix(&arena, "../x/./.."), "x/");
    flue_arena_destroy(&arena);
}

static void elements_come_back(void **state)
{
    static const char *const texts[] = {"encoder", "../x", "", "a%2Fb", "\xc3\xa9 \n", "."};
    struct flue_arena arena;

    flue_arena_init(&arena, 1u << 16, 0);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char element[FLUE_KEY_ELEMENT_ROOM];
        size_t size = flue_key_element(flue_bytes_of(texts[i]), element);
        struct flue_bytes back = flue_key_element_text(flue_bytes(element, size), &arena);
        assert_non_null(back.data);
        assert_true(flue_bytes_is(back, texts[i]));
    }
    flue_arena_destroy(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_is_read_as_it_was_logged),
        cmocka_unit_test(the_largest_cut_fits_a_note),
        cmocka_unit_test(keys_sort_by_time),
        cmocka_unit_test(partitions),
        cmocka_unit_test(prefixes_stay_below),
        cmocka_unit_test(elements_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
