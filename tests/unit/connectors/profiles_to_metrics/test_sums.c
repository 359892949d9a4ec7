/* Sums over made payloads: by what they are told apart, units, start times, the bound on series,
 * the unmatched share, values that overflow, clocks that go back, hostile payloads, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <stdatomic.h>
#include <cmocka.h>

#include "../../proto/otlp/bodies.h"
#include "collector/base/arena.h"
#include "collector/base/clock.h"
#include "connectors/profiles_to_metrics/sums.h"
#include "proto/otlp/otlp.h"
#include "proto/wire/reader.h"

/* ---- payloads -------------------------------------------------------------------------------- */

/* One profile of a resource, with a sample for every mark. */
struct part {
    const char *service, *region;
    const char *type, *unit, *period_type, *period_unit;
    int64_t period;
    const char *marks[6]; /* "" : a sample without one; NULL ends */
    int64_t value;        /* of each sample */
    unsigned timestamps;  /* in place of the value */
};

static uint32_t add_text(struct out *d, uint32_t *count, const char *text)
{
    out_text(d, 5, text);
    return (*count)++;
}

static void value_type(struct out *o, uint32_t field, struct out *d, uint32_t *strings,
                       const char *type, const char *unit)
{
    struct out row = {0};
    out_number(&row, 1, add_text(d, strings, type));
    out_number(&row, 2, add_text(d, strings, unit));
    out_message(o, field, &row);
    out_free(&row);
}

static struct flue_payload *make(const struct part *parts, size_t count)
{
    struct out body = {0}, d = {0}, rp = {0}, sp = {0}, profile = {0}, sample = {0}, row = {0},
               any = {0};
    uint32_t strings = 0, attributes = 1;
    struct flue_otlp_report report;
    struct flue_payload *payload;
    struct flue_error error = {0};
    out_message(&d, 1, &row);
    out_message(&d, 2, &row);
    out_message(&d, 3, &row);
    out_message(&d, 4, &row);
    out_message(&d, 6, &row);
    out_message(&d, 7, &row);
    add_text(&d, &strings, "");
    uint32_t key = add_text(&d, &strings, "subsystem");
    for (size_t i = 0; i < count; i++) {
        const struct part *p = &parts[i];
        bool same = i && p->service && parts[i - 1].service &&
                    strcmp(p->service, parts[i - 1].service) == 0 && !p->region;
        value_type(&profile, 1, &d, &strings, p->type, p->unit);
        if (p->period_type)
            value_type(&profile, 5, &d, &strings, p->period_type, p->period_unit);
        if (p->period)
            out_number(&profile, 6, (uint64_t)p->period);
        for (size_t k = 0; k < 6 && p->marks[k]; k++) {
            if (*p->marks[k]) {
                out_number(&row, 1, key);
                out_text(&any, 1, p->marks[k]);
                out_message(&row, 2, &any);
                out_message(&d, 6, &row);
                out_number(&sample, 2, attributes++);
            }
            for (unsigned t = 0; t < p->timestamps; t++)
                out_fixed(&sample, 5, 1790000000000000000u + t);
            if (!p->timestamps)
                out_number(&sample, 4, (uint64_t)p->value);
            out_message(&profile, 2, &sample);
        }
        if (!same && i) { /* a resource ends */
            out_message(&rp, 2, &sp);
            out_message(&body, 1, &rp);
        }
        out_message(&sp, 2, &profile);
        if (!same) {
            if (p->service)
                out_key_value(&row, 1, "service.name", p->service);
            if (p->region)
                out_key_value(&row, 1, "cdn.region", p->region);
            out_message(&rp, 1, &row);
        }
    }
    out_message(&rp, 2, &sp);
    out_message(&body, 1, &rp);
    out_message(&body, 2, &d);
    if (flue_otlp_read(block_of(body.data, body.size), &payload, &report, &error) != FLUE_OK)
        fail_msg("%s", error.text);
    assert_int_equal(report.rejected_profiles, 0);
    struct out *all[] = {&body, &d, &rp, &sp, &profile, &sample, &row, &any};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        out_free(all[i]);
    return payload;
}

