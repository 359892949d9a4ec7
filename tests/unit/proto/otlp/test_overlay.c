/* Editing a payload: attributes against a model, and every other kind of edit, seen through the
 * view and through protobuf-c after writing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "bodies.h"
#include "proto/otlp/check.h"
#include "proto/otlp/otlp.h"
#include "schema/profiles_service.pb-c.h"

typedef Otlp__ExportProfilesServiceRequest request;

static struct flue_payload *read_made(const struct made *made)
{
    struct out o = make_body(made);
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error = {0};
    if (flue_otlp_read(block_of(o.data, o.size), &payload, &report, &error) != FLUE_OK)
        fail_msg("%s", error.text);
    out_free(&o);
    return payload;
}

static request *decoded(const struct flue_payload *payload)
{
    struct flue_slices slices = {0};
    struct flue_arena arena;
    struct flue_block *block;
    struct flue_otlp_index index;
    request *r;
    flue_arena_init(&arena, 64u << 20, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, NULL), FLUE_OK);
    assert_int_equal(slices.total, payload->ops->encoded_size(payload));
    block = flue_block_new(NULL, slices.total + 1);
    flue_slices_copy(&slices, block->data);
    block->size = slices.total;
    flue_block_finish(block);
    assert_int_equal(flue_otlp_check(flue_block_bytes(block), 1u << 20, &index), 0);
    flue_otlp_index_clear(&index);
    r = otlp__export_profiles_service_request__unpack(NULL, block->size, block->data);
    assert_non_null(r);
    flue_block_unref(block);
    flue_arena_destroy(&arena);
    return r;
}
static void release(request *r)
{
    otlp__export_profiles_service_request__free_unpacked(r, NULL);
}

static const struct made three = {3, 4, 5, 4, 6, 5, false, false};
static const struct made three_descending = {3, 4, 5, 4, 6, 5, true, true};

/* ---------------------------------------------------- attributes: a model */

#define KEYS 12
static const char *const names[KEYS] = {"service.name",
                                        "container.id",
                                        "process.executable.name",
                                        "team",
                                        "k8s.pod.name",
                                        "a",
                                        "b",
                                        "cdn.pop",
                                        "cdn.region",
                                        "zone",
                                        "x.y",
                                        ""};

struct model {
    bool there[3][KEYS];
    int64_t value[3][KEYS]; /* -1: as received */
};

static bool count_visit(void *arg, const struct flue_attribute *attribute)
{
    (void)attribute;
    ++*(size_t *)arg;
    return true;
}

static void compare(const struct flue_payload *payload, const struct model *m)
{
    request *d = decoded(payload);
    for (size_t r = 0; r < 3; r++) {
        Otlp__Resource *resource = d->resource_profiles[r]->resource;
        size_t count = 0, seen = 0;
        for (size_t k = 0; k < KEYS; k++) {
            struct flue_value value;
            bool there = payload->ops->attribute_get(payload, r, flue_bytes_of(names[k]), &value);
            size_t found = 0;
            assert_int_equal(there, m->there[r][k]);
            for (size_t i = 0; resource && i < resource->n_attributes; i++) {
                if (strcmp(resource->attributes[i]->key, names[k]) != 0)
                    continue;
                found++;
                if (m->value[r][k] >= 0)
                    assert_int_equal(resource->attributes[i]->value->int_value, m->value[r][k]);
            }
            assert_int_equal(found, m->there[r][k]); /* one, never two */
            count += there;
            if (there && m->value[r][k] >= 0) {
                assert_int_equal(value.type, FLUE_VALUE_INT);
                assert_int_equal(value.integer, m->value[r][k]);
            }
        }
        payload->ops->attribute_each(payload, r, count_visit, &seen);
        assert_int_equal(seen, count);
        assert_int_equal(resource ? resource->n_attributes : 0, count);
        assert_int_equal(d->resource_profiles[r]->scope_profiles[0]->profiles[0]->n_samples, 4);
    }
    release(d);
}

