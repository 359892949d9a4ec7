/* The HTTP/2 client against a real nghttp2 server on loopback that behaves and misbehaves. */
#include "tests/unit/collector/net/test_client_peer.h"

static struct flue_client_config plain(char *endpoint, size_t size, unsigned short port)
{
    struct flue_client_config config = {.endpoint = endpoint, .protocol = FLUE_CLIENT_HTTP2};
    snprintf(endpoint, size, "127.0.0.1:%u", port);
    config.tls.insecure = true;
    return config;
}

/* A peer, a client, and one call that is waited for. */
struct one {
    struct peer *peer;
    struct bench bench;
    char endpoint[128];
    struct test_call *call;
};

static void one_start(struct one *one, const struct peer_behaviour *behaviour, size_t size,
                      size_t slice)
{
    one->peer = peer_start(behaviour);
    struct flue_client_config config = plain(one->endpoint, sizeof one->endpoint, one->peer->port);
    bench_start(&one->bench, &config);
    assert_int_equal(one->bench.code, FLUE_OK);
    one->call = call_new(&one->bench, size, slice);
}

static void one_stop(struct one *one)
{
    bench_stop(&one->bench);
    peer_stop(one->peer);
    call_free(one->call);
}

static void a_call_is_answered(void **state)
{
    struct one one;
    one_start(&one, &(struct peer_behaviour){0}, 1000, 0);
    call_start(one.call);
    call_wait(one.call);
    assert_string_equal(one.call->error.text, "");
    assert_int_equal(one.call->error.code, FLUE_OK);
    assert_int_equal(one.call->status, 200);
    assert_string_equal(one.call->response, "rr");
    assert_string_equal(one.call->trailer, "0");
    assert_true(one.call->sent);
    assert_string_equal(one.peer->path, "/x.Y/Z");
    assert_string_equal(one.peer->te, "trailers");
    assert_string_equal(one.peer->agent, "flue/" FLUE_VERSION);
    assert_string_equal(one.peer->authority, one.endpoint);
    assert_true(one.peer->sum == call_sum(one.call));
    one_stop(&one);
}

/* Every cut of the body arrives as the same bytes; large frames are used where they are taken. */
static void bodies_arrive_whole(void **state)
{
    static const struct {
        size_t size, slice;
        uint32_t window, frame;
    } cases[] = {{0, 0, 0, 0},
                 {1, 0, 0, 0},
                 {16384, 0, 0, 0},
                 {16385, 5, 0, 0},
                 {65536, 191, 0, 0},
                 {65536, 192, 0, 0},
                 {300000, 5000, 7, 0},
                 {5000000, 100000, 0, 0},
                 {9000000, 0, 1 << 24, 1 << 20}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct one one;
        if (cases[i].window == 7 && cases[i].size > 20000)
            continue;
        one_start(&one,
                  &(struct peer_behaviour){.window = cases[i].window, .max_frame = cases[i].frame},
                  cases[i].size, cases[i].slice);
        call_start(one.call);
        call_wait(one.call);
        assert_string_equal(one.call->error.text, "");
        assert_true(one.peer->bytes == cases[i].size);
        assert_true(one.peer->sum == call_sum(one.call));
        if (cases[i].frame)
            assert_true(one.peer->largest_frame > 16384);
        else
            assert_true(one.peer->largest_frame <= 16384);
        one_stop(&one);
    }
}

static void a_small_window_is_obeyed(void **state)
{
    struct one one;
    one_start(&one, &(struct peer_behaviour){.window = 100}, 20000, 37);
    call_start(one.call);
    call_wait(one.call);
    assert_int_equal(one.call->error.code, FLUE_OK);
    assert_true(one.peer->largest_frame <= 100);
    assert_true(one.peer->sum == call_sum(one.call));
    one_stop(&one);
}

