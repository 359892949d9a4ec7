/* check.c: is this a pprof that every reader takes? One pass, in a bounded window.
 *
 * Rules: google/pprof's Parse and CheckValid, plus negative string indices and string_table[0]
 * (Pyroscope refuses them). Unknown mapping ids are taken as "no mapping", as google/pprof does.
 *
 * Fields come in any order (strings last, samples before their types), so limits are not known while
 * walking. The first pass keeps running maxima and compares them once, at the end. It holds as long
 * as ids are 1, 2, 3, ... in the order of their records, which nearly all writers do. Where they are
 * not, the pass is run again with sets of ids (exact). Where a comparison at the end fails, it is run
 * once more with the limits known, to name the field (judge). So only odd or bad profiles cost more
 * than one pass.
 */
#include "proto/pprof/pprof.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "collector/base/codec.h"
#include "proto/pprof/ids.h"
#include "proto/wire/reader.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define MAX_SAMPLE_TYPES 256
enum { LOCATION, FUNCTION, MAPPING, TABLES };
enum { DEFINED = 1, REFERENCED = 2 };

static const char *const table_names[TABLES] = {"location", "function", "mapping"};

struct walk {
    const struct flue_pprof_limits *limits;
    struct flue_error *error;
    enum flue_code code;

    /* what this pass knows */
    uint64_t string_limit; /* indices from here on are wrong; UINT64_MAX while not known */
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
    bool times;
    struct flue_pprof_facts *facts;

    /* sample types: rows of their names in the string table, and what stands there */
    struct {
        uint64_t type, unit;
    } type_at[MAX_SAMPLE_TYPES];
    uint64_t watch; /* next string row that some sample type names */
    struct flue_arena *arena; /* NULL: names are not asked for */
    struct flue_pprof_type_name *names;

    const uint8_t *safe; /* eight bytes can be loaded up to here */

    /* the part of a field that the last piece ended in */
    uint8_t *carry;
    size_t carry_size, carry_room;
    size_t seen; /* inflated bytes */
};

/* ---- mistakes --------------------------------------------------------------------------------- */

static bool bad(struct walk *w, const char *format, ...) __attribute__((format(printf, 2, 3), cold));
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
    return bad(w, "%s[%" PRIu64 "]%s: string index %" PRIu64 ", but string_table has %" PRIu64
               " entries", what, row, field, value, w->string_limit);
}

static bool __attribute__((cold)) again(struct walk *w)
{
    w->again = true;
    w->code = FLUE_INTERNAL;
    return false;
}

/* ---- pieces of the wire ----------------------------------------------------------------------- */

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
        if (unlikely(!varint((w), (r), &index_)))                                                       \
            return broken((w), (what), (row));                                                     \
        if (unlikely(index_ >= (w)->string_limit))                                                 \
            return bad_string((w), index_, (what), (row), (field));                                \
        if (index_ > (w)->max_string)                                                              \
            (w)->max_string = index_;                                                              \
    } while (0)

#define NUMBER(w, r, what, row, out)                                                               \
    do {                                                                                           \
        if (unlikely(!varint((w), (r), (out))))                                                         \
            return broken((w), (what), (row));                                                     \
    } while (0)

#define SKIP(w, r, what, row)                                                                      \
    do {                                                                                           \
        if (unlikely(!skip_varint((w), (r))))                                                             \
            return broken((w), (what), (row));                                                     \
    } while (0)
/* Writers put fields in ascending order: those are read in a straight line first, and what is left
 * (another order, unknown fields, the same field again) by the loop behind. */
#define NEXT(r, tag) ((r)->at < (r)->end && *(r)->at == (tag) && ((r)->at++, true))

/* ---- ids -------------------------------------------------------------------------------------- */

static bool __attribute__((cold)) too_many_ids(struct walk *w, int table)
{
    w->code = w->ids[table].count >= FLUE_IDS_MAX
                  ? flue_fail(w->error, FLUE_TOO_LARGE,
                              "%s ids are not 1, 2, 3, ... and there are more than %u of them",
                              table_names[table], FLUE_IDS_MAX)
                  : flue_fail(w->error, FLUE_NO_MEMORY, "no memory for %s ids",
                              table_names[table]);
    return false;
}

