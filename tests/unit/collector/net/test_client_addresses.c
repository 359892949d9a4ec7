/* A name with several addresses: calls go to all in turn or to the first that works, and what is
 * down is left out. getaddrinfo is this file's. */
#include "tests/unit/collector/net/test_client_peer.h"

#include <netdb.h>

static unsigned short ports[4]; /* what the name means now; 0 ends */
static _Atomic unsigned asked;

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    struct addrinfo **last = out;
    asked++;
    *out = NULL;
    for (unsigned i = 0; i < 4 && ports[i]; i++) {
        struct {
            struct addrinfo info;
            struct sockaddr_in address;
        } *made = calloc(1, sizeof *made);
        made->address = (struct sockaddr_in){.sin_family = AF_INET,
                                             .sin_port = htons(ports[i]),
                                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
        made->info = (struct addrinfo){.ai_family = AF_INET,
                                       .ai_addrlen = sizeof made->address,
                                       .ai_addr = (struct sockaddr *)(void *)&made->address};
        *last = &made->info;
        last = &made->info.ai_next;
    }
    return *out ? 0 : EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *info)
{
    while (info) {
        struct addrinfo *next = info->ai_next;
        free(info);
        info = next;
    }
}

static void start(struct bench *bench, bool pick_first)
{
    const struct flue_client_config config = {.endpoint = "nodes:4317",
                                              .tls = {.insecure = true},
                                              .protocol = FLUE_CLIENT_HTTP2,
                                              .pick_first = pick_first};
    bench_start(bench, &config);
    assert_int_equal(bench->code, FLUE_OK);
}

static void name_means(unsigned short a, unsigned short b, unsigned short c)
{
    ports[0] = a;
    ports[1] = b;
    ports[2] = c;
}

/* So many calls at a time, all answered. */
static void calls(struct bench *bench, unsigned count)
{
    struct test_call *all[32];
    for (unsigned i = 0; i < count; i++) {
        all[i] = call_new(bench, 100, 0);
        call_start(all[i]);
    }
    for (unsigned i = 0; i < count; i++) {
        call_wait(all[i]);
        assert_string_equal(all[i]->error.text, "");
        call_free(all[i]);
    }
}

/* One call at a time, each of which finds a connection at once: the second address is connected
 * all the same, and then they take turns to the call. */
static void all_in_turn(void **state)
{
    struct bench bench;
    struct peer *a = peer_start(&(struct peer_behaviour){0});
    struct peer *b = peer_start(&(struct peer_behaviour){0});
    name_means(a->port, b->port, 0);
    start(&bench, false);
    calls(&bench, 1);
    AWAIT(bench_stats(&bench).connections == 2);
    unsigned from_a = a->requests, from_b = b->requests;
    assert_int_equal(from_a + from_b, 1);
    for (unsigned i = 0; i < 20; i++)
        calls(&bench, 1);
    assert_int_equal(a->requests - from_a, 10);
    assert_int_equal(b->requests - from_b, 10);
    bench_stop(&bench);
    peer_stop(a);
    peer_stop(b);
}

/* Calls go to the connection with the fewest: nobody gets a call more than another. */
static void fewest_first(void **state)
{
    struct bench bench;
    struct peer *a = peer_start(&(struct peer_behaviour){.delay_ms = NEVER});
    struct peer *b = peer_start(&(struct peer_behaviour){.delay_ms = NEVER});
    struct test_call *all[20];
    name_means(a->port, b->port, 0);
    start(&bench, false);
    for (unsigned i = 0; i < 20; i++) {
        all[i] = call_new(&bench, 100, 0);
        call_start(all[i]);
        if (i == 0)
            AWAIT(bench_stats(&bench).connections == 2);
    }
    AWAIT(a->requests == 10 && b->requests == 10);
    for (unsigned i = 0; i < 20; i++) {
        call_stop(all[i]);
        call_wait(all[i]);
        call_free(all[i]);
    }
    bench_stop(&bench);
    peer_stop(a);
    peer_stop(b);
}

/* The one that went comes back elsewhere while the other takes every call at once. */
static void what_comes_back_has_its_turn_again(void **state)
{
    struct bench bench;
    struct peer *a = peer_start(&(struct peer_behaviour){0});
    struct peer *b = peer_start(&(struct peer_behaviour){0});
    name_means(a->port, b->port, 0);
    start(&bench, false);
    calls(&bench, 1);
    AWAIT(bench_stats(&bench).connections == 2);
    struct peer *c = peer_start(&(struct peer_behaviour){0});
    name_means(a->port, c->port, 0);
    peer_stop(b);
    AWAIT(bench_stats(&bench).connections == 1);
    AWAIT((calls(&bench, 1), c->requests >= 2)); /* the name is asked again within a second */
    bench_stop(&bench);
    peer_stop(a);
    peer_stop(c);
}

static void the_first_that_works(void **state)
{
    struct bench bench;
    struct peer *a = peer_start(&(struct peer_behaviour){0});
    struct peer *b = peer_start(&(struct peer_behaviour){0});
    name_means(dead_port(), a->port, b->port);
    start(&bench, true);
    calls(&bench, 20);
    assert_int_equal(a->requests, 20);
    assert_int_equal(b->requests, 0);
    bench_stop(&bench);
    peer_stop(a);
    peer_stop(b);
}

static void what_is_down_is_left_out(void **state)
{
    struct bench bench;
    struct peer *a = peer_start(&(struct peer_behaviour){0});
    name_means(dead_port(), a->port, dead_port());
    start(&bench, false);
    for (unsigned i = 0; i < 10; i++)
        calls(&bench, 3);
    assert_int_equal(a->requests, 30);
    bench_stop(&bench);
    peer_stop(a);
}

static void one_goes_and_the_other_takes_over(void **state)
{
    struct bench bench;
    struct peer *a = peer_start(&(struct peer_behaviour){0});
    struct peer *b = peer_start(&(struct peer_behaviour){0});
    name_means(a->port, b->port, 0);
    start(&bench, true);
    calls(&bench, 4);
    assert_int_equal(a->requests, 4);
    peer_stop(a);
    AWAIT(bench_stats(&bench).connections == 0);
    calls(&bench, 4);
    assert_int_equal(b->requests, 4);
    bench_stop(&bench);
    peer_stop(b);
}

/* After a connection was lost the name is asked again. */
static void the_name_is_resolved_again(void **state)
{
    struct bench bench;
    struct peer *a = peer_start(&(struct peer_behaviour){0});
    struct peer *b = peer_start(&(struct peer_behaviour){0});
    name_means(a->port, 0, 0);
    asked = 0;
    start(&bench, false);
    calls(&bench, 2);
    assert_int_equal(asked, 1);
    name_means(b->port, 0, 0);
    peer_stop(a);
    AWAIT(bench_stats(&bench).connections == 0);
    for (unsigned i = 0; b->requests == 0; i++) {
        struct test_call *call = call_new(&bench, 100, 0);
        assert_true(i < 2000);
        call_start(call);
        call_wait(call); /* may fail while the old address is all there is */
        call_free(call);
        usleep(2000);
    }
    assert_in_range(asked, 2, 20); /* at most once a second */
    bench_stop(&bench);
    peer_stop(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_in_turn),
        cmocka_unit_test(fewest_first),
        cmocka_unit_test(what_comes_back_has_its_turn_again),
        cmocka_unit_test(the_first_that_works),
        cmocka_unit_test(what_is_down_is_left_out),
        cmocka_unit_test(one_goes_and_the_other_takes_over),
        cmocka_unit_test(the_name_is_resolved_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
