/* config.c: see config.h. */
#include "processors/k8sattributes/config.h"
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include "collector/pipeline/actions.h"
#include "processors/k8sattributes/peers.h"

#define HOUR INT64_C(3600000000000)

const char *const k8s_metadata_names[K8S_METADATA] = {
    "k8s.pod.name",         "k8s.pod.uid",
    "k8s.pod.ip",           "k8s.pod.hostname",
    "k8s.pod.start_time",   "k8s.namespace.name",
    "k8s.namespace.uid",    "k8s.node.name",
    "k8s.node.uid",         "k8s.cluster.uid",
    "k8s.deployment.name",  "k8s.deployment.uid",
    "k8s.replicaset.name",  "k8s.replicaset.uid",
    "k8s.statefulset.name", "k8s.statefulset.uid",
    "k8s.daemonset.name",   "k8s.daemonset.uid",
    "k8s.job.name",         "k8s.job.uid",
    "k8s.cronjob.name",     "k8s.cronjob.uid",
    "k8s.container.name",   "k8s.container.restart_count",
    "container.id",         "container.image.name",
    "container.image.tag",  "container.image.repo_digests",
    "service.name",         "service.namespace",
    "service.version",      "service.instance.id",
};

static const char *const auth_choices[] = {"none", "serviceAccount", "kubeConfig", "tls", NULL};
static const char *const from_choices[] = {"pod",         "namespace", "node", "deployment",
                                           "statefulset", "daemonset", "job",  NULL};
static const char *const op_choices[] = {"equals", "not-equals", "exists", "does-not-exist", NULL};
static const char *const source_choices[] = {"resource_attribute", "connection", NULL};

static const struct flue_field rule_fields[] = {
    FLUE_STRING(struct k8s_extract_rule, tag_name,
                .help = "the attribute; unset: k8s.FROM.labels.KEY or k8s.FROM.annotations.KEY; "
                        "with key_regex it may hold $1 and ${name}"),
    FLUE_STRING(struct k8s_extract_rule, key, .help = "of the label or annotation"),
    FLUE_STRING(struct k8s_extract_rule, key_regex,
                .help = "expression that whole keys match; instead of key"),
    FLUE_ENUM(struct k8s_extract_rule, from, .choices = from_choices, .def = "pod",
              .help = "whose: each kind but pod is watched only if a rule names it"),
    FLUE_FIELDS_END};

static const struct flue_field extract_fields[] = {
    FLUE_STRINGS(struct k8s_extract, metadata,
                 .def = "[k8s.pod.name, k8s.pod.uid, k8s.pod.start_time, k8s.namespace.name, "
                        "k8s.node.name, k8s.deployment.name, k8s.container.name, "
                        "container.image.name, container.image.tag]",
                 .help = "attributes to set"),
    FLUE_LIST(struct k8s_extract, labels, struct k8s_extract_rule, rule_fields,
              .help = "labels that become attributes"),
    FLUE_LIST(struct k8s_extract, annotations, struct k8s_extract_rule, rule_fields,
              .help = "annotations that become attributes"),
    FLUE_BOOL(struct k8s_extract, otel_annotations, .def = "false",
              .help = "every annotation resource.opentelemetry.io/X becomes the attribute X"),
    FLUE_IGNORED("deployment_name_from_replicaset",
                 "the name is always the ReplicaSet's without its pod-template-hash"),
    FLUE_FIELDS_END};

static const struct flue_field filter_rule_fields[] = {
    FLUE_STRING(struct k8s_filter_rule, key, .required = true, .help = "label or field"),
    FLUE_STRING(struct k8s_filter_rule, value, .help = "to compare with"),
    FLUE_ENUM(struct k8s_filter_rule, op, .choices = op_choices, .def = "equals",
              .help = "fields know equals and not-equals only"),
    FLUE_FIELDS_END};

static const struct flue_field filter_fields[] = {
    FLUE_STRING(struct k8s_filter, node, .help = "only pods of this node"),
    FLUE_STRING(struct k8s_filter, node_from_env_var,
                .help = "the same, named by an environment variable"),
    FLUE_STRING(struct k8s_filter, namespace, .help = "only pods of this namespace"),
    FLUE_LIST(struct k8s_filter, fields, struct k8s_filter_rule, filter_rule_fields,
              .help = "field selectors, for example status.phase; the server selects"),
    FLUE_LIST(struct k8s_filter, labels, struct k8s_filter_rule, filter_rule_fields,
              .help = "label selectors; the server selects"),
    FLUE_FIELDS_END};