/* `count` calls at once to a peer that answers none of them before `open` are there. */
static void many_at_once(const struct peer_behaviour *behaviour, unsigned count, unsigned open,
                         struct flue_client_stats *stats, unsigned *most_open, unsigned *accepted)
{
    struct one one;
    struct test_call **calls = calloc(count, sizeof *calls);
    one_start(&one, behaviour, 10, 0);
    call_start(one.call);
    call_wait(one.call); /* connected */
    assert_int_equal(one.call->error.code, FLUE_OK);
    for (unsigned i = 0; i < count; i++) {
        calls[i] = call_new(&one.bench, 300, 100);
        call_start(calls[i]);
    }
    AWAIT(one.peer->requests == open + 1);
    *stats = bench_stats(&one.bench);
    assert_int_equal(stats->calls, count);
    assert_int_equal(stats->waiting, count - open);
    one.peer->released = true;
    for (unsigned i = 0; i < count; i++) {
        call_wait(calls[i]);
        assert_string_equal(calls[i]->error.text, "");
        assert_int_equal(calls[i]->status, 200);
    }
    *stats = bench_stats(&one.bench);
    *most_open = one.peer->most_open;
    *accepted = one.peer->accepted;
    assert_int_equal(stats->calls, 0);
    assert_int_equal(one.peer->requests, count + 1);
    for (unsigned i = 0; i < count; i++)
        call_free(calls[i]);
    free(calls);
    one_stop(&one);
}

static void a_thousand_in_flight(void **state)
{
    struct flue_client_stats stats;
    unsigned most, accepted;
    many_at_once(&(struct peer_behaviour){.answers = 1}, 1000, 1000, &stats, &most, &accepted);
    assert_int_equal(most, 1000);
    assert_int_equal(accepted, 1);
}

/* As many connections as the peer's limit demands, never more streams than it takes. */
static void the_stream_limit_makes_connections(void **state)
{
    struct flue_client_stats stats;
    unsigned most, accepted;
    many_at_once(&(struct peer_behaviour){.answers = 1, .max_streams = 10}, 200, 200, &stats,
                 &most, &accepted);
    assert_int_equal(most, 10);
    assert_int_equal(accepted, 20);
    many_at_once(&(struct peer_behaviour){.answers = 1, .max_streams = 1}, 100, 64, &stats, &most,
                 &accepted);
    assert_int_equal(most, 1);
    assert_int_equal(accepted, 64);
}

static void max_connections_is_obeyed(void **state)
{
    struct bench bench;
    char endpoint[64];
    struct test_call *calls[12];
    struct peer *peer = peer_start(&(struct peer_behaviour){.max_streams = 1, .answers = 1});
    struct flue_client_config config = plain(endpoint, sizeof endpoint, peer->port);
    config.max_connections = 3;
    bench_start(&bench, &config);
    for (unsigned i = 0; i < 12; i++)
        call_start(calls[i] = call_new(&bench, 10, 0));
    AWAIT(peer->requests == 4); /* one that is answered, and one on each connection */
    peer->released = true;
    for (unsigned i = 0; i < 12; i++) {
        call_wait(calls[i]);
        assert_int_equal(calls[i]->error.code, FLUE_OK);
        call_free(calls[i]);
    }
    assert_int_equal(peer->accepted, 3);
    bench_stop(&bench);
    peer_stop(peer);
}

static void goaway_calls_are_sent_again(void **state)
{
    struct one one;
    struct test_call *calls[8];
    one_start(&one, &(struct peer_behaviour){.goaway_at = 5, .delay_ms = 20}, 10, 0);
    call_start(one.call);
    call_wait(one.call);
    for (unsigned i = 0; i < 8; i++)
        call_start(calls[i] = call_new(&one.bench, 50000, 0));
    for (unsigned i = 0; i < 8; i++) {
        call_wait(calls[i]);
        assert_string_equal(calls[i]->error.text, "");
        call_free(calls[i]);
    }
    assert_int_equal(one.peer->accepted, 2);
    assert_int_equal(one.peer->requests, 9); /* each was answered once */
    one_stop(&one);
}

static void refused_streams_are_sent_again(void **state)
{
    struct one one;
    one_start(&one, &(struct peer_behaviour){.refuse = 3}, 100000, 0);
    call_start(one.call);
    call_wait(one.call);
    assert_string_equal(one.call->error.text, "");
    assert_int_equal(one.peer->refused, 3);
    assert_true(one.peer->sum == call_sum(one.call)); /* from its beginning */
    one_stop(&one);
    /* but not for ever */
    one_start(&one, &(struct peer_behaviour){.refuse = 1000}, 10, 0);
    call_start(one.call);
    call_wait(one.call);
    assert_int_equal(one.call->error.code, FLUE_UNAVAILABLE);
    assert_non_null(strstr(one.call->error.text, "REFUSED_STREAM"));
    assert_int_equal(one.peer->refused, 5);
    one_stop(&one);
}

