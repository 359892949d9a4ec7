/* exec.c: credential plugins of a kubeconfig: a program that prints an ExecCredential. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "collector/base/buffer.h"
#include "collector/base/clock.h"
#include "kubernetes/access.h"
#include "kubernetes/object.h"

#define PLUGIN_TIME_NS UINT64_C(10000000000)
#define PLUGIN_OUTPUT  (1u << 20)

static char *keep(json_t *status, const char *key, char *old)
{
    if (old)
        explicit_bzero(old, strlen(old));
    free(old);
    const char *text = json_string_value(json_object_get(status, key));
    return text && *text ? strdup(text) : NULL;
}

static enum flue_code read_credential(struct flue_kube_access *access, struct flue_bytes text,
                                      struct flue_error *error)
{
    json_error_t where;
    json_t *root = json_loadb((const char *)text.data, text.size, 0, &where);
    json_t *status = json_object_get(root, "status");
    const char *version = json_string_value(json_object_get(root, "apiVersion"));
    enum flue_code code = FLUE_OK;

    if (!json_is_object(status))
        code = flue_fail(error, FLUE_INVALID,
                         "the exec plugin %.100s printed no ExecCredential with a status",
                         access->exec.command);
    else if (!version || strcmp(version, access->exec.api_version) != 0)
        code = flue_fail(error, FLUE_INVALID,
                         "the exec plugin %.100s answered in another apiVersion than %.60s",
                         access->exec.command, access->exec.api_version);
    if (!code) {
        const char *until = json_string_value(json_object_get(status, "expirationTimestamp"));
        access->plugin_token = keep(status, "token", access->plugin_token);
        access->plugin_cert = keep(status, "clientCertificateData", access->plugin_cert);
        access->plugin_key = keep(status, "clientKeyData", access->plugin_key);
        access->plugin_until_ns =
            until ? (uint64_t)flue_kube_time(flue_bytes_of(until)) * 1000000000 : 0;
        access->plugin_ran = true;
        if (!access->plugin_token && !(access->plugin_cert && access->plugin_key))
            code = flue_fail(error, FLUE_INVALID,
                             "the exec plugin %.100s gave neither a token nor a certificate",
                             access->exec.command);
    }
    json_decref(root);
    return code;
}

static char *exec_info(const struct flue_kube_access *access)
{
    struct flue_buffer json;

    flue_buffer_init(&json, 1u << 20);
    flue_buffer_text(&json, "KUBERNETES_EXEC_INFO={\"kind\":\"ExecCredential\",\"apiVersion\":");
    flue_buffer_json(&json, flue_bytes_of(access->exec.api_version));
    flue_buffer_text(&json, ",\"spec\":{\"interactive\":false");
    if (access->exec.cluster_info) {
        flue_buffer_text(&json, ",\"cluster\":{\"server\":");
        flue_buffer_json(&json, flue_bytes_of(access->server));
        if (access->server_name) {
            flue_buffer_text(&json, ",\"tls-server-name\":");
            flue_buffer_json(&json, flue_bytes_of(access->server_name));
        }
        if (access->insecure_skip_verify)
            flue_buffer_text(&json, ",\"insecure-skip-tls-verify\":true");
        flue_buffer_text(&json, "}");
    }
    flue_buffer_text(&json, "}}");
    if (json.failed) {
        flue_buffer_destroy(&json);
        return NULL;
    }
    return json.data;
}

static pid_t start(const struct flue_kube_access *access, int out, struct flue_error *error)
{
    size_t own = 0, more = 0, used = 0;
    while (environ[own])
        own++;
    while (access->exec.environment[more])
        more++;
    char *info = exec_info(access), **environment = calloc(own + more + 2, sizeof *environment);
    posix_spawn_file_actions_t actions;
    pid_t pid = -1;
    int failed = ENOMEM;

    if (info && environment && posix_spawn_file_actions_init(&actions) == 0) {
        environment[used++] = info;
        for (size_t i = 0; i < more; i++)
            environment[used++] = (char *)(uintptr_t)access->exec.environment[i];
        for (size_t i = 0; i < own; i++)
            environment[used++] = environ[i];
        failed = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        if (!failed)
            failed = posix_spawn_file_actions_adddup2(&actions, out, 1);
        if (!failed)
            failed = posix_spawnp(&pid, access->exec.command, &actions, NULL,
                                  (char *const *)(uintptr_t)access->exec.arguments, environment);
        posix_spawn_file_actions_destroy(&actions);
    }
    free(environment);
    free(info);
    if (failed)
        flue_fail(error, FLUE_IO, "cannot run the exec plugin %.100s: %s%s%.150s",
                  access->exec.command, strerror(failed), access->exec.install_hint ? "; " : "",
                  access->exec.install_hint ? access->exec.install_hint : "");
    return failed ? -1 : pid;
}

/* All it prints until it closes its output; false when the time is over. */
static bool collect(int from, struct flue_buffer *out)
{
    uint64_t until = flue_monotonic_ns() + PLUGIN_TIME_NS;
    char piece[4096];

    for (;;) {
        uint64_t now = flue_monotonic_ns();
        struct pollfd poll_for = {from, POLLIN, 0};
        if (now >= until || poll(&poll_for, 1, (int)((until - now) / 1000000) + 1) <= 0) {
            if (now >= until || errno != EINTR)
                return false;
            continue;
        }
        ssize_t got = read(from, piece, sizeof piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0;
        flue_buffer_add(out, flue_bytes(piece, (size_t)got));
    }
}

enum flue_code flue_kube_exec_run(struct flue_kube_access *access, struct flue_error *error)
{
    struct flue_buffer out;
    int ends[2], status = 0;
    enum flue_code code;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return flue_fail(error, FLUE_IO, "pipe: %s", strerror(errno));
    pid_t pid = start(access, ends[1], error);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return FLUE_IO;
    }
    flue_buffer_init(&out, PLUGIN_OUTPUT);
    bool closed = collect(ends[0], &out);
    close(ends[0]);
    if (!closed)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!closed)
        code = flue_fail(error, FLUE_TIMEOUT, "the exec plugin %.100s took over ten seconds",
                         access->exec.command);
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        code = flue_fail(error, FLUE_UNAVAILABLE, "the exec plugin %.100s failed (status %d)",
                         access->exec.command, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    else
        code = read_credential(access, flue_buffer_bytes(&out), error);
    if (out.data)
        explicit_bzero(out.data, out.size);
    flue_buffer_destroy(&out);
    return code;
}
