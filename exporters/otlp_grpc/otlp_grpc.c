/* otlp_grpc.c: sends batches to the next OTLP hop over gRPC.
 *
 * One item is one unary call (collector/net/client_sender.h). What may be repeated is decided by
 * flue_call_grpc_result; a partial success is never repeated (OTLP specification 1.11). */
#include "collector/component.h"
#include "collector/net/client_grpc.h"
#include "collector/net/client_sender.h"
#include "proto/convert/convert.h"
#include "proto/otlp/otlp.h"

#define ANSWER_MOST ((size_t)32 << 20)

struct otlp_grpc_config {
    const char *endpoint;
    struct flue_client_grpc_config client; /* squashed */
};

static const struct flue_field otlp_grpc_fields[] = {
    FLUE_STRING(struct otlp_grpc_config, endpoint, .required = true,
                .help =
                    "host:port, dns:///host:port, unix:///path, or https://host:port, which means "
                    "TLS whatever tls.insecure says"),
    FLUE_SQUASH(struct otlp_grpc_config, client, struct flue_client_grpc_config,
                flue_client_grpc_fields),
    FLUE_FIELDS_END,
};

struct otlp_grpc {
    const struct otlp_grpc_config *config;
    struct flue_auth *auth;
    struct flue_client_sender sender;
};

struct otlp_item {
    struct flue_client_item base; /* first */
    struct flue_client_grpc_request request;
};

static const struct otlp_grpc *of_sender(const struct flue_client_sender *sender)
{
    return (const struct otlp_grpc *)(const void *)((const char *)sender -
                                                    offsetof(struct otlp_grpc, sender));
}

/* ---- configuration -------------------------------------------------------------------------- */

static void otlp_grpc_check(const void *bound, struct flue_check *check)
{
    const struct otlp_grpc_config *config = bound;
    struct flue_error error;
    if (config->endpoint && flue_client_endpoint_check(config->endpoint, false, &error))
        flue_check_fail(check, "endpoint", "%s", error.text);
    flue_client_grpc_check(&config->client, "", check);
    flue_client_grpc_secrecy_check(&config->client, config->endpoint, "", check);
}

/* ---- calls ---------------------------------------------------------------------------------- */

/* Status OK: what the next hop says about the data it took. It is never sent again. */
static enum flue_code read_answer(const struct flue_client_item *item, struct flue_bytes message,
                                  struct flue_verdict *verdict)
{
    char said[256] = "";
    uint64_t rejected = 0;
    if (flue_otlp_response_read(message, false, &rejected, said, sizeof said, &verdict->error)) {
        flue_fail_prefix(&verdict->error, "answer with status OK that is none");
        return verdict->error.code = FLUE_INVALID;
    }
    flue_client_item_partial(item, rejected, said, verdict);
    return FLUE_OK;
}

static enum flue_code answered(struct flue_client_item *item, struct flue_verdict *verdict)
{
    const struct otlp_grpc *self = of_sender(item->sender);
    struct flue_bytes message;
    struct flue_arena arena;
    flue_arena_init(&arena, ANSWER_MOST, 0);
    enum flue_code code = flue_call_grpc_result(&item->call, &arena, &message, &verdict->error);
    if (!code)
        code = read_answer(item, message, verdict);
    if (code && item->call.error.code == FLUE_OK)
        flue_fail_prefix(&verdict->error, "\"%s\"", self->config->endpoint);
    flue_arena_destroy(&arena);
    return code;
}

static void request(struct flue_client_item *item)
{
    item->call.path = flue_client_grpc_export(item->payload->signal);
    flue_client_grpc_deadline(&item->call, &((struct otlp_item *)(void *)item)->request);
}

/* ---- life ----------------------------------------------------------------------------------- */

static enum flue_code otlp_grpc_create(const struct flue_create *create, void **instance,
                                       struct flue_error *error)
{
    const struct otlp_grpc_config *config = create->config;
    struct otlp_grpc *self = flue_arena_zalloc(create->arena, 1, sizeof *self);
    if (!self)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an exporter");
    self->config = config;
    self->sender = (struct flue_client_sender){
        .id = create->id,
        .loops = create->loops,
        .coding = flue_client_grpc_coding(&config->client),
        .level = flue_client_grpc_level(&config->client),
        .grpc = true,
        .max_request_size = (uint64_t)config->client.max_request_size,
        .item_size = sizeof(struct otlp_item),
        .form = FLUE_FORM_OTLP,
        .convert = flue_convert,
        .request = request,
        .answered = answered,
    };
    *instance = self;
    enum flue_code code = flue_client_auth_find(create, config->client.auth, &self->auth, error);
    return code ? code
                : flue_client_grpc_headers(&config->client, create->arena, &self->sender.headers,
                                           &self->sender.header_count, error);
}

static void otlp_grpc_destroy(void *instance)
{
    flue_client_sender_destroy(&((struct otlp_grpc *)instance)->sender);
}

static enum flue_code otlp_grpc_start(void *instance, struct flue_error *error)
{
    struct otlp_grpc *self = instance;
    struct flue_client_config client = flue_client_grpc_settings(&self->config->client);
    client.endpoint = self->config->endpoint;
    client.auth = self->auth;
    return flue_client_sender_start(&self->sender, &client, "h2", error);
}

static void otlp_grpc_send(void *instance, struct flue_send *send)
{
    flue_client_sender_send(&((struct otlp_grpc *)instance)->sender, send);
}

const struct flue_component flue_exporter_otlp_grpc = {
    .kind = FLUE_EXPORTER,
    .name = "otlp_grpc",
    .alias = "otlp",
    .signals = FLUE_PROFILES | FLUE_TRACES | FLUE_METRICS,
    .stability = FLUE_BETA,
    .summary = "sends to the next OTLP hop over gRPC",
    .config_size = sizeof(struct otlp_grpc_config),
    .fields = otlp_grpc_fields,
    .timeout_def = INT64_C(5000000000),
    .check = otlp_grpc_check,
    .create = otlp_grpc_create,
    .start = otlp_grpc_start,
    .send = otlp_grpc_send,
    .destroy = otlp_grpc_destroy,
};
