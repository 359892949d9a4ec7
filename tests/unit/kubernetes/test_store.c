/* The store: what is found by which key and when, what is forgotten, and readers beside the writer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/clock.h"
#include "kubernetes/store.h"

#define SECOND INT64_C(1000000000)

static struct flue_kube_object object;
static struct flue_kube_store *store;

static int setup(void **state)
{
    const struct flue_kube_store_spec spec = {.grace_ns = 100 * SECOND, .index_names = true};
    return flue_kube_store_new(&spec, &store, NULL) == FLUE_OK ? 0 : -1;
}
static int teardown(void **state)
{
    flue_kube_store_destroy(store);
    return 0;
}

static void pod(const char *name, const char *uid, const char *address, const char *id,
                int64_t start_s)
{
    memset(&object, 0, sizeof object);
    object.name = flue_bytes_of(name);
    object.namespace = FLUE_BYTES("media");
    object.uid = flue_bytes_of(uid);
    object.phase = FLUE_BYTES("Running");
    object.start_s = start_s;
    if (address)
        object.addresses[object.address_count++] = flue_bytes_of(address);
    object.containers[0].name = FLUE_BYTES("main");
    if (id)
        object.containers[0].ids[0] = flue_bytes_of(id);
    object.container_count = 1;
}

static void put(void)
{
    assert_true(flue_kube_store_put(store, FLUE_KUBE_POD, &object, false));
}
static void delete (void)
{
    flue_kube_store_delete(store, FLUE_KUBE_POD, &object);
}

static const char *name_of(const struct flue_kube_record *record)
{
    static char text[64];
    if (!record)
        return NULL;
    snprintf(text, sizeof text, "%.*s",
             FLUE_PRI(flue_kube_record_text(record, record->name, record->name_size)));
    return text;
}

static enum flue_kube_owner owner(const char *address, int64_t from_s, int64_t until_s,
                                  const char **name)
{
    const struct flue_kube_record *record = NULL;
    enum flue_kube_owner result = flue_kube_find_address(
        store, flue_bytes_of(address), from_s * SECOND, until_s * SECOND, &record);
    *name = result == FLUE_KUBE_ONE ? name_of(record) : NULL;
    return result;
}

static enum flue_kube_owner owner_of_name(const char *of, int64_t from_s, int64_t until_s,
                                          const struct flue_kube_record **record)
{
    *record = NULL;
    return flue_kube_find_name(store, FLUE_BYTES("media"), flue_bytes_of(of), from_s * SECOND,
                               until_s * SECOND, record);
}

static bool is_uid(const struct flue_kube_record *record, const char *uid)
{
    return record &&
           flue_bytes_is(flue_kube_record_text(record, record->uid, record->uid_size), uid);
}

static const char *by_container(const char *id)
{
    int container = -1;
    return name_of(flue_kube_find_container(store, flue_bytes_of(id), &container));
}

static void found_by_every_key(void **state)
{
    const struct flue_kube_record *record;
    int container = -1;
    const char *name;
    pod("a", "uid-a", "10.0.0.1", "c1", 1000);
    object.addresses[object.address_count++] = FLUE_BYTES("fd00::1");
    object.containers[0].ids[1] = FLUE_BYTES("c0");
    put();
    assert_string_equal(name_of(flue_kube_find_container(store, FLUE_BYTES("c1"), &container)),
                        "a");
    assert_int_equal(container, 0);
    assert_string_equal(by_container("c0"), "a");
    assert_string_equal(name_of(flue_kube_find_uid(store, FLUE_BYTES("uid-a"))), "a");
    assert_int_equal(owner_of_name("a", 1000, 1001, &record), FLUE_KUBE_ONE);
    assert_true(is_uid(record, "uid-a"));
    assert_int_equal(owner_of_name("b", 1000, 1001, &record), FLUE_KUBE_NOBODY);
    assert_int_equal(owner("::ffff:10.0.0.1", 1000, 1001, &name), FLUE_KUBE_ONE);
    assert_int_equal(owner("fd00:0::1", 1000, 1001, &name), FLUE_KUBE_ONE);
    assert_null(by_container("c2"));
    assert_null(flue_kube_find_uid(store, flue_bytes(NULL, 0)));
    assert_int_equal(owner("10.0.0.2", 1000, 1001, &name), FLUE_KUBE_NOBODY);
    assert_int_equal(owner("nonsense", 1000, 1001, &name), FLUE_KUBE_NOBODY);
}

static void the_host_network_is_no_address_of_a_pod(void **state)
{
    const char *name;
    pod("a", "uid-a", "10.0.0.1", NULL, 1000);
    object.host_network = true;
    put();
    assert_int_equal(owner("10.0.0.1", 1000, 1001, &name), FLUE_KUBE_NOBODY);
}

static void time_decides_and_doubt_gives_none(void **state)
{
    int64_t now = (int64_t)(flue_wall_ns() / 1000000000);
    const char *name;

    pod("old", "uid-old", "10.0.0.1", NULL, now - 1000);
    object.phase = FLUE_BYTES("Succeeded");
    object.containers[0].finished_s = now - 500;
    put();
    pod("new", "uid-new", "10.0.0.1", NULL, now - 400);
    put();
    assert_int_equal(owner("10.0.0.1", now - 900, now - 890, &name), FLUE_KUBE_ONE);
    assert_string_equal(name, "old");
    assert_int_equal(owner("10.0.0.1", now - 450, now - 440, &name), FLUE_KUBE_NOBODY);
    assert_int_equal(owner("10.0.0.1", now - 400, now, &name), FLUE_KUBE_ONE);
    assert_string_equal(name, "new");
    assert_int_equal(owner("10.0.0.1", now - 401, now, &name), FLUE_KUBE_DOUBT); /* before it */
    assert_int_equal(owner("10.0.0.1", now - 600, now, &name), FLUE_KUBE_DOUBT); /* both */
    /* It reports its end again, and without its address: the end stays where it was. */
    pod("old", "uid-old", NULL, NULL, now - 1000);
    object.phase = FLUE_BYTES("Succeeded");
    put();
    assert_int_equal(owner("10.0.0.1", now - 300, now, &name), FLUE_KUBE_ONE);
    assert_string_equal(name, "new");
    assert_int_equal(owner("10.0.0.1", now - 900, now - 890, &name), FLUE_KUBE_ONE);
}