static void random_edits(void **state)
{
    uint64_t seed = 991;
    for (unsigned round = 0; round < 200; round++) {
        struct flue_payload *p = read_made(round % 2 ? &three : &three_descending);
        struct model m = {0}, old = {0};
        struct flue_payload *older = NULL;
        struct flue_arena arena;
        flue_arena_init(&arena, 1u << 20, 0);
        for (size_t r = 0; r < 3; r++)
            for (size_t k = 0; k < 3; k++)
                m.there[r][k] = true, m.value[r][k] = -1;
        for (unsigned step = 0; step < 12; step++) {
            size_t r = random_next(&seed) % 3;
            if (random_next(&seed) % 4 == 0) {
                size_t k = random_next(&seed) % KEYS;
                assert_int_equal(p->ops->attribute_remove(p, r, flue_bytes_of(names[k]), NULL),
                                 FLUE_OK);
                m.there[r][k] = false;
            } else {
                struct flue_attribute items[6];
                struct flue_attribute_set set;
                enum flue_set_mode mode = 1 + random_next(&seed) % 3;
                size_t count = 1 + random_next(&seed) % 6, first = random_next(&seed) % KEYS;
                for (size_t i = 0; i < count; i++) {
                    size_t k = (first + i * 5) % KEYS; /* 5 and 12 have no common divisor */
                    items[i] = (struct flue_attribute){
                        flue_bytes_of(names[k]),
                        {.type = FLUE_VALUE_INT,
                         .integer = (int64_t)(random_next(&seed) % 100000)}};
                    if (mode == FLUE_SET_INSERT ? !m.there[r][k]
                                                : m.there[r][k] || mode == FLUE_SET_UPSERT) {
                        m.there[r][k] = true;
                        m.value[r][k] = items[i].value.integer;
                    }
                }
                assert_int_equal(flue_otlp_attribute_set(&arena, items, count, &set, NULL),
                                 FLUE_OK);
                assert_int_equal(p->ops->attributes_set(p, r, &set, mode, NULL, NULL), FLUE_OK);
            }
            if (step == 5) { /* go on in a copy; the old one must not change */
                struct flue_payload *copy = p->ops->clone(p, NULL);
                older = p;
                old = m;
                p = copy;
            }
            if (step % 3 == 2)
                compare(p, &m);
        }
        compare(p, &m);
        compare(older, &old);
        flue_payload_unref(older);
        compare(p, &m);
        flue_payload_unref(p);
        flue_arena_destroy(&arena);
    }
}

static void missing_resource_is_made(void **state)
{
    struct out body = {0}, rp = {0}, sp = {0}, profile = {0}, sample = {0};
    struct flue_payload *p;
    struct flue_otlp_report report;
    struct flue_attribute item = {FLUE_BYTES("service.name"),
                                  {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("packager")}};
    struct flue_attribute_set set;
    struct flue_arena arena;
    struct flue_value value;
    request *d;
    out_number(&sample, 4, 1);
    out_message(&profile, 2, &sample);
    out_message(&sp, 2, &profile);
    out_message(&rp, 2, &sp);
    out_message(&body, 1, &rp);
    assert_int_equal(flue_otlp_read(block_of(body.data, body.size), &p, &report, NULL), FLUE_OK);
    flue_arena_init(&arena, 1u << 16, 0);
    assert_int_equal(flue_otlp_attribute_set(&arena, &item, 1, &set, NULL), FLUE_OK);
    assert_false(p->ops->attribute_get(p, 0, item.key, &value));
    assert_int_equal(p->ops->attributes_set(p, 0, &set, FLUE_SET_UPDATE, NULL, NULL), FLUE_OK);
    assert_int_equal(p->ops->encoded_size(p), body.size);
    assert_int_equal(p->ops->attributes_set(p, 0, &set, FLUE_SET_INSERT, NULL, NULL), FLUE_OK);
    assert_true(p->ops->attribute_get(p, 0, item.key, &value));
    assert_int_equal(flue_otlp_scope_set(p, 0, &set, FLUE_SET_UPSERT, NULL, NULL), FLUE_OK);
    d = decoded(p);
    assert_string_equal(d->resource_profiles[0]->resource->attributes[0]->value->string_value,
                        "packager");
    assert_string_equal(d->resource_profiles[0]->scope_profiles[0]->scope->attributes[0]->key,
                        "service.name");
    release(d);
    assert_int_equal(p->ops->attribute_remove(p, 0, item.key, NULL), FLUE_OK);
    assert_int_equal(flue_otlp_scope_attribute_remove(p, 0, item.key, NULL), FLUE_OK);
    assert_int_equal(p->ops->encoded_size(p), body.size);
    flue_payload_unref(p);
    flue_arena_destroy(&arena);
    out_free(&body);
    out_free(&rp);
    out_free(&sp);
    out_free(&profile);
    out_free(&sample);
}

