/* config.c: see config.h. */
#include "processors/resourcedetection/config.h"

#include <stdio.h>

#include "collector/net/client.h"
#include "processors/resourcedetection/detect.h"

#define RD_TEXT(NAME, TEXT) TEXT,
const char *const rd_names[RD_COUNT] = {RD_NAMES(RD_TEXT)};

#define YEAR_NS (365ll * 86400 * 1000 * 1000 * 1000)
#define DURATION(S, m, ...) FLUE_DURATION(S, m, .minimum = 0, .maximum = YEAR_NS, __VA_ARGS__)

static const char *const auth_types[] = {"serviceAccount", "kubeConfig", "none", NULL};
static const char *const source_names[] = {"dns", "os", "cname", "lookup"};

enum rd_hostname_source rd_hostname_source(const char *name)
{
    for (unsigned i = 0; i < RD_HOST_NONE; i++)
        if (strcmp(name, source_names[i]) == 0)
            return (enum rd_hostname_source)i;
    return RD_HOST_NONE;
}

/* ---- resource_attributes --------------------------------------------------------------------- */

struct one {
    bool enabled;
};
static const struct flue_field on_fields[] = {
    FLUE_BOOL(struct one, enabled, .def = "true", .help = "set this attribute"), FLUE_FIELDS_END};
static const struct flue_field off_fields[] = {
    FLUE_BOOL(struct one, enabled, .def = "false", .help = "set this attribute"), FLUE_FIELDS_END};

#define SWITCH(NAME, TEXT, FIELDS)                                                                 \
    {                                                                                              \
        .name = TEXT, .type = FLUE_FIELD_BLOCK,                                                    \
        .offset = offsetof(struct rd_switches, on) + RD_##NAME * sizeof(bool),                     \
        .size = sizeof(struct one), .fields = FIELDS                                               \
    }
#define ON(NAME, TEXT)  SWITCH(NAME, TEXT, on_fields)
#define OFF(NAME, TEXT) SWITCH(NAME, TEXT, off_fields)
#define ATTRIBUTES(S, TABLE)                                                                       \
    {                                                                                              \
        .name = "resource_attributes", .type = FLUE_FIELD_BLOCK,                                   \
        .offset = offsetof(S, attributes), .size = sizeof(struct rd_switches), .fields = TABLE     \
    }

static const struct flue_field system_attributes[] = {
    ON(HOST_NAME, "host.name"),
    ON(OS_TYPE, "os.type"),
    OFF(HOST_ID, "host.id"),
    OFF(HOST_ARCH, "host.arch"),
    OFF(HOST_IP, "host.ip"),
    OFF(HOST_MAC, "host.mac"),
    OFF(OS_DESCRIPTION, "os.description"),
    OFF(CPU_VENDOR, "host.cpu.vendor.id"),
    OFF(CPU_FAMILY, "host.cpu.family"),
    OFF(CPU_MODEL, "host.cpu.model.id"),
    OFF(CPU_MODEL_NAME, "host.cpu.model.name"),
    OFF(CPU_STEPPING, "host.cpu.stepping"),
    OFF(CPU_CACHE, "host.cpu.cache.l2.size"),
    FLUE_FIELDS_END};
static const struct flue_field docker_attributes[] = {
    ON(HOST_NAME, "host.name"),
    ON(OS_TYPE, "os.type"),
    OFF(CONTAINER_NAME, "container.name"),
    OFF(IMAGE_NAME, "container.image.name"),
    OFF(IMAGE_ID, "container.image.id"),
    FLUE_FIELDS_END};
static const struct flue_field ec2_attributes[] = {
    ON(CLOUD_PROVIDER, "cloud.provider"),
    ON(CLOUD_PLATFORM, "cloud.platform"),
    ON(CLOUD_ACCOUNT_ID, "cloud.account.id"),
    ON(CLOUD_REGION, "cloud.region"),
    ON(CLOUD_ZONE, "cloud.availability_zone"),
    ON(HOST_ID, "host.id"),
    ON(HOST_NAME, "host.name"),
    ON(HOST_TYPE, "host.type"),
    ON(HOST_IMAGE_ID, "host.image.id"),
    FLUE_FIELDS_END};