static const struct flue_field source_fields[] = {
    FLUE_ENUM(struct k8s_source, from, .choices = source_choices, .required = true,
              .help = "where the key comes from"),
    FLUE_STRING(struct k8s_source, name,
                .help = "the attribute: container.id, k8s.pod.uid, k8s.pod.ip, k8s.pod.name or "
                        "k8s.namespace.name (these two together)"),
    FLUE_FIELDS_END};

static const struct flue_field association_fields[] = {
    FLUE_LIST(struct k8s_association, sources, struct k8s_source, source_fields,
              .help = "all of them must be there and say the same pod"),
    FLUE_FIELDS_END};

static const struct flue_field exclude_pod_fields[] = {
    FLUE_STRING(struct k8s_exclude_pod, name, .required = true, .help = "expression on the name"),
    FLUE_FIELDS_END};
static const struct flue_field exclude_fields[] = {
    FLUE_LIST(struct k8s_exclude, pods, struct k8s_exclude_pod, exclude_pod_fields,
              .def = "[{name: jaeger-agent}, {name: jaeger-collector}]",
              .help = "pods that relay for others: what they send gets no attributes of theirs"),
    FLUE_FIELDS_END};

static const struct flue_field host_fields[] = {
    FLUE_STRINGS(struct k8s_host_processes, senders,
                 .help = "whose process.pid is one of this host: addresses, prefixes, unix"),
    FLUE_STRING(struct k8s_host_processes, proc, .def = "/proc",
                .help = "where the host's /proc is"),
    FLUE_FIELDS_END};

static const struct flue_field downward_fields[] = {
    FLUE_STRING(struct k8s_downward, directory, .def = "/etc/podinfo",
                .help = "a downwardAPI volume with the files labels and annotations (name, "
                        "namespace and uid too, if wanted)"),
    FLUE_STRING(struct k8s_downward, pod_name, .def = "POD_NAME",
                .help = "environment variable with metadata.name"),
    FLUE_STRING(struct k8s_downward, pod_uid, .def = "POD_UID",
                .help = "environment variable with metadata.uid"),
    FLUE_STRING(struct k8s_downward, pod_ip, .def = "POD_IP",
                .help = "environment variable with status.podIP"),
    FLUE_STRING(struct k8s_downward, namespace, .def = "POD_NAMESPACE",
                .help = "environment variable with metadata.namespace"),
    FLUE_STRING(struct k8s_downward, node_name, .def = "NODE_NAME",
                .help = "environment variable with spec.nodeName"),
    FLUE_STRING(struct k8s_downward, container_name, .def = "CONTAINER_NAME",
                .help = "environment variable with the name of the container that is profiled"),
    FLUE_DURATION(struct k8s_downward, interval, .def = "1m", .minimum = 1000000000,
                  .maximum = HOUR, .help = "how often the files are read again"),
    FLUE_FIELDS_END};

