/* aws.c: ec2 and eks, by the instance metadata service, version 2 (a session token first; without
 * one where the service does not know the request). Tags by the same, or by the EC2 API.
 *
 * Sources: AWS EC2 user guide, "Retrieve instance metadata" and "instance identity documents";
 * botocore utils.py IMDSFetcher (which statuses mean what, the environment variables). */
#include <stdio.h>
#include <strings.h>

#include "archive/object/escape.h"
#include "collector/base/buffer.h"
#include "processors/resourcedetection/detect.h"

#define TAGS_MAX    64u
#define CLUSTER_TAG "kubernetes.io/cluster/" /* and the name, in tags of older clusters */

struct instance {
    const char *region, *id;
    char *names[TAGS_MAX]; /* of tags that are wanted */
    size_t count, at;
};

static const struct rd_aws_config *config_of(const struct rd_run *run)
{
    return (const void *)((const char *)run->config + run->detector->config);
}

static bool is_eks(const struct rd_run *run)
{
    return run->detector->begin == rd_eks_begin;
}

static void metadata(struct rd_run *run, const char *path, void (*next)(struct rd_run *run))
{
    run->ask.field_count = 0;
    if (run->token)
        rd_field(run, "x-aws-ec2-metadata-token", run->token);
    rd_get(run, path, next);
}

/* ---- tags ------------------------------------------------------------------------------------ */

static void next_tag(struct rd_run *run);

static bool wants_tag(const struct rd_run *run, const char *name)
{
    static const char *const clusters[] = {"aws:eks:cluster-name", "eks:cluster-name"};
    if (!is_eks(run))
        return rd_matches(&config_of(run)->tags, name);
    return strcmp(name, clusters[0]) == 0 || strcmp(name, clusters[1]) == 0 ||
           strncmp(name, CLUSTER_TAG, sizeof CLUSTER_TAG - 1) == 0;
}

static void take_tag(struct rd_run *run, const char *name, struct flue_bytes value)
{
    char key[300];
    if (!wants_tag(run, name))
        return;
    if (is_eks(run)) {
        bool in_name = strncmp(name, CLUSTER_TAG, sizeof CLUSTER_TAG - 1) == 0;
        rd_put(run, RD_CLUSTER_NAME,
               in_name ? flue_bytes_of(name + sizeof CLUSTER_TAG - 1) : value);
        return;
    }
    snprintf(key, sizeof key, "ec2.tag.%s", name);
    rd_put_named(run, flue_bytes_of(key), value);
}

static void got_tag(struct rd_run *run)
{
    struct instance *instance = run->state;
    if (rd_status(run) != 200) {
        rd_unexpected(run);
        return;
    }
    take_tag(run, instance->names[instance->at++], rd_line(run));
    next_tag(run);
}

static void next_tag(struct rd_run *run)
{
    struct instance *instance = run->state;
    struct flue_buffer path;
    if (instance->at == instance->count) {
        rd_found(run);
        return;
    }
    flue_buffer_init(&path, 2048);
    flue_buffer_text(&path, "/latest/meta-data/tags/instance/");
    flue_url_escape(&path, flue_bytes_of(instance->names[instance->at]), false);
    flue_buffer_byte(&path, 0);
    if (path.failed)
        rd_failed(run, "no memory for a tag");
    else
        metadata(run, (const char *)path.data, got_tag);
    flue_buffer_destroy(&path);
}

static void got_tag_names(struct rd_run *run)
{
    struct instance *instance = run->state;
    struct flue_bytes rest = run->ask.response;
    /* 404: no tag, or tags are not allowed in the instance's metadata */
    if (rd_status(run) != 200 && rd_status(run) != 404) {
        rd_unexpected(run);
        return;
    }
    if (rd_status(run) == 404 && is_eks(run)) {
        rd_tags_begin(run, instance->region, instance->id, take_tag);
        return;
    }
    while (rd_status(run) == 200 && rest.size && instance->count < TAGS_MAX) {
        size_t end = flue_bytes_find(rest, '\n');
        struct flue_bytes line = end == SIZE_MAX ? rest : flue_bytes_first(rest, end);
        rest = end == SIZE_MAX ? flue_bytes("", 0) : flue_bytes_from(rest, end + 1);
        if (line.size && line.data[line.size - 1] == '\r')
            line.size--;
        if (line.size == 0 || line.size > 128 || !flue_utf8_valid(line) ||
            memchr(line.data, 0, line.size))
            continue;
        char *name = flue_arena_string(&run->arena, line);
        if (name && wants_tag(run, name))
            instance->names[instance->count++] = name;
    }
    next_tag(run);
}

/* ---- the instance ---------------------------------------------------------------------------- */

