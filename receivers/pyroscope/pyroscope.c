/* pyroscope.c: profiles from Pyroscope's own clients: /ingest (Go, Node, Ruby, anything) and
 * push.v1.PusherService/Push (Python, Rust, .NET, Alloy), on one listener.
 *
 * What is known of a request becomes a payload in pprof form: a series with the labels that a
 * Pyroscope server would have given it, and the profile's own bytes. */
#include "receivers/pyroscope/pyroscope.h"

#include <stdio.h>

#include "collector/base/clock.h"

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
                 .help = "next hops before this one, as addresses, prefixes (10.0.0.0/8) or unix: of "
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
                            "unix", text);
    }
}

static struct flue_metric *samples_metric(const struct flue_create *create, const char *name,
                                          const char *help, int transport)
{
    static const char *const transports[PYROSCOPE_TRANSPORTS] = {"http", "connect", "grpc"};
    const struct flue_label labels[] = {
        {"receiver", create->id}, {"transport", transports[transport]}, {NULL, NULL}};
    return flue_metric(create->metrics, FLUE_COUNTER, name, help, labels);
}

static enum flue_code create(const struct flue_create *create, void **instance,
                             struct flue_error *error)
{
    struct pyroscope *receiver = flue_arena_zalloc(create->arena, 1, sizeof *receiver);
    const struct pyroscope_config *config = create->config;
    if (!receiver || !flue_trusted_init(&receiver->trusted, &config->trusted, create->arena))
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory", create->id);
    receiver->config = config;
    receiver->id = create->id;
    receiver->consumer = create->profiles;
    receiver->servers = create->servers;
    receiver->metrics = create->metrics;
    for (int i = 0; i < PYROSCOPE_TRANSPORTS; i++) {
        receiver->accepted[i] = samples_metric(create, "receiver_accepted_profile_samples",
                                               "samples taken into the pipeline", i);
        receiver->refused[i] = samples_metric(create, "receiver_refused_profile_samples",
                                              "samples that the pipeline did not take", i);
        receiver->failed[i] = samples_metric(create, "receiver_failed_profile_samples",
                                             "samples lost to an error inside", i);
    }
    const struct flue_label labels[] = {{"receiver", create->id}, {NULL, NULL}};
    receiver->rejected_profiles =
        flue_metric(create->metrics, FLUE_COUNTER, "receiver_rejected_profiles",
                    "profiles left out of a request because they are broken", labels);
    receiver->repaired_profiles =
        flue_metric(create->metrics, FLUE_COUNTER, "receiver_repaired_profiles",
                    "profiles with strings that were not UTF-8", labels);
    *instance = receiver;
    return FLUE_OK;
}

static enum flue_code start(void *instance, struct flue_error *error)
{
    struct pyroscope *receiver = instance;
    if (!receiver->consumer)
        return FLUE_OK;
    pyroscope_ingest_route(receiver, "/ingest", &receiver->routes[0]);
    pyroscope_ingest_route(receiver, "/pyroscope/ingest", &receiver->routes[1]);
    pyroscope_push_route(receiver, &receiver->routes[2]);
    return flue_server_add(receiver->servers, receiver->id, &receiver->config->server,
                           receiver->routes, 3, error);
}

/* ---- counting and sending --------------------------------------------------------------------- */

void pyroscope_count_refusal(struct pyroscope *receiver, enum flue_code code)
{
    struct flue_metric *metric =
        atomic_load_explicit(&receiver->reasons[code], memory_order_acquire);
    if (!metric) {
        const struct flue_label labels[] = {
            {"receiver", receiver->id}, {"reason", flue_code_facts(code)->name}, {NULL, NULL}};
        /* The same metric, whoever asks first. */
        metric = flue_metric(receiver->metrics, FLUE_COUNTER, "receiver_refused_requests",
                             "requests that were not taken, by reason", labels);
        atomic_store_explicit(&receiver->reasons[code], metric, memory_order_release);
    }
    flue_metric_add(metric, 1);
}

static bool kept(struct flue_bytes name)
{
    return !flue_bytes_is(name, "authorization") && !flue_bytes_is(name, "cookie") &&
           !flue_bytes_is(name, "proxy-authorization");
}

static struct flue_origin *origin_of(const struct pyroscope_sending *sending)
{
    static const char *const transports[PYROSCOPE_TRANSPORTS] = {"http", "connect", "grpc"};
    struct flue_request *request = sending->request;
    struct flue_origin origin = {
        .received_ns = flue_wall_ns(),
        .receiver = flue_bytes_of(sending->receiver->id),
        .transport = flue_bytes_of(transports[sending->transport]),
        .peer = flue_bytes_of(request->peer),
        .peer_address = flue_peer_address(request->peer),
        .tenant = flue_request_header(request, "x-scope-orgid"),
        .tls_subject = flue_bytes_of(request->tls_subject),
    };
    if (request->config->include_metadata) {
        struct flue_attribute *headers =
            flue_arena_zalloc(&request->arena, request->header_count + 1, sizeof *headers);
        if (!headers)
            return NULL;
        for (size_t i = 0; i < request->header_count; i++)
            if (kept(request->headers[i].name))
                headers[origin.header_count++] = (struct flue_attribute){
                    request->headers[i].name,
                    {.type = FLUE_VALUE_STRING, .text = request->headers[i].value}};
        origin.headers = headers;
    }
    return flue_origin_new(&origin);
}

static void finished(struct pyroscope_sending *sending, const struct flue_error *error)
{
    struct pyroscope *receiver = sending->receiver;
    struct flue_metric **metrics = error->code == FLUE_OK ? receiver->accepted
                                   : error->code == FLUE_INTERNAL || error->code == FLUE_NO_MEMORY
                                       ? receiver->failed
                                       : receiver->refused;
    flue_metric_add(metrics[sending->transport], (int64_t)sending->samples);
    sending->delivery = NULL;
    sending->done(sending, error);
}

static void delivered(void *arg, const struct flue_outcome *outcome)
{
    finished(arg, &outcome->error);
}

void pyroscope_send(struct pyroscope_sending *sending, struct flue_payload *payload,
                    const struct flue_counts *counts)
{
    struct pyroscope *receiver = sending->receiver;
    struct flue_error error;
    sending->samples = counts->samples;
    sending->delivery = NULL;
    struct flue_origin *origin = origin_of(sending);
    struct flue_batch *batch = NULL;
    struct flue_delivery *delivery = NULL;
    if (origin)
        batch = flue_batch_new(payload, origin, *counts,
                               flue_consumer_account(receiver->consumer));
    else
        flue_payload_unref(payload);
    flue_origin_unref(origin);
    if (batch)
        delivery = flue_delivery_begin(sending->request->loop, sending->request->deadline_ns,
                                       delivered, sending);
    if (!delivery) {
        if (batch)
            flue_batch_unref(batch);
        flue_fail(&error, FLUE_NO_MEMORY, "no memory to take the request");
        finished(sending, &error);
        return;
    }
    sending->delivery = delivery;
    flue_consumer_push(receiver->consumer, batch, delivery);
    flue_delivery_end(delivery);
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
    .destroy = destroy,
};