static void a_pod_that_is_asked_to_end_may_have_ended(void **state)
{
    const char *name;
    pod("a", "uid-a", "10.0.0.1", NULL, 1000);
    object.deletion_s = 1530;
    object.deletion_grace_s = 30;
    put();
    assert_int_equal(owner("10.0.0.1", 1499, 1600, &name), FLUE_KUBE_ONE);
    assert_int_equal(owner("10.0.0.1", 1500, 1600, &name), FLUE_KUBE_DOUBT);
}

static void an_address_that_moves(void **state)
{
    int64_t now = (int64_t)(flue_wall_ns() / 1000000000);
    const char *name;
    pod("a", "uid-a", "10.0.0.1", "c1", now - 100);
    put();
    pod("a", "uid-a", "10.0.0.2", "c2", now - 100);
    put();
    pod("b", "uid-b", "10.0.0.1", NULL, now + 5);
    put();
    assert_int_equal(owner("10.0.0.1", now - 50, now - 40, &name), FLUE_KUBE_ONE);
    assert_string_equal(name, "a");
    assert_int_equal(owner("10.0.0.1", now + 5, now + 9, &name), FLUE_KUBE_ONE);
    assert_string_equal(name, "b");
    assert_string_equal(by_container("c1"), "a");
    assert_string_equal(by_container("c2"), "a");
}

