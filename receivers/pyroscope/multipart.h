/* multipart.h: the parts of a multipart/form-data body (RFC 7578), in place.
 *
 * Strict: the body must begin with the boundary's line (a preamble is refused), every part must
 * have a name, lines end with CRLF, and the closing delimiter must be there. At most 16 parts, 4
 * KiB of headers a part. Nothing is copied or decoded.
 */
#ifndef RECEIVERS_PYROSCOPE_MULTIPART_H
#define RECEIVERS_PYROSCOPE_MULTIPART_H

#include "collector/base/bytes.h"
#include "collector/base/error.h"

#define FLUE_MULTIPART_MAX_PARTS 16

struct flue_form_part {
    struct flue_bytes name, content_type, content;
    bool file; /* has a file name */
};
struct flue_multipart {
    struct flue_form_part parts[FLUE_MULTIPART_MAX_PARTS];
    size_t count;
};

enum flue_code flue_multipart_read(struct flue_bytes content_type, struct flue_bytes body,
                                   struct flue_multipart *out, struct flue_error *error);
/* The first part of a name, or NULL. */
const struct flue_form_part *flue_multipart_part(const struct flue_multipart *parts,
                                                 const char *name);

#endif