/* A key that came twice: the first is seen, an upsert leaves one. */
static void keys_that_came_twice(void **state)
{
    struct out body = {0}, rp = {0}, sp = {0}, resource = {0};
    struct flue_payload *p;
    struct flue_otlp_report report;
    struct flue_attribute item = {FLUE_BYTES("k"), {.type = FLUE_VALUE_BOOL, .boolean = true}};
    struct flue_attribute_set set;
    struct flue_arena arena;
    struct flue_value value;
    size_t seen = 0;
    request *d;
    out_key_value(&resource, 1, "k", "first");
    out_key_value(&resource, 1, "other", "x");
    out_key_value(&resource, 1, "k", "second");
    out_message(&rp, 1, &resource);
    out_text(&sp, 2, "");
    out_message(&rp, 2, &sp);
    out_message(&body, 1, &rp);
    assert_int_equal(flue_otlp_read(block_of(body.data, body.size), &p, &report, NULL), FLUE_OK);
    assert_true(p->ops->attribute_get(p, 0, item.key, &value));
    assert_true(flue_bytes_is(value.text, "first"));
    p->ops->attribute_each(p, 0, count_visit, &seen);
    assert_int_equal(seen, 2);
    flue_arena_init(&arena, 1u << 16, 0);
    assert_int_equal(flue_otlp_attribute_set(&arena, &item, 1, &set, NULL), FLUE_OK);
    assert_int_equal(p->ops->attributes_set(p, 0, &set, FLUE_SET_UPSERT, NULL, NULL), FLUE_OK);
    d = decoded(p);
    assert_int_equal(d->resource_profiles[0]->resource->n_attributes, 2);
    assert_true(d->resource_profiles[0]->resource->attributes[1]->value->bool_value);
    release(d);
    flue_payload_unref(p);
    flue_arena_destroy(&arena);
    out_free(&body);
    out_free(&rp);
    out_free(&sp);
    out_free(&resource);
}

static void owner_is_kept(void **state)
{
    struct flue_payload *p = read_made(&three), *copy;
    struct flue_block *owner = flue_block_new(NULL, 64);
    struct flue_attribute item = {FLUE_BYTES("team"), {.type = FLUE_VALUE_INT, .integer = 5}};
    struct flue_attribute_set set;
    struct flue_arena arena;
    struct flue_value value;
    flue_arena_init(&arena, 1u << 16, 0);
    assert_int_equal(flue_otlp_attribute_set(&arena, &item, 1, &set, NULL), FLUE_OK);
    memcpy(owner->data, set.encoded.data, set.encoded.size);
    set.encoded.data = owner->data;
    for (size_t r = 0; r < 3; r++)
        assert_int_equal(p->ops->attributes_set(p, r, &set, FLUE_SET_UPSERT, owner, NULL), FLUE_OK);
    flue_arena_destroy(&arena);
    assert_int_equal(atomic_load(&owner->refs), 2);
    flue_block_unref(owner);
    copy = p->ops->clone(p, NULL);
    flue_payload_unref(p);
    assert_true(copy->ops->attribute_get(copy, 2, FLUE_BYTES("team"), &value));
    assert_int_equal(value.integer, 5);
    release(decoded(copy));
    flue_payload_unref(copy);
}

static void shared_payloads_are_not_edited(void **state)
{
    struct flue_payload *p = read_made(&three);
    struct flue_error error;
    flue_payload_ref(p);
    assert_int_equal(p->ops->attribute_remove(p, 0, FLUE_BYTES("service.name"), &error),
                     FLUE_INTERNAL);
    flue_payload_unref(p);
    flue_payload_unref(p);
}

/* ------------------------------------------------------ the other edits */

static void rows_are_appended(void **state)
{
    for (int descending = 0; descending < 2; descending++) {
        struct flue_payload *p = read_made(descending ? &three_descending : &three), *copy;
        struct flue_otlp_dictionary dictionary;
        struct flue_arena arena;
        uint32_t strings = flue_otlp_index_of(p)->rows[FLUE_OTLP_STRING], index = 0;
        char text[600];
        request *d;
        memset(text, 'x', sizeof text);
        for (unsigned i = 0; i < 50; i++) {
            assert_int_equal(flue_otlp_dictionary_append(p, FLUE_OTLP_STRING,
                                                         flue_bytes(text, i * 11), &index, NULL),
                             FLUE_OK);
            assert_int_equal(index, strings + i);
        }
        copy = p->ops->clone(p, NULL);
        assert_int_equal(
            flue_otlp_dictionary_append(p, FLUE_OTLP_STRING, FLUE_BYTES("in p"), &index, NULL),
            FLUE_OK);
        assert_int_equal(flue_otlp_dictionary_append(copy, FLUE_OTLP_STRING, FLUE_BYTES("in copy"),
                                                     &index, NULL),
                         FLUE_OK);
        assert_int_equal(index, strings + 50);
        assert_int_equal(
            flue_otlp_dictionary_replace(copy, FLUE_OTLP_STRING, 1, FLUE_BYTES("changed"), NULL),
            FLUE_OK);
        flue_arena_init(&arena, 1u << 20, 0);
        assert_int_equal(flue_otlp_dictionary_open(copy, &arena, &dictionary, NULL), FLUE_OK);
        assert_int_equal(dictionary.counts[FLUE_OTLP_STRING], strings + 51);
        assert_true(flue_bytes_is(flue_otlp_string(&dictionary, index), "in copy"));
        assert_true(flue_bytes_is(flue_otlp_string(&dictionary, 1), "changed"));
        assert_int_equal(flue_otlp_string(&dictionary, strings + 49).size, 49 * 11);
        d = decoded(copy);
        assert_int_equal(d->dictionary->n_string_table, strings + 51);
        assert_string_equal(d->dictionary->string_table[index], "in copy");
        assert_string_equal(d->dictionary->string_table[1], "changed");
        release(d);
        d = decoded(p);
        assert_string_equal(d->dictionary->string_table[index], "in p");
        release(d);
        flue_arena_destroy(&arena);
        flue_payload_unref(p);
        flue_payload_unref(copy);
    }
}

