/* profile_name.c: see profile_name.h. Names: those that Pyroscope's code, tests and documentation
 * use (counted there), and what its JFR and eBPF paths make of the same events. */
#include "proto/convert/profile_name.h"

enum family { NONE, PROCESS_CPU, WALL, MEMORY, MUTEX, BLOCK, GOROUTINE, OFF_CPU, THREADCREATE };

static const struct {
    struct flue_bytes name;
    struct flue_profile_type period; /* that the well-known profile types carry */
} families[] = {
    [PROCESS_CPU] = {FLUE_BYTES_INIT("process_cpu"),
                     {FLUE_BYTES_INIT("cpu"), FLUE_BYTES_INIT("nanoseconds")}},
    [WALL] = {FLUE_BYTES_INIT("wall"), {FLUE_BYTES_INIT("wall"), FLUE_BYTES_INIT("nanoseconds")}},
    [MEMORY] = {FLUE_BYTES_INIT("memory"), {FLUE_BYTES_INIT("space"), FLUE_BYTES_INIT("bytes")}},
    [MUTEX] = {FLUE_BYTES_INIT("mutex"),
               {FLUE_BYTES_INIT("contentions"), FLUE_BYTES_INIT("count")}},
    [BLOCK] = {FLUE_BYTES_INIT("block"),
               {FLUE_BYTES_INIT("contentions"), FLUE_BYTES_INIT("count")}},
    [GOROUTINE] = {FLUE_BYTES_INIT("goroutine"),
                   {FLUE_BYTES_INIT("goroutine"), FLUE_BYTES_INIT("count")}},
    [OFF_CPU] = {.name = FLUE_BYTES_INIT("off_cpu")},
    [THREADCREATE] = {.name = FLUE_BYTES_INIT("threadcreate")},
};

/* The first that fits; '*' at the end: and whatever follows. '-' in a type counts as '_'. */
static const struct {
    struct flue_bytes word;
    enum family family;
} words[] = {
    {FLUE_BYTES_INIT("cpu"), PROCESS_CPU},
    {FLUE_BYTES_INIT("cpu_time"), PROCESS_CPU},
    {FLUE_BYTES_INIT("cpu_samples"), PROCESS_CPU},
    {FLUE_BYTES_INIT("itimer"), PROCESS_CPU},
    {FLUE_BYTES_INIT("ctimer"), PROCESS_CPU},
    {FLUE_BYTES_INIT("process_cpu"), PROCESS_CPU},
    {FLUE_BYTES_INIT("wall*"), WALL},
    {FLUE_BYTES_INIT("space"), MEMORY},
    {FLUE_BYTES_INIT("alloc*"), MEMORY},
    {FLUE_BYTES_INIT("inuse*"), MEMORY},
    {FLUE_BYTES_INIT("heap*"), MEMORY},
    {FLUE_BYTES_INIT("live*"), MEMORY},
    {FLUE_BYTES_INIT("memory*"), MEMORY},
    {FLUE_BYTES_INIT("object_sampler"), MEMORY},
    {FLUE_BYTES_INIT("objects"), MEMORY},
    {FLUE_BYTES_INIT("block*"), BLOCK},
    {FLUE_BYTES_INIT("contentions"), MUTEX},
    {FLUE_BYTES_INIT("delay"), MUTEX},
    {FLUE_BYTES_INIT("mutex*"), MUTEX},
    {FLUE_BYTES_INIT("lock*"), MUTEX},
    {FLUE_BYTES_INIT("goroutine*"), GOROUTINE},
    {FLUE_BYTES_INIT("off_cpu*"), OFF_CPU},
    {FLUE_BYTES_INIT("threadcreate"), THREADCREATE},
};