/* ---- reading what is written ----------------------------------------------------------------- */

static const char *dimensions[] = {"service.name", "cdn.region"};
static struct sums_config config = {.resource_attributes = {dimensions, 2},
                                    .sample_attribute = "subsystem",
                                    .namespace = "profiles",
                                    .max_series = 100};

struct point {
    char name[64], unit[16], instance[64], attributes[2048];
    uint64_t start_ns, time_ns;
    double value;
};
struct points {
    struct point items[512];
    size_t count;
};

static struct flue_bytes inner(struct flue_bytes message, uint32_t number, size_t nth)
{
    struct flue_reader r = flue_reader(message);
    struct flue_field_value f;
    while (flue_read_field(&r, &f))
        if (f.number == number && nth-- == 0)
            return f.bytes;
    return flue_bytes(NULL, 0);
}

static void copy_text(char *out, size_t room, struct flue_bytes text)
{
    snprintf(out, room, "%.*s", (int)text.size, (const char *)text.data);
}

static void read_point(struct flue_bytes content, struct point *p)
{
    struct flue_reader r = flue_reader(content);
    struct flue_field_value f;
    while (flue_read_field(&r, &f)) {
        size_t size = strlen(p->attributes);
        if (f.number == 2)
            p->start_ns = f.varint;
        else if (f.number == 3)
            p->time_ns = f.varint;
        else if (f.number == 4)
            memcpy(&p->value, &f.varint, 8);
        else if (f.number == 7)
            snprintf(p->attributes + size, sizeof p->attributes - size, "%s%.*s=%.*s",
                     size ? " " : "", (int)inner(f.bytes, 1, 0).size,
                     (const char *)inner(f.bytes, 1, 0).data,
                     (int)inner(inner(f.bytes, 2, 0), 1, 0).size,
                     (const char *)inner(inner(f.bytes, 2, 0), 1, 0).data);
    }
}

/* Everything there is now; counts agree with it. */
static void read_sums(struct sums *sums, struct points *out)
{
    struct flue_payload *payload;
    struct flue_counts counts;
    struct flue_error error;
    struct flue_arena arena;
    struct flue_slices slices = {0};
    out->count = 0;
    assert_int_equal(sums_write(sums, NULL, &payload, &counts, &error), FLUE_OK);
    if (!payload)
        return;
    flue_arena_init(&arena, 0, 0);
    assert_int_equal(payload->ops->slices(payload, &arena, &slices, NULL), FLUE_OK);
    uint8_t *body = malloc(slices.total);
    flue_slices_copy(&slices, body);
    struct flue_bytes all = flue_bytes(body, slices.total), resource, metric, point;
    for (size_t i = 0; (resource = inner(all, 1, i)).data; i++)
        for (size_t k = 0; (metric = inner(inner(resource, 2, 0), 2, k)).data; k++)
            for (size_t n = 0; (point = inner(inner(metric, 7, 0), 1, n)).data; n++) {
                assert_true(out->count < 512);
                struct point *p = &out->items[out->count++];
                *p = (struct point){.value = 0};
                copy_text(p->name, sizeof p->name, inner(metric, 1, 0));
                copy_text(p->unit, sizeof p->unit, inner(metric, 3, 0));
                copy_text(p->instance, sizeof p->instance,
                          inner(inner(inner(inner(resource, 1, 0), 1, 1), 2, 0), 1, 0));
                read_point(point, p);
            }
    assert_int_equal(counts.samples, out->count);
    free(body);
    flue_arena_destroy(&arena);
    flue_payload_unref(payload);
}

static const struct point *point_of(const struct points *points, const char *name,
                                    const char *attributes)
{
    for (size_t i = 0; i < points->count; i++)
        if (strcmp(points->items[i].name, name) == 0 &&
            strcmp(points->items[i].attributes, attributes) == 0)
            return &points->items[i];
    for (size_t i = 0; i < points->count; i++)
        print_message("  %s{%s}\n", points->items[i].name, points->items[i].attributes);
    fail_msg("no %s{%s}", name, attributes);
    return NULL;
}