static void first_row_of_an_empty_table(void **state)
{
    struct out body = {0}, rp = {0}, sp = {0};
    struct flue_payload *p;
    struct flue_otlp_report report;
    uint32_t index;
    request *d;
    out_text(&sp, 2, "");
    out_message(&rp, 2, &sp);
    out_message(&body, 1, &rp);
    assert_int_equal(flue_otlp_read(block_of(body.data, body.size), &p, &report, NULL), FLUE_OK);
    assert_int_equal(
        flue_otlp_dictionary_append(p, FLUE_OTLP_STRING, FLUE_BYTES("a"), &index, NULL), FLUE_OK);
    assert_int_equal(index, 1);
    d = decoded(p);
    assert_int_equal(d->dictionary->n_string_table, 2);
    assert_string_equal(d->dictionary->string_table[1], "a");
    release(d);
    flue_payload_unref(p);
    out_free(&body);
    out_free(&rp);
    out_free(&sp);
}

struct seen {
    uint32_t profiles, samples;
};
static bool profile_visit(void *arg, const struct flue_otlp_profile *profile)
{
    struct seen *s = arg;
    s->profiles++;
    s->samples += profile->samples;
    return true;
}

static void samples_and_profiles(void **state)
{
    for (int descending = 0; descending < 2; descending++) {
        struct flue_payload *p = read_made(descending ? &three_descending : &three);
        struct out encoded = {0}, s = {0};
        struct flue_otlp_samples it;
        struct flue_bytes sample;
        struct flue_otlp_sample fields;
        struct seen seen = {0};
        uint64_t value;
        request *d;
        for (unsigned i = 0; i < 300; i++) {
            out_number(&s, 1, 2);
            out_number(&s, 4, i);
            out_message(&encoded, 2, &s);
        }
        assert_int_equal(flue_otlp_samples_set(p, 1, flue_bytes(encoded.data, encoded.size), NULL),
                         FLUE_OK);
        assert_int_equal(flue_otlp_profile_remove(p, 0, NULL), FLUE_OK);
        assert_int_equal(flue_otlp_profile_remove(p, 0, NULL), FLUE_OK);
        assert_true(flue_otlp_profile_removed(p, 0));
        assert_false(flue_otlp_profile_removed(p, 1));
        assert_true(flue_otlp_each_profile(p, profile_visit, &seen));
        assert_int_equal(seen.profiles, 2);
        assert_int_equal(seen.samples, 304);
        it = flue_otlp_samples(p, 1);
        for (unsigned i = 0; i < 300; i++) {
            assert_true(flue_otlp_samples_next(&it, &sample));
            flue_otlp_sample_read(sample, &fields);
            assert_int_equal(fields.stack_index, 2);
            assert_true(flue_otlp_numbers_next(&fields.values, &value));
            assert_int_equal(value, i);
            assert_int_equal(flue_otlp_numbers_count(fields.values), 0);
        }
        assert_false(flue_otlp_samples_next(&it, &sample));
        d = decoded(p);
        assert_int_equal(d->resource_profiles[0]->scope_profiles[0]->n_profiles, 0);
        assert_int_equal(d->resource_profiles[1]->scope_profiles[0]->profiles[0]->n_samples, 300);
        assert_int_equal(d->resource_profiles[1]->scope_profiles[0]->profiles[0]->duration_nano,
                         5000000000u);
        release(d);
        assert_int_equal(flue_otlp_resource_remove(p, 1, NULL), FLUE_OK);
        memset(&seen, 0, sizeof seen);
        flue_otlp_each_profile(p, profile_visit, &seen);
        assert_int_equal(seen.profiles, 1);
        d = decoded(p);
        assert_int_equal(d->n_resource_profiles, 2);
        release(d);
        flue_payload_unref(p);
        out_free(&encoded);
        out_free(&s);
    }
}

