/* access.h: where the API server is, whom to trust, and who we are.
 *
 * In a cluster: KUBERNETES_SERVICE_HOST and _PORT, and the files of the service account. Elsewhere
 * a kubeconfig: KUBECONFIG (a list; the first file that has the context wins) or ~/.kube/config,
 * with certificates, tokens, token files and exec plugins. What is refused by name: auth providers,
 * basic authentication, plugins that must ask a person.
 *
 * Read once on the main thread; afterwards used by the watcher's thread alone. Files of tokens and
 * authorities are opened again by path for every connection: they are swapped by symlink.
 * Source: client-go rest/config.go, tools/clientcmd, plugin/pkg/client/auth/exec.
 */
#ifndef FLUE_KUBERNETES_ACCESS_H
#define FLUE_KUBERNETES_ACCESS_H

#include "collector/base/arena.h"
#include "collector/base/error.h"
#include "config/node.h"

#define FLUE_KUBE_MAX_TOKEN (64u << 10)

enum flue_kube_auth {
    FLUE_KUBE_SERVICE_ACCOUNT, /* in a cluster */
    FLUE_KUBE_KUBECONFIG
};

struct flue_kube_exec {
    const char *command; /* NULL: none */
    const char *api_version;
    const char **arguments;   /* NULL-ended, command first */
    const char **environment; /* NULL-ended "NAME=value", beside our own */
    const char *install_hint;
    bool cluster_info;
};

struct flue_kube_access {
    struct flue_arena arena;
    const char *server;      /* "https://10.0.0.1:443", without a slash at its end */
    const char *server_name; /* for TLS instead of the server's; NULL: none */
    const char *proxy_url;
    bool insecure_skip_verify;
    const char *ca_file;
    struct flue_bytes ca_data; /* PEM; wins over the file */
    const char *cert_file, *key_file;
    struct flue_bytes cert_data, key_data;
    const char *token, *token_file; /* the file wins, and is read again */
    struct flue_kube_exec exec;

    /* What the plugin said last. */
    char *plugin_token;
    char *plugin_cert, *plugin_key;
    uint64_t plugin_until_ns; /* wall clock; 0: until it is refused */
    bool plugin_ran;
};

/* `context`: of a kubeconfig; NULL: its current-context. */
enum flue_code flue_kube_access_open(enum flue_kube_auth auth, const char *context,
                                     struct flue_kube_access **out, struct flue_error *error);
void flue_kube_access_close(struct flue_kube_access *access);

/* The token for a request now, into `out`; empty: none is used. `refused`: the last one was (401),
 * so a plugin runs again. Blocks for the plugin, at most ten seconds. */
enum flue_code flue_kube_access_token(struct flue_kube_access *access, bool refused, char *out,
                                      size_t out_size, struct flue_error *error);

/* Runs the plugin (exec.c). */
enum flue_code flue_kube_exec_run(struct flue_kube_access *access, struct flue_error *error);
/* Reads a kubeconfig's text into `access` (kubeconfig.c); paths are relative to `folder`. FLUE_OK
 * with server NULL: this file has not got the context. */
enum flue_code flue_kube_kubeconfig_read(struct flue_kube_access *access, const char *file,
                                         struct flue_bytes text, const char *context,
                                         struct flue_error *error);
/* A whole file of at most `maximum` bytes, in the arena. */
enum flue_code flue_kube_file_read(struct flue_arena *arena, const char *path, size_t maximum,
                                   struct flue_bytes *out, struct flue_error *error);

#endif
