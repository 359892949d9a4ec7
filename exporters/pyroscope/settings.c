/* settings.c: see settings.h. Limits: pyroscope.md §3.1. */
#include "exporters/pyroscope/settings.h"
#include <stdio.h>

#define LABEL_NAMES_MAX 20

static const char *const guard_actions[] = {"drop", "replace", NULL};
static const struct flue_field guard_fields[] = {
    FLUE_INT(struct flue_guard_config, limit, .def = "10000", .maximum = FLUE_GUARD_LIMIT_MAX,
             .help = "values of one label within `window`; over it the label is left out of what "
                     "comes later, and counted; 0: any number. service_name and \"__*\" are never "
                     "touched"),
    FLUE_DURATION(struct flue_guard_config, window, .def = "1h", .minimum = 1000000000,
                  .maximum = INT64_MAX,
                  .help = "how long values are counted, and how long a label is left out"),
    FLUE_ENUM(struct flue_guard_config, action, .choices = guard_actions,
              .help = "drop leaves the label out, replace writes \"other\" as its value"),
    FLUE_FIELDS_END};

const struct flue_field flue_labels_fields[] = {
    FLUE_MAP(struct flue_labels_config, mapping,
             .help = "attribute to label name; an empty name leaves the attribute out"),
    FLUE_STRINGS(struct flue_labels_config, keep,
                 .help = "attributes that become labels, service.name besides; empty: all that are "
                         "not in `drop`"),
    FLUE_STRINGS(
        struct flue_labels_config, drop,
        .def = "[process.pid, process.parent_pid, process.command, process.command_line, "
               "process.command_args, process.creation.time]",
        .help = "attributes that never become labels: each value would be a series of its own"),
    FLUE_STRINGS(struct flue_labels_config, priority,
                 .def = "[cdn_region, cdn_pop, cdn_tier, k8s_cluster_name, k8s_namespace_name, "
                        "k8s_deployment_name, k8s_container_name, k8s_pod_name, k8s_node_name, "
                        "deployment_environment_name, service_namespace, service_version, "
                        "service_instance_id, cloud_region, host_name, process_executable_name]",
                 .help = "labels that stay first when there are more than limits.label_names"),
    FLUE_BLOCK(struct flue_labels_config, cardinality, struct flue_guard_config, guard_fields,
               .help = "guards against labels with very many values"),
    FLUE_FIELDS_END};

static const struct flue_field limits_fields[] = {
    FLUE_SIZE(struct flue_push_limits, profile_bytes, .def = "2000000", .minimum = 4096,
              .maximum = 256ll << 20, .unit = "bytes",
              .help = "of a profile without compression; a larger one is cut between samples. The "
                      "server takes 4 MiB, but never more at once than its burst of 2 MB"),
    FLUE_INT(struct flue_push_limits, profile_samples, .def = "16000", .minimum = 1,
             .maximum = 100000000, .help = "of a profile; one with more is cut between samples"),
    FLUE_INT(struct flue_push_limits, label_names, .def = "30", .minimum = 2, .maximum = 120,
             .help = "of a series, those of its samples counted; more are left out from the end of "
                     "labels.priority"),
    FLUE_SIZE(struct flue_push_limits, label_name_bytes, .def = "1024", .minimum = 16,
              .maximum = 65536, .unit = "bytes", .help = "longer names are cut"),
    FLUE_SIZE(struct flue_push_limits, label_value_bytes, .def = "2048", .minimum = 16,
              .maximum = 65536, .unit = "bytes", .help = "longer values are cut"),
    FLUE_INT(struct flue_push_limits, sample_labels, .def = "100", .minimum = 2, .maximum = 10000,
             .help = "of one sample; a profile with more loses its numeric ones, then the last by "
                     "labels.priority and name"),
    FLUE_INT(struct flue_push_limits, stack_depth, .def = "1000", .minimum = 8, .maximum = 100000,
             .help =
                 "frames of a sample; of a deeper one the middle is left out and says so, since "
                 "the server would cut the innermost frames"),
    FLUE_FIELDS_END};

static const char *const outsides[] = {"send", "restamp", "hold", "drop", NULL};
static const struct flue_field window_fields[] = {
    FLUE_DURATION(struct flue_window_config, older_than, .def = "1h", .minimum = 0,
                  .maximum = INT64_MAX,
                  .help = "what is older when it is first sent is outside (the server's "
                          "reject-older-than); 0: any age"),
    FLUE_DURATION(struct flue_window_config, newer_than, .def = "10m", .minimum = 0,
                  .maximum = INT64_MAX, .help = "what is further in the future is; 0: any"),
    FLUE_ENUM(struct flue_window_config, outside, .choices = outsides,
              .help =
                  "send: as it is, and the server decides; restamp: with the time of its "
                  "receipt, or of sending where that is too old too; hold: not yet (what is too "
                  "new until it no longer is, what is too old every five minutes as long as "
                  "retry_on_failure lasts); drop: refused here, counted, with the reason"),
    FLUE_FIELDS_END};