static const struct flue_field eks_attributes[] = {
    ON(CLOUD_PROVIDER, "cloud.provider"),
    ON(CLOUD_PLATFORM, "cloud.platform"),
    OFF(CLOUD_ACCOUNT_ID, "cloud.account.id"),
    OFF(CLOUD_REGION, "cloud.region"),
    OFF(CLOUD_ZONE, "cloud.availability_zone"),
    OFF(HOST_ID, "host.id"),
    OFF(HOST_NAME, "host.name"),
    OFF(HOST_TYPE, "host.type"),
    OFF(HOST_IMAGE_ID, "host.image.id"),
    OFF(CLUSTER_NAME, "k8s.cluster.name"),
    FLUE_FIELDS_END};
static const struct flue_field gcp_attributes[] = {
    ON(CLOUD_PROVIDER, "cloud.provider"),
    ON(CLOUD_PLATFORM, "cloud.platform"),
    ON(CLOUD_ACCOUNT_ID, "cloud.account.id"),
    ON(CLOUD_REGION, "cloud.region"),
    ON(CLOUD_ZONE, "cloud.availability_zone"),
    ON(HOST_ID, "host.id"),
    ON(HOST_NAME, "host.name"),
    ON(HOST_TYPE, "host.type"),
    ON(CLUSTER_NAME, "k8s.cluster.name"),
    ON(FAAS_NAME, "faas.name"),
    ON(FAAS_VERSION, "faas.version"),
    ON(FAAS_INSTANCE, "faas.instance"),
    ON(JOB_EXECUTION, "gcp.cloud_run.job.execution"),
    ON(JOB_TASK, "gcp.cloud_run.job.task_index"),
    ON(GROUP_NAME, "gcp.gce.instance_group_manager.name"),
    ON(GROUP_REGION, "gcp.gce.instance_group_manager.region"),
    ON(GROUP_ZONE, "gcp.gce.instance_group_manager.zone"),
    OFF(GCE_HOSTNAME, "gcp.gce.instance.hostname"),
    OFF(GCE_NAME, "gcp.gce.instance.name"),
    FLUE_FIELDS_END};
static const struct flue_field azure_attributes[] = {
    ON(CLOUD_PROVIDER, "cloud.provider"),
    ON(CLOUD_PLATFORM, "cloud.platform"),
    ON(CLOUD_ACCOUNT_ID, "cloud.account.id"),
    ON(CLOUD_REGION, "cloud.region"),
    ON(CLOUD_ZONE, "cloud.availability_zone"),
    ON(HOST_ID, "host.id"),
    ON(HOST_NAME, "host.name"),
    ON(AZURE_GROUP, "azure.resourcegroup.name"),
    ON(AZURE_NAME, "azure.vm.name"),
    ON(AZURE_SCALESET, "azure.vm.scaleset.name"),
    ON(AZURE_SIZE, "azure.vm.size"),
    FLUE_FIELDS_END};
static const struct flue_field aks_attributes[] = {
    ON(CLOUD_PROVIDER, "cloud.provider"), ON(CLOUD_PLATFORM, "cloud.platform"),
    OFF(CLUSTER_NAME, "k8s.cluster.name"), FLUE_FIELDS_END};
static const struct flue_field node_attributes[] = {
    ON(NODE_NAME, "k8s.node.name"), ON(NODE_UID, "k8s.node.uid"),
    ON(CLUSTER_UID, "k8s.cluster.uid"), FLUE_FIELDS_END};
static const struct flue_field consul_attributes[] = {
    ON(CLOUD_REGION, "cloud.region"), ON(HOST_ID, "host.id"), ON(HOST_NAME, "host.name"),
    FLUE_FIELDS_END};

/* ---- detectors ------------------------------------------------------------------------------- */

static const struct flue_field system_fields[] = {
    FLUE_STRINGS(struct rd_system_config, hostname_sources, .def = "[dns, os]",
                 .help = "for host.name, the first that answers: dns (full name), os (the kernel's), "
                         "cname, lookup (of our address)"),
    ATTRIBUTES(struct rd_system_config, system_attributes), FLUE_FIELDS_END};
static const struct flue_field docker_fields[] = {
    ATTRIBUTES(struct rd_plain_config, docker_attributes), FLUE_FIELDS_END};
static const struct flue_field aks_fields[] = {ATTRIBUTES(struct rd_plain_config, aks_attributes),
                                               FLUE_FIELDS_END};
#define AWS_TRIES                                                                                  \
    FLUE_INT(struct rd_aws_config, max_attempts, .def = "3", .minimum = 1, .maximum = 100,         \
             .help = "attempts at most, within timeout"),                                          \
        DURATION(struct rd_aws_config, max_backoff, .def = "20s",                             \
                      .help = "longest pause between them")
