/* Expansion, merging and --set, as the Collector does them. */
#include "config_test.h"

#include <unistd.h>

static struct flue_node *load(struct fixture *f, const char *const *configs, size_t count,
                              const char *const *sets, size_t set_count)
{
    struct flue_sources sources = {configs, count, sets, set_count};
    return flue_config_load(&f->tree, &sources, &f->check);
}

/* Loads "yaml:TEXT" and asserts the canonical result and what was said. */
static void expands(const char *yaml, const char *result, const char *messages)
{
    struct fixture f;
    fixture_init(&f);
    char *source = malloc(strlen(yaml) + 6);
    assert_non_null(source);
    snprintf(source, strlen(yaml) + 6, "yaml:%s", yaml);
    const char *configs[] = {source};
    struct flue_node *root = load(&f, configs, 1, NULL, 0);
    assert_string_equal(said(&f), messages);
    if (result) {
        assert_non_null(root);
        assert_string_equal(printed(&f, root), result);
    }
    free(source);
    fixture_destroy(&f);
}

static void environment(void **state)
{
    setenv("FLUE_T_WORD", "hello", 1);
    setenv("FLUE_T_NUM", "0750", 1);
    setenv("FLUE_T_MAP", "{a: 1, b: [x, \"${env:FLUE_T_WORD}\"]}", 1);
    setenv("FLUE_T_EMPTY", "", 1);
    setenv("FLUE_T_ODD", "[unclosed", 1);
    unsetenv("FLUE_T_UNSET");
    expands("a: ${env:FLUE_T_WORD}", "a: hello\n", "");
    expands("a: ${FLUE_T_WORD}", "a: hello\n", "");
    expands("a: ${env:FLUE_T_NUM}", "a: 488\n", "");
    expands("a: x-${env:FLUE_T_NUM}", "a: x-0750\n", "");
    expands("a: ${env:FLUE_T_MAP}", "a:\n  a: 1\n  b:\n    - x\n    - hello\n", "");
    expands("a: ${env:FLUE_T_EMPTY}", "a: null\n", "");
    expands("a: ${env:FLUE_T_EMPTY:-d}", "a: null\n", "");
    expands("a: ${env:FLUE_T_UNSET:-d}", "a: d\n", "");
    expands("a: ${env:FLUE_T_UNSET:-}", "a: null\n", "");
    expands("a: x${env:FLUE_T_UNSET:-}y", "a: xy\n", "");
    expands("a: ${FLUE_T_UNSET:-7}", "a: 7\n", "");
    expands("a: ${env:FLUE_T_UNSET:-${env:FLUE_T_WORD}}", "a: hello\n", "");
    expands("a: ${env:FLUE_T_UNSET:-http://x:1/}", "a: http://x:1/\n", "");
    expands("a: ${env:FLUE_T_ODD}", "a: \"[unclosed\"\n", "");
    expands("b: 1\na: ${env:FLUE_T_UNSET}", "b: 1\na: null\n",
            "--config yaml::2:4: warning: the environment variable FLUE_T_UNSET is not set and has "
            "no default (${env:FLUE_T_UNSET:-default}): taken as empty\n");
    expands("a: '${env:FLUE_T_WORD} ${FLUE_T_WORD}, ${env:FLUE_T_NUM}'",
            "a: \"hello hello, 0750\"\n", "");
    expands("${env:FLUE_T_WORD}: 1", "\"${env:FLUE_T_WORD}\": 1\n", "");
}

static void yaml_scheme(void **state)
{
    expands("a: \"${yaml:[1, 2]}\"", "a:\n  - 1\n  - 2\n", "");
    expands("a: ${yaml:true}", "a: true\n", "");
    expands("a: x${yaml:true}", "a: xtrue\n", "");
}

