/* azure_inside.h: what the two files of the Azure store share. */
#ifndef FLUE_ARCHIVE_AZURE_INSIDE_H
#define FLUE_ARCHIVE_AZURE_INSIDE_H

#include "archive/object/azure.h"
#include "archive/object/oauth.h"
#include "archive/object/store.h"

struct azure {
    struct flue_object_store store;
    const struct flue_azure_config *config;
    struct flue_arena arena;
    struct object_oauth oauth;
    struct flue_client *client;
    const char *endpoint, *account;
    struct flue_bytes base; /* "/devstoreaccount1" where the account stands in the path */
    struct flue_bytes key, sas;
    bool tokens;
    bool md5; /* CRC64 is not known there: Content-MD5 */
};

static inline struct azure *azure_of(struct flue_object_store *store)
{
    return (struct azure *)store;
}

/* azure_requests.c */
void object_azure_begin(struct object_op *op);

#endif
