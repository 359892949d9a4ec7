/* dictionary_copy.c: see dictionary_copy.h. Field numbers: profiles.proto and resource.proto, 1.10.
 */
#include "proto/otlp/dictionary_copy.h"
#include "proto/otlp/otlp.h"

static void field_raw(struct flue_out *body, const struct flue_otlp_fields *it,
                      const struct flue_field_value *f)
{
    flue_out_bytes(body, flue_bytes(f->tag_at, (size_t)(it->run.at - f->tag_at)));
}

/* A message with all its fields as they are; without any it is left out. */
static void message_copy(struct flue_otlp_copy *copy, uint32_t field, struct flue_otlp_place place)
{
    struct flue_otlp_fields it = flue_otlp_fields(copy->payload, place);
    size_t before = flue_out_size(copy->body), mark = flue_out_open(copy->body, field);
    struct flue_field_value f;

    while (flue_otlp_fields_next(&it, &f))
        field_raw(copy->body, &it, &f);
    if (flue_out_size(copy->body) == mark)
        flue_out_cut(copy->body, before);
    else
        flue_out_close(copy->body, mark);
}

/* Opens message `field`, begins it with a copy of `content`'s, which is its field 1, and with what
 * stands in `around` besides it and its list. Returns the mark to close it. */
static size_t open_around(struct flue_otlp_copy *copy, uint32_t field,
                          struct flue_otlp_place content, struct flue_otlp_place around)
{
    size_t mark = flue_out_open(copy->body, field);
    struct flue_otlp_fields it;
    struct flue_field_value f;

    message_copy(copy, 1, content);
    it = flue_otlp_fields(copy->payload, around);
    while (flue_otlp_fields_next(&it, &f))
        if (f.number > 2)
            field_raw(copy->body, &it, &f);
    return mark;
}

static void open_resource(struct flue_otlp_copy *copy, uint32_t resource)
{
    copy->resource = resource;
    copy->resource_mark =
        open_around(copy, 1, (struct flue_otlp_place){FLUE_OTLP_IN_RESOURCE, resource},
                    (struct flue_otlp_place){FLUE_OTLP_IN_RESOURCE_PROFILES, resource});
}

static void open_scope(struct flue_otlp_copy *copy, uint32_t scope)
{
    copy->scope = scope;
    copy->scope_mark = open_around(copy, 2, (struct flue_otlp_place){FLUE_OTLP_IN_SCOPE, scope},
                                   (struct flue_otlp_place){FLUE_OTLP_IN_SCOPE_PROFILES, scope});
}

static void value_type(struct flue_otlp_copy *copy, uint32_t field, struct flue_bytes content)
{
    struct flue_reader r = flue_reader(content);
    size_t mark = flue_out_open(copy->body, field);
    struct flue_field_value f;

    while (flue_read_field(&r, &f))
        if (f.type == FLUE_VARINT && f.number <= 2)
            flue_out_number(copy->body, f.number,
                            flue_otlp_map_row(copy->map, FLUE_OTLP_STRING, (uint32_t)f.varint));
    flue_out_close(copy->body, mark);
}

struct attributes {
    struct flue_otlp_copy *copy;
    size_t mark;
};

static void attribute_index(void *arg, uint32_t attribute)
{
    struct attributes *a = arg;
    uint32_t row = flue_otlp_map_row(a->copy->map, FLUE_OTLP_ATTRIBUTE, attribute);

    if (!a->mark)
        a->mark = flue_out_open(a->copy->body, 11);
    flue_out_varint(a->copy->body, row);
}

static void open_profile(struct flue_otlp_copy *copy, uint32_t profile)
{
    struct flue_otlp_fields it =
        flue_otlp_fields(copy->payload, (struct flue_otlp_place){FLUE_OTLP_IN_PROFILE, profile});
    struct attributes attributes = {copy, 0};
    struct flue_field_value f;

    copy->profile = profile;
    copy->profile_mark = flue_out_open(copy->body, 2);
    while (flue_otlp_fields_next(&it, &f)) {
        if ((f.number == 1 || f.number == 5) && f.type == FLUE_LEN)
            value_type(copy, f.number, f.bytes);
        else if (f.number != 2 && f.number != 11)
            field_raw(copy->body, &it, &f);
    }
    flue_otlp_profile_attributes(copy->payload, profile, attribute_index, &attributes);
    if (attributes.mark)
        flue_out_close(copy->body, attributes.mark);
}

