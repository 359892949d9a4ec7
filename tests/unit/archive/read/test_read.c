/* Reading an archive: merging what was found, and the two pictures of it. */
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <setjmp.h>
#include <cmocka.h>

#include "archive/read/collect.h"
#include "archive/read/render.h"
#include "proto/otlp/dictionary_out.h"

/* A profile of one stack root;leaf with these types ("cpu", "nanoseconds", ...) and values. */
static struct flue_block *profile(const char *const *types, size_t count, const int64_t *values,
                                  const char *leaf)
{
    struct flue_out out;

    assert_true(flue_out_init(&out, 1024, 1u << 20));
    for (size_t i = 0; i < count; i++) {
        size_t mark = flue_out_open(&out, 1);
        flue_out_number(&out, 1, 3 + 2 * i);
        flue_out_number(&out, 2, 4 + 2 * i);
        flue_out_close(&out, mark);
    }
    size_t sample = flue_out_open(&out, 2), packed = flue_out_open(&out, 1);
    flue_out_varint(&out, 2);
    flue_out_varint(&out, 1);
    flue_out_close(&out, packed);
    packed = flue_out_open(&out, 2);
    for (size_t i = 0; i < count; i++)
        flue_out_varint(&out, (uint64_t)values[i]);
    flue_out_close(&out, packed);
    flue_out_close(&out, sample);
    for (uint64_t id = 1; id <= 2; id++) {
        size_t location = flue_out_open(&out, 4);
        flue_out_number(&out, 1, id);
        size_t line = flue_out_open(&out, 4);
        flue_out_number(&out, 1, id);
        flue_out_close(&out, line);
        flue_out_close(&out, location);
        size_t function = flue_out_open(&out, 5);
        flue_out_number(&out, 1, id);
        flue_out_number(&out, 2, id);
        flue_out_close(&out, function);
    }
    flue_out_field(&out, 6, flue_bytes(NULL, 0));
    flue_out_field(&out, 6, FLUE_BYTES("root"));
    flue_out_field(&out, 6, flue_bytes_of(leaf));
    for (size_t i = 0; i < count * 2; i++)
        flue_out_field(&out, 6, flue_bytes_of(types[i]));
    flue_out_number(&out, 9, 1795000000000000000ull);
    flue_block_finish(out.block);
    return out.block;
}

static const char *const cpu[] = {"cpu", "nanoseconds"};
static const char *const both[] = {"samples", "count", "cpu", "nanoseconds"};
static const char *const heap[] = {"inuse_space", "bytes"};

static void add(struct flue_collect *collect, const char *name, const char *const *types,
                size_t count, const int64_t *values, const char *leaf)
{
    struct flue_block *block = profile(types, count, values, leaf);
    struct flue_error error;
    assert_int_equal(
        flue_collect_add(collect, flue_bytes_of(name), flue_block_bytes(block), &error), FLUE_OK);
    flue_block_unref(block);
}

static void folded_is(struct flue_collect *collect, const char *expected)
{
    struct flue_block *block;
    struct flue_buffer text;
    struct flue_error error;
    uint32_t value;

    assert_int_equal(flue_collect_finish(collect, &block, &value, &error), FLUE_OK);
    flue_buffer_init(&text, 1u << 20);
    assert_int_equal(flue_render_folded(flue_block_bytes(block), value, &text, &error), FLUE_OK);
    assert_string_equal(text.data, expected);
    flue_buffer_destroy(&text);
    flue_block_unref(block);
    flue_collect_destroy(collect);
}

static void profiles_are_added_up_however_many(void **state)
{
    const struct flue_question question = {.type = FLUE_BYTES("cpu")};
    struct flue_collect *collect = flue_collect_new(&question);
    const int64_t values[] = {1, 10};

    for (unsigned i = 0; i < 1000; i++) /* merged on the way, several times */
        add(collect, "process_cpu", both, 2, values, i % 2 ? "a" : "b");
    assert_int_equal(flue_collect_count(collect), 1000);
    folded_is(collect, "root;b 5000\nroot;a 5000\n");
}

static void kinds_are_reduced_to_the_type_asked_for(void **state)
{
    const struct flue_question question = {.type = FLUE_BYTES("cpu")};
    struct flue_collect *collect = flue_collect_new(&question);
    const int64_t two[] = {1, 10}, one[] = {7};

    add(collect, "process_cpu", both, 2, two, "a");
    add(collect, "process_cpu", cpu, 1, one, "a");
    add(collect, "memory", heap, 1, one, "a"); /* not asked for */
    assert_int_equal(flue_collect_count(collect), 2);
    folded_is(collect, "root;a 17\n");
}

