/* Where the API server is and who we are: in a cluster, by kubeconfig, with plugins; and what is
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "kubernetes/access.h"

static char folder[64];

static int setup(void **state)
{
    snprintf(folder, sizeof folder, "/tmp/flue-access-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    static const char *const names[] = {"config", "other", "token", "plugin", "ca.pem"};
    char path[128];
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

static const char *write_file(const char *name, const char *text)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

#define CONFIG(cluster, user)                                                                      \
    "current-context: c\ncontexts:\n- {name: c, context: {cluster: k, user: u}}\n"                 \
    "- {name: d, context: {cluster: k, user: nobody}}\n"                                           \
    "clusters:\n- name: k\n  cluster: {" cluster "}\nusers:\n- name: u\n  user: {" user "}\n"

static struct flue_kube_access *access_of;
static struct flue_error error;

static enum flue_code open_config(const char *text, const char *context)
{
    setenv("KUBECONFIG", write_file("config", text), 1);
    access_of = NULL;
    error.text[0] = 0;
    return flue_kube_access_open(FLUE_KUBE_KUBECONFIG, context, &access_of, &error);
}

static void in_a_cluster(void **state)
{
    setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
    setenv("KUBERNETES_SERVICE_PORT", "443", 1);
    assert_int_equal(flue_kube_access_open(FLUE_KUBE_SERVICE_ACCOUNT, NULL, &access_of, &error),
                     FLUE_OK);
    assert_string_equal(access_of->server, "https://[fd00::1]:443");
    assert_string_equal(access_of->token_file,
                        "/var/run/secrets/kubernetes.io/serviceaccount/token");
    flue_kube_access_close(access_of);
    unsetenv("KUBERNETES_SERVICE_HOST");
    assert_int_equal(flue_kube_access_open(FLUE_KUBE_SERVICE_ACCOUNT, NULL, &access_of, &error),
                     FLUE_INVALID);
    assert_non_null(strstr(error.text, "KUBERNETES_SERVICE_HOST"));
}

static void everything_of_a_kubeconfig(void **state)
{
    char expected[128];
    assert_int_equal(
        open_config(
            CONFIG("server: 'https://k.example:6443/', certificate-authority: ca.pem, "
                   "tls-server-name: inner, certificate-authority-data: Q0E=",
                   "token: t0ken, client-certificate-data: Q0VSVA==, client-key-data: S0VZ"),
            NULL),
        FLUE_OK);
    snprintf(expected, sizeof expected, "%s/ca.pem", folder);
    assert_string_equal(access_of->server, "https://k.example:6443");
    assert_string_equal(access_of->server_name, "inner");
    assert_string_equal(access_of->ca_file, expected);
    assert_true(flue_bytes_is(access_of->ca_data, "CA"));
    assert_true(flue_bytes_is(access_of->cert_data, "CERT"));
    assert_true(flue_bytes_is(access_of->key_data, "KEY"));
    char token[64];
    assert_int_equal(flue_kube_access_token(access_of, false, token, sizeof token, &error),
                     FLUE_OK);
    assert_string_equal(token, "t0ken");
    flue_kube_access_close(access_of);
    assert_int_equal(open_config(CONFIG("server: http://k", ""), "d"), FLUE_OK);
    flue_kube_access_close(access_of);
}

static void the_first_file_that_has_the_context(void **state)
{
    char list[256];
    write_file("other", CONFIG("server: http://other", ""));
    snprintf(list, sizeof list, "%s/missing::%s/other", folder, folder);
    setenv("KUBECONFIG", list, 1);
    assert_int_equal(flue_kube_access_open(FLUE_KUBE_KUBECONFIG, "c", &access_of, &error), FLUE_OK);
    assert_string_equal(access_of->server, "http://other");
    flue_kube_access_close(access_of);
    assert_int_equal(flue_kube_access_open(FLUE_KUBE_KUBECONFIG, "zzz", &access_of, &error),
                     FLUE_INVALID);
    assert_non_null(strstr(error.text, "zzz"));
}

static void token_files_are_read_again(void **state)
{
    char token[64];
    write_file("token", "one\n");
    assert_int_equal(
        open_config(CONFIG("server: http://k", "tokenFile: token, token: ignored"), NULL), FLUE_OK);
    assert_int_equal(flue_kube_access_token(access_of, false, token, sizeof token, &error),
                     FLUE_OK);
    assert_string_equal(token, "one");
    write_file("token", "two");
    assert_int_equal(flue_kube_access_token(access_of, false, token, sizeof token, &error),
                     FLUE_OK);
    assert_string_equal(token, "two");
    write_file("token", "a\r\nEvil: header");
    assert_int_equal(flue_kube_access_token(access_of, false, token, sizeof token, &error),
                     FLUE_INVALID);
    assert_null(strstr(error.text, "Evil"));
    write_file("token", "0123456789012345678901234567890123456789012345678901234567890123");
    assert_int_equal(flue_kube_access_token(access_of, false, token, sizeof token, &error),
                     FLUE_TOO_LARGE);
    flue_kube_access_close(access_of);
}

static void plugins(void **state)
{
    char token[64];
    const char *plugin = write_file(
        "plugin",
        "#!/bin/sh\necho run >> \"$LOG\"\ncase \"$MODE\" in\n"
        "fail) exit 3 ;;\nnoise) echo hello ;;\nesac\n"
        "echo '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"status\":"
        "{\"token\":\"from-plugin\",\"expirationTimestamp\":\"2100-01-01T00:00:00Z\"}}'\n");
    chmod(plugin, 0755);
    setenv("LOG", "/dev/null", 1);
    static const char config[] =
        CONFIG("server: http://k",
               "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, "
               "installHint: install it}");
    assert_int_equal(open_config(config, NULL), FLUE_OK);
    assert_int_equal(flue_kube_access_token(access_of, false, token, sizeof token, &error),
                     FLUE_OK);
    assert_string_equal(token, "from-plugin");
    setenv("MODE", "fail", 1); /* what it said holds until it ends or is refused */
    assert_int_equal(flue_kube_access_token(access_of, false, token, sizeof token, &error),
                     FLUE_OK);
    assert_int_equal(flue_kube_access_token(access_of, true, token, sizeof token, &error),
                     FLUE_UNAVAILABLE);
    setenv("MODE", "noise", 1);
    assert_int_equal(flue_kube_access_token(access_of, true, token, sizeof token, &error),
                     FLUE_INVALID);
    flue_kube_access_close(access_of);
    unlink(write_file("plugin", ""));
    assert_int_equal(open_config(config, NULL), FLUE_OK);
    assert_int_equal(flue_kube_access_token(access_of, false, token, sizeof token, &error),
                     FLUE_IO);
    assert_non_null(strstr(error.text, "install it"));
    flue_kube_access_close(access_of);
    unsetenv("MODE");
}

static void what_is_refused_is_named(void **state)
{
    static const struct {
        const char *config, *word;
    } wrong[] = {
        {CONFIG("server: http://k", "username: a, password: b"), "basic"},
        {CONFIG("server: http://k", "auth-provider: {name: gcp}"), "auth-provider"},
        {CONFIG("server: http://k", "as: somebody"), "`as`"},
        {CONFIG("server: http://k", "exec: {apiVersion: v1, command: x, interactiveMode: Always}"),
         "Always"},
        {CONFIG("server: http://k", "exec: {command: x}"), "apiVersion"},
        {CONFIG("server: ftp://k", ""), "server URL"},
        {CONFIG("server: http://k, certificate-authority-data: '!'", ""), "base64"},
        {"just text", "not a kubeconfig"},
        {"a: [", "not a kubeconfig"},
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(open_config(wrong[i].config, NULL), FLUE_INVALID);
        if (!strstr(error.text, wrong[i].word))
            fail_msg("%s: %s", wrong[i].word, error.text);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(in_a_cluster),
        TEST(everything_of_a_kubeconfig),
        TEST(the_first_file_that_has_the_context),
        TEST(token_files_are_read_again),
        TEST(plugins),
        TEST(what_is_refused_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
