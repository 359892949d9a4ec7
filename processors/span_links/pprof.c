/* pprof.c: profiles in pprof's form. A label of any form becomes span_id and trace_id in hex, the
 * only texts that Pyroscope keeps out of its series (pyroscope.md 4.1); what is spelled so already
 * stays as it is, byte for byte. A root's id beside them stays, as a number, which makes no series
 * either. The profile was checked when it came.
 *
 * Fields: Profile 2 sample, 6 string_table; Sample 3 label (1 key, 2 str, 3 num).
 */
#include <stdlib.h>
#include "collector/base/clock.h"
#include "collector/base/hash.h"
#include "processors/span_links/ids.h"
#include "processors/span_links/span_links.h"
#include "proto/pprof/rewrite.h"
#include "proto/wire/writer.h"

#define INFLATED_MOST ((size_t)64 << 20)
#define MEMORY_MOST   ((size_t)512 << 20)

struct made_text { /* behind the profile's own strings */
    char text[33];
    uint8_t size;
};

struct rewriting {
    struct span_links *self;
    struct flue_error *error;
    enum flue_code code;
    struct flue_arena arena; /* of one profile */
    uint64_t now_s;
    bool *concerned;         /* by profile: some sample is to be changed */
    size_t profile;          /* that is being looked at */
    struct flue_block *kept; /* the last one that is to be changed, inflated: mostly the only one */
    size_t kept_profile;
    struct flue_bytes raw;
    struct flue_bytes *strings;
    uint8_t *forms; /* by string: which form its label is of */
    size_t string_count, string_room;
    struct made_text *made;
    size_t made_count, made_room;
    struct flue_table table; /* of made */
    uint64_t span_key, trace_key;
    uint64_t linked;
};

static bool no_memory(struct rewriting *r)
{
    if (!r->code)
        r->code = flue_fail(r->error, FLUE_NO_MEMORY, "no memory to link samples to spans");
    return false;
}

struct label {
    uint64_t key, str;
    int64_t num;
};

static struct label label_read(struct flue_bytes content)
{
    struct flue_reader reader = flue_reader(content);
    struct flue_field_value field;
    struct label label = {0, 0, 0};

    while (flue_read_field(&reader, &field)) {
        if (field.number == 1)
            label.key = field.varint;
        else if (field.number == 2)
            label.str = field.varint;
        else if (field.number == 3)
            label.num = (int64_t)field.varint;
    }
    return label;
}

static bool read_strings(struct rewriting *r)
{
    struct flue_reader reader = flue_reader(r->raw);
    struct flue_field_value field;
    bool any = false;

    while (flue_read_field(&reader, &field)) {
        enum id_form form;
        if (field.number != 6 || field.type != FLUE_LEN)
            continue;
        form = id_form_of(field.bytes);
        any |= form != ID_NONE;
        if (form == ID_SPAN && !r->span_key)
            r->span_key = r->string_count;
        if (form == ID_TRACE && !r->trace_key)
            r->trace_key = r->string_count;
        if (!FLUE_ARENA_PUSH(&r->arena, r->strings, r->string_count, r->string_room, field.bytes))
            return no_memory(r);
    }
    if (!any)
        return false;
    r->forms = flue_arena_zalloc(&r->arena, r->string_count + 1, 1);
    if (!r->forms)
        return no_memory(r);
    for (size_t i = 0; i < r->string_count; i++)
        r->forms[i] = (uint8_t)id_form_of(r->strings[i]);
    return true;
}

static bool same(const void *rows, uint32_t row, const void *key)
{
    const struct made_text *a = (const struct made_text *)rows + row, *b = key;
    return a->size == b->size && memcmp(a->text, b->text, a->size) == 0;
}

/* The string's number; 0 without memory. */
static uint64_t text_row(struct rewriting *r, struct flue_bytes text)
{
    struct made_text made = {.size = (uint8_t)text.size};
    uint64_t hash = flue_hash(text);

    memcpy(made.text, text.data, text.size);
    uint32_t row = flue_table_find(&r->table, hash, same, r->made, &made);
    if (row != FLUE_TABLE_NONE)
        return r->string_count + row;
    if (!FLUE_ARENA_PUSH(&r->arena, r->made, r->made_count, r->made_room, made) ||
        !flue_table_insert(&r->table, hash, (uint32_t)r->made_count - 1)) {
        (void)no_memory(r);
        return 0;
    }
    return r->string_count + r->made_count - 1;
}

