/* The splice engine against a naive re-encoder, on random nested messages with random edits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../otlp/bodies.h"
#include "proto/wire/splice.h"

#define MAX_STEPS 4096

/* One walk makes three things: the original, the steps of the edits, and what must come out. */
struct scene {
    struct out original, wanted;
    struct flue_splice_step steps[MAX_STEPS];
    size_t count;
    uint64_t seed;
    uint8_t with[64][300];
};

static unsigned pick(struct scene *s, unsigned n)
{
    return (unsigned)(random_next(&s->seed) % n);
}

/* A length prefix, now and then longer than it need be. */
static void put_length(struct scene *s, struct out *o, size_t size)
{
    uint8_t b[10];
    size_t n = (size_t)(flue_write_varint(b, size) - b);
    unsigned longer = pick(s, 6) == 0 ? pick(s, 3) : 0;
    while (longer--) {
        b[n - 1] |= 0x80;
        b[n++] = 0;
    }
    out_bytes(o, b, n);
}

static void edit(struct scene *s, unsigned depth, size_t base, size_t from, size_t to,
                 struct out *wanted)
{
    uint8_t *with = s->with[pick(s, 64)];
    size_t size = pick(s, 3) ? pick(s, 300) : 0;
    s->steps[s->count++] = (struct flue_splice_step){.inside = (uint8_t)depth,
                                                     .from = (uint32_t)(base + from),
                                                     .to = (uint32_t)(base + to),
                                                     .with = flue_bytes(with, size)};
    out_bytes(wanted, with, size);
}

/* Content of a message. Positions of steps are within it; the caller moves them. Returns whether
 * its size has changed. */
static void content(struct scene *s, struct out *original, struct out *wanted, unsigned depth)
{
    unsigned pieces = pick(s, 6);
    if (s->count > MAX_STEPS - 64)
        pieces = 1;
    for (unsigned i = 0; i < pieces; i++) {
        unsigned what = pick(s, 4);
        if (what == 0) {
            for (unsigned k = 1 + pick(s, 2); k; k--)
                edit(s, depth, 0, original->size, original->size, wanted);
        }
        if (what == 1 || depth > 6) {
            uint8_t plain[200];
            size_t n = pick(s, sizeof plain), at = original->size;
            for (size_t k = 0; k < n; k++)
                plain[k] = (uint8_t)random_next(&s->seed);
            out_bytes(original, plain, n);
            if (pick(s, 3) == 0)
                edit(s, depth, 0, at, original->size, wanted);
            else
                out_bytes(wanted, plain, n);
        } else if (what >= 2) {
            struct out inner = {0}, inner_wanted = {0}, head = {0};
            size_t me = s->count++, tag_at, start;
            content(s, &inner, &inner_wanted, depth + 1);
            out_varint(&head, flue_tag(1 + pick(s, 30), FLUE_LEN));
            tag_at = head.size;
            put_length(s, &head, inner.size);
            start = original->size + head.size;
            for (size_t k = me + 1; k < s->count; k++) {
                s->steps[k].from += (uint32_t)start;
                s->steps[k].to += (uint32_t)start;
                s->steps[k].start += (uint32_t)start;
            }
            s->steps[me] = (struct flue_splice_step){.message = true,
                                                     .inside = (uint8_t)depth,
                                                     .from = (uint32_t)(original->size + tag_at),
                                                     .start = (uint32_t)start,
                                                     .to = (uint32_t)(start + inner.size)};
            out_bytes(original, head.data, head.size);
            out_bytes(original, inner.data, inner.size);
            if (inner.size == inner_wanted.size) {
                out_bytes(wanted, head.data, head.size);
            } else {
                out_bytes(wanted, head.data, tag_at);
                out_varint(wanted, inner_wanted.size);
            }
            out_bytes(wanted, inner_wanted.data, inner_wanted.size);
            out_free(&inner);
            out_free(&inner_wanted);
            out_free(&head);
        }
    }
}

