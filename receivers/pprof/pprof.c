/* pprof.c: POST /v1/pprof, one profile a request, as the OpenTelemetry Collector's receiver of the
 * same name takes it; with what that one lacks, a resource: from the query string and from named
 * headers.
 *
 * Of the Collector's four blocks (server, remote, file, self) only `server` is here; the others are
 * unknown keys, and named as such. Answers 204, or text/plain with the status of the error.
 * Source: opentelemetry-collector-contrib, receiver/pprofreceiver. */
#include <stdio.h>

#include "collector/base/clock.h"
#include "collector/component.h"
#include "collector/net/intake.h"
#include "collector/net/unpack.h"
#include "proto/convert/profile_name.h"
#include "proto/pprof/names.h"
#include "proto/pprof/repair.h"
#include "receivers/pprof/attributes.h"

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
    FLUE_SQUASH(struct pprof_server, http, struct flue_server_config, flue_server_http_rest_fields),
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
    struct flue_server_set *servers;
    struct flue_intake intake;
    struct flue_route route;
    struct flue_metric *repaired;
};

struct push {
    struct flue_intake_push intake; /* first */
    struct pprof *receiver;
    struct flue_request *request;
    struct flue_account *account;
    struct flue_pprof_limits limits;
    struct flue_unpack body;
    struct flue_error error;
    struct flue_pprof_attributes attributes;
};

/* ---- answers -------------------------------------------------------------------------------- */

static void refuse(struct flue_request *request, void *arg, const struct flue_error *error)
{
    unsigned status = flue_code_facts(error->code)->http;
    char after[16], text[sizeof error->text + 2];
    struct flue_header headers[3] = {
        {FLUE_BYTES("content-type"), FLUE_BYTES("text/plain; charset=utf-8")},
        {FLUE_BYTES("x-content-type-options"), FLUE_BYTES("nosniff")}};
    size_t count = 2;
    flue_intake_count_refusal(&((struct pprof *)arg)->intake, error->code);
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
    flue_block_unref(push->body.block);
    push->body.block = NULL;
    if (error && error->code != FLUE_OK) {
        refuse(request, push->receiver, error);
        return;
    }
    const struct flue_response response = {.status = 204};
    flue_respond(request, &response);
}

static void delivered(struct flue_intake_push *intake, const struct flue_outcome *outcome)
{
    finish((struct push *)(void *)intake, &outcome->error);
}

/* ---- the profile ---------------------------------------------------------------------------- */

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
    flue_pprof_builder_keep(builder, push->body.block);
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
    flue_block_unref(push->body.block);
    push->body.block = block;
    profile->bytes = flue_block_bytes(block);
}

/* Checked, repaired where a string needs it, and dated now where it has no time. */
static enum flue_code judge(struct push *push, struct flue_pprof_profile *profile,
                            struct flue_pprof_type_name **types, struct flue_error *error)
{
    struct flue_arena *arena = &push->request->arena;
    struct flue_block *block;
    bool changed = false;
    enum flue_code code =
        flue_pprof_check_types(profile->bytes, &push->limits, &profile->facts, arena, types, error);
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
    struct flue_pprof_profile profile = {.bytes = flue_block_bytes(push->body.block)};
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
    flue_block_unref(push->body.block); /* the payload holds it */
    push->body.block = NULL;
    flue_intake_push(&push->intake, payload, &counts);
}

/* ---- the request ---------------------------------------------------------------------------- */

static void unpacked(struct flue_unpack *body)
{
    struct push *push = (struct push *)(void *)((char *)body - offsetof(struct push, body));
    if (body->block)
        read_body(push);
    else
        finish(push, &body->error);
}

static void gone(struct flue_request *request)
{
    struct push *push = request->user;
    if (!push)
        return;
    push->body.gone = true;
    flue_intake_cancel(&push->intake);
}

static void body(struct flue_request *request, void *arg)
{
    struct push *push = request->user;
    request->gone = gone; /* whose body never came is not told */
    push->body.block = request->body;
    request->body = NULL;
    flue_unpack(&push->body, request->loop);
}

static enum flue_code parse_head(struct push *push, struct flue_request *request,
                                 struct flue_error *error)
{
    struct flue_bytes encoding = flue_request_header(request, "content-encoding");
    char shown[64];
    enum flue_code code =
        flue_intake_admit(&push->receiver->intake, request, &push->account, error);
    if (code)
        return code;
    if (!flue_coding_by_name(encoding, &push->body.coding) ||
        !(push->body.coding == FLUE_IDENTITY ||
          flue_server_codings(request->config) & 1u << push->body.coding))
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
    push->limits = (struct flue_pprof_limits){(size_t)request->config->max_request_body_size,
                                              FLUE_RATIO_LIMIT};
    push->body.limit = push->limits.inflated;
    push->body.account = push->account;
    push->body.done = unpacked;
    push->intake = (struct flue_intake_push){.intake = &receiver->intake,
                                             .request = request,
                                             .transport = FLUE_OVER_HTTP,
                                             .done = delivered};
    request->user = push;
    flue_request_admit(request, push->account, 0);
}

/* ---- the component -------------------------------------------------------------------------- */

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
                            "begin with __",
                            entry->key, entry->value);
    }
}

static enum flue_code create(const struct flue_create *create, void **instance,
                             struct flue_error *error)
{
    struct pprof *receiver = flue_arena_zalloc(create->arena, 1, sizeof *receiver);
    const struct flue_label own[] = {{"receiver", create->id}, {NULL, NULL}};
    if (!receiver)
        return flue_fail(error, FLUE_NO_MEMORY, "%s: no memory", create->id);
    receiver->config = ((const struct pprof_config *)create->config)->server;
    receiver->servers = create->servers;
    flue_intake_init(&receiver->intake, create, 1u << FLUE_OVER_HTTP);
    receiver->repaired = flue_metric(create->metrics, FLUE_COUNTER, "receiver_repaired_profiles",
                                     "profiles with strings that were not UTF-8", own);
    *instance = receiver;
    return flue_server_auth(create, receiver->config ? &receiver->config->http : NULL, error);
}

static enum flue_code start(void *instance, struct flue_error *error)
{
    struct pprof *receiver = instance;
    if (!receiver->intake.consumer || !receiver->config)
        return FLUE_OK;
    receiver->route = (struct flue_route){.method = "POST",
                                          .path = "/v1/pprof",
                                          .arg = receiver,
                                          .head = head,
                                          .body = body,
                                          .refuse = refuse};
    return flue_server_add(receiver->servers, receiver->intake.receiver, &receiver->config->http,
                           &receiver->route, 1, error);
}

static bool stopped(void *instance)
{
    return flue_intake_stopped(&((struct pprof *)instance)->intake);
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
    .stopped = stopped,
    .destroy = destroy,
};
