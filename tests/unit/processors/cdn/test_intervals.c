/* Which interval a key is in, against a binary search, for starts of every shape: even, crowded,
 * far apart, doubling; and how much memory they take. */
#include "processors/cdn/intervals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
/* after setjmp.h and stdarg.h */
#include <cmocka.h>

static uint64_t seed = 4711;
static uint64_t draw(void) /* splitmix64 */
{
    uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* ---- shapes of starts ------------------------------------------------------------------------ */

static uint64_t even(size_t i, size_t count) { return UINT64_MAX / count * i; }
static uint64_t dense(size_t i, size_t count) { return i; }
static uint64_t dense_at_the_end(size_t i, size_t count) { return UINT64_MAX - i; }
static uint64_t anywhere(size_t i, size_t count) { return draw(); }
static uint64_t networks_of_48(size_t i, size_t count) { return draw() & ~UINT64_C(0xffff); }
static uint64_t doubling(size_t i, size_t count) { return UINT64_C(1) << i % 64; }
/* every group doubles on its own */
static uint64_t many_doubling(size_t i, size_t count)
{
    return (i / 32) << 40 | UINT64_C(1) << i % 32;
}
static uint64_t clusters(size_t i, size_t count)
{
    return (draw() % 7) * UINT64_C(0x2001000000000000) + (draw() % 5 << 33) + draw() % 100000;
}
/* half of them in the last sixteenth of what the other half has, again and again */
static uint64_t crowding(size_t i, size_t count)
{
    unsigned level = (unsigned)__builtin_ctzll(draw() | 1u << 13);
    return ~(UINT64_MAX >> (4 * level)) | draw() >> (4 * level);
}
static uint64_t far_apart_in_pairs(size_t i, size_t count) { return (draw() % 64 << 58) + draw() % 3; }

static const struct {
    const char *name;
    uint64_t (*start)(size_t i, size_t count);
} shapes[] = {{"even", even},
              {"dense", dense},
              {"dense at the end", dense_at_the_end},
              {"anywhere", anywhere},
              {"networks of /48", networks_of_48},
              {"doubling", doubling},
              {"many doubling", many_doubling},
              {"clusters", clusters},
              {"crowding", crowding},
              {"far apart in pairs", far_apart_in_pairs}};
#define SHAPES (sizeof shapes / sizeof shapes[0])

/* Distinct, ascending, the first 0; returns how many are left of `count`. */
static size_t make(uint64_t *starts, size_t shape, size_t count)
{
    size_t kept = 1;
    for (size_t i = 0; i < count; i++)
        starts[i] = shapes[shape].start(i, count);
    starts[0] = 0;
    qsort(starts, count, sizeof *starts, ascending);
    for (size_t i = 1; i < count; i++)
        if (starts[i] != starts[kept - 1])
            starts[kept++] = starts[i];
    return kept;
}

static void ask(const struct flue_intervals *v, const uint64_t *starts, size_t count, uint64_t key,
                size_t shape)
{
    size_t below = 0, above = count;
    while (above - below > 1) {
        size_t middle = below + (above - below) / 2;
        if (starts[middle] <= key)
            below = middle;
        else
            above = middle;
    }
    uint32_t found = flue_intervals_find(v, key);
    if (found != (uint32_t)below + 7)
        fail_msg("%s of %zu: key %016llx is in interval %zu, found %d", shapes[shape].name, count,
                 (unsigned long long)key, below, (int)found - 7);
}

static void every_edge(void **state)
{
    static const size_t counts[] = {1, 2, 3, 9, 33, 34, 64, 65, 66, 100, 500, 5000, 60000};
    uint64_t *starts = malloc(60000 * sizeof *starts);
    uint32_t *values = malloc(60000 * sizeof *values);

    for (uint32_t i = 0; i < 60000; i++)
        values[i] = i + 7;
    for (size_t shape = 0; shape < SHAPES; shape++) {
        for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
            size_t count = make(starts, shape, counts[k]);
            struct flue_intervals *v = flue_intervals_new(starts, values, count);
            assert_non_null(v);
            for (size_t i = 0; i < count; i++) {
                ask(v, starts, count, starts[i], shape);
                ask(v, starts, count, starts[i] - 1, shape); /* of 0: the greatest key */
                ask(v, starts, count, starts[i] + 1, shape);
                ask(v, starts, count, starts[i] + (draw() >> draw() % 64), shape);
            }
            flue_intervals_destroy(v);
        }
    }
    free(starts);
    free(values);
}

static void memory_is_bounded(void **state)
{
    size_t most = 300000;
    uint64_t *starts = malloc(most * sizeof *starts);
    uint32_t *values = calloc(most, sizeof *values);

    for (size_t shape = 0; shape < SHAPES; shape++) {
        size_t count = make(starts, shape, most);
        struct flue_intervals *v = flue_intervals_new(starts, values, count);
        assert_non_null(v);
        if (flue_intervals_bytes(v) > 32 * count + 2048) /* two starts a prefix: 64 bytes */
            fail_msg("%s: %zu bytes for %zu starts", shapes[shape].name, flue_intervals_bytes(v),
                     count);
        flue_intervals_destroy(v);
    }
    free(starts);
    free(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_edge),
                                       cmocka_unit_test(memory_is_bounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
