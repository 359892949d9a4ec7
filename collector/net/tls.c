#include "collector/net/tls.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <stdlib.h>

#include "collector/base/clock.h"
#include "collector/base/log.h"

/* How often a changed client_ca_file is looked for when reload_interval is not set. */
#define CLIENT_CA_INTERVAL_NS (10ull * 1000 * 1000 * 1000)
#define ALPN_MAX              64

#define COMMON_FIELDS(member_struct)                                                               \
    FLUE_SQUASH(member_struct, common, struct flue_tls_config, common_fields)

static const struct flue_field common_fields[] = {
    FLUE_STRING(struct flue_tls_config, ca_file,
                .help = "PEM file of the authorities that sign the other side's certificate"),
    FLUE_SECRET(struct flue_tls_config, ca_pem, .help = "the same, as text"),
    FLUE_STRING(struct flue_tls_config, cert_file,
                .help = "PEM file of this side's certificate, then its chain"),
    FLUE_SECRET(struct flue_tls_config, cert_pem, .help = "the same, as text"),
    FLUE_STRING(struct flue_tls_config, key_file,
                .help = "PEM file of the certificate's private key, without a password"),
    FLUE_SECRET(struct flue_tls_config, key_pem, .help = "the same, as text"),
    FLUE_BOOL(struct flue_tls_config, include_system_ca_certs_pool, .def = "false",
              .help = "trust the system's authorities beside ca_file"),
    FLUE_STRING(struct flue_tls_config, min_version, .def = "1.2",
                .help = "lowest TLS version: 1.0, 1.1, 1.2 or 1.3"),
    FLUE_STRING(struct flue_tls_config, max_version,
                .help = "highest TLS version; unset: the highest there is"),
    FLUE_STRINGS(struct flue_tls_config, cipher_suites,
                 .help = "names as in the IANA registry; unset: a safe list. TLS 1.3's are not "
                         "configurable"),
    FLUE_BOOL(struct flue_tls_config, include_insecure_cipher_suites, .def = "false",
              .help = "allow suites without forward secrecy or authenticated encryption"),
    FLUE_STRINGS(struct flue_tls_config, curve_preferences,
                 .help = "of X25519, P521, P256, P384, in order of preference"),
    FLUE_DURATION(struct flue_tls_config, reload_interval, .minimum = 0, .maximum = INT64_MAX,
                  .help = "read the certificate's files again this often; unset: never"),
    FLUE_FIELDS_END,
};

const struct flue_field flue_tls_server_fields[] = {
    COMMON_FIELDS(struct flue_tls_server_config),
    FLUE_STRING(struct flue_tls_server_config, client_ca_file,
                .help = "PEM file of authorities; set: every client must show a certificate "
                        "signed by one of them"),
    FLUE_BOOL(struct flue_tls_server_config, client_ca_file_reload, .def = "false",
              .help = "read client_ca_file again when it changes"),
    FLUE_FIELDS_END,
};

const struct flue_field flue_tls_client_fields[] = {
    COMMON_FIELDS(struct flue_tls_client_config),
    FLUE_BOOL(struct flue_tls_client_config, insecure, .def = "false", .help = "no TLS at all"),
    FLUE_BOOL(struct flue_tls_client_config, insecure_skip_verify, .def = "false",
              .help = "TLS, but the server's certificate is not verified"),
    FLUE_STRING(struct flue_tls_client_config, server_name_override,
                .help = "the name the server's certificate must have, and the SNI sent"),
    FLUE_FIELDS_END,
};

static bool set(const char *text)
{
    return text && *text;
}

/* ---- names of the configuration in OpenSSL's words ------------------------------------------ */

static bool version_number(const char *name, int *out)
{
    static const struct {
        const char *name;
        int number;
    } versions[] = {{"1.0", TLS1_VERSION},
                    {"1.1", TLS1_1_VERSION},
                    {"1.2", TLS1_2_VERSION},
                    {"1.3", TLS1_3_VERSION}};
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++)
        if (strcmp(name, versions[i].name) == 0) {
            *out = versions[i].number;
            return true;
        }
    return false;
}

