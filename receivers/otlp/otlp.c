/* otlp.c: OTLP profiles and traces over gRPC and HTTP, protobuf and JSON.
 *
 * A body becomes one batch: checked and indexed (proto/otlp), named if it has no resource, pushed
 * with a delivery; the outcome becomes the answer in the sender's protocol (collector/net/rpc.h).
 * Profiles and spans that were taken out are a partial success with the true count. A signal that
 * no pipeline of the receiver has is not served. Keys and defaults are the Collector's otlp
 * receiver's; profiles_url_path and service_name_headers are ours.
 *
 * Source: OTLP specification 1.11; otlp receiver of the OpenTelemetry Collector.
 */
#include "collector/net/intake.h"
#include "collector/net/rpc.h"
#include "collector/pipeline/actions.h"
#include "proto/otlp/otlp.h"
#include "proto/otlp/trace.h"
#include "proto/wire/json_budget.h"
#include <ctype.h>
#include <stdlib.h>

#define SERVICE_PREFIX "/opentelemetry.proto.collector.profiles."
#define TRACE_SERVICE  "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
#define ALL_CODINGS    ((1u << FLUE_CODINGS) - 1)
#define JSON_IN_LINE   (64u * 1024) /* larger JSON is read on the pool */

struct otlp_http_config {
    struct flue_server_config server; /* squashed */
    const char *profiles_url_path, *traces_url_path;
};
struct otlp_protocols {
    const struct flue_server_config *grpc;
    const struct otlp_http_config *http;
};
struct otlp_config {
    struct otlp_protocols protocols;
    struct flue_list service_name_headers;
};

static const struct flue_field http_fields[] = {
    FLUE_STRING(struct otlp_http_config, profiles_url_path, .def = "/v1development/profiles",
                .help = "the path of profiles"),
    FLUE_STRING(struct otlp_http_config, traces_url_path, .def = "/v1/traces",
                .help = "the path of traces"),
    FLUE_IGNORED("metrics_url_path", "metrics are not received"),
    FLUE_IGNORED("logs_url_path", "logs are not received"),
    FLUE_SQUASH(struct otlp_http_config, server, struct flue_server_config,
                flue_server_http_fields),
    FLUE_FIELDS_END};

static const struct flue_field protocol_fields[] = {
    FLUE_OPTIONAL(struct otlp_protocols, grpc, struct flue_server_config, flue_server_grpc_fields,
                  .help = "OTLP/gRPC; off when the key is absent"),
    FLUE_OPTIONAL(struct otlp_protocols, http, struct otlp_http_config, http_fields,
                  .help = "OTLP/HTTP, protobuf and JSON; off when the key is absent"),
    FLUE_FIELDS_END};

static const struct flue_field otlp_fields[] = {
    FLUE_BLOCK(struct otlp_config, protocols, struct otlp_protocols, protocol_fields,
               .help = "at least one"),
    FLUE_STRINGS(struct otlp_config, service_name_headers,
                 .help = "request headers that name the service of resources without service.name; "
                         "before the query parameter service.name"),
    FLUE_FIELDS_END};

/* One signal's way in. */
struct otlp_way {
    struct otlp *otlp;
    bool traces;
    struct flue_intake intake;
    struct flue_metric *rejected;
};

#define SERVICES 3 /* of a protocol, at most */

struct otlp {
    const char *id;
    const struct otlp_config *config;
    struct flue_server_set *servers;
    struct otlp_way profiles, traces;
    struct flue_rpc_service services[2 * SERVICES];
    struct flue_route grpc_routes[SERVICES], http_routes[SERVICES];
    size_t service_count, grpc_count, http_count;
    struct flue_attribute_set unknown; /* service.name=unknown_service */
    struct flue_block *unknown_block;
    const char **name_headers; /* lower-case */
    size_t name_header_count;
    struct flue_metric *repaired;
};

/* One request; in the request's arena. */
struct otlp_request {
    struct flue_intake_push intake; /* first */
    struct otlp_way *way;
    struct flue_rpc_call *call;
    struct flue_counts counts; /* of what was read */
    uint64_t rejected;         /* profiles or spans */
    char rejected_reason[400];
    bool gone;
    struct flue_block *body;
    struct flue_job job; /* JSON */
    size_t json_bytes;   /* charged for what jansson allocates */
    struct flue_error error;
};

