/* Unary calls in every protocol: the message taken out, and the exact answer for what is wrong. */
#include "tests/unit/collector/net/h2peer.h"

#define PATH  "/pkg.Service/Export"
#define PUSH  "/push.v1.PusherService/Push"
#define LIMIT (1u << 20)

static struct harness h;
static struct h2_peer peer;
static struct flue_rpc_service export, push;
static char answer[1 << 16];
static _Atomic int calls, client_gone;
static _Atomic size_t message_size, wire_size;
static struct flue_error outcome; /* what the service says; code 0: the message back */
static bool hold;

static struct flue_account *admit(struct flue_request *request, void *arg, struct flue_error *error)
{
    if (flue_request_header(request, "x-tenant").size == 0)
        return &h.account;
    flue_fail(error, FLUE_RATE_LIMITED, "tenant over its rate");
    error->retry_after_ms = 1500;
    return NULL;
}

static void called(struct flue_rpc_call *call, void *arg)
{
    atomic_fetch_add(&calls, 1);
    message_size = call->message->size;
    wire_size = call->wire_size;
    if (hold)
        h.held_call = call;
    else if (outcome.code)
        flue_rpc_fail(call, &outcome);
    else
        flue_rpc_answer(call, flue_block_bytes(call->message));
}

static void went(struct flue_rpc_call *call, void *arg)
{
    atomic_fetch_add(&client_gone, 1);
    flue_rpc_answer(call, FLUE_BYTES(""));
}

static void counted(void *arg, const struct flue_error *error)
{
    atomic_fetch_add(&h.refused[error->code], 1);
}

static void start(void)
{
    static struct flue_route routes[2];
    struct flue_server_config config = h_default_config;
    config.max_request_body_size = LIMIT;
    export = (struct flue_rpc_service){.path = PATH,
                                       .grpc = true,
                                       .http = true,
                                       .codings = 0xff,
                                       .empty_ok = true,
                                       .admit = admit,
                                       .call = called,
                                       .gone = went,
                                       .refused = counted};
    push = export;
    push.path = PUSH;
    push.connect = true;
    push.http = push.empty_ok = false;
    push.codings = 1u << FLUE_IDENTITY | 1u << FLUE_GZIP;
    flue_rpc_route(&export, &routes[0]);
    flue_rpc_route(&push, &routes[1]);
    memset(&outcome, 0, sizeof outcome);
    calls = client_gone = 0;
    hold = false;
    h_start(&h, &config, routes, 2);
    h2_open(&peer, h.port);
}

static void stop(void)
{
    h2_end(&peer);
    h_stop(&h);
}

/* One gRPC call; `encoding` NULL: none. */
static struct h2_stream *grpc(const char *path, const void *body, size_t size, const char *encoding)
{
    const char *const headers[] = {"content-type",
                                   "application/grpc",
                                   "te",
                                   "trailers",
                                   encoding ? "grpc-encoding" : NULL,
                                   encoding,
                                   NULL};
    int32_t id = h2_request(&peer, path, body, size, false, headers);
    H2_AWAIT(&peer, h2_of(&peer, id)->closed);
    return h2_of(&peer, id);
}

static size_t framed(uint8_t *to, uint8_t flag, struct flue_bytes message)
{
    to[0] = flag;
    for (unsigned i = 0; i < 4; i++)
        to[1 + i] = (uint8_t)(message.size >> (24 - 8 * i));
    if (message.size)
        memcpy(to + 5, message.data, message.size);
    return message.size + 5;
}

static struct flue_block *compressed(enum flue_coding coding, struct flue_bytes in)
{
    struct flue_slices slices = {.items = &in, .count = 1, .room = 1, .total = in.size};
    struct flue_block *out = NULL;
    struct flue_error error;
    if (flue_deflate(coding, FLUE_LEVEL_DEFAULT, &slices, &out, &error))
        fail_msg("%s", error.text);
    return out;
}

