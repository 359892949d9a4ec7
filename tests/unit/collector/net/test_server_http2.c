/* HTTP/2 over real sockets: bodies, windows, refusals, floods, time-outs, pings, the end. */
#include "collector/net/listener.h"
#include "tests/unit/collector/net/h2peer.h"

static struct harness h;
static struct h2_peer peer;

static void start(const struct flue_server_config *config)
{
    static struct flue_route routes[4];
    const struct flue_route fresh[] = H_ROUTES;
    memcpy(routes, fresh, sizeof routes);
    h_start(&h, config, routes, 4);
    h2_open(&peer, h.port);
}

static void stop(void)
{
    h2_end(&peer);
    h_stop(&h);
}

static void test_echo(void **state)
{
    start(&h_default_config);
    int32_t id = h2_request(&peer, "/echo?q=1", "hello", 5, false, NULL);
    H2_AWAIT(&peer, h2_of(&peer, id)->closed);
    struct h2_stream *stream = h2_of(&peer, id);
    assert_int_equal(stream->code, 0);
    H_STARTS(stream->headers, ":status: 200\n");
    H_HAS(stream->headers, "content-length: 5\n");
    assert_string_equal(stream->body, "hello");
    assert_string_equal(h.path, "/echo");
    assert_string_equal(h.query, "q=1");
    assert_string_equal(h.authority, "x");
    stop();
}

static void test_many_streams(void **state)
{
    static uint8_t body[3000];
    start(&h_default_config);
    for (int round = 0; round < 5; round++) {
        int32_t ids[100];
        for (int i = 0; i < 100; i++)
            ids[i] = h2_request(&peer, "/echo", body, sizeof body, false, NULL);
        for (int i = 0; i < 100; i++) {
            H2_AWAIT(&peer, h2_of(&peer, ids[i])->closed);
            assert_int_equal(h2_of(&peer, ids[i])->body_size, sizeof body);
        }
    }
    assert_int_equal(h.bodies, 500);
    stop();
}

/* Many windows long, with and without a length. */
static void test_long_bodies(void **state)
{
    struct flue_server_config config = h_default_config;
    config.max_request_body_size = 32 << 20;
    size_t size = 20 << 20;
    uint8_t *body = malloc(size);
    assert_non_null(body);
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(i * 31 >> 3);
    const char *const length[] = {"content-length", "20971520", NULL};
    start(&config);
    for (int i = 0; i < 2; i++) {
        int32_t id = h2_request(&peer, "/echo", body, size, false, i ? length : NULL);
        H2_AWAIT(&peer, h2_of(&peer, id)->closed);
        assert_int_equal(h.last_body, size);
        assert_int_equal(h2_of(&peer, id)->body_size, size);
        assert_memory_equal(h2_of(&peer, id)->body, body, 4096);
    }
    free(body);
    stop();
}

static void test_refusals(void **state)
{
    static char long_value[17000];
    memset(long_value, 'v', sizeof long_value - 1);
    const char *const big[] = {"x", long_value, NULL};
    const char *const length[] = {"content-length", "9000000", NULL};
    start(&h_default_config);
    const struct {
        const char *path;
        const char *const *headers;
        const char *status;
    } cases[] = {{"/none", NULL, ":status: 404\n"},
                 {"/busy", NULL, ":status: 503\n"},
                 {"/echo", big, ":status: 431\n"},
                 {"/echo", length, ":status: 413\n"},
                 {"x", NULL, NULL}};
    for (size_t i = 0; i < 5; i++) {
        int32_t id = h2_request(&peer, cases[i].path, "abc", 3, true, cases[i].headers);
        H2_AWAIT(&peer, h2_of(&peer, id)->closed); /* though the body has not ended */
        if (cases[i].status) {
            H_STARTS(h2_of(&peer, id)->headers, cases[i].status);
            assert_true(h2_of(&peer, id)->ended);
            assert_int_equal(h2_of(&peer, id)->code, NGHTTP2_NO_ERROR);
        }
    }
    assert_false(peer.goaway);
    assert_int_equal(h.bodies, 0);
    stop();
}

/* A body that grows over the limit is answered when it does, not when it ends. */
static void test_grows_over(void **state)
{
    static uint8_t body[2000];
    start(&h_default_config);
    h.limit = 1000;
    int32_t id = h2_request(&peer, "/echo", body, 1000, false, NULL);
    H2_AWAIT(&peer, h2_of(&peer, id)->closed);
    H_STARTS(h2_of(&peer, id)->headers, ":status: 200\n");
    id = h2_request(&peer, "/echo", body, 1001, true, NULL);
    H2_AWAIT(&peer, h2_of(&peer, id)->closed);
    H_STARTS(h2_of(&peer, id)->headers, ":status: 413\n");
    stop();
}