static const char *curve_name(const char *name)
{
    static const char *const curves[][2] = {
        {"X25519", "X25519"}, {"P256", "P-256"}, {"P384", "P-384"}, {"P521", "P-521"}};
    for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++)
        if (strcmp(name, curves[i][0]) == 0)
            return curves[i][1];
    return NULL;
}

/* NULL: unknown. *thirteen: a suite of TLS 1.3, which is always on. */
static const char *cipher_name(const char *name, bool *insecure, bool *thirteen)
{
    *thirteen = strncmp(name, "TLS_", 4) == 0 && !strstr(name, "_WITH_");
    *insecure = strncmp(name, "TLS_RSA_", 8) == 0 || strstr(name, "RC4") || strstr(name, "3DES") ||
                strstr(name, "_CBC_SHA256");
    const char *known = OPENSSL_cipher_name(name);
    return known && known[0] != '(' ? known : NULL;
}

void flue_tls_check(const struct flue_tls_config *config, const char *path,
                    struct flue_check *check)
{
    char at[256];
#define AT(key) (snprintf(at, sizeof at, "%s%s%s", path, *path ? "." : "", key), at)
    const struct {
        const char *file, *pem, *name;
    } pairs[] = {{config->ca_file, config->ca_pem, "ca_file"},
                 {config->cert_file, config->cert_pem, "cert_file"},
                 {config->key_file, config->key_pem, "key_file"}};
    for (size_t i = 0; i < 3; i++)
        if (set(pairs[i].file) && set(pairs[i].pem))
            flue_check_fail(check, AT(pairs[i].name),
                            "%s and its _pem form exclude each other: give one of them",
                            pairs[i].name);
    bool certificate = set(config->cert_file) || set(config->cert_pem);
    bool key = set(config->key_file) || set(config->key_pem);
    if (certificate && !key)
        flue_check_fail(check, AT("cert_file"), "a certificate needs key_file or key_pem too");
    if (key && !certificate)
        flue_check_fail(check, AT("key_file"), "a private key needs cert_file or cert_pem too");

    int lowest = TLS1_2_VERSION, highest = TLS1_3_VERSION;
    if (set(config->min_version) && !version_number(config->min_version, &lowest))
        flue_check_fail(check, AT("min_version"),
                        "unknown TLS version \"%s\": 1.0, 1.1, 1.2 or 1.3", config->min_version);
    if (set(config->max_version) && !version_number(config->max_version, &highest))
        flue_check_fail(check, AT("max_version"),
                        "unknown TLS version \"%s\": 1.0, 1.1, 1.2 or 1.3", config->max_version);
    if (lowest > highest)
        flue_check_fail(check, AT("min_version"), "min_version %s is above max_version %s",
                        set(config->min_version) ? config->min_version : "1.2",
                        config->max_version);
    for (size_t i = 0; i < config->curve_preferences.count; i++) {
        const char *name = ((const char *const *)config->curve_preferences.items)[i];
        if (!curve_name(name))
            flue_check_fail(check, AT("curve_preferences"),
                            "unknown curve \"%s\": X25519, P256, P384 or P521", name);
    }
    for (size_t i = 0; i < config->cipher_suites.count; i++) {
        const char *name = ((const char *const *)config->cipher_suites.items)[i];
        bool insecure, thirteen;
        if (!cipher_name(name, &insecure, &thirteen))
            flue_check_fail(check, AT("cipher_suites"), "unknown cipher suite \"%s\"", name);
        else if (insecure && !config->include_insecure_cipher_suites)
            flue_check_fail(check, AT("cipher_suites"),
                            "cipher suite \"%s\" is insecure: leave it out, or set "
                            "include_insecure_cipher_suites",
                            name);
    }
#undef AT
}

/* ---- making a context ----------------------------------------------------------------------- */

struct flue_tls {
    _Atomic uint32_t refs;
    bool server;
    struct flue_tls_server_config server_config; /* .common is used for both sides */
    bool verify;                                 /* client: of the server's certificate */
    uint8_t alpn[ALPN_MAX];                      /* as on the wire */
    size_t alpn_size;
    uint64_t interval_ns; /* 0: never read again */
    _Atomic uint64_t due_ns;
    pthread_mutex_t lock; /* of context */
    SSL_CTX *context;
    struct flue_job job; /* reads again, on the pool; holds a reference */
    /* A client that trusts the system and has nothing of its own is one for all such clients of the
     * process: a context costs a third of a megabyte. */
    bool shared;
    char versions[2][8], alpn_text[ALPN_MAX];
    struct flue_tls *next; /* of those that are shared */
};
static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static struct flue_tls *shared_first;

