/* Reading requests: what is refused and why, what is taken out, repaired, relabelled, joined. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "bodies.h"
#include "proto/otlp/check.h"
#include "proto/otlp/otlp.h"
#include "schema/profiles_service.pb-c.h"

/* A small request, of which each test spoils or changes a part. */
struct request {
    struct out dictionary, resource, scope, profiles[4], resource_profiles_extra;
    unsigned profile_count;
};

static void add_sample(struct out *profile, unsigned stack, unsigned attribute, unsigned link)
{
    struct out s = {0}, run = {0};
    out_number(&s, 1, stack);
    out_varint(&run, attribute);
    out_message(&s, 2, &run);
    out_number(&s, 3, link);
    out_varint(&run, 5);
    out_message(&s, 4, &run);
    out_message(profile, 2, &s);
    out_free(&s);
    out_free(&run);
}

static struct out small_dictionary(void)
{
    struct out d = {0}, row = {0}, inner = {0};
    static const char *const strings[] = {"",       "cpu",          "ns",     "main", "thread.name",
                                          "worker", "service.name", "encoder"};
    out_message(&d, 1, &row);
    out_number(&row, 4, 3);
    out_message(&d, 1, &row); /* mapping 1 */
    out_message(&d, 2, &row);
    out_number(&row, 1, 1);
    out_number(&inner, 1, 1);
    out_message(&row, 3, &inner);
    out_message(&d, 2, &row); /* location 1 */
    out_message(&d, 3, &row);
    out_number(&row, 1, 3);
    out_message(&d, 3, &row); /* function 1 */
    out_message(&d, 4, &row);
    out_field(&row, 1, "0123456789abcdef", 16);
    out_field(&row, 2, "01234567", 8);
    out_message(&d, 4, &row); /* link 1 */
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        out_text(&d, 5, strings[i]);
    out_message(&d, 6, &row);
    out_number(&row, 1, 4);
    out_text(&inner, 1, "worker");
    out_message(&row, 2, &inner);
    out_message(&d, 6, &row); /* attribute 1 */
    out_message(&d, 7, &row);
    out_varint(&inner, 1);
    out_message(&row, 1, &inner);
    out_message(&d, 7, &row); /* stack 1 */
    out_free(&row);
    out_free(&inner);
    return d;
}

static struct request small(void)
{
    struct request r = {.profile_count = 2};
    struct out type = {0};
    r.dictionary = small_dictionary();
    out_key_value(&r.resource, 1, "service.name", "encoder");
    out_text(&r.scope, 1, "test");
    for (unsigned i = 0; i < 2; i++) {
        out_number(&type, 1, 1);
        out_number(&type, 2, 2);
        out_message(&r.profiles[i], 1, &type);
        for (unsigned k = 0; k < 3; k++)
            add_sample(&r.profiles[i], 1, 1, 1);
    }
    out_free(&type);
    return r;
}

/* Frees the parts. */
static struct out assemble(struct request *r)
{
    struct out body = {0}, sp = {0}, rp = {0};
    if (r->scope.size)
        out_message(&sp, 1, &r->scope);
    for (unsigned i = 0; i < r->profile_count; i++) {
        out_message(&sp, 2, &r->profiles[i]);
        out_free(&r->profiles[i]);
    }
    if (r->resource.size)
        out_message(&rp, 1, &r->resource);
    out_message(&rp, 2, &sp);
    out_bytes(&rp, r->resource_profiles_extra.data, r->resource_profiles_extra.size);
    out_message(&body, 1, &rp);
    if (r->dictionary.size)
        out_message(&body, 2, &r->dictionary);
    out_free(&r->dictionary);
    out_free(&r->resource);
    out_free(&r->scope);
    out_free(&r->resource_profiles_extra);
    out_free(&sp);
    out_free(&rp);
    return body;
}

