/* Merging, splitting and pruning, compared as resolved text with protobuf-c's reading of the same
 * bytes, on real requests and on random ones. */
#include "tests/unit/proto/convert/resolve.h"

#include "proto/otlp/dictionary.h"
#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"
#include "proto/wire/writer.h"
#include "tests/unit/proto/convert/random_otlp.h"

static const char *const files[] = {
    "ebpf-v1.11-pdata-order-1", "ebpf-v1.11-pdata-order-2", "ebpf-v1.11-pdata-order-3",
    "ebpf-v1.11-ascending",     "async-profiler-alloc",     "async-profiler-cpu-threads",
    "async-profiler-wall",      "pyroscope-java-cpu",
};
#define FILES (sizeof files / sizeof *files)

static struct flue_payload *read_block(struct flue_block *block)
{
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    if (flue_otlp_read(block, &payload, &report, &error) != FLUE_OK)
        fail_msg("read: %s", error.text);
    assert_int_equal(report.rejected_profiles, 0);
    assert_non_null(payload);
    return payload;
}

static struct flue_payload *read_file(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/otlp/%s.otlp", FLUE_TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    struct flue_block *block = flue_block_new(NULL, size);
    block->size = fread(block->data, 1, size, file);
    fclose(file);
    flue_block_finish(block);
    return read_block(block);
}

static struct flue_payload *read_random(uint64_t seed)
{
    return read_block(random_otlp(seed));
}

static void resolve_payload(const struct flue_payload *payload, struct lines *lines)
{
    struct flue_arena arena;
    struct flue_slices slices = {0};
    struct flue_error error;
    flue_arena_init(&arena, 0, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, &error), FLUE_OK);
    uint8_t *body = malloc(slices.total + 1);
    flue_slices_copy(&slices, body);
    resolve_otlp(flue_bytes(body, slices.total), lines);
    free(body);
    flue_arena_destroy(&arena);
}

/* Row 0 of every table is zero, every other row is referred to, and (unless `twice`) no two are
 * equal. */
static void dictionary_is_tight(const struct flue_payload *payload, bool twice)
{
    struct flue_bytes body = flue_block_bytes(flue_otlp_index_of(payload)->body);
    Otlp__ExportProfilesServiceRequest *q =
        otlp__export_profiles_service_request__unpack(NULL, body.size, body.data);
    const Dictionary *d = q->dictionary;
    uint8_t *strings = calloc(d->n_string_table, 1), *stacks = calloc(d->n_stack_table, 1);
    uint8_t *locations = calloc(d->n_location_table, 1),
            *functions = calloc(d->n_function_table, 1);
    uint8_t *mappings = calloc(d->n_mapping_table, 1), *links = calloc(d->n_link_table, 1);
    uint8_t *attributes = calloc(d->n_attribute_table, 1);

    assert_string_equal(d->string_table[0], "");
    assert_int_equal(d->stack_table[0]->n_location_indices, 0);
    assert_int_equal(d->attribute_table[0]->key_strindex, 0);
    assert_int_equal(d->link_table[0]->span_id.len, 0);
    for (size_t r = 0; r < q->n_resource_profiles; r++)
        for (size_t s = 0; s < q->resource_profiles[r]->n_scope_profiles; s++) {
            const Otlp__ScopeProfiles *sp = q->resource_profiles[r]->scope_profiles[s];
            for (size_t p = 0; p < sp->n_profiles; p++) {
                const Otlp__Profile *profile = sp->profiles[p];
                if (profile->sample_type) {
                    strings[profile->sample_type->type_strindex] = 1;
                    strings[profile->sample_type->unit_strindex] = 1;
                }
                if (profile->period_type) {
                    strings[profile->period_type->type_strindex] = 1;
                    strings[profile->period_type->unit_strindex] = 1;
                }
                for (size_t i = 0; i < profile->n_attribute_indices; i++)
                    attributes[profile->attribute_indices[i]] = 1;
                for (size_t i = 0; i < profile->n_samples; i++) {
                    stacks[profile->samples[i]->stack_index] = 1;
                    links[profile->samples[i]->link_index] = 1;
                    for (size_t a = 0; a < profile->samples[i]->n_attribute_indices; a++)
                        attributes[profile->samples[i]->attribute_indices[a]] = 1;
                }
            }
        }
    for (size_t i = 1; i < d->n_stack_table; i++) {
        assert_true(stacks[i]);
        for (size_t j = 0; j < d->stack_table[i]->n_location_indices; j++)
            locations[d->stack_table[i]->location_indices[j]] = 1;
    }
    for (size_t i = 1; i < d->n_location_table; i++) {
        assert_true(locations[i]);
        mappings[d->location_table[i]->mapping_index] = 1;
        for (size_t j = 0; j < d->location_table[i]->n_lines; j++)
            functions[d->location_table[i]->lines[j]->function_index] = 1;
        for (size_t j = 0; j < d->location_table[i]->n_attribute_indices; j++)
            attributes[d->location_table[i]->attribute_indices[j]] = 1;
    }
    for (size_t i = 1; i < d->n_function_table; i++) {
        assert_true(functions[i]);
        strings[d->function_table[i]->name_strindex] = 1;
        strings[d->function_table[i]->system_name_strindex] = 1;
        strings[d->function_table[i]->filename_strindex] = 1;
    }
    for (size_t i = 1; i < d->n_mapping_table; i++) {
        assert_true(mappings[i]);
        strings[d->mapping_table[i]->filename_strindex] = 1;
        for (size_t j = 0; j < d->mapping_table[i]->n_attribute_indices; j++)
            attributes[d->mapping_table[i]->attribute_indices[j]] = 1;
    }
    for (size_t i = 1; i < d->n_link_table; i++)
        assert_true(links[i]);
    for (size_t i = 1; i < d->n_attribute_table; i++) {
        const Otlp__KeyValueAndUnit *a = d->attribute_table[i];
        assert_true(attributes[i]);
        strings[a->key_strindex] = strings[a->unit_strindex] = 1;
        if (a->value)
            mark_strings(a->value, strings);
    }
    for (size_t i = 1; i < d->n_string_table; i++)
        if (!strings[i])
            fail_msg("string %zu (%s) is not referred to", i, d->string_table[i]);
    if (!twice) {
        struct lines all = {0};
        for (size_t i = 0; i < d->n_string_table; i++)
            line_add(&all, strdup(d->string_table[i]));
        lines_sort(&all);
        for (size_t i = 1; i < all.count; i++)
            assert_string_not_equal(all.items[i - 1], all.items[i]);
        lines_free(&all);
    }
    free(strings), free(stacks), free(locations), free(functions);
    free(mappings), free(links), free(attributes);
    otlp__export_profiles_service_request__free_unpacked(q, NULL);
}