/* A StatefulSet gives a name again: a late profile of the one before is not the new one's. */
static void time_decides_between_pods_of_one_name(void **state)
{
    int64_t now = (int64_t)(flue_wall_ns() / 1000000000);
    const struct flue_kube_record *record;
    pod("origin-0", "uid-a", NULL, NULL, now - 1000);
    put();
    delete ();
    pod("origin-0", "uid-b", NULL, NULL, now + 5);
    put();
    assert_int_equal(owner_of_name("origin-0", now - 60, now - 50, &record), FLUE_KUBE_ONE);
    assert_true(is_uid(record, "uid-a"));
    assert_int_equal(owner_of_name("origin-0", now + 6, now + 7, &record), FLUE_KUBE_ONE);
    assert_true(is_uid(record, "uid-b"));
    assert_int_equal(owner_of_name("origin-0", now - 60, now + 6, &record), FLUE_KUBE_DOUBT);
    assert_int_equal(owner_of_name("origin-0", now - 2000, now - 1990, &record), FLUE_KUBE_NOBODY);
}

static void a_pod_that_ended_before_the_profile_did_is_doubt(void **state)
{
    int64_t now = (int64_t)(flue_wall_ns() / 1000000000);
    const char *name;
    pod("a", "uid-a", "10.0.0.1", NULL, now - 100);
    put();
    delete ();
    assert_int_equal(owner("10.0.0.1", now - 10, now - 5, &name), FLUE_KUBE_ONE);
    assert_int_equal(owner("10.0.0.1", now - 10, now + 5, &name), FLUE_KUBE_DOUBT);
    assert_int_equal(owner("10.0.0.1", now + 5, now + 6, &name), FLUE_KUBE_NOBODY);
}

/* Clocks differ: who had it close to the time that is asked for, may have had it then. */
static void neighbours_in_time_are_doubt(void **state)
{
    const struct flue_kube_store_spec spec = {.apart_ns = 5 * SECOND};
    struct flue_kube_store *kept = store;
    const char *name;
    assert_int_equal(flue_kube_store_new(&spec, &store, NULL), FLUE_OK);
    pod("old", "uid-old", "10.0.0.1", NULL, 1000);
    object.phase = FLUE_BYTES("Failed");
    object.containers[0].finished_s = 1999; /* ended at 2000 */
    put();
    pod("new", "uid-new", "10.0.0.1", NULL, 2000);
    put();
    assert_int_equal(owner("10.0.0.1", 1990, 1994, &name), FLUE_KUBE_ONE);
    assert_string_equal(name, "old");
    assert_int_equal(owner("10.0.0.1", 1990, 1995, &name), FLUE_KUBE_DOUBT);
    assert_int_equal(owner("10.0.0.1", 2005, 2010, &name), FLUE_KUBE_DOUBT);
    assert_int_equal(owner("10.0.0.1", 2006, 2010, &name), FLUE_KUBE_ONE);
    assert_string_equal(name, "new");
    /* Nobody else near: the moment itself decides. */
    assert_int_equal(owner("10.0.0.1", 1000, 1001, &name), FLUE_KUBE_ONE);
    assert_int_equal(owner("10.0.0.1", 999, 1001, &name), FLUE_KUBE_DOUBT);
    assert_int_equal(owner("10.0.0.1", 998, 999, &name), FLUE_KUBE_NOBODY);
    flue_kube_store_destroy(store);
    store = kept;
}

static void claim(const char *name, const char *uid, const char *annotation)
{
    pod(name, uid, NULL, NULL, 1000);
    object.annotations[0] = (struct flue_kube_pair){flue_bytes_of(annotation),
                                                    FLUE_BYTES("0123456789abcdef0123456789abcdef")};
    object.annotation_count = 1;
    put();
}