static void a_reset_fails_the_call(void **state)
{
    struct one one;
    one_start(&one, &(struct peer_behaviour){.reset = true}, 10, 0);
    call_start(one.call);
    call_wait(one.call);
    assert_int_equal(one.call->error.code, FLUE_UNAVAILABLE);
    assert_non_null(strstr(one.call->error.text, "INTERNAL_ERROR"));
    assert_true(one.call->sent);
    assert_int_equal(one.call->grpc, FLUE_UNAVAILABLE);
    one_stop(&one);
}

static void a_lost_connection_fails_what_was_sent(void **state)
{
    struct one one;
    one_start(&one, &(struct peer_behaviour){.die_on_request = true}, 10, 0);
    call_start(one.call);
    call_wait(one.call);
    assert_int_equal(one.call->error.code, FLUE_UNAVAILABLE);
    assert_true(one.call->sent);
    assert_int_equal(one.peer->requests, 1); /* it may have been taken: not sent again here */
    one_stop(&one);
}

static void what_is_not_http2_is_named(void **state)
{
    static const struct peer_behaviour odd[] = {{.garbage = true}, {.close_at_once = true}};
    for (size_t i = 0; i < 2; i++) {
        struct one one;
        one_start(&one, &odd[i], 10, 0);
        call_start(one.call);
        call_wait(one.call);
        assert_int_equal(one.call->error.code, FLUE_UNAVAILABLE);
        assert_non_null(strstr(one.call->error.text, one.endpoint));
        assert_false(one.call->sent);
        one_stop(&one);
    }
}

static void nobody_listens(void **state)
{
    struct bench bench;
    char endpoint[64];
    struct flue_client_config config = plain(endpoint, sizeof endpoint, dead_port());
    bench_start(&bench, &config);
    struct test_call *call = call_new(&bench, 10, 0);
    call_start(call);
    call_wait(call);
    assert_int_equal(call->error.code, FLUE_UNAVAILABLE);
    assert_non_null(strstr(call->error.text, "Connection refused"));
    assert_non_null(strstr(call->error.text, endpoint));
    assert_false(call->sent);
    /* While the address is left alone, calls fail at once. */
    struct test_call *second = call_new(&bench, 10, 0);
    call_start(second);
    call_wait(second);
    assert_int_equal(second->error.code, FLUE_UNAVAILABLE);
    assert_string_equal(second->error.text, call->error.text);
    bench_stop(&bench);
    call_free(call);
    call_free(second);
}

static void wait_for_ready_waits(void **state)
{
    struct bench bench;
    char endpoint[64];
    unsigned short port;
    int taken = listen_loopback(&port);
    close(taken);
    struct flue_client_config config = plain(endpoint, sizeof endpoint, port);
    config.wait_for_ready = true;
    bench_start(&bench, &config);
    struct test_call *call = call_new(&bench, 10, 0);
    call->call.deadline_ns = flue_monotonic_ns() + 1000 * MS;
    call_start(call);
    call_wait(call);
    assert_int_equal(call->error.code, FLUE_TIMEOUT);
    assert_non_null(strstr(call->error.text, "Connection refused")); /* what it waited for */
    assert_false(call->sent);
    bench_stop(&bench);
    call_free(call);
}

static void a_deadline_ends_the_call(void **state)
{
    static const struct peer_behaviour slow[] = {{.answers = 1}, {.silent = true}};
    for (size_t i = 0; i < 2; i++) {
        struct one one;
        one_start(&one, &slow[i], 10, 0);
        if (i == 0) {
            call_start(one.call);
            call_wait(one.call);
        }
        struct test_call *late = call_new(&one.bench, 10, 0);
        uint64_t start = flue_monotonic_ns();
        late->call.deadline_ns = start + 1000 * MS; /* long enough for it to be sent */
        call_start(late);
        call_wait(late);
        assert_int_equal(late->error.code, FLUE_TIMEOUT);
        assert_int_equal(late->sent, i == 0);
        assert_true(flue_monotonic_ns() - start >= 999 * MS);
        if (i == 0)
            AWAIT(one.peer->resets == 1);
        call_free(late);
        one_stop(&one);
    }
}