static void several_kinds_without_a_type_are_named(void **state)
{
    const struct flue_question question = {.from_ns = 0};
    struct flue_collect *collect = flue_collect_new(&question);
    const int64_t one[] = {7};
    struct flue_block *block;
    struct flue_error error;
    uint32_t value;

    assert_int_equal(flue_collect_finish(collect, &block, &value, &error), FLUE_NOT_FOUND);
    add(collect, "process_cpu", cpu, 1, one, "a");
    add(collect, "memory", heap, 1, one, "a");
    assert_int_equal(flue_collect_finish(collect, &block, &value, &error), FLUE_UNPROCESSABLE);
    assert_non_null(strstr(error.text, "cpu/nanoseconds; inuse_space/bytes"));
    flue_collect_destroy(collect);
}

static void names_of_types(void **state)
{
    struct flue_question question = {.type = FLUE_BYTES("cpu")};

    assert_true(flue_question_type(&question, FLUE_BYTES("cpu")));
    assert_true(flue_question_type(&question, FLUE_BYTES("process_cpu")));
    assert_false(flue_question_type(&question, FLUE_BYTES("process_cpux")));
    assert_false(flue_question_type(&question, FLUE_BYTES("off_cpu")));
    question.type = FLUE_BYTES("");
    assert_true(flue_question_type(&question, FLUE_BYTES("anything")));
}

static void broken_profiles_are_refused(void **state)
{
    const struct flue_question question = {.from_ns = 0};
    struct flue_collect *collect = flue_collect_new(&question);
    const int64_t one[] = {7};
    struct flue_block *block = profile(cpu, 1, one, "a");
    struct flue_error error;

    for (size_t size = 0; size < block->size; size++) {
        uint8_t *copy = malloc(size ? size : 1);
        memcpy(copy, block->data, size);
        flue_collect_add(collect, FLUE_BYTES("x"), flue_bytes(copy, size), &error);
        free(copy);
    }
    flue_block_unref(block);
    flue_collect_destroy(collect);
}

static void folded_text_has_no_foreign_lines(void **state)
{
    const struct flue_question question = {.from_ns = 0};
    struct flue_collect *collect = flue_collect_new(&question);
    const int64_t one[] = {7};

    add(collect, "x", cpu, 1, one, "std::map<int;long>\n\x01");
    folded_is(collect, "root;std::map<int:long>   7\n");
}

static void folded_text_has_one_line_per_text(void **state)
{
    const struct flue_question question = {.type = FLUE_BYTES("cpu")};
    struct flue_collect *collect = flue_collect_new(&question);
    const int64_t values[] = {1, 10}, less[] = {1, -10}, none[] = {1, 3};

    add(collect, "process_cpu", both, 2, values, "a;b");
    add(collect, "process_cpu", both, 2, values, "a:b"); /* another function, the same text */
    add(collect, "process_cpu", both, 2, less, "c\x01");
    add(collect, "process_cpu", both, 2, values, "c\x02"); /* the sum is nothing: no line */
    add(collect, "process_cpu", both, 2, none, "d");
    folded_is(collect, "root;a:b 20\nroot;d 3\n");
}

static void a_picture_has_every_frame_escaped(void **state)
{
    const int64_t one[] = {2500000000};
    struct flue_block *block = profile(cpu, 1, one, "<script>&\"']]>");
    struct flue_buffer text;
    struct flue_error error;

    flue_buffer_init(&text, 1u << 20);
    assert_int_equal(flue_render_svg(flue_block_bytes(block), 0, "a<b>&", &text, &error), FLUE_OK);
    assert_non_null(
        strstr(text.data, "<title>&lt;script&gt;&amp;&quot;&#39;]]&gt; (2.50 s, 100.00%)"));
    assert_non_null(strstr(text.data, "a&lt;b&gt;&amp;</text>"));
    assert_null(strstr(text.data, "<script>&"));
    flue_buffer_destroy(&text);
    flue_block_unref(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(profiles_are_added_up_however_many),
        cmocka_unit_test(kinds_are_reduced_to_the_type_asked_for),
        cmocka_unit_test(several_kinds_without_a_type_are_named),
        cmocka_unit_test(names_of_types),
        cmocka_unit_test(broken_profiles_are_refused),
        cmocka_unit_test(folded_text_has_no_foreign_lines),
        cmocka_unit_test(folded_text_has_one_line_per_text),
        cmocka_unit_test(a_picture_has_every_frame_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
