/* oauth.h: bearer tokens for Google Cloud Storage and Azure Blob; the inside of those stores.
 *
 * Sources: RFC 7523 (JWT bearer), RFC 8693 (token exchange), google-auth
 * compute_engine/_metadata.py, azidentity workload_identity.go, Azure's "How to use managed
 * identities on a VM" and App Service's REST endpoint.
 */
#ifndef FLUE_ARCHIVE_OAUTH_H
#define FLUE_ARCHIVE_OAUTH_H

#include "archive/object/ask.h"
#include "archive/object/offload.h"
#include "archive/object/store.h"

/* One renewal: a plan is made on the pool, then one or two requests follow. */
struct object_oauth {
    struct object_identity *identity;
    struct flue_arena arena; /* of one renewal */
    struct object_offload offload;
    struct object_ask ask;
    struct flue_error error;
    const char *via;
    uint64_t now; /* seconds by the vendor's clock, when the plan began */
    bool clock_tried;
    /* What to ask; set by the plan. */
    const char *endpoint, *method;
    struct flue_bytes path, body;
    bool metadata;           /* the answer must say Metadata-Flavor: Google */
    const char *impersonate; /* URL: a second step with the token of the first */
    /* The plan, on the pool: fills the above, fields included, or error. */
    void (*plan)(struct object_oauth *oauth);
    const void *config;
};

void object_oauth_init(struct object_oauth *oauth, struct object_identity *identity,
                       void (*plan)(struct object_oauth *oauth), const void *config);
void object_oauth_destroy(struct object_oauth *oauth); /* after the identity */
/* endpoint and path of an absolute URL; false: it is none. */
bool object_oauth_url(struct object_oauth *oauth, const char *url);
/* A form as the body, by POST. */
void object_oauth_form(struct object_oauth *oauth, const struct flue_url_pair *pairs, size_t count);
/* {"access_token": …, "expires_in": … or "expires_on": …}; `now` in seconds. */
enum flue_code object_oauth_read(struct flue_bytes json, uint64_t now, struct flue_arena *arena,
                                 struct object_secret *out, struct flue_error *error);

/* google.c and microsoft.c: the plans. `config` is that of the store. */
void object_google_plan(struct object_oauth *oauth);
void object_microsoft_plan(struct object_oauth *oauth);

#endif