static const struct flue_field pacing_fields[] = {
    FLUE_SIZE(struct flue_pacing_config, rate, .def = "0", .maximum = 1ll << 40, .unit = "bytes",
              .help = "a second, of one tenant, over all cores: profiles without compression and "
                      "their labels; 0: no pacing until the server refuses by rate"),
    FLUE_SIZE(struct flue_pacing_config, burst, .def = "2000000", .minimum = 4096,
              .maximum = 1ll << 40, .unit = "bytes", .help = "what may go at once after a pause"),
    FLUE_BOOL(struct flue_pacing_config, learn, .def = "true",
              .help = "take the rate that a 429 names (or half of what was sent when it came), and "
                      "probe upwards from it; `rate` bounds it where it is set"),
    FLUE_FIELDS_END};

static const struct flue_field tenant_fields[] = {
    FLUE_STRING(struct flue_tenant_config, attribute,
                .help = "a resource attribute whose value is the tenant"),
    FLUE_STRING(struct flue_tenant_config, header,
                .help = "a header of the request that brought the profile (its receiver needs "
                        "include_metadata: true)"),
    FLUE_BOOL(struct flue_tenant_config, origin,
              .help = "the X-Scope-OrgID that the profile came with"),
    FLUE_FIELDS_END};

static const struct flue_field basic_fields[] = {
    FLUE_STRING(struct flue_basic_auth_config, username, .required = true),
    FLUE_SECRET(struct flue_basic_auth_config, password),
    FLUE_STRING(struct flue_basic_auth_config, password_file,
                .help = "read again when it changes; line ends at its end do not count"),
    FLUE_FIELDS_END};

static const char *const compressions[] = {"gzip", "none", NULL};
const struct flue_field flue_pyroscope_fields[] = {
    FLUE_ENDPOINT(struct flue_pyroscope_config, endpoint,
                  .help = "URL of the server, \"http://pyroscope:4040\""),
    FLUE_STRINGS(struct flue_pyroscope_config, endpoints,
                 .help = "URLs of replicas, instead of `endpoint`: items go to those that work in "
                         "turn, an item stays with its own until that one fails"),
    FLUE_BLOCK(struct flue_pyroscope_config, tls, struct flue_tls_client_config,
               flue_tls_client_fields, .help = "for https endpoints"),
    FLUE_SECRETS(struct flue_pyroscope_config, headers,
                 .help =
                     "sent with every request; X-Scope-OrgID here is the tenant of all, or with "
                     "tenant_from_origin or tenant_source of what came with none"),
    FLUE_OPTIONAL(struct flue_pyroscope_config, basic_auth, struct flue_basic_auth_config,
                  basic_fields, .help = "HTTP basic authentication"),
    FLUE_SECRET(struct flue_pyroscope_config, bearer_token,
                .help = "sent as Authorization: Bearer"),
    FLUE_STRING(struct flue_pyroscope_config, bearer_token_file,
                .help = "the same from a file, read again when it changes"),
    FLUE_OPTIONAL(struct flue_pyroscope_config, auth, struct flue_client_auth,
                  flue_client_auth_fields, .help = "an authenticator extension's credentials"),
    FLUE_BOOL(struct flue_pyroscope_config, tenant_from_origin,
              .help = "pass on the X-Scope-OrgID that the profile came with"),
    FLUE_OPTIONAL(struct flue_pyroscope_config, tenant_source, struct flue_tenant_config,
                  tenant_fields,
                  .help = "where the tenant of a profile comes from; the first that is there, in "
                          "the order attribute, header, origin, else X-Scope-OrgID of headers. A "
                          "profile whose tenant is no valid id is refused"),
    FLUE_ENUM(struct flue_pyroscope_config, compression, .choices = compressions,
              .help = "of profiles that flue writes; what came compressed goes out as it came"),
    FLUE_STRING(struct flue_pyroscope_config, level, .def = "default",
                .help = "default (fast), dense (smaller, dearer), or 0 to 9"),
    FLUE_BLOCK(struct flue_pyroscope_config, labels, struct flue_labels_config, flue_labels_fields,
               .help = "how attributes become labels"),
    FLUE_STRINGS(struct flue_pyroscope_config, sample_attributes,
                 .help =
                     "OTLP sample attributes that stay on samples; each value makes a series of "
                     "its own, so samples are added up without all others (span_id and trace_id "
                     "always stay and cost no series)"),
    FLUE_BLOCK(struct flue_pyroscope_config, limits, struct flue_push_limits, limits_fields,
               .help = "of the server; what is over them is cut or trimmed before it is sent"),
    FLUE_BLOCK(struct flue_pyroscope_config, window, struct flue_window_config, window_fields,
               .help = "ages that the server takes"),
    FLUE_BLOCK(struct flue_pyroscope_config, pacing, struct flue_pacing_config, pacing_fields,
               .help = "never faster than a tenant's rate and burst"),
    FLUE_INT(struct flue_pyroscope_config, max_concurrency, .def = "1024", .minimum = 1,
             .maximum = 65536,
             .help = "most pushes in flight at one replica, over all cores; how many there are "
                     "follows the server's latency"),
    FLUE_STRING(struct flue_pyroscope_config, proxy_url, .help = "HTTP proxy, for HTTP/1.1"),
    FLUE_FIELDS_END};