static void cancel_ends_the_call(void **state)
{
    struct one one;
    one_start(&one, &(struct peer_behaviour){.delay_ms = NEVER}, 10, 0);
    call_start(one.call);
    AWAIT(one.peer->requests == 1);
    call_stop(one.call);
    call_wait(one.call);
    assert_int_equal(one.call->error.code, FLUE_CANCELLED);
    AWAIT(one.peer->resets == 1);
    call_stop(one.call); /* twice does nothing */
    struct test_call *second = call_new(&one.bench, 10, 0);
    second->cancel_at_once = true;
    call_start(second);
    call_wait(second);
    assert_int_equal(second->error.code, FLUE_CANCELLED);
    assert_false(second->sent);
    call_free(second);
    one_stop(&one);
}

/* The body is the caller's again when done is called, also when half of it lies in the queue. */
static void bodies_may_be_freed_in_done(void **state)
{
    struct peer_behaviour early = {.early = true, .window = 1 << 24, .max_frame = 1 << 20};
    for (unsigned round = 0; round < 6; round++) {
        struct one one;
        struct test_call *calls[8];
        one_start(&one, &early, 10, 0);
        call_start(one.call);
        call_wait(one.call);
        for (unsigned i = 0; i < 8; i++) {
            calls[i] = call_new(&one.bench, 4000000, 500000);
            calls[i]->free_body = true;
            call_start(calls[i]);
        }
        for (unsigned i = 0; i < 8; i++) {
            if (round % 2)
                call_stop(calls[i]);
            call_wait(calls[i]);
            assert_true(calls[i]->error.code == FLUE_OK || calls[i]->error.code == FLUE_CANCELLED);
        }
        /* The connection is still in order. */
        struct test_call *after = call_new(&one.bench, 100, 0);
        call_start(after);
        call_wait(after);
        assert_string_equal(after->error.text, "");
        assert_int_equal(one.peer->accepted, 1);
        call_free(after);
        for (unsigned i = 0; i < 8; i++)
            call_free(calls[i]);
        one_stop(&one);
    }
}

static void responses_have_a_limit(void **state)
{
    struct peer *peer = peer_start(&(struct peer_behaviour){.response_size = 200000});
    for (size_t limit = 199999; limit <= 200000; limit++) {
        struct bench bench;
        char endpoint[64];
        struct flue_client_config config = plain(endpoint, sizeof endpoint, peer->port);
        config.response_limit = limit;
        bench_start(&bench, &config);
        struct test_call *call = call_new(&bench, 10, 0);
        call_start(call);
        call_wait(call);
        if (limit < 200000) {
            assert_int_equal(call->error.code, FLUE_INVALID);
            assert_string_equal(call->error.text, "response over 199999 bytes");
        } else {
            assert_int_equal(call->error.code, FLUE_OK);
            assert_int_equal(call->response_size, 200000);
        }
        bench_stop(&bench);
        call_free(call);
    }
    peer_stop(peer);
}

static void closing_ends_calls(void **state)
{
    struct one one;
    one_start(&one, &(struct peer_behaviour){.delay_ms = NEVER}, 10, 0);
    struct test_call *second = call_new(&one.bench, 10, 0);
    call_start(one.call);
    AWAIT(one.peer->requests == 1);
    call_start(second);
    flue_loop_call(one.bench.loops->items[0], bench_destroy, &one.bench);
    assert_int_equal(one.call->ends, 1);
    assert_int_equal(second->ends, 1);
    assert_int_equal(one.call->error.code, FLUE_CANCELLED);
    flue_loops_destroy(one.bench.loops);
    peer_stop(one.peer);
    call_free(one.call);
    call_free(second);
}

