/* object.c: objects of the Kubernetes API as protobuf, walked field by field. */
#include "kubernetes/object_json.h"
#include "proto/wire/reader.h"

const char *flue_kube_kind_name(enum flue_kube_kind kind)
{
    static const char *const names[FLUE_KUBE_KINDS] = {"pods",        "namespaces",  "nodes",
                                                       "replicasets", "deployments", "statefulsets",
                                                       "daemonsets",  "jobs",        "cronjobs"};
    return names[kind];
}

struct flue_bytes flue_kube_pair_find(const struct flue_kube_pair *pairs, unsigned count,
                                      const char *key)
{
    for (unsigned i = 0; i < count; i++)
        if (flue_bytes_is(pairs[i].key, key))
            return pairs[i].value;
    return flue_bytes(NULL, 0);
}

struct flue_bytes flue_kube_container_id(struct flue_bytes id)
{
    const uint8_t *colon = id.size ? memchr(id.data, ':', id.size) : NULL;
    size_t at = colon ? (size_t)(colon - id.data) : id.size;
    return id.size - at >= 3 && memcmp(colon, "://", 3) == 0 ? flue_bytes_from(id, at + 3) : id;
}

int64_t flue_kube_time(struct flue_bytes text)
{
    static const char form[] = "0000-00-00T00:00:00Z";
    unsigned n[6] = {0}, field = 0;

    if (text.size != sizeof form - 1)
        return 0;
    for (size_t i = 0; i < text.size; i++) {
        if (form[i] != '0') {
            if (text.data[i] != (uint8_t)form[i])
                return 0;
            field++;
        } else if (text.data[i] < '0' || text.data[i] > '9') {
            return 0;
        } else {
            n[field] = n[field] * 10 + (text.data[i] - '0');
        }
    }
    if (n[0] < 1970 || n[1] < 1 || n[1] > 12 || n[2] < 1 || n[2] > 31)
        return 0;
    /* Days since 1970 of a proleptic Gregorian date: years begin in March. */
    int64_t y = n[1] > 2 ? n[0] : n[0] - 1, m = n[1] > 2 ? n[1] - 3 : n[1] + 9;
    int64_t days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + n[2] - 1 - 719468;
    return days * 86400 + n[3] * 3600 + n[4] * 60 + n[5];
}

/* Calls for every field; a broken message ends the walk with false. */
#define EACH(bytes, r, f)                                                                          \
    struct flue_reader r = flue_reader(bytes);                                                     \
    struct flue_field_value f;                                                                     \
    while (flue_read_field(&r, &f))

static bool read_time(struct flue_bytes bytes, int64_t *out)
{
    EACH(bytes, r, f)
    {
        if (f.number == 1 && f.type == FLUE_VARINT)
            *out = (int64_t)f.varint;
    }
    return flue_reader_done(&r);
}

static bool read_pair(struct flue_bytes bytes, struct flue_kube_pair *pairs, unsigned *count,
                      struct flue_kube_object *out)
{
    struct flue_kube_pair pair = {{NULL, 0}, {NULL, 0}};

    EACH(bytes, r, f)
    {
        if (f.number == 1 && f.type == FLUE_LEN)
            pair.key = f.bytes;
        else if (f.number == 2 && f.type == FLUE_LEN)
            pair.value = f.bytes;
    }
    if (*count < FLUE_KUBE_MAX_LABELS)
        pairs[(*count)++] = pair;
    else
        out->left_out++;
    return flue_reader_done(&r);
}

/* OwnerReference: 1 kind, 3 name, 4 uid, 6 controller */
static bool read_owner(struct flue_bytes bytes, struct flue_kube_object *out)
{
    struct flue_bytes kind = {NULL, 0}, name = {NULL, 0}, uid = {NULL, 0};
    bool controller = false;

    EACH(bytes, r, f)
    {
        if (f.number == 1 && f.type == FLUE_LEN)
            kind = f.bytes;
        else if (f.number == 3 && f.type == FLUE_LEN)
            name = f.bytes;
        else if (f.number == 4 && f.type == FLUE_LEN)
            uid = f.bytes;
        else if (f.number == 6 && f.type == FLUE_VARINT)
            controller = f.varint != 0;
    }
    if (controller) {
        out->owner_kind = kind;
        out->owner_name = name;
        out->owner_uid = uid;
    }
    return flue_reader_done(&r);
}

