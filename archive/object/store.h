/* store.h: what the vendors share; nobody outside this folder includes it.
 *
 * A request (object.h) is one `object_op`; it makes one or several `object_call`s, each an HTTP
 * request with credentials and a signature, which a vendor's judge may have sent again once (clock,
 * region, credentials). All on the store's loop; digests of large bodies on the pool.
 *
 *   store.c      ops and calls from begin to done
 *   identity.c   credentials that end: one renewal at a time, in time
 *   ask.c        one HTTP request to an endpoint of its own (metadata, tokens)
 *   upload.c     bodies in parts
 */
#ifndef FLUE_ARCHIVE_STORE_H
#define FLUE_ARCHIVE_STORE_H

#include <uv.h>
#include "archive/object/date.h"
#include "archive/object/digest.h"
#include "archive/object/escape.h"
#include "archive/object/identity.h"
#include "archive/object/object.h"
#include "collector/base/clock.h"

#define OBJECT_SECOND  UINT64_C(1000000000)
#define OBJECT_SINGLE  (100u * 1024 * 1024) /* larger bodies go up in parts */
#define OBJECT_PART    (16u * 1024 * 1024)
#define OBJECT_INLINE  (256u * 1024) /* larger bodies are digested on the pool */
#define OBJECT_PAIRS   16
#define OBJECT_FIELDS  32
#define OBJECT_HELD_MS 30000u /* what only an operator can mend: how long to wait */

enum object_kind { OBJECT_PUT, OBJECT_GET, OBJECT_LIST, OBJECT_DELETE, OBJECT_KINDS };

struct object_upload;

struct object_op {
    struct flue_object_request *request;
    struct flue_object_store *store;
    struct object_op *next, *previous;
    enum object_kind kind;
    struct flue_arena arena; /* as long as the op */
    unsigned calls;          /* not done */
    bool cancelled, finished, delivered;
    struct flue_timer later;      /* done is never called from within */
    struct object_upload *upload; /* of a body in parts; in arena */
    void *own;                    /* the vendor's; in arena */
};

struct object_call {
    struct flue_object_store *store;
    struct object_op *op;
    struct object_call *next, *previous;
    struct flue_arena arena;

    /* What is asked, without credentials; set between object_call_new and object_call_start. */
    const char *method;
    struct flue_bytes key; /* "": the bucket; not escaped */
    struct flue_url_pair query[OBJECT_PAIRS];
    size_t query_count;
    struct flue_header fields[OBJECT_FIELDS];
    size_t field_count;
    const struct flue_slices *body; /* NULL: none */
    unsigned digests;               /* wanted of the body */
    const uint8_t *sha256;          /* of the body, when it is known already */
    struct flue_digest digest;
    const char *url_path; /* GCS: instead of the key, escaped, with its query */
    unsigned part;
    void (*done)(struct object_call *call); /* error is set; the call is freed afterwards */

    /* Its life. */
    enum { OBJECT_NEW, OBJECT_DIGESTING, OBJECT_WAITING, OBJECT_SENT, OBJECT_DONE } state;
    bool cancelled;
    bool cleaning; /* takes away what a failed op left; its outcome is nobody's, 10 s at most */
    bool skew_tried, region_tried, identity_tried, condition_tried;
    int probe;                 /* the vendor's: another request goes first */
    uint64_t identity_version; /* credentials it was signed with */
    struct flue_timer later;
    struct object_waiter waiter;
    struct object_digest_job *job;
    struct flue_header sent[OBJECT_FIELDS + 16];
    size_t sent_count;
    struct flue_bytes canonical; /* what was signed, for a debug line */
    struct flue_call http;

    struct flue_error error;
    bool existed;
};

struct object_driver {
    const char *vendor;
    void (*begin)(struct object_op *op);
    /* http.client, path, headers: signed for now. Not FLUE_OK: the call ends so. */
    enum flue_code (*prepare)(struct object_call *call, struct flue_error *error);
    /* http.error is FLUE_OK and an answer is there: fills call->error; true: prepare again. */
    bool (*judge)(struct object_call *call);
    void (*destroy)(struct flue_object_store *store);    /* after all calls: clients, itself */
    void (*disconnect)(struct flue_object_store *store); /* clients: open calls are cancelled */
};

struct flue_object_store {
    const struct object_driver *driver;
    struct flue_loop *loop;
    struct object_identity identity; /* .renew NULL: none */
    struct object_op *ops;
    struct object_call *calls;
    struct flue_metrics *metrics;
    struct flue_metric *counted[OBJECT_KINDS][FLUE_CODES];
    char label[128]; /* "S3 bucket \"x\"", printable */
    bool closing;
};

/* ---- ops ------------------------------------------------------------------------------------ */

