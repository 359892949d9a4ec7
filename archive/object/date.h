/* date.h: times as object stores and token services write them; seconds since 1970. */
#ifndef FLUE_ARCHIVE_DATE_H
#define FLUE_ARCHIVE_DATE_H

#include "collector/base/bytes.h"

bool object_http_date(struct flue_bytes text, uint64_t *seconds);
bool object_iso_date(struct flue_bytes text, uint64_t *seconds); /* 2026-11-21T11:00:00(.123)Z */
void object_rfc1123(uint64_t seconds, char *out);                /* out holds 30 */

#endif
