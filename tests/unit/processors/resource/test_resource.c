/* Every action on OTLP and pprof, its mistakes, and the dialect of patterns. */
#include "tests/unit/processors/resource/actions_test.h"
#include "collector/pipeline/actions.h"
#include <regex.h>

extern const struct flue_component flue_processor_resource;
#define EDIT(yaml, attributes) edit(&flue_processor_resource, "attributes: [" yaml "]", attributes)

static void constants(void **state)
{
    assert_string_equal(
        EDIT("{key: a, value: new, action: insert}, {key: b, value: new, action: insert}",
             ATTRIBUTE("a", "old")),
        "a=old\nb=new\n");
    assert_string_equal(
        EDIT("{key: a, value: new, action: update}, {key: b, value: new, action: update}",
             ATTRIBUTE("a", "old")),
        "a=new\n");
    const char *all =
        EDIT("{key: a, value: new, action: upsert}, {key: b, value: 7, action: upsert},"
             "{key: c, value: 1.5, action: upsert}, {key: d, value: true, action: upsert}",
             ATTRIBUTE("a", "old") "," ATTRIBUTE("z", "kept"));
    assert_non_null(strstr(all, "a=new\n"));
    assert_non_null(strstr(all, "b=int 7\n"));
    assert_non_null(strstr(all, "c=double 1.5\n"));
    assert_non_null(strstr(all, "d=bool 1\n"));
    assert_non_null(strstr(all, "z=kept\n"));
}

static void order_is_kept(void **state)
{
    /* The same key twice: the first insert wins, the last upsert wins. */
    assert_string_equal(
        EDIT("{key: a, value: one, action: insert}, {key: a, value: two, action: insert}", ""),
        "a=one\n");
    assert_string_equal(
        EDIT("{key: a, value: one, action: upsert}, {key: a, value: two, action: upsert}", ""),
        "a=two\n");
    assert_string_equal(EDIT("{key: a, value: one, action: upsert}, {key: a, action: delete},"
                             "{key: b, value: two, action: upsert}",
                             ATTRIBUTE("a", "old")),
                        "b=two\n");
}

static void from_another_attribute(void **state)
{
    assert_string_equal(EDIT("{key: b, from_attribute: a, action: upsert},"
                             "{key: c, from_attribute: none, action: upsert}",
                             ATTRIBUTE("a", "x")),
                        "a=x\nb=x\n");
}

static void from_context(void **state)
{
    struct bench bench;
    const struct flue_attribute headers[] = {
        {FLUE_BYTES("x-region"), {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("eu")}},
        {FLUE_BYTES("other"), {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("no")}},
        {FLUE_BYTES("x-region"), {.type = FLUE_VALUE_STRING, .text = FLUE_BYTES("us")}}};
    struct flue_origin from = {
        .peer_address = FLUE_BYTES("10.1.2.3"), .headers = headers, .header_count = 3};
    struct flue_origin *origin = flue_origin_new(&from);
    bench_start(&bench, &flue_processor_resource,
                "attributes: [{key: region, from_context: metadata.X-Region, action: insert},"
                "{key: none, from_context: metadata.absent, action: insert},"
                "{key: peer, from_context: client.address, action: insert}]");
    bench_push(&bench, otlp_with(&bench.account, ""), origin);
    assert_string_equal(bench.attributes, "region=eu;us\npeer=10.1.2.3\n");
    flue_origin_unref(origin);
    bench_stop(&bench);
}

static void deletes(void **state)
{
    const char *attributes = ATTRIBUTE("a", "1") "," ATTRIBUTE("pod.ip", "2") "," ATTRIBUTE(
        "pod.uid", "3") "," ATTRIBUTE("b", "4");
    assert_string_equal(EDIT("{key: a, action: delete}", attributes), "pod.ip=2\npod.uid=3\nb=4\n");
    assert_string_equal(EDIT("{pattern: '^pod\\.', action: delete}", attributes), "a=1\nb=4\n");
    assert_string_equal(EDIT("{key: b, pattern: 'uid', action: delete}", attributes),
                        "a=1\npod.ip=2\n");
    assert_string_equal(EDIT("{pattern: '', action: delete}", attributes), "");
}