static bool read_meta(struct flue_bytes bytes, struct flue_kube_object *out)
{
    bool good = true;

    EACH(bytes, r, f)
    {
        if (f.type == FLUE_VARINT) {
            if (f.number == 10)
                out->deletion_grace_s = (int64_t)f.varint;
            continue;
        }
        if (f.type != FLUE_LEN)
            continue;
        switch (f.number) {
        case 1:
            out->name = f.bytes;
            break;
        case 3:
            out->namespace = f.bytes;
            break;
        case 5:
            out->uid = f.bytes;
            break;
        case 6:
            out->resource_version = f.bytes;
            break;
        case 8:
            good &= read_time(f.bytes, &out->created_s);
            break;
        case 9:
            good &= read_time(f.bytes, &out->deletion_s);
            break;
        case 11:
            good &= read_pair(f.bytes, out->labels, &out->label_count, out);
            break;
        case 12:
            good &= read_pair(f.bytes, out->annotations, &out->annotation_count, out);
            break;
        case 13:
            good &= read_owner(f.bytes, out);
            break;
        default:
            break;
        }
    }
    return good && flue_reader_done(&r);
}

/* A container of the same name, or a new one; NULL over the limit. */
struct flue_kube_container_view *flue_kube_object_container(struct flue_kube_object *out,
                                                            struct flue_bytes name)
{
    for (unsigned i = 0; i < out->container_count; i++)
        if (flue_bytes_equal(out->containers[i].name, name))
            return &out->containers[i];
    if (out->container_count == FLUE_KUBE_MAX_CONTAINERS) {
        out->left_out++;
        return NULL;
    }
    struct flue_kube_container_view *c = &out->containers[out->container_count++];
    memset(c, 0, sizeof *c);
    c->name = name;
    return c;
}

/* Container and EphemeralContainerCommon: 1 name, 2 image */
static bool read_container(struct flue_bytes bytes, struct flue_kube_object *out)
{
    struct flue_bytes name = {NULL, 0}, image = {NULL, 0};

    EACH(bytes, r, f)
    {
        if (f.number == 1 && f.type == FLUE_LEN)
            name = f.bytes;
        else if (f.number == 2 && f.type == FLUE_LEN)
            image = f.bytes;
    }
    struct flue_kube_container_view *c = flue_kube_object_container(out, name);
    if (c && image.size)
        c->image = image;
    return flue_reader_done(&r);
}

/* PodSpec: 2 containers, 10 nodeName, 11 hostNetwork, 16 hostname, 20 initContainers,
 * 34 ephemeralContainers (1 common) */
static bool read_spec(struct flue_bytes bytes, struct flue_kube_object *out)
{
    bool good = true;

    EACH(bytes, r, f)
    {
        if (f.number == 11 && f.type == FLUE_VARINT)
            out->host_network = f.varint != 0;
        if (f.type != FLUE_LEN)
            continue;
        if (f.number == 2 || f.number == 20) {
            good &= read_container(f.bytes, out);
        } else if (f.number == 10) {
            out->node_name = f.bytes;
        } else if (f.number == 16) {
            out->hostname = f.bytes;
        } else if (f.number == 34) {
            EACH(f.bytes, common, g)
            {
                if (g.number == 1 && g.type == FLUE_LEN)
                    good &= read_container(g.bytes, out);
            }
            good &= flue_reader_done(&common);
        }
    }
    return good && flue_reader_done(&r);
}

/* ContainerState: 3 terminated { 6 finishedAt, 7 containerID } */
static bool read_state(struct flue_bytes bytes, struct flue_bytes *id, int64_t *finished)
{
    bool good = true;

    EACH(bytes, r, f)
    {
        if (f.number != 3 || f.type != FLUE_LEN)
            continue;
        EACH(f.bytes, terminated, g)
        {
            if (g.number == 6 && g.type == FLUE_LEN)
                good &= read_time(g.bytes, finished);
            else if (g.number == 7 && g.type == FLUE_LEN)
                *id = flue_kube_container_id(g.bytes);
        }
        good &= flue_reader_done(&terminated);
    }
    return good && flue_reader_done(&r);
}

/* ContainerStatus: 1 name, 2 state, 3 lastState, 5 restartCount, 6 image, 7 imageID, 8 containerID
 */
