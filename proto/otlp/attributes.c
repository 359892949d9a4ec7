/* attributes.c: the attributes of a resource or scope, seen and edited.
 *
 * Setting appends pre-encoded bytes at the end of the message; what they replace is taken out where
 * it stands. A set of which no key can be there (its filter says so) costs one look at the filter.
 */
#include "proto/otlp/payload.h"
#include "proto/wire/writer.h"

static struct flue_bytes key_of(struct flue_bytes key_value)
{
    struct flue_reader reader = flue_reader(key_value);
    struct flue_field_value field;
    struct flue_bytes key = {NULL, 0};
    while (flue_read_field(&reader, &field)) {
        if (field.number == 1) {
            key = field.bytes;
            if (field.tag_at == key_value.data && reader.at < reader.end && *reader.at == 0x12)
                break; /* the usual order */
        }
    }
    return key;
}

static bool find(const struct flue_payload *payload, struct flue_otlp_place place,
                 struct flue_bytes key, struct flue_bytes *key_value)
{
    uint32_t number = flue_otlp_attribute_field(place);
    struct flue_otlp_fields it = flue_otlp_fields(payload, place);
    struct flue_field_value field;

    while (flue_otlp_fields_next(&it, &field)) {
        if (field.number == number && flue_bytes_equal(key_of(field.bytes), key)) {
            *key_value = field.bytes;
            return true;
        }
    }
    return false;
}

bool flue_otlp_attribute_get(const struct flue_payload *base, size_t resource,
                             struct flue_bytes key, struct flue_value *out)
{
    const struct flue_otlp_payload *payload = flue_otlp_payload(base);
    struct flue_otlp_place place = {FLUE_OTLP_IN_RESOURCE, (uint32_t)resource};
    uint64_t keys =
        payload->keys ? payload->keys[resource] : payload->index->resources[resource].keys;
    struct flue_bytes key_value;
    struct flue_attribute attribute;

    if (!(keys & flue_attribute_bit(key)) || !find(base, place, key, &key_value))
        return false;
    flue_otlp_attribute_read(key_value, &attribute);
    *out = attribute.value;
    return true;
}

/* Of a key that stands twice the first counts; the others are not shown. */
static bool shown_before(const struct flue_payload *payload, struct flue_otlp_place place,
                         const struct flue_bytes *key_value, struct flue_bytes key)
{
    struct flue_bytes first;
    return find(payload, place, key, &first) && first.data != key_value->data;
}

static void each(const struct flue_payload *payload, struct flue_otlp_place place,
                 flue_attribute_visit visit, void *arg)
{
    uint32_t number = flue_otlp_attribute_field(place);
    struct flue_otlp_fields it = flue_otlp_fields(payload, place);
    struct flue_field_value field;
    uint64_t seen = 0;

    while (flue_otlp_fields_next(&it, &field)) {
        struct flue_attribute attribute;
        uint64_t bit;
        if (field.number != number)
            continue;
        flue_otlp_attribute_read(field.bytes, &attribute);
        bit = flue_attribute_bit(attribute.key);
        if (seen & bit && shown_before(payload, place, &field.bytes, attribute.key))
            continue;
        seen |= bit;
        if (!visit(arg, &attribute))
            return;
    }
}

void flue_otlp_attribute_each(const struct flue_payload *payload, size_t resource,
                              flue_attribute_visit visit, void *arg)
{
    each(payload, (struct flue_otlp_place){FLUE_OTLP_IN_RESOURCE, (uint32_t)resource}, visit, arg);
}

void flue_otlp_scope_attributes(const struct flue_payload *payload, uint32_t scope,
                                flue_attribute_visit visit, void *arg)
{
    each(payload, (struct flue_otlp_place){FLUE_OTLP_IN_SCOPE, scope}, visit, arg);
}

struct taking {
    struct flue_otlp_payload *payload;
    struct flue_otlp_place place;
    uint32_t number;
    struct flue_bytes key;
};

/* Takes the key out of what edits have put in: an edit is cut in two around it, and the second part
 * is looked at next. */
