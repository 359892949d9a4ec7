/* otlp_grpc against a gRPC server on loopback: what arrives, and the verdict of every answer. */
#include "tests/unit/exporters/otlp_grpc/otlp_exporter_test.h"

extern const struct flue_component flue_exporter_otlp_grpc;
#define PLAIN "tls: {insecure: true}\n"

static const uint8_t empty[5];

static void start(struct engine *engine, struct peer **peer, struct peer_behaviour behaviour,
                  const char *more)
{
    if (!behaviour.body) {
        behaviour.body = empty;
        behaviour.body_size = 5;
    }
    *peer = peer_start(&behaviour);
    engine_start(engine, &flue_exporter_otlp_grpc, "", (*peer)->port, more);
}

static void stop(struct engine *engine, struct peer *peer)
{
    engine_stop(engine);
    peer_stop(peer);
}

static void assert_arrived(const struct engine *engine, const struct peer *peer,
                           enum flue_coding coding)
{
    const uint8_t *in = peer->received;
    assert_true(peer->received_size > 5);
    assert_int_equal(in[0], coding != FLUE_IDENTITY);
    assert_int_equal((uint32_t)in[1] << 24 | in[2] << 16 | in[3] << 8 | in[4],
                     peer->received_size - 5);
    struct flue_bytes body = flue_bytes(in + 5, peer->received_size - 5);
    struct flue_block *block = NULL;
    if (coding != FLUE_IDENTITY) {
        assert_int_equal(flue_inflate(coding, body, 1 << 24, 1000, NULL, &block, NULL), FLUE_OK);
        body = flue_block_bytes(block);
    }
    assert_int_equal(body.size, engine->encoded_size);
    assert_memory_equal(body.data, engine->encoded, body.size);
    flue_block_unref(block);
}

static void the_batch_arrives(void **state)
{
    static const struct {
        const char *more, *name;
        enum flue_coding coding;
    } cases[] = {{PLAIN, "gzip", FLUE_GZIP},
                 {PLAIN "compression: none\n", "", FLUE_IDENTITY},
                 {PLAIN "compression: ''\n", "", FLUE_IDENTITY},
                 {PLAIN "compression: zstd\n", "zstd", FLUE_ZSTD},
                 {PLAIN "compression: snappy\n", "snappy", FLUE_SNAPPY_FRAMED},
                 {PLAIN "compression_params: {level: dense}\n", "gzip", FLUE_GZIP},
                 {PLAIN "compression_params: {level: 6}\nbalancer_name: pick_first\n"
                        "keepalive: {time: 30s}\nwrite_buffer_size: 5\nuser_agent: me\n",
                  "gzip", FLUE_GZIP}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct engine engine;
        struct peer *peer;
        char more[300];
        snprintf(more, sizeof more, "%sheaders: {X-Secret: abc}\n", cases[i].more);
        start(&engine, &peer, (struct peer_behaviour){0}, more);
        engine_send(&engine);
        assert_string_equal(engine.verdict.error.text, "");
        assert_int_equal(engine.verdict.kind, FLUE_SENT);
        assert_int_equal(engine.verdict.rejected.profiles, 0);
        assert_arrived(&engine, peer, cases[i].coding);
        assert_string_equal(peer->path, "/opentelemetry.proto.collector.profiles.v1development."
                                        "ProfilesService/Export");
        assert_string_equal(peer->coding, cases[i].name);
        assert_string_equal(peer->type, "application/grpc");
        assert_string_equal(peer->te, "trailers");
        assert_string_equal(peer->timeout, "20000m");
        assert_string_equal(peer->secret, "abc");
        assert_string_equal(peer->agent, i == 6 ? "me" : "flue/" FLUE_VERSION);
        assert_int_equal(engine.verdicts, 1);
        stop(&engine, peer);
    }
}

/* OTLP 1.11 and the Collector: exactly these are repeated. */
static void every_status_has_its_verdict(void **state)
{
    for (unsigned i = 1; i <= 16; i++) {
        struct engine engine;
        struct peer *peer;
        char text[8];
        snprintf(text, sizeof text, "%u", i);
        start(&engine, &peer, (struct peer_behaviour){.grpc_status = text}, PLAIN);
        bool again = i == 1 || i == 4 || i == 10 || i == 11 || i == 14 || i == 15;
        assert_int_equal(engine_send(&engine), again ? FLUE_RETRY : FLUE_DROP);
        assert_non_null(strstr(engine.verdict.error.text, "127.0.0.1:"));
        stop(&engine, peer);
    }
    struct engine engine;
    struct peer *peer;
    /* Status{details: Any{RetryInfo{2.5 s}}} */
    start(&engine, &peer,
          (struct peer_behaviour){
              .grpc_status = "8",
              .details =
                  "GjYKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5SZXRyeUluZm8SCgoICAIQgMq17gE="},
          PLAIN);
    assert_int_equal(engine_send(&engine), FLUE_RETRY);
    assert_int_equal(engine.verdict.error.retry_after_ms, 2500);
    stop(&engine, peer);
}

