/* The PROXY protocol: byte by byte, alone and through a server. */
#include "harness.h"

#include "collector/net/proxy.h"

static const uint8_t v2_tcp4[] = {
    0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0, 12,
    192,  0,    2,    7,    10,   0,    0,    1,    0x30, 0x39, 0x10, 0xde,
};

static enum flue_proxy_state reading(const void *data, size_t size, size_t *used, char *peer)
{
    const char *why = NULL;
    /* its own block, so that the sanitizer sees a byte too many */
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    enum flue_proxy_state state = flue_proxy_read(flue_bytes(copy, size), used, peer, &why);
    assert_int_equal(state == FLUE_PROXY_WRONG, why != NULL);
    free(copy);
    return state;
}

static enum flue_proxy_state reading_text(const char *text, char *peer)
{
    size_t used;
    return reading(text, strlen(text), &used, peer);
}

/* Every shorter piece asks for more, the whole is read, and what follows is not touched. */
static void whole(const void *data, size_t size, const char *expected)
{
    char peer[FLUE_PROXY_PEER];
    size_t used;
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(reading(data, cut, &used, peer), FLUE_PROXY_MORE);
    assert_int_equal(reading(data, size, &used, peer), FLUE_PROXY_DONE);
    assert_int_equal(used, size);
    assert_string_equal(peer, expected);
    uint8_t *longer = malloc(size + 24);
    memcpy(longer, data, size);
    memcpy(longer + size, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    assert_int_equal(reading(longer, size + 24, &used, peer), FLUE_PROXY_DONE);
    assert_int_equal(used, size);
    free(longer);
}

static void test_v1(void **state)
{
    static const struct {
        const char *line, *peer;
    } good[] = {
        {"PROXY TCP4 192.0.2.7 10.0.0.1 12345 4318\r\n", "192.0.2.7:12345"},
        {"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"},
        {"PROXY TCP6 2001:db8::7 ::1 0 1\r\n", "[2001:db8::7]:0"},
        {"PROXY TCP6 ::ffff:192.0.2.9 ::1 5 1\r\n", "192.0.2.9:5"},
        {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
        {"PROXY UNKNOWN\r\n", ""},
        {"PROXY UNKNOWN ffff:: what ever 1 2 3\r\n", ""},
    };
    static const char *const bad[] = {
        "POST / HTTP/1.1\r\n",
        "GET",
        "PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY tcp4 192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
        "PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 -1 2\r\n",
        "PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n",
        "PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n",
        "PROXY TCP4 192.0.2.7\r10.0.0.1 1 2\r\n",
        "PROXY \r\n",
    };
    char peer[FLUE_PROXY_PEER];
    size_t used;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        whole(good[i].line, strlen(good[i].line), good[i].peer);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (reading_text(bad[i], peer) != FLUE_PROXY_WRONG)
            fail_msg("taken for good: %s", bad[i]);

    /* 107 bytes are the most, line end included. */
    char line[120];
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY UNKNOWN ", 14);
    memcpy(line + 105, "\r\n", 2);
    whole(line, 107, "");
    line[105] = 'x';
    memcpy(line + 106, "\r\n", 2);
    assert_int_equal(reading(line, 106, &used, peer), FLUE_PROXY_MORE);
    assert_int_equal(reading(line, 107, &used, peer), FLUE_PROXY_WRONG);
    assert_int_equal(reading(line, 108, &used, peer), FLUE_PROXY_WRONG);
}

static size_t v2(uint8_t *out, unsigned command, unsigned family, const void *body, size_t size)
{
    memcpy(out, v2_tcp4, 12);
    out[12] = (uint8_t)command;
    out[13] = (uint8_t)family;
    out[14] = (uint8_t)(size >> 8);
    out[15] = (uint8_t)size;
    memcpy(out + 16, body, size);
    return 16 + size;
}

static void test_v2(void **state)
{
    static uint8_t header[FLUE_PROXY_MAX + 16], body[FLUE_PROXY_V2_LENGTH + 1];
    char peer[FLUE_PROXY_PEER];
    size_t used, size;

    whole(v2_tcp4, sizeof v2_tcp4, "192.0.2.7:12345");
    memcpy(body, v2_tcp4 + 16, 12);
    size = v2(header, 0x21, 0x12, body, 12);
    whole(header, size, "192.0.2.7:12345");

    uint8_t six[36] = {0x20, 0x01, 0x0d, 0xb8, [15] = 7, [31] = 1, [32] = 0xff, [33] = 0xfe};
    size = v2(header, 0x21, 0x21, six, 36);
    whole(header, size, "[2001:db8::7]:65534");
    size = v2(header, 0x21, 0x22, six, 36);
    whole(header, size, "[2001:db8::7]:65534");
    size = v2(header, 0x21, 0x31, body, 216);
    whole(header, size, "unix");
    size = v2(header, 0x21, 0x00, "abc", 3 * 0);
    whole(header, size, "");
    /* LOCAL: whatever stands there is skipped by its length. */
    size = v2(header, 0x20, 0x11, body, 5);
    whole(header, size, "");
    size = v2(header, 0x20, 0x77, body, 5);
    whole(header, size, "");

    /* one byte short of the addresses */
    size = v2(header, 0x21, 0x11, body, 11);
    assert_int_equal(reading(header, size, &used, peer), FLUE_PROXY_WRONG);
    size = v2(header, 0x21, 0x21, six, 35);
    assert_int_equal(reading(header, size, &used, peer), FLUE_PROXY_WRONG);
    size = v2(header, 0x21, 0x31, body, 215);
    assert_int_equal(reading(header, size, &used, peer), FLUE_PROXY_WRONG);
    static const unsigned families[] = {0x01, 0x10, 0x13, 0x20, 0x33, 0x41, 0xff};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        size = v2(header, 0x21, families[i], body, 12);
        assert_int_equal(reading(header, size, &used, peer), FLUE_PROXY_WRONG);
    }
    static const unsigned commands[] = {0x22, 0x2f, 0x11, 0x31, 0x01};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        size = v2(header, commands[i], 0x11, body, 12);
        assert_int_equal(reading(header, size, &used, peer), FLUE_PROXY_WRONG);
    }
    /* A wrong byte of the signature is known at once. */
    for (size_t i = 0; i < 12; i++) {
        memcpy(header, v2_tcp4, sizeof v2_tcp4);
        header[i] ^= 0x20;
        assert_int_equal(reading(header, i + 1, &used, peer), FLUE_PROXY_WRONG);
    }
    /* The bound, by NOOP TLVs that fill it exactly. */
    memset(body, 0, sizeof body);
    memcpy(body, v2_tcp4 + 16, 12);
    body[12] = 4;
    body[13] = (FLUE_PROXY_V2_LENGTH - 15) >> 8;
    body[14] = (FLUE_PROXY_V2_LENGTH - 15) & 0xff;
    size = v2(header, 0x21, 0x11, body, FLUE_PROXY_V2_LENGTH);
    assert_int_equal(size, FLUE_PROXY_MAX);
    assert_int_equal(reading(header, size - 1, &used, peer), FLUE_PROXY_MORE);
    assert_int_equal(reading(header, size, &used, peer), FLUE_PROXY_DONE);
    (void)v2(header, 0x21, 0x11, body, FLUE_PROXY_V2_LENGTH + 1);
    assert_int_equal(reading(header, 16, &used, peer), FLUE_PROXY_WRONG);
}

