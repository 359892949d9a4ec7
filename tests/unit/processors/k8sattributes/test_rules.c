/* Rules of extraction, the downward API's files, lists of peers, processes and their start. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "collector/base/clock.h"
#include "processors/k8sattributes/downward.h"
#include "processors/k8sattributes/peers.h"
#include "processors/k8sattributes/processes.h"
#include "processors/k8sattributes/rules.h"

static struct flue_kube_object object;
static struct flue_kube_extract extract;

static void run(const struct k8s_config *config, enum flue_kube_kind kind)
{
    struct k8s_rules *rules;
    struct flue_error error;
    assert_int_equal(k8s_rules_new(config, &rules, &error), FLUE_OK);
    memset(&extract, 0, offsetof(struct flue_kube_extract, scratch));
    extract.scratch_used = 0;
    k8s_rules_extract(rules, kind, &object, &extract);
    k8s_rules_destroy(rules);
}

static const char *value(const char *name)
{
    static char text[256];
    struct flue_bytes found = flue_kube_pair_find(extract.pairs, extract.count, name);
    if (!found.data)
        return NULL;
    snprintf(text, sizeof text, "%.*s", FLUE_PRI(found));
    return text;
}

static void label(const char *key, const char *text)
{
    object.labels[object.label_count++] =
        (struct flue_kube_pair){flue_bytes_of(key), flue_bytes_of(text)};
}
static void annotation(const char *key, const char *text)
{
    object.annotations[object.annotation_count++] =
        (struct flue_kube_pair){flue_bytes_of(key), flue_bytes_of(text)};
}

static void names_of_attributes(void **state)
{
    struct k8s_extract_rule labels[] = {
        {.key = "team"},
        {.key = "team", .tag_name = "owner"},
        {.key_regex = "app\\.kubernetes\\.io/(?P<what>.*)", .tag_name = "app.${what}.$1.$9x$"},
        {.key_regex = "kubernetes"}, /* whole keys match, so none */
        {.key = "zone", .from = K8S_FROM_NODE},
    };
    struct k8s_extract_rule annotations[] = {{.key = "note"}};
    struct k8s_config config = {
        .extract = {.labels = {labels, 5}, .annotations = {annotations, 1}}};

    memset(&object, 0, sizeof object);
    object.name = FLUE_BYTES("p");
    label("team", "abr");
    label("app.kubernetes.io/name", "packager");
    label("zone", "a");
    annotation("note", "n");
    annotation("other", "o");
    run(&config, FLUE_KUBE_POD);
    assert_string_equal(value("k8s.pod.labels.team"), "abr");
    assert_string_equal(value("owner"), "abr");
    assert_string_equal(value("app.name.name.x$"), "packager");
    assert_string_equal(value("k8s.pod.annotations.note"), "n");
    assert_int_equal(extract.count, 4);
    run(&config, FLUE_KUBE_NODE);
    assert_string_equal(value("k8s.node.labels.zone"), "a");
    assert_int_equal(extract.count, 1);
}

