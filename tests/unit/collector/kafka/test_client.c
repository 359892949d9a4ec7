/* Keys of brokers and security: what is refused, what librdkafka is told, a library that is not
 * there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "collector/kafka/client.h"
#include "collector/kafka/record.h"
#include "collector/base/buffer.h"
#include "config/bind.h"

struct bound {
    struct flue_arena arena;
    struct flue_check check;
    struct flue_kafka_client_config *config;
    struct flue_buffer said;
};

static void read_keys(struct bound *b, const char *yaml)
{
    flue_arena_init(&b->arena, 0, 0);
    flue_check_init(&b->check, &b->arena);
    b->config = flue_bind_yaml(&b->check, yaml, flue_kafka_client_fields, sizeof *b->config);
    assert_non_null(b->config);
    flue_kafka_client_check(b->config, &b->check);
    flue_buffer_init(&b->said, 1 << 16);
    flue_check_print(&b->check, &b->said);
}

static void release(struct bound *b)
{
    flue_buffer_destroy(&b->said);
    flue_arena_destroy(&b->arena);
}

static void what_cannot_work_is_a_mistake(void **state)
{
    static const struct {
        const char *yaml, *said;
    } cases[] = {
        {"brokers: []", "must be specified"},
        {"brokers: [\"a:1,b:2\"]", "is not host:port"},
        {"protocol_version: 2..1", "is no version"},
        {"auth: {kerberos: {realm: X}}", "auth.kerberos"},
        {"auth: {sasl: {mechanism: AWS_MSK_IAM_OAUTHBEARER}}", "PLAIN, SCRAM-SHA-256"},
        {"auth: {sasl: {mechanism: OAUTHBEARER, oauthbearer_token_source: x}}", "is not there"},
        {"auth: {sasl: {mechanism: PLAIN, password: x}}", "auth.sasl.username"},
        {"auth: {sasl: {mechanism: PLAIN, username: x}}", "auth.sasl.password"},
        {"auth: {plain_text: {username: x}}", "needs username and password"},
        {"auth: {plain_text: {username: x, password: y}, sasl: {mechanism: PLAIN, username: x, "
         "password: y}}",
         "exclude each other"},
        {"tls: {min_version: \"1.3\"}", "tls.min_version"},
        {"tls: {max_version: \"1.3\"}", "tls.max_version"},
        {"tls: {server_name_override: x}", "tls.server_name_override"},
        {"tls: {reload_interval: 1m}", "restart"},
        {"auth: {tls: {curve_preferences: [X25519]}}", "auth.tls.curve_preferences"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bound b;
        read_keys(&b, cases[i].yaml);
        if (!b.check.mistakes || !strstr(b.said.data, cases[i].said))
            fail_msg("%s: %s", cases[i].yaml, b.said.size ? b.said.data : "nothing was said");
        release(&b);
    }
}

static void defaults_are_good(void **state)
{
    struct bound b;
    read_keys(&b, "{}");
    assert_int_equal(b.check.mistakes, 0);
    assert_int_equal(b.config->brokers.count, 1);
    assert_string_equal(((const char *const *)b.config->brokers.items)[0], "localhost:9092");
    assert_string_equal(b.config->client_id, "otel-collector");
    assert_null(b.config->tls);
    release(&b);
}

static void login_without_tls_is_warned_of(void **state)
{
    struct bound b;
    read_keys(&b, "auth: {sasl: {mechanism: PLAIN, username: u, password: p}}");
    assert_int_equal(b.check.mistakes, 0);
    assert_int_equal(b.check.warnings, 1);
    release(&b);
}

static void a_library_that_is_not_there_is_named(void **state)
{
    struct flue_error error = {0};
    assert_null(flue_kafka_load_from("librdkafka-that-is-not-there.so.1", &error));
    assert_int_equal(error.code, FLUE_IO);
    assert_non_null(strstr(error.text, "install librdkafka1"));
    /* One that is there and is another. */
    assert_null(flue_kafka_load_from("libz.so.1", &error));
    assert_non_null(strstr(error.text, "has no function rd_kafka_"));
}

