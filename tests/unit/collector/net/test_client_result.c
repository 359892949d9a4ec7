/* What endpoints say, and what answers say: gRPC's status, RetryInfo, Retry-After. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#include "collector/base/clock.h"
#include "collector/net/client.h"
#include "collector/net/client_body.h"

static void endpoints(void **state)
{
    static const struct {
        const char *endpoint;
        bool url, good;
        const char *path;
    } cases[] = {
        {"localhost:4317", false, true, ""},
        {":4317", false, true, ""},
        {"[::1]:4317", false, true, ""},
        {"::1:4317", false, false, ""},
        {"host", false, true, ""},
        {"host:0", false, false, ""},
        {"host:65536", false, false, ""},
        {"host:12x", false, false, ""},
        {"dns:///host:1", false, true, ""},
        {"dns://8.8.8.8/host:1", false, false, ""},
        {"xds:///host", false, false, ""},
        {"unix:///run/x.sock", false, true, ""},
        {"unix:/run/x.sock", false, true, ""},
        {"unix://", false, false, ""},
        {"http://h:1", false, true, ""},
        {"https://h", true, true, ""},
        {"http://h:1/a/b?c=d#e", true, true, "/a/b?c=d"},
        {"https://h?q", true, true, "?q"},
        {"h:1", true, false, ""},
        {"ftp://h", true, false, ""},
        {"http://u:p@h/", true, false, "/"},
        {"http://", true, false, ""},
        {"http://a b", true, false, ""},
        {"host:1/path", false, false, ""},
        {"[::1:1", false, false, ""},
        {"[::1]x", false, false, ""},
        {"", false, false, ""},
        {NULL, true, false, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct flue_error error = {0};
        enum flue_code code = flue_client_endpoint_check(cases[i].endpoint, cases[i].url, &error);
        if ((code == FLUE_OK) != cases[i].good)
            fail_msg("%s: %s", cases[i].endpoint, error.text);
        if (!cases[i].good)
            assert_true(strlen(error.text) > 10);
        if (cases[i].path)
            assert_true(flue_bytes_is(flue_client_endpoint_path(cases[i].endpoint), cases[i].path));
    }
}

static void which_means_tls(void **state)
{
    struct flue_client_config config = {.endpoint = "h:1"};
    assert_true(flue_client_uses_tls(&config));
    config.tls.insecure = true;
    assert_false(flue_client_uses_tls(&config));
    config.endpoint = "https://h:1";
    assert_true(flue_client_uses_tls(&config));
    config = (struct flue_client_config){.endpoint = "http://h:1", .tls_by_scheme = true};
    assert_false(flue_client_uses_tls(&config));
}

static struct flue_header header(const char *name, const char *value)
{
    return (struct flue_header){flue_bytes_of(name), flue_bytes_of(value)};
}

static enum flue_code result(unsigned http, const char *status, const char *message,
                             const char *details, struct flue_bytes body, struct flue_error *error)
{
    struct flue_header trailers[3];
    size_t count = 0;
    struct flue_arena arena;
    struct flue_bytes out;
    if (status)
        trailers[count++] = header("grpc-status", status);
    if (message)
        trailers[count++] = header("grpc-message", message);
    if (details)
        trailers[count++] = header("grpc-status-details-bin", details);
    struct flue_call call = {.status = http, .response = body};
    enum flue_code codes[2];
    for (unsigned i = 0; i < 2; i++) { /* in trailers, and trailers-only */
        call.trailers = trailers;
        call.trailer_count = i ? 0 : count;
        call.response_headers = trailers;
        call.response_header_count = i ? count : 0;
        flue_arena_init(&arena, 1 << 20, 0);
        memset(error, 0, sizeof *error);
        codes[i] = flue_call_grpc_result(&call, &arena, &out, error);
        flue_arena_destroy(&arena);
    }
    assert_int_equal(codes[0], codes[1]);
    assert_true(codes[0] == FLUE_OK || error->code == codes[0]);
    return codes[0];
}