/* gRPC's prefix lies: refused at five bytes; the connection lives on. */
static void test_length_prefix(void **state)
{
    static const uint8_t lie[] = {0, 0xff, 0xff, 0xff, 0xff};
    const char *const grpc[] = {"content-type", "application/grpc", "te", "trailers", NULL};
    start(&h_default_config);
    int32_t id = h2_request(&peer, "/echo", lie, 5, true, grpc);
    H2_AWAIT(&peer, h2_of(&peer, id)->closed);
    H_HAS(h2_of(&peer, id)->headers, "grpc-status: 8\n");
    H_HAS(h2_of(&peer, id)->headers, "4294967295");
    id = h2_request(&peer, "/echo", "x", 1, false, NULL);
    H2_AWAIT(&peer, h2_of(&peer, id)->closed);
    H_STARTS(h2_of(&peer, id)->headers, ":status: 200\n");
    stop();
}

static void test_deadlines(void **state)
{
    static const struct {
        const char *name, *value;
        uint64_t ns; /* 0: none */
    } cases[] = {{"grpc-timeout", "1S", 1000000000}, {"grpc-timeout", "250m", 250000000},
                 {"grpc-timeout", "99999999H", 0},   {"grpc-timeout", "1x", 0},
                 {"grpc-timeout", "999999999S", 0},  {"grpc-timeout", "S", 0},
                 {"grpc-timeout", "2u", 2000},       {"connect-timeout-ms", "1500", 1500000000},
                 {"connect-timeout-ms", "-1", 0},    {"connect-timeout-ms", "99999999999", 0}};
    start(&h_default_config);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const headers[] = {cases[i].name, cases[i].value, NULL};
        int32_t id = h2_request(&peer, "/echo", NULL, 0, false, headers);
        H2_AWAIT(&peer, h2_of(&peer, id)->closed);
        assert_int_equal(h.deadline_ns ? h.deadline_ns - h.received_ns : 0, cases[i].ns);
    }
    stop();
}

/* ---- raw frames ----------------------------------------------------------------------------- */

static int raw_open(void)
{
    static const uint8_t hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    int fd = h_connect(h.port);
    assert_true(fd >= 0);
    h_send(fd, hello, sizeof hello - 1);
    return fd;
}

static size_t frame(uint8_t *to, size_t size, uint8_t type, uint8_t flags, uint32_t stream)
{
    const uint8_t head[9] = {(uint8_t)(size >> 16),
                             (uint8_t)(size >> 8),
                             (uint8_t)size,
                             type,
                             flags,
                             (uint8_t)(stream >> 24),
                             (uint8_t)(stream >> 16),
                             (uint8_t)(stream >> 8),
                             (uint8_t)stream};
    memcpy(to, head, 9);
    return 9;
}

/* Reads to the end; how many GOAWAYs with this code there were. */
static int goaways_came(int fd, uint32_t code)
{
    static char in[1 << 20];
    int count = 0;
    long size = h_read_until(fd, in, sizeof in, NULL);
    for (long at = 0; at + 17 <= size;) {
        const uint8_t *head = (const uint8_t *)in + at;
        if (head[3] == NGHTTP2_GOAWAY && head[16] == code)
            count++;
        at += 9 + (head[0] << 16 | head[1] << 8 | head[2]);
    }
    return count;
}

/* POST /echo, open */
static size_t headers_frame(uint8_t *to, uint32_t stream)
{
    static const uint8_t block[] = {0x83, 0x86, 0x04, 5, '/', 'e', 'c', 'h', 'o', 0x01, 1, 'x'};
    size_t at = frame(to, sizeof block, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, stream);
    memcpy(to + at, block, sizeof block);
    return at + sizeof block;
}

static void send_some(int fd, const uint8_t *data, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        data += sent;
        size -= (size_t)sent;
    }
}

static bool stopped_by(const uint8_t *data, size_t size, uint32_t code)
{
    int fd = raw_open();
    send_some(fd, data, size);
    bool came = goaways_came(fd, code) > 0;
    close(fd);
    return came;
}