/* Ends the op with what stands in request->error, when its last call is done. */
void object_op_finish(struct object_op *op);
void object_op_fail(struct object_op *op, enum flue_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A single call's error becomes the op's. */
void object_op_take(struct object_op *op, const struct object_call *call);
/* A single call's answer is the op's. */
void object_op_answered(struct object_call *call);
void object_op_data(struct object_op *op, struct flue_bytes data);
/* The answer to a GET, of the whole or a range, becomes request->data. `damaged`: the checksum that
 * came with a whole object is not that of its bytes. A suffix that cannot be had (416) is the end
 * of an empty object. */
void object_op_got(struct object_call *call,
                   bool (*damaged)(struct object_call *call, struct flue_bytes data));
void object_op_listed(struct object_op *op, struct flue_object_listed *items, size_t count,
                      bool truncated);
/* By key, as every vendor's list is given out. */
void object_sort_listed(struct flue_object_listed *items, size_t count);
/* "bytes=a-b" of the request, or "" for the whole; out holds 64. */
void object_range(const struct flue_object_request *request, char *out);
/* "bytes 0-9/100": the total; false: not stated. */
bool object_content_range(struct flue_bytes text, uint64_t *from, uint64_t *total);
bool object_status_ok(const struct object_call *call);
/* `said` is base64 of a digest (FLUE_DIGEST_) of other bytes. False where it cannot be told. */
bool object_digest_differs(struct flue_bytes data, unsigned which, struct flue_bytes said);
bool object_is_one_of(struct flue_bytes text, const char *const *names); /* up to a NULL */

/* ---- calls ---------------------------------------------------------------------------------- */

/* NULL: no memory (the op has failed by then). */
struct object_call *object_call_new(struct flue_object_store *store, struct object_op *op,
                                    const char *method, struct flue_bytes key,
                                    void (*done)(struct object_call *call));
void object_call_query(struct object_call *call, const char *name, struct flue_bytes value);
/* `value` is copied; NULL or "": no field. */
void object_call_field(struct object_call *call, const char *name, const char *value);
/* The body is what the buffer holds, which is destroyed. */
void object_call_text(struct object_call *call, struct flue_buffer *text);
/* For prepare: a field that is sent, beside those of the call. */
void object_call_send_field(struct object_call *call, const char *name, const char *value);
void object_call_start(struct object_call *call);
void object_call_cancel(struct object_call *call);
/* Network text for messages: printable, at most 200 characters; in the call's arena. */
const char *object_printable(struct object_call *call, struct flue_bytes b);
/* Seconds since 1970 by the vendor's clock. */
uint64_t object_now(const struct flue_object_store *store);
/* Once a call: the answer's Date differs from object_now, which is it from now on; sign again. */
bool object_take_date(struct object_call *call);

/* ---- one store ------------------------------------------------------------------------------ */

void object_store_init(struct flue_object_store *store, const struct object_driver *driver,
                       struct flue_loop *loop, struct flue_metrics *metrics, const char *what,
                       const char *name);
/* The end of an open: *out, or with a `code` nothing is left. */
enum flue_code object_store_opened(struct flue_object_store *store, enum flue_code code,
                                   struct flue_object_store **out);
enum flue_code object_client_new(struct flue_loop *loop, const char *endpoint,
                                 const struct flue_tls_client_config *tls, struct flue_client **out,
                                 struct flue_error *error);
/* Key of a put, get or delete: 1 to 1024 bytes of UTF-8 without NUL. */
enum flue_code object_key_check(struct flue_bytes key, struct flue_error *error);

/* ---- bodies in parts (upload.c) ------------------------------------------------------------- */

struct object_upload_driver {
    /* Begins with a call of its own that ends in object_upload_begun; NULL: nothing to begin. */
    void (*begin)(struct object_op *op);
    /* Adds to `call` what a part needs; its body and key are set. */
    void (*part)(struct object_op *op, struct object_call *call, unsigned part);
    /* A part is there: keep what commit needs. False: request->error says why not. */
    bool (*stored)(struct object_op *op, struct object_call *call, unsigned part);
    void (*commit)(struct object_op *op); /* ends the op */
    void (*abort)(struct object_op *op);  /* starts a call that is `cleaning`, or nothing */
};
struct object_upload {
    const struct object_upload_driver *driver;
    unsigned parts, next, running, stored;
    size_t part_size;
    unsigned digests;
    struct flue_slices *bodies;
    struct flue_bytes id;
    char (*etags)[96];
    uint8_t *tries;
    bool failed, begun;
};
/* `most_parts`: the vendor's limit. */
void object_upload_start(struct object_op *op, const struct object_upload_driver *driver,
                         unsigned most_parts, unsigned digests);
void object_upload_begun(struct object_op *op);
void object_upload_fail(struct object_op *op); /* request->error is set */

#endif
