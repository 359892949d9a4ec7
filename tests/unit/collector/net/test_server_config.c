/* The keys of a listener: the Collector's names, the house's defaults, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
/* after setjmp.h and stdarg.h */
#include <cmocka.h>

#include "collector/base/codec.h"
#include "collector/net/listener.h"
#include "config/bind.h"

static struct flue_arena arena;
static struct flue_check check;

static const struct flue_server_config *bound(const char *yaml, bool grpc)
{
    flue_arena_destroy(&arena);
    flue_arena_init(&arena, 0, 0);
    flue_check_init(&check, &arena);
    return flue_bind_yaml(&check, yaml, grpc ? flue_server_grpc_fields : flue_server_http_fields,
                          sizeof(struct flue_server_config));
}

static void test_defaults(void **state)
{
    const struct flue_server_config *grpc = bound("{}", true);
    assert_non_null(grpc);
    assert_string_equal(grpc->endpoint, "localhost:4317");
    assert_int_equal(grpc->max_recv_msg_size_mib, 64);
    struct flue_server_config in_effect = flue_server_config_effective(grpc);
    assert_int_equal(in_effect.max_request_body_size, 64 << 20);
    assert_int_equal(in_effect.read_header_timeout, 10000000000);
    assert_int_equal(in_effect.idle_timeout, 300000000000);
    assert_int_equal(in_effect.max_concurrent_streams, 100);
    assert_int_equal(in_effect.keepalive.enforcement_policy.min_time, 300000000000);
    assert_null(in_effect.tls);

    const struct flue_server_config *http = bound("{}", false);
    assert_non_null(http);
    assert_string_equal(http->endpoint, "localhost:4318");
    in_effect = flue_server_config_effective(http);
    assert_int_equal(in_effect.max_request_body_size, 64 << 20);
    assert_int_equal(in_effect.read_header_timeout, 10000000000);
    assert_int_equal(in_effect.idle_timeout, 300000000000);
    assert_true(in_effect.keep_alives_enabled);
    assert_int_equal(flue_server_codings(&in_effect), (1 << FLUE_CODINGS) - 1);
    /* 0 means off where it is said */
    http = bound("{read_header_timeout: 0s, idle_timeout: 0s}", false);
    assert_non_null(http);
    assert_int_equal(flue_server_config_effective(http).read_header_timeout, 0);
}

static void test_keys(void **state)
{
    const struct flue_server_config *grpc =
        bound("endpoint: 0.0.0.0:1\ntransport: tcp\nmax_recv_msg_size_mib: 4\n"
              "max_concurrent_streams: 7\nread_buffer_size: 524288\nwrite_buffer_size: 1\n"
              "include_metadata: true\n"
              "keepalive: {server_parameters: {max_connection_idle: 1m, max_connection_age: 2m, "
              "max_connection_age_grace: 3m, time: 4m, timeout: 5m}, "
              "enforcement_policy: {min_time: 6m, permit_without_stream: true}}\n"
              "tls: {cert_file: c, key_file: k, client_ca_file: a, min_version: \"1.3\"}\n",
              true);
    assert_non_null(grpc);
    assert_int_equal(flue_server_config_effective(grpc).max_request_body_size, 4 << 20);
    assert_int_equal(flue_server_config_effective(grpc).idle_timeout, 60000000000);
    assert_true(grpc->keepalive.enforcement_policy.permit_without_stream);
    assert_string_equal(grpc->tls->client_ca_file, "a");
    assert_string_equal(grpc->tls->common.min_version, "1.3");
    const struct flue_server_config *http =
        bound("endpoint: /run/x.sock\ntransport: unix\nmax_request_body_size: 5\n"
              "cors: {allowed_origins: [a], allowed_headers: [b], max_age: 7}\n"
              "response_headers: {x: y}\ncompression_algorithms: [\"\", gzip]\n"
              "read_timeout: 1s\nwrite_timeout: 2s\nkeep_alives_enabled: false\n",
              false);
    assert_non_null(http);
    assert_int_equal(http->transport, 1);
    assert_int_equal(flue_server_codings(http), 1 << FLUE_IDENTITY | 1 << FLUE_GZIP);
    assert_int_equal(http->cors->max_age, 7);
    flue_server_check(http, "", &check);
    assert_int_equal(check.mistakes, 0);
}

static void test_mistakes(void **state)
{
    static const char *const grpc[] = {"auth: {who: x}",
                                       "max_recv_msg_size_mib: 0", "max_concurrent_streams: 0",
                                       "max_request_body_size: 1", "transport: udp"};
    for (size_t i = 0; i < sizeof grpc / sizeof grpc[0]; i++) {
        bound(grpc[i], true);
        if (check.mistakes == 0)
            fail_msg("\"%s\" must be a mistake", grpc[i]);
    }
    static const char *const http[] = {"middlewares: [{id: x}]", "endpoint: nothing", "compression_algorithms: [br]",
                                       "response_headers: {\"a b\": c}", "tls: {cert_file: x}"};
    for (size_t i = 0; i < sizeof http / sizeof http[0]; i++) {
        const struct flue_server_config *config = bound(http[i], false);
        if (config)
            flue_server_check(config, "", &check);
        if (check.mistakes == 0)
            fail_msg("\"%s\" must be a mistake", http[i]);
    }
}

static void test_equal(void **state)
{
    struct flue_server_config a = *bound("endpoint: a:1", false), b = a;
    assert_true(flue_server_config_equal(&a, &b));
    b.idle_timeout++;
    assert_false(flue_server_config_equal(&a, &b));
    b = a;
    struct flue_tls_server_config one = {.common = {.cert_file = "x"}}, two = one;
    a.tls = &one;
    assert_false(flue_server_config_equal(&a, &b));
    b.tls = &two;
    assert_true(flue_server_config_equal(&a, &b));
    two.common.key_pem = "y";
    assert_false(flue_server_config_equal(&a, &b));
}

static void test_credentials_in_plain_text(void **state)
{
    static const struct {
        const char *yaml;
        size_t warnings;
    } rows[] = {
        {"{endpoint: '0.0.0.0:1', auth: {authenticator: a}}", 1},
        {"{endpoint: ':1', auth: {authenticator: a}}", 1},
        {"{endpoint: '[::]:1', auth: {authenticator: a}}", 1},
        {"{endpoint: 'node.example:1', auth: {authenticator: a}}", 1},
        {"{endpoint: '0.0.0.0:1'}", 0},
        {"{endpoint: '127.0.0.1:1', auth: {authenticator: a}}", 0},
        {"{endpoint: 'localhost:1', auth: {authenticator: a}}", 0},
        {"{endpoint: '[::1]:1', auth: {authenticator: a}}", 0},
        {"{endpoint: /run/a, transport: unix, auth: {authenticator: a}}", 0},
        {"{endpoint: '0.0.0.0:1', auth: {authenticator: a}, tls: {cert_file: c, key_file: k}}", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct flue_server_config *config = bound(rows[i].yaml, false);
        assert_non_null(config);
        flue_server_check(config, "", &check);
        assert_int_equal(check.mistakes, 0);
        if (check.warnings != rows[i].warnings)
            fail_msg("%s: %zu warnings", rows[i].yaml, check.warnings);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_credentials_in_plain_text),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_equal),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    flue_arena_destroy(&arena);
    return failed;
}