static bool define(struct walk *w, int table, uint64_t id)
{
    uint64_t row = w->rows[table]++;
    if (id == row + 1 && !w->exact[table])
        return true;
    if (id == 0)
        return bad(w, "%s[%" PRIu64 "].id: 0 is not an id", table_names[table], row);
    if (!w->exact[table]) {
        w->exact[table] = true;
        return again(w);
    }
    bool made;
    uint32_t *marks = flue_ids_put(&w->ids[table], id, 0, &made);
    if (!marks)
        return too_many_ids(w, table);
    /* While judging, the marks of the pass before are there, DEFINED among them: a duplicate was
     * found by that pass already. */
    if (*marks & DEFINED && !w->judging)
        return bad(w, "%s[%" PRIu64 "].id: %" PRIu64 " is there twice", table_names[table], row,
                   id);
    if (*marks & REFERENCED && !(*marks & DEFINED))
        w->unresolved[table]--;
    *marks |= DEFINED;
    return true;
}

static bool __attribute__((noinline))
refer_exact(struct walk *w, int table, uint64_t id, uint64_t row, const char *field)
{
    const char *from = table == LOCATION ? "sample" : "location";
    if (id == 0)
        return bad(w, "%s[%" PRIu64 "]%s: 0 is not an id", from, row, field);
    if (!w->exact[table]) {
        if (id > w->id_limit[table])
            return bad(w, "%s[%" PRIu64 "]%s: %" PRIu64 ", but there is no such %s (ids are 1 to %"
                       PRIu64 ")", from, row, field, id, table_names[table], w->id_limit[table]);
        if (id > w->max_id[table])
            w->max_id[table] = id;
        return true;
    }
    bool made;
    uint32_t *marks = flue_ids_put(&w->ids[table], id, 0, &made);
    if (!marks)
        return too_many_ids(w, table);
    if (!(*marks & DEFINED)) {
        if (w->judging)
            return bad(w, "%s[%" PRIu64 "]%s: %" PRIu64 ", but there is no such %s", from, row,
                       field, id, table_names[table]);
        if (!(*marks & REFERENCED))
            w->unresolved[table]++;
    }
    *marks |= REFERENCED;
    return true;
}

static inline bool refer(struct walk *w, int table, uint64_t id, uint64_t row, const char *field)
{
    if (unlikely(id == 0 || w->exact[table] || id > w->id_limit[table]))
        return refer_exact(w, table, id, row, field);
    if (id > w->max_id[table])
        w->max_id[table] = id;
    return true;
}

#ifdef __SSE2__
static inline __m128i either(__m128i mask, __m128i yes, __m128i no)
{
    return _mm_or_si128(_mm_and_si128(mask, yes), _mm_andnot_si128(mask, no));
}

static inline __m128i larger(__m128i a, __m128i b)
{
    return either(_mm_cmpgt_epi32(a, b), a, b);
}

/* The largest of a packed run of ids of one to three bytes each, 16 bytes at a time; stops before
 * anything else (longer encodings, a 0, the tail) and leaves r->at at the start of a varint. A byte
 * that ends an id is put together with the one or two before it; the low 7 bits of each stand in a
 * byte of their own, which keeps the order. The two bytes before the run are readable: they are the
 * run's tag and length. */
static void packed_maximum(struct flue_reader *r, uint64_t *maximum)
{
    const __m128i none = _mm_setzero_si128(), low7 = _mm_set1_epi8(0x7f);
    const uint8_t *at = r->at;
    __m128i best16 = none, best32 = none;
    for (; r->end - at >= 16; at += 16) {
        __m128i b = _mm_loadu_si128((const __m128i *)at);
        __m128i b1 = _mm_loadu_si128((const __m128i *)(at - 1));
        __m128i on = _mm_cmplt_epi8(b, none), on1 = _mm_cmplt_epi8(b1, none);
        __m128i on01 = _mm_and_si128(on, on1), zero = _mm_cmpeq_epi8(b, none);
        __m128i seven1 = _mm_and_si128(b1, low7);
        if (!_mm_movemask_epi8(_mm_or_si128(on01, zero)) && at[-2] < 0x80) {
            __m128i high = _mm_and_si128(b, on1);
            __m128i low = _mm_andnot_si128(on, either(on1, seven1, b));
            best16 = _mm_max_epi16(best16, _mm_unpacklo_epi8(low, high));
            best16 = _mm_max_epi16(best16, _mm_unpackhi_epi8(low, high));
            continue;
        }
        __m128i b2 = _mm_loadu_si128((const __m128i *)(at - 2));
        __m128i on12 = _mm_and_si128(on1, _mm_cmplt_epi8(b2, none));
        if (_mm_movemask_epi8(_mm_or_si128(_mm_and_si128(on, on12), zero)))
            break;
        __m128i first = either(on12, _mm_and_si128(b2, low7), either(on1, seven1, b));
        __m128i second = _mm_and_si128(on1, either(on12, seven1, b));
        __m128i third = _mm_and_si128(on12, b);
        first = _mm_andnot_si128(on, first);
        second = _mm_andnot_si128(on, second);
        third = _mm_andnot_si128(on, third);
        __m128i low = _mm_unpacklo_epi8(first, second), high = _mm_unpacklo_epi8(third, none);
        best32 = larger(best32, _mm_unpacklo_epi16(low, high));
        best32 = larger(best32, _mm_unpackhi_epi16(low, high));
        low = _mm_unpackhi_epi8(first, second);
        high = _mm_unpackhi_epi8(third, none);
        best32 = larger(best32, _mm_unpacklo_epi16(low, high));
        best32 = larger(best32, _mm_unpackhi_epi16(low, high));
    }
    if (at == r->at)
        return;
    while (at[-1] >= 0x80)
        at--;
    r->at = at;
    uint32_t lanes[4];
    uint16_t halves[8];
    _mm_storeu_si128((__m128i *)lanes, best32);
    _mm_storeu_si128((__m128i *)halves, best16);
    for (int i = 0; i < 12; i++) {
        uint64_t sevens = i < 4 ? lanes[i] : halves[i - 4];
        uint64_t id = (sevens & 0x7f) | (sevens >> 8 & 0x7f) << 7 | (sevens >> 16) << 14;
        if (id > *maximum)
            *maximum = id;
    }
}
#endif

