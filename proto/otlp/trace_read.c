/* trace_read.c: a body of traces becomes a payload: one walk checks all that is known of it and
 * makes the index; what it finds in need of repair is spliced and walked again.
 *
 * The walk counts nothing for messages to people: where a fault is said, its path is found by a
 * second walk to its position.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "proto/otlp/check.h"
#include "proto/otlp/payload.h"
#include "proto/otlp/repair.h"
#include "proto/otlp/trace.h"
#include "proto/otlp/trace_schema.h"

#define INDEX_FACTOR 8 /* design.md, "Limits by default" */
#define INDEX_FLOOR  (1u << 20)
/* Messages around an AnyValue, and two levels for each of its own. */
#define DEPTH_MAX (8 + 2 * FLUE_OTLP_MAX_DEPTH)

struct reading {
    struct flue_block *body;
    struct flue_otlp_check check;
    struct flue_otlp_index *index;
    struct flue_trace_report *report;
    struct flue_error *error;
    enum flue_code code;
    bool bad_text, twice;
    const uint8_t *bad_id; /* of the span that is walked; NULL: none */
    uint32_t *bad_spans;
    size_t bad_count, bad_room;
};

/* ---- faults --------------------------------------------------------------------------------- */

/* "resource_spans[0].scope_spans[1].spans[3].trace_id" of the field whose tag is at `at`. */
static void path_to(struct flue_bytes body, const uint8_t *at, char *out, size_t size)
{
    enum flue_trace_message message = FLUE_TRACE_M_REQUEST;
    struct flue_reader reader = flue_reader(body);
    uint32_t seen[FLUE_TRACE_FIELDS] = {0};
    struct flue_field_value field;
    size_t used = 0;

    out[0] = 0;
    while (flue_read_field(&reader, &field) && used < size) {
        const struct flue_trace_field *known = flue_trace_known(message, field.number);
        uint32_t number = known->name ? seen[field.number]++ : 0;
        bool here = field.tag_at == at;
        bool inside = known->kind == FLUE_TRACE_F_MESSAGE && field.type == FLUE_LEN &&
                      at >= field.bytes.data && at < field.bytes.data + field.bytes.size;
        if (!known->name || (!here && !inside))
            continue;
        used += (size_t)snprintf(out + used, size - used, "%s%s", used ? "." : "", known->name);
        if (known->repeated && used < size)
            used += (size_t)snprintf(out + used, size - used, "[%u]", number);
        if (here)
            return;
        message = known->to;
        reader = flue_reader(field.bytes);
        memset(seen, 0, sizeof seen);
    }
}

static bool fault(struct reading *r, enum flue_code code, const uint8_t *at, const char *what)
{
    char path[300];
    path_to(flue_block_bytes(r->body), at, path, sizeof path);
    r->code = flue_fail(r->error, code, "%s%s%s (byte %zu of %zu)", path, path[0] ? ": " : "", what,
                        (size_t)(at - r->body->data), r->body->size);
    return false;
}

static bool bad_span(struct reading *r, uint32_t span)
{
    if (r->bad_count == r->bad_room) {
        size_t room = r->bad_room ? r->bad_room * 2 : 64;
        uint32_t *grown = realloc(r->bad_spans, room * sizeof *grown);
        if (!grown) {
            r->code = flue_fail(r->error, FLUE_NO_MEMORY, "out of memory to check a request");
            return false;
        }
        r->bad_spans = grown;
        r->bad_room = room;
    }
    if (!r->report->rejected_spans++) {
        struct flue_reader reader = {r->bad_id, r->body->data + r->body->size};
        struct flue_field_value field = {0};
        char path[300];
        path_to(flue_block_bytes(r->body), r->bad_id, path, sizeof path);
        (void)flue_read_field(&reader, &field);
        snprintf(r->report->rejected_reason, sizeof r->report->rejected_reason,
                 "%s: an id of %zu bytes; a trace id has 16, a span id 8", path, field.bytes.size);
    }
    r->bad_spans[r->bad_count++] = span;
    return true;
}

/* ---- the walk ------------------------------------------------------------------------------- */

static bool type_fits(unsigned kind, enum flue_wire_type type)
{
    switch (kind) {
    case FLUE_TRACE_F_UNKNOWN:
        return true;
    case FLUE_TRACE_F_NUMBER:
        return type == FLUE_VARINT;
    case FLUE_TRACE_F_FIXED64:
        return type == FLUE_FIXED64;
    case FLUE_TRACE_F_FIXED32:
        return type == FLUE_FIXED32;
    default:
        return type == FLUE_LEN;
    }
}

static bool walk(struct reading *r, enum flue_trace_message message, struct flue_bytes content,
                 unsigned depth);

