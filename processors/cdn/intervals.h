/* intervals.h: which of some million intervals is a key in? Asked at random, so that the time is
 * that of the cache misses: there is one, or two. The range of the keys is cut into equal slices of
 * some forty starts; the slices are few and stay in the cache, and the starts of one are a block of
 * memory that comes in as a whole. Where starts crowd, a slice is cut into slices again.
 *
 * Built by one thread, then immutable: any thread may look up.
 */
#ifndef FLUE_CDN_INTERVALS_H
#define FLUE_CDN_INTERVALS_H

#include <stddef.h>
#include <stdint.h>

struct flue_intervals;

/* Interval i begins at starts[i] and ends before the next; they ascend, and the first is 0. At
 * least one. NULL: no memory. */
struct flue_intervals *flue_intervals_new(const uint64_t *starts, const uint32_t *values,
                                          size_t count);
void flue_intervals_destroy(struct flue_intervals *intervals); /* NULL: fine */
/* The value of the interval that `key` is in. */
uint32_t flue_intervals_find(const struct flue_intervals *intervals, uint64_t key);
size_t flue_intervals_bytes(const struct flue_intervals *intervals); /* of memory */

#endif