/* Whoever may make pods may write annotations. */
static void a_static_pods_hash_that_two_claim_is_nobodys(void **state)
{
    static const struct flue_bytes hash = FLUE_BYTES_INIT("0123456789abcdef0123456789abcdef");
    claim("other", "uid-other", "kubernetes.io/config.hash"); /* says nothing without a mirror */
    assert_null(flue_kube_find_uid(store, hash));
    claim("static", "uid-static", "kubernetes.io/config.mirror");
    assert_true(is_uid(flue_kube_find_uid(store, hash), "uid-static"));
    claim("forged", "uid-forged", "kubernetes.io/config.mirror");
    assert_null(flue_kube_find_uid(store, hash));
    delete ();
    assert_true(is_uid(flue_kube_find_uid(store, hash), "uid-static"));
    claim("static", "uid-again", "kubernetes.io/config.mirror"); /* its kubelet made it again */
    pod("static", "uid-static", NULL, NULL, 1000);
    delete ();
    assert_true(is_uid(flue_kube_find_uid(store, hash), "uid-again"));
}

static void times_beyond_all_measure_are_bounded(void **state)
{
    const char *name;
    pod("a", "uid-a", "10.0.0.1", NULL, INT64_MAX);
    object.deletion_s = INT64_MAX;
    object.deletion_grace_s = INT64_MIN;
    put();
    pod("b", "uid-b", "10.0.0.2", NULL, INT64_MIN);
    object.phase = FLUE_BYTES("Failed");
    object.containers[0].finished_s = INT64_MAX;
    put();
    assert_int_equal(owner("10.0.0.1", 1000, 1001, &name), FLUE_KUBE_NOBODY);
    assert_int_equal(owner("10.0.0.2", 1000, 1001, &name), FLUE_KUBE_ONE);
}

static void many_pods_of_one_address(void **state)
{
    char name[32], uid[32];
    const char *who;
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "p%d", i);
        snprintf(uid, sizeof uid, "u%d", i);
        pod(name, uid, "10.0.0.1", NULL, 1000 + i * 10);
        object.phase = FLUE_BYTES("Failed");
        object.containers[0].finished_s = 1000 + i * 10 + 8;
        put();
    }
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "p%d", i);
        assert_int_equal(owner("10.0.0.1", 1000 + i * 10, 1003 + i * 10, &who), FLUE_KUBE_ONE);
        assert_string_equal(who, name);
    }
    /* Without a grace period each goes at once, first, last and between. */
    flue_kube_store_begin(store, FLUE_KUBE_POD);
    flue_kube_store_end(store, FLUE_KUBE_POD);
    flue_clock_move(101 * SECOND);
    flue_kube_store_tick(store);
    assert_int_equal(owner("10.0.0.1", 1000, 1003, &who), FLUE_KUBE_NOBODY);
    pod("again", "u", "10.0.0.1", NULL, 1000);
    put();
    assert_int_equal(owner("10.0.0.1", 1000, 1003, &who), FLUE_KUBE_ONE);
}

static void known_for_the_grace_period(void **state)
{
    pod("a", "uid-a", "10.0.0.1", "c1", 1000);
    put();
    delete ();
    delete ();
    assert_string_equal(by_container("c1"), "a");
    flue_clock_move(99 * SECOND);
    flue_kube_store_tick(store);
    assert_string_equal(by_container("c1"), "a");
    flue_clock_move(2 * SECOND);
    flue_kube_store_tick(store);
    assert_null(by_container("c1"));
    assert_int_equal(flue_kube_store_stats(store)->waiting, 0);
}