static enum flue_code openssl_fail(struct flue_error *error, const char *what, const char *where)
{
    unsigned long code = ERR_get_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    if (code && ERR_GET_LIB(code) == ERR_LIB_SYS)
        reason = strerror(ERR_GET_REASON(code));
    ERR_clear_error();
    return flue_fail(error, FLUE_INVALID, "tls.%s%s%s%s: %s", what, where ? " \"" : "",
                     where ? where : "", where ? "\"" : "", reason ? reason : "cannot be used");
}

/* A password would be asked for on the terminal. */
static int no_password(char *buffer, int size, int writing, void *arg)
{
    return -1;
}

static BIO *open_pem(const char *file, const char *pem)
{
    return set(file) ? BIO_new_file(file, "r") : BIO_new_mem_buf(pem, -1);
}

static enum flue_code load_certificate(SSL_CTX *context, const struct flue_tls_config *config,
                                       struct flue_error *error)
{
    const char *key = set(config->cert_file) ? "cert_file" : "cert_pem";
    const char *where = set(config->cert_file) ? config->cert_file : NULL;
    BIO *bio = open_pem(config->cert_file, config->cert_pem);
    X509 *leaf = bio ? PEM_read_bio_X509_AUX(bio, NULL, no_password, NULL) : NULL;
    bool good = leaf && SSL_CTX_use_certificate(context, leaf) == 1;
    X509_free(leaf);
    while (good) {
        X509 *chain = PEM_read_bio_X509(bio, NULL, no_password, NULL);
        if (!chain) {
            unsigned long last = ERR_peek_last_error();
            good = ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE;
            if (good)
                ERR_clear_error();
            break;
        }
        good = SSL_CTX_add0_chain_cert(context, chain) == 1;
        if (!good)
            X509_free(chain);
    }
    BIO_free(bio);
    if (!good)
        return openssl_fail(error, key, where);

    key = set(config->key_file) ? "key_file" : "key_pem";
    where = set(config->key_file) ? config->key_file : NULL;
    bio = open_pem(config->key_file, config->key_pem);
    EVP_PKEY *private_key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
    good = private_key && SSL_CTX_use_PrivateKey(context, private_key) == 1 &&
           SSL_CTX_check_private_key(context) == 1;
    EVP_PKEY_free(private_key);
    BIO_free(bio);
    return good ? FLUE_OK : openssl_fail(error, key, where);
}

static enum flue_code load_authorities(SSL_CTX *context, const char *key, const char *file,
                                       const char *pem, bool announce, struct flue_error *error)
{
    BIO *bio = open_pem(file, pem);
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    size_t count = 0;
    bool good = bio != NULL;
    while (good) {
        X509 *authority = PEM_read_bio_X509_AUX(bio, NULL, no_password, NULL);
        if (!authority) {
            unsigned long last = ERR_peek_last_error();
            good = count > 0 && ERR_GET_LIB(last) == ERR_LIB_PEM &&
                   ERR_GET_REASON(last) == PEM_R_NO_START_LINE;
            if (good)
                ERR_clear_error();
            break;
        }
        good = X509_STORE_add_cert(store, authority) == 1 &&
               (!announce || SSL_CTX_add_client_CA(context, authority) == 1);
        X509_free(authority);
        count++;
    }
    BIO_free(bio);
    return good ? FLUE_OK : openssl_fail(error, key, set(file) ? file : NULL);
}

static enum flue_code set_parameters(SSL_CTX *context, const struct flue_tls_config *config,
                                     struct flue_error *error)
{
    int lowest = TLS1_2_VERSION, highest = 0;
    if ((set(config->min_version) && !version_number(config->min_version, &lowest)) ||
        (set(config->max_version) && !version_number(config->max_version, &highest)))
        return flue_fail(error, FLUE_INVALID,
                         "tls.min_version, tls.max_version: of 1.0, 1.1, 1.2, 1.3");
    SSL_CTX_set_min_proto_version(context, lowest);
    SSL_CTX_set_max_proto_version(context, highest);

