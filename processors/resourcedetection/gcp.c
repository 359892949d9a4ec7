/* gcp.c: Compute Engine, GKE, Cloud Run and Cloud Functions, by the metadata server; labels of an
 * instance by the Compute API, with the instance's own service account.
 *
 * One small question for each fact: the recursive listing would hold the keys of the instance too.
 * Sources: Google Cloud, "About VM metadata"; google-auth compute_engine/_metadata.py
 * (GCE_METADATA_HOST, the flavor header in both directions); Cloud Run container contract; Compute
 * Engine API, instances.get; gcloud's CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE. */
#include <stdio.h>

#include "archive/object/escape.h"
#include "collector/base/log.h"
#include "processors/resourcedetection/detect.h"

enum platform { GCE, GKE, RUN_SERVICE, RUN_JOB, FUNCTIONS };

struct question {
    const char *path;
    enum rd_name name;
    void (*take)(struct rd_run *run, struct flue_bytes value); /* NULL: as it is */
    unsigned platforms;                                        /* 1 << enum platform */
    bool optional;                                             /* 404 is fine */
};

struct instance {
    const char *project, *zone, *name;
};

#define VM         (1u << GCE | 1u << GKE)
#define SERVERLESS (1u << RUN_SERVICE | 1u << RUN_JOB | 1u << FUNCTIONS)

/* "projects/123/zones/us-central1-c" */
static struct flue_bytes last_part(struct flue_bytes value)
{
    for (size_t i = value.size; i > 0; i--)
        if (value.data[i - 1] == '/')
            return flue_bytes_from(value, i);
    return value;
}

static size_t last_dash(struct flue_bytes value)
{
    for (size_t i = value.size; i > 0; i--)
        if (value.data[i - 1] == '-')
            return i - 1;
    return SIZE_MAX;
}

static void take_zone(struct rd_run *run, struct flue_bytes value)
{
    struct flue_bytes zone = last_part(value);
    size_t dash = last_dash(zone);
    rd_put(run, RD_CLOUD_ZONE, zone);
    if (dash != SIZE_MAX)
        rd_put(run, RD_CLOUD_REGION, flue_bytes_first(zone, dash));
}

/* A cluster's location is a zone ("us-central1-c") or a region ("us-central1"). */
static void take_location(struct rd_run *run, struct flue_bytes value)
{
    size_t dashes = 0;
    for (size_t i = 0; i < value.size; i++)
        dashes += value.data[i] == '-';
    if (dashes == 2)
        take_zone(run, value);
    else
        rd_put(run, RD_CLOUD_REGION, value);
}

static void take_region(struct rd_run *run, struct flue_bytes value)
{
    rd_put(run, RD_CLOUD_REGION, last_part(value));
}

static void take_type(struct rd_run *run, struct flue_bytes value)
{
    rd_put(run, RD_HOST_TYPE, last_part(value));
}

/* "projects/123/zones/us-central1-c/instanceGroupManagers/name", or regions */
static void take_group(struct rd_run *run, struct flue_bytes value)
{
    static const char manager[] = "/instanceGroupManagers/";
    char text[512], *at;
    if (value.size >= sizeof text || memchr(value.data, 0, value.size))
        return;
    memcpy(text, value.data, value.size);
    text[value.size] = 0;
    if (!(at = strstr(text, manager)))
        return;
    *at = 0;
    const char *name = at + sizeof manager - 1, *zone = strstr(text, "/zones/"),
               *region = strstr(text, "/regions/");
    rd_put(run, RD_GROUP_NAME, flue_bytes_of(name));
    if (zone)
        rd_put(run, RD_GROUP_ZONE, flue_bytes_of(zone + 7));
    else if (region)
        rd_put(run, RD_GROUP_REGION, flue_bytes_of(region + 9));
}