/* OTLP 1.11: exactly these may be repeated. */
static void statuses(void **state)
{
    static const bool retryable[17] = {
        [1] = true, [4] = true, [10] = true, [11] = true, [14] = true, [15] = true};
    struct flue_error error;
    char text[8];
    for (unsigned i = 1; i <= 18; i++) {
        snprintf(text, sizeof text, "%u", i);
        enum flue_code code = result(200, text, "a%20b%", NULL, flue_bytes(NULL, 0), &error);
        assert_int_not_equal(code, FLUE_OK);
        assert_int_equal(flue_code_facts(code)->retryable, i < 17 && retryable[i]);
        assert_int_equal(error.retry_after_ms, 0);
        assert_non_null(strstr(error.text, ": a b%"));
    }
    assert_int_equal(result(200, "3", NULL, NULL, flue_bytes(NULL, 0), &error), FLUE_INVALID);
    assert_int_equal(result(200, "4", NULL, NULL, flue_bytes(NULL, 0), &error), FLUE_TIMEOUT);
    assert_int_equal(result(200, "x", NULL, NULL, flue_bytes(NULL, 0), &error), FLUE_REFUSED);
    assert_int_equal(result(200, NULL, NULL, NULL, flue_bytes(NULL, 0), &error), FLUE_REFUSED);
    assert_non_null(strstr(error.text, "grpc-status"));
    static const struct {
        unsigned http;
        bool retryable;
    } plain[] = {{400, false}, {401, false}, {403, false}, {404, false}, {429, true},
                 {500, false}, {502, true},  {503, true},  {504, true},  {302, false}};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        assert_int_equal(
            flue_code_facts(result(plain[i].http, NULL, NULL, NULL, flue_bytes(NULL, 0), &error))
                ->retryable,
            plain[i].retryable);
    /* Text from the network reaches people escaped. */
    result(200, "3", "%1b[31m", NULL, flue_bytes(NULL, 0), &error);
    assert_null(strchr(error.text, 0x1b));
}

static size_t any(uint8_t *out, const char *type, const uint8_t *value, size_t size)
{
    uint8_t *at = out;
    *at++ = 0x0a;
    *at++ = (uint8_t)strlen(type);
    memcpy(at, type, strlen(type));
    at += strlen(type);
    *at++ = 0x12;
    *at++ = (uint8_t)size;
    memcpy(at, value, size);
    return (size_t)(at - out) + size;
}

static void encode64(const uint8_t *in, size_t size, bool pad, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        uint32_t bits = (uint32_t)in[i] << 16 | (i + 1 < size ? (uint32_t)in[i + 1] << 8 : 0) |
                        (i + 2 < size ? in[i + 2] : 0);
        *out++ = digits[bits >> 18];
        *out++ = digits[bits >> 12 & 63];
        if (i + 1 < size || pad)
            *out++ = i + 1 < size ? digits[bits >> 6 & 63] : '=';
        if (i + 2 < size || pad)
            *out++ = i + 2 < size ? digits[bits & 63] : '=';
    }
    *out = 0;
}

static size_t status_with(uint8_t *out, const char *type, const uint8_t *value, size_t size)
{
    uint8_t detail[200];
    size_t detail_size = any(detail, type, value, size);
    static const uint8_t front[] = {0x08, 8, 0x12, 4, 'f', 'u', 'l', 'l'};
    memcpy(out, front, sizeof front);
    out[sizeof front] = 0x1a;
    out[sizeof front + 1] = (uint8_t)detail_size;
    memcpy(out + sizeof front + 2, detail, detail_size);
    return sizeof front + 2 + detail_size;
}

