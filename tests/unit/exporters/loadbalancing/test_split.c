/* A request cut by key: nothing is lost, nothing is twice, and broken bytes are an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "exporters/loadbalancing/split.h"
#include "proto/otlp/otlp.h"

static struct flue_bytes read_file(void)
{
    FILE *file = fopen(FLUE_TEST_DATA "/otlp/ebpf-v1.11-ascending.otlp", "rb");
    assert_non_null(file);
    uint8_t *data = malloc(1 << 22);
    size_t size = fread(data, 1, 1 << 22, file);
    fclose(file);
    return flue_bytes(data, size);
}

static unsigned modulo(void *arg, uint64_t key)
{
    return (unsigned)(key % *(unsigned *)arg);
}

/* What a receiver would count. */
static struct flue_counts counts_of(const struct flue_slices *slices)
{
    struct flue_block *block = flue_block_new(NULL, slices->total);
    flue_slices_copy(slices, block->data);
    block->size = slices->total;
    flue_block_finish(block);
    struct flue_payload *payload = NULL;
    struct flue_otlp_report report;
    struct flue_error error;
    if (flue_otlp_read(block, &payload, &report, &error))
        fail_msg("%s", error.text);
    assert_int_equal(report.rejected_profiles, 0);
    flue_payload_unref(payload);
    return report.counts;
}

static void the_parts_are_the_whole(void **state)
{
    struct flue_bytes request = read_file();
    struct flue_slices whole = {&request, 1, 1, request.size};
    struct flue_counts all = counts_of(&whole);
    const struct flue_bytes zone = FLUE_BYTES("process.executable.name");
    assert_int_equal(flue_balance_samples(&whole), all.samples);
    for (unsigned nodes = 1; nodes <= 9; nodes += 4) {
        for (int by = FLUE_BALANCE_SERVICE; by <= FLUE_BALANCE_TENANT; by++) {
            struct flue_balance_rule rule = {(enum flue_balance_by)by, &zone, 1,
                                             FLUE_BYTES("team-a")};
            struct flue_arena arena;
            struct flue_balance_part *parts;
            struct flue_error error;
            size_t count;
            bool seen[9] = {0};
            struct flue_counts sum = {0};
            flue_arena_init(&arena, 0, 0);
            if (flue_balance_split(request, &rule, nodes, modulo, &nodes, &arena, &parts, &count,
                                   &error))
                fail_msg("%s", error.text);
            assert_in_range(count, 1, nodes);
            if (by == FLUE_BALANCE_TENANT)
                assert_int_equal(count, 1);
            if (by == FLUE_BALANCE_RESOURCE && nodes > 1)
                assert_true(count > 1);
            for (size_t i = 0; i < count; i++) {
                struct flue_counts part = counts_of(&parts[i].body);
                assert_false(seen[parts[i].node]);
                seen[parts[i].node] = true;
                assert_int_equal(flue_balance_samples(&parts[i].body), part.samples);
                sum.profiles += part.profiles;
                sum.samples += part.samples;
            }
            assert_int_equal(sum.samples, all.samples);
            assert_int_equal(sum.profiles, all.profiles);
            flue_arena_destroy(&arena);
        }
    }
    free((void *)(uintptr_t)request.data);
}

static void no_resources_are_no_parts(void **state)
{
    unsigned nodes = 3;
    struct flue_balance_rule rule = {.by = FLUE_BALANCE_SERVICE};
    struct flue_arena arena;
    struct flue_balance_part *parts;
    size_t count = 7;
    flue_arena_init(&arena, 0, 0);
    assert_int_equal(flue_balance_split(flue_bytes(NULL, 0), &rule, nodes, modulo, &nodes, &arena,
                                        &parts, &count, NULL),
                     FLUE_OK);
    assert_int_equal(count, 0);
    flue_arena_destroy(&arena);
}

/* Whatever the bytes are: an error or parts, and no byte outside is read. */
static void broken_bytes_are_an_error(void **state)
{
    struct flue_bytes request = read_file();
    unsigned nodes = 3, failed = 0;
    srand(7);
    for (unsigned round = 0; round < 400; round++) {
        size_t size = round < 200 ? (size_t)rand() % request.size : request.size;
        uint8_t *copy = malloc(size ? size : 1);
        memcpy(copy, request.data, size);
        if (round >= 200 && size)
            copy[(size_t)rand() % size] ^= (uint8_t)(1 << rand() % 8);
        struct flue_balance_rule rule = {.by = round % 2 ? FLUE_BALANCE_TRACE
                                                         : FLUE_BALANCE_RESOURCE};
        struct flue_arena arena;
        struct flue_balance_part *parts;
        size_t count;
        flue_arena_init(&arena, 0, 0);
        failed += flue_balance_split(flue_bytes(copy, size), &rule, nodes, modulo, &nodes, &arena,
                                     &parts, &count, NULL) != FLUE_OK;
        flue_arena_destroy(&arena);
        free(copy);
    }
    assert_true(failed > 150);
    free((void *)(uintptr_t)request.data);
}

static void memory_may_be_short(void **state)
{
    struct flue_bytes request = read_file();
    unsigned nodes = 3;
    for (size_t budget = 1; budget < 4096; budget *= 2) {
        struct flue_balance_rule rule = {.by = FLUE_BALANCE_RESOURCE};
        struct flue_arena arena;
        struct flue_balance_part *parts;
        size_t count;
        flue_arena_init(&arena, budget, 0);
        enum flue_code code = flue_balance_split(request, &rule, nodes, modulo, &nodes, &arena,
                                                 &parts, &count, NULL);
        assert_true(code == FLUE_OK || code == FLUE_NO_MEMORY);
        if (budget < 16)
            assert_int_equal(code, FLUE_NO_MEMORY);
        flue_arena_destroy(&arena);
    }
    free((void *)(uintptr_t)request.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_parts_are_the_whole),
        cmocka_unit_test(no_resources_are_no_parts),
        cmocka_unit_test(broken_bytes_are_an_error),
        cmocka_unit_test(memory_may_be_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