static const struct question questions[] = {
    {"project/project-id", RD_CLOUD_ACCOUNT_ID, NULL, VM | SERVERLESS, false},
    {"instance/zone", RD_CLOUD_ZONE, take_zone, 1u << GCE, false},
    {"instance/id", RD_HOST_ID, NULL, VM, false},
    {"instance/name", RD_HOST_NAME, NULL, 1u << GCE, false},
    /* not there with workload identity */
    {"instance/name", RD_HOST_NAME, NULL, 1u << GKE, true},
    {"instance/machine-type", RD_HOST_TYPE, take_type, 1u << GCE, false},
    {"instance/hostname", RD_GCE_HOSTNAME, NULL, 1u << GCE, true},
    {"instance/name", RD_GCE_NAME, NULL, 1u << GCE, true},
    {"instance/attributes/created-by", RD_GROUP_NAME, take_group, 1u << GCE, true},
    {"instance/attributes/cluster-name", RD_CLUSTER_NAME, NULL, 1u << GKE, false},
    {"instance/attributes/cluster-location", RD_CLOUD_REGION, take_location, 1u << GKE, false},
    {"instance/id", RD_FAAS_INSTANCE, NULL, SERVERLESS, false},
    {"instance/region", RD_CLOUD_REGION, take_region, SERVERLESS, false},
};

static enum platform platform(void)
{
    if (rd_environment("KUBERNETES_SERVICE_HOST"))
        return GKE;
    if (rd_environment("FUNCTION_TARGET"))
        return FUNCTIONS;
    if (rd_environment("CLOUD_RUN_JOB"))
        return RUN_JOB;
    return rd_environment("K_SERVICE") && rd_environment("K_CONFIGURATION") ? RUN_SERVICE : GCE;
}

static const struct rd_tagged_config *config_of(const struct rd_run *run)
{
    return (const void *)((const char *)run->config + run->detector->config);
}

static bool wants_labels(const struct rd_run *run)
{
    return config_of(run)->tags.count && platform() == GCE;
}

/* Which instance the labels are asked of. */
static const char **place_of(struct instance *instance, const struct question *question)
{
    return question->name == RD_CLOUD_ACCOUNT_ID ? &instance->project
           : question->name == RD_CLOUD_ZONE     ? &instance->zone
           : question->name == RD_HOST_NAME      ? &instance->name
                                                 : NULL;
}

static bool wanted(const struct rd_run *run, const struct question *question)
{
    if (!(question->platforms >> platform() & 1))
        return false;
    if (wants_labels(run) && place_of(run->state, question))
        return true;
    if (question->take == take_zone || question->take == take_location)
        return rd_wants(run, RD_CLOUD_ZONE) || rd_wants(run, RD_CLOUD_REGION);
    if (question->take == take_group)
        return rd_wants(run, RD_GROUP_NAME) || rd_wants(run, RD_GROUP_ZONE) ||
               rd_wants(run, RD_GROUP_REGION);
    return rd_wants(run, question->name);
}

static void put_platform(struct rd_run *run)
{
    static const char *const names[] = {
        [GCE] = "gcp_compute_engine",        [GKE] = "gcp_kubernetes_engine",
        [RUN_SERVICE] = "gcp_cloud_run",     [RUN_JOB] = "gcp_cloud_run",
        [FUNCTIONS] = "gcp_cloud_functions",
    };
    enum platform at = platform();
    rd_put(run, RD_CLOUD_PROVIDER, FLUE_BYTES("gcp"));
    rd_put(run, RD_CLOUD_PLATFORM, flue_bytes_of(names[at]));
    if (at == RUN_SERVICE || at == FUNCTIONS) {
        rd_put(run, RD_FAAS_NAME, flue_bytes_of(rd_environment("K_SERVICE")));
        rd_put(run, RD_FAAS_VERSION, flue_bytes_of(rd_environment("K_REVISION")));
    } else if (at == RUN_JOB) {
        rd_put(run, RD_FAAS_NAME, flue_bytes_of(rd_environment("CLOUD_RUN_JOB")));
        rd_put(run, RD_JOB_EXECUTION, flue_bytes_of(rd_environment("CLOUD_RUN_EXECUTION")));
        rd_put(run, RD_JOB_TASK, flue_bytes_of(rd_environment("CLOUD_RUN_TASK_INDEX")));
    }
}

/* ---- labels ---------------------------------------------------------------------------------- */

static void without_labels(struct rd_run *run, const char *why)
{
    flue_log(FLUE_WARN, "resourcedetection", "labels of the instance are left out",
             FLUE_S("detector", run->detector->name), FLUE_S("grant", "compute.instances.get"),
             FLUE_S("error", why), FLUE_LOG_END);
    put_platform(run);
    rd_found(run);
}

