/* shared.c: see shared.h. */
#include "processors/k8sattributes/shared.h"
#include <stdio.h>
#include <stdlib.h>
#include "processors/k8sattributes/downward.h"

/* Two pipelines that name one k8sattributes are two instances; they must not be two watchers. Main
 * thread only. */
static struct k8s_shared *all;

/* Appends one term: KEY, OP, VALUE. */
static bool add(char *to, size_t size, const char *key, const char *op, const char *value)
{
    size_t used = strlen(to);
    int more =
        snprintf(to + used, size - used, "%s%s%s%s", used ? "," : "", key, op, value ? value : "");
    return more >= 0 && (size_t)more < size - used;
}

/* Values of selectors are checked by the server; a comma or blank in one would be another term. */
static bool plain(const char *text)
{
    return !text || text[strcspn(text, ", !=()")] == 0;
}

static enum flue_code make_selectors(struct k8s_shared *shared, struct flue_error *error)
{
    const struct k8s_filter *filter = &shared->config->filter;
    const struct k8s_filter_rule *fields = filter->fields.items, *labels = filter->labels.items;
    const char *node = k8s_node(filter);
    size_t fsize = sizeof shared->field_selector, lsize = sizeof shared->label_selector;
    bool good = plain(node) && plain(filter->namespace);

    if (good && node) {
        good = add(shared->field_selector, fsize, "spec.nodeName", "=", node) &&
               add(shared->node_selector, sizeof shared->node_selector, "metadata.name", "=", node);
    }
    for (size_t i = 0; good && i < filter->fields.count; i++)
        good = plain(fields[i].key) && plain(fields[i].value) &&
               add(shared->field_selector, fsize, fields[i].key, fields[i].op ? "!=" : "=",
                   fields[i].value);
    for (size_t i = 0; good && i < filter->labels.count; i++) {
        const struct k8s_filter_rule *l = &labels[i];
        good = plain(l->key) && plain(l->value);
        if (l->op > 1) /* exists: KEY; does-not-exist: !KEY */
            good = good && add(shared->label_selector, lsize, l->op == 2 ? "" : "!", l->key, NULL);
        else
            good = good && add(shared->label_selector, lsize, l->key, l->op ? "!=" : "=", l->value);
    }
    if (filter->namespace && !(k8s_wanted(shared->config) >> K8S_CLUSTER_UID & 1))
        good = good && add(shared->namespace_selector, sizeof shared->namespace_selector,
                           "metadata.name", "=", filter->namespace);
    else if (!k8s_wants_from(shared->config, K8S_FROM_NAMESPACE) &&
             !(k8s_wanted(shared->config) >> K8S_NAMESPACE_UID & 1))
        good = good && add(shared->namespace_selector, sizeof shared->namespace_selector,
                           "metadata.name", "=", "kube-system");
    return good ? FLUE_OK
                : flue_fail(error, FLUE_INVALID,
                            "filter: a value holds a character that selectors cannot, or all "
                            "together are longer than 1000 bytes");
}

static bool indexes_names(const struct k8s_config *config)
{
    const struct k8s_association *rules = config->pod_association.items;

    for (size_t i = 0; i < config->pod_association.count; i++) {
        const struct k8s_source *sources = rules[i].sources.items;
        for (size_t k = 0; k < rules[i].sources.count; k++)
            if (!sources[k].from && strcmp(sources[k].name, "k8s.pod.name") == 0)
                return true;
    }
    return false;
}

enum flue_code k8s_shared_get(const struct flue_create *create, struct k8s_shared **out,
                              struct flue_error *error)
{
    const struct k8s_config *config = create->config;
    struct k8s_shared *shared = all;
    enum flue_code code;

    while (shared && (shared->config != config || shared->service != create->service))
        shared = shared->next;
    if (shared) {
        shared->refs++;
        *out = shared;
        return FLUE_OK;
    }
    shared = calloc(1, sizeof *shared);
    if (!shared)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for k8sattributes");
    shared->refs = 1;
    shared->config = config;
    shared->service = create->service;
    shared->next = all;
    all = shared;
    code = make_selectors(shared, error);
    if (!code)
        code = k8s_rules_new(config, &shared->rules, error);
    if (!code) {
        const struct flue_kube_store_spec spec = {
            .extract = k8s_rules_extract,
            .arg = shared->rules,
            .grace_ns = config->pod_delete_grace_period,
            .apart_ns = config->address_settle,
            .limit = (size_t)config->max_memory,
            .index_names = indexes_names(config),
        };
        code = flue_kube_store_new(&spec, &shared->store, error);
    }
    if (code) {
        k8s_shared_drop(shared);
        return code;
    }
    *out = shared;
    return FLUE_OK;
}