/* The real library, where it is installed: it takes what we say. */
static void the_library_takes_the_properties(void **state)
{
    struct flue_error error = {0};
    const struct flue_kafka *kafka = flue_kafka_load(&error);
    struct bound b;
    rd_kafka_conf_t *conf;

    if (!kafka) {
        print_message("no librdkafka here\n");
        skip();
    }
    read_keys(&b,
              "brokers: [\"a:1\", \"b:2\"]\nauth: {sasl: {mechanism: SCRAM-SHA-256, username: u, "
              "password: secret}}\ntls: {insecure_skip_verify: true}\nrack_id: r1\n");
    assert_int_equal(b.check.mistakes, 0);
    conf = flue_kafka_client_conf(kafka, "kafka", b.config, &error);
    assert_non_null(conf);
    assert_int_equal(flue_kafka_login_hint(kafka, b.config)[0] != 0,
                     kafka->rd_kafka_version() < FLUE_KAFKA_SCRAM_VERSION);
    /* A value that it does not take is an error with our key, and never with a secret. */
    assert_int_equal(
        flue_kafka_set(kafka, conf, "acks", "many", "producer.required_acks", false, &error),
        FLUE_INVALID);
    assert_non_null(strstr(error.text, "producer.required_acks"));
    assert_int_equal(flue_kafka_set(kafka, conf, "acks", "hush-hush", "a.key", true, &error),
                     FLUE_INVALID);
    assert_null(strstr(error.text, "hush"));
    assert_int_equal(
        flue_kafka_set(kafka, conf, "no.such.property", "1", "some.key", false, &error),
        FLUE_INVALID);
    assert_non_null(strstr(error.text, "a newer one is needed"));
    kafka->rd_kafka_conf_destroy(conf);
    release(&b);
}

static void escapes_go_there_and_back(void **state)
{
    uint8_t all[256], text[1024], back[1024];

    for (unsigned i = 0; i < 256; i++)
        all[i] = (uint8_t)i;
    size_t size = flue_kafka_escaped_size(flue_bytes(all, 256));
    assert_true(size <= sizeof text);
    flue_kafka_escape(flue_bytes(all, 256), text);
    for (size_t i = 0; i < size; i++)
        assert_true(text[i] >= 0x20 && text[i] < 0x7f);
    assert_int_equal(flue_kafka_unescape(flue_bytes(text, size), back), 256);
    assert_memory_equal(all, back, 256);
    /* Cut anywhere, it stays within bounds. */
    for (size_t i = 0; i <= size; i++)
        assert_true(flue_kafka_unescape(flue_bytes(text, i), back) <= i);
    assert_int_equal(flue_kafka_unescape(FLUE_BYTES("100%"), back), 4);
    assert_int_equal(flue_kafka_unescape(FLUE_BYTES("%zz%4"), back), 5);
}

static void topics(void **state)
{
    char name[252];

    memset(name, 'a', sizeof name);
    assert_true(flue_kafka_topic_valid(FLUE_BYTES("otlp_profiles-1.x")));
    assert_true(flue_kafka_topic_valid(flue_bytes(name, 249)));
    assert_false(flue_kafka_topic_valid(flue_bytes(name, 250)));
    assert_false(flue_kafka_topic_valid(FLUE_BYTES("")));
    assert_false(flue_kafka_topic_valid(FLUE_BYTES(".")));
    assert_false(flue_kafka_topic_valid(FLUE_BYTES("..")));
    assert_false(flue_kafka_topic_valid(FLUE_BYTES("../x")));
    assert_false(flue_kafka_topic_valid(FLUE_BYTES("a b")));
    assert_false(flue_kafka_topic_valid(flue_bytes("a\0b", 3)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_work_is_a_mistake),
        cmocka_unit_test(defaults_are_good),
        cmocka_unit_test(login_without_tls_is_warned_of),
        cmocka_unit_test(a_library_that_is_not_there_is_named),
        cmocka_unit_test(the_library_takes_the_properties),
        cmocka_unit_test(escapes_go_there_and_back),
        cmocka_unit_test(topics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
