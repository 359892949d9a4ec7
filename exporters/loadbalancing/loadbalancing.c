/* loadbalancing.c: every key to its own node of the next tier, by consistent hashing.
 *
 * The Collector's exporter of this name (contrib; there also "load_balancing") with its keys; what
 * is sent is OTLP/gRPC. `routing_key: tenant` is ours. The one queue and the retries are before the
 * split, so that an item is acknowledged when all its parts are (item.c). */
#include "exporters/loadbalancing/loadbalancing.h"

#include <stdio.h>
#include <stdlib.h>

#include "collector/base/log.h"

#define DEFAULT_PORT "4317"

struct protocol_config {
    struct flue_client_grpc_config client; /* squashed */
    int64_t timeout;
};
struct protocols_config {
    struct protocol_config otlp;
};
struct static_config {
    struct flue_list hostnames;
};
struct dns_config {
    const char *hostname, *port;
    int64_t interval, timeout;
};
struct elsewhere_config {
    const char *service;
};
struct resolver_config {
    const struct static_config *static_;
    const struct dns_config *dns;
    const struct elsewhere_config *k8s, *aws_cloud_map;
};
struct balance_config {
    int routing_key;
    struct flue_list routing_attributes;
    struct protocols_config protocol;
    struct resolver_config resolver;
};

enum { SERVICE, TRACE, RESOURCE, ATTRIBUTES, TENANT, METRIC, STREAM };
static const char *const routing_keys[] = {"service", "traceID", "resource", "attributes",
                                           "tenant",  "metric",  "streamID", NULL};
static const enum flue_balance_by by[] = {FLUE_BALANCE_SERVICE,    FLUE_BALANCE_TRACE,
                                          FLUE_BALANCE_RESOURCE,   FLUE_BALANCE_ATTRIBUTES,
                                          FLUE_BALANCE_TENANT,     FLUE_BALANCE_SERVICE,
                                          FLUE_BALANCE_SERVICE};

#define ONE_QUEUE "the one queue is before the split: use the exporter's own"
static const struct flue_field protocol_fields[] = {
    FLUE_SQUASH(struct protocol_config, client, struct flue_client_grpc_config,
                flue_client_grpc_fields),
    FLUE_DURATION(struct protocol_config, timeout, .def = "0s", .minimum = 0,
                  .maximum = INT64_MAX,
                  .help = "of one request to one node; 0: the exporter's timeout alone"),
    FLUE_IGNORED("endpoint", "the nodes are the resolver's"),
    FLUE_IGNORED("sending_queue", ONE_QUEUE),
    FLUE_IGNORED("retry_on_failure", ONE_QUEUE),
    FLUE_FIELDS_END};
static const struct flue_field protocols_fields[] = {
    FLUE_BLOCK(struct protocols_config, otlp, struct protocol_config, protocol_fields,
               .help = "the keys of otlp_grpc but for the endpoint"),
    FLUE_FIELDS_END};
static const struct flue_field static_fields[] = {
    FLUE_STRINGS(struct static_config, hostnames,
                 .help = "the nodes, host or host:port (" DEFAULT_PORT ")"),
    FLUE_FIELDS_END};
static const struct flue_field dns_fields[] = {
    FLUE_STRING(struct dns_config, hostname, .required = true,
                .help = "every address behind this name is a node"),
    FLUE_STRING(struct dns_config, port, .def = DEFAULT_PORT, .help = "their port"),
    FLUE_DURATION(struct dns_config, interval, .def = "5s", .minimum = 10000000,
                  .maximum = INT64_MAX, .help = "how often the name is resolved again"),
    FLUE_DURATION(struct dns_config, timeout, .def = "1s", .minimum = 1000000,
                  .maximum = INT64_MAX, .help = "how long data waits for the first answer"),
    FLUE_FIELDS_END};
