/* tls.h: the one place that makes TLS contexts, for listeners and for clients.
 *
 * Keys of the `tls` block are the Collector's (configtls). Certificates given by file are read
 * again every reload_interval, and client_ca_file with client_ca_file_reload (looked at every 10 s
 * where no interval is given), on the pool; what cannot be read leaves the old one in use and is
 * logged.
 *
 * The configuration struct is copied; what it points to must outlive the flue_tls (it lives in the
 * configuration's arena). A client's connection still sets SSL_set_tlsext_host_name and
 * SSL_set1_host itself: the context knows no name. Keys with a password are refused, nobody is
 * asked.
 */
#ifndef FLUE_NET_TLS_H
#define FLUE_NET_TLS_H

#include <openssl/ssl.h>
#include "collector/component.h"

struct flue_tls_config {
    const char *ca_file, *ca_pem, *cert_file, *cert_pem, *key_file, *key_pem;
    bool include_system_ca_certs_pool;
    const char *min_version, *max_version;
    struct flue_list cipher_suites;
    bool include_insecure_cipher_suites;
    struct flue_list curve_preferences;
    int64_t reload_interval;
};
struct flue_tls_server_config {
    struct flue_tls_config common; /* squashed */
    const char *client_ca_file;    /* set: client certificates are required and verified */
    bool client_ca_file_reload;
};
struct flue_tls_client_config {
    struct flue_tls_config common; /* squashed */
    bool insecure;                 /* no TLS at all */
    bool insecure_skip_verify;
    const char *server_name_override;
};
extern const struct flue_field flue_tls_server_fields[];
extern const struct flue_field flue_tls_client_fields[];
void flue_tls_check(const struct flue_tls_config *config, const char *path,
                    struct flue_check *check);

struct flue_tls; /* a context that reloads; one per listener or destination, but that clients
                  * which trust the system and have nothing of their own are given the same one */
/* `alpn`: "h2,http/1.1" in preference order. */
enum flue_code flue_tls_server_new(const struct flue_tls_server_config *config, const char *alpn,
                                   struct flue_tls **out, struct flue_error *error);
enum flue_code flue_tls_client_new(const struct flue_tls_client_config *config, const char *alpn,
                                   struct flue_tls **out, struct flue_error *error);
void flue_tls_destroy(struct flue_tls *tls);
/* The context of now, referenced: SSL_CTX_free when done. Checks reload_interval. Any thread. */
SSL_CTX *flue_tls_context(struct flue_tls *tls);

#endif
