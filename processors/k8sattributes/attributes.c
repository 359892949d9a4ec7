/* attributes.c: see attributes.h. */
#include "processors/k8sattributes/attributes.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "collector/base/hash.h"
#include "collector/pipeline/actions.h"
#include "kubernetes/image.h"
#include "kubernetes/workload.h"
#include "proto/otlp/otlp.h"
#include "proto/wire/writer.h"

#define WAYS      4
#define MAX_ITEMS 512
#define ARENA_MAX (4u << 20)

bool k8s_cache_init(struct k8s_cache *cache)
{
    cache->room = 64;
    cache->turn = 0;
    cache->entries = calloc(cache->room, sizeof *cache->entries);
    flue_arena_init(&cache->arena, ARENA_MAX, 16384);
    return cache->entries != NULL;
}

void k8s_cache_destroy(struct k8s_cache *cache)
{
    for (size_t i = 0; cache->entries && i < cache->room; i++)
        flue_block_unref(cache->entries[i].block);
    free(cache->entries);
    cache->entries = NULL;
    flue_arena_destroy(&cache->arena);
}

/* ---- making ---------------------------------------------------------------------------------- */

struct making {
    struct flue_kube_store *store;
    const struct flue_kube_record *pod;
    uint64_t wanted;
    struct flue_arena *arena;
    struct k8s_cached *to;
    struct flue_attribute items[MAX_ITEMS];
    size_t count;
};

static void put_value(struct making *m, struct flue_bytes name, struct flue_value value)
{
    for (size_t i = 0; i < m->count; i++) /* what was put first, stays */
        if (flue_bytes_equal(m->items[i].key, name))
            return;
    if (m->count < MAX_ITEMS)
        m->items[m->count++] = (struct flue_attribute){name, value};
}

static void put_text(struct making *m, struct flue_bytes name, struct flue_bytes text)
{
    if (text.size)
        put_value(m, name, (struct flue_value){.type = FLUE_VALUE_STRING, .text = text});
}

static void put(struct making *m, enum k8s_metadata what, struct flue_bytes text)
{
    if (m->wanted >> what & 1)
        put_text(m, flue_bytes_of(k8s_metadata_names[what]), text);
}

static struct flue_bytes name_of(const struct flue_kube_record *record)
{
    return record ? flue_kube_record_text(record, record->name, record->name_size)
                  : flue_bytes(NULL, 0);
}
static struct flue_bytes uid_of(const struct flue_kube_record *record)
{
    return record ? flue_kube_record_text(record, record->uid, record->uid_size)
                  : flue_bytes(NULL, 0);
}

/* Another object, and from now on what is made depends on it, there or not. */
static const struct flue_kube_record *look(struct making *m, enum flue_kube_kind kind,
                                           struct flue_bytes namespace, struct flue_bytes name)
{
    struct k8s_cached *to = m->to;

    if (!name.size)
        return NULL;
    if (to->depends_count < sizeof to->depends / sizeof to->depends[0]) {
        to->depends[to->depends_count] = flue_kube_generation(m->store, kind, namespace, name);
        to->sum += atomic_load(to->depends[to->depends_count++]);
    }
    return flue_kube_find_object(m->store, kind, namespace, name);
}

static void put_extracted(struct making *m, const struct flue_kube_record *record)
{
    for (unsigned i = 0; record && i < record->extracted_count; i++)
        put_text(m, flue_kube_text(record->extracted[i].name),
                 flue_kube_text(record->extracted[i].value));
}

static void put_start(struct making *m)
{
    time_t seconds = (time_t)(m->pod->start_ns / 1000000000);
    struct tm parts;
    char *text = flue_arena_alloc(m->arena, 32);

    if (!(m->wanted >> K8S_POD_START_TIME & 1) || !text || m->pod->start_ns <= 0 ||
        !gmtime_r(&seconds, &parts))
        return;
    strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &parts);
    put(m, K8S_POD_START_TIME, flue_bytes_of(text));
}

