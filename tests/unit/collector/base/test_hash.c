/* The table of indices: find, insert, growth on the heap and in an arena, many equal hashes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "collector/base/hash.h"

static bool equal(const void *rows, uint32_t row, const void *key)
{
    return ((const uint64_t *)rows)[row] == *(const uint64_t *)key;
}

static uint64_t rows[20000];

static void fill_and_find(struct flue_table *table, uint64_t (*hash)(uint64_t), uint32_t count)
{
    uint64_t absent = UINT64_MAX;

    for (uint32_t i = 0; i < count; i++) {
        rows[i] = (uint64_t)i * 4096;
        assert_int_equal(flue_table_find(table, hash(rows[i]), equal, rows, &rows[i]),
                         FLUE_TABLE_NONE);
        assert_true(flue_table_insert(table, hash(rows[i]), i));
    }
    assert_int_equal(table->count, count);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(flue_table_find(table, hash(rows[i]), equal, rows, &rows[i]), i);
    assert_int_equal(flue_table_find(table, hash(absent), equal, rows, &absent), FLUE_TABLE_NONE);
    flue_table_clear(table);
    assert_int_equal(flue_table_find(table, hash(rows[0]), equal, rows, &rows[0]), FLUE_TABLE_NONE);
}

static uint64_t one_hash(uint64_t value)
{
    return 42;
}

static void heap_table(void **state)
{
    struct flue_table table;

    assert_true(flue_table_init(&table, NULL, 0));
    fill_and_find(&table, flue_hash_u64, 20000);
    fill_and_find(&table, one_hash, 300);
    flue_table_destroy(&table);
    assert_int_equal(flue_table_find(&table, 1, equal, rows, &rows[0]), FLUE_TABLE_NONE);
    assert_false(flue_table_init(&table, NULL, SIZE_MAX / 2));
}

static void arena_table_obeys_its_budget(void **state)
{
    struct flue_table table;
    struct flue_arena arena;
    uint32_t i = 0;

    flue_arena_init(&arena, 1 << 20, 0);
    assert_true(flue_table_init(&table, &arena, 100));
    fill_and_find(&table, flue_hash_u64, 10000);
    flue_table_destroy(&table);
    flue_arena_destroy(&arena);

    flue_arena_init(&arena, 10000, 0);
    assert_true(flue_table_init(&table, &arena, 0));
    for (; flue_table_insert(&table, flue_hash_u64(rows[i]), i); i++)
        assert_true(i < 2000);
    assert_true(i > 100);
    while (i--) /* what was in the table is still there */
        assert_int_equal(flue_table_find(&table, flue_hash_u64(rows[i]), equal, rows, &rows[i]), i);
    flue_arena_destroy(&arena);
    flue_arena_init(&arena, 10, 0);
    assert_false(flue_table_init(&table, &arena, 0));
    flue_arena_destroy(&arena);
}

static void hashes_differ(void **state)
{
    assert_true(flue_hash(FLUE_BYTES("a")) == flue_hash(FLUE_BYTES("a")));
    assert_true(flue_hash(FLUE_BYTES("a")) != flue_hash(FLUE_BYTES("b")));
    assert_true(flue_hash(FLUE_BYTES("")) == flue_hash(flue_bytes(NULL, 0)));
    assert_true(flue_hash_join(1, 2) != flue_hash_join(2, 1));
    assert_true(flue_hash_join(0, 1) != flue_hash_join(0, 2));
    /* The low bits, which place a row, must not follow from the low bits of the value. */
    unsigned buckets[64] = {0};
    for (uint64_t i = 0; i < 6400; i++)
        buckets[flue_hash_u64(i << 40) & 63]++;
    for (unsigned i = 0; i < 64; i++)
        assert_in_range(buckets[i], 40, 180);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(heap_table),
                                       cmocka_unit_test(arena_table_obeys_its_budget),
                                       cmocka_unit_test(hashes_differ)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