static bool location_run(struct walk *w, struct flue_bytes run)
{
    struct flue_reader r = flue_reader(run);
    uint64_t id;
#ifdef __SSE2__
    if (run.size >= 16 && !w->exact[LOCATION] && w->id_limit[LOCATION] == UINT64_MAX)
        packed_maximum(&r, &w->max_id[LOCATION]);
#endif
    while (r.at < r.end) {
        NUMBER(w, &r, "sample", w->samples, &id);
        if (!refer(w, LOCATION, id, w->samples, ".location_id"))
            return false;
    }
    return true;
}

/* ---- records ---------------------------------------------------------------------------------- */

static bool label(struct walk *w, struct flue_bytes bytes)
{
    struct flue_reader r = flue_reader(bytes);
    uint64_t tag;
    if (NEXT(&r, 1 << 3))
        STRING(w, &r, "sample", w->samples, ".label.key");
    if (NEXT(&r, 2 << 3)) {
        STRING(w, &r, "sample", w->samples, ".label.str");
        w->text_labels++;
    }
    if (NEXT(&r, 3 << 3))
        SKIP(w, &r, "sample", w->samples);
    while (r.at < r.end) {
        if (unlikely(!next_tag(&r, &tag)))
            return broken(w, "sample", w->samples);
        switch (tag) {
        case 1 << 3:
            STRING(w, &r, "sample", w->samples, ".label.key");
            break;
        case 2 << 3:
            STRING(w, &r, "sample", w->samples, ".label.str");
            w->text_labels++;
            break;
        case 3 << 3:
            SKIP(w, &r, "sample", w->samples);
            break;
        case 4 << 3:
            STRING(w, &r, "sample", w->samples, ".label.num_unit");
            break;
        default:
            if (!other_field(w, &r, tag, 4))
                return broken(w, "sample", w->samples);
        }
    }
    return true;
}

static bool sample(struct walk *w, struct flue_bytes bytes)
{
    struct flue_reader r = flue_reader(bytes);
    struct flue_bytes run;
    uint64_t tag, number, values = 0;
    w->text_labels = 0;
    while (r.at < r.end) {
        if (unlikely(!next_tag(&r, &tag)))
            return broken(w, "sample", w->samples);
        switch (tag) {
        case 1 << 3:
            NUMBER(w, &r, "sample", w->samples, &number);
            if (!refer(w, LOCATION, number, w->samples, ".location_id"))
                return false;
            break;
        case 1 << 3 | FLUE_LEN:
            if (unlikely(!length(w, &r, &run)))
                return broken(w, "sample", w->samples);
            if (!location_run(w, run))
                return false;
            break;
        case 2 << 3:
            SKIP(w, &r, "sample", w->samples);
            values++;
            break;
        case 2 << 3 | FLUE_LEN:
            if (unlikely(!length(w, &r, &run)))
                return broken(w, "sample", w->samples);
            for (struct flue_reader v = flue_reader(run); v.at < v.end; values++)
                SKIP(w, &v, "sample", w->samples);
            break;
        case 3 << 3 | FLUE_LEN:
            if (unlikely(!length(w, &r, &run)))
                return broken(w, "sample", w->samples);
            if (!label(w, run))
                return false;
            break;
        default:
            if (!other_field(w, &r, tag, 3))
                return broken(w, "sample", w->samples);
        }
    }
    if (w->samples == 0)
        w->values_first = values;
    else if (unlikely(values != w->values_first))
        return bad(w, "sample[%" PRIu64 "].value: %" PRIu64 " values, but sample[0] has %" PRIu64
                   ": there must be one per sample type", w->samples, values, w->values_first);
    w->samples++;
    if (w->text_labels > w->facts->sample_labels)
        w->facts->sample_labels = w->text_labels;
    return true;
}