static void test_floods(void **state)
{
    enum { TIMES = 3000 };
    static uint8_t frames[TIMES * 64];
    start(&h_default_config);
    size_t size = 0;
    for (int i = 0; i < TIMES; i++) /* PING */
        size += frame(frames + size, 8, NGHTTP2_PING, 0, 0) + 8;
    assert_true(stopped_by(frames, size, NGHTTP2_ENHANCE_YOUR_CALM));
    size = 0;
    for (int i = 0; i < TIMES; i++) /* SETTINGS */
        size += frame(frames + size, 0, NGHTTP2_SETTINGS, 0, 0);
    assert_true(stopped_by(frames, size, NGHTTP2_ENHANCE_YOUR_CALM));
    size = headers_frame(frames, 1);
    for (int i = 0; i < TIMES; i++) /* empty DATA */
        size += frame(frames + size, 0, NGHTTP2_DATA, 0, 1);
    assert_true(stopped_by(frames, size, NGHTTP2_ENHANCE_YOUR_CALM));
    size = 0;
    for (uint32_t i = 0; i < TIMES / 2; i++) { /* HEADERS, RST_STREAM */
        size += headers_frame(frames + size, 2 * i + 1);
        size += frame(frames + size, 4, NGHTTP2_RST_STREAM, 0, 2 * i + 1);
        memcpy(frames + size, "\0\0\0\10", 4);
        size += 4;
    }
    assert_true(stopped_by(frames, size, NGHTTP2_INTERNAL_ERROR) ||
                stopped_by(frames, size, NGHTTP2_ENHANCE_YOUR_CALM));
    assert_true(h.heads < TIMES / 2 * 2);
    size = headers_frame(frames, 1); /* CONTINUATION without an end */
    frames[4] = 0;
    for (int i = 0; i < 100; i++)
        size += frame(frames + size, 0, NGHTTP2_CONTINUATION, 0, 1);
    assert_true(stopped_by(frames, size, NGHTTP2_ENHANCE_YOUR_CALM) ||
                stopped_by(frames, size, NGHTTP2_PROTOCOL_ERROR) ||
                stopped_by(frames, size, NGHTTP2_INTERNAL_ERROR));
    H_AWAIT(flue_server_set_open_requests(h.set) == 0);
    stop();
}

