/* The HTTP/1.1 side of the client, and how it finds out what a peer speaks, against a raw
 * responder. */
#include "tests/unit/collector/net/test_client_peer.h"

#define CANNED "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Test: Yes\r\n\r\nhello"

/* Takes one request at a time per connection, a thread for each connection. */
struct responder {
    const char *answer; /* NULL: closes instead */
    size_t fill;        /* so many bytes of body behind the answer's head */
    unsigned requests_first; /* no answer before so many requests are there */
    bool refuse_preface; /* answers 400 to HTTP/2's preface and closes */
    SSL_CTX *tls;
    int listener;
    unsigned short port;
    pthread_t thread;
    _Atomic unsigned accepted, requests, prefaces, running;
    _Atomic bool stopping;
    _Atomic uint64_t bytes, sum;
    pthread_mutex_t lock; /* of head */
    char head[4096];      /* of the last request */
};

struct served {
    struct responder *responder;
    int fd;
};

static ssize_t get(SSL *ssl, int fd, void *data, size_t size)
{
    return ssl ? SSL_read(ssl, data, (int)size) : recv(fd, data, size, 0);
}

static bool put(SSL *ssl, int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = ssl ? SSL_write(ssl, data, (int)size) : send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

static bool serve_one(struct responder *r, SSL *ssl, int fd)
{
    char head[4096];
    size_t size = 0;
    char *end = NULL;
    while (!end) {
        ssize_t n = size < sizeof head - 1 ? get(ssl, fd, head + size, sizeof head - 1 - size) : 0;
        if (n <= 0)
            return false;
        size += (size_t)n;
        head[size] = 0;
        end = strstr(head, "\r\n\r\n");
    }
    if (strncmp(head, "PRI * HTTP/2.0", 14) == 0) {
        r->prefaces++;
        if (r->refuse_preface)
            put(ssl, fd, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", 47);
        return false;
    }
    end += 4;
    size_t length = 0;
    char *found = strcasestr(head, "\r\ncontent-length:");
    if (found)
        length = strtoul(found + 17, NULL, 10);
    uint64_t sum = peer_sum(0, (uint8_t *)end, size - (size_t)(end - head));
    size_t have = size - (size_t)(end - head);
    *end = 0;
    pthread_mutex_lock(&r->lock);
    memcpy(r->head, head, (size_t)(end - head) + 1);
    pthread_mutex_unlock(&r->lock);
    while (have < length) {
        uint8_t buffer[65536];
        ssize_t n = get(ssl, fd, buffer, sizeof buffer);
        if (n <= 0)
            return false;
        sum = peer_sum(sum, buffer, (size_t)n);
        have += (size_t)n;
    }
    r->bytes += have;
    r->sum = sum;
    r->requests++;
    while (r->requests < r->requests_first && !r->stopping)
        usleep(1000);
    if (!r->answer || !put(ssl, fd, r->answer, strlen(r->answer)))
        return false;
    static const char filling[4096];
    for (size_t left = r->fill; left;) {
        size_t part = left < sizeof filling ? left : sizeof filling;
        if (!put(ssl, fd, filling, part))
            return false;
        left -= part;
    }
    return !strcasestr(r->answer, "connection: close");
}

static void *serve(void *arg)
{
    struct served served = *(struct served *)arg;
    struct responder *r = served.responder;
    SSL *ssl = NULL;
    free(arg);
    if (r->tls) {
        ssl = SSL_new(r->tls);
        SSL_set_fd(ssl, served.fd);
    }
    if (!ssl || SSL_accept(ssl) == 1)
        while (serve_one(r, ssl, served.fd))
            continue;
    SSL_free(ssl);
    shutdown(served.fd, SHUT_RDWR);
    close(served.fd);
    r->running--;
    return NULL;
}

static void *accept_all(void *arg)
{
    struct responder *r = arg;
    int fd;
    while ((fd = accept(r->listener, NULL, NULL)) >= 0) {
        struct served *served = malloc(sizeof *served);
        pthread_t thread;
        *served = (struct served){r, fd};
        r->accepted++;
        r->running++;
        pthread_create(&thread, NULL, serve, served);
        pthread_detach(thread);
    }
    return NULL;
}

static struct responder *responder_start(const struct responder *like)
{
    struct responder *r = malloc(sizeof *r);
    signal(SIGPIPE, SIG_IGN);
    memcpy(r, like, sizeof *r);
    pthread_mutex_init(&r->lock, NULL);
    r->listener = listen_loopback(&r->port);
    pthread_create(&r->thread, NULL, accept_all, r);
    return r;
}

static void responder_stop(struct responder *r)
{
    r->stopping = true;
    shutdown(r->listener, SHUT_RDWR);
    pthread_join(r->thread, NULL);
    close(r->listener);
    AWAIT(r->running == 0); /* the client's connections are closed by now */
    free(r);
}

static struct flue_client_config over(char *endpoint, size_t size, const char *scheme,
                                      unsigned short port, enum flue_client_protocol protocol)
{
    snprintf(endpoint, size, "%s://127.0.0.1:%u/base", scheme, port);
    return (struct flue_client_config){
        .endpoint = endpoint, .tls_by_scheme = true, .protocol = protocol};
}

struct one {
    struct responder *responder;
    struct bench bench;
    char endpoint[128];
    struct test_call *call;
};

static void one_start(struct one *one, const struct responder *like, size_t size, size_t slice)
{
    one->responder = responder_start(like);
    struct flue_client_config config =
        over(one->endpoint, sizeof one->endpoint, "http", one->responder->port, FLUE_CLIENT_HTTP1);
    bench_start(&one->bench, &config);
    assert_int_equal(one->bench.code, FLUE_OK);
    one->call = call_new(&one->bench, size, slice);
}

static void one_stop(struct one *one)
{
    bench_stop(&one->bench);
    responder_stop(one->responder);
    call_free(one->call);
}

static void a_call_is_answered(void **state)
{
    struct one one;
    one_start(&one, &(struct responder){.answer = CANNED}, 2000000, 100000);
    call_start(one.call);
    call_wait(one.call);
    assert_string_equal(one.call->error.text, "");
    assert_int_equal(one.call->error.code, FLUE_OK);
    assert_int_equal(one.call->status, 200);
    assert_string_equal(one.call->response, "hello");
    assert_string_equal(one.call->header, "Yes"); /* found by its lower-case name */
    assert_true(one.call->sent);
    assert_true(one.responder->sum == call_sum(one.call));
    const char *head = one.responder->head;
    assert_memory_equal(head, "POST /x.Y/Z HTTP/1.1\r\n", 22);
    assert_non_null(strstr(head, "\r\nuser-agent: flue/" FLUE_VERSION "\r\n"));
    assert_non_null(strstr(head, "\r\ncontent-type: application/grpc\r\n"));
    assert_non_null(strcasestr(head, "\r\ncontent-length: 2000000\r\n"));
    char host[64];
    snprintf(host, sizeof host, "\r\nhost: 127.0.0.1:%u\r\n", one.responder->port);
    assert_non_null(strcasestr(head, host));
    assert_null(strcasestr(head, "expect"));
    assert_null(strcasestr(head, "accept"));
    /* and the connection is used again */
    struct test_call *second = call_new(&one.bench, 0, 0);
    call_start(second);
    call_wait(second);
    assert_int_equal(second->status, 200);
    assert_int_equal(one.responder->accepted, 1);
    call_free(second);
    one_stop(&one);
}

static void answers_of_all_shapes(void **state)
{
    static const struct {
        const char *answer, *body;
        unsigned status;
        uint32_t retry_ms;
    } cases[] = {
        {"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", "", 503, 7000},
        {"HTTP/1.1 429 No\r\nRetry-After: 99999\r\nContent-Length: 2\r\n\r\nno", "no", 429,
         3600000},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
         "abcde", 200, 0},
        {"HTTP/1.1 100 Continue\r\nX-Test: no\r\n\r\nHTTP/1.1 204 None\r\n\r\n", "", 204, 0},
        {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", "to the end", 200, 0},
        {"HTTP/1.1 302 Gone\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "", 302,
         0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct one one;
        one_start(&one, &(struct responder){.answer = cases[i].answer}, 10, 0);
        call_start(one.call);
        call_wait(one.call);
        assert_string_equal(one.call->error.text, "");
        assert_int_equal(one.call->status, cases[i].status);
        assert_string_equal(one.call->response, cases[i].body);
        assert_string_equal(one.call->header, "");
        assert_int_equal(one.call->retry_after_ms, cases[i].retry_ms);
        assert_int_equal(one.responder->requests, 1);
        one_stop(&one);
    }
}

static void what_is_no_answer(void **state)
{
    static const char *const answers[] = {NULL,
                                          "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n"
                                          "Connection: close\r\n\r\nhalf",
                                          "garbage\r\n\r\nConnection: close"};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct one one;
        one_start(&one, &(struct responder){.answer = answers[i]}, 10, 0);
        call_start(one.call);
        call_wait(one.call);
        assert_int_equal(one.call->error.code, FLUE_UNAVAILABLE);
        assert_true(one.call->sent);
        one_stop(&one);
    }
}

static void responses_have_limits(void **state)
{
    static char many[9000];
    char big[100];
    struct one one;
    snprintf(big, sizeof big, "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", 4 * 1024 * 1024 + 1);
    one_start(&one, &(struct responder){.answer = big, .fill = 4 * 1024 * 1024 + 1}, 10, 0);
    call_start(one.call);
    call_wait(one.call);
    assert_int_equal(one.call->error.code, FLUE_INVALID);
    assert_string_equal(one.call->error.text, "response over 4194304 bytes");
    one_stop(&one);

    size_t at = (size_t)snprintf(many, sizeof many, "HTTP/1.1 200 OK\r\n");
    for (unsigned i = 0; i < 200; i++)
        at += (size_t)snprintf(many + at, sizeof many - at, "H%u: x\r\n", i);
    snprintf(many + at, sizeof many - at, "\r\n");
    one_start(&one, &(struct responder){.answer = many}, 10, 0);
    call_start(one.call);
    call_wait(one.call);
    assert_int_equal(one.call->error.code, FLUE_INVALID);
    assert_non_null(strstr(one.call->error.text, "response headers over"));
    one_stop(&one);
}

static void deadline_cancel_refused(void **state)
{
    struct one one;
    one_start(&one, &(struct responder){.answer = CANNED, .requests_first = 100}, 10, 0);
    call_start(one.call);
    AWAIT(one.responder->requests == 1);
    call_stop(one.call);
    call_wait(one.call);
    assert_int_equal(one.call->error.code, FLUE_CANCELLED);
    struct test_call *second = call_new(&one.bench, 10, 0);
    uint64_t start = flue_monotonic_ns();
    second->call.deadline_ns = start + 100 * MS;
    call_start(second);
    call_wait(second);
    assert_int_equal(second->error.code, FLUE_TIMEOUT);
    assert_true(flue_monotonic_ns() - start >= 99 * MS);
    call_free(second);
    one.responder->stopping = true;
    one_stop(&one);

    struct bench bench;
    char endpoint[128];
    struct flue_client_config config =
        over(endpoint, sizeof endpoint, "http", dead_port(), FLUE_CLIENT_HTTP1);
    bench_start(&bench, &config);
    struct test_call *call = call_new(&bench, 10, 0);
    call_start(call);
    call_wait(call);
    assert_int_equal(call->error.code, FLUE_UNAVAILABLE);
    assert_non_null(strstr(call->error.text, "cannot connect to \"127.0.0.1:"));
    assert_false(call->sent);
    bench_stop(&bench);
    call_free(call);
}

static void many_at_once(void **state)
{
    struct one one;
    struct test_call *calls[50];
    one_start(&one, &(struct responder){.answer = CANNED, .requests_first = 50}, 10, 0);
    for (unsigned i = 0; i < 50; i++)
        call_start(calls[i] = call_new(&one.bench, 1000, 10));
    for (unsigned i = 0; i < 50; i++) {
        call_wait(calls[i]);
        assert_int_equal(calls[i]->status, 200);
        call_free(calls[i]);
    }
    assert_int_equal(one.responder->accepted, 50);
    one_stop(&one);
}

/* A plaintext peer that does not speak HTTP/2 is asked once. */
static void the_probe_falls_back(void **state)
{
    for (unsigned refuses = 0; refuses < 2; refuses++) {
        struct bench bench;
        char endpoint[128];
        struct responder *r =
            responder_start(&(struct responder){.answer = CANNED, .refuse_preface = refuses});
        struct flue_client_config config =
            over(endpoint, sizeof endpoint, "http", r->port, FLUE_CLIENT_PROBE);
        bench_start(&bench, &config);
        for (unsigned i = 0; i < 3; i++) {
            struct test_call *call = call_new(&bench, 10, 0);
            call_start(call);
            call_wait(call);
            assert_string_equal(call->error.text, "");
            assert_string_equal(call->response, "hello");
            call_free(call);
        }
        assert_int_equal(r->prefaces, 1);
        assert_int_equal(r->accepted, 2);
        bench_stop(&bench);
        responder_stop(r);
    }
}

static void the_probe_finds_http2(void **state)
{
    char pem[4096], endpoint[128];
    for (unsigned secure = 0; secure < 2; secure++) {
        SSL_CTX *tls = secure ? peer_tls("collector.test", pem, sizeof pem) : NULL;
        struct peer *peer = peer_start(&(struct peer_behaviour){.tls = tls});
        struct bench bench;
        struct flue_client_config config = over(
            endpoint, sizeof endpoint, secure ? "https" : "http", peer->port, FLUE_CLIENT_PROBE);
        config.tls.common.ca_pem = pem;
        config.tls.server_name_override = "collector.test";
        bench_start(&bench, &config);
        struct test_call *call = call_new(&bench, 10, 0);
        call_start(call);
        call_wait(call);
        assert_string_equal(call->error.text, "");
        assert_string_equal(call->trailer, "0");
        assert_int_equal(peer->requests, 1);
        assert_int_equal(peer->accepted, 1);
        bench_stop(&bench);
        call_free(call);
        peer_stop(peer);
        SSL_CTX_free(tls);
    }
}

static void tls_is_verified(void **state)
{
    char pem[4096], endpoint[128];
    SSL_CTX *tls = peer_tls("collector.test", pem, sizeof pem);
    const struct {
        enum flue_client_protocol protocol;
        const char *ca, *name;
        bool skip;
        const char *text; /* NULL: it works */
    } cases[] = {{FLUE_CLIENT_HTTP1, pem, "collector.test", false, NULL},
                 {FLUE_CLIENT_PROBE, pem, "collector.test", false, NULL}, /* ALPN says http/1.1 */
                 {FLUE_CLIENT_HTTP1, pem, "other.test", false, "other.test"},
                 {FLUE_CLIENT_HTTP1, NULL, "collector.test", false, "self-signed certificate"},
                 {FLUE_CLIENT_HTTP1, NULL, NULL, true, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench;
        struct responder *r = responder_start(&(struct responder){.answer = CANNED, .tls = tls});
        struct flue_client_config config =
            over(endpoint, sizeof endpoint, "https", r->port, cases[i].protocol);
        config.tls.common.ca_pem = cases[i].ca;
        config.tls.server_name_override = cases[i].name;
        config.tls.insecure_skip_verify = cases[i].skip;
        bench_start(&bench, &config);
        struct test_call *call = call_new(&bench, 100000, 1000);
        call_start(call);
        call_wait(call);
        if (cases[i].text) {
            assert_int_equal(call->error.code, FLUE_UNAVAILABLE);
            assert_non_null(strstr(call->error.text, cases[i].text));
            assert_false(call->sent);
            assert_int_equal(r->requests, 0);
        } else {
            assert_string_equal(call->error.text, "");
            assert_int_equal(call->status, 200);
            assert_true(r->sum == call_sum(call));
            char host[64];
            snprintf(host, sizeof host, "host: 127.0.0.1:%u\r\n", r->port);
            assert_non_null(strcasestr(r->head, host));
        }
        bench_stop(&bench);
        call_free(call);
        responder_stop(r);
    }
    SSL_CTX_free(tls);
}

static void closing_ends_calls(void **state)
{
    struct one one;
    one_start(&one, &(struct responder){.answer = CANNED, .requests_first = 100}, 10, 0);
    call_start(one.call);
    AWAIT(one.responder->requests == 1);
    flue_loop_call(one.bench.loops->items[0], bench_destroy, &one.bench);
    assert_int_equal(one.call->ends, 1);
    assert_int_equal(one.call->error.code, FLUE_CANCELLED);
    flue_loops_destroy(one.bench.loops);
    responder_stop(one.responder);
    call_free(one.call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_is_answered),      cmocka_unit_test(answers_of_all_shapes),
        cmocka_unit_test(what_is_no_answer),       cmocka_unit_test(responses_have_limits),
        cmocka_unit_test(deadline_cancel_refused), cmocka_unit_test(many_at_once),
        cmocka_unit_test(the_probe_falls_back),    cmocka_unit_test(the_probe_finds_http2),
        cmocka_unit_test(tls_is_verified),         cmocka_unit_test(closing_ends_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
