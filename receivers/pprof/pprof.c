/* pprof.c: POST /v1/pprof, one profile a request, as the OpenTelemetry Collector's receiver of the same
 * name takes it; with what that one lacks, a resource: from the query string and from named headers.
 *
 * Of the Collector's four blocks (server, remote, file, self) only `server` is here; the others are
 * unknown keys, and named as such. Answers 204, or text/plain with the status of the error.
 * Source: opentelemetry-collector-contrib, receiver/pprofreceiver. */
#include <stdio.h>

#include "collector/base/clock.h"
#include "collector/base/codec.h"
#include "collector/component.h"
#include "collector/net/server.h"
#include "proto/convert/profile_name.h"
#include "proto/pprof/names.h"
#include "proto/pprof/repair.h"
#include "receivers/pprof/attributes.h"

#define IN_LINE_MAX    (64u * 1024) /* larger bodies are inflated on the pool */
#define RETRY_AFTER_MS 5000

struct pprof_server {
    struct flue_server_config http; /* squashed */
    struct flue_map resource_headers;
};
struct pprof_config {
    const struct pprof_server *server;
};
_Static_assert(offsetof(struct pprof_server, http) == 0, "its rows stand in server_fields too");

static const struct flue_field server_fields[] = {
    FLUE_ENDPOINT(struct flue_server_config, endpoint, .required = true,
                  .help = "address and port to listen on; port 0: any free one"),
    FLUE_SQUASH(struct pprof_server, http, struct flue_server_config,
                flue_server_http_rest_fields),
    FLUE_MAP(struct pprof_server, resource_headers,
             .help = "request headers that name the resource: header to attribute, for example "
                     "X-Service: service.name; the query string comes first"),
    FLUE_FIELDS_END,
};
static const struct flue_field pprof_fields[] = {
    FLUE_OPTIONAL(struct pprof_config, server, struct pprof_server, server_fields,
                  .help = "listen for POST /v1/pprof"),
    FLUE_FIELDS_END,
};

struct pprof {
    const struct pprof_server *config;
    const char *id;
    struct flue_consumer *consumer;
    struct flue_server_set *servers;
    struct flue_metrics *metrics;
    struct flue_route route;
    struct flue_metric *accepted, *refused, *failed, *repaired;
    _Atomic(struct flue_metric *) reasons[FLUE_CODES]; /* made at first use */
};

struct push {
    struct pprof *receiver;
    struct flue_request *request;
    struct flue_account *account;
    struct flue_pprof_limits limits;
    enum flue_coding coding;
    struct flue_job job;
    struct flue_block *body;
    struct flue_error error;
    struct flue_pprof_attributes attributes;
    uint64_t samples;
    struct flue_delivery *delivery; /* NULL: not begun, or done */
    bool gone;
};

/* ---- answers ---------------------------------------------------------------------------------- */

static void count_refusal(struct pprof *receiver, enum flue_code code)
{
    struct flue_metric *metric =
        atomic_load_explicit(&receiver->reasons[code], memory_order_acquire);
    if (!metric) {
        const struct flue_label labels[] = {
            {"receiver", receiver->id}, {"reason", flue_code_facts(code)->name}, {NULL, NULL}};
        metric = flue_metric(receiver->metrics, FLUE_COUNTER, "receiver_refused_requests",
                             "requests that were not taken, by reason", labels);
        atomic_store_explicit(&receiver->reasons[code], metric, memory_order_release);
    }
    flue_metric_add(metric, 1);
}

static void refuse(struct flue_request *request, void *arg, const struct flue_error *error)
{
    unsigned status = flue_code_facts(error->code)->http;
    char after[16], text[sizeof error->text + 2];
    struct flue_header headers[3] = {
        {FLUE_BYTES("content-type"), FLUE_BYTES("text/plain; charset=utf-8")},
        {FLUE_BYTES("x-content-type-options"), FLUE_BYTES("nosniff")}};
    size_t count = 2;
    count_refusal(arg, error->code);
    if (status == 429 || status == 503) {
        uint32_t ms = error->retry_after_ms ? error->retry_after_ms : RETRY_AFTER_MS;
        snprintf(after, sizeof after, "%u", (ms + 999) / 1000);
        headers[count++] = (struct flue_header){FLUE_BYTES("retry-after"), flue_bytes_of(after)};
    }
    snprintf(text, sizeof text, "%s\n", error->text);
    const struct flue_response response = {
        .status = status, .headers = headers, .header_count = count, .body = flue_bytes_of(text)};
    flue_respond(request, &response);
}

