/* associate.c: see associate.h. */
#include "processors/k8sattributes/associate.h"
#include "collector/base/clock.h"
#include "proto/otlp/index.h"
#include "proto/pprof/pprof.h"

const char *const k8s_result_names[K8S_RESULTS] = {"matched",  "unidentified", "unknown",
                                                   "invalid",  "doubt",        "conflict",
                                                   "excluded", "stale",        "relayed"};

/* What a resource says of itself. */
struct subject {
    struct flue_bytes container_id, pod_uid, pod_ip, pod_name, namespace, container_name;
    int64_t pid;
    bool of_process; /* any process.* or container.*: somebody's observation of others */
    bool invalid;    /* a key that is no text */
};

enum source { BY_CONTAINER, BY_UID, BY_IP, BY_NAME, BY_NAMESPACE, BY_CONNECTION };

static bool is(struct flue_bytes key, const char *name, size_t size)
{
    return key.size == size && memcmp(key.data, name, size) == 0;
}
#define IS(key, literal) is(key, literal, sizeof(literal) - 1)

static void take(struct subject *s, const struct flue_attribute *attribute, struct flue_bytes *to)
{
    if (attribute->value.type == FLUE_VALUE_STRING)
        *to = attribute->value.text;
    else
        s->invalid = true;
}

static bool visit(void *arg, const struct flue_attribute *attribute)
{
    struct subject *s = arg;
    struct flue_bytes key = attribute->key;

    if (key.size < 8)
        return true;
    if (key.data[0] == 'k' && key.data[1] == '8') {
        if (IS(key, "k8s.pod.uid"))
            take(s, attribute, &s->pod_uid);
        else if (IS(key, "k8s.pod.ip"))
            take(s, attribute, &s->pod_ip);
        else if (IS(key, "k8s.pod.name"))
            take(s, attribute, &s->pod_name);
        else if (IS(key, "k8s.namespace.name"))
            take(s, attribute, &s->namespace);
        else if (IS(key, "k8s.container.name"))
            take(s, attribute, &s->container_name);
    } else if (memcmp(key.data, "process.", 8) == 0) {
        s->of_process = true;
        if (IS(key, "process.pid") && attribute->value.type == FLUE_VALUE_INT)
            s->pid = attribute->value.integer;
    } else if (key.size > 10 && memcmp(key.data, "container.", 10) == 0) {
        s->of_process = true;
        if (IS(key, "container.id"))
            take(s, attribute, &s->container_id);
    }
    return true;
}

/* ---- times ----------------------------------------------------------------------------------- */

struct times {
    const struct flue_payload *payload;
    size_t resource;
    uint64_t from, until;
};

static void see(struct times *t, uint64_t from, uint64_t duration)
{
    if (!from || from > INT64_MAX)
        return;
    uint64_t until = duration < INT64_MAX - from ? from + duration : from;
    if (!t->from || from < t->from)
        t->from = from;
    if (until > t->until)
        t->until = until;
}

static bool visit_profile(void *arg, const struct flue_otlp_profile *profile)
{
    struct times *t = arg;
    struct flue_otlp_profile_fields fields;

    if (profile->resource == t->resource) {
        flue_otlp_profile_read(t->payload, profile->profile, &fields);
        see(t, fields.time_unix_nano, fields.duration_nano);
    }
    return true;
}