static void test_grpc(void **state)
{
    uint8_t body[64];
    start();
    struct h2_stream *stream = grpc(PATH, body, framed(body, 0, FLUE_BYTES("hello")), NULL);
    H_STARTS(stream->headers, ":status: 200\ncontent-type: application/grpc\n");
    H_HAS(stream->headers, "--\ngrpc-status: 0\n");
    H_HAS(stream->headers, "grpc-accept-encoding: identity,gzip,deflate,snappy,zstd\n");
    assert_memory_equal(stream->body, "\0\0\0\0\5hello", 10);
    assert_int_equal(stream->body_size, 10);
    assert_int_equal(message_size, 5);
    assert_int_equal(wire_size, 10);
    stream = grpc(PATH, body, framed(body, 0, FLUE_BYTES("")), NULL);
    H_HAS(stream->headers, "grpc-status: 0\n");
    assert_memory_equal(stream->body, "\0\0\0\0\0", 5);
    stop();
}

static void test_grpc_compressed(void **state)
{
    static const char *const names[] = {"gzip", "zstd", "snappy", "deflate"};
    static const enum flue_coding codings[] = {FLUE_GZIP, FLUE_ZSTD, FLUE_SNAPPY_FRAMED,
                                               FLUE_DEFLATE};
    uint8_t *noise = malloc(200 << 10), *body = malloc(300 << 10);
    assert_non_null(noise);
    assert_non_null(body);
    for (size_t i = 0; i < 200 << 10; i++)
        noise[i] = (uint8_t)(flue_random_u64() & 0x7f);
    start();
    for (size_t i = 0; i < 4; i++)
        for (size_t large = 0; large < 2; large++) { /* in line, and on the pool */
            struct flue_bytes in = flue_bytes(noise, large ? 200 << 10 : 1000);
            struct flue_block *small = compressed(codings[i], in);
            assert_true((small->size > 64 << 10) == (large != 0));
            struct h2_stream *stream =
                grpc(PATH, body, framed(body, 1, flue_block_bytes(small)), names[i]);
            H_HAS(stream->headers, "grpc-status: 0\n");
            assert_int_equal(stream->body_size, in.size + 5);
            assert_memory_equal(stream->body + 5, noise, 900);
            assert_int_equal(wire_size, small->size + 5);
            flue_block_unref(small);
        }
    /* the flag decides, not the header alone */
    struct h2_stream *stream = grpc(PATH, body, framed(body, 0, FLUE_BYTES("plain")), "gzip");
    H_HAS(stream->headers, "grpc-status: 0\n");
    assert_memory_equal(stream->body + 5, "plain", 5);
    free(noise);
    free(body);
    stop();
}