    char names[2048];
    size_t used = 0;
    names[0] = 0;
    for (size_t i = 0; i < config->cipher_suites.count; i++) {
        bool insecure, thirteen;
        const char *given = ((const char *const *)config->cipher_suites.items)[i];
        const char *name = cipher_name(given, &insecure, &thirteen);
        if (!name || (insecure && !config->include_insecure_cipher_suites) ||
            used + strlen(name) + 2 > sizeof names)
            return flue_fail(error, FLUE_INVALID, "tls.cipher_suites: \"%.100s\" cannot be used",
                             given);
        if (!thirteen)
            used +=
                (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ":" : "", name);
    }
    if (used && SSL_CTX_set_cipher_list(context, names) != 1)
        return openssl_fail(error, "cipher_suites", names);

    used = 0;
    for (size_t i = 0; i < config->curve_preferences.count; i++) {
        const char *given = ((const char *const *)config->curve_preferences.items)[i];
        const char *name = curve_name(given);
        if (!name || used + strlen(name) + 2 > sizeof names)
            return flue_fail(error, FLUE_INVALID, "tls.curve_preferences: \"%.100s\" is unknown",
                             given);
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ":" : "", name);
    }
    if (SSL_CTX_set1_groups_list(context, used ? names : "X25519:P-521:P-256:P-384") != 1)
        return openssl_fail(error, "curve_preferences", names);
    return FLUE_OK;
}

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                       const unsigned char *offered, unsigned int offered_size, void *arg)
{
    struct flue_tls *tls = arg;
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_size, tls->alpn, (unsigned int)tls->alpn_size, offered,
                              offered_size) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Are the system's authorities there one file each, named by the hash of their subject? Then one is
 * read when a peer's certificate names it; all of them would be two megabytes of memory for each
 * context. */
static bool system_directory(void)
{
    const char *path = getenv(X509_get_default_cert_dir_env());
    if (getenv(X509_get_default_cert_file_env()))
        return false; /* somebody means that file */
    path = path ? path : X509_get_default_cert_dir();
    DIR *directory = strchr(path, ':') ? NULL : opendir(path);
    bool found = false;
    for (struct dirent *entry; directory && !found && (entry = readdir(directory));)
        found = strlen(entry->d_name) == 10 && strspn(entry->d_name, "0123456789abcdef") == 8 &&
                strcmp(entry->d_name + 8, ".0") == 0;
    if (directory)
        closedir(directory);
    return found;
}

static bool trust_system(SSL_CTX *context)
{
    return (system_directory() ? SSL_CTX_set_default_verify_dir(context)
                               : SSL_CTX_set_default_verify_paths(context)) == 1;
}

static enum flue_code fill_context(struct flue_tls *tls, SSL_CTX *context, struct flue_error *error)
{
    const struct flue_tls_config *config = &tls->server_config.common;
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_default_passwd_cb(context, no_password);
    enum flue_code code = set_parameters(context, config, error);
    if (!code && (set(config->cert_file) || set(config->cert_pem)))
        code = load_certificate(context, config, error);
    else if (!code && tls->server)
        code = flue_fail(error, FLUE_INVALID,
                         "tls: a listener needs cert_file and key_file (or cert_pem and key_pem)");
    if (code)
        return code;
    if (tls->server) {
        SSL_CTX_set_alpn_select_cb(context, select_alpn, tls);
        SSL_CTX_set_session_id_context(context, (const unsigned char *)"flue", 4);
        if (!set(tls->server_config.client_ca_file))
            return FLUE_OK;
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        return load_authorities(context, "client_ca_file", tls->server_config.client_ca_file, NULL,
                                true, error);
    }
    if (tls->alpn_size &&
        SSL_CTX_set_alpn_protos(context, tls->alpn, (unsigned int)tls->alpn_size) != 0)
        return openssl_fail(error, "alpn", NULL);
    SSL_CTX_set_verify(context, tls->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    bool own = set(config->ca_file) || set(config->ca_pem);
    if (own)
        code = load_authorities(context, set(config->ca_file) ? "ca_file" : "ca_pem",
                                config->ca_file, config->ca_pem, false, error);
    if (!code && (!own || config->include_system_ca_certs_pool) &&
        !trust_system(context))
        code = openssl_fail(error, "include_system_ca_certs_pool", NULL);
    return code;
}

static SSL_CTX *make_context(struct flue_tls *tls, struct flue_error *error)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(tls->server ? TLS_server_method() : TLS_client_method());
    if (!context) {
        flue_fail(error, FLUE_NO_MEMORY, "tls: no memory for a context");
        return NULL;
    }
    if (fill_context(tls, context, error)) {
        SSL_CTX_free(context);
        return NULL;
    }
    return context;
}

