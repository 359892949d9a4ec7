/* HTTP/1.1 over real sockets: answers, keep-alive, refusals, smuggling, slow clients, the end. */
#include <sys/stat.h>
#include <sys/un.h>

#include "tests/unit/collector/net/harness.h"

static char answer[4 << 20];

static void test_simple(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    h_once(
        h.port,
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

static void test_pipelining_and_keep_alive(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    int fd = h_connect(h.port);
    char request[128];
    for (int i = 0; i < 50; i++) {
        snprintf(request, sizeof request,
                 "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n%03d", i);
        h_say(fd, request);
    }
    h_say(fd, "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_true(h_read_until(fd, answer, sizeof answer, NULL) > 0);
    const char *at = answer;
    for (int i = 0; i < 50; i++) { /* all, and in order */
        char body[16];
        snprintf(body, sizeof body, "\r\n\r\n%03d", i);
        at = strstr(at, body);
        assert_non_null(at);
    }
    assert_int_equal(h.bodies, 51);
    close(fd);
    h_stop(&h);
}

/* A long body is received in place; sizes around the receive buffer. */
static void test_long_bodies(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    static const size_t sizes[] = {1, 65535, 262143, 262144, 262145, 1048577, 3000001};
    h_start(&h, &h_default_config, routes, 4);
    char *body = malloc(3000001 + 64);
    assert_non_null(body);
    for (size_t i = 0; i < 3000001; i++)
        body[i] = (char)('a' + i * 7 % 26);
    for (size_t chunked = 0; chunked < 2; chunked++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            int fd = h_connect(h.port);
            char head[256];
            if (chunked)
                snprintf(head, sizeof head,
                         "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                         "Transfer-Encoding: chunked\r\n\r\n%zx\r\n",
                         sizes[i]);
            else
                snprintf(head, sizeof head,
                         "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                         "Content-Length: %zu\r\n\r\n",
                         sizes[i]);
            h_say(fd, head);
            h_send(fd, body, sizes[i]);
            if (chunked)
                h_say(fd, "\r\n0\r\n\r\n");
            long size = h_read_until(fd, answer, sizeof answer, NULL);
            H_STARTS(answer, "HTTP/1.1 200");
            assert_true(size > (long)sizes[i]);
            assert_memory_equal(answer + size - sizes[i], body, sizes[i]);
            assert_int_equal(h.last_body, sizes[i]);
            close(fd);
        }
    free(body);
    for (unsigned i = 0; i < h.loops->count; i++)
        assert_int_equal(h.loops->items[i]->bytes_in_flight, 0);
    h_stop(&h);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *request, *status, *part;
    } cases[] = {
        {"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 ", "/none"},
        {"PUT /hold HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 405 ",
         "allow: POST\r\n"},
        {"PUT /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 405 ",
         "allow: POST, GET\r\n"},
        {"GET /echo HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "Host"},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
         "HTTP/1.1 400 ", "Content-Length is there twice"},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"
         "\r\n0\r\n\r\n",
         "HTTP/1.1 400 ", "beside"},
        {"POST /echo HTTP/1.1\nHost: x\n\n", "HTTP/1.1 400 ", "LF"},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
         "HTTP/1.1 400 ", "hexadecimal"},
        {"GET /echo HTTP/3.0\r\nHost: x\r\n\r\n", "HTTP/1.1 505 ", "HTTP/2"},
        {"POST /busy HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\nabc", "HTTP/1.1 503 ",
         "not now"},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n"
         "\r\n",
         "HTTP/1.1 413 ", "4194304"},
    };
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        h_once(h.port, cases[i].request, answer, sizeof answer);
        H_STARTS(answer, cases[i].status);
        H_HAS(answer, cases[i].part);
        if (!strstr(answer, "connection: close\r\n"))
            fail_msg("the connection must end after %s", answer);
    }
    assert_int_equal(h.bodies, 0);
    const struct flue_label labels[] = {{"endpoint", "127.0.0.1:0"}, {"code", "405"}, {NULL, NULL}};
    assert_int_equal(
        flue_metric_get(flue_metric(h.metrics, FLUE_COUNTER, "server_requests", "", labels)), 2);
    h_stop(&h);
}

static void test_megabyte_of_headers(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    char *text = malloc(1 << 20);
    assert_non_null(text);
    memset(text, 'v', 1 << 20);
    int fd = h_connect(h.port);
    h_say(fd, "GET /echo HTTP/1.1\r\nHost: x\r\nX: ");
    h_send(fd, text, (1 << 20) - 256);
    assert_true(h_read_until(fd, answer, sizeof answer, NULL) > 0);
    H_STARTS(answer, "HTTP/1.1 431 ");
    close(fd);
    free(text);
    assert_int_equal(h.heads, 0);
    h_stop(&h);
}

