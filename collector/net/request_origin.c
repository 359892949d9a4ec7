/* request_origin.c: see request_origin.h. */
#include "collector/net/request_origin.h"

#include "collector/base/clock.h"
#include "collector/net/auth.h"
#include "collector/net/request.h"

#define TENANT_MAX 150

struct flue_bytes flue_peer_address(const char *peer)
{
    struct flue_bytes all = flue_bytes_of(peer);
    if (all.size > 0 && all.data[0] == '[')
        return flue_bytes_from(flue_bytes_first(all, flue_bytes_find(all, ']')), 1);
    size_t colon = flue_bytes_find(all, ':');
    return colon == SIZE_MAX ? flue_bytes("", 0) : flue_bytes_first(all, colon);
}

static bool tenant_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!-_.*'()", c));
}

enum flue_code flue_tenant_check(struct flue_bytes tenant, struct flue_error *error)
{
    bool good =
        tenant.size <= TENANT_MAX && !flue_bytes_is(tenant, ".") && !flue_bytes_is(tenant, "..");
    char shown[64];
    for (size_t i = 0; good && i < tenant.size; i++)
        good = tenant_byte(tenant.data[i]);
    if (good)
        return FLUE_OK;
    return flue_fail(error, FLUE_INVALID,
                     "X-Scope-OrgID: \"%s\" (%zu bytes) is no tenant: at most %d letters, digits "
                     "and !-_.*'(), not \".\" or \"..\"",
                     flue_printable(tenant, shown, sizeof shown), tenant.size, TENANT_MAX);
}

static bool secret(const struct flue_request *request, struct flue_bytes name)
{
    const struct flue_auth *auth = flue_exchange_of((struct flue_request *)request)->listener->auth;
    return (auth && flue_bytes_is(name, auth->header)) ||
           flue_bytes_is(name, "authorization") || flue_bytes_is(name, "proxy-authorization") ||
           flue_bytes_is(name, "cookie");
}

/* A proxy says so by a header; a collector that passes on what others made, by its name. Sources:
 * RFC 9110 7.6.3, RFC 7239; Collector service/telemetry BuildInfo ("OpenTelemetry Collector
 * Contrib/0.159.0 (linux/amd64)"), Alloy and Grafana Agent useragent. */
static bool relayed(const struct flue_request *request)
{
    static const char *const hops[] = {"via", "forwarded", "x-forwarded-for"};
    static const char *const agents[] = {"flue/", "Alloy/", "GrafanaAgent/", "otelcol"};
    static const char collector[] = "OpenTelemetry Collector";
    struct flue_bytes agent = flue_request_header(request, "user-agent");

    for (size_t i = 0; i < sizeof hops / sizeof *hops; i++)
        if (flue_request_header(request, hops[i]).size)
            return true;
    for (size_t i = 0; i < sizeof agents / sizeof *agents; i++)
        if (flue_bytes_starts_with(agent, flue_bytes_of(agents[i])))
            return true;
    return agent.size && memmem(agent.data, agent.size, collector, sizeof collector - 1);
}

struct flue_origin *flue_request_origin(struct flue_request *request, const char *receiver,
                                        const char *transport)
{
    struct flue_origin origin = {
        .received_ns = flue_wall_ns(),
        .receiver = flue_bytes_of(receiver),
        .transport = flue_bytes_of(transport),
        .peer = flue_bytes_of(request->peer),
        .peer_address = flue_peer_address(request->peer),
        .tenant = flue_request_header(request, "x-scope-orgid"),
        .tls_subject = flue_bytes_of(request->tls_subject),
        .relayed = relayed(request),
    };
    if (request->config->include_metadata) {
        struct flue_attribute *headers =
            flue_arena_zalloc(&request->arena, request->header_count + 1, sizeof *headers);
        if (!headers)
            return NULL;
        for (size_t i = 0; i < request->header_count; i++)
            if (!secret(request, request->headers[i].name))
                headers[origin.header_count++] = (struct flue_attribute){
                    request->headers[i].name,
                    {.type = FLUE_VALUE_STRING, .text = request->headers[i].value}};
        origin.headers = headers;
    }
    return flue_origin_new(&origin);
}
