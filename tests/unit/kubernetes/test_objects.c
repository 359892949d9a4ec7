/* Objects as the real server wrote them (tests/data/kubernetes), cut out of lists and watches, read
 * as protobuf and as JSON; and what is broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include "kubernetes/cut.h"
#include "kubernetes/object.h"

static struct flue_bytes load(const char *name)
{
    static uint8_t data[1u << 16];
    char path[512];
    snprintf(path, sizeof path, FLUE_TEST_DATA "/kubernetes/%s", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    return flue_bytes(data, size);
}

struct seen {
    unsigned objects, metas, bookmarks;
    enum flue_kube_kind kind;
    bool json, ends;
    char names[512], version[64], address[64], last_id[80], node[64];
    int64_t finished;
};

static void note(struct seen *seen, const struct flue_kube_object *object)
{
    size_t used = strlen(seen->names);
    snprintf(seen->names + used, sizeof seen->names - used, "%.*s:%.*s:%u:%u;",
             FLUE_PRI(object->name), FLUE_PRI(object->owner_name), object->container_count,
             object->address_count);
    for (unsigned i = 0; i < object->container_count; i++)
        if (object->containers[i].finished_s) {
            seen->finished = object->containers[i].finished_s;
            snprintf(seen->last_id, sizeof seen->last_id, "%.*s",
                     FLUE_PRI(object->containers[i].ids[2]));
        }
}

static bool take(void *arg, enum flue_kube_event event, struct flue_bytes bytes)
{
    static struct flue_kube_object object;
    struct seen *seen = arg;

    if (event == FLUE_KUBE_LIST_META) {
        struct flue_kube_list_meta meta;
        assert_true(flue_kube_list_meta_read(bytes, seen->json, &meta));
        snprintf(seen->version, sizeof seen->version, "%.*s", FLUE_PRI(meta.resource_version));
        flue_kube_list_meta_done(&meta);
        seen->metas++;
        return true;
    }
    struct flue_error error;
    assert_int_equal(seen->json ? flue_kube_object_read_json(bytes, seen->kind, &object, &error)
                                : flue_kube_object_read(bytes, seen->kind, &object, &error),
                     FLUE_OK);
    if (event == FLUE_KUBE_BOOKMARK) {
        seen->bookmarks++;
        seen->ends = flue_bytes_is(flue_kube_pair_find(object.annotations, object.annotation_count,
                                                       "k8s.io/initial-events-end"),
                                   "true");
        snprintf(seen->version, sizeof seen->version, "%.*s", FLUE_PRI(object.resource_version));
    } else {
        seen->objects++;
        note(seen, &object);
    }
    flue_kube_object_done(&object);
    return true;
}

/* In pieces of this size; 0: whole. */
static void cut(const char *name, enum flue_kube_form form, enum flue_kube_kind kind, size_t step,
                struct seen *seen)
{
    struct flue_bytes body = load(name);
    struct flue_kube_cut cutting;
    struct flue_error error;

    *seen = (struct seen){.kind = kind,
                          .json = form == FLUE_KUBE_JSON_LIST || form == FLUE_KUBE_JSON_WATCH};
    flue_kube_cut_init(&cutting, form, take, seen);
    for (size_t at = 0; at < body.size;) {
        size_t size = step ? step : body.size;
        assert_int_equal(
            flue_kube_cut_feed(&cutting, flue_bytes_first(flue_bytes_from(body, at), size), &error),
            FLUE_OK);
        at += size;
    }
    assert_true(flue_kube_cut_complete(&cutting));
    flue_kube_cut_destroy(&cutting);
}

static const struct {
    const char *name;
    enum flue_kube_form form;
} pods[] = {{"pods.list.pb", FLUE_KUBE_PROTOBUF_LIST},
            {"pods.list.json", FLUE_KUBE_JSON_LIST},
            {"pods.watch.pb", FLUE_KUBE_PROTOBUF_WATCH},
            {"pods.watch.json", FLUE_KUBE_JSON_WATCH}};

