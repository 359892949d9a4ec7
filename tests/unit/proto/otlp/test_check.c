/* The fast walks (both), the exact judge and protobuf-c, on real bodies and on mutants of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "bodies.h"
#include "proto/otlp/check.h"
#include "proto/otlp/judge.h"
#include "proto/otlp/otlp.h"
#include "schema/profiles_service.pb-c.h"

#define MAX_INDEX (64u << 20)

/* ------------------------------------- the oracle: decoded, and checked index by index */

struct oracle {
    Otlp__ProfilesDictionary *d;
    bool good;
};

static void in(struct oracle *o, int64_t index, size_t rows)
{
    if (index < 0 || (uint64_t)index >= (rows ? rows : 1))
        o->good = false;
}

static void all_in(struct oracle *o, const int32_t *indices, size_t count, size_t rows)
{
    for (size_t i = 0; i < count; i++)
        in(o, indices[i], rows);
}

static void oracle_dictionary(struct oracle *o)
{
    Otlp__ProfilesDictionary *d = o->d;
    for (size_t i = 0; i < d->n_mapping_table; i++) {
        in(o, d->mapping_table[i]->filename_strindex, d->n_string_table);
        all_in(o, d->mapping_table[i]->attribute_indices, d->mapping_table[i]->n_attribute_indices,
               d->n_attribute_table);
    }
    for (size_t i = 0; i < d->n_location_table; i++) {
        Otlp__Location *l = d->location_table[i];
        in(o, l->mapping_index, d->n_mapping_table);
        all_in(o, l->attribute_indices, l->n_attribute_indices, d->n_attribute_table);
        for (size_t k = 0; k < l->n_lines; k++)
            in(o, l->lines[k]->function_index, d->n_function_table);
    }
    for (size_t i = 0; i < d->n_function_table; i++) {
        in(o, d->function_table[i]->name_strindex, d->n_string_table);
        in(o, d->function_table[i]->system_name_strindex, d->n_string_table);
        in(o, d->function_table[i]->filename_strindex, d->n_string_table);
    }
    for (size_t i = 0; i < d->n_link_table; i++) {
        size_t trace = d->link_table[i]->trace_id.len, span = d->link_table[i]->span_id.len;
        if ((trace && trace != 16) || (span && span != 8))
            o->good = false;
    }
    for (size_t i = 0; i < d->n_attribute_table; i++) {
        in(o, d->attribute_table[i]->key_strindex, d->n_string_table);
        in(o, d->attribute_table[i]->unit_strindex, d->n_string_table);
    }
    for (size_t i = 0; i < d->n_stack_table; i++)
        all_in(o, d->stack_table[i]->location_indices, d->stack_table[i]->n_location_indices,
               d->n_location_table);
}

static void oracle_profile(struct oracle *o, Otlp__Profile *p)
{
    Otlp__ProfilesDictionary *d = o->d;
    if (p->profile_id.len && p->profile_id.len != 16)
        o->good = false;
    all_in(o, p->attribute_indices, p->n_attribute_indices, d->n_attribute_table);
    if (p->sample_type) {
        in(o, p->sample_type->type_strindex, d->n_string_table);
        in(o, p->sample_type->unit_strindex, d->n_string_table);
    }
    if (p->period_type) {
        in(o, p->period_type->type_strindex, d->n_string_table);
        in(o, p->period_type->unit_strindex, d->n_string_table);
    }
    for (size_t i = 0; i < p->n_samples; i++) {
        Otlp__Sample *s = p->samples[i];
        in(o, s->stack_index, d->n_stack_table);
        in(o, s->link_index, d->n_link_table);
        all_in(o, s->attribute_indices, s->n_attribute_indices, d->n_attribute_table);
        if ((!s->n_values && !s->n_timestamps_unix_nano) ||
            (s->n_values && s->n_timestamps_unix_nano && s->n_values != s->n_timestamps_unix_nano))
            o->good = false;
    }
}