static void check_merge(struct flue_payload **payloads, size_t count)
{
    struct lines got = {0}, wanted = {0};
    struct flue_payload *merged;
    struct flue_error error;
    for (size_t i = 0; i < count; i++)
        resolve_payload(payloads[i], &wanted);
    if (flue_otlp_merge(payloads, count, NULL, &merged, &error) != FLUE_OK)
        fail_msg("merge: %s", error.text);
    resolve_payload(merged, &got);
    lines_equal("merge", &got, &wanted);
    dictionary_is_tight(merged, false);
    lines_free(&got);
    lines_free(&wanted);
    flue_payload_unref(merged);
}

static void merges_real(void **state)
{
    struct flue_payload *payloads[FILES];
    (void)state;
    for (size_t i = 0; i < FILES; i++) {
        payloads[i] = read_file(files[i]);
        check_merge(&payloads[i], 1);
    }
    check_merge(payloads, 2);
    check_merge(payloads, FILES);
    for (size_t i = 0; i < FILES; i++)
        flue_payload_unref(payloads[i]);
}

/* The same twice: rows are found again, so the dictionary does not grow. */
static void merge_finds_equal_rows(void **state)
{
    struct flue_payload *payloads[2] = {read_file(files[0]), read_file(files[0])}, *one, *two;
    const struct flue_otlp_index *a, *b;
    (void)state;
    assert_int_equal(flue_otlp_merge(payloads, 1, NULL, &one, NULL), FLUE_OK);
    assert_int_equal(flue_otlp_merge(payloads, 2, NULL, &two, NULL), FLUE_OK);
    a = flue_otlp_index_of(one);
    b = flue_otlp_index_of(two);
    for (unsigned t = 1; t < FLUE_OTLP_TABLES; t++)
        assert_int_equal(a->rows[t], b->rows[t]);
    assert_int_equal(2 * a->samples, b->samples);
    flue_payload_unref(one);
    flue_payload_unref(two);
    flue_payload_unref(payloads[0]);
    flue_payload_unref(payloads[1]);
}

static void merges_random(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct flue_payload *payloads[3];
        for (size_t i = 0; i < 3; i++)
            payloads[i] = read_random(seed * 3 + i);
        check_merge(payloads, 1 + seed % 3);
        for (size_t i = 0; i < 3; i++)
            flue_payload_unref(payloads[i]);
    }
}

static void prunes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct flue_payload *payload = read_random(seed), *pruned;
        struct lines got = {0}, wanted = {0};
        resolve_payload(payload, &wanted);
        assert_int_equal(flue_otlp_prune(payload, NULL, &pruned, NULL), FLUE_OK);
        resolve_payload(pruned, &got);
        lines_equal("prune", &got, &wanted);
        dictionary_is_tight(pruned, true);
        lines_free(&got);
        lines_free(&wanted);
        flue_payload_unref(payload);
        flue_payload_unref(pruned);
    }
}

