/* Keys that exporters share: headers and compression level, as pure functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "collector/net/client_keys.h"
#include "config/check.h"

static char *mistakes_of(const struct flue_map *map, struct flue_arena *arena)
{
    static struct flue_buffer out;
    struct flue_check check;
    flue_check_init(&check, arena);
    flue_client_headers_check(map, &check);
    flue_buffer_destroy(&out);
    flue_buffer_init(&out, 1 << 20);
    flue_check_print(&check, &out);
    return check.mistakes ? out.data : NULL;
}

static void names_and_values_are_checked(void **state)
{
    static const struct {
        const char *key, *value, *mistake;
    } rows[] = {
        {"X-A", "any value", NULL},
        {"x_a.b~", "", NULL},
        {"", "v", "\"\" is not the name"},
        {":path", "v", "not the name"},
        {"a b", "v", "not the name"},
        {"a\x7f", "v", "not the name"},
        {"a\xc3\xa9", "v", "not the name"},
        {"a:b", "v", "not the name"},
        {"Content-Type", "v", "set by the protocol"},
        {"GRPC-Timeout", "v", "set by the protocol"},
        {"Connect-Protocol-Version", "v", "set by the protocol"},
        {"x", "secret\r\ny: z", "the value of x holds a line break"},
        {"x", "secret\n", "the value of x holds a line break"},
    };
    struct flue_arena arena;
    flue_arena_init(&arena, 0, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct flue_map_entry entry = {rows[i].key, rows[i].value};
        const struct flue_map map = {&entry, 1};
        const char *text = mistakes_of(&map, &arena);
        if (!rows[i].mistake != !text || (text && !strstr(text, rows[i].mistake)))
            fail_msg("%s: %s", rows[i].key, text ? text : "no mistake");
        assert_true(!text || !strstr(text, "secret"));
    }
    struct flue_map_entry many[FLUE_CLIENT_CONFIG_HEADERS + 1];
    for (size_t i = 0; i < sizeof many / sizeof *many; i++)
        many[i] = (struct flue_map_entry){"x-a", "b"};
    assert_null(mistakes_of(&(struct flue_map){many, FLUE_CLIENT_CONFIG_HEADERS}, &arena));
    assert_non_null(mistakes_of(&(struct flue_map){many, FLUE_CLIENT_CONFIG_HEADERS + 1}, &arena));
    flue_arena_destroy(&arena);
}

static void own_headers_come_first_and_names_are_lower_case(void **state)
{
    static const struct flue_header own[] = {{FLUE_BYTES("te"), FLUE_BYTES("trailers")}};
    static const struct flue_map_entry entries[] = {{"X-Scope-OrgID", "Media"}, {"b", "C"}};
    const struct flue_map map = {entries, 2};
    const struct flue_header *headers;
    struct flue_arena arena;
    size_t count;
    flue_arena_init(&arena, 0, 0);
    assert_int_equal(flue_client_headers(&map, own, 1, &arena, &headers, &count, NULL), FLUE_OK);
    assert_int_equal(count, 3);
    assert_true(flue_bytes_is(headers[0].name, "te"));
    assert_true(flue_bytes_is(headers[1].name, "x-scope-orgid"));
    assert_true(flue_bytes_is(headers[1].value, "Media"));
    assert_true(flue_bytes_is(headers[2].name, "b"));
    flue_arena_destroy(&arena);
}

static void levels(void **state)
{
    static const struct {
        enum flue_coding coding;
        int64_t number;
        bool good;
        int level;
    } rows[] = {
        {FLUE_GZIP, -3, false, 0},
        {FLUE_GZIP, -2, true, FLUE_LEVEL_DEFAULT},
        {FLUE_DEFLATE, 0, true, FLUE_LEVEL_DEFAULT},
        {FLUE_ZLIB, 9, true, 9},
        {FLUE_GZIP, 10, false, 0},
        {FLUE_ZSTD, 22, true, 22},
        {FLUE_ZSTD, 23, false, 0},
        {FLUE_ZSTD, -1, false, 0},
        {FLUE_SNAPPY, 0, true, FLUE_LEVEL_DEFAULT},
        {FLUE_LZ4, 1, false, 0},
    };
    struct flue_client_compression params = {{.type = FLUE_VALUE_INT}};
    int level;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        params.level.integer = rows[i].number;
        assert_int_equal(flue_client_level(&params, rows[i].coding, &level), rows[i].good);
        if (rows[i].good)
            assert_int_equal(level, rows[i].level);
    }
    params.level = (struct flue_value){.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("dense")};
    assert_true(flue_client_level(&params, FLUE_ZSTD, &level));
    assert_int_equal(level, FLUE_LEVEL_DENSE);
    assert_false(flue_client_level(&params, FLUE_LZ4, &level));
    params.level.text = FLUE_BYTES("densest");
    assert_false(flue_client_level(&params, FLUE_GZIP, &level));
    params.level = (struct flue_value){.type = FLUE_VALUE_EMPTY};
    assert_true(flue_client_level(&params, FLUE_LZ4, &level));
    assert_int_equal(level, FLUE_LEVEL_DEFAULT);
}

/* ---- credentials ---------------------------------------------------------------------------- */

