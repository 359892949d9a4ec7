/* Binding: every type, default, bound and mistake, with the place of each. */
#include "config_test.h"

#include "config/describe.h"

struct inner {
    bool on;
    int64_t count;
    const char *word;
};
struct item {
    const char *key;
    struct flue_value value;
};
struct switched {
    bool enabled;
    int64_t n;
};
struct outer {
    bool flag;
    int64_t number, size, wait;
    double ratio;
    const char *text, *secret, *endpoint, *must;
    int choice;
    struct inner block;
    const struct inner *maybe, *always;
    const struct switched *own;
    struct flue_list items, words;
    struct flue_map map, headers;
    struct flue_value value;
    struct inner squashed;
};

static const char *const colours[] = {"red", "green", "", NULL};
static const struct flue_field inner_fields[] = {FLUE_BOOL(struct inner, on, .def = "true"),
                                                 FLUE_INT(struct inner, count, .def = "5",
                                                          .minimum = 1, .maximum = 10,
                                                          .unit = "things", .help = "how many"),
                                                 FLUE_STRING(struct inner, word), FLUE_FIELDS_END};
static const struct flue_field squashed_fields[] = {
    {.name = "ssize", .type = FLUE_FIELD_INT, .offset = offsetof(struct inner, count), .def = "3"},
    {.name = "text",
     .type = FLUE_FIELD_STRING,
     .offset = offsetof(struct inner, word),
     .def = "hidden by the outer row"},
    FLUE_FIELDS_END};
static const struct flue_field item_fields[] = {
    FLUE_STRING(struct item, key, .required = true, .help = "name of the attribute"),
    FLUE_VALUE(struct item, value), FLUE_FIELDS_END};
static const struct flue_field switched_fields[] = {
    FLUE_BOOL(struct switched, enabled, .def = "false"), FLUE_INT(struct switched, n),
    FLUE_FIELDS_END};
static const struct flue_field fields[] = {
    FLUE_BOOL(struct outer, flag),
    FLUE_INT(struct outer, number, .def = "0x10", .minimum = 0, .maximum = 100, .unit = "MiB"),
    FLUE_SIZE(struct outer, size, .def = "1MiB", .minimum = 1024, .maximum = 1 << 30),
    FLUE_DURATION(struct outer, wait, .def = "1m30s", .minimum = 0,
                  .maximum = INT64_C(3600000000000), .alias = "timeout_wait"),
    FLUE_FLOAT(struct outer, ratio, .def = "0.5", .minimum = 0, .maximum = 1),
    FLUE_STRING(struct outer, text, .def = "12"),
    FLUE_SECRET(struct outer, secret),
    FLUE_ENDPOINT(struct outer, endpoint, .def = "localhost:4317"),
    FLUE_STRING(struct outer, must),
    FLUE_ENUM(struct outer, choice, .def = "green", .choices = colours),
    FLUE_BLOCK(struct outer, block, struct inner, inner_fields),
    FLUE_OPTIONAL(struct outer, maybe, struct inner, inner_fields),
    FLUE_OPTIONAL(struct outer, always, struct inner, inner_fields, .def = "{}"),
    FLUE_OPTIONAL(struct outer, own, struct switched, switched_fields),
    FLUE_LIST(struct outer, items, struct item, item_fields),
    FLUE_STRINGS(struct outer, words, .def = "[a, \"\", b]"),
    FLUE_MAP(struct outer, map),
    FLUE_SECRETS(struct outer, headers),
    FLUE_VALUE(struct outer, value),
    FLUE_SQUASH(struct outer, squashed, struct inner, squashed_fields),
    FLUE_IGNORED("legacy", "no effect"),
    FLUE_FIELDS_END};