static void names_of_services(void **state)
{
    const char *metadata[] = {"service.name", "service.namespace", "service.version",
                              "service.instance.id"};
    struct k8s_config config = {.extract.metadata = {metadata, 4}};

    memset(&object, 0, sizeof object);
    object.name = FLUE_BYTES("pod-1");
    object.namespace = FLUE_BYTES("media");
    run(&config, FLUE_KUBE_POD);
    assert_string_equal(value("service.name"), "pod-1");
    assert_string_equal(value("service.namespace"), "media");
    assert_null(value("service.version"));
    object.owner_kind = FLUE_BYTES("Job");
    object.owner_name = FLUE_BYTES("reindex-29012345");
    run(&config, FLUE_KUBE_POD);
    assert_string_equal(value("service.name"), "reindex");
    object.owner_kind = FLUE_BYTES("ReplicaSet");
    object.owner_name = FLUE_BYTES("packager-7d9c");
    run(&config, FLUE_KUBE_POD);
    assert_string_equal(value("service.name"), "packager-7d9c");
    label("pod-template-hash", "7d9c");
    run(&config, FLUE_KUBE_POD);
    assert_string_equal(value("service.name"), "packager");
    label("app.kubernetes.io/name", "by-name");
    run(&config, FLUE_KUBE_POD);
    assert_string_equal(value("service.name"), "by-name");
    label("app.kubernetes.io/instance", "by-instance");
    label("app.kubernetes.io/version", "4.2");
    run(&config, FLUE_KUBE_POD);
    assert_string_equal(value("service.name"), "by-instance");
    assert_string_equal(value("service.version"), "4.2");
    annotation("resource.opentelemetry.io/service.name", "by-annotation");
    annotation("resource.opentelemetry.io/service.namespace", "elsewhere");
    annotation("resource.opentelemetry.io/service.instance.id", "one");
    run(&config, FLUE_KUBE_POD);
    assert_string_equal(value("service.name"), "by-annotation");
    assert_string_equal(value("service.namespace"), "elsewhere");
    assert_string_equal(value("service.instance.id"), "one");
}

static void pods_that_are_left_alone(void **state)
{
    struct k8s_exclude_pod pods[] = {{"jaeger-agent"}};
    struct k8s_config config = {.exclude.pods = {pods, 1}};

    memset(&object, 0, sizeof object);
    object.name = FLUE_BYTES("jaeger-agent-x");
    run(&config, FLUE_KUBE_POD);
    assert_true(extract.ignored);
    object.name = FLUE_BYTES("packager");
    run(&config, FLUE_KUBE_POD);
    assert_false(extract.ignored);
    annotation("opentelemetry.io/k8s-processor/ignore", "true");
    run(&config, FLUE_KUBE_POD);
    assert_true(extract.ignored);
}

static void more_than_there_is_room_for(void **state)
{
    static char keys[FLUE_KUBE_MAX_LABELS][300];
    struct k8s_extract_rule labels[] = {{.key_regex = ".*"}};
    struct k8s_config config = {.extract.labels = {labels, 1}};

    memset(&object, 0, sizeof object);
    object.name = FLUE_BYTES("p");
    for (unsigned i = 0; i < FLUE_KUBE_MAX_LABELS; i++) {
        snprintf(keys[i], sizeof keys[i], "%0200u", i);
        label(keys[i], "v");
    }
    run(&config, FLUE_KUBE_POD);
    assert_in_range(extract.count, 10, FLUE_KUBE_MAX_EXTRACTED);
    assert_true(extract.scratch_used <= sizeof extract.scratch);
}

static void files_of_the_downward_api(void **state)
{
    struct flue_kube_pair pairs[8];
    struct flue_arena arena;
    static const char text[] =
        "a=\"1\"\nb=\"q\\\"\\\\ \\n\\t\\x41\\u00e9\\U0001f600\"\nbroken\n=\"x\"\n"
        "c=unquoted\nd=\"\\xff\"\ne=\"\"";
    flue_arena_init(&arena, 1u << 16, 0);
    unsigned count = k8s_downward_pairs(flue_bytes_of(text), &arena, pairs, 8);
    assert_int_equal(count, 4);
    assert_true(flue_bytes_is(pairs[0].value, "1"));
    assert_true(flue_bytes_is(pairs[1].value, "q\"\\ \n\tA\xc3\xa9\xf0\x9f\x98\x80"));
    assert_int_equal(pairs[2].value.size, 0); /* not UTF-8 */
    assert_int_equal(pairs[3].value.size, 0);
    for (size_t size = 0; size < sizeof text; size++)
        assert_in_range(k8s_downward_pairs(flue_bytes(text, size), &arena, pairs, 3), 0, 3);
    flue_arena_destroy(&arena);
}