static size_t warnings_of(const struct flue_client_config *client, const char *authenticator,
                          const char *header)
{
    const struct flue_client_auth auth = {authenticator};
    const struct flue_map_entry entry = {header ? header : "x-a", "secret"};
    const struct flue_map map = {&entry, 1};
    struct flue_arena arena;
    struct flue_check check;
    struct flue_buffer out;
    flue_arena_init(&arena, 0, 0);
    flue_buffer_init(&out, 1 << 20);
    flue_check_init(&check, &arena);
    flue_client_secrecy_check(client, authenticator ? &auth : NULL, &map, "", &check);
    flue_check_print(&check, &out);
    assert_int_equal(check.mistakes, 0);
    assert_true(!out.size || !strstr((const char *)out.data, "secret"));
    size_t warnings = check.warnings;
    flue_buffer_destroy(&out);
    flue_arena_destroy(&arena);
    return warnings;
}

static void credentials_in_plain_text_are_a_warning(void **state)
{
    const struct {
        struct flue_client_config client;
        const char *auth, *header;
        size_t warnings;
    } rows[] = {
        {{.endpoint = "a:1", .tls = {.insecure = true}}, "basicauth", NULL, 1},
        {{.endpoint = "a:1", .tls = {.insecure = true}}, NULL, "Authorization", 1},
        {{.endpoint = "a:1", .tls = {.insecure = true}}, NULL, "x-other", 0},
        {{.endpoint = "a:1", .tls = {.insecure = true}}, "", NULL, 0},
        {{.endpoint = "a:1"}, "basicauth", NULL, 0},
        {{.endpoint = "http://a", .tls_by_scheme = true}, "basicauth", NULL, 1},
        {{.endpoint = "https://a", .tls_by_scheme = true}, "basicauth", NULL, 0},
        {{.endpoint = "http://127.0.0.1:80", .tls_by_scheme = true}, "basicauth", NULL, 0},
        {{.endpoint = "http://128.0.0.1:80", .tls_by_scheme = true}, "basicauth", NULL, 1},
        {{.endpoint = "http://127.evil.example", .tls_by_scheme = true}, "basicauth", NULL, 1},
        {{.endpoint = "localhost:1", .tls = {.insecure = true}}, "basicauth", NULL, 0},
        {{.endpoint = "[::1]:1", .tls = {.insecure = true}}, "basicauth", NULL, 0},
        {{.endpoint = "[::2]:1", .tls = {.insecure = true}}, "basicauth", NULL, 1},
        {{.endpoint = "unix:///run/a", .tls = {.insecure = true}}, "basicauth", NULL, 0},
        {{.endpoint = NULL, .tls_by_scheme = true}, "basicauth", NULL, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (warnings_of(&rows[i].client, rows[i].auth, rows[i].header) != rows[i].warnings)
            fail_msg("row %zu", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(credentials_in_plain_text_are_a_warning),
        cmocka_unit_test(names_and_values_are_checked),
        cmocka_unit_test(own_headers_come_first_and_names_are_lower_case),
        cmocka_unit_test(levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
