/* azure_sign.h: Azure Storage's shared key signature. Pure.
 *
 * Source: azure-sdk-for-go shared_key_credential.go (2015-02-21 and later: a Content-Length of 0
 * is left empty).
 */
#ifndef FLUE_ARCHIVE_AZURE_SIGN_H
#define FLUE_ARCHIVE_AZURE_SIGN_H

#include "archive/object/escape.h"
#include "collector/base/error.h"
#include "collector/net/client.h"

struct flue_azure_sign {
    const char *account;
    struct flue_bytes key;             /* decoded */
    struct flue_bytes method, path;    /* as sent, escaped */
    const struct flue_url_pair *query; /* not escaped; names in lower case */
    size_t query_count;
    const struct flue_header *headers; /* names in lower case */
    size_t header_count;
    uint64_t content_length;
};
/* The string to sign, and the value of Authorization; both in `arena`. */
enum flue_code flue_azure_sign(const struct flue_azure_sign *sign, struct flue_arena *arena,
                               struct flue_bytes *text, struct flue_bytes *authorization,
                               struct flue_error *error);

#endif