const struct flue_field k8s_fields[] = {
    FLUE_ENUM(struct k8s_config, auth_type, .choices = auth_choices, .def = "serviceAccount",
              .help = "none needs downward_api or passthrough"),
    FLUE_STRING(struct k8s_config, context, .help = "of the kubeconfig; unset: its current one"),
    FLUE_BOOL(struct k8s_config, passthrough, .def = "false",
              .help = "no look-up: only k8s.pod.ip is set, from the connection"),
    FLUE_BOOL(struct k8s_config, wait_for_metadata, .def = "false",
              .help = "start only once everything has been listed"),
    FLUE_DURATION(struct k8s_config, wait_for_metadata_timeout, .def = "10s", .minimum = 0,
                  .maximum = HOUR,
                  .help = "how long to wait so, and how long what comes before the first list is "
                          "held"),
    FLUE_IGNORED("watch_sync_period", "what is watched is not walked again"),
    FLUE_DURATION(struct k8s_config, pod_delete_grace_period, .def = "120s", .minimum = 0,
                  .maximum = HOUR, .help = "how long a deleted pod stays known"),
    FLUE_BLOCK(struct k8s_config, extract, struct k8s_extract, extract_fields,
               .help = "what to set"),
    FLUE_BLOCK(struct k8s_config, filter, struct k8s_filter, filter_fields,
               .help = "which pods to know"),
    FLUE_LIST(struct k8s_config, pod_association, struct k8s_association, association_fields,
              .help = "how a resource finds its pod, first rule whose keys are there; unset: "
                      "container.id, k8s.pod.uid, k8s.pod.ip, connection"),
    FLUE_BLOCK(struct k8s_config, exclude, struct k8s_exclude, exclude_fields,
               .help = "pods to leave alone"),
    FLUE_BOOL(struct k8s_config, overwrite, .def = "false",
              .help = "replace attributes that are there (else what an agent set, stays)"),
    FLUE_STRINGS(struct k8s_config, relays,
                 .help = "addresses and prefixes of agents, gateways and balancers: their address "
                         "says nothing about what they send"),
    FLUE_OPTIONAL(struct k8s_config, host_processes, struct k8s_host_processes, host_fields,
                  .help = "find the container of a process by its id"),
    FLUE_OPTIONAL(struct k8s_config, downward_api, struct k8s_downward, downward_fields,
                  .help = "for sidecars: everything is of this one pod, known without the API"),
    FLUE_DURATION(struct k8s_config, address_settle, .def = "5s", .minimum = 0,
                  .maximum = INT64_C(60000000000),
                  .help = "how far clocks, and the API and what is so, may be apart: who had an "
                          "address or a name is decided this long after a profile began (younger "
                          "ones wait), and not at all if another pod had it within this time of "
                          "the profile"),
    FLUE_SIZE(struct k8s_config, hold_size, .def = "16MiB", .minimum = 0,
              .maximum = INT64_C(1) << 34, .help = "what may wait so; beyond it nothing waits"),
    FLUE_SIZE(struct k8s_config, max_memory, .def = "1GiB", .minimum = 1 << 20,
              .maximum = INT64_C(1) << 40,
              .help = "for what is known of pods; what would pass it is not learnt"),
    FLUE_FIELDS_END};

/* ---- check ----------------------------------------------------------------------------------- */

uint64_t k8s_wanted(const struct k8s_config *config)
{
    uint64_t wanted = 0;

    for (size_t i = 0; i < config->extract.metadata.count; i++)
        for (unsigned k = 0; k < K8S_METADATA; k++)
            if (strcmp(((const char *const *)config->extract.metadata.items)[i],
                       k8s_metadata_names[k]) == 0)
                wanted |= UINT64_C(1) << k;
    return wanted;
}

bool k8s_wants_from(const struct k8s_config *config, enum k8s_from from)
{
    const struct flue_list *lists[] = {&config->extract.labels, &config->extract.annotations};

    for (unsigned l = 0; l < 2; l++)
        for (size_t i = 0; i < lists[l]->count; i++)
            if (((const struct k8s_extract_rule *)lists[l]->items)[i].from == (int)from)
                return true;
    return false;
}

const char *k8s_node(const struct k8s_filter *filter)
{
    const char *node = filter->node_from_env_var ? getenv(filter->node_from_env_var) : NULL;
    return node && *node ? node : filter->node;
}

static void check_regex(const char *text, const char *path, struct flue_check *check)
{
    struct flue_pattern pattern;
    struct flue_error error;
    regex_t regex;

    if (flue_pattern_translate(text, &pattern, &error) != FLUE_OK) {
        flue_check_fail(check, path, "%s", error.text);
        return;
    }
    int code = regcomp(&regex, pattern.text, REG_EXTENDED);
    if (code) {
        char why[128];
        (void)regerror(code, &regex, why, sizeof why);
        flue_check_fail(check, path, "%s", why);
        return;
    }
    regfree(&regex);
}

static void check_rules(const struct flue_list *list, const char *name, struct flue_check *check)
{
    const struct k8s_extract_rule *rules = list->items;
    char path[96];

    for (size_t i = 0; i < list->count; i++) {
        snprintf(path, sizeof path, "extract.%s[%zu]", name, i);
        if (!rules[i].key == !rules[i].key_regex)
            flue_check_fail(check, path, "needs either `key` or `key_regex`");
        snprintf(path, sizeof path, "extract.%s[%zu].key_regex", name, i);
        if (rules[i].key_regex)
            check_regex(rules[i].key_regex, path, check);
    }
}

static bool usable_source(const char *name)
{
    static const char *const usable[] = {"container.id", "k8s.pod.uid", "k8s.pod.ip",
                                         "k8s.pod.name", "k8s.namespace.name"};
    for (unsigned i = 0; name && i < sizeof usable / sizeof usable[0]; i++)
        if (strcmp(name, usable[i]) == 0)
            return true;
    return false;
}