static void otlp_check(const void *config, struct flue_check *check)
{
    const struct otlp_config *otlp = config;

    if (!otlp->protocols.grpc && !otlp->protocols.http)
        flue_check_fail(check, "protocols",
                        "must specify at least one protocol when using the OTLP receiver");
    if (otlp->protocols.grpc)
        flue_server_check(otlp->protocols.grpc, "protocols.grpc", check);
    if (otlp->protocols.http) {
        const char *path = otlp->protocols.http->profiles_url_path;
        const char *traces = otlp->protocols.http->traces_url_path;
        flue_server_check(&otlp->protocols.http->server, "protocols.http", check);
        if (!path || path[0] != '/')
            flue_check_fail(check, "protocols.http.profiles_url_path", "must begin with a slash");
        if (!traces || traces[0] != '/')
            flue_check_fail(check, "protocols.http.traces_url_path", "must begin with a slash");
        else if (path && strcmp(path, traces) == 0)
            flue_check_fail(check, "protocols.http.traces_url_path",
                            "is the path of profiles already");
    }
}

/* ---- names ----------------------------------------------------------------------------------- */

static bool first_attribute(void *arg, const struct flue_attribute *attribute)
{
    *(bool *)arg = true;
    return false;
}

static struct flue_bytes stated_name(const struct otlp *otlp, struct flue_request *request)
{
    struct flue_bytes name = {0};

    for (size_t i = 0; i < otlp->name_header_count && !name.size; i++)
        name = flue_bytes_trim(flue_request_header(request, otlp->name_headers[i]));
    if (!name.size && request->query.size)
        name = flue_request_query(request, "service.name");
    return name;
}

/* A resource without service.name gets the stated one. Where nothing is stated, one without any
 * attribute is unknown_service; others may yet be named by what they have (a pod, a container). */
static enum flue_code name_resources(struct otlp *otlp, struct flue_request *request,
                                     struct flue_payload *payload, struct flue_error *error)
{
    const struct flue_payload_ops *ops = payload->ops;
    struct flue_bytes name = stated_name(otlp, request);
    struct flue_attribute_set own, *set = &otlp->unknown;
    struct flue_block *block = otlp->unknown_block, *made = NULL;
    enum flue_code code = FLUE_OK;
    uint8_t *repaired = NULL;

    if (name.size) {
        if (!flue_utf8_valid(name)) {
            struct flue_bytes raw = name;
            name.size = flue_utf8_repaired_size(raw);
            repaired = flue_arena_alloc(&request->arena, name.size);
            if (!repaired)
                return flue_fail(error, FLUE_NO_MEMORY, "no memory for the name of the service");
            flue_utf8_repair(raw, repaired);
            name.data = repaired;
        }
        struct flue_attribute item = {FLUE_BYTES("service.name"),
                                      {.type = FLUE_VALUE_STRING, .text = name}};
        code = flue_attribute_block(flue_otlp_attribute_set, &request->arena, &item, 1, &own, &made,
                                    error);
        set = &own;
        block = made;
    }
    size_t count = ops->resource_count(payload);
    for (size_t i = 0; i < count && code == FLUE_OK; i++) {
        bool has = false;
        if (!name.size) {
            ops->attribute_each(payload, i, first_attribute, &has);
            if (has)
                continue;
        }
        code = ops->attributes_set(payload, i, set, FLUE_SET_INSERT, block, error);
    }
    flue_block_unref(made);
    return code;
}

/* ---- requests -------------------------------------------------------------------------------- */

static struct flue_account *otlp_admit(struct flue_request *request, void *arg,
                                       struct flue_error *error)
{
    struct otlp_way *way = arg;
    struct flue_account *account;
    (void)flue_intake_admit(&way->intake, request, &account, error);
    return account;
}

static void answer(struct otlp_request *r, const struct flue_outcome *outcome)
{
    uint64_t rejected = r->rejected + outcome->rejected_profiles;
    const char *reason = r->rejected ? r->rejected_reason : outcome->rejected_reason;
    struct flue_bytes said = rejected ? flue_bytes_of(reason) : flue_bytes("", 0);
    bool json = r->call->encoding == FLUE_RPC_JSON;
    struct flue_buffer message;

    if (!rejected && !json) {
        flue_rpc_answer(r->call, flue_bytes("", 0));
        return;
    }
    flue_buffer_init(&message, 4096);
    if (r->way->traces)
        flue_trace_response_write(rejected, said, json, &message);
    else
        flue_otlp_response_write(rejected, said, json, &message);
    flue_rpc_answer(r->call, flue_buffer_bytes(&message));
    flue_buffer_destroy(&message);
}