static void every_form_says_the_same(void **state)
{
    static const size_t steps[] = {0, 1, 2, 3, 5, 7, 100, 1001, 4096};
    struct seen first = {.objects = 0}, seen;

    for (unsigned f = 0; f < 4; f++)
        for (unsigned s = 0; s < sizeof steps / sizeof steps[0]; s++) {
            cut(pods[f].name, pods[f].form, FLUE_KUBE_POD, steps[s], &seen);
            assert_int_equal(seen.objects, 4);
            assert_int_equal(seen.finished, flue_kube_time(FLUE_BYTES("2026-11-20T09:00:00Z")));
            assert_int_equal(strlen(seen.last_id), 64);
            assert_string_equal(seen.version, f < 2 ? seen.version : "215");
            if (f < 2)
                assert_int_equal(seen.metas, 1);
            else
                assert_true(seen.bookmarks == 1 && seen.ends);
            assert_non_null(
                strstr(seen.names, "packager-7d9c5b8f6d-x2x9k:packager-7d9c5b8f6d:3:2;"));
            assert_non_null(strstr(seen.names, "origin-0:origin:1:1;"));
            if (f == 0 && s == 0)
                first = seen;
            assert_int_equal(strlen(first.names), strlen(seen.names)); /* in another order */
        }
}

static void other_kinds_are_metadata(void **state)
{
    struct seen seen;

    cut("replicasets.watch.pb", FLUE_KUBE_PROTOBUF_WATCH, FLUE_KUBE_REPLICASET, 1, &seen);
    assert_string_equal(seen.names, "packager-7d9c5b8f6d:packager:0:0;");
    cut("nodes.list.pb", FLUE_KUBE_PROTOBUF_LIST, FLUE_KUBE_NODE, 3, &seen);
    assert_string_equal(seen.names, "node-a::0:0;");
    cut("namespaces.watch.pb", FLUE_KUBE_PROTOBUF_WATCH, FLUE_KUBE_NAMESPACE, 0, &seen);
    assert_non_null(strstr(seen.names, "media::0:0;"));
    cut("jobs.list.pb", FLUE_KUBE_PROTOBUF_LIST, FLUE_KUBE_JOB, 0, &seen);
    assert_string_equal(seen.names, "reindex-29012345::0:0;");
}

static bool any(void *arg, enum flue_kube_event event, struct flue_bytes bytes)
{
    static struct flue_kube_object object;
    struct flue_kube_status status;
    struct flue_kube_list_meta meta;
    bool json = *(bool *)arg;
    struct flue_error error;

    if ((json ? flue_kube_object_read_json : flue_kube_object_read)(bytes, FLUE_KUBE_POD, &object,
                                                                    &error) == FLUE_OK)
        flue_kube_object_done(&object);
    if (flue_kube_status_read(bytes, json, &status) == FLUE_OK)
        flue_kube_status_done(&status);
    if (event == FLUE_KUBE_LIST_META && flue_kube_list_meta_read(bytes, json, &meta))
        flue_kube_list_meta_done(&meta);
    return true;
}

/* Nothing is read beyond what is there, whatever is changed or missing; the sanitizers judge. */
static void broken_bodies(void **state)
{
    for (unsigned f = 0; f < 4; f++) {
        struct flue_bytes body = load(pods[f].name);
        bool json = f % 2;
        for (size_t i = 0; i < body.size; i += 3) {
            uint8_t *copy = malloc(body.size);
            struct flue_kube_cut cutting;
            struct flue_error error;
            memcpy(copy, body.data, body.size);
            copy[i] ^= (uint8_t)(1u << (i % 8));
            flue_kube_cut_init(&cutting, pods[f].form, any, &json);
            (void)flue_kube_cut_feed(&cutting, flue_bytes(copy, body.size), &error);
            flue_kube_cut_destroy(&cutting);
            free(copy);
            copy = malloc(i + 1);
            memcpy(copy, body.data, i);
            flue_kube_cut_init(&cutting, pods[f].form, any, &json);
            assert_int_equal(flue_kube_cut_feed(&cutting, flue_bytes(copy, i), &error), FLUE_OK);
            flue_kube_cut_destroy(&cutting);
            free(copy);
        }
    }
}

