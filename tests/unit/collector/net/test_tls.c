/* Contexts of clients: which of them are one and the same, and what is read again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* after setjmp.h and stdarg.h */
#include <cmocka.h>

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>

#include "collector/net/tls.h"

static struct flue_tls *make(const struct flue_tls_client_config *config, const char *alpn)
{
    struct flue_tls *tls = NULL;
    struct flue_error error = {0};
    if (flue_tls_client_new(config, alpn, &tls, &error))
        fail_msg("%s", error.text);
    return tls;
}

static int lowest(struct flue_tls *tls)
{
    SSL_CTX *context = flue_tls_context(tls);
    int version = (int)SSL_CTX_get_min_proto_version(context);
    SSL_CTX_free(context);
    return version;
}

static void plain_ones_are_one(void **state)
{
    struct flue_tls_client_config config = {.server_name_override = "a"}, other = {0};
    struct flue_tls *first = make(&config, "h2"), *second = make(&other, "h2");
    assert_ptr_equal(first, second);
    flue_tls_destroy(first);
    assert_true(lowest(second) > 0); /* one reference is left */
    struct flue_tls *third = make(&config, "h2");
    assert_ptr_equal(second, third);
    flue_tls_destroy(second);
    flue_tls_destroy(third);
    /* When the last went, so did the context: what comes now is made anew. */
    third = make(&config, "h2");
    assert_true(lowest(third) > 0);
    flue_tls_destroy(third);
}

static void other_settings_are_others(void **state)
{
    const struct {
        struct flue_tls_client_config config;
        const char *alpn;
    } rows[] = {
        {{.insecure_skip_verify = false}, "h2"},
        {{.insecure_skip_verify = false}, "h2,http/1.1"},
        {{.insecure_skip_verify = false}, NULL},
        {{.insecure_skip_verify = true}, "h2"},
        {{.common = {.min_version = "1.3"}}, "h2"},
        {{.common = {.max_version = "1.2"}}, "h2"},
        {{.common = {.min_version = "1.2", .max_version = "1.2"}}, "h2"},
        {{.common = {.include_insecure_cipher_suites = true}}, "h2"},
    };
    enum { ROWS = sizeof rows / sizeof rows[0] };
    struct flue_tls *all[ROWS], *again[ROWS];
    for (size_t i = 0; i < ROWS; i++)
        all[i] = make(&rows[i].config, rows[i].alpn);
    for (size_t i = 0; i < ROWS; i++) {
        again[i] = make(&rows[i].config, rows[i].alpn);
        for (size_t j = 0; j < ROWS; j++)
            if (i == j)
                assert_ptr_equal(all[j], again[i]);
            else
                assert_ptr_not_equal(all[j], again[i]);
    }
    SSL_CTX *lax = flue_tls_context(all[3]), *strict = flue_tls_context(all[0]);
    assert_int_equal(SSL_CTX_get_verify_mode(lax), SSL_VERIFY_NONE);
    assert_int_equal(SSL_CTX_get_verify_mode(strict), SSL_VERIFY_PEER);
    SSL_CTX_free(lax);
    SSL_CTX_free(strict);
    for (size_t i = 0; i < ROWS; i++) {
        flue_tls_destroy(all[i]);
        flue_tls_destroy(again[i]);
    }
}

/* The strings of the configuration that made it may be gone. */
static void it_outlives_its_configuration(void **state)
{
    char *version = strdup("1.3");
    struct flue_tls_client_config config = {.common = {.min_version = version}};
    struct flue_tls *first = make(&config, "h2");
    memset(version, 'x', strlen(version));
    free(version);
    config.common.min_version = "1.3";
    struct flue_tls *second = make(&config, "h2");
    assert_ptr_equal(first, second);
    flue_tls_destroy(first);
    assert_int_equal(lowest(second), TLS1_3_VERSION);
    flue_tls_destroy(second);
}

/* ---- authorities of one's own --------------------------------------------------------------- */

static void write_certificates(const char *path, const char *const *names, size_t count)
{
    char fresh[128];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *file = fopen(fresh, "w");
    assert_non_null(file);
    for (size_t i = 0; i < count; i++) {
        EVP_PKEY *key = EVP_EC_gen("P-256");
        X509 *certificate = X509_new();
        X509_NAME *name = X509_get_subject_name(certificate);
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)names[i], -1, -1,
                                   0);
        X509_set_issuer_name(certificate, name);
        X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
        X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
        X509_set_pubkey(certificate, key);
        assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
        assert_int_equal(PEM_write_X509(file, certificate), 1);
        X509_free(certificate);
        EVP_PKEY_free(key);
    }
    fclose(file);
    assert_int_equal(rename(fresh, path), 0);
}

static int authorities(struct flue_tls *tls)
{
    SSL_CTX *context = flue_tls_context(tls);
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    int count = sk_X509_OBJECT_num(X509_STORE_get0_objects(store));
    SSL_CTX_free(context);
    return count;
}

static void what_is_ones_own_is_not_shared_and_is_read_again(void **state)
{
    static const char *const names[] = {"one", "two", "three"};
    char folder[] = "/tmp/flue-tls-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/ca.pem", folder);
    write_certificates(path, names, 1);
    struct flue_tls_client_config own = {.common = {.ca_file = path}}, plain = {0};
    struct flue_tls_client_config reloads = {.common = {.ca_file = path, .reload_interval = 1}};
    struct flue_tls *first = make(&own, "h2"), *second = make(&own, "h2");
    struct flue_tls *third = make(&reloads, "h2"), *shared = make(&plain, "h2");
    assert_ptr_not_equal(first, second);
    assert_ptr_not_equal(first, shared);
    assert_ptr_not_equal(first, third);
    assert_int_equal(authorities(first), 1);
    assert_int_equal(authorities(third), 1);

    write_certificates(path, names, 3);
    assert_int_equal(authorities(third), 3);
    assert_int_equal(authorities(first), 1); /* it has no interval */
    write_certificates(path, names, 0);      /* what cannot be read leaves the old one in use */
    assert_int_equal(authorities(third), 3);
    write_certificates(path, names, 2);
    assert_int_equal(authorities(third), 2);

    flue_tls_destroy(first);
    flue_tls_destroy(second);
    flue_tls_destroy(third);
    flue_tls_destroy(shared);
    unlink(path);
    rmdir(folder);
}

static void *come_and_go(void *arg)
{
    const struct flue_tls_client_config config = {.insecure_skip_verify = true};
    for (unsigned i = 0; i < 200; i++) {
        struct flue_tls *tls = NULL;
        if (flue_tls_client_new(&config, "h2", &tls, NULL))
            return (void *)1;
        SSL_CTX_free(flue_tls_context(tls));
        flue_tls_destroy(tls);
    }
    return NULL;
}

static void threads_come_and_go(void **state)
{
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, NULL), 0);
    for (size_t i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_ones_are_one),
        cmocka_unit_test(other_settings_are_others),
        cmocka_unit_test(it_outlives_its_configuration),
        cmocka_unit_test(what_is_ones_own_is_not_shared_and_is_read_again),
        cmocka_unit_test(threads_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
