/* command.h: what a command of flue is, and the options that several share.
 *
 * One file per command. Exit status: 0 done, 1 the configuration or the work is wrong (said on
 * standard error), 2 the command line is wrong.
 */
#ifndef FLUE_COMMANDS_COMMAND_H
#define FLUE_COMMANDS_COMMAND_H

#include "collector/service/configuration.h"

#define FLUE_ARGUMENTS_MAX 256 /* of --config, of --set, and of a command's own options */

enum { FLUE_EXIT_OK, FLUE_EXIT_FAILED, FLUE_EXIT_USAGE };

struct flue_arguments {
    const char *configs[FLUE_ARGUMENTS_MAX], *sets[FLUE_ARGUMENTS_MAX];
    struct flue_sources sources; /* of the two above */
    const char *mode, *format;   /* print-config */
    bool help, markdown;         /* components: --help [NAME], --markdown */
    const char *rest[4];         /* words that are no option */
    size_t rest_count;
    struct flue_argument { /* the command's own options, in their order */
        const char *name, *value; /* "--from", "-1h" */
    } own[FLUE_ARGUMENTS_MAX];
    size_t own_count;
};
/* The last value of an own option, or NULL. */
const char *flue_argument_value(const struct flue_arguments *arguments, const char *name);

struct flue_command {
    const char *name, *alias; /* alias: NULL or another name */
    const char *summary;
    const char *usage; /* "[--config FILE]... [--set KEY=VALUE]..." */
    unsigned options;  /* FLUE_TAKES_* */
    const char *const *own; /* "--from", ...: options of its own, each with a value; NULL-ended */
    int (*run)(const struct flue_arguments *arguments);
};
enum {
    FLUE_TAKES_SOURCES = 1, /* --config, --set, --feature-gates */
    FLUE_TAKES_PRINT = 2,   /* --mode, --format */
    FLUE_TAKES_NAMES = 4,   /* --help NAME, --markdown */
    FLUE_TAKES_WORDS = 8,   /* words that are no option */
    FLUE_MAY_LACK_SOURCES = 16 /* --config is not asked for */
};

extern const struct flue_command flue_command_run, flue_command_validate, flue_command_components,
    flue_command_print_config, flue_command_version, flue_command_cdn,
    flue_command_queue,
    flue_command_fetch;

/* Reads argv[first..]; false after having said on standard error what is wrong. */
bool flue_arguments_read(const struct flue_command *command, int argc, char **argv, int first,
                         struct flue_arguments *out);

/* Loads what the arguments name and prints every mistake and warning on standard error. NULL: there
 * was a mistake. `quiet` leaves warnings out. */
struct flue_configuration *flue_arguments_load(const struct flue_arguments *arguments, bool quiet);

#endif