static enum flue_code read_body(struct out *body, struct flue_payload **payload,
                                struct flue_otlp_report *report, struct flue_error *error)
{
    enum flue_code code;
    memset(error, 0, sizeof *error);
    code = flue_otlp_read(block_of(body->data, body->size), payload, report, error);
    out_free(body);
    return code;
}

static Otlp__ExportProfilesServiceRequest *decoded(const struct flue_payload *payload)
{
    struct flue_slices slices = {0};
    struct flue_arena arena;
    struct flue_block *block;
    struct flue_otlp_index index;
    Otlp__ExportProfilesServiceRequest *r;
    flue_arena_init(&arena, 64u << 20, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, NULL), FLUE_OK);
    block = flue_block_new(NULL, slices.total);
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
static void release(Otlp__ExportProfilesServiceRequest *r)
{
    otlp__export_profiles_service_request__free_unpacked(r, NULL);
}

static void good_request(void **state)
{
    struct request r = small();
    struct out body = assemble(&r);
    size_t size = body.size;
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    struct flue_value value;
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
    assert_int_equal(report.layout, FLUE_OTLP_1_10);
    assert_int_equal(report.counts.profiles, 2);
    assert_int_equal(report.counts.samples, 6);
    assert_int_equal(report.counts.bytes, size);
    assert_int_equal(payload->ops->encoded_size(payload), size);
    assert_true(payload->ops->attribute_get(payload, 0, FLUE_BYTES("service.name"), &value));
    assert_true(flue_bytes_is(value.text, "encoder"));
    flue_payload_unref(payload);
}

static void empty_requests(void **state)
{
    struct out body = {0};
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
    assert_null(payload);
    body = (struct out){0};
    out_text(&body, 1, "");
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
    assert_null(payload);
}

/* Each bad index: the Profile that reaches it goes, the other stays, and the reason names the way.
 */
static void bad_indices(void **state)
{
    static const struct {
        unsigned stack, attribute, link;
        const char *reason;
    } cases[] = {
        {2, 1, 1,
         "resource_profiles[0].scope_profiles[0].profiles[1].samples[3].stack_index: 2, but "
         "stack_table has 2 rows"},
        {1, 2, 1, "profiles[1].samples[3].attribute_indices[0]: 2, but attribute_table has 2 rows"},
        {1, 1, 9, "profiles[1].samples[3].link_index: 9, but link_table has 2 rows"},
    };
    for (size_t i = 0; i < 3; i++) {
        struct request r = small();
        struct out body;
        struct flue_payload *payload;
        struct flue_otlp_report report;
        struct flue_error error;
        Otlp__ExportProfilesServiceRequest *d;
        add_sample(&r.profiles[1], cases[i].stack, cases[i].attribute, cases[i].link);
        body = assemble(&r);
        assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
        assert_int_equal(report.rejected_profiles, 1);
        assert_int_equal(report.rejected_samples, 4);
        assert_int_equal(report.counts.profiles, 1);
        assert_int_equal(report.counts.samples, 3);
        if (!strstr(report.rejected_reason, cases[i].reason))
            fail_msg("%s", report.rejected_reason);
        d = decoded(payload);
        assert_int_equal(d->resource_profiles[0]->scope_profiles[0]->n_profiles, 1);
        release(d);
        flue_payload_unref(payload);
    }
}

/* A stack whose location's line's function does not exist: found through all rows; rows are empty
 * afterwards; when every Profile reaches it, the request is refused with the way down. */
