/* check_walk.h: what one pass of check.c knows and finds, its mistakes, and how it reads the wire.
 * Part of check.c; nobody else includes it. */
#include "proto/pprof/pprof.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "proto/pprof/ids.h"
#include "proto/wire/reader.h"

#define likely(x)        __builtin_expect(!!(x), 1)
#define unlikely(x)      __builtin_expect(!!(x), 0)
#define MAX_SAMPLE_TYPES 256
enum { LOCATION, FUNCTION, MAPPING, TABLES };
enum { DEFINED = 1, REFERENCED = 2 };

static const char *const table_names[TABLES] = {"location", "function", "mapping"};

struct walk {
    const struct flue_pprof_limits *limits;
    struct flue_error *error;
    enum flue_code code;

    /* what this pass knows */
    uint64_t string_limit;     /* indices from here on are wrong; UINT64_MAX while not known */
    uint64_t id_limit[TABLES]; /* ids above are unknown; UINT64_MAX while not known */
    bool exact[TABLES];
    bool types_known; /* type_at was filled by an earlier pass */
    bool again;       /* stopped, to be run again with the above changed */
    bool judging;     /* limits, and the marks of the pass before, are there */

    /* what it finds */
    uint64_t max_string, max_id[TABLES];
    uint64_t rows[TABLES];
    struct flue_ids ids[TABLES];
    uint64_t unresolved[TABLES]; /* exact: referenced, not (yet) defined */
    uint64_t samples, strings, types;
    uint64_t values_first; /* of the first sample */
    uint64_t text_labels;  /* of the sample that is read */
    uint64_t depth;        /* of the same: frames, or the bytes of few */
    bool times;
    struct flue_pprof_facts *facts;

    /* sample types: rows of their names in the string table, and what stands there */
    struct {
        uint64_t type, unit;
    } type_at[MAX_SAMPLE_TYPES];
    uint64_t watch;           /* next string row that some sample type names */
    struct flue_arena *arena; /* NULL: names are not asked for */
    struct flue_pprof_type_name *names;

    const uint8_t *safe; /* eight bytes can be loaded up to here */

    /* the part of a field that the last piece ended in */
    uint8_t *carry;
    size_t carry_size, carry_room;
    size_t seen; /* inflated bytes */
};

/* ---- mistakes ------------------------------------------------------------------------------- */

