/* client.c: the table of keys and what can be said of them without the library. See client.h. */
#include "collector/kafka/client.h"

#include <stdio.h>
#include "collector/base/buffer.h"
#include "collector/base/log.h"

#define MS INT64_C(1000000)

static const struct flue_field sasl_fields[] = {
    FLUE_STRING(struct flue_kafka_sasl_config, username, .help = "the user"),
    FLUE_SECRET(struct flue_kafka_sasl_config, password, .help = "and its password"),
    FLUE_STRING(struct flue_kafka_sasl_config, mechanism,
                .help = "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. SCRAM with brokers since Kafka 4 "
                        "needs librdkafka 2.6.1; Debian 12 has 2.0.2"),
    FLUE_STRING(struct flue_kafka_sasl_config, oauthbearer_token_source,
                .help = "OAUTHBEARER is not there: refused"),
    FLUE_IGNORED("version", "the handshake is negotiated with the broker"),
    FLUE_IGNORED("aws_msk", "AWS_MSK_IAM_OAUTHBEARER is not there, and refused as a mechanism"),
    FLUE_FIELDS_END};
static const struct flue_field plain_fields[] = {
    FLUE_STRING(struct flue_kafka_plain_config, username, .help = "the user"),
    FLUE_SECRET(struct flue_kafka_plain_config, password, .help = "and its password"),
    FLUE_FIELDS_END};
static const struct flue_field kerberos_fields[] = {
    FLUE_STRING(struct flue_kafka_kerberos_config, service_name, .help = "Kerberos is refused"),
    FLUE_IGNORED("realm", "Kerberos is refused"),
    FLUE_IGNORED("use_keytab", "Kerberos is refused"),
    FLUE_IGNORED("username", "Kerberos is refused"),
    FLUE_IGNORED("password", "Kerberos is refused"),
    FLUE_IGNORED("config_file", "Kerberos is refused"),
    FLUE_IGNORED("keytab_file", "Kerberos is refused"),
    FLUE_IGNORED("disable_fast_negotiation", "Kerberos is refused"),
    FLUE_FIELDS_END};
static const struct flue_field auth_fields[] = {
    FLUE_OPTIONAL(struct flue_kafka_auth_config, sasl, struct flue_kafka_sasl_config, sasl_fields,
                  .help = "log in by SASL"),
    FLUE_OPTIONAL(struct flue_kafka_auth_config, plain_text, struct flue_kafka_plain_config,
                  plain_fields, .help = "deprecated: sasl with mechanism PLAIN"),
    FLUE_OPTIONAL(struct flue_kafka_auth_config, tls, struct flue_tls_client_config,
                  flue_tls_client_fields, .help = "deprecated: tls of the component"),
    FLUE_OPTIONAL(struct flue_kafka_auth_config, kerberos, struct flue_kafka_kerberos_config,
                  kerberos_fields, .help = "Kerberos is not there: refused"),
    FLUE_FIELDS_END};
static const struct flue_field retry_fields[] = {
    FLUE_DURATION(struct flue_kafka_retry_config, backoff, .def = "250ms", .minimum = MS,
                  .maximum = 300000 * MS,
                  .help = "wait before a request is made again; the receiver's is "
                          "the library's own"),
    FLUE_IGNORED("max", "requests are made again for as long as their data may wait"),
    FLUE_FIELDS_END};
static const struct flue_field metadata_fields[] = {
    FLUE_DURATION(struct flue_kafka_metadata_config, refresh_interval, .def = "10m",
                  .minimum = 10 * MS, .maximum = 3600000 * MS,
                  .help = "how often the cluster is asked about its topics"),
    FLUE_BLOCK(struct flue_kafka_metadata_config, retry, struct flue_kafka_retry_config,
               retry_fields, .help = "of requests to the cluster"),
    FLUE_IGNORED("full", "only the topics that are used are asked for"), FLUE_FIELDS_END};