struct parts {
    struct lines lines;
    struct flue_counts counts;
    uint64_t max;
    bool by_bytes;
    bool whole; /* emitted as it is */
    const struct flue_payload *payload;
    size_t count;
};

static void part(void *arg, struct flue_payload *payload, const struct flue_counts *counts)
{
    struct parts *parts = arg;
    const struct flue_otlp_index *index = flue_otlp_index_of(payload);
    size_t size = payload->ops->encoded_size(payload);

    parts->count++;
    parts->counts.profiles += counts->profiles;
    parts->counts.samples += counts->samples;
    parts->counts.bytes += counts->bytes;
    resolve_payload(payload, &parts->lines);
    if (payload == parts->payload)
        parts->whole = true;
    else
        dictionary_is_tight(payload, true);
    if (parts->by_bytes) {
        if (size > parts->max && index->samples > 1)
            fail_msg("a part of %zu bytes and %" PRIu64 " samples, limit %" PRIu64, size,
                     index->samples, parts->max);
    } else {
        assert_true(index->samples <= parts->max);
    }
    flue_payload_unref(payload);
}

static void check_split(struct flue_payload *payload, uint64_t max, bool by_bytes)
{
    struct flue_counts total = {1000003, 7777777, 123456789};
    struct parts parts = {.max = max, .by_bytes = by_bytes, .payload = payload};
    struct lines wanted = {0};
    struct flue_error error;
    uint64_t samples = flue_otlp_index_of(payload)->samples;

    resolve_payload(payload, &wanted);
    if (flue_otlp_split(payload, max, by_bytes, &total, NULL, part, &parts, &error) != FLUE_OK)
        fail_msg("split: %s", error.text);
    /* A profile without samples that stands where one was cut shows as often as it was: never more.
     */
    lines_equal(by_bytes ? "split by bytes" : "split by samples", &parts.lines, &wanted);
    assert_int_equal(parts.counts.profiles, total.profiles);
    assert_int_equal(parts.counts.samples, total.samples);
    assert_int_equal(parts.counts.bytes, total.bytes);
    if (!by_bytes && samples > 0)
        assert_true(parts.count >= (samples + max - 1) / max);
    lines_free(&parts.lines);
    lines_free(&wanted);
}

static void splits(void **state)
{
    (void)state;
    for (size_t i = 0; i < FILES; i++) {
        struct flue_payload *payload = read_file(files[i]);
        check_split(payload, 1, false);
        check_split(payload, 7, false);
        check_split(payload, 100, false);
        check_split(payload, UINT64_MAX, false);
        check_split(payload, 1, true);
        check_split(payload, 4000, true);
        check_split(payload, 20000, true);
        check_split(payload, payload->ops->encoded_size(payload) - 1, true);
        check_split(payload, payload->ops->encoded_size(payload), true);
        flue_payload_unref(payload);
    }
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct flue_payload *payload = read_random(seed);
        check_split(payload, 1 + seed % 5, false);
        check_split(payload, 300 + seed * 17, true);
        flue_payload_unref(payload);
    }
}

/* Within the limit nothing is made anew. */
static void whole_is_passed(void **state)
{
    struct flue_payload *payload = read_file(files[0]);
    struct parts parts = {.max = UINT64_MAX, .by_bytes = true, .payload = payload};
    struct flue_counts total = {1, 2, 3};
    (void)state;
    flue_otlp_split(payload, UINT64_MAX, true, &total, NULL, part, &parts, NULL);
    assert_int_equal(parts.count, 1);
    assert_true(parts.whole);
    lines_free(&parts.lines);
    flue_payload_unref(payload);
}

/* What has no profile left cannot be cut, and its counts are not lost. */
static void nothing_to_cut(void **state)
{
    struct flue_payload *payload = read_file(files[0]);
    struct parts parts = {.max = UINT64_MAX, .by_bytes = true, .payload = payload};
    struct flue_counts total = {1, 2, 3};
    (void)state;
    for (uint32_t i = 0; i < flue_otlp_index_of(payload)->profile_count; i++)
        assert_int_equal(flue_otlp_profile_remove(payload, i, NULL), FLUE_OK);
    assert_int_equal(flue_otlp_split(payload, 10, true, &total, NULL, part, &parts, NULL), FLUE_OK);
    assert_int_equal(parts.count, 1);
    assert_true(parts.whole);
    assert_memory_equal(&parts.counts, &total, sizeof total);
    lines_free(&parts.lines);
    flue_payload_unref(payload);
}

