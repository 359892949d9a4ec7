/* TLS: both protocols by ALPN, client certificates, certificates read again, what is refused. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <signal.h>

#include "config/check.h"
#include "tests/unit/collector/net/harness.h"

static char folder[] = "/tmp/flue-tls-XXXXXX";
static char answer[1 << 20];

static const char *at(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

struct identity {
    EVP_PKEY *key;
    X509 *certificate;
};

static void extend(X509 *certificate, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
}

/* Signed by `issuer`, or by itself. */
static struct identity make(const char *name, const struct identity *issuer, long serial)
{
    struct identity made = {EVP_EC_gen("P-256"), X509_new()};
    assert_non_null(made.key);
    X509_set_version(made.certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(made.certificate), serial);
    X509_gmtime_adj(X509_getm_notBefore(made.certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(made.certificate), 3600);
    X509_set_pubkey(made.certificate, made.key);
    X509_NAME *subject = X509_get_subject_name(made.certificate);
    X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC, (const unsigned char *)"flue", -1, -1,
                               0);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(made.certificate,
                         X509_get_subject_name(issuer ? issuer->certificate : made.certificate));
    if (issuer)
        extend(made.certificate, NID_subject_alt_name, "IP:127.0.0.1,DNS:localhost");
    else
        extend(made.certificate, NID_basic_constraints, "critical,CA:TRUE");
    assert_true(X509_sign(made.certificate, issuer ? issuer->key : made.key, EVP_sha256()) > 0);
    return made;
}

static void save(const struct identity *identity, const char *certificate, const char *key)
{
    FILE *file = fopen(at(certificate), "w");
    assert_non_null(file);
    PEM_write_X509(file, identity->certificate);
    fclose(file);
    if (!key)
        return;
    file = fopen(at(key), "w");
    assert_non_null(file);
    PEM_write_PrivateKey(file, identity->key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
}

static void drop(struct identity *identity)
{
    EVP_PKEY_free(identity->key);
    X509_free(identity->certificate);
}

static struct identity authority, server, client, stranger;

static int set_up(void **state)
{
    assert_non_null(mkdtemp(folder));
    authority = make("ca", NULL, 1);
    server = make("server", &authority, 2);
    client = make("team-a", &authority, 3);
    stranger = make("stranger", NULL, 4);
    save(&authority, "ca.pem", NULL);
    save(&server, "server.pem", "server.key");
    save(&client, "client.pem", "client.key");
    save(&stranger, "stranger.pem", "stranger.key");
    return 0;
}

static int tear_down(void **state)
{
    static const char *const files[] = {"ca.pem",     "server.pem",   "server.key",   "client.pem",
                                        "client.key", "stranger.pem", "stranger.key", NULL};
    for (const char *const *file = files; *file; file++)
        unlink(at(*file));
    rmdir(folder);
    drop(&authority);
    drop(&server);
    drop(&client);
    drop(&stranger);
    return 0;
}

static struct harness h;
static char certificate_path[128], key_path[128], ca_path[128];
static struct flue_tls_server_config tls;
static struct flue_route routes[4];

static void start(bool mutual, int64_t reload)
{
    const struct flue_route fresh[] = H_ROUTES;
    struct flue_server_config config = h_default_config;
    memcpy(routes, fresh, sizeof routes);
    snprintf(certificate_path, sizeof certificate_path, "%s", at("server.pem"));
    snprintf(key_path, sizeof key_path, "%s", at("server.key"));
    snprintf(ca_path, sizeof ca_path, "%s", at("ca.pem"));
    tls = (struct flue_tls_server_config){
        .common = {.cert_file = certificate_path, .key_file = key_path, .reload_interval = reload},
        .client_ca_file = mutual ? ca_path : NULL};
    config.tls = &tls;
    h_start(&h, &config, routes, 4);
}

/* A TLS client by the house's own flue_tls_client_new. NULL: refused. */
static SSL *dial(const char *alpn, const char *certificate, const char *key)
{
    char own_certificate[128], own_key[128], ca[128];
    snprintf(ca, sizeof ca, "%s", at("ca.pem"));
    struct flue_tls_client_config config = {.common = {.ca_file = ca}};
    struct flue_error error;
    struct flue_tls *context;
    if (certificate) {
        snprintf(own_certificate, sizeof own_certificate, "%s", at(certificate));
        snprintf(own_key, sizeof own_key, "%s", at(key));
        config.common.cert_file = own_certificate;
        config.common.key_file = own_key;
    }
    if (flue_tls_client_new(&config, alpn, &context, &error))
        fail_msg("%s", error.text);
    SSL_CTX *made = flue_tls_context(context);
    SSL *ssl = SSL_new(made);
    SSL_CTX_free(made);
    flue_tls_destroy(context);
    SSL_set_fd(ssl, h_connect(h.port));
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), "127.0.0.1");
    if (SSL_connect(ssl) == 1)
        return ssl;
    ERR_clear_error();
    close(SSL_get_fd(ssl));
    SSL_free(ssl);
    return NULL;
}

