/* object.h: what flue looks at in an object of the Kubernetes API, whatever it was encoded in.
 *
 * One struct for all kinds: metadata for every kind, and what `spec` and `status` say for pods.
 * Reading borrows: strings point into the bytes that were read (protobuf) or into a JSON tree that
 * the object keeps (flue_kube_object_done gives it back). What is over a limit below is left out
 * and counted in `left_out`; managedFields and everything else is stepped over.
 *
 * Field numbers: k8s.io/api core/v1 and k8s.io/apimachinery meta/v1 generated.proto. One thread.
 */
#ifndef FLUE_KUBERNETES_OBJECT_H
#define FLUE_KUBERNETES_OBJECT_H

#include "collector/base/bytes.h"
#include "collector/base/error.h"

#define FLUE_KUBE_MAX_LABELS     256 /* labels, and as many annotations, of one object */
#define FLUE_KUBE_MAX_CONTAINERS 128 /* init and ephemeral ones included */
#define FLUE_KUBE_MAX_ADDRESSES  8
#define FLUE_KUBE_MAX_DEPTH      32 /* of JSON */

enum flue_kube_kind {
    FLUE_KUBE_POD,
    FLUE_KUBE_NAMESPACE,
    FLUE_KUBE_NODE,
    FLUE_KUBE_REPLICASET,
    FLUE_KUBE_DEPLOYMENT,
    FLUE_KUBE_STATEFULSET,
    FLUE_KUBE_DAEMONSET,
    FLUE_KUBE_JOB,
    FLUE_KUBE_CRONJOB,
    FLUE_KUBE_KINDS
};
/* "pods"; the rest of the API's words for it are in watch.c. */
const char *flue_kube_kind_name(enum flue_kube_kind kind);

struct flue_kube_pair {
    struct flue_bytes key, value;
};

struct flue_kube_container_view {
    struct flue_bytes name, image; /* image as in the spec, else as in the status */
    struct flue_bytes image_id;    /* status.imageID */
    /* Of now, of the state it ended in, and of the run before; without "containerd://". */
    struct flue_bytes ids[3];
    int64_t restart_count;
    int64_t finished_s; /* seconds since 1970; 0: runs, or it is not said */
};

struct flue_kube_object {
    /* metadata */
    struct flue_bytes name, namespace, uid, resource_version;
    int64_t created_s, deletion_s; /* seconds since 1970; 0: not there */
    int64_t deletion_grace_s;
    struct flue_bytes owner_kind, owner_name, owner_uid; /* the one with controller: true */
    struct flue_kube_pair labels[FLUE_KUBE_MAX_LABELS];
    struct flue_kube_pair annotations[FLUE_KUBE_MAX_LABELS];
    unsigned label_count, annotation_count;
    /* pods */
    struct flue_bytes node_name, hostname, phase;
    struct flue_bytes addresses[FLUE_KUBE_MAX_ADDRESSES]; /* podIPs, or podIP alone */
    unsigned address_count;
    bool host_network;
    int64_t start_s;
    struct flue_kube_container_view containers[FLUE_KUBE_MAX_CONTAINERS];
    unsigned container_count;

    unsigned left_out; /* labels, containers, addresses over a limit */
    void *tree;        /* of JSON */
};

/* A Status, as the API answers when it refuses, and as an ERROR event carries. */
struct flue_kube_status {
    struct flue_bytes reason, message;
    int64_t code;
    void *tree;
};

/* `out` need not be cleared. FLUE_INVALID: broken. */
enum flue_code flue_kube_object_read(struct flue_bytes protobuf, enum flue_kube_kind kind,
                                     struct flue_kube_object *out, struct flue_error *error);
enum flue_code flue_kube_object_read_json(struct flue_bytes json, enum flue_kube_kind kind,
                                          struct flue_kube_object *out, struct flue_error *error);
void flue_kube_object_done(struct flue_kube_object *object);

/* Of the content of a runtime.Unknown, or JSON. */
enum flue_code flue_kube_status_read(struct flue_bytes bytes, bool json,
                                     struct flue_kube_status *out);
void flue_kube_status_done(struct flue_kube_status *status);

/* Empty if not there. */
struct flue_bytes flue_kube_pair_find(const struct flue_kube_pair *pairs, unsigned count,
                                      const char *key);

/* RFC 3339 in UTC with whole seconds, as the API writes times; 0 for anything else. */
int64_t flue_kube_time(struct flue_bytes text);
/* Without "containerd://". */
struct flue_bytes flue_kube_container_id(struct flue_bytes id);

#endif
