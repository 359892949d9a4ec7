/* metric_types.c: see metric_types.h. Names are those that the profilers of docs/conversion.md
 * write. */
#include "proto/otlp/metric_types.h"

struct unit {
    struct flue_bytes name;
    uint64_t factor;
};

static const struct unit times[] = {{FLUE_BYTES_INIT("nanoseconds"), 1},
                                    {FLUE_BYTES_INIT("ns"), 1},
                                    {FLUE_BYTES_INIT("nanosecond"), 1},
                                    {FLUE_BYTES_INIT("microseconds"), 1000},
                                    {FLUE_BYTES_INIT("us"), 1000},
                                    {FLUE_BYTES_INIT("microsecond"), 1000},
                                    {FLUE_BYTES_INIT("milliseconds"), 1000000},
                                    {FLUE_BYTES_INIT("ms"), 1000000},
                                    {FLUE_BYTES_INIT("millisecond"), 1000000},
                                    {FLUE_BYTES_INIT("seconds"), 1000000000},
                                    {FLUE_BYTES_INIT("s"), 1000000000},
                                    {FLUE_BYTES_INIT("second"), 1000000000}};

static const struct unit sizes[] = {{FLUE_BYTES_INIT("bytes"), 1},
                                    {FLUE_BYTES_INIT("byte"), 1},
                                    {FLUE_BYTES_INIT("By"), 1},
                                    {FLUE_BYTES_INIT("kilobytes"), 1024},
                                    {FLUE_BYTES_INIT("megabytes"), 1024 * 1024}};

/* What is there now. */
static const struct flue_bytes states[] = {
    FLUE_BYTES_INIT("inuse"),       FLUE_BYTES_INIT("in_use"),    FLUE_BYTES_INIT("heap-space"),
    FLUE_BYTES_INIT("heap_space"),  FLUE_BYTES_INIT("goroutine"), FLUE_BYTES_INIT("threadcreate"),
    FLUE_BYTES_INIT("heap-live"),   FLUE_BYTES_INIT("heap_live"), FLUE_BYTES_INIT("live"),
    FLUE_BYTES_INIT("memory-live"), FLUE_BYTES_INIT("space")};

static uint64_t factor_of(const struct unit *units, size_t count, struct flue_bytes name)
{
    for (size_t i = 0; i < count; i++)
        if (flue_bytes_equal(units[i].name, name))
            return units[i].factor;
    return 0;
}

uint64_t flue_time_unit(struct flue_bytes unit)
{
    return factor_of(times, sizeof times / sizeof times[0], unit);
}

static bool is_state(struct flue_bytes type)
{
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        if (flue_bytes_starts_with(type, states[i]))
            return true;
    return false;
}

void flue_quantity_of(struct flue_bytes type, struct flue_bytes unit, struct flue_bytes period_type,
                      struct flue_bytes period_unit, int64_t period, bool measured,
                      struct flue_quantity_type *out)
{
    uint64_t time = flue_time_unit(period_unit), product;
    *out = (struct flue_quantity_type){.quantity = FLUE_QUANTITY_COUNT, .factor = 1, .name = type};
    if (is_state(type)) {
        out->quantity = FLUE_QUANTITY_NONE;
    } else if ((out->factor = flue_time_unit(unit)) != 0) {
        out->quantity = FLUE_QUANTITY_TIME;
    } else if ((out->factor = factor_of(sizes, sizeof sizes / sizeof sizes[0], unit)) != 0) {
        out->quantity = FLUE_QUANTITY_BYTES;
    } else {
        out->factor = 1;
        if (measured || !time || period <= 0 || !flue_bytes_is(unit, "count") ||
            __builtin_mul_overflow((uint64_t)period, time, &product))
            return;
        /* Only what counts the period's own events: samples of cpu, or cpu itself. */
        if (!flue_bytes_is(type, "samples") && !flue_bytes_is(type, "sample") &&
            !flue_bytes_equal(type, period_type))
            return;
        out->quantity = FLUE_QUANTITY_TIME;
        out->factor = product;
        out->by_period = true;
        out->name = period_type.size ? period_type : type;
    }
}
