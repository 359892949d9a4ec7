/* Canonical print: golden text, and what is printed reads again to the same. */
#include "config_test.h"

struct settings {
    const char *password, *plain, *url;
    struct flue_map headers;
    struct flue_list words;
    int64_t number;
};
static const struct flue_field settings_fields[] = {FLUE_SECRET(struct settings, password),
                                                    FLUE_STRING(struct settings, plain),
                                                    FLUE_STRING(struct settings, url),
                                                    FLUE_SECRETS(struct settings, headers),
                                                    FLUE_STRINGS(struct settings, words),
                                                    FLUE_INT(struct settings, number),
                                                    FLUE_IGNORED("ignored", ""),
                                                    FLUE_FIELDS_END};

static const char source[] =
    "password: \"hunter 2\"\n"
    "plain: ${env:FLUE_T_OCTAL}\n"
    "url: http://user:pa:ss@host:80/x?y=a@b\n"
    "headers: {X-Scope-OrgID: media, Authorization: Bearer abc}\n"
    "words: [\"\", \"yes\", \"1.5\", ~x, \"a: b\", \"tab\\there\", \"$${HOME}\", é, '\"']\n"
    "number: ${env:FLUE_T_OCTAL}\n"
    "ignored: {a_token: t0p, list: [], map: {}, none: , f: 1.0, big: 1e30, t: true, "
    "nested: [[1, 2], [{k: v, w: [x]}]]}\n";

static struct flue_node *bound(struct fixture *f, const char *yaml)
{
    struct settings out = {0};
    struct flue_binding binding = {settings_fields, &out};
    struct flue_node *node = parse(f, yaml);
    assert_non_null(node);
    setenv("FLUE_T_OCTAL", "0750", 1);
    flue_node_expand(&f->tree, node, &f->check);
    flue_bind(&f->check, node, "x", node->position, &binding, 1);
    assert_string_equal(said(f), "");
    return node;
}

static void golden(void **state)
{
    struct fixture f;
    fixture_init(&f);
    const struct flue_node *node = bound(&f, source);
    static const char rest[] = "words:\n  - \"\"\n  - yes\n  - \"1.5\"\n  - \"~x\"\n  - \"a: b\"\n"
                               "  - \"tab\\there\"\n  - \"$${HOME}\"\n  - \"é\"\n  - \"\\\"\"\n"
                               "number: 488\n"
                               "ignored:\n";
    static const char tail[] = "  list: []\n  map: {}\n  none: null\n  f: 1.0\n  big: 1e+30\n"
                               "  t: true\n  nested:\n    - - 1\n      - 2\n"
                               "    - - k: v\n        w:\n          - x\n";
    char expected[2048];
    snprintf(expected, sizeof expected,
             "password: \"[REDACTED]\"\nplain: \"0750\"\n"
             "url: \"http://user:[REDACTED]@host:80/x?y=a@b\"\n"
             "headers:\n  X-Scope-OrgID: \"[REDACTED]\"\n  Authorization: \"[REDACTED]\"\n"
             "%s  a_token: \"[REDACTED]\"\n%s",
             rest, tail);
    flue_buffer_clear(&f.text);
    flue_node_print_yaml(node, true, &f.text);
    assert_string_equal(f.text.data, expected);
    assert_null(strstr(f.text.data, "hunter"));
    snprintf(expected, sizeof expected,
             "password: \"hunter 2\"\nplain: \"0750\"\n"
             "url: \"http://user:pa:ss@host:80/x?y=a@b\"\n"
             "headers:\n  X-Scope-OrgID: media\n  Authorization: \"Bearer abc\"\n"
             "%s  a_token: t0p\n%s",
             rest, tail);
    assert_string_equal(printed(&f, node), expected);
    fixture_destroy(&f);
}

/* Printed, read, printed: the same text, from YAML and from JSON. */
static void again(void **state)
{
    struct fixture f;
    fixture_init(&f);
    const struct flue_node *node = bound(&f, source);
    char *first = strdup(printed(&f, node));
    const struct flue_node *second = bound(&f, first);
    assert_string_equal(printed(&f, second), first);
    flue_buffer_clear(&f.text);
    flue_node_print_json(node, false, &f.text);
    assert_non_null(strstr(f.text.data, "\"words\": [\n    \"\",\n    \"yes\",\n    \"1.5\","));
    assert_non_null(strstr(f.text.data, "\"${HOME}\"")); /* JSON is data, not a configuration */
    free(first);
    fixture_destroy(&f);
}

/* Any string survives, as a value and as a key. */
static void any_string(void **state)
{
    uint64_t seed = 7;
    for (int round = 0; round < 2000; round++) {
        char text[24];
        size_t size = 0;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        static const char letters[] = "abz019 :#-?!&*%@`'\"\\{}[]|>,~$.=_\n\t\r\x01\x7f/+<";
        for (size_t n = (seed >> 60) + 1; size < n; size++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            text[size] = letters[(seed >> 33) % (sizeof letters - 1)];
        }
        text[size] = 0;
        struct fixture f;
        fixture_init(&f);
        struct flue_position at = {"", 0, 0};
        struct flue_node *map = flue_node_new(&f.tree, FLUE_NODE_MAP, &at);
        struct flue_node *value = flue_node_scalar(&f.tree, text, &at);
        value->type = FLUE_NODE_STRING;
        flue_node_put(&f.tree, map, text, &at, value);
        struct flue_node *read = parse(&f, printed(&f, map));
        assert_string_equal(said(&f), "");
        flue_node_expand(&f.tree, read, &f.check);
        assert_string_equal(read->entries[0].key, text);
        assert_int_equal(read->entries[0].node->type, FLUE_NODE_STRING);
        assert_string_equal(read->entries[0].node->text, text);
        fixture_destroy(&f);
    }
}

static void unicode(void **state)
{
    static const char *const texts[] = {"\xc2\x85",     "\xc2\x9f",         "\xe2\x80\xa8",
                                        "\xe2\x80\xa9", "\xf0\x9f\x94\xa5", "a\xc3\xa9 b"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct fixture f;
        fixture_init(&f);
        struct flue_position at = {"", 0, 0};
        struct flue_node *value = flue_node_scalar(&f.tree, texts[i], &at);
        const struct flue_node *read = parse(&f, printed(&f, value));
        assert_string_equal(said(&f), "");
        assert_string_equal(read->text, texts[i]);
        fixture_destroy(&f);
    }
}

/* A file with mistakes is printed too. */
static void map_for_a_string(void **state)
{
    struct strings {
        struct flue_list names;
    };
    static const struct flue_field fields[] = {FLUE_STRINGS(struct strings, names),
                                               FLUE_FIELDS_END};
    struct strings out = {0};
    struct flue_binding binding = {fields, &out};
    struct flue_position at = {"", 0, 0};
    struct fixture f;
    fixture_init(&f);
    struct flue_node *node = parse(&f, "names: [a, {b: c}]\n");
    assert_false(flue_bind(&f.check, node, "x", at, &binding, 1));
    assert_string_equal(printed(&f, node), "names:\n  - a\n  - \"\"\n");
    fixture_destroy(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),           cmocka_unit_test(again),
        cmocka_unit_test(any_string),       cmocka_unit_test(unicode),
        cmocka_unit_test(map_for_a_string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
