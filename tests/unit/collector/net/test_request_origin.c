/* Tenants and peers, as pure functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "collector/net/request_origin.h"

static void tenants(void **state)
{
    char text[152];
    memset(text, 'a', sizeof text);
    assert_int_equal(flue_tenant_check(flue_bytes(text, 150), NULL), FLUE_OK);
    assert_int_equal(flue_tenant_check(flue_bytes(text, 151), NULL), FLUE_INVALID);
    assert_int_equal(flue_tenant_check(FLUE_BYTES("team-a_b.c!*'()"), NULL), FLUE_OK);
    assert_int_equal(flue_tenant_check(FLUE_BYTES(""), NULL), FLUE_OK);
    static const char *const bad[] = {".", "..", "a/b", "a b", "a|b", "a\\b", "\xc3\xa9", "a%2e"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(flue_tenant_check(flue_bytes_of(bad[i]), NULL), FLUE_INVALID);
    assert_int_equal(flue_tenant_check(flue_bytes("a\0b", 3), NULL), FLUE_INVALID);
}

static void addresses_of_peers(void **state)
{
    static const struct {
        const char *peer, *address;
    } rows[] = {{"10.1.2.3:41544", "10.1.2.3"},
                {"[::1]:9", "::1"},
                {"[fe80::1%2]:80", "fe80::1%2"},
                {"unix", ""},
                {"", ""},
                {"[", ""}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_true(flue_bytes_is(flue_peer_address(rows[i].peer), rows[i].address));
}

static void a_refusal_shows_no_raw_bytes(void **state)
{
    struct flue_error error;
    assert_int_equal(flue_tenant_check(FLUE_BYTES("a\nb\x1b[0m"), &error), FLUE_INVALID);
    assert_non_null(strstr(error.text, "X-Scope-OrgID"));
    for (const char *c = error.text; *c; c++)
        assert_true(*c >= ' ' && *c < 127);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tenants),
        cmocka_unit_test(addresses_of_peers),
        cmocka_unit_test(a_refusal_shows_no_raw_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
