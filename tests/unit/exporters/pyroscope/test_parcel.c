/* An item as the profiles to push: parts within the limits whose sum is the whole, no two of a
 * series with one time, and times that a window, a note and what was sent before decide. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "exporters/pyroscope/parcel.h"
#include "pprof.pb-c.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"
#include "tests/unit/proto/convert/random_otlp.h"

#define SECOND   1000000000ll
#define RECEIVED 1795000000000000000ll
#define TIME     1794999990000000000ll

/* A profile of `samples` stacks for every service, values 1, 2, 3, ...; stack i is the frames
 * function_i and function_(i / 7). */
static struct flue_payload *request(size_t services, size_t samples, int64_t time)
{
    Otlp__ExportProfilesServiceRequest *q =
        NEW(Otlp__ExportProfilesServiceRequest, OTLP__EXPORT_PROFILES_SERVICE_REQUEST__INIT);
    Otlp__ProfilesDictionary *d = q->dictionary =
        NEW(Otlp__ProfilesDictionary, OTLP__PROFILES_DICTIONARY__INIT);
    size_t rows = samples + 1;
    struct flue_otlp_report report;
    struct flue_payload *payload;
    struct flue_error error;
    struct flue_block *block;
    char text[40];

    MANY(d->string_table, d->n_string_table, 3 + samples);
    d->string_table[0] = strdup("");
    d->string_table[1] = strdup("cpu");
    d->string_table[2] = strdup("nanoseconds");
    for (size_t i = 0; i < samples; i++) {
        snprintf(text, sizeof text, "function_%zu", i);
        d->string_table[3 + i] = strdup(text);
    }
    MANY(d->function_table, d->n_function_table, rows);
    MANY(d->location_table, d->n_location_table, rows);
    MANY(d->stack_table, d->n_stack_table, rows);
    for (size_t i = 0; i < rows; i++) {
        d->function_table[i] = NEW(Otlp__Function, OTLP__FUNCTION__INIT);
        d->location_table[i] = NEW(Otlp__Location, OTLP__LOCATION__INIT);
        d->stack_table[i] = NEW(Otlp__Stack, OTLP__STACK__INIT);
        if (i == 0)
            continue;
        d->function_table[i]->name_strindex = (int32_t)(2 + i);
        MANY(d->location_table[i]->lines, d->location_table[i]->n_lines, 1);
        d->location_table[i]->lines[0] = NEW(Otlp__Line, OTLP__LINE__INIT);
        d->location_table[i]->lines[0]->function_index = (int32_t)i;
        MANY(d->stack_table[i]->location_indices, d->stack_table[i]->n_location_indices, 2);
        d->stack_table[i]->location_indices[0] = (int32_t)i;
        d->stack_table[i]->location_indices[1] = (int32_t)(1 + i / 7);
    }
    MANY(q->resource_profiles, q->n_resource_profiles, services);
    for (size_t r = 0; r < services; r++) {
        Otlp__ResourceProfiles *rp = q->resource_profiles[r] =
            NEW(Otlp__ResourceProfiles, OTLP__RESOURCE_PROFILES__INIT);
        Otlp__Profile *p = NEW(Otlp__Profile, OTLP__PROFILE__INIT);
        rp->resource = NEW(Otlp__Resource, OTLP__RESOURCE__INIT);
        MANY(rp->resource->attributes, rp->resource->n_attributes, 1);
        rp->resource->attributes[0] = NEW(Otlp__KeyValue, OTLP__KEY_VALUE__INIT);
        rp->resource->attributes[0]->key = strdup("service.name");
        rp->resource->attributes[0]->value = NEW(Otlp__AnyValue, OTLP__ANY_VALUE__INIT);
        rp->resource->attributes[0]->value->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE;
        snprintf(text, sizeof text, "service %zu", r);
        rp->resource->attributes[0]->value->string_value = strdup(text);
        MANY(rp->scope_profiles, rp->n_scope_profiles, 1);
        rp->scope_profiles[0] = NEW(Otlp__ScopeProfiles, OTLP__SCOPE_PROFILES__INIT);
        MANY(rp->scope_profiles[0]->profiles, rp->scope_profiles[0]->n_profiles, 1);
        rp->scope_profiles[0]->profiles[0] = p;
        p->time_unix_nano = (uint64_t)time;
        p->period = 1;
        p->sample_type = NEW(Otlp__ValueType, OTLP__VALUE_TYPE__INIT);
        p->sample_type->type_strindex = 1;
        p->sample_type->unit_strindex = 2;
        p->period_type = NEW(Otlp__ValueType, OTLP__VALUE_TYPE__INIT);
        p->period_type->type_strindex = 1;
        p->period_type->unit_strindex = 2;
        MANY(p->samples, p->n_samples, samples);
        for (size_t i = 0; i < samples; i++) {
            p->samples[i] = NEW(Otlp__Sample, OTLP__SAMPLE__INIT);
            p->samples[i]->stack_index = (int32_t)(1 + i);
            MANY(p->samples[i]->values, p->samples[i]->n_values, 1);
            p->samples[i]->values[0] = (int64_t)(1 + i);
        }
    }
    block = flue_block_new(NULL, otlp__export_profiles_service_request__get_packed_size(q));
    block->size = otlp__export_profiles_service_request__pack(q, block->data);
    flue_block_finish(block);
    otlp__export_profiles_service_request__free_unpacked(q, NULL);
    if (flue_otlp_read(block, &payload, &report, &error) != FLUE_OK)
        fail_msg("%s", error.text);
    return payload;
}