static struct outer *bind(struct fixture *f, const char *yaml)
{
    struct outer *out = flue_arena_zalloc(&f->arena, 1, sizeof *out);
    struct flue_node *node = parse(f, yaml);
    struct flue_binding binding = {fields, out};
    assert_non_null(node);
    flue_node_expand(&f->tree, node, &f->check);
    flue_bind(&f->check, node, "exporters.x", (struct flue_position){"c.yaml", 1, 1}, &binding, 1);
    return out;
}

static void defaults(void **state)
{
    static const char nulls[] =
        "{flag: , number: ~, size: null, wait: , text: , endpoint: , choice: , block: , words: , "
        "items: , map: , value: , always: , ssize: }";
    static const char *const same[] = {"", "{}", nulls};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        struct fixture f;
        fixture_init(&f);
        const struct outer *o = bind(&f, same[i]);
        assert_string_equal(said(&f), "");
        assert_false(o->flag);
        assert_int_equal(o->number, 16);
        assert_int_equal(o->size, 1 << 20);
        assert_int_equal(o->wait, INT64_C(90000000000));
        assert_true(o->ratio == 0.5);
        assert_string_equal(o->text, "12");
        assert_null(o->secret);
        assert_string_equal(o->endpoint, "localhost:4317");
        assert_int_equal(o->choice, 1);
        assert_true(o->block.on);
        assert_int_equal(o->block.count, 5);
        assert_null(o->block.word);
        assert_null(o->maybe);
        assert_non_null(o->always);
        assert_int_equal(o->always->count, 5);
        assert_null(o->own);
        assert_int_equal(o->items.count, 0);
        assert_int_equal(o->words.count, 3);
        assert_string_equal(((const char **)o->words.items)[1], "");
        assert_int_equal(o->map.count, 0);
        assert_int_equal(o->value.type, FLUE_VALUE_EMPTY);
        assert_int_equal(o->squashed.count, 3);
        assert_null(o->squashed.word); /* the outer row hides it */
        fixture_destroy(&f);
    }
}

static void values(void **state)
{
    struct fixture f;
    fixture_init(&f);
    const struct outer *o =
        bind(&f, "flag: true\nnumber: 1e2\nsize: 2 KiB\nwait: 1h\nratio: 1\ntext: \"0x12\"\n"
                 "secret: s\nendpoint: \"[::1]:0\"\nchoice: \"\"\nblock: {count: 10, on: false}\n"
                 "maybe: {word: w}\nalways: {enabled: false}\nown: {n: 4, enabled: true}\n"
                 "items: [{key: a, value: 1}, {key: b, value: \"1\"}, {key: c, value: true}, "
                 "{key: d, value: 1.5}]\nwords: [x]\nmap: {k: v, \"\": w, n: }\n"
                 "headers: [{name: X, value: y}]\nvalue: yes\nssize: 9\nlegacy: {any: [thing]}\n");
    assert_string_equal(said(&f), "");
    assert_true(o->flag);
    assert_int_equal(o->number, 100);
    assert_int_equal(o->size, 2048);
    assert_int_equal(o->wait, INT64_C(3600000000000));
    assert_true(o->ratio == 1.0);
    assert_string_equal(o->text, "0x12");
    assert_string_equal(o->secret, "s");
    assert_string_equal(o->endpoint, "[::1]:0");
    assert_int_equal(o->choice, 2);
    assert_false(o->block.on);
    assert_string_equal(o->maybe->word, "w");
    assert_int_equal(o->maybe->count, 5);
    assert_null(o->always);
    assert_int_equal(o->own->n, 4);
    const struct item *items = o->items.items;
    assert_int_equal(o->items.count, 4);
    assert_int_equal(items[0].value.type, FLUE_VALUE_INT);
    assert_int_equal(items[1].value.type, FLUE_VALUE_STRING);
    assert_int_equal(items[2].value.type, FLUE_VALUE_BOOL);
    assert_true(items[3].value.number == 1.5);
    assert_int_equal(o->map.count, 3);
    assert_string_equal(o->map.items[1].value, "w");
    assert_string_equal(o->map.items[2].value, "");
    assert_string_equal(o->headers.items[0].key, "X");
    assert_string_equal(o->headers.items[0].value, "y");
    assert_true(flue_bytes_is(o->value.text, "yes"));
    assert_int_equal(o->squashed.count, 9);
    fixture_destroy(&f);
}

