/* kubeconfig.c: cluster, user and context of a kubeconfig file. */
#include <stdio.h>
#include <stdlib.h>
#include "collector/base/base64.h"
#include "kubernetes/access.h"

static const char *text_at(const struct flue_node *map, const char *key)
{
    struct flue_node_entry *entry =
        map && map->type == FLUE_NODE_MAP ? flue_node_find(map, key) : NULL;
    return entry && entry->node->text && *entry->node->text ? entry->node->text : NULL;
}

static struct flue_node *node_at(const struct flue_node *map, const char *key,
                                 enum flue_node_type type)
{
    struct flue_node_entry *entry =
        map && map->type == FLUE_NODE_MAP ? flue_node_find(map, key) : NULL;
    return entry && entry->node->type == type ? entry->node : NULL;
}

static bool true_at(const struct flue_node *map, const char *key)
{
    struct flue_node *node = node_at(map, key, FLUE_NODE_BOOL);
    return node && node->boolean;
}

/* clusters: [{name, cluster: {...}}], and likewise users and contexts. */
static const struct flue_node *named(const struct flue_node *root, const char *list,
                                     const char *name, const char *what)
{
    const struct flue_node *items = node_at(root, list, FLUE_NODE_LIST);

    for (size_t i = 0; items && name && i < items->count; i++) {
        const char *here = text_at(items->items[i], "name");
        if (here && strcmp(here, name) == 0)
            return node_at(items->items[i], what, FLUE_NODE_MAP);
    }
    return NULL;
}

static bool path_at(struct flue_kube_access *access, const char *file, const struct flue_node *map,
                    const char *key, const char **out)
{
    const char *path = text_at(map, key), *slash = strrchr(file, '/');

    if (!path)
        return true;
    *out = path[0] == '/' || !slash
               ? flue_arena_string(&access->arena, flue_bytes_of(path))
               : flue_arena_printf(&access->arena, "%.*s/%s", (int)(slash - file), file, path);
    return *out != NULL;
}

static enum flue_code data_at(struct flue_kube_access *access, const struct flue_node *map,
                              const char *key, struct flue_bytes *out, struct flue_error *error)
{
    const char *text = text_at(map, key);
    if (!text)
        return FLUE_OK;
    size_t size = strlen(text), used = 0;
    uint8_t *data = flue_arena_alloc(&access->arena, flue_base64_room(size) + 1);
    if (!data)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    if (!flue_base64_decode(flue_bytes(text, size), data, &used))
        return flue_fail(error, FLUE_INVALID, "kubeconfig: %s is not base64", key);
    data[used] = 0;
    *out = flue_bytes(data, used);
    return FLUE_OK;
}

static enum flue_code read_cluster(struct flue_kube_access *access, const char *file,
                                   const struct flue_node *cluster, struct flue_error *error)
{
    const char *server = text_at(cluster, "server");

    if (!server || (strncmp(server, "https://", 8) != 0 && strncmp(server, "http://", 7) != 0))
        return flue_fail(error, FLUE_INVALID, "kubeconfig %.200s: the cluster has no server URL",
                         file);
    size_t size = strlen(server);
    while (size && server[size - 1] == '/')
        size--;
    access->server = flue_arena_string(&access->arena, flue_bytes(server, size));
    access->insecure_skip_verify = true_at(cluster, "insecure-skip-tls-verify");
    const char *name = text_at(cluster, "tls-server-name"), *proxy = text_at(cluster, "proxy-url");
    if (name)
        access->server_name = flue_arena_string(&access->arena, flue_bytes_of(name));
    if (proxy)
        access->proxy_url = flue_arena_string(&access->arena, flue_bytes_of(proxy));
    if (!access->server ||
        !path_at(access, file, cluster, "certificate-authority", &access->ca_file))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    return data_at(access, cluster, "certificate-authority-data", &access->ca_data, error);
}