static void a_bad_request_is_not_sent(void **state)
{
    static const struct flue_header split[] = {
        {FLUE_BYTES_INIT("x"), FLUE_BYTES_INIT("a\r\nhost: evil")}};
    struct one one;
    one_start(&one, &(struct peer_behaviour){0}, 10, 0);
    one.call->call.headers = split;
    one.call->call.header_count = 1;
    call_start(one.call);
    call_wait(one.call);
    assert_int_equal(one.call->error.code, FLUE_INVALID);
    struct test_call *second = call_new(&one.bench, 10, 0);
    second->call.path = FLUE_BYTES("/a b");
    call_start(second);
    call_wait(second);
    assert_int_equal(second->error.code, FLUE_INVALID);
    assert_int_equal(one.peer->accepted, 0);
    call_free(second);
    one_stop(&one);
}

static void unix_sockets_and_names(void **state)
{
    char path[64], endpoint[128];
    snprintf(path, sizeof path, "/tmp/flue-test-client-%d", (int)getpid());
    struct peer *local = peer_start(&(struct peer_behaviour){.unix_path = path});
    struct peer *named = peer_start(&(struct peer_behaviour){0});
    for (unsigned i = 0; i < 3; i++) {
        struct bench bench;
        struct flue_client_config config = plain(endpoint, sizeof endpoint, named->port);
        if (i == 0)
            snprintf(endpoint, sizeof endpoint, "unix://%s", path);
        else
            snprintf(endpoint, sizeof endpoint, "%slocalhost:%u", i == 1 ? "dns:///" : "",
                     named->port);
        bench_start(&bench, &config);
        struct test_call *call = call_new(&bench, 10, 0);
        call_start(call);
        call_wait(call);
        assert_string_equal(call->error.text, "");
        bench_stop(&bench);
        call_free(call);
    }
    assert_int_equal(local->requests, 1);
    assert_int_equal(named->requests, 2);
    peer_stop(local);
    peer_stop(named);
    struct bench bench;
    struct flue_client_config config = plain(endpoint, sizeof endpoint, 1);
    snprintf(endpoint, sizeof endpoint, "no-such-host.invalid:1");
    bench_start(&bench, &config);
    struct test_call *call = call_new(&bench, 10, 0);
    call_start(call);
    call_wait(call);
    assert_int_equal(call->error.code, FLUE_UNAVAILABLE);
    assert_non_null(strstr(call->error.text, "no-such-host.invalid"));
    bench_stop(&bench);
    call_free(call);
}

static void idle_connections_are_closed(void **state)
{
    struct bench bench;
    char endpoint[64];
    struct peer *peer = peer_start(&(struct peer_behaviour){0});
    struct flue_client_config config = plain(endpoint, sizeof endpoint, peer->port);
    config.idle_timeout = 50 * (int64_t)MS;
    bench_start(&bench, &config);
    for (unsigned i = 1; i <= 2; i++) {
        struct test_call *call = call_new(&bench, 10, 0);
        call_start(call);
        call_wait(call);
        assert_int_equal(call->error.code, FLUE_OK);
        call_free(call);
        AWAIT(bench_stats(&bench).connections == 0);
        assert_int_equal(peer->accepted, i);
    }
    bench_stop(&bench);
    peer_stop(peer);
}

/* A peer that says SETTINGS and then nothing more. */
static void *stall(void *arg)
{
    int fd = accept(*(int *)arg, NULL, NULL);
    static const uint8_t settings[9] = {0, 0, 0, 4};
    assert_int_equal(send(fd, settings, sizeof settings, MSG_NOSIGNAL), sizeof settings);
    uint8_t buffer[4096];
    while (recv(fd, buffer, sizeof buffer, 0) > 0)
        continue;
    close(fd);
    return NULL;
}

static void keepalive_notices_a_dead_peer(void **state)
{
    struct bench bench;
    char endpoint[64];
    unsigned short port;
    pthread_t thread;
    int listener = listen_loopback(&port);
    pthread_create(&thread, NULL, stall, &listener);
    struct flue_client_config config = plain(endpoint, sizeof endpoint, port);
    config.keepalive_time = 40 * (int64_t)MS;
    config.keepalive_timeout = 50 * (int64_t)MS;
    bench_start(&bench, &config);
    struct test_call *call = call_new(&bench, 10, 0);
    call_start(call);
    call_wait(call);
    assert_int_equal(call->error.code, FLUE_UNAVAILABLE);
    assert_non_null(strstr(call->error.text, "PING"));
    call_free(call);
    bench_stop(&bench);
    pthread_join(thread, NULL);
    close(listener);
}

