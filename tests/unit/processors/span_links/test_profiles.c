/* Samples with span labels, as OTLP and as pprof: what is written is a sound profile, whatever
 * came. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "collector/base/clock.h"
#include "collector/pipeline/batch.h"
#include "processors/span_links/span_links.h"
#include "proto/otlp/index.h"
#include "proto/otlp/otlp.h"
#include "proto/pprof/pprof.h"
#include "tests/unit/proto/otlp/bodies.h"

static struct span_links_config config = {.max_spans = 1024, .window = 1000000000};
static struct span_links self;

static int begin(void **state)
{
    struct flue_metrics *metrics = flue_metrics_new("test");
    self = (struct span_links){.config = &config,
                               .seen = seen_get(metrics, &config),
                               .linked = flue_metric(metrics, FLUE_COUNTER, "linked", "x", NULL),
                               .impossible =
                                   flue_metric(metrics, FLUE_COUNTER, "impossible", "x", NULL)};
    *state = metrics;
    return !self.seen || !seen_wanted(self.seen, 1024, UINT64_C(3600000000000)) || !self.impossible;
}

static int end(void **state)
{
    seen_drop(self.seen);
    flue_metrics_destroy(*state);
    return 0;
}

static void attribute(struct out *d, uint32_t key, const char *text, uint64_t number, uint32_t row)
{
    struct out any = {0}, content = {0};
    if (text)
        out_text(&any, 1, text);
    else
        out_number(&any, row ? 8 : 3, row ? row : number);
    out_number(&content, 1, key);
    out_message(&content, 2, &any);
    out_message(d, 6, &content);
    out_free(&any);
    out_free(&content);
}

/* Samples with attributes 1 to 6, alone and together, packed and not; the last has a link. */
static struct out otlp_body(bool strings_last)
{
    static const char *const strings[] = {"",         "span_id",   "span id",
                                          "trace_id", "traceIdHi", "00000000000000ff"};
    struct out body = {0}, d = {0}, s = {0}, p = {0}, run = {0}, any = {0};

    for (unsigned i = 0; i < 6 && !strings_last; i++)
        out_text(&d, 5, strings[i]);
    for (unsigned table = 1; table <= 7; table++)
        if (table != 5)
            out_field(&d, table, "", 0);
    attribute(&d, 1, "006550ebcf4dccbe", 0, 0);
    attribute(&d, 2, NULL, UINT64_MAX, 0);
    attribute(&d, 3, "000102030405060708090a0b0c0d0e0f", 0, 0);
    attribute(&d, 4, NULL, 7, 0);
    attribute(&d, 1, NULL, 0, 5); /* by its row of the string table */
    attribute(&d, 1, "none", 0, 0);
    out_field(&any, 1, "abcdefghijklmnop", 16);
    out_field(&any, 2, "12345678", 8);
    out_message(&d, 4, &any);
    for (unsigned i = 0; i < 6 && strings_last; i++)
        out_text(&d, 5, strings[i]);
    out_number(&any, 1, 3);
    out_message(&p, 1, &any);
    for (unsigned i = 0; i < 9; i++) {
        if (i % 2) {
            out_number(&s, 2, 1 + i % 6);
        } else {
            out_varint(&run, 1 + i % 6);
            out_varint(&run, 3);
            out_message(&s, 2, &run);
        }
        if (i == 8)
            out_number(&s, 3, 1);
        out_varint(&run, i);
        out_message(&s, 4, &run);
        out_message(&p, 2, &s);
    }
    out_message(&s, 2, &p);
    out_message(&p, 2, &s);
    out_message(&body, 1, &p);
    out_message(&body, 2, &d);
    out_free(&d);
    out_free(&s);
    out_free(&p);
    out_free(&run);
    out_free(&any);
    return body;
}

static struct flue_batch *read_otlp(const void *data, size_t size, uint64_t *samples)
{
    struct flue_block *block = flue_block_copy(NULL, flue_bytes(data, size));
    struct flue_otlp_report report;
    struct flue_payload *payload = NULL;
    struct flue_error error;

    assert_non_null(block);
    if (flue_otlp_read(block, &payload, &report, &error) != FLUE_OK || !payload)
        return NULL;
    *samples = report.counts.samples;
    return flue_batch_new(payload, NULL, report.counts, NULL);
}

/* The payload as it leaves; the caller frees. */
static uint8_t *written(const struct flue_payload *payload, size_t *size)
{
    struct flue_slices slices = {0};
    struct flue_arena arena;
    struct flue_error error;
    uint8_t *out;

    flue_arena_init(&arena, 16 << 20, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, &error), FLUE_OK);
    *size = slices.total;
    out = malloc(slices.total + 1);
    assert_non_null(out);
    flue_slices_copy(&slices, out);
    flue_arena_destroy(&arena);
    return out;
}