static void bad_rows(void **state)
{
    for (int both = 0; both < 2; both++) {
        struct request r = small();
        struct out body, row = {0}, inner = {0};
        struct flue_payload *payload;
        struct flue_otlp_report report;
        struct flue_error error;
        out_number(&inner, 1, 77);
        out_message(&row, 3, &inner);
        out_message(&r.dictionary, 2, &row); /* location 2 */
        out_varint(&inner, 2);
        out_message(&row, 1, &inner);
        out_message(&r.dictionary, 7, &row); /* stack 2 */
        out_free(&row);
        out_free(&inner);
        add_sample(&r.profiles[0], 2, 1, 1);
        if (both)
            add_sample(&r.profiles[1], 2, 1, 1);
        body = assemble(&r);
        if (both) {
            assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_INVALID);
            assert_null(payload);
            assert_int_equal(report.rejected_profiles, 2);
            assert_string_equal(error.text,
                                "resource_profiles[0].scope_profiles[0].profiles[0].samples[3]."
                                "stack_index: 2, a bad "
                                "row: dictionary.stack_table[2].location_indices[0]: 2, a bad row: "
                                "dictionary.location_table[2].lines[0].function_index: 77, but "
                                "function_table has 2 "
                                "rows");
        } else {
            Otlp__ExportProfilesServiceRequest *d;
            assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
            assert_int_equal(report.rejected_profiles, 1);
            d = decoded(payload);
            assert_int_equal(d->dictionary->n_stack_table, 3);
            assert_int_equal(d->dictionary->stack_table[2]->n_location_indices, 0);
            assert_int_equal(d->dictionary->location_table[2]->n_lines, 0);
            release(d);
            flue_payload_unref(payload);
        }
    }
}

static void bad_row_that_nothing_reaches(void **state)
{
    struct request r = small();
    struct out body, row = {0};
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    out_field(&row, 1, "short", 5);
    out_message(&r.dictionary, 4, &row);
    out_free(&row);
    body = assemble(&r);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
    assert_int_equal(report.rejected_profiles, 0);
    assert_int_equal(report.counts.samples, 6);
    release(decoded(payload));
    flue_payload_unref(payload);
}

static void bad_shapes(void **state)
{
    for (int kind = 0; kind < 2; kind++) {
        struct request r = small();
        struct out body, s = {0};
        struct flue_payload *payload;
        struct flue_otlp_report report;
        struct flue_error error;
        out_number(&s, 1, 1);
        if (kind == 0) {
            out_number(&s, 4, 1);
            out_number(&s, 4, 2);
            out_fixed(&s, 5, 100);
        }
        out_message(&r.profiles[0], 2, &s);
        out_free(&s);
        body = assemble(&r);
        assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
        assert_int_equal(report.rejected_profiles, 1);
        assert_non_null(
            strstr(report.rejected_reason, kind == 0 ? "samples[3]: 2 values, but 1 timestamps"
                                                     : "neither values nor timestamps"));
        flue_payload_unref(payload);
    }
}

static void negative_index(void **state)
{
    struct request r = small();
    struct out body, s = {0};
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    out_number(&s, 1, UINT64_MAX);
    out_number(&s, 4, 1);
    out_message(&r.profiles[0], 2, &s);
    out_free(&s);
    body = assemble(&r);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
    assert_non_null(strstr(report.rejected_reason, "stack_index: -1, but stack_table"));
    flue_payload_unref(payload);
}

/* Another Collector refuses a whole request for it. */
static void id_of_another_size(void **state)
{
    for (size_t size = 0; size < 33; size++) {
        struct request r = small();
        struct flue_payload *payload;
        struct flue_otlp_report report;
        struct flue_error error;
        out_field(&r.profiles[0], 7, "0123456789abcdef0123456789abcdef", size);
        struct out body = assemble(&r);
        assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
        assert_int_equal(report.rejected_profiles, size != 0 && size != 16);
        if (report.rejected_profiles)
            assert_non_null(strstr(report.rejected_reason, "profile_id: "));
        flue_payload_unref(payload);
    }
}

