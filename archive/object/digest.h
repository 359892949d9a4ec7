/* digest.h: what vendors want to know of a body, computed in one walk over its slices. Any thread.
 */
#ifndef FLUE_ARCHIVE_DIGEST_H
#define FLUE_ARCHIVE_DIGEST_H

#include "collector/base/block.h"

enum { /* or'ed */
       FLUE_DIGEST_SHA256 = 1,
       FLUE_DIGEST_MD5 = 2,
       FLUE_DIGEST_CRC32 = 4,
       FLUE_DIGEST_CRC32C = 8,
       FLUE_DIGEST_CRC64NVME = 16, /* Azure's CRC64 is the same one */
       FLUE_DIGEST_SHA1 = 32
};

struct flue_digest {
    unsigned which;
    uint8_t sha256[32], md5[16], sha1[20];
    uint32_t crc32, crc32c;
    uint64_t crc64nvme;
};

/* NULL slices: the empty body. FLUE_NO_MEMORY only. */
enum flue_code flue_digest_make(const struct flue_slices *slices, unsigned which,
                                struct flue_digest *out, struct flue_error *error);
/* Base64 of the big-endian value of the one digest `which`; `out` holds 48 bytes, terminated. */
void flue_digest_base64(const struct flue_digest *digest, unsigned which, char *out);

#endif