static bool line(struct walk *w, struct flue_bytes bytes)
{
    struct flue_reader r = flue_reader(bytes);
    uint64_t row = w->rows[LOCATION], tag, function = 0;
    if (NEXT(&r, 1 << 3))
        NUMBER(w, &r, "location", row, &function);
    if (NEXT(&r, 2 << 3))
        SKIP(w, &r, "location", row);
    while (r.at < r.end) {
        if (unlikely(!next_tag(&r, &tag)))
            return broken(w, "location", row);
        switch (tag) {
        case 1 << 3:
            NUMBER(w, &r, "location", row, &function);
            break;
        case 2 << 3:
        case 3 << 3:
            SKIP(w, &r, "location", row);
            break;
        default:
            if (!other_field(w, &r, tag, 3))
                return broken(w, "location", row);
        }
    }
    return refer(w, FUNCTION, function, row, ".line.function_id");
}

static bool location(struct walk *w, struct flue_bytes bytes)
{
    struct flue_reader r = flue_reader(bytes);
    struct flue_bytes run;
    uint64_t row = w->rows[LOCATION], tag, id = 0;
    if (NEXT(&r, 1 << 3))
        NUMBER(w, &r, "location", row, &id);
    if (NEXT(&r, 2 << 3))
        SKIP(w, &r, "location", row);
    if (NEXT(&r, 3 << 3))
        SKIP(w, &r, "location", row);
    while (NEXT(&r, 4 << 3 | FLUE_LEN)) {
        if (unlikely(!length(w, &r, &run)))
            return broken(w, "location", row);
        if (!line(w, run))
            return false;
    }
    while (r.at < r.end) {
        if (unlikely(!next_tag(&r, &tag)))
            return broken(w, "location", row);
        switch (tag) {
        case 1 << 3:
            NUMBER(w, &r, "location", row, &id);
            break;
        case 2 << 3:
        case 3 << 3:
        case 5 << 3:
            SKIP(w, &r, "location", row);
            break;
        case 4 << 3 | FLUE_LEN:
            if (unlikely(!length(w, &r, &run)))
                return broken(w, "location", row);
            if (!line(w, run))
                return false;
            break;
        default:
            if (!other_field(w, &r, tag, 5))
                return broken(w, "location", row);
        }
    }
    return define(w, LOCATION, id);
}

static bool function(struct walk *w, struct flue_bytes bytes)
{
    struct flue_reader r = flue_reader(bytes);
    uint64_t row = w->rows[FUNCTION], tag, id = 0;
    if (NEXT(&r, 1 << 3))
        NUMBER(w, &r, "function", row, &id);
    if (NEXT(&r, 2 << 3))
        STRING(w, &r, "function", row, ".name");
    if (NEXT(&r, 3 << 3))
        STRING(w, &r, "function", row, ".system_name");
    if (NEXT(&r, 4 << 3))
        STRING(w, &r, "function", row, ".filename");
    while (r.at < r.end) {
        if (unlikely(!next_tag(&r, &tag)))
            return broken(w, "function", row);
        switch (tag) {
        case 1 << 3:
            NUMBER(w, &r, "function", row, &id);
            break;
        case 2 << 3:
            STRING(w, &r, "function", row, ".name");
            break;
        case 3 << 3:
            STRING(w, &r, "function", row, ".system_name");
            break;
        case 4 << 3:
            STRING(w, &r, "function", row, ".filename");
            break;
        case 5 << 3:
            SKIP(w, &r, "function", row);
            break;
        default:
            if (!other_field(w, &r, tag, 5))
                return broken(w, "function", row);
        }
    }
    return define(w, FUNCTION, id);
}