static enum id_form form_of(const struct rewriting *r, const struct label *label)
{
    return label->key < r->string_count ? r->forms[label->key] : ID_NONE;
}

struct told {
    struct id_link link;
    struct ids ids;
    uint32_t texts; /* 1 << form: there as text */
    uint32_t bad;   /* labels in impossible forms, or a second time */
};

/* The id that a label tells; false: none, or an impossible form. */
static bool id_of(const struct rewriting *r, const struct label *label, struct id *id)
{
    struct id_value value = {.is_text = label->str != 0, .number = label->num};
    enum id_form form = form_of(r, label);

    if (label->str < r->string_count)
        value.text = r->strings[label->str];
    return form != ID_NONE && id_read(form, &value, id);
}

/* What the labels of a sample tell; false: nothing of a span. */
static bool read_ids(const struct rewriting *r, struct flue_bytes sample, struct told *told)
{
    struct flue_reader reader = flue_reader(sample);
    struct flue_field_value field;

    *told = (struct told){.texts = 0};
    while (flue_read_field(&reader, &field)) {
        if (field.number != 3 || field.type != FLUE_LEN)
            continue;
        struct label label = label_read(field.bytes);
        struct id id;
        if (form_of(r, &label) == ID_NONE)
            continue;
        if (id_of(r, &label, &id) && ids_add(&told->ids, &id))
            told->texts |= label.str ? 1u << id.form : 0;
        else
            told->bad++;
    }
    ids_link(&told->ids, &told->link);
    return told->link.has_span || told->link.has_trace;
}

enum { TEXT = 2, NUMBER = 3 }; /* fields of a label */

static uint8_t *write_label(uint8_t *at, uint64_t key, uint32_t field, uint64_t value)
{
    at = flue_write_len_head(at, 3, 2 + flue_varint_size(key) + flue_varint_size(value));
    *at++ = (uint8_t)flue_tag(1, FLUE_VARINT);
    at = flue_write_varint(at, key);
    *at++ = (uint8_t)flue_tag(field, FLUE_VARINT);
    return flue_write_varint(at, value);
}

/* The key's string where the profile has none. */
static uint64_t key_row(struct rewriting *r, uint64_t *row, const char *name)
{
    if (!*row)
        *row = text_row(r, flue_bytes_of(name));
    return *row;
}

/* Is the label the one of its form that counts? */
static bool counts(const struct rewriting *r, const struct told *told, const struct label *label)
{
    struct id id;
    return id_of(r, label, &id) && told->ids.of[id.form].hi == id.hi &&
           told->ids.of[id.form].lo == id.lo;
}

/* Said by the link, and not in Pyroscope's words (which are texts). */
static bool goes(const struct rewriting *r, const struct told *told, const struct label *label)
{
    enum id_form form = form_of(r, label);
    bool own = (form == ID_SPAN || form == ID_TRACE) && label->str;
    return form != ID_NONE && !own && told->link.told & 1u << form &&
           !r->self->config->keep_labels && counts(r, told, label);
}

/* A text of its own for every request would be a series each. */
static bool is_root_text(const struct rewriting *r, const struct told *told,
                         const struct label *label)
{
    return label->str && form_of(r, label) == ID_DD_ROOT && !r->self->config->keep_labels &&
           counts(r, told, label);
}

static bool wants_span(const struct told *told)
{
    return told->link.has_span && !(told->texts & 1u << ID_SPAN);
}

static bool wants_trace(const struct told *told)
{
    return told->link.has_trace && !(told->texts & 1u << ID_TRACE);
}

static bool changes(const struct rewriting *r, const struct told *told)
{
    const uint32_t own = 1u << ID_SPAN | 1u << ID_TRACE;
    bool drops = told->link.told & ~(own & told->texts);
    bool root = told->texts & 1u << ID_DD_ROOT;
    return wants_span(told) || wants_trace(told) ||
           ((drops || root) && !r->self->config->keep_labels);
}

#define LABEL_MOST 32 /* bytes of a label without its texts */