/* Two megabytes under way: the answer is read, not a reset, and nothing was charged. */
static void test_early_refusal(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    char *body = calloc(1, 2 << 20);
    assert_non_null(body);
    h.limit = 1000;
    for (int chunked = 0; chunked < 2; chunked++) {
        int fd = h_connect(h.port);
        h_say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\n");
        h_say(fd, chunked ? "Transfer-Encoding: chunked\r\n\r\n200000\r\n"
                          : "Content-Length: 2097152\r\n\r\n");
        h_send(fd, body, 900 << 10); /* less than what is drained */
        assert_true(h_read_until(fd, answer, sizeof answer, "\r\n\r\n") > 0);
        H_STARTS(answer, "HTTP/1.1 413 ");
        H_HAS(answer, "connection: close\r\n");
        close(fd);
        fd = h_connect(h.port); /* and one that sends all of it: ended, whatever is left */
        h_say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2097152\r\n\r\n");
        h_send(fd, body, 2 << 20);
        h_read_until(fd, answer, sizeof answer, NULL);
        close(fd);
    }
    free(body);
    assert_int_equal(h.bodies, 0);
    H_AWAIT(flue_server_set_open_requests(h.set) == 0);
    h_stop(&h);
}

/* A short refused body is read to its end and the connection lives on. */
static void test_refused_and_kept(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    int fd = h_connect(h.port);
    h_say(fd, "POST /busy HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234");
    assert_true(h_read_until(fd, answer, sizeof answer, "not now") > 0);
    h_say(fd, "56789POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok");
    assert_true(h_read_until(fd, answer, sizeof answer, "\r\n\r\nok") > 0);
    H_STARTS(answer, "HTTP/1.1 200");
    close(fd);
    h_stop(&h);
}

