/* Metrics that leave: what the writer writes, read back field by field; joining, cutting, bodies
 * that are broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "bodies.h"
#include "collector/base/arena.h"
#include "proto/otlp/metric_payload.h"
#include "proto/wire/reader.h"

/* ---- a plain reader of metrics/v1/metrics.proto ---------------------------------------------- */

struct point {
    uint64_t start_ns, time_ns;
    double value;
    char attributes[256]; /* "key=text;" one after the other */
};
struct metric {
    char service[64], scope[64], name[64], unit[64], description[64];
    uint64_t temporality, monotonic;
    struct point points[64];
    size_t count;
};
struct request {
    struct metric metrics[16];
    size_t count, resources;
};

static void text_of(char *out, size_t room, struct flue_bytes text)
{
    snprintf(out, room, "%.*s", (int)text.size, (const char *)text.data);
}

/* The content of field `number`, the `nth`. */
static struct flue_bytes inner(struct flue_bytes message, uint32_t number, size_t nth)
{
    struct flue_reader r = flue_reader(message);
    struct flue_field_value f;
    while (flue_read_field(&r, &f))
        if (f.number == number && nth-- == 0)
            return f.bytes;
    return flue_bytes(NULL, 0);
}

static void read_pair(struct flue_bytes pair, char *out, size_t room)
{
    size_t size = strlen(out);
    struct flue_bytes key = inner(pair, 1, 0), value = inner(inner(pair, 2, 0), 1, 0);
    snprintf(out + size, room - size, "%.*s=%.*s;", (int)key.size, (const char *)key.data,
             (int)value.size, (const char *)value.data);
}

static void read_point(struct flue_bytes content, struct point *point)
{
    struct flue_reader r = flue_reader(content);
    struct flue_field_value f;
    memset(point, 0, sizeof *point);
    while (flue_read_field(&r, &f)) {
        if (f.number == 2)
            point->start_ns = f.varint;
        else if (f.number == 3)
            point->time_ns = f.varint;
        else if (f.number == 4)
            memcpy(&point->value, &f.varint, 8);
        else if (f.number == 7)
            read_pair(f.bytes, point->attributes, sizeof point->attributes);
    }
    assert_true(flue_reader_done(&r));
}

static void read_metric(struct flue_bytes content, struct metric *m)
{
    struct flue_bytes sum = inner(content, 7, 0);
    struct flue_reader r = flue_reader(sum);
    struct flue_field_value f;
    text_of(m->name, sizeof m->name, inner(content, 1, 0));
    text_of(m->description, sizeof m->description, inner(content, 2, 0));
    text_of(m->unit, sizeof m->unit, inner(content, 3, 0));
    while (flue_read_field(&r, &f)) {
        if (f.number == 1)
            read_point(f.bytes, &m->points[m->count++]);
        else if (f.number == 2)
            m->temporality = f.varint;
        else if (f.number == 3)
            m->monotonic = f.varint;
    }
    assert_true(flue_reader_done(&r));
}

static void read_request(const struct flue_payload *payload, struct request *out)
{
    struct flue_arena arena;
    struct flue_slices slices = {0};
    memset(out, 0, sizeof *out);
    flue_arena_init(&arena, 0, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, NULL), FLUE_OK);
    assert_int_equal(slices.total, payload->ops->encoded_size(payload));
    uint8_t *body = malloc(slices.total);
    flue_slices_copy(&slices, body);
    struct flue_reader r = flue_reader(flue_bytes(body, slices.total));
    struct flue_field_value f;
    while (flue_read_field(&r, &f)) {
        struct flue_bytes scope = inner(f.bytes, 2, 0), content;
        char service[64] = "";
        assert_int_equal(f.number, 1);
        read_pair(inner(inner(f.bytes, 1, 0), 1, 0), service, sizeof service);
        out->resources++;
        for (size_t i = 0; (content = inner(scope, 2, i)).data; i++) {
            struct metric *m = &out->metrics[out->count++];
            memcpy(m->service, service, sizeof service);
            text_of(m->scope, sizeof m->scope, inner(inner(scope, 1, 0), 1, 0));
            read_metric(content, m);
        }
    }
    assert_true(flue_reader_done(&r));
    free(body);
    flue_arena_destroy(&arena);
}

