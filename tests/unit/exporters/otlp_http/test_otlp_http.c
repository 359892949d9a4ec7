/* otlp_http against an HTTP/2 server on loopback: what arrives, and the verdict of every answer.
 * (What goes by HTTP/1.1 is the client's affair: tests/unit/collector/net.) */
#include "tests/unit/exporters/otlp_grpc/otlp_exporter_test.h"

#include "collector/base/buffer.h"

extern const struct flue_component flue_exporter_otlp_http;

static void start(struct engine *engine, struct peer **peer, struct peer_behaviour behaviour,
                  const char *more)
{
    behaviour.no_trailers = true;
    if (!behaviour.content_type)
        behaviour.content_type = "application/x-protobuf";
    if (!behaviour.body)
        behaviour.body = (const uint8_t *)"";
    *peer = peer_start(&behaviour);
    engine_start(engine, &flue_exporter_otlp_http, "http://", (*peer)->port, more);
}

static void stop(struct engine *engine, struct peer *peer)
{
    engine_stop(engine);
    peer_stop(peer);
}

static void assert_arrived(const struct engine *engine, const struct peer *peer,
                           enum flue_coding coding, bool json)
{
    struct flue_bytes body = flue_bytes(peer->received, peer->received_size);
    struct flue_block *block = NULL;
    struct flue_buffer text;
    if (coding != FLUE_IDENTITY) {
        assert_int_equal(flue_inflate(coding, body, 1 << 24, 1000, NULL, &block, NULL), FLUE_OK);
        body = flue_block_bytes(block);
    }
    flue_buffer_init(&text, 1 << 24);
    struct flue_bytes wanted = flue_bytes(engine->encoded, engine->encoded_size);
    if (json) {
        assert_int_equal(flue_otlp_json_write(engine->batch->payload, &text, NULL), FLUE_OK);
        wanted = flue_buffer_bytes(&text);
    }
    assert_int_equal(body.size, wanted.size);
    assert_memory_equal(body.data, wanted.data, body.size);
    flue_buffer_destroy(&text);
    flue_block_unref(block);
}

static void the_batch_arrives(void **state)
{
    static const struct {
        const char *more, *name, *path;
        enum flue_coding coding;
        bool json;
    } cases[] = {
        {"", "gzip", "/v1development/profiles", FLUE_GZIP, false},
        {"compression: none\n", "", "/v1development/profiles", FLUE_IDENTITY, false},
        {"compression: zlib\n", "zlib", "/v1development/profiles", FLUE_ZLIB, false},
        {"compression: deflate\n", "deflate", "/v1development/profiles", FLUE_DEFLATE, false},
        {"compression: snappy\n", "snappy", "/v1development/profiles", FLUE_SNAPPY, false},
        {"compression: x-snappy-framed\n", "x-snappy-framed", "/v1development/profiles",
         FLUE_SNAPPY_FRAMED, false},
        {"compression: zstd\n", "zstd", "/v1development/profiles", FLUE_ZSTD, false},
        {"compression: lz4\n", "lz4", "/v1development/profiles", FLUE_LZ4, false},
        {"encoding: json\n", "gzip", "/v1development/profiles", FLUE_GZIP, true},
        {"encoding: json\ncompression: none\n", "", "/v1development/profiles", FLUE_IDENTITY,
         true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct engine engine;
        struct peer *peer;
        char more[300];
        snprintf(more, sizeof more, "%sheaders: {X-Secret: abc}\n", cases[i].more);
        start(&engine, &peer, (struct peer_behaviour){0}, more);
        engine_send(&engine);
        assert_string_equal(engine.verdict.error.text, "");
        assert_int_equal(engine.verdict.kind, FLUE_SENT);
        assert_arrived(&engine, peer, cases[i].coding, cases[i].json);
        assert_string_equal(peer->path, cases[i].path);
        assert_string_equal(peer->coding, cases[i].name);
        assert_string_equal(peer->type,
                            cases[i].json ? "application/json" : "application/x-protobuf");
        assert_string_equal(peer->secret, "abc");
        stop(&engine, peer);
    }
}

static void urls_become_paths(void **state)
{
    static const struct {
        const char *endpoint, *profiles, *path;
    } cases[] = {{"/", NULL, "/v1development/profiles"},
                 {"/otlp", NULL, "/otlp/v1development/profiles"},
                 {"/otlp/?a=b", NULL, "/otlp/v1development/profiles?a=b"},
                 {"/otlp", "/own/path", "/own/path"},
                 {"/otlp", "/own/", "/own/"},
                 {"/otlp", "", "/"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct engine engine;
        struct peer *peer =
            peer_start(&(struct peer_behaviour){.no_trailers = true,
                                                .body = (const uint8_t *)"",
                                                .content_type = "application/x-protobuf"});
        char scheme[200], more[200] = "";
        /* The helper's "endpoint" line is made to say the whole URL. */
        snprintf(scheme, sizeof scheme, "http://127.0.0.1:%u%s # ", peer->port, cases[i].endpoint);
        if (cases[i].profiles)
            snprintf(more, sizeof more, "profiles_endpoint: http://127.0.0.1:%u%s\n", peer->port,
                     cases[i].profiles);
        engine_start(&engine, &flue_exporter_otlp_http, scheme, peer->port, more);
        assert_int_equal(engine_send(&engine), FLUE_SENT);
        assert_string_equal(peer->path, cases[i].path);
        stop(&engine, peer);
    }
}

static void every_status_has_its_verdict(void **state)
{
    static const struct {
        const char *status;
        enum flue_verdict_kind kind;
    } cases[] = {{"200", FLUE_SENT}, {"202", FLUE_SENT},  {"301", FLUE_DROP},  {"400", FLUE_DROP},
                 {"401", FLUE_DROP}, {"403", FLUE_DROP},  {"404", FLUE_DROP},  {"408", FLUE_DROP},
                 {"413", FLUE_DROP}, {"415", FLUE_DROP},  {"429", FLUE_RETRY}, {"500", FLUE_DROP},
                 {"501", FLUE_DROP}, {"502", FLUE_RETRY}, {"503", FLUE_RETRY}, {"504", FLUE_RETRY}};
    /* Status{code: 8, message: "slow down"} */
    static const uint8_t said[] = "\x08\x08\x12\x09slow down";
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct engine engine;
        struct peer *peer;
        bool good = cases[i].status[0] == '2';
        start(&engine, &peer,
              (struct peer_behaviour){.status = cases[i].status,
                                      .retry_after = "3",
                                      .body = good ? (const uint8_t *)"" : said,
                                      .body_size = good ? 0 : sizeof said - 1},
              "");
        assert_int_equal(engine_send(&engine), cases[i].kind);
        if (!good) {
            assert_non_null(strstr(engine.verdict.error.text, cases[i].status));
            assert_non_null(strstr(engine.verdict.error.text, ": slow down"));
            assert_null(strstr(engine.verdict.error.text, "\\x"));
            assert_int_equal(engine.verdict.error.retry_after_ms,
                             cases[i].kind == FLUE_RETRY ? 3000 : 0);
        }
        stop(&engine, peer);
    }
}

static void the_next_attempt_sends_the_same(void **state)
{
    struct engine engine;
    struct peer *peer;
    start(&engine, &peer, (struct peer_behaviour){.fail_first = 2}, "encoding: json\n");
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(engine_send(&engine), i < 2 ? FLUE_RETRY : FLUE_SENT);
        assert_arrived(&engine, peer, FLUE_GZIP, true);
    }
    assert_int_equal(peer->requests, 3);
    stop(&engine, peer);
}

