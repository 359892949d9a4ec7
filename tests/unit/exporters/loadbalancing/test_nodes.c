/* Which node a key belongs to, and what a name's new addresses change. getaddrinfo is this file's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "collector/base/clock.h"
#include "exporters/loadbalancing/nodes.h"

#define KEYS 20000

static _Atomic unsigned answer_count; /* addresses 10.0.0.1 ..; 0: no such name */
static _Atomic unsigned asked, hanging;

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    struct addrinfo **last = out;
    asked++;
    while (hanging)
        usleep(1000);
    *out = NULL;
    unsigned count = answer_count;
    for (unsigned i = 0; i < count; i++) {
        struct {
            struct addrinfo info;
            struct sockaddr_in address;
        } *made = calloc(1, sizeof *made);
        made->address = (struct sockaddr_in){.sin_family = AF_INET,
                                             .sin_addr = {htonl(0x0a000001 + i)}};
        made->info = (struct addrinfo){.ai_family = AF_INET,
                                       .ai_addrlen = sizeof made->address,
                                       .ai_addr = (struct sockaddr *)(void *)&made->address};
        *last = &made->info;
        last = &made->info.ai_next;
    }
    return count ? 0 : EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *info)
{
    while (info) {
        struct addrinfo *next = info->ai_next;
        free(info);
        info = next;
    }
}

static const char *const names[] = {"a:1", "b:1", "c:1", "d:1", "e:1"};
static struct flue_metrics *metrics;

static void init(struct flue_balance_resolver *r)
{
    *r = (struct flue_balance_resolver){0};
    flue_balance_resolver_init(r);
    r->found = flue_metric(metrics, FLUE_COUNTER, "found", "", NULL);
    r->not_found = flue_metric(metrics, FLUE_COUNTER, "not_found", "", NULL);
    r->backends = flue_metric(metrics, FLUE_GAUGE, "backends", "", NULL);
    r->updates = flue_metric(metrics, FLUE_COUNTER, "updates", "", NULL);
}

static const char *home(const struct flue_balance_list *list, uint64_t key, uint64_t now)
{
    return list->items[flue_balance_choose(list, key * 0x9e3779b97f4a7c15u, now)]->endpoint;
}

static void shares_are_even_and_only_the_lost_nodes_keys_move(void **state)
{
    struct flue_balance_resolver r, reversed;
    struct flue_error error;
    init(&r);
    init(&reversed);
    static const char *const backwards[] = {"e:1", "d:1", "c:1", "b:1", "a:1"};
    assert_int_equal(flue_balance_set(&r, names, 5, NULL), FLUE_OK);
    assert_int_equal(flue_balance_set(&reversed, backwards, 5, NULL), FLUE_OK);
    struct flue_balance_list *five = flue_balance_now(&r, &error);
    unsigned shares[5] = {0}, moved = 0;
    char before[KEYS];
    for (uint64_t key = 0; key < KEYS; key++) {
        before[key] = home(five, key, 0)[0];
        shares[before[key] - 'a']++;
        assert_int_equal(home(reversed.list, key, 0)[0], before[key]);
    }
    for (unsigned i = 0; i < 5; i++)
        assert_in_range(shares[i], KEYS / 5 * 9 / 10, KEYS / 5 * 11 / 10);
    /* c does not answer: its keys alone move, to all the others */
    flue_balance_lost(five->items[2], 1000);
    unsigned took[5] = {0};
    for (uint64_t key = 0; key < KEYS; key++) {
        char now = home(five, key, 2000)[0];
        assert_int_not_equal(now, 'c');
        if (before[key] != 'c')
            assert_int_equal(now, before[key]);
        else
            took[now - 'a']++;
    }
    for (unsigned i = 0; i < 5; i++)
        if (i != 2)
            assert_in_range(took[i], shares[2] / 5, shares[2] / 3);
    flue_balance_answers(five->items[2]);
    /* and a list without it decides the same, one with a sixth takes from all alike */
    static const char *const four[] = {"a:1", "b:1", "d:1", "e:1"};
    assert_int_equal(flue_balance_set(&r, four, 4, NULL), FLUE_OK);
    assert_true(five->items[2]->gone);
    for (uint64_t key = 0; key < KEYS; key++)
        if (before[key] != 'c')
            assert_int_equal(home(r.list, key, 0)[0], before[key]);
    static const char *const six[] = {"f:1", "a:1", "b:1", "c:1", "d:1", "e:1"};
    assert_int_equal(flue_balance_set(&r, six, 6, NULL), FLUE_OK);
    for (uint64_t key = 0; key < KEYS; key++) {
        char now = home(r.list, key, 0)[0];
        moved += now != before[key];
        assert_true(now == before[key] || now == 'f');
    }
    assert_in_range(moved, KEYS / 7, KEYS / 5);
    flue_balance_list_unref(five);
    flue_balance_resolver_destroy(&r);
    flue_balance_resolver_destroy(&reversed);
}

