/* overlay.c: the lists of edits and the edits that are not of attributes. */
#include "proto/otlp/payload.h"

#include <stdlib.h>
#include "proto/wire/writer.h"

#define APPEND_CHUNK 4096

struct flue_otlp_span flue_otlp_span(const struct flue_otlp_payload *payload,
                                     struct flue_otlp_place place)
{
    const struct flue_otlp_index *index = payload->index;
    switch (place.kind) {
    case FLUE_OTLP_IN_DICTIONARY:
        return index->dictionary;
    case FLUE_OTLP_IN_RESOURCE_PROFILES:
        return index->resources[place.number].at;
    case FLUE_OTLP_IN_RESOURCE:
        return index->resources[place.number].resource;
    case FLUE_OTLP_IN_SCOPE_PROFILES:
        return index->scopes[place.number].at;
    case FLUE_OTLP_IN_SCOPE:
        return index->scopes[place.number].scope;
    case FLUE_OTLP_IN_PROFILE:
        return index->profiles[place.number].at;
    default:
        return (struct flue_otlp_span){0, 0, (uint32_t)index->body->size};
    }
}

static uint32_t place_count(const struct flue_otlp_index *index, enum flue_otlp_place_kind kind)
{
    switch (kind) {
    case FLUE_OTLP_IN_RESOURCE_PROFILES:
    case FLUE_OTLP_IN_RESOURCE:
        return index->resource_count;
    case FLUE_OTLP_IN_SCOPE_PROFILES:
    case FLUE_OTLP_IN_SCOPE:
        return index->scope_count;
    case FLUE_OTLP_IN_PROFILE:
        return index->profile_count;
    default:
        return 1;
    }
}

enum flue_code flue_otlp_no_room(struct flue_otlp_payload *payload, struct flue_error *error)
{
    return flue_fail(error, FLUE_NO_MEMORY,
                     "edits of one request take over %zu bytes of memory, its limit",
                     payload->memory ? payload->memory->arena.budget : 0);
}

enum flue_code flue_otlp_edit_begin(struct flue_otlp_payload *payload, struct flue_error *error)
{
    if (flue_payload_shared(&payload->base))
        return flue_fail(error, FLUE_INTERNAL, "an edit of a payload that is shared");
    if (payload->base.other_form) {
        flue_payload_unref(payload->base.other_form);
        payload->base.other_form = NULL;
    }
    atomic_store_explicit(&payload->size, 0, memory_order_relaxed);
    if (!payload->memory || !payload->keys) {
        size_t budget = payload->index->body->size * 8;
        if (!payload->memory) {
            payload->memory = calloc(1, sizeof *payload->memory);
            if (!payload->memory)
                return flue_otlp_no_room(payload, error);
            atomic_init(&payload->memory->refs, 1);
            payload->memory->account = payload->index->account;
            flue_arena_init(&payload->memory->arena, budget < (4u << 20) ? 4u << 20 : budget, 0);
        }
        payload->keys = flue_arena_alloc(&payload->memory->arena,
                                         payload->index->resource_count * sizeof *payload->keys);
        if (!payload->keys)
            return flue_otlp_no_room(payload, error);
        for (uint32_t i = 0; i < payload->index->resource_count; i++)
            payload->keys[i] = payload->index->resources[i].keys;
    }
    return FLUE_OK;
}

void flue_otlp_edit_end(struct flue_otlp_payload *payload)
{
    struct flue_otlp_memory *memory = payload->memory;
    if (memory->account && memory->arena.used > memory->charged) {
        flue_account_charge_always(memory->account, memory->arena.used - memory->charged);
        memory->charged = memory->arena.used;
    }
}

/* Must `a`, which is there, stand before the new [from, to)? */
static bool stands_before(const struct flue_otlp_edit *a, uint32_t from, uint32_t to)
{
    return a->from < from || (a->from == from && (a->to == a->from || to > from));
}