static const struct flue_field elsewhere_fields[] = {
    FLUE_STRING(struct elsewhere_config, service, .help = "not served"),
    FLUE_IGNORED("ports", "not served"),
    FLUE_IGNORED("timeout", "not served"),
    FLUE_IGNORED("return_hostnames", "not served"),
    FLUE_IGNORED("namespace", "not served"),
    FLUE_IGNORED("service_name", "not served"),
    FLUE_IGNORED("health_status", "not served"),
    FLUE_IGNORED("interval", "not served"),
    FLUE_IGNORED("port", "not served"),
    FLUE_FIELDS_END};
static const struct flue_field resolver_fields[] = {
    {.name = "static",
     .type = FLUE_FIELD_OPTIONAL,
     .offset = offsetof(struct resolver_config, static_),
     .size = sizeof(struct static_config),
     .fields = static_fields,
     .help = "a fixed list of nodes"},
    FLUE_OPTIONAL(struct resolver_config, dns, struct dns_config, dns_fields,
                  .help = "the addresses of a name, resolved again and again"),
    FLUE_OPTIONAL(struct resolver_config, k8s, struct elsewhere_config, elsewhere_fields,
                  .help = "not served: use dns with a headless service"),
    FLUE_OPTIONAL(struct resolver_config, aws_cloud_map, struct elsewhere_config, elsewhere_fields,
                  .help = "not served: use dns with the namespace's name"),
    FLUE_FIELDS_END};
static const struct flue_field balance_fields[] = {
    FLUE_ENUM(struct balance_config, routing_key, .choices = routing_keys, .def = "service",
              .help = "what goes to one node: all profiles and spans of a service.name, of a trace, "
                      "of equal resources, of equal routing_attributes, of a tenant "
                      "(X-Scope-OrgID)"),
    FLUE_STRINGS(struct balance_config, routing_attributes,
                 .help = "of the resource, with routing_key: attributes"),
    FLUE_BLOCK(struct balance_config, protocol, struct protocols_config, protocols_fields,
               .help = "how the nodes are spoken to"),
    FLUE_BLOCK(struct balance_config, resolver, struct resolver_config, resolver_fields,
               .help = "which nodes there are: one of static and dns"),
    FLUE_FIELDS_END};

/* ---- configuration -------------------------------------------------------------------------- */

/* "host", "host:port", "[v6]:port", or with a scheme: what otlp_grpc takes, with a port. */
static const char *with_port(struct flue_arena *arena, const char *name)
{
    const char *host = strstr(name, "://");
    host = host ? host + 3 : name;
    const char *bracket = strrchr(host, ']');
    bool has = strchr(bracket ? bracket : host, ':') || strncmp(name, "unix:", 5) == 0;
    return has ? name : flue_arena_printf(arena, "%s:" DEFAULT_PORT, name);
}

static void check_static(const struct static_config *config,
                         const struct flue_client_grpc_config *grpc, struct flue_check *check)
{
    struct flue_error error;
    char at[64];
    if (config->hostnames.count == 0 || config->hostnames.count > FLUE_BALANCE_NODES)
        flue_check_fail(check, "resolver.static.hostnames", "%zu nodes: there must be 1 to %d",
                        config->hostnames.count, FLUE_BALANCE_NODES);
    for (size_t i = 0; i < config->hostnames.count; i++) {
        const char *name = ((const char *const *)config->hostnames.items)[i];
        snprintf(at, sizeof at, "resolver.static.hostnames[%zu]", i);
        if (flue_client_endpoint_check(name, false, &error))
            flue_check_fail(check, at, "%s", error.text);
        else
            flue_client_grpc_secrecy_check(grpc, name, "protocol.otlp.", check);
    }
}

