/* The table of codes against OTLP's and Connect's rules, and error texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "collector/base/bytes.h"
#include "collector/base/error.h"

static void every_code_has_facts(void **state)
{
    for (unsigned code = 0; code < FLUE_CODES; code++) {
        const struct flue_code_facts *f = flue_code_facts((enum flue_code)code);

        assert_non_null(f->name);
        assert_non_null(f->connect);
        assert_true(f->http >= 200 && f->connect_http >= 200);
        for (unsigned other = 0; other < code; other++)
            assert_string_not_equal(f->name, flue_code_facts((enum flue_code)other)->name);
    }
    assert_ptr_equal(flue_code_facts((enum flue_code)9999), flue_code_facts(FLUE_INTERNAL));
}

/* What is said to be retryable must look retryable to an OTLP client, and the other way round. */
static void retry_rules(void **state)
{
    for (unsigned code = 1; code < FLUE_CODES; code++) {
        const struct flue_code_facts *f = flue_code_facts((enum flue_code)code);
        bool http = f->http == 429 || f->http == 502 || f->http == 503 || f->http == 504;
        bool grpc = f->grpc == 1 || f->grpc == 4 || f->grpc == 10 || f->grpc == 11 ||
                    f->grpc == 14 || f->grpc == 15 || (f->grpc == 8 && code == FLUE_RATE_LIMITED);

        if (code == FLUE_CANCELLED) /* 499: nobody is there to read it */
            http = true;
        assert_int_equal(f->retryable, http);
        assert_int_equal(f->retryable, grpc);
    }
    assert_int_equal(flue_code_facts(FLUE_TOO_LARGE)->http, 413);
    assert_int_equal(flue_code_facts(FLUE_BAD_ENCODING)->connect_http, 501);
}

static void texts(void **state)
{
    struct flue_error error;
    char big[600];

    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    assert_int_equal(flue_fail(NULL, FLUE_TIMEOUT, "x"), FLUE_TIMEOUT);
    assert_int_equal(flue_fail(&error, FLUE_TOO_LARGE, "body %d, limit %d", 5, 4), FLUE_TOO_LARGE);
    assert_string_equal(error.text, "body 5, limit 4");
    assert_int_equal(flue_fail_prefix(&error, "profile %d", 3), FLUE_TOO_LARGE);
    assert_string_equal(error.text, "profile 3: body 5, limit 4");
    flue_fail_prefix(&error, "%s", big);
    assert_int_equal(strlen(error.text), sizeof error.text - 1);
    flue_fail(&error, FLUE_IO, "%s", big);
    assert_int_equal(strlen(error.text), sizeof error.text - 1);
    flue_fail_prefix(&error, "a");
    assert_int_equal(strlen(error.text), sizeof error.text - 1);
    assert_memory_equal(error.text, "a: xxx", 6);
    for (size_t i = 0; i < 4; i++) { /* no character is cut in the middle */
        flue_fail(&error, FLUE_IO, "%.*s\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
                  (int)(sizeof error.text - 1 - 6 + i), big);
        assert_true(flue_utf8_valid(flue_bytes_of(error.text)));
        assert_true(strlen(error.text) >= sizeof error.text - 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_code_has_facts),
                                       cmocka_unit_test(retry_rules), cmocka_unit_test(texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