/* Parts by bytes are filled: no two neighbours would fit into one. */
static void parts_are_full(void **state)
{
    struct flue_payload *payload = read_file(files[0]);
    size_t size = payload->ops->encoded_size(payload);
    struct parts parts = {.max = size / 2, .by_bytes = true, .payload = payload};
    struct flue_counts total = {1, 2, 3};
    (void)state;
    flue_otlp_split(payload, size / 2, true, &total, NULL, part, &parts, NULL);
    assert_in_range(parts.count, 2, 4);
    lines_free(&parts.lines);
    flue_payload_unref(payload);
}

static void edits_are_seen(void **state)
{
    struct flue_payload *payload = read_file(files[0]), *merged;
    struct flue_attribute item = {FLUE_BYTES("team"), {.type = FLUE_VALUE_STRING}};
    struct flue_attribute_set set;
    struct flue_arena arena;
    struct lines got = {0}, wanted = {0};
    (void)state;
    flue_arena_init(&arena, 0, 0);
    item.value.text = FLUE_BYTES("video");
    assert_int_equal(flue_otlp_attribute_set(&arena, &item, 1, &set, NULL), FLUE_OK);
    assert_int_equal(payload->ops->attributes_set(payload, 0, &set, FLUE_SET_UPSERT, NULL, NULL),
                     FLUE_OK);
    assert_int_equal(flue_otlp_profile_remove(payload, 0, NULL), FLUE_OK);
    resolve_payload(payload, &wanted);
    assert_int_equal(flue_otlp_merge(&payload, 1, NULL, &merged, NULL), FLUE_OK);
    resolve_payload(merged, &got);
    lines_equal("merge of an edited payload", &got, &wanted);
    lines_free(&got);
    lines_free(&wanted);
    flue_payload_unref(merged);
    flue_payload_unref(payload);
    flue_arena_destroy(&arena);
}

static void nothing_left_is_nothing(void **state)
{
    struct flue_payload *payload = read_file(files[4]), *merged = payload;
    (void)state;
    for (uint32_t i = 0; i < flue_otlp_index_of(payload)->profile_count; i++)
        assert_int_equal(flue_otlp_profile_remove(payload, i, NULL), FLUE_OK);
    assert_int_equal(flue_otlp_merge(&payload, 1, NULL, &merged, NULL), FLUE_OK);
    assert_null(merged);
    flue_payload_unref(payload);
}

/* What is worked with shows in the account while it is there, and goes again; over the hard limit
 * the work is done all the same, since the data is already here. */
static void account_balances(void **state)
{
    struct flue_budget budget;
    struct flue_account account;
    struct flue_payload *payload = read_file(files[0]), *merged;
    (void)state;
    flue_budget_init(&budget, 1000);
    flue_account_init(&account, &budget, "test", 0);
    assert_int_equal(flue_otlp_merge(&payload, 1, &account, &merged, NULL), FLUE_OK);
    assert_true(account.used >= (int64_t)flue_otlp_index_of(merged)->body->size);
    flue_payload_unref(merged);
    assert_int_equal(account.used, 0);
    assert_int_equal(budget.used, 0);
    flue_payload_unref(payload);
}

/* Four million rows of two bytes: more work than the request may ask for. */
static void empty_rows_pass_the_budget(void **state)
{
    static const uint8_t request[] = {0x0a, 0x0a, 0x12, 0x08, 0x12, 0x06,
                                      0x12, 0x04, 0x08, 0x01, 0x20, 0x01};
    size_t rows = 3u << 20, content = 2 * rows + 4;
    struct flue_block *block = flue_block_new(NULL, content + 64);
    struct flue_payload *payload, *merged = NULL;
    struct flue_error error;
    uint8_t *at = block->data;
    (void)state;
    memcpy(at, request, sizeof request);
    at += sizeof request;
    *at++ = 0x12;
    at = flue_write_varint(at, content);
    memcpy(at, "\x3a\x00\x3a\x00", 4);
    at += 4;
    for (size_t i = 0; i < rows; i++) {
        *at++ = 0x12;
        *at++ = 0;
    }
    block->size = (size_t)(at - block->data);
    flue_block_finish(block);
    payload = read_block(block);
    enum flue_code code = flue_otlp_merge(&payload, 1, NULL, &merged, &error);
    assert_true(code == FLUE_OK || code == FLUE_TOO_LARGE);
    flue_payload_unref(merged);
    flue_payload_unref(payload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_real),      cmocka_unit_test(merge_finds_equal_rows),
        cmocka_unit_test(merges_random),    cmocka_unit_test(prunes),
        cmocka_unit_test(splits),           cmocka_unit_test(nothing_to_cut),
        cmocka_unit_test(whole_is_passed),  cmocka_unit_test(parts_are_full),
        cmocka_unit_test(edits_are_seen),   cmocka_unit_test(nothing_left_is_nothing),
        cmocka_unit_test(account_balances), cmocka_unit_test(empty_rows_pass_the_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
