/* run.c: the daemon. SIGTERM or SIGINT drains, a second one ends at once; SIGHUP is said to
 * change nothing. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "collector/base/log.h"
#include "collector/commands/command.h"
#include "collector/service/service.h"
#include "proto/convert/decode.h"

static bool open_log(const struct flue_telemetry_logs_settings *logs)
{
    const char *path = ((const char **)logs->output_paths.items)[0];
    int fd = strcmp(path, "stderr") == 0 ? STDERR_FILENO : STDOUT_FILENO;
    if (strcmp(path, "stderr") != 0 && strcmp(path, "stdout") != 0)
        fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0) {
        fprintf(stderr, "service.telemetry.logs.output_paths: %s: %s\n", path, strerror(errno));
        return false;
    }
    flue_log_configure((enum flue_log_level)logs->level, logs->encoding == 1, fd);
    return true;
}

/* The signals of this process come to the main thread, which asks for them. */
static void block_signals(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, signals, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static bool second_signal(void *arg)
{
    const sigset_t *signals = arg;
    struct timespec none = {0, 0};
    for (;;) {
        int number = sigtimedwait(signals, NULL, &none);
        if (number == SIGTERM || number == SIGINT)
            return true;
        if (number != SIGHUP)
            return false;
    }
}

static void wait_for_end(const sigset_t *signals)
{
    int number;
    while ((number = sigwaitinfo(signals, NULL)) != SIGTERM && number != SIGINT)
        if (number == SIGHUP)
            flue_log(FLUE_WARN, "service",
                     "SIGHUP: the configuration is not read again while flue runs; to change it, "
                     "check it with flue validate and restart (what waits on disk is kept)",
                     FLUE_LOG_END);
    flue_log(FLUE_INFO, "service", number == SIGTERM ? "SIGTERM" : "SIGINT", FLUE_LOG_END);
}

static int run_service(const struct flue_configuration *configuration, sigset_t *signals)
{
    struct flue_service *service;
    struct flue_error error;
    if (flue_service_new(configuration, &service, &error)) {
        fprintf(stderr, "flue: %s\n", error.text);
        return FLUE_EXIT_FAILED;
    }
    if (flue_service_start(service, &error)) {
        fprintf(stderr, "flue: %s\n", error.text);
        flue_service_destroy(service);
        return FLUE_EXIT_FAILED;
    }
    wait_for_end(signals);
    flue_service_stop(service, second_signal, signals, NULL);
    flue_service_destroy(service);
    return FLUE_EXIT_OK;
}

static int run(const struct flue_arguments *arguments)
{
    sigset_t signals;
    block_signals(&signals);
    flue_payload_decoder(flue_decode);
    struct flue_configuration *configuration = flue_arguments_load(arguments, false);
    if (!configuration)
        return FLUE_EXIT_FAILED;
    int status = FLUE_EXIT_FAILED;
    if (open_log(&configuration->service.telemetry.logs))
        status = run_service(configuration, &signals);
    flue_configuration_destroy(configuration);
    return status;
}

const struct flue_command flue_command_run = {
    .name = "run",
    .summary = "runs the pipelines of a configuration until SIGTERM",
    .usage = "--config FILE [--config ...] [--set KEY=VALUE]...",
    .options = FLUE_TAKES_SOURCES,
    .run = run,
};