static void put_owner(struct making *m, const struct k8s_config *config)
{
    const struct flue_kube_record *pod = m->pod;
    struct flue_bytes kind = flue_kube_text(pod->owner_kind),
                      name = flue_kube_text(pod->owner_name);
    struct flue_bytes uid = flue_kube_text(pod->owner_uid), ns = flue_kube_text(pod->namespace);
    const struct flue_kube_record *more;

    if (flue_bytes_is(kind, "ReplicaSet")) {
        put(m, K8S_REPLICASET_NAME, name);
        put(m, K8S_REPLICASET_UID, uid);
        put(m, K8S_DEPLOYMENT_NAME, flue_kube_text(pod->deployment));
        if (m->wanted >> K8S_DEPLOYMENT_UID & 1) {
            more = look(m, FLUE_KUBE_REPLICASET, ns, name);
            if (more && flue_bytes_is(flue_kube_text(more->owner_kind), "Deployment") &&
                flue_bytes_equal(uid_of(more), uid))
                put(m, K8S_DEPLOYMENT_UID, flue_kube_text(more->owner_uid));
        }
        if (k8s_wants_from(config, K8S_FROM_DEPLOYMENT))
            put_extracted(m, look(m, FLUE_KUBE_DEPLOYMENT, ns, flue_kube_text(pod->deployment)));
    } else if (flue_bytes_is(kind, "StatefulSet")) {
        put(m, K8S_STATEFULSET_NAME, name);
        put(m, K8S_STATEFULSET_UID, uid);
        if (k8s_wants_from(config, K8S_FROM_STATEFULSET))
            put_extracted(m, look(m, FLUE_KUBE_STATEFULSET, ns, name));
    } else if (flue_bytes_is(kind, "DaemonSet")) {
        put(m, K8S_DAEMONSET_NAME, name);
        put(m, K8S_DAEMONSET_UID, uid);
        if (k8s_wants_from(config, K8S_FROM_DAEMONSET))
            put_extracted(m, look(m, FLUE_KUBE_DAEMONSET, ns, name));
    } else if (flue_bytes_is(kind, "Job")) {
        put(m, K8S_JOB_NAME, name);
        put(m, K8S_JOB_UID, uid);
        bool watched = m->wanted >> K8S_CRONJOB_UID & 1 || k8s_wants_from(config, K8S_FROM_JOB);
        more = watched ? look(m, FLUE_KUBE_JOB, ns, name) : NULL;
        if (more && flue_bytes_equal(uid_of(more), uid)) { /* the Job itself knows for certain */
            if (flue_bytes_is(flue_kube_text(more->owner_kind), "CronJob")) {
                put(m, K8S_CRONJOB_NAME, flue_kube_text(more->owner_name));
                put(m, K8S_CRONJOB_UID, flue_kube_text(more->owner_uid));
            }
            put_extracted(m, more);
        } else {
            put(m, K8S_CRONJOB_NAME, flue_kube_cronjob_name(name));
        }
    }
}

static void put_digests(struct making *m, struct flue_bytes digest)
{
    /* AnyValue { 5 array { 1 value { 1 string } } } */
    size_t value = flue_len_field_size(1, digest.size);
    size_t array = flue_len_field_size(1, value);
    uint8_t *bytes = flue_arena_alloc(m->arena, flue_len_field_size(5, array)), *at = bytes;

    if (!(m->wanted >> K8S_IMAGE_DIGESTS & 1) || !digest.size || !bytes)
        return;
    at = flue_write_len_head(at, 5, array);
    at = flue_write_len_head(at, 1, value);
    at = flue_write_len_field(at, 1, digest);
    put_value(m, flue_bytes_of(k8s_metadata_names[K8S_IMAGE_DIGESTS]),
              (struct flue_value){.type = FLUE_VALUE_COMPLEX,
                                  .text = flue_bytes(bytes, (size_t)(at - bytes))});
}

static void put_version(struct making *m, const struct flue_kube_image *image)
{
    char *text = NULL;

    if (!(m->wanted >> K8S_SERVICE_VERSION & 1))
        return;
    if (image->tag.size && image->digest.size)
        text =
            flue_arena_printf(m->arena, "%.*s@%.*s", FLUE_PRI(image->tag), FLUE_PRI(image->digest));
    put(m, K8S_SERVICE_VERSION,
        text                 ? flue_bytes_of(text)
        : image->digest.size ? image->digest
                             : image->tag);
}

static void put_container(struct making *m, int number)
{
    const struct flue_kube_container *c = &m->pod->containers[number];
    struct flue_bytes name = flue_kube_text(c->name), ns = flue_kube_text(m->pod->namespace);
    struct flue_kube_image image;

    put(m, K8S_CONTAINER_NAME, name);
    if (c->id_size)
        put(m, K8S_CONTAINER_ID, flue_kube_record_text(m->pod, c->id, c->id_size));
    if (m->wanted >> K8S_CONTAINER_RESTARTS & 1)
        put_value(m, flue_bytes_of(k8s_metadata_names[K8S_CONTAINER_RESTARTS]),
                  (struct flue_value){.type = FLUE_VALUE_INT, .integer = c->restart_count});
    if (flue_kube_image_read(flue_kube_text(c->image), &image)) {
        put(m, K8S_IMAGE_NAME, image.name);
        put(m, K8S_IMAGE_TAG, image.tag);
        put_version(m, &image);
    }
    put_digests(m, flue_kube_image_digest(flue_kube_text(c->image_id)));
    if (m->wanted >> K8S_SERVICE_INSTANCE & 1) {
        struct flue_bytes pod = name_of(m->pod);
        char *text = flue_arena_printf(m->arena, "%.*s.%.*s.%.*s", FLUE_PRI(ns), FLUE_PRI(pod),
                                       FLUE_PRI(name));
        if (text)
            put(m, K8S_SERVICE_INSTANCE, flue_bytes_of(text));
    }
}

