/* YAML to nodes: types as yaml.v3 has them, positions, and every bound. */
#include "config_test.h"

static void types(void **state)
{
    static const struct {
        const char *yaml;
        enum flue_node_type type;
    } rows[] = {
        {"~", FLUE_NODE_NULL},
        {"null", FLUE_NODE_NULL},
        {"", FLUE_NODE_NULL},
        {"true", FLUE_NODE_BOOL},
        {"FALSE", FLUE_NODE_BOOL},
        {"yes", FLUE_NODE_STRING},
        {"on", FLUE_NODE_STRING},
        {"\"true\"", FLUE_NODE_STRING},
        {"'1'", FLUE_NODE_STRING},
        {"1", FLUE_NODE_INT},
        {"-7", FLUE_NODE_INT},
        {"0x1F", FLUE_NODE_INT},
        {"0o17", FLUE_NODE_INT},
        {"0750", FLUE_NODE_INT},
        {"0b11", FLUE_NODE_INT},
        {"1_000", FLUE_NODE_INT},
        {"1.5", FLUE_NODE_FLOAT},
        {".5", FLUE_NODE_FLOAT},
        {"1e3", FLUE_NODE_FLOAT},
        {".inf", FLUE_NODE_FLOAT},
        {"-.INF", FLUE_NODE_FLOAT},
        {".nan", FLUE_NODE_FLOAT},
        {"089", FLUE_NODE_FLOAT},
        {"10s", FLUE_NODE_STRING},
        {"1.2.3", FLUE_NODE_STRING},
        {"-", FLUE_NODE_LIST},
        {"!!str 12", FLUE_NODE_STRING},
        {"0x", FLUE_NODE_STRING},
        {".", FLUE_NODE_STRING},
        {"1e", FLUE_NODE_STRING},
        {"!!float 3", FLUE_NODE_FLOAT},
        {"{}", FLUE_NODE_MAP},
        {"[]", FLUE_NODE_LIST},
        {"9223372036854775807", FLUE_NODE_INT},
        {"-9223372036854775808", FLUE_NODE_INT},
        {"9223372036854775808", FLUE_NODE_FLOAT},
        {"! 12", FLUE_NODE_STRING},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fixture f;
        fixture_init(&f);
        const struct flue_node *node = parse(&f, rows[i].yaml);
        assert_string_equal(said(&f), "");
        assert_non_null(node);
        if (node->type != rows[i].type)
            fail_msg("%s is %s", rows[i].yaml, flue_node_type_name(node->type));
        fixture_destroy(&f);
    }
}

static void values(void **state)
{
    struct fixture f;
    fixture_init(&f);
    const struct flue_node *n = parse(&f, "[0750, 0x1F, -0b101, 1_000, -9223372036854775808, 1e3]");
    assert_int_equal(n->items[0]->integer, 488);
    assert_int_equal(n->items[1]->integer, 31);
    assert_int_equal(n->items[2]->integer, -5);
    assert_int_equal(n->items[3]->integer, 1000);
    assert_true(n->items[4]->integer == INT64_MIN);
    assert_true(n->items[5]->number == 1000.0);
    fixture_destroy(&f);
}

static void positions(void **state)
{
    struct fixture f;
    fixture_init(&f);
    const struct flue_node *n = parse(&f, "a:\n  b: 5\n  c: [x,\n    y]\n");
    const struct flue_node_entry *a = flue_node_find(n, "a");
    assert_int_equal(a->position.line, 1);
    assert_int_equal(a->position.column, 1);
    const struct flue_node_entry *b = flue_node_find(a->node, "b");
    assert_int_equal(b->position.line, 2);
    assert_int_equal(b->position.column, 3);
    assert_int_equal(b->node->position.column, 6);
    const struct flue_node *c = flue_node_find(a->node, "c")->node;
    assert_int_equal(c->items[1]->position.line, 4);
    assert_int_equal(c->items[1]->position.column, 5);
    assert_string_equal(c->items[1]->position.file, "c.yaml");
    fixture_destroy(&f);
}