/* Wire type and, but for messages, content. */
static bool one_field(struct reading *r, const struct flue_trace_field *known,
                      const struct flue_field_value *field)
{
    if (!type_fits(known->kind, field->type))
        return fault(r, FLUE_INVALID, field->tag_at, "another wire type than this field has");
    if (known->kind == FLUE_TRACE_F_STRING && !r->bad_text && !flue_utf8_valid(field->bytes))
        r->bad_text = true;
    if (known->kind == FLUE_TRACE_F_ID && field->bytes.size && field->bytes.size != known->to &&
        !r->bad_id)
        r->bad_id = field->tag_at;
    return true;
}

static bool ended(struct reading *r, const struct flue_reader *reader)
{
    return flue_reader_done(reader) ||
           fault(r, FLUE_INVALID, reader->at, "broken protobuf: not a whole field");
}

static bool walk(struct reading *r, enum flue_trace_message message, struct flue_bytes content,
                 unsigned depth)
{
    struct flue_reader reader = flue_reader(content);
    struct flue_field_value field;

    if (depth > DEPTH_MAX)
        return fault(r, FLUE_TOO_LARGE, content.data, "values nested too deep");
    while (flue_read_field(&reader, &field)) {
        const struct flue_trace_field *known = flue_trace_known(message, field.number);
        if (!one_field(r, known, &field) ||
            (known->kind == FLUE_TRACE_F_MESSAGE && !walk(r, known->to, field.bytes, depth + 1)))
            return false;
    }
    return ended(r, &reader);
}

/* Where a message that the index knows lies. The splice repairs its length behind a tag of one
 * byte. */
static bool span_of(struct reading *r, const struct flue_field_value *field,
                    struct flue_otlp_span *out)
{
    const uint8_t *base = r->body->data;
    if (*field->tag_at >= 0x80)
        return fault(r, FLUE_INVALID, field->tag_at, "a tag that is longer than it must be");
    *out = (struct flue_otlp_span){(uint32_t)(field->tag_at - base),
                                   (uint32_t)(field->bytes.data - base),
                                   (uint32_t)(field->bytes.data + field->bytes.size - base)};
    return true;
}

static struct flue_bytes key_of(struct flue_bytes key_value)
{
    struct flue_reader reader = flue_reader(key_value);
    struct flue_field_value field;
    struct flue_bytes key = {NULL, 0};
    while (flue_read_field(&reader, &field))
        if (field.number == 1)
            key = field.bytes;
    return key;
}

/* A Resource or Scope: `keys` is filled for the former. */
static bool head(struct reading *r, const struct flue_field_value *field,
                 enum flue_trace_message message, struct flue_otlp_span *at, uint64_t *keys)
{
    struct flue_reader reader = flue_reader(field->bytes);
    uint32_t number = message == FLUE_TRACE_M_RESOURCE ? 1 : 3, count = 0;
    struct flue_field_value inner;

    if (!type_fits(FLUE_TRACE_F_MESSAGE, field->type))
        return fault(r, FLUE_INVALID, field->tag_at, "another wire type than this field has");
    if (at->end)
        r->twice = true;
    if (!span_of(r, field, at) || !walk(r, message, field->bytes, 2))
        return false;
    while (flue_read_field(&reader, &inner)) {
        if (inner.number != number)
            continue;
        if (++count > FLUE_OTLP_MAX_ATTRIBUTES)
            return fault(r, FLUE_TOO_LARGE, field->tag_at, "over 1024 attributes, the limit");
        if (keys)
            *keys |= flue_attribute_bit(key_of(inner.bytes));
    }
    return true;
}

static bool no_index(struct reading *r)
{
    if (r->check.alarms & FLUE_OTLP_MEMORY)
        r->code = flue_fail(r->error, FLUE_NO_MEMORY, "out of memory for the index of a request");
    else
        r->code = flue_fail(r->error, FLUE_TOO_LARGE,
                            "the request of %zu bytes has so many resources, scopes or spans that "
                            "its index would take over %d times its size",
                            r->body->size, INDEX_FACTOR);
    return false;
}

static bool one_span(struct reading *r, const struct flue_field_value *field, uint32_t scope)
{
    struct flue_otlp_profile_index *span;

    if (field->type != FLUE_LEN)
        return fault(r, FLUE_INVALID, field->tag_at, "another wire type than this field has");
    span = flue_otlp_add_profile(&r->check);
    if (!span)
        return no_index(r);
    span->scope = scope;
    span->samples = 1;
    r->bad_id = NULL;
    if (!span_of(r, field, &span->at) || !walk(r, FLUE_TRACE_M_SPAN, field->bytes, 3))
        return false;
    r->index->scopes[scope].profiles++;
    return !r->bad_id || bad_span(r, r->index->profile_count - 1);
}

