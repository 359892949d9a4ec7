/* Layout otlp: what goes in comes out, bytes are a function of what went in, and whatever lies in a
 * store is read within bounds. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <setjmp.h>
#include <cmocka.h>
#include <zstd.h>

#include "archive/layout/gather.h"
#include "archive/layout/key.h"
#include "archive/layout/otlp.h"
#include "collector/base/codec.h"
#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"

static struct flue_payload *corpus(unsigned number)
{
    char path[300];
    struct flue_payload *payload = NULL;
    struct flue_otlp_report report;
    struct flue_error error;

    snprintf(path, sizeof path, FLUE_TEST_DATA "/otlp/ebpf-v1.11-pdata-order-%u.otlp", number);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    struct flue_block *block = flue_block_new(NULL, 8u << 20);
    block->size = fread(block->data, 1, 8u << 20, file);
    fclose(file);
    flue_block_finish(block);
    assert_int_equal(flue_otlp_read(block, &payload, &report, &error), FLUE_OK);
    return payload;
}

static bool every(void *arg, const struct flue_payload *payload,
                  const struct flue_otlp_profile *profile, uint64_t time_ns)
{
    return true;
}

static uint64_t samples_of(struct flue_bytes message)
{
    struct flue_payload *payload = NULL;
    struct flue_otlp_report report;
    struct flue_error error;

    assert_int_equal(flue_otlp_read(flue_block_copy(NULL, message), &payload, &report, &error),
                     FLUE_OK);
    assert_int_equal(report.rejected_profiles, 0);
    flue_payload_unref(payload);
    return report.counts.samples;
}

static struct flue_block *whole(const struct flue_otlp_made *made)
{
    struct flue_block *block = flue_block_new(NULL, made->body.total);
    flue_slices_copy(&made->body, block->data);
    block->size = made->body.total;
    flue_block_finish(block);
    return block;
}

static struct flue_otlp_object *make(struct flue_otlp_made *made, unsigned first, unsigned last)
{
    struct flue_otlp_object *object = flue_otlp_object_new(NULL, 3);
    struct flue_error error;

    for (unsigned i = first; i <= last; i++) {
        struct flue_payload *payload = corpus(i);
        assert_int_equal(flue_otlp_object_add(object, payload, 5, every, NULL, &error), FLUE_OK);
        flue_payload_unref(payload);
    }
    assert_int_equal(flue_otlp_object_finish(object, made, &error), FLUE_OK);
    return object;
}

static void what_goes_in_comes_out(void **state)
{
    struct flue_otlp_made made;
    struct flue_otlp_object *object = make(&made, 1, 3);
    struct flue_block *block = whole(&made);
    uint64_t samples = 0, listed = 0, expected = 0;
    struct flue_index index;
    struct flue_arena arena;
    struct flue_error error;
    struct flue_bytes bytes;
    size_t missing;

    for (unsigned i = 1; i <= 3; i++) {
        struct flue_payload *payload = corpus(i);
        expected += flue_otlp_index_of(payload)->samples;
        flue_payload_unref(payload);
    }
    flue_arena_init(&arena, 16u << 20, 0);
    assert_int_equal(flue_otlp_tail(flue_block_bytes(block), &bytes, &missing, &error), FLUE_OK);
    assert_int_equal(missing, 0);
    assert_int_equal(flue_index_read(bytes, &arena, &index, &error), FLUE_OK);
    assert_int_equal(index.count, 1);
    assert_true(index.objects[0].frame_count >= 1);
    for (size_t i = 0; i < index.objects[0].frame_count; i++) {
        const struct flue_index_frame *frame = &index.objects[0].frames[i];
        struct flue_block *raw;
        struct flue_bytes message;
        size_t at = 0;
        assert_int_equal(flue_inflate(FLUE_ZSTD,
                                      flue_bytes(block->data + frame->offset, frame->size),
                                      64u << 20, 10000, NULL, &raw, &error),
                         FLUE_OK);
        assert_int_equal(raw->size, frame->raw_size);
        assert_true(frame->min_ns && frame->min_ns <= frame->max_ns);
        listed += frame->samples;
        error.code = FLUE_OK;
        while (flue_otlp_message(flue_block_bytes(raw), &at, &message, &error))
            samples += samples_of(message);
        assert_int_equal(error.code, FLUE_OK);
        flue_block_unref(raw);
    }
    assert_int_equal(samples, expected);
    assert_int_equal(listed, expected);
    assert_int_equal(index.objects[0].size, 0); /* of itself it knows only its frames */
    assert_int_equal(made.index.size, block->size);
    flue_arena_destroy(&arena);
    flue_block_unref(block);
    flue_otlp_object_destroy(object);
}