/* What is missing as Pyroscope wants it. */
static uint8_t *write_ids(struct rewriting *r, uint8_t *at, const struct told *told)
{
    char hex[32];

    if (wants_span(told)) {
        flue_hex(flue_bytes(told->link.span, 8), hex);
        at = write_label(at, key_row(r, &r->span_key, "span_id"), TEXT,
                         text_row(r, flue_bytes(hex, 16)));
    }
    if (wants_trace(told)) {
        flue_hex(flue_bytes(told->link.trace, 16), hex);
        at = write_label(at, key_row(r, &r->trace_key, "trace_id"), TEXT,
                         text_row(r, flue_bytes(hex, 32)));
    }
    return at;
}

/* The sample's fields, edited, without its head. New ids stand before other labels, since the first
 * of a form counts. */
static uint8_t *write_fields(struct rewriting *r, uint8_t *at, struct flue_bytes sample,
                             const struct told *told)
{
    struct flue_reader reader = flue_reader(sample);
    struct flue_field_value field;
    bool ids_written = false, root_written = false;

    while (flue_read_field(&reader, &field)) {
        if (field.number == 3 && field.type == FLUE_LEN) {
            struct label label = label_read(field.bytes);
            if (!ids_written)
                at = write_ids(r, at, told);
            ids_written = true;
            if (goes(r, told, &label))
                continue;
            if (!root_written && is_root_text(r, told, &label)) {
                at = write_label(at, label.key, NUMBER, told->ids.of[ID_DD_ROOT].lo);
                root_written = true;
                continue;
            }
        }
        memcpy(at, field.tag_at, (size_t)(reader.at - field.tag_at));
        at += reader.at - field.tag_at;
    }
    return at;
}

static uint8_t *write_sample(struct rewriting *r, uint8_t *at, struct flue_bytes sample,
                             const struct told *told)
{
    uint8_t *content = at + 2, *end = write_fields(r, content, sample, told);
    size_t size = (size_t)(end - content), more = flue_varint_size(size) - 1;

    if (more) /* the head of most has two bytes */
        memmove(content + more, content, size);
    (void)flue_write_len_head(at, 2, size);
    r->linked++;
    return end + more;
}

static void remember(struct rewriting *r, const struct id_link *link)
{
    uint64_t span = span_number(flue_bytes(link->span, 8));
    if (span && seen_asked(r->self->seen))
        seen_add(r->self->seen, span, flue_bytes(link->trace, link->has_trace ? 16 : 0), r->now_s);
}

/* Which spans there are; true: some sample is to be changed. */
static bool look(struct rewriting *r)
{
    struct flue_reader reader = flue_reader(r->raw);
    struct flue_field_value field;
    bool concerned = false;
    struct told told;

    while (flue_read_field(&reader, &field)) {
        if (field.number != 2 || field.type != FLUE_LEN)
            continue;
        if (read_ids(r, field.bytes, &told)) {
            remember(r, &told.link);
            concerned |= changes(r, &told);
        }
        if (told.bad)
            flue_metric_add(r->self->impossible, told.bad);
    }
    return concerned;
}

static struct flue_block *write_profile(struct rewriting *r, struct flue_account *account)
{
    struct flue_reader reader = flue_reader(r->raw);
    struct flue_field_value field;
    size_t samples = 0;
    struct flue_block *block;
    uint8_t *at;

    while (flue_read_field(&reader, &field))
        samples += field.number == 2;
    /* A sample grows by its head, three labels, and the two texts of two. */
    block = flue_block_new(NULL, r->raw.size + samples * (8 + 3 * LABEL_MOST + 20 + 36) + 64);
    if (!block) {
        (void)no_memory(r);
        return NULL;
    }
    at = block->data;
    for (reader = flue_reader(r->raw); !r->code && flue_read_field(&reader, &field);) {
        struct told told;
        if (field.number == 2 && field.type == FLUE_LEN && read_ids(r, field.bytes, &told) &&
            changes(r, &told)) {
            at = write_sample(r, at, field.bytes, &told);
            continue;
        }
        memcpy(at, field.tag_at, (size_t)(reader.at - field.tag_at));
        at += reader.at - field.tag_at;
    }
    if (r->code) {
        flue_block_unref(block);
        return NULL;
    }
    for (size_t i = 0; i < r->made_count; i++)
        at = flue_write_len_field(at, 6, flue_bytes(r->made[i].text, r->made[i].size));
    block->size = (size_t)(at - block->data);
    if (account) /* data already taken must be able to leave */
        flue_block_recharge(block, account);
    flue_block_finish(block);
    return block;
}