static void test_expect_continue(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    int fd = h_connect(h.port);
    h_say(fd,
          "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_true(h_read_until(fd, answer, sizeof answer, "\r\n\r\n") > 0);
    assert_string_equal(answer, "HTTP/1.1 100 Continue\r\n\r\n");
    h_say(fd, "ok");
    assert_true(h_read_until(fd, answer, sizeof answer, "\r\n\r\nok") > 0);
    close(fd);
    h_stop(&h);
}

static void expect_end(uint16_t port, const char *start, const char *status)
{
    int fd = h_connect(port);
    h_say(fd, start);
    long size = h_read_until(fd, answer, sizeof answer, NULL);
    if (size < 0)
        fail_msg("no end came after \"%s\"", start);
    if (status)
        H_STARTS(answer, status);
    else
        assert_int_equal(size, 0);
    close(fd);
}

static void test_time_outs(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    struct flue_server_config config = h_default_config;
    config.read_header_timeout = 500 * MS;
    config.idle_timeout = 500 * MS;
    config.read_timeout = 1000 * MS;
    h_start(&h, &config, routes, 4);
    expect_end(h.port, "", NULL);
    expect_end(h.port, "PRI * HT", NULL); /* neither protocol yet */
    expect_end(h.port, "GET /echo HT", "HTTP/1.1 408 ");
    expect_end(h.port, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
               "HTTP/1.1 504 ");
    /* one header byte every 10 ms does not help */
    int fd = h_connect(h.port);
    h_say(fd, "GET /echo HTTP/1.1\r\nX: ");
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    while (poll(&poller, 1, 10) == 0) /* for ever, if it did */
        h_say(fd, "y");
    close(fd);
    /* idle between requests */
    fd = h_connect(h.port);
    h_say(fd, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(h_read_until(fd, answer, sizeof answer, NULL) > 0);
    H_STARTS(answer, "HTTP/1.1 200");
    close(fd);
    /* a body that is slow, but makes progress, is taken: six times half of the limit */
    fd = h_connect(h.port);
    h_say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 6\r\n\r\n");
    for (int i = 0; i < 6; i++) {
        usleep(500000);
        h_say(fd, "z");
    }
    assert_true(h_read_until(fd, answer, sizeof answer, NULL) > 0);
    H_HAS(answer, "zzzzzz");
    close(fd);
    H_AWAIT(atomic_load(&h.loops->items[0]->connections) == 0 &&
            atomic_load(&h.loops->items[1]->connections) == 0);
    h_stop(&h);
}

static void test_client_goes(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    /* in the middle of the head, of the body */
    static const char *const starts[] = {
        "POST /ho", "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"};
    for (size_t i = 0; i < 2; i++) {
        int fd = h_connect(h.port);
        h_say(fd, starts[i]);
        close(fd);
    }
    H_AWAIT(h.heads == 1 && flue_server_set_open_requests(h.set) == 0);
    assert_int_equal(h.bodies, 0);
    /* a reset while the request is worked on */
    int fd = h_connect(h.port);
    h_say(fd, "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na");
    H_AWAIT(h.bodies == 1);
    struct linger now = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
    H_AWAIT(h.gone == 1);
    H_AWAIT(flue_server_set_open_requests(h.set) == 0);
    /* half-closed: the answer still comes */
    fd = h_connect(h.port);
    h_say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok");
    shutdown(fd, SHUT_WR);
    assert_true(h_read_until(fd, answer, sizeof answer, NULL) > 0);
    H_HAS(answer, "\r\n\r\nok");
    close(fd);
    h_stop(&h);
}

static void answer_held(struct flue_loop *loop, void *arg)
{
    struct harness *h = arg;
    h_text(h->held, 200, "late");
}

static void test_drain(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    int idle = h_connect(h.port), busy = h_connect(h.port);
    h_say(idle, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(h_read_until(idle, answer, sizeof answer, "\r\n\r\n") > 0);
    h_say(busy, "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na");
    H_AWAIT(h.bodies == 2);
    flue_server_set_drain(h.set);
    assert_int_equal(h_connect(h.port), -1);
    assert_int_equal(h_read_until(idle, answer, sizeof answer, NULL), 0);
    assert_int_equal(flue_server_set_open_requests(h.set), 1);
    flue_loop_call(h.held->loop, answer_held, &h);
    assert_true(h_read_until(busy, answer, sizeof answer, NULL) > 0);
    H_HAS(answer, "connection: close\r\n");
    H_HAS(answer, "late");
    assert_int_equal(flue_server_set_open_requests(h.set), 0);
    close(idle);
    close(busy);
    h_stop(&h);
}

static void test_two_loops(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    int fds[2] = {h_connect(h.port), h_connect(h.port)};
    for (int i = 0; i < 2; i++) {
        h_say(fds[i], "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_true(h_read_until(fds[i], answer, sizeof answer, "\r\n\r\n") > 0);
    }
    assert_int_equal(h.loops_seen, 3);
    close(fds[0]);
    close(fds[1]);
    h_stop(&h);
}

static void test_over_memory(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    h_start(&h, &h_default_config, routes, 4);
    atomic_store(&h.account.soft, 1000);
    h_once(h.port,
           "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5000\r\n\r\n",
           answer, sizeof answer);
    H_STARTS(answer, "HTTP/1.1 503 ");
    H_HAS(answer, "profiles");
    /* chunked says no size: it waits while over the share, then goes on */
    int fd = h_connect(h.port);
    h_say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
              "Transfer-Encoding: chunked\r\n\r\n100000\r\n");
    char *body = calloc(1, 1 << 20);
    assert_non_null(body);
    h_send(fd, body, 1 << 20);
    free(body);
    h_say(fd, "\r\n0\r\n\r\n");
    assert_true(h_read_until(fd, answer, sizeof answer, NULL) > 1 << 20);
    H_STARTS(answer, "HTTP/1.1 200");
    close(fd);
    /* the hard limit ends it */
    atomic_store(&h.account.soft, 0);
    atomic_store(&h.budget.hard, 1000);
    fd = h_connect(h.port);
    h_say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n");
    for (int i = 0; i < 32; i++)
        h_say(fd, "0123456789012345678901234567890123456789012345678901234567890123");
    assert_true(h_read_until(fd, answer, sizeof answer, NULL) > 0);
    H_STARTS(answer, "HTTP/1.1 503 ");
    close(fd);
    h_stop(&h);
}

static void test_connection_headers(void **state)
{
    static const struct flue_map_entry added[] = {{"X-Node", "n1"}};
    static const char *origins[] = {"https://*.example.com"};
    static const struct flue_cors_config cors = {.allowed_origins = {origins, 1}, .max_age = 600};
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    struct flue_server_config config = h_default_config;
    config.response_headers = (struct flue_map){added, 1};
    config.cors = &cors;
    config.keep_alives_enabled = false;
    h_start(&h, &config, routes, 4);
    h_once(h.port,
           "OPTIONS /echo HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example.com\r\n"
           "Access-Control-Request-Method: POST\r\n\r\n",
           answer, sizeof answer);
    H_STARTS(answer, "HTTP/1.1 204 ");
    H_HAS(answer, "access-control-allow-origin: https://a.example.com\r\n");
    H_HAS(answer, "access-control-max-age: 600\r\n");
    h_once(h.port, "GET /echo HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example.com\r\n\r\n", answer,
           sizeof answer);
    H_STARTS(answer, "HTTP/1.1 200 ");
    H_HAS(answer, "X-Node: n1\r\n");
    H_HAS(answer, "access-control-allow-credentials: true\r\n");
    h_once(h.port, "GET /echo HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.com\r\n\r\n", answer,
           sizeof answer);
    assert_null(strstr(answer, "access-control"));
    h_stop(&h);
}

static void test_unix_socket(void **state)
{
    struct harness h;
    struct flue_route routes[] = H_ROUTES;
    struct flue_server_config config = h_default_config;
    char path[64];
    snprintf(path, sizeof path, "/tmp/flue-test-%d.sock", (int)getpid());
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    memcpy(at.sun_path, path, strlen(path) + 1);
    /* one that a dead process left behind */
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(dead, (struct sockaddr *)(void *)&at, sizeof at), 0);
    close(dead);
    config.endpoint = path;
    config.transport = 1;
    h_start(&h, &config, routes, 4);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0660);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)(void *)&at, sizeof at), 0);
    h_say(fd, "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_true(h_read_until(fd, answer, sizeof answer, NULL) > 0);
    H_STARTS(answer, "HTTP/1.1 200");
    assert_string_equal(h.peer, "unix");
    close(fd);
    /* one that is in use is left alone */
    struct flue_error error;
    struct flue_server_set *second = flue_server_set_new(h.loops, h.metrics, &h.budget);
    assert_int_equal(flue_server_add(second, "second", &config, routes, 4, &error), FLUE_OK);
    assert_int_equal(flue_server_set_listen(second, &error), FLUE_IO);
    H_HAS(error.text, path);
    flue_server_set_destroy(second);
    h_stop(&h);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void test_sharing(void **state)
{
    struct flue_loops *loops;
    struct flue_error error;
    struct flue_budget budget;
    struct flue_route a[] = {{.method = "POST", .path = "/a"}},
                      b[] = {{.method = "POST", .path = "/b"}};
    struct flue_server_config config = h_default_config, same = config, other = config;
    config.endpoint = same.endpoint = other.endpoint = "127.0.0.1:4";
    other.max_request_body_size++;
    assert_int_equal(flue_loops_new(1, &loops, &error), FLUE_OK);
    flue_budget_init(&budget, 1 << 20);
    struct flue_metrics *metrics = flue_metrics_new("");
    struct flue_server_set *set = flue_server_set_new(loops, metrics, &budget);
    assert_int_equal(flue_server_add(set, "one", &config, a, 1, &error), FLUE_OK);
    assert_int_equal(flue_server_add(set, "two", &same, b, 1, &error), FLUE_OK);
    assert_int_equal(flue_server_add(set, "three", &same, a, 1, &error), FLUE_INVALID);
    H_HAS(error.text, "/a");
    H_HAS(error.text, "one");
    struct flue_route c[] = {{.method = "POST", .path = "/c"}};
    assert_int_equal(flue_server_add(set, "four", &other, c, 1, &error), FLUE_INVALID);
    H_HAS(error.text, "other settings");
    flue_server_set_destroy(set);
    flue_metrics_destroy(metrics);
    flue_loops_destroy(loops);
}

static void test_query(void **state)
{
    struct flue_request request = {.query = FLUE_BYTES("a=1&b+c=%41%zz+d&e&=x&a=2")};
    flue_arena_init(&request.arena, 0, 0);
    assert_true(flue_bytes_is(flue_request_query(&request, "a"), "1"));
    assert_true(flue_bytes_is(flue_request_query(&request, "b c"), "A%zz d"));
    assert_non_null(flue_request_query(&request, "e").data);
    assert_int_equal(flue_request_query(&request, "e").size, 0);
    assert_null(flue_request_query(&request, "f").data);
    flue_arena_destroy(&request.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simple),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_pipelining_and_keep_alive),
        cmocka_unit_test(test_long_bodies),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_megabyte_of_headers),
        cmocka_unit_test(test_early_refusal),
        cmocka_unit_test(test_refused_and_kept),
        cmocka_unit_test(test_expect_continue),
        cmocka_unit_test(test_time_outs),
        cmocka_unit_test(test_client_goes),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_two_loops),
        cmocka_unit_test(test_over_memory),
        cmocka_unit_test(test_connection_headers),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_sharing),
        cmocka_unit_test(test_query),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
