/* trace_split.c: traces joined and cut. Without a dictionary a join is one body behind the other,
 * which is how protobuf joins repeated fields; a part is the spans of a run, each under a copy of
 * what stands around it. Memory as for profiles (dictionary.h): charged even over the limit.
 */
#include <stdlib.h>
#include "proto/otlp/dictionary.h"
#include "proto/otlp/payload.h"
#include "proto/otlp/trace.h"
#include "proto/wire/writer.h"

/* The payload as edited in one new block. */
static enum flue_code flatten(struct flue_payload *const *payloads, size_t count,
                              struct flue_block **out, struct flue_error *error)
{
    struct flue_slices slices = {0};
    struct flue_arena arena;
    enum flue_code code = FLUE_OK;

    flue_arena_init(&arena, (size_t)256 << 20, 0);
    *out = NULL;
    for (size_t i = 0; i < count && code == FLUE_OK; i++)
        code = payloads[i]->ops->slices(payloads[i], &arena, &slices, error);
    if (code == FLUE_OK && slices.total > INT32_MAX)
        code = flue_fail(error, FLUE_TOO_LARGE, "traces of %zu bytes as one request, limit %d",
                         slices.total, INT32_MAX);
    if (code == FLUE_OK) {
        *out = flue_block_new(NULL, slices.total + 1);
        if (*out) {
            flue_slices_copy(&slices, (*out)->data);
            (*out)->size = slices.total;
            flue_block_finish(*out);
        } else {
            code = flue_fail(error, FLUE_NO_MEMORY, "out of memory for %zu bytes of traces",
                             slices.total);
        }
    }
    flue_arena_destroy(&arena);
    return code;
}

static enum flue_code read_again(struct flue_block *block, struct flue_account *account,
                                 struct flue_payload **out, struct flue_error *error)
{
    struct flue_trace_report report;
    enum flue_code code = flue_trace_read(block, out, &report, error);

    if (code == FLUE_OK && *out && account)
        flue_block_recharge(flue_otlp_index_of(*out)->body, account);
    return code;
}

enum flue_code flue_trace_merge(struct flue_payload *const *payloads, size_t count,
                                struct flue_account *account, struct flue_payload **out,
                                struct flue_error *error)
{
    struct flue_block *block;
    enum flue_code code = flatten(payloads, count, &block, error);

    *out = NULL;
    return code == FLUE_OK ? read_again(block, account, out, error) : code;
}

/* ---- cutting -------------------------------------------------------------------------------- */

struct cut {
    const struct flue_otlp_index *index;
    const uint8_t *body;
    uint32_t *scope_rest, *resource_rest; /* bytes of what stands beside the spans, by number */
    uint64_t max;
    bool by_bytes;
};

/* A part: spans [first, end). */
struct part {
    uint32_t first, end;
    struct flue_payload *payload;
};

static uint32_t size_of(struct flue_otlp_span span)
{
    return span.end - span.tag;
}

/* Bytes of the fields of a message other than `number`; copied to `out` unless that is NULL. */
static size_t rest_of(const struct cut *cut, struct flue_otlp_span span, uint32_t number,
                      uint8_t *out)
{
    struct flue_reader reader = {cut->body + span.start, cut->body + span.end};
    struct flue_field_value field;
    size_t size = 0;

    while (flue_read_field(&reader, &field)) {
        size_t bytes = (size_t)(reader.at - field.tag_at);
        if (field.number == number)
            continue;
        if (out)
            memcpy(out + size, field.tag_at, bytes);
        size += bytes;
    }
    return size;
}