static bool mapping(struct walk *w, struct flue_bytes bytes)
{
    struct flue_reader r = flue_reader(bytes);
    uint64_t row = w->rows[MAPPING], tag, id = 0;
    while (r.at < r.end) {
        if (!next_tag(&r, &tag))
            return broken(w, "mapping", row);
        switch (tag) {
        case 1 << 3:
            NUMBER(w, &r, "mapping", row, &id);
            break;
        case 5 << 3:
            STRING(w, &r, "mapping", row, ".filename");
            break;
        case 6 << 3:
            STRING(w, &r, "mapping", row, ".build_id");
            break;
        case 2 << 3:
        case 3 << 3:
        case 4 << 3:
        case 7 << 3:
        case 8 << 3:
        case 9 << 3:
        case 10 << 3:
            SKIP(w, &r, "mapping", row);
            break;
        default:
            if (!other_field(w, &r, tag, 10))
                return broken(w, "mapping", row);
        }
    }
    return define(w, MAPPING, id);
}

static bool value_type(struct walk *w, struct flue_bytes bytes, const char *what, uint64_t row,
                       uint64_t *type, uint64_t *unit)
{
    struct flue_reader r = flue_reader(bytes);
    uint64_t tag;
    *type = *unit = 0;
    while (r.at < r.end) {
        if (!next_tag(&r, &tag))
            return broken(w, what, row);
        if (tag != 1 << 3 && tag != 2 << 3) {
            if (!other_field(w, &r, tag, 2))
                return broken(w, what, row);
            continue;
        }
        struct flue_reader before = r;
        STRING(w, &r, what, row, tag == 1 << 3 ? ".type" : ".unit");
        varint(w, &before, tag == 1 << 3 ? type : unit);
    }
    return true;
}

/* The names of sample types are looked at while the strings pass: which row comes next? */
static void watch_next(struct walk *w)
{
    uint64_t known = w->types, next = UINT64_MAX;
    for (uint64_t i = 0; i < known; i++) {
        if (w->type_at[i].type >= w->strings && w->type_at[i].type < next)
            next = w->type_at[i].type;
        if (w->arena && w->type_at[i].unit >= w->strings && w->type_at[i].unit < next)
            next = w->type_at[i].unit;
    }
    w->watch = next;
}

static bool sample_type(struct walk *w, struct flue_bytes bytes)
{
    uint64_t type, unit;
    if (!value_type(w, bytes, "sample_type", w->facts->sample_types, &type, &unit))
        return false;
    uint64_t row = w->facts->sample_types++;
    if (row >= MAX_SAMPLE_TYPES) {
        w->code = flue_fail(w->error, FLUE_TOO_LARGE, "more than %d sample types",
                            MAX_SAMPLE_TYPES);
        return false;
    }
    if (w->types_known)
        return true;
    w->type_at[row].type = type;
    w->type_at[row].unit = unit;
    w->types = row + 1;
    if (type < w->strings || (w->arena && unit < w->strings)) {
        /* Its name has passed. Go on, to learn of all types; then run again. */
        w->again = true;
    }
    watch_next(w);
    return true;
}

static bool keep_name(struct walk *w, struct flue_bytes *to, struct flue_bytes s)
{
    if (!to || s.size == 0)
        return true;
    *to = flue_arena_copy(w->arena, s);
    if (to->data)
        return true;
    w->code = flue_fail(w->error, FLUE_NO_MEMORY, "no memory for sample type names");
    return false;
}

static bool watched_string(struct walk *w, struct flue_bytes s)
{
    for (uint64_t i = 0; i < w->types; i++) {
        if (w->type_at[i].type == w->strings) {
            if (flue_bytes_find(s, '-') != SIZE_MAX)
                w->facts->dash_in_sample_type = true;
            if (!keep_name(w, w->names ? &w->names[i].type : NULL, s))
                return false;
        }
        if (w->type_at[i].unit == w->strings && 
            !keep_name(w, w->names ? &w->names[i].unit : NULL, s))
            return false;
    }
    w->strings++;
    watch_next(w);
    w->strings--;
    return true;
}

static inline bool is_ascii(struct flue_bytes s)
{
    const uint8_t *at = s.data, *end = s.data + s.size;
    uint64_t all = 0, word;
    if (s.size < 8) {
        for (; at < end; at++)
            all |= *at;
        return (all & 0x80) == 0;
    }
    for (; end - at >= 8; at += 8) {
        memcpy(&word, at, 8);
        all |= word;
    }
    memcpy(&word, end - 8, 8);
    return ((all | word) & 0x8080808080808080u) == 0;
}

