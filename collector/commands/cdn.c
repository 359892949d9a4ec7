/* cdn.c: `flue cdn explain` says which source gave which place and why; `flue cdn import` turns a
 * published file of networks into flue's own table. */
#include <stdio.h>

#include "collector/commands/command.h"
#include "processors/cdn/locate.h"

#define GIVEN_MAX 64

/* ---- explain --------------------------------------------------------------------------------- */

struct given {
    const char *attributes[GIVEN_MAX], *headers[GIVEN_MAX]; /* "name=value", "name: value" */
    size_t attribute_count, header_count;
    const char *peer, *host;
    bool printed;
};

static struct flue_bytes given_attribute(void *arg, struct flue_bytes key)
{
    const struct given *given = arg;
    if (given->host && flue_bytes_is(key, "host.name"))
        return flue_bytes_of(given->host);
    for (size_t i = 0; i < given->attribute_count; i++) {
        struct flue_bytes text = flue_bytes_of(given->attributes[i]);
        size_t equals = flue_bytes_find(text, '=');
        if (flue_bytes_equal(flue_bytes_first(text, equals), key))
            return flue_bytes_from(text, equals + 1);
    }
    return flue_bytes(NULL, 0);
}

static struct flue_bytes given_header(void *arg, struct flue_bytes name)
{
    const struct given *given = arg;
    for (size_t i = 0; i < given->header_count; i++) {
        struct flue_bytes text = flue_bytes_of(given->headers[i]);
        size_t colon = flue_bytes_find(text, ':');
        if (flue_bytes_equal_nocase(flue_bytes_first(text, colon), name))
            return flue_bytes_trim(flue_bytes_from(text, colon + 1));
    }
    return flue_bytes(NULL, 0);
}

static void print_said(void *arg, enum flue_cdn_source source, const char *attribute,
                       struct flue_bytes value, const char *why)
{
    struct given *given = arg;
    char shown[FLUE_PLACE_VALUE_MAX * 4];
    given->printed = true;
    printf("  %-13s%-22s%-22s%s\n", flue_cdn_source_names[source], attribute ? attribute : "",
           flue_printable(value, shown, sizeof shown), why);
}

static void warn(void *arg, unsigned line, const char *text)
{
    fprintf(stderr, "%s:%u: %s\n", (const char *)arg, line, text);
}

static bool read_tables(const struct flue_cdn_config *config, struct flue_cdn_tables *tables)
{
    bool all = true;
    for (size_t i = 0; i < tables->network_count + tables->database_count; i++) {
        const struct flue_cdn_file *file = flue_cdn_tables_file(config, i);
        struct flue_error error;
        if (flue_cdn_table_read(file, config, true, warn, (void *)(uintptr_t)file->path,
                                &tables->items[i], &error) == FLUE_OK)
            continue;
        fprintf(stderr, "flue cdn: %s\n", error.text);
        all = false;
    }
    return all;
}

static void print_answer(const struct flue_cdn_answer *answer)
{
    bool any = false;
    for (int i = 0; i < FLUE_PLACE_WRITTEN; i++) {
        const char *name = (const char *)flue_place_attribute_name((enum flue_place_attribute)i).data;
        if (answer->values[i].size) {
            printf("  %-22s%.*s  (%s%s%s)\n", name, FLUE_PRI(answer->values[i]),
                   flue_cdn_source_names[answer->winner[i]],
                   answer->loser[i] == FLUE_CDN_NOBODY ? "" : "; another value by ",
                   answer->loser[i] == FLUE_CDN_NOBODY ? ""
                                                       : flue_cdn_source_names[answer->loser[i]]);
            any = true;
        } else if (answer->remove[i]) {
            printf("  %-22sremoved: locked, and no source knows it\n", name);
            any = true;
        }
    }
    if (!any)
        printf("  nothing\n");
}

