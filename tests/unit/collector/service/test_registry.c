/* The components of this build: descriptions that hold together, and files that must validate. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "collector/service/configuration.h"
#include "components.c" /* generated */
#include "config/bind.h"

static void fail_with(struct flue_check *check, const char *what)
{
    struct flue_buffer text;
    flue_buffer_init(&text, 65536);
    flue_check_print(check, &text);
    fail_msg("%s: %s", what, text.data);
}

/* Keys are unique, lower-case (a dot where a key is an attribute's name), and every default obeys
 * its own field. */
static void check_table(const struct flue_component *component, const struct flue_field *fields,
                        unsigned depth)
{
    assert_true(depth < 16);
    for (const struct flue_field *f = fields; f->type != FLUE_FIELD_END; f++) {
        if (f->type == FLUE_FIELD_ENUM)
            assert_non_null(f->choices);
        bool nested = f->type == FLUE_FIELD_BLOCK || f->type == FLUE_FIELD_OPTIONAL ||
                      f->type == FLUE_FIELD_LIST;
        assert_true(nested == (f->fields != NULL));
        if (nested)
            check_table(component, f->fields, depth + 1);
        if (!f->name)
            continue;
        for (const char *c = f->name; *c; c++)
            if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789_.", *c))
                fail_msg("%s: key %s", component->name, f->name);
        for (const struct flue_field *g = f + 1; g->type != FLUE_FIELD_END; g++)
            if (g->name && strcmp(f->name, g->name) == 0)
                fail_msg("%s: key %s twice", component->name, f->name);
    }
}

static bool has_required(const struct flue_field *fields)
{
    for (const struct flue_field *f = fields; f->type != FLUE_FIELD_END; f++)
        if (f->required || (f->type == FLUE_FIELD_BLOCK && has_required(f->fields)))
            return true;
    return false;
}

static void descriptions(void **state)
{
    for (size_t i = 0; flue_components[i]; i++) {
        const struct flue_component *c = flue_components[i];
        assert_non_null(c->name);
        assert_non_null(c->summary);
        assert_non_null(c->fields);
        assert_non_null(c->create);
        assert_non_null(c->destroy);
        assert_true((c->signals != 0) == (c->kind != FLUE_EXTENSION));
        assert_true((c->push != NULL) == (c->kind == FLUE_PROCESSOR));
        assert_true((c->send != NULL) == (c->kind == FLUE_EXPORTER || c->kind == FLUE_CONNECTOR));
        check_table(c, c->fields, 0);
        for (size_t j = 0; j < i; j++)
            if (flue_components[j]->kind == c->kind)
                assert_string_not_equal(flue_components[j]->name, c->name);
    }
}

/* Everything left out: the only mistakes are about what is required. */
static void defaults(void **state)
{
    for (size_t i = 0; flue_components[i]; i++) {
        const struct flue_component *c = flue_components[i];
        struct flue_arena arena;
        struct flue_check check;
        struct flue_exporter_fields engine = {0};
        struct flue_exporter_settings settings = {0};
        flue_arena_init(&arena, 64u << 20, 0);
        flue_check_init(&check, &arena);
        void *config = flue_arena_zalloc(&arena, 1, c->config_size + 1);
        struct flue_binding bindings[] = {{c->fields, config}, {engine.fields, &settings}};
        if (c->kind == FLUE_EXPORTER)
            flue_exporter_fields(c, &engine);
        flue_bind(&check, NULL, c->name, (struct flue_position){"x", 1, 1}, bindings,
                  c->kind == FLUE_EXPORTER ? 2 : 1);
        for (size_t m = 0; m < check.count; m++)
            if (!has_required(c->fields) || !strstr(check.items[m].text, "is required"))
                fail_with(&check, c->name);
        flue_arena_destroy(&arena);
    }
}

static const struct flue_component *find(enum flue_kind kind, const char *name)
{
    bool deprecated;
    return flue_component_find(flue_components, kind, name, &deprecated);
}

static void validates(const char *config)
{
    const char *configs[] = {config};
    struct flue_sources sources = {.configs = configs, .config_count = 1};
    struct flue_configuration *c;
    assert_int_equal(flue_configuration_load(&sources, flue_components, &c, NULL), FLUE_OK);
    if (c->check.mistakes || c->check.warnings)
        fail_with(&c->check, config);
    flue_configuration_destroy(c);
}

/* The Collector's own file for profiles, and the one most people start from. */
static void collector_files(void **state)
{
    if (!find(FLUE_RECEIVER, "otlp") || !find(FLUE_EXPORTER, "otlp_grpc") ||
        !find(FLUE_PROCESSOR, "memory_limiter"))
        skip();
    validates(FLUE_TEST_DATA "/config/collector.yaml");
    if (!find(FLUE_RECEIVER, "pyroscope") || !find(FLUE_RECEIVER, "pprof") ||
        !find(FLUE_EXPORTER, "pyroscope") || !find(FLUE_EXPORTER, "file") ||
        !find(FLUE_PROCESSOR, "resource"))
        skip();
    validates(FLUE_TEST_DATA "/config/start.yaml");
    validates(FLUE_SOURCE_DIR "/config/examples/local.yaml");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptions),
        cmocka_unit_test(defaults),
        cmocka_unit_test(collector_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