/* ---- writing --------------------------------------------------------------------------------- */

static struct flue_attribute text(const char *key, const char *value)
{
    return (struct flue_attribute){flue_bytes_of(key),
                                   {.type = FLUE_VALUE_STRING, .text = flue_bytes_of(value)}};
}

/* `resources` with a metric of `points` each, all values their numbers. */
static struct flue_payload *make(unsigned resources, unsigned points, struct flue_counts *counts)
{
    struct flue_metric_writer w;
    struct flue_payload *payload;
    struct flue_error error;
    const struct flue_attribute self = text("service.name", "flue");
    uint64_t value = 0;
    flue_metric_writer_init(&w, 1 << 20);
    for (unsigned i = 0; i < resources; i++) {
        flue_metric_writer_resource(&w, &self, 1);
        flue_metric_writer_sum(&w, FLUE_BYTES("profiles.time"), FLUE_BYTES("s"),
                               FLUE_BYTES("time"));
        for (unsigned k = 0; k < points; k++, value++)
            flue_metric_writer_point(&w, NULL, 0, 1, 2, (double)value);
    }
    assert_int_equal(flue_metric_writer_finish(&w, NULL, &payload, counts, &error), FLUE_OK);
    return payload;
}

static void what_is_written(void **state)
{
    struct flue_metric_writer w;
    struct flue_payload *payload;
    struct flue_counts counts;
    struct request r;
    const struct flue_attribute self[] = {text("service.name", "flue"),
                                          text("service.instance.id", "a-1")};
    const struct flue_attribute point[] = {text("cdn.region", "eu\"west\n"), text("subsystem", "")};
    flue_metric_writer_init(&w, 1 << 20);
    flue_metric_writer_resource(&w, self, 2);
    flue_metric_writer_sum(&w, FLUE_BYTES("profiles.time"), FLUE_BYTES("s"), FLUE_BYTES("d"));
    flue_metric_writer_point(&w, point, 2, 1790000000000000000u, 1790000000000000015u, 0.25);
    flue_metric_writer_point(&w, NULL, 0, 7, 8, 1e300);
    flue_metric_writer_sum(&w, FLUE_BYTES("empty"), FLUE_BYTES("1"), FLUE_BYTES(""));
    flue_metric_writer_sum(&w, FLUE_BYTES("profiles.size"), FLUE_BYTES("By"), FLUE_BYTES(""));
    flue_metric_writer_point(&w, NULL, 0, 7, 8, 3);
    flue_metric_writer_resource(&w, self, 2); /* with nothing in it */
    flue_metric_writer_resource(&w, NULL, 0);
    flue_metric_writer_sum(&w, FLUE_BYTES("other"), FLUE_BYTES(""), FLUE_BYTES(""));
    flue_metric_writer_point(&w, NULL, 0, 7, 8, 4);
    assert_int_equal(flue_metric_writer_finish(&w, NULL, &payload, &counts, NULL), FLUE_OK);
    assert_int_equal(payload->signal, FLUE_METRICS);
    assert_int_equal(counts.profiles, 3);
    assert_int_equal(counts.samples, 4);
    assert_int_equal(counts.bytes, payload->ops->encoded_size(payload));
    read_request(payload, &r);
    assert_int_equal(r.resources, 2);
    assert_int_equal(r.count, 3); /* a metric without points is none */
    for (size_t i = 0; i < r.count; i++) {
        assert_int_equal(r.metrics[i].temporality, 2); /* cumulative */
        assert_int_equal(r.metrics[i].monotonic, 1);
        assert_string_equal(r.metrics[i].scope, "flue");
        assert_string_equal(r.metrics[i].service, i < 2 ? "service.name=flue;" : "=;");
    }
    assert_string_equal(r.metrics[0].name, "profiles.time");
    assert_string_equal(r.metrics[0].unit, "s");
    assert_string_equal(r.metrics[0].description, "d");
    assert_int_equal(r.metrics[0].count, 2);
    assert_int_equal(r.metrics[0].points[0].start_ns, 1790000000000000000u);
    assert_int_equal(r.metrics[0].points[0].time_ns, 1790000000000000015u);
    assert_true(r.metrics[0].points[0].value == 0.25);
    assert_string_equal(r.metrics[0].points[0].attributes, "cdn.region=eu\"west\n;subsystem=;");
    assert_true(r.metrics[0].points[1].value == 1e300);
    assert_string_equal(r.metrics[1].name, "profiles.size");
    assert_string_equal(r.metrics[2].name, "other");
    /* The view of its resources. */
    struct flue_value value;
    assert_int_equal(payload->ops->resource_count(payload), 2);
    assert_true(payload->ops->attribute_get(payload, 0, FLUE_BYTES("service.instance.id"), &value));
    assert_true(flue_bytes_is(value.text, "a-1"));
    assert_false(payload->ops->attribute_get(payload, 1, FLUE_BYTES("service.name"), &value));
    flue_payload_unref(payload);
}