static void old_words(void **state)
{
    const struct flue_kube_record *record;
    pod("a", "uid-a", NULL, "c1", 1000);
    delete (); /* unknown */
    assert_null(by_container("c1"));
    put();
    delete ();
    assert_true(
        flue_kube_store_put(store, FLUE_KUBE_POD, &object, true)); /* a change from before */
    flue_kube_store_tick(store);
    assert_int_equal(flue_kube_store_stats(store)->records[FLUE_KUBE_POD], 0);
    put(); /* it enters the selector again */
    flue_kube_store_tick(store);
    assert_int_equal(flue_kube_store_stats(store)->records[FLUE_KUBE_POD], 1);
    /* The name again, with another uid. */
    pod("a", "uid-b", NULL, "c2", 2000);
    put();
    pod("a", "uid-a", NULL, "c1", 1000);
    delete ();
    assert_string_equal(by_container("c2"), "a");
    int64_t later = (int64_t)(flue_wall_ns() / 1000000000) + 5;
    assert_int_equal(owner_of_name("a", later, later + 1, &record), FLUE_KUBE_ONE);
    assert_true(is_uid(record, "uid-b"));
    pod("", "x", NULL, NULL, 1);
    assert_false(flue_kube_store_put(store, FLUE_KUBE_POD, &object, false));
    pod("x", "", NULL, NULL, 1);
    assert_false(flue_kube_store_put(store, FLUE_KUBE_POD, &object, false));
}

static void a_list_ends_what_it_does_not_name(void **state)
{
    pod("a", "uid-a", NULL, "c1", 1000);
    put();
    pod("b", "uid-b", NULL, "c2", 1000);
    put();
    flue_kube_store_begin(store, FLUE_KUBE_POD); /* broken off: nothing has ended */
    flue_kube_store_begin(store, FLUE_KUBE_POD);
    put();
    flue_kube_store_tick(store);
    assert_int_equal(flue_kube_store_stats(store)->records[FLUE_KUBE_POD], 2);
    flue_kube_store_end(store, FLUE_KUBE_POD);
    assert_int_equal(flue_kube_store_stats(store)->records[FLUE_KUBE_POD], 1);
    assert_int_equal(flue_kube_store_stats(store)->waiting, 1);
    assert_string_equal(by_container("c1"), "a");
}

static void what_changes_nothing_makes_no_record(void **state)
{
    pod("a", "uid-a", "10.0.0.1", "c1", 1000);
    put();
    uint64_t serial = flue_kube_find_uid(store, FLUE_BYTES("uid-a"))->serial;
    object.resource_version = FLUE_BYTES("17");
    put();
    assert_int_equal(flue_kube_find_uid(store, FLUE_BYTES("uid-a"))->serial, serial);
    object.node_name = FLUE_BYTES("n");
    put();
    assert_int_not_equal(flue_kube_find_uid(store, FLUE_BYTES("uid-a"))->serial, serial);
}

static void generations_tell_of_changes(void **state)
{
    const _Atomic uint32_t *at =
        flue_kube_generation(store, FLUE_KUBE_NODE, flue_bytes(NULL, 0), FLUE_BYTES("node-a"));
    uint32_t before = *at;
    memset(&object, 0, sizeof object);
    object.name = FLUE_BYTES("node-a");
    object.uid = FLUE_BYTES("n1");
    assert_true(flue_kube_store_put(store, FLUE_KUBE_NODE, &object, false));
    assert_int_not_equal(*at, before);
    before = *at;
    assert_true(flue_kube_store_put(store, FLUE_KUBE_NODE, &object, true));
    assert_int_equal(*at, before);
    flue_kube_store_delete(store, FLUE_KUBE_NODE, &object);
    assert_int_not_equal(*at, before);
}

static void over_the_limit_nothing_is_learnt(void **state)
{
    const struct flue_kube_store_spec spec = {.limit = 20000};
    struct flue_kube_store *small, *kept = store;
    char uid[32];
    unsigned learnt = 0;
    assert_int_equal(flue_kube_store_new(&spec, &small, NULL), FLUE_OK);
    store = small;
    for (int i = 0; i < 1000; i++) {
        snprintf(uid, sizeof uid, "u%d", i);
        pod("a", uid, NULL, NULL, 1);
        learnt += flue_kube_store_put(store, FLUE_KUBE_POD, &object, false);
    }
    assert_in_range(learnt, 10, 100);
    assert_int_equal(flue_kube_store_stats(store)->left_out, 1000 - learnt);
    flue_kube_store_destroy(small);
    store = kept;
}

/* ---- readers beside the writer --------------------------------------------------------------- */