static void check_dns(const struct dns_config *config, const struct flue_client_grpc_config *grpc,
                      struct flue_check *check)
{
    uint64_t port;
    if (config->hostname && (!*config->hostname || strlen(config->hostname) > 253))
        flue_check_fail(check, "resolver.dns.hostname", "a name has 1 to 253 bytes");
    if (!flue_parse_u64(flue_bytes_of(config->port), &port) || port == 0 || port > 65535)
        flue_check_fail(check, "resolver.dns.port", "\"%.32s\" is no port from 1 to 65535",
                        config->port);
    if (config->hostname && *config->hostname)
        flue_client_grpc_secrecy_check(grpc, config->hostname, "protocol.otlp.", check);
}

static void check(const void *bound, struct flue_check *check)
{
    const struct balance_config *config = bound;
    const struct resolver_config *resolver = &config->resolver;
    if (config->routing_key == METRIC || config->routing_key == STREAM)
        flue_check_fail(check, "routing_key",
                        "%s is a key of metrics: profiles and traces have service, traceID, "
                        "resource, attributes and tenant",
                        routing_keys[config->routing_key]);
    if (config->routing_key == ATTRIBUTES && config->routing_attributes.count == 0)
        flue_check_fail(check, "routing_attributes",
                        "routing_key: attributes needs at least one of them");
    if (config->routing_key != ATTRIBUTES && config->routing_attributes.count)
        flue_check_fail(check, "routing_attributes", "only with routing_key: attributes, not %s",
                        routing_keys[config->routing_key]);
    flue_client_grpc_check(&config->protocol.otlp.client, "protocol.otlp.", check);
    if (resolver->k8s)
        flue_check_fail(check, "resolver.k8s",
                        "not served: use dns with the name of a headless service "
                        "(service.namespace.svc.cluster.local)");
    if (resolver->aws_cloud_map)
        flue_check_fail(check, "resolver.aws_cloud_map",
                        "not served: use dns with the name that Cloud Map gives the service");
    if (resolver->k8s || resolver->aws_cloud_map)
        return;
    if (!resolver->static_ == !resolver->dns)
        flue_check_fail(check, "resolver", "give one of static and dns");
    if (resolver->static_)
        check_static(resolver->static_, &config->protocol.otlp.client, check);
    if (resolver->dns)
        check_dns(resolver->dns, &config->protocol.otlp.client, check);
}

/* Those of a service are to meet in one place, where span_links marks the spans that have a
 * profile. */
static void check_signals(const void *bound, unsigned signals, struct flue_check *check)
{
    const struct balance_config *config = bound;
    int key = config->routing_key;
    if (signals == (FLUE_PROFILES | FLUE_TRACES) && key != SERVICE && key != TENANT)
        flue_check_warn(check, "routing_key",
                        "by %s a service's traces and profiles may reach different nodes, where "
                        "span_links finds no profile of a span: service brings both to the same",
                        routing_keys[key]);
}

/* ---- clients -------------------------------------------------------------------------------- */

struct flue_balance_client *flue_balance_client(struct flue_balance_place *place,
                                                struct flue_balance_node *node,
                                                struct flue_error *error)
{
    struct flue_balancer *balancer = place->balancer;
    struct flue_balance_client *client = place->clients;
    while (client && client->node != node)
        client = client->next;
    if (!client) {
        struct flue_client_config config = balancer->client;
        config.endpoint = node->endpoint;
        client = calloc(1, sizeof *client);
        if (!client) {
            flue_fail(error, FLUE_NO_MEMORY, "no memory for a client");
            return NULL;
        }
        if (flue_client_new(place->loop, &config,
                            flue_client_uses_tls(&config) ? balancer->tls : NULL, &client->client,
                            error)) {
            free(client);
            return NULL;
        }
        atomic_fetch_add(&node->refs, 1);
        client->node = node;
        client->next = place->clients;
        place->clients = client;
    }
    client->calls++;
    return client;
}

static void post(struct flue_balance_place *place)
{
    if (!atomic_exchange(&place->posted, true))
        flue_loop_post(place->loop, &place->task);
}

