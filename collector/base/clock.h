/* clock.h: the two clocks, and the one place where a test can move them. */
#ifndef FLUE_BASE_CLOCK_H
#define FLUE_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Nanoseconds: monotonic (for deadlines), and since 1970 UTC (for what is written down). */
uint64_t flue_monotonic_ns(void);
uint64_t flue_wall_ns(void);
/* Tests only: moves both clocks of this process from now on. Timers already waiting in the kernel
 * do not wake earlier for it. */
void flue_clock_move(int64_t by_ns);
/* The same for the wall clock alone, as an administrator or NTP does. */
void flue_clock_move_wall(int64_t by_ns);
/* 64 random bits (getrandom at start, then a generator per thread): jitter and ids, no secrets. */
uint64_t flue_random_u64(void);
/* RFC 3339 in UTC with milliseconds, "2026-11-21T08:00:00.000Z"; out holds 25 bytes. */
void flue_format_time(uint64_t wall_ns, char *out);

/* "300ms", "1.5h", "1h30m"; units ns us µs ms s m h, as Go's time.ParseDuration. The sign of a
 * negative one is kept. */
struct flue_bytes;
_Bool flue_parse_duration(struct flue_bytes text, int64_t *ns);
/* Canonical form as Go prints it ("1m30s", "0s"); out holds 32 bytes. */
void flue_format_duration(int64_t ns, char *out);

#endif