static const struct flue_field ec2_fields[] = {
    FLUE_STRINGS(struct rd_aws_config, tags,
                 .help = "regular expressions: matching tags of the instance become ec2.tag.NAME"),
    FLUE_BOOL(struct rd_aws_config, tags_from_imds, .def = "false",
              .help = "read tags from the metadata service (InstanceMetadataTags=enabled) instead of "
                      "the EC2 API (DescribeTags, with the credentials of the AWS chain)"),
    AWS_TRIES,
    FLUE_BOOL(struct rd_aws_config, fail_on_missing_metadata, .def = "false",
              .help = "deprecated: see the key of the same name above"),
    ATTRIBUTES(struct rd_aws_config, ec2_attributes),
    FLUE_FIELDS_END};
static const struct flue_field eks_fields[] = {
    AWS_TRIES,
    FLUE_STRING(struct rd_aws_config, node_from_env_var,
                .help = "accepted; the instance says itself which it is"),
    ATTRIBUTES(struct rd_aws_config, eks_attributes), FLUE_FIELDS_END};
static const struct flue_field gcp_fields[] = {
    {.name = "labels",
     .type = FLUE_FIELD_STRINGS,
     .offset = offsetof(struct rd_tagged_config, tags),
     .help = "regular expressions: matching labels of a GCE instance become "
             "gcp.gce.instance.labels.NAME (Compute API, with the instance's service account)"},
    ATTRIBUTES(struct rd_tagged_config, gcp_attributes),
    FLUE_FIELDS_END};
static const struct flue_field azure_fields[] = {
    FLUE_STRINGS(struct rd_tagged_config, tags,
                 .help = "regular expressions: matching tags of the machine become azure.tag.NAME"),
    ATTRIBUTES(struct rd_tagged_config, azure_attributes), FLUE_FIELDS_END};
static const struct flue_field node_fields[] = {
    FLUE_ENUM(struct rd_node_config, auth_type, .def = "serviceAccount", .choices = auth_types,
              .help = "who asks the API server"),
    FLUE_STRING(struct rd_node_config, node_from_env_var, .def = "K8S_NODE_NAME",
                .help = "environment variable with the node's name (downward API: spec.nodeName)"),
    FLUE_STRING(struct rd_node_config, context, .help = "of a kubeconfig; unset: the current one"),
    ATTRIBUTES(struct rd_node_config, node_attributes), FLUE_FIELDS_END};
static const struct flue_field consul_fields[] = {
    FLUE_ENDPOINT(struct rd_consul_config, address,
                  .help = "the agent; unset: CONSUL_HTTP_ADDR, else 127.0.0.1:8500"),
    FLUE_STRING(struct rd_consul_config, datacenter, .help = "unset: the agent's"),
    FLUE_SECRET(struct rd_consul_config, token, .help = "unset: CONSUL_HTTP_TOKEN"),
    FLUE_STRING(struct rd_consul_config, token_file, .help = "unset: CONSUL_HTTP_TOKEN_FILE"),
    FLUE_STRING(struct rd_consul_config, namespace, .help = "unset: CONSUL_NAMESPACE"),
    FLUE_MAP(struct rd_consul_config, meta,
             .help = "keys of the node's metadata that become attributes (values are ignored)"),
    ATTRIBUTES(struct rd_consul_config, consul_attributes), FLUE_FIELDS_END};

/* ---- the processor --------------------------------------------------------------------------- */

static const struct flue_field retry_fields[] = {
    FLUE_BOOL(struct flue_retry_config, enabled, .def = "true",
              .help = "false: one attempt for each detector"),
    DURATION(struct flue_retry_config, initial_interval, .def = "1s",
                  .help = "pause before the second attempt"),
    FLUE_FLOAT(struct flue_retry_config, randomization_factor, .def = "0.5", .maximum = 1,
               .help = "a pause of t becomes a random one of t*(1-f) to t*(1+f)"),
    FLUE_FLOAT(struct flue_retry_config, multiplier, .def = "2", .minimum = 1, .maximum = 100,
               .help = "each pause is this much longer"),
    DURATION(struct flue_retry_config, max_interval, .def = "30s",
                  .help = "the longest pause"),
    DURATION(struct flue_retry_config, max_elapsed_time, .def = "0s",
                  .help = "give up after this long; 0: after timeout"),
    FLUE_FIELDS_END};

