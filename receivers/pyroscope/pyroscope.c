/* pyroscope.c: profiles from Pyroscope's own clients: /ingest (Go, Node, Ruby, anything) and
 * push.v1.PusherService/Push (Python, Rust, .NET, Alloy), on one listener.
 *
 * What is known of a request becomes a payload in pprof form: a series with the labels that a
 * Pyroscope server would have given it, and the profile's own bytes. */
#include "receivers/pyroscope/pyroscope.h"

#include <stdio.h>

static const struct flue_field pyroscope_server_fields[] = {
    FLUE_ENDPOINT(struct flue_server_config, endpoint, .def = "localhost:4040",
                  .help = "address and port to listen on; port 0: any free one"),
    {.type = FLUE_FIELD_BLOCK,
     .size = sizeof(struct flue_server_config),
     .fields = flue_server_http_rest_fields},
    FLUE_FIELDS_END,
};

static const struct flue_field pyroscope_fields[] = {
    FLUE_SQUASH(struct pyroscope_config, server, struct flue_server_config,
                pyroscope_server_fields),
    FLUE_STRINGS(struct pyroscope_config, trusted,
                 .help =
                     "next hops before this one, as addresses, prefixes (10.0.0.0/8) or unix: of "
                     "what they push only the envelope is checked, not each profile"),
    FLUE_FIELDS_END,
};

static void check(const void *config, struct flue_check *check)
{
    const struct pyroscope_config *pyroscope = config;
    flue_server_check(&pyroscope->server, "", check);
    for (size_t i = 0; i < pyroscope->trusted.count; i++) {
        struct flue_trusted_net net;
        bool unix_socket;
        char path[48];
        const char *text = ((const char *const *)pyroscope->trusted.items)[i];
        snprintf(path, sizeof path, "trusted[%zu]", i);
        if (!flue_trusted_parse(text, &net, &unix_socket))
            flue_check_fail(check, path,
                            "\"%.64s\" is neither an address, nor a prefix like 10.0.0.0/8, nor "
                            "unix",
                            text);
    }
}

static enum flue_code create(const struct flue_create *create, void **instance,
                             struct flue_error *error)
{
    struct pyroscope *receiver = flue_arena_zalloc(create->arena, 1, sizeof *receiver);
    const struct pyroscope_config *config = create->config;
    if (!receiver || !flue_trusted_init(&receiver->trusted, &config->trusted, create->arena))
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory", create->id);
    receiver->config = config;
    receiver->servers = create->servers;
    flue_intake_init(&receiver->intake, create, (1u << FLUE_TRANSPORTS) - 1);
    const struct flue_label labels[] = {{"receiver", create->id}, {NULL, NULL}};
    receiver->rejected_profiles =
        flue_metric(create->metrics, FLUE_COUNTER, "receiver_rejected_profiles",
                    "profiles left out of a request because they are broken", labels);
    receiver->repaired_profiles =
        flue_metric(create->metrics, FLUE_COUNTER, "receiver_repaired_profiles",
                    "profiles with strings that were not UTF-8", labels);
    *instance = receiver;
    return flue_server_auth(create, &config->server, error);
}

static enum flue_code start(void *instance, struct flue_error *error)
{
    struct pyroscope *receiver = instance;
    if (!receiver->intake.consumer)
        return FLUE_OK;
    flue_pyroscope_ingest_route(receiver, "/ingest", &receiver->routes[0]);
    flue_pyroscope_ingest_route(receiver, "/pyroscope/ingest", &receiver->routes[1]);
    flue_pyroscope_push_route(receiver, &receiver->routes[2]);
    return flue_server_add(receiver->servers, receiver->intake.receiver, &receiver->config->server,
                           receiver->routes, 3, error);
}

static bool stopped(void *instance)
{
    return flue_intake_stopped(&((struct pyroscope *)instance)->intake);
}

/* The instance lies in the arena of its graph. */
static void destroy(void *instance)
{
}

const struct flue_component flue_receiver_pyroscope = {
    .kind = FLUE_RECEIVER,
    .name = "pyroscope",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "takes what Pyroscope's clients send: /ingest and push.v1",
    .config_size = sizeof(struct pyroscope_config),
    .fields = pyroscope_fields,
    .check = check,
    .create = create,
    .start = start,
    .stopped = stopped,
    .destroy = destroy,
};