static bool bad(struct walk *w, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));
static bool bad(struct walk *w, const char *format, ...)
{
    char text[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    w->code = flue_fail(w->error, FLUE_INVALID, "%s", text);
    return false;
}

static bool __attribute__((cold)) broken(struct walk *w, const char *what, uint64_t row)
{
    return bad(w, "%s[%" PRIu64 "]: broken protobuf (bad varint, length or wire type)", what, row);
}

static bool __attribute__((cold))
bad_string(struct walk *w, uint64_t value, const char *what, uint64_t row, const char *field)
{
    if ((int64_t)value < 0)
        return bad(w, "%s[%" PRIu64 "]%s: string index %" PRId64 " is negative", what, row, field,
                   (int64_t)value);
    return bad(
        w, "%s[%" PRIu64 "]%s: string index %" PRIu64 ", but string_table has %" PRIu64 " entries",
        what, row, field, value, w->string_limit);
}

static bool __attribute__((cold)) again(struct walk *w)
{
    w->again = true;
    w->code = FLUE_INTERNAL;
    return false;
}

/* ---- pieces of the wire --------------------------------------------------------------------- */

static bool __attribute__((noinline)) long_varint(struct flue_reader *r, uint64_t *out)
{
    return flue_read_varint(r, out);
}

/* Two to eight bytes without a branch on how many: records mix lengths, and would mispredict. Loads
 * may reach beyond the record, not beyond the piece it stands in. */
static inline bool varint(const struct walk *w, struct flue_reader *r, uint64_t *out)
{
    const uint8_t *at = r->at;
    uint64_t word, stop;
    if (unlikely(at > w->safe))
        return long_varint(r, out);
    if (*at < 0x80) {
        *out = *at;
        r->at = at + 1;
        return at < r->end;
    }
    memcpy(&word, at, 8);
    stop = ~word & 0x8080808080808080u;
    if (unlikely(stop == 0))
        return long_varint(r, out);
    word &= stop ^ (stop - 1);
    word = (word & 0x007f007f007f007fu) | (word & 0x7f007f007f007f00u) >> 1;
    word = (word & 0x00003fff00003fffu) | (word & 0x3fff00003fff0000u) >> 2;
    word = (word & 0x000000000fffffffu) | (word & 0x0fffffff00000000u) >> 4;
    *out = word;
    r->at = at + __builtin_ctzll(stop) / 8 + 1;
    return r->at <= r->end;
}

static inline bool skip_varint(const struct walk *w, struct flue_reader *r)
{
    uint64_t word, stop;
    if (unlikely(r->at > w->safe))
        return long_varint(r, &word);
    memcpy(&word, r->at, 8);
    stop = ~word & 0x8080808080808080u;
    if (unlikely(stop == 0))
        return long_varint(r, &word);
    r->at += __builtin_ctzll(stop) / 8 + 1;
    return r->at <= r->end;
}

static inline bool next_tag(struct flue_reader *r, uint64_t *tag)
{
    if (*r->at < 0x80) {
        *tag = *r->at++;
        return *tag >= 8;
    }
    return long_varint(r, tag) && *tag >= 8 && *tag >> 32 == 0;
}

static inline bool length(const struct walk *w, struct flue_reader *r, struct flue_bytes *out)
{
    uint64_t size;
    if (!varint(w, r, &size) || size > (uint64_t)(r->end - r->at))
        return false;
    *out = flue_bytes(r->at, (size_t)size);
    r->at += size;
    return true;
}

/* An unknown field is skipped; a known one of another wire type is a mistake. */
static bool __attribute__((cold))
other_field(const struct walk *w, struct flue_reader *r, uint64_t tag, unsigned highest_known)
{
    uint64_t number;
    struct flue_bytes bytes;
    if (tag >> 3 <= highest_known)
        return false;
    switch (tag & 7) {
    case FLUE_VARINT:
        return long_varint(r, &number);
    case FLUE_FIXED64:
    case FLUE_FIXED32: {
        ptrdiff_t size = (tag & 7) == FLUE_FIXED64 ? 8 : 4;
        if (r->end - r->at < size)
            return false;
        r->at += size;
        return true;
    }
    case FLUE_LEN:
        return length(w, r, &bytes);
    default:
        return false;
    }
}

/* A string index at *value; names the field when it is wrong. */
#define STRING(w, r, what, row, field)                                                             \
    do {                                                                                           \
        uint64_t index_;                                                                           \
        if (unlikely(!varint((w), (r), &index_)))                                                  \
            return broken((w), (what), (row));                                                     \
        if (unlikely(index_ >= (w)->string_limit))                                                 \
            return bad_string((w), index_, (what), (row), (field));                                \
        if (index_ > (w)->max_string)                                                              \
            (w)->max_string = index_;                                                              \
    } while (0)

#define NUMBER(w, r, what, row, out)                                                               \
    do {                                                                                           \
        if (unlikely(!varint((w), (r), (out))))                                                    \
            return broken((w), (what), (row));                                                     \
    } while (0)

#define SKIP(w, r, what, row)                                                                      \
    do {                                                                                           \
        if (unlikely(!skip_varint((w), (r))))                                                      \
            return broken((w), (what), (row));                                                     \
    } while (0)
/* Writers put fields in ascending order: those are read in a straight line first, and what is left
 * (another order, unknown fields, the same field again) by the loop behind. */
#define NEXT(r, tag) ((r)->at < (r)->end && *(r)->at == (tag) && ((r)->at++, true))
