/* cluster.c: kubernetes_node: the node we run on and its cluster, by the API server. Only metadata
 * is asked for (PartialObjectMetadata): a node's images alone are many kilobytes.
 *
 * Source: Kubernetes API concepts, "Fetching resources as metadata only". */
#include <stdio.h>
#include <stdlib.h>

#include "collector/base/log.h"
#include "processors/resourcedetection/detect.h"

#define METADATA                                                                                   \
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"

/* ---- access ---------------------------------------------------------------------------------- */

/* On the pool: files, and plugins that take their time. */
static void open_access(struct rd_job *job)
{
    char *token = flue_arena_alloc(&job->arena, FLUE_KUBE_MAX_TOKEN);
    if (!token) {
        (void)flue_fail(&job->error, FLUE_NO_MEMORY, "no memory for a token");
        return;
    }
    token[0] = 0;
    if (flue_kube_access_open(job->auth == RD_AUTH_KUBECONFIG ? FLUE_KUBE_KUBECONFIG
                                                              : FLUE_KUBE_SERVICE_ACCOUNT,
                              job->context, &job->access, &job->error) == FLUE_OK &&
        flue_kube_access_token(job->access, false, token, FLUE_KUBE_MAX_TOKEN, &job->error) ==
            FLUE_OK)
        job->text = flue_bytes_of(token);
}

static const char *pem(struct rd_run *run, struct flue_bytes data)
{
    return data.size ? flue_arena_string(&run->arena, data) : NULL;
}

static void have_access(struct rd_run *run, struct rd_job *job)
{
    if (job->error.code || !job->access) {
        rd_failed(run, "%s", job->error.text);
        return;
    }
    struct flue_kube_access *access = run->access = job->access;
    job->access = NULL;
    bool plugin = access->plugin_cert && *access->plugin_cert;
    run->endpoint = access->server;
    run->tls = (struct flue_tls_client_config){
        .common = {.ca_file = access->ca_data.size ? NULL : access->ca_file,
                   .ca_pem = pem(run, access->ca_data),
                   .cert_file = access->cert_data.size || plugin ? NULL : access->cert_file,
                   .cert_pem = plugin ? access->plugin_cert : pem(run, access->cert_data),
                   .key_file = access->key_data.size || plugin ? NULL : access->key_file,
                   .key_pem = plugin ? access->plugin_key : pem(run, access->key_data)},
        .insecure_skip_verify = access->insecure_skip_verify,
        .server_name_override = access->server_name};
    run->token = NULL;
    if (job->text.size)
        run->token = flue_arena_printf(&run->arena, "Bearer %.*s", FLUE_PRI(job->text));
    run->next(run);
}

static void without_identity(struct rd_run *run)
{
    const char *host = rd_environment("KUBERNETES_SERVICE_HOST");
    const char *port = rd_environment("KUBERNETES_SERVICE_PORT");
    if (!host) {
        rd_absent(run, "KUBERNETES_SERVICE_HOST is not set");
        return;
    }
    bool six = strchr(host, ':') != NULL;
    run->endpoint = flue_arena_printf(&run->arena, "https://%s%s%s:%s", six ? "[" : "", host,
                                      six ? "]" : "", port ? port : "443");
    run->tls = (struct flue_tls_client_config){.insecure_skip_verify = true};
    run->token = NULL;
    if (run->endpoint)
        run->next(run);
    else
        rd_failed(run, "no memory for the endpoint");
}

void rd_cluster(struct rd_run *run, enum rd_auth auth, const char *context,
                void (*next)(struct rd_run *run))
{
    run->next = next;
    if (auth == RD_AUTH_NONE) {
        without_identity(run);
        return;
    }
    struct rd_job *job = rd_job_new(run);
    if (!job) {
        rd_failed(run, "no memory to ask the cluster");
        return;
    }
    job->auth = auth;
    if (context && *context)
        job->context = flue_arena_string(&job->arena, flue_bytes_of(context));
    job->work = open_access;
    job->then = have_access;
    rd_job_submit(run, job);
}

/* ---- the node -------------------------------------------------------------------------------- */

static const struct rd_node_config *config_of(const struct rd_run *run)
{
    return (const void *)((const char *)run->config + run->detector->config);
}

static void ask(struct rd_run *run, const char *path, void (*next)(struct rd_run *run))
{
    run->ask.field_count = 0;
    rd_field(run, "accept", METADATA);
    if (run->token)
        rd_field(run, "authorization", run->token);
    rd_get(run, path, next);
}

static bool put_uid(struct rd_run *run, enum rd_name name)
{
    json_t *root = rd_status(run) == 200 ? rd_object(run) : NULL;
    json_t *metadata = json_object_get(root, "metadata");
    bool good = json_is_string(json_object_get(metadata, "uid"));
    rd_put_json(run, name, metadata, "uid");
    json_decref(root);
    return good;
}

static void got_namespace(struct rd_run *run)
{
    unsigned status = rd_status(run);
    if (status == 401 || status == 403)
        flue_log(FLUE_WARN, "resourcedetection",
                 "k8s.cluster.uid is left out: may not get the namespace kube-system",
                 FLUE_S("grant", "get on namespaces/kube-system"), FLUE_LOG_END);
    else if (!put_uid(run, RD_CLUSTER_UID)) {
        rd_unexpected(run);
        return;
    }
    rd_found(run);
}

static void ask_namespace(struct rd_run *run)
{
    if (rd_wants(run, RD_CLUSTER_UID))
        ask(run, "/api/v1/namespaces/kube-system", got_namespace);
    else
        rd_found(run);
}

static void got_node(struct rd_run *run)
{
    if (put_uid(run, RD_NODE_UID))
        ask_namespace(run);
    else
        rd_unexpected(run);
}

/* A node's name is a DNS subdomain: nothing else reaches the path. */
static bool good_name(const char *name)
{
    size_t size = strlen(name);
    bool good = size > 0 && size <= 253 && *name != '.' && *name != '-';
    for (; *name; name++)
        good &= (*name >= 'a' && *name <= 'z') || (*name >= '0' && *name <= '9') || *name == '-' ||
                *name == '.';
    return good;
}

static void ask_node(struct rd_run *run)
{
    const char *name = rd_environment(config_of(run)->node_from_env_var);
    char path[320];
    rd_put(run, RD_NODE_NAME, flue_bytes_of(name));
    snprintf(path, sizeof path, "/api/v1/nodes/%s", name);
    if (rd_wants(run, RD_NODE_UID))
        ask(run, path, got_node);
    else
        ask_namespace(run);
}

void rd_node_begin(struct rd_run *run)
{
    const struct rd_node_config *config = config_of(run);
    const char *variable = config->node_from_env_var, *name = rd_environment(variable);
    if (!name || !good_name(name)) {
        rd_failed(run, "the environment variable %s is not a node's name: set it from spec.nodeName",
                  variable);
        return;
    }
    rd_cluster(run, (enum rd_auth)config->auth_type, config->context, ask_node);
}