static inline bool string(struct walk *w, struct flue_bytes s)
{
    if (unlikely(w->strings == 0 && s.size > 0))
        return bad(w, "string_table[0]: must be empty, has %zu bytes", s.size);
    if (unlikely(!is_ascii(s)) && !w->facts->invalid_utf8 && !flue_utf8_valid(s))
        w->facts->invalid_utf8 = true;
    if (unlikely(w->strings == w->watch) && !watched_string(w, s))
        return false;
    w->strings++;
    return true;
}

static bool scalar(struct walk *w, uint64_t tag, struct flue_reader *r)
{
    static const char *const names[16] = {
        [7] = "drop_frames", [8] = "keep_frames", [9] = "time_nanos", [10] = "duration_nanos",
        [12] = "period", [13] = "comment", [14] = "default_sample_type", [15] = "doc_url",
    };
    const char *name = names[tag >> 3];
    uint64_t number;
    switch (tag >> 3) {
    case 9:
        NUMBER(w, r, name, (uint64_t)0, &number);
        if (number != 0 && w->facts->time_nanos != 0)
            return bad(w, "time_nanos: there twice (two profiles one behind the other?)");
        if (number != 0)
            w->facts->time_nanos = (int64_t)number;
        return true;
    case 10:
        NUMBER(w, r, name, (uint64_t)0, &number);
        w->facts->duration_nanos = (int64_t)number;
        return true;
    case 12:
        NUMBER(w, r, name, (uint64_t)0, &number);
        return true;
    default:
        STRING(w, r, name, (uint64_t)0, "");
        return true;
    }
}

static inline bool row(struct walk *w, unsigned number, struct flue_bytes bytes)
{
    switch (number) {
    case 1:
        return sample_type(w, bytes);
    case 2:
        return sample(w, bytes);
    case 3:
        return mapping(w, bytes);
    case 4:
        return location(w, bytes);
    case 5:
        return function(w, bytes);
    default:
        return string(w, bytes);
    }
}

static bool field(struct walk *w, struct flue_reader *r)
{
    struct flue_bytes bytes;
    uint64_t tag, type, unit;
    if (unlikely(!next_tag(r, &tag)))
        return bad(w, "a field with a broken tag");
    if (tag >> 3 >= 1 && tag >> 3 <= 6) {
        static const char *const names[7] = {"",         "sample_type", "sample",      "mapping",
                                             "location", "function",    "string_table"};
        if (unlikely((tag & 7) != FLUE_LEN || !length(w, r, &bytes)))
            return bad(w, "%s: broken protobuf (wire type %u)", names[tag >> 3],
                       (unsigned)(tag & 7));
        return row(w, (unsigned)(tag >> 3), bytes);
    }
    switch (tag) {
    case 11 << 3 | FLUE_LEN:
        if (!length(w, r, &bytes))
            return bad(w, "period_type: broken protobuf");
        return value_type(w, bytes, "period_type", 0, &type, &unit);
    case 13 << 3 | FLUE_LEN:
        if (!length(w, r, &bytes))
            return bad(w, "comment: broken protobuf");
        for (struct flue_reader run = flue_reader(bytes); run.at < run.end;)
            STRING(w, &run, "comment", (uint64_t)0, "");
        return true;
    case 7 << 3:
    case 8 << 3:
    case 9 << 3:
    case 10 << 3:
    case 12 << 3:
    case 13 << 3:
    case 14 << 3:
    case 15 << 3:
        return scalar(w, tag, r);
    default:
        if (!other_field(w, r, tag, 15))
            return bad(w, "field %u: broken protobuf (wire type %u)", (unsigned)(tag >> 3),
                       (unsigned)(tag & 7));
        return true;
    }
}

/* ---- the window ------------------------------------------------------------------------------- */

/* Size of the first field in `b` as far as its head tells: 0 when more bytes are needed to know,
 * SIZE_MAX when it can never be right (field() then says why). */
static size_t field_size(struct flue_bytes b)
{
    struct flue_reader r = flue_reader(b);
    uint64_t tag, size;
    const bool cut = b.size < 20;
    if (b.size == 0)
        return 0;
    if (!flue_read_varint(&r, &tag))
        return cut ? 0 : SIZE_MAX;
    switch (tag & 7) {
    case FLUE_VARINT:
        if (!flue_read_varint(&r, &size))
            return cut ? 0 : SIZE_MAX;
        return (size_t)(r.at - b.data);
    case FLUE_FIXED64:
        return (size_t)(r.at - b.data) + 8;
    case FLUE_FIXED32:
        return (size_t)(r.at - b.data) + 4;
    case FLUE_LEN:
        if (!flue_read_varint(&r, &size))
            return cut ? 0 : SIZE_MAX;
        if (size > SIZE_MAX / 2)
            return SIZE_MAX;
        return (size_t)(r.at - b.data) + (size_t)size;
    default:
        return SIZE_MAX;
    }
}