static size_t make_specs(const struct k8s_shared *shared, struct flue_kube_watch_spec *specs)
{
    const struct k8s_config *config = shared->config;
    const char *namespace = config->filter.namespace;
    uint64_t wanted = k8s_wanted(config);
    size_t count = 0;
#define WATCH(KIND, fields, labels)                                                                \
    specs[count++] = (struct flue_kube_watch_spec)                                                 \
    {                                                                                              \
        KIND, namespace, fields, labels                                                            \
    }
#define OR_NONE(text) ((text)[0] ? (text) : NULL)

    /* Pods last: what is made of them looks at the others. */
    if (k8s_wants_from(config, K8S_FROM_NAMESPACE) || wanted >> K8S_NAMESPACE_UID & 1 ||
        wanted >> K8S_CLUSTER_UID & 1)
        WATCH(FLUE_KUBE_NAMESPACE, OR_NONE(shared->namespace_selector), NULL);
    if (k8s_wants_from(config, K8S_FROM_NODE) || wanted >> K8S_NODE_UID & 1)
        WATCH(FLUE_KUBE_NODE, OR_NONE(shared->node_selector), NULL);
    if (wanted >> K8S_DEPLOYMENT_UID & 1)
        WATCH(FLUE_KUBE_REPLICASET, NULL, NULL);
    if (k8s_wants_from(config, K8S_FROM_DEPLOYMENT))
        WATCH(FLUE_KUBE_DEPLOYMENT, NULL, NULL);
    if (k8s_wants_from(config, K8S_FROM_STATEFULSET))
        WATCH(FLUE_KUBE_STATEFULSET, NULL, NULL);
    if (k8s_wants_from(config, K8S_FROM_DAEMONSET))
        WATCH(FLUE_KUBE_DAEMONSET, NULL, NULL);
    if (k8s_wants_from(config, K8S_FROM_JOB) || wanted >> K8S_CRONJOB_UID & 1)
        WATCH(FLUE_KUBE_JOB, NULL, NULL);
    WATCH(FLUE_KUBE_POD, OR_NONE(shared->field_selector), OR_NONE(shared->label_selector));
    return count;
}

static const struct flue_kube_store *store_of(void *shared)
{
    return ((const struct k8s_shared *)shared)->store;
}
static double read_pods(void *shared)
{
    return (double)atomic_load(
        &((struct flue_kube_store_stats *)(uintptr_t)flue_kube_store_stats(store_of(shared)))
             ->records[FLUE_KUBE_POD]);
}
static double read_waiting(void *shared)
{
    return (double)atomic_load(
        &((struct flue_kube_store_stats *)(uintptr_t)flue_kube_store_stats(store_of(shared)))
             ->waiting);
}
static double read_bytes(void *shared)
{
    return (double)atomic_load(
        &((struct flue_kube_store_stats *)(uintptr_t)flue_kube_store_stats(store_of(shared)))
             ->bytes);
}
static double read_left_out(void *shared)
{
    return (double)atomic_load(
        &((struct flue_kube_store_stats *)(uintptr_t)flue_kube_store_stats(store_of(shared)))
             ->left_out);
}

static void make_metrics(struct k8s_shared *shared, const char *id, struct flue_metrics *metrics)
{
    const struct flue_label labels[] = {{"processor", id}, {NULL, NULL}};

    shared->metrics = metrics;
    snprintf(shared->id, sizeof shared->id, "%s", id);
    flue_metric_callback(metrics, FLUE_GAUGE, "kubernetes_pods", "pods that are known", labels,
                         read_pods, shared);
    flue_metric_callback(metrics, FLUE_GAUGE, "kubernetes_ended_records",
                         "objects that are gone and still known for the grace period", labels,
                         read_waiting, shared);
    flue_metric_callback(metrics, FLUE_GAUGE, "kubernetes_store_bytes", "memory of what is known",
                         labels, read_bytes, shared);
    flue_metric_callback(metrics, FLUE_COUNTER, "kubernetes_objects_left_out",
                         "objects not learnt for want of memory, or over max_memory", labels,
                         read_left_out, shared);
}

enum flue_code k8s_shared_start(struct k8s_shared *shared, const char *id,
                                struct flue_metrics *metrics, struct flue_loops *loops,
                                struct flue_error *error)
{
    const struct k8s_config *config = shared->config;
    struct flue_kube_watch_spec specs[FLUE_KUBE_KINDS];
    enum flue_code code = FLUE_OK;

    if (shared->started || config->passthrough)
        return FLUE_OK;
    shared->started = true;
    make_metrics(shared, id, metrics);
    if (config->auth_type == K8S_AUTH_NONE)
        return k8s_downward_start(config->downward_api, shared->store, loops->items[0],
                                  &shared->downward, error);
    code = flue_kube_access_open(
        config->auth_type == K8S_AUTH_KUBECONFIG ? FLUE_KUBE_KUBECONFIG : FLUE_KUBE_SERVICE_ACCOUNT,
        config->context, &shared->access, error);
    if (!code)
        code = flue_kube_watcher_new(shared->id, shared->access, shared->store, specs,
                                     make_specs(shared, specs), metrics, &shared->watcher, error);
    return code ? code : flue_kube_watcher_start(shared->watcher, error);
}

bool k8s_shared_ready(const struct k8s_shared *shared)
{
    return !shared->watcher || flue_kube_watcher_ready(shared->watcher);
}

static void end_metrics(struct k8s_shared *shared)
{
    static const char *const gauges[] = {"kubernetes_pods", "kubernetes_ended_records",
                                         "kubernetes_store_bytes"};
    const struct flue_label labels[] = {{"processor", shared->id}, {NULL, NULL}};

    for (unsigned i = 0; shared->metrics && i < sizeof gauges / sizeof gauges[0]; i++)
        flue_metric_callback(shared->metrics, FLUE_GAUGE, gauges[i], "", labels, NULL, NULL);
    if (shared->metrics)
        flue_metric_callback(shared->metrics, FLUE_COUNTER, "kubernetes_objects_left_out", "",
                             labels, NULL, NULL);
}

void k8s_shared_drop(struct k8s_shared *shared)
{
    if (!shared || --shared->refs)
        return;
    for (struct k8s_shared **at = &all; *at; at = &(*at)->next)
        if (*at == shared) {
            *at = shared->next;
            break;
        }
    end_metrics(shared);
    flue_kube_watcher_destroy(shared->watcher);
    flue_kube_access_close(shared->access);
    k8s_downward_destroy(shared->downward);
    flue_kube_store_destroy(shared->store);
    k8s_rules_destroy(shared->rules);
    free(shared);
}