static enum flue_code read_exec(struct flue_kube_access *access, const char *file,
                                const struct flue_node *exec, struct flue_error *error)
{
    const struct flue_node *arguments = node_at(exec, "args", FLUE_NODE_LIST);
    const struct flue_node *environment = node_at(exec, "env", FLUE_NODE_LIST);
    const char *mode = text_at(exec, "interactiveMode"), *slash = strrchr(file, '/');
    const char *command = text_at(exec, "command"), *version = text_at(exec, "apiVersion");
    size_t count = arguments ? arguments->count : 0, names = environment ? environment->count : 0;

    if (mode && strcmp(mode, "Always") == 0)
        return flue_fail(error, FLUE_INVALID,
                         "kubeconfig %.200s: the exec plugin asks a person (interactiveMode "
                         "Always), and there is none here",
                         file);
    if (!command || !version)
        return flue_fail(error, FLUE_INVALID,
                         "kubeconfig %.200s: exec needs `command` and `apiVersion`", file);
    access->exec.arguments = flue_arena_zalloc(&access->arena, count + 2, sizeof(char *));
    access->exec.environment = flue_arena_zalloc(&access->arena, names + 1, sizeof(char *));
    access->exec.api_version = flue_arena_string(&access->arena, flue_bytes_of(version));
    if (!access->exec.arguments || !access->exec.environment || !access->exec.api_version)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    /* As with paths: a command with a slash is relative to the file, else looked up in PATH. */
    access->exec.command =
        command[0] != '/' && strchr(command, '/') && slash
            ? flue_arena_printf(&access->arena, "%.*s/%s", (int)(slash - file), file, command)
            : flue_arena_string(&access->arena, flue_bytes_of(command));
    access->exec.arguments[0] = access->exec.command;
    for (size_t i = 0; i < count; i++) {
        const char *text = arguments->items[i]->text;
        access->exec.arguments[i + 1] =
            flue_arena_string(&access->arena, flue_bytes_of(text ? text : ""));
        if (!access->exec.arguments[i + 1])
            return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    }
    for (size_t i = 0; i < names; i++) {
        const char *name = text_at(environment->items[i], "name");
        const char *value = text_at(environment->items[i], "value");
        access->exec.environment[i] =
            flue_arena_printf(&access->arena, "%s=%s", name ? name : "", value ? value : "");
        if (!access->exec.environment[i])
            return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    }
    access->exec.cluster_info = true_at(exec, "provideClusterInfo");
    const char *hint = text_at(exec, "installHint");
    access->exec.install_hint =
        hint ? flue_arena_string(&access->arena, flue_bytes_of(hint)) : NULL;
    return access->exec.command ? FLUE_OK : flue_fail(error, FLUE_NO_MEMORY, "no memory");
}

static enum flue_code read_user(struct flue_kube_access *access, const char *file,
                                const struct flue_node *user, struct flue_error *error)
{
    const struct flue_node *exec = node_at(user, "exec", FLUE_NODE_MAP);
    const char *token = text_at(user, "token");
    enum flue_code code;

    if (node_at(user, "auth-provider", FLUE_NODE_MAP))
        return flue_fail(error, FLUE_INVALID,
                         "kubeconfig %.200s: auth-provider is gone from Kubernetes; use exec",
                         file);
    if (text_at(user, "username"))
        return flue_fail(error, FLUE_INVALID,
                         "kubeconfig %.200s: no API server takes basic authentication any more",
                         file);
    if (text_at(user, "as"))
        return flue_fail(error, FLUE_INVALID,
                         "kubeconfig %.200s: `as` (acting for another user) is not supported",
                         file);
    if (token && !(access->token = flue_arena_string(&access->arena, flue_bytes_of(token))))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    if (!path_at(access, file, user, "tokenFile", &access->token_file) ||
        !path_at(access, file, user, "client-certificate", &access->cert_file) ||
        !path_at(access, file, user, "client-key", &access->key_file))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory");
    code = data_at(access, user, "client-certificate-data", &access->cert_data, error);
    if (!code)
        code = data_at(access, user, "client-key-data", &access->key_data, error);
    return code || !exec ? code : read_exec(access, file, exec, error);
}

enum flue_code flue_kube_kubeconfig_read(struct flue_kube_access *access, const char *file,
                                         struct flue_bytes text, const char *context,
                                         struct flue_error *error)
{
    struct flue_tree tree = {.arena = &access->arena};
    struct flue_node *root = flue_yaml_parse(&tree, file, text, NULL, NULL);

    if (!root || root->type != FLUE_NODE_MAP)
        return flue_fail(error, FLUE_INVALID, "%.300s is not a kubeconfig (YAML or JSON)", file);
    if (!context)
        context = text_at(root, "current-context");
    const struct flue_node *chosen = named(root, "contexts", context, "context");
    if (!chosen)
        return FLUE_OK;
    const struct flue_node *cluster =
        named(root, "clusters", text_at(chosen, "cluster"), "cluster");
    const struct flue_node *user = named(root, "users", text_at(chosen, "user"), "user");
    if (!cluster)
        return flue_fail(error, FLUE_INVALID, "kubeconfig %.200s: context %.100s names no cluster",
                         file, context);
    enum flue_code code = read_cluster(access, file, cluster, error);
    return code || !user ? code : read_user(access, file, user, error);
}
