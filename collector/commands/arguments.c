/* arguments.c: the command line, strict and small. */
#include <stdio.h>
#include <string.h>

#include "collector/commands/command.h"

static bool complain(const struct flue_command *command, const char *what, const char *word)
{
    fprintf(stderr, "flue %s: %s \"%s\"\nusage: flue %s %s\n", command->name, what, word,
            command->name, command->usage);
    return false;
}

/* "--name value" or "--name=value"; moves *at. NULL: no value there. */
static const char *value_of(int argc, char **argv, int *at, const char *name)
{
    size_t size = strlen(name);
    if (strncmp(argv[*at], name, size) == 0 && argv[*at][size] == '=')
        return argv[*at] + size + 1;
    return *at + 1 < argc ? argv[++*at] : NULL;
}

static bool is_option(const char *word, const char *name)
{
    size_t size = strlen(name);
    return strncmp(word, name, size) == 0 && (word[size] == 0 || word[size] == '=');
}

static bool take_list(const struct flue_command *command, const char *name, const char *value,
                      const char **items, size_t *count)
{
    if (!value)
        return complain(command, "no value behind", name);
    if (*count == FLUE_ARGUMENTS_MAX)
        return complain(command, "more than 256 times", name);
    items[(*count)++] = value;
    return true;
}

/* 1 taken, 0 not known, -1 wrong. */
static int take_own(const struct flue_command *command, int argc, char **argv, int *at,
                    struct flue_arguments *out)
{
    for (const char *const *name = command->own; name && *name; name++) {
        if (!is_option(argv[*at], *name))
            continue;
        const char *value = value_of(argc, argv, at, *name);
        if (!value || out->own_count == FLUE_ARGUMENTS_MAX) {
            complain(command, value ? "more than 256 options at" : "no value behind", *name);
            return -1;
        }
        out->own[out->own_count++] = (struct flue_argument){*name, value};
        return 1;
    }
    return 0;
}

const char *flue_argument_value(const struct flue_arguments *arguments, const char *name)
{
    for (size_t i = arguments->own_count; i-- > 0;)
        if (strcmp(arguments->own[i].name, name) == 0)
            return arguments->own[i].value;
    return NULL;
}

/* The same answers. */
static int take_option(const struct flue_command *command, int argc, char **argv, int *at,
                       struct flue_arguments *out)
{
    const char *word = argv[*at];
    struct flue_sources *sources = &out->sources;
    bool known = true;
    if (command->options & FLUE_TAKES_SOURCES && is_option(word, "--config")) {
        known = take_list(command, word, value_of(argc, argv, at, "--config"), out->configs,
                          &sources->config_count);
    } else if (command->options & FLUE_TAKES_SOURCES && is_option(word, "--set")) {
        known = take_list(command, word, value_of(argc, argv, at, "--set"), out->sets,
                          &sources->set_count);
    } else if (command->options & FLUE_TAKES_SOURCES && is_option(word, "--feature-gates")) {
        /* The Collector hides profiles behind one; here there is nothing to switch on. */
        if (!value_of(argc, argv, at, "--feature-gates"))
            known = complain(command, "no value behind", word);
    } else if (command->options & FLUE_TAKES_PRINT && is_option(word, "--mode")) {
        out->mode = value_of(argc, argv, at, "--mode");
        if (!out->mode || (strcmp(out->mode, "redacted") && strcmp(out->mode, "unredacted")))
            known = complain(command, "--mode is redacted or unredacted, not",
                             out->mode ? out->mode : "");
    } else if (command->options & FLUE_TAKES_PRINT && is_option(word, "--format")) {
        out->format = value_of(argc, argv, at, "--format");
        if (!out->format || (strcmp(out->format, "yaml") && strcmp(out->format, "json")))
            known =
                complain(command, "--format is yaml or json, not", out->format ? out->format : "");
    } else if (command->options & FLUE_TAKES_NAMES && strcmp(word, "--markdown") == 0) {
        out->markdown = true;
    } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        out->help = true;
    } else {
        return take_own(command, argc, argv, at, out);
    }
    return known ? 1 : -1;
}

bool flue_arguments_read(const struct flue_command *command, int argc, char **argv, int first,
                         struct flue_arguments *out)
{
    *out = (struct flue_arguments){.mode = "redacted", .format = "yaml"};
    out->sources.configs = out->configs;
    out->sources.sets = out->sets;
    for (int i = first; i < argc; i++) {
        int taken = take_option(command, argc, argv, &i, out);
        if (taken < 0)
            return false;
        if (taken > 0)
            continue;
        if ((argv[i][0] == '-' && argv[i][1]) ||
            !(command->options & (FLUE_TAKES_NAMES | FLUE_TAKES_WORDS)) ||
            out->rest_count == sizeof out->rest / sizeof out->rest[0])
            return complain(command, "does not know", argv[i]);
        out->rest[out->rest_count++] = argv[i];
    }
    if (out->help || !(command->options & FLUE_TAKES_SOURCES) || out->sources.config_count ||
        command->options & FLUE_MAY_LACK_SOURCES)
        return true;
    fprintf(stderr, "flue %s: which configuration? Name it with --config FILE\nusage: flue %s %s\n",
            command->name, command->name, command->usage);
    return false;
}

struct flue_configuration *flue_arguments_load(const struct flue_arguments *arguments, bool quiet)
{
    struct flue_configuration *configuration;
    struct flue_error error;
    if (flue_configuration_load(&arguments->sources, flue_components, &configuration, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return NULL;
    }
    struct flue_buffer text;
    flue_buffer_init(&text, 4u << 20);
    flue_check_print(&configuration->check, &text);
    if (text.size && (configuration->check.mistakes || !quiet))
        fputs(text.data, stderr);
    flue_buffer_destroy(&text);
    if (configuration->check.mistakes) {
        flue_configuration_destroy(configuration);
        return NULL;
    }
    return configuration;
}