static bool read_status_of_container(struct flue_bytes bytes, struct flue_kube_object *out)
{
    struct flue_kube_container_view c = {.name = {NULL, 0}};
    int64_t unused = 0;
    bool good = true;

    EACH(bytes, r, f)
    {
        if (f.number == 5 && f.type == FLUE_VARINT)
            c.restart_count = (int64_t)f.varint;
        if (f.type != FLUE_LEN)
            continue;
        if (f.number == 1)
            c.name = f.bytes;
        else if (f.number == 2)
            good &= read_state(f.bytes, &c.ids[1], &c.finished_s);
        else if (f.number == 3)
            good &= read_state(f.bytes, &c.ids[2], &unused);
        else if (f.number == 6)
            c.image = f.bytes;
        else if (f.number == 7)
            c.image_id = f.bytes;
        else if (f.number == 8)
            c.ids[0] = flue_kube_container_id(f.bytes);
    }
    struct flue_kube_container_view *known = flue_kube_object_container(out, c.name);
    if (known) {
        struct flue_bytes image = known->image;
        *known = c;
        if (image.size)
            known->image = image;
    }
    return good && flue_reader_done(&r);
}

/* PodStatus: 1 phase, 6 podIP, 7 startTime, 8/10/13 statuses, 12 podIPs { 1 ip } */
static bool read_pod_status(struct flue_bytes bytes, struct flue_kube_object *out)
{
    struct flue_bytes address = {NULL, 0};
    bool good = true;

    EACH(bytes, r, f)
    {
        if (f.type != FLUE_LEN)
            continue;
        switch (f.number) {
        case 1:
            out->phase = f.bytes;
            break;
        case 6:
            address = f.bytes;
            break;
        case 7:
            good &= read_time(f.bytes, &out->start_s);
            break;
        case 8:
        case 10:
        case 13:
            good &= read_status_of_container(f.bytes, out);
            break;
        case 12: {
            EACH(f.bytes, ip, g)
            {
                if (g.number != 1 || g.type != FLUE_LEN || !g.bytes.size)
                    continue;
                if (out->address_count < FLUE_KUBE_MAX_ADDRESSES)
                    out->addresses[out->address_count++] = g.bytes;
                else
                    out->left_out++;
            }
            good &= flue_reader_done(&ip);
            break;
        }
        default:
            break;
        }
    }
    if (!out->address_count && address.size)
        out->addresses[out->address_count++] = address;
    return good && flue_reader_done(&r);
}

/* Fields before the arrays, and the counts: the arrays need no clearing. */
void flue_kube_object_clear(struct flue_kube_object *out)
{
    memset(out, 0, offsetof(struct flue_kube_object, labels));
    out->label_count = out->annotation_count = out->address_count = out->container_count = 0;
    out->left_out = 0;
    out->node_name = out->hostname = out->phase = flue_bytes(NULL, 0);
    out->host_network = false;
    out->start_s = 0;
    out->tree = NULL;
}

enum flue_code flue_kube_object_read(struct flue_bytes protobuf, enum flue_kube_kind kind,
                                     struct flue_kube_object *out, struct flue_error *error)
{
    bool good = true;

    flue_kube_object_clear(out);
    EACH(protobuf, r, f)
    {
        if (f.type != FLUE_LEN)
            continue;
        if (f.number == 1)
            good &= read_meta(f.bytes, out);
        else if (f.number == 2 && kind == FLUE_KUBE_POD)
            good &= read_spec(f.bytes, out);
        else if (f.number == 3 && kind == FLUE_KUBE_POD)
            good &= read_pod_status(f.bytes, out);
    }
    if (!good || !flue_reader_done(&r))
        return flue_fail(error, FLUE_INVALID, "%s: an object of %zu bytes is broken protobuf",
                         flue_kube_kind_name(kind), protobuf.size);
    return FLUE_OK;
}

/* Status: 3 message, 4 reason, 6 code */
static enum flue_code status_protobuf(struct flue_bytes bytes, struct flue_kube_status *out)
{
    EACH(bytes, r, f)
    {
        if (f.number == 3 && f.type == FLUE_LEN)
            out->message = f.bytes;
        else if (f.number == 4 && f.type == FLUE_LEN)
            out->reason = f.bytes;
        else if (f.number == 6 && f.type == FLUE_VARINT)
            out->code = (int64_t)f.varint;
    }
    return flue_reader_done(&r) ? FLUE_OK : FLUE_INVALID;
}

enum flue_code flue_kube_status_read(struct flue_bytes bytes, bool json,
                                     struct flue_kube_status *out)
{
    memset(out, 0, sizeof *out);
    return json ? flue_kube_status_read_json(bytes, out) : status_protobuf(bytes, out);
}
