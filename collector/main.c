/* main.c: the command line's table; each command is one file in commands/. */
#include <stdio.h>
#include <string.h>

#include "collector/commands/command.h"

static const struct flue_command *const commands[] = {
    &flue_command_run,          &flue_command_validate, &flue_command_components,
    &flue_command_print_config, &flue_command_version,  &flue_command_cdn,
    &flue_command_queue,
    &flue_command_fetch,
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static void print_help(FILE *out)
{
    fputs("flue carries continuous profiles from profilers to Pyroscope and object storage.\n\n"
          "usage: flue COMMAND ...\n",
          out);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-14s%s\n", commands[i]->name, commands[i]->summary);
    fputs("\nflue --config FILE is flue run --config FILE. A configuration is a file, file:PATH,\n"
          "env:NAME or yaml:TEXT; several are merged from left to right, --set KEY=VALUE last.\n"
          "--feature-gates is accepted and has no effect. Begin with config/examples/local.yaml.\n",
          out);
}

static int run_command(const struct flue_command *command, int argc, char **argv, int first)
{
    struct flue_arguments arguments;
    if (!flue_arguments_read(command, argc, argv, first, &arguments))
        return FLUE_EXIT_USAGE;
    if (arguments.help && !arguments.rest_count) {
        printf("flue %s %s\n  %s\n", command->name, command->usage, command->summary);
        return FLUE_EXIT_OK;
    }
    return command->run(&arguments);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return FLUE_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        print_help(stdout);
        return FLUE_EXIT_OK;
    }
    if (strcmp(word, "--version") == 0 || strcmp(word, "-v") == 0)
        return run_command(&flue_command_version, argc, argv, 2);
    if (word[0] == '-')
        return run_command(&flue_command_run, argc, argv, 1);
    struct flue_nearest nearest = {.word = word};
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(word, commands[i]->name) == 0 ||
            (commands[i]->alias && strcmp(word, commands[i]->alias) == 0))
            return run_command(commands[i], argc, argv, 2);
        flue_nearest_offer(&nearest, commands[i]->name);
    }
    fprintf(stderr, "flue: there is no command \"%s\"%s%s%s\n", word,
            nearest.best ? " (did you mean \"" : "", nearest.best ? nearest.best : "",
            nearest.best ? "\"?)" : "");
    print_help(stderr);
    return FLUE_EXIT_USAGE;
}