static void got_host_name(struct rd_run *run)
{
    if (rd_status(run) != 200) {
        rd_unexpected(run);
        return;
    }
    const struct instance *instance = run->state;
    rd_put(run, RD_HOST_NAME, rd_line(run));
    bool tags = is_eks(run) ? rd_wants(run, RD_CLUSTER_NAME) : config_of(run)->tags.count > 0;
    if (!tags)
        rd_found(run);
    else if (is_eks(run) || config_of(run)->tags_from_imds)
        metadata(run, "/latest/meta-data/tags/instance", got_tag_names);
    else
        rd_tags_begin(run, instance->region, instance->id, take_tag);
}

static const char *text_of(struct rd_run *run, json_t *object, const char *key)
{
    return flue_arena_string(&run->arena,
                             flue_bytes_of(json_string_value(json_object_get(object, key))));
}

static void got_document(struct rd_run *run)
{
    json_t *root = rd_status(run) == 200 ? rd_object(run) : NULL;
    struct instance *instance = flue_arena_zalloc(&run->arena, 1, sizeof *instance);
    if (!root || !instance) {
        json_decref(root);
        rd_unexpected(run);
        return;
    }
    run->state = instance;
    instance->region = text_of(run, root, "region");
    instance->id = text_of(run, root, "instanceId");
    rd_put(run, RD_CLOUD_PROVIDER, FLUE_BYTES("aws"));
    rd_put(run, RD_CLOUD_PLATFORM, is_eks(run) ? FLUE_BYTES("aws_eks") : FLUE_BYTES("aws_ec2"));
    rd_put_json(run, RD_CLOUD_REGION, root, "region");
    rd_put_json(run, RD_CLOUD_ACCOUNT_ID, root, "accountId");
    rd_put_json(run, RD_CLOUD_ZONE, root, "availabilityZone");
    rd_put_json(run, RD_HOST_ID, root, "instanceId");
    rd_put_json(run, RD_HOST_IMAGE_ID, root, "imageId");
    rd_put_json(run, RD_HOST_TYPE, root, "instanceType");
    json_decref(root);
    metadata(run, "/latest/meta-data/hostname", got_host_name);
}

static void got_token(struct rd_run *run)
{
    unsigned status = rd_status(run);
    struct flue_bytes token = rd_line(run);
    run->token = NULL;
    if (status == 200 && token.size && token.size < 4096)
        run->token = flue_arena_string(&run->arena, token);
    if (run->token || status == 403 || status == 404 || status == 405)
        metadata(run, "/latest/dynamic/instance-identity/document", got_document);
    else
        rd_unexpected(run);
}

static void ask_instance(struct rd_run *run)
{
    const char *off = rd_environment("AWS_EC2_METADATA_DISABLED");
    const char *mode = rd_environment("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
    if (off && strcasecmp(off, "true") == 0) {
        rd_absent(run, "AWS_EC2_METADATA_DISABLED is true");
        return;
    }
    run->endpoint = rd_environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    if (!run->endpoint)
        run->endpoint = mode && strcasecmp(mode, "ipv6") == 0 ? "http://[fd00:ec2::254]"
                                                              : "http://169.254.169.254";
    memset(&run->tls, 0, sizeof run->tls);
    run->ask.field_count = 0;
    rd_field(run, "x-aws-ec2-metadata-token-ttl-seconds", "21600");
    rd_ask(run, "PUT", "/latest/api/token", got_token);
}

void rd_ec2_begin(struct rd_run *run)
{
    ask_instance(run);
}

/* ---- eks ------------------------------------------------------------------------------------- */

static void got_version(struct rd_run *run)
{
    json_t *root = rd_status(run) == 200 ? rd_object(run) : NULL;
    const char *version = json_string_value(json_object_get(root, "gitVersion"));
    bool here = version && strstr(version, "-eks-"), known = version != NULL;
    json_decref(root);
    if (!known) {
        rd_unexpected(run);
        return;
    }
    if (!here) {
        rd_absent(run, "the API server is not of EKS");
        return;
    }
    const struct rd_switches *on = run->attributes;
    if (on->on[RD_CLOUD_ACCOUNT_ID] || on->on[RD_CLOUD_REGION] || on->on[RD_CLOUD_ZONE] ||
        on->on[RD_HOST_ID] || on->on[RD_HOST_NAME] || on->on[RD_HOST_TYPE] ||
        on->on[RD_HOST_IMAGE_ID] || on->on[RD_CLUSTER_NAME]) {
        ask_instance(run);
        return;
    }
    rd_put(run, RD_CLOUD_PROVIDER, FLUE_BYTES("aws"));
    rd_put(run, RD_CLOUD_PLATFORM, FLUE_BYTES("aws_eks"));
    rd_found(run);
}

static void ask_version(struct rd_run *run)
{
    run->ask.field_count = 0;
    if (run->token)
        rd_field(run, "authorization", run->token);
    rd_get(run, "/version", got_version);
}

void rd_eks_begin(struct rd_run *run)
{
    if (!rd_environment("KUBERNETES_SERVICE_HOST"))
        rd_absent(run, "KUBERNETES_SERVICE_HOST is not set");
    else
        rd_cluster(run, RD_AUTH_SERVICE_ACCOUNT, NULL, ask_version);
}