static int explain_one(const struct flue_part *part, struct given *given)
{
    const struct flue_cdn_config *config = part->config;
    struct flue_cdn_tables *tables = flue_cdn_tables_new(config);
    struct flue_cdn_locator *locator;
    struct flue_cdn_answer answer;
    struct flue_arena arena;
    struct flue_error error;
    int status = FLUE_EXIT_FAILED;

    flue_arena_init(&arena, 16u << 20, 0);
    if (!tables || flue_cdn_locator_new(config, &arena, &locator, &error) != FLUE_OK) {
        fprintf(stderr, "flue cdn: no memory\n");
    } else {
        bool all = read_tables(config, tables);
        const struct flue_cdn_question question = {.tables = tables,
                                                   .attribute = given_attribute,
                                                   .header = given_header,
                                                   .arg = given,
                                                   .peer = flue_bytes_of(given->peer),
                                                   .explain = print_said};
        printf("%s: what the sources say\n", part->id);
        given->printed = false;
        flue_cdn_locate(locator, &question, &answer);
        if (!given->printed)
            printf("  nothing\n");
        printf("%s: what a profile gets\n", part->id);
        print_answer(&answer);
        status = all ? FLUE_EXIT_OK : FLUE_EXIT_FAILED;
    }
    flue_cdn_tables_unref(tables);
    flue_arena_destroy(&arena);
    return status;
}

static int explain(const struct flue_arguments *arguments, struct given *given)
{
    struct flue_configuration *configuration = flue_arguments_load(arguments, true);
    int status = FLUE_EXIT_FAILED;
    bool any = false;

    if (!configuration)
        return FLUE_EXIT_FAILED;
    for (size_t i = 0; i < configuration->part_count; i++) {
        const struct flue_part *part = &configuration->parts[i];
        if (part->kind != FLUE_PROCESSOR || strcmp(part->component->name, "cdn") != 0)
            continue;
        int one = explain_one(part, given);
        status = any && status != FLUE_EXIT_OK ? status : one;
        any = true;
    }
    if (!any)
        fprintf(stderr, "flue cdn explain: the configuration has no processor cdn\n");
    flue_configuration_destroy(configuration);
    return status;
}

/* ---- import ---------------------------------------------------------------------------------- */

static void print_cell(const struct flue_places *places, uint32_t row,
                       enum flue_place_attribute attribute)
{
    uint32_t text = places->rows[row].values[attribute];
    struct flue_bytes value = places->texts[text];
    putchar(',');
    if (text == FLUE_PLACE_RETRACTED) {
        fputs("\\N", stdout);
        return;
    }
    bool quote = memchr(value.data ? (const char *)value.data : "", ',', value.size) ||
                 memchr(value.data ? (const char *)value.data : "", '"', value.size);
    if (quote)
        putchar('"');
    for (size_t i = 0; i < value.size; i++) {
        if (value.data[i] == '"')
            putchar('"');
        putchar(value.data[i]);
    }
    if (quote)
        putchar('"');
}

static const struct {
    const char *column;
    enum flue_place_attribute attribute;
} columns[] = {{"cdn_provider", FLUE_PLACE_PROVIDER},     {"cdn_region", FLUE_PLACE_REGION},
               {"cdn_pop", FLUE_PLACE_POP},               {"cdn_site", FLUE_PLACE_SITE},
               {"cdn_tier", FLUE_PLACE_TIER},             {"cdn_asn", FLUE_PLACE_ASN},
               {"continent", FLUE_PLACE_CONTINENT},       {"country", FLUE_PLACE_COUNTRY},
               {"region", FLUE_PLACE_SUBDIVISION},        {"city", FLUE_PLACE_CITY},
               {"postal_code", FLUE_PLACE_POSTAL_CODE},   {"latitude", FLUE_PLACE_LATITUDE},
               {"longitude", FLUE_PLACE_LONGITUDE},       {"cloud_provider", FLUE_PLACE_CLOUD_PROVIDER},
               {"cloud_region", FLUE_PLACE_CLOUD_REGION}};
#define COLUMNS (sizeof columns / sizeof columns[0])

static void print_table(const struct flue_cdn_table *table)
{
    printf("# ipfeed_version=1\nnetwork");
    for (size_t i = 0; i < COLUMNS; i++)
        printf(",%s", columns[i].column);
    putchar('\n');
    for (size_t i = 0; i < table->item_count; i++) {
        const struct flue_prefix *prefix = &table->items[i];
        char text[64];
        if (!flue_address_text(&prefix->address, text, sizeof text))
            continue;
        printf("%s/%u", text, prefix->length);
        for (size_t k = 0; k < COLUMNS; k++)
            print_cell(&table->places, prefix->place, columns[k].attribute);
        putchar('\n');
    }
}