static void finish(struct push *push, const struct flue_error *error)
{
    struct flue_request *request = push->request;
    request->user = NULL;
    request->gone = NULL;
    flue_block_unref(push->body);
    push->body = NULL;
    if (error && error->code != FLUE_OK) {
        refuse(request, push->receiver, error);
        return;
    }
    const struct flue_response response = {.status = 204};
    flue_respond(request, &response);
}

/* ---- sending ---------------------------------------------------------------------------------- */

static void delivered(void *arg, const struct flue_outcome *outcome)
{
    struct push *push = arg;
    struct pprof *receiver = push->receiver;
    enum flue_code code = outcome->error.code;
    flue_metric_add(code == FLUE_OK                                      ? receiver->accepted
                    : code == FLUE_INTERNAL || code == FLUE_NO_MEMORY ? receiver->failed
                                                                        : receiver->refused,
                    (int64_t)push->samples);
    push->delivery = NULL;
    finish(push, &outcome->error);
}

/* The host of "10.1.2.3:41544" or "[::1]:9"; empty for "unix". */
static struct flue_bytes address_of(struct flue_bytes peer)
{
    if (peer.size > 0 && peer.data[0] == '[')
        return flue_bytes_from(flue_bytes_first(peer, flue_bytes_find(peer, ']')), 1);
    size_t colon = flue_bytes_find(peer, ':');
    return colon == SIZE_MAX ? flue_bytes("", 0) : flue_bytes_first(peer, colon);
}

static struct flue_origin *origin_of(const struct push *push)
{
    struct flue_request *request = push->request;
    struct flue_bytes peer = flue_bytes_of(request->peer);
    struct flue_origin origin = {
        .received_ns = flue_wall_ns(),
        .receiver = flue_bytes_of(push->receiver->id),
        .transport = FLUE_BYTES("http"),
        .peer = peer,
        .peer_address = address_of(peer),
        .tenant = flue_request_header(request, "x-scope-orgid"),
        .tls_subject = flue_bytes_of(request->tls_subject),
    };
    if (request->config->include_metadata) {
        struct flue_attribute *headers =
            flue_arena_zalloc(&request->arena, request->header_count + 1, sizeof *headers);
        for (size_t i = 0; headers && i < request->header_count; i++) {
            struct flue_bytes name = request->headers[i].name;
            if (flue_bytes_is(name, "authorization") || flue_bytes_is(name, "cookie") ||
                flue_bytes_is(name, "proxy-authorization"))
                continue;
            headers[origin.header_count++] = (struct flue_attribute){
                name, {.type = FLUE_VALUE_STRING, .text = request->headers[i].value}};
        }
        if (!headers)
            return NULL;
        origin.headers = headers;
    }
    return flue_origin_new(&origin);
}

static void send_payload(struct push *push, struct flue_payload *payload,
                         const struct flue_counts *counts)
{
    struct flue_origin *origin = origin_of(push);
    struct flue_batch *batch = NULL;
    struct flue_delivery *delivery = NULL;
    push->samples = counts->samples;
    if (origin)
        batch = flue_batch_new(payload, origin, *counts, push->account);
    else
        flue_payload_unref(payload);
    flue_origin_unref(origin);
    if (batch)
        delivery = flue_delivery_begin(push->request->loop, push->request->deadline_ns, delivered,
                                       push);
    if (!delivery) {
        struct flue_outcome outcome = {0};
        if (batch)
            flue_batch_unref(batch);
        flue_fail(&outcome.error, FLUE_NO_MEMORY, "no memory to take the request");
        delivered(push, &outcome);
        return;
    }
    push->delivery = delivery;
    flue_consumer_push(push->receiver->consumer, batch, delivery);
    flue_delivery_end(delivery);
}

/* ---- the profile ------------------------------------------------------------------------------ */

static enum flue_code name_of(const struct push *push, const struct flue_pprof_type_name *types,
                              size_t count, struct flue_bytes *name, struct flue_error *error)
{
    struct flue_arena *arena = &push->request->arena;
    struct flue_profile_type *pairs = flue_arena_zalloc(arena, count + 1, sizeof *pairs);
    struct flue_profile_type no_period = {FLUE_BYTES(""), FLUE_BYTES("")};
    *name = push->attributes.name;
    if (name->size > 0)
        return FLUE_OK;
    for (size_t i = 0; pairs && i < count; i++)
        pairs[i] = (struct flue_profile_type){types[i].type, types[i].unit};
    *name = pairs ? flue_profile_name(pairs, count, no_period, arena) : flue_bytes(NULL, 0);
    return name->data ? FLUE_OK
                      : flue_fail(error, FLUE_NO_MEMORY, "no memory for the profile's name");
}