/* Without a table, index 0 is "not set". */
static void empty_tables(void **state)
{
    struct request r = small();
    struct out body, run = {0}, row = {0};
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    r.profile_count = 1;
    r.dictionary.size = 0;
    out_number(&row, 1, 0);
    out_message(&r.dictionary, 2, &row);
    out_varint(&run, 0);
    out_message(&row, 1, &run);
    out_message(&r.dictionary, 7, &row);
    r.profiles[0].size = 0;
    add_sample(&r.profiles[0], 0, 0, 0);
    out_free(&r.profiles[1]);
    out_free(&row);
    out_free(&run);
    body = assemble(&r);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
    assert_int_equal(report.rejected_profiles, 0);
    assert_int_equal(report.counts.samples, 1);
    flue_payload_unref(payload);
}

static void broken_structure_names_the_field(void **state)
{
    struct request r = small();
    struct out body;
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    out_number(&r.dictionary, 5, 3); /* a string as a varint */
    body = assemble(&r);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_INVALID);
    assert_string_equal(error.text, "dictionary.string_table[8]: wire type 0, but the field has 2");
    r = small();
    out_bytes(&r.resource, "\x0a\x7f", 2);
    body = assemble(&r);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_INVALID);
    assert_non_null(strstr(error.text, "resource_profiles[0].resource: broken at byte"));
}

static void invalid_utf8_is_repaired(void **state)
{
    struct request r = small();
    struct out body;
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    Otlp__ExportProfilesServiceRequest *d;
    out_key_value(&r.resource, 1, "cut", "caf\xc3");
    out_text(&r.dictionary, 5, "\xff tail");
    body = assemble(&r);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
    assert_int_equal(report.repaired_strings, 2);
    d = decoded(payload);
    assert_string_equal(d->resource_profiles[0]->resource->attributes[1]->value->string_value,
                        "caf\xef\xbf\xbd");
    assert_string_equal(d->dictionary->string_table[8], "\xef\xbf\xbd tail");
    release(d);
    flue_payload_unref(payload);
}

static void references_become_plain(void **state)
{
    struct request r = small();
    struct out body, any = {0}, kv = {0};
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    struct flue_value value;
    Otlp__ExportProfilesServiceRequest *d;
    r.resource.size = 0;
    out_number(&any, 8, 7);
    out_number(&kv, 3, 6);
    out_message(&kv, 2, &any);
    out_message(&r.resource, 1, &kv); /* service.name=encoder, both by reference */
    out_text(&kv, 1, "plain");
    out_number(&kv, 3, 6);
    out_text(&any, 1, "x");
    out_message(&kv, 2, &any);
    out_message(&r.resource, 1, &kv); /* a key that is not empty wins */
    out_number(&kv, 3, 4);
    out_text(&kv, 1, "");
    out_message(&r.scope, 3, &kv); /* one that is empty does not */
    out_free(&any);
    out_free(&kv);
    body = assemble(&r);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
    assert_true(payload->ops->attribute_get(payload, 0, FLUE_BYTES("service.name"), &value));
    assert_true(flue_bytes_is(value.text, "encoder"));
    assert_true(payload->ops->attribute_get(payload, 0, FLUE_BYTES("plain"), &value));
    d = decoded(payload);
    assert_string_equal(d->resource_profiles[0]->scope_profiles[0]->scope->attributes[0]->key,
                        "thread.name");
    assert_int_equal(d->resource_profiles[0]->resource->attributes[0]->key_strindex, 0);
    release(d);
    flue_payload_unref(payload);

    r = small(); /* beyond the table: the Profiles under it go */
    out_number(&kv, 3, 99);
    out_message(&r.resource, 1, &kv);
    out_free(&kv);
    body = assemble(&r);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_INVALID);
    assert_non_null(strstr(error.text, "resource_profiles[0].resource.attributes[1].key_strindex: "
                                       "99, but string_table has 8 rows"));
}

