/* access.c: the ways to find the API server, and tokens. */
#include "kubernetes/access.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "collector/base/clock.h"

#define ACCOUNT_FOLDER   "/var/run/secrets/kubernetes.io/serviceaccount"
#define PLUGIN_LEEWAY_NS UINT64_C(10000000000)

enum flue_code flue_kube_file_read(struct flue_arena *arena, const char *path, size_t maximum,
                                   struct flue_bytes *out, struct flue_error *error)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return flue_fail(error, FLUE_IO, "cannot open %.300s: %s", path, strerror(errno));
    size_t size = 0, room = 4096;
    char *data = flue_arena_alloc(arena, room + 1);
    for (;;) {
        if (data && size == room && room < maximum) {
            char *larger = flue_arena_alloc(arena, room * 2 + 1);
            if (larger)
                memcpy(larger, data, size);
            data = larger;
            room *= 2;
        }
        if (!data) {
            close(file);
            return flue_fail(error, FLUE_NO_MEMORY, "no memory to read %.300s", path);
        }
        ssize_t got = read(file, data + size, room - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 || (size += (size_t)got) > maximum) {
            int why = got < 0 ? errno : 0;
            close(file);
            if (why)
                return flue_fail(error, FLUE_IO, "cannot read %.300s: %s", path, strerror(why));
            if (size > maximum)
                return flue_fail(error, FLUE_TOO_LARGE, "%.300s is over %zu bytes", path, maximum);
            data[size] = 0;
            *out = flue_bytes(data, size);
            return FLUE_OK;
        }
    }
}

static enum flue_code open_cluster(struct flue_kube_access *access, struct flue_error *error)
{
    const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");

    if (!host || !*host || !port || !*port)
        return flue_fail(error, FLUE_INVALID,
                         "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: not in "
                         "a pod? Use auth_type kubeConfig, or none");
    bool v6 = strchr(host, ':') != NULL;
    access->server = flue_arena_printf(&access->arena, "https://%s%s%s:%s", v6 ? "[" : "", host,
                                       v6 ? "]" : "", port);
    access->ca_file = ACCOUNT_FOLDER "/ca.crt";
    access->token_file = ACCOUNT_FOLDER "/token";
    return access->server ? FLUE_OK : flue_fail(error, FLUE_NO_MEMORY, "no memory");
}

static enum flue_code open_file(struct flue_kube_access *access, const char *path,
                                const char *context, struct flue_error *error)
{
    struct flue_bytes text;
    enum flue_code code = flue_kube_file_read(&access->arena, path, 1u << 20, &text, error);
    return code ? code : flue_kube_kubeconfig_read(access, path, text, context, error);
}

static enum flue_code open_kubeconfig(struct flue_kube_access *access, const char *context,
                                      struct flue_error *error)
{
    const char *list = getenv("KUBECONFIG"), *home = getenv("HOME");
    enum flue_code code = FLUE_OK;

    if (!list || !*list)
        list = flue_arena_printf(&access->arena, "%s/.kube/config", home ? home : "");
    if (!list)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    for (const char *at = list; *at && !access->server;) {
        size_t size = strcspn(at, ":");
        char *path = flue_arena_string(&access->arena, flue_bytes(at, size));
        if (!path)
            return flue_fail(error, FLUE_NO_MEMORY, "no memory");
        at += size + (at[size] == ':');
        if (!size)
            continue;
        code = open_file(access, path, context, error);
        if (code && (code != FLUE_IO || !*at)) /* one of a list may be missing */
            return code;
    }
    if (!access->server)
        return flue_fail(error, FLUE_INVALID, "no context%s%.100s in the kubeconfig %.200s",
                         context ? " " : "", context ? context : "", list);
    return FLUE_OK;
}

enum flue_code flue_kube_access_open(enum flue_kube_auth auth, const char *context,
                                     struct flue_kube_access **out, struct flue_error *error)
{
    struct flue_kube_access *access = calloc(1, sizeof *access);
    enum flue_code code;

    if (!access)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    flue_arena_init(&access->arena, 8u << 20, 0);
    code = auth == FLUE_KUBE_KUBECONFIG ? open_kubeconfig(access, context, error)
                                        : open_cluster(access, error);
    if (code) {
        flue_kube_access_close(access);
        return code;
    }
    *out = access;
    return FLUE_OK;
}

static void forget(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

void flue_kube_access_close(struct flue_kube_access *access)
{
    if (!access)
        return;
    forget(access->plugin_token);
    forget(access->plugin_cert);
    forget(access->plugin_key);
    flue_arena_destroy(&access->arena);
    free(access);
}

static enum flue_code put_token(const char *token, size_t size, char *out, size_t out_size,
                                struct flue_error *error)
{
    while (size && (token[size - 1] == '\n' || token[size - 1] == '\r' || token[size - 1] == ' '))
        size--;
    if (size + 1 > out_size)
        return flue_fail(error, FLUE_TOO_LARGE, "the token is over %zu bytes", out_size - 1);
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)token[i] <= ' ' || (uint8_t)token[i] >= 0x7f)
            return flue_fail(error, FLUE_INVALID, "the token holds a character that none may");
    memcpy(out, token, size);
    out[size] = 0;
    return FLUE_OK;
}

enum flue_code flue_kube_access_token(struct flue_kube_access *access, bool refused, char *out,
                                      size_t out_size, struct flue_error *error)
{
    enum flue_code code = FLUE_OK;

    out[0] = 0;
    if (access->exec.command) {
        bool stale =
            access->plugin_until_ns && flue_wall_ns() + PLUGIN_LEEWAY_NS >= access->plugin_until_ns;
        if (!access->plugin_ran || stale || refused)
            code = flue_kube_exec_run(access, error);
        if (!code && access->plugin_token)
            code =
                put_token(access->plugin_token, strlen(access->plugin_token), out, out_size, error);
    } else if (access->token_file) {
        struct flue_arena arena;
        struct flue_bytes text;
        flue_arena_init(&arena, 4 * FLUE_KUBE_MAX_TOKEN, 0);
        code = flue_kube_file_read(&arena, access->token_file, FLUE_KUBE_MAX_TOKEN, &text, error);
        if (!code)
            code = put_token((const char *)text.data, text.size, out, out_size, error);
        flue_arena_destroy(&arena);
    } else if (access->token) {
        code = put_token(access->token, strlen(access->token), out, out_size, error);
    }
    return code;
}