/* The same profiles as a Pyroscope client sends them. */
static struct flue_payload *as_pprof(struct flue_payload *otlp)
{
    struct flue_payload *pprof;
    struct flue_error error;

    if (flue_convert(otlp, FLUE_FORM_PPROF, NULL, &pprof, &error) != FLUE_OK)
        fail_msg("%s", error.text);
    flue_payload_unref(otlp);
    return pprof;
}

struct bench {
    struct flue_pyroscope_config config;
    struct flue_parcel_options options;
    struct flue_label_cache cache;
    struct flue_send send;
};

static void begin(struct bench *b, struct flue_payload *payload, size_t profiles, int64_t received)
{
    struct flue_origin *origin =
        flue_origin_new(&(struct flue_origin){.received_ns = (uint64_t)received});
    struct flue_counts counts = {profiles, 1000, 100000};

    b->config.limits = (struct flue_push_limits){.profile_bytes = 2000000,
                                                 .profile_samples = 16000,
                                                 .label_names = 30,
                                                 .label_name_bytes = 1024,
                                                 .label_value_bytes = 2048,
                                                 .sample_labels = 100,
                                                 .stack_depth = 1000};
    b->options.config = &b->config;
    b->options.cache = &b->cache;
    b->options.moments = calloc(1, sizeof *b->options.moments);
    b->send = (struct flue_send){.batch = flue_batch_new(payload, origin, counts, NULL)};
    assert_true(b->options.moments && b->send.batch);
    flue_origin_unref(origin);
}

static void end(struct bench *b)
{
    flue_batch_unref(b->send.batch);
    flue_label_cache_clear(&b->cache);
    free(b->options.moments);
}

static struct flue_parcel *parcel_of(struct bench *b)
{
    struct flue_parcel *parcel;
    struct flue_error error;

    parcel = flue_parcel_new(&b->send);
    assert_non_null(parcel);
    if (flue_parcel_make(parcel, &b->options, &error) != FLUE_OK)
        fail_msg("%s", error.text);
    return parcel;
}

/* Every part reads as what is said of it; their values by frame names add up to 1, 2, 3, ... for
 * every service; no two have labels and time in common. */
static void check_parts(const struct flue_parcel *parcel, size_t services, size_t samples)
{
    int64_t *sums = calloc(samples, sizeof *sums);
    uint64_t bytes = 0, profiles = 0;

    for (size_t i = 0; i < parcel->count; i++) {
        const struct flue_parcel_part *part = parcel->parts[i];
        Pprof__Profile *p = pprof__profile__unpack(NULL, part->profile.size, part->profile.data);
        assert_non_null(p);
        assert_int_equal(p->time_nanos, part->time_nanos);
        assert_int_equal(p->n_sample, part->facts.samples);
        for (size_t s = 0; s < p->n_sample; s++) {
            uint64_t leaf = p->sample[s]->location_id[0];
            size_t number;
            const char *name = NULL;
            for (size_t l = 0; l < p->n_location; l++)
                for (size_t f = 0; p->location[l]->id == leaf && f < p->n_function; f++)
                    if (p->function[f]->id == p->location[l]->line[0]->function_id)
                        name = p->string_table[p->function[f]->name];
            assert_int_equal(sscanf(name, "function_%zu", &number), 1);
            assert_true(number < samples);
            sums[number] += p->sample[s]->value[0];
        }
        pprof__profile__free_unpacked(p, NULL);
        for (size_t k = 0; k < i; k++)
            assert_false(parcel->parts[k]->time_nanos == part->time_nanos &&
                         flue_label_set_equal(parcel->parts[k]->labels, part->labels));
        bytes += part->counts.bytes;
        profiles += part->counts.profiles;
    }
    for (size_t i = 0; i < samples; i++)
        assert_int_equal(sums[i], (int64_t)(services * (i + 1)));
    assert_int_equal(profiles, services);
    assert_true(bytes > 0);
    free(sums);
}

