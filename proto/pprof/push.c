/* push.c: push.v1.PushRequest, read and written; protobuf. See pprof.h.
 *
 *   PushRequest      { repeated RawProfileSeries series = 1; }
 *   RawProfileSeries { repeated LabelPair labels = 1; repeated RawSample samples = 2; }
 *   RawSample        { bytes raw_profile = 1; string ID = 2; }
 *   LabelPair        { string name = 1; string value = 2; }
 *
 * Annotations (field 3 of a series) are the distributor's own and dropped, as the server does.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "collector/base/codec.h"
#include "proto/pprof/repair.h"
#include "proto/pprof/series.h"
#include "proto/wire/writer.h"

struct reading {
    struct flue_block *body;
    const struct flue_pprof_limits *limits;
    bool trusted;
    size_t inflated_left; /* of the sum over the request */
    struct flue_pprof_builder *builder;
    struct flue_push_report *report;
    struct flue_error *error;
    enum flue_code reject_code; /* of the first rejected profile */
    uint64_t series;            /* rows so far */
    uint64_t taken;
};

static enum flue_code envelope(struct reading *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static enum flue_code envelope(struct reading *r, const char *format, ...)
{
    char text[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return flue_fail(r->error, FLUE_INVALID, "PushRequest.%s", text);
}

static void reject(struct reading *r, uint64_t profiles, enum flue_code code, const char *format,
                   ...) __attribute__((format(printf, 4, 5)));
static void reject(struct reading *r, uint64_t profiles, enum flue_code code, const char *format,
                   ...)
{
    va_list arguments;
    if (r->report->rejected_profiles == 0) {
        va_start(arguments, format);
        vsnprintf(r->report->rejected_reason, sizeof r->report->rejected_reason, format, arguments);
        va_end(arguments);
        r->reject_code = code;
    }
    r->report->rejected_profiles += profiles;
}

static bool two_fields(struct flue_bytes message, struct flue_bytes *first,
                       struct flue_bytes *second)
{
    struct flue_reader in = flue_reader(message);
    struct flue_field_value f;
    *first = *second = flue_bytes("", 0);
    while (flue_read_field(&in, &f)) {
        if (f.number > 2)
            continue;
        if (f.type != FLUE_LEN)
            return false;
        *(f.number == 1 ? first : second) = f.bytes;
    }
    return flue_reader_done(&in);
}

/* Checks one profile, repairs it where its strings need that, and gives it to the builder; the
 * first good one of a series begins it there. */
static enum flue_code one_profile(struct reading *r, struct flue_bytes bytes, struct flue_bytes id,
                                  uint64_t row, bool first)
{
    struct flue_pprof_profile profile = {.bytes = bytes, .id = id};
    struct flue_error why = {0};
    enum flue_code code = FLUE_OK;
    if (!flue_utf8_valid(id))
        profile.id = flue_bytes(NULL, 0);
    if (r->trusted) {
        profile.facts.gzip = bytes.size >= 2 && bytes.data[0] == 0x1f && bytes.data[1] == 0x8b;
        if (bytes.size == 0)
            code = flue_fail(&why, FLUE_INVALID, "empty profile");
    } else {
        struct flue_pprof_limits limits = *r->limits;
        if (limits.inflated > r->inflated_left)
            limits.inflated = r->inflated_left;
        code = flue_pprof_check(bytes, &limits, &profile.facts, &why);
        if (code == FLUE_TOO_LARGE && limits.inflated < r->limits->inflated)
            return flue_fail(r->error, FLUE_TOO_LARGE,
                             "PushRequest: its profiles have more than %zu bytes together",
                             r->limits->inflated);
        if (code == FLUE_OK)
            r->inflated_left -= profile.facts.inflated_size;
    }
    if (code == FLUE_OK && profile.facts.invalid_utf8) {
        struct flue_block *repaired;
        code = flue_pprof_repair(bytes, r->limits, r->body->account, &repaired, &why);
        if (code == FLUE_OK) {
            profile.bytes = flue_block_bytes(repaired);
            profile.facts.gzip = false;
            profile.facts.invalid_utf8 = false;
            profile.facts.inflated_size = repaired->size;
            flue_pprof_builder_keep(r->builder, repaired);
            flue_block_unref(repaired);
            r->report->repaired_profiles++;
        }
    }
    if (code == FLUE_NO_MEMORY) {
        if (r->error)
            *r->error = why;
        return code;
    }
    if (code != FLUE_OK) {
        reject(r, 1, code, "series[%" PRIu64 "].samples[%" PRIu64 "].raw_profile: %s", r->series,
               row, why.text);
        return FLUE_OK;
    }
    if (first)
        flue_pprof_builder_series(r->builder);
    flue_pprof_builder_profile(r->builder, &profile);
    r->taken++;
    return FLUE_OK;
}

/* Labels of one series, checked; *why is set (and FLUE_OK returned) when they refuse its profiles.
 */
static enum flue_code check_labels(struct reading *r, struct flue_bytes series, char *why,
                                   size_t why_size)
{
    struct flue_reader in = flue_reader(series);
    struct flue_field_value f;
    struct flue_bytes names[FLUE_PPROF_MAX_LABELS], name, value;
    char shown[80];
    size_t count = 0;
    bool named = false;
    why[0] = '\0';
    while (flue_read_field(&in, &f)) {
        if (f.number > 2)
            continue;
        if (f.type != FLUE_LEN)
            return envelope(r, "series[%" PRIu64 "]: field %u has wire type %d", r->series,
                            f.number, f.type);
        if (f.number != 1 || why[0])
            continue;
        if (!two_fields(f.bytes, &name, &value))
            return envelope(r, "series[%" PRIu64 "].labels[%zu]: broken protobuf", r->series,
                            count);
        if (count == FLUE_PPROF_MAX_LABELS) {
            snprintf(why, why_size, "more than %d labels", FLUE_PPROF_MAX_LABELS);
            continue;
        }
        flue_printable(name, shown, sizeof shown);
        if (name.size == 0)
            snprintf(why, why_size, "labels[%zu].name: is empty", count);
        else if (!flue_utf8_valid(name))
            snprintf(why, why_size, "labels[%zu].name: \"%s\" is not UTF-8", count, shown);
        for (size_t i = 0; i < count && !why[0]; i++)
            if (flue_bytes_equal(names[i], name))
                snprintf(why, why_size, "labels[%zu].name: \"%s\" is there twice", count, shown);
        if (flue_bytes_is(name, "__name__") && value.size > 0)
            named = true;
        names[count++] = name;
    }
    if (!flue_reader_done(&in))
        return envelope(r, "series[%" PRIu64 "]: broken protobuf", r->series);
    if (!why[0] && !named)
        snprintf(why, why_size, "labels: there is no __name__ (the profile's name)");
    return FLUE_OK;
}

static bool add_label(struct reading *r, struct flue_bytes name, struct flue_bytes value)
{
    if (flue_utf8_valid(value))
        return flue_pprof_builder_label(r->builder, name, value);
    struct flue_block *repaired = flue_block_new(NULL, flue_utf8_repaired_size(value));
    if (!repaired)
        return false;
    repaired->size = flue_utf8_repaired_size(value);
    flue_utf8_repair(value, repaired->data);
    bool good = flue_pprof_builder_label(r->builder, name, flue_block_bytes(repaired));
    flue_block_unref(repaired);
    return good;
}

static enum flue_code one_series(struct reading *r, struct flue_bytes series)
{
    struct flue_reader in = flue_reader(series);
    struct flue_field_value f;
    struct flue_bytes first, second;
    char why[240];
    uint64_t row = 0, before = r->taken;
    enum flue_code code = check_labels(r, series, why, sizeof why);
    if (code != FLUE_OK)
        return code;
    while (flue_read_field(&in, &f)) {
        if (f.number != 2)
            continue;
        if (!two_fields(f.bytes, &first, &second))
            return envelope(r, "series[%" PRIu64 "].samples[%" PRIu64 "]: broken protobuf",
                            r->series, row);
        if (why[0]) {
            reject(r, 1, FLUE_INVALID, "series[%" PRIu64 "].%s", r->series, why);
        } else {
            code = one_profile(r, first, second, row, r->taken == before);
            if (code != FLUE_OK)
                return code;
        }
        row++;
    }
    if (r->taken == before)
        return FLUE_OK;
    in = flue_reader(series);
    while (flue_read_field(&in, &f))
        if (f.number == 1 && two_fields(f.bytes, &first, &second))
            add_label(r, first, second);
    return FLUE_OK;
}

enum flue_code flue_push_read(struct flue_block *body, const struct flue_pprof_limits *limits,
                              bool trusted, struct flue_payload **out,
                              struct flue_push_report *report, struct flue_error *error)
{
    /* design.md, limits: decoded size 8 times the wire with a floor of 1 MiB */
    size_t budget = body->size < (1u << 17) ? 1u << 20 : body->size * 8;
    struct reading r = {.body = body,
                        .limits = limits,
                        .trusted = trusted,
                        .report = report,
                        .error = error,
                        .inflated_left = limits->inflated};
    struct flue_reader in = flue_reader(flue_block_bytes(body));
    struct flue_field_value f;
    enum flue_code code = FLUE_OK;
    *out = NULL;
    *report = (struct flue_push_report){0};
    r.builder = flue_pprof_builder_new_within(body->account, budget);
    if (!r.builder)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to read a PushRequest");
    flue_pprof_builder_keep(r.builder, body);
    while (code == FLUE_OK && flue_read_field(&in, &f)) {
        if (f.number != 1)
            continue;
        if (f.type != FLUE_LEN) {
            code = envelope(&r, "series[%" PRIu64 "]: wire type %d", r.series, f.type);
            break;
        }
        code = one_series(&r, f.bytes);
        r.series++;
    }
    if (code == FLUE_OK && !flue_reader_done(&in))
        code = envelope(&r, "series[%" PRIu64 "]: broken protobuf %zu bytes from the end", r.series,
                        (size_t)(in.end - in.at));
    if (code == FLUE_OK && r.taken == 0)
        code = report->rejected_profiles > 0
                   ? flue_fail(error, r.reject_code, "%s", report->rejected_reason)
                   : flue_fail(error, FLUE_INVALID, "PushRequest: no profiles received");
    if (code != FLUE_OK) {
        flue_pprof_builder_discard(r.builder);
        return code;
    }
    return flue_pprof_builder_finish(r.builder, out, &report->counts, error);
}

/* ---- writing -------------------------------------------------------------------------------- */

size_t flue_push_labels_size(const struct flue_pprof_label *labels, size_t count)
{
    return flue_pprof_labels_size(labels, count);
}

uint8_t *flue_push_labels_write(uint8_t *at, const struct flue_pprof_label *label, size_t count)
{
    for (; count > 0; count--, label++) {
        at = flue_write_len_head(at, 1,
                                 flue_len_field_size(1, label->name.size) +
                                     flue_len_field_size(2, label->value.size));
        at = flue_write_len_field(at, 1, label->name);
        at = flue_write_len_field(at, 2, label->value);
    }
    return at;
}

static enum flue_code write_series(struct flue_arena *arena, const struct flue_pprof_series *series,
                                   struct flue_slices *out, struct flue_error *error)
{
    size_t labels_size = flue_pprof_labels_size(series->labels, series->label_count);
    size_t size = labels_size, own = labels_size + 16;
    for (size_t i = 0; i < series->profile_count; i++) {
        const struct flue_pprof_profile *profile = &series->profiles[i];
        size += flue_pprof_profile_size(profile);
        own += 40 + profile->id.size;
    }
    uint8_t *at = flue_arena_alloc(arena, own), *from = at;
    if (!at)
        goto full;
    at = flue_write_len_head(at, 1, size);
    at = flue_push_labels_write(at, series->labels, series->label_count);
    for (size_t i = 0; i < series->profile_count; i++) {
        const struct flue_pprof_profile *profile = &series->profiles[i];
        size_t id = profile->id.size ? flue_len_field_size(2, profile->id.size) : 0;
        at = flue_write_len_head(at, 2, flue_len_field_size(1, profile->bytes.size) + id);
        at = flue_write_len_head(at, 1, profile->bytes.size);
        if (!flue_slices_add(out, arena, flue_bytes(from, (size_t)(at - from))) ||
            !flue_slices_add(out, arena, profile->bytes))
            goto full;
        from = at;
        if (id)
            at = flue_write_len_field(at, 2, profile->id);
    }
    if (flue_slices_add(out, arena, flue_bytes(from, (size_t)(at - from))))
        return FLUE_OK;
full:
    return flue_fail(error, FLUE_NO_MEMORY, "no room to write a series of %zu bytes", size);
}

enum flue_code flue_pprof_payload_slices(const struct flue_payload *payload,
                                         struct flue_arena *arena, struct flue_slices *out,
                                         struct flue_error *error)
{
    for (size_t i = 0; i < flue_pprof_series_count(payload); i++) {
        enum flue_code code = write_series(arena, flue_pprof_series_at(payload, i), out, error);
        if (code != FLUE_OK)
            return code;
    }
    return FLUE_OK;
}

enum flue_code flue_push_write(struct flue_arena *arena, const struct flue_pprof_label *labels,
                               size_t label_count, struct flue_bytes profile, struct flue_bytes id,
                               struct flue_slices *out, struct flue_error *error)
{
    struct flue_pprof_profile one = {.bytes = profile, .id = id};
    const struct flue_pprof_series series = {labels, label_count, &one, 1};
    return write_series(arena, &series, out, error);
}

static size_t sample_size(const struct flue_push_series *series)
{
    return flue_len_field_size(1, series->profile.size) +
           (series->id.size ? flue_len_field_size(2, series->id.size) : 0);
}

static size_t content_size(const struct flue_push_series *series)
{
    return series->labels.size + flue_len_field_size(2, sample_size(series));
}

uint8_t *flue_push_head_write(uint8_t *at, const struct flue_push_series *series)
{
    at = flue_write_len_head(at, 1, content_size(series));
    if (series->labels.size)
        memcpy(at, series->labels.data, series->labels.size);
    at = flue_write_len_head(at + series->labels.size, 2, sample_size(series));
    return flue_write_len_head(at, 1, series->profile.size);
}

uint8_t *flue_push_tail_write(uint8_t *at, const struct flue_push_series *series)
{
    return series->id.size ? flue_write_len_field(at, 2, series->id) : at;
}
