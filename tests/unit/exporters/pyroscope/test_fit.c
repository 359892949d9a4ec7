/* Cutting a profile to the server's limits: each limit at its edge, and the sum of the parts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include "exporters/pyroscope/fit.h"
#include "pprof.pb-c.h"
#include "proto/pprof/document.h"

static const struct flue_pprof_limits inflating = {.inflated = 64u << 20, .ratio = 200};
static const char *const priority[] = {"second"};
static const struct flue_labels_config order = {.priority = {(void *)priority, 1}};
static const struct flue_fit_limits wide = {.bytes = 1 << 30,
                                            .samples = 1 << 30,
                                            .sample_labels = 100,
                                            .text_labels = 100,
                                            .depth = 1000,
                                            .order = &order};

/* `samples` of `depth` frames each, values 1, 2, 3, ... of two types, `labels` with text and one
 * number on each; every frame has a name of its own. */
static struct flue_bytes make(uint32_t samples, uint32_t depth, uint32_t labels,
                              struct flue_arena *arena, struct flue_block **block)
{
    static const char *const names[] = {"first", "second", "third", "span_id"};
    struct flue_pprof_document d = {.sample_count = samples, .type_count = 2};
    uint32_t frames = samples * 3 > depth ? samples * 3 : depth;
    struct flue_arena scratch;
    flue_arena_init(&scratch, 1u << 30, 0);
    d.string_count = 16 + frames;
    d.strings = flue_arena_zalloc(arena, d.string_count, sizeof *d.strings);
    d.strings[1] = FLUE_BYTES("cpu");
    d.strings[2] = FLUE_BYTES("nanoseconds");
    for (uint32_t i = 0; i < 4; i++)
        d.strings[4 + i] = flue_bytes_of(names[i]);
    d.strings[8] = FLUE_BYTES("number");
    d.strings[9] = FLUE_BYTES("value");
    for (uint32_t i = 0; i < frames; i++)
        d.strings[16 + i] = flue_bytes_of(flue_arena_printf(arena, "function_%08u", i));
    d.types = flue_arena_zalloc(arena, 2, sizeof *d.types);
    d.types[0] = d.types[1] = (struct flue_pprof_value_type){1, 2};
    d.functions = flue_arena_zalloc(arena, frames, sizeof *d.functions);
    d.lines = flue_arena_zalloc(arena, frames, sizeof *d.lines);
    d.locations = flue_arena_zalloc(arena, frames, sizeof *d.locations);
    d.function_count = d.line_count = d.location_count = frames;
    for (uint32_t i = 0; i < frames; i++) {
        d.functions[i].name = 16 + i;
        d.lines[i].function = i;
        d.locations[i] = (struct flue_pprof_location){
            .mapping = FLUE_PPROF_NONE, .first_line = i, .line_count = 1};
    }
    d.samples = flue_arena_zalloc(arena, samples, sizeof *d.samples);
    d.values = flue_arena_zalloc(arena, (size_t)samples * 2, sizeof *d.values);
    d.stack_count = samples * depth;
    d.stack = flue_arena_zalloc(arena, (size_t)d.stack_count + 1, sizeof *d.stack);
    d.label_count = samples * (labels + 1);
    d.labels = flue_arena_zalloc(arena, d.label_count, sizeof *d.labels);
    for (uint32_t i = 0; i < samples; i++) {
        d.samples[i] = (struct flue_pprof_sample){i * depth, depth, i * (labels + 1), labels + 1};
        d.values[2 * i] = i + 1;
        d.values[2 * i + 1] = 10 * (int64_t)(i + 1);
        for (uint32_t k = 0; k < depth; k++)
            d.stack[i * depth + k] = (i * 3 + k) % frames;
        for (uint32_t k = 0; k < labels; k++)
            d.labels[i * (labels + 1) + k] =
                (struct flue_pprof_sample_label){.key = 4 + k, .str = 9};
        d.labels[i * (labels + 1) + labels] =
            (struct flue_pprof_sample_label){.key = 8, .num = i + 1};
    }
    d.time_nanos = 1700000000000000000;
    assert_int_equal(flue_pprof_encode(&d, 0, samples, &scratch, NULL, block, NULL), FLUE_OK);
    flue_arena_destroy(&scratch);
    return flue_block_bytes(*block);
}

struct parts {
    size_t count, samples, largest, deepest, most_labels;
    int64_t sums[2];
    bool has_mark, has_second, has_first, has_link, has_number;
};