static void otlp_done(struct flue_intake_push *intake, const struct flue_outcome *outcome)
{
    struct otlp_request *r = (struct otlp_request *)(void *)intake;

    if (outcome->error.code == FLUE_OK)
        answer(r, outcome);
    else
        flue_rpc_fail(r->call, &outcome->error);
}

static enum flue_code read_profiles(struct otlp_request *r, struct flue_block *body,
                                    struct flue_payload **out)
{
    struct otlp_way *way = r->way;
    struct flue_otlp_report report;
    enum flue_code code = flue_otlp_read(body, out, &report, &r->error);

    r->counts = report.counts;
    r->rejected = report.rejected_profiles;
    memcpy(r->rejected_reason, report.rejected_reason, sizeof r->rejected_reason);
    if (report.repaired_strings)
        flue_metric_add(way->otlp->repaired, (int64_t)report.repaired_strings);
    if (report.rejected_profiles) {
        flue_metric_add(way->rejected, (int64_t)report.rejected_profiles);
        flue_metric_add(way->intake.refused[r->intake.transport], (int64_t)report.rejected_samples);
    }
    return code;
}

static enum flue_code read_traces(struct otlp_request *r, struct flue_block *body,
                                  struct flue_payload **out)
{
    struct otlp_way *way = r->way;
    struct flue_trace_report report;
    enum flue_code code = flue_trace_read(body, out, &report, &r->error);

    r->counts = report.counts;
    r->rejected = report.rejected_spans;
    memcpy(r->rejected_reason, report.rejected_reason, sizeof r->rejected_reason);
    if (report.repaired_strings)
        flue_metric_add(way->otlp->repaired, (int64_t)report.repaired_strings);
    if (report.rejected_spans) {
        flue_metric_add(way->rejected, (int64_t)report.rejected_spans);
        flue_metric_add(way->intake.refused[r->intake.transport], (int64_t)report.rejected_spans);
    }
    return code;
}

/* The protobuf body is in r->body. */
static void handle(struct otlp_request *r)
{
    struct otlp *otlp = r->way->otlp;
    struct flue_request *request = r->call->request;
    struct flue_block *body = r->body;
    struct flue_payload *payload = NULL;

    r->body = NULL;
    enum flue_code code =
        r->way->traces ? read_traces(r, body, &payload) : read_profiles(r, body, &payload);
    if (code == FLUE_OK && !payload) {
        struct flue_outcome nothing = {.error = {.code = FLUE_OK}};
        answer(r, &nothing);
        return;
    }
    if (code == FLUE_OK && (code = name_resources(otlp, request, payload, &r->error)) != FLUE_OK)
        flue_payload_unref(payload);
    if (code != FLUE_OK) {
        flue_rpc_fail(r->call, &r->error);
        return;
    }
    flue_intake_push(&r->intake, payload, &r->counts);
}

/* On the loop or on the pool. */
static void read_json(struct otlp_request *r)
{
    struct flue_block *text = r->body;

    r->body = NULL;
    (void)(r->way->traces ? flue_trace_json_read : flue_otlp_json_read)(
        flue_block_bytes(text), r->json_bytes, r->call->account, &r->body, &r->error);
    flue_block_unref(text);
}

static void json_read(struct otlp_request *r)
{
    flue_account_release(r->call->account, r->json_bytes);
    if (r->body && r->gone) {
        flue_block_unref(r->body);
        r->body = NULL;
        (void)flue_fail(&r->error, FLUE_CANCELLED, "the client went away");
    }
    if (r->body)
        handle(r);
    else
        flue_rpc_fail(r->call, &r->error);
}

static struct otlp_request *of_job(struct flue_job *job)
{
    return (struct otlp_request *)((char *)job - offsetof(struct otlp_request, job));
}

static void json_work(struct flue_job *job)
{
    read_json(of_job(job));
}

static void json_done(struct flue_job *job)
{
    json_read(of_job(job));
}