static void test_grpc_wrong(void **state)
{
    uint8_t body[64];
    start();
    static const struct {
        const char *bytes;
        size_t size;
        const char *encoding, *status, *part;
    } cases[] = {
        {"", 0, NULL, "grpc-status: 12\n", "without a message"},
        {"\0\0\0", 3, NULL, "grpc-status: 3\n", "prefix"},
        {"\0\0\0\0\5hell", 9, NULL, "grpc-status: 3\n", "4 bytes of 5"},
        {"\0\0\0\0\1a\0\0\0\0\1b", 12, NULL, "grpc-status: 12\n", "more than one"},
        {"\0\0\0\0\1aX", 7, NULL, "grpc-status: 12\n", "more than one"},
        {"\1\0\0\0\1a", 6, NULL, "grpc-status: 3\n", "without grpc-encoding"},
        {"\2\0\0\0\1a", 6, NULL, "grpc-status: 3\n", "flag is 2"},
        {"\1\0\0\0\1a", 6, "br", "grpc-status: 12\n", "\"br\""},
        {"\1\0\0\0\1a", 6, "lz4", "grpc-status: 12\n", "\"lz4\""},
        {"\1\0\0\0\1a", 6, "gzip", "grpc-status: 3\n", "gzip"},
        {"\0\xff\xff\xff\xff", 5, NULL, "grpc-status: 8\n", "4294967295"},
        {"\0\0\x10\0\1", 5, NULL, "grpc-status: 8\n", "1048577"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        memcpy(body, cases[i].bytes, cases[i].size);
        struct h2_stream *stream = grpc(PATH, body, cases[i].size, cases[i].encoding);
        H_STARTS(stream->headers, ":status: 200\n");
        H_HAS(stream->headers, cases[i].status);
        H_HAS(stream->headers, "grpc-message: ");
        H_HAS(stream->headers, cases[i].part);
        assert_int_equal(stream->body_size, 0);
    }
    assert_int_equal(calls, 0);
    assert_int_equal(h.refused[FLUE_INVALID], 5);
    assert_int_equal(h.refused[FLUE_TOO_LARGE], 2);
    /* truncated at every byte: never a call */
    size_t size = framed(body, 0, FLUE_BYTES("truncated"));
    for (size_t cut = 0; cut < size; cut++)
        assert_null(strstr(grpc(PATH, body, cut, NULL)->headers, "grpc-status: 0\n"));
    assert_int_equal(calls, 0);
    /* one byte to the limit is taken */
    uint8_t *full = calloc(1, LIMIT + 5);
    assert_non_null(full);
    full[2] = 0x10;
    H_HAS(grpc(PATH, full, LIMIT + 5, NULL)->headers, "grpc-status: 0\n");
    free(full);
    /* nothing there, wrong method, wrong type */
    H_HAS(grpc("/pkg.Other/Call", body, size, NULL)->headers, "grpc-status: 12\n");
    stop();
}

/* A megabyte of zeroes in a kilobyte is fine; the limit holds while inflating. */
static void test_bombs(void **state)
{
    size_t size = LIMIT * 2;
    uint8_t *zeroes = calloc(1, size), *body = malloc(64 << 10);
    assert_non_null(zeroes);
    assert_non_null(body);
    start();
    static const char *const names[] = {"gzip", "zstd", "snappy", "deflate"};
    static const enum flue_coding codings[] = {FLUE_GZIP, FLUE_ZSTD, FLUE_SNAPPY_FRAMED,
                                               FLUE_DEFLATE};
    for (size_t i = 0; i < 4; i++) {
        struct flue_block *bomb = compressed(codings[i], flue_bytes(zeroes, size));
        if (bomb->size + 5 <= 64 << 10) {
            struct h2_stream *stream =
                grpc(PATH, body, framed(body, 1, flue_block_bytes(bomb)), names[i]);
            H_HAS(stream->headers, "grpc-status: 8\n");
        }
        flue_block_unref(bomb);
    }
    assert_true(h.refused[FLUE_TOO_LARGE] >= 2);
    assert_int_equal(calls, 0);
    free(zeroes);
    free(body);
    stop();
}

static void test_grpc_errors(void **state)
{
    uint8_t body[64];
    size_t size = framed(body, 0, FLUE_BYTES("x"));
    start();
    flue_fail(&outcome, FLUE_OVERLOADED, "queue full: 100%% of \xc3\xa4");
    outcome.retry_after_ms = 2500;
    struct h2_stream *stream = grpc(PATH, body, size, NULL);
    H_HAS(stream->headers, "grpc-status: 14\n");
    H_HAS(stream->headers, "grpc-message: queue full: 100%25 of %C3%A4\n");
    /* Status{1: 14, 2: "queue full: 100% of ä", 3: Any{1: type, 2: RetryInfo{1: {2 s, 5e8 ns}}}} */
    H_HAS(
        stream->headers,
        "grpc-status-details-bin: CA4SFnF1ZXVlIGZ1bGw6IDEwMCUgb2Ygw6QaNgoodHlwZS5nb29nbGVhcGlzLmNv"
        "bS9nb29nbGUucnBjLlJldHJ5SW5mbxIKCggIAhCAyrXuAQ\n");
    flue_fail(&outcome, FLUE_INVALID, "profiles[1].x: 7 is wrong");
    stream = grpc(PATH, body, size, NULL);
    H_HAS(stream->headers, "grpc-status: 3\n");
    H_HAS(stream->headers, "grpc-status-details-bin: ");
    const char *const tenant[] = {"content-type", "application/grpc", "x-tenant", "a", NULL};
    int32_t id = h2_request(&peer, PATH, body, size, true, tenant); /* before the body */
    H2_AWAIT(&peer, h2_of(&peer, id)->closed);
    H_HAS(h2_of(&peer, id)->headers, "grpc-status: 8\n");
    stop();
}

static void post(const char *path, const char *type, const char *more, const void *body,
                 size_t size)
{
    char head[512];
    int fd = h_connect(h.port);
    snprintf(head, sizeof head,
             "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: %s\r\n%s"
             "Content-Length: %zu\r\n\r\n",
             path, type, more, size);
    h_say(fd, head);
    h_send(fd, body, size);
    assert_true(h_read_until(fd, answer, sizeof answer, NULL) > 0);
    close(fd);
}

static void test_http(void **state)
{
    start();
    post(PATH, "application/x-protobuf", "", "abc", 3);
    H_STARTS(answer, "HTTP/1.1 200 ");
    H_HAS(answer, "content-type: application/x-protobuf\r\n");
    H_HAS(answer, "\r\n\r\nabc");
    post(PATH, "Application/JSON; charset=utf-8", "", "{}", 2);
    H_STARTS(answer, "HTTP/1.1 200 ");
    H_HAS(answer, "content-type: application/json\r\n");
    post(PATH, "application/protobuf", "", "", 0);
    H_STARTS(answer, "HTTP/1.1 200 ");
    H_HAS(answer, "content-type: application/protobuf\r\n");
    assert_int_equal(calls, 3);
    static const enum flue_coding all[] = {FLUE_GZIP,   FLUE_ZLIB, FLUE_DEFLATE,      FLUE_ZSTD,
                                           FLUE_SNAPPY, FLUE_LZ4,  FLUE_SNAPPY_FRAMED};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char encoding[64];
        struct flue_block *small = compressed(all[i], FLUE_BYTES("compressed words"));
        snprintf(encoding, sizeof encoding, "Content-Encoding: %s\r\n", flue_coding_name(all[i]));
        post(PATH, "application/x-protobuf", encoding, small->data, small->size);
        H_STARTS(answer, "HTTP/1.1 200 ");
        H_HAS(answer, "\r\n\r\ncompressed words");
        flue_block_unref(small);
    }
    stop();
}