static bool one_scope(struct reading *r, const struct flue_field_value *field, uint32_t resource)
{
    struct flue_reader reader = flue_reader(field->bytes);
    struct flue_otlp_scope_index *scope;
    struct flue_field_value inner;
    uint32_t number = r->index->scope_count;

    if (field->type != FLUE_LEN)
        return fault(r, FLUE_INVALID, field->tag_at, "another wire type than this field has");
    scope = flue_otlp_add_scope(&r->check);
    if (!scope)
        return no_index(r);
    scope->resource = resource;
    scope->first_profile = r->index->profile_count;
    if (!span_of(r, field, &scope->at))
        return false;
    r->index->resources[resource].scopes++;
    while (flue_read_field(&reader, &inner)) {
        bool good;
        if (inner.number == 1)
            good = head(r, &inner, FLUE_TRACE_M_SCOPE, &r->index->scopes[number].scope, NULL);
        else if (inner.number == 2)
            good = one_span(r, &inner, number);
        else
            good = one_field(r, flue_trace_known(FLUE_TRACE_M_SCOPE_SPANS, inner.number), &inner);
        if (!good)
            return false;
    }
    return ended(r, &reader);
}

static bool one_resource(struct reading *r, const struct flue_field_value *field)
{
    struct flue_reader reader = flue_reader(field->bytes);
    struct flue_otlp_resource_index *resource;
    struct flue_field_value inner;
    uint32_t number = r->index->resource_count;

    if (field->type != FLUE_LEN)
        return fault(r, FLUE_INVALID, field->tag_at, "another wire type than this field has");
    resource = flue_otlp_add_resource(&r->check);
    if (!resource)
        return no_index(r);
    resource->first_scope = r->index->scope_count;
    if (!span_of(r, field, &resource->at))
        return false;
    while (flue_read_field(&reader, &inner)) {
        bool good;
        if (inner.number == 1)
            good = head(r, &inner, FLUE_TRACE_M_RESOURCE, &r->index->resources[number].resource,
                        &r->index->resources[number].keys);
        else if (inner.number == 2)
            good = one_scope(r, &inner, number);
        else
            good =
                one_field(r, flue_trace_known(FLUE_TRACE_M_RESOURCE_SPANS, inner.number), &inner);
        if (!good)
            return false;
    }
    return ended(r, &reader);
}

static bool walk_request(struct reading *r)
{
    struct flue_bytes body = flue_block_bytes(r->body);
    struct flue_reader reader = flue_reader(body);
    struct flue_field_value field;
    size_t limit = body.size * INDEX_FACTOR;

    flue_otlp_index_clear(r->index);
    r->check = (struct flue_otlp_check){.base = body.data,
                                        .index = r->index,
                                        .max_index = limit < INDEX_FLOOR ? INDEX_FLOOR : limit};
    r->bad_text = r->twice = false;
    r->bad_count = 0;
    r->report->rejected_spans = 0;
    while (flue_read_field(&reader, &field))
        if (field.number == 1 && !one_resource(r, &field))
            return false;
    r->index->samples = r->index->profile_count;
    return ended(r, &reader);
}

/* ---- repair --------------------------------------------------------------------------------- */

struct repair {
    const uint8_t *base;
    struct flue_arena arena;
    struct flue_splice_step *steps;
    size_t count, room;
    uint64_t repaired;
    bool failed;
};

static void put(struct repair *p, struct flue_splice_step step)
{
    if (!FLUE_ARENA_PUSH(&p->arena, p->steps, p->count, p->room, step))
        p->failed = true;
}

static void open_message(struct repair *p, unsigned depth, const struct flue_field_value *field)
{
    struct flue_reader tag = {field->tag_at, field->bytes.data};
    uint64_t unused;
    (void)flue_read_varint(&tag, &unused);
    put(p, (struct flue_splice_step){
               .message = true,
               .inside = (uint8_t)depth,
               .from = (uint32_t)(tag.at - p->base),
               .start = (uint32_t)(field->bytes.data - p->base),
               .to = (uint32_t)(field->bytes.data + field->bytes.size - p->base)});
}

static void repair_text(struct repair *p, unsigned depth, const struct flue_field_value *field)
{
    size_t size = flue_utf8_repaired_size(field->bytes);
    uint8_t *out = flue_arena_alloc(&p->arena, size);
    if (!out) {
        p->failed = true;
        return;
    }
    flue_utf8_repair(field->bytes, out);
    p->repaired++;
    open_message(p, depth, field);
    put(p,
        (struct flue_splice_step){.inside = (uint8_t)(depth + 1),
                                  .from = (uint32_t)(field->bytes.data - p->base),
                                  .to = (uint32_t)(field->bytes.data + field->bytes.size - p->base),
                                  .with = flue_bytes(out, size)});
}