const struct flue_field flue_kafka_client_fields[] = {
    FLUE_STRINGS(struct flue_kafka_client_config, brokers, .def = "[localhost:9092]",
                 .help = "where to find the cluster, host:port each"),
    FLUE_STRING(struct flue_kafka_client_config, client_id, .def = "otel-collector",
                .help = "name of this client for the brokers' logs and quotas"),
    FLUE_STRING(struct flue_kafka_client_config, rack_id,
                .help = "rack of this machine, to read from the replica next to it"),
    FLUE_STRING(struct flue_kafka_client_config, protocol_version, .def = "2.1.0",
                .help = "checked and not used: versions are negotiated with the broker"),
    FLUE_BOOL(struct flue_kafka_client_config, resolve_canonical_bootstrap_servers_only,
              .help = "take the brokers' names from a reverse look-up (librdkafka 2.2)"),
    FLUE_DURATION(struct flue_kafka_client_config, conn_idle_timeout, .def = "9m", .minimum = 0,
                  .maximum = 2147483647 * MS,
                  .help = "an unused connection is closed after it; 0: never"),
    FLUE_BLOCK(struct flue_kafka_client_config, auth, struct flue_kafka_auth_config, auth_fields,
               .help = "how to log in"),
    FLUE_OPTIONAL(struct flue_kafka_client_config, tls, struct flue_tls_client_config,
                  flue_tls_client_fields, .help = "TLS to the brokers; absent: none"),
    FLUE_BLOCK(struct flue_kafka_client_config, metadata, struct flue_kafka_metadata_config,
               metadata_fields, .help = "knowledge of the cluster"),
    FLUE_IGNORED("use_leader_epoch", "the library uses it where library and broker can"),
    FLUE_FIELDS_END};

/* ---- checks ---------------------------------------------------------------------------------- */

static bool given(const char *text)
{
    return text && *text;
}

/* "2.1.0", "0.10.2.1" */
static bool is_version(const char *text)
{
    unsigned dots = 0;
    for (const char *at = text; *at; at++) {
        if (*at == '.' && at > text && at[-1] != '.' && at[1])
            dots++;
        else if (*at < '0' || *at > '9')
            return false;
    }
    return *text && dots <= 3;
}

static void check_tls(const struct flue_tls_client_config *tls, const char *path,
                      struct flue_check *check)
{
    const struct flue_tls_config *common = &tls->common;
    char key[96];
#define KEY(name) (snprintf(key, sizeof key, "%s." name, path), key)

    flue_tls_check(common, path, check);
    if (given(tls->server_name_override))
        flue_check_fail(check, KEY("server_name_override"),
                        "librdkafka verifies the name that it connects to: use that name in "
                        "`brokers`");
    if (given(common->min_version) && strcmp(common->min_version, "1.2") != 0)
        flue_check_fail(check, KEY("min_version"),
                        "librdkafka takes the system's minimum (TLS 1.2): leave it out");
    if (given(common->max_version))
        flue_check_fail(check, KEY("max_version"), "librdkafka has no maximum: leave it out");
    if (common->cipher_suites.count || common->include_insecure_cipher_suites)
        flue_check_fail(check, KEY("cipher_suites"),
                        "are the system's with librdkafka: leave it out");
    if (common->curve_preferences.count)
        flue_check_fail(check, KEY("curve_preferences"),
                        "are the system's with librdkafka: leave it out");
    if (common->reload_interval)
        flue_check_fail(check, KEY("reload_interval"),
                        "librdkafka reads certificates at start only: leave it out and restart "
                        "when they change");
    if (common->include_system_ca_certs_pool && (given(common->ca_file) || given(common->ca_pem)))
        flue_check_fail(check, KEY("include_system_ca_certs_pool"),
                        "librdkafka takes the system's authorities or `ca_file`, not both: put "
                        "them into one file");
#undef KEY
}

static void check_sasl(const struct flue_kafka_sasl_config *sasl, struct flue_check *check)
{
    const char *mechanism = sasl->mechanism ? sasl->mechanism : "";

    if (strcmp(mechanism, "PLAIN") != 0 && strcmp(mechanism, "SCRAM-SHA-256") != 0 &&
        strcmp(mechanism, "SCRAM-SHA-512") != 0) {
        flue_check_fail(check, "auth.sasl.mechanism",
                        "\"%.64s\" is not there: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 are; or "
                        "log in by a client certificate (tls.cert_file, tls.key_file)",
                        mechanism);
        return;
    }
    if (!given(sasl->username))
        flue_check_fail(check, "auth.sasl.username", "is required");
    if (!given(sasl->password))
        flue_check_fail(check, "auth.sasl.password", "is required");
}

static const struct flue_tls_client_config *tls_of(const struct flue_kafka_client_config *config)
{
    const struct flue_tls_client_config *tls = config->tls ? config->tls : config->auth.tls;
    return tls && !tls->insecure ? tls : NULL;
}

void flue_kafka_client_check(const struct flue_kafka_client_config *config,
                             struct flue_check *check)
{
    const struct flue_kafka_auth_config *auth = &config->auth;
    const char *const *brokers = config->brokers.items;

