/* docker.c: the Docker daemon by its socket: the host's name, and the container we run in.
 *
 * Source: Docker Engine API, GET /info and /containers/{id}/json; DOCKER_HOST. */
#include <ctype.h>
#include <stdio.h>
#include <unistd.h>

#include "processors/resourcedetection/detect.h"

static void got_container(struct rd_run *run)
{
    json_t *root = rd_status(run) == 200 ? rd_object(run) : NULL;
    const char *name = json_string_value(json_object_get(root, "Name"));
    if (!root) {
        rd_unexpected(run);
        return;
    }
    if (name)
        rd_put(run, RD_CONTAINER_NAME, flue_bytes_of(name + (*name == '/')));
    rd_put_json(run, RD_IMAGE_NAME, json_object_get(root, "Config"), "Image");
    rd_put_json(run, RD_IMAGE_ID, root, "Image");
    json_decref(root);
    rd_found(run);
}

static void got_info(struct rd_run *run)
{
    json_t *root = rd_status(run) == 200 ? rd_object(run) : NULL;
    char host[256] = "", path[320];
    if (!root) {
        rd_unexpected(run);
        return;
    }
    rd_put_json(run, RD_HOST_NAME, root, "Name");
    rd_put_json(run, RD_OS_TYPE, root, "OSType");
    json_decref(root);
    if (!rd_wants(run, RD_CONTAINER_NAME) && !rd_wants(run, RD_IMAGE_NAME) &&
        !rd_wants(run, RD_IMAGE_ID)) {
        rd_found(run);
        return;
    }
    /* A container's host name is its id, unless somebody gave it another. */
    if (gethostname(host, sizeof host - 1) != 0)
        host[0] = 0;
    bool good = host[0] != 0;
    for (const char *c = host; *c; c++)
        good &= isalnum((unsigned char)*c) || *c == '-' || *c == '.' || *c == '_';
    if (!good) {
        rd_failed(run, "the host's name is no container's");
        return;
    }
    snprintf(path, sizeof path, "/containers/%s/json", host);
    rd_get(run, path, got_container);
}

void rd_docker_begin(struct rd_run *run)
{
    const char *host = rd_environment("DOCKER_HOST");
    if (!host)
        host = "unix:///var/run/docker.sock";
    run->endpoint = host;
    if (strncmp(host, "tcp://", 6) == 0)
        run->endpoint = flue_arena_printf(&run->arena, "http://%s", host + 6);
    memset(&run->tls, 0, sizeof run->tls);
    run->ask.field_count = 0;
    rd_field(run, "host", "docker");
    if (!run->endpoint)
        rd_failed(run, "no memory for the endpoint");
    else
        rd_get(run, "/info", got_info);
}