void flue_balance_client_done(struct flue_balance_place *place, struct flue_balance_client *client)
{
    if (--client->calls == 0 && atomic_load(&client->node->gone))
        post(place); /* not from within its own callback */
}

static void free_client(struct flue_balance_client *client)
{
    flue_client_destroy(client->client);
    flue_balance_node_unref(client->node);
    free(client);
}

static void on_change(struct flue_task *task)
{
    struct flue_balance_place *place =
        (struct flue_balance_place *)(void *)((char *)task -
                                              offsetof(struct flue_balance_place, task));
    struct flue_balance_client **at = &place->clients;
    atomic_store(&place->posted, false);
    while (*at) {
        struct flue_balance_client *client = *at;
        if (client->calls == 0 && atomic_load(&client->node->gone)) {
            *at = client->next;
            free_client(client);
        } else {
            at = &client->next;
        }
    }
    flue_balance_wake(place);
}

static void changed(void *arg)
{
    struct flue_balancer *balancer = arg;
    for (unsigned i = 0; i < balancer->loops->count; i++)
        post(&balancer->places[i]);
}

/* ---- life ----------------------------------------------------------------------------------- */

static enum flue_code set_rule(struct flue_balancer *balancer, const struct balance_config *config,
                               struct flue_arena *arena, struct flue_error *error)
{
    const struct flue_list *list = &config->routing_attributes;
    struct flue_bytes *names = flue_arena_zalloc(arena, list->count + 1, sizeof *names);
    if (!names)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an exporter");
    for (size_t i = 0; i < list->count; i++)
        names[i] = flue_bytes_of(((const char *const *)list->items)[i]);
    balancer->rule = (struct flue_balance_rule){
        .by = by[config->routing_key], .attributes = names, .attribute_count = list->count};
    return FLUE_OK;
}

static void make_metrics(struct flue_balancer *balancer, struct flue_metrics *metrics,
                         const char *resolver)
{
    struct flue_balance_resolver *r = &balancer->resolver;
    static const char resolutions[] = "times that the nodes were looked for";
    const struct flue_label own[] = {{"exporter", balancer->id}, {"resolver", resolver}, {0}};
    const struct flue_label good[] = {
        {"exporter", balancer->id}, {"resolver", resolver}, {"success", "true"}, {0}};
    const struct flue_label bad[] = {
        {"exporter", balancer->id}, {"resolver", resolver}, {"success", "false"}, {0}};
    r->found = flue_metric(metrics, FLUE_COUNTER, "loadbalancer_num_resolutions", resolutions, good);
    r->not_found =
        flue_metric(metrics, FLUE_COUNTER, "loadbalancer_num_resolutions", resolutions, bad);
    r->backends = flue_metric(metrics, FLUE_GAUGE, "loadbalancer_num_backends", "nodes", own);
    r->updates = flue_metric(metrics, FLUE_COUNTER, "loadbalancer_num_backend_updates",
                             "resolutions that gave another list of nodes", own);
}

static enum flue_code set_nodes(struct flue_balancer *balancer, const struct resolver_config *config,
                                struct flue_arena *arena, struct flue_error *error)
{
    struct flue_balance_resolver *resolver = &balancer->resolver;
    resolver->changed = changed;
    resolver->arg = balancer;
    if (config->dns) {
        resolver->hostname = config->dns->hostname;
        resolver->port = config->dns->port;
        resolver->interval = config->dns->interval;
        resolver->timeout = config->dns->timeout;
        return FLUE_OK;
    }
    const struct flue_list *list = &config->static_->hostnames;
    const char **endpoints = flue_arena_zalloc(arena, list->count + 1, sizeof *endpoints);
    for (size_t i = 0; endpoints && i < list->count; i++) {
        endpoints[i] = with_port(arena, ((const char *const *)list->items)[i]);
        if (!endpoints[i])
            endpoints = NULL;
    }
    if (!endpoints)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an exporter");
    enum flue_code code = flue_balance_set(resolver, endpoints, list->count, error);
    if (!code)
        flue_metric_add(resolver->found, 1);
    return code;
}

