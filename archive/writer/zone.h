/* zone.h: civil time in a zone of the tz database, without touching the process's TZ.
 *
 * Reads TZif (RFC 8536) version 2 and later; beyond its last transition the last offset holds.
 */
#ifndef FLUE_ARCHIVE_ZONE_H
#define FLUE_ARCHIVE_ZONE_H

#include <stdbool.h>
#include <time.h>

struct flue_zone;
/* NULL zone: local time. Any thread. */
bool flue_zone_time(const struct flue_zone *zone, time_t seconds, struct tm *out);

#endif