/* The profile without its compression, and its strings' forms; false: it names no span, or
 * r->code. */
static bool open_profile(struct rewriting *r, const struct flue_pprof_profile *profile,
                         struct flue_block **inflated, struct flue_error *error)
{
    size_t most = profile->facts.inflated_size ? profile->facts.inflated_size : INFLATED_MOST;
    const struct flue_pprof_limits limits = {most, UINT32_MAX};

    r->strings = NULL;
    r->forms = NULL;
    r->made = NULL;
    r->string_count = r->string_room = r->made_count = r->made_room = 0;
    r->span_key = r->trace_key = 0;
    r->error = error;
    r->code = FLUE_OK;
    flue_arena_reset(&r->arena);
    *inflated = NULL;
    if (r->kept && r->kept_profile == r->profile) {
        *inflated = r->kept;
        r->kept = NULL;
        r->raw = flue_block_bytes(*inflated);
    } else {
        r->code =
            flue_pprof_raw(profile->bytes, &limits, r->self->account, inflated, &r->raw, error);
    }
    return r->code == FLUE_OK && read_strings(r);
}

static enum flue_code survey_profile(struct rewriting *r, const struct flue_pprof_profile *profile,
                                     struct flue_error *error)
{
    struct flue_block *inflated;

    if (open_profile(r, profile, &inflated, error) && look(r)) {
        r->concerned[r->profile] = true;
        flue_block_unref(r->kept);
        r->kept = inflated;
        r->kept_profile = r->profile;
    } else {
        flue_block_unref(inflated);
    }
    return r->code;
}

static enum flue_code rewrite_profile(void *arg, size_t series, struct flue_pprof_profile *profile,
                                      struct flue_block **out, struct flue_error *error)
{
    struct rewriting *r = arg;
    struct flue_block *inflated, *block = NULL;

    if (!r->concerned[r->profile]) {
        r->profile++;
        return FLUE_OK;
    }
    if (open_profile(r, profile, &inflated, error)) {
        if (flue_table_init(&r->table, &r->arena, 64))
            block = write_profile(r, r->self->account);
        else
            (void)no_memory(r);
    }
    flue_block_unref(inflated);
    if (block) {
        profile->bytes = flue_block_bytes(block);
        profile->facts.gzip = false;
        profile->facts.inflated_size = block->size;
        profile->facts.strings += r->made_count;
        profile->facts.all_labels += 2;
        profile->facts.sample_labels += 2;
        *out = block;
    }
    r->profile++;
    return r->code;
}

/* Which of the profiles are to be changed? Remembers their spans. */
static enum flue_code survey(struct rewriting *r, const struct flue_payload *payload,
                             bool *concerns, struct flue_error *error)
{
    size_t series_count = flue_pprof_series_count(payload), count = 0;
    enum flue_code code = FLUE_OK;

    for (size_t i = 0; i < series_count; i++)
        count += flue_pprof_series_at(payload, i)->profile_count;
    r->concerned = calloc(count + 1, sizeof *r->concerned);
    if (!r->concerned)
        return flue_fail(error, FLUE_NO_MEMORY, "no memory to link samples to spans");
    for (size_t i = 0; i < series_count && code == FLUE_OK; i++) {
        const struct flue_pprof_series *series = flue_pprof_series_at(payload, i);
        for (size_t j = 0; j < series->profile_count && code == FLUE_OK; j++) {
            code = survey_profile(r, &series->profiles[j], error);
            *concerns |= r->concerned[r->profile++];
        }
    }
    r->profile = 0;
    return code;
}

enum flue_code span_links_pprof(struct span_links *self, const struct flue_payload *payload,
                                struct flue_payload **out, struct flue_error *error)
{
    struct rewriting r = {.self = self, .now_s = seen_now(flue_monotonic_ns())};
    bool concerns = false;
    enum flue_code code;

    *out = NULL;
    flue_arena_init(&r.arena, MEMORY_MOST, 0);
    code = survey(&r, payload, &concerns, error);
    if (code == FLUE_OK && concerns)
        code = flue_pprof_rewrite(payload, self->account, rewrite_profile, &r, out, error);
    if (r.linked)
        flue_metric_add(self->linked, (int64_t)r.linked);
    flue_block_unref(r.kept);
    free(r.concerned);
    flue_arena_destroy(&r.arena);
    return code;
}