static void answers_are_read(void **state)
{
    static const uint8_t partial[] = {0x0a, 6, 0x08, 2, 0x12, 2, 'n', 'o'};
    static const char json[] =
        "{\"partialSuccess\":{\"rejectedProfiles\":\"2\",\"errorMessage\":\"n\"}}";
    static const struct {
        const void *body;
        size_t size;
        const char *type;
        enum flue_verdict_kind kind;
        unsigned rejected;
    } cases[] = {{partial, sizeof partial, "application/x-protobuf", FLUE_SENT, 2},
                 {json, sizeof json - 1, "application/json", FLUE_SENT, 2},
                 {partial, 5, "application/x-protobuf", FLUE_DROP, 0},
                 {json, sizeof json - 2, "application/json; charset=utf-8", FLUE_DROP, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct engine engine;
        struct peer *peer;
        start(&engine, &peer,
              (struct peer_behaviour){
                  .body = cases[i].body, .body_size = cases[i].size, .content_type = cases[i].type},
              "");
        assert_int_equal(engine_send(&engine), cases[i].kind);
        assert_int_equal(engine.verdict.rejected.profiles, cases[i].rejected);
        stop(&engine, peer);
    }
}

static void what_is_too_large_is_split(void **state)
{
    for (unsigned json = 0; json < 2; json++) {
        struct engine engine;
        struct peer *peer;
        start(&engine, &peer, (struct peer_behaviour){0},
              json ? "max_request_size: 10KiB\nencoding: json\n" : "max_request_size: 10KiB\n");
        assert_int_equal(engine_send(&engine), FLUE_SPLIT);
        assert_true(engine.verdict.split_by_bytes);
        assert_true(engine.verdict.split_max < engine.encoded_size);
        if (!json)
            assert_int_equal(engine.verdict.split_max, 10240);
        engine.batch->counts.samples = 1;
        assert_int_equal(engine_send(&engine), FLUE_DROP);
        assert_int_equal(engine.verdict.error.code, FLUE_TOO_LARGE);
        assert_int_equal(peer->requests, 0);
        stop(&engine, peer);
    }
}

static void mistakes_are_found(void **state)
{
    static const char *const wrong[] = {
        "{}",
        "endpoint: h:1",
        "profiles_endpoint: h:1",
        "endpoint: http://h\nencoding: xml",
        "endpoint: http://h\ncompression: brotli",
        "endpoint: http://h\ncompression: lz4\ncompression_params: {level: 3}",
        "endpoint: http://h\nheaders: {content-encoding: x}",
        "endpoint: http://u:p@h",
    };
    static const char *const right[] = {
        "profiles_endpoint: https://h/x",
        "endpoint: http://h:1\ncompression: zlib\ncompression_params: {level: -1}",
        "endpoint: http://h\nmax_idle_conns: 5\ncookies: {enabled: true}\nproxy_url: http://p:1",
    };
    struct flue_arena arena;
    void *config;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        flue_arena_init(&arena, 0, 0);
        if (!engine_bind(&flue_exporter_otlp_http, &arena, wrong[i], &config))
            fail_msg("no mistake found in: %s", wrong[i]);
        flue_arena_destroy(&arena);
    }
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        flue_arena_init(&arena, 0, 0);
        const char *mistakes = engine_bind(&flue_exporter_otlp_http, &arena, right[i], &config);
        if (mistakes)
            fail_msg("%s", mistakes);
        flue_arena_destroy(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_batch_arrives),
        cmocka_unit_test(urls_become_paths),
        cmocka_unit_test(every_status_has_its_verdict),
        cmocka_unit_test(the_next_attempt_sends_the_same),
        cmocka_unit_test(answers_are_read),
        cmocka_unit_test(what_is_too_large_is_split),
        cmocka_unit_test(mistakes_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
