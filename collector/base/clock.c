/* clock.c: see clock.h. */
#include "collector/base/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include "collector/base/bytes.h"

#define SECOND UINT64_C(1000000000)

static _Atomic int64_t moved, wall_moved;

static uint64_t read_clock(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec +
           (uint64_t)atomic_load_explicit(&moved, memory_order_relaxed);
}

uint64_t flue_monotonic_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t flue_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME) +
           (uint64_t)atomic_load_explicit(&wall_moved, memory_order_relaxed);
}

void flue_clock_move(int64_t by_ns)
{
    atomic_fetch_add_explicit(&moved, by_ns, memory_order_relaxed);
}

void flue_clock_move_wall(int64_t by_ns)
{
    atomic_fetch_add_explicit(&wall_moved, by_ns, memory_order_relaxed);
}

/* xoshiro256** (Blackman, Vigna 2018), one state a thread. */
static uint64_t rotate(uint64_t value, int by)
{
    return value << by | value >> (64 - by);
}

uint64_t flue_random_u64(void)
{
    static _Thread_local uint64_t s[4];
    uint64_t result, t;

    if (!(s[0] | s[1] | s[2] | s[3]) && getrandom(s, sizeof s, 0) != (ssize_t)sizeof s) {
        s[0] = read_clock(CLOCK_MONOTONIC) ^ (uintptr_t)s;
        s[1] = read_clock(CLOCK_REALTIME) | 1;
    }
    result = rotate(s[1] * 5, 7) * 9;
    t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

void flue_format_time(uint64_t wall_ns, char *out)
{
    time_t seconds = (time_t)(wall_ns / SECOND);
    char text[64];
    struct tm tm;

    gmtime_r(&seconds, &tm);
    snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ", tm.tm_year + 1900,
             tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
             (unsigned)(wall_ns % SECOND / 1000000));
    memcpy(out, text, 24);
    out[24] = 0;
}

static const struct unit {
    struct flue_bytes name;
    uint64_t ns;
} units[] = {
    {FLUE_BYTES_INIT("ns"), 1},           {FLUE_BYTES_INIT("us"), 1000},
    {FLUE_BYTES_INIT("\xC2\xB5s"), 1000}, /* U+00B5, micro */
    {FLUE_BYTES_INIT("\xCE\xBCs"), 1000}, /* U+03BC, mu */
    {FLUE_BYTES_INIT("ms"), 1000000},     {FLUE_BYTES_INIT("s"), SECOND},
    {FLUE_BYTES_INIT("m"), 60 * SECOND},  {FLUE_BYTES_INIT("h"), 3600 * SECOND},
};

static bool is_digit(struct flue_bytes b)
{
    return b.size && b.data[0] >= '0' && b.data[0] <= '9';
}

/* One "1.5h" from the front of `*b`. */
static bool parse_part(struct flue_bytes *b, uint64_t *ns)
{
    uint64_t whole = 0, fraction = 0, scale = 1;
    bool digits = false;
    size_t name = 0;

    for (; is_digit(*b); *b = flue_bytes_from(*b, 1), digits = true)
        if (__builtin_mul_overflow(whole, 10u, &whole) ||
            __builtin_add_overflow(whole, (uint64_t)(b->data[0] - '0'), &whole))
            return false;
    if (b->size && b->data[0] == '.') {
        *b = flue_bytes_from(*b, 1);
        for (; is_digit(*b); *b = flue_bytes_from(*b, 1), digits = true)
            if (scale < 1000000000000000u) { /* further digits are below a nanosecond */
                fraction = fraction * 10 + (uint64_t)(b->data[0] - '0');
                scale *= 10;
            }
    }
    if (!digits)
        return false;
    while (name < b->size && b->data[name] != '.' && !is_digit(flue_bytes_from(*b, name)))
        name++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (!flue_bytes_equal(flue_bytes_first(*b, name), units[i].name))
            continue;
        *b = flue_bytes_from(*b, name);
        if (__builtin_mul_overflow(whole, units[i].ns, &whole))
            return false;
        return !__builtin_add_overflow(
            whole, (uint64_t)((unsigned __int128)fraction * units[i].ns / scale), ns);
    }
    return false;
}

_Bool flue_parse_duration(struct flue_bytes text, int64_t *ns)
{
    bool negative = text.size && text.data[0] == '-';
    uint64_t sum = 0, part;

    if (negative || (text.size && text.data[0] == '+'))
        text = flue_bytes_from(text, 1);
    if (flue_bytes_is(text, "0")) {
        *ns = 0;
        return true;
    }
    if (text.size == 0)
        return false;
    while (text.size)
        if (!parse_part(&text, &part) || __builtin_add_overflow(sum, part, &sum) ||
            sum > (uint64_t)INT64_MAX + negative)
            return false;
    *ns = negative ? (int64_t)(0 - sum) : (int64_t)sum;
    return true;
}

/* `value` / `unit` with as many decimals as it has. Returns characters written. */
static size_t put_decimal(char *out, size_t room, uint64_t value, uint64_t unit, const char *name)
{
    char fraction[16] = "";
    uint64_t rest = value % unit;
    int digits = 0;

    for (uint64_t u = unit; u > 1; u /= 10)
        digits++;
    if (rest) {
        int size = snprintf(fraction, sizeof fraction, ".%0*llu", digits, (unsigned long long)rest);

        while (size > 0 && fraction[size - 1] == '0')
            fraction[--size] = 0;
    }
    return (size_t)snprintf(out, room, "%llu%s%s", (unsigned long long)(value / unit), fraction,
                            name);
}

void flue_format_duration(int64_t ns, char *out)
{
    uint64_t value = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    size_t at = 0, room = 32;

    if (ns < 0)
        out[at++] = '-';
    if (value == 0) {
        memcpy(out, "0s", 3);
    } else if (value < 1000) {
        put_decimal(out + at, room - at, value, 1, "ns");
    } else if (value < 1000000) {
        put_decimal(out + at, room - at, value, 1000, "\xC2\xB5s");
    } else if (value < SECOND) {
        put_decimal(out + at, room - at, value, 1000000, "ms");
    } else {
        if (value >= 3600 * SECOND)
            at += (size_t)snprintf(out + at, room - at, "%lluh",
                                   (unsigned long long)(value / (3600 * SECOND)));
        if (value >= 60 * SECOND)
            at += (size_t)snprintf(out + at, room - at, "%llum",
                                   (unsigned long long)(value / (60 * SECOND) % 60));
        put_decimal(out + at, room - at, value % (60 * SECOND), SECOND, "s");
    }
}