enum flue_code flue_otlp_edit_add(struct flue_otlp_payload *payload, struct flue_otlp_place place,
                                  uint32_t from, uint32_t to, struct flue_bytes with,
                                  struct flue_error *error)
{
    struct flue_arena *arena = &payload->memory->arena;
    struct flue_otlp_edits *list;
    struct flue_otlp_edit *edit, **link;

    if (!payload->edits[place.kind]) {
        payload->edits[place.kind] = flue_arena_zalloc(
            arena, place_count(payload->index, place.kind), sizeof **payload->edits);
        if (!payload->edits[place.kind])
            return flue_otlp_no_room(payload, error);
    }
    list = &payload->edits[place.kind][place.number];
    edit = flue_arena_alloc(arena, sizeof *edit);
    if (!edit)
        return flue_otlp_no_room(payload, error);
    *edit = (struct flue_otlp_edit){NULL, from, to, with};
    payload->edit_count++;
    if (!list->last || stands_before(list->last, from, to)) {
        link = list->last ? &list->last->next : &list->first;
        list->last = edit;
    } else {
        for (link = &list->first; stands_before(*link, from, to); link = &(*link)->next)
            ;
    }
    edit->next = *link;
    *link = edit;
    return FLUE_OK;
}

enum flue_code flue_otlp_edit_own(struct flue_otlp_payload *payload, struct flue_block *owner,
                                  struct flue_error *error)
{
    struct flue_otlp_memory *memory = payload->memory;
    struct flue_otlp_owner *known = memory->owners;

    /* Neighbours mostly share an owner: a short look back is enough. */
    for (unsigned i = 0; known && i < 4; i++, known = known->next)
        if (known->block == owner)
            return FLUE_OK;
    known = flue_arena_alloc(&memory->arena, sizeof *known);
    if (!known)
        return flue_otlp_no_room(payload, error);
    *known = (struct flue_otlp_owner){memory->owners, flue_block_ref(owner)};
    memory->owners = known;
    return FLUE_OK;
}

enum flue_code flue_otlp_replace(struct flue_payload *base, struct flue_otlp_place place,
                                 uint32_t from, uint32_t to, struct flue_bytes with,
                                 struct flue_error *error)
{
    struct flue_otlp_payload *payload = flue_otlp_payload(base);
    struct flue_otlp_edit *last;
    struct flue_otlp_span span;
    struct flue_bytes copy = with;
    enum flue_code code;

    if (place.kind >= FLUE_OTLP_PLACE_KINDS ||
        place.number >= place_count(payload->index, place.kind))
        return flue_fail(error, FLUE_INTERNAL, "an edit in a message that does not exist");
    span = flue_otlp_span(payload, place);
    if (from < span.start || to < from || to > span.end)
        return flue_fail(error, FLUE_INTERNAL, "an edit of [%u, %u) outside its message [%u, %u)",
                         from, to, span.start, span.end);
    last = payload->edits[place.kind] ? payload->edits[place.kind][place.number].last : NULL;
    if (last && from < last->to) /* else behind them all, the usual case */
        for (const struct flue_otlp_edit *e = flue_otlp_edits(payload, place); e; e = e->next)
            if (from < e->to && to > e->from)
                return flue_fail(error, FLUE_INTERNAL, "an edit of [%u, %u) over another, [%u, %u)",
                                 from, to, e->from, e->to);
    code = flue_otlp_edit_begin(payload, error);
    if (code != FLUE_OK)
        return code;
    if (last && !with.size && !last->with.size && last->to == from && last->from < from) {
        last->to = to; /* neighbours taken out one after the other */
        return FLUE_OK;
    }
    if (with.size) {
        copy = flue_arena_copy(&payload->memory->arena, with);
        if (!copy.data)
            return flue_otlp_no_room(payload, error);
    }
    code = flue_otlp_edit_add(payload, place, from, to, copy, error);
    flue_otlp_edit_end(payload);
    return code;
}

