/* base64.h: RFC 4648, both ways. Pure functions. */
#ifndef FLUE_BASE_BASE64_H
#define FLUE_BASE_BASE64_H

#include "collector/base/bytes.h"

/* Standard or URL-safe alphabet, with or without padding, as protobuf's JSON mapping and gRPC's
 * binary headers ask readers to take. `out` holds flue_base64_room(text.size). False on anything
 * else. */
static inline size_t flue_base64_room(size_t text_size)
{
    return text_size / 4 * 3 + 3;
}
bool flue_base64_decode(struct flue_bytes text, uint8_t *out, size_t *out_size);
/* Standard alphabet with padding; `out` holds (size + 2) / 3 * 4 characters, no NUL. */
void flue_base64_encode(struct flue_bytes bytes, char *out);

#endif
