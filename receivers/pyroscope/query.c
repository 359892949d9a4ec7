/* query.c: see query.h. */
#include "receivers/pyroscope/query.h"

#include <time.h>

#define SECOND_NS 1000000000ull
#define DAY_NS    (86400 * SECOND_NS)

static bool letter_or_digit(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool all_of(struct flue_bytes text, const char *others)
{
    for (size_t i = 0; i < text.size; i++)
        if (!letter_or_digit(text.data[i]) &&
            (text.data[i] == '\0' || !strchr(others, text.data[i])))
            return false;
    return true;
}

/* ---- name ----------------------------------------------------------------------------------- */

static enum flue_code one_pair(struct flue_bytes pair, struct flue_ingest_name *out,
                               struct flue_error *error)
{
    char shown[80];
    size_t equals = flue_bytes_find(pair, '=');
    if (flue_bytes_trim(pair).size == 0)
        return FLUE_OK;
    if (equals == SIZE_MAX)
        return flue_fail(error, FLUE_INVALID, "name: label \"%s\" has no \"=\"",
                         flue_printable(pair, shown, sizeof shown));
    struct flue_bytes name = flue_bytes_trim(flue_bytes_first(pair, equals));
    struct flue_bytes value = flue_bytes_trim(flue_bytes_from(pair, equals + 1));
    flue_printable(name, shown, sizeof shown);
    if (name.size == 0)
        return flue_fail(error, FLUE_INVALID, "name: a label without a name");
    if (!all_of(name, "_."))
        return flue_fail(error, FLUE_INVALID,
                         "name: label name \"%s\" may have letters, digits, \"_\" and \".\" only",
                         shown);
    if (flue_bytes_is(name, "__name__"))
        return flue_fail(error, FLUE_INVALID, "name: label name __name__ is reserved");
    for (size_t i = 0; i < out->count; i++)
        if (flue_bytes_equal(out->labels[i].name, name)) {
            out->labels[i].value = value;
            return FLUE_OK;
        }
    if (out->count == FLUE_INGEST_MAX_LABELS)
        return flue_fail(error, FLUE_INVALID, "name: more than %d labels", FLUE_INGEST_MAX_LABELS);
    out->labels[out->count++] = (struct flue_ingest_label){name, value};
    return FLUE_OK;
}

enum flue_code flue_ingest_name(struct flue_bytes text, struct flue_ingest_name *out,
                                struct flue_error *error)
{
    char shown[120];
    size_t brace = flue_bytes_find(text, '{');
    enum flue_code code = FLUE_OK;
    out->count = 0;
    out->app = flue_bytes_trim(flue_bytes_first(text, brace));
    if (out->app.size == 0)
        return flue_fail(error, FLUE_INVALID, "name: application name is missing");
    if (!all_of(out->app, "_./-"))
        return flue_fail(error, FLUE_INVALID,
                         "name: application name \"%s\" may have letters, digits, \"_\", \".\", "
                         "\"/\" and \"-\" only",
                         flue_printable(out->app, shown, sizeof shown));
    if (brace == SIZE_MAX)
        return FLUE_OK;
    text = flue_bytes_from(text, brace + 1);
    text = flue_bytes_first(text, flue_bytes_find(text, '}'));
    while (text.size > 0 && code == FLUE_OK) {
        size_t comma = flue_bytes_find(text, ',');
        code = one_pair(flue_bytes_first(text, comma), out, error);
        text =
            comma == SIZE_MAX ? flue_bytes_from(text, text.size) : flue_bytes_from(text, comma + 1);
    }
    return code;
}

/* ---- times ---------------------------------------------------------------------------------- */

static uint64_t date_of(uint64_t digits)
{
    struct tm parts = {.tm_year = (int)(digits / 10000) - 1900,
                       .tm_mon = (int)(digits / 100 % 100) - 1,
                       .tm_mday = (int)(digits % 100)};
    struct tm check = parts;
    time_t seconds = timegm(&check);
    if (parts.tm_year < 70 || seconds < 0 || check.tm_mon != parts.tm_mon ||
        check.tm_mday != parts.tm_mday)
        return 0;
    return (uint64_t)seconds * SECOND_NS;
}

static uint64_t unit_of(struct flue_bytes unit)
{
    static const struct {
        const char *prefix;
        uint64_t ns;
    } units[] = {{"min", 60 * SECOND_NS}, {"mon", 30 * DAY_NS}, {"M", 30 * DAY_NS},
                 {"m", 60 * SECOND_NS},   {"s", SECOND_NS},     {"h", 3600 * SECOND_NS},
                 {"d", DAY_NS},           {"w", 7 * DAY_NS},    {"y", 365 * DAY_NS}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (flue_bytes_starts_with(unit, flue_bytes_of(units[i].prefix)))
            return units[i].ns;
    return 0;
}

/* What stands behind "now": "-1h", "+5min". */
static uint64_t relative(struct flue_bytes text, uint64_t now_ns)
{
    size_t sign = 0, digits, end;
    uint64_t number, ns;
    while (sign < text.size && text.data[sign] != '-' && text.data[sign] != '+')
        sign++;
    if (sign == text.size)
        return now_ns;
    for (digits = end = sign + 1;
         end < text.size && text.data[end] >= '0' && text.data[end] <= '9';)
        end++;
    struct flue_bytes count = flue_bytes(text.data + digits, end - digits);
    if (!flue_parse_u64(count, &number) ||
        __builtin_mul_overflow(number, unit_of(flue_bytes_from(text, end)), &ns))
        return now_ns;
    if (text.data[sign] == '+')
        return now_ns + ns < now_ns ? now_ns : now_ns + ns;
    return ns < now_ns ? now_ns - ns : 0;
}

uint64_t flue_ingest_time(struct flue_bytes text, uint64_t now_ns)
{
    uint8_t buffer[64];
    uint64_t number, ns;
    struct flue_bytes packed = {buffer, 0};
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c == '_' || c == ',' || c == ' ')
            continue;
        if (packed.size == sizeof buffer)
            return now_ns;
        buffer[packed.size++] = c;
    }
    if (!flue_parse_u64(packed, &number))
        return relative(packed, now_ns);
    if (packed.size == 8 && (ns = date_of(number)))
        return ns;
    uint64_t factor = packed.size == 13   ? 1000000
                      : packed.size == 16 ? 1000
                      : packed.size == 19 ? 1
                                          : SECOND_NS;
    return __builtin_mul_overflow(number, factor, &ns) || ns > INT64_MAX ? now_ns : ns;
}