static enum flue_code create(const struct flue_create *create, void **instance,
                             struct flue_error *error)
{
    const struct balance_config *config = create->config;
    const struct flue_client_grpc_config *grpc = &config->protocol.otlp.client;
    struct flue_balancer *balancer = flue_arena_zalloc(create->arena, 1, sizeof *balancer);
    if (!balancer)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for an exporter");
    balancer->id = create->id;
    balancer->loops = create->loops;
    balancer->client = flue_client_grpc_settings(grpc);
    balancer->coding = flue_client_grpc_coding(grpc);
    balancer->level = flue_client_grpc_level(grpc);
    balancer->timeout = config->protocol.otlp.timeout;
    balancer->max_request_size = (uint64_t)grpc->max_request_size;
    for (unsigned i = 0; i < create->loops->count; i++) {
        struct flue_balance_place *place = &balancer->places[i];
        place->balancer = balancer;
        place->loop = create->loops->items[i];
        place->task.run = on_change;
    }
    flue_balance_resolver_init(&balancer->resolver);
    make_metrics(balancer, create->metrics, config->resolver.dns ? "dns" : "static");
    *instance = balancer;
    enum flue_code code = flue_client_auth_find(create, grpc->auth, &balancer->client.auth, error);
    if (!code)
        code = set_rule(balancer, config, create->arena, error);
    if (!code)
        code = set_nodes(balancer, &config->resolver, create->arena, error);
    return code ? code
                : flue_client_grpc_headers(grpc, create->arena, &balancer->headers,
                                           &balancer->header_count, error);
}

static bool any_tls(const struct flue_balancer *balancer)
{
    const struct flue_balance_list *list = balancer->resolver.list;
    struct flue_client_config config = balancer->client;
    config.endpoint = "node:1";
    bool any = flue_client_uses_tls(&config);
    for (unsigned i = 0; list && i < list->count && !any; i++) {
        config.endpoint = list->items[i]->endpoint;
        any = flue_client_uses_tls(&config);
    }
    return any;
}

static enum flue_code start(void *instance, struct flue_error *error)
{
    struct flue_balancer *balancer = instance;
    enum flue_code code = FLUE_OK;
    if (any_tls(balancer))
        code = flue_tls_client_new(&balancer->client.tls, "h2", &balancer->tls, error);
    if (!code)
        flue_balance_resolver_start(&balancer->resolver, balancer->loops->items[0]);
    return code;
}

static void balance_send(void *instance, struct flue_send *send)
{
    struct flue_balancer *balancer = instance;
    flue_balance_send(&balancer->places[send->loop->index], send);
}

static void destroy(void *instance)
{
    struct flue_balancer *balancer = instance;
    flue_balance_resolver_destroy(&balancer->resolver);
    for (unsigned i = 0; i < balancer->loops->count; i++) {
        struct flue_balance_place *place = &balancer->places[i];
        while (place->clients) {
            struct flue_balance_client *client = place->clients;
            place->clients = client->next;
            free_client(client);
        }
    }
    flue_tls_destroy(balancer->tls);
}

const struct flue_component flue_exporter_loadbalancing = {
    .kind = FLUE_EXPORTER,
    .name = "loadbalancing",
    .alias = "load_balancing",
    .signals = FLUE_PROFILES | FLUE_TRACES,
    .stability = FLUE_BETA,
    .summary = "sends each service, trace or tenant to its own node of the next tier",
    .config_size = sizeof(struct balance_config),
    .fields = balance_fields,
    .timeout_def = INT64_C(5000000000),
    .check = check,
    .check_signals = check_signals,
    .create = create,
    .start = start,
    .send = balance_send,
    .destroy = destroy,
};