static enum flue_code build(struct push *push, const struct flue_pprof_profile *profile,
                            struct flue_bytes name, struct flue_payload **payload,
                            struct flue_counts *counts, struct flue_error *error)
{
    struct flue_pprof_builder *builder = flue_pprof_builder_new(push->account);
    if (!builder)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a profile's labels");
    flue_pprof_builder_keep(builder, push->body);
    flue_pprof_builder_series(builder);
    flue_pprof_builder_label(builder, FLUE_BYTES("__name__"), name);
    for (size_t i = 0; i < push->attributes.count; i++) {
        struct flue_bytes label =
            flue_attribute_label(push->attributes.items[i].name, &push->request->arena);
        flue_pprof_builder_label(builder, label, push->attributes.items[i].value);
    }
    flue_pprof_builder_profile(builder, profile);
    return flue_pprof_builder_finish(builder, payload, counts, error);
}

static void hold(struct push *push, struct flue_pprof_profile *profile, struct flue_block *block)
{
    flue_block_unref(push->body);
    push->body = block;
    profile->bytes = flue_block_bytes(block);
}

/* Checked, repaired where a string needs it, and dated now where it has no time. */
static enum flue_code judge(struct push *push, struct flue_pprof_profile *profile,
                            struct flue_pprof_type_name **types, struct flue_error *error)
{
    struct flue_arena *arena = &push->request->arena;
    struct flue_block *block;
    bool changed = false;
    enum flue_code code = flue_pprof_check_types(profile->bytes, &push->limits, &profile->facts,
                                                 arena, types, error);
    if (code == FLUE_OK && profile->facts.invalid_utf8) {
        code = flue_pprof_repair(profile->bytes, &push->limits, push->account, &block, error);
        if (code == FLUE_OK) {
            flue_metric_add(push->receiver->repaired, 1);
            hold(push, profile, block);
            changed = true;
        }
    }
    if (code == FLUE_OK && profile->facts.time_nanos <= 0) {
        code = flue_pprof_set_time(profile->bytes, (int64_t)flue_wall_ns(), &push->limits,
                                   push->account, &block, error);
        if (code == FLUE_OK) {
            hold(push, profile, block);
            changed = true;
        }
    }
    if (code == FLUE_OK && changed)
        code = flue_pprof_check_types(profile->bytes, &push->limits, &profile->facts, arena, types,
                                      error);
    return code;
}

static void read_body(struct push *push)
{
    struct flue_pprof_type_name *types = NULL;
    struct flue_payload *payload;
    struct flue_counts counts;
    struct flue_pprof_profile profile = {.bytes = flue_block_bytes(push->body)};
    struct flue_bytes name = {0};
    enum flue_code code = judge(push, &profile, &types, &push->error);
    if (code == FLUE_OK && profile.facts.samples == 0) {
        finish(push, NULL); /* nothing to keep */
        return;
    }
    if (code == FLUE_OK)
        code = name_of(push, types, (size_t)profile.facts.sample_types, &name, &push->error);
    if (code == FLUE_OK)
        code = build(push, &profile, name, &payload, &counts, &push->error);
    if (code != FLUE_OK) {
        finish(push, &push->error);
        return;
    }
    flue_block_unref(push->body); /* the payload holds it */
    push->body = NULL;
    send_payload(push, payload, &counts);
}

/* ---- the request ------------------------------------------------------------------------------ */

static void inflate(struct push *push)
{
    struct flue_block *inflated = NULL;
    flue_inflate(push->coding, flue_block_bytes(push->body), push->limits.inflated,
                 FLUE_RATIO_LIMIT, push->account, &inflated, &push->error);
    flue_block_unref(push->body);
    push->body = inflated;
}

static struct push *of_job(struct flue_job *job)
{
    return (struct push *)(void *)((char *)job - offsetof(struct push, job));
}

static void inflate_work(struct flue_job *job)
{
    inflate(of_job(job));
}

static void inflated(struct flue_job *job)
{
    struct push *push = of_job(job);
    if (!push->body) {
        finish(push, &push->error);
    } else if (push->gone) {
        flue_fail(&push->error, FLUE_CANCELLED, "the client went away");
        finish(push, &push->error);
    } else {
        read_body(push);
    }
}

static void body(struct flue_request *request, void *arg)
{
    struct push *push = request->user;
    push->body = request->body;
    request->body = NULL;
    if (push->coding == FLUE_IDENTITY) {
        read_body(push);
        return;
    }
    push->job = (struct flue_job){.loop = request->loop, .work = inflate_work, .done = inflated};
    if (push->body->size > IN_LINE_MAX) {
        flue_pool_submit(request->loop, &push->job);
        return;
    }
    inflate(push);
    inflated(&push->job);
}

static void gone(struct flue_request *request)
{
    struct push *push = request->user;
    if (!push)
        return;
    push->gone = true;
    if (push->delivery)
        flue_delivery_cancel(push->delivery);
}