static uint32_t crc32c(const uint8_t *data, size_t size)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void test_v2_tlvs(void **state)
{
    uint8_t header[128], body[64] = {0};
    char peer[FLUE_PROXY_PEER];
    size_t used, size;

    assert_int_equal(crc32c((const uint8_t *)"123456789", 9), 0xe3069283u);
    memcpy(body, v2_tcp4 + 16, 12);
    memcpy(body + 12, "\x02\x00\x03"
                      "a.b",
           6); /* AUTHORITY */
    memcpy(body + 18, "\x03\x00\x04\0\0\0\0", 7);
    memcpy(body + 25, "\xea\x00\x05\x01vpce", 8);
    size = v2(header, 0x21, 0x11, body, 33);
    uint32_t crc = crc32c(header, size);
    for (int i = 0; i < 4; i++)
        header[16 + 21 + i] = (uint8_t)(crc >> (24 - 8 * i));
    whole(header, size, "192.0.2.7:12345");
    /* Any bit that flips is seen (but for those that say LOCAL, or more to come). */
    for (size_t at = 16 * 8; at < size * 8; at++) {
        header[at / 8] ^= (uint8_t)(1u << at % 8);
        if (at / 8 != 16 + 18) /* its own type: then there is none to verify */
            assert_int_equal(reading(header, size, &used, peer), FLUE_PROXY_WRONG);
        header[at / 8] ^= (uint8_t)(1u << at % 8);
    }
    /* cut TLVs: the length says less than stands there */
    for (size_t length = 13; length < 33; length++) {
        size = v2(header, 0x21, 0x11, body, length);
        enum flue_proxy_state expected = length == 18 ? FLUE_PROXY_DONE : FLUE_PROXY_WRONG;
        assert_int_equal(reading(header, size, &used, peer), expected);
    }
    memcpy(body + 12, "\x03\x00\x03\0\0\0", 6);
    size = v2(header, 0x21, 0x11, body, 18);
    assert_int_equal(reading(header, size, &used, peer), FLUE_PROXY_WRONG);
}

