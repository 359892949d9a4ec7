/* Text from the network as a path: nothing climbs, nothing collides, nothing is too long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "archive/layout/key.h"

static const char *element(const char *text, size_t size)
{
    static char out[FLUE_KEY_ELEMENT_ROOM];
    size_t length = flue_key_element(flue_bytes(text, size), out);
    assert_int_equal(length, strlen(out));
    assert_null(strchr(out, '/'));
    return out;
}
#define ELEMENT(literal) element(literal, sizeof literal - 1)

static void nothing_climbs(void **state)
{
    assert_string_equal(ELEMENT("encoder-7.4_x=1"), "encoder-7.4_x=1");
    assert_string_equal(ELEMENT("."), "%2E");
    assert_string_equal(ELEMENT(".."), "%2E.");
    assert_string_equal(ELEMENT("../../etc/passwd"), "%2E.%2F..%2Fetc%2Fpasswd");
    assert_string_equal(ELEMENT("a\0b\n%"), "a%00b%0A%25");
    assert_string_equal(ELEMENT(""), "%");
    assert_string_equal(ELEMENT("\xc3\xa9"), "%C3%A9");
}

static void long_texts_stay_different(void **state)
{
    char a[500], b[500], first[FLUE_KEY_ELEMENT_ROOM];
    memset(a, 'x', sizeof a);
    memcpy(b, a, sizeof b);
    b[499] = 'y';
    strcpy(first, element(a, sizeof a));
    assert_true(strlen(first) <= FLUE_KEY_ELEMENT + 9);
    assert_string_not_equal(first, element(b, sizeof b));
    memset(a, '/', sizeof a);
    assert_true(strlen(element(a, sizeof a)) <= FLUE_KEY_ELEMENT + 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_climbs),
        cmocka_unit_test(long_texts_stay_different),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
