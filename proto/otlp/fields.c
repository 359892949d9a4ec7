/* fields.c: the content of indexed messages as edited. */
#include "proto/otlp/payload.h"

struct flue_otlp_fields flue_otlp_fields(const struct flue_payload *base,
                                         struct flue_otlp_place place)
{
    const struct flue_otlp_payload *payload = flue_otlp_payload(base);
    const uint8_t *body = payload->index->body->data;
    struct flue_otlp_span span = flue_otlp_span(payload, place);

    return (struct flue_otlp_fields){.run = {body + span.start, body + span.end},
                                     .end = body + span.end,
                                     .edits = flue_otlp_edits(payload, place),
                                     .base = body};
}

bool flue_otlp_fields_next(struct flue_otlp_fields *it, struct flue_field_value *f)
{
    for (;;) {
        if (it->resume) {
            if (it->run.at < it->run.end)
                return flue_read_field(&it->run, f);
            it->run = (struct flue_reader){it->resume, it->end};
            it->resume = NULL;
        }
        if (!it->edits || it->run.at < it->base + it->edits->from)
            return flue_read_field(&it->run, f);
        it->run = flue_reader(it->edits->with);
        it->resume = it->base + it->edits->to;
        it->edits = it->edits->next;
    }
}

static bool covered(const struct flue_otlp_payload *payload, enum flue_otlp_place_kind kind,
                    uint32_t number, struct flue_otlp_span span)
{
    const struct flue_otlp_edits *list =
        payload->edits[kind] ? &payload->edits[kind][number] : NULL;

    if (!list || !list->last || list->last->to <= span.tag)
        return false;
    for (const struct flue_otlp_edit *e = list->first; e && e->from <= span.tag; e = e->next)
        if (e->to > span.tag)
            return true;
    return false;
}

bool flue_otlp_profile_removed(const struct flue_payload *base, uint32_t profile)
{
    const struct flue_otlp_payload *payload = flue_otlp_payload(base);
    const struct flue_otlp_index *index = payload->index;
    const struct flue_otlp_profile_index *p = &index->profiles[profile];
    const struct flue_otlp_scope_index *s = &index->scopes[p->scope];

    return payload->edit_count &&
           (covered(payload, FLUE_OTLP_IN_SCOPE_PROFILES, p->scope, p->at) ||
            covered(payload, FLUE_OTLP_IN_RESOURCE_PROFILES, s->resource, s->at) ||
            covered(payload, FLUE_OTLP_IN_REQUEST, 0, index->resources[s->resource].at));
}

/* The same for positions that only grow: `edit` follows them. */
static bool covers(const struct flue_otlp_edit **edit, struct flue_otlp_span span)
{
    while (*edit && (*edit)->to <= span.tag)
        *edit = (*edit)->next;
    return *edit && (*edit)->from <= span.tag;
}

bool flue_otlp_each_profile(const struct flue_payload *base,
                            bool (*visit)(void *arg, const struct flue_otlp_profile *profile),
                            void *arg)
{
    const struct flue_otlp_payload *payload = flue_otlp_payload(base);
    const struct flue_otlp_index *index = payload->index;
    const struct flue_otlp_edit *in_request =
        flue_otlp_edits(payload, (struct flue_otlp_place){FLUE_OTLP_IN_REQUEST, 0});
    const struct flue_otlp_edit *in_resource = NULL, *in_scope = NULL;
    uint32_t resource = UINT32_MAX, scope = UINT32_MAX;
    bool resource_gone = false, scope_gone = false;

    for (uint32_t i = 0; i < index->profile_count; i++) {
        const struct flue_otlp_profile_index *p = &index->profiles[i];
        struct flue_otlp_place place = {FLUE_OTLP_IN_PROFILE, i};
        struct flue_otlp_profile profile = {
            .profile = i,
            .scope = p->scope,
            .resource = index->scopes[p->scope].resource,
            .samples = p->samples,
            .bytes = flue_bytes(index->body->data + p->at.start, p->at.end - p->at.start),
            .edited = flue_otlp_edits(payload, place) != NULL};
        if (profile.resource != resource) {
            resource = profile.resource;
            resource_gone = covers(&in_request, index->resources[resource].at);
            in_resource = flue_otlp_edits(
                payload, (struct flue_otlp_place){FLUE_OTLP_IN_RESOURCE_PROFILES, resource});
        }
        if (p->scope != scope) {
            scope = p->scope;
            scope_gone = covers(&in_resource, index->scopes[scope].at);
            in_scope = flue_otlp_edits(
                payload, (struct flue_otlp_place){FLUE_OTLP_IN_SCOPE_PROFILES, scope});
        }
        if (resource_gone || scope_gone || covers(&in_scope, p->at))
            continue;
        if (profile.edited) {
            struct flue_otlp_samples it = flue_otlp_samples(base, i);
            struct flue_bytes sample;
            for (profile.samples = 0; flue_otlp_samples_next(&it, &sample);)
                profile.samples++;
        }
        if (!visit(arg, &profile))
            return false;
    }
    return true;
}