static struct flue_proxy_config from(const char *const *items, size_t count)
{
    return (struct flue_proxy_config){{(void *)(uintptr_t)items, count}};
}

static void test_listed(void **state)
{
    static const char *const items[] = {"10.1.0.0/15", "192.0.2.7", "2001:db8::/33", "::1"};
    static const char *const in[] = {"10.0.0.0:1", "192.0.2.8:1", "[2001:db8:8000::1]:4", "unix"};
    struct flue_proxy_config config = from(items, 4);
    assert_true(flue_proxy_listed(&config, "10.0.255.255:1"));
    assert_true(flue_proxy_listed(&config, "10.1.255.255:1"));
    assert_false(flue_proxy_listed(&config, "10.2.0.0:1"));
    assert_true(flue_proxy_listed(&config, "192.0.2.7:65535"));
    assert_true(flue_proxy_listed(&config, "[2001:db8:7fff::1]:4"));
    assert_true(flue_proxy_listed(&config, "[::1]:4"));
    for (size_t i = 1; i < 4; i++)
        assert_false(flue_proxy_listed(&config, in[i]));
    static const char *const everybody[] = {"0.0.0.0/0"};
    config = from(everybody, 1);
    assert_true(flue_proxy_listed(&config, "192.0.2.8:1"));
    assert_false(flue_proxy_listed(&config, "[::1]:1"));
    static const char *const local[] = {"unix"};
    config = from(local, 1);
    assert_true(flue_proxy_listed(&config, "unix"));
    assert_false(flue_proxy_listed(&config, "127.0.0.1:1"));
}

/* ---- through a server ------------------------------------------------------------------------ */

static const char request[] =
    "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
static const char *const loopback[] = {"127.0.0.0/8"};
static const char *const others[] = {"192.0.2.0/24"};

static void serve(struct harness *h, struct flue_route *routes, size_t count,
                  const struct flue_proxy_config *proxy, int64_t head_timeout)
{
    struct flue_server_config config = h_default_config;
    config.proxy_protocol = proxy;
    config.read_header_timeout = head_timeout;
    h_start(h, &config, routes, count);
}

static int64_t refused(struct harness *h)
{
    const struct flue_label labels[] = {
        {"endpoint", "127.0.0.1:0"}, {"reason", "proxy_protocol"}, {NULL, NULL}};
    return flue_metric_get(
        flue_metric(h->metrics, FLUE_COUNTER, "server_connections_refused", "", labels));
}

static void exchange(struct harness *h, const void *header, size_t size, size_t cut)
{
    char out[1000];
    int fd = h_connect(h->port);
    h->peer[0] = 0;
    h_send(fd, header, cut);
    if (cut < size)
        usleep(2000); /* a segment of its own, most times: either way is right */
    h_send(fd, (const uint8_t *)header + cut, size - cut);
    h_say(fd, request);
    assert_true(h_read_until(fd, out, sizeof out, NULL) > 0);
    H_STARTS(out, "HTTP/1.1 200");
    close(fd);
}

static void test_server_source(void **state)
{
    struct flue_route routes[] = H_ROUTES;
    struct harness h;
    struct flue_proxy_config proxy = from(loopback, 1);
    static const char v1[] = "PROXY TCP6 2001:db8::7 ::1 4711 4318\r\n";
    serve(&h, routes, 4, &proxy, 10000 * MS);
    for (size_t cut = 1; cut <= sizeof v1 - 1; cut++) {
        exchange(&h, v1, sizeof v1 - 1, cut);
        assert_string_equal(h.peer, "[2001:db8::7]:4711");
    }
    for (size_t cut = 1; cut <= sizeof v2_tcp4; cut++) {
        exchange(&h, v2_tcp4, sizeof v2_tcp4, cut);
        assert_string_equal(h.peer, "192.0.2.7:12345");
    }
    static const char unknown[] = "PROXY UNKNOWN\r\n";
    exchange(&h, unknown, sizeof unknown - 1, sizeof unknown - 1);
    H_STARTS(h.peer, "127.0.0.1:");
    assert_int_equal(refused(&h), 0);
    h_stop(&h);
}