static void peers(void **state)
{
    const char *items[] = {"10.1.0.0/17", "fd00::/12", "192.168.1.1", "unix"};
    struct flue_list list = {items, 4};
    struct k8s_peers read;
    struct flue_arena arena;
    flue_arena_init(&arena, 0, 0);
    assert_true(k8s_peers_read(&list, &arena, &read));
    static const struct {
        const char *address;
        bool in;
    } cases[] = {{"10.1.0.1", true},        {"10.1.127.255", true}, {"10.1.128.0", false},
                 {"::ffff:10.1.0.1", true}, {"fd0f::1", true},      {"fd10::1", false},
                 {"192.168.1.1", true},     {"192.168.1.2", false}, {"", true},
                 {"nonsense", false}};
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(k8s_peers_have(&read, flue_bytes_of(cases[i].address)), cases[i].in);
    flue_arena_destroy(&arena);
}

static void write_process(const char *folder, int pid, unsigned long start, const char *cgroup)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%d", folder, pid);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/%d/stat", folder, pid);
    FILE *file = fopen(path, "w");
    fprintf(file, "%d (a) (b)) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 %lu 20 21\n", pid,
            start);
    fclose(file);
    snprintf(path, sizeof path, "%s/%d/cgroup", folder, pid);
    file = fopen(path, "w");
    fputs(cgroup, file);
    fclose(file);
}

#define ID1 "1111111111111111111111111111111111111111111111111111111111111111"
#define ID2 "2222222222222222222222222222222222222222222222222222222222222222"

static void a_process_id_that_is_used_again(void **state)
{
    char folder[] = "/tmp/flue-proc-XXXXXX", path[160];
    struct k8s_processes processes;
    struct flue_kube_cgroup got;
    int64_t second = INT64_C(1000000000), now = (int64_t)flue_wall_ns();
    unsigned long ticks = (unsigned long)sysconf(_SC_CLK_TCK);

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/stat", folder);
    FILE *file = fopen(path, "w");
    fprintf(file, "cpu 0\nbtime %lld\n", (long long)(now / second - 1000));
    fclose(file);
    k8s_processes_init(&processes, folder);
    write_process(folder, 7, 100 * ticks, "0::/docker/" ID1 "\n");
    assert_true(k8s_process_find(&processes, 7, now - 5 * second, &got));
    assert_string_equal(got.container, ID1);
    assert_false(k8s_process_find(&processes, 7, now - 950 * second, &got)); /* before it began */
    assert_false(k8s_process_find(&processes, 8, now, &got));
    assert_false(k8s_process_find(&processes, -1, now, &got));
    assert_false(k8s_process_find(&processes, 0, now, &got));

    /* Another process has the id. What began before it, is not of it. */
    write_process(folder, 7, 999 * ticks, "0::/docker/" ID2 "\n");
    assert_true(k8s_process_find(&processes, 7, now - 5 * second, &got));
    assert_string_equal(got.container, ID1); /* remembered from when it was so */
    assert_true(k8s_process_find(&processes, 7, (int64_t)flue_wall_ns(), &got));
    assert_string_equal(got.container, ID2);
    assert_false(k8s_process_find(&processes, 7, now - 5 * second, &got));

    snprintf(path, sizeof path, "%s/7/stat", folder);
    unlink(path);
    assert_false(k8s_process_find(&processes, 7, (int64_t)flue_wall_ns() + second, &got));
    snprintf(path, sizeof path, "%s/7/cgroup", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/7", folder);
    rmdir(path);
    snprintf(path, sizeof path, "%s/stat", folder);
    unlink(path);
    rmdir(folder);
    k8s_processes_destroy(&processes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_attributes),
        cmocka_unit_test(names_of_services),
        cmocka_unit_test(pods_that_are_left_alone),
        cmocka_unit_test(more_than_there_is_room_for),
        cmocka_unit_test(files_of_the_downward_api),
        cmocka_unit_test(peers),
        cmocka_unit_test(a_process_id_that_is_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
