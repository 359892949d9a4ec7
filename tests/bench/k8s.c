/* Measures k8sattributes: a batch of 77 resources, each found by its container id among 100,000
 * pods and given 20 attributes; then what the pods take in memory, and how fast changes are taken
 * in. Prints; asserts nothing. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "collector/base/clock.h"
#include "processors/k8sattributes/associate.h"
#include "processors/k8sattributes/attributes.h"
#include "processors/k8sattributes/rules.h"
#include "proto/otlp/otlp.h"
#include "proto/wire/writer.h"

#define PODS      100000u
#define RESOURCES 77u
#define RUNS      20000u

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct flue_kube_object object; /* large */
static char texts[24][80];

static struct flue_bytes text(unsigned slot, const char *format, unsigned a, unsigned b)
{
    (void)format;
    snprintf(texts[slot], sizeof texts[slot], "%s-%05x-%05x", format, a, b);
    return flue_bytes_of(texts[slot]);
}

static struct flue_bytes container_id(unsigned slot, unsigned pod, unsigned container)
{
    snprintf(texts[slot], sizeof texts[slot], "%056x%08x", pod, container);
    return flue_bytes_of(texts[slot]);
}

static void make_pod(unsigned i, unsigned turn)
{
    memset(&object, 0, offsetof(struct flue_kube_object, labels));
    object.name = text(0, "packager-7d9c5b8f6d", i, turn);
    object.namespace = text(1, "team", i % 40, 0);
    snprintf(texts[2], sizeof texts[2], "%08x-0000-4000-8000-000000000000", i);
    object.uid = flue_bytes_of(texts[2]);
    object.owner_kind = FLUE_BYTES("ReplicaSet");
    object.owner_name = text(3, "packager", i / 20, 0);
    object.owner_uid = text(4, "0a1b2c3d-aaaa-4000-8000", i / 20, 0);
    object.labels[0] =
        (struct flue_kube_pair){FLUE_BYTES("pod-template-hash"), FLUE_BYTES("00000")};
    object.labels[1] = (struct flue_kube_pair){FLUE_BYTES("team"), text(5, "abr", i % 9, 0)};
    object.labels[2] = (struct flue_kube_pair){FLUE_BYTES("tier"), text(6, "edge", i % 3, 0)};
    object.label_count = 3;
    object.annotation_count = 0;
    object.node_name = text(7, "ip-10-1-2-3.region.example", i / 77, 0);
    snprintf(texts[8], sizeof texts[8], "10.%u.%u.%u", i >> 16, i >> 8 & 255, i & 255);
    object.addresses[0] = flue_bytes_of(texts[8]);
    object.address_count = 1;
    object.phase = FLUE_BYTES("Running");
    object.start_s = 1760000000;
    object.container_count = 2;
    memset(object.containers, 0, 2 * sizeof object.containers[0]);
    for (unsigned c = 0; c < 2; c++) {
        object.containers[c].name = c ? FLUE_BYTES("proxy") : FLUE_BYTES("main");
        object.containers[c].image = text(10 + c, "registry.example/media/packager:4", i % 50, c);
        object.containers[c].image_id =
            text(12 + c, "registry.example/media/packager@sha256:0123", i % 50, c);
        object.containers[c].ids[0] = container_id(14 + c, i, c);
    }
}

static struct flue_block *make_body(void)
{
    static uint8_t body[1u << 20];
    uint8_t *at = body;

    for (unsigned i = 0; i < RESOURCES; i++) {
        /* ResourceProfiles { 1 Resource, 2 ScopeProfiles { 2 Profile } } as the eBPF profiler sends
         */
        uint8_t resource[1024], *r = resource;
        const struct flue_attribute items[] = {
            {FLUE_BYTES("container.id"),
             {.type = FLUE_VALUE_STRING, .text = container_id(20, i * 1297 % PODS, i & 1)}},
            {FLUE_BYTES("process.executable.name"),
             {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("packager")}},
            {FLUE_BYTES("process.executable.path"),
             {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("/usr/bin/packager")}},
            {FLUE_BYTES("process.pid"), {.type = FLUE_VALUE_INT, .integer = 1000 + i}},
            {FLUE_BYTES("host.name"), {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("ip-10")}}};
        struct flue_arena arena;
        struct flue_attribute_set set;
        flue_arena_init(&arena, 1u << 20, 0);
        flue_otlp_attribute_set(&arena, items, 5, &set, NULL);
        memcpy(r, set.encoded.data, set.encoded.size);
        r += set.encoded.size;
        flue_arena_destroy(&arena);
        static const uint8_t scope[] = {0x12, 0x02, 0x12, 0x00};
        size_t inner = flue_len_field_size(1, (size_t)(r - resource)) + sizeof scope;
        at = flue_write_len_head(at, 1, inner);
        at = flue_write_len_field(at, 1, flue_bytes(resource, (size_t)(r - resource)));
        memcpy(at, scope, sizeof scope);
        at += sizeof scope;
    }
    struct flue_block *block = flue_block_copy(NULL, flue_bytes(body, (size_t)(at - body)));
    flue_block_finish(block);
    return block;
}

