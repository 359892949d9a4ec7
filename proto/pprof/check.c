/* check.c: is this a pprof that every reader takes? One pass, in a bounded window.
 *
 * Rules: google/pprof's Parse and CheckValid, plus negative string indices and string_table[0]
 * (Pyroscope refuses them). Unknown mapping ids are taken as "no mapping", as google/pprof does.
 *
 * Fields come in any order (strings last, samples before their types), so limits are not known
 * while walking. The first pass keeps running maxima and compares them once, at the end. It holds
 * as long as ids are 1, 2, 3, ... in the order of their records, which nearly all writers do. Where
 * they are not, the pass is run again with sets of ids (exact). Where a comparison at the end
 * fails, it is run once more with the limits known, to name the field (judge). So only odd or bad
 * profiles cost more than one pass.
 */
#include "proto/pprof/check_walk.h"
#include "proto/pprof/check_ids.h"

#include <stdlib.h>

#include "collector/base/codec.h"

/* ---- records -------------------------------------------------------------------------------- */

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
    uint64_t tag, number, values = 0, labels = 0;
    w->text_labels = w->depth = 0;
    while (r.at < r.end) {
        if (unlikely(!next_tag(&r, &tag)))
            return broken(w, "sample", w->samples);
        switch (tag) {
        case 1 << 3:
            NUMBER(w, &r, "sample", w->samples, &number);
            if (!refer(w, LOCATION, number, w->samples, ".location_id"))
                return false;
            w->depth++;
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
            labels++;
            break;
        default:
            if (!other_field(w, &r, tag, 3))
                return broken(w, "sample", w->samples);
        }
    }
    if (w->samples == 0)
        w->values_first = values;
    else if (unlikely(values != w->values_first))
        return bad(w,
                   "sample[%" PRIu64 "].value: %" PRIu64 " values, but sample[0] has %" PRIu64
                   ": there must be one per sample type",
                   w->samples, values, w->values_first);
    w->samples++;
    if (w->text_labels > w->facts->sample_labels)
        w->facts->sample_labels = w->text_labels;
    if (labels > w->facts->all_labels)
        w->facts->all_labels = labels;
    if (w->depth > w->facts->depth)
        w->facts->depth = w->depth;
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
        w->code =
            flue_fail(w->error, FLUE_TOO_LARGE, "more than %d sample types", MAX_SAMPLE_TYPES);
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
        [7] = "drop_frames",          [8] = "keep_frames", [9] = "time_nanos",
        [10] = "duration_nanos",      [12] = "period",     [13] = "comment",
        [14] = "default_sample_type", [15] = "doc_url",
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

/* ---- the window ----------------------------------------------------------------------------- */

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

/* ---- passes --------------------------------------------------------------------------------- */

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
        code =
            flue_inflate_windows(profile, w->limits->inflated, w->limits->ratio, feed, w, w->error);
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
                             " sample types",
                             w->values_first, w->facts->sample_types);
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
                                      struct flue_pprof_type_name **names, struct flue_error *error)
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
    if (arena && !(w->names = flue_arena_zalloc(arena, MAX_SAMPLE_TYPES, sizeof *w->names))) {
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