#define KEYS 400
static _Atomic bool stop;
static _Atomic uint64_t hits;

/* What is found must be of the pod that has the key: names are made of ids. */
static void *read_all(void *arg)
{
    unsigned reader = (unsigned)(uintptr_t)arg, seed = reader;
    while (!atomic_load(&stop)) {
        char id[32], wanted[32];
        int container = -1;
        seed = seed * 1664525u + 1013904223u;
        unsigned i = (seed >> 8) % KEYS;
        snprintf(id, sizeof id, "c%u", i);
        snprintf(wanted, sizeof wanted, "pod-%u", i);
        flue_kube_enter(flue_kube_store_epochs(store), reader);
        const struct flue_kube_record *record =
            flue_kube_find_container(store, flue_bytes_of(id), &container);
        const struct flue_kube_record *one = NULL;
        if (record) {
            if (!flue_bytes_is(flue_kube_record_text(record, record->name, record->name_size),
                               wanted) ||
                !flue_bytes_is(flue_kube_text(record->containers[container].name), "main"))
                abort();
            atomic_fetch_add(&hits, 1);
        }
        snprintf(id, sizeof id, "10.0.0.%u", i % 5);
        (void)flue_kube_find_address(store, flue_bytes_of(id), 1000 * SECOND, 1001 * SECOND, &one);
        if (one && !flue_bytes_starts_with(flue_kube_record_text(one, one->name, one->name_size),
                                           FLUE_BYTES("pod-")))
            abort();
        flue_kube_leave(flue_kube_store_epochs(store), reader);
    }
    return NULL;
}

static void readers_beside_the_writer(void **state)
{
    const struct flue_kube_store_spec spec = {.grace_ns = 0};
    struct flue_kube_store *kept = store;
    pthread_t threads[3];
    char name[32], uid[32], id[32], address[32];

    assert_int_equal(flue_kube_store_new(&spec, &store, NULL), FLUE_OK);
    atomic_store(&stop, false);
    for (uintptr_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_all, (void *)(i + 1)), 0);
    /* Until a reader has found something: on a busy machine they may begin late. */
    uint64_t patience = flue_monotonic_ns() + 120u * (uint64_t)SECOND;
    for (unsigned n = 0; n < 20000 || (atomic_load(&hits) == 0 && flue_monotonic_ns() < patience);
         n++) {
        unsigned i = n * 7919u % KEYS;
        snprintf(name, sizeof name, "pod-%u", i);
        snprintf(uid, sizeof uid, "u%u", i);
        snprintf(id, sizeof id, "c%u", i);
        snprintf(address, sizeof address, "10.0.0.%u", i % 5);
        pod(name, uid, address, id, 500 + n % 3);
        if (n % 5 == 4)
            delete ();
        else
            put();
        flue_kube_store_tick(store);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_true(atomic_load(&hits) > 0);
    flue_kube_store_tick(store);
    assert_int_equal(flue_kube_store_epochs(store)->waiting, 0);
    flue_kube_store_destroy(store);
    store = kept;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(found_by_every_key),
        TEST(the_host_network_is_no_address_of_a_pod),
        TEST(time_decides_and_doubt_gives_none),
        TEST(a_pod_that_is_asked_to_end_may_have_ended),
        TEST(an_address_that_moves),
        TEST(time_decides_between_pods_of_one_name),
        TEST(a_pod_that_ended_before_the_profile_did_is_doubt),
        TEST(neighbours_in_time_are_doubt),
        TEST(a_static_pods_hash_that_two_claim_is_nobodys),
        TEST(times_beyond_all_measure_are_bounded),
        TEST(many_pods_of_one_address),
        TEST(known_for_the_grace_period),
        TEST(old_words),
        TEST(a_list_ends_what_it_does_not_name),
        TEST(what_changes_nothing_makes_no_record),
        TEST(generations_tell_of_changes),
        TEST(over_the_limit_nothing_is_learnt),
        TEST(readers_beside_the_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