static void hang_up(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);
    SSL_free(ssl);
    close(fd);
}

static long read_end(SSL *ssl)
{
    size_t size = 0;
    int got;
    while ((got = SSL_read(ssl, answer + size, (int)(sizeof answer - 1 - size))) > 0)
        size += (size_t)got;
    ERR_clear_error();
    answer[size] = 0;
    return (long)size;
}

static const char *alpn_of(SSL *ssl)
{
    static char name[32];
    const unsigned char *data;
    unsigned int size;
    SSL_get0_alpn_selected(ssl, &data, &size);
    snprintf(name, sizeof name, "%.*s", (int)size, (const char *)data);
    return name;
}

static void test_http1(void **state)
{
    static char body[200000];
    start(false, 0);
    memset(body, 'b', sizeof body);
    for (int i = 0; i < 2; i++) { /* with ALPN and without */
        SSL *ssl = dial(i ? NULL : "http/1.1", NULL, NULL);
        assert_non_null(ssl);
        assert_string_equal(alpn_of(ssl), i ? "" : "http/1.1");
        const char *head = "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                           "Content-Length: 200000\r\n\r\n";
        SSL_write(ssl, head, (int)strlen(head));
        for (size_t sent = 0; sent < sizeof body; sent += 10000)
            assert_int_equal(SSL_write(ssl, body + sent, 10000), 10000);
        long size = read_end(ssl);
        H_STARTS(answer, "HTTP/1.1 200");
        assert_memory_equal(answer + size - 200000, body, sizeof body);
        assert_string_equal(h.subject, "");
        hang_up(ssl);
    }
    h_stop(&h);
}