void k8s_profile_times(const struct flue_payload *payload, size_t resource, int64_t received_ns,
                       int64_t *from_ns, int64_t *until_ns)
{
    struct times t = {payload, resource, 0, 0};

    if (payload->ops->form == FLUE_FORM_OTLP && payload->signal == FLUE_PROFILES) {
        flue_otlp_each_profile(payload, visit_profile, &t);
    } else if (payload->ops->form == FLUE_FORM_PPROF) {
        const struct flue_pprof_series *series = flue_pprof_series_at(payload, resource);
        for (size_t i = 0; i < series->profile_count; i++) {
            const struct flue_pprof_facts *facts = &series->profiles[i].facts;
            if (facts->time_nanos > 0)
                see(&t, (uint64_t)facts->time_nanos,
                    facts->duration_nanos > 0 ? (uint64_t)facts->duration_nanos : 0);
        }
    }
    *from_ns = t.from ? (int64_t)t.from : received_ns;
    *until_ns = t.from ? (int64_t)t.until : received_ns;
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* What an id may be made of: 1 in ids of containers and uids, 2 in the former only. */
static const uint8_t id_bytes[256] = {
    ['0' ... '9'] = 1, ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1, ['-'] = 1, ['_'] = 2, ['.'] = 2};

static bool all_of(struct flue_bytes text, unsigned most, size_t maximum)
{
    unsigned wrong = 0;

    if (!text.size || text.size > maximum)
        return false;
    for (size_t i = 0; i < text.size; i++)
        wrong |= (uint8_t)(id_bytes[text.data[i]] - 1u) >= most;
    return !wrong;
}

/* What one pod has after another. `namespace`: the key is a pod's name in it; else an address. */
static enum k8s_result by_time(struct k8s_context *c, size_t resource, struct flue_bytes namespace,
                               struct flue_bytes key, bool connection,
                               const struct flue_kube_record **record)
{
    int64_t received = (int64_t)c->origin->received_ns, now = (int64_t)flue_wall_ns();
    int64_t apart = c->config->address_settle, from, until, since, settled;

    k8s_profile_times(c->payload, resource, received, &from, &until);
    if (from > now) /* clocks disagree: no time to go by */
        return K8S_DOUBTFUL;
    /* By this host's clock a sender has been there for as long as its profiles took. Where others
     * send for it they may have kept them, so that only its own clock can tell. */
    since = received - (until - from);
    if (!connection && since > from + apart)
        since = from + apart;
    settled = (since > from ? since : from) + apart;
    if (connection && until < received) /* it had the address when it sent, too */
        until = received;
    if (now < settled && !c->final) {
        c->wait_ns = settled;
        return K8S_WAIT;
    }
    if (now < settled)
        return K8S_DOUBTFUL;
    uint64_t current = flue_kube_store_current(c->store);
    if (current < (uint64_t)settled) {
        c->wait_ns = now + 100000000;
        return c->final ? K8S_STALE : K8S_WAIT;
    }
    switch (namespace.size ? flue_kube_find_name(c->store, namespace, key, from, until, record)
                           : flue_kube_find_address(c->store, key, from, until, record)) {
    case FLUE_KUBE_ONE:
        return K8S_MATCHED;
    case FLUE_KUBE_DOUBT:
        return K8S_DOUBTFUL;
    default:
        return K8S_UNKNOWN;
    }
}

static enum k8s_result by_address(struct k8s_context *c, size_t resource, struct flue_bytes address,
                                  bool connection, const struct flue_kube_record **record)
{
    uint8_t binary[16];
    return flue_kube_address(address, binary)
               ? by_time(c, resource, flue_bytes(NULL, 0), address, connection, record)
               : K8S_INVALID;
}

static enum k8s_result by_container(struct k8s_context *c, struct flue_bytes id,
                                    const struct flue_kube_record **record, int *container)
{
    id = flue_kube_container_id(id);
    if (!all_of(id, 2, 128))
        return K8S_INVALID;
    *record = flue_kube_find_container(c->store, id, container);
    return *record ? K8S_MATCHED : K8S_UNKNOWN;
}

static enum k8s_result by_uid(struct k8s_context *c, struct flue_bytes uid,
                              const struct flue_kube_record **record)
{
    if (!all_of(uid, 1, 64))
        return K8S_INVALID;
    *record = flue_kube_find_uid(c->store, uid);
    return *record ? K8S_MATCHED : K8S_UNKNOWN;
}

static enum k8s_result by_process(struct k8s_context *c, size_t resource, const struct subject *s,
                                  const struct flue_kube_record **record, int *container)
{
    struct flue_kube_cgroup cgroup;
    int64_t from, until;

    k8s_profile_times(c->payload, resource, (int64_t)c->origin->received_ns, &from, &until);
    if (!k8s_process_find(c->processes, s->pid, from, &cgroup))
        return K8S_UNKNOWN;
    enum k8s_result result = K8S_UNKNOWN;
    if (cgroup.container[0])
        result = by_container(c, flue_bytes_of(cgroup.container), record, container);
    if (result == K8S_UNKNOWN && cgroup.pod[0]) /* not reported yet, or one inside another */
        result = by_uid(c, flue_bytes_of(cgroup.pod), record);
    return result;
}

static bool relayed(const struct k8s_context *c)
{
    return c->origin->relayed || k8s_peers_have(c->relays, c->origin->peer_address);
}

/* The connection says whose the data is only where the sender can have no data but its own. */
static bool connection_counts(const struct k8s_context *c, const struct subject *s)
{
    return c->resources == 1 && !s->of_process && c->origin->peer_address.size != 0;
}

/* ---- rules ----------------------------------------------------------------------------------- */

static enum source source_of(const struct k8s_source *source)
{
    static const char *const names[] = {"container.id", "k8s.pod.uid", "k8s.pod.ip", "k8s.pod.name",
                                        "k8s.namespace.name"};
    if (source->from)
        return BY_CONNECTION;
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(source->name, names[i]) == 0)
            return (enum source)i;
    return BY_CONNECTION;
}

