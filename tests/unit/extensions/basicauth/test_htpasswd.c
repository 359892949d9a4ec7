/* What htpasswd(1), openssl passwd and crypt(3) write, and what nobody should have written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "extensions/basicauth/htpasswd.h"

static const char users[] =
    "# people\n\n"
    "plain:secret\n"
    "sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\r\n"
    "ssha:{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0\n"
    "apr1:$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0\n"
    "bcrypt:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
    "sha512:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN."
    "Pq.H91p5hVO1\n"
    "long:$apr1$ab$8ItIMBWI2mJuA9q7tymP40\n"
    "  colon:se:cret  \n"
    "twice:first\n"
    "twice:secret";

static bool fits(const struct flue_htpasswd *from, const char *user, const char *password)
{
    return flue_htpasswd_fits(from, flue_bytes_of(user), flue_bytes_of(password));
}

static struct flue_htpasswd *read_users(const char *file, const char *more)
{
    struct flue_htpasswd *out;
    struct flue_error error;
    if (flue_htpasswd_read(flue_bytes_of(file), flue_bytes_of(more), &out, &error))
        fail_msg("%s", error.text);
    return out;
}

static void every_scheme(void **state)
{
    static const char *const same[] = {"plain", "sha", "ssha", "apr1", "bcrypt", "sha512", "twice"};
    struct flue_htpasswd *from = read_users(users, NULL);
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        if (!fits(from, same[i], "secret"))
            fail_msg("%s", same[i]);
        assert_false(fits(from, same[i], "secreT"));
        assert_false(fits(from, same[i], "secret2"));
        assert_false(fits(from, same[i], "secre"));
        assert_false(fits(from, same[i], ""));
    }
    assert_true(fits(from, "long", "a longer password than sixteen bytes"));
    assert_true(fits(from, "colon", "se:cret"));
    assert_false(fits(from, "twice", "first"));
    assert_false(fits(from, "nobody", "secret"));
    assert_false(fits(from, "Plain", "secret"));
    assert_false(fits(from, "", ""));
    assert_false(flue_htpasswd_fits(from, FLUE_BYTES("bcrypt"), flue_bytes("secret\0x", 8)));
    assert_int_equal(flue_htpasswd_kind(from, FLUE_BYTES("sha")), FLUE_HTPASSWD_QUICK);
    assert_int_equal(flue_htpasswd_kind(from, FLUE_BYTES("bcrypt")), FLUE_HTPASSWD_SLOW);
    /* who is not there takes as long as who is */
    assert_int_equal(flue_htpasswd_kind(from, FLUE_BYTES("nobody")), FLUE_HTPASSWD_SLOW);
    char long_one[600];
    memset(long_one, 'a', sizeof long_one);
    assert_false(flue_htpasswd_fits(from, FLUE_BYTES("bcrypt"), flue_bytes(long_one, 600)));
    flue_htpasswd_free(from);
}

static void inline_wins_over_the_file(void **state)
{
    struct flue_htpasswd *from = read_users("a:file\nb:file", "a:inline");
    assert_true(fits(from, "a", "inline"));
    assert_false(fits(from, "a", "file"));
    assert_true(fits(from, "b", "file"));
    assert_int_equal(flue_htpasswd_kind(from, FLUE_BYTES("c")), FLUE_HTPASSWD_NOBODY);
    flue_htpasswd_free(from);
}

static void hashes_that_are_none_fit_nothing(void **state)
{
    static const char *const hashes[] = {
        "{SHA}",   "{SHA}!!", "{SHA}5en6",      "{SSHA}",        "{SSHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "$apr1$",  "$apr1$$", "$apr1$salt",     "$apr1$123456789$LrttParrLPdxvgutaSXWJ0",
        "$2y$",    "$2y$04$", "$2y$99$abcdefg", "$6$",           "$6$rounds=x$",
    };
    for (size_t i = 0; i < sizeof hashes / sizeof hashes[0]; i++) {
        char line[200];
        snprintf(line, sizeof line, "u:%s", hashes[i]);
        struct flue_htpasswd *from = read_users(line, NULL);
        assert_false(fits(from, "u", "secret"));
        assert_false(fits(from, "u", ""));
        flue_htpasswd_free(from);
    }
}

static void mistakes_name_the_line_and_not_the_secret(void **state)
{
    struct flue_htpasswd *out = NULL;
    struct flue_error error;
    char long_line[1100] = "u:";
    memset(long_line + 2, 'x', sizeof long_line - 3);
    const struct {
        const char *file, *more, *says;
    } cases[] = {{"a:b\nnocolon", "", "file, line 2"},
                 {"a:b", "c:d\n\n:geheim", "inline, line 3"},
                 {long_line, "", "line 1"},
                 {"", "", "no user"},
                 {"# nobody", "", "no user"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(flue_htpasswd_read(flue_bytes_of(cases[i].file),
                                            flue_bytes_of(cases[i].more), &out, &error),
                         FLUE_INVALID);
        assert_non_null(strstr(error.text, cases[i].says));
        assert_null(strstr(error.text, "geheim"));
        assert_null(strstr(error.text, "nocolon"));
    }
    size_t size = 0, room = (FLUE_HTPASSWD_USERS + 2) * 10u;
    char *many = malloc(room);
    for (unsigned i = 0; i <= FLUE_HTPASSWD_USERS; i++)
        size += (size_t)snprintf(many + size, room - size, "u%u:p\n", i);
    assert_int_equal(flue_htpasswd_read(flue_bytes(many, size), flue_bytes(NULL, 0), &out, &error),
                     FLUE_INVALID);
    assert_non_null(strstr(error.text, "10000"));
    free(many);
}

/* Whatever stands in the file: an answer, and no byte outside is read. */
static void cut_and_flipped(void **state)
{
    size_t size = sizeof users - 1;
    srand(3);
    for (unsigned round = 0; round < 300; round++) {
        size_t part = round < 150 ? (size_t)rand() % size : size;
        char *copy = malloc(part ? part : 1);
        struct flue_htpasswd *out;
        memcpy(copy, users, part);
        if (round >= 150)
            copy[(size_t)rand() % size] ^= (char)(1 << rand() % 8);
        if (!flue_htpasswd_read(flue_bytes(copy, part), flue_bytes(NULL, 0), &out, NULL)) {
            (void)fits(out, "sha", "x");
            (void)fits(out, "apr1", "x");
            (void)fits(out, "ssha", "x");
            flue_htpasswd_free(out);
        }
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scheme),
        cmocka_unit_test(inline_wins_over_the_file),
        cmocka_unit_test(hashes_that_are_none_fit_nothing),
        cmocka_unit_test(mistakes_name_the_line_and_not_the_secret),
        cmocka_unit_test(cut_and_flipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