static void the_next_attempt_sends_the_same(void **state)
{
    struct engine engine;
    struct peer *peer;
    start(&engine, &peer, (struct peer_behaviour){.fail_first = 2}, PLAIN);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(engine_send(&engine), i < 2 ? FLUE_RETRY : FLUE_SENT);
        assert_arrived(&engine, peer, FLUE_GZIP);
    }
    assert_int_equal(peer->requests, 3);
    assert_int_equal(engine.verdicts, 3);
    stop(&engine, peer);
}

static void answers_are_read(void **state)
{
    /* ExportProfilesServiceResponse{partial_success{rejected_profiles: 2, error_message: "no"}} */
    static const uint8_t partial[] = {0, 0, 0, 0, 8, 0x0a, 6, 0x08, 2, 0x12, 2, 'n', 'o'};
    static const uint8_t warning[] = {0, 0, 0, 0, 6, 0x0a, 4, 0x12, 2, 'n', 'o'};
    static const uint8_t all[] = {0, 0, 0, 0, 7, 0x0a, 5, 0x08, 0xff, 0xff, 0xff, 0x7f};
    static const uint8_t garbage[] = {0, 0, 0, 0, 2, 0x0a, 9};
    const struct {
        const uint8_t *body;
        size_t size;
        enum flue_verdict_kind kind;
        unsigned rejected; /* 99: all */
    } cases[] = {{partial, sizeof partial, FLUE_SENT, 2},
                 {warning, sizeof warning, FLUE_SENT, 0},
                 {all, sizeof all, FLUE_SENT, 99},
                 {garbage, sizeof garbage, FLUE_DROP, 0},
                 {partial, 8, FLUE_DROP, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct engine engine;
        struct peer *peer;
        start(&engine, &peer,
              (struct peer_behaviour){.body = cases[i].body, .body_size = cases[i].size}, PLAIN);
        assert_int_equal(engine_send(&engine), cases[i].kind);
        assert_true(engine.batch->counts.profiles > 2);
        assert_int_equal(engine.verdict.rejected.profiles, cases[i].rejected == 99
                                                               ? engine.batch->counts.profiles
                                                               : cases[i].rejected);
        if (cases[i].rejected == 99)
            assert_int_equal(engine.verdict.rejected.samples, engine.batch->counts.samples);
        stop(&engine, peer);
    }
}

static void what_is_too_large_is_split(void **state)
{
    struct engine engine;
    struct peer *peer;
    start(&engine, &peer, (struct peer_behaviour){0}, PLAIN "max_request_size: 10KiB\n");
    assert_int_equal(engine_send(&engine), FLUE_SPLIT);
    assert_int_equal(engine.verdict.split_max, 10240);
    assert_true(engine.verdict.split_by_bytes);
    engine.batch->counts.samples = 1;
    assert_int_equal(engine_send(&engine), FLUE_DROP);
    assert_int_equal(engine.verdict.error.code, FLUE_TOO_LARGE);
    assert_int_equal(peer->requests, 0);
    stop(&engine, peer);
}

static void an_item_can_be_given_up(void **state)
{
    struct engine engine;
    struct peer *peer;
    start(&engine, &peer, (struct peer_behaviour){.delay_ms = NEVER}, PLAIN);
    engine_begin(&engine);
    AWAIT(peer->requests == 1);
    flue_loop_call(engine.send.loop, engine_cancel, &engine);
    engine_wait(&engine);
    assert_int_equal(engine.verdict.error.code, FLUE_CANCELLED);
    engine_begin(&engine);
    flue_loop_call(engine.send.loop, engine_cancel, &engine);
    engine_wait(&engine);
    assert_int_equal(engine.verdict.error.code, FLUE_CANCELLED);
    assert_int_equal(engine.verdicts, 2);
    stop(&engine, peer);
}

static void nobody_there_is_tried_again(void **state)
{
    struct engine engine;
    engine_start(&engine, &flue_exporter_otlp_grpc, "", dead_port(), PLAIN);
    assert_int_equal(engine_send(&engine), FLUE_RETRY);
    assert_int_equal(engine.verdict.error.code, FLUE_UNAVAILABLE);
    engine_stop(&engine);
}

static void mistakes_are_found(void **state)
{
    static const char *const wrong[] = {
        "{}",
        "endpoint: ftp://x",
        "endpoint: h:1\ncompression: brotli",
        "endpoint: h:1\ncompression_params: {level: 10}",
        "endpoint: h:1\ncompression: snappy\ncompression_params: {level: 1}",
        "endpoint: h:1\ncompression: snappy\ncompression_params: {level: dense}",
        "endpoint: h:1\nheaders: {Content-Type: x}",
        "endpoint: h:1\nbalancer_name: magic",
        "endpoint: h:1\ntls: {min_version: '9'}",
        "endpoint: h:1\nendpint: x",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct flue_arena arena;
        void *config;
        flue_arena_init(&arena, 0, 0);
        if (!engine_bind(&flue_exporter_otlp_grpc, &arena, wrong[i], &config))
            fail_msg("no mistake found in: %s", wrong[i]);
        flue_arena_destroy(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_batch_arrives),
        cmocka_unit_test(every_status_has_its_verdict),
        cmocka_unit_test(the_next_attempt_sends_the_same),
        cmocka_unit_test(answers_are_read),
        cmocka_unit_test(what_is_too_large_is_split),
        cmocka_unit_test(an_item_can_be_given_up),
        cmocka_unit_test(nobody_there_is_tried_again),
        cmocka_unit_test(mistakes_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
