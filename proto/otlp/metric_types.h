/* metric_types.h: what the values of a sample type are as a counter: time, bytes, or a count.
 *
 * Time is counted in nanoseconds, bytes in bytes. A count of samples whose period is a time stands
 * for that time (count times period); the name is then the period's ("cpu"), so that profilers that
 * count and profilers that measure say the same. What a profile shows is there at a moment (heap in
 * use, goroutines) is no counter: it must not be added up.
 */
#ifndef PROTO_OTLP_METRIC_TYPES_H
#define PROTO_OTLP_METRIC_TYPES_H

#include "collector/base/bytes.h"

enum flue_quantity {
    FLUE_QUANTITY_NONE, /* a state, not to be added up */
    FLUE_QUANTITY_TIME,
    FLUE_QUANTITY_BYTES,
    FLUE_QUANTITY_COUNT,
    FLUE_QUANTITIES
};
struct flue_quantity_type {
    enum flue_quantity quantity;
    uint64_t factor;        /* nanoseconds, bytes or 1 for one of the value */
    struct flue_bytes name; /* borrowed: "cpu", "alloc_space" */
    bool by_period;         /* a count that was made time */
};
/* Nanoseconds of a unit of time ("ns", "milliseconds"), or 0. */
uint64_t flue_time_unit(struct flue_bytes unit);
/* `period` 0 or an unknown period unit: a count stays a count. `measured`: the same samples also
 * come with their time, so that a count stays a count. */
void flue_quantity_of(struct flue_bytes type, struct flue_bytes unit, struct flue_bytes period_type,
                      struct flue_bytes period_unit, int64_t period, bool measured,
                      struct flue_quantity_type *out);

/* value * factor, at least 0, at most INT64_MAX. */
static inline uint64_t flue_quantity_amount(int64_t value, uint64_t factor)
{
    uint64_t product;
    if (value <= 0)
        return 0;
    return __builtin_mul_overflow((uint64_t)value, factor, &product) || product > INT64_MAX
               ? INT64_MAX
               : product;
}

/* At most INT64_MAX. */
static inline void flue_quantity_add(uint64_t *sum, uint64_t amount)
{
    if (__builtin_add_overflow(*sum, amount, sum) || *sum > INT64_MAX)
        *sum = INT64_MAX;
}

#endif