static bool take(void *arg, struct flue_block *block, uint64_t samples)
{
    struct parts *parts = arg;
    struct flue_pprof_facts facts;
    Pprof__Profile *p = pprof__profile__unpack(NULL, block->size, block->data);
    assert_non_null(p);
    assert_int_equal(flue_pprof_check(flue_block_bytes(block), &inflating, &facts, NULL), FLUE_OK);
    assert_int_equal(p->n_sample, samples);
    assert_int_equal(p->time_nanos, 1700000000000000000);
    parts->count++;
    parts->samples += samples;
    parts->largest = block->size > parts->largest ? block->size : parts->largest;
    for (size_t i = 0; i < p->n_sample; i++) {
        const Pprof__Sample *s = p->sample[i];
        for (int k = 0; k < 2; k++)
            parts->sums[k] += s->value[k];
        if (s->n_location_id > parts->deepest)
            parts->deepest = s->n_location_id;
        if (s->n_label > parts->most_labels)
            parts->most_labels = s->n_label;
        for (size_t k = 0; k < s->n_label; k++) {
            const char *key = p->string_table[s->label[k]->key];
            parts->has_first |= strcmp(key, "first") == 0;
            parts->has_second |= strcmp(key, "second") == 0;
            parts->has_link |= strcmp(key, "span_id") == 0;
            parts->has_number |= strcmp(key, "number") == 0;
        }
    }
    for (size_t i = 0; i < p->n_string_table; i++)
        parts->has_mark |= strcmp(p->string_table[i], "[frames left out]") == 0;
    pprof__profile__free_unpacked(p, NULL);
    flue_block_unref(block);
    return true;
}

static size_t fit(struct flue_bytes profile, const struct flue_fit_limits *limits,
                  struct parts *parts)
{
    struct flue_error error = {0};
    size_t cut = 0;
    *parts = (struct parts){0};
    if (flue_fit(profile, &inflating, limits, NULL, take, parts, &cut, &error) != FLUE_OK)
        fail_msg("%s", error.text);
    return cut;
}

static struct flue_pprof_facts facts_of(struct flue_bytes profile)
{
    struct flue_pprof_facts facts;
    assert_int_equal(flue_pprof_check(profile, &inflating, &facts, NULL), FLUE_OK);
    return facts;
}

static void samples_at_the_limit(void **state)
{
    struct flue_arena arena;
    struct flue_block *block;
    flue_arena_init(&arena, 1u << 30, 0);
    for (int over = -1; over <= 1; over++) {
        struct flue_fit_limits limits = wide;
        struct flue_bytes profile = make((uint32_t)(1000 + over), 5, 0, &arena, &block);
        struct flue_pprof_facts facts = facts_of(profile);
        struct parts parts;
        int64_t n = 1000 + over;
        limits.samples = 1000;
        assert_int_equal(flue_fits(&facts, &limits), over <= 0);
        assert_int_equal(fit(profile, &limits, &parts), 0);
        assert_int_equal(parts.count, over > 0 ? 2 : 1);
        assert_int_equal(parts.samples, n);
        assert_int_equal(parts.sums[0], n * (n + 1) / 2);
        assert_int_equal(parts.sums[1], 10 * n * (n + 1) / 2);
        flue_block_unref(block);
    }
    flue_arena_destroy(&arena);
}

static void bytes_at_the_limit(void **state)
{
    struct flue_arena arena;
    struct flue_block *block;
    struct flue_bytes profile;
    struct flue_pprof_facts facts;
    flue_arena_init(&arena, 1u << 30, 0);
    profile = make(3000, 8, 1, &arena, &block);
    facts = facts_of(profile);
    assert_int_equal(facts.inflated_size, profile.size);
    for (int over = -1; over <= 1; over++) {
        struct flue_fit_limits limits = wide;
        struct parts parts;
        limits.bytes = (size_t)((int64_t)profile.size + over);
        assert_int_equal(flue_fits(&facts, &limits), over >= 0);
        fit(profile, &limits, &parts);
        assert_int_equal(parts.count > 1, over < 0);
        assert_true(parts.largest <= limits.bytes);
        assert_int_equal(parts.sums[0], 3000ll * 3001 / 2);
    }
    for (size_t bytes = 4096; bytes < profile.size; bytes *= 2) {
        struct flue_fit_limits limits = wide;
        struct parts parts;
        limits.bytes = bytes;
        fit(profile, &limits, &parts);
        assert_true(parts.largest <= bytes && parts.count > 1);
        assert_int_equal(parts.samples, 3000);
        assert_int_equal(parts.sums[1], 30000ll * 3001 / 2);
    }
    flue_block_unref(block);
    flue_arena_destroy(&arena);
}