static void where_all_are_lost_the_keys_stay(void **state)
{
    struct flue_balance_resolver r;
    init(&r);
    assert_int_equal(flue_balance_set(&r, names, 2, NULL), FLUE_OK);
    assert_true(flue_balance_other(r.list, r.list->items[0], 10));
    const char *was = home(r.list, 7, 10);
    flue_balance_lost(r.list->items[0], 10);
    flue_balance_lost(r.list->items[1], 10);
    assert_false(flue_balance_other(r.list, r.list->items[0], 10));
    assert_string_equal(home(r.list, 7, 10), was);
    flue_balance_resolver_destroy(&r);
}

static void equal_names_are_one_node_and_the_number_is_bounded(void **state)
{
    struct flue_balance_resolver r;
    struct flue_error error;
    static const char *const twice[] = {"a:1", "a:1", "b:1"};
    const char *many[257];
    for (unsigned i = 0; i < 257; i++)
        many[i] = "x:1";
    init(&r);
    assert_int_equal(flue_balance_set(&r, twice, 3, NULL), FLUE_OK);
    assert_int_equal(r.list->count, 2);
    assert_int_equal(flue_balance_set(&r, many, 0, &error), FLUE_INVALID);
    assert_int_equal(flue_balance_set(&r, many, 257, &error), FLUE_INVALID);
    assert_non_null(strstr(error.text, "256"));
    assert_int_equal(flue_balance_set(&r, many, 256, NULL), FLUE_OK);
    assert_int_equal(r.list->count, 1);
    flue_balance_resolver_destroy(&r);
}

static _Atomic unsigned changes;
static void on_change(void *arg)
{
    changes++;
}

#define AWAIT(condition)                                                                           \
    for (unsigned i_ = 0; !(condition); i_++) {                                                    \
        assert_true(i_ < 20000);                                                                   \
        usleep(500);                                                                               \
    }

static void a_name_is_resolved_again_and_again(void **state)
{
    struct flue_balance_resolver r;
    struct flue_loops *loops;
    struct flue_error error = {0};
    init(&r);
    r.hostname = "nodes";
    r.port = "4317";
    r.interval = 5000000;
    r.timeout = 20000000;
    r.changed = on_change;
    changes = asked = 0;
    answer_count = 3;
    hanging = 1;
    assert_int_equal(flue_loops_new(1, &loops, NULL), FLUE_OK);
    flue_balance_resolver_start(&r, loops->items[0]);
    assert_null(flue_balance_now(&r, &error));
    assert_int_equal(error.code, FLUE_OK); /* being looked for */
    assert_int_equal(flue_loops_run(loops, NULL), FLUE_OK);
    AWAIT(changes == 1); /* out of patience: what waits hears why */
    assert_null(flue_balance_now(&r, &error));
    assert_int_equal(error.code, FLUE_UNAVAILABLE);
    assert_non_null(strstr(error.text, "\"nodes\""));
    hanging = 0; /* and the late answer is taken */
    AWAIT(flue_metric_get(r.backends) == 3);
    struct flue_balance_list *three = flue_balance_now(&r, &error);
    assert_string_equal(three->items[0]->endpoint, "10.0.0.1:4317");
    flue_balance_lost(three->items[1], flue_monotonic_ns());
    answer_count = 2;
    AWAIT(flue_metric_get(r.backends) == 2);
    struct flue_balance_list *two = flue_balance_now(&r, &error);
    assert_true(three->items[2]->gone && !three->items[0]->gone);
    assert_ptr_equal(two->items[1], three->items[1]); /* what is known of a node stays */
    int64_t updates = flue_metric_get(r.updates);
    unsigned before = asked;
    answer_count = 0; /* no such name: the old ones stay */
    AWAIT(asked > before + 4 && flue_metric_get(r.not_found) > 1);
    assert_int_equal(r.list->count, 2);
    answer_count = 2;
    before = asked;
    AWAIT(asked > before + 4);
    assert_int_equal(flue_metric_get(r.updates), updates);
    flue_loops_stop(loops);
    flue_balance_list_unref(two);
    flue_balance_list_unref(three);
    flue_balance_resolver_destroy(&r);
    flue_loops_destroy(loops);
}

int main(void)
{
    metrics = flue_metrics_new("");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_even_and_only_the_lost_nodes_keys_move),
        cmocka_unit_test(where_all_are_lost_the_keys_stay),
        cmocka_unit_test(equal_names_are_one_node_and_the_number_is_bounded),
        cmocka_unit_test(a_name_is_resolved_again_and_again),
    };
    int result = cmocka_run_group_tests(tests, NULL, NULL);
    flue_metrics_destroy(metrics);
    return result;
}