/* ---- format --------------------------------------------------------------------------------- */

enum flue_ingest_format flue_ingest_format(struct flue_bytes format, struct flue_bytes content_type,
                                           struct flue_bytes body, const char **name)
{
    static const char *const others[] = {"jfr", "speedscope", "trie", "tree"};
    struct flue_bytes media =
        flue_bytes_trim(flue_bytes_first(content_type, flue_bytes_find(content_type, ';')));
    bool form = flue_bytes_equal_nocase(media, FLUE_BYTES("multipart/form-data"));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (flue_bytes_is(format, others[i])) {
            *name = others[i];
            return FLUE_INGEST_OTHER;
        }
    if (flue_bytes_is(format, "pprof"))
        return form ? FLUE_INGEST_MULTIPART : FLUE_INGEST_PPROF;
    if (flue_bytes_is(format, "lines"))
        return FLUE_INGEST_LINES;
    if (flue_bytes_equal_nocase(media, FLUE_BYTES("binary/octet-stream+trie")) ||
        flue_bytes_equal_nocase(media, FLUE_BYTES("binary/octet-stream+tree"))) {
        *name = media.data[media.size - 1] == 'e' && media.data[media.size - 2] == 'i' ? "trie"
                                                                                       : "tree";
        return FLUE_INGEST_OTHER;
    }
    if (form)
        return FLUE_INGEST_MULTIPART;
    /* No text begins so; better than a complaint about line 1. */
    if (body.size >= 2 && body.data[0] == 0x1f && body.data[1] == 0x8b)
        return FLUE_INGEST_PPROF;
    return FLUE_INGEST_GROUPS;
}