static void nothing_is_no_payload(void **state)
{
    struct flue_metric_writer w;
    struct flue_payload *payload = (struct flue_payload *)&w;
    flue_metric_writer_init(&w, 1 << 20);
    flue_metric_writer_resource(&w, NULL, 0);
    assert_int_equal(flue_metric_writer_finish(&w, NULL, &payload, NULL, NULL), FLUE_OK);
    assert_null(payload);
}

static void the_maximum(void **state)
{
    struct flue_error error;
    struct flue_payload *payload;
    size_t size;
    payload = make(1, 10, NULL);
    size = payload->ops->encoded_size(payload);
    flue_payload_unref(payload);
    for (size_t maximum = size - 1; maximum <= size; maximum++) {
        struct flue_metric_writer w;
        const struct flue_attribute self = text("service.name", "flue");
        flue_metric_writer_init(&w, maximum);
        flue_metric_writer_resource(&w, &self, 1);
        flue_metric_writer_sum(&w, FLUE_BYTES("profiles.time"), FLUE_BYTES("s"),
                               FLUE_BYTES("time"));
        for (unsigned k = 0; k < 10; k++)
            flue_metric_writer_point(&w, NULL, 0, 1, 2, k);
        assert_int_equal(flue_metric_writer_finish(&w, NULL, &payload, NULL, &error),
                         maximum < size ? FLUE_NO_MEMORY : FLUE_OK);
        if (maximum < size)
            assert_null(payload);
        else
            flue_payload_unref(payload);
    }
}

/* ---- joining and cutting --------------------------------------------------------------------- */

static void joined(void **state)
{
    struct flue_payload *parts[] = {make(2, 3, NULL), make(1, 5, NULL), make(1, 1, NULL)}, *whole;
    struct request r;
    size_t points = 0, n = 0;
    assert_int_equal(parts[0]->ops->merge(parts, 3, NULL, &whole, NULL), FLUE_OK);
    read_request(whole, &r);
    assert_int_equal(r.resources, 4);
    for (size_t i = 0; i < r.count; i++)
        points += r.metrics[i].count;
    assert_int_equal(points, 12);
    for (size_t i = 0; i < 3; i++) {
        n += parts[i]->ops->encoded_size(parts[i]);
        flue_payload_unref(parts[i]);
    }
    assert_int_equal(whole->ops->encoded_size(whole), n);
    flue_payload_unref(whole);
}

struct parts {
    struct flue_counts sum;
    size_t count, largest, points;
    double next; /* value of the point that must come */
};

