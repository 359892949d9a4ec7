/* object.h: a store of objects, whichever it is: S3, Google Cloud Storage, Azure Blob, a folder.
 *
 * Four requests over collector/net's client, with the vendor's credentials and signature inside:
 * put a whole object, get a range, list a prefix, delete. Names of objects are keys with "/"
 * between their parts; every byte that a vendor or a path could misread is escaped here (for URLs)
 * or was escaped by the layout (archive/layout/key.h). Clock skew is corrected from the answers'
 * Date, a wrong region is followed once and remembered, credentials are renewed before they end,
 * and only one renewal runs at a time.
 *
 * What only an operator can mend (no credentials, access denied, no such bucket) is for a put
 * FLUE_UNAVAILABLE with a long retry_after_ms, so that nothing is lost while it is mended; for the
 * others FLUE_FORBIDDEN, FLUE_UNAUTHENTICATED, FLUE_NOT_FOUND.
 *
 * A store belongs to one loop. Retrying is the caller's: the error's code says whether
 * (flue_code_facts), retry_after_ms when. `done` once, on the loop, never from within.
 */
#ifndef FLUE_ARCHIVE_OBJECT_H
#define FLUE_ARCHIVE_OBJECT_H

#include "collector/base/block.h"
#include "collector/base/loop.h"
#include "collector/base/metrics.h"
#include "collector/net/client.h"
#include "config/field.h"

/* What one get returns at most; more is FLUE_TOO_LARGE (ask for ranges). */
#define FLUE_OBJECT_GET_LIMIT (256u * 1024 * 1024)
/* Bytes of a key. It is UTF-8 without NUL; a folder also refuses parts that are empty, "." or "..",
 * longer than 255 bytes or begin with ".flue-", Azure a backslash: all FLUE_INVALID. */
#define FLUE_OBJECT_KEY_LIMIT 1024

struct flue_object_store;

enum flue_object_create {
    FLUE_OBJECT_OVERWRITE, /* the key is a function of the bytes: writing it again is harmless */
    FLUE_OBJECT_CREATE     /* refuse when it is there (FLUE_REFUSED, `existed`) */
};

struct flue_object_request {
    struct flue_object_store *store;
    struct flue_bytes key; /* borrowed until done */
    /* put */
    const struct flue_slices *body;              /* borrowed until done; checksummed on the way */
    const char *content_type, *content_encoding; /* NULL: none */
    const uint8_t *sha256; /* 32 bytes, borrowed until done: of the body, from who has hashed it
                            * already; NULL: not known */
    enum flue_object_create create;
    /* get: `size` 0 means to the end; a negative offset counts from the end (offset -n, size n);
     * of an object shorter than n it is the whole. Past the end: FLUE_INVALID. */
    int64_t offset;
    uint64_t size;
    /* list: keys after `start_after` with prefix `key`, in order; `delimiter` '/' folds folders */
    struct flue_bytes start_after;
    char delimiter; /* 0: none */
    unsigned limit; /* keys of one answer; 0: the vendor's */

    uint64_t deadline_ns;
    void (*done)(struct flue_object_request *request);
    void *user;

    /* The result. error.code FLUE_OK; FLUE_NOT_FOUND; or why not. Valid in done. */
    struct flue_error error;
    bool existed;
    struct flue_block *data;           /* get; one reference is the caller's */
    uint64_t object_size;              /* get: of the whole object */
    struct flue_object_listed *listed; /* list; borrowed until done returns */
    size_t listed_count;
    bool truncated;  /* list: there are more, after the last key */
    void *transport; /* the store's own, as is the next */
    struct flue_task task;
};
struct flue_object_listed {
    struct flue_bytes key; /* or a folded folder, ending in the delimiter */
    bool folder;
    uint64_t size;
    int64_t modified; /* seconds since 1970; 0: not said */
};

void flue_object_put(struct flue_object_request *request);
void flue_object_get(struct flue_object_request *request);
void flue_object_list(struct flue_object_request *request);
void flue_object_delete(struct flue_object_request *request); /* of what is not there: FLUE_OK */
/* done follows, FLUE_CANCELLED; of a body that goes up in parts when those are aborted (10 s at
 * most). */
void flue_object_cancel(struct flue_object_request *request);
/* Open requests end with FLUE_CANCELLED first. */
void flue_object_store_destroy(struct flue_object_store *store); /* NULL: fine */

/* One constant per vendor: what the exporters and `flue fetch` know of it. */
struct flue_object_vendor {
    const char *name;           /* "s3", "gcs", "azure", "folder" */
    const char *const *schemes; /* of URLs for `flue fetch`: "s3", "gs", "az", "file" */
    size_t config_size;
    const struct flue_field *fields; /* of its connection keys, see vendor headers */
    void (*check)(const void *config, struct flue_check *check);
    /* `config` must outlive the store; `metrics` may be NULL. On the loop's thread, or before the
     * loops run. No I/O: credentials are looked for with the first request. One store is one
     * bucket (container, folder): who needs several opens several. */
    enum flue_code (*open)(const void *config, struct flue_loop *loop, struct flue_metrics *metrics,
                           struct flue_object_store **out, struct flue_error *error);
    /* s3://bucket/prefix?region=…&endpoint=… to a config (zeroed, defaults filled in) and a prefix;
     * strings in `arena`. */
    enum flue_code (*from_url)(const char *url, struct flue_arena *arena, void *config,
                               struct flue_bytes *prefix, struct flue_error *error);
};
extern const struct flue_object_vendor flue_object_s3, flue_object_gcs, flue_object_azure,
    flue_object_folder;

#endif