static void escaping(void **state)
{
    setenv("FLUE_T_WORD", "hello", 1);
    expands("a: $$", "a: \"$$\"\n", ""); /* printing doubles it again */
    expands("a: $", "a: \"$$\"\n", "");
    expands("a: $HOME", "a: \"$$HOME\"\n", "");
    expands("a: $${FLUE_T_WORD}", "a: \"$${FLUE_T_WORD}\"\n", "");
    expands("a: $$${FLUE_T_WORD}", "a: \"$$hello\"\n", "");
    expands("a: $$$${FLUE_T_WORD}", "a: \"$$$${FLUE_T_WORD}\"\n", "");
    expands("a: $${FLUE_T_WORD} ${FLUE_T_WORD}", "a: \"$${FLUE_T_WORD} hello\"\n", "");
    expands("a: \"${FLUE_T_WORD\"", "a: \"$${FLUE_T_WORD\"\n", "");
    expands("a: \"FLUE_T_WORD}\"", "a: \"FLUE_T_WORD}\"\n", "");
}

static void expansion_mistakes(void **state)
{
    setenv("FLUE_T_SELF", "${env:FLUE_T_SELF}", 1);
    setenv("FLUE_T_TWICE", "${env:FLUE_T_TWICE}${env:FLUE_T_TWICE} ", 1);
    setenv("FLUE_T_GROW",
           "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx${env:FLUE_T_GROW}"
           "${env:FLUE_T_SELF}",
           1);
    expands("a: ${env:1X}", NULL,
            "--config yaml::1:4: \"1X\" is no name of an environment variable: letters, digits and "
            "_, not beginning with a digit\n");
    expands("a: ${envv:X}", NULL,
            "--config yaml::1:4: unknown scheme \"envv\" in ${envv:...} (did you mean \"env\"?); "
            "env, file and yaml are known\n");
    expands("a: ${https://x/y}", NULL,
            "--config yaml::1:4: unknown scheme \"https\" in ${https:...}; env, file and yaml are "
            "known\n");
    expands("a: ${env:X:-a$b}", NULL,
            "--config yaml::1:4: \"$\" cannot stand within ${env:X:-a$b}\n");
    expands("a: ${file:/nonexistent/flue}", NULL,
            "--config yaml::1:4: ${file:/nonexistent/flue}: No such file or directory\n");
    expands("a: ${env:FLUE_T_SELF}", NULL,
            "--config yaml::1:4: the expansion does not end after 1000 rounds: does a reference "
            "lead to itself?\n");
    /* Both mistakes, not only the first. */
    expands("a: ${env:1X}\nb: ${env:2X}", NULL,
            "--config yaml::1:4: \"1X\" is no name of an environment variable: letters, digits and "
            "_, not beginning with a digit\n"
            "--config yaml::2:4: \"2X\" is no name of an environment variable: letters, digits and "
            "_, not beginning with a digit\n");
    struct fixture f;
    fixture_init(&f);
    const char *configs[] = {"yaml:a: ${env:FLUE_T_TWICE}"};
    load(&f, configs, 1, NULL, 0);
    assert_true(f.check.mistakes == 1); /* bounded, by rounds or by size */
    fixture_destroy(&f);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void files(void **state)
{
    char folder[] = "/tmp/flue-load-XXXXXX", path[256], source[300];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/part.yaml", folder);
    write_file(path, "x: 1\ny: {z: \"2\"}\n");
    snprintf(source, sizeof source, "a: ${file:%s}", path);
    expands(source, "a:\n  x: 1\n  y:\n    z: \"2\"\n", "");

    /* Nodes of an included file keep their own places. */
    struct fixture f;
    fixture_init(&f);
    char config[310];
    snprintf(config, sizeof config, "yaml:%s", source);
    const char *configs[] = {config};
    const struct flue_node *root = load(&f, configs, 1, NULL, 0);
    const struct flue_node *y = flue_node_find(flue_node_find(root, "a")->node, "y")->node;
    assert_string_equal(y->position.file, path);
    assert_int_equal(y->position.line, 2);
    fixture_destroy(&f);

    /* A secret in a file: the line end is no part of it. */
    write_file(path, "s3cret\r\n");
    expands(source, "a: s3cret\n", "");

    /* A file that includes itself, twice in every turn. */
    char text[600];
    snprintf(text, sizeof text, "x: ${file:%s}\ny: ${file:%s}\n", path, path);
    write_file(path, text);
    fixture_init(&f);
    assert_non_null(load(&f, configs, 1, NULL, 0));
    assert_int_equal(f.check.mistakes, 1);
    assert_non_null(strstr(said(&f), "does a file include itself?"));
    fixture_destroy(&f);
    unlink(path);
    rmdir(folder);
}

static void merging(void **state)
{
    struct fixture f;
    fixture_init(&f);
    const char *configs[] = {
        "yaml:{a: {x: 1, y: [1, 2], z: {k: v}}, processors: {p: {q: 1}}, keep: me}",
        "yaml:{a: {y: [3], z: {l: w}, n: 5}, processors: , keep2: 1}",
        "yaml:",
        "yaml:a::z::m: deep",
    };
    struct flue_node *root = load(&f, configs, 4, NULL, 0);
    assert_string_equal(said(&f), "");
    assert_string_equal(printed(&f, root),
                        "a:\n  x: 1\n  y:\n    - 3\n  z:\n    k: v\n    l: w\n    m: deep\n  n: 5\n"
                        "processors: null\nkeep: me\nkeep2: 1\n");
    fixture_destroy(&f);
}

static void sets(void **state)
{
    struct fixture f;
    fixture_init(&f);
    setenv("FLUE_T_WORD", "hello", 1);
    const char *configs[] = {"yaml:{exporters: {debug: {verbosity: basic}}}"};
    const char *values[] = {"exporters.debug.verbosity=detailed", "exporters::debug/2.5::n=12",
                            "a.list=[1, {b: c}]", " a.word =${env:FLUE_T_WORD}", "a.empty="};
    struct flue_node *root = load(&f, configs, 1, values, 5);
    assert_string_equal(said(&f), "");
    assert_string_equal(printed(&f, root),
                        "exporters:\n  debug:\n    verbosity: detailed\n  debug/2.5:\n    n: 12\n"
                        "a:\n  list:\n    - 1\n    - b: c\n  word: hello\n  empty: null\n");
    const struct flue_node *debug =
        flue_node_find(flue_node_find(root, "exporters")->node, "debug")->node;
    assert_string_equal(flue_node_find(debug, "verbosity")->node->position.file,
                        "--set exporters.debug.verbosity");
    fixture_destroy(&f);

    static const struct {
        const char *set, *text;
    } wrong[] = {
        {"novalue", "--set novalue: write KEY=VALUE, as in --set "
                    "exporters.debug.verbosity=detailed\n"},
        {"=x", "--set =x: write KEY=VALUE, as in --set exporters.debug.verbosity=detailed\n"},
        {"a=[1", "--set a:1:3: not valid YAML: did not find expected ',' or ']' while parsing a "
                 "flow sequence\n"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        fixture_init(&f);
        assert_null(load(&f, configs, 1, &wrong[i].set, 1));
        assert_string_equal(said(&f), wrong[i].text);
        fixture_destroy(&f);
    }
}

static void sources(void **state)
{
    struct fixture f;
    fixture_init(&f);
    setenv("FLUE_T_CONFIG", "a: 1", 1);
    unsetenv("FLUE_T_UNSET");
    const char *good[] = {"env:FLUE_T_CONFIG", "file:" FLUE_TEST_DATA "/config/plain.yaml",
                          FLUE_TEST_DATA "/config/plain.yaml"};
    struct flue_node *root = load(&f, good, 3, NULL, 0);
    assert_string_equal(said(&f), "");
    assert_string_equal(printed(&f, root), "a: 1\nplain: true\n");
    fixture_destroy(&f);

    fixture_init(&f);
    const char *bad[] = {"/nonexistent/flue.yaml", "env:FLUE_T_UNSET", "https://x/y", "yaml:[1]",
                         "/tmp"};
    assert_null(load(&f, bad, 5, NULL, 0));
    assert_string_equal(
        said(&f),
        "--config /nonexistent/flue.yaml: No such file or directory\n"
        "--config env:FLUE_T_UNSET: the environment variable is not set\n"
        "--config https://x/y: configuration is not fetched over the network; save it as a file "
        "and name that\n"
        "--config /tmp: is a directory\n"
        "--config yaml::1:1: a configuration is a map of receivers, exporters, service, ..., not a "
        "list\n");
    fixture_destroy(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(environment), cmocka_unit_test(yaml_scheme),
        cmocka_unit_test(escaping),    cmocka_unit_test(expansion_mistakes),
        cmocka_unit_test(files),       cmocka_unit_test(merging),
        cmocka_unit_test(sets),        cmocka_unit_test(sources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