static void parts_are_joined(void **state)
{
    struct request r = small();
    struct out body, second = {0}, more = {0};
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    struct flue_value value;
    Otlp__ExportProfilesServiceRequest *d;
    out_key_value(&second, 1, "team", "video");
    out_message(&r.resource_profiles_extra, 1, &second);
    out_key_value(&second, 1, "zone", "b");
    out_message(&r.resource_profiles_extra, 1, &second);
    body = assemble(&r);
    out_text(&second, 5, "late");
    out_message(&body, 2, &second);
    more = body;
    out_free(&second);
    assert_int_equal(read_body(&more, &payload, &report, &error), FLUE_OK);
    assert_int_equal(report.counts.samples, 6);
    assert_true(payload->ops->attribute_get(payload, 0, FLUE_BYTES("service.name"), &value));
    assert_true(payload->ops->attribute_get(payload, 0, FLUE_BYTES("team"), &value));
    assert_true(payload->ops->attribute_get(payload, 0, FLUE_BYTES("zone"), &value));
    d = decoded(payload);
    assert_int_equal(d->dictionary->n_string_table, 9);
    assert_int_equal(d->resource_profiles[0]->resource->n_attributes, 3);
    release(d);
    flue_payload_unref(payload);
}

/* A known field under a two-byte tag is the same field. */
static void long_tags(void **state)
{
    struct request r = small();
    struct out body, rp = {0}, kv = {0};
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    struct flue_value value;
    out_key_value(&kv, 1, "team", "video");
    out_bytes(&rp, "\x8a\x00", 2); /* Resource.attributes */
    out_bytes(&rp, kv.data + 1, kv.size - 1);
    out_bytes(&r.resource, rp.data, rp.size);
    body = assemble(&r);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
    assert_true(payload->ops->attribute_get(payload, 0, FLUE_BYTES("team"), &value));
    assert_true(flue_bytes_is(value.text, "video"));
    flue_payload_unref(payload);
    out_free(&rp);
    out_free(&kv);
}

/* ---------------------------------------------------------------- layouts */

/* The same request as `small` in an older layout. */
static struct out old_body(enum flue_otlp_layout layout)
{
    struct request r = small();
    struct out s = {0}, run = {0};
    bool first = layout == FLUE_OTLP_1_8;
    for (unsigned i = 0; i < 2; i++) {
        r.profiles[i].size = 0;
        for (unsigned k = 0; k < 3; k++) {
            out_number(&s, 1, 1);
            out_varint(&run, 5);
            out_varint(&run, 700);
            out_message(&s, 2, &run);
            out_varint(&run, 1);
            out_message(&s, 3, &run);
            out_number(&s, 4, 1);
            out_fixed(&s, 5, 1000);
            out_fixed(&s, 5, 1001);
            out_message(&r.profiles[i], 2, &s);
        }
        out_number(&run, 1, 1);
        out_number(&run, 2, 2);
        if (first)
            out_number(&run, 3, 1); /* aggregation_temporality */
        out_message(&r.profiles[i], 1, &run);
        out_fixed(&r.profiles[i], 3, 999);
        if (first && i == 1) {
            out_varint(&run, 3);
            out_varint(&run, 5);
            out_message(&r.profiles[i], 7, &run);
        }
        out_field(&r.profiles[i], first ? 8 : 7, "0123456789abcdef", 16);
        out_number(&r.profiles[i], first ? 9 : 8, 4);
        out_text(&r.profiles[i], first ? 10 : 9, "jfr");
        out_text(&r.profiles[i], first ? 11 : 10, "payload");
        out_varint(&run, 1);
        out_message(&r.profiles[i], first ? 12 : 11, &run);
    }
    out_free(&s);
    out_free(&run);
    return assemble(&r);
}