struct found {
    const struct flue_payload *payload;
    struct flue_otlp_dictionary dictionary;
    char text[1024];
    size_t size;
};

static bool say(void *arg, const struct flue_otlp_profile *profile)
{
    struct found *f = arg;
    struct flue_otlp_samples it = flue_otlp_samples(f->payload, profile->profile);
    struct flue_bytes sample;

    while (flue_otlp_samples_next(&it, &sample)) {
        struct flue_otlp_sample fields;
        struct flue_otlp_link link;
        uint64_t index;
        char hex[2] = "";
        flue_otlp_sample_read(sample, &fields);
        flue_otlp_link_read(flue_otlp_row(&f->dictionary, FLUE_OTLP_LINK, fields.link_index),
                            &link);
        if (link.span_id.size == 8)
            flue_hex(flue_bytes_from(link.span_id, 7), hex);
        f->size += (size_t)snprintf(f->text + f->size, sizeof f->text - f->size, "%.2s%s", hex,
                                    link.trace_id.size == 16 && link.trace_id.data[15] ? "+" : "");
        while (flue_otlp_numbers_next(&fields.attribute_indices, &index))
            f->size += (size_t)snprintf(f->text + f->size, sizeof f->text - f->size, " %u",
                                        (unsigned)index);
        f->size += (size_t)snprintf(f->text + f->size, sizeof f->text - f->size, ";");
    }
    return true;
}

static void links_and_what_stays(void **state)
{
    for (unsigned last = 0; last < 2; last++) {
        struct out body = otlp_body(last);
        struct flue_error error;
        struct flue_arena arena;
        uint64_t samples;
        int64_t linked = flue_metric_get(self.linked), bad = flue_metric_get(self.impossible);
        struct flue_batch *batch = read_otlp(body.data, body.size, &samples);

        assert_non_null(batch);
        assert_int_equal(span_links_otlp(&self, &batch, &error), FLUE_OK);
        struct found f = {.payload = batch->payload};
        flue_arena_init(&arena, 16 << 20, 0);
        assert_int_equal(flue_otlp_dictionary_open(f.payload, &arena, &f.dictionary, &error),
                         FLUE_OK);
        (void)flue_otlp_each_profile(f.payload, say, &f);
        /* Attributes 4 (half a trace) and 6 (no id) stay; what came with a link keeps all. */
        assert_string_equal(f.text, "be+;ff;00+; 4;ff+; 6;be+;ff;38+ 3 3;");
        assert_int_equal(flue_metric_get(self.linked) - linked, 6);
        assert_int_equal(flue_metric_get(self.impossible) - bad, 1);
        uint64_t now = seen_now(flue_monotonic_ns());
        assert_true(seen_has(self.seen, 0x006550ebcf4dccbe, flue_bytes(NULL, 0), now));
        assert_true(
            seen_has(self.seen, 0x3132333435363738, flue_bytes("abcdefghijklmnop", 16), now));
        flue_arena_destroy(&arena);
        flue_batch_unref(batch);
        out_free(&body);
    }
}

static void through_otlp(const void *data, size_t size)
{
    uint64_t before, after;
    struct flue_error error;
    struct flue_batch *again, *batch = read_otlp(data, size, &before);

    if (!batch)
        return;
    assert_int_equal(span_links_otlp(&self, &batch, &error), FLUE_OK);
    size_t out_size;
    uint8_t *out = written(batch->payload, &out_size);
    again = read_otlp(out, out_size, &after);
    assert_int_equal(again ? after : 0, before);
    flue_batch_unref(again);
    flue_batch_unref(batch);
    free(out);
}

/* pprof: the same labels by their numbers. */
static struct out pprof_body(void)
{
    static const char *const strings[] = {
        "",           "cpu", "span id", "local root span id", "trace_id",
        "profile_id", "123", "none",    "0000000000000001"};
    static const struct {
        uint64_t key, str, num;
    } labels[] = {{2, 0, UINT64_MAX}, {2, 6, 0}, {3, 6, 0}, {4, 7, 0}, {5, 8, 0}, {2, 7, 0}};
    struct out body = {0}, s = {0}, label = {0};

    out_number(&s, 1, 1);
    out_number(&s, 2, 1);
    out_message(&body, 1, &s);
    for (unsigned i = 0; i < 12; i++) {
        out_number(&s, 2, i);
        for (unsigned k = 0; k <= i % 3; k++) {
            unsigned n = (i + k) % 6;
            out_number(&label, 1, labels[n].key);
            out_number(&label, labels[n].str ? 2 : 3,
                       labels[n].str ? labels[n].str : labels[n].num);
            out_message(&s, 3, &label);
        }
        out_message(&body, 2, &s);
    }
    for (unsigned i = 0; i < 9; i++)
        out_text(&body, 6, strings[i]);
    out_free(&s);
    out_free(&label);
    return body;
}

