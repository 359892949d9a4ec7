/* pprof.c: profiles in pprof's form. A label of any form becomes span_id and trace_id in hex, the
 * only ones that Pyroscope keeps out of its series (pyroscope.md 4.1); what is spelled so already
 * stays as it is, byte for byte. The profile was checked when it came.
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
#define MOST_LABELS   64 /* of one sample that are looked at */

struct made_text { /* behind the profile's own strings */
    char text[33];
    uint8_t size;
};

struct rewriting {
    struct span_links *self;
    struct flue_error *error;
    enum flue_code code;
    struct flue_arena arena;
    uint64_t now_s;
    struct flue_bytes raw;
    struct flue_bytes *strings;
    uint8_t *forms; /* by string: which form its label is of */
    size_t string_count, string_room;
    struct made_text *made;
    size_t made_count, made_room;
    struct flue_table table; /* of made */
    uint64_t span_key, trace_key;
    bool foreign; /* a form that Pyroscope does not know as a span */
    bool changed;
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
        r->foreign |= form != ID_NONE && form != ID_SPAN && form != ID_TRACE;
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

/* What the labels of a sample tell; false: nothing of a span. `count_bad`: in one of the walks. */
static bool read_ids(struct rewriting *r, struct flue_bytes sample, struct id_link *link,
                     uint32_t *there, bool count_bad)
{
    struct flue_reader reader = flue_reader(sample);
    struct flue_field_value field;
    struct ids ids = {0};

    while (flue_read_field(&reader, &field)) {
        if (field.number != 3 || field.type != FLUE_LEN)
            continue;
        struct label label = label_read(field.bytes);
        enum id_form form = label.key < r->string_count ? r->forms[label.key] : ID_NONE;
        struct id_value value = {.is_text = label.str != 0, .number = label.num};
        if (form == ID_NONE)
            continue;
        if (label.str && label.str < r->string_count)
            value.text = r->strings[label.str];
        if (!ids_add(&ids, form, &value) && count_bad)
            flue_metric_add(r->self->impossible, 1);
    }
    *there = ids.there;
    ids_link(&ids, link);
    return link->has_span || link->has_trace;
}

static uint8_t *write_label(uint8_t *at, uint64_t key, uint64_t str)
{
    at = flue_write_len_head(at, 3, 2 + flue_varint_size(key) + flue_varint_size(str));
    *at++ = (uint8_t)flue_tag(1, FLUE_VARINT);
    at = flue_write_varint(at, key);
    *at++ = (uint8_t)flue_tag(2, FLUE_VARINT);
    return flue_write_varint(at, str);
}

/* The key's string where the profile has none. */
static uint64_t key_row(struct rewriting *r, uint64_t *row, const char *name)
{
    if (!*row)
        *row = text_row(r, flue_bytes_of(name));
    return *row;
}

#define LABELS_MOST 64 /* bytes of the two labels that are put in */

/* Labels of the link that are missing as Pyroscope wants them. */
static uint8_t *write_labels(struct rewriting *r, uint8_t *at, const struct id_link *link,
                             uint32_t there)
{
    char hex[32];

    if (link->has_span && !(there & 1u << ID_SPAN)) {
        flue_hex(flue_bytes(link->span, 8), hex);
        at = write_label(at, key_row(r, &r->span_key, "span_id"), text_row(r, flue_bytes(hex, 16)));
    }
    if (link->has_trace && !(there & 1u << ID_TRACE)) {
        flue_hex(flue_bytes(link->trace, 16), hex);
        at = write_label(at, key_row(r, &r->trace_key, "trace_id"),
                         text_row(r, flue_bytes(hex, 32)));
    }
    return at;
}

/* Said by the link now, and not in Pyroscope's words. A span_id that is a number is rewritten. */
static bool goes(const struct rewriting *r, const struct label *label, const struct id_link *link)
{
    enum id_form form = label->key < r->string_count ? r->forms[label->key] : ID_NONE;
    return form != ID_NONE && form != ID_SPAN && form != ID_TRACE && link->told & 1u << form &&
           !r->self->config->keep_labels;
}

static uint8_t *write_sample(struct rewriting *r, uint8_t *at, struct flue_bytes sample,
                             const struct id_link *link, uint32_t there)
{
    uint8_t labels[LABELS_MOST];
    size_t size = (size_t)(write_labels(r, labels, link, there) - labels), kept = 0;
    struct flue_reader reader = flue_reader(sample);
    struct flue_field_value field;

    /* The length first: two walks over a few labels are cheaper than moving. */
    while (flue_read_field(&reader, &field)) {
        if (field.number == 3 && field.type == FLUE_LEN) {
            struct label label = label_read(field.bytes);
            if (goes(r, &label, link))
                continue;
        }
        kept += (size_t)(reader.at - field.tag_at);
    }
    if (!size && kept == sample.size)
        return flue_write_len_field(at, 2, sample);
    r->changed = true;
    r->linked++;
    at = flue_write_len_head(at, 2, kept + size);
    for (reader = flue_reader(sample); flue_read_field(&reader, &field);) {
        if (field.number == 3 && field.type == FLUE_LEN) {
            struct label label = label_read(field.bytes);
            if (goes(r, &label, link))
                continue;
        }
        memcpy(at, field.tag_at, (size_t)(reader.at - field.tag_at));
        at += reader.at - field.tag_at;
    }
    memcpy(at, labels, size);
    return at + size;
}

static void remember(struct rewriting *r, const struct id_link *link)
{
    uint64_t span = span_number(flue_bytes(link->span, 8));
    if (span && seen_asked(r->self->seen))
        seen_add(r->self->seen, span, flue_bytes(link->trace, link->has_trace ? 16 : 0), r->now_s);
}

/* Nothing to write: only which spans there are. */
static void look(struct rewriting *r)
{
    struct flue_reader reader = flue_reader(r->raw);
    struct flue_field_value field;
    struct id_link link;
    uint32_t there;

    while (flue_read_field(&reader, &field))
        if (field.number == 2 && field.type == FLUE_LEN &&
            read_ids(r, field.bytes, &link, &there, true))
            remember(r, &link);
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
    /* A sample grows by its head and two labels, and has two strings of its own at most. */
    block = flue_block_new(NULL, r->raw.size + samples * (8 + 32 + 20 + 36) + 64);
    if (!block) {
        (void)no_memory(r);
        return NULL;
    }
    at = block->data;
    for (reader = flue_reader(r->raw); !r->code && flue_read_field(&reader, &field);) {
        struct id_link link;
        uint32_t there;
        if (field.number == 2 && field.type == FLUE_LEN &&
            read_ids(r, field.bytes, &link, &there, true)) {
            remember(r, &link);
            at = write_sample(r, at, field.bytes, &link, there);
            continue;
        }
        memcpy(at, field.tag_at, (size_t)(reader.at - field.tag_at));
        at += reader.at - field.tag_at;
    }
    if (r->code || !r->changed) {
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

static enum flue_code one_profile(void *arg, size_t series, struct flue_pprof_profile *profile,
                                  struct flue_block **out, struct flue_error *error)
{
    struct rewriting *r = arg;
    size_t most = profile->facts.inflated_size ? profile->facts.inflated_size : INFLATED_MOST;
    const struct flue_pprof_limits limits = {most, UINT32_MAX};
    struct flue_block *inflated = NULL, *block = NULL;

    r->strings = NULL;
    r->forms = NULL;
    r->made = NULL;
    r->string_count = r->string_room = r->made_count = r->made_room = 0;
    r->span_key = r->trace_key = 0;
    r->foreign = r->changed = false;
    r->error = error;
    flue_arena_reset(&r->arena);
    r->code = flue_pprof_raw(profile->bytes, &limits, r->self->account, &inflated, &r->raw, error);
    if (r->code == FLUE_OK && read_strings(r)) {
        if (!flue_table_init(&r->table, &r->arena, 64))
            (void)no_memory(r);
        else if (r->foreign && out)
            block = write_profile(r, r->self->account);
        else
            look(r);
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
    return r->code;
}

/* Is one of the profiles to be changed? Also remembers spans where none is. */
static enum flue_code survey(struct rewriting *r, const struct flue_payload *payload,
                             bool *concerns, struct flue_error *error)
{
    enum flue_code code = FLUE_OK;

    for (size_t i = 0; i < flue_pprof_series_count(payload) && code == FLUE_OK; i++) {
        const struct flue_pprof_series *series = flue_pprof_series_at(payload, i);
        for (size_t j = 0; j < series->profile_count && code == FLUE_OK; j++) {
            struct flue_pprof_profile profile = series->profiles[j];
            code = one_profile(r, i, &profile, NULL, error);
            *concerns |= r->foreign;
        }
    }
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
        code = flue_pprof_rewrite(payload, self->account, one_profile, &r, out, error);
    if (r.linked)
        flue_metric_add(self->linked, (int64_t)r.linked);
    flue_arena_destroy(&r.arena);
    return code;
}