static void hashes(void **state)
{
    /* printf abc | sha1sum; the eight bytes of 7; one byte 1 */
    const char *all =
        EDIT("{key: a, action: hash}, {pattern: '^n', action: hash}, {key: e, action: hash}",
             ATTRIBUTE("a", "abc") ",{\"key\":\"n1\",\"value\":{\"intValue\":\"7\"}},"
                                   "{\"key\":\"n2\",\"value\":{\"boolValue\":true}}," ATTRIBUTE(
                                       "e", ""));
    assert_non_null(strstr(all, "a=a9993e364706816aba3e25717850c26c9cd0d89d\n"));
    assert_non_null(strstr(all, "n1=67ef7f7d2fcdd3766db20eaf75bfc677edd4c016\n"));
    assert_non_null(strstr(all, "n2=bf8b4530d8d246dd74ac53a13471bba17941dff7\n"));
    assert_non_null(strstr(all, "e=\n"));
}

static void extracts(void **state)
{
    assert_string_equal(
        EDIT("{key: url, pattern: '^(?P<proto>\\w+)://(?P<host>[^/:]+)(:(?P<port>\\d+))?', action: "
             "extract}",
             ATTRIBUTE("url", "https://cdn.example/x") "," ATTRIBUTE("host", "old")),
        "url=https://cdn.example/x\nproto=https\nhost=cdn.example\nport=\n");
    assert_string_equal(EDIT("{key: url, pattern: '^(?P<all>ftp.*)$', action: extract}",
                             ATTRIBUTE("url", "https://x")),
                        "url=https://x\n");
}

static void converts(void **state)
{
    assert_string_equal(
        EDIT("{key: a, converted_type: int, action: convert},"
             "{key: b, converted_type: double, action: convert},"
             "{key: c, converted_type: int, action: convert}",
             ATTRIBUTE("a", "42") "," ATTRIBUTE("b", "1e3") "," ATTRIBUTE("c", "no number")),
        "c=no number\na=int 42\nb=double 1000\n");
    assert_string_equal(EDIT("{key: a, converted_type: string, action: convert},"
                             "{key: b, converted_type: string, action: convert},"
                             "{key: c, converted_type: string, action: convert},"
                             "{key: d, converted_type: string, action: convert}",
                             "{\"key\":\"a\",\"value\":{\"intValue\":\"-5\"}},"
                             "{\"key\":\"b\",\"value\":{\"doubleValue\":0.1}},"
                             "{\"key\":\"c\",\"value\":{\"doubleValue\":1e21}},"
                             "{\"key\":\"d\",\"value\":{\"doubleValue\":123456789}}"),
                        "a=-5\nb=0.1\nc=1e+21\nd=123456789\n");
}

static void series_of_pprof(void **state)
{
    struct bench bench;
    struct flue_payload *payload;
    struct flue_counts counts;
    struct flue_error error;
    struct flue_pprof_builder *builder;

    bench_start(
        &bench, &flue_processor_resource,
        "attributes: [{key: cdn.region, value: eu, action: upsert},"
        "{key: service.name, from_attribute: pod, action: update}, {key: pod, action: delete}]");
    builder = flue_pprof_builder_new(&bench.account);
    /* One sample type, one sample without a stack. */
    static const uint8_t raw[] = {0x0a, 4, 8,    1, 16,  2,   0x12, 3,    0x12, 1,   5,
                                  0x32, 0, 0x32, 3, 'c', 'p', 'u',  0x32, 2,    'n', 's'};
    struct flue_block *block = flue_block_copy(&bench.account, flue_bytes(raw, sizeof raw));
    flue_block_finish(block);
    struct flue_pprof_profile profile = {.bytes = flue_block_bytes(block)};
    const struct flue_pprof_limits limits = {1 << 20, 200};
    if (flue_pprof_check(profile.bytes, &limits, &profile.facts, &error))
        fail_msg("%s", error.text);
    assert_true(flue_pprof_builder_keep(builder, block));
    assert_true(flue_pprof_builder_series(builder));
    assert_true(flue_pprof_builder_label(builder, FLUE_BYTES("service_name"), FLUE_BYTES("old")));
    assert_true(flue_pprof_builder_label(builder, FLUE_BYTES("pod"), FLUE_BYTES("router-1")));
    assert_true(flue_pprof_builder_profile(builder, &profile));
    assert_int_equal(flue_pprof_builder_finish(builder, &payload, &counts, &error), FLUE_OK);
    flue_block_unref(block);
    bench_push(&bench, payload, NULL);
    assert_int_equal(bench.outcome.error.code, FLUE_OK);
    assert_non_null(strstr(bench.attributes, "service.name=router-1\n"));
    assert_non_null(strstr(bench.attributes, "cdn.region=eu\n"));
    assert_null(strstr(bench.attributes, "pod="));
    bench_stop(&bench);
}