static enum flue_code take_from_edits(struct taking *t, struct flue_error *error)
{
    struct flue_otlp_edits *list = t->payload->edits[t->place.kind];
    struct flue_otlp_edit *edit = flue_otlp_edits(t->payload, t->place);

    while (edit) {
        struct flue_reader reader = flue_reader(edit->with);
        struct flue_field_value field;
        struct flue_otlp_edit *rest;
        bool found = false;
        while (!found && flue_read_field(&reader, &field))
            found = field.number == t->number && flue_bytes_equal(key_of(field.bytes), t->key);
        if (found) {
            rest = flue_arena_alloc(&t->payload->memory->arena, sizeof *rest);
            if (!rest)
                return flue_otlp_no_room(t->payload, error);
            *rest =
                (struct flue_otlp_edit){edit->next, edit->to, edit->to,
                                        flue_bytes(reader.at, (size_t)(reader.end - reader.at))};
            edit->with.size = (size_t)(field.tag_at - edit->with.data);
            edit->next = rest;
            t->payload->edit_count++;
            if (list[t->place.number].last == edit)
                list[t->place.number].last = rest;
        }
        edit = edit->next;
    }
    return FLUE_OK;
}

/* Takes the key out of the message as received. */
static enum flue_code take_from_body(struct taking *t, struct flue_error *error)
{
    struct flue_otlp_span span = flue_otlp_span(t->payload, t->place);
    const uint8_t *body = t->payload->index->body->data;
    struct flue_reader reader = {body + span.start, body + span.end};
    struct flue_field_value field;

    while (flue_read_field(&reader, &field)) {
        const struct flue_otlp_edit *edit = flue_otlp_edits(t->payload, t->place);
        uint32_t from = (uint32_t)(field.tag_at - body), to = (uint32_t)(reader.at - body);
        enum flue_code code;
        if (field.number != t->number || !flue_bytes_equal(key_of(field.bytes), t->key))
            continue;
        while (edit && edit->to <= from)
            edit = edit->next;
        if (edit && edit->from <= from)
            continue; /* gone already */
        code = flue_otlp_edit_add(t->payload, t->place, from, to, flue_bytes(NULL, 0), error);
        if (code != FLUE_OK)
            return code;
    }
    return FLUE_OK;
}

static enum flue_code take(struct flue_otlp_payload *payload, struct flue_otlp_place place,
                           struct flue_bytes key, struct flue_error *error)
{
    struct taking t = {payload, place, flue_otlp_attribute_field(place), key};
    enum flue_code code = take_from_edits(&t, error);
    return code == FLUE_OK ? take_from_body(&t, error) : code;
}

static struct flue_bytes item_bytes(const struct flue_attribute_set *set, size_t from, size_t to)
{
    uint32_t start = from ? set->encoded_ends[from - 1] : 0;
    return flue_bytes(set->encoded.data + start, set->encoded_ends[to - 1] - start);
}

/* Appends items [from, to) of the set. A scope has its attributes in another field: a copy. */
static enum flue_code append(struct flue_otlp_payload *payload, struct flue_otlp_place place,
                             const struct flue_attribute_set *set, size_t from, size_t to,
                             struct flue_error *error)
{
    uint32_t end = flue_otlp_span(payload, place).end;
    struct flue_bytes with = item_bytes(set, from, to);

    if (place.kind == FLUE_OTLP_IN_SCOPE) {
        with = flue_arena_copy(&payload->memory->arena, with);
        if (!with.data)
            return flue_otlp_no_room(payload, error);
        for (size_t i = from; i < to; i++) {
            size_t at =
                (i ? set->encoded_ends[i - 1] : 0) - (from ? set->encoded_ends[from - 1] : 0);
            ((uint8_t *)with.data)[at] = 0x1a;
        }
    }
    return flue_otlp_edit_add(payload, place, end, end, with, error);
}