static void retry_info(void **state)
{
    static const char type[] = "type.googleapis.com/google.rpc.RetryInfo";
    static const uint8_t delay[] = {0x0a, 8, 0x08, 2, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01};
    uint8_t details[300];
    char text[500];
    struct flue_error error;
    size_t size = status_with(details, type, delay, sizeof delay);
    for (unsigned pad = 0; pad < 2; pad++) {
        encode64(details, size, pad, text);
        assert_int_equal(result(200, "8", "x", text, flue_bytes(NULL, 0), &error),
                         FLUE_RATE_LIMITED);
        assert_int_equal(error.retry_after_ms, 2500);
        assert_non_null(strstr(error.text, "full")); /* the longer of the two messages */
        assert_int_equal(result(200, "14", NULL, text, flue_bytes(NULL, 0), &error),
                         FLUE_UNAVAILABLE);
        assert_int_equal(error.retry_after_ms, 2500);
    }
    /* RetryInfo without a delay still is one. */
    size = status_with(details, type, delay, 0);
    encode64(details, size, true, text);
    assert_int_equal(result(200, "8", NULL, text, flue_bytes(NULL, 0), &error), FLUE_RATE_LIMITED);
    assert_true(error.retry_after_ms <= 1);
    /* Another detail is none. */
    size = status_with(details, "type.googleapis.com/google.rpc.ErrorInfo", delay, sizeof delay);
    encode64(details, size, true, text);
    assert_int_equal(result(200, "8", NULL, text, flue_bytes(NULL, 0), &error), FLUE_REFUSED);
    /* Cut anywhere, and with every bit turned: never more than no details. */
    size = status_with(details, type, delay, sizeof delay);
    for (size_t cut = 0; cut <= size; cut++) {
        encode64(details, cut, true, text);
        enum flue_code code = result(200, "8", NULL, text, flue_bytes(NULL, 0), &error);
        assert_true(code == FLUE_REFUSED || code == FLUE_RATE_LIMITED);
        assert_true(error.retry_after_ms <= 3600000);
    }
    for (size_t bit = 0; bit < size * 8; bit++) {
        details[bit / 8] ^= (uint8_t)(1u << bit % 8);
        encode64(details, size, true, text);
        result(200, "8", NULL, text, flue_bytes(NULL, 0), &error);
        assert_true(error.retry_after_ms <= 3600000);
        details[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void messages(void **state)
{
    static const uint8_t good[] = {0, 0, 0, 0, 3, 'a', 'b', 'c'};
    struct flue_error error;
    struct flue_arena arena;
    struct flue_bytes out;
    struct flue_header ok = header("grpc-status", "0");
    struct flue_call call = {
        .status = 200, .trailers = &ok, .trailer_count = 1, .response = {good, sizeof good}};
    flue_arena_init(&arena, 1 << 20, 0);
    assert_int_equal(flue_call_grpc_result(&call, &arena, &out, &error), FLUE_OK);
    assert_true(flue_bytes_is(out, "abc"));
    call.response.size = 0;
    assert_int_equal(flue_call_grpc_result(&call, &arena, &out, &error), FLUE_OK);
    assert_int_equal(out.size, 0);
    for (size_t cut = 1; cut < sizeof good; cut++) {
        call.response.size = cut;
        assert_int_equal(flue_call_grpc_result(&call, &arena, &out, &error), FLUE_INVALID);
    }
    flue_arena_destroy(&arena);

    /* Compressed, by grpc-encoding. */
    uint8_t text[3] = {'x', 'y', 'z'};
    struct flue_bytes item = flue_bytes(text, 3);
    struct flue_slices raw = {&item, 1, 1, 3};
    struct flue_block *block = NULL;
    assert_int_equal(flue_deflate(FLUE_GZIP, FLUE_LEVEL_DEFAULT, &raw, &block, &error), FLUE_OK);
    uint8_t framed[200] = {1, 0, 0, 0, (uint8_t)block->size};
    memcpy(framed + 5, block->data, block->size);
    struct flue_header coding = header("grpc-encoding", "gzip");
    call.response = flue_bytes(framed, block->size + 5);
    flue_block_unref(block);
    flue_arena_init(&arena, 1 << 20, 0);
    assert_int_equal(flue_call_grpc_result(&call, &arena, &out, &error), FLUE_INVALID);
    call.response_headers = &coding;
    call.response_header_count = 1;
    assert_int_equal(flue_call_grpc_result(&call, &arena, &out, &error), FLUE_OK);
    assert_true(flue_bytes_is(out, "xyz"));
    framed[8] ^= 0xff;
    assert_int_equal(flue_call_grpc_result(&call, &arena, &out, &error), FLUE_INVALID);
    flue_arena_destroy(&arena);
}

static uint32_t after(const char *value)
{
    struct flue_header field = header("retry-after", value);
    struct flue_call call = {.response_headers = &field, .response_header_count = 1};
    return flue_call_retry_after_ms(&call);
}

static void retry_after(void **state)
{
    char date[64];
    time_t soon = time(NULL) + 100;
    struct tm tm;
    assert_int_equal(after("0"), 0);
    assert_int_equal(after(" 120 "), 120000);
    assert_int_equal(after("3601"), 3600000);
    assert_int_equal(after("99999999999999999999"), 0);
    assert_int_equal(after("-1"), 0);
    assert_int_equal(after("soon"), 0);
    assert_int_equal(after(""), 0);
    assert_int_equal(after("Sun, 06 Nov 1994 08:49:37 GMT"), 0);
    assert_int_equal(after("Fri, 01 Jan 2100 00:00:00 GMT"), 3600000);
    gmtime_r(&soon, &tm);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    assert_true(after(date) > 90000 && after(date) <= 101000);
    strftime(date, sizeof date, "%a %b %e %H:%M:%S %Y", &tm); /* asctime's */
    assert_true(after(date) > 90000 && after(date) <= 101000);
}

static void on_ready(struct flue_client_body *body)
{
    *(unsigned *)body->user += 1;
}

static void bodies(void **state)
{
    uint8_t *text = malloc(100000);
    struct flue_arena arena;
    struct flue_bytes items[2];
    struct flue_loops *loops;
    for (size_t i = 0; i < 100000; i++)
        text[i] = (uint8_t)(i * i >> 3);
    flue_loops_new(1, &loops, NULL);
    for (unsigned coded = 0; coded < 2; coded++)
        for (unsigned grpc = 0; grpc < 2; grpc++)
            for (unsigned big = 0; big < 2; big++) {
                struct flue_client_body body = {0};
                unsigned ready = 0;
                size_t size = big ? 100000 : 1000;
                flue_arena_init(&arena, 1 << 20, 0);
                items[0] = flue_bytes(text, 300);
                items[1] = flue_bytes(text + 300, size - 300);
                struct flue_slices raw = {items, 2, 2, size};
                body.ready = on_ready;
                body.user = &ready;
                flue_client_body_make(&body, loops->items[0], &arena, &raw,
                                      coded ? FLUE_GZIP : FLUE_IDENTITY, FLUE_LEVEL_DEFAULT, grpc);
                if (big && coded) {
                    assert_int_equal(ready, 0); /* the pool does it */
                    while (!ready)
                        uv_run(&loops->items[0]->uv, UV_RUN_ONCE);
                }
                assert_int_equal(ready, 1);
                assert_int_equal(body.error.code, FLUE_OK);
                uint8_t *flat = malloc(body.slices.total), *at = flat;
                flue_slices_copy(&body.slices, flat);
                struct flue_bytes out = flue_bytes(flat, body.slices.total);
                if (grpc) {
                    assert_int_equal(at[0], coded);
                    assert_int_equal((at[1] << 24 | at[2] << 16 | at[3] << 8 | at[4]),
                                     body.slices.total - 5);
                    out = flue_bytes_from(out, 5);
                }
                if (coded) {
                    struct flue_block *block = NULL;
                    assert_int_equal(flue_inflate(FLUE_GZIP, out, 200000, 200, NULL, &block, NULL),
                                     FLUE_OK);
                    assert_int_equal(block->size, size);
                    assert_memory_equal(block->data, text, size);
                    flue_block_unref(block);
                } else {
                    assert_int_equal(out.size, size);
                    assert_memory_equal(out.data, text, size);
                }
                free(flat);
                flue_client_body_free(&body);
                flue_arena_destroy(&arena);
            }
    flue_loops_destroy(loops);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endpoints), cmocka_unit_test(which_means_tls),
        cmocka_unit_test(statuses),  cmocka_unit_test(retry_info),
        cmocka_unit_test(messages),  cmocka_unit_test(retry_after),
        cmocka_unit_test(bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