/* Decodes, checks everything; counts what the index must count. */
static bool oracle(struct flue_bytes body, const struct flue_otlp_index *index)
{
    Otlp__ExportProfilesServiceRequest *r =
        otlp__export_profiles_service_request__unpack(NULL, body.size, body.data);
    Otlp__ProfilesDictionary none = OTLP__PROFILES_DICTIONARY__INIT;
    struct oracle o = {.good = true};
    uint64_t scopes = 0, profiles = 0, samples = 0;

    if (!r)
        return false;
    o.d = r->dictionary ? r->dictionary : &none;
    oracle_dictionary(&o);
    for (size_t i = 0; i < r->n_resource_profiles; i++) {
        Otlp__ResourceProfiles *rp = r->resource_profiles[i];
        scopes += rp->n_scope_profiles;
        for (size_t k = 0; k < rp->n_scope_profiles; k++) {
            profiles += rp->scope_profiles[k]->n_profiles;
            for (size_t j = 0; j < rp->scope_profiles[k]->n_profiles; j++) {
                samples += rp->scope_profiles[k]->profiles[j]->n_samples;
                oracle_profile(&o, rp->scope_profiles[k]->profiles[j]);
            }
        }
    }
    if (o.good && index) {
        assert_int_equal(index->resource_count, r->n_resource_profiles);
        assert_int_equal(index->scope_count, scopes);
        assert_int_equal(index->profile_count, profiles);
        assert_int_equal(index->samples, samples);
        assert_int_equal(index->rows[FLUE_OTLP_STACK], o.d->n_stack_table);
        assert_int_equal(index->rows[FLUE_OTLP_STRING], o.d->n_string_table);
    }
    otlp__export_profiles_service_request__free_unpacked(r, NULL);
    return o.good;
}

/* ------------------------------------------------------------- agreement */

static uint64_t seen_clean, seen_alarm, seen_false, seen_refused, seen_passed;

static void same_index(const struct flue_otlp_index *a, const struct flue_otlp_index *b)
{
    assert_int_equal(a->resource_count, b->resource_count);
    assert_int_equal(a->scope_count, b->scope_count);
    assert_int_equal(a->profile_count, b->profile_count);
    assert_memory_equal(a->rows, b->rows, sizeof a->rows);
    if (a->profile_count)
        assert_memory_equal(a->profiles, b->profiles, a->profile_count * sizeof *a->profiles);
    if (a->resource_count)
        assert_memory_equal(a->resources, b->resources, a->resource_count * sizeof *a->resources);
}

/* What flue_otlp_read lets through must be good in every respect. */
static void read_agrees(struct flue_bytes body)
{
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error = {0};
    enum flue_code code = flue_otlp_read(block_of(body.data, body.size), &payload, &report, &error);
    struct flue_otlp_index index;
    struct flue_slices slices = {0};
    struct flue_arena arena;
    struct flue_block *out;
    uint32_t alarms;

    if (code != FLUE_OK || !payload) {
        assert_null(payload);
        if (code != FLUE_OK) {
            assert_int_equal(code, FLUE_INVALID);
            assert_true(error.text[0]);
            assert_null(strstr(error.text, "please report"));
        }
        seen_refused++;
        return;
    }
    seen_passed++;
    flue_arena_init(&arena, 64u << 20, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, &error), FLUE_OK);
    assert_int_equal(slices.total, payload->ops->encoded_size(payload));
    out = flue_block_new(NULL, slices.total);
    flue_slices_copy(&slices, out->data);
    out->size = slices.total;
    flue_block_finish(out);
    alarms = flue_otlp_check(flue_block_bytes(out), MAX_INDEX, &index);
    assert_int_equal(alarms & ~(uint32_t)FLUE_OTLP_RANGE, 0);
    assert_true(oracle(flue_block_bytes(out), &index));
    assert_int_equal(report.counts.profiles, index.profile_count);
    assert_int_equal(report.counts.samples, index.samples);
    flue_otlp_index_clear(&index);
    flue_block_unref(out);
    flue_arena_destroy(&arena);
    flue_payload_unref(payload);
}