/* Ended after every byte of the header: closed without an answer, counted. */
static void test_server_truncated(void **state)
{
    struct flue_route routes[] = H_ROUTES;
    struct harness h;
    struct flue_proxy_config proxy = from(loopback, 1);
    static const char v1[] = "PROXY TCP4 192.0.2.7 10.0.0.1 12345 4318\r\n";
    char out[1000];
    serve(&h, routes, 4, &proxy, 10000 * MS);
    int64_t count = 0;
    for (int version = 1; version <= 2; version++) {
        const void *header = version == 1 ? (const void *)v1 : v2_tcp4;
        size_t size = version == 1 ? sizeof v1 - 1 : sizeof v2_tcp4;
        for (size_t cut = 0; cut < size; cut++) {
            int fd = h_connect(h.port);
            h_send(fd, header, cut);
            shutdown(fd, SHUT_WR);
            assert_int_equal(h_read_until(fd, out, sizeof out, NULL), 0);
            close(fd);
            count += cut > 0; /* who only looks whether the port is open does no wrong */
            assert_int_equal(refused(&h), count);
        }
    }
    assert_int_equal(h.heads, 0);
    h_stop(&h);
}

static void test_server_wrong(void **state)
{
    struct flue_route routes[] = H_ROUTES;
    struct harness h;
    struct flue_proxy_config proxy = from(loopback, 1);
    char out[1000];
    static const char *const wrong[] = {
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", /* listed, but without it */
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 x 4318\r\nPOST /echo HTTP/1.1\r\n\r\n",
        "\x16\x03\x01\x02", /* TLS */
    };
    serve(&h, routes, 4, &proxy, 10000 * MS);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int fd = h_connect(h.port);
        h_say(fd, wrong[i]);
        assert_true(h_read_until(fd, out, sizeof out, NULL) <= 0); /* an end or a reset */
        assert_string_equal(out, "");
        close(fd);
        H_AWAIT(refused(&h) == (int64_t)i + 1);
    }
    /* the second header is no HTTP */
    int fd = h_connect(h.port);
    h_send(fd, v2_tcp4, sizeof v2_tcp4);
    h_say(fd, "PROXY TCP4 198.51.100.1 10.0.0.1 1 2\r\n\r\n");
    assert_true(h_read_until(fd, out, sizeof out, NULL) > 0);
    H_STARTS(out, "HTTP/1.1 400");
    close(fd);
    assert_int_equal(h.heads, 0);
    h_stop(&h);
}

static void test_server_slow(void **state)
{
    struct flue_route routes[] = H_ROUTES;
    struct harness h;
    struct flue_proxy_config proxy = from(loopback, 1);
    char out[100];
    serve(&h, routes, 4, &proxy, 100 * MS);
    int fd = h_connect(h.port);
    h_send(fd, v2_tcp4, 20);
    assert_int_equal(h_read_until(fd, out, sizeof out, NULL), 0);
    close(fd);
    assert_int_equal(refused(&h), 1);
    h_stop(&h);
}

/* Peers that are not listed are not believed: to them the header is bad HTTP. */
static void test_server_not_listed(void **state)
{
    struct flue_route routes[] = H_ROUTES;
    struct harness h;
    struct flue_proxy_config proxy = from(others, 1);
    char out[1000];
    serve(&h, routes, 4, &proxy, 10000 * MS);
    h_once(h.port, request, out, sizeof out);
    H_STARTS(out, "HTTP/1.1 200");
    H_STARTS(h.peer, "127.0.0.1:");
    h_once(h.port, "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\nPOST /echo HTTP/1.1\r\n\r\n", out,
           sizeof out);
    H_STARTS(out, "HTTP/1.1 400");
    int fd = h_connect(h.port);
    h_send(fd, v2_tcp4, sizeof v2_tcp4);
    h_say(fd, request);
    (void)h_read_until(fd, out, sizeof out, NULL);
    assert_null(strstr(out, "200"));
    close(fd);
    assert_int_equal(h.heads, 1);
    assert_int_equal(refused(&h), 0);
    h_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v1),
        cmocka_unit_test(test_v2),
        cmocka_unit_test(test_v2_tlvs),
        cmocka_unit_test(test_listed),
        cmocka_unit_test(test_server_source),
        cmocka_unit_test(test_server_truncated),
        cmocka_unit_test(test_server_wrong),
        cmocka_unit_test(test_server_slow),
        cmocka_unit_test(test_server_not_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