static void test_bad_preface(void **state)
{
    start(&h_default_config);
    int fd = h_connect(h.port);
    h_say(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no SETTINGS frame");
    static char in[65536];
    assert_true(h_read_until(fd, in, sizeof in, NULL) >= 0);
    close(fd);
    stop();
}

/* A client that stops in the middle of anything. */
static void test_stops(void **state)
{
    static const uint8_t hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    uint8_t bytes[128];
    memcpy(bytes, hello, sizeof hello - 1);
    size_t size = sizeof hello - 1;
    size += headers_frame(bytes + size, 1);
    size += frame(bytes + size, 10, NGHTTP2_DATA, 0, 1);
    memset(bytes + size, 'x', 10);
    size += 10;
    start(&h_default_config);
    for (size_t cut = 1; cut <= size; cut++) {
        int fd = h_connect(h.port);
        h_send(fd, bytes, cut);
        close(fd);
    }
    H_AWAIT(atomic_load(&h.set->connections) == 1); /* the idle peer's */
    assert_int_equal(flue_server_set_open_requests(h.set), 0);
    assert_int_equal(h.bodies, 0);
    stop();
}

static void test_time_outs(void **state)
{
    struct flue_server_config config = h_default_config;
    uint8_t bytes[128];
    config.read_header_timeout = 500 * MS;
    config.read_timeout = 500 * MS;
    config.idle_timeout = 500 * MS;
    start(&config);
    h2_end(&peer);
    int idle = raw_open(); /* told to go, and where, then closed */
    assert_int_equal(goaways_came(idle, NGHTTP2_NO_ERROR), 2);
    close(idle);
    /* the preface, and nothing more */
    int fd = h_connect(h.port);
    h_say(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_true(goaways_came(fd, NGHTTP2_SETTINGS_TIMEOUT));
    close(fd);
    /* a header block that never ends */
    fd = raw_open();
    size_t size = headers_frame(bytes, 1);
    h_send(fd, bytes, size - 3);
    assert_true(goaways_came(fd, NGHTTP2_SETTINGS_TIMEOUT));
    close(fd);
    /* a body that never ends */
    h2_open(&peer, h.port);
    int32_t id = h2_request(&peer, "/echo", "abc", 3, true, NULL);
    H2_AWAIT(&peer, h2_of(&peer, id)->closed);
    H_STARTS(h2_of(&peer, id)->headers, ":status: 504\n");
    stop();
}

static void answer_held(struct flue_loop *loop, void *arg)
{
    h_text(h.held, 200, "late");
}

static void test_drain(void **state)
{
    start(&h_default_config);
    int32_t id = h2_request(&peer, "/hold", "x", 1, false, NULL);
    H2_AWAIT(&peer, h.bodies == 1);
    flue_server_set_drain(h.set);
    H2_AWAIT(&peer, peer.goaways == 2);
    assert_int_equal(peer.goaway_code, NGHTTP2_NO_ERROR);
    assert_false(h2_of(&peer, id)->closed);
    flue_loop_call(h.held->loop, answer_held, NULL);
    H2_AWAIT(&peer, h2_of(&peer, id)->closed);
    assert_string_equal(h2_of(&peer, id)->body, "late");
    H2_AWAIT(&peer, peer.eof);
    stop();
}

static void test_client_resets(void **state)
{
    start(&h_default_config);
    int32_t id = h2_request(&peer, "/hold", "x", 1, false, NULL);
    H2_AWAIT(&peer, h.bodies == 1);
    nghttp2_submit_rst_stream(peer.session, 0, id, NGHTTP2_CANCEL);
    H2_AWAIT(&peer, h.gone == 1);
    id = h2_request(&peer, "/echo", "y", 1, false, NULL);
    H2_AWAIT(&peer, h2_of(&peer, id)->closed);
    assert_string_equal(h2_of(&peer, id)->body, "y");
    assert_int_equal(flue_server_set_open_requests(h.set), 0);
    stop();
}

static void test_keepalive(void **state)
{
    struct flue_server_config config = h_default_config;
    config.keepalive.server_parameters.time = 20 * MS;
    config.keepalive.server_parameters.timeout = 1000 * MS;
    start(&config);
    /* who answers stays */
    for (int i = 0; i < 20; i++)
        h2_turn(&peer, 10);
    assert_false(peer.eof);
    /* who does not is closed */
    int fd = raw_open();
    static char in[65536];
    h_read_until(fd, in, sizeof in, NULL);
    close(fd);
    H_AWAIT(atomic_load(&h.set->connections) <= 1);
    stop();

    config = h_default_config;
    config.keepalive.server_parameters.max_connection_age = 500 * MS;
    config.keepalive.server_parameters.max_connection_age_grace = 100 * MS;
    start(&config);
    int32_t id = h2_request(&peer, "/hold", "x", 1, false, NULL);
    H2_AWAIT(&peer, peer.eof);
    assert_true(peer.goaways >= 1);
    assert_false(h2_of(&peer, id)->ended);
    H_AWAIT(h.gone == 1);
    stop();

    config = h_default_config;
    config.keepalive.enforcement_policy.min_time = 300000 * MS;
    config.keepalive.enforcement_policy.permit_without_stream = true;
    start(&config);
    for (int i = 0; i < 3; i++) {
        nghttp2_submit_ping(peer.session, 0, NULL);
        H2_AWAIT(&peer, peer.pings_answered == i + 1);
    }
    assert_false(peer.goaway);
    nghttp2_submit_ping(peer.session, 0, NULL);
    H2_AWAIT(&peer, peer.goaway);
    assert_int_equal(peer.goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
    stop();
}

/* Over the soft share windows are withheld: the peer stops at about one, then goes on. */
static void test_back_pressure(void **state)
{
    struct flue_server_config config = h_default_config;
    config.max_request_body_size = 32 << 20;
    size_t size = 12 << 20;
    uint8_t *body = calloc(1, size);
    assert_non_null(body);
    start(&config);
    flue_account_charge_always(&h.account, 2000);
    const char *const length[] = {"content-length", "12582912", NULL};
    int32_t id = h2_request(&peer, "/echo", NULL, 0, true, length);
    struct h2_stream *stream = h2_of(&peer, id);
    H2_AWAIT(&peer, h.heads == 1);
    atomic_store(&h.account.soft, 1000); /* admitted with nothing of its body; now over */
    stream->send = body;
    stream->send_size = size;
    stream->send_open = false;
    assert_int_equal(nghttp2_session_resume_data(peer.session, id), 0);
    uint64_t until = flue_monotonic_ns() + 300 * MS;
    while (flue_monotonic_ns() < until)
        h2_turn(&peer, 5);
    assert_true(stream->send_size > 4 << 20); /* it waits */
    atomic_store(&h.account.soft, 0);
    H2_AWAIT(&peer, stream->closed);
    assert_int_equal(stream->body_size, size);
    flue_account_release(&h.account, 2000);
    free(body);
    stop();
}

static void test_stream_limit(void **state)
{
    struct flue_server_config config = h_default_config;
    config.max_concurrent_streams = 2;
    start(&config);
    h2_turn(&peer, 50);
    h2_turn(&peer, 50);
    assert_int_equal(
        nghttp2_session_get_remote_settings(peer.session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS),
        2);
    assert_int_equal(
        nghttp2_session_get_remote_settings(peer.session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE),
        1 << 20);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),          cmocka_unit_test(test_many_streams),
        cmocka_unit_test(test_long_bodies),   cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_grows_over),    cmocka_unit_test(test_length_prefix),
        cmocka_unit_test(test_deadlines),     cmocka_unit_test(test_floods),
        cmocka_unit_test(test_bad_preface),   cmocka_unit_test(test_stops),
        cmocka_unit_test(test_time_outs),     cmocka_unit_test(test_drain),
        cmocka_unit_test(test_client_resets), cmocka_unit_test(test_keepalive),
        cmocka_unit_test(test_back_pressure), cmocka_unit_test(test_stream_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
