/* gcp.c: Compute Engine, GKE, Cloud Run and Cloud Functions, by the metadata server.
 *
 * One small question for each fact: the recursive listing would hold the keys of the instance too.
 * Sources: Google Cloud, "About VM metadata"; google-auth compute_engine/_metadata.py
 * (GCE_METADATA_HOST, the flavor header in both directions); Cloud Run container contract. */
#include <stdio.h>

#include "processors/resourcedetection/detect.h"

enum platform { GCE, GKE, RUN_SERVICE, RUN_JOB, FUNCTIONS };

struct question {
    const char *path;
    enum rd_name name;
    void (*take)(struct rd_run *run, struct flue_bytes value); /* NULL: as it is */
    unsigned platforms;                                        /* 1 << enum platform */
    bool optional;                                             /* 404 is fine */
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

static bool wanted(const struct rd_run *run, const struct question *question)
{
    if (!(question->platforms >> platform() & 1))
        return false;
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
        [GCE] = "gcp_compute_engine",  [GKE] = "gcp_kubernetes_engine",
        [RUN_SERVICE] = "gcp_cloud_run", [RUN_JOB] = "gcp_cloud_run",
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

static void answer(struct rd_run *run);

static void go_on(struct rd_run *run)
{
    char path[128];
    while (run->step < sizeof questions / sizeof *questions &&
           !wanted(run, &questions[run->step]))
        run->step++;
    if (run->step == sizeof questions / sizeof *questions) {
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
    if (!run->endpoint)
        rd_failed(run, "no memory for the endpoint");
    else
        go_on(run);
}