void flue_otlp_copy_begin(struct flue_otlp_copy *copy, const struct flue_payload *payload,
                          struct flue_otlp_map *map, struct flue_out *body)
{
    *copy = (struct flue_otlp_copy){.payload = payload,
                                    .map = map,
                                    .body = body,
                                    .resource = FLUE_OTLP_NO_ROW,
                                    .scope = FLUE_OTLP_NO_ROW,
                                    .profile = FLUE_OTLP_NO_ROW};
}

void flue_otlp_copy_close(struct flue_otlp_copy *copy, const struct flue_otlp_profile *profile)
{
    if (copy->profile != FLUE_OTLP_NO_ROW && (!profile || copy->profile != profile->profile)) {
        flue_out_close(copy->body, copy->profile_mark);
        copy->profile = FLUE_OTLP_NO_ROW;
    }
    if (copy->scope != FLUE_OTLP_NO_ROW && (!profile || copy->scope != profile->scope)) {
        flue_out_close(copy->body, copy->scope_mark);
        copy->scope = FLUE_OTLP_NO_ROW;
    }
    if (copy->resource != FLUE_OTLP_NO_ROW && (!profile || copy->resource != profile->resource)) {
        flue_out_close(copy->body, copy->resource_mark);
        copy->resource = FLUE_OTLP_NO_ROW;
    }
}

void flue_otlp_copy_open(struct flue_otlp_copy *copy, const struct flue_otlp_profile *profile)
{
    if (copy->resource == FLUE_OTLP_NO_ROW)
        open_resource(copy, profile->resource);
    if (copy->scope == FLUE_OTLP_NO_ROW)
        open_scope(copy, profile->scope);
    if (copy->profile == FLUE_OTLP_NO_ROW)
        open_profile(copy, profile->profile);
}

void flue_otlp_copy_sample(struct flue_otlp_copy *copy, struct flue_bytes sample)
{
    struct flue_out *body = copy->body;
    struct flue_reader r = flue_reader(sample);
    size_t mark = flue_out_open(body, 2), packed = 0;
    struct flue_otlp_sample read;
    struct flue_field_value f;
    uint64_t number;

    flue_otlp_sample_read(sample, &read);
    flue_out_number(body, 1, flue_otlp_map_row(copy->map, FLUE_OTLP_STACK, read.stack_index));
    while (flue_otlp_numbers_next(&read.attribute_indices, &number)) {
        uint32_t row = flue_otlp_map_row(copy->map, FLUE_OTLP_ATTRIBUTE, (uint32_t)number);

        if (!packed)
            packed = flue_out_open(body, 2);
        flue_out_varint(body, row);
    }
    if (packed)
        flue_out_close(body, packed);
    flue_out_number(body, 3, flue_otlp_map_row(copy->map, FLUE_OTLP_LINK, read.link_index));
    while (flue_read_field(&r, &f))
        if (f.number == 4 || f.number == 5)
            flue_out_bytes(body, flue_bytes(f.tag_at, (size_t)(r.at - f.tag_at)));
    flue_out_close(body, mark);
}

enum flue_code flue_otlp_copy_finish(struct flue_out *body, const struct flue_otlp_tables *tables,
                                     struct flue_work *work, struct flue_payload **out,
                                     struct flue_error *error)
{
    struct flue_otlp_report report;
    struct flue_block *block;
    enum flue_code code;

    *out = NULL;
    flue_otlp_tables_write(tables, body);
    if (body->failed || tables->failed || tables->scratch.failed)
        return flue_work_failed(work, error);
    block = body->block;
    body->block = NULL;
    flue_block_finish(block);
    /* Charged after it is read: reading would refuse over the hard limit, and what is here already
     * must be able to leave. The index over it stays uncharged for that. */
    code = flue_otlp_read(block, out, &report, error);
    if (code == FLUE_OK && *out && work->account)
        flue_block_recharge(flue_otlp_index_of(*out)->body, work->account);
    if (code == FLUE_OK && *out && report.rejected_profiles) {
        flue_payload_unref(*out);
        *out = NULL;
        code =
            flue_fail(error, FLUE_INTERNAL, "a profile made here does not pass its own check: %s",
                      report.rejected_reason);
    }
    return code;
}
