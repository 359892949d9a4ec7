/* Every allocation of arenas, buffers, tables and blocks fails once: the error is reported, and
 * what was there before is unharmed. The sources are compiled in here with their allocators
 * replaced. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <cmocka.h>

static size_t until_failure = SIZE_MAX;

static bool may_allocate(void)
{
    if (until_failure == 0)
        return false;
    until_failure--;
    return true;
}

static void *test_malloc_(size_t size)
{
    return may_allocate() ? malloc(size) : NULL;
}

static void *test_realloc_(void *old, size_t size)
{
    return may_allocate() ? realloc(old, size) : NULL;
}

static void *test_mmap_(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return may_allocate() ? mmap(at, size, protection, flags, fd, offset) : MAP_FAILED;
}

static void *test_mremap_(void *old, size_t size, size_t fresh, int flags)
{
    return may_allocate() ? mremap(old, size, fresh, flags) : MAP_FAILED;
}

#define malloc  test_malloc_
#define realloc test_realloc_
#define mmap    test_mmap_
#define mremap  test_mremap_
#include "collector/base/arena.c"
#include "collector/base/block.c"
#include "collector/base/buffer.c"
#include "collector/base/hash.c"

/* Runs `work` with the first, second, ... allocation failing until it succeeds. */
static void fail_each(bool (*work)(void), unsigned least_failures)
{
    unsigned failures = 0;

    for (;; failures++) {
        flue_block_trim();
        until_failure = failures;
        if (work())
            break;
        assert_true(failures < 1000);
    }
    until_failure = SIZE_MAX;
    flue_block_trim();
    assert_true(failures >= least_failures);
}

static bool arena_work(void)
{
    struct flue_arena arena;
    uint32_t *items = NULL;
    size_t count = 0, room = 0;
    bool good = true;

    flue_arena_init(&arena, 0, 0);
    for (uint32_t i = 0; good && i < 20000; i++)
        good = FLUE_ARENA_PUSH(&arena, items, count, room, i);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(items[i], i);
    good = good && flue_arena_printf(&arena, "%5000d", 1) && flue_arena_zalloc(&arena, 10, 10000);
    flue_arena_destroy(&arena);
    return good;
}

static bool buffer_work(void)
{
    struct flue_buffer buffer;
    bool good;

    flue_buffer_init(&buffer, 1 << 20);
    for (unsigned i = 0; i < 2000; i++)
        flue_buffer_printf(&buffer, "%07u", i);
    flue_buffer_json(&buffer, FLUE_BYTES("\xFF"));
    good = !buffer.failed;
    for (unsigned i = 0; i < 2000 && i * 7 + 7 <= buffer.size; i++)
        assert_int_equal(strtoul((char[]){buffer.data[7 * i + 3], buffer.data[7 * i + 4],
                                          buffer.data[7 * i + 5], buffer.data[7 * i + 6], 0},
                                 NULL, 10),
                         i);
    flue_buffer_destroy(&buffer);
    return good;
}

static bool equal_row(const void *rows, uint32_t row, const void *key)
{
    return row == *(const uint32_t *)key;
}

static bool table_work(void)
{
    struct flue_table table;
    uint32_t i = 0;
    bool good = flue_table_init(&table, NULL, 0);

    while (good && i < 3000) {
        good = flue_table_insert(&table, flue_hash_u64(i), i);
        i += good;
    }
    while (i--)
        assert_int_equal(flue_table_find(&table, flue_hash_u64(i), equal_row, NULL, &i), i);
    flue_table_destroy(&table);
    return good;
}

static bool block_work(void)
{
    struct flue_block *block = flue_block_new(NULL, 10);
    uint8_t piece[100000];
    bool good = block;

    memset(piece, 7, sizeof piece);
    for (size_t i = 0; good && i < 60; i++) {
        struct flue_error error = {0};
        enum flue_code code =
            flue_block_append(block, flue_bytes(piece, sizeof piece), SIZE_MAX, &error);

        good = code == FLUE_OK;
        if (!good)
            assert_int_equal(error.code, FLUE_NO_MEMORY);
    }
    for (size_t i = 0; block && i < block->size; i += 4999)
        assert_int_equal(block->data[i], 7);
    flue_block_unref(block);
    return good;
}

static void arenas(void **state)
{
    fail_each(arena_work, 5);
}

static void buffers(void **state)
{
    fail_each(buffer_work, 5);
}

static void tables(void **state)
{
    fail_each(table_work, 5);
}

static void blocks(void **state)
{
    fail_each(block_work, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(arenas), cmocka_unit_test(buffers),
                                       cmocka_unit_test(tables), cmocka_unit_test(blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