/* Fields 2 of a Profile: `count` samples with the values first, first + 1, ... */
static struct out samples_from(unsigned count, unsigned first)
{
    struct out encoded = {0}, s = {0};
    for (unsigned i = 0; i < count; i++) {
        out_number(&s, 1, 1);
        out_number(&s, 4, first + i);
        out_message(&encoded, 2, &s);
    }
    out_free(&s);
    return encoded;
}

static void has_samples(const struct flue_payload *p, uint32_t profile, unsigned count,
                        unsigned first)
{
    struct flue_otlp_samples it = flue_otlp_samples(p, profile);
    struct flue_bytes sample;
    request *d = decoded(p);
    const Otlp__Profile *wanted = d->resource_profiles[profile]->scope_profiles[0]->profiles[0];
    assert_int_equal(wanted->n_samples, count);
    for (unsigned i = 0; i < count; i++) {
        struct flue_otlp_sample fields;
        uint64_t value;
        assert_true(flue_otlp_samples_next(&it, &sample));
        flue_otlp_sample_read(sample, &fields);
        assert_true(flue_otlp_numbers_next(&fields.values, &value));
        assert_int_equal(value, first + i);
        assert_int_equal(wanted->samples[i]->values[0], first + i);
    }
    assert_false(flue_otlp_samples_next(&it, &sample));
    assert_int_equal(wanted->duration_nano, 5000000000u);
    release(d);
}

/* Two processors may each put the samples of a profile anew: what the second saw were those of the
 * first, and its own are what is left; those of another owner of the payload stay. */
static void samples_put_anew_twice(void **state)
{
    static const unsigned sizes[][2] = {{10, 3}, {3, 500}, {1, 1}, {7, 0}, {0, 7}};
    for (int descending = 0; descending < 2; descending++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct flue_payload *p = read_made(descending ? &three_descending : &three), *copy;
            struct out one = samples_from(sizes[i][0], 100), two = samples_from(sizes[i][1], 900);
            struct flue_value other;
            uint32_t row;
            assert_int_equal(flue_otlp_samples_set(p, 1, flue_bytes(one.data, one.size), NULL),
                             FLUE_OK);
            has_samples(p, 1, sizes[i][0], 100);
            copy = p->ops->clone(p, NULL);
            assert_non_null(copy);
            assert_int_equal(
                flue_otlp_dictionary_append(copy, FLUE_OTLP_STRING, FLUE_BYTES("a"), &row, NULL),
                FLUE_OK);
            assert_int_equal(flue_otlp_samples_set(copy, 1, flue_bytes(two.data, two.size), NULL),
                             FLUE_OK);
            has_samples(copy, 1, sizes[i][1], 900);
            has_samples(p, 1, sizes[i][0], 100);
            assert_int_equal(flue_otlp_samples_set(copy, 1, flue_bytes(one.data, one.size), NULL),
                             FLUE_OK);
            has_samples(copy, 1, sizes[i][0], 100);
            assert_true(copy->ops->attribute_get(copy, 1, FLUE_BYTES("container.id"), &other));
            flue_payload_unref(copy);
            flue_payload_unref(p);
            out_free(&one);
            out_free(&two);
        }
    }
}

/* Samples in several runs become one. */
static void samples_in_runs_put_anew_twice(void **state)
{
    struct out body = {0}, rp = {0}, sp = {0}, profile = {0}, runs = samples_from(2, 0),
               one = samples_from(5, 100), two = samples_from(3, 900), d = {0};
    struct flue_payload *p;
    struct flue_otlp_report report;
    out_bytes(&profile, runs.data, runs.size);
    out_number(&profile, 4, 5000000000u);
    out_bytes(&profile, runs.data, runs.size);
    out_fixed(&profile, 3, 1790000000000000000u);
    out_bytes(&profile, runs.data, runs.size);
    out_message(&sp, 2, &profile);
    out_message(&rp, 2, &sp);
    out_message(&body, 1, &rp);
    out_text(&d, 5, "");
    out_text(&d, 7, "");
    out_text(&d, 7, "");
    out_message(&body, 2, &d);
    assert_int_equal(flue_otlp_read(block_of(body.data, body.size), &p, &report, NULL), FLUE_OK);
    assert_int_equal(report.rejected_profiles, 0);
    assert_int_equal(flue_otlp_samples_set(p, 0, flue_bytes(one.data, one.size), NULL), FLUE_OK);
    has_samples(p, 0, 5, 100);
    assert_int_equal(flue_otlp_samples_set(p, 0, flue_bytes(two.data, two.size), NULL), FLUE_OK);
    has_samples(p, 0, 3, 900);
    flue_payload_unref(p);
    struct out *all[] = {&body, &rp, &sp, &profile, &runs, &one, &two, &d};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        out_free(all[i]);
}

