/* POST /v1/pprof behind a real listener: bodies, resources, answers. */
#include "../pyroscope/served.h"

#include "collector/base/clock.h"
#include "collector/base/codec.h"
#include "pprof.pb-c.h"
#include "proto/pprof/repair.h"
#include "receivers/pprof/attributes.h"

extern const struct flue_component flue_receiver_pprof;

#define POST(query) "POST /v1/pprof" query " HTTP/1.1\r\nHost: x"

static int start_all(void **state)
{
    serve(&flue_receiver_pprof,
          "pprof: {server: {endpoint: \"127.0.0.1:0\", max_request_body_size: 300000, "
          "resource_headers: {X-Service: service.name, X-Pop: cdn.pop}}}",
          "127.0.0.1:0");
    return 0;
}

static int stop_all(void **state)
{
    unserve();
    return 0;
}

static void expect(struct answer answer, unsigned status, const char *part)
{
    if (answer.status != status || (part && !strstr(answer.text + answer.body, part)))
        fail_msg("wanted %u \"%s\", got %s", status, part ? part : "", answer.text);
}

static void has_label(const char *label)
{
    if (!strstr(sink.labels, label))
        fail_msg("no %s in\n%s", label, sink.labels);
}

static void captures_pass_byte_for_byte(void **state)
{
    static const struct {
        const char *capture, *name;
    } rows[] = {
        {"go-net-http-pprof/profile.body", "__name__=process_cpu\n"},
        {"go-net-http-pprof/heap.body", "__name__=memory\n"},
        {"go-net-http-pprof/goroutine.body", "__name__=goroutine\n"},
        {"go-net-http-pprof/mutex.body", "__name__=mutex\n"},
        {"pyroscope-nodejs/wall-cpu-labels.body", "__name__=wall\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct flue_block *body = recorded_body(rows[i].capture);
        sink_reset(SINK_TAKES);
        struct answer answer = ask(POST("?service.name=enc+1&pop=%61ms1"), flue_block_bytes(body));
        expect(answer, 204, NULL);
        has_label(rows[i].name);
        has_label("service_name=enc 1\n");
        has_label("pop=ams1\n");
        assert_int_equal(sink.counts.profiles, 1);
        assert_int_equal(sink.counts.samples, sink.facts.samples);
        assert_int_equal(sink.profile_size, body->size);
        assert_memory_equal(sink.profile, body->data, body->size);
        flue_block_unref(body);
    }
}

static void headers_name_what_the_query_does_not(void **state)
{
    struct flue_block *body = recorded_body("go-net-http-pprof/heap.body");
    sink_reset(SINK_TAKES);
    expect(ask(POST("?cdn.pop=query&__name__=mine") "\r\nx-service: from-header\r\nX-Pop: header"
                                                    "\r\nX-Other: no\r\nX-Scope-OrgID: team-a",
               flue_block_bytes(body)),
           204, NULL);
    has_label("__name__=mine\n");
    has_label("service_name=from-header\n");
    has_label("cdn_pop=query\n");
    assert_null(strstr(sink.labels, "no\n"));
    assert_string_equal(sink.tenant, "team-a");
    flue_block_unref(body);
}

static void refusals_are_plain_text(void **state)
{
    struct flue_block *good = recorded_body("go-net-http-pprof/heap.body");
    struct flue_bytes bytes = flue_block_bytes(good);
    struct answer answer;
    sink_reset(SINK_TAKES);
    answer = ask(POST(""), FLUE_BYTES("nonsense"));
    expect(answer, 400, NULL);
    assert_non_null(strstr(answer.text, "text/plain"));
    expect(ask(POST(""), FLUE_BYTES("")), 400, "empty profile");
    expect(ask(POST("?=x"), bytes), 400, "without a name");
    expect(ask(POST("?a=1&a=2"), bytes), 400, "a is there twice");
    expect(ask(POST("?__x=1"), bytes), 400, "reserved");
    expect(ask(POST("?a=%ff"), bytes), 400, "not UTF-8");
    expect(ask(POST("") "\r\nContent-Encoding: br", bytes), 415, "Content-Encoding");
    answer = ask("GET /v1/pprof HTTP/1.1\r\nHost: x", FLUE_BYTES(""));
    expect(answer, 405, NULL);
    assert_non_null(strcasestr(answer.text, "allow: POST"));
    struct flue_block *large = flue_block_new(NULL, 300001);
    memset(large->data, 'a', 300001);
    large->size = 300001;
    expect(ask(POST(""), flue_block_bytes(large)), 413, NULL);
    flue_block_unref(large);
    assert_int_equal(sink.batches, 0);
    sink_reset(SINK_IS_FULL);
    answer = ask(POST(""), bytes);
    expect(answer, 503, "full");
    assert_non_null(strcasestr(answer.text, "retry-after: "));
    sink_reset(SINK_REFUSES);
    expect(ask(POST(""), bytes), 400, "does not want it");
    flue_block_unref(good);
}

static void tenants_are_checked(void **state)
{
    struct flue_block *good = recorded_body("go-net-http-pprof/heap.body");
    static const char *const heads[] = {POST("") "\r\nX-Scope-OrgID: ..",
                                        POST("") "\r\nX-Scope-OrgID: a/b",
                                        POST("") "\r\nX-Scope-OrgID: a b"};
    const char *series =
        "otelcol_receiver_refused_requests_total{reason=\"invalid\",receiver=\"pprof\"} ";
    double before = counted(series);
    sink_reset(SINK_TAKES);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        expect(ask(heads[i], flue_block_bytes(good)), 400, "X-Scope-OrgID");
    assert_int_equal(sink.batches, 0);
    assert_int_equal(counted(series), (before < 0 ? 0 : before) + 3);
    flue_block_unref(good);
}

static void who_leaves_within_the_body_is_forgotten(void **state)
{
    leave_within_body(POST(""));
    unserve(); /* fails when the request is still open */
    start_all(NULL);
}

static void codings_and_time(void **state)
{
    struct flue_block *good = recorded_body("go-net-http-pprof/heap.body"), *raw, *coded;
    struct flue_pprof_limits limits = {1u << 24, 200};
    struct flue_error error;
    uint64_t before = flue_wall_ns();
    /* A profile without a time is dated when it comes. */
    assert_int_equal(flue_pprof_set_time(flue_block_bytes(good), 0, &limits, NULL, &raw, &error),
                     FLUE_OK);
    struct flue_bytes bytes = flue_block_bytes(raw);
    struct flue_slices slices = {&bytes, 1, 1, bytes.size};
    static const struct {
        enum flue_coding coding;
        const char *head;
    } rows[] = {{FLUE_GZIP, POST("") "\r\nContent-Encoding: gzip"},
                {FLUE_ZSTD, POST("") "\r\nContent-Encoding: zstd"},
                {FLUE_DEFLATE, POST("") "\r\nContent-Encoding: deflate"},
                {FLUE_LZ4, POST("") "\r\nContent-Encoding: lz4"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sink_reset(SINK_TAKES);
        assert_int_equal(flue_deflate(rows[i].coding, FLUE_LEVEL_DEFAULT, &slices, &coded, &error),
                         FLUE_OK);
        expect(ask(rows[i].head, flue_block_bytes(coded)), 204, NULL);
        assert_true(sink.facts.time_nanos >= (int64_t)before);
        assert_true(sink.facts.time_nanos <= (int64_t)flue_wall_ns());
        flue_block_unref(coded);
    }
    flue_block_unref(raw);
    flue_block_unref(good);
}

static void odd_queries(void **state)
{
    struct flue_arena arena;
    struct flue_pprof_attributes out;
    struct flue_map none = {0};
    struct flue_error error;
    flue_arena_init(&arena, 1u << 16, 0);
    assert_int_equal(flue_pprof_attributes_read(FLUE_BYTES("&&a&b=%4&c=%zz&d=%41%"), &none, NULL, 0,
                                                &arena, &out, &error),
                     FLUE_OK);
    assert_int_equal(out.count, 4);
    assert_true(flue_bytes_is(out.items[0].value, ""));
    assert_true(flue_bytes_is(out.items[1].value, "%4"));
    assert_true(flue_bytes_is(out.items[2].value, "%zz"));
    assert_true(flue_bytes_is(out.items[3].value, "A%"));
    char many[1000] = "";
    for (int i = 0; i <= FLUE_PPROF_MAX_ATTRIBUTES; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "k%d=v&", i);
    assert_int_equal(
        flue_pprof_attributes_read(flue_bytes_of(many), &none, NULL, 0, &arena, &out, &error),
        FLUE_INVALID);
    flue_arena_destroy(&arena);
}

static void other_blocks_are_named_as_unknown(void **state)
{
    static const struct flue_component *const registry[] = {&flue_receiver_pprof, &sink_component,
                                                            NULL};
    static const char *const blocks[] = {
        "remote: {endpoint: \"http://x\"}", "self: {}", "server: {}",
        "server: {endpoint: \"x:1\", resource_headers: {X-A: __name__}}"};
    static const char *const texts[] = {"remote", "self", "endpoint", "__name__"};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        char source[1000];
        struct flue_configuration *bad;
        struct flue_buffer text;
        snprintf(source, sizeof source,
                 "yaml:{receivers: {pprof: {%s}}, exporters: {sink: {}}, service: {pipelines: "
                 "{profiles: {receivers: [pprof], exporters: [sink]}}}}",
                 blocks[i]);
        const char *configs[] = {source};
        struct flue_sources sources = {.configs = configs, .config_count = 1};
        assert_int_equal(flue_configuration_load(&sources, registry, &bad, NULL), FLUE_OK);
        assert_true(bad->check.mistakes > 0);
        flue_buffer_init(&text, 65536);
        flue_check_print(&bad->check, &text);
        if (!strstr(text.data, texts[i]))
            fail_msg("no %s in %s", texts[i], text.data);
        flue_buffer_destroy(&text);
        flue_configuration_destroy(bad);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(captures_pass_byte_for_byte),
        cmocka_unit_test(headers_name_what_the_query_does_not),
        cmocka_unit_test(refusals_are_plain_text),
        cmocka_unit_test(tenants_are_checked),
        cmocka_unit_test(who_leaves_within_the_body_is_forgotten),
        cmocka_unit_test(codings_and_time),
        cmocka_unit_test(odd_queries),
        cmocka_unit_test(other_blocks_are_named_as_unknown),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