static bool same_sources(const struct flue_list *a, const struct flue_list *b)
{
    const struct k8s_source *x = a->items, *y = b->items;

    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (x[i].from != y[i].from ||
            (!x[i].from && strcmp(x[i].name ? x[i].name : "", y[i].name ? y[i].name : "") != 0))
            return false;
    return true;
}

static void check_association(const struct k8s_config *config, struct flue_check *check)
{
    const struct k8s_association *rules = config->pod_association.items;
    char path[96];

    for (size_t i = 0; i < config->pod_association.count; i++) {
        const struct k8s_source *sources = rules[i].sources.items;
        unsigned name = 0, namespace = 0, other = 0;
        snprintf(path, sizeof path, "pod_association[%zu].sources", i);
        if (!rules[i].sources.count || rules[i].sources.count > 4)
            flue_check_fail(check, path, "needs one to four sources, has %zu",
                            rules[i].sources.count);
        for (size_t k = 0; k < rules[i].sources.count; k++) {
            snprintf(path, sizeof path, "pod_association[%zu].sources[%zu]", i, k);
            if (sources[k].from == 0 && !usable_source(sources[k].name))
                flue_check_fail(check, path,
                                "name: `%.100s` cannot identify a pod; use container.id, "
                                "k8s.pod.uid, k8s.pod.ip, or k8s.pod.name with k8s.namespace.name",
                                sources[k].name ? sources[k].name : "");
            else if (sources[k].from == 0 && strcmp(sources[k].name, "k8s.pod.name") == 0)
                name++;
            else if (sources[k].from == 0 && strcmp(sources[k].name, "k8s.namespace.name") == 0)
            namespace ++;
            else other++;
        }
        snprintf(path, sizeof path, "pod_association[%zu].sources", i);
        if (!other && (name || namespace) && !(name && namespace))
            flue_check_fail(check, path,
                            "k8s.pod.name and k8s.namespace.name identify a pod only together");
        for (size_t k = 0; k < i; k++)
            if (same_sources(&rules[k].sources, &rules[i].sources))
                flue_check_fail(check, path, "the same as pod_association[%zu]", k);
    }
}

void k8s_check(const void *of, struct flue_check *check)
{
    const struct k8s_config *config = of;
    char path[96];
    bool known;

    for (size_t i = 0; i < config->extract.metadata.count; i++) {
        const char *name = ((const char *const *)config->extract.metadata.items)[i];
        known = false;
        for (unsigned k = 0; k < K8S_METADATA; k++)
            known |= strcmp(name, k8s_metadata_names[k]) == 0;
        snprintf(path, sizeof path, "extract.metadata[%zu]", i);
        if (!known)
            flue_check_fail(check, path, "`%.100s` is not one that can be set", name);
    }
    check_rules(&config->extract.labels, "labels", check);
    check_rules(&config->extract.annotations, "annotations", check);
    check_association(config, check);
    for (size_t i = 0; i < config->exclude.pods.count; i++) {
        snprintf(path, sizeof path, "exclude.pods[%zu].name", i);
        check_regex(((const struct k8s_exclude_pod *)config->exclude.pods.items)[i].name, path,
                    check);
    }
    const struct k8s_filter_rule *fields = config->filter.fields.items;
    for (size_t i = 0; i < config->filter.fields.count; i++) {
        snprintf(path, sizeof path, "filter.fields[%zu].op", i);
        if (fields[i].op > 1)
            flue_check_fail(check, path, "fields can be compared with equals and not-equals only");
    }
    k8s_peers_check(&config->relays, "relays", false, check);
    if (config->host_processes)
        k8s_peers_check(&config->host_processes->senders, "host_processes.senders", true, check);
    if (config->auth_type == K8S_AUTH_TLS)
        flue_check_fail(check, "auth_type",
                        "tls: put the certificate into a kubeconfig and use kubeConfig");
    if (config->auth_type == K8S_AUTH_NONE && !config->downward_api && !config->passthrough)
        flue_check_fail(check, "auth_type",
                        "none: nothing is known without the API; add `downward_api` (in a "
                        "sidecar) or `passthrough: true`");
    if (config->auth_type != K8S_AUTH_NONE && config->downward_api)
        flue_check_fail(check, "downward_api",
                        "is instead of the API: set auth_type to none, or leave it out");
    if (config->filter.node_from_env_var && !k8s_node(&config->filter))
        flue_check_warn(check, "filter.node_from_env_var",
                        "%.100s is not set here: every node's pods would be watched",
                        config->filter.node_from_env_var);
}