static enum flue_code parse_head(struct push *push, struct flue_request *request,
                                 struct flue_error *error)
{
    struct flue_bytes encoding = flue_request_header(request, "content-encoding");
    char shown[64];
    if (!flue_coding_by_name(encoding, &push->coding) ||
        !(push->coding == FLUE_IDENTITY ||
          flue_server_codings(request->config) & 1u << push->coding))
        return flue_fail(error, FLUE_BAD_ENCODING, "Content-Encoding \"%s\" is not taken",
                         flue_printable(encoding, shown, sizeof shown));
    return flue_pprof_attributes_read(request->query, &push->receiver->config->resource_headers,
                                      request->headers, request->header_count, &request->arena,
                                      &push->attributes, error);
}

static void head(struct flue_request *request, void *arg)
{
    struct pprof *receiver = arg;
    struct flue_error error;
    struct push *push = flue_arena_zalloc(&request->arena, 1, sizeof *push);
    if (!push) {
        flue_fail(&error, FLUE_NO_MEMORY, "no memory to take the request");
        refuse(request, receiver, &error);
        return;
    }
    push->receiver = receiver;
    push->request = request;
    if (parse_head(push, request, &error) != FLUE_OK) {
        refuse(request, receiver, &error);
        return;
    }
    push->account = flue_consumer_account(receiver->consumer);
    push->limits = (struct flue_pprof_limits){(size_t)request->config->max_request_body_size,
                                              FLUE_RATIO_LIMIT};
    request->user = push;
    request->gone = gone;
    flue_request_admit(request, push->account, 0);
}

/* ---- the component ---------------------------------------------------------------------------- */

static void check(const void *config, struct flue_check *check)
{
    const struct pprof_config *pprof = config;
    if (!pprof->server) {
        flue_check_fail(check, "", "needs a server block: server: {endpoint: localhost:4041}");
        return;
    }
    flue_server_check(&pprof->server->http, "server", check);
    for (size_t i = 0; i < pprof->server->resource_headers.count; i++) {
        const struct flue_map_entry *entry = &pprof->server->resource_headers.items[i];
        if (!*entry->key || !*entry->value || strncmp(entry->value, "__", 2) == 0)
            flue_check_fail(check, "server.resource_headers",
                            "\"%.64s: %.64s\" must map a header to an attribute that does not "
                            "begin with __", entry->key, entry->value);
    }
}

static enum flue_code create(const struct flue_create *create, void **instance,
                             struct flue_error *error)
{
    struct pprof *receiver = flue_arena_zalloc(create->arena, 1, sizeof *receiver);
    const struct flue_label labels[] = {
        {"receiver", create->id}, {"transport", "http"}, {NULL, NULL}};
    const struct flue_label own[] = {{"receiver", create->id}, {NULL, NULL}};
    if (!receiver)
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory", create->id);
    receiver->config = ((const struct pprof_config *)create->config)->server;
    receiver->id = create->id;
    receiver->consumer = create->profiles;
    receiver->servers = create->servers;
    receiver->metrics = create->metrics;
    receiver->accepted =
        flue_metric(create->metrics, FLUE_COUNTER, "receiver_accepted_profile_samples",
                    "samples taken into the pipeline", labels);
    receiver->refused =
        flue_metric(create->metrics, FLUE_COUNTER, "receiver_refused_profile_samples",
                    "samples that the pipeline did not take", labels);
    receiver->failed =
        flue_metric(create->metrics, FLUE_COUNTER, "receiver_failed_profile_samples",
                    "samples lost to an error inside", labels);
    receiver->repaired = flue_metric(create->metrics, FLUE_COUNTER, "receiver_repaired_profiles",
                                     "profiles with strings that were not UTF-8", own);
    *instance = receiver;
    return FLUE_OK;
}

static enum flue_code start(void *instance, struct flue_error *error)
{
    struct pprof *receiver = instance;
    if (!receiver->consumer || !receiver->config)
        return FLUE_OK;
    receiver->route = (struct flue_route){.method = "POST", .path = "/v1/pprof", .arg = receiver,
                                          .head = head, .body = body, .refuse = refuse};
    return flue_server_add(receiver->servers, receiver->id, &receiver->config->http,
                           &receiver->route, 1, error);
}

/* The instance lies in the arena of its graph. */
static void destroy(void *instance)
{
}

const struct flue_component flue_receiver_pprof = {
    .kind = FLUE_RECEIVER,
    .name = "pprof",
    .signals = FLUE_PROFILES,
    .stability = FLUE_BETA,
    .summary = "takes pprof by POST /v1/pprof, with a resource from query and headers",
    .config_size = sizeof(struct pprof_config),
    .fields = pprof_fields,
    .check = check,
    .create = create,
    .start = start,
    .destroy = destroy,
};
