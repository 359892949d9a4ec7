/* components.c: what this build can do, from the components' own descriptions. */
#include <stdio.h>
#include <string.h>

#include "collector/commands/command.h"
#include "config/describe.h"

static const char *plural(enum flue_kind kind, char *out, size_t size)
{
    snprintf(out, size, "%ss", flue_kind_name(kind));
    return out;
}

static bool any_of(enum flue_kind kind)
{
    for (size_t i = 0; flue_components[i]; i++)
        if (flue_components[i]->kind == kind)
            return true;
    return false;
}

/* As `otelcol components` does it: YAML. */
static void list(struct flue_buffer *out)
{
    static const struct {
        unsigned signal;
        const char *name;
    } signals[] = {{FLUE_PROFILES, "profiles"}, {FLUE_TRACES, "traces"}, {FLUE_METRICS, "metrics"}};
    flue_buffer_text(out, "buildinfo:\n  command: flue\n  version: " FLUE_VERSION "\n");
    for (int kind = 0; kind < FLUE_KINDS; kind++) {
        char name[32];
        flue_buffer_printf(out, "%s:%s\n", plural((enum flue_kind)kind, name, sizeof name),
                           any_of((enum flue_kind)kind) ? "" : " []");
        for (size_t i = 0; flue_components[i]; i++) {
            const struct flue_component *component = flue_components[i];
            if (component->kind != (enum flue_kind)kind)
                continue;
            const char *stability = flue_stability_name(component->stability);
            flue_buffer_printf(out, "  - name: %s\n    summary: ", component->name);
            flue_buffer_json(out, flue_bytes_of(component->summary));
            flue_buffer_text(out, "\n");
            if (component->alias)
                flue_buffer_printf(out, "    deprecated_name: %s\n", component->alias);
            flue_buffer_text(out, "    stability:\n");
            for (size_t s = 0; s < sizeof signals / sizeof signals[0]; s++)
                if (component->signals & signals[s].signal)
                    flue_buffer_printf(out, "      %s: %s\n", signals[s].name, stability);
            if (!component->signals)
                flue_buffer_printf(out, "      extension: %s\n", stability);
        }
    }
}

/* ---- one component --------------------------------------------------------------------------- */

static void describe(const struct flue_component *component, struct flue_buffer *out)
{
    char signals[32];
    struct flue_exporter_fields engine;
    flue_buffer_printf(out, "%s %s: %s\n", flue_kind_name(component->kind), component->name,
                       component->summary);
    flue_buffer_printf(
        out, "stability %s%s%s%s%s\n", flue_stability_name(component->stability),
        component->signals ? ", signals " : "", flue_signals_text(component->signals, signals),
        component->alias ? ", old name " : "", component->alias ? component->alias : "");
    flue_buffer_text(out, "\n");
    size_t before = out->size;
    flue_fields_text(component->fields, "", out);
    if (component->kind == FLUE_EXPORTER) {
        flue_exporter_fields(component, &engine);
        flue_fields_text(engine.fields, "", out);
    }
    if (out->size == before)
        flue_buffer_text(out, "  no keys\n");
}

/* "otlp", or "exporter/otlp" for one kind. */
static bool matches(const struct flue_component *component, const char *name)
{
    const char *kind = flue_kind_name(component->kind);
    size_t size = strlen(kind);
    if (strncmp(name, kind, size) == 0 && name[size] == '/')
        name += size + 1;
    else if (strchr(name, '/'))
        return false;
    return strcmp(component->name, name) == 0 ||
           (component->alias && strcmp(component->alias, name) == 0);
}

static bool describe_all(const char *name, struct flue_buffer *out)
{
    struct flue_nearest nearest = {.word = name};
    bool found = false;
    if (strcmp(name, "service") == 0) {
        flue_buffer_text(out, "service: the keys beside pipelines\n\n");
        flue_fields_text(flue_service_fields, "", out);
        return true;
    }
    for (size_t i = 0; flue_components[i]; i++) {
        flue_nearest_offer(&nearest, flue_components[i]->name);
        if (!matches(flue_components[i], name))
            continue;
        if (found)
            flue_buffer_text(out, "\n");
        describe(flue_components[i], out);
        found = true;
    }
    if (!found)
        fprintf(stderr, "flue components: there is no component \"%s\"%s%s%s\n", name,
                nearest.best ? " (did you mean \"" : "", nearest.best ? nearest.best : "",
                nearest.best ? "\"?)" : "");
    return found;
}