static void anchors(void **state)
{
    struct fixture f;
    fixture_init(&f);
    struct flue_node *n = parse(&f, "base: &b {x: 1, y: [2]}\n"
                                    "one: *b\n"
                                    "two: {<<: *b, x: 3}\n"
                                    "three: {<<: [*b, {z: 9}]}\n"
                                    "word: &w hello\n"
                                    "again: *w\n");
    assert_string_equal(said(&f), "");
    assert_string_equal(printed(&f, n), "base:\n  x: 1\n  y:\n    - 2\n"
                                        "one:\n  x: 1\n  y:\n    - 2\n"
                                        "two:\n  x: 3\n  y:\n    - 2\n"
                                        "three:\n  x: 1\n  y:\n    - 2\n  z: 9\n"
                                        "word: hello\nagain: hello\n");
    /* Copies: a change of one is not seen in the other. */
    flue_node_find(flue_node_find(n, "one")->node, "x")->node->integer = 77;
    assert_int_equal(flue_node_find(flue_node_find(n, "base")->node, "x")->node->integer, 1);
    fixture_destroy(&f);
}

static void mistakes(void **state)
{
    static const struct {
        const char *yaml, *text;
    } rows[] = {
        {"a: 1\nb: 2\na: 3\n", "c.yaml:3:1: the key \"a\" stands here twice (first in line 1)\n"},
        {"a: *nobody\n", "c.yaml:1:4: the alias \"*nobody\" has no anchor before it\n"},
        {"a: &x [1, *x]\n", "c.yaml:1:11: the anchor \"x\" contains itself\n"},
        {"a: {<<: 5}\n", "c.yaml:1:10: \"<<\" takes a map or a list of maps\n"},
        {"? [a]\n: b\n", "c.yaml:1:3: a key must be a plain word, not a map, list or alias\n"},
        {"a: \"x\\0y\"\n", "c.yaml:1:4: a value holds a NUL character\n"},
        {"\"x\\0y\": 1\n", "c.yaml:1:1: a key holds a NUL character\n"},
        {"a: !!int x\n", "c.yaml:1:4: the value does not fit its tag tag:yaml.org,2002:int\n"},
        {"a: !secret x\n", "c.yaml:1:4: the tag !secret is not known here; leave it out\n"},
        {"a: 1\n---\nb: 2\n", "c.yaml:2:1: a second YAML document: one file holds one\n"},
        {"a: [1\nb: 2\n", "c.yaml:2:2: not valid YAML: did not find expected ',' or ']' while "
                          "parsing a flow sequence\n"},
        {"\tb: 2\n", "c.yaml:1:1: not valid YAML: found character that cannot start any token "
                     "while scanning for the next token\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fixture f;
        fixture_init(&f);
        assert_null(parse(&f, rows[i].yaml));
        assert_string_equal(said(&f), rows[i].text);
        fixture_destroy(&f);
    }
}

static void invalid_utf8(void **state)
{
    struct fixture f;
    fixture_init(&f);
    assert_null(parse(&f, "a: \xff\xfe\n"));
    assert_non_null(strstr(said(&f), "not valid YAML: invalid"));
    fixture_destroy(&f);
}

static void depth_limit(void **state)
{
    for (int over = 0; over < 2; over++) {
        char yaml[300];
        size_t depth = (size_t)(FLUE_YAML_MAX_DEPTH + over);
        memset(yaml, '[', depth);
        memset(yaml + depth, ']', depth);
        yaml[2 * depth] = 0;
        struct fixture f;
        fixture_init(&f);
        const struct flue_node *node = parse(&f, yaml);
        assert_true(over ? node == NULL : node != NULL);
        assert_string_equal(said(&f), over ? "c.yaml:1:65: nested deeper than 64 levels\n" : "");
        fixture_destroy(&f);
    }
}

/* "Billion laughs": aliases are counted as often as used. */
static void alias_bomb(void **state)
{
    struct flue_buffer yaml;
    flue_buffer_init(&yaml, 1u << 20);
    flue_buffer_text(&yaml, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 10; i++) {
        flue_buffer_printf(&yaml, "a%d: &a%d [", i, i);
        for (int j = 0; j < 10; j++)
            flue_buffer_printf(&yaml, "%s*a%d", j ? ", " : "", i - 1);
        flue_buffer_text(&yaml, "]\n");
    }
    struct fixture f;
    fixture_init(&f);
    assert_null(parse(&f, yaml.data));
    assert_non_null(strstr(said(&f), "the configuration has more than 100000 values"));
    assert_true(f.tree.nodes <= FLUE_YAML_MAX_NODES);
    flue_buffer_destroy(&yaml);
    fixture_destroy(&f);
}

static void entry_limit(void **state)
{
    for (unsigned over = 0; over < 2; over++) {
        struct flue_buffer yaml;
        flue_buffer_init(&yaml, 1u << 20);
        for (unsigned i = 0; i < FLUE_YAML_MAX_ENTRIES + over; i++)
            flue_buffer_printf(&yaml, "k%u: 1\n", i);
        struct fixture f;
        fixture_init(&f);
        const struct flue_node *node = parse(&f, yaml.data);
        assert_true(over ? node == NULL : node != NULL);
        assert_string_equal(said(&f), over ? "c.yaml:4097:1: a map has more than 4096 keys\n" : "");
        flue_buffer_destroy(&yaml);
        fixture_destroy(&f);
    }
}

static void size_limit(void **state)
{
    char *text = malloc(FLUE_YAML_MAX_BYTES + 1);
    assert_non_null(text);
    memset(text, ' ', FLUE_YAML_MAX_BYTES + 1);
    struct fixture f;
    fixture_init(&f);
    assert_non_null(
        flue_yaml_parse(&f.tree, "c.yaml", flue_bytes(text, FLUE_YAML_MAX_BYTES), NULL, &f.check));
    assert_null(flue_yaml_parse(&f.tree, "c.yaml", flue_bytes(text, FLUE_YAML_MAX_BYTES + 1), NULL,
                                &f.check));
    assert_string_equal(said(&f), "c.yaml:1:1: 4194305 bytes of YAML, the limit is 4194304\n");
    free(text);
    fixture_destroy(&f);
}

/* Whatever is cut or flipped: no crash, and either a tree or a mistake. */
static void hostile(void **state)
{
    static const char yaml[] = "a: &x {b: [1, 'two', \"th\\u00e9\"], <<: {c: 3}}\n"
                               "d: *x\ne: |\n  text\n  more\nf: !!str 12 # note\n";
    for (size_t cut = 0; cut < sizeof yaml; cut++) {
        struct fixture f;
        fixture_init(&f);
        const struct flue_node *node =
            flue_yaml_parse(&f.tree, "c.yaml", flue_bytes(yaml, cut), NULL, &f.check);
        assert_true((node != NULL) == (f.check.mistakes == 0));
        fixture_destroy(&f);
    }
    for (size_t bit = 0; bit < (sizeof yaml - 1) * 8; bit++) {
        char copy[sizeof yaml];
        memcpy(copy, yaml, sizeof yaml);
        copy[bit / 8] = (char)(copy[bit / 8] ^ (1 << bit % 8));
        struct fixture f;
        fixture_init(&f);
        const struct flue_node *node =
            flue_yaml_parse(&f.tree, "c.yaml", flue_bytes(copy, sizeof yaml - 1), NULL, &f.check);
        assert_true((node != NULL) == (f.check.mistakes == 0));
        fixture_destroy(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types),       cmocka_unit_test(values),     cmocka_unit_test(positions),
        cmocka_unit_test(anchors),     cmocka_unit_test(mistakes),   cmocka_unit_test(invalid_utf8),
        cmocka_unit_test(depth_limit), cmocka_unit_test(alias_bomb), cmocka_unit_test(entry_limit),
        cmocka_unit_test(size_limit),  cmocka_unit_test(hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