    if (!config->brokers.count)
        flue_check_fail(check, "brokers", "must be specified");
    for (size_t i = 0; i < config->brokers.count; i++)
        if (!brokers[i][0] || strpbrk(brokers[i], ", \t\r\n"))
            flue_check_fail(check, "brokers", "\"%.64s\" is not host:port", brokers[i]);
    if (given(config->protocol_version) && !is_version(config->protocol_version))
        flue_check_fail(check, "protocol_version", "\"%.32s\" is no version, such as 2.1.0",
                        config->protocol_version);
    if (config->tls)
        check_tls(config->tls, "tls", check);
    if (auth->tls)
        check_tls(auth->tls, "auth.tls", check);
    if (auth->kerberos)
        flue_check_fail(check, "auth.kerberos",
                        "is not there: use auth.sasl with PLAIN over TLS, or a client certificate");
    if (auth->sasl && auth->plain_text)
        flue_check_fail(check, "auth.plain_text", "and auth.sasl exclude each other");
    if (auth->sasl)
        check_sasl(auth->sasl, check);
    if (auth->plain_text &&
        (!given(auth->plain_text->username) || !given(auth->plain_text->password)))
        flue_check_fail(check, "auth.plain_text", "needs username and password");
    if ((auth->sasl || auth->plain_text) && !tls_of(config))
        flue_check_warn(check, "auth", "the login is sent without TLS");
}

/* ---- librdkafka's properties ------------------------------------------------------------------
 */

enum flue_code flue_kafka_set(const struct flue_kafka *kafka, rd_kafka_conf_t *conf,
                              const char *property, const char *value, const char *key, bool secret,
                              struct flue_error *error)
{
    char why[256] = "";
    rd_kafka_conf_res_t result = kafka->rd_kafka_conf_set(conf, property, value, why, sizeof why);

    if (result == RD_KAFKA_CONF_OK)
        return FLUE_OK;
    if (result == RD_KAFKA_CONF_UNKNOWN)
        return flue_fail(error, FLUE_INVALID, "%s: librdkafka %s has no %s: a newer one is needed",
                         key, kafka->rd_kafka_version_str(), property);
    return flue_fail(error, FLUE_INVALID, "%s: librdkafka does not take it%s%s", key,
                     secret ? "" : ": ", secret ? "" : why);
}

enum flue_code flue_kafka_set_int(const struct flue_kafka *kafka, rd_kafka_conf_t *conf,
                                  const char *property, int64_t value, const char *key,
                                  struct flue_error *error)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return flue_kafka_set(kafka, conf, property, text, key, false, error);
}

enum flue_code flue_kafka_set_ms(const struct flue_kafka *kafka, rd_kafka_conf_t *conf,
                                 const char *property, int64_t ns, const char *key,
                                 struct flue_error *error)
{
    return flue_kafka_set_int(kafka, conf, property, ns < MS ? 1 : ns / MS, key, error);
}

/* "name: text" as the library's own threads say it. Debugging is off, so it is seldom. */
static void log_line(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    enum flue_log_level severity = level <= 3 ? FLUE_ERROR : level <= 4 ? FLUE_WARN : FLUE_DEBUG;
    char printable[400];

    /* A broker that is away, said for every connection and try: the component says it once. */
    if (strcmp(facility, "FAIL") == 0 || strcmp(facility, "ERROR") == 0)
        severity = FLUE_DEBUG;
    flue_log(severity, "kafka", "librdkafka", FLUE_S("facility", facility),
             FLUE_S("text", flue_printable(flue_bytes_of(text), printable, sizeof printable)),
             FLUE_LOG_END);
}

static bool is_scram(const struct flue_kafka_client_config *config)
{
    const struct flue_kafka_sasl_config *sasl = config->auth.sasl;
    return sasl && sasl->mechanism && strncmp(sasl->mechanism, "SCRAM-", 6) == 0;
}

const char *flue_kafka_login_hint(const struct flue_kafka *kafka,
                                  const struct flue_kafka_client_config *config)
{
    if (!is_scram(config) || kafka->rd_kafka_version() >= FLUE_KAFKA_SCRAM_VERSION)
        return "";
    return "; this librdkafka is older than 2.6.1 and cannot do SCRAM with Kafka 4: use PLAIN over "
           "TLS, a client certificate, or a newer librdkafka";
}

struct setting {
    const struct flue_kafka *kafka;
    rd_kafka_conf_t *conf;
    struct flue_error *error;
    bool failed;
};

static void put(struct setting *set, const char *property, const char *value, const char *key)
{
    if (!set->failed && given(value))
        set->failed = flue_kafka_set(set->kafka, set->conf, property, value, key, false,
                                     set->error) != FLUE_OK;
}

