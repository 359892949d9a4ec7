/* config.h: the keys of k8sattributes: the Collector's, and flue's own (said where they differ). */
#ifndef PROCESSORS_K8SATTRIBUTES_CONFIG_H
#define PROCESSORS_K8SATTRIBUTES_CONFIG_H

#include "collector/component.h"
#include "kubernetes/object.h"

enum k8s_auth { K8S_AUTH_NONE, K8S_AUTH_SERVICE_ACCOUNT, K8S_AUTH_KUBECONFIG, K8S_AUTH_TLS };

/* extract.metadata, as bits. */
enum k8s_metadata {
    K8S_POD_NAME,
    K8S_POD_UID,
    K8S_POD_IP,
    K8S_POD_HOSTNAME,
    K8S_POD_START_TIME,
    K8S_NAMESPACE_NAME,
    K8S_NAMESPACE_UID,
    K8S_NODE_NAME,
    K8S_NODE_UID,
    K8S_CLUSTER_UID,
    K8S_DEPLOYMENT_NAME,
    K8S_DEPLOYMENT_UID,
    K8S_REPLICASET_NAME,
    K8S_REPLICASET_UID,
    K8S_STATEFULSET_NAME,
    K8S_STATEFULSET_UID,
    K8S_DAEMONSET_NAME,
    K8S_DAEMONSET_UID,
    K8S_JOB_NAME,
    K8S_JOB_UID,
    K8S_CRONJOB_NAME,
    K8S_CRONJOB_UID,
    K8S_CONTAINER_NAME,
    K8S_CONTAINER_RESTARTS,
    K8S_CONTAINER_ID,
    K8S_IMAGE_NAME,
    K8S_IMAGE_TAG,
    K8S_IMAGE_DIGESTS,
    K8S_SERVICE_NAME,
    K8S_SERVICE_NAMESPACE,
    K8S_SERVICE_VERSION,
    K8S_SERVICE_INSTANCE,
    K8S_METADATA
};
extern const char *const k8s_metadata_names[K8S_METADATA];

enum k8s_from {
    K8S_FROM_POD,
    K8S_FROM_NAMESPACE,
    K8S_FROM_NODE,
    K8S_FROM_DEPLOYMENT,
    K8S_FROM_STATEFULSET,
    K8S_FROM_DAEMONSET,
    K8S_FROM_JOB
};

struct k8s_extract_rule { /* of labels or annotations */
    const char *tag_name, *key, *key_regex;
    int from; /* enum k8s_from */
};
struct k8s_extract {
    struct flue_list metadata; /* const char * */
    struct flue_list labels, annotations;
    bool otel_annotations;
};
struct k8s_filter_rule {
    const char *key, *value;
    int op; /* equals, not-equals, exists, does-not-exist */
};
struct k8s_filter {
    const char *node, *node_from_env_var, *namespace;
    struct flue_list fields, labels;
};
struct k8s_source {
    int from; /* 0 resource_attribute, 1 connection */
    const char *name;
};
struct k8s_association {
    struct flue_list sources;
};
struct k8s_exclude_pod {
    const char *name;
};
struct k8s_exclude {
    struct flue_list pods;
};
struct k8s_host_processes {
    struct flue_list senders; /* addresses, prefixes, "unix" */
    const char *proc;
};
struct k8s_downward {
    const char *directory;
    const char *pod_name, *pod_uid, *pod_ip, *namespace, *node_name,
        *container_name; /* variables */
    int64_t interval;
};

struct k8s_config {
    int auth_type;
    const char *context;
    bool passthrough, wait_for_metadata, overwrite;
    int64_t wait_for_metadata_timeout, pod_delete_grace_period, address_settle;
    int64_t hold_size, max_memory;
    struct k8s_extract extract;
    struct k8s_filter filter;
    struct flue_list pod_association, relays;
    struct k8s_exclude exclude;
    const struct k8s_host_processes *host_processes;
    const struct k8s_downward *downward_api;
};

extern const struct flue_field k8s_fields[];
void k8s_check(const void *config, struct flue_check *check);

/* Bit set of enum k8s_metadata. */
uint64_t k8s_wanted(const struct k8s_config *config);
/* Is this kind looked at for labels or annotations? */
bool k8s_wants_from(const struct k8s_config *config, enum k8s_from from);
/* filter.node, or the value of filter.node_from_env_var; NULL: no filter. */
const char *k8s_node(const struct k8s_filter *filter);

#endif