static void test_http_wrong(void **state)
{
    start();
    post(PATH, "application/json", "", "", 0);
    H_STARTS(answer, "HTTP/1.1 400 ");
    H_HAS(answer, "{\"code\":3,\"message\":\"the request is empty\"");
    post(PATH, "text/plain", "", "x", 1);
    H_STARTS(answer, "HTTP/1.1 415 ");
    H_HAS(answer, "content-type: application/x-protobuf\r\n");
    H_HAS(answer, "\r\n\r\n\x08\x0c\x12");
    post(PATH, "application/grpc", "", "x", 1); /* needs HTTP/2 */
    H_HAS(answer, "grpc-status: 12\r\n");
    post(PATH, "application/x-protobuf", "Content-Encoding: br\r\n", "x", 1);
    H_STARTS(answer, "HTTP/1.1 415 ");
    post(PATH, "application/x-protobuf", "Content-Encoding: gzip\r\n", "junk", 4);
    H_STARTS(answer, "HTTP/1.1 400 ");
    h_once(h.port,
           "GET " PATH " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
           "Content-Type: application/json\r\n\r\n",
           answer, sizeof answer);
    H_STARTS(answer, "HTTP/1.1 405 ");
    H_HAS(answer, "allow: POST\r\n");
    H_HAS(answer, "{\"code\":12,");
    h_once(h.port,
           "POST " PATH " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
           "Content-Length: 1048577\r\n\r\n",
           answer, sizeof answer);
    H_STARTS(answer, "HTTP/1.1 413 ");
    H_HAS(answer, "{\"code\":8,");
    H_HAS(answer, "1048577");
    post(PATH, "application/json", "X-Tenant: a\r\n", "{}", 2);
    H_STARTS(answer, "HTTP/1.1 429 ");
    H_HAS(answer, "retry-after: 2\r\n");
    H_HAS(answer, "\"retryDelay\":\"1.500s\"");
    assert_int_equal(calls, 0);
    flue_fail(&outcome, FLUE_OVERLOADED, "full");
    outcome.retry_after_ms = 1;
    post(PATH, "application/json", "", "{}", 2);
    H_STARTS(answer, "HTTP/1.1 503 ");
    H_HAS(answer, "retry-after: 1\r\n");
    H_HAS(answer, "content-type: application/json\r\n");
    assert_int_equal(h.refused[FLUE_OVERLOADED], 1);
    stop();
}

