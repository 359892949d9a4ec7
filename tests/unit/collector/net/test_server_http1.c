/* HTTP/1.1 over real sockets: answers, keep-alive, refusals, smuggling, slow clients, the end. */
#include "tests/unit/collector/net/harness.h"

static char answer[4 << 20];

static void test_simple(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    h_once(h.port,
           "POST /echo?a=b%20c&d HTTP/1.1\r\nHost: x:1\r\nContent-Length: 5\r\nConnection: close\r\n"
           "\r\nhello",
           answer, sizeof answer);
    H_STARTS(answer, "HTTP/1.1 200 OK\r\n");
    H_HAS(answer, "content-length: 5\r\n");
    H_HAS(answer, "connection: close\r\n");
    H_HAS(answer, "\r\n\r\nhello");
    assert_string_equal(h.method, "POST");
    assert_string_equal(h.path, "/echo");
    assert_string_equal(h.query, "a=b%20c&d");
    assert_string_equal(h.authority, "x:1");
    H_STARTS(h.peer, "127.0.0.1:");
    h_once(h.port, "GET http://y/echo HTTP/1.0\r\n\r\n", answer, sizeof answer);
    H_STARTS(answer, "HTTP/1.1 200 OK\r\n");
    assert_string_equal(h.authority, "y");
    assert_int_equal(flue_server_set_open_requests(h.set), 0);
    h_stop(&h);
}

static void test_byte_by_byte(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    static const char request[] =
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3;x=y\r\nabc\r\n0a\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
        "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    h_start(&h, &h_default_config, routes, 4);
    int fd = h_connect(h.port);
    for (size_t i = 0; i < sizeof request - 1; i++)
        h_send(fd, request + i, 1);
    assert_true(h_read_until(fd, answer, sizeof answer, NULL) > 0);
    H_HAS(answer, "\r\n\r\nabc0123456789HTTP/1.1 200 OK\r\n");
    close(fd);
    assert_int_equal(h.bodies, 2);
    h_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simple),
        cmocka_unit_test(test_byte_by_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
