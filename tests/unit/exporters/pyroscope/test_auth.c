/* The Authorization header of a push: how it is made, and a file that changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "collector/base/clock.h"
#include "exporters/pyroscope/auth.h"

static struct flue_loops *loops;
static char path[] = "/tmp/flue-auth-XXXXXX";

static int setup(void **state)
{
    int file = mkstemp(path);

    return file < 0 || close(file) || flue_loops_new(1, &loops, NULL) != FLUE_OK ||
           flue_loops_run(loops, NULL) != FLUE_OK;
}

static int teardown(void **state)
{
    flue_loops_stop(loops);
    flue_loops_destroy(loops);
    return unlink(path);
}

static void write_file(const char *text, size_t size)
{
    char next[sizeof path + 4];
    FILE *file;

    snprintf(next, sizeof next, "%s.new", path);
    file = fopen(next, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(next, path), 0);
}

static void gives(const struct flue_pyroscope_config *config, const char *wanted)
{
    struct flue_push_auth auth = {0};
    struct flue_error error = {0};
    struct flue_block *value;

    if (flue_push_auth_init(&auth, config, "pyroscope", loops->items[0], &error) != FLUE_OK)
        fail_msg("%s", error.text);
    value = flue_push_auth_take(&auth);
    if (wanted) {
        assert_non_null(value);
        assert_true(flue_bytes_is(flue_block_bytes(value), wanted));
    } else {
        assert_null(value);
    }
    flue_block_unref(value);
    if (!auth.path)
        assert_false(flue_push_auth_refused(&auth));
    flue_push_auth_destroy(&auth);
}

/* Pairs of RFC 7617 and of RFC 6750. */
static void values_of_a_configuration(void **state)
{
    static const struct flue_basic_auth_config basic = {.username = "Aladdin",
                                                        .password = "open sesame"},
                                               bare = {.username = "u"};

    gives(&(struct flue_pyroscope_config){.basic_auth = &basic},
          "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    gives(&(struct flue_pyroscope_config){.basic_auth = &bare}, "Basic dTo=");
    gives(&(struct flue_pyroscope_config){.bearer_token = "mF_9.B5f-4.1JqM"},
          "Bearer mF_9.B5f-4.1JqM");
    gives(&(struct flue_pyroscope_config){.bearer_token = ""}, NULL);
    gives(&(struct flue_pyroscope_config){0}, NULL);
}

static void values_of_a_file(void **state)
{
    const struct flue_basic_auth_config basic = {.username = "Aladdin", .password_file = path};

    write_file("open sesame\r\n\n", 14);
    gives(&(struct flue_pyroscope_config){.basic_auth = &basic},
          "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    gives(&(struct flue_pyroscope_config){.bearer_token_file = path}, "Bearer open sesame");
}

static void refuses(const char *text, size_t size, const char *says)
{
    const struct flue_pyroscope_config config = {.bearer_token_file = path};
    struct flue_push_auth auth = {0};
    struct flue_error error = {0};

    write_file(text, size);
    assert_int_equal(flue_push_auth_init(&auth, &config, "pyroscope", loops->items[0], &error),
                     FLUE_INVALID);
    if (!strstr(error.text, says))
        fail_msg("%s", error.text);
    assert_null(strstr(error.text, "hush"));
    assert_null(flue_push_auth_take(&auth));
    flue_push_auth_destroy(&auth);
}

static void files_that_hold_no_secret(void **state)
{
    char *large = calloc(1, 8193);

    assert_non_null(large);
    refuses("", 0, "0 bytes");
    refuses("\r\n", 2, "0 bytes");
    refuses("hush\nhush", 9, "byte 4 ");
    refuses("hush\0", 5, "byte 4 ");
    refuses("hush\x7f", 5, "byte 4 ");
    memset(large, 'h', 8193);
    refuses(large, 8193, "8193 bytes");
    large[8192] = '\n'; /* 8192 and a line's end */
    write_file(large, 8193);
    {
        const struct flue_pyroscope_config config = {.bearer_token_file = path};
        struct flue_push_auth auth = {0};
        assert_int_equal(flue_push_auth_init(&auth, &config, "pyroscope", loops->items[0], NULL),
                         FLUE_OK);
        assert_int_equal(auth.value->size, 7 + 8192);
        flue_push_auth_destroy(&auth);
    }
    free(large);
}

static void a_file_that_is_not_there(void **state)
{
    const struct flue_pyroscope_config config = {.bearer_token_file = "/nonexistent/token"};
    struct flue_push_auth auth = {0};
    struct flue_error error = {0};

    assert_int_equal(flue_push_auth_init(&auth, &config, "pyroscope", loops->items[0], &error),
                     FLUE_IO);
    assert_non_null(strstr(error.text, "/nonexistent/token"));
    flue_push_auth_destroy(&auth);
}

/* What the loop's thread does with one auth, and what it saw. */
struct visit {
    struct flue_push_auth *auth;
    bool refuse, again, reading;
    char value[64];
};

static void visit_loop(struct flue_loop *loop, void *arg)
{
    struct visit *v = arg;
    struct flue_block *value;

    if (v->refuse)
        v->again = flue_push_auth_refused(v->auth);
    value = flue_push_auth_take(v->auth);
    snprintf(v->value, sizeof v->value, "%.*s", FLUE_PRI(flue_block_bytes(value)));
    flue_block_unref(value);
    v->reading = v->auth->reading;
}

static struct visit visit(struct flue_push_auth *auth, bool refuse)
{
    struct visit v = {.auth = auth, .refuse = refuse};

    flue_loop_call(loops->items[0], visit_loop, &v);
    return v;
}

static void until_read(struct flue_push_auth *auth, const char *wanted)
{
    while (visit(auth, false).reading)
        continue;
    assert_string_equal(visit(auth, false).value, wanted);
}

/* A 401 has it read at once; until that is done, and where it cannot be read, the old one stays. */
static void a_refusal_reads_the_file_again(void **state)
{
    const struct flue_pyroscope_config config = {.bearer_token_file = path};
    struct flue_push_auth auth = {0};

    write_file("one", 3);
    assert_int_equal(flue_push_auth_init(&auth, &config, "pyroscope", loops->items[0], NULL),
                     FLUE_OK);
    write_file("two", 3);
    assert_string_equal(visit(&auth, false).value, "Bearer one");
    assert_true(visit(&auth, true).again);
    until_read(&auth, "Bearer two");
    write_file("", 0);
    assert_true(visit(&auth, true).again);
    until_read(&auth, "Bearer two");
    flue_push_auth_destroy(&auth);
}

/* Without any refusal it is looked at after ten seconds. */
static void an_old_value_is_looked_at(void **state)
{
    const struct flue_pyroscope_config config = {.bearer_token_file = path};
    struct flue_push_auth auth = {0};

    write_file("one", 3);
    assert_int_equal(flue_push_auth_init(&auth, &config, "pyroscope", loops->items[0], NULL),
                     FLUE_OK);
    write_file("two", 3);
    auth.read_ns -= 10100000000u;
    until_read(&auth, "Bearer two");
    flue_push_auth_destroy(&auth);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_a_configuration),
        cmocka_unit_test(values_of_a_file),
        cmocka_unit_test(files_that_hold_no_secret),
        cmocka_unit_test(a_file_that_is_not_there),
        cmocka_unit_test(a_refusal_reads_the_file_again),
        cmocka_unit_test(an_old_value_is_looked_at),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
