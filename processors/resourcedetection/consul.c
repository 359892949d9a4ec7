/* consul.c: the node as its Consul agent knows it.
 *
 * Source: Consul HTTP API, GET /v1/agent/self; api.DefaultConfig of its Go client for the
 * environment variables. */
#include <stdio.h>
#include <strings.h>

#include "archive/object/aws.h"
#include "archive/object/escape.h"
#include "collector/base/buffer.h"
#include "processors/resourcedetection/detect.h"

#define TOKEN_MAX 4096u

static const char *either(const char *given, const char *variable)
{
    return given && *given ? given : rd_environment(variable);
}

static void answer(struct rd_run *run)
{
    const struct rd_consul_config *config = &run->config->consul;
    json_t *root = rd_status(run) == 200 ? rd_object(run) : NULL;
    json_t *self = json_object_get(root, "Config"), *meta = json_object_get(root, "Meta");
    if (!json_is_string(json_object_get(self, "NodeName"))) {
        json_decref(root);
        rd_unexpected(run);
        return;
    }
    rd_put_json(run, RD_HOST_NAME, self, "NodeName");
    rd_put_json(run, RD_CLOUD_REGION, self, "Datacenter");
    rd_put_json(run, RD_HOST_ID, self, "NodeID");
    for (size_t i = 0; i < config->meta.count; i++) {
        const char *key = config->meta.items[i].key;
        json_t *value = json_object_get(meta, key);
        if (json_is_string(value))
            rd_put_named(run, flue_bytes_of(key),
                         flue_bytes(json_string_value(value), json_string_length(value)));
    }
    json_decref(root);
    rd_found(run);
}

static void ask(struct rd_run *run)
{
    const struct rd_consul_config *config = &run->config->consul;
    const char *namespace = either(config->namespace, "CONSUL_NAMESPACE");
    struct flue_url_pair query[2];
    struct flue_buffer path;
    size_t count = 0;
    if (config->datacenter && *config->datacenter)
        query[count++] =
            (struct flue_url_pair){FLUE_BYTES("dc"), flue_bytes_of(config->datacenter)};
    if (namespace)
        query[count++] = (struct flue_url_pair){FLUE_BYTES("ns"), flue_bytes_of(namespace)};
    flue_buffer_init(&path, 4096);
    flue_buffer_text(&path, count ? "/v1/agent/self?" : "/v1/agent/self");
    flue_url_query(&path, query, count);
    flue_buffer_byte(&path, 0);
    run->ask.field_count = 0;
    if (run->token)
        rd_field(run, "x-consul-token", run->token);
    if (path.failed)
        rd_failed(run, "datacenter and namespace are too long");
    else
        rd_get(run, (const char *)path.data, answer);
    flue_buffer_destroy(&path);
}

static void read_token(struct rd_job *job)
{
    (void)object_read_file(job->path, TOKEN_MAX, &job->arena, &job->text, &job->error);
}

static void have_token(struct rd_run *run, struct rd_job *job)
{
    struct flue_bytes token = job->text;
    while (token.size && token.data[token.size - 1] <= ' ')
        token.size--;
    run->token = job->error.code ? NULL : flue_arena_string(&run->arena, token);
    if (!run->token)
        rd_failed(run, "the token's file cannot be read: %s", job->error.text);
    else
        ask(run);
}

void rd_consul_begin(struct rd_run *run)
{
    const struct rd_consul_config *config = &run->config->consul;
    const char *address = either(config->address, "CONSUL_HTTP_ADDR");
    const char *tls = rd_environment("CONSUL_HTTP_SSL");
    const char *file = config->token && *config->token
                           ? NULL
                           : either(config->token_file, "CONSUL_HTTP_TOKEN_FILE");
    if (!address)
        address = "127.0.0.1:8500";
    run->endpoint = strstr(address, "://")
                        ? address
                        : flue_arena_printf(&run->arena, "http%s://%s",
                                            tls && (strcmp(tls, "1") == 0 ||
                                                    strcasecmp(tls, "true") == 0)
                                                ? "s"
                                                : "",
                                            address);
    memset(&run->tls, 0, sizeof run->tls);
    run->token = file ? NULL : either(config->token, "CONSUL_HTTP_TOKEN");
    if (!run->endpoint) {
        rd_failed(run, "no memory for the endpoint");
    } else if (file) {
        struct rd_job *job = rd_job_new(run);
        if (!job || !(job->path = flue_arena_string(&job->arena, flue_bytes_of(file)))) {
            if (job)
                rd_job_free(job);
            rd_failed(run, "no memory for a token");
            return;
        }
        job->work = read_token;
        job->then = have_token;
        rd_job_submit(run, job);
    } else {
        ask(run);
    }
}