/* What was put in place of exactly these bytes before, to be put in anew; NULL: nothing. */
static struct flue_otlp_edit *edit_of(const struct flue_otlp_payload *payload,
                                      struct flue_otlp_place place, uint32_t from, uint32_t to)
{
    struct flue_otlp_edit *edit = from < to ? flue_otlp_edits(payload, place) : NULL;
    while (edit && (edit->from != from || edit->to != to))
        edit = edit->next;
    return edit;
}

static enum flue_code put_anew(struct flue_otlp_payload *payload, struct flue_otlp_edit *edit,
                               struct flue_bytes with, struct flue_error *error)
{
    enum flue_code code = flue_otlp_edit_begin(payload, error);
    if (code != FLUE_OK)
        return code;
    if (with.size) {
        with = flue_arena_copy(&payload->memory->arena, with);
        if (!with.data)
            return flue_otlp_no_room(payload, error);
    }
    edit->with = with;
    flue_otlp_edit_end(payload);
    return FLUE_OK;
}

/* One row at the end of the dictionary. Rows that follow each other share one edit while there is
 * room behind the last one's bytes. */
static enum flue_code append(struct flue_otlp_payload *payload, enum flue_otlp_table table,
                             struct flue_bytes row, struct flue_error *error)
{
    struct flue_otlp_place place = {FLUE_OTLP_IN_DICTIONARY, 0};
    uint32_t end = payload->index->dictionary.end;
    size_t size = flue_len_field_size((uint32_t)table, row.size);
    uint8_t *at = payload->append_at;

    if (at && size <= (size_t)(payload->append_end - at)) {
        struct flue_otlp_edit *last = payload->edits[place.kind][0].last;
        payload->append_at = flue_write_len_field(at, (uint32_t)table, row);
        last->with.size += size;
    } else {
        size_t room = size > APPEND_CHUNK ? size : APPEND_CHUNK;
        enum flue_code code;
        at = flue_arena_alloc(&payload->memory->arena, room);
        if (!at)
            return flue_otlp_no_room(payload, error);
        code = flue_otlp_edit_add(payload, place, end, end, flue_bytes(at, size), error);
        if (code != FLUE_OK)
            return code;
        payload->append_at = flue_write_len_field(at, (uint32_t)table, row);
        payload->append_end = at + room;
    }
    payload->appended[table]++;
    return FLUE_OK;
}

enum flue_code flue_otlp_dictionary_append(struct flue_payload *base, enum flue_otlp_table table,
                                           struct flue_bytes row, uint32_t *index,
                                           struct flue_error *error)
{
    struct flue_otlp_payload *payload = flue_otlp_payload(base);
    enum flue_code code = flue_otlp_edit_begin(payload, error);
    uint32_t rows;

    if (code != FLUE_OK)
        return code;
    rows = payload->index->rows[table] + payload->appended[table];
    if (rows >= INT32_MAX || row.size > INT32_MAX)
        return flue_fail(error, FLUE_TOO_LARGE, "a dictionary table of over %d rows", INT32_MAX);
    if (rows == 0) {
        code = append(payload, table, flue_bytes(NULL, 0), error);
        rows = 1;
    }
    if (code == FLUE_OK)
        code = append(payload, table, row, error);
    if (code == FLUE_OK)
        *index = rows;
    flue_otlp_edit_end(payload);
    return code;
}

enum flue_code flue_otlp_dictionary_replace(struct flue_payload *base, enum flue_otlp_table table,
                                            uint32_t index, struct flue_bytes row,
                                            struct flue_error *error)
{
    struct flue_otlp_payload *payload = flue_otlp_payload(base);
    struct flue_otlp_span span = payload->index->dictionary;
    const uint8_t *body = payload->index->body->data;
    struct flue_reader reader = {body + span.start, body + span.end};
    struct flue_field_value field;
    uint32_t at = 0;