static enum flue_code set_some(struct flue_otlp_payload *payload, struct flue_otlp_place place,
                               const struct flue_attribute_set *set, enum flue_set_mode mode,
                               uint64_t keys, struct flue_error *error)
{
    size_t run = 0; /* items [run, i) are to be appended */
    enum flue_code code = FLUE_OK;

    for (size_t i = 0; i < set->count && code == FLUE_OK; i++) {
        struct flue_bytes key = set->items[i].key, unused;
        bool there = keys & flue_attribute_bit(key) && find(&payload->base, place, key, &unused);
        bool wanted = there ? mode != FLUE_SET_INSERT : mode != FLUE_SET_UPDATE;
        if (there && wanted)
            code = take(payload, place, key, error);
        if (!wanted) {
            if (run < i && code == FLUE_OK)
                code = append(payload, place, set, run, i, error);
            run = i + 1;
        }
    }
    if (run < set->count && code == FLUE_OK)
        code = append(payload, place, set, run, set->count, error);
    return code;
}

static enum flue_code set_in(struct flue_payload *base, struct flue_otlp_place place,
                             const struct flue_attribute_set *set, enum flue_set_mode mode,
                             struct flue_block *set_owner, struct flue_error *error)
{
    struct flue_otlp_payload *payload = flue_otlp_payload(base);
    enum flue_code code;
    uint64_t *keys, here = UINT64_MAX; /* of a scope no filter is kept */

    if (set->count == 0)
        return FLUE_OK;
    code = flue_otlp_edit_begin(payload, error);
    if (code == FLUE_OK && set_owner)
        code = flue_otlp_edit_own(payload, set_owner, error);
    if (code != FLUE_OK)
        return code;
    keys = place.kind == FLUE_OTLP_IN_RESOURCE ? &payload->keys[place.number] : &here;
    if (*keys & set->keys)
        code = set_some(payload, place, set, mode, *keys, error);
    else if (mode != FLUE_SET_UPDATE)
        code = append(payload, place, set, 0, set->count, error);
    if (mode != FLUE_SET_UPDATE)
        *keys |= set->keys;
    flue_otlp_edit_end(payload);
    return code;
}

enum flue_code flue_otlp_attributes_set(struct flue_payload *payload, size_t resource,
                                        const struct flue_attribute_set *set,
                                        enum flue_set_mode mode, struct flue_block *set_owner,
                                        struct flue_error *error)
{
    return set_in(payload, (struct flue_otlp_place){FLUE_OTLP_IN_RESOURCE, (uint32_t)resource}, set,
                  mode, set_owner, error);
}

enum flue_code flue_otlp_scope_set(struct flue_payload *payload, uint32_t scope,
                                   const struct flue_attribute_set *set, enum flue_set_mode mode,
                                   struct flue_block *set_owner, struct flue_error *error)
{
    return set_in(payload, (struct flue_otlp_place){FLUE_OTLP_IN_SCOPE, scope}, set, mode,
                  set_owner, error);
}

static enum flue_code remove_in(struct flue_payload *base, struct flue_otlp_place place,
                                struct flue_bytes key, struct flue_error *error)
{
    struct flue_otlp_payload *payload = flue_otlp_payload(base);
    struct flue_bytes unused;
    enum flue_code code;

    if (!find(base, place, key, &unused))
        return FLUE_OK;
    code = flue_otlp_edit_begin(payload, error);
    if (code != FLUE_OK)
        return code;
    code = take(payload, place, key, error);
    flue_otlp_edit_end(payload);
    return code;
}

enum flue_code flue_otlp_attribute_remove(struct flue_payload *payload, size_t resource,
                                          struct flue_bytes key, struct flue_error *error)
{
    return remove_in(payload, (struct flue_otlp_place){FLUE_OTLP_IN_RESOURCE, (uint32_t)resource},
                     key, error);
}

enum flue_code flue_otlp_scope_attribute_remove(struct flue_payload *payload, uint32_t scope,
                                                struct flue_bytes key, struct flue_error *error)
{
    return remove_in(payload, (struct flue_otlp_place){FLUE_OTLP_IN_SCOPE, scope}, key, error);
}