static bool is_there(const struct k8s_context *c, const struct subject *s, enum source source)
{
    switch (source) {
    case BY_CONTAINER:
        return s->container_id.size ||
               (s->pid && c->senders && k8s_peers_have(c->senders, c->origin->peer_address));
    case BY_UID:
        return s->pod_uid.size != 0;
    case BY_IP:
        return s->pod_ip.size != 0;
    case BY_NAME:
        return s->pod_name.size != 0;
    case BY_NAMESPACE:
        return s->namespace.size != 0;
    default:
        return connection_counts(c, s);
    }
}

static enum k8s_result by_source(struct k8s_context *c, size_t resource, const struct subject *s,
                                 enum source source, const struct flue_kube_record **record,
                                 int *container)
{
    switch (source) {
    case BY_CONTAINER:
        return s->container_id.size ? by_container(c, s->container_id, record, container)
                                    : by_process(c, resource, s, record, container);
    case BY_UID:
        return by_uid(c, s->pod_uid, record);
    case BY_IP:
        return by_address(c, resource, s->pod_ip, false, record);
    case BY_CONNECTION:
        return relayed(c) ? K8S_RELAYED
                          : by_address(c, resource, c->origin->peer_address, true, record);
    default:
        if (!s->pod_name.size || !s->namespace.size)
            return K8S_UNKNOWN;
        return by_time(c, resource, s->namespace, s->pod_name, false, record);
    }
}

/* Every source finds the same pod. Name and namespace are one source. */
static enum k8s_result by_rule(struct k8s_context *c, size_t resource, const struct subject *s,
                               const struct k8s_association *rule,
                               const struct flue_kube_record **record, int *container)
{
    const struct k8s_source *sources = rule->sources.items;
    const struct flue_kube_record *first = NULL;

    for (size_t i = 0; i < rule->sources.count; i++) {
        enum source source = source_of(&sources[i]);
        const struct flue_kube_record *found = NULL;
        int number = -1;
        /* A namespace beside another key is checked with everything else the resource says. */
        if (source == BY_NAMESPACE && (first || i + 1 < rule->sources.count))
            continue;
        enum k8s_result result = by_source(c, resource, s, source, &found, &number);
        if (result != K8S_MATCHED)
            return result;
        if (first && !flue_bytes_equal(flue_kube_record_text(first, first->uid, first->uid_size),
                                       flue_kube_record_text(found, found->uid, found->uid_size)))
            return K8S_CONFLICTING;
        if (!first || number >= 0) {
            first = found;
            *container = number >= 0 ? number : *container;
        }
    }
    *record = first;
    return first ? K8S_MATCHED : K8S_UNKNOWN;
}

