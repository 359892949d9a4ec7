/* Blocks: growth over every size class, slack, charges, the cache, and threads that pass blocks on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <cmocka.h>
#include <sys/mman.h>
#include "collector/base/arena.h"
#include "collector/base/block.h"

static void classes_hold_what_they_say(void **state)
{
    for (unsigned top = 0; top < 36; top++)
        for (int step = -1; step <= 1; step++) {
            size_t wanted = ((size_t)1 << top) * 5 / 4 + (size_t)(step + 1) - 1;
            struct flue_block *block = flue_block_new(NULL, wanted);

            assert_non_null(block);
            assert_true(block->capacity >= wanted);
            if (wanted > 256)
                assert_true(block->capacity - wanted <= wanted / 4 + 1);
            block->data[block->capacity - 1] = 1;
            block->size = block->capacity;
            flue_block_finish(block); /* the slack is there */
            flue_block_unref(block);
        }
    assert_null(flue_block_new(NULL, SIZE_MAX));
    assert_null(flue_block_new(NULL, SIZE_MAX / 2));
    flue_block_unref(NULL);
}

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 131 ^ i >> 8);
}

static void grows_and_keeps(void **state)
{
    struct flue_block *block = flue_block_new(NULL, 0);
    struct flue_error error;
    size_t dropped = 0, total = 0, maximum = (size_t)5 << 20;
    uint8_t piece[10007];

    while (block->size + sizeof piece <= maximum) {
        for (size_t i = 0; i < sizeof piece; i++)
            piece[i] = pattern(total + i);
        total += sizeof piece;
        assert_int_equal(flue_block_append(block, flue_bytes(piece, sizeof piece), maximum, &error),
                         FLUE_OK);
        if (total % 5 == 0) {
            flue_block_skip(block, 33);
            dropped += 33;
        }
    }
    assert_true(total > 5000000);
    for (size_t i = 0; i < block->size; i++)
        if (block->data[i] != pattern(dropped + i))
            fail_msg("byte %zu differs", i);
    assert_int_equal(flue_block_append(block, flue_bytes(piece, sizeof piece), maximum, &error),
                     FLUE_TOO_LARGE);
    assert_non_null(strstr(error.text, "5242880"));
    assert_int_equal(flue_block_reserve(block, SIZE_MAX, maximum, NULL), FLUE_TOO_LARGE);
    assert_int_equal(flue_block_reserve(block, maximum - block->size, maximum, NULL), FLUE_OK);
    assert_true(block->capacity >= maximum);
    memset(block->data + block->size, 0xAA, FLUE_BLOCK_SLACK);
    flue_block_finish(block);
    for (size_t i = 0; i < FLUE_BLOCK_SLACK; i++)
        assert_int_equal(block->data[block->size + i], 0);
    flue_block_unref(block);
}

static void room_in_front_is_used_again(void **state)
{
    struct flue_block *block = flue_block_copy(NULL, FLUE_BYTES("0123456789"));
    uint8_t *base = block->base;

    flue_block_skip(block, 8);
    assert_int_equal(flue_block_reserve(block, block->capacity, SIZE_MAX, NULL), FLUE_OK);
    assert_ptr_equal(block->base, base);
    assert_ptr_equal(block->data, base);
    assert_memory_equal(block->data, "89", 2);
    flue_block_skip(block, 100);
    assert_int_equal(block->size, 0);
    flue_block_unref(block);
}