static void edits_out_of_place_are_refused(void **state)
{
    struct flue_payload *p = read_made(&three);
    const struct flue_otlp_index *index = flue_otlp_index_of(p);
    struct flue_otlp_place profile = {FLUE_OTLP_IN_PROFILE, 0};
    struct flue_otlp_span at = index->profiles[0].at;
    struct flue_error error;
    struct flue_bytes none = {NULL, 0};
    assert_int_equal(flue_otlp_replace(p, profile, at.start - 1, at.end, none, &error),
                     FLUE_INTERNAL);
    assert_int_equal(flue_otlp_replace(p, profile, at.start, at.end + 1, none, &error),
                     FLUE_INTERNAL);
    assert_int_equal(flue_otlp_replace(p, profile, at.start, at.end, none, &error), FLUE_OK);
    assert_int_equal(flue_otlp_replace(p, profile, at.start + 1, at.end, none, &error),
                     FLUE_INTERNAL);
    profile.number = 99;
    assert_int_equal(flue_otlp_replace(p, profile, at.start, at.end, none, &error), FLUE_INTERNAL);
    flue_payload_unref(p);
}

/* Every second Profile of many, then all of them: neighbours become one edit. */
static void many_profiles_are_removed(void **state)
{
    struct out body = {0}, rp = {0}, sp = {0}, profile = {0};
    struct flue_payload *p;
    struct flue_otlp_report report;
    struct seen seen = {0};
    request *d;
    out_number(&profile, 6, 1);
    for (unsigned i = 0; i < 2000; i++)
        out_field(&sp, 2, profile.data, profile.size);
    out_message(&rp, 2, &sp);
    out_message(&body, 1, &rp);
    assert_int_equal(flue_otlp_read(block_of(body.data, body.size), &p, &report, NULL), FLUE_OK);
    for (uint32_t i = 0; i < 2000; i += 2)
        assert_int_equal(flue_otlp_profile_remove(p, i, NULL), FLUE_OK);
    flue_otlp_each_profile(p, profile_visit, &seen);
    assert_int_equal(seen.profiles, 1000);
    d = decoded(p);
    assert_int_equal(d->resource_profiles[0]->scope_profiles[0]->n_profiles, 1000);
    release(d);
    for (uint32_t i = 0; i < 2000; i++)
        assert_int_equal(flue_otlp_profile_remove(p, i, NULL), FLUE_OK);
    memset(&seen, 0, sizeof seen);
    flue_otlp_each_profile(p, profile_visit, &seen);
    assert_int_equal(seen.profiles, 0);
    d = decoded(p);
    assert_int_equal(d->resource_profiles[0]->scope_profiles[0]->n_profiles, 0);
    release(d);
    flue_payload_unref(p);
    assert_int_equal(flue_otlp_read(block_of(body.data, body.size), &p, &report, NULL), FLUE_OK);
    for (uint32_t i = 500; i < 1500; i++)
        assert_int_equal(flue_otlp_profile_remove(p, i, NULL), FLUE_OK);
    flue_otlp_each_profile(p, profile_visit, &seen);
    assert_int_equal(seen.profiles, 1000);
    assert_true(flue_otlp_profile_removed(p, 1499) && !flue_otlp_profile_removed(p, 1500));
    release(decoded(p));
    flue_payload_unref(p);
    out_free(&body);
    out_free(&rp);
    out_free(&sp);
    out_free(&profile);
}