static void keepalive_pings_are_answered(void **state)
{
    struct bench bench;
    char endpoint[64];
    struct peer *peer = peer_start(&(struct peer_behaviour){.answers = 1});
    struct flue_client_config config = plain(endpoint, sizeof endpoint, peer->port);
    config.keepalive_time = 40 * (int64_t)MS;
    config.keepalive_timeout = 100000 * (int64_t)MS;
    bench_start(&bench, &config);
    for (unsigned i = 0; i < 2; i++) {
        struct test_call *call = call_new(&bench, 10, 0);
        call_start(call);
        if (i == 1) { /* it is not answered before two of them were */
            AWAIT(peer->pings >= 2);
            peer->released = true;
        }
        call_wait(call);
        assert_int_equal(call->error.code, FLUE_OK);
        call_free(call);
    }
    assert_int_equal(peer->accepted, 1);
    bench_stop(&bench);
    peer_stop(peer);
}

static void tls_is_verified(void **state)
{
    char pem[4096], wrong[4096];
    SSL_CTX *tls = peer_tls("collector.test", pem, sizeof pem);
    SSL_CTX_free(peer_tls("collector.test", wrong, sizeof wrong));
    struct peer *peer = peer_start(&(struct peer_behaviour){.tls = tls, .window = 1 << 20});
    const struct {
        const char *ca, *name;
        bool skip;
        const char *text; /* NULL: it works */
    } cases[] = {{pem, "collector.test", false, NULL},
                 {pem, NULL, false, "mismatch"},
                 {pem, "other.test", false, "mismatch"},
                 {wrong, "collector.test", false, "self-signed certificate"},
                 {NULL, "collector.test", true, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench;
        char endpoint[64];
        struct flue_client_config config = plain(endpoint, sizeof endpoint, peer->port);
        config.tls.insecure = false;
        config.tls.insecure_skip_verify = cases[i].skip;
        config.tls.server_name_override = cases[i].name;
        config.tls.common.ca_pem = cases[i].ca;
        bench_start(&bench, &config);
        assert_int_equal(bench.code, FLUE_OK);
        struct test_call *call = call_new(&bench, 3000000, 70000);
        call_start(call);
        call_wait(call);
        if (cases[i].text) {
            assert_int_equal(call->error.code, FLUE_UNAVAILABLE);
            assert_non_null(strstr(call->error.text, cases[i].text));
            assert_non_null(strstr(call->error.text, "certificate of 127.0.0.1:"));
            assert_false(call->sent);
        } else {
            assert_string_equal(call->error.text, "");
            assert_true(peer->sum == call_sum(call));
            assert_string_equal(peer->authority, "collector.test");
        }
        bench_stop(&bench);
        call_free(call);
    }
    peer_stop(peer);
    SSL_CTX_free(tls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_is_answered),
        cmocka_unit_test(bodies_arrive_whole),
        cmocka_unit_test(a_small_window_is_obeyed),
        cmocka_unit_test(a_thousand_in_flight),
        cmocka_unit_test(the_stream_limit_makes_connections),
        cmocka_unit_test(max_connections_is_obeyed),
        cmocka_unit_test(goaway_calls_are_sent_again),
        cmocka_unit_test(refused_streams_are_sent_again),
        cmocka_unit_test(a_reset_fails_the_call),
        cmocka_unit_test(a_lost_connection_fails_what_was_sent),
        cmocka_unit_test(what_is_not_http2_is_named),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(wait_for_ready_waits),
        cmocka_unit_test(a_deadline_ends_the_call),
        cmocka_unit_test(cancel_ends_the_call),
        cmocka_unit_test(bodies_may_be_freed_in_done),
        cmocka_unit_test(responses_have_a_limit),
        cmocka_unit_test(closing_ends_calls),
        cmocka_unit_test(a_bad_request_is_not_sent),
        cmocka_unit_test(unix_sockets_and_names),
        cmocka_unit_test(idle_connections_are_closed),
        cmocka_unit_test(keepalive_notices_a_dead_peer),
        cmocka_unit_test(keepalive_pings_are_answered),
        cmocka_unit_test(tls_is_verified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