static void charges(void **state)
{
    struct flue_budget budget;
    struct flue_account a, b;
    struct flue_block *block, *copy;

    flue_budget_init(&budget, 100);
    flue_account_init(&a, &budget, "a", 0);
    flue_account_init(&b, &budget, "b", 0);
    block = flue_block_new(&a, 1000);
    assert_int_equal(atomic_load(&a.used), 0);
    block->size = 60;
    assert_true(flue_block_charge(block));
    assert_int_equal(atomic_load(&a.used), 60);
    assert_null(flue_block_copy(&b, flue_bytes(block->data, 50)));
    copy = flue_block_copy(&b, flue_bytes(block->data, 40));
    assert_int_equal(atomic_load(&budget.used), 100);
    block->size = 61;
    assert_false(flue_block_charge(block));
    assert_int_equal(atomic_load(&budget.used), 100);
    flue_block_recharge(block, &b);
    assert_int_equal(atomic_load(&a.used), 0);
    assert_int_equal(atomic_load(&b.used), 100);
    flue_block_ref(copy);
    flue_block_unref(copy);
    assert_int_equal(atomic_load(&b.used), 100);
    flue_block_unref(copy);
    flue_block_skip(block, 11);
    assert_true(flue_block_charge(block));
    assert_int_equal(atomic_load(&b.used), 50);
    flue_block_recharge(block, NULL);
    assert_int_equal(atomic_load(&budget.used), 0);
    flue_block_recharge(block, &a);
    assert_int_equal(atomic_load(&a.used), 50);
    flue_block_unref(block);
    assert_int_equal(atomic_load(&budget.used), 0);
}

static void freed_blocks_come_again(void **state)
{
    static const size_t sizes[] = {100, 5000, 60000, 300000, 4u << 20};

    flue_block_trim();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct flue_block *block = flue_block_new(NULL, sizes[i]);
        uint8_t *base = block->base;

        flue_block_unref(block);
        block = flue_block_new(NULL, sizes[i]);
        assert_ptr_equal(block->base, base);
        flue_block_unref(block);
    }
    flue_block_trim();
}

/* How many of these mappings, all freed, are kept. */
static unsigned kept(uint8_t *const *bases, unsigned count)
{
    unsigned char there;
    unsigned sum = 0;

    for (unsigned i = 0; i < count; i++)
        sum += mincore(bases[i], 1, &there) == 0;
    return sum;
}

/* At most 64 MiB, and what is in use and what is kept together at most what was in use; what is
 * larger than a quarter of that is never kept. The rest goes back at once. */
static void large_blocks_are_kept_within_bounds(void **state)
{
    static const struct {
        size_t size;
        unsigned count, freed, kept;
    } cases[] = {{4u << 20, 40, 40, 16}, {4u << 20, 16, 16, 16}, {4u << 20, 17, 17, 16},
                 {4u << 20, 10, 5, 5},   {4u << 20, 10, 4, 4},   {4u << 20, 3, 3, 3},
                 {16u << 20, 6, 6, 4},   {20u << 20, 6, 6, 0}};
    struct flue_block *blocks[40];
    uint8_t *bases[40];

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        flue_block_trim();
        for (unsigned i = 0; i < cases[c].count; i++) {
            assert_non_null(blocks[i] = flue_block_new(NULL, cases[c].size));
            bases[i] = blocks[i]->base;
        }
        for (unsigned i = 0; i < cases[c].freed; i++)
            flue_block_unref(blocks[i]);
        if (kept(bases, cases[c].freed) != cases[c].kept)
            fail_msg("case %zu: %u are kept", c, kept(bases, cases[c].freed));
        flue_block_trim();
        assert_int_equal(kept(bases, cases[c].freed), 0);
        for (unsigned i = cases[c].freed; i < cases[c].count; i++)
            flue_block_unref(blocks[i]);
    }
    flue_block_trim();
}

/* Nothing is lost or freed twice. */
static void cache_takes_what_comes(void **state)
{
    struct flue_block *blocks[40];

    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 40; i++)
            assert_non_null(blocks[i] = flue_block_new(NULL, (size_t)(i % 4 + 1) << 19));
        for (unsigned i = 0; i < 40; i++)
            flue_block_unref(blocks[i]);
    }
    flue_block_trim();
}

/* Large blocks that were in use together are all kept, so that the next ones find their pages; a
 * trim forgets how many there were. */