/* The readers say what protobuf-c says, for every row and sample of real bodies. */
static void readers_agree(void **state)
{
    for (size_t b = 0; b < BODIES_OURS; b++) {
        struct out *o = load_ours(b);
        struct flue_payload *p;
        struct flue_otlp_report report;
        struct flue_otlp_dictionary t;
        struct flue_arena arena;
        request *d;
        uint32_t profile = 0;
        assert_int_equal(flue_otlp_read(block_of(o->data, o->size), &p, &report, NULL), FLUE_OK);
        assert_int_equal(report.rejected_profiles, 0);
        flue_arena_init(&arena, 16u << 20, 0);
        assert_int_equal(flue_otlp_dictionary_open(p, &arena, &t, NULL), FLUE_OK);
        d = decoded(p);
        for (uint32_t i = 0; i < d->dictionary->n_mapping_table; i++) {
            struct flue_otlp_mapping m;
            flue_otlp_mapping_read(t.rows[FLUE_OTLP_MAPPING][i], &m);
            assert_int_equal(m.memory_limit, d->dictionary->mapping_table[i]->memory_limit);
            assert_int_equal(m.filename, d->dictionary->mapping_table[i]->filename_strindex);
            assert_int_equal(flue_otlp_numbers_count(m.attribute_indices),
                             d->dictionary->mapping_table[i]->n_attribute_indices);
        }
        for (uint32_t i = 0; i < d->dictionary->n_location_table; i++) {
            Otlp__Location *want = d->dictionary->location_table[i];
            struct flue_otlp_location l;
            struct flue_otlp_line line;
            size_t lines = 0;
            flue_otlp_location_read(t.rows[FLUE_OTLP_LOCATION][i], &l);
            assert_int_equal(l.address, want->address);
            assert_int_equal(l.mapping, want->mapping_index);
            while (flue_otlp_line_next(&l.lines, &line)) {
                assert_int_equal(line.function, want->lines[lines]->function_index);
                assert_int_equal(line.line, want->lines[lines++]->line);
            }
            assert_int_equal(lines, want->n_lines);
        }
        for (uint32_t i = 0; i < d->dictionary->n_function_table; i++) {
            struct flue_otlp_function f;
            flue_otlp_function_read(t.rows[FLUE_OTLP_FUNCTION][i], &f);
            assert_int_equal(f.name, d->dictionary->function_table[i]->name_strindex);
        }
        for (uint32_t i = 0; i < d->dictionary->n_stack_table; i++) {
            Otlp__Stack *want = d->dictionary->stack_table[i];
            struct flue_otlp_numbers n = flue_otlp_stack_locations(t.rows[FLUE_OTLP_STACK][i]);
            uint64_t value;
            for (size_t k = 0; k < want->n_location_indices; k++) {
                assert_true(flue_otlp_numbers_next(&n, &value));
                assert_int_equal(value, want->location_indices[k]);
            }
            assert_false(flue_otlp_numbers_next(&n, &value));
        }
        for (uint32_t i = 0; i < d->dictionary->n_attribute_table; i++) {
            struct flue_otlp_attribute_row row;
            struct flue_value value;
            flue_otlp_attribute_row_read(t.rows[FLUE_OTLP_ATTRIBUTE][i], &row);
            assert_int_equal(row.key, d->dictionary->attribute_table[i]->key_strindex);
            flue_otlp_value_read(row.value, &t, &value);
            if (value.type == FLUE_VALUE_INT)
                assert_int_equal(value.integer,
                                 d->dictionary->attribute_table[i]->value->int_value);
        }
        for (size_t r = 0; r < d->n_resource_profiles; r++) {
            for (size_t s = 0; s < d->resource_profiles[r]->n_scope_profiles; s++) {
                Otlp__ScopeProfiles *sp = d->resource_profiles[r]->scope_profiles[s];
                for (size_t k = 0; k < sp->n_profiles; k++, profile++) {
                    struct flue_otlp_profile_fields fields;
                    struct flue_otlp_samples it = flue_otlp_samples(p, profile);
                    flue_otlp_profile_read(p, profile, &fields);
                    assert_int_equal(fields.time_unix_nano, sp->profiles[k]->time_unix_nano);
                    assert_int_equal(fields.sample_type,
                                     sp->profiles[k]->sample_type->type_strindex);
                    for (size_t n = 0; n < sp->profiles[k]->n_samples; n++) {
                        Otlp__Sample *want = sp->profiles[k]->samples[n];
                        struct flue_otlp_sample sample;
                        struct flue_bytes bytes;
                        uint64_t value;
                        assert_true(flue_otlp_samples_next(&it, &bytes));
                        flue_otlp_sample_read(bytes, &sample);
                        assert_int_equal(sample.stack_index, want->stack_index);
                        assert_int_equal(flue_otlp_numbers_count(sample.values), want->n_values);
                        assert_int_equal(flue_otlp_numbers_count(sample.attribute_indices),
                                         want->n_attribute_indices);
                        for (size_t q = 0; q < want->n_timestamps_unix_nano; q++) {
                            assert_true(flue_otlp_numbers_next(&sample.timestamps, &value));
                            assert_true(value == want->timestamps_unix_nano[q]);
                        }
                    }
                }
            }
        }
        release(d);
        flue_payload_unref(p);
        flue_arena_destroy(&arena);
        out_free(o);
        free(o);
    }
}