static const char *const metadata[] = {
    "k8s.pod.name",         "k8s.pod.uid",         "k8s.pod.ip",
    "k8s.pod.hostname",     "k8s.pod.start_time",  "k8s.namespace.name",
    "k8s.node.name",        "k8s.deployment.name", "k8s.replicaset.name",
    "k8s.replicaset.uid",   "k8s.container.name",  "k8s.container.restart_count",
    "container.image.name", "container.image.tag", "service.name",
    "service.namespace",    "service.version",     "service.instance.id"};
static struct k8s_extract_rule labels[] = {{.key = "team"}, {.key = "tier"}};

static size_t enrich(struct k8s_cache *cache, struct flue_kube_store *store,
                     const struct k8s_config *config, uint64_t wanted,
                     const struct k8s_peers *relays, struct flue_payload *payload,
                     struct flue_origin *origin)
{
    struct k8s_context context = {.config = config,
                                  .store = store,
                                  .relays = relays,
                                  .payload = payload,
                                  .origin = origin,
                                  .resources = payload->ops->resource_count(payload)};
    size_t set = 0;

    flue_kube_enter(flue_kube_store_epochs(store), 0);
    for (size_t i = 0; i < context.resources; i++) {
        const struct flue_kube_record *record;
        const struct k8s_cached *cached = NULL;
        int container;
        if (k8s_associate(&context, i, &record, &container) == K8S_MATCHED)
            cached = k8s_attributes(cache, store, config, wanted, record, container, NULL);
        if (!cached)
            continue;
        payload->ops->attributes_set(payload, i, &cached->set, FLUE_SET_INSERT, cached->block,
                                     NULL);
        set += cached->set.count;
    }
    flue_kube_leave(flue_kube_store_epochs(store), 0);
    return set;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void)
{
    struct k8s_config config = {.extract.metadata = {(void *)(uintptr_t)metadata, 18},
                                .extract.labels = {labels, 2}};
    struct k8s_peers relays = {.items = NULL};
    struct flue_origin from = {.peer_address = FLUE_BYTES("10.9.9.9")};
    struct flue_kube_store *store;
    struct k8s_rules *rules;
    struct k8s_cache cache;
    struct flue_otlp_report report;
    struct flue_payload *payload;

    k8s_rules_new(&config, &rules, NULL);
    const struct flue_kube_store_spec spec = {
        .extract = k8s_rules_extract, .arg = rules, .grace_ns = 0};
    flue_kube_store_new(&spec, &store, NULL);
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    double start = now();
    flue_kube_store_begin(store, FLUE_KUBE_POD);
    for (unsigned i = 0; i < PODS; i++) {
        make_pod(i, 0);
        flue_kube_store_put(store, FLUE_KUBE_POD, &object, false);
    }
    flue_kube_store_end(store, FLUE_KUBE_POD);
    printf("%u pods: %.2f s, %.1f MB\n", PODS, now() - start,
           (double)(mallinfo2().uordblks + mallinfo2().hblkhd - before) / 1e6);
    start = now();
    for (unsigned i = 0; i < PODS; i++) {
        make_pod(i * 7919 % PODS, 1);
        flue_kube_store_put(store, FLUE_KUBE_POD, &object, true);
        flue_kube_store_tick(store);
    }
    printf("changes: %.2f us each\n", (now() - start) * 1e6 / PODS);

    k8s_cache_init(&cache);
    struct flue_origin *origin = flue_origin_new(&from);
    flue_otlp_read(make_body(), &payload, &report, NULL);
    static double took[RUNS];
    size_t set = 0;
    for (unsigned run = 0; run < RUNS; run++) {
        struct flue_payload *own = payload->ops->clone(payload, NULL);
        uint64_t wanted = k8s_wanted(&config);
        start = now();
        set = enrich(&cache, store, &config, wanted, &relays, own, origin);
        took[run] = now() - start;
        flue_payload_unref(own);
    }
    double first = took[0];
    qsort(took, RUNS, sizeof took[0], compare);
    printf("%zu resources, %zu attributes: %.1f us a batch at the median (%.0f ns a resource), "
           "%.1f to %.1f us (1st and 99th percentile), the first %.0f us\n",
           payload->ops->resource_count(payload), set, took[RUNS / 2] * 1e6,
           took[RUNS / 2] * 1e9 / RESOURCES, took[RUNS / 100] * 1e6, took[RUNS - RUNS / 100] * 1e6,
           first * 1e6);
    flue_payload_unref(payload);
    flue_origin_unref(origin);
    k8s_cache_destroy(&cache);
    flue_kube_store_destroy(store);
    k8s_rules_destroy(rules);
    return 0;
}