    while (flue_read_field(&reader, &field)) {
        size_t size = flue_len_field_size((uint32_t)table, row.size);
        struct flue_arena *arena;
        enum flue_code code;
        uint8_t *with;
        if (field.number != (uint32_t)table || at++ != index)
            continue;
        code = flue_otlp_edit_begin(payload, error);
        if (code != FLUE_OK)
            return code;
        arena = &payload->memory->arena;
        with = flue_arena_alloc(arena, size);
        if (!with)
            return flue_otlp_no_room(payload, error);
        flue_write_len_field(with, (uint32_t)table, row);
        code = flue_otlp_edit_add(payload, (struct flue_otlp_place){FLUE_OTLP_IN_DICTIONARY, 0},
                                  (uint32_t)(field.tag_at - body), (uint32_t)(reader.at - body),
                                  flue_bytes(with, size), error);
        flue_otlp_edit_end(payload);
        return code;
    }
    return flue_fail(error, FLUE_INTERNAL, "row %u of dictionary table %d, which has %u received",
                     index, (int)table, payload->index->rows[table]);
}

enum flue_code flue_otlp_samples_set(struct flue_payload *base, uint32_t profile,
                                     struct flue_bytes encoded, struct flue_error *error)
{
    struct flue_otlp_payload *payload = flue_otlp_payload(base);
    struct flue_otlp_place place = {FLUE_OTLP_IN_PROFILE, profile};
    const uint8_t *body = payload->index->body->data;
    struct flue_otlp_span span = flue_otlp_span(payload, place);
    struct flue_reader reader = {body + span.start, body + span.end};
    struct flue_field_value field;
    uint32_t from = 0, to = 0;
    bool put = false;
    enum flue_code code = FLUE_OK;

    /* Runs of neighbouring samples; there is mostly one. */
    for (bool more = true; more && code == FLUE_OK;) {
        more = flue_read_field(&reader, &field);
        if (more && field.number == 2) {
            from = to ? from : (uint32_t)(field.tag_at - body);
            to = (uint32_t)(reader.at - body);
        } else if (to) {
            struct flue_otlp_edit *before = edit_of(payload, place, from, to);
            struct flue_bytes with = put ? flue_bytes(NULL, 0) : encoded;
            code = before ? put_anew(payload, before, with, error)
                          : flue_otlp_replace(base, place, from, to, with, error);
            put = true;
            to = 0;
        }
    }
    if (code == FLUE_OK && !put)
        code = flue_otlp_replace(base, place, span.end, span.end, encoded, error);
    return code;
}

enum flue_code flue_otlp_profile_remove(struct flue_payload *base, uint32_t profile,
                                        struct flue_error *error)
{
    const struct flue_otlp_profile_index *p = &flue_otlp_payload(base)->index->profiles[profile];
    if (flue_otlp_profile_removed(base, profile))
        return FLUE_OK;
    return flue_otlp_replace(base, (struct flue_otlp_place){FLUE_OTLP_IN_SCOPE_PROFILES, p->scope},
                             p->at.tag, p->at.end, flue_bytes(NULL, 0), error);
}

enum flue_code flue_otlp_resource_remove(struct flue_payload *base, uint32_t resource,
                                         struct flue_error *error)
{
    struct flue_otlp_payload *payload = flue_otlp_payload(base);
    const struct flue_otlp_resource_index *r = &payload->index->resources[resource];
    struct flue_otlp_place request = {FLUE_OTLP_IN_REQUEST, 0};
    const struct flue_otlp_edit *e = flue_otlp_edits(payload, request);

    if (e && payload->edits[FLUE_OTLP_IN_REQUEST]->last->to <= r->at.tag)
        e = NULL;
    for (; e; e = e->next)
        if (e->from <= r->at.tag && e->to > r->at.tag)
            return FLUE_OK;
    return flue_otlp_replace(base, request, r->at.tag, r->at.end, flue_bytes(NULL, 0), error);
}