const struct flue_field rd_fields[] = {
    FLUE_STRINGS(struct rd_config, detectors, .def = "[env]",
                 .help = "env, system, docker, ec2, gcp, azure, eks, aks, kubernetes_node (k8s_api, "
                         "k8snode), consul; of two that know an attribute the first wins"),
    FLUE_BOOL(struct rd_config, override, .def = "true",
              .help = "replace attributes that are there"),
    DURATION(struct rd_config, timeout, .def = "5s",
                  .help = "for all attempts of a detector; with retry.max_elapsed_time for each"),
    DURATION(struct rd_config, refresh_interval, .def = "0s",
                  .help = "detect again this often; 0: only at start"),
    FLUE_BOOL(struct rd_config, fail_on_missing_metadata, .def = "false",
              .help = "start waits for all detectors, and fails if one fails; else profiles pass "
                      "with what is known so far"),
    FLUE_BLOCK(struct rd_config, retry, struct flue_retry_config, retry_fields),
    FLUE_BLOCK(struct rd_config, system, struct rd_system_config, system_fields),
    FLUE_BLOCK(struct rd_config, docker, struct rd_plain_config, docker_fields),
    FLUE_BLOCK(struct rd_config, ec2, struct rd_aws_config, ec2_fields),
    FLUE_BLOCK(struct rd_config, gcp, struct rd_tagged_config, gcp_fields),
    FLUE_BLOCK(struct rd_config, azure, struct rd_tagged_config, azure_fields),
    FLUE_BLOCK(struct rd_config, eks, struct rd_aws_config, eks_fields),
    FLUE_BLOCK(struct rd_config, aks, struct rd_plain_config, aks_fields),
    FLUE_BLOCK(struct rd_config, kubernetes_node, struct rd_node_config, node_fields),
    FLUE_BLOCK(struct rd_config, k8s_api, struct rd_node_config, node_fields),
    FLUE_BLOCK(struct rd_config, k8snode, struct rd_node_config, node_fields),
    FLUE_BLOCK(struct rd_config, consul, struct rd_consul_config, consul_fields),
    FLUE_FIELDS_END};

static const char *text_of(const struct flue_list *list, size_t i)
{
    return ((const char *const *)list->items)[i];
}

static void check_patterns(const struct flue_list *list, const char *path, struct flue_check *check)
{
    struct flue_error error;
    for (size_t i = 0; i < list->count; i++)
        if (rd_pattern_check(text_of(list, i), &error) != FLUE_OK)
            flue_check_fail(check, path, "%s", error.text);
}

void rd_check(const void *arg, struct flue_check *check)
{
    const struct rd_config *config = arg;
    struct flue_error error;

    if (config->detectors.count == 0)
        flue_check_fail(check, "detectors", "name at least one detector");
    for (size_t i = 0; i < config->detectors.count; i++) {
        const char *name = text_of(&config->detectors, i);
        if (!rd_detector_named(name))
            flue_check_fail(check, "detectors",
                            "\"%.64s\" is none of env, system, docker, ec2, gcp, azure, eks, aks, "
                            "kubernetes_node, k8s_api, k8snode, consul",
                            name);
        for (size_t k = 0; k < i; k++)
            if (strcmp(name, text_of(&config->detectors, k)) == 0)
                flue_check_fail(check, "detectors", "\"%.64s\" is listed twice", name);
    }
    if (config->timeout <= 0 && config->retry.max_elapsed_time <= 0)
        flue_check_fail(check, "timeout",
                        "timeout and retry.max_elapsed_time are both 0: give one, or a detector "
                        "that hangs would be waited for without end");
    if (config->system.hostname_sources.count == 0 || config->system.hostname_sources.count > 8)
        flue_check_fail(check, "system.hostname_sources", "give one to eight of dns, os, cname, "
                                                          "lookup");
    for (size_t i = 0; i < config->system.hostname_sources.count; i++)
        if (rd_hostname_source(text_of(&config->system.hostname_sources, i)) == RD_HOST_NONE)
            flue_check_fail(check, "system.hostname_sources",
                            "\"%.64s\" is none of dns, os, cname, lookup",
                            text_of(&config->system.hostname_sources, i));
    check_patterns(&config->ec2.tags, "ec2.tags", check);
    check_patterns(&config->azure.tags, "azure.tags", check);
    check_patterns(&config->gcp.tags, "gcp.labels", check);
    if (config->consul.address && *config->consul.address &&
        flue_client_endpoint_check(config->consul.address,
                                   strstr(config->consul.address, "://") != NULL, &error))
        flue_check_fail(check, "consul.address", "%s", error.text);
}
