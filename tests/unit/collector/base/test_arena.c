/* Arenas: alignment, budget, reset, growth; and what happens when malloc fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "collector/base/arena.h"

static void aligned_and_separate(void **state)
{
    struct flue_arena arena;
    uint8_t *all[400];

    flue_arena_init(&arena, 0, 0);
    for (size_t i = 0; i < 400; i++) {
        size_t size = i * 37 % 5000;

        all[i] = flue_arena_alloc(&arena, size);
        assert_non_null(all[i]);
        assert_int_equal((uintptr_t)all[i] % 16, 0);
        memset(all[i], (int)(i & 0xFF), size);
    }
    for (size_t i = 0; i < 400; i++)
        for (size_t k = 0; k < i * 37 % 5000; k++)
            assert_int_equal(all[i][k], i & 0xFF);
    flue_arena_destroy(&arena);
    flue_arena_destroy(&arena);
}

static void budget_is_hard(void **state)
{
    struct flue_arena arena;
    size_t count = 0;

    flue_arena_init(&arena, 1000, 0);
    assert_null(flue_arena_alloc(&arena, 1001));
    assert_null(flue_arena_alloc(&arena, SIZE_MAX));
    assert_null(flue_arena_alloc(&arena, SIZE_MAX - 16));
    assert_null(flue_arena_zalloc(&arena, SIZE_MAX / 2, 3));
    while (flue_arena_alloc(&arena, 16))
        count++;
    assert_int_equal(count, 62); /* 992 of 1,000 */
    assert_null(flue_arena_copy(&arena, FLUE_BYTES("x")).data);
    assert_null(flue_arena_printf(&arena, "x"));
    flue_arena_reset(&arena);
    assert_non_null(flue_arena_alloc(&arena, 900));
    flue_arena_destroy(&arena);
}

static void reset_keeps_a_chunk(void **state)
{
    struct flue_arena arena;

    flue_arena_init(&arena, 0, 0);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 1000; i++)
            assert_non_null(flue_arena_alloc(&arena, round * 7 + 1));
        flue_arena_reset(&arena);
        assert_int_equal(arena.used, 0);
    }
#ifndef FLUE_ARENA_EMULATED
    assert_non_null(arena.chunks);
    uint8_t *first = flue_arena_alloc(&arena, 8);
    flue_arena_reset(&arena);
    assert_ptr_equal(flue_arena_alloc(&arena, 8), first);
#endif
    flue_arena_destroy(&arena);
}

static void strings(void **state)
{
    struct flue_arena arena;
    uint8_t *zeros;

    flue_arena_init(&arena, 0, 64);
    assert_string_equal(flue_arena_string(&arena, flue_bytes("abc", 2)), "ab");
    assert_string_equal(flue_arena_string(&arena, flue_bytes(NULL, 0)), "");
    assert_string_equal(flue_arena_printf(&arena, "%d-%s", 5, "x"), "5-x");
    zeros = flue_arena_zalloc(&arena, 10, 10);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(zeros[i], 0);
    flue_arena_destroy(&arena);
}

static void pushes(void **state)
{
    struct flue_arena arena;
    uint32_t *items = NULL;
    size_t count = 0, room = 0;

    flue_arena_init(&arena, 100000, 0);
    for (uint32_t i = 0; i < 5000; i++)
        assert_true(FLUE_ARENA_PUSH(&arena, items, count, room, i));
    for (uint32_t i = 0; i < 5000; i++)
        assert_int_equal(items[i], i);
    while (FLUE_ARENA_PUSH(&arena, items, count, room, 1u))
        assert_true(count < 30000);
    assert_int_equal(count, room);
    assert_true(arena.used <= 100000);
    flue_arena_destroy(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aligned_and_separate),
        cmocka_unit_test(budget_is_hard),
        cmocka_unit_test(reset_keeps_a_chunk),
        cmocka_unit_test(strings),
        cmocka_unit_test(pushes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
