/* Does the bound that is checked before parsing hold for what jansson then really allocates? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "proto/wire/json_budget.h"

static void holds(const char *text, size_t size)
{
    struct flue_json_budget budget;
    struct flue_error error = {0};
    json_t *root;
    flue_json_begin(&budget, SIZE_MAX);
    enum flue_code code = flue_json_parse(&budget, flue_bytes(text, size), &root, &error);
    json_decref(root);
    if (code != FLUE_OK)
        fail_msg("%.60s: %s", text, error.text);
    if (budget.peak > flue_json_bound(flue_bytes(text, size)))
        fail_msg("%.60s: %zu bytes used, bound %zu", text, budget.peak,
                 flue_json_bound(flue_bytes(text, size)));
    assert_int_equal(budget.used, 0);
    flue_json_end(&budget);

    /* one byte less than the bound, and it is refused unread */
    flue_json_begin(&budget, flue_json_bound(flue_bytes(text, size)) - 1);
    assert_int_equal(flue_json_parse(&budget, flue_bytes(text, size), &root, &error),
                     FLUE_TOO_LARGE);
    assert_null(root);
    flue_json_end(&budget);
}

static void repeated(const char *open, const char *unit, const char *close, size_t count)
{
    size_t room = strlen(open) + count * (strlen(unit) + 9) + strlen(close) + 1, size;
    char *text = malloc(room);
    size = (size_t)snprintf(text, room, "%s", open);
    for (size_t i = 0; i < count; i++) {
        const char *mark = strchr(unit, '#'); /* becomes the number of the turn */
        if (mark)
            size += (size_t)snprintf(text + size, room - size, "%.*s%zx%s%s", (int)(mark - unit),
                                     unit, i, mark + 1, i + 1 < count ? "," : "");
        else
            size +=
                (size_t)snprintf(text + size, room - size, "%s%s", unit, i + 1 < count ? "," : "");
    }
    size += (size_t)snprintf(text + size, room - size, "%s", close);
    holds(text, size);
    free(text);
}

static void the_bound_holds(void **state)
{
    for (size_t count = 1; count < 70000; count = count * 3 + 1) {
        repeated("[", "{}", "]", count);
        repeated("[", "[]", "]", count);
        repeated("[", "0", "]", count);
        repeated("[", "\"\"", "]", count);
        repeated("[", "\"abcdefghij\"", "]", count);
        repeated("{", "\"#\":0", "}", count);
        repeated("{", "\"#\":{}", "}", count);
        repeated("{", "\"#\":[\"\"]", "}", count);
        repeated("[", "{\"key\":\"#\",\"value\":{\"stringValue\":\"x\"}}", "]", count);
        repeated("[", "1.5", "]", count);
    }
    for (size_t size = 1; size < 3u << 20; size = size * 5 + 3) {
        char *text = malloc(size + 3);
        memset(text, 'a', size + 2);
        text[0] = text[size + 1] = '"';
        holds(text, size + 2);
        free(text);
    }
}

static void mistakes_are_placed(void **state)
{
    struct flue_json_budget budget;
    struct flue_error error = {0};
    json_t *root;
    flue_json_begin(&budget, 1u << 20);
    assert_int_equal(flue_json_parse(&budget, FLUE_BYTES("{\n \"a\": tru}"), &root, &error),
                     FLUE_INVALID);
    assert_non_null(strstr(error.text, "line 2"));
    assert_int_equal(flue_json_parse(&budget, FLUE_BYTES(""), &root, &error), FLUE_INVALID);
    assert_int_equal(flue_json_parse(&budget, FLUE_BYTES("\"\xff\""), &root, &error), FLUE_INVALID);
    assert_int_equal(flue_json_parse(&budget, FLUE_BYTES("\"\\"), &root, &error), FLUE_INVALID);
    char deep[64];
    memset(deep, '[', 32);
    memset(deep + 32, ']', 32);
    assert_int_equal(flue_json_parse(&budget, flue_bytes(deep, 64), &root, &error), FLUE_OK);
    json_decref(root);
    memset(deep, '[', 33);
    assert_int_equal(flue_json_parse(&budget, flue_bytes(deep, 64), &root, &error), FLUE_INVALID);
    flue_json_end(&budget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bound_holds),
        cmocka_unit_test(mistakes_are_placed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
