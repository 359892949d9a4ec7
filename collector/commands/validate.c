/* validate.c: everything that can be known about a configuration without starting it. */
#include <stdio.h>

#include "collector/base/log.h"
#include "collector/commands/command.h"
#include "collector/service/service.h"

static int validate(const struct flue_arguments *arguments)
{
    struct flue_configuration *configuration = flue_arguments_load(arguments, false);
    struct flue_service *service;
    struct flue_error error;
    if (!configuration)
        return FLUE_EXIT_FAILED;
    flue_log_configure(FLUE_ERROR, false, 2);
    /* Made, not started: what only create() can know. */
    int status =
        flue_service_new(configuration, &service, &error) ? FLUE_EXIT_FAILED : FLUE_EXIT_OK;
    if (status == FLUE_EXIT_OK) {
        size_t used = 0;
        for (size_t i = 0; i < configuration->part_count; i++)
            used += configuration->parts[i].in_use;
        printf("ok: %zu pipeline%s, %zu component%s\n", configuration->pipeline_count,
               configuration->pipeline_count == 1 ? "" : "s", used, used == 1 ? "" : "s");
        flue_service_destroy(service);
    } else {
        fprintf(stderr, "%s\n", error.text);
    }
    flue_configuration_destroy(configuration);
    return status;
}

const struct flue_command flue_command_validate = {
    .name = "validate",
    .summary = "says every mistake of a configuration with file, line and column",
    .usage = "--config FILE [--config ...] [--set KEY=VALUE]...",
    .options = FLUE_TAKES_SOURCES,
    .run = validate,
};
