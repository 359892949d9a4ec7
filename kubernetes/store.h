/* store.h: what is known of pods, namespaces, nodes and workloads, and how it is looked up.
 *
 * One writer (the watcher's thread) and up to 64 readers (the loops). A record is immutable once it
 * can be found, but for the moments at which its keys ended, which are atomic; a change makes a new
 * record. One open table of links leads from every key (container id, pod uid, address, name) to
 * its record; readers walk it between flue_kube_enter and flue_kube_leave and never wait (epoch.h).
 * Where the table must grow, the writer fills a larger one and swaps it in.
 *
 * A pod that is gone, or an address or container id that its pod no longer has, stays known for the
 * grace period with the moment it ended. Intervals are outer bounds: from the start that the
 * kubelet gave the pod until the end was seen here (for a finished pod: until its last container
 * finished). So when only one pod can have had an address at a time, that one had it; else there is
 * doubt. The moments are of many clocks (of the pod's node, of the API server, of this host):
 * another pod within `apart_ns` of the time that is asked for is doubt, too.
 *
 * Memory is bounded by `limit`: an object that would pass it is left out and counted.
 */
#ifndef FLUE_KUBERNETES_STORE_H
#define FLUE_KUBERNETES_STORE_H

#include "collector/base/metrics.h"
#include "kubernetes/epoch.h"
#include "kubernetes/object.h"
#include "kubernetes/strings.h"

#define FLUE_KUBE_MAX_EXTRACTED 256 /* attributes of one object by rules */
#define FLUE_KUBE_GENERATIONS   1024

enum flue_kube_key_type {
    FLUE_KUBE_BY_CONTAINER = 1, /* container id */
    FLUE_KUBE_BY_UID,           /* pod uid, and a static pod's hash */
    FLUE_KUBE_BY_ADDRESS,       /* 4 or 16 bytes */
    FLUE_KUBE_BY_NAME,          /* pod, "namespace/name" */
    FLUE_KUBE_BY_OBJECT = 16    /* + kind: another object, "namespace/name" ("/name" without) */
};

/* A key of a record; lies in the record. */
struct flue_kube_entry {
    uint64_t hash;
    _Atomic int64_t ended_ns; /* wall clock; INT64_MAX: it has not */
    /* BY_ADDRESS: another entry of the same address; the table has but the first of them. */
    _Atomic(struct flue_kube_entry *) same;
    uint16_t record; /* how far before this entry its record begins */
    uint16_t key;    /* where in the record's text */
    uint8_t key_size, type;
    int8_t container; /* BY_CONTAINER: which; else -1 */
    bool linked;      /* the writer's: in the table */
};

struct flue_kube_extracted { /* an attribute that a rule made of a label or annotation */
    struct flue_kube_string *name, *value;
};

struct flue_kube_container {
    struct flue_kube_string *name, *image, *image_id;
    uint16_t id, id_size; /* of now, in the record's text */
    int32_t restart_count;
};

/* One object. Not touched by readers: `links`, `seen`. */
struct flue_kube_record {
    struct flue_kube_retired retired;
    struct flue_kube_record *before, *after; /* list of its kind, or of what waits for its end */
    uint64_t serial;                         /* never given twice */
    uint64_t seen;                           /* the list in which it was last seen */
    int64_t forget_ns;                       /* in the waiting list: monotonic */
    enum flue_kube_kind kind;
    bool ignored;  /* by exclude, or by annotation: it gets no attributes */
    bool gone;     /* deleted */
    bool waits;    /* in the waiting list */
    bool finished; /* Succeeded or Failed */
    uint8_t entry_count;
    uint16_t container_count, extracted_count;
    uint16_t name, name_size, uid, uid_size, address, address_size; /* in the text */
    uint32_t size;                                                  /* in bytes, of all of it */
    int64_t start_ns;  /* pods: status.startTime, else created */
    int64_t ending_ns; /* when its deletion was asked for; INT64_MAX: it was not */
    struct flue_kube_string *namespace, *node, *hostname;
    struct flue_kube_string *owner_kind, *owner_name, *owner_uid, *deployment;
    struct flue_kube_entry *entries;
    struct flue_kube_container *containers;
    struct flue_kube_extracted *extracted;
    char *text;
};

static inline struct flue_bytes flue_kube_record_text(const struct flue_kube_record *record,
                                                      uint16_t at, uint16_t size)
{
    return flue_bytes(record->text + at, size);
}

/* Called by the writer for every object: what of it becomes attributes. May set `ignored`. */
struct flue_kube_extract {
    struct flue_kube_pair pairs[FLUE_KUBE_MAX_EXTRACTED]; /* attribute name and value */
    unsigned count;
    bool ignored;
    char scratch[8192]; /* for names that are put together */
    size_t scratch_used;
};
typedef void (*flue_kube_extractor)(void *arg, enum flue_kube_kind kind,
                                    const struct flue_kube_object *object,
                                    struct flue_kube_extract *out);