static void test_http2(void **state)
{
    start(false, 0);
    SSL *ssl = dial("h2,http/1.1", NULL, NULL);
    assert_non_null(ssl);
    assert_string_equal(alpn_of(ssl), "h2");
    SSL_write(ssl, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
    assert_true(SSL_read(ssl, answer, 9) == 9);
    assert_int_equal(answer[3], 4); /* SETTINGS */
    hang_up(ssl);
    assert_null(dial("spdy/3", NULL, NULL)); /* nothing in common */
    h_stop(&h);
}

static void test_client_certificates(void **state)
{
    static const char *const request = "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    start(true, 0);
    SSL *ssl = dial(NULL, "client.pem", "client.key");
    assert_non_null(ssl);
    SSL_write(ssl, request, (int)strlen(request));
    read_end(ssl);
    H_STARTS(answer, "HTTP/1.1 200");
    assert_string_equal(h.subject, "CN=team-a,O=flue");
    hang_up(ssl);
    /* none, and one of another authority: with TLS 1.3 the client learns it when it reads */
    for (int i = 0; i < 2; i++) {
        ssl = dial(NULL, i ? "stranger.pem" : NULL, "stranger.key");
        if (!ssl)
            continue;
        SSL_write(ssl, request, (int)strlen(request));
        assert_int_equal(read_end(ssl), 0);
        hang_up(ssl);
    }
    assert_int_equal(h.heads, 1);
    const struct flue_label labels[] = {
        {"endpoint", "127.0.0.1:0"}, {"reason", "tls_handshake"}, {NULL, NULL}};
    H_AWAIT(flue_metric_get(flue_metric(h.metrics, FLUE_COUNTER, "server_connections_refused", "",
                                        labels)) == 2);
    h_stop(&h);
}

/* Plain HTTP, garbage, or a handshake cut anywhere: an end, and nothing else. */
static void test_no_tls(void **state)
{
    start(false, 0);
    h_once(h.port, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", answer, sizeof answer);
    assert_null(strstr(answer, "HTTP/1.1"));
    for (int i = 0; i < 20; i++) {
        int fd = h_connect(h.port);
        h_send(fd, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03zzzzzzzzz", (size_t)i);
        close(fd);
    }
    SSL *ssl = dial(NULL, NULL, NULL);
    assert_non_null(ssl);
    hang_up(ssl);
    H_AWAIT(atomic_load(&h.loops->items[0]->connections) +
                atomic_load(&h.loops->items[1]->connections) ==
            0);
    h_stop(&h);
}

static long serial_seen(void)
{
    SSL *ssl = dial(NULL, NULL, NULL);
    assert_non_null(ssl);
    X509 *certificate = SSL_get1_peer_certificate(ssl);
    long serial = ASN1_INTEGER_get(X509_get0_serialNumber(certificate));
    X509_free(certificate);
    hang_up(ssl);
    return serial;
}

static void test_reload(void **state)
{
    start(false, 20 * MS);
    assert_int_equal(serial_seen(), 2);
    struct identity fresh = make("server", &authority, 22);
    save(&fresh, "server.pem", "server.key");
    H_AWAIT(serial_seen() == 22);
    FILE *file = fopen(at("server.pem"), "w"); /* broken: the one in use stays */
    fputs("nonsense", file);
    fclose(file);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(serial_seen(), 22);
        usleep(10000);
    }
    save(&server, "server.pem", "server.key");
    H_AWAIT(serial_seen() == 2);
    drop(&fresh);
    h_stop(&h);
}

static void test_bad_files(void **state)
{
    struct flue_error error;
    struct flue_tls *made = NULL;
    char good[128], key[128], other[128];
    snprintf(good, sizeof good, "%s", at("server.pem"));
    snprintf(key, sizeof key, "%s", at("server.key"));
    snprintf(other, sizeof other, "%s", at("client.key"));
    const struct {
        struct flue_tls_server_config config;
        const char *part;
    } cases[] = {
        {{.common = {.cert_file = "/nonexistent.pem", .key_file = key}}, "/nonexistent.pem"},
        {{.common = {.cert_file = good, .key_file = "/nonexistent.key"}}, "key_file"},
        {{.common = {.cert_file = good, .key_file = other}}, "key_file"},
        {{.common = {.cert_pem = "junk", .key_pem = "junk"}}, "cert_pem"},
        {{.common = {.cert_file = good, .key_file = key}, .client_ca_file = "/none"},
         "client_ca_file"},
        {{.common = {.cert_file = good, .key_file = key, .min_version = "1.4"}}, "min_version"},
        {{.common = {0}}, "cert_file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_not_equal(flue_tls_server_new(&cases[i].config, "h2", &made, &error), FLUE_OK);
        H_HAS(error.text, cases[i].part);
        assert_null(strstr(error.text, "junk"));
    }
    assert_null(made);
}

static void test_check(void **state)
{
    static const char *curves[] = {"X25519", "P999"};
    static const char *ciphers[] = {"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_NONE",
                                    "TLS_RSA_WITH_AES_128_CBC_SHA"};
    const struct flue_tls_config wrong = {.ca_file = "a",
                                          .ca_pem = "b",
                                          .cert_file = "c",
                                          .min_version = "1.3",
                                          .max_version = "1.2",
                                          .curve_preferences = {curves, 2},
                                          .cipher_suites = {ciphers, 3}};
    struct flue_arena arena;
    struct flue_check check;
    struct flue_buffer text;
    flue_arena_init(&arena, 0, 0);
    flue_check_init(&check, &arena);
    flue_buffer_init(&text, 1 << 16);
    flue_tls_check(&wrong, "tls", &check);
    assert_int_equal(check.mistakes, 6);
    flue_check_print(&check, &text);
    H_HAS(text.data, "P999");
    H_HAS(text.data, "TLS_NONE");
    H_HAS(text.data, "TLS_RSA_WITH_AES_128_CBC_SHA");
    flue_buffer_destroy(&text);
    flue_arena_destroy(&arena);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http1),
        cmocka_unit_test(test_http2),
        cmocka_unit_test(test_client_certificates),
        cmocka_unit_test(test_no_tls),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
