/* payload.c: the life of an OTLP payload and its table of operations. */
#include "proto/otlp/payload.h"

#include <stdlib.h>
#include "proto/otlp/check.h"
#include "proto/otlp/dictionary.h"
#include "proto/otlp/trace.h"

void flue_otlp_index_unref(struct flue_otlp_index *index)
{
    if (!index || atomic_fetch_sub_explicit(&index->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (index->account)
        flue_account_release(index->account, index->bytes);
    flue_block_unref(index->body);
    flue_otlp_index_clear(index);
    free(index);
}

static void memory_unref(struct flue_otlp_memory *memory)
{
    while (memory && atomic_fetch_sub_explicit(&memory->refs, 1, memory_order_acq_rel) == 1) {
        struct flue_otlp_memory *parent = memory->parent;
        for (struct flue_otlp_owner *owner = memory->owners; owner; owner = owner->next)
            flue_block_unref(owner->block);
        if (memory->account)
            flue_account_release(memory->account, memory->charged);
        flue_arena_destroy(&memory->arena);
        free(memory);
        memory = parent;
    }
}

struct flue_payload *flue_otlp_payload_new(struct flue_otlp_index *index)
{
    struct flue_otlp_payload *payload = calloc(1, sizeof *payload);
    if (!payload)
        return NULL;
    payload->base.ops = &flue_otlp_ops;
    atomic_init(&payload->base.refs, 1);
    payload->base.signal = FLUE_PROFILES;
    payload->index = index;
    return &payload->base;
}

const struct flue_otlp_index *flue_otlp_index_of(const struct flue_payload *payload)
{
    return flue_otlp_payload(payload)->index;
}

static void destroy(struct flue_payload *base)
{
    struct flue_otlp_payload *payload = flue_otlp_payload(base);
    flue_payload_unref(base->other_form);
    memory_unref(payload->memory);
    flue_otlp_index_unref(payload->index);
    free(payload);
}

static bool copy_edits(struct flue_otlp_payload *to, const struct flue_otlp_payload *from)
{
    static const enum flue_otlp_place_kind kinds[] = {
        FLUE_OTLP_IN_REQUEST,  FLUE_OTLP_IN_DICTIONARY,     FLUE_OTLP_IN_RESOURCE_PROFILES,
        FLUE_OTLP_IN_RESOURCE, FLUE_OTLP_IN_SCOPE_PROFILES, FLUE_OTLP_IN_SCOPE,
        FLUE_OTLP_IN_PROFILE};
    const uint32_t counts[] = {1,
                               1,
                               from->index->resource_count,
                               from->index->resource_count,
                               from->index->scope_count,
                               from->index->scope_count,
                               from->index->profile_count};

    for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (!from->edits[kinds[k]])
            continue;
        for (uint32_t i = 0; i < counts[k]; i++) {
            struct flue_otlp_place place = {kinds[k], i};
            for (struct flue_otlp_edit *e = flue_otlp_edits(from, place); e; e = e->next)
                if (flue_otlp_edit_add(to, place, e->from, e->to, e->with, NULL) != FLUE_OK)
                    return false;
        }
    }
    memcpy(to->keys, from->keys, from->index->resource_count * sizeof *to->keys);
    memcpy(to->appended, from->appended, sizeof to->appended);
    return true;
}

static struct flue_payload *clone(const struct flue_payload *base, struct flue_error *error)
{
    const struct flue_otlp_payload *from = flue_otlp_payload(base);
    struct flue_payload *made = flue_otlp_payload_new(from->index);
    struct flue_otlp_payload *to = flue_otlp_payload(made);

    if (!made) {
        flue_fail(error, FLUE_NO_MEMORY, "out of memory for a copy of a payload");
        return NULL;
    }
    atomic_fetch_add_explicit(&from->index->refs, 1, memory_order_relaxed);
    made->ops = base->ops;
    made->signal = base->signal;
    if (!from->memory)
        return made;
    if (flue_otlp_edit_begin(to, error) != FLUE_OK) {
        flue_payload_unref(made);
        return NULL;
    }
    to->memory->parent = from->memory;
    atomic_fetch_add_explicit(&from->memory->refs, 1, memory_order_relaxed);
    to->memory->arena.budget = from->memory->arena.budget;
    if (!copy_edits(to, from)) {
        flue_otlp_no_room(to, error);
        flue_payload_unref(made);
        return NULL;
    }
    flue_otlp_edit_end(to);
    return made;
}

static size_t encoded_size(const struct flue_payload *base)
{
    struct flue_otlp_payload *payload = flue_otlp_payload(base);
    size_t size = atomic_load_explicit(&payload->size, memory_order_relaxed);
    struct flue_splice_step *steps;
    struct flue_arena arena;
    size_t count;

    if (!payload->edit_count)
        return payload->index->body->size;
    if (size)
        return size;
    flue_arena_init(&arena, 0, 0);
    if (flue_otlp_steps(payload, &arena, &steps, &count, &size, NULL) != FLUE_OK)
        size = payload->index->body->size;
    else
        atomic_store_explicit(&payload->size, size, memory_order_relaxed);
    flue_arena_destroy(&arena);
    return size;
}

static size_t held_size(const struct flue_payload *base)
{
    const struct flue_otlp_payload *payload = flue_otlp_payload(base);
    size_t size = sizeof *payload + sizeof *payload->index + payload->index->bytes +
                  payload->index->body->size;
    for (const struct flue_otlp_memory *m = payload->memory; m; m = m->parent)
        size += sizeof *m + m->arena.used;
    return size;
}

static enum flue_code slices(const struct flue_payload *base, struct flue_arena *arena,
                             struct flue_slices *out, struct flue_error *error)
{
    struct flue_otlp_payload *payload = flue_otlp_payload(base);
    struct flue_bytes body = flue_block_bytes(payload->index->body);
    struct flue_splice_step *steps;
    size_t count, size;
    enum flue_code code;

    if (!payload->edit_count)
        return flue_slices_add(out, arena, body)
                   ? FLUE_OK
                   : flue_fail(error, FLUE_NO_MEMORY, "out of memory for the list of slices");
    code = flue_otlp_steps(payload, arena, &steps, &count, &size, error);
    if (code != FLUE_OK)
        return code;
    atomic_store_explicit(&payload->size, size, memory_order_relaxed);
    return flue_splice_write(body, steps, count, arena, out, error);
}

static size_t resource_count(const struct flue_payload *base)
{
    return flue_otlp_payload(base)->index->resource_count;
}

/* What profiles and traces have in common: resources with attributes in an overlay. */
#define SHARED_OPS                                                                                 \
    .form = FLUE_FORM_OTLP, .name = "otlp", .destroy = destroy, .clone = clone,                    \
    .encoded_size = encoded_size, .held_size = held_size, .slices = slices,                        \
    .resource_count = resource_count, .attribute_get = flue_otlp_attribute_get,                    \
    .attribute_each = flue_otlp_attribute_each, .attributes_set = flue_otlp_attributes_set,        \
    .attribute_remove = flue_otlp_attribute_remove

const struct flue_payload_ops flue_otlp_ops = {SHARED_OPS, .merge = flue_otlp_merge,
                                               .split = flue_otlp_split};

const struct flue_payload_ops flue_trace_ops = {SHARED_OPS, .merge = flue_trace_merge,
                                                .split = flue_trace_split};