static bool carry_on(struct walk *w, struct flue_bytes b)
{
    if (w->carry_room - w->carry_size < b.size) {
        size_t room = w->carry_room ? w->carry_room * 2 : 4096;
        while (room - w->carry_size < b.size)
            room *= 2;
        uint8_t *grown = realloc(w->carry, room);
        if (!grown) {
            w->code = flue_fail(w->error, FLUE_NO_MEMORY, "no memory for a field of %zu bytes",
                                w->carry_size + b.size);
            return false;
        }
        w->carry = grown;
        w->carry_room = room;
    }
    memcpy(w->carry + w->carry_size, b.data, b.size);
    w->carry_size += b.size;
    return true;
}

static bool whole_fields(struct walk *w, struct flue_bytes *piece)
{
    w->safe = piece->size >= 8 ? piece->data + piece->size - 8 : NULL;
    while (piece->size > 0) {
        /* A row of a table whose tag and length are a byte each, or two for the length. */
        if (likely(piece->size >= 3 && (piece->data[0] & 0x87) == FLUE_LEN)) {
            const uint8_t *at = piece->data;
            unsigned number = at[0] >> 3;
            size_t head = at[1] < 0x80 ? 2 : 3;
            size_t body = at[1] < 0x80 ? at[1] : (at[1] & 0x7f) | (size_t)at[2] << 7;
            if (likely(number >= 1 && number <= 6 && (head == 2 || at[2] < 0x80) &&
                       body <= piece->size - head)) {
                if (unlikely(!row(w, number, flue_bytes(at + head, body))))
                    return false;
                *piece = flue_bytes(at + head + body, piece->size - head - body);
                continue;
            }
        }
        size_t size = field_size(*piece);
        if (size == 0 || (size > piece->size && size != SIZE_MAX))
            return true;
        struct flue_reader r = {piece->data,
                                size == SIZE_MAX ? piece->data + piece->size : piece->data + size};
        if (!field(w, &r))
            return false;
        *piece = flue_bytes_from(*piece, (size_t)(r.at - piece->data));
    }
    return true;
}

static enum flue_code feed(void *arg, struct flue_bytes piece, struct flue_error *error)
{
    struct walk *w = arg;
    w->seen += piece.size;
    while (w->carry_size > 0 && piece.size > 0) {
        struct flue_bytes held = flue_bytes(w->carry, w->carry_size);
        size_t size = field_size(held), more = 1;
        if (size > w->limits->inflated && size != SIZE_MAX) {
            return flue_fail(error, FLUE_TOO_LARGE,
                             "a field of %zu bytes is longer than a profile may be (%zu)", size,
                             w->limits->inflated);
        }
        if (size > held.size && size != SIZE_MAX)
            more = size - held.size < piece.size ? size - held.size : piece.size;
        if (size != SIZE_MAX) {
            if (!carry_on(w, flue_bytes_first(piece, more)))
                return w->code;
            piece = flue_bytes_from(piece, more);
        }
        held = flue_bytes(w->carry, w->carry_size);
        if (!whole_fields(w, &held))
            return w->code;
        if (held.size == 0)
            w->carry_size = 0;
    }
    if (!whole_fields(w, &piece))
        return w->code;
    if (piece.size > 0 && !carry_on(w, piece))
        return w->code;
    return FLUE_OK;
}

/* ---- passes ----------------------------------------------------------------------------------- */

