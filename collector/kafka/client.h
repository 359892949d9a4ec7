/* client.h: what the exporter and the receiver `kafka` have in common: brokers, identity, security.
 *
 * Keys and defaults are the Collector's (pkg/kafka/configkafka, squashed into both components).
 * librdkafka has another set of abilities than the Collector's client: a key that it cannot honour
 * is a mistake when it is given (flue_kafka_client_check), or an error at start when only the
 * library at hand can tell. Nothing that changes what happens is passed over in silence.
 *
 * Main thread, but for what librdkafka's own threads log.
 */
#ifndef FLUE_KAFKA_CLIENT_H
#define FLUE_KAFKA_CLIENT_H

#include "collector/kafka/library.h"
#include "collector/net/tls.h"

struct flue_kafka_sasl_config {
    const char *username, *password, *mechanism, *oauthbearer_token_source;
};
struct flue_kafka_plain_config {
    const char *username, *password;
};
struct flue_kafka_kerberos_config {
    const char *service_name;
};
struct flue_kafka_auth_config {
    const struct flue_kafka_plain_config *plain_text;
    const struct flue_kafka_sasl_config *sasl;
    const struct flue_kafka_kerberos_config *kerberos;
    const struct flue_tls_client_config *tls;
};
struct flue_kafka_retry_config {
    int64_t backoff;
};
struct flue_kafka_metadata_config {
    int64_t refresh_interval;
    struct flue_kafka_retry_config retry;
};
struct flue_kafka_client_config {
    struct flue_list brokers; /* const char * */
    const char *client_id, *rack_id, *protocol_version;
    bool resolve_canonical_bootstrap_servers_only;
    int64_t conn_idle_timeout;
    struct flue_kafka_auth_config auth;
    const struct flue_tls_client_config *tls; /* NULL: no TLS */
    struct flue_kafka_metadata_config metadata;
};
extern const struct flue_field flue_kafka_client_fields[];
void flue_kafka_client_check(const struct flue_kafka_client_config *config,
                             struct flue_check *check);

/* Sets one property; `key` is the configuration's, for the message. A `secret` value is not in it.
 */
enum flue_code flue_kafka_set(const struct flue_kafka *kafka, rd_kafka_conf_t *conf,
                              const char *property, const char *value, const char *key, bool secret,
                              struct flue_error *error);
enum flue_code flue_kafka_set_int(const struct flue_kafka *kafka, rd_kafka_conf_t *conf,
                                  const char *property, int64_t value, const char *key,
                                  struct flue_error *error);
/* Nanoseconds to milliseconds, at least 1. */
enum flue_code flue_kafka_set_ms(const struct flue_kafka *kafka, rd_kafka_conf_t *conf,
                                 const char *property, int64_t ns, const char *key,
                                 struct flue_error *error);
/* A new configuration with everything above, logging as flue does. Warns (once a call) of SCRAM
 * with a library that cannot do it with today's brokers. NULL and *error. */
rd_kafka_conf_t *flue_kafka_client_conf(const struct flue_kafka *kafka, const char *id,
                                        const struct flue_kafka_client_config *config,
                                        struct flue_error *error);
/* What to add to the text of a refused login, or "". */
const char *flue_kafka_login_hint(const struct flue_kafka *kafka,
                                  const struct flue_kafka_client_config *config);

#endif