/* Times as async-profiler and others shorten them. */
static const struct {
    struct flue_bytes from, to;
} units[] = {
    {FLUE_BYTES_INIT("ns"), FLUE_BYTES_INIT("nanoseconds")},
    {FLUE_BYTES_INIT("us"), FLUE_BYTES_INIT("microseconds")},
    {FLUE_BYTES_INIT("ms"), FLUE_BYTES_INIT("milliseconds")},
    {FLUE_BYTES_INIT("s"), FLUE_BYTES_INIT("seconds")},
    {FLUE_BYTES_INIT("nanosecond"), FLUE_BYTES_INIT("nanoseconds")},
    {FLUE_BYTES_INIT("byte"), FLUE_BYTES_INIT("bytes")},
    {FLUE_BYTES_INIT("By"), FLUE_BYTES_INIT("bytes")},
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static bool fits(struct flue_bytes word, struct flue_bytes type)
{
    bool prefix = word.data[word.size - 1] == '*';

    word.size -= prefix;
    if (prefix ? type.size < word.size : type.size != word.size)
        return false;
    for (size_t i = 0; i < word.size; i++)
        if (word.data[i] != (type.data[i] == '-' ? '_' : type.data[i]))
            return false;
    return true;
}

static enum family family_of(struct flue_bytes type)
{
    for (size_t i = 0; i < COUNT(words); i++)
        if (fits(words[i].word, type))
            return words[i].family;
    return NONE;
}

static enum family family_of_all(const struct flue_profile_type *types, size_t count,
                                 struct flue_bytes period)
{
    enum family family = family_of(period);

    for (size_t i = 0; i < count && (family == NONE || family == MUTEX); i++) {
        enum family own = family_of(types[i].type);

        if (family == NONE || own == BLOCK) /* both have the period "contentions" */
            family = own;
    }
    return family;
}

static bool letter(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':';
}

static struct flue_bytes metric_name(struct flue_bytes type, struct flue_arena *arena)
{
    uint8_t *name = flue_arena_alloc(arena, type.size + 1);
    size_t size = 0;

    if (!name)
        return flue_bytes(NULL, 0);
    if (type.data[0] >= '0' && type.data[0] <= '9')
        name[size++] = '_';
    for (size_t i = 0; i < type.size; i++) {
        uint8_t c = type.data[i];

        name[size++] = letter(c) || (c >= '0' && c <= '9') ? c : '_';
    }
    return flue_bytes(name, size);
}

struct flue_bytes flue_profile_name(const struct flue_profile_type *types, size_t count,
                                    struct flue_profile_type period, struct flue_arena *arena)
{
    enum family family = family_of_all(types, count, period.type);

    if (family != NONE)
        return families[family].name;
    if (period.type.size)
        return metric_name(period.type, arena);
    for (size_t i = 0; i < count; i++)
        if (types[i].type.size)
            return metric_name(types[i].type, arena);
    return FLUE_BYTES("profile");
}

static void unit_known(struct flue_bytes *unit)
{
    for (size_t i = 0; i < COUNT(units); i++)
        if (flue_bytes_equal(*unit, units[i].from)) {
            *unit = units[i].to;
            return;
        }
}

static bool has_type(const struct flue_profile_type *types, size_t count,
                     struct flue_profile_type wanted)
{
    for (size_t i = 0; i < count; i++)
        if (flue_bytes_equal(types[i].type, wanted.type) &&
            flue_bytes_equal(types[i].unit, wanted.unit))
            return true;
    return false;
}

/* What one sample stands for: its period of time, or its period of allocated bytes. */
static struct flue_profile_type measured_by(enum family family)
{
    if (family == MEMORY)
        return (struct flue_profile_type){FLUE_BYTES("alloc_space"), FLUE_BYTES("bytes")};
    return families[family].period;
}

/* "samples", or the event itself counted: "itimer", "wall", "object_sampler". */
static bool counts_samples(struct flue_profile_type type, enum family family)
{
    if (!flue_bytes_is(type.unit, "count"))
        return false;
    if (family == MEMORY)
        return flue_bytes_is(type.type, "object_sampler");
    return flue_bytes_is(type.type, "samples") || family_of(type.type) == family;
}

void flue_profile_types_known(struct flue_profile_type *types, size_t count, bool *times_period,
                              struct flue_profile_type *period, int64_t period_value)
{
    enum family family = family_of_all(types, count, period->type);
    struct flue_profile_type known;

    for (size_t i = 0; i < count; i++) {
        unit_known(&types[i].unit);
        times_period[i] = false;
    }
    unit_known(&period->unit);
    if (family == NONE || family == OFF_CPU || family == THREADCREATE)
        return;
    known = measured_by(family);
    if (family == PROCESS_CPU || family == WALL)
        for (size_t i = 0; i < count; i++) /* itimer/nanoseconds is cpu/nanoseconds */
            if (family_of(types[i].type) == family && flue_bytes_equal(types[i].unit, known.unit) &&
                !has_type(types, count, known))
                types[i].type = known.type;
    if (family <= MEMORY && period_value > 0 && flue_bytes_equal(period->unit, known.unit))
        for (size_t i = 0; i < count; i++)
            if (counts_samples(types[i], family) && !has_type(types, count, known)) {
                types[i] = known;
                times_period[i] = true;
            }
    if (period->type.size == 0 || family_of(period->type) == family)
        *period = families[family].period;
}