bool flue_push_level(const char *text, int *level)
{
    int64_t number;

    if (strcmp(text, "default") == 0)
        *level = FLUE_LEVEL_DEFAULT;
    else if (strcmp(text, "dense") == 0)
        *level = FLUE_LEVEL_DENSE;
    else if (flue_parse_i64(flue_bytes_of(text), &number) && number >= 0 && number <= 9)
        *level = (int)number;
    else
        return false;
    return true;
}

size_t flue_push_endpoints(const struct flue_pyroscope_config *config, const char **out)
{
    const char *const *items = config->endpoints.items;
    size_t count = 0;

    if (config->endpoint)
        out[count++] = config->endpoint;
    for (size_t i = 0; i < config->endpoints.count && count < FLUE_PUSH_REPLICAS; i++)
        out[count++] = items[i];
    return count;
}

static bool set(const char *text)
{
    return text && *text;
}

static void check_url(const struct flue_pyroscope_config *c, const char *url, const char *path,
                      struct flue_check *check)
{
    const struct flue_client_config client = {
        .endpoint = url, .tls = c->tls, .tls_by_scheme = true};
    const char *key = c->basic_auth               ? "basic_auth"
                      : set(c->bearer_token)      ? "bearer_token"
                      : set(c->bearer_token_file) ? "bearer_token_file"
                                                  : NULL;

    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        flue_check_fail(check, path, "\"%s\" is not a URL; it begins with http:// or https://",
                        url);
    else if (key)
        flue_client_secret_warn(&client, key, check);
    else
        flue_client_secrecy_check(&client, c->auth, &c->headers, "", check);
}

static bool has_break(const char *text)
{
    return text && strpbrk(text, "\r\n") != NULL;
}

static void check_auth(const struct flue_pyroscope_config *c, struct flue_check *check)
{
    const struct flue_basic_auth_config *basic = c->basic_auth;
    int ways = (basic != NULL) + set(c->bearer_token) + set(c->bearer_token_file) +
               (c->auth && set(c->auth->authenticator));

    if (ways > 1)
        flue_check_fail(check, basic ? "basic_auth" : "bearer_token",
                        "one of basic_auth, bearer_token, bearer_token_file and auth; there are %d",
                        ways);
    if (basic && set(basic->password) && set(basic->password_file))
        flue_check_fail(check, "basic_auth.password", "is there beside password_file");
    if (basic && basic->username && strchr(basic->username, ':'))
        flue_check_fail(check, "basic_auth.username", "a user's name has no ':'");
    if ((basic && (has_break(basic->username) || has_break(basic->password))) ||
        has_break(c->bearer_token))
        flue_check_fail(check, basic ? "basic_auth" : "bearer_token", "has a line break");
    for (size_t i = 0; ways && i < c->headers.count; i++)
        if (flue_bytes_equal_nocase(flue_bytes_of(c->headers.items[i].key),
                                    FLUE_BYTES("authorization")))
            flue_check_fail(check, "headers", "has Authorization beside %s",
                            basic ? "basic_auth" : "a bearer token");
}

void flue_pyroscope_check(const void *config, struct flue_check *check)
{
    const struct flue_pyroscope_config *c = config;
    const char *const *replicas = c->endpoints.items;
    char path[40];
    int level;

    if (c->endpoint && c->endpoints.count)
        flue_check_fail(check, "endpoints", "is there beside endpoint; write one of them");
    else if (!c->endpoint && c->endpoints.count == 0)
        flue_check_fail(check, "", "endpoint is missing: \"http://pyroscope:4040\"");
    if (c->endpoints.count > FLUE_PUSH_REPLICAS)
        flue_check_fail(check, "endpoints", "%zu replicas; at most %d", c->endpoints.count,
                        FLUE_PUSH_REPLICAS);
    if (c->endpoint)
        check_url(c, c->endpoint, "endpoint", check);
    for (size_t i = 0; i < c->endpoints.count; i++) {
        snprintf(path, sizeof path, "endpoints[%zu]", i);
        check_url(c, replicas[i], path, check);
    }
    if (!flue_push_level(c->level, &level))
        flue_check_fail(check, "level", "\"%s\" is none of default, dense, 0 to 9", c->level);
    if (c->sample_attributes.count > LABEL_NAMES_MAX)
        flue_check_fail(check, "sample_attributes",
                        "%zu names; at most %d, since a series has 30 labels in all",
                        c->sample_attributes.count, LABEL_NAMES_MAX);
    if (c->limits.profile_bytes > c->pacing.burst && c->pacing.rate)
        flue_check_warn(
            check, "pacing.burst",
            "%lld bytes are less than limits.profile_bytes: larger profiles wait until "
            "nothing else was sent for a while, and a server of that burst refuses them",
            (long long)c->pacing.burst);
    check_auth(c, check);
    flue_tls_check(&c->tls.common, "tls", check);
    flue_client_headers_check(&c->headers, check);
}