static void bytes_are_a_function_of_what_went_in(void **state)
{
    struct flue_otlp_made a, b, c;
    struct flue_otlp_object *first = make(&a, 1, 3), *second = make(&b, 1, 3),
                            *third = make(&c, 1, 2);

    assert_string_equal(a.hash, b.hash);
    assert_string_not_equal(a.hash, c.hash);
    assert_int_equal(a.body.total, b.body.total);
    flue_otlp_object_destroy(first);
    flue_otlp_object_destroy(second);
    flue_otlp_object_destroy(third);
}

static void the_whole_is_one_stream_of_zstd(void **state)
{
    struct flue_otlp_made made;
    struct flue_otlp_object *object = make(&made, 1, 1);
    struct flue_block *block = whole(&made);
    size_t room = 32u << 20;
    uint8_t *out = malloc(room);
    size_t size = ZSTD_decompress(out, room, block->data, block->size);

    assert_false(ZSTD_isError(size));
    assert_int_equal(size, made.raw_size);
    free(out);
    flue_block_unref(block);
    flue_otlp_object_destroy(object);
}

static void a_tail_is_read_in_pieces(void **state)
{
    struct flue_otlp_made made;
    struct flue_otlp_object *object = make(&made, 1, 3);
    struct flue_block *block = whole(&made);
    struct flue_bytes index;
    struct flue_error error;
    size_t missing;

    for (size_t size = 0; size <= block->size; size++) {
        uint8_t *copy = malloc(size ? size : 1); /* its end is the end of the memory */
        memcpy(copy, block->data + block->size - size, size);
        enum flue_code code = flue_otlp_tail(flue_bytes(copy, size), &index, &missing, &error);
        if (size < 9)
            assert_int_equal(code, FLUE_INVALID);
        else
            assert_int_equal(code, FLUE_OK);
        if (code == FLUE_OK && missing) {
            size_t again;
            assert_true(size + missing <= block->size);
            assert_int_equal(flue_otlp_tail(flue_bytes(block->data + block->size - size - missing,
                                                       size + missing),
                                            &index, &again, &error),
                             FLUE_OK);
        }
        free(copy);
    }
    flue_block_unref(block);
    flue_otlp_object_destroy(object);
}

static void a_damaged_tail_is_refused_or_harmless(void **state)
{
    struct flue_otlp_made made;
    struct flue_otlp_object *object = make(&made, 1, 3);
    struct flue_block *block = whole(&made);
    size_t tail = block->size < 4096 ? block->size : 4096;
    struct flue_error error;

    for (size_t bit = 0; bit < tail * 8; bit++) {
        uint8_t *copy = malloc(tail);
        struct flue_arena arena;
        struct flue_index index;
        struct flue_bytes bytes;
        size_t missing;
        flue_arena_init(&arena, 1u << 20, 0);
        memcpy(copy, block->data + block->size - tail, tail);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (flue_otlp_tail(flue_bytes(copy, tail), &bytes, &missing, &error) == FLUE_OK && !missing)
            flue_index_read(bytes, &arena, &index, &error);
        flue_arena_destroy(&arena);
        free(copy);
    }
    flue_block_unref(block);
    flue_otlp_object_destroy(object);
}

static void a_truncated_index_is_no_index(void **state)
{
    struct flue_otlp_made made;
    struct flue_otlp_object *object = make(&made, 1, 1);
    struct flue_buffer one, all;
    struct flue_index index;
    struct flue_error error;
    size_t good = 0;

    flue_buffer_init(&one, 1u << 20);
    flue_buffer_init(&all, 1u << 20);
    made.index.key = FLUE_BYTES("key");
    flue_index_write_object(&made.index, &one);
    struct flue_bytes bytes = flue_buffer_bytes(&one);
    flue_index_write(FLUE_BYTES("node-1"), &bytes, 1, &all);
    for (size_t size = 0; size <= all.size; size++) {
        struct flue_arena arena;
        uint8_t *copy = malloc(size ? size : 1);
        memcpy(copy, all.data, size);
        flue_arena_init(&arena, 1u << 20, 0);
        if (flue_index_read(flue_bytes(copy, size), &arena, &index, &error) == FLUE_OK) {
            good++;
            if (size == all.size) {
                assert_true(flue_bytes_is(index.writer, "node-1"));
                assert_true(flue_bytes_is(index.objects[0].key, "key"));
                assert_int_equal(index.objects[0].size, made.body.total);
                assert_int_equal(index.objects[0].frame_count, made.index.frame_count);
            }
        }
        flue_arena_destroy(&arena);
        free(copy);
    }
    assert_int_equal(good, 3); /* behind the version, the writer, the object */
    all.data[1] = 2;
    struct flue_arena arena;
    flue_arena_init(&arena, 1u << 20, 0);
    assert_int_equal(flue_index_read(flue_buffer_bytes(&all), &arena, &index, &error),
                     FLUE_INVALID);
    assert_non_null(strstr(error.text, "version 2"));
    flue_arena_destroy(&arena);
    flue_buffer_destroy(&one);
    flue_buffer_destroy(&all);
    flue_otlp_object_destroy(object);
}