/* A whole reference may become any type, while a string field gets the text as it was. */
static void expanded(void **state)
{
    setenv("FLUE_T_NUM", "042", 1);
    setenv("FLUE_T_LIST", "[p, q]", 1);
    setenv("FLUE_T_TRUE", "true", 1);
    unsetenv("FLUE_T_UNSET");
    struct fixture f;
    fixture_init(&f);
    const struct outer *o =
        bind(&f, "number: ${env:FLUE_T_NUM}\ntext: ${env:FLUE_T_NUM}\nwords: ${env:FLUE_T_LIST}\n"
                 "secret: ${env:FLUE_T_LIST}\nflag: ${env:FLUE_T_TRUE}\n"
                 "block: {word: \"${env:FLUE_T_TRUE}\"}\n"
                 "map: {a: \"${env:FLUE_T_NUM}\", b: \"${env:FLUE_T_UNSET:-}\"}\n"
                 "must: ${env:FLUE_T_UNSET:-}\n");
    assert_string_equal(said(&f), "");
    assert_int_equal(o->number, 34);
    assert_string_equal(o->text, "042");
    assert_int_equal(o->words.count, 2);
    assert_string_equal(o->secret, "[p, q]");
    assert_true(o->flag);
    assert_string_equal(o->block.word, "true");
    assert_string_equal(o->map.items[0].value, "042");
    assert_string_equal(o->map.items[1].value, "");
    assert_string_equal(o->must, "");
    fixture_destroy(&f);
}

