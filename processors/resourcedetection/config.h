/* config.h: the keys of resourcedetection. Names and defaults: OpenTelemetry Collector Contrib,
 * processor/resourcedetectionprocessor (README, config.go, internal/NAME/metadata.yaml). */
#ifndef PROCESSORS_RESOURCEDETECTION_CONFIG_H
#define PROCESSORS_RESOURCEDETECTION_CONFIG_H

#include "collector/component.h"
#include "collector/pipeline/settings.h"

#define RD_NAMES(X)                                                                                \
    X(CLOUD_PROVIDER, "cloud.provider")                                                            \
    X(CLOUD_PLATFORM, "cloud.platform")                                                            \
    X(CLOUD_ACCOUNT_ID, "cloud.account.id")                                                        \
    X(CLOUD_REGION, "cloud.region")                                                                \
    X(CLOUD_ZONE, "cloud.availability_zone")                                                       \
    X(HOST_ID, "host.id")                                                                          \
    X(HOST_NAME, "host.name")                                                                      \
    X(HOST_TYPE, "host.type")                                                                      \
    X(HOST_IMAGE_ID, "host.image.id")                                                              \
    X(HOST_ARCH, "host.arch")                                                                      \
    X(HOST_IP, "host.ip")                                                                          \
    X(HOST_MAC, "host.mac")                                                                        \
    X(CPU_VENDOR, "host.cpu.vendor.id")                                                            \
    X(CPU_FAMILY, "host.cpu.family")                                                               \
    X(CPU_MODEL, "host.cpu.model.id")                                                              \
    X(CPU_MODEL_NAME, "host.cpu.model.name")                                                       \
    X(CPU_STEPPING, "host.cpu.stepping")                                                           \
    X(CPU_CACHE, "host.cpu.cache.l2.size")                                                         \
    X(OS_TYPE, "os.type")                                                                          \
    X(OS_DESCRIPTION, "os.description")                                                            \
    X(CLUSTER_NAME, "k8s.cluster.name")                                                            \
    X(CLUSTER_UID, "k8s.cluster.uid")                                                              \
    X(NODE_NAME, "k8s.node.name")                                                                  \
    X(NODE_UID, "k8s.node.uid")                                                                    \
    X(CONTAINER_NAME, "container.name")                                                            \
    X(IMAGE_NAME, "container.image.name")                                                          \
    X(IMAGE_ID, "container.image.id")                                                              \
    X(FAAS_NAME, "faas.name")                                                                      \
    X(FAAS_VERSION, "faas.version")                                                                \
    X(FAAS_INSTANCE, "faas.instance")                                                              \
    X(JOB_EXECUTION, "gcp.cloud_run.job.execution")                                                \
    X(JOB_TASK, "gcp.cloud_run.job.task_index")                                                    \
    X(GCE_HOSTNAME, "gcp.gce.instance.hostname")                                                   \
    X(GCE_NAME, "gcp.gce.instance.name")                                                           \
    X(GROUP_NAME, "gcp.gce.instance_group_manager.name")                                           \
    X(GROUP_REGION, "gcp.gce.instance_group_manager.region")                                       \
    X(GROUP_ZONE, "gcp.gce.instance_group_manager.zone")                                           \
    X(AZURE_GROUP, "azure.resourcegroup.name")                                                     \
    X(AZURE_NAME, "azure.vm.name")                                                                 \
    X(AZURE_SCALESET, "azure.vm.scaleset.name")                                                    \
    X(AZURE_SIZE, "azure.vm.size")

#define RD_ENUM(NAME, TEXT) RD_##NAME,
enum rd_name { RD_NAMES(RD_ENUM) RD_COUNT };
extern const char *const rd_names[RD_COUNT];

/* resource_attributes.NAME.enabled; what a detector does not list stays off. */
struct rd_switches {
    bool on[RD_COUNT];
};

enum rd_hostname_source { RD_HOST_DNS, RD_HOST_OS, RD_HOST_CNAME, RD_HOST_LOOKUP, RD_HOST_NONE };
enum rd_hostname_source rd_hostname_source(const char *name);

enum rd_auth { RD_AUTH_SERVICE_ACCOUNT, RD_AUTH_KUBECONFIG, RD_AUTH_NONE };

struct rd_system_config {
    struct rd_switches attributes;
    struct flue_list hostname_sources;
};
struct rd_plain_config { /* docker, aks */
    struct rd_switches attributes;
};
struct rd_aws_config { /* ec2, eks */
    struct rd_switches attributes;
    struct flue_list tags;
    bool tags_from_imds, fail_on_missing_metadata;
    int64_t max_attempts, max_backoff;
    const char *node_from_env_var;
};
struct rd_tagged_config { /* gcp (labels), azure (tags) */
    struct rd_switches attributes;
    struct flue_list tags;
};
struct rd_node_config {
    struct rd_switches attributes;
    int auth_type; /* enum rd_auth */
    const char *node_from_env_var, *context;
};
struct rd_consul_config {
    struct rd_switches attributes;
    const char *address, *datacenter, *token, *token_file, *namespace;
    struct flue_map meta;
};

struct rd_config {
    struct flue_list detectors;
    bool override, fail_on_missing_metadata;
    int64_t timeout, refresh_interval;
    struct flue_retry_config retry;
    struct rd_system_config system;
    struct rd_plain_config docker, aks;
    struct rd_aws_config ec2, eks;
    struct rd_tagged_config gcp, azure;
    struct rd_node_config kubernetes_node, k8snode, k8s_api;
    struct rd_consul_config consul;
};
extern const struct flue_field rd_fields[];
void rd_check(const void *config, struct flue_check *check);

#endif