struct flue_otlp_samples flue_otlp_samples(const struct flue_payload *payload, uint32_t profile)
{
    return (struct flue_otlp_samples){
        flue_otlp_fields(payload, (struct flue_otlp_place){FLUE_OTLP_IN_PROFILE, profile})};
}

bool flue_otlp_samples_next(struct flue_otlp_samples *it, struct flue_bytes *sample)
{
    struct flue_field_value field;
    while (flue_otlp_fields_next(&it->fields, &field)) {
        if (field.number == 2) {
            *sample = field.bytes;
            return true;
        }
    }
    return false;
}

static void value_type(struct flue_bytes message, uint32_t *type, uint32_t *unit)
{
    struct flue_reader reader = flue_reader(message);
    struct flue_field_value field;
    while (flue_read_field(&reader, &field)) {
        if (field.number == 1)
            *type = (uint32_t)field.varint;
        else if (field.number == 2)
            *unit = (uint32_t)field.varint;
    }
}

void flue_otlp_profile_read(const struct flue_payload *payload, uint32_t profile,
                            struct flue_otlp_profile_fields *out)
{
    struct flue_otlp_fields it =
        flue_otlp_fields(payload, (struct flue_otlp_place){FLUE_OTLP_IN_PROFILE, profile});
    struct flue_field_value field;

    memset(out, 0, sizeof *out);
    while (flue_otlp_fields_next(&it, &field)) {
        switch (field.number) {
        case 1:
            value_type(field.bytes, &out->sample_type, &out->sample_unit);
            break;
        case 3:
            out->time_unix_nano = field.varint;
            break;
        case 4:
            out->duration_nano = field.varint;
            break;
        case 5:
            value_type(field.bytes, &out->period_type, &out->period_unit);
            break;
        case 6:
            out->period = (int64_t)field.varint;
            break;
        case 7:
            out->profile_id = field.bytes;
            break;
        case 8:
            out->dropped_attributes_count = (uint32_t)field.varint;
            break;
        case 9:
            out->original_payload_format = field.bytes;
            break;
        case 10:
            out->original_payload = field.bytes;
            break;
        default:
            break;
        }
    }
}

void flue_otlp_profile_attributes(const struct flue_payload *payload, uint32_t profile,
                                  void (*visit)(void *arg, uint32_t attribute), void *arg)
{
    struct flue_otlp_fields it =
        flue_otlp_fields(payload, (struct flue_otlp_place){FLUE_OTLP_IN_PROFILE, profile});
    struct flue_field_value field;

    while (flue_otlp_fields_next(&it, &field)) {
        struct flue_reader run;
        uint64_t value;
        if (field.number != 11)
            continue;
        if (field.type == FLUE_VARINT) {
            visit(arg, (uint32_t)field.varint);
            continue;
        }
        run = flue_reader(field.bytes);
        while (flue_read_varint(&run, &value))
            visit(arg, (uint32_t)value);
    }
}

void flue_otlp_scope_read(const struct flue_payload *payload, uint32_t scope,
                          struct flue_otlp_scope_fields *out)
{
    struct flue_otlp_fields it =
        flue_otlp_fields(payload, (struct flue_otlp_place){FLUE_OTLP_IN_SCOPE, scope});
    struct flue_field_value field;

    memset(out, 0, sizeof *out);
    while (flue_otlp_fields_next(&it, &field)) {
        if (field.number == 1)
            out->name = field.bytes;
        else if (field.number == 2)
            out->version = field.bytes;
        else if (field.number == 4)
            out->dropped_attributes_count = (uint32_t)field.varint;
    }
    it = flue_otlp_fields(payload, (struct flue_otlp_place){FLUE_OTLP_IN_SCOPE_PROFILES, scope});
    while (flue_otlp_fields_next(&it, &field))
        if (field.number == 3)
            out->schema_url = field.bytes;
}

void flue_otlp_resource_read(const struct flue_payload *payload, uint32_t resource,
                             struct flue_bytes *schema_url, uint32_t *dropped_attributes_count)
{
    struct flue_otlp_fields it =
        flue_otlp_fields(payload, (struct flue_otlp_place){FLUE_OTLP_IN_RESOURCE, resource});
    struct flue_field_value field;

    *schema_url = flue_bytes(NULL, 0);
    *dropped_attributes_count = 0;
    while (flue_otlp_fields_next(&it, &field))
        if (field.number == 2)
            *dropped_attributes_count = (uint32_t)field.varint;
    it = flue_otlp_fields(payload,
                          (struct flue_otlp_place){FLUE_OTLP_IN_RESOURCE_PROFILES, resource});
    while (flue_otlp_fields_next(&it, &field))
        if (field.number == 3)
            *schema_url = field.bytes;
}