static void mistakes(void **state)
{
    static const struct {
        const char *yaml, *text;
    } rows[] = {
        {"flag: yes", "c.yaml:1:7: exporters.x.flag: must be true or false, not the string "
                      "\"yes\"\n"},
        {"flag: 1", "c.yaml:1:7: exporters.x.flag: must be true or false, not 1\n"},
        {"number: \"5\"", "c.yaml:1:9: exporters.x.number: must be a whole number, not the string "
                          "\"5\"\n"},
        {"number: 1.5", "c.yaml:1:9: exporters.x.number: must be a whole number, not 1.5\n"},
        {"number: 101",
         "c.yaml:1:9: exporters.x.number: 101 MiB is above the maximum of 100 MiB\n"},
        {"number: -1", "c.yaml:1:9: exporters.x.number: -1 MiB is below the minimum of 0 MiB\n"},
        {"number: {}", "c.yaml:1:1: exporters.x.number: must be a whole number, not a map\n"},
        {"size: 1KB", "c.yaml:1:7: exporters.x.size: 1000 bytes is below the minimum of 1 KiB\n"},
        {"size: 2GiB", "c.yaml:1:7: exporters.x.size: 2 GiB is above the maximum of 1 GiB\n"},
        {"size: 5 parsecs", "c.yaml:1:7: exporters.x.size: must be a size in bytes (1048576, "
                            "\"1MiB\"), not the string \"5 parsecs\"\n"},
        {"size: 99999999999999999GiB",
         "c.yaml:1:7: exporters.x.size: must be a size in bytes (1048576, \"1MiB\"), not the "
         "string \"99999999999999999GiB\"\n"},
        {"wait: 5", "c.yaml:1:7: exporters.x.wait: 5 has no unit: write \"5s\" for seconds, or ms, "
                    "m, h\n"},
        {"wait: 5 days", "c.yaml:1:7: exporters.x.wait: must be a duration (\"300ms\", \"1m30s\", "
                         "\"1.5h\"), not the string \"5 days\"\n"},
        {"wait: 2h", "c.yaml:1:7: exporters.x.wait: 2h0m0s is above the maximum of 1h0m0s\n"},
        {"wait: -1s", "c.yaml:1:7: exporters.x.wait: -1s is below the minimum of 0s\n"},
        {"ratio: 1.5", "c.yaml:1:8: exporters.x.ratio: 1.5 is not within 0 to 1\n"},
        {"ratio: .nan", "c.yaml:1:8: exporters.x.ratio: nan is not within 0 to 1\n"},
        {"ratio: half", "c.yaml:1:8: exporters.x.ratio: must be a number, not the string "
                        "\"half\"\n"},
        {"text: 12", "c.yaml:1:7: exporters.x.text: must be a string: write \"12\" in quotes\n"},
        {"text: [a]", "c.yaml:1:1: exporters.x.text: must be a string, not a list\n"},
        {"secret: 12345", "c.yaml:1:9: exporters.x.secret: must be a string: put it in quotes\n"},
        {"endpoint: localhost",
         "c.yaml:1:11: exporters.x.endpoint: \"localhost\" has no port: write host:port "
         "(\"localhost:4317\", \"[::1]:4317\", \":4317\" for all addresses)\n"},
        {"endpoint: ::1", "c.yaml:1:11: exporters.x.endpoint: \"::1\" is an IPv6 address without "
                          "brackets: write host:port (\"localhost:4317\", \"[::1]:4317\", "
                          "\":4317\" for all addresses)\n"},
        {"endpoint: a:70000", "c.yaml:1:11: exporters.x.endpoint: \"a:70000\" has a port that is "
                              "not a number from 0 to 65535: write host:port (\"localhost:4317\", "
                              "\"[::1]:4317\", \":4317\" for all addresses)\n"},
        {"choice: grene", "c.yaml:1:9: exporters.x.choice: \"grene\" is not one of red, green, "
                          "\"\" (did you mean \"green\"?)\n"},
        {"choice: blue", "c.yaml:1:9: exporters.x.choice: \"blue\" is not one of red, green, "
                         "\"\"\n"},
        {"block: 5", "c.yaml:1:8: exporters.x.block: must be a map, not a number\n"},
        {"block: {cuont: 5}", "c.yaml:1:9: exporters.x.block: unknown key \"cuont\" (did you mean "
                              "\"count\"?)\n"},
        {"maybe: {enabled: 1}",
         "c.yaml:1:18: exporters.x.maybe.enabled: must be true or false, not 1\n"},
        {"maybe:\n  on: 3\n  count: 11\n",
         "c.yaml:2:7: exporters.x.maybe.on: must be true or false, not 3\n"
         "c.yaml:3:10: exporters.x.maybe.count: 11 things is above the maximum of 10 things\n"},
        {"items: {a: b}", "c.yaml:1:1: exporters.x.items: must be a list, not a map\n"},
        {"items:\n  - value: 1\n  - {key: k, vlaue: 2}\n  - x\n",
         "c.yaml:2:5: exporters.x.items[0].key: is required: name of the attribute\n"
         "c.yaml:3:14: exporters.x.items[1]: unknown key \"vlaue\" (did you mean \"value\"?)\n"
         "c.yaml:4:5: exporters.x.items[2]: must be a map, not a string\n"},
        {"items: [{key: k, value: [1]}]", "c.yaml:1:18: exporters.x.items[0].value: must be a "
                                          "string, number or boolean, not a list\n"},
        {"items: [{key: \"\"}]",
         "c.yaml:1:10: exporters.x.items[0].key: is required: name of the attribute\n"},
        {"words: a", "c.yaml:1:8: exporters.x.words: must be a list, not a string\n"},
        {"words: [a, 5]",
         "c.yaml:1:12: exporters.x.words[1]: must be a string: write \"5\" in quotes\n"},
        {"map: x", "c.yaml:1:6: exporters.x.map: must be a map, not a string\n"},
        {"map: {a: 1}",
         "c.yaml:1:10: exporters.x.map.a: must be a string: write \"1\" in quotes\n"},
        {"headers: {a: 1}",
         "c.yaml:1:14: exporters.x.headers.a: must be a string: put it in quotes\n"},
        {"headers: [{nam: x}]",
         "c.yaml:1:11: exporters.x.headers[0]: must be a map of name and value\n"},
        {"timeout_wait: 1s", "c.yaml:1:1: warning: exporters.x: \"timeout_wait\" is deprecated: it "
                             "is now called \"wait\"\n"},
        {"wait: 1s\ntimeout_wait: 2s\n",
         "c.yaml:2:1: exporters.x: \"timeout_wait\" is the old name of \"wait\", which is also "
         "there: leave one out\n"},
        {"endpont: a:1\nsise: 1\nqqq: 1\n\"a\\nb\": 1\n",
         "c.yaml:1:1: exporters.x: unknown key \"endpont\" (did you mean \"endpoint\"?)\n"
         "c.yaml:2:1: exporters.x: unknown key \"sise\" (did you mean \"size\"?)\n"
         "c.yaml:3:1: exporters.x: unknown key \"qqq\"\n"
         "c.yaml:4:1: exporters.x: unknown key \"a\\x0ab\"\n"},
        {"5", "c.yaml:1:1: exporters.x: must be a map, not a number\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fixture f;
        fixture_init(&f);
        bind(&f, rows[i].yaml);
        assert_string_equal(said(&f), rows[i].text);
        fixture_destroy(&f);
    }
}

static void good_endpoints(void **state)
{
    static const char *const good[] = {"localhost:4317", ":4317",          "0.0.0.0:0",
                                       "[::]:65535",     "/run/flue.sock", "@abstract",
                                       "https://x:1/y",  "dns:///h:1",     "./a.sock"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char yaml[128];
        struct fixture f;
        fixture_init(&f);
        snprintf(yaml, sizeof yaml, "endpoint: \"%s\"", good[i]);
        const struct outer *o = bind(&f, yaml);
        assert_string_equal(said(&f), "");
        assert_string_equal(o->endpoint, good[i]);
        fixture_destroy(&f);
    }
}

/* The check functions of components name paths; the place is looked up. */
static void check_positions(void **state)
{
    static const struct {
        const char *path, *text;
    } rows[] = {
        {"", "c.yaml:1:1: exporters.x: wrong\n"},
        {"number", "c.yaml:1:9: exporters.x.number: wrong\n"},
        {"block.word", "c.yaml:3:9: exporters.x.block.word: wrong\n"},
        {"block.count", "c.yaml:2:1: exporters.x.block.count: wrong\n"}, /* not in the file */
        {"block", "c.yaml:2:1: exporters.x.block: wrong\n"},
        {"items[1].key", "c.yaml:6:10: exporters.x.items[1].key: wrong\n"},
        {"items.1.key", "c.yaml:6:10: exporters.x.items.1.key: wrong\n"},
        {"items[7]", "c.yaml:4:1: exporters.x.items[7]: wrong\n"},
        {"map.a.b", "c.yaml:7:12: exporters.x.map.a.b: wrong\n"},
        {"nowhere", "c.yaml:1:1: exporters.x.nowhere: wrong\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fixture f;
        fixture_init(&f);
        bind(&f, "number: 1\nblock:\n  word: w\nitems:\n  - key: a\n  - key: b\nmap: {a.b: c}\n");
        assert_string_equal(said(&f), "");
        flue_check_fail(&f.check, rows[i].path, "%s", "wrong");
        assert_string_equal(said(&f), rows[i].text);
        assert_int_equal(f.check.mistakes, 1);
        fixture_destroy(&f);
    }
}

static void several_tables(void **state)
{
    struct fixture f;
    fixture_init(&f);
    struct inner a = {0};
    struct switched b = {0};
    struct flue_binding bindings[] = {{inner_fields, &a}, {switched_fields, &b}};
    struct flue_node *node = parse(&f, "count: 7\nn: 8\nonn: true\nenable: true\n");
    flue_bind(&f.check, node, "e", (struct flue_position){"c.yaml", 1, 1}, bindings, 2);
    assert_string_equal(said(&f), "c.yaml:3:1: e: unknown key \"onn\" (did you mean \"on\"?)\n"
                                  "c.yaml:4:1: e: unknown key \"enable\" (did you mean "
                                  "\"enabled\"?)\n");
    assert_int_equal(a.count, 7);
    assert_int_equal(b.n, 8);
    fixture_destroy(&f);
}

static void bounded_mistakes(void **state)
{
    struct flue_buffer yaml;
    flue_buffer_init(&yaml, 1u << 20);
    for (unsigned i = 0; i < FLUE_CHECK_MAX + 10; i++)
        flue_buffer_printf(&yaml, "unknown%u: 1\n", i);
    struct fixture f;
    fixture_init(&f);
    bind(&f, yaml.data);
    assert_int_equal(f.check.mistakes, FLUE_CHECK_MAX + 10);
    assert_int_equal(f.check.count, FLUE_CHECK_MAX);
    assert_non_null(strstr(said(&f), "\n10 more are not shown\n"));
    flue_buffer_destroy(&yaml);
    fixture_destroy(&f);
}

static void nearest(void **state)
{
    static const struct {
        const char *word, *best;
    } rows[] = {
        {"recievers", "receivers"},
        {"exporter", "exporters"},
        {"retry", "retry_on_failure"},
        {"Sending-Queue", "sending_queue"},
        {"xyz", NULL},
        {"", NULL},
        {"otpl", "otlp"},
    };
    static const char *const names[] = {"receivers", "exporters", "retry_on_failure",
                                        "sending_queue", "otlp"};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct flue_nearest n = {.word = rows[i].word};
        for (size_t j = 0; j < sizeof names / sizeof names[0]; j++)
            flue_nearest_offer(&n, names[j]);
        if (rows[i].best)
            assert_string_equal(n.best, rows[i].best);
        else
            assert_null(n.best);
    }
}

static void described(void **state)
{
    struct flue_buffer out;
    flue_buffer_init(&out, 65536);
    flue_fields_text(inner_fields, "block", &out);
    assert_string_equal(out.data, "  block.on: true or false, default true\n"
                                  "  block.count: whole number (1 to 10 things), default 5\n"
                                  "      how many\n"
                                  "  block.word: string\n");
    flue_buffer_clear(&out);
    flue_fields_markdown(fields, "", &out);
    const char *rows[] = {
        "| `size` | size (1 KiB to 1 GiB) | `1MiB` |  |\n",
        "| `wait` | duration (0s to 1h0m0s) | `1m30s` | old name: timeout_wait |\n",
        "| `choice` | `red`, `green`, `\"\"` | `green` |  |\n",
        "| `maybe` | optional block | off |  |\n",
        "| `always.count` | whole number (1 to 10 things) | `5` | how many |\n",
        "| `items[].key` | string | required | name of the attribute |\n",
        "| `ssize` | whole number | `3` |  |\n",
        "| `legacy` | ignored |  | no effect |\n",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (!strstr(out.data, rows[i]))
            fail_msg("missing: %s in\n%s", rows[i], out.data);
    assert_null(strstr(out.data, "hidden by the outer row"));
    flue_buffer_destroy(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),       cmocka_unit_test(values),
        cmocka_unit_test(expanded),       cmocka_unit_test(mistakes),
        cmocka_unit_test(good_endpoints), cmocka_unit_test(check_positions),
        cmocka_unit_test(several_tables), cmocka_unit_test(bounded_mistakes),
        cmocka_unit_test(nearest),        cmocka_unit_test(described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