static bool measure(struct cut *cut)
{
    const struct flue_otlp_index *index = cut->index;

    cut->scope_rest = calloc(index->scope_count + 1, sizeof *cut->scope_rest);
    cut->resource_rest = calloc(index->resource_count + 1, sizeof *cut->resource_rest);
    if (!cut->scope_rest || !cut->resource_rest)
        return false;
    for (uint32_t i = 0; i < index->scope_count; i++)
        cut->scope_rest[i] = (uint32_t)rest_of(cut, index->scopes[i].at, 2, NULL);
    for (uint32_t i = 0; i < index->resource_count; i++)
        cut->resource_rest[i] = (uint32_t)rest_of(cut, index->resources[i].at, 2, NULL);
    return true;
}

/* Content of a ScopeSpans with spans [first, end) of its own. */
static size_t scope_size(const struct cut *cut, uint32_t first, uint32_t end)
{
    size_t size = cut->scope_rest[cut->index->profiles[first].scope];

    for (uint32_t i = first; i < end; i++)
        size += size_of(cut->index->profiles[i].at);
    return size;
}

static uint32_t scope_end(const struct cut *cut, uint32_t first, uint32_t end)
{
    const struct flue_otlp_scope_index *scope =
        &cut->index->scopes[cut->index->profiles[first].scope];
    uint32_t last = scope->first_profile + scope->profiles;

    return last < end ? last : end;
}

static uint32_t resource_of(const struct cut *cut, uint32_t span)
{
    return cut->index->scopes[cut->index->profiles[span].scope].resource;
}

/* Content of a ResourceSpans with the spans from `first` on that are its own; *next is behind
 * them. */
static size_t resource_size(const struct cut *cut, uint32_t first, uint32_t end, uint32_t *next)
{
    uint32_t resource = resource_of(cut, first);
    size_t size = cut->resource_rest[resource];

    while (first < end && resource_of(cut, first) == resource) {
        uint32_t to = scope_end(cut, first, end);
        size += flue_len_field_size(2, scope_size(cut, first, to));
        first = to;
    }
    *next = first;
    return size;
}

static uint8_t *write_resource(const struct cut *cut, uint8_t *at, uint32_t first, uint32_t end)
{
    uint32_t next, resource = resource_of(cut, first);

    at = flue_write_len_head(at, 1, resource_size(cut, first, end, &next));
    at += rest_of(cut, cut->index->resources[resource].at, 2, at);
    while (first < next) {
        uint32_t to = scope_end(cut, first, next), scope = cut->index->profiles[first].scope;
        at = flue_write_len_head(at, 2, scope_size(cut, first, to));
        at += rest_of(cut, cut->index->scopes[scope].at, 2, at);
        for (; first < to; first++) {
            struct flue_otlp_span span = cut->index->profiles[first].at;
            memcpy(at, cut->body + span.tag, size_of(span));
            at += size_of(span);
        }
    }
    return at;
}

/* Fields of the request that are not known stay with the first part. */
static enum flue_code write_part(const struct cut *cut, struct part *part,
                                 struct flue_account *account, struct flue_error *error)
{
    struct flue_otlp_span request = {0, 0, (uint32_t)cut->index->body->size};
    bool whole = part->first == 0;
    size_t size = whole ? rest_of(cut, request, 1, NULL) : 0;
    struct flue_block *block;
    uint32_t next;
    uint8_t *at;

    for (uint32_t i = part->first; i < part->end; i = next)
        size += flue_len_field_size(1, resource_size(cut, i, part->end, &next));
    block = flue_block_new(NULL, size + 1);
    if (!block)
        return flue_fail(error, FLUE_NO_MEMORY, "out of memory for %zu bytes of traces", size);
    at = block->data;
    for (uint32_t i = part->first; i < part->end; i = next) {
        (void)resource_size(cut, i, part->end, &next);
        at = write_resource(cut, at, i, part->end);
    }
    if (whole)
        at += rest_of(cut, request, 1, at);
    block->size = (size_t)(at - block->data);
    flue_block_finish(block);
    return read_again(block, account, &part->payload, error);
}

#define HEADS 12 /* tag and length of a message that is opened again */

