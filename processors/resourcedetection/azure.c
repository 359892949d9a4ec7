/* azure.c: azure and aks, by the instance metadata service.
 *
 * Source: Azure, "Instance Metadata Service" (api-version 2020-09-01, Metadata: true). The address
 * can be changed as the Azure SDK changes it: AZURE_POD_IDENTITY_AUTHORITY_HOST. */
#include <stdio.h>

#include "processors/resourcedetection/detect.h"

#define PATH "/metadata/instance/compute?api-version=2020-09-01&format=json"

static void put_tags(struct rd_run *run, json_t *tags)
{
    const struct rd_tagged_config *config = &run->config->azure;
    size_t i;
    json_t *tag;
    char key[300];
    json_array_foreach(tags, i, tag)
    {
        const char *name = json_string_value(json_object_get(tag, "name"));
        json_t *value = json_object_get(tag, "value");
        if (!name || strlen(name) > 240 || !json_is_string(value) ||
            !rd_matches(&config->tags, name))
            continue;
        snprintf(key, sizeof key, "azure.tag.%s", name);
        rd_put_named(run, flue_bytes_of(key),
                     flue_bytes(json_string_value(value), json_string_length(value)));
    }
}

/* "MC_<group>_<cluster>_<location>": the middle, where it can be told. */
static void put_cluster(struct rd_run *run, const char *group)
{
    struct flue_bytes text = flue_bytes_of(group), parts[5] = {{0}}, rest = text;
    size_t count = 0;
    while (count < 5) {
        size_t end = flue_bytes_find(rest, '_');
        parts[count++] = end == SIZE_MAX ? rest : flue_bytes_first(rest, end);
        if (end == SIZE_MAX)
            break;
        rest = flue_bytes_from(rest, end + 1);
    }
    bool plain = count == 4 && (flue_bytes_is(parts[0], "MC") || flue_bytes_is(parts[0], "mc"));
    rd_put(run, RD_CLUSTER_NAME, plain ? parts[2] : text);
}

static void answer(struct rd_run *run)
{
    json_t *root = rd_status(run) == 200 ? rd_object(run) : NULL;
    bool aks = run->detector->begin == rd_aks_begin;
    if (!root || !json_is_string(json_object_get(root, "vmId"))) {
        json_decref(root);
        rd_unexpected(run);
        return;
    }
    rd_put(run, RD_CLOUD_PROVIDER, FLUE_BYTES("azure"));
    rd_put(run, RD_CLOUD_PLATFORM, aks ? FLUE_BYTES("azure_aks") : FLUE_BYTES("azure_vm"));
    if (aks) {
        const char *group = json_string_value(json_object_get(root, "resourceGroupName"));
        if (group)
            put_cluster(run, group);
    } else {
        rd_put_json(run, RD_HOST_NAME, json_object_get(root, "osProfile"), "computerName");
        rd_put_json(run, RD_HOST_NAME, root, "name"); /* where there is no profile of the system */
        rd_put_json(run, RD_HOST_ID, root, "vmId");
        rd_put_json(run, RD_CLOUD_REGION, root, "location");
        rd_put_json(run, RD_CLOUD_ZONE, root, "zone");
        rd_put_json(run, RD_CLOUD_ACCOUNT_ID, root, "subscriptionId");
        rd_put_json(run, RD_AZURE_GROUP, root, "resourceGroupName");
        rd_put_json(run, RD_AZURE_NAME, root, "name");
        rd_put_json(run, RD_AZURE_SCALESET, root, "vmScaleSetName");
        rd_put_json(run, RD_AZURE_SIZE, root, "vmSize");
        put_tags(run, json_object_get(root, "tagsList"));
    }
    json_decref(root);
    rd_found(run);
}

void rd_azure_begin(struct rd_run *run)
{
    run->endpoint = rd_environment("AZURE_POD_IDENTITY_AUTHORITY_HOST");
    if (!run->endpoint)
        run->endpoint = "http://169.254.169.254";
    memset(&run->tls, 0, sizeof run->tls);
    run->ask.field_count = 0;
    rd_field(run, "metadata", "true");
    rd_get(run, PATH, answer);
}

void rd_aks_begin(struct rd_run *run)
{
    if (!rd_environment("KUBERNETES_SERVICE_HOST"))
        rd_absent(run, "KUBERNETES_SERVICE_HOST is not set");
    else
        rd_azure_begin(run);
}