static bool parse_alpn(struct flue_tls *tls, const char *alpn)
{
    while (alpn && *alpn) {
        size_t size = strcspn(alpn, ",");
        if (size == 0 || tls->alpn_size + 1 + size > ALPN_MAX)
            return false;
        tls->alpn[tls->alpn_size] = (uint8_t)size;
        memcpy(tls->alpn + tls->alpn_size + 1, alpn, size);
        tls->alpn_size += 1 + size;
        alpn += size + (alpn[size] == ',');
    }
    return true;
}

static enum flue_code tls_new(const struct flue_tls_server_config *config, bool server, bool verify,
                              const char *alpn, struct flue_tls **out, struct flue_error *error)
{
    struct flue_tls *tls = calloc(1, sizeof *tls);
    if (!tls)
        return flue_fail(error, FLUE_NO_MEMORY, "tls: no memory");
    tls->refs = 1;
    tls->server = server;
    tls->verify = verify;
    tls->server_config = *config;
    pthread_mutex_init(&tls->lock, NULL);
    if (config->common.reload_interval > 0)
        tls->interval_ns = (uint64_t)config->common.reload_interval;
    else if (config->client_ca_file_reload && set(config->client_ca_file))
        tls->interval_ns = CLIENT_CA_INTERVAL_NS;
    if (tls->interval_ns)
        tls->due_ns = flue_monotonic_ns() + tls->interval_ns;
    enum flue_code code = FLUE_OK;
    if (!parse_alpn(tls, alpn))
        code = flue_fail(error, FLUE_INTERNAL, "tls: bad ALPN list");
    if (!code && !(tls->context = make_context(tls, error)))
        code = error ? error->code : FLUE_INVALID;
    if (code) {
        flue_tls_destroy(tls);
        return code;
    }
    *out = tls;
    return FLUE_OK;
}

enum flue_code flue_tls_server_new(const struct flue_tls_server_config *config, const char *alpn,
                                   struct flue_tls **out, struct flue_error *error)
{
    return tls_new(config, true, true, alpn, out, error);
}

static bool alike(const struct flue_tls *tls, const struct flue_tls_client_config *config,
                  const char *alpn, const char *low, const char *high)
{
    return tls->verify == !config->insecure_skip_verify &&
           tls->server_config.common.include_insecure_cipher_suites ==
               config->common.include_insecure_cipher_suites &&
           strcmp(tls->versions[0], low) == 0 && strcmp(tls->versions[1], high) == 0 &&
           strcmp(tls->alpn_text, alpn) == 0;
}

enum flue_code flue_tls_client_new(const struct flue_tls_client_config *config, const char *alpn,
                                   struct flue_tls **out, struct flue_error *error)
{
    const struct flue_tls_config *common = &config->common;
    struct flue_tls_server_config both = {.common = *common};
    const char *low = common->min_version ? common->min_version : "";
    const char *high = common->max_version ? common->max_version : "";
    bool plain = !common->ca_file && !common->ca_pem && !common->cert_file && !common->cert_pem &&
                 !common->key_file && !common->key_pem && !common->cipher_suites.count &&
                 !common->curve_preferences.count && !common->reload_interval &&
                 strlen(low) < sizeof shared_first->versions[0] &&
                 strlen(high) < sizeof shared_first->versions[1];
    enum flue_code code = FLUE_OK;