static void agree(const uint8_t *data, size_t size)
{
    struct flue_block *block = block_of(data, size);
    struct flue_bytes body = flue_block_bytes(block);
    struct flue_otlp_index fast, portable;
    uint32_t a = flue_otlp_check(body, MAX_INDEX, &fast);
    uint32_t b = flue_otlp_check_portable(body, MAX_INDEX, &portable);
    struct flue_otlp_verdict verdict;
    struct flue_error error;
    enum flue_code code = flue_otlp_judge(body, &verdict, &error);
    bool bad = code != FLUE_OK || verdict.bad_count;
    for (unsigned t = 1; t < FLUE_OTLP_TABLES; t++)
        bad |= verdict.bad_rows[t] != NULL;

    assert_int_equal(a, b);
    if (!(a & FLUE_OTLP_BROKEN))
        same_index(&fast, &portable);
    if (a == 0) {
        seen_clean++;
        assert_false(bad);
        assert_true(oracle(body, &fast));
    } else {
        seen_alarm++;
        seen_false += !bad;
    }
    /* Structure is never alarmed falsely. */
    if (code == FLUE_OK)
        assert_int_equal(a & (FLUE_OTLP_BROKEN | FLUE_OTLP_DEPTH), 0);
    else
        assert_int_not_equal(a & (FLUE_OTLP_BROKEN | FLUE_OTLP_DEPTH | FLUE_OTLP_RANGE), 0);
    if (!bad && !(a & FLUE_OTLP_TWICE))
        assert_true(oracle(body, NULL));
    flue_otlp_index_clear(&fast);
    flue_otlp_index_clear(&portable);
    flue_otlp_verdict_clear(&verdict);
    flue_block_unref(block);
    read_agrees(flue_bytes(data, size));
}

static void real_bodies_are_clean(void **state)
{
    for (size_t i = 0; i < BODIES_OURS; i++) {
        struct out *o = load_ours(i);
        struct flue_block *block = block_of(o->data, o->size);
        struct flue_otlp_index index;
        uint32_t alarms = flue_otlp_check(flue_block_bytes(block), MAX_INDEX, &index);
        if (alarms)
            fprintf(stderr, "%s: alarms %#x\n", bodies_ours[i], alarms);
        assert_int_equal(alarms, 0);
        assert_true(index.samples > 0);
        assert_true(oracle(flue_block_bytes(block), &index));
        flue_otlp_index_clear(&index);
        flue_block_unref(block);
        out_free(o);
        free(o);
    }
}

static void made_bodies_are_clean(void **state)
{
    static const struct made shapes[] = {
        {3, 50, 40, 30, 100, 60, false, false},       {3, 50, 40, 30, 100, 60, true, true},
        {1, 300, 300, 60, 9000, 500, false, true},    {1, 300, 300, 60, 9000, 500, true, false},
        {1, 100, 900, 90, 40000, 20000, true, false}, {1, 1, 2, 1, 2, 2, false, false},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct out o = make_body(&shapes[i]);
        agree(o.data, o.size);
        out_free(&o);
    }
    assert_true(seen_clean >= 6);
}

/* Made bodies: the greatest index that is good, and the least that is not, for limits whose
 * encodings have one, two and three bytes; in a run of any length. */
static void limits_of_stacks(void **state)
{
    static const unsigned rows[] = {1, 2, 127, 128, 129, 200, 16383, 16384, 16385, 20000, 70000};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (unsigned length = 1; length < 150; length += length < 70 ? 1 : 13) {
            for (int over = 0; over < 2; over++) {
                struct out body = {0}, d = {0}, stack = {0}, run = {0};
                struct flue_block *block;
                struct flue_otlp_index index;
                unsigned at = (length * 7 + rows[i]) % length;
                uint64_t seed = 12345 + length;
                uint32_t alarms;
                bool last = rows[i] % 2;
                for (unsigned k = 0; k < length; k++)
                    out_varint(&run, k == at ? rows[i] - 1 + (unsigned)over
                                             : random_next(&seed) % rows[i]);
                out_message(&stack, 1, &run);
                if (!last)
                    out_message(&d, 7, &stack);
                for (unsigned k = 0; k < rows[i]; k++)
                    out_field(&d, 2, "", 0);
                if (last)
                    out_message(&d, 7, &stack);
                out_message(&body, 2, &d);
                block = block_of(body.data, body.size);
                alarms = flue_otlp_check(flue_block_bytes(block), MAX_INDEX, &index);
                assert_int_equal(alarms, over ? FLUE_OTLP_RANGE : 0);
                flue_otlp_index_clear(&index);
                alarms = flue_otlp_check_portable(flue_block_bytes(block), MAX_INDEX, &index);
                assert_int_equal(alarms, over ? FLUE_OTLP_RANGE : 0);
                flue_otlp_index_clear(&index);
                flue_block_unref(block);
                out_free(&body);
                out_free(&d);
                out_free(&stack);
                out_free(&run);
            }
        }
    }
}

