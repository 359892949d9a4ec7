/* sign.h: AWS Signature Version 4 and what else vendors want signed. Pure functions; no secret
 * reaches an error text.
 *
 * Source: Amazon S3, "Signature Calculations for the Authorization Header"; aws-c-auth's test
 * suite. The path is signed as it is sent (escaped once, never normalised: S3's rule; STS is asked
 * at "/" only).
 */
#ifndef FLUE_ARCHIVE_SIGN_H
#define FLUE_ARCHIVE_SIGN_H

#include "collector/base/arena.h"
#include "collector/base/error.h"
#include "collector/net/client.h"

#define FLUE_SIGN_DATE_SIZE 17 /* "20150830T123600Z" */

/* The key of a day is made once: keep one of these, zeroed, beside the credentials. */
struct flue_sign_v4_kept {
    char date[9], region[64];
    uint64_t version; /* of the credentials */
    bool good;
    uint8_t key[32];
};

struct flue_sign_v4 {
    const char *key_id, *secret, *region, *service;
    uint64_t time; /* seconds since 1970 */
    struct flue_bytes method;
    struct flue_bytes path;            /* escaped */
    struct flue_bytes query;           /* as flue_url_query writes it, without "?" */
    const struct flue_header *headers; /* names lower-case; all are signed, `host` and x-amz-date
                                        * among them; at most 48 */
    size_t header_count;
    struct flue_bytes payload; /* value of x-amz-content-sha256 */
    /* May be NULL; else of one service only. `version` changes with key_id and secret. */
    struct flue_sign_v4_kept *kept;
    uint64_t version;
};

/* x-amz-date of a time; `out` holds FLUE_SIGN_DATE_SIZE. */
void flue_sign_date(uint64_t time, char *out);
/* The value of Authorization, in `arena`; *canonical (may be NULL) gets the canonical request, for
 * a debug line when the server disagrees. FLUE_NO_MEMORY only. */
enum flue_code flue_sign_v4(const struct flue_sign_v4 *sign, struct flue_arena *arena,
                            struct flue_bytes *authorization, struct flue_bytes *canonical,
                            struct flue_error *error);
/* The key of a day, region and service. False: OpenSSL failed. */
bool flue_sign_v4_key(const struct flue_sign_v4 *sign, uint8_t out[32]);
bool flue_hmac_sha256(struct flue_bytes key, struct flue_bytes text, uint8_t out[32]);
/* A JWT with RS256: base64url of header and claims (JSON texts), signed by an unencrypted PEM key.
 * FLUE_INVALID: not an RSA key. */
enum flue_code flue_sign_jwt(struct flue_bytes pem, const char *header, const char *claims,
                             struct flue_arena *arena, struct flue_bytes *jwt,
                             struct flue_error *error);

#endif