static void a_cut_message_is_said(void **state)
{
    static const uint8_t raw[] = {0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 4, 'x'};
    struct flue_bytes message;
    struct flue_error error = {0};
    size_t at = 0;

    assert_true(flue_otlp_message(flue_bytes(raw, sizeof raw), &at, &message, &error));
    assert_true(flue_bytes_is(message, "abc"));
    assert_false(flue_otlp_message(flue_bytes(raw, sizeof raw), &at, &message, &error));
    assert_int_equal(error.code, FLUE_INVALID);
}

/* ---- gathering ------------------------------------------------------------------------------- */

static size_t by_number(void *arg, const struct flue_payload *payload,
                        const struct flue_otlp_dictionary *dictionary,
                        const struct flue_otlp_profile *profile)
{
    size_t groups = *(size_t *)arg;
    return profile->profile % groups == groups - 1 ? FLUE_GATHER_NONE : profile->profile % groups;
}

static void groups_share_nothing_and_lose_nothing(void **state)
{
    struct flue_payload *payload = corpus(2);
    size_t groups = 3;
    struct flue_gather *gather = flue_gather_new(NULL);
    uint64_t want[3] = {0}, profiles = 0;
    struct flue_error error;

    for (unsigned round = 0; round < 2; round++)
        assert_int_equal(flue_gather_add(gather, payload, by_number, &groups, &error), FLUE_OK);
    const struct flue_otlp_index *index = flue_otlp_index_of(payload);
    for (uint32_t i = 0; i < index->profile_count; i++)
        want[i % 3] += 2 * index->profiles[i].samples;
    for (size_t group = 0; group < 2; group++) {
        struct flue_block *message;
        profiles += flue_gather_look(gather, group).profiles;
        assert_int_equal(flue_gather_look(gather, group).samples, want[group]);
        assert_int_equal(flue_gather_take(gather, group, &message, &error), FLUE_OK);
        assert_int_equal(samples_of(flue_block_bytes(message)), want[group]);
        flue_block_unref(message);
        assert_int_equal(flue_gather_take(gather, group, &message, &error), FLUE_OK);
        assert_null(message);
    }
    assert_int_equal(flue_gather_held(gather), 0);
    assert_true(profiles > 0 && profiles < 2 * index->profile_count);
    flue_gather_destroy(gather);
    flue_payload_unref(payload);
}

static void repeated_stacks_cost_their_samples_alone(void **state)
{
    struct flue_payload *payload = corpus(1);
    size_t groups = 1000000, once, twice;
    struct flue_gather *gather = flue_gather_new(NULL);
    struct flue_block *message;
    struct flue_error error;

    assert_int_equal(flue_gather_add(gather, payload, by_number, &groups, &error), FLUE_OK);
    once = flue_gather_look(gather, 0).size;
    assert_int_equal(flue_gather_add(gather, payload, by_number, &groups, &error), FLUE_OK);
    twice = flue_gather_look(gather, 0).size;
    assert_true(twice > once && twice < once * 2);
    assert_int_equal(flue_gather_take(gather, 0, &message, &error), FLUE_OK);
    assert_true(message->size >= twice && message->size < twice + 16);
    flue_block_unref(message);
    flue_gather_destroy(gather);
    flue_payload_unref(payload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(bytes_are_a_function_of_what_went_in),
        cmocka_unit_test(the_whole_is_one_stream_of_zstd),
        cmocka_unit_test(a_tail_is_read_in_pieces),
        cmocka_unit_test(a_damaged_tail_is_refused_or_harmless),
        cmocka_unit_test(a_truncated_index_is_no_index),
        cmocka_unit_test(a_cut_message_is_said),
        cmocka_unit_test(groups_share_nothing_and_lose_nothing),
        cmocka_unit_test(repeated_stacks_cost_their_samples_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