static int import(const char *path, const char *vrf, const struct flue_map *set)
{
    const struct flue_cdn_file file = {.path = path, .vrf = vrf, .set = *set};
    const struct flue_cdn_config config = {.max_prefixes = 1 << 24,
                                           .max_file_size = (int64_t)1 << 32};
    struct flue_cdn_table *table;
    struct flue_error error;

    if (flue_cdn_table_read(&file, &config, true, warn, (void *)(uintptr_t)path, &table, &error) !=
        FLUE_OK) {
        fprintf(stderr, "flue cdn import: %s\n", error.text);
        return FLUE_EXIT_FAILED;
    }
    print_table(table);
    fprintf(stderr, "%s: read as %s, %zu networks, %u warnings, %u in dispute\n", path, table->form,
            table->item_count, table->warnings, table->disputes);
    flue_cdn_table_unref(table);
    return fflush(stdout) == 0 && !ferror(stdout) ? FLUE_EXIT_OK : FLUE_EXIT_FAILED;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int usage(const char *problem)
{
    fprintf(stderr, "flue cdn: %s\nusage: flue cdn %s\n", problem, flue_command_cdn.usage);
    return FLUE_EXIT_USAGE;
}

/* "ADDRESS", "HOST", or none: what stands behind `explain`. */
static int run_explain(const struct flue_arguments *arguments)
{
    struct given given = {0};
    struct flue_address address;

    if (!arguments->sources.config_count)
        return usage("explain needs the configuration: --config FILE");
    given.host = flue_argument_value(arguments, "--host");
    given.peer = flue_argument_value(arguments, "--addr");
    if (arguments->rest_count > 2)
        return usage("one ADDRESS or HOST at a time");
    if (arguments->rest_count == 2) {
        if (flue_address_parse(flue_bytes_of(arguments->rest[1]), &address))
            given.peer = arguments->rest[1];
        else
            given.host = arguments->rest[1];
    }
    for (size_t i = 0; i < arguments->own_count; i++) {
        const struct flue_argument *own = &arguments->own[i];
        bool attribute = strcmp(own->name, "--attr") == 0;
        bool header = strcmp(own->name, "--header") == 0;
        if ((attribute && !strchr(own->value, '=')) || (header && !strchr(own->value, ':')))
            return usage(attribute ? "--attr is KEY=VALUE" : "--header is 'NAME: VALUE'");
        if (attribute && given.attribute_count < GIVEN_MAX)
            given.attributes[given.attribute_count++] = own->value;
        if (header && given.header_count < GIVEN_MAX)
            given.headers[given.header_count++] = own->value;
    }
    return explain(arguments, &given);
}

static int run_import(const struct flue_arguments *arguments)
{
    struct flue_map_entry entries[GIVEN_MAX];
    struct flue_map set = {entries, 0};
    char names[GIVEN_MAX][64];

    if (arguments->rest_count != 2)
        return usage("import needs the one FILE to read");
    for (size_t i = 0; i < arguments->own_count; i++) {
        const char *value = arguments->own[i].value, *equals = strchr(value, '=');
        if (strcmp(arguments->own[i].name, "--attr") != 0 || set.count == GIVEN_MAX)
            continue;
        if (!equals || (size_t)(equals - value) >= sizeof names[0] ||
            flue_place_attribute_find(flue_bytes(value, (size_t)(equals - value))) ==
                FLUE_PLACE_ATTRIBUTES)
            return usage("--attr is KEY=VALUE, as cdn.provider=fastly");
        (void)snprintf(names[set.count], sizeof names[0], "%.*s", (int)(equals - value), value);
        entries[set.count] = (struct flue_map_entry){names[set.count], equals + 1};
        set.count++;
    }
    return import(arguments->rest[1], flue_argument_value(arguments, "--vrf"), &set);
}

static int run(const struct flue_arguments *arguments)
{
    if (arguments->rest_count && strcmp(arguments->rest[0], "explain") == 0)
        return run_explain(arguments);
    if (arguments->rest_count && strcmp(arguments->rest[0], "import") == 0)
        return run_import(arguments);
    return usage("what to do? explain or import");
}

static const char *const own[] = {"--addr", "--host", "--header", "--attr", "--vrf", NULL};
const struct flue_command flue_command_cdn = {
    .name = "cdn",
    .summary = "says where an address or host stands and why; reads published files of networks",
    .usage = "explain [ADDRESS | HOST] --config FILE [--addr A] [--host H] [--attr KEY=VALUE]... "
             "[--header 'NAME: VALUE']... | import FILE [--attr KEY=VALUE]... [--vrf NAME]",
    .options = FLUE_TAKES_SOURCES | FLUE_TAKES_WORDS | FLUE_MAY_LACK_SOURCES,
    .own = own,
    .run = run,
};