static void take_part(void *arg, struct flue_payload *payload, const struct flue_counts *counts)
{
    struct parts *parts = arg;
    struct request r;
    size_t points = 0;
    read_request(payload, &r);
    for (size_t i = 0; i < r.count; i++)
        for (size_t k = 0; k < r.metrics[i].count; k++, points++)
            assert_true(r.metrics[i].points[k].value == parts->next++);
    parts->largest = points > parts->largest ? points : parts->largest;
    parts->points += points;
    parts->count++;
    parts->sum.profiles += counts->profiles;
    parts->sum.samples += counts->samples;
    parts->sum.bytes += counts->bytes;
    flue_payload_unref(payload);
}

static void cut(void **state)
{
    for (uint64_t max = 1; max < 40; max++) {
        for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
            struct flue_counts counts;
            struct flue_payload *whole = make(8, 4, &counts);
            struct parts parts = {.count = 0};
            size_t one = counts.bytes / 8;
            uint64_t limit = by_bytes ? max * one / 4 : max;
            size_t together = max / 4 < 1 ? 1 : max / 4 > 8 ? 8 : max / 4;
            assert_int_equal(counts.samples, 32);
            assert_int_equal(
                whole->ops->split(whole, limit, by_bytes, &counts, NULL, take_part, &parts, NULL),
                FLUE_OK);
            /* Between resources only: one that is too large by itself is a part. */
            assert_int_equal(parts.count, (8 + together - 1) / together);
            assert_int_equal(parts.largest, 4 * together);
            assert_int_equal(parts.points, 32);
            assert_int_equal(parts.sum.profiles, counts.profiles);
            assert_int_equal(parts.sum.samples, counts.samples);
            assert_int_equal(parts.sum.bytes, counts.bytes);
            flue_payload_unref(whole);
        }
    }
}

/* ---- what comes from the disk ---------------------------------------------------------------- */

static enum flue_code read_body(const void *data, size_t size, struct flue_counts *counts)
{
    struct flue_payload *payload;
    struct flue_error error;
    enum flue_code code = flue_metric_payload_read(block_of(data, size), &payload, counts, &error);
    if (code == FLUE_OK && payload) {
        struct flue_value value;
        struct flue_payload *again = payload->ops->clone(payload, &error);
        for (size_t i = 0; i < payload->ops->resource_count(payload); i++)
            (void)payload->ops->attribute_get(payload, i, FLUE_BYTES("a"), &value);
        assert_true(payload->ops->held_size(payload) >= size);
        assert_int_equal(again->ops->encoded_size(again), size);
        flue_payload_unref(again);
    }
    if (code == FLUE_OK)
        flue_payload_unref(payload);
    return code;
}

static void broken_bodies(void **state)
{
    struct flue_counts counts;
    struct flue_payload *payload = make(3, 4, &counts);
    struct flue_arena arena;
    struct flue_slices slices = {0};
    uint8_t *body = malloc(counts.bytes);
    size_t good = 0;
    flue_arena_init(&arena, 0, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, NULL), FLUE_OK);
    flue_slices_copy(&slices, body);
    assert_int_equal(read_body(body, counts.bytes, &counts), FLUE_OK);
    assert_int_equal(counts.samples, 12);
    /* Whole only between resources. */
    for (size_t size = 0; size < counts.bytes; size++) {
        enum flue_code code = read_body(body, size, NULL);
        assert_true(code == FLUE_OK || code == FLUE_INVALID);
        good += code == FLUE_OK;
    }
    assert_int_equal(good, 3);
    for (size_t bit = 0; bit < counts.bytes * 8; bit++) {
        body[bit / 8] ^= (uint8_t)(1 << bit % 8);
        enum flue_code code = read_body(body, counts.bytes, NULL);
        assert_true(code == FLUE_OK || code == FLUE_INVALID);
        body[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(body);
    flue_arena_destroy(&arena);
    flue_payload_unref(payload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written),
        cmocka_unit_test(nothing_is_no_payload),
        cmocka_unit_test(the_maximum),
        cmocka_unit_test(joined),
        cmocka_unit_test(cut),
        cmocka_unit_test(broken_bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