static void one_sample_that_is_too_large(void **state)
{
    struct flue_arena arena;
    struct flue_block *block;
    struct flue_fit_limits limits = wide;
    struct flue_error error = {0};
    struct parts parts = {0};
    size_t cut = 0;
    flue_arena_init(&arena, 1u << 30, 0);
    struct flue_bytes profile = make(1, 900, 0, &arena, &block);
    limits.bytes = 4096;
    assert_int_equal(flue_fit(profile, &inflating, &limits, NULL, take, &parts, &cut, &error),
                     FLUE_TOO_LARGE);
    assert_non_null(strstr(error.text, "sample[0]"));
    assert_non_null(strstr(error.text, "4096"));
    flue_block_unref(block);
    flue_arena_destroy(&arena);
}

static void deep_stacks_keep_both_ends(void **state)
{
    struct flue_arena arena;
    struct flue_block *block;
    flue_arena_init(&arena, 1u << 30, 0);
    for (int over = -1; over <= 1; over++) {
        struct flue_bytes profile = make(3, (uint32_t)(1000 + over), 0, &arena, &block);
        struct flue_pprof_facts facts = facts_of(profile);
        struct parts parts;
        assert_int_equal(facts.depth, 1000 + over);
        assert_int_equal(flue_fits(&facts, &wide), over <= 0);
        assert_int_equal(fit(profile, &wide, &parts), over > 0 ? 3 : 0);
        assert_int_equal(parts.deepest, over < 0 ? 999 : 1000);
        assert_int_equal(parts.has_mark, over > 0);
        assert_int_equal(parts.sums[0], 6);
        flue_block_unref(block);
    }
    flue_arena_destroy(&arena);
}

static void labels_of_samples_by_priority(void **state)
{
    struct flue_arena arena;
    struct flue_block *block;
    struct flue_bytes profile;
    struct flue_pprof_facts facts;
    struct parts parts;
    flue_arena_init(&arena, 1u << 30, 0);
    profile = make(10, 3, 4, &arena, &block); /* first second third span_id, and a number */
    facts = facts_of(profile);
    assert_int_equal(facts.sample_labels, 4);
    assert_int_equal(facts.all_labels, 5);
    for (uint64_t text = 0; text <= 3; text++) {
        struct flue_fit_limits limits = wide;
        limits.text_labels = text;
        assert_false(flue_fits(&facts, &limits));
        assert_int_equal(fit(profile, &limits, &parts), 10 * (3 - text));
        assert_true(parts.has_link && parts.has_number);
        assert_int_equal(parts.has_second, text >= 1);
        assert_int_equal(parts.has_first, text >= 2);
    }
    for (uint64_t all = 3; all <= 5; all++) {
        struct flue_fit_limits limits = wide;
        limits.sample_labels = all;
        assert_int_equal(flue_fits(&facts, &limits), all == 5);
        fit(profile, &limits, &parts);
        assert_int_equal(parts.most_labels, all);
        assert_int_equal(parts.has_number, all == 5); /* numbers go first: the server drops them */
        assert_int_equal(parts.sums[0], 55);
    }
    flue_block_unref(block);
    flue_arena_destroy(&arena);
}

static void twice_is_the_same(void **state)
{
    struct flue_arena arena;
    struct flue_block *block;
    struct flue_fit_limits limits = wide;
    struct parts a, b;
    flue_arena_init(&arena, 1u << 30, 0);
    struct flue_bytes profile = make(2000, 6, 2, &arena, &block);
    limits.bytes = 10000;
    fit(profile, &limits, &a);
    fit(profile, &limits, &b);
    assert_memory_equal(&a, &b, sizeof a);
    flue_block_unref(block);
    flue_arena_destroy(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_at_the_limit),
        cmocka_unit_test(bytes_at_the_limit),
        cmocka_unit_test(one_sample_that_is_too_large),
        cmocka_unit_test(deep_stacks_keep_both_ends),
        cmocka_unit_test(labels_of_samples_by_priority),
        cmocka_unit_test(twice_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