static void old_layouts(void **state)
{
    for (int layout = FLUE_OTLP_1_8; layout <= FLUE_OTLP_1_9; layout++) {
        struct out body = old_body(layout);
        struct flue_payload *payload;
        struct flue_otlp_report report;
        struct flue_error error;
        Otlp__ExportProfilesServiceRequest *d;
        assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_OK);
        assert_int_equal(report.layout, layout);
        assert_int_equal(report.rejected_profiles, 0);
        assert_int_equal(report.counts.samples, 6);
        d = decoded(payload);
        for (int i = 0; i < 2; i++) {
            Otlp__Profile *p = d->resource_profiles[0]->scope_profiles[0]->profiles[i];
            assert_int_equal(p->samples[0]->n_values, 2);
            assert_int_equal(p->samples[0]->values[1], 700);
            assert_int_equal(p->samples[0]->n_attribute_indices, 1);
            assert_int_equal(p->samples[0]->link_index, 1);
            assert_int_equal(p->samples[0]->n_timestamps_unix_nano, 2);
            assert_int_equal(p->profile_id.len, 16);
            assert_int_equal(p->dropped_attributes_count, 4);
            assert_string_equal(p->original_payload_format, "jfr");
            assert_int_equal(p->original_payload.len, 7);
            assert_int_equal(p->n_attribute_indices, layout == FLUE_OTLP_1_8 && i == 1 ? 2 : 1);
            if (layout == FLUE_OTLP_1_8 && i == 1) {
                Otlp__KeyValueAndUnit *row =
                    d->dictionary
                        ->attribute_table[p->attribute_indices[0] == 1 ? p->attribute_indices[1]
                                                                       : p->attribute_indices[0]];
                assert_string_equal(d->dictionary->string_table[row->key_strindex],
                                    "pprof.profile.comment");
                assert_int_equal(row->value->array_value->n_values, 2);
                assert_string_equal(row->value->array_value->values[1]->string_value, "worker");
            }
        }
        release(d);
        flue_payload_unref(payload);
    }
}

/* A body that somebody else holds is not written to. */
static void old_layout_of_a_shared_block(void **state)
{
    struct out body = old_body(FLUE_OTLP_1_9);
    struct flue_block *block = block_of(body.data, body.size);
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    assert_int_equal(flue_otlp_read(flue_block_ref(block), &payload, &report, &error), FLUE_OK);
    assert_memory_equal(block->data, body.data, body.size);
    flue_payload_unref(payload);
    flue_block_unref(block);
    out_free(&body);
}

static void older_layouts_are_named(void **state)
{
    struct out body = {0}, profile = {0}, sample = {0}, sp = {0}, rp = {0}, d = {0};
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    /* v1.7: location_indices 3, time 4, duration 5, period_type 6 */
    out_number(&sample, 1, 0);
    out_number(&sample, 2, 2);
    out_number(&sample, 3, 9);
    out_message(&profile, 2, &sample);
    out_field(&profile, 3, "\x01\x02", 2);
    out_number(&profile, 4, 1790000000000000000u);
    out_number(&profile, 5, 1000);
    out_text(&profile, 6, "");
    out_message(&sp, 2, &profile);
    out_message(&rp, 2, &sp);
    out_message(&body, 1, &rp);
    out_text(&d, 5, "");
    out_message(&body, 2, &d);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_INVALID);
    assert_non_null(strstr(error.text, "layout v1.7 (no stack_table) is not supported"));
    /* v1.4: tables in the Profile */
    out_text(&profile, 3, "");
    out_text(&profile, 4, "");
    out_text(&profile, 6, "");
    out_text(&profile, 10, "");
    out_message(&sp, 2, &profile);
    out_message(&rp, 2, &sp);
    out_message(&body, 1, &rp);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_INVALID);
    assert_non_null(strstr(error.text, "v1.4 or v1.5"));
    /* v1.3: ProfileContainer */
    out_text(&profile, 1, "0123456789abcdef");
    out_fixed(&profile, 2, 17);
    out_fixed(&profile, 3, 18);
    out_message(&sp, 2, &profile);
    out_message(&rp, 2, &sp);
    out_message(&body, 1, &rp);
    assert_int_equal(read_body(&body, &payload, &report, &error), FLUE_INVALID);
    assert_non_null(strstr(error.text, "v1.3"));
    out_free(&profile);
    out_free(&sample);
    out_free(&sp);
    out_free(&rp);
    out_free(&d);
}