static void got_labels(struct rd_run *run)
{
    json_t *root = rd_status(run) == 200 ? rd_object(run) : NULL, *value;
    char why[64], name[300];
    const char *key;

    snprintf(why, sizeof why, "HTTP status %u", run->ask.status);
    if (!root) {
        without_labels(run, run->ask.error.code ? run->ask.error.text : why);
        return;
    }
    json_object_foreach(json_object_get(root, "labels"), key, value)
    {
        if (!json_is_string(value) || strlen(key) > 128 || !rd_matches(&config_of(run)->tags, key))
            continue;
        snprintf(name, sizeof name, "gcp.gce.instance.labels.%s", key);
        rd_put_named(run, flue_bytes_of(name),
                     flue_bytes(json_string_value(value), json_string_length(value)));
    }
    json_decref(root);
    put_platform(run);
    rd_found(run);
}

static void got_token(struct rd_run *run)
{
    const struct instance *instance = run->state;
    const char *host = rd_environment("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE");
    json_t *root = rd_status(run) == 200 ? rd_object(run) : NULL;
    const char *token = json_string_value(json_object_get(root, "access_token"));
    struct flue_buffer path;

    bool good = token && *token && !strpbrk(token, "\r\n");
    run->token = good ? flue_arena_printf(&run->arena, "Bearer %s", token) : NULL;
    json_decref(root);
    if (!run->token) {
        without_labels(run, "the metadata server gives no token of the default service account");
        return;
    }
    const char *const parts[] = {"/compute/v1/projects/", instance->project, "/zones/",
                                 instance->zone,          "/instances/",     instance->name};
    flue_buffer_init(&path, 4096);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        flue_url_escape(&path, flue_bytes_of(parts[i]), i % 2 == 0);
    flue_buffer_text(&path, "?fields=labels");
    flue_buffer_byte(&path, 0);
    run->endpoint = host ? host : "https://compute.googleapis.com";
    run->ask.field_count = 0;
    rd_field(run, "authorization", run->token);
    if (path.failed)
        without_labels(run, "no memory for a question");
    else
        rd_get(run, (const char *)path.data, got_labels);
    flue_buffer_destroy(&path);
}

static void ask_labels(struct rd_run *run)
{
    const struct instance *instance = run->state;
    if (!instance->project || !instance->zone || !instance->name) {
        without_labels(run, "the metadata server does not say which instance this is");
        return;
    }
    run->ask.field_count = 0;
    rd_field(run, "metadata-flavor", "Google");
    rd_get(run, "/computeMetadata/v1/instance/service-accounts/default/token", got_token);
}

/* ---- questions ------------------------------------------------------------------------------- */

static void answer(struct rd_run *run);

static void go_on(struct rd_run *run)
{
    char path[128];
    while (run->step < sizeof questions / sizeof *questions && !wanted(run, &questions[run->step]))
        run->step++;
    if (run->step == sizeof questions / sizeof *questions) {
        if (wants_labels(run)) {
            ask_labels(run);
            return;
        }
        put_platform(run);
        rd_found(run);
        return;
    }
    snprintf(path, sizeof path, "/computeMetadata/v1/%s", questions[run->step].path);
    run->ask.field_count = 0;
    rd_field(run, "metadata-flavor", "Google");
    rd_get(run, path, answer);
}

static void answer(struct rd_run *run)
{
    const struct question *question = &questions[run->step];
    unsigned status = rd_status(run);
    struct flue_bytes value = rd_line(run);
    /* Whoever answers here without this header is somebody else. */
    if (status && !flue_bytes_is(flue_call_header(&run->ask.call, "metadata-flavor"), "Google")) {
        rd_failed(run, "%s answers without Metadata-Flavor: Google: it is no metadata server",
                  run->endpoint);
        return;
    }
    if (status != 200 && !(status == 404 && question->optional)) {
        rd_unexpected(run);
        return;
    }
    if (status == 200 && place_of(run->state, question))
        *place_of(run->state, question) = flue_arena_string(&run->arena, last_part(value));
    if (status == 200 && question->take)
        question->take(run, value);
    else if (status == 200)
        rd_put(run, question->name, value);
    run->step++;
    go_on(run);
}

void rd_gcp_begin(struct rd_run *run)
{
    const char *host = rd_environment("GCE_METADATA_HOST");
    run->endpoint = flue_arena_printf(&run->arena, "http://%s", host ? host : "169.254.169.254");
    memset(&run->tls, 0, sizeof run->tls);
    run->step = 0;
    run->state = flue_arena_zalloc(&run->arena, 1, sizeof(struct instance));
    if (!run->endpoint || !run->state)
        rd_failed(run, "no memory for the endpoint");
    else
        go_on(run);
}