static enum k8s_result search(struct k8s_context *c, size_t resource, const struct subject *s,
                              const struct flue_kube_record **record, int *container)
{
    static const enum source order[] = {BY_CONTAINER, BY_UID, BY_IP, BY_CONNECTION};
    const struct k8s_association *rules = c->config->pod_association.items;

    if (!c->config->pod_association.count) {
        for (unsigned i = 0; i < sizeof order / sizeof order[0]; i++)
            if (is_there(c, s, order[i]))
                return by_source(c, resource, s, order[i], record, container);
        return K8S_UNIDENTIFIED;
    }
    for (size_t i = 0; i < c->config->pod_association.count; i++) {
        const struct k8s_source *sources = rules[i].sources.items;
        bool there = true;
        for (size_t k = 0; k < rules[i].sources.count; k++)
            there &= is_there(c, s, source_of(&sources[k]));
        if (there)
            return by_rule(c, resource, s, &rules[i], record, container);
    }
    return K8S_UNIDENTIFIED;
}

/* What the resource says must be true of the pod that was found. */
static bool agrees(const struct subject *s, const struct flue_kube_record *record)
{
    if (s->pod_name.size &&
        !flue_bytes_equal(s->pod_name,
                          flue_kube_record_text(record, record->name, record->name_size)))
        return false;
    if (s->namespace.size && !flue_bytes_equal(s->namespace, flue_kube_text(record->namespace)))
        return false;
    if (!s->pod_uid.size)
        return true;
    for (unsigned i = 0; i < record->entry_count; i++) /* its uid, or the hash of a static pod */
        if (record->entries[i].type == FLUE_KUBE_BY_UID &&
            flue_bytes_equal(s->pod_uid, flue_bytes(record->text + record->entries[i].key,
                                                    record->entries[i].key_size)))
            return true;
    return false;
}

/* By name; or the only one that there is. */
static int container_by_name(const struct subject *s, const struct flue_kube_record *record)
{
    for (unsigned i = 0; s->container_name.size && i < record->container_count; i++)
        if (flue_bytes_equal(flue_kube_text(record->containers[i].name), s->container_name))
            return (int)i;
    return !s->container_name.size && record->container_count == 1 ? 0 : -1;
}

static enum k8s_result judge(const struct subject *s, const struct flue_kube_record *record,
                             int *container)
{
    if (!agrees(s, record))
        return K8S_CONFLICTING;
    if (record->ignored)
        return K8S_EXCLUDED;
    if (*container < 0)
        *container = container_by_name(s, record);
    else if (s->container_name.size &&
             !flue_bytes_equal(s->container_name,
                               flue_kube_text(record->containers[*container].name)))
        return K8S_CONFLICTING;
    return K8S_MATCHED;
}

enum k8s_result k8s_associate(struct k8s_context *context, size_t resource,
                              const struct flue_kube_record **record, int *container)
{
    struct subject s = {.pid = 0};

    *container = -1;
    *record = NULL;
    context->payload->ops->attribute_each(context->payload, resource, visit, &s);
    if (s.invalid)
        return K8S_INVALID;
    enum k8s_result result = search(context, resource, &s, record, container);
    return result == K8S_MATCHED ? judge(&s, *record, container) : result;
}

enum k8s_result k8s_associate_with(struct k8s_context *context, size_t resource,
                                   const struct flue_kube_record *pod,
                                   const struct flue_kube_record **record, int *container)
{
    struct subject s = {.pid = 0};

    *container = -1;
    *record = pod;
    context->payload->ops->attribute_each(context->payload, resource, visit, &s);
    if (s.invalid)
        return K8S_INVALID;
    return pod ? judge(&s, pod, container) : K8S_UNKNOWN;
}