/* ---- docs/components.md -----------------------------------------------------------------------
 */

static const char table_head[] = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n";

static void markdown_component(const struct flue_component *component, struct flue_buffer *out)
{
    char signals[32];
    struct flue_exporter_fields engine = {0};
    if (component->kind == FLUE_EXPORTER)
        flue_exporter_fields(component, &engine);
    flue_buffer_printf(out, "\n### %s `%s`\n\n%c%s.\n\nStability: %s.",
                       flue_kind_name(component->kind), component->name,
                       component->summary[0] >= 'a' && component->summary[0] <= 'z'
                           ? component->summary[0] - 32
                           : component->summary[0],
                       component->summary + 1, flue_stability_name(component->stability));
    if (component->signals)
        flue_buffer_printf(out, " Signals: %s.", flue_signals_text(component->signals, signals));
    if (component->alias)
        flue_buffer_printf(out, " Old name: `%s`.", component->alias);
    flue_buffer_text(out, "\n");
    if (component->fields[0].type == FLUE_FIELD_END && engine.fields[0].type == FLUE_FIELD_END) {
        flue_buffer_text(out, "\nIt has no keys.\n");
        return;
    }
    flue_buffer_printf(out, "\n%s", table_head);
    flue_fields_markdown(component->fields, "", out);
    /* The queue's and the retry's keys are the same everywhere: one table at the end. */
    for (const struct flue_field *f = engine.fields; f->type != FLUE_FIELD_END; f++) {
        struct flue_field row[2] = {*f, FLUE_FIELDS_END};
        if (f->type == FLUE_FIELD_BLOCK)
            flue_buffer_printf(out, "| `%s` | block |  | [%s](#%s) |\n", f->name, f->help, f->name);
        else
            flue_fields_markdown(row, "", out);
    }
}

static void markdown(struct flue_buffer *out)
{
    flue_buffer_text(
        out,
        "# Components\n\nEvery component and key of this build. The text is printed by `flue "
        "components --markdown` from the tables that also read the configuration; do not edit "
        "it.\n\nDurations are Go's (`300ms`, `1m30s`); an unknown key is a mistake; a key "
        "without a value, or left out, is its default. An optional block is off when its key is "
        "left out (unless its default is on), has its defaults when it is empty, and is off "
        "again with `enabled: false`.\n");
    for (int kind = 0; kind < FLUE_KINDS; kind++) {
        char name[32];
        if (!any_of((enum flue_kind)kind))
            continue;
        plural((enum flue_kind)kind, name, sizeof name);
        flue_buffer_printf(out, "\n## %c%s\n", name[0] - 32, name + 1);
        for (size_t i = 0; flue_components[i]; i++)
            if (flue_components[i]->kind == (enum flue_kind)kind)
                markdown_component(flue_components[i], out);
    }
    flue_buffer_text(out, "\n## Queue and retry of every exporter\n");
    flue_buffer_printf(out, "\n### sending_queue\n\n%s", table_head);
    flue_fields_markdown(flue_queue_fields, "", out);
    flue_buffer_printf(out, "\n### retry_on_failure\n\n%s", table_head);
    flue_fields_markdown(flue_retry_fields, "", out);
    flue_buffer_text(out, "\n## Service\n\nThe keys of `service` beside `pipelines`.\n\n");
    flue_buffer_text(out, table_head);
    flue_fields_markdown(flue_service_fields, "", out);
}

static int components(const struct flue_arguments *arguments)
{
    struct flue_buffer text;
    bool found = true;
    flue_buffer_init(&text, 16u << 20);
    if (arguments->markdown)
        markdown(&text);
    else if (arguments->rest_count)
        for (size_t i = 0; i < arguments->rest_count; i++)
            found &= describe_all(arguments->rest[i], &text);
    else
        list(&text);
    bool written =
        !text.failed && (!text.size || fwrite(text.data, 1, text.size, stdout) == text.size);
    flue_buffer_destroy(&text);
    return written && found ? FLUE_EXIT_OK : FLUE_EXIT_FAILED;
}

const struct flue_command flue_command_components = {
    .name = "components",
    .summary = "lists the components; with --help NAME every key of one",
    .usage = "[--help NAME] [--markdown]",
    .options = FLUE_TAKES_NAMES,
    .run = components,
};