static void put_pod(struct making *m, const struct k8s_config *config)
{
    const struct flue_kube_record *pod = m->pod;
    struct flue_bytes ns = flue_kube_text(pod->namespace), node = flue_kube_text(pod->node);
    struct flue_bytes none = flue_bytes(NULL, 0);

    put_extracted(m, pod); /* first: an annotation may say service.version */
    put(m, K8S_POD_NAME, name_of(pod));
    put(m, K8S_POD_UID, uid_of(pod));
    put(m, K8S_POD_IP, flue_kube_record_text(pod, pod->address, pod->address_size));
    /* A pod without spec.hostname has its name as its host's. */
    put(m, K8S_POD_HOSTNAME, pod->hostname ? flue_kube_text(pod->hostname) : name_of(pod));
    put_start(m);
    put(m, K8S_NAMESPACE_NAME, ns);
    put(m, K8S_NODE_NAME, node);
    put_owner(m, config);
    if (m->wanted >> K8S_NAMESPACE_UID & 1 || k8s_wants_from(config, K8S_FROM_NAMESPACE)) {
        const struct flue_kube_record *record = look(m, FLUE_KUBE_NAMESPACE, none, ns);
        put(m, K8S_NAMESPACE_UID, uid_of(record));
        put_extracted(m, record);
    }
    if (m->wanted >> K8S_NODE_UID & 1 || k8s_wants_from(config, K8S_FROM_NODE)) {
        const struct flue_kube_record *record = look(m, FLUE_KUBE_NODE, none, node);
        put(m, K8S_NODE_UID, uid_of(record));
        put_extracted(m, record);
    }
    if (m->wanted >> K8S_CLUSTER_UID & 1)
        put(m, K8S_CLUSTER_UID,
            uid_of(look(m, FLUE_KUBE_NAMESPACE, none, FLUE_BYTES("kube-system"))));
}

static bool make(struct k8s_cache *cache, struct flue_kube_store *store,
                 const struct k8s_config *config, uint64_t wanted,
                 const struct flue_kube_record *record, int container, struct k8s_cached *to,
                 struct flue_error *error)
{
    struct making *m = flue_arena_alloc(&cache->arena, sizeof *m);
    enum flue_code code = FLUE_OK;

    if (!m) {
        flue_fail(error, FLUE_NO_MEMORY, "no memory for attributes");
        return false;
    }
    memset(to, 0, sizeof *to);
    m->store = store;
    m->pod = record;
    m->wanted = wanted;
    m->arena = &cache->arena;
    m->to = to;
    m->count = 0;
    put_pod(m, config);
    if (container >= 0 && container < record->container_count)
        put_container(m, container);
    if (m->count)
        code = flue_attribute_block(flue_otlp_attribute_set, &cache->arena, m->items, m->count,
                                    &to->set, &to->block, error);
    to->serial = record->serial;
    to->container = container;
    flue_arena_reset(&cache->arena);
    return code == FLUE_OK;
}

/* ---- keeping --------------------------------------------------------------------------------- */

static size_t set_of(const struct k8s_cache *cache, uint64_t serial, int container)
{
    return flue_hash_u64(serial * 256 + (uint64_t)(container + 1)) & (cache->room / WAYS - 1);
}

static bool holds(const struct k8s_cached *entry)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < entry->depends_count; i++)
        sum += atomic_load_explicit(entry->depends[i], memory_order_relaxed);
    return sum == entry->sum;
}

static void grow(struct k8s_cache *cache)
{
    struct k8s_cache larger = {.room = cache->room * 2};

    larger.entries = calloc(larger.room, sizeof *larger.entries);
    if (!larger.entries)
        return;
    for (size_t i = 0; i < cache->room; i++) {
        struct k8s_cached *from = &cache->entries[i], *to = NULL;
        if (!from->serial)
            continue;
        size_t at = set_of(&larger, from->serial, from->container) * WAYS;
        for (unsigned w = 0; w < WAYS && !to; w++)
            if (!larger.entries[at + w].serial)
                to = &larger.entries[at + w];
        if (to)
            *to = *from;
        else
            flue_block_unref(from->block);
    }
    free(cache->entries);
    cache->entries = larger.entries;
    cache->room = larger.room;
}

const struct k8s_cached *k8s_attributes(struct k8s_cache *cache, struct flue_kube_store *store,
                                        const struct k8s_config *config, uint64_t wanted,
                                        const struct flue_kube_record *record, int container,
                                        struct flue_error *error)
{
    struct k8s_cached *entry = NULL, *set, made;

    for (bool grown = false;; grown = true) {
        set = &cache->entries[set_of(cache, record->serial, container) * WAYS];
        entry = NULL;
        for (unsigned w = 0; w < WAYS; w++) {
            if (set[w].serial == record->serial && set[w].container == container) {
                if (holds(&set[w]))
                    return &set[w];
                entry = &set[w];
                break;
            }
            if (!entry && !set[w].serial)
                entry = &set[w];
        }
        if (entry || grown || cache->room >= K8S_CACHE_MAX)
            break;
        grow(cache);
    }
    if (!entry)
        entry = &set[cache->turn++ % WAYS];
    if (!make(cache, store, config, wanted, record, container, &made, error))
        return NULL;
    flue_block_unref(entry->block);
    *entry = made;
    return entry;
}