    if (!plain)
        return tls_new(&both, false, !config->insecure_skip_verify, alpn, out, error);
    pthread_mutex_lock(&shared_lock);
    struct flue_tls *tls = shared_first;
    while (tls && !alike(tls, config, alpn ? alpn : "", low, high))
        tls = tls->next;
    if (tls) {
        atomic_fetch_add(&tls->refs, 1);
        *out = tls;
    } else if ((code = tls_new(&both, false, !config->insecure_skip_verify, alpn, out, error)) ==
               FLUE_OK) {
        tls = *out;
        tls->shared = true;
        (void)snprintf(tls->versions[0], sizeof tls->versions[0], "%s", low);
        (void)snprintf(tls->versions[1], sizeof tls->versions[1], "%s", high);
        (void)snprintf(tls->alpn_text, sizeof tls->alpn_text, "%s", alpn ? alpn : "");
        /* It may outlive the configuration that made it. */
        tls->server_config.common.min_version = tls->versions[0];
        tls->server_config.common.max_version = tls->versions[1];
        tls->next = shared_first;
        shared_first = tls;
    }
    pthread_mutex_unlock(&shared_lock);
    return code;
}

static bool last_reference(struct flue_tls *tls)
{
    if (!tls->shared)
        return atomic_fetch_sub(&tls->refs, 1) == 1;
    pthread_mutex_lock(&shared_lock); /* nobody may find it while it goes */
    bool last = atomic_fetch_sub(&tls->refs, 1) == 1;
    for (struct flue_tls **link = &shared_first; last && *link; link = &(*link)->next) {
        if (*link == tls) {
            *link = tls->next;
            break;
        }
    }
    pthread_mutex_unlock(&shared_lock);
    return last;
}

void flue_tls_destroy(struct flue_tls *tls)
{
    if (!tls || !last_reference(tls))
        return;
    SSL_CTX_free(tls->context);
    pthread_mutex_destroy(&tls->lock);
    free(tls);
}

/* ---- reading again -------------------------------------------------------------------------- */

static void reload(struct flue_tls *tls)
{
    struct flue_error error;
    SSL_CTX *fresh = make_context(tls, &error);
    if (!fresh) {
        flue_log(FLUE_WARN, "tls", "cannot read the certificate again; the old one stays in use",
                 FLUE_S("error", error.text), FLUE_LOG_END);
        return;
    }
    pthread_mutex_lock(&tls->lock);
    SSL_CTX *old = tls->context;
    tls->context = fresh;
    pthread_mutex_unlock(&tls->lock);
    SSL_CTX_free(old);
}

static struct flue_tls *of_job(struct flue_job *job)
{
    return (struct flue_tls *)(void *)((char *)job - offsetof(struct flue_tls, job));
}

static void reload_work(struct flue_job *job)
{
    reload(of_job(job));
}

static void reload_done(struct flue_job *job)
{
    struct flue_tls *tls = of_job(job);
    atomic_store(&tls->due_ns, flue_monotonic_ns() + tls->interval_ns);
    flue_tls_destroy(tls);
}

/* Files are read on the pool where there is a loop to be kept free; meanwhile the old one is used.
 */
static void reload_if_due(struct flue_tls *tls)
{
    uint64_t due = atomic_load(&tls->due_ns);
    if (due == UINT64_MAX || flue_monotonic_ns() < due ||
        !atomic_compare_exchange_strong(&tls->due_ns, &due, UINT64_MAX))
        return;
    struct flue_loop *loop = flue_loop_current();
    if (!loop) {
        reload(tls);
        atomic_store(&tls->due_ns, flue_monotonic_ns() + tls->interval_ns);
        return;
    }
    atomic_fetch_add(&tls->refs, 1);
    tls->job = (struct flue_job){.loop = loop, .work = reload_work, .done = reload_done};
    flue_pool_submit(loop, &tls->job);
}

SSL_CTX *flue_tls_context(struct flue_tls *tls)
{
    if (tls->interval_ns)
        reload_if_due(tls);
    pthread_mutex_lock(&tls->lock);
    SSL_CTX *context = tls->context;
    SSL_CTX_up_ref(context);
    pthread_mutex_unlock(&tls->lock);
    return context;
}