static void truncation_at_every_byte(void **state)
{
    for (size_t i = 0; i < BODIES_OURS; i++) {
        struct out *o = load_ours(i);
        size_t step = o->size > 8000 ? 97 : 1;
        for (size_t n = 0; n < o->size; n += step)
            agree(o->data, n);
        out_free(o);
        free(o);
    }
}

/* Changes one thing somewhere. */
static void mutate(struct out *o, uint64_t *seed)
{
    size_t at = random_next(seed) % o->size;
    switch (random_next(seed) % 6) {
    case 0:
        o->data[at] ^= (uint8_t)(1 << random_next(seed) % 8);
        break;
    case 1:
        o->data[at] = (uint8_t)random_next(seed);
        break;
    case 2:
        o->data[at]++;
        break;
    case 3:
        o->data[at]--;
        break;
    case 4: { /* another tag, mostly one that there is */
        static const uint8_t tags[] = {0x08, 0x0a, 0x10, 0x12, 0x18, 0x1a, 0x20, 0x22, 0x28, 0x2a,
                                       0x30, 0x32, 0x38, 0x3a, 0x40, 0x42, 0x4a, 0x5a, 0x19, 0x29};
        o->data[at] = tags[random_next(seed) % sizeof tags];
        break;
    }
    default: /* two bytes become one varint: 0x80|low, high */
        o->data[at] |= 0x80;
    }
}

/* The tail of the body, where the dictionary of small ones is, is hit as often as the rest. */
static void mutants(void **state)
{
    uint64_t seed = 20260821;
    for (size_t i = 0; i < BODIES_OURS; i++) {
        struct out *o = load_ours(i);
        unsigned count = o->size < 8000 ? 2500 : 250;
        for (unsigned n = 0; n < count; n++) {
            struct out copy = {0};
            out_bytes(&copy, o->data, o->size);
            for (unsigned k = 0; k <= n % 3; k++)
                mutate(&copy, &seed);
            agree(copy.data, copy.size);
            out_free(&copy);
        }
        out_free(o);
        free(o);
    }
    print_message("clean %lu, alarmed %lu (falsely %lu); read: passed %lu, refused %lu\n",
                  (unsigned long)seen_clean, (unsigned long)seen_alarm, (unsigned long)seen_false,
                  (unsigned long)seen_passed, (unsigned long)seen_refused);
    assert_true(seen_clean > 1000 && seen_alarm > 1000 && seen_passed > 1000 &&
                seen_refused > 1000);
}

/* Long varints: ten bytes are a number, eleven are not; over 64 bits is not. */
static void long_numbers(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        bool good;
    } runs[] = {{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, true},
                {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10, false},
                {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 11, false},
                {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 10, true},
                {"\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x05", 12, true},
                {"\x01\x02\x03\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x05", 15, false},
                {"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x8a", 10, false}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        for (int kind = 0; kind < 2; kind++) {
            struct out body = {0}, rp = {0}, sp = {0}, profile = {0}, sample = {0};
            struct flue_block *block;
            struct flue_otlp_index index;
            if (kind == 0)
                out_field(&sample, 4, runs[i].bytes, runs[i].size);
            out_message(&profile, 2, &sample);
            if (kind == 1) {
                out_varint(&profile, flue_tag(6, FLUE_VARINT));
                out_bytes(&profile, runs[i].bytes, runs[i].size);
            }
            out_message(&sp, 2, &profile);
            out_message(&rp, 2, &sp);
            out_message(&body, 1, &rp);
            agree(body.data, body.size);
            block = block_of(body.data, body.size);
            if (kind == 0)
                assert_int_equal(flue_otlp_check(flue_block_bytes(block), MAX_INDEX, &index),
                                 runs[i].good ? 0 : FLUE_OTLP_BROKEN);
            else
                (void)flue_otlp_check(flue_block_bytes(block), MAX_INDEX, &index);
            flue_otlp_index_clear(&index);
            flue_block_unref(block);
            out_free(&body);
            out_free(&rp);
            out_free(&sp);
            out_free(&profile);
            out_free(&sample);
        }
    }
}