/* JSON needs far more memory than its text while it is read: it is charged for that long. */
static void start_json(struct otlp_request *r)
{
    struct flue_account *account = r->call->account;

    r->json_bytes = flue_json_bound(flue_block_bytes(r->body));
    if (!flue_account_charge(account, r->json_bytes)) {
        bool never = (int64_t)r->json_bytes > atomic_load(&account->budget->hard);
        (void)flue_fail(&r->error, never ? FLUE_TOO_LARGE : FLUE_OVERLOADED,
                        "reading %zu bytes of JSON may need %zu bytes of memory: %s", r->body->size,
                        r->json_bytes,
                        never ? "more than there is; send less at a time, or protobuf"
                              : "more than is free now; send again later");
        flue_block_unref(r->body);
        r->body = NULL;
        flue_rpc_fail(r->call, &r->error);
    } else if (r->body->size > JSON_IN_LINE) {
        r->job = (struct flue_job){.work = json_work, .done = json_done};
        flue_pool_submit(r->call->request->loop, &r->job);
    } else {
        read_json(r);
        json_read(r);
    }
}

static void otlp_call(struct flue_rpc_call *call, void *arg)
{
    struct otlp_request *r = flue_arena_zalloc(&call->request->arena, 1, sizeof *r);
    struct flue_error error;

    if (!r) {
        (void)flue_fail(&error, FLUE_NO_MEMORY, "no memory for another request; send it again");
        flue_rpc_fail(call, &error);
        return;
    }
    r->way = arg;
    r->call = call;
    r->intake = (struct flue_intake_push){
        .intake = &r->way->intake,
        .request = call->request,
        .transport = call->protocol == FLUE_RPC_GRPC ? FLUE_OVER_GRPC : FLUE_OVER_HTTP,
        .done = otlp_done,
    };
    r->body = call->message;
    call->message = NULL;
    call->user = r;
    if (call->encoding == FLUE_RPC_JSON)
        start_json(r);
    else
        handle(r);
}

static void otlp_gone(struct flue_rpc_call *call, void *arg)
{
    struct otlp_request *r = call->user;

    if (!r)
        return;
    r->gone = true;
    flue_intake_cancel(&r->intake);
}

static void otlp_refused(void *arg, const struct flue_error *error)
{
    flue_intake_count_refusal(&((struct otlp_way *)arg)->intake, error->code);
}

/* ---- life ------------------------------------------------------------------------------------ */

/* Without a pipeline of its signal a service is not there, and a client is told so. */
static void make_service(struct otlp_way *way, const char *path, bool grpc)
{
    struct otlp *otlp = way->otlp;
    struct flue_rpc_service *service = &otlp->services[otlp->service_count];

    if (!way->intake.consumer)
        return;
    otlp->service_count++;
    *service = (struct flue_rpc_service){.path = path,
                                         .grpc = grpc,
                                         .http = !grpc,
                                         .codings = ALL_CODINGS,
                                         .empty_ok = true,
                                         .arg = way,
                                         .admit = otlp_admit,
                                         .call = otlp_call,
                                         .gone = otlp_gone,
                                         .refused = otlp_refused};
    flue_rpc_route(service, grpc ? &otlp->grpc_routes[otlp->grpc_count++]
                                 : &otlp->http_routes[otlp->http_count++]);
}

static void make_services(struct otlp *otlp)
{
    const struct otlp_http_config *http = otlp->config->protocols.http;

    make_service(&otlp->profiles, SERVICE_PREFIX "v1development.ProfilesService/Export", true);
    make_service(&otlp->profiles, SERVICE_PREFIX "v1experimental.ProfilesService/Export", true);
    make_service(&otlp->traces, TRACE_SERVICE, true);
    if (http) {
        make_service(&otlp->profiles, http->profiles_url_path, false);
        make_service(&otlp->traces, http->traces_url_path, false);
    }
}

