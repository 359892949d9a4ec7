/* object_json.c: the same objects as JSON: where the server does not offer protobuf. */
#include "kubernetes/object_json.h"
#include <jansson.h>

static struct flue_bytes text_of(const json_t *value)
{
    return json_is_string(value) ? flue_bytes(json_string_value(value), json_string_length(value))
                                 : flue_bytes(NULL, 0);
}

static struct flue_bytes text_at(const json_t *object, const char *key)
{
    return text_of(json_object_get(object, key));
}

static void read_pairs(json_t *from, struct flue_kube_pair *pairs, unsigned *count,
                       struct flue_kube_object *out)
{
    const char *key;
    json_t *value;

    json_object_foreach(from, key, value)
    {
        if (!json_is_string(value))
            continue;
        if (*count == FLUE_KUBE_MAX_LABELS) {
            out->left_out++;
            continue;
        }
        pairs[(*count)++] = (struct flue_kube_pair){flue_bytes_of(key), text_of(value)};
    }
}

static void read_meta(const json_t *meta, struct flue_kube_object *out)
{
    json_t *owner;
    size_t i;

    out->name = text_at(meta, "name");
    out->namespace = text_at(meta, "namespace");
    out->uid = text_at(meta, "uid");
    out->resource_version = text_at(meta, "resourceVersion");
    out->created_s = flue_kube_time(text_at(meta, "creationTimestamp"));
    out->deletion_s = flue_kube_time(text_at(meta, "deletionTimestamp"));
    out->deletion_grace_s = json_integer_value(json_object_get(meta, "deletionGracePeriodSeconds"));
    read_pairs(json_object_get(meta, "labels"), out->labels, &out->label_count, out);
    read_pairs(json_object_get(meta, "annotations"), out->annotations, &out->annotation_count, out);
    json_array_foreach(json_object_get(meta, "ownerReferences"), i, owner)
    {
        if (!json_is_true(json_object_get(owner, "controller")))
            continue;
        out->owner_kind = text_at(owner, "kind");
        out->owner_name = text_at(owner, "name");
        out->owner_uid = text_at(owner, "uid");
    }
}

static void read_containers(const json_t *list, struct flue_kube_object *out)
{
    json_t *container;
    size_t i;

    json_array_foreach(list, i, container)
    {
        struct flue_kube_container_view *c =
            flue_kube_object_container(out, text_at(container, "name"));
        if (c)
            c->image = text_at(container, "image");
    }
}

static void read_statuses(const json_t *list, struct flue_kube_object *out)
{
    json_t *status;
    size_t i;

    json_array_foreach(list, i, status)
    {
        struct flue_kube_container_view *c =
            flue_kube_object_container(out, text_at(status, "name"));
        if (!c)
            continue;
        json_t *ended = json_object_get(json_object_get(status, "state"), "terminated");
        json_t *before = json_object_get(json_object_get(status, "lastState"), "terminated");
        if (!c->image.size)
            c->image = text_at(status, "image");
        c->image_id = text_at(status, "imageID");
        c->restart_count = json_integer_value(json_object_get(status, "restartCount"));
        c->finished_s = flue_kube_time(text_at(ended, "finishedAt"));
        c->ids[0] = flue_kube_container_id(text_at(status, "containerID"));
        c->ids[1] = flue_kube_container_id(text_at(ended, "containerID"));
        c->ids[2] = flue_kube_container_id(text_at(before, "containerID"));
    }
}

static void read_pod(const json_t *root, struct flue_kube_object *out)
{
    const json_t *spec = json_object_get(root, "spec"), *status = json_object_get(root, "status");
    json_t *item;
    size_t i;

    out->node_name = text_at(spec, "nodeName");
    out->hostname = text_at(spec, "hostname");
    out->host_network = json_is_true(json_object_get(spec, "hostNetwork"));
    read_containers(json_object_get(spec, "containers"), out);
    read_containers(json_object_get(spec, "initContainers"), out);
    read_containers(json_object_get(spec, "ephemeralContainers"), out);
    out->phase = text_at(status, "phase");
    out->start_s = flue_kube_time(text_at(status, "startTime"));
    json_array_foreach(json_object_get(status, "podIPs"), i, item)
    {
        struct flue_bytes address = text_at(item, "ip");
        if (!address.size)
            continue;
        if (out->address_count < FLUE_KUBE_MAX_ADDRESSES)
            out->addresses[out->address_count++] = address;
        else
            out->left_out++;
    }
    if (!out->address_count && text_at(status, "podIP").size)
        out->addresses[out->address_count++] = text_at(status, "podIP");
    read_statuses(json_object_get(status, "containerStatuses"), out);
    read_statuses(json_object_get(status, "initContainerStatuses"), out);
    read_statuses(json_object_get(status, "ephemeralContainerStatuses"), out);
}

/* jansson's own limit of depth is 2,048 calls deep; ours is looked at before it parses. */
static bool too_deep(struct flue_bytes json)
{
    unsigned depth = 0;
    bool text = false;

    for (size_t i = 0; i < json.size; i++) {
        uint8_t c = json.data[i];
        if (text) {
            if (c == '\\')
                i++;
            else if (c == '"')
                text = false;
        } else if (c == '"') {
            text = true;
        } else if (c == '{' || c == '[') {
            if (++depth > FLUE_KUBE_MAX_DEPTH)
                return true;
        } else if ((c == '}' || c == ']') && depth) {
            depth--;
        }
    }
    return false;
}

static json_t *load(struct flue_bytes json)
{
    json_error_t unused;
    return too_deep(json) ? NULL
                          : json_loadb((const char *)json.data, json.size, JSON_ALLOW_NUL, &unused);
}

enum flue_code flue_kube_object_read_json(struct flue_bytes json, enum flue_kube_kind kind,
                                          struct flue_kube_object *out, struct flue_error *error)
{
    flue_kube_object_clear(out);
    json_t *root = load(json);
    if (!json_is_object(root)) {
        json_decref(root);
        return flue_fail(error, FLUE_INVALID, "%s: an object of %zu bytes is broken JSON",
                         flue_kube_kind_name(kind), json.size);
    }
    out->tree = root;
    read_meta(json_object_get(root, "metadata"), out);
    if (kind == FLUE_KUBE_POD)
        read_pod(root, out);
    return FLUE_OK;
}

void flue_kube_object_done(struct flue_kube_object *object)
{
    json_decref(object->tree);
    object->tree = NULL;
}

enum flue_code flue_kube_status_read_json(struct flue_bytes json, struct flue_kube_status *out)
{
    json_t *root = load(json);
    if (!json_is_object(root)) {
        json_decref(root);
        return FLUE_INVALID;
    }
    out->tree = root;
    out->reason = text_at(root, "reason");
    out->message = text_at(root, "message");
    out->code = json_integer_value(json_object_get(root, "code"));
    return FLUE_OK;
}

void flue_kube_status_done(struct flue_kube_status *status)
{
    json_decref(status->tree);
    status->tree = NULL;
}