static struct out nested_value(unsigned depth)
{
    struct out any = {0}, list = {0}, body = {0}, kv = {0};
    out_number(&any, 3, 7);
    for (unsigned i = 1; i < depth; i++) {
        if (i % 2) {
            out_message(&list, 1, &any);
            out_message(&any, 5, &list);
        } else {
            out_text(&kv, 1, "k");
            out_message(&kv, 2, &any);
            out_message(&list, 1, &kv);
            out_message(&any, 6, &list);
        }
    }
    out_text(&kv, 1, "deep");
    out_message(&kv, 2, &any);
    out_message(&list, 1, &kv);  /* Resource */
    out_message(&kv, 1, &list);  /* ResourceProfiles */
    out_message(&list, 2, &any); /* an empty Profile in ScopeProfiles */
    out_message(&kv, 2, &list);
    out_message(&body, 1, &kv);
    out_free(&any);
    out_free(&list);
    out_free(&kv);
    return body;
}

static void nesting(void **state)
{
    for (unsigned depth = 1; depth < 40; depth++) {
        struct out body = nested_value(depth);
        struct flue_payload *payload;
        struct flue_otlp_report report;
        struct flue_error error = {0};
        enum flue_code code =
            flue_otlp_read(block_of(body.data, body.size), &payload, &report, &error);
        assert_int_equal(code, depth <= FLUE_OTLP_MAX_DEPTH ? FLUE_OK : FLUE_INVALID);
        if (payload)
            flue_payload_unref(payload);
        else
            assert_non_null(strstr(error.text, "nested deeper than 32"));
        agree(body.data, body.size);
        out_free(&body);
    }
}

/* The index takes no more than its share of memory. */
static void index_is_bounded(void **state)
{
    struct out body = {0};
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    for (unsigned i = 0; i < 200000; i++)
        out_field(&body, 1, "", 0);
    assert_int_equal(flue_otlp_read(block_of(body.data, body.size), &payload, &report, &error),
                     FLUE_TOO_LARGE);
    assert_null(payload);
    out_free(&body);
}

static void attributes_are_bounded(void **state)
{
    for (unsigned count = FLUE_OTLP_MAX_ATTRIBUTES; count <= FLUE_OTLP_MAX_ATTRIBUTES + 1;
         count++) {
        struct out body = {0}, rp = {0}, resource = {0}, sp = {0};
        struct flue_payload *payload;
        struct flue_otlp_report report;
        struct flue_error error;
        for (unsigned i = 0; i < count; i++)
            out_text(&resource, 1, "");
        out_message(&rp, 1, &resource);
        out_text(&sp, 2, "");
        out_message(&rp, 2, &sp);
        out_message(&body, 1, &rp);
        assert_int_equal(flue_otlp_read(block_of(body.data, body.size), &payload, &report, &error),
                         count > FLUE_OTLP_MAX_ATTRIBUTES ? FLUE_TOO_LARGE : FLUE_OK);
        flue_payload_unref(payload);
        out_free(&body);
        out_free(&rp);
        out_free(&resource);
        out_free(&sp);
    }
}

/* Short references to a long string do not become memory without limit. */
static void references_are_bounded(void **state)
{
    struct out body = {0}, rp = {0}, resource = {0}, kv = {0}, d = {0}, sp = {0};
    struct flue_payload *payload;
    struct flue_otlp_report report;
    struct flue_error error;
    uint8_t *text = calloc(100000, 1);
    assert_non_null(text);
    out_text(&d, 5, "");
    out_field(&d, 5, text, 100000);
    for (unsigned r = 0; r < 100; r++) {
        for (unsigned i = 0; i < 20; i++) {
            out_number(&kv, 3, 1);
            out_message(&resource, 1, &kv);
        }
        out_message(&rp, 1, &resource);
        out_text(&sp, 2, "");
        out_message(&rp, 2, &sp);
        out_message(&body, 1, &rp);
    }
    out_message(&body, 2, &d);
    assert_int_equal(flue_otlp_read(block_of(body.data, body.size), &payload, &report, &error),
                     FLUE_TOO_LARGE);
    assert_null(payload);
    free(text);
    out_free(&body);
    out_free(&rp);
    out_free(&resource);
    out_free(&kv);
    out_free(&d);
    out_free(&sp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_bodies_are_clean),
        cmocka_unit_test(made_bodies_are_clean),
        cmocka_unit_test(limits_of_stacks),
        cmocka_unit_test(long_numbers),
        cmocka_unit_test(nesting),
        cmocka_unit_test(index_is_bounded),
        cmocka_unit_test(attributes_are_bounded),
        cmocka_unit_test(references_are_bounded),
        cmocka_unit_test(truncation_at_every_byte),
        cmocka_unit_test(mutants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