#define MISTAKE(yaml, text)                                                                        \
    assert_true(mistakes_of(&flue_processor_resource, "attributes: [" yaml "]", text) > 0)

static void mistakes_are_named(void **state)
{
    MISTAKE("", "needs at least one action");
    MISTAKE("{action: insert, value: x}", "needs a `key`");
    MISTAKE("{key: a, action: insert}", "exactly one of `value`, `from_attribute`, `from_context`");
    MISTAKE("{key: a, action: insert, value: x, from_attribute: b}", "exactly one of");
    MISTAKE("{key: a, action: delete, value: x}", "does not use `value`");
    MISTAKE("{action: hash}", "needs a `key` or a `pattern`");
    MISTAKE("{key: a, action: extract}", "needs a `pattern`");
    MISTAKE("{key: a, action: extract, pattern: '(x)'}", "named group");
    MISTAKE("{key: a, action: extract, pattern: '(?P<x>a*?)'}", "lazy");
    MISTAKE("{key: a, action: delete, pattern: '(?=x)'}", "not supported");
    MISTAKE("{key: a, action: delete, pattern: '(x'}", "pattern:");
    MISTAKE("{key: a, action: convert, converted_type: bool}", "int, double or string");
    MISTAKE("{key: a, action: insert, value: x, converted_type: int}", "converted_type");
    MISTAKE("{key: a, action: insert, from_context: auth.subject}", "auth.subject");
    MISTAKE("{key: a, action: inser, value: x}", "insert");
    assert_int_equal(mistakes_of(&flue_processor_resource,
                                 "attributes: [{key: a, value: x, action: upsert}]", NULL),
                     0);
}

static bool pattern_matches(const char *pattern, const char *text)
{
    struct flue_pattern translated;
    struct flue_error error;
    regex_t regex;
    if (flue_pattern_translate(pattern, &translated, &error))
        fail_msg("%s: %s", pattern, error.text);
    assert_int_equal(regcomp(&regex, translated.text,
                             REG_EXTENDED | REG_NOSUB | (translated.ignore_case ? REG_ICASE : 0)),
                     0);
    bool found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return found;
}

static void patterns_are_translated(void **state)
{
    assert_true(pattern_matches("^\\d+\\.\\d+$", "10.2"));
    assert_false(pattern_matches("^\\d+\\.\\d+$", "10x2"));
    assert_true(pattern_matches("^[\\w.\\-]+$", "a_b-c.d"));
    assert_false(pattern_matches("^[\\w.\\-]+$", "a b"));
    assert_true(pattern_matches("(?i)^abc$", "ABC"));
    assert_true(pattern_matches("^(?:ab|cd)+(?P<x>\\S)$", "abcd!"));
    assert_true(pattern_matches("^[]a]+$", "]a"));
    assert_true(pattern_matches("^[^\\s\\d]+$", "ab"));
    assert_false(pattern_matches("^[^\\s\\d]+$", "a1"));
    assert_true(pattern_matches("^\\W\\D\\s$", "-x "));
    struct flue_pattern pattern;
    struct flue_error error;
    assert_int_equal(flue_pattern_translate("(a)(?P<one>b)(?<two>(c))", &pattern, &error), FLUE_OK);
    assert_int_equal(pattern.groups, 4);
    assert_string_equal(pattern.names[1], "");
    assert_string_equal(pattern.names[2], "one");
    assert_string_equal(pattern.names[3], "two");
    static const char *const bad[] = {"a\\",     "\\1", "(?P<>x)", "(?P<a-b>x)", "(?P<a", "(?!x)",
                                      "(?<=x)y", "a++", "a{2}?",   "[a",         "[\\]]", "\\pL"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(flue_pattern_translate(bad[i], &pattern, &error), FLUE_INVALID);
    char many[200] = "";
    for (int i = 0; i < 40; i++)
        memcpy(many + 3 * i, "(a)", 4);
    assert_int_equal(flue_pattern_translate(many, &pattern, &error), FLUE_INVALID);
    static char deep[4000];
    memset(deep, 'a', sizeof deep - 1);
    assert_int_equal(flue_pattern_translate(deep, &pattern, &error), FLUE_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constants),
        cmocka_unit_test(order_is_kept),
        cmocka_unit_test(from_another_attribute),
        cmocka_unit_test(from_context),
        cmocka_unit_test(deletes),
        cmocka_unit_test(hashes),
        cmocka_unit_test(extracts),
        cmocka_unit_test(converts),
        cmocka_unit_test(series_of_pprof),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(patterns_are_translated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