/* Numbers packed, single and in several runs, all in one field. */
static void scattered_numbers(void **state)
{
    struct out s = {0};
    struct flue_otlp_sample sample;
    uint64_t value;
    out_number(&s, 4, 1);
    out_field(&s, 4, "\x02\x03", 2);
    out_field(&s, 4, "", 0);
    out_number(&s, 1, 9);
    out_field(&s, 4, "\x04", 1);
    out_number(&s, 4, 5);
    out_fixed(&s, 5, 100);
    out_field(&s, 5, "\x65\0\0\0\0\0\0\0", 8);
    flue_otlp_sample_read(flue_bytes(s.data, s.size), &sample);
    assert_int_equal(flue_otlp_numbers_count(sample.values), 5);
    for (uint64_t i = 1; i <= 5; i++) {
        assert_true(flue_otlp_numbers_next(&sample.values, &value));
        assert_int_equal(value, i);
    }
    assert_false(flue_otlp_numbers_next(&sample.values, &value));
    assert_int_equal(flue_otlp_numbers_count(sample.timestamps), 2);
    assert_true(flue_otlp_numbers_next(&sample.timestamps, &value) && value == 100);
    assert_true(flue_otlp_numbers_next(&sample.timestamps, &value) && value == 101);
    out_free(&s);
}

/* Every type of value there and back; protobuf-c reads it the same. */
static void values(void **state)
{
    static const uint8_t array[] = {0x2a, 0x05, 0x0a, 0x03, 0x0a, 0x01, 'z'};
    struct flue_attribute items[] = {
        {FLUE_BYTES("s"), {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("text")}},
        {FLUE_BYTES("b"), {.type = FLUE_VALUE_BOOL, .boolean = true}},
        {FLUE_BYTES("i"), {.type = FLUE_VALUE_INT, .integer = -5}},
        {FLUE_BYTES("d"), {.type = FLUE_VALUE_DOUBLE, .number = 2.5}},
        {FLUE_BYTES("y"), {.type = FLUE_VALUE_BYTES, .text = FLUE_BYTES("\x01\x02")}},
        {FLUE_BYTES("c"), {.type = FLUE_VALUE_COMPLEX, .text = {array, sizeof array}}},
        {FLUE_BYTES("e"), {.type = FLUE_VALUE_EMPTY}},
    };
    struct flue_payload *p = read_made(&three);
    struct flue_attribute_set set;
    struct flue_arena arena;
    struct flue_value v;
    Otlp__KeyValue **kv;
    request *d;
    flue_arena_init(&arena, 1u << 16, 0);
    assert_int_equal(flue_otlp_attribute_set(&arena, items, 7, &set, NULL), FLUE_OK);
    assert_int_equal(p->ops->attributes_set(p, 0, &set, FLUE_SET_UPSERT, NULL, NULL), FLUE_OK);
    assert_true(p->ops->attribute_get(p, 0, FLUE_BYTES("i"), &v) && v.integer == -5);
    assert_true(p->ops->attribute_get(p, 0, FLUE_BYTES("d"), &v) && v.number == 2.5);
    assert_true(p->ops->attribute_get(p, 0, FLUE_BYTES("b"), &v) && v.boolean);
    assert_true(p->ops->attribute_get(p, 0, FLUE_BYTES("y"), &v) && v.text.size == 2);
    assert_true(p->ops->attribute_get(p, 0, FLUE_BYTES("e"), &v) && v.type == FLUE_VALUE_EMPTY);
    assert_true(p->ops->attribute_get(p, 0, FLUE_BYTES("c"), &v));
    assert_int_equal(v.type, FLUE_VALUE_COMPLEX);
    assert_memory_equal(v.text.data, array, sizeof array);
    d = decoded(p);
    kv = d->resource_profiles[0]->resource->attributes + 3;
    assert_string_equal(kv[0]->value->string_value, "text");
    assert_int_equal(kv[2]->value->int_value, -5);
    assert_int_equal(kv[4]->value->bytes_value.len, 2);
    assert_string_equal(kv[5]->value->array_value->values[0]->string_value, "z");
    assert_int_equal(kv[6]->value->value_case, OTLP__ANY_VALUE__VALUE__NOT_SET);
    release(d);
    flue_payload_unref(p);
    flue_arena_destroy(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_edits),
        cmocka_unit_test(missing_resource_is_made),
        cmocka_unit_test(keys_that_came_twice),
        cmocka_unit_test(owner_is_kept),
        cmocka_unit_test(shared_payloads_are_not_edited),
        cmocka_unit_test(rows_are_appended),
        cmocka_unit_test(first_row_of_an_empty_table),
        cmocka_unit_test(samples_and_profiles),
        cmocka_unit_test(samples_put_anew_twice),
        cmocka_unit_test(samples_in_runs_put_anew_twice),
        cmocka_unit_test(many_profiles_are_removed),
        cmocka_unit_test(edits_out_of_place_are_refused),
        cmocka_unit_test(readers_agree),
        cmocka_unit_test(scattered_numbers),
        cmocka_unit_test(values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