static void test_connect(void **state)
{
    uint8_t body[64];
    start();
    post(PUSH, "application/proto", "Connect-Protocol-Version: 1\r\n", "abc", 3);
    H_STARTS(answer, "HTTP/1.1 200 ");
    H_HAS(answer, "content-type: application/proto\r\n");
    post(PUSH, "application/json", "", "{}", 2);
    H_STARTS(answer, "HTTP/1.1 200 ");
    post(PUSH, "application/proto", "", "", 0);
    H_STARTS(answer, "HTTP/1.1 400 ");
    H_HAS(answer, "content-type: application/json\r\n");
    H_HAS(answer, "{\"code\":\"invalid_argument\",\"message\":\"the request is empty\"}");
    post(PUSH, "application/xml", "", "x", 1);
    H_STARTS(answer, "HTTP/1.1 415 ");
    post(PUSH, "application/proto", "Content-Encoding: zstd\r\n", "x", 1);
    H_STARTS(answer, "HTTP/1.1 501 ");
    H_HAS(answer, "{\"code\":\"unimplemented\"");
    h_once(h.port,
           "POST " PUSH " HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\n"
           "Content-Length: 1048577\r\n\r\n",
           answer, sizeof answer);
    H_STARTS(answer, "HTTP/1.1 429 ");
    H_HAS(answer, "resource_exhausted");
    assert_int_equal(calls, 2);
    H_HAS(grpc(PUSH, body, framed(body, 0, FLUE_BYTES("x")), NULL)->headers, "grpc-status: 0\n");
    H_HAS(grpc(PUSH, body, framed(body, 0, FLUE_BYTES("")), NULL)->headers, "grpc-status: 3\n");
    stop();
}

static void test_gone_and_deadline(void **state)
{
    uint8_t body[64];
    size_t size = framed(body, 0, FLUE_BYTES("x"));
    start();
    const char *const headers[] = {"content-type", "application/grpc", NULL};
    int32_t id = h2_request(&peer, PATH, body, 3, true, headers); /* goes within the body */
    H2_AWAIT(&peer, h2_of(&peer, id)->send_size == 0);
    nghttp2_submit_rst_stream(peer.session, 0, id, NGHTTP2_CANCEL);
    H2_AWAIT(&peer, flue_server_set_open_requests(h.set) == 0);
    hold = true;
    id = h2_request(&peer, PATH, body, size, false, headers);
    H2_AWAIT(&peer, calls == 1);
    nghttp2_submit_rst_stream(peer.session, 0, id, NGHTTP2_CANCEL);
    H2_AWAIT(&peer, client_gone == 1);
    H2_AWAIT(&peer, flue_server_set_open_requests(h.set) == 0);
    hold = false;
    const char *const late[] = {"content-type", "application/grpc", "grpc-timeout", "1n", NULL};
    id = h2_request(&peer, PATH, body, size, false, late);
    H2_AWAIT(&peer, h2_of(&peer, id)->closed);
    H_HAS(h2_of(&peer, id)->headers, "grpc-status: 4\n");
    assert_int_equal(calls, 1);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grpc),
        cmocka_unit_test(test_grpc_compressed),
        cmocka_unit_test(test_grpc_wrong),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_grpc_errors),
        cmocka_unit_test(test_http),
        cmocka_unit_test(test_http_wrong),
        cmocka_unit_test(test_connect),
        cmocka_unit_test(test_gone_and_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