static void put_secret(struct setting *set, const char *property, const char *value,
                       const char *key)
{
    if (!set->failed && given(value))
        set->failed = flue_kafka_set(set->kafka, set->conf, property, value, key, true,
                                     set->error) != FLUE_OK;
}

static void put_tls(struct setting *set, const struct flue_tls_client_config *tls)
{
    put(set, "ssl.ca.location", tls->common.ca_file, "tls.ca_file");
    put_secret(set, "ssl.ca.pem", tls->common.ca_pem, "tls.ca_pem");
    put(set, "ssl.certificate.location", tls->common.cert_file, "tls.cert_file");
    put_secret(set, "ssl.certificate.pem", tls->common.cert_pem, "tls.cert_pem");
    put(set, "ssl.key.location", tls->common.key_file, "tls.key_file");
    put_secret(set, "ssl.key.pem", tls->common.key_pem, "tls.key_pem");
    put(set, "enable.ssl.certificate.verification", tls->insecure_skip_verify ? "false" : "true",
        "tls.insecure_skip_verify");
    put(set, "ssl.endpoint.identification.algorithm", tls->insecure_skip_verify ? "none" : "https",
        "tls");
}

static void put_login(struct setting *set, const struct flue_kafka_auth_config *auth)
{
    const char *mechanism = "PLAIN", *user, *password;

    if (auth->sasl) {
        mechanism = auth->sasl->mechanism;
        user = auth->sasl->username;
        password = auth->sasl->password;
    } else if (auth->plain_text) {
        user = auth->plain_text->username;
        password = auth->plain_text->password;
    } else {
        return;
    }
    put(set, "sasl.mechanism", mechanism, "auth.sasl.mechanism");
    put(set, "sasl.username", user, "auth.sasl.username");
    put_secret(set, "sasl.password", password, "auth.sasl.password");
}

static void put_brokers(struct setting *set, const struct flue_list *brokers)
{
    struct flue_buffer text;

    flue_buffer_init(&text, 1 << 20);
    for (size_t i = 0; i < brokers->count; i++) {
        flue_buffer_text(&text, i ? "," : "");
        flue_buffer_text(&text, ((const char *const *)brokers->items)[i]);
    }
    if (text.failed) {
        flue_fail(set->error, FLUE_NO_MEMORY, "brokers: no memory for the list");
        set->failed = true;
    }
    put(set, "bootstrap.servers", text.data, "brokers");
    flue_buffer_destroy(&text);
}

rd_kafka_conf_t *flue_kafka_client_conf(const struct flue_kafka *kafka, const char *id,
                                        const struct flue_kafka_client_config *config,
                                        struct flue_error *error)
{
    const struct flue_tls_client_config *tls = tls_of(config);
    bool login = config->auth.sasl || config->auth.plain_text;
    struct setting set = {.kafka = kafka, .conf = kafka->rd_kafka_conf_new(), .error = error};
    char number[24];

    kafka->rd_kafka_conf_set_log_cb(set.conf, log_line);
    put_brokers(&set, &config->brokers);
    put(&set, "security.protocol",
        tls ? (login ? "sasl_ssl" : "ssl") : (login ? "sasl_plaintext" : "plaintext"), "tls");
    put(&set, "client.id", config->client_id, "client_id");
    put(&set, "client.rack", config->rack_id, "rack_id");
    if (config->resolve_canonical_bootstrap_servers_only)
        put(&set, "client.dns.lookup", "resolve_canonical_bootstrap_servers_only",
            "resolve_canonical_bootstrap_servers_only");
    snprintf(number, sizeof number, "%lld", (long long)(config->conn_idle_timeout / MS));
    put(&set, "connections.max.idle.ms", number, "conn_idle_timeout");
    snprintf(number, sizeof number, "%lld", (long long)(config->metadata.refresh_interval / MS));
    put(&set, "topic.metadata.refresh.interval.ms", number, "metadata.refresh_interval");
    /* A broker that comes back is found again soon. */
    put(&set, "reconnect.backoff.max.ms", "3000", "brokers");
    if (tls)
        put_tls(&set, tls);
    put_login(&set, &config->auth);
    if (set.failed) {
        kafka->rd_kafka_conf_destroy(set.conf);
        return NULL;
    }
    if (flue_kafka_login_hint(kafka, config)[0])
        flue_log(FLUE_WARN, "kafka",
                 "SCRAM with this librdkafka fails with Kafka 4 and newer; what works: PLAIN over "
                 "TLS, client certificates, or librdkafka 2.6.1",
                 FLUE_S("component", id), FLUE_S("librdkafka", kafka->rd_kafka_version_str()));
    return set.conf;
}