/* Where the part that begins at `first` ends: at least one span is in it. */
static uint32_t part_end(const struct cut *cut, uint32_t first)
{
    const struct flue_otlp_index *index = cut->index;
    uint32_t scope = UINT32_MAX, resource = UINT32_MAX, i = first;
    uint64_t used = 0;

    for (; i < index->profile_count; i++) {
        const struct flue_otlp_profile_index *span = &index->profiles[i];
        uint64_t more = 1;
        if (cut->by_bytes) {
            more = size_of(span->at);
            if (span->scope != scope)
                more += cut->scope_rest[span->scope] + HEADS;
            if (index->scopes[span->scope].resource != resource)
                more += cut->resource_rest[index->scopes[span->scope].resource] + HEADS;
        }
        if (i > first && used + more > cut->max)
            break;
        used += more;
        scope = span->scope;
        resource = index->scopes[scope].resource;
    }
    return i;
}

static void
give(const struct cut *cut, struct part *parts, size_t count, const struct flue_counts *total,
     void (*emit)(void *arg, struct flue_payload *part, const struct flue_counts *counts),
     void *arg)
{
    uint64_t all = 0, before = 0;

    for (size_t i = 0; i < count; i++)
        all += parts[i].payload->ops->encoded_size(parts[i].payload);
    for (size_t i = 0; i < count; i++) {
        uint64_t size = parts[i].payload->ops->encoded_size(parts[i].payload);
        uint64_t own = parts[i].end - parts[i].first, spans = cut->index->profile_count;
        struct flue_counts counts = {flue_share(total->profiles, parts[i].first, own, spans),
                                     flue_share(total->samples, parts[i].first, own, spans),
                                     flue_share(total->bytes, before, size, all)};
        before += size;
        emit(arg, parts[i].payload, &counts);
    }
}

static enum flue_code cut_all(struct cut *cut, struct part **parts, size_t *count,
                              struct flue_account *account, struct flue_error *error)
{
    size_t room = 0;

    if (!measure(cut))
        return flue_fail(error, FLUE_NO_MEMORY, "out of memory to cut traces");
    for (uint32_t at = 0; at < cut->index->profile_count; ++*count) {
        struct part part = {at, part_end(cut, at), NULL};
        enum flue_code code;
        if (*count == room) {
            struct part *grown = realloc(*parts, (room = room ? room * 2 : 16) * sizeof **parts);
            if (!grown)
                return flue_fail(error, FLUE_NO_MEMORY, "out of memory to cut traces");
            *parts = grown;
        }
        code = write_part(cut, &part, account, error);
        if (code != FLUE_OK)
            return code;
        (*parts)[*count] = part;
        at = part.end;
    }
    return FLUE_OK;
}

enum flue_code flue_trace_split(const struct flue_payload *payload, uint64_t max, bool by_bytes,
                                const struct flue_counts *total, struct flue_account *account,
                                void (*emit)(void *arg, struct flue_payload *part,
                                             const struct flue_counts *counts),
                                void *arg, struct flue_error *error)
{
    struct flue_payload *one = (struct flue_payload *)payload, *flat;
    struct part *parts = NULL;
    struct flue_block *block;
    struct cut cut = {.max = max ? max : 1, .by_bytes = by_bytes};
    enum flue_code code;
    size_t count = 0;

    code = flatten(&one, 1, &block, error);
    if (code == FLUE_OK)
        code = read_again(block, NULL, &flat, error);
    if (code != FLUE_OK || !flat)
        return code;
    cut.index = flue_otlp_index_of(flat);
    cut.body = cut.index->body->data;
    code = cut_all(&cut, &parts, &count, account, error);
    if (code == FLUE_OK)
        give(&cut, parts, count, total, emit, arg);
    for (size_t i = 0; code != FLUE_OK && i < count; i++)
        flue_payload_unref(parts[i].payload);
    free(parts);
    free(cut.scope_rest);
    free(cut.resource_rest);
    flue_payload_unref(flat);
    return code;
}