static void a_list_that_is_cut_off_is_not_complete(void **state)
{
    for (unsigned f = 0; f < 2; f++) {
        struct flue_bytes body = load(pods[f].name);
        struct flue_kube_cut cutting;
        struct seen seen = {.kind = FLUE_KUBE_POD, .json = f};
        flue_kube_cut_init(&cutting, pods[f].form, take, &seen);
        flue_kube_cut_feed(&cutting, flue_bytes_first(body, body.size - 5), NULL);
        assert_false(flue_kube_cut_complete(&cutting));
        flue_kube_cut_destroy(&cutting);
    }
}

static void what_is_too_large_is_stepped_over(void **state)
{
    struct flue_kube_cut cutting;
    struct seen seen = {.kind = FLUE_KUBE_POD};
    static const uint8_t head[] = {0x00, 0x40, 0x00, 0x01}; /* 4 MiB + 1 */
    struct flue_bytes body = load("pods.watch.pb");
    uint8_t *zeros = calloc(1, FLUE_KUBE_MAX_OBJECT + 1);

    flue_kube_cut_init(&cutting, FLUE_KUBE_PROTOBUF_WATCH, take, &seen);
    flue_kube_cut_feed(&cutting, flue_bytes(head, 4), NULL);
    for (size_t at = 0; at < FLUE_KUBE_MAX_OBJECT + 1u; at += 16384) {
        size_t left = FLUE_KUBE_MAX_OBJECT + 1u - at;
        flue_kube_cut_feed(&cutting, flue_bytes(zeros, left < 16384 ? left : 16384), NULL);
        assert_true(cutting.room < 65536);
    }
    assert_int_equal(cutting.skipped, 1);
    flue_kube_cut_feed(&cutting, body, NULL);
    assert_int_equal(seen.objects, 4);
    flue_kube_cut_destroy(&cutting);
    free(zeros);
}

static void a_refusal_is_read(void **state)
{
    struct flue_bytes raw;
    struct flue_kube_status status;
    assert_true(flue_kube_unknown(load("forbidden.pb"), &raw));
    assert_int_equal(flue_kube_status_read(raw, false, &status), FLUE_OK);
    assert_int_equal(status.code, 403);
    assert_true(flue_bytes_is(status.reason, "Forbidden"));
    assert_true(flue_bytes_starts_with(status.message, FLUE_BYTES("pods is forbidden: User")));
    flue_kube_status_done(&status);
    assert_int_equal(
        flue_kube_status_read(FLUE_BYTES("{\"code\":410,\"reason\":\"Expired\"}"), true, &status),
        FLUE_OK);
    assert_int_equal(status.code, 410);
    flue_kube_status_done(&status);
    assert_int_equal(flue_kube_status_read(FLUE_BYTES("<html>"), true, &status), FLUE_INVALID);
}

static void times(void **state)
{
    assert_int_equal(flue_kube_time(FLUE_BYTES("1970-01-01T00:00:00Z")), 0);
    assert_int_equal(flue_kube_time(FLUE_BYTES("2000-02-29T12:34:56Z")), 951827696);
    assert_int_equal(flue_kube_time(FLUE_BYTES("2026-11-20T08:00:00Z")), 1795161600);
    static const char *const wrong[] = {"",
                                        "2026-11-20T08:00:00",
                                        "2026-13-20T08:00:00Z",
                                        "2026-11-20 08:00:00Z",
                                        "2026-1a-20T08:00:00Z",
                                        "2026-11-20T08:00:00.000Z"};
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(flue_kube_time(flue_bytes_of(wrong[i])), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_says_the_same),
        cmocka_unit_test(other_kinds_are_metadata),
        cmocka_unit_test(broken_bodies),
        cmocka_unit_test(a_list_that_is_cut_off_is_not_complete),
        cmocka_unit_test(what_is_too_large_is_stepped_over),
        cmocka_unit_test(a_refusal_is_read),
        cmocka_unit_test(times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