/* The public bodies in v1.8 (they stay where they are). */
static void bodies_from_elsewhere(void **state)
{
    struct out *o = load_file(FLUE_SOURCE_DIR "/../shared/corpus/otlp/sig-v1.9-message.otlp");
    struct out *framed =
        load_file(FLUE_SOURCE_DIR "/../shared/corpus/otlp/sig-v1.9-k8s-u32be-framed.otlp");
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    if (!o || !framed) {
        print_message("../shared is absent: v1.8 bodies from elsewhere not read\n");
        return;
    }
    assert_int_equal(read_body(o, &payload, &report, &error), FLUE_OK);
    assert_int_equal(report.layout, FLUE_OTLP_1_8);
    assert_int_equal(report.rejected_profiles, 0);
    assert_int_equal(report.counts.samples, 49);
    release(decoded(payload));
    flue_payload_unref(payload);
    for (size_t at = 0, k = 0; at + 4 < framed->size; k++) {
        const uint8_t *p = framed->data + at;
        size_t size = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        assert_true(at + 4 + size <= framed->size);
        assert_int_equal(flue_otlp_read(block_of(p + 4, size), &payload, &report, &error), FLUE_OK);
        assert_int_equal(report.layout, FLUE_OTLP_1_8);
        assert_int_equal(report.counts.samples, k ? 107 : 58);
        release(decoded(payload));
        flue_payload_unref(payload);
        at += 4 + size;
    }
    out_free(framed);
    free(framed);
    free(o);
}

/* Charges go up and come back to nothing. */
static void accounts_balance(void **state)
{
    struct flue_budget budget;
    struct flue_account account;
    struct flue_payload *payload, *copy;
    struct flue_otlp_report report;
    struct flue_error error;
    struct request r = small();
    struct out body;
    struct flue_block *block;
    flue_budget_init(&budget, 1 << 20);
    flue_account_init(&account, &budget, "profiles", 0);
    out_text(&r.dictionary, 5, "\xff"); /* rewritten */
    body = assemble(&r);
    block = flue_block_copy(&account, flue_bytes(body.data, body.size));
    flue_block_finish(block);
    assert_int_equal(flue_otlp_read(block, &payload, &report, &error), FLUE_OK);
    assert_true(atomic_load(&account.used) > (int64_t)body.size);
    copy = payload->ops->clone(payload, &error);
    assert_int_equal(copy->ops->attribute_remove(copy, 0, FLUE_BYTES("service.name"), &error),
                     FLUE_OK);
    flue_payload_unref(payload);
    flue_payload_unref(copy);
    assert_int_equal(atomic_load(&account.used), 0);
    assert_int_equal(atomic_load(&budget.used), 0);
    out_free(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_request),
        cmocka_unit_test(empty_requests),
        cmocka_unit_test(bad_indices),
        cmocka_unit_test(bad_rows),
        cmocka_unit_test(id_of_another_size),
        cmocka_unit_test(bad_row_that_nothing_reaches),
        cmocka_unit_test(bad_shapes),
        cmocka_unit_test(negative_index),
        cmocka_unit_test(empty_tables),
        cmocka_unit_test(broken_structure_names_the_field),
        cmocka_unit_test(invalid_utf8_is_repaired),
        cmocka_unit_test(references_become_plain),
        cmocka_unit_test(parts_are_joined),
        cmocka_unit_test(long_tags),
        cmocka_unit_test(old_layouts),
        cmocka_unit_test(old_layout_of_a_shared_block),
        cmocka_unit_test(older_layouts_are_named),
        cmocka_unit_test(bodies_from_elsewhere),
        cmocka_unit_test(accounts_balance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