static enum flue_code pass(struct walk *w, struct flue_bytes profile)
{
    enum flue_code code;
    memset(w->max_id, 0, sizeof w->max_id);
    memset(w->rows, 0, sizeof w->rows);
    w->max_string = w->samples = w->strings = w->values_first = 0;
    w->carry_size = w->seen = 0;
    w->again = false;
    bool gzip = w->facts->gzip;
    *w->facts = (struct flue_pprof_facts){.gzip = gzip};
    w->watch = UINT64_MAX;
    if (w->types_known)
        watch_next(w);
    else
        w->types = 0;
    if (gzip) {
        code = flue_inflate_windows(profile, w->limits->inflated, w->limits->ratio, feed, w,
                                    w->error);
    } else if (profile.size > w->limits->inflated) {
        code = flue_fail(w->error, FLUE_TOO_LARGE, "profile of %zu bytes, limit %zu", profile.size,
                         w->limits->inflated);
    } else {
        /* One piece: what is left over is a truncated field, and need not be carried. */
        struct flue_bytes rest = profile;
        w->seen = profile.size;
        code = whole_fields(w, &rest) ? FLUE_OK : w->code;
        w->carry_size = rest.size;
    }
    if (code != FLUE_OK)
        return code;
    if (w->again)
        return FLUE_INTERNAL;
    if (w->seen == 0)
        return flue_fail(w->error, FLUE_INVALID, "empty profile");
    if (w->carry_size > 0)
        return flue_fail(w->error, FLUE_INVALID,
                         "profile ends in the middle of a field, %zu bytes after its start",
                         w->carry_size);
    return FLUE_OK;
}

/* Everything compared that a pass could not: true when all holds. */
static bool resolved(const struct walk *w)
{
    if (w->max_string >= w->strings)
        return false;
    for (int table = LOCATION; table <= FUNCTION; table++)
        if (w->exact[table] ? w->unresolved[table] > 0 : w->max_id[table] > w->rows[table])
            return false;
    return true;
}

static enum flue_code run(struct walk *w, struct flue_bytes profile)
{
    /* At most: fast, one more for each of three tables and for late sample types, judge. */
    for (int tries = 0; tries < TABLES + 2; tries++) {
        for (int table = 0; table < TABLES; table++) {
            flue_ids_destroy(&w->ids[table]);
            w->unresolved[table] = 0;
        }
        enum flue_code code = pass(w, profile);
        if (code == FLUE_INTERNAL && w->again) {
            /* Types are all known only if the pass came to its end. */
            w->types_known = w->code != FLUE_INTERNAL;
            w->code = FLUE_OK;
            continue;
        }
        if (code != FLUE_OK)
            return code;
        if (w->samples > 0 && w->values_first != w->facts->sample_types)
            return flue_fail(w->error, FLUE_INVALID,
                             "sample[0].value: %" PRIu64 " values, but there are %" PRIu64
                             " sample types", w->values_first, w->facts->sample_types);
        if (w->strings == 0)
            return flue_fail(w->error, FLUE_INVALID,
                             "string_table: is empty, but entry 0 must be there (\"\")");
        if (resolved(w))
            return FLUE_OK;
        w->judging = true;
        w->string_limit = w->strings;
        for (int table = LOCATION; table <= FUNCTION; table++)
            w->id_limit[table] = w->rows[table];
        code = pass(w, profile);
        if (code != FLUE_OK)
            return code;
        break;
    }
    return flue_fail(w->error, FLUE_INTERNAL, "pprof check: passes disagree");
}

enum flue_code flue_pprof_check_types(struct flue_bytes profile,
                                      const struct flue_pprof_limits *limits,
                                      struct flue_pprof_facts *facts, struct flue_arena *arena,
                                      struct flue_pprof_type_name **names,
                                      struct flue_error *error)
{
    struct walk *w = calloc(1, sizeof *w);
    if (!w)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to check a profile");
    *facts = (struct flue_pprof_facts){0};
    w->limits = limits;
    w->error = error;
    w->facts = facts;
    w->string_limit = UINT64_MAX;
    for (int table = 0; table < TABLES; table++)
        w->id_limit[table] = UINT64_MAX;
    facts->gzip = profile.size >= 2 && profile.data[0] == 0x1f && profile.data[1] == 0x8b;

    enum flue_code code;
    if (arena &&
        !(w->names = flue_arena_zalloc(arena, MAX_SAMPLE_TYPES, sizeof *w->names))) {
        code = flue_fail(error, FLUE_NO_MEMORY, "no memory for sample type names");
    } else {
        w->arena = arena;
        code = run(w, profile);
    }
    facts->inflated_size = w->seen;
    facts->samples = w->samples;
    facts->strings = w->strings;
    facts->locations = w->rows[LOCATION];
    facts->functions = w->rows[FUNCTION];
    facts->mappings = w->rows[MAPPING];
    if (names)
        *names = w->names;
    for (int table = 0; table < TABLES; table++)
        flue_ids_destroy(&w->ids[table]);
    free(w->carry);
    free(w);
    return code;
}

enum flue_code flue_pprof_check(struct flue_bytes profile, const struct flue_pprof_limits *limits,
                                struct flue_pprof_facts *facts, struct flue_error *error)
{
    return flue_pprof_check_types(profile, limits, facts, NULL, NULL, error);
}