static void make_metrics(struct otlp *otlp, const struct flue_create *create)
{
    const struct flue_label own[] = {{"receiver", create->id}, {NULL, NULL}};
    unsigned transports = 1u << FLUE_OVER_GRPC | 1u << FLUE_OVER_HTTP;

    otlp->profiles.otlp = otlp->traces.otlp = otlp;
    otlp->traces.traces = true;
    /* What is not received is not counted, but one of both must answer for what was refused. */
    if (create->profiles || !create->traces) {
        flue_intake_init(&otlp->profiles.intake, create, transports);
        otlp->profiles.rejected =
            flue_metric(create->metrics, FLUE_COUNTER, "receiver_rejected_profiles",
                        "profiles taken out of requests because they are broken", own);
    }
    if (create->traces) {
        flue_intake_init_traces(&otlp->traces.intake, create, transports);
        otlp->traces.rejected =
            flue_metric(create->metrics, FLUE_COUNTER, "receiver_rejected_spans",
                        "spans taken out of requests because they are broken", own);
    }
    otlp->repaired = flue_metric(create->metrics, FLUE_COUNTER, "receiver_repaired_strings",
                                 "strings whose invalid UTF-8 was replaced", own);
}

static bool make_name_headers(struct otlp *otlp, struct flue_arena *arena)
{
    const struct flue_list *list = &otlp->config->service_name_headers;

    otlp->name_headers = flue_arena_zalloc(arena, list->count + 1, sizeof *otlp->name_headers);
    if (!otlp->name_headers)
        return false;
    for (size_t i = 0; i < list->count; i++) {
        char *name = flue_arena_string(arena, flue_bytes_of(((const char *const *)list->items)[i]));
        if (!name)
            return false;
        otlp->name_headers[otlp->name_header_count++] = name;
        for (; *name; name++)
            *name = (char)tolower((unsigned char)*name);
    }
    return true;
}

static void otlp_destroy(void *instance)
{
    struct otlp *otlp = instance;
    flue_block_unref(otlp->unknown_block);
    free(otlp);
}

static enum flue_code otlp_create(const struct flue_create *create, void **instance,
                                  struct flue_error *error)
{
    struct otlp *otlp = calloc(1, sizeof *otlp);
    const struct flue_attribute unknown = {
        FLUE_BYTES("service.name"),
        {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("unknown_service")}};

    if (!otlp)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for receiver %s", create->id);
    otlp->id = create->id;
    otlp->config = create->config;
    otlp->servers = create->servers;
    enum flue_code code =
        make_name_headers(otlp, create->arena)
            ? flue_attribute_block(flue_otlp_attribute_set, create->arena, &unknown, 1,
                                   &otlp->unknown, &otlp->unknown_block, error)
            : flue_fail(error, FLUE_NO_MEMORY, "no memory for receiver %s", create->id);
    if (code != FLUE_OK) {
        otlp_destroy(otlp);
        return code;
    }
    if ((code = flue_server_auth(create, otlp->config->protocols.grpc, error)) != FLUE_OK ||
        (otlp->config->protocols.http &&
         (code = flue_server_auth(create, &otlp->config->protocols.http->server, error)))) {
        otlp_destroy(otlp);
        return code;
    }
    make_metrics(otlp, create);
    make_services(otlp);
    *instance = otlp;
    return FLUE_OK;
}

static enum flue_code otlp_start(void *instance, struct flue_error *error)
{
    struct otlp *otlp = instance;
    const struct otlp_protocols *protocols = &otlp->config->protocols;
    enum flue_code code = FLUE_OK;

    if (protocols->grpc)
        code = flue_server_add(otlp->servers, otlp->id, protocols->grpc, otlp->grpc_routes,
                               otlp->grpc_count, error);
    if (code == FLUE_OK && protocols->http)
        code = flue_server_add(otlp->servers, otlp->id, &protocols->http->server, otlp->http_routes,
                               otlp->http_count, error);
    return code;
}

static bool otlp_stopped(void *instance)
{
    const struct otlp *otlp = instance;
    return flue_intake_stopped(&otlp->profiles.intake) && flue_intake_stopped(&otlp->traces.intake);
}

const struct flue_component flue_receiver_otlp = {
    .kind = FLUE_RECEIVER,
    .name = "otlp",
    .signals = FLUE_PROFILES | FLUE_TRACES,
    .stability = FLUE_BETA,
    .summary = "receives OTLP profiles and traces over gRPC and HTTP, protobuf and JSON",
    .config_size = sizeof(struct otlp_config),
    .fields = otlp_fields,
    .check = otlp_check,
    .create = otlp_create,
    .start = otlp_start,
    .stopped = otlp_stopped,
    .destroy = otlp_destroy,
};