static void cut_by_samples_and_by_bytes(void **state)
{
    for (int form = 0; form < 4; form++) {
        struct flue_payload *payload = request(3, 100, form < 2 ? TIME : 0);
        struct bench b = {0};
        struct flue_parcel *parcel;

        begin(&b, form & 1 ? as_pprof(payload) : payload, 3, RECEIVED);
        b.config.limits.profile_samples = 16;
        parcel = parcel_of(&b);
        assert_int_equal(parcel->count, 3 * 7);
        assert_int_equal(parcel->split, 3 * 7);
        check_parts(parcel, 3, 100);
        for (size_t i = 0; i < parcel->count; i++)
            assert_true(parcel->parts[i]->facts.samples <= 16);
        flue_parcel_free(parcel);
        end(&b);

        payload = request(2, 300, form < 2 ? TIME : 0);
        b = (struct bench){0};
        begin(&b, form & 1 ? as_pprof(payload) : payload, 2, RECEIVED);
        b.config.limits.profile_bytes = 4096;
        parcel = parcel_of(&b);
        assert_true(parcel->count >= 4);
        check_parts(parcel, 2, 300);
        for (size_t i = 0; i < parcel->count; i++)
            assert_true(parcel->parts[i]->profile.size <= 4096);
        flue_parcel_free(parcel);
        end(&b);
    }
}

static void what_has_no_time_has_that_of_its_receipt(void **state)
{
    struct bench b = {0};
    struct flue_parcel *parcel;

    begin(&b, request(1, 40, 0), 1, RECEIVED);
    b.config.limits.profile_samples = 16;
    parcel = parcel_of(&b);
    assert_int_equal(parcel->count, 3);
    for (int64_t i = 0; i < 3; i++)
        assert_int_equal(parcel->parts[i]->time_nanos, RECEIVED + i);
    assert_int_equal(parcel->note.size, 0);
    flue_parcel_free(parcel);
    end(&b);
}

/* A second item with the labels and time of the first is moved, and a note has where to: another
 * process finds the same times by it, without it the item's own. */
static void a_moved_time_is_noted(void **state)
{
    struct bench b = {0}, after = {0};
    struct flue_parcel *first, *second, *again;
    struct flue_arena arena;

    flue_arena_init(&arena, 1u << 20, 0);
    begin(&b, request(2, 40, TIME), 2, RECEIVED);
    b.config.limits.profile_samples = 16;
    b.send.record = 1;
    first = parcel_of(&b);
    assert_int_equal(first->count, 6);
    assert_false(first->note_pending || first->noted);
    b.send.record = 2;
    second = parcel_of(&b);
    check_parts(second, 2, 40);
    for (size_t i = 0; i < 6; i++)
        for (size_t k = 0; k < 6; k++)
            assert_false(first->parts[i]->time_nanos == second->parts[k]->time_nanos &&
                         flue_label_set_equal(first->parts[i]->labels, second->parts[k]->labels));
    assert_true(second->note_pending && !second->noted);
    assert_int_equal(second->note.size, 6 * 12);

    begin(&after, request(2, 40, TIME), 2, RECEIVED);
    after.config.limits.profile_samples = 16;
    after.send.record = 2;
    after.options.note = flue_arena_copy(&arena, second->note);
    again = parcel_of(&after);
    assert_true(again->noted && !again->note_pending);
    check_parts(again, 2, 40);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(again->parts[i]->time_nanos, second->parts[i]->time_nanos);
    flue_parcel_free(again);
    end(&after);

    after = (struct bench){0};
    begin(&after, request(2, 40, TIME), 2, RECEIVED);
    after.config.limits.profile_samples = 16;
    after.send.record = 2;
    again = parcel_of(&after);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(again->parts[i]->time_nanos, first->parts[i]->time_nanos);
    flue_parcel_free(again);
    flue_parcel_free(second);
    flue_parcel_free(first);
    end(&after);
    end(&b);
    flue_arena_destroy(&arena);
}