static double value_of(const struct points *points, const char *name, const char *attributes)
{
    return point_of(points, name, attributes)->value;
}

static void close_to(double value, double wanted)
{
    if (value < wanted * (1 - 1e-12) || value > wanted * (1 + 1e-12))
        fail_msg("%.17g, not %.17g", value, wanted);
}

static struct sums *fresh(void)
{
    struct sums *sums;
    assert_int_equal(sums_new(&config, "edge-1", &sums, NULL), FLUE_OK);
    return sums;
}

static void take(struct sums *sums, const struct flue_payload *payload)
{
    struct flue_arena arena;
    struct flue_error error = {0};
    flue_arena_init(&arena, 8u << 20, 0);
    if (sums_take(sums, payload, &arena, &error) != FLUE_OK)
        fail_msg("%s", error.text);
    flue_arena_destroy(&arena);
}

static void take_parts(struct sums *sums, const struct part *parts, size_t count)
{
    struct flue_payload *payload = make(parts, count);
    take(sums, payload);
    flue_payload_unref(payload);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void told_apart(void **state)
{
    const struct part parts[] = {
        {"a", "eu", "cpu", "nanoseconds", NULL, NULL, 0, {"tls", "http", "tls", ""}, 500000000, 0},
        {"a", "us", "cpu", "nanoseconds", NULL, NULL, 0, {"tls"}, 1000000000, 0},
        {NULL, NULL, "cpu", "nanoseconds", NULL, NULL, 0, {"tls"}, 7000000000, 0},
        {"b", "eu", "alloc_space", "bytes", NULL, NULL, 0, {"tls", ""}, 4096, 0},
        {"b", "eu", "alloc_objects", "count", NULL, NULL, 0, {""}, 3, 0},
        {"b", "eu", "inuse_space", "bytes", NULL, NULL, 0, {"tls"}, 4096, 0},
        {"b", "eu", "wall", "microseconds", NULL, NULL, 0, {"tls"}, 1500000, 0}};
    struct sums *sums = fresh();
    struct points *p = calloc(1, sizeof *p);
    read_sums(sums, p);
    assert_int_equal(p->count, 0);
    for (int round = 1; round <= 3; round++) { /* cumulative */
        take_parts(sums, parts, 7);
        read_sums(sums, p);
        assert_int_equal(p->count, 9); /* inuse_space is a state */
        close_to(value_of(p, "profiles.time",
                          "service.name=a cdn.region=eu subsystem=tls sample_type=cpu"),
                 1.0 * round);
        close_to(value_of(p, "profiles.time",
                          "service.name=a cdn.region=eu subsystem=http sample_type=cpu"),
                 0.5 * round);
        close_to(value_of(p, "profiles.time",
                          "service.name=a cdn.region=eu subsystem=unmatched sample_type=cpu"),
                 0.5 * round);
        close_to(value_of(p, "profiles.time",
                          "service.name=a cdn.region=us subsystem=tls sample_type=cpu"),
                 1.0 * round);
        close_to(value_of(p, "profiles.time", "subsystem=tls sample_type=cpu"), 7.0 * round);
        close_to(value_of(p, "profiles.time",
                          "service.name=b cdn.region=eu subsystem=tls sample_type=wall"),
                 1.5 * round);
        close_to(value_of(p, "profiles.size",
                          "service.name=b cdn.region=eu subsystem=tls sample_type=alloc_space"),
                 4096.0 * round);
        close_to(
            value_of(p, "profiles.size",
                     "service.name=b cdn.region=eu subsystem=unmatched sample_type=alloc_space"),
            4096.0 * round);
        close_to(
            value_of(p, "profiles.count",
                     "service.name=b cdn.region=eu subsystem=unmatched sample_type=alloc_objects"),
            3.0 * round);
    }
    assert_int_equal(sums_series(sums), 9);
    assert_int_equal(sums_overflowed(sums), 0);
    for (size_t i = 0; i < p->count; i++) {
        const struct point *point = &p->items[i];
        assert_string_equal(point->unit, strcmp(point->name, "profiles.time") == 0   ? "s"
                                         : strcmp(point->name, "profiles.size") == 0 ? "By"
                                                                                     : "{event}");
        assert_string_equal(point->instance, "edge-1");
    }
    free(p);
    sums_destroy(sums);
}

/* A count whose period is a time is that time, under the period's name, unless the time comes by
 * itself. */
static void counts_that_are_time(void **state)
{
    const struct part parts[] = {
        {"ebpf", "eu", "samples", "count", "cpu", "nanoseconds", 10309278, {"tls"}, 0, 5},
        {"go", "eu", "samples", "count", "cpu", "nanoseconds", 10000000, {"tls"}, 4, 0},
        {"go", NULL, "cpu", "nanoseconds", "cpu", "nanoseconds", 10000000, {"tls"}, 40000000, 0}};
    struct sums *sums = fresh();
    struct points *p = calloc(1, sizeof *p);
    take_parts(sums, parts, 3);
    read_sums(sums, p);
    assert_int_equal(p->count, 3);
    close_to(value_of(p, "profiles.time",
                      "service.name=ebpf cdn.region=eu subsystem=tls sample_type=cpu"),
             5 * 10309278e-9);
    close_to(
        value_of(p, "profiles.time", "service.name=go cdn.region=eu subsystem=tls sample_type=cpu"),
        0.04);
    close_to(value_of(p, "profiles.count",
                      "service.name=go cdn.region=eu subsystem=tls sample_type=samples"),
             4);
    free(p);
    sums_destroy(sums);
}

static void start_times(void **state)
{
    const struct part part = {"a", "eu", "cpu", "ns", NULL, NULL, 0, {"tls"}, 1000, 0};
    const struct part late = {"late", "eu", "cpu", "ns", NULL, NULL, 0, {"tls"}, 1000, 0};
    uint64_t before = flue_wall_ns();
    struct sums *sums = fresh();
    uint64_t made = flue_wall_ns(), start;
    struct points *p = calloc(1, sizeof *p);
    take_parts(sums, &part, 1);
    flue_clock_move_wall(5000000000);
    take_parts(sums, &late, 1);
    read_sums(sums, p);
    start = p->items[0].start_ns;
    assert_in_range(start, before, made);
    assert_int_equal(p->items[1].start_ns, start); /* since when it would have been counted */
    assert_true(p->items[0].time_ns >= made + 5000000000);
    take_parts(sums, &part, 1);
    read_sums(sums, p);
    assert_int_equal(p->items[0].start_ns, start);
    /* A clock that is set back must not make a span that ends before it begins. */
    flue_clock_move_wall(-3600000000000);
    read_sums(sums, p);
    assert_int_equal(p->items[0].start_ns, start);
    assert_true(p->items[0].time_ns >= start);
    flue_clock_move_wall(3595000000000);
    sums_destroy(sums);
    /* After a restart: from 0, and a start of then. */
    flue_clock_move_wall(1000000000);
    sums = fresh();
    take_parts(sums, &part, 1);
    read_sums(sums, p);
    assert_true(p->items[0].start_ns >= start + 1000000000);
    close_to(p->items[0].value, 1e-6);
    flue_clock_move_wall(-1000000000);
    free(p);
    sums_destroy(sums);
}

static void a_sum_that_overflows_begins_anew(void **state)
{
    const struct part huge = {"a", "eu", "cpu", "s", NULL, NULL, 0, {"tls", "tls"}, INT64_MAX, 0};
    const struct part small = {"a", "eu", "cpu", "ns", NULL, NULL, 0, {"tls"}, 1000000000, 0};
    const struct part negative = {"a", "eu", "cpu", "ns", NULL, NULL, 0, {"tls"}, INT64_MIN, 0};
    struct sums *sums = fresh();
    struct points *p = calloc(1, sizeof *p);
    uint64_t start;
    take_parts(sums, &negative, 1); /* never less than before */
    assert_int_equal(sums_series(sums), 0);
    take_parts(sums, &huge, 1);
    read_sums(sums, p);
    start = p->items[0].start_ns;
    close_to(p->items[0].value, (double)INT64_MAX * 1e-9);
    take_parts(sums, &negative, 1);
    flue_clock_move_wall(1000000);
    take_parts(sums, &small, 1);
    read_sums(sums, p);
    assert_int_equal(p->count, 1);
    close_to(p->items[0].value, 1);
    assert_true(p->items[0].start_ns >= start + 1000000);
    flue_clock_move_wall(-1000000);
    free(p);
    sums_destroy(sums);
}

static void bounded(void **state)
{
    struct sums *sums = fresh();
    struct points *p = calloc(1, sizeof *p);
    double sum = 0, unmatched = 0;
    char service[400];
    for (unsigned i = 0; i < 300; i++) {
        memset(service, 'x', sizeof service);
        service[sizeof service - 1] = 0;
        memcpy(service, "service", 7);
        service[8] = (char)('a' + i % 26);
        service[9] = (char)('a' + i / 26);
        const struct part parts[] = {
            {service, "eu", "cpu", "s", NULL, NULL, 0, {"tls", ""}, 1, 0},
            {service, "us", "alloc_space", "bytes", NULL, NULL, 0, {service + 7}, 1, 0}};
        take_parts(sums, parts, 2);
    }
    read_sums(sums, p);
    /* 33 services have their own three series, one more two, and the rest is beyond: what had no
     * sample attribute stays "unmatched" there. */
    assert_int_equal(sums_overflowed(sums), 3 * 300 - 100);
    assert_int_equal(p->count, 100 + 3);
    assert_int_equal(sums_series(sums), p->count);
    for (size_t i = 0; i < p->count; i++) {
        sum += p->items[i].value;
        unmatched += strstr(p->items[i].attributes, "subsystem=unmatched") ? p->items[i].value : 0;
        assert_true(strlen(p->items[i].attributes) < 2 * 256 + 100);
    }
    close_to(sum, 900); /* nothing is lost, nothing counted twice */
    close_to(unmatched, 300);
    assert_true(value_of(p, "profiles.time",
                         "service.name=other cdn.region=other subsystem=other sample_type=other") >
                200);
    assert_true(value_of(p, "profiles.size",
                         "service.name=other cdn.region=other subsystem=other sample_type=other") >
                200);
    assert_true(
        value_of(p, "profiles.time",
                 "service.name=other cdn.region=other subsystem=unmatched sample_type=other") >
        200);
    free(p);
    sums_destroy(sums);
}

/* A text is cut between characters. */
static void cut_between_characters(void **state)
{
    struct sums *sums = fresh();
    struct points *p = calloc(1, sizeof *p);
    char service[300] = "";
    for (size_t i = 0; i < 255; i += 3)
        memcpy(service + i, "\xe2\x82\xac", 3);
    memcpy(service + 255, "\xe2\x82\xac", 4);
    const struct part part = {service, "eu", "cpu", "s", NULL, NULL, 0, {"tls"}, 1, 0};
    take_parts(sums, &part, 1);
    read_sums(sums, p);
    assert_true(flue_utf8_valid(flue_bytes_of(p->items[0].attributes)));
    assert_int_equal(strlen(p->items[0].attributes),
                     255 + strlen("service.name= cdn.region=eu subsystem=tls sample_type=cpu"));
    free(p);
    sums_destroy(sums);
}

/* Whatever a payload says that the check at the door lets in. */
static void hostile_payloads(void **state)
{
    const struct part parts[] = {
        {"a", "eu", "cpu", "nanoseconds", "cpu", "nanoseconds", 10, {"tls", "", "x"}, 5, 0},
        {"a", NULL, "samples", "count", "cpu", "nanoseconds", INT64_MAX, {"tls"}, 0, 3}};
    struct flue_payload *good = make(parts, 2);
    struct flue_arena arena;
    struct flue_slices slices = {0};
    struct sums *sums = fresh();
    struct points *p = calloc(1, sizeof *p);
    size_t taken = 0;
    flue_arena_init(&arena, 0, 0);
    assert_int_equal(good->ops->slices(good, &arena, &slices, NULL), FLUE_OK);
    uint8_t *body = malloc(slices.total);
    flue_slices_copy(&slices, body);
    for (size_t bit = 0; bit < slices.total * 8; bit++) {
        struct flue_payload *payload = NULL;
        struct flue_otlp_report report;
        struct flue_error error;
        body[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (flue_otlp_read(block_of(body, slices.total), &payload, &report, &error) == FLUE_OK &&
            payload) {
            take(sums, payload);
            flue_payload_unref(payload);
            taken++;
        }
        body[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(taken > 100);
    read_sums(sums, p);
    assert_true(p->count <= 106);
    for (size_t i = 0; i < p->count; i++)
        assert_true(p->items[i].value >= 0 && p->items[i].time_ns >= p->items[i].start_ns);
    free(p);
    free(body);
    sums_destroy(sums);
    flue_arena_destroy(&arena);
    flue_payload_unref(good);
}

static void without_memory_for_the_work(void **state)
{
    const struct part part = {"a", "eu", "cpu", "s", NULL, NULL, 0, {"tls"}, 1, 0};
    struct flue_payload *payload = make(&part, 1);
    struct sums *sums = fresh();
    struct flue_arena arena;
    struct flue_error error = {0};
    flue_arena_init(&arena, 64, 0);
    assert_int_equal(sums_take(sums, payload, &arena, &error), FLUE_NO_MEMORY);
    assert_int_equal(sums_series(sums), 0);
    flue_arena_destroy(&arena);
    flue_payload_unref(payload);
    sums_destroy(sums);
}

/* ---- threads --------------------------------------------------------------------------------- */

#define ROUNDS 200
struct crowd {
    struct sums *sums;
    struct flue_payload *payload;
    _Atomic bool done;
    bool went_down;
};

static void *feed(void *arg)
{
    struct crowd *crowd = arg;
    for (unsigned i = 0; i < ROUNDS; i++)
        take(crowd->sums, crowd->payload);
    return NULL;
}

/* Sums never go down while they are read, and none is lost. */
static void *watch(void *arg)
{
    struct crowd *crowd = arg;
    struct points *p = calloc(1, sizeof *p);
    double before = 0;
    while (!atomic_load(&crowd->done)) {
        read_sums(crowd->sums, p);
        if (p->count) {
            crowd->went_down |= p->items[0].value < before;
            before = p->items[0].value;
        }
    }
    free(p);
    return NULL;
}

static void threads(void **state)
{
    const struct part part = {"a", "eu", "cpu", "s", NULL, NULL, 0, {"tls", "tls", "http"}, 1, 0};
    struct crowd crowd = {.sums = fresh(), .payload = make(&part, 1)};
    struct points *p = calloc(1, sizeof *p);
    pthread_t feeders[3], watcher;
    assert_int_equal(pthread_create(&watcher, NULL, watch, &crowd), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&feeders[i], NULL, feed, &crowd), 0);
    for (size_t i = 0; i < 3; i++)
        pthread_join(feeders[i], NULL);
    atomic_store(&crowd.done, true);
    pthread_join(watcher, NULL);
    assert_false(crowd.went_down);
    read_sums(crowd.sums, p);
    assert_int_equal(p->count, 2);
    close_to(p->items[0].value, 3.0 * ROUNDS * 2);
    close_to(p->items[1].value, 3.0 * ROUNDS);
    free(p);
    flue_payload_unref(crowd.payload);
    sums_destroy(crowd.sums);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(told_apart),       cmocka_unit_test(counts_that_are_time),
        cmocka_unit_test(start_times),      cmocka_unit_test(a_sum_that_overflows_begins_anew),
        cmocka_unit_test(bounded),          cmocka_unit_test(cut_between_characters),
        cmocka_unit_test(hostile_payloads), cmocka_unit_test(without_memory_for_the_work),
        cmocka_unit_test(threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