static void random_scenes(void **state)
{
    struct scene *s = calloc(1, sizeof *s);
    size_t edits = 0;
    assert_non_null(s);
    s->seed = 4711;
    for (unsigned round = 0; round < 3000; round++) {
        struct flue_slices slices = {0};
        struct flue_arena arena;
        struct flue_error error;
        struct out got = {0};
        bool ok;
        size_t size;
        s->count = 0;
        for (size_t i = 0; i < sizeof s->with / 8; i++)
            ((uint64_t *)(void *)s->with)[i] = random_next(&s->seed);
        content(s, &s->original, &s->wanted, 0);
        edits += s->count;
        size = flue_splice_measure(s->original.size, s->steps, s->count, &ok);
        assert_true(ok);
        assert_int_equal(size, s->wanted.size);
        flue_arena_init(&arena, 16u << 20, 0);
        assert_int_equal(flue_splice_write(flue_bytes(s->original.data, s->original.size), s->steps,
                                           s->count, &arena, &slices, &error),
                         FLUE_OK);
        assert_int_equal(slices.total, s->wanted.size);
        for (size_t i = 0; i < slices.count; i++)
            out_bytes(&got, slices.items[i].data, slices.items[i].size);
        if (got.size)
            assert_memory_equal(got.data, s->wanted.data, got.size);
        flue_arena_destroy(&arena);
        out_free(&got);
        out_free(&s->original);
        out_free(&s->wanted);
    }
    assert_true(edits > 3000);
    free(s);
}

static void untouched_is_one_slice(void **state)
{
    static const uint8_t body[] = {0x0a, 0x81, 0x00, 0x05};
    struct flue_splice_step step = {.message = true, .from = 1, .start = 3, .to = 4};
    struct flue_slices slices = {0};
    struct flue_arena arena;
    bool ok;
    flue_arena_init(&arena, 1u << 16, 0);
    assert_int_equal(flue_splice_measure(4, &step, 1, &ok), 4);
    assert_true(ok);
    assert_int_equal(flue_splice_write(flue_bytes(body, 4), &step, 1, &arena, &slices, NULL),
                     FLUE_OK);
    assert_int_equal(slices.count, 1);
    assert_ptr_equal(slices.items[0].data, body);
    flue_arena_destroy(&arena);
}

static void disorder_is_refused(void **state)
{
    struct flue_splice_step late[] = {{.from = 5, .to = 6}, {.from = 4, .to = 5}};
    struct flue_splice_step across[] = {{.message = true, .from = 1, .start = 2, .to = 6},
                                        {.inside = 1, .from = 5, .to = 7}};
    struct flue_splice_step orphan[] = {{.inside = 1, .from = 0, .to = 0}};
    struct flue_splice_step beyond[] = {{.from = 8, .to = 11}};
    struct flue_splice_step deep[FLUE_SPLICE_DEPTH + 1];
    bool ok;
    assert_int_equal(flue_splice_measure(10, late, 2, &ok), 0);
    assert_false(ok);
    assert_int_equal(flue_splice_measure(10, across, 2, &ok), 0);
    assert_false(ok);
    assert_int_equal(flue_splice_measure(10, orphan, 1, &ok), 0);
    assert_false(ok);
    assert_int_equal(flue_splice_measure(10, beyond, 1, &ok), 0);
    assert_false(ok);
    for (unsigned i = 0; i <= FLUE_SPLICE_DEPTH; i++)
        deep[i] = (struct flue_splice_step){.message = true,
                                            .inside = (uint8_t)i,
                                            .from = 2 * i + 1,
                                            .start = 2 * i + 2,
                                            .to = 1000};
    assert_int_equal(flue_splice_measure(1000, deep, FLUE_SPLICE_DEPTH, &ok), 1000);
    assert_true(ok);
    assert_int_equal(flue_splice_measure(1000, deep, FLUE_SPLICE_DEPTH + 1, &ok), 0);
    assert_false(ok);
}

static void memory_is_an_ordinary_error(void **state)
{
    struct flue_splice_step step = {.from = 2, .to = 2, .with = FLUE_BYTES("ab")};
    struct flue_slices slices = {0};
    struct flue_arena arena;
    struct flue_error error;
    bool ok;
    flue_arena_init(&arena, 16, 0);
    assert_int_equal(flue_splice_measure(4, &step, 1, &ok), 6);
    assert_int_equal(flue_splice_write(FLUE_BYTES("wxyz"), &step, 1, &arena, &slices, &error),
                     FLUE_NO_MEMORY);
    flue_arena_destroy(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_scenes),
        cmocka_unit_test(untouched_is_one_slice),
        cmocka_unit_test(disorder_is_refused),
        cmocka_unit_test(memory_is_an_ordinary_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
