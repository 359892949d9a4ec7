/* cut.h: cuts the body of a list or of a watch into objects while it arrives.
 *
 * A list may be a gigabyte: only the object that is arriving is held. Four forms:
 *   protobuf list   "k8s\0" Unknown { 2 raw: XList { 1 ListMeta, 2 item ... } }
 *   protobuf watch  frames of 4 bytes length, big-endian, each a WatchEvent { 1 type, 2 { 1 raw:
 *                   "k8s\0" Unknown { 2 raw: object } } }
 *   JSON list       { ..., "metadata": {...}, "items": [ {...}, ... ] }
 *   JSON watch      { "type": ..., "object": {...} } one behind the other
 * An object over FLUE_KUBE_MAX_OBJECT is stepped over without being held, and counted. One thread.
 *
 * Sources: apimachinery runtime/serializer/protobuf, util/framer; meta/v1 generated.proto.
 */
#ifndef FLUE_KUBERNETES_CUT_H
#define FLUE_KUBERNETES_CUT_H

#include "collector/base/bytes.h"
#include "collector/base/error.h"

#define FLUE_KUBE_MAX_OBJECT (4u << 20) /* etcd takes 1.5 MiB */

enum flue_kube_form {
    FLUE_KUBE_PROTOBUF_LIST,
    FLUE_KUBE_PROTOBUF_WATCH,
    FLUE_KUBE_JSON_LIST,
    FLUE_KUBE_JSON_WATCH
};

enum flue_kube_event {
    FLUE_KUBE_LISTED, /* an item of a list */
    FLUE_KUBE_ADDED,
    FLUE_KUBE_MODIFIED,
    FLUE_KUBE_DELETED,
    FLUE_KUBE_BOOKMARK,
    FLUE_KUBE_ERROR,    /* the object is a Status */
    FLUE_KUBE_LIST_META /* what a list says of itself: ListMeta (protobuf), or JSON's metadata */
};

/* The object's own bytes (without any envelope), valid during the call; false ends the body. */
typedef bool (*flue_kube_cut_sink)(void *arg, enum flue_kube_event event, struct flue_bytes object);

struct flue_kube_cut {
    enum flue_kube_form form;
    flue_kube_cut_sink sink;
    void *arg;
    uint8_t *data; /* what has come of the object that is not complete */
    size_t size, room;
    size_t scanned; /* JSON: of `data` */
    uint64_t skip;  /* bytes still to be stepped over */
    uint64_t left;  /* protobuf list: of the raw content */
    unsigned stage; /* protobuf list: 0 before magic, 1 in Unknown, 2 in XList */
    unsigned depth; /* JSON */
    bool text, escape, in_items, oversize;
    size_t start; /* JSON: of the object that is being scanned, within `data` */
    char key[16]; /* JSON: the key before the value at depth 1 */
    uint64_t skipped;
};

void flue_kube_cut_init(struct flue_kube_cut *cut, enum flue_kube_form form,
                        flue_kube_cut_sink sink, void *arg);
/* FLUE_INVALID: broken; FLUE_CANCELLED: the sink ended it; FLUE_NO_MEMORY. */
enum flue_code flue_kube_cut_feed(struct flue_kube_cut *cut, struct flue_bytes piece,
                                  struct flue_error *error);
/* Is the body complete here, at its end? */
bool flue_kube_cut_complete(const struct flue_kube_cut *cut);
void flue_kube_cut_destroy(struct flue_kube_cut *cut);

/* The content of a runtime.Unknown with its magic; false if it is none. */
bool flue_kube_unknown(struct flue_bytes bytes, struct flue_bytes *raw);
/* The fields of a ListMeta: resourceVersion and continue. JSON borrows from *tree. */
struct flue_kube_list_meta {
    struct flue_bytes resource_version, more;
    void *tree;
};
bool flue_kube_list_meta_read(struct flue_bytes bytes, bool json, struct flue_kube_list_meta *out);
void flue_kube_list_meta_done(struct flue_kube_list_meta *meta);

#endif
