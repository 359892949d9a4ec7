/* The log: one line an event, escaping, JSON, and the limit of a call site. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <jansson.h>
#include <unistd.h>
#include <cmocka.h>
#include "collector/base/clock.h"
#include "collector/base/log.h"

static int ends[2];

static int make_pipe(void **state)
{
    if (pipe(ends) != 0)
        return -1;
    return fcntl(ends[0], F_SETFL, O_NONBLOCK);
}

static int close_pipe(void **state)
{
    flue_log_configure(FLUE_INFO, false, 2);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static char text[65536];
static const char *lines(void)
{
    ssize_t size = read(ends[0], text, sizeof text - 1);

    text[size > 0 ? size : 0] = 0;
    return text;
}

static void console(void **state)
{
    flue_log_configure(FLUE_INFO, false, ends[1]);
    flue_log(FLUE_DEBUG, "a", "hidden", FLUE_LOG_END);
    assert_string_equal(lines(), "");
    flue_log(FLUE_WARN, "exporter", "retrying", FLUE_S("id", "otlp/x"), FLUE_U("after_ms", 5000),
             FLUE_I("delta", -3), FLUE_S("text", "two words\n\x1b[31m"), FLUE_S("none", NULL),
             FLUE_LOG_END);
    lines();
    assert_string_equal(text + 24, " warn  exporter: retrying id=otlp/x after_ms=5000 delta=-3 "
                                   "text=\"two words\\n\\u001b[31m\" none=\"\"\n");
}

static void json(void **state)
{
    json_t *object;

    flue_log_configure(FLUE_DEBUG, true, ends[1]);
    flue_log(FLUE_DEBUG, "net", "a \"quoted\" thing",
             FLUE_B("peer", FLUE_BYTES("\xFF"
                                       "1")),
             FLUE_U("n", 7), FLUE_LOG_END);
    object = json_loads(lines(), 0, NULL);
    assert_non_null(object);
    assert_string_equal(json_string_value(json_object_get(object, "level")), "debug");
    assert_string_equal(json_string_value(json_object_get(object, "component")), "net");
    assert_string_equal(json_string_value(json_object_get(object, "message")),
                        "a \"quoted\" thing");
    assert_string_equal(json_string_value(json_object_get(object, "peer")), "\xEF\xBF\xBD"
                                                                            "1");
    assert_int_equal(json_integer_value(json_object_get(object, "n")), 7);
    json_decref(object);
}

static void hundred_lines(void)
{
    for (unsigned i = 0; i < 100; i++)
        flue_log(FLUE_INFO, "a", "noise", FLUE_U("i", i), FLUE_LOG_END);
}

static unsigned count_lines(const char *at)
{
    unsigned count = 0;

    for (; *at; at++)
        count += *at == '\n';
    return count;
}

static void one_site_is_limited(void **state)
{
    unsigned count;

    flue_log_configure(FLUE_INFO, false, ends[1]);
    hundred_lines();
    count = count_lines(lines());
    assert_in_range(count, 20, 21); /* a second may turn between the lines */
    flue_clock_move(3000000000);
    hundred_lines();
    count = count_lines(lines());
    assert_in_range(count, 3, 4);
    assert_non_null(strstr(text, "lines_left_out="));
    flue_clock_move(-3000000000);
}

static void a_long_value_is_cut(void **state)
{
    static char big[100000];

    memset(big, 'x', sizeof big - 1);
    flue_log_configure(FLUE_INFO, false, ends[1]);
    flue_log(FLUE_INFO, "a", "m", FLUE_S("v", big), FLUE_LOG_END);
    assert_in_range(strlen(lines()), 2048, 2200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(console, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(json, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(one_site_is_limited, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(a_long_value_is_cut, make_pipe, close_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