struct flue_kube_store_spec {
    flue_kube_extractor extract;
    void *arg;
    int64_t grace_ns;
    int64_t apart_ns; /* how far clocks, and what the API says and what is, may be apart */
    size_t limit;     /* bytes; 0: 1 GiB */
    bool index_names; /* pods by namespace and name too */
};

struct flue_kube_store;
enum flue_code flue_kube_store_new(const struct flue_kube_store_spec *spec,
                                   struct flue_kube_store **out, struct flue_error *error);
void flue_kube_store_destroy(struct flue_kube_store *store); /* no reader, no writer */

/* ---- the writer ------------------------------------------------------------------------------ */

/* A complete list of this kind begins; what was not put again when it ends is gone. */
void flue_kube_store_begin(struct flue_kube_store *store, enum flue_kube_kind kind);
void flue_kube_store_end(struct flue_kube_store *store, enum flue_kube_kind kind);
/* False: left out (no memory, over the limit). An object that says nothing new keeps its record.
 * `change`: it came as MODIFIED; of one that is gone that is an old word, and ignored. */
bool flue_kube_store_put(struct flue_kube_store *store, enum flue_kube_kind kind,
                         const struct flue_kube_object *object, bool change);
/* One that is not known is ignored. */
void flue_kube_store_delete(struct flue_kube_store *store, enum flue_kube_kind kind,
                            const struct flue_kube_object *object);
/* Forgets what has been gone for the grace period, frees what nobody reads. Once a second and after
 * every piece of input. */
void flue_kube_store_tick(struct flue_kube_store *store);
/* Up to when (wall clock) it is known who had which address and name: what the server had said by
 * then has been read. */
void flue_kube_store_set_current(struct flue_kube_store *store, uint64_t until_ns);
/* Has a reader asked for it since the last call? */
bool flue_kube_store_asked(struct flue_kube_store *store);

/* ---- readers --------------------------------------------------------------------------------- */

struct flue_kube_epochs *flue_kube_store_epochs(struct flue_kube_store *store);
/* Asking makes the writer find out anew. */
uint64_t flue_kube_store_current(struct flue_kube_store *store);

/* Between enter and leave; what is found may be looked at until leave. */
const struct flue_kube_record *flue_kube_find_container(struct flue_kube_store *store,
                                                        struct flue_bytes id, int *container);
/* NULL, too, where two pods that live claim it: anybody may write a static pod's hash into an
 * annotation. */
const struct flue_kube_record *flue_kube_find_uid(struct flue_kube_store *store,
                                                  struct flue_bytes uid);
/* A namespace, node or workload; `namespace` empty where it has none. */
const struct flue_kube_record *flue_kube_find_object(struct flue_kube_store *store,
                                                     enum flue_kube_kind kind,
                                                     struct flue_bytes namespace,
                                                     struct flue_bytes name);
enum flue_kube_owner { FLUE_KUBE_NOBODY, FLUE_KUBE_ONE, FLUE_KUBE_DOUBT };
/* The pod that had this address (text) over all of [from, until] (wall clock). DOUBT: more than one
 * may have had it within apart_ns of that time, it began later, ended before, or its end had been
 * asked for. */
enum flue_kube_owner flue_kube_find_address(struct flue_kube_store *store,
                                            struct flue_bytes address, int64_t from_ns,
                                            int64_t until_ns, const struct flue_kube_record **out);
/* The same for a pod's name, which a StatefulSet gives to one pod after the other. */
enum flue_kube_owner flue_kube_find_name(struct flue_kube_store *store, struct flue_bytes namespace,
                                         struct flue_bytes name, int64_t from_ns, int64_t until_ns,
                                         const struct flue_kube_record **out);
/* A number that changes whenever the object of this name did (or one whose name shares its slot):
 * what was made from the object is good as long as it stays. Lives as long as the store. */
const _Atomic uint32_t *flue_kube_generation(struct flue_kube_store *store,
                                             enum flue_kube_kind kind, struct flue_bytes namespace,
                                             struct flue_bytes name);
/* 4, 16, or 0 if the text is no address; a v4 address in a v6 one is the v4 one. */
unsigned flue_kube_address(struct flue_bytes text, uint8_t out[16]);

struct flue_kube_store_stats {
    _Atomic uint64_t records[FLUE_KUBE_KINDS]; /* that the API has now */
    _Atomic uint64_t waiting;                  /* gone, in their grace period */
    _Atomic uint64_t bytes;
    _Atomic uint64_t left_out;
};
const struct flue_kube_store_stats *flue_kube_store_stats(const struct flue_kube_store *store);

#endif
