/* version.c: one line. */
#include <stdio.h>

#include "collector/commands/command.h"

static int version(const struct flue_arguments *arguments)
{
    puts("flue version " FLUE_VERSION);
    return FLUE_EXIT_OK;
}

const struct flue_command flue_command_version = {
    .name = "version",
    .summary = "prints the version",
    .usage = "",
    .run = version,
};