/* The structure is right: the walk said so. */
static void repair_message(struct repair *p, enum flue_trace_message message,
                           struct flue_bytes content, unsigned depth)
{
    struct flue_reader reader = flue_reader(content);
    struct flue_field_value field;

    while (!p->failed && flue_read_field(&reader, &field)) {
        const struct flue_trace_field *known = flue_trace_known(message, field.number);
        if (known->kind == FLUE_TRACE_F_STRING && !flue_utf8_valid(field.bytes)) {
            repair_text(p, depth, &field);
        } else if (known->kind == FLUE_TRACE_F_MESSAGE) {
            size_t opened = p->count;
            open_message(p, depth, &field);
            repair_message(p, known->to, field.bytes, depth + 1);
            if (p->count == opened + 1)
                p->count--;
        }
    }
}

static bool repair(struct reading *r)
{
    struct flue_bytes body = flue_block_bytes(r->body);
    size_t budget = body.size * 8;
    struct repair p = {.base = body.data};

    flue_arena_init(&p.arena, budget < (4u << 20) ? 4u << 20 : budget, 0);
    repair_message(&p, FLUE_TRACE_M_REQUEST, body, 0);
    if (p.failed)
        r->code = flue_fail(r->error, p.arena.full ? FLUE_TOO_LARGE : FLUE_NO_MEMORY,
                            "repairing the text of a request takes over %zu bytes of memory",
                            p.arena.budget);
    else
        r->code = flue_otlp_rewrite(&r->body, p.steps, p.count, &p.arena, r->error);
    r->report->repaired_strings += p.repaired;
    flue_arena_destroy(&p.arena);
    return r->code == FLUE_OK;
}

/* ---- payload -------------------------------------------------------------------------------- */

static enum flue_code make(struct reading *r, struct flue_payload **out)
{
    struct flue_account *account = r->body->account;
    struct flue_payload *made;

    if (account && !flue_account_charge(account, r->index->bytes))
        return flue_fail(r->error, FLUE_OVERLOADED,
                         "no memory left for the index (%zu bytes) of a request", r->index->bytes);
    atomic_init(&r->index->refs, 1);
    made = flue_otlp_payload_new(r->index);
    if (!made) {
        if (account)
            flue_account_release(account, r->index->bytes);
        return flue_fail(r->error, FLUE_NO_MEMORY, "out of memory for a request");
    }
    made->ops = &flue_trace_ops;
    made->signal = FLUE_TRACES;
    r->index->account = account;
    r->index->body = r->body;
    r->body = NULL;
    r->index = NULL;
    for (size_t i = 0; i < r->bad_count; i++) {
        enum flue_code code = flue_otlp_profile_remove(made, r->bad_spans[i], r->error);
        if (code != FLUE_OK) {
            flue_payload_unref(made);
            return code;
        }
    }
    *out = made;
    return FLUE_OK;
}

static enum flue_code read_body(struct reading *r, struct flue_payload **out)
{
    uint32_t spans;

    if (r->body->size > INT32_MAX)
        return flue_fail(r->error, FLUE_TOO_LARGE, "a request of %zu bytes, limit %d",
                         r->body->size, INT32_MAX);
    if (!walk_request(r))
        return r->code;
    if (r->twice) {
        r->code = flue_otlp_join(&r->body, r->error);
        if (r->code != FLUE_OK || !walk_request(r))
            return r->code;
    }
    if (r->bad_text && (!repair(r) || !walk_request(r)))
        return r->code;
    spans = r->index->profile_count;
    if (r->bad_count && r->bad_count == spans)
        return flue_fail(r->error, FLUE_INVALID, "%s", r->report->rejected_reason);
    r->report->counts.profiles = r->report->counts.samples = spans - r->bad_count;
    return spans ? make(r, out) : FLUE_OK;
}

enum flue_code flue_trace_read(struct flue_block *body, struct flue_payload **out,
                               struct flue_trace_report *report, struct flue_error *error)
{
    struct reading r = {.body = body, .report = report, .error = error};
    enum flue_code code;

    *out = NULL;
    memset(report, 0, sizeof *report);
    report->counts.bytes = body->size;
    r.index = calloc(1, sizeof *r.index);
    code = r.index ? read_body(&r, out)
                   : flue_fail(error, FLUE_NO_MEMORY, "out of memory for the index of a request");
    free(r.bad_spans);
    if (r.index)
        flue_otlp_index_clear(r.index);
    free(r.index);
    flue_block_unref(r.body);
    return code;
}