static const struct flue_pprof_limits limits = {1 << 20, 200};

static void through_pprof(const void *data, size_t size)
{
    struct flue_pprof_profile profile = {.bytes = flue_bytes(data, size)};
    struct flue_payload *payload = NULL, *changed = NULL, *again = NULL;
    struct flue_pprof_facts facts;
    struct flue_error error;

    if (flue_pprof_check(profile.bytes, &limits, &profile.facts, &error) != FLUE_OK)
        return;
    struct flue_block *block = block_of(data, size);
    struct flue_pprof_builder *builder = flue_pprof_builder_new(NULL);
    profile.bytes = flue_block_bytes(block);
    flue_pprof_builder_keep(builder, block);
    flue_pprof_builder_series(builder);
    flue_pprof_builder_label(builder, FLUE_BYTES("__name__"), FLUE_BYTES("process_cpu"));
    flue_pprof_builder_profile(builder, &profile);
    flue_pprof_builder_profile(builder, &profile);
    assert_int_equal(flue_pprof_builder_finish(builder, &payload, NULL, &error), FLUE_OK);
    flue_block_unref(block);
    assert_int_equal(span_links_pprof(&self, payload, &changed, &error), FLUE_OK);
    if (changed) {
        const struct flue_pprof_series *series = flue_pprof_series_at(changed, 0);
        assert_int_equal(series->profile_count, 2);
        assert_true(flue_bytes_equal(series->profiles[0].bytes, series->profiles[1].bytes));
        assert_int_equal(flue_pprof_check(series->profiles[0].bytes, &limits, &facts, &error),
                         FLUE_OK);
        assert_int_equal(facts.samples, profile.facts.samples);
        assert_int_equal(span_links_pprof(&self, changed, &again, &error), FLUE_OK);
        assert_null(again); /* nothing is left to do */
    }
    flue_payload_unref(changed);
    flue_payload_unref(payload);
}

static void impossible_ids_are_counted_once(void **state)
{
    struct out body = pprof_body();
    int64_t bad = flue_metric_get(self.impossible), linked = flue_metric_get(self.linked);

    through_pprof(body.data, body.size); /* two profiles, and both of them again */
    /* In a profile "none" of trace_id and of span id, four times each; twice a second span id,
     * which is the only one when the first has become a link. */
    assert_int_equal(flue_metric_get(self.impossible) - bad, 2 * 10 + 2 * 8);
    assert_int_equal(flue_metric_get(self.linked) - linked, 2 * 10);
    out_free(&body);
}

/* A number of span_id beside another of it: the text that the first becomes counts from then on. */
static void the_first_of_a_form_counts_again(void **state)
{
    struct out body = {0}, s = {0}, label = {0};

    out_number(&s, 1, 1);
    out_number(&s, 2, 1);
    out_message(&body, 1, &s);
    out_number(&s, 2, 1);
    for (unsigned i = 0; i < 2; i++) {
        out_number(&label, 1, 2);
        out_number(&label, 3, 7 + i);
        out_message(&s, 3, &label);
    }
    out_message(&body, 2, &s);
    out_text(&body, 6, "");
    out_text(&body, 6, "cpu");
    out_text(&body, 6, "span_id");
    through_pprof(body.data, body.size);
    assert_true(seen_has(self.seen, 7, flue_bytes(NULL, 0), seen_now(flue_monotonic_ns())));
    assert_false(seen_has(self.seen, 8, flue_bytes(NULL, 0), seen_now(flue_monotonic_ns())));
    out_free(&body);
    out_free(&s);
    out_free(&label);
}

static void damaged(struct out body, void (*through)(const void *data, size_t size))
{
    for (size_t i = 0; i < body.size; i++)
        through(body.data, i);
    for (size_t i = 0; i < 8 * body.size; i++) {
        body.data[i / 8] ^= (uint8_t)(1u << i % 8);
        through(body.data, body.size);
        body.data[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    out_free(&body);
}

static void damaged_otlp(void **state)
{
    damaged(otlp_body(false), through_otlp);
    damaged(otlp_body(true), through_otlp);
}

static void damaged_pprof(void **state)
{
    damaged(pprof_body(), through_pprof);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_and_what_stays),
        cmocka_unit_test(impossible_ids_are_counted_once),
        cmocka_unit_test(the_first_of_a_form_counts_again),
        cmocka_unit_test(damaged_otlp),
        cmocka_unit_test(damaged_pprof),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
