/* health_check.c: 200 while the service takes data, 503 before and while it drains.
 *
 * The Collector's extension of this name with its keys at the root; the body is its JSON:
 * {"status":"Server available","upSince":"2026-11-21T08:00:00.000Z","uptime":"1m30s"}. */
#include "collector/base/clock.h"
#include "collector/net/server.h"
#include "collector/telemetry/status.h"

struct health_body_config {
    const char *healthy, *unhealthy;
};
struct health_config {
    struct flue_server_config server;
    const char *path;
    const struct health_body_config *response_body;
};

static const struct flue_field health_body_fields[] = {
    FLUE_STRING(struct health_body_config, healthy, .def = "",
                .help = "body of a 200 instead of the JSON"),
    FLUE_STRING(struct health_body_config, unhealthy, .def = "",
                .help = "body of a 503 instead of the JSON"),
    FLUE_FIELDS_END};

static const struct flue_field health_fields[] = {
    {.name = "endpoint",
     .type = FLUE_FIELD_ENDPOINT,
     .offset = offsetof(struct health_config, server.endpoint),
     .def = "localhost:13133",
     .help = "where it listens"},
    FLUE_SQUASH(struct health_config, server, struct flue_server_config, flue_server_http_fields),
    FLUE_STRING(struct health_config, path, .def = "/", .help = "path of the check"),
    FLUE_OPTIONAL(struct health_config, response_body, struct health_body_config,
                  health_body_fields, .help = "own texts as the answer"),
    FLUE_IGNORED("check_collector_pipeline",
                 "the Collector says of it itself that it does not work"),
    FLUE_FIELDS_END};

struct health {
    const struct health_config *config;
    struct flue_status *status;
    struct flue_server_set *servers;
    const char *id;
    struct flue_route route;
};

static void answer(struct flue_request *request, void *arg)
{
    struct health *health = arg;
    static const struct flue_header json = {FLUE_BYTES_INIT("content-type"),
                                            FLUE_BYTES_INIT("application/json")};
    static const struct flue_header plain = {FLUE_BYTES_INIT("content-type"),
                                             FLUE_BYTES_INIT("text/plain; charset=utf-8")};
    static const char *const words[] = {
        [FLUE_STARTING] = "Server not available",
        [FLUE_SERVING] = "Server available",
        [FLUE_DRAINING] = "Server draining",
    };
    int state = atomic_load(&health->status->state);
    uint64_t since = atomic_load(&health->status->up_since), now = flue_wall_ns();
    const struct health_body_config *body = health->config->response_body;
    const char *own = !body ? "" : state == FLUE_SERVING ? body->healthy : body->unhealthy;
    char up_since[32] = "", uptime[32];
    if (since)
        flue_format_time(since, up_since);
    flue_format_duration(since && now > since ? (int64_t)(now - since) : 0, uptime);
    const char *text = flue_arena_printf(&request->arena,
                                         "{\"status\":\"%s\",\"upSince\":\"%s\",\"uptime\":\"%s\"}",
                                         words[state], up_since, uptime);
    struct flue_response response = {
        .status = state == FLUE_SERVING ? 200 : 503,
        .headers = *own ? &plain : &json,
        .header_count = 1,
        .body = flue_bytes_of(*own   ? own
                              : text ? text
                                     : "{}"),
    };
    flue_respond(request, &response);
}

static void health_check(const void *data, struct flue_check *check)
{
    const struct health_config *config = data;
    flue_server_check(&config->server, "", check);
    if (config->path[0] != '/')
        flue_check_fail(check, "path", "\"%s\" must begin with \"/\"", config->path);
}

static enum flue_code health_create(const struct flue_create *create, void **instance,
                                    struct flue_error *error)
{
    struct health *health = flue_arena_zalloc(create->arena, 1, sizeof *health);
    if (!health)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    health->config = create->config;
    health->status = flue_status_of(create);
    health->servers = create->servers;
    health->id = create->id;
    health->route = (struct flue_route){
        .method = "GET", .path = health->config->path, .arg = health, .head = answer};
    *instance = health;
    return flue_server_auth(create, &health->config->server, error);
}

static enum flue_code health_start(void *instance, struct flue_error *error)
{
    struct health *health = instance;
    return flue_server_add(health->servers, health->id, &health->config->server, &health->route, 1,
                           error);
}

static void health_destroy(void *instance)
{
    (void)instance; /* lives in the service's arena */
}

const struct flue_component flue_extension_health_check = {
    .kind = FLUE_EXTENSION,
    .name = "health_check",
    .stability = FLUE_BETA,
    .summary = "answers 200 while data is taken, 503 before and while draining",
    .config_size = sizeof(struct health_config),
    .fields = health_fields,
    .check = health_check,
    .create = health_create,
    .start = health_start,
    .destroy = health_destroy,
};