/* What is in memory only needs no note. */
static void a_moved_time_in_memory(void **state)
{
    struct bench b = {0};
    struct flue_parcel *first, *second;

    begin(&b, request(1, 5, TIME), 1, RECEIVED);
    first = parcel_of(&b);
    second = parcel_of(&b);
    assert_int_equal(first->parts[0]->time_nanos, TIME);
    assert_int_equal(second->parts[0]->time_nanos, TIME + 1);
    check_parts(second, 1, 5);
    assert_false(second->note_pending || second->noted);
    flue_parcel_free(first);
    flue_parcel_free(second);
    end(&b);
}

static struct flue_parcel *windowed(struct bench *b, int outside, int64_t time, int64_t received)
{
    *b = (struct bench){0};
    begin(b, request(1, 5, time), 1, received);
    b->config.window = (struct flue_window_config){
        .older_than = 3600 * SECOND, .newer_than = 600 * SECOND, .outside = outside};
    return parcel_of(b);
}

static void what_is_outside_the_window(void **state)
{
    int64_t now = (int64_t)flue_wall_ns(), old = now - 7200 * SECOND, new = now + 7200 * SECOND;
    struct flue_parcel *parcel;
    struct bench b;

    parcel = windowed(&b, FLUE_OUTSIDE_SEND, old, now);
    assert_int_equal(parcel->parts[0]->time_nanos, old);
    assert_int_equal(parcel->parts[0]->status, FLUE_PART_OPEN);
    assert_false(parcel->parts[0]->held);
    flue_parcel_free(parcel);
    end(&b);

    for (int i = 0; i < 2; i++) {
        parcel = windowed(&b, FLUE_OUTSIDE_RESTAMP, i ? new : old, now - SECOND);
        assert_int_equal(parcel->parts[0]->time_nanos, now - SECOND);
        check_parts(parcel, 1, 5);
        flue_parcel_free(parcel);
        end(&b);
    }
    parcel = windowed(&b, FLUE_OUTSIDE_RESTAMP, old, old);
    assert_true(parcel->parts[0]->time_nanos >= now);
    check_parts(parcel, 1, 5);
    flue_parcel_free(parcel);
    end(&b);

    for (int i = 0; i < 2; i++) {
        parcel = windowed(&b, FLUE_OUTSIDE_DROP, i ? new : old, now);
        assert_int_equal(parcel->parts[0]->status, FLUE_PART_REFUSED);
        assert_int_equal(parcel->rejected.profiles, 1);
        assert_int_equal(parcel->failure.code, FLUE_REFUSED);
        assert_non_null(strstr(parcel->failure.text, i ? "newer_than" : "older_than"));
        flue_parcel_free(parcel);
        end(&b);
    }
}

static void what_is_held(void **state)
{
    int64_t now = (int64_t)flue_wall_ns();
    struct flue_parcel *parcel;
    struct bench b;
    uint32_t ms;

    parcel = windowed(&b, FLUE_OUTSIDE_HOLD, now - 7200 * SECOND, now);
    assert_true(parcel->parts[0]->held);
    assert_int_equal(parcel->parts[0]->time_nanos, now - 7200 * SECOND);
    assert_int_equal(flue_part_held_ms(parcel->parts[0], &b.config.window), 300000);
    flue_parcel_free(parcel);
    end(&b);

    parcel = windowed(&b, FLUE_OUTSIDE_HOLD, now + 3000 * SECOND, now);
    assert_true(parcel->parts[0]->held);
    ms = flue_part_held_ms(parcel->parts[0], &b.config.window);
    assert_true(ms > 1000000 && ms <= 2400001); /* until newer_than lets it, less what has passed */
    flue_parcel_free(parcel);
    end(&b);

    parcel = windowed(&b, FLUE_OUTSIDE_HOLD, now - SECOND, now);
    assert_false(parcel->parts[0]->held);
    assert_int_equal(flue_part_held_ms(parcel->parts[0], &b.config.window), 0);
    flue_parcel_free(parcel);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_by_samples_and_by_bytes),
        cmocka_unit_test(what_has_no_time_has_that_of_its_receipt),
        cmocka_unit_test(a_moved_time_is_noted),
        cmocka_unit_test(a_moved_time_in_memory),
        cmocka_unit_test(what_is_outside_the_window),
        cmocka_unit_test(what_is_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
