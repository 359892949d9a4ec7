/* print_config.c: the configuration as it is after merging and expansion. */
#include <stdio.h>
#include <string.h>

#include "collector/commands/command.h"
#include "config/print.h"

static int print_config(const struct flue_arguments *arguments)
{
    /* Only what was bound knows its secrets, so a configuration with mistakes is not printed. */
    struct flue_configuration *configuration = flue_arguments_load(arguments, true);
    struct flue_buffer text;
    if (!configuration)
        return FLUE_EXIT_FAILED;
    bool redact = strcmp(arguments->mode, "redacted") == 0;
    flue_buffer_init(&text, 64u << 20);
    if (strcmp(arguments->format, "json") == 0)
        flue_node_print_json(configuration->root, redact, &text);
    else
        flue_node_print_yaml(configuration->root, redact, &text);
    bool written = !text.failed && fwrite(text.data, 1, text.size, stdout) == text.size;
    flue_buffer_destroy(&text);
    flue_configuration_destroy(configuration);
    return written ? FLUE_EXIT_OK : FLUE_EXIT_FAILED;
}

const struct flue_command flue_command_print_config = {
    .name = "print-config",
    .alias = "print-initial-config",
    .summary = "prints the configuration after merging and expansion, secrets left out",
    .usage = "--config FILE [--config ...] [--set KEY=VALUE]... [--mode redacted|unredacted] "
             "[--format yaml|json]",
    .options = FLUE_TAKES_SOURCES | FLUE_TAKES_PRINT,
    .run = print_config,
};