static void keeps_as_much_as_was_in_use(void **state)
{
    struct flue_block *blocks[10];
    uint8_t *bases[10];
    unsigned again = 0;

    flue_block_trim();
    for (unsigned i = 0; i < 10; i++) {
        assert_non_null(blocks[i] = flue_block_new(NULL, 4u << 20));
        bases[i] = blocks[i]->base;
        bases[i][0] = (uint8_t)(i + 1);
    }
    for (unsigned i = 0; i < 10; i++)
        flue_block_unref(blocks[i]);
    for (unsigned i = 0; i < 10; i++) {
        assert_non_null(blocks[i] = flue_block_new(NULL, 4u << 20));
        again += blocks[i]->base[0] == 10 - i; /* fresh pages are zero */
    }
    assert_int_equal(again, 10);
    for (unsigned i = 1; i < 10; i++)
        flue_block_unref(blocks[i]);
    flue_block_trim();
    flue_block_unref(blocks[0]);
    flue_block_trim();
}

static void idle_when_no_block_is_taken(void **state)
{
    struct flue_block *block;

    (void)flue_block_idle();
    assert_true(flue_block_idle());
    block = flue_block_new(NULL, 100);
    assert_false(flue_block_idle());
    assert_true(flue_block_idle());
    flue_block_unref(block);
    block = flue_block_new(NULL, 100);
    flue_block_unref(block);
    assert_false(flue_block_idle());
    assert_true(flue_block_idle());
}

static _Atomic(struct flue_block *) mailbox[16];

static void *pass_on(void *arg)
{
    uintptr_t seed = (uintptr_t)arg;

    for (unsigned i = 0; i < 5000; i++) {
        size_t size = (seed * 7919 + i * 104729u) % (i % 50 ? 3000 : 300000);
        struct flue_block *block = flue_block_new(NULL, size + 1), *old;

        block->data[0] = block->data[size] = (uint8_t)size;
        block->size = size + 1;
        old = atomic_exchange(&mailbox[(i + seed) % 16], flue_block_ref(block));
        if (old) {
            if (old->data[0] != old->data[old->size - 1])
                return NULL;
            flue_block_unref(old);
        }
        flue_block_unref(block);
    }
    return arg;
}

static void threads_pass_blocks(void **state)
{
    pthread_t threads[4];
    void *result;

    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, pass_on, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], &result);
        assert_non_null(result);
    }
    for (unsigned i = 0; i < 16; i++)
        flue_block_unref(atomic_exchange(&mailbox[i], NULL));
    flue_block_trim();
}

static void slices(void **state)
{
    struct flue_slices s = {0};
    struct flue_arena arena;
    uint8_t out[6];

    flue_arena_init(&arena, 1000, 0);
    assert_true(flue_slices_add(&s, &arena, FLUE_BYTES("abc")));
    assert_true(flue_slices_add(&s, &arena, FLUE_BYTES("")));
    assert_true(flue_slices_add(&s, &arena, FLUE_BYTES("def")));
    assert_int_equal(s.count, 2);
    assert_int_equal(s.total, 6);
    flue_slices_copy(&s, out);
    assert_memory_equal(out, "abcdef", 6);
    while (flue_slices_add(&s, &arena, FLUE_BYTES("x")))
        assert_true(s.count < 100);
    assert_int_equal(s.total, 4 + s.count);
    flue_arena_destroy(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_hold_what_they_say),
        cmocka_unit_test(grows_and_keeps),
        cmocka_unit_test(room_in_front_is_used_again),
        cmocka_unit_test(charges),
        cmocka_unit_test(freed_blocks_come_again),
        cmocka_unit_test(large_blocks_are_kept_within_bounds),
        cmocka_unit_test(cache_takes_what_comes),
        cmocka_unit_test(keeps_as_much_as_was_in_use),
        cmocka_unit_test(idle_when_no_block_is_taken),
        cmocka_unit_test(threads_pass_blocks),
        cmocka_unit_test(slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
